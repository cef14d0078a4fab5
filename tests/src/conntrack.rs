//! What a router's conntrack holds.

use std::collections::BTreeSet;

use crate::netns::Netns;

/// A connection, by its original direction: what the client sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// `tcp`, `udp`, …
    pub protocol: String,
    /// The client's address.
    pub source: String,
    /// The address that it went to.
    pub destination: String,
    /// The port that it came from.
    pub source_port: u16,
    /// The port that it went to.
    pub port: u16,
    /// The helper that conntrack has assigned.
    pub helper: Option<String>,
    /// The line that it was read from.
    pub line: String,
}

impl Connection {
    /// Whether both are the same connection, at different times maybe.
    fn is(&self, other: &Self) -> bool {
        let ends = |c: &Self| (c.protocol.clone(), c.source.clone(), c.source_port);
        let far = |c: &Self| (c.destination.clone(), c.port);
        ends(self) == ends(other) && far(self) == far(other)
    }
}

/// What a helper expects to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The destination port of the expected connection.
    pub port: u16,
    /// The line that it was read from.
    pub line: String,
}

/// All connections of both families.
#[must_use]
pub fn connections(router: &Netns) -> Vec<Connection> {
    those(router, &[])
}

/// Those of them that a helper had announced.
#[must_use]
pub fn announced(router: &Netns) -> Vec<Connection> {
    those(router, &["-u", "EXPECTED"])
}

fn those(router: &Netns, which: &[&str]) -> Vec<Connection> {
    let arguments = [&["-L", "-o", "extended"], which].concat();
    list(router, &arguments, |line| {
        // "ipv4 2 tcp 6 431999 ESTABLISHED src=… dst=… sport=… dport=… src=… …":
        // the first of each field belongs to the original direction.
        Some(Connection {
            protocol: line.split_whitespace().nth(2)?.to_owned(),
            source: field(line, "src")?.to_owned(),
            destination: field(line, "dst")?.to_owned(),
            source_port: field(line, "sport")?.parse().ok()?,
            port: field(line, "dport")?.parse().ok()?,
            helper: field(line, "helper").map(str::to_owned),
            line: line.to_owned(),
        })
    })
}

/// All expectations of both families.
#[must_use]
pub fn expectations(router: &Netns) -> Vec<Expectation> {
    list(router, &["-L", "expect"], |line| {
        Some(Expectation {
            port: field(line, "dport")?.parse().ok()?,
            line: line.to_owned(),
        })
    })
}

/// Asserts which connections carry a helper: those to these ports, at least
/// one to each, and no other.
///
/// Connections that a helper had announced don't count: some kernels (6.12.95 is
/// one) give them the helper of the connection that announced them, whatever has
/// given it to that one.
pub fn assert_helpers(router: &Netns, expected: &[(u16, &str)]) {
    let mut connections = connections(router);
    let announced = announced(router);
    connections.retain(|c| !announced.iter().any(|a| a.is(c)));
    let lines = || -> String {
        let lines = connections.iter().map(|c| format!("{}\n", c.line));
        lines.collect()
    };
    let with: BTreeSet<_> = connections
        .iter()
        .filter_map(|c| Some((c.port, c.helper.as_deref()?)))
        .collect();
    let wanted: BTreeSet<_> = expected.iter().copied().collect();
    assert_eq!(with, wanted, "ports with helpers, in:\n{}", lines());

    let without = connections
        .iter()
        .find(|c| c.helper.is_none() && wanted.iter().any(|w| w.0 == c.port));
    assert_eq!(
        without,
        None,
        "every control connection has its helper:\n{}",
        lines()
    );
}

fn list<T>(router: &Netns, arguments: &[&str], parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let arguments = arguments.iter().copied().chain(["-f", family]);
        let output = router.tool("conntrack", arguments, "");
        found.extend(output.lines().filter_map(&parse));
    }
    found
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
