//! The rules that both sides get.

use conntrack_agent::engine::{NewRule, Operation};
use conntrack_agent::model::{Helper, Port, Protocol, RouterId, RuleId, RuleTarget};

/// A prime that does not divide 65535: multiples of it, modulo 65535, come to
/// every port once, and lie in as many pages of the port table as they can.
const STRIDE: usize = 7919;

/// The rule with this number: ftp and tftp in turn, each on a port of its own.
pub(crate) fn nth(router: RouterId, number: usize) -> NewRule {
    let (name, protocol) = if number.is_multiple_of(2) {
        ("ftp", Protocol::Tcp)
    } else {
        ("tftp", Protocol::Udp)
    };
    let port = 1 + number / 2 * STRIDE % 65535;
    let port = i64::try_from(port).expect("a port");
    NewRule {
        id: RuleId::random(),
        target: RuleTarget {
            router,
            port: Port::try_from(port).expect("a port"),
            helper: Helper::new(name, protocol).expect("a helper"),
        },
    }
}

/// The first of them, as one batch.
pub(crate) fn batch(router: RouterId, count: usize) -> Vec<Operation> {
    let rules = (0..count).map(|number| nth(router, number));
    rules.map(Operation::Create).collect()
}
