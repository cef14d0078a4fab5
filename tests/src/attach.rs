//! In which of the two ways agents under test attach their programs.

use std::env;

/// Which way the agents of this run take: `tcx`, `clsact`, or what the agent
/// takes by itself. `cargo xtask test --attach` sets it.
pub const VARIABLE: &str = "CONNTRACK_TEST_ATTACH";

/// The value of `attach` in the configuration of this run's agents; none for
/// the agent's default.
#[must_use]
pub fn configured() -> Option<String> {
    let way = env::var(VARIABLE).ok()?;
    assert!(
        ["auto", "tcx", "clsact"].contains(&way.as_str()),
        "{VARIABLE}={way}: auto, tcx and clsact are possible"
    );
    Some(way)
}

/// Whether they use tc filters.
#[must_use]
pub fn is_by_filters() -> bool {
    configured().is_some_and(|way| way == "clsact")
}
