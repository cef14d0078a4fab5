//! The streams' connections: that they exist, and have the helpers that they should.

use std::thread::sleep;
use std::time::Duration;

use conntrack_tests::ctnetlink::Conntrack;
use nix::sys::socket::AddressFamily;

use crate::network::Hosts;
use crate::rig::Router;
use crate::traffic::{Family, Step, Stream};

/// A flow of UDP is a stream for conntrack when it has lasted so long in both
/// directions (`nf_conntrack_udp_packet`: two seconds).
const STREAM: Duration = Duration::from_millis(2_200);

/// `IPS_SEEN_REPLY` and `IPS_ASSURED` (`include/uapi/linux/netfilter/nf_conntrack_common.h`).
const ESTABLISHED: u32 = 1 << 1 | 1 << 2;

/// Has both ends of every stream speak, in every router.
pub(crate) fn establish(routers: &[Router]) {
    let through_all = |step: Step| {
        for router in routers {
            let translation = router.configuration.translation;
            for stream in Stream::all() {
                let frame = stream.frame(step, translation);
                match step {
                    Step::Opening | Step::Established => router.links.client.send(&frame),
                    Step::Answer => router.links.server.send(&frame),
                }
            }
        }
    };
    through_all(Step::Opening);
    through_all(Step::Answer);
    through_all(Step::Established);
    sleep(STREAM);
    through_all(Step::Established);
}

/// Asserts that a router knows every stream, and which helper each has.
pub(crate) fn assert_as_wanted(router: &Router) {
    let configuration = &router.configuration;
    let about = format!(
        "{} with {} rules ({:?})",
        configuration.way.name(),
        configuration.rules,
        configuration.translation
    );
    for family in Family::ALL {
        let asked = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let connections = Conntrack::open(&router.netns, asked).connections();
        for stream in Stream::all().filter(|stream| stream.family == family) {
            let name = stream.name();
            let Some(state) = connections.get(&stream.tuple()) else {
                panic!("{about}: no connection of {name}");
            };
            let wanted = configuration.helper(stream);
            assert_eq!(
                state.helper.as_deref(),
                wanted,
                "{about}: the helper of {name}"
            );
            assert_eq!(
                state.status & ESTABLISHED,
                ESTABLISHED,
                "{about}: {name} is not established: {state}"
            );
        }
        // And no other, which would be one whose packets were translated otherwise.
        let known = Stream::all()
            .filter(|stream| stream.family == family)
            .count();
        let ported = |protocol: u8| [6, 17].contains(&protocol);
        let found = connections
            .keys()
            .filter(|tuple| ported(tuple.protocol))
            .count();
        assert_eq!(found, known, "{about}: connections in {}", family.name());
    }
}

/// Asserts that what was sent since `before` has arrived, all of it and nothing else.
pub(crate) fn assert_arrived(hosts: &Hosts, routers: &[Router], before: &[u64], sent: &[u64]) {
    let now = hosts.arrived();
    for (router, sent) in routers.iter().zip(sent) {
        let number = router.links.number();
        let arrived = now[number] - before[number];
        assert_eq!(
            arrived,
            *sent,
            "{} with {} rules: packets that arrived, and that were sent",
            router.configuration.way.name(),
            router.configuration.rules
        );
    }
}
