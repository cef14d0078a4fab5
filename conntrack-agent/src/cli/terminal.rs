//! The terminal that somebody reads on, and text that is safe for it.

use std::{
    borrow::Cow,
    ffi::OsStr,
    io::{self, IsTerminal as _},
};

/// The terminal that somebody reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terminal {
    /// The width in columns.
    pub(super) width: u16,
    /// Whether to use colours.
    pub(super) colours: bool,
}

impl Terminal {
    /// Returns the terminal that stdout is, if it is one.
    pub(super) fn of_stdout() -> Option<Self> {
        /// The width of a terminal that doesn't tell its own.
        const USUAL_WIDTH: u16 = 80;
        if !io::stdout().is_terminal() {
            return None;
        }
        let width = comfy_table::Table::new().width().filter(|width| *width > 0);
        let variable = |name| std::env::var_os(name);
        Some(Self {
            width: width.unwrap_or(USUAL_WIDTH),
            colours: colours(variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
        })
    }
}

/// Returns whether to use colours, by these variables of the environment. `NO_COLOR`
/// counts if it is set, and not to nothing (<https://no-color.org>).
fn colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Writes out the characters of a text from elsewhere that a terminal would obey.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_active) {
        let escaped = |character: char| -> String {
            if is_active(character) {
                character.escape_unicode().to_string()
            } else {
                character.into()
            }
        };
        text.chars().map(escaped).collect::<String>().into()
    } else {
        text.into()
    }
}

/// Returns whether a terminal obeys a character: a control character, or one that turns
/// the direction of what follows (Unicode, UAX 9: explicit directional formatting).
fn is_active(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_wanted_unless_the_environment_says_otherwise() {
        let wanted = |no_color: Option<&str>, term: Option<&str>| {
            colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(None, None));
        assert!(wanted(None, Some("xterm-256color")));
        assert!(wanted(Some(""), Some("xterm")));
        assert!(!wanted(Some("1"), Some("xterm")));
        assert!(!wanted(Some("0"), None), "any value counts");
        assert!(!wanted(None, Some("dumb")));
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for plain in ["", "ftp on tcp port 21", "Müller, 日本"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
        for (given, printed) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\tc\0", "a\\u{a}b\\u{9}c\\u{0}"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}"),
            ("\u{202e}x\u{2069}", "\\u{202e}x\\u{2069}"),
        ] {
            assert_eq!(printable(given), printed);
        }
    }
}
