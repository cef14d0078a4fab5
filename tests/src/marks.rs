//! Neutron's use of skb->mark in a router, and a look at what packets carry.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::netns::Netns;
use crate::router::Router;
use crate::site::LOWER;

/// What Neutron writes into packets from outside, in the low half.
pub const EXTERNAL: u32 = 0x2;
/// What it writes into packets from an address scope, in the high half.
pub const SCOPE: u32 = 0x0400_0000;
/// What it writes into packets to the metadata service, in the low half.
pub const METADATA: u32 = 0x1;
/// Where instances look for the metadata service.
pub const METADATA_ADDRESS: &str = "169.254.169.254";

/// Adds Neutron's mangle rules (prerouting, priority -150): all packets from
/// `external` get [`EXTERNAL`], all from `scope` get [`SCOPE`], and those to
/// the metadata service [`METADATA`].
pub fn neutron_mangle(router: &Netns, external: &str, scope: &str) {
    let rules = |metadata: &str| {
        format!(
            "*mangle\n\
             -A PREROUTING -i {external} -j MARK --set-xmark {EXTERNAL:#x}/0xffff\n\
             -A PREROUTING -i {scope} -j MARK --set-xmark {SCOPE:#x}/0xffff0000\n\
             -A PREROUTING -d {metadata} -p tcp -m tcp --dport 80 \
             -j MARK --set-xmark {METADATA:#x}/0xffff\n\
             COMMIT\n"
        )
    };
    let no_other_lab = ["--noflush", "--wait"];
    router.tool("iptables-restore", no_other_lab, &rules(METADATA_ADDRESS));
    router.tool("ip6tables-restore", no_other_lab, &rules("fe80::a9fe:a9fe"));
}

/// Records, from now on, the mark of every packet right after Neutron's rules.
pub fn watch(router: &Netns) {
    router.nft(
        "table inet watch {
            set seen { type ifname . mark; flags dynamic; size 4096; }
            chain prerouting {
                type filter hook prerouting priority -140;
                update @seen { meta iifname . meta mark }
            }
        }",
    );
}

/// The marks that have been seen, each with the interface that its packets
/// came in by.
#[must_use]
pub fn seen(router: &Netns) -> BTreeSet<(String, u32)> {
    let list = ["--json", "list", "set", "inet", "watch", "seen"];
    let listing = router.tool("nft", list, "");
    let listing: Value = serde_json::from_str(&listing).expect("nft's JSON");
    let sets = listing["nftables"].as_array().expect("its objects");
    let elements = sets
        .iter()
        .find_map(|object| object["set"]["elem"].as_array());
    let concatenations = elements
        .into_iter()
        .flatten()
        .map(|element| &element["concat"]);
    concatenations
        .map(|fields| {
            let interface = fields[0].as_str().expect("an interface's name");
            let mark = fields[1].as_u64().expect("a mark");
            (interface.to_owned(), u32::try_from(mark).expect("32 bits"))
        })
        .collect()
}

/// From now on, every packet from the client arrives with `mark`, as if
/// another program had written it. Needs a site that is stacked.
///
/// A mark doesn't survive the way from one namespace to another, and nftables
/// comes after tcx on one interface. So it is written on the lower interface,
/// and the packet then arrives on the upper one with it.
pub fn forge(router: &Router, mark: u32) {
    router.netns().nft(&format!(
        r#"table netdev forge {{
            chain ingress {{
                type filter hook ingress device "{LOWER}" priority 0;
                meta mark set {mark:#x}
            }}
        }}"#
    ));
}
