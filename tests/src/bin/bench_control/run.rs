//! What was measured with one number of rules.

use std::collections::BTreeMap;

use conntrack_agent::port_table::Capacity;
use conntrack_tests::bench::samples::Samples;

/// Everything about one number of rules.
pub(crate) struct Run {
    pub(crate) rules: usize,
    pub(crate) rounds: usize,
    pub(crate) maps: Option<Capacity>,
    pub(crate) notes: Vec<String>,
    series: BTreeMap<String, Samples>,
}

impl Run {
    pub(crate) fn new(rules: usize) -> Self {
        Self {
            rules,
            rounds: 0,
            maps: None,
            notes: Vec::new(),
            series: BTreeMap::new(),
        }
    }

    /// The times of one thing, to add to.
    pub(crate) fn series(&mut self, key: &str) -> &mut Samples {
        self.series.entry(key.to_owned()).or_default()
    }

    /// The times of one thing, if it was measured.
    pub(crate) fn get(&self, key: &str) -> Option<&Samples> {
        self.series.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Samples)> {
        self.series.iter()
    }
}
