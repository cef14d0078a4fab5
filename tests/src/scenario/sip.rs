//! A SIP call through a router.

use crate::clients::sip::{Call, Line};
use crate::conntrack::{assert_helpers, expectations};
use crate::helpers::{By, Protocol, Rule};
use crate::lab::Lab;
use crate::servers::sip::SipServer;
use crate::site::{Crossing, Plan, Site};

/// One way to call.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How the caller's packets cross the router.
    pub crossing: Crossing,
    /// The signalling port that has a rule.
    pub port: u16,
    /// One that hasn't.
    pub unruled: u16,
}

/// Where the caller offers to receive media, in the call to the ruled port and
/// in the one to the other.
const MEDIA: [u16; 2] = [16_000, 17_000];
/// Where the callers signal from.
const CALLER: [u16; 2] = [15_060, 15_061];

/// Signalling works in every case. The router expects the media that a call
/// announces exactly if the call goes to the ruled port.
pub fn check(by: By, case: Case) {
    let lab = Lab::new();
    let control = [(Protocol::Udp, case.port), (Protocol::Udp, case.unruled)];
    let site = Site::new(&lab, &Plan::new(case.crossing, &control));
    let _servers = [case.port, case.unruled]
        .map(|port| SipServer::start(&site.server, site.server_address(port)));

    assert_eq!(expected_media(&site, case), [0_u16; 0]);
    assert_helpers(site.router.netns(), &[]);
    site.router.netns().tool("conntrack", ["-F"], "");

    let _agent = by.install(&lab, &site.router, &[Rule::sip(case.port)]);
    assert_eq!(expected_media(&site, case), [MEDIA[0]]);
    assert_helpers(site.router.netns(), &[(case.port, "sip")]);
}

/// Calls both ports at once; answers which of the offered media ports the
/// router expected media on at any time.
fn expected_media(site: &Site, case: Case) -> Vec<u16> {
    let [ruled, unruled] = [0, 1].map(|call| {
        let callee = site.published_address([case.port, case.unruled][call]);
        Call::start(
            &site.client,
            Line {
                caller: site.client_address(CALLER[call]),
                media_port: MEDIA[call],
                callee,
            },
        )
    });
    let mut seen = Vec::new();
    let call = ruled.finish(|| {
        for expectation in expectations(site.router.netns()) {
            if MEDIA.contains(&expectation.port) && !seen.contains(&expectation.port) {
                seen.push(expectation.port);
            }
        }
    });
    call.expect("the call to the ruled port");
    unruled.finish(|| {}).expect("the call to the other port");
    seen
}
