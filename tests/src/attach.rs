//! In which ways agents under test attach their programs.

use std::env;

/// Which way the agents of this run take: `tcx`, `clsact`, what the agent takes
/// by itself, or that with generic XDP in front of it on all interfaces. `cargo xtask test --attach` sets it.
pub const VARIABLE: &str = "CONNTRACK_TEST_ATTACH";

/// The value that puts XDP in front.
pub(crate) const XDP: &str = "xdp";

/// An XDP program's way to its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl Xdp {
    /// As the agent's configuration says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "xdp",
            Self::Generic => "xdp-generic",
        }
    }
}

/// The value of `attach` in the configuration of this run's agents; none for
/// the agent's default.
#[must_use]
pub fn configured() -> Option<String> {
    let way = env::var(VARIABLE).ok()?;
    assert!(
        ["auto", "tcx", "clsact", XDP].contains(&way.as_str()),
        "{VARIABLE}={way}: auto, tcx, clsact and {XDP} are possible"
    );
    Some(way)
}

/// Whether they use tc filters.
#[must_use]
pub fn is_by_filters() -> bool {
    configured().is_some_and(|way| way == "clsact")
}
