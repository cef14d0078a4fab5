//! Tables of rows as text, with placeholders for what a test has made.

/// The placeholders of a table and what they stand for: `$router` for a router's id, say.
#[derive(Clone, Debug, Default)]
pub struct Placeholders(Vec<(&'static str, String)>);

impl Placeholders {
    /// Returns no placeholders.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a placeholder, which is written with its `$`. Its value may have others in it
    /// that are there already.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        let value = self.fill(&value.to_string());
        self.0.push((name, value));
        // The longest first: one may begin with another.
        self.0.sort_by_key(|(name, _)| usize::MAX - name.len());
        self
    }

    /// Replaces the placeholders in a text.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let names = self.0.iter();
        names.fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }

    /// Returns the rows of a table, each the cells between its bars; empty lines are none.
    #[must_use]
    pub fn rows(&self, table: &str) -> Vec<Vec<String>> {
        let lines = table.lines().filter(|line| !line.trim().is_empty());
        let cells = |line: &str| line.split('|').map(|cell| self.fill(cell.trim())).collect();
        lines.map(cells).collect()
    }
}
