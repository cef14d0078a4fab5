//! Counts the connections that met a rule, by whether conntrack says that they have their
//! helper.

use std::time::{Duration, Instant};

/// The time for which a connection without its helper makes a rule `degraded`. It is long
/// enough for somebody to look after a complaint; a later connection of the same family
/// that has its helper ends it.
const REMEMBERED: Duration = Duration::from_mins(10);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// The family IPv4.
    Four,
    /// The family IPv6.
    Six,
}

/// The outcome of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelperOutcome {
    /// The connection has its helper.
    Assigned,
    /// The connection has no helper, probably for this reason.
    Missing(String),
    /// Conntrack has no such connection, or could not be read, for this reason.
    Unknown(String),
}

/// The connections of one rule since the agent started.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// The number of connections with their helper.
    pub helped: u64,
    /// The number of connections without their helper.
    pub lacking: u64,
    /// The number of connections of which that is unknown.
    pub unknown: u64,
    /// The last connection without its helper, by family, unless a later one had its
    /// helper.
    last: [Option<Lack>; 2],
}

#[derive(Clone, Debug)]
struct Lack {
    at: Instant,
    reason: String,
}

impl Connections {
    /// Counts a connection.
    pub fn add(&mut self, family: AddressFamily, outcome: &HelperOutcome, now: Instant) {
        let last = &mut self.last[family as usize];
        match outcome {
            HelperOutcome::Assigned => {
                self.helped += 1;
                *last = None;
            }
            HelperOutcome::Missing(reason) => {
                self.lacking += 1;
                *last = Some(Lack {
                    at: now,
                    reason: reason.clone(),
                });
            }
            HelperOutcome::Unknown(_) => self.unknown += 1,
        }
    }

    /// Returns the reason why connections had no helper lately; `None` if they had it.
    #[must_use]
    pub fn lack(&self, now: Instant) -> Option<&str> {
        let lately = self.last.iter().flatten();
        let lately = lately.filter(|lack| now.saturating_duration_since(lack.at) < REMEMBERED);
        lately
            .max_by_key(|lack| lack.at)
            .map(|lack| lack.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_is_over_when_one_of_its_family_is_helped_or_after_a_while() {
        let begun = Instant::now();
        let mut connections = Connections::default();
        assert_eq!(connections.lack(begun), None);
        let lacking = HelperOutcome::Missing("why".into());
        connections.add(AddressFamily::Six, &lacking, begun);
        assert_eq!(connections.lack(begun), Some("why"));
        connections.add(AddressFamily::Four, &HelperOutcome::Assigned, begun);
        connections.add(
            AddressFamily::Six,
            &HelperOutcome::Unknown(String::new()),
            begun,
        );
        assert_eq!(connections.lack(begun), Some("why"));
        connections.add(AddressFamily::Six, &HelperOutcome::Assigned, begun);
        assert_eq!(connections.lack(begun), None);
        connections.add(AddressFamily::Four, &lacking, begun);
        let shortly_before = begun + (REMEMBERED * 9 / 10);
        assert_eq!(connections.lack(shortly_before), Some("why"));
        assert_eq!(connections.lack(begun + REMEMBERED), None);
        let Connections {
            helped,
            lacking,
            unknown,
            ..
        } = connections;
        assert_eq!((helped, lacking, unknown), (2, 2, 1));
    }
}
