//! Judges from conntrack's entries whether a connection has its helper, and if not, gives
//! the likely reason.

use crate::{
    agent::{AddressFamily, HelperOutcome},
    kernel::Tracked,
    model::{Families, Helper},
};

/// The reason where conntrack has no such connection. A refused connection is gone when
/// it is looked up: conntrack drops the entry of one that was never established
/// (`nf_conntrack_tcp_packet`, `net/netfilter/nf_conntrack_proto_tcp.c`).
const UNKNOWN: &str = "conntrack does not have it: its first packet was dropped, it was refused, or it is not tracked";

/// The entries that conntrack has of a connection, in all namespaces of its router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConntrackEntries {
    tracked: Vec<Tracked>,
    /// The reason why a namespace could not be read.
    failure: Option<String>,
}

impl ConntrackEntries {
    /// Returns an empty result: no namespace could be read, for this reason.
    pub(super) fn failed(why: String) -> Self {
        Self {
            tracked: Vec::new(),
            failure: Some(why),
        }
    }

    /// Adds the result of another namespace.
    pub(super) fn add(&mut self, found: Result<Option<Tracked>, String>) {
        match found {
            Ok(tracked) => self.tracked.extend(tracked),
            Err(why) => self.failure = Some(why),
        }
    }

    /// Returns the reason why a namespace could not be read.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }
}

/// Returns the outcome of a connection that is to have this helper.
///
/// A distributed router has two namespaces, and a packet may pass both: it is enough that
/// one of them gave the helper.
pub(super) fn outcome(
    helper: Helper,
    family: AddressFamily,
    found: &ConntrackEntries,
) -> HelperOutcome {
    let names = || {
        let tracked = found.tracked.iter();
        tracked.filter_map(|tracked| tracked.helper.as_deref())
    };
    if found.is_empty() {
        return HelperOutcome::Unknown(match &found.failure {
            Some(why) => format!("conntrack could not be asked: {why}"),
            None => UNKNOWN.to_owned(),
        });
    }
    let name = helper.name();
    if names().any(|other| other == name) {
        return HelperOutcome::Assigned;
    }
    if let Some(other) = names().next() {
        return HelperOutcome::Missing(format!(
            "it has helper {other}: something else gave it that before {name} could be given"
        ));
    }
    if family == AddressFamily::Six && helper.families() == Families::Ipv4 {
        return HelperOutcome::Missing(format!("the kernel's helper {name} is for IPv4 alone"));
    }
    HelperOutcome::Missing(format!(
        "it has no helper although its rule was met: it may have begun before {name} was bound here"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn found(helpers: &[Option<&str>]) -> ConntrackEntries {
        let tracked = |helper: Option<&str>| Tracked {
            helper: helper.map(str::to_owned),
        };
        ConntrackEntries {
            tracked: helpers.iter().copied().map(tracked).collect(),
            failure: None,
        }
    }

    fn reason(outcome: HelperOutcome) -> String {
        match outcome {
            HelperOutcome::Missing(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_case_has_its_reason() {
        let ftp = Helper::new("ftp", Protocol::Tcp).unwrap();
        let pptp = Helper::new("pptp", Protocol::Tcp).unwrap();
        let (four, six) = (AddressFamily::Four, AddressFamily::Six);
        let unknown = |found: &ConntrackEntries| match outcome(ftp, four, found) {
            HelperOutcome::Unknown(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(unknown(&found(&[])), UNKNOWN);
        let why = unknown(&ConntrackEntries::failed("no permission".into()));
        assert!(why.ends_with("could not be asked: no permission"), "{why}");
        // One of two namespaces is enough.
        let mut one = found(&[Some("ftp")]);
        one.add(Err("gone".into()));
        assert_eq!(outcome(ftp, four, &one), HelperOutcome::Assigned);
        assert_eq!(
            outcome(ftp, six, &found(&[Some("ftp")])),
            HelperOutcome::Assigned
        );
        let both = found(&[None, Some("ftp")]);
        assert_eq!(outcome(ftp, four, &both), HelperOutcome::Assigned);
        let other = reason(outcome(ftp, four, &found(&[Some("irc")])));
        assert!(other.contains("helper irc"), "{other}");
        // What is there says more than what is not.
        let other = reason(outcome(pptp, six, &found(&[None, Some("irc")])));
        assert!(other.contains("helper irc"), "{other}");
        let family = reason(outcome(pptp, six, &found(&[None])));
        assert!(family.contains("IPv4 alone"), "{family}");
        for (helper, family) in [(ftp, six), (ftp, four), (pptp, four)] {
            let before = reason(outcome(helper, family, &found(&[None])));
            assert!(before.contains("begun before"), "{before}");
        }
    }
}
