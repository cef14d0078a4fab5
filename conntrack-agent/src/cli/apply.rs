//! The `apply` command: makes the rules that the API owns those of a file.

use std::path::PathBuf;

use super::{exit::Failed, output::Output, show, terminal::printable};
use crate::{
    client::Client,
    engine::{Limits, Policy},
    model::Helper,
    resource::{DifferenceView, RuleView},
    sources::{RuleSet, rules_file},
};

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// The routers and their helper rules (TOML), as `run --rules` reads them.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    /// Reads the file's rules. The daemon checks what this host allows; here every known
    /// helper is accepted.
    pub(super) fn read(&self) -> Result<RuleSet, Failed> {
        let policy = Policy::new(Limits::default(), Helper::all(), Helper::all());
        Ok(rules_file::read(&self.file, &policy)?)
    }

    pub(super) fn execute(
        &self,
        rules: &RuleSet,
        client: &Client,
        output: &mut Output<'_>,
    ) -> Result<(), Failed> {
        let difference = if self.dry_run {
            client.compare_all(rules)?
        } else {
            client.replace_all(rules)?
        };
        output.resource(&difference, |output| {
            output.lines(&summary(&difference, self.dry_run))
        })
    }
}

/// Formats the difference: a line for each rule, router by router, removed rules before
/// added ones; then the counts.
fn summary(difference: &DifferenceView, dry_run: bool) -> Vec<String> {
    let removed = difference.removed.iter().map(|rule| ('-', rule));
    let added = difference.added.iter().map(|rule| ('+', rule));
    let mut rules: Vec<(char, &RuleView)> = removed.chain(added).collect();
    // Stable, so each half keeps its order within a router.
    rules.sort_by_key(|(_, rule)| rule.router_id);
    let line = |(sign, rule)| format!("{sign} {}", printable(&show::sentence(rule)));
    let mut lines: Vec<_> = rules.into_iter().map(line).collect();
    let (added, removed) = (difference.added.len(), difference.removed.len());
    let unchanged = difference.unchanged;
    lines.push(if dry_run {
        format!("{added} to add, {removed} to remove, {unchanged} unchanged")
    } else {
        format!("{added} added, {removed} removed, {unchanged} unchanged")
    });
    lines
}
