//! Which rules a router has, whichever way they are put in force.

use conntrack_agent::model::{Helper, Port, Protocol, RouterId, RuleTarget};

/// The numbers of rules that are compared.
pub(crate) const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 5_000];

/// The others' ports lie above this one, so that none is one of a stream's.
const ABOVE: usize = 1_024;
const SPAN: usize = 65_536 - ABOVE;
/// A prime: multiples of it, modulo [`SPAN`], come to every port once, and lie in as
/// many pages of the port table as they can.
const STRIDE: usize = 7_919;

/// A rule without its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Rule {
    /// The helper's name: always the same for a protocol.
    pub(crate) const fn helper(self) -> &'static str {
        helper(self.protocol)
    }

    /// As a router's rule.
    pub(crate) fn of(self, router: RouterId) -> RuleTarget {
        RuleTarget {
            router,
            port: Port::try_from(i64::from(self.port)).expect("a port"),
            helper: Helper::new(self.helper(), self.protocol).expect("a helper"),
        }
    }
}

/// The helper that rules for this protocol give.
pub(crate) const fn helper(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "ftp",
        Protocol::Udp => "tftp",
    }
}

/// The port that streams go to for which there is a rule.
pub(crate) const fn met(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 21,
        Protocol::Udp => 69,
    }
}

/// The port that streams go to for which there is none. It is of the same page of the
/// port table as the other, so what is read for it is no empty page's.
pub(crate) const fn missed(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

/// So many rules: TCP and UDP in turn. Those that streams meet are the last ones; with
/// one rule there is TCP's alone.
pub(crate) fn rules(count: usize) -> Vec<Rule> {
    let met = [Protocol::Tcp, Protocol::Udp].map(|protocol| Rule {
        protocol,
        port: met(protocol),
    });
    let last = &met[..count.min(met.len())];
    let others = (0..count - last.len()).map(|number| Rule {
        protocol: if number.is_multiple_of(2) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        port: u16::try_from(ABOVE + number / 2 * STRIDE % SPAN).expect("a port"),
    });
    others.chain(last.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_rules_are_alike_and_none_is_for_a_port_to_be_missed() {
        for count in COUNTS {
            let rules = rules(count);
            let keys = rules.iter().map(|rule| (rule.helper(), rule.port));
            assert_eq!(keys.collect::<BTreeSet<_>>().len(), count);
            let missed = |rule: &Rule| rule.port == missed(rule.protocol);
            assert!(!rules.iter().any(missed));
        }
    }

    #[test]
    fn a_stream_that_meets_a_rule_meets_the_last_of_its_protocol() {
        let rules = rules(10);
        assert_eq!(rules.len(), 10);
        assert_eq!(rules[8].port, 21);
        assert_eq!(rules[9].port, 69);
    }
}
