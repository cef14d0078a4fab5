//! SIP over UDP through a router, on the standard and on another port.

use conntrack_tests::helpers::By;
use conntrack_tests::scenario::sip;
use conntrack_tests::site::Crossing::{self, Routed4, Routed6};

fn check(crossing: Crossing, port: u16, unruled: u16) {
    let case = sip::Case {
        crossing,
        port,
        unruled,
    };
    sip::check(By::Agent, case);
}

#[rustfmt::skip]
cases! {
    // name     crossing  rule  no rule
    v4:         Routed4,  5060, 5070;
    v4_on_5070: Routed4,  5070, 5060;
    v6:         Routed6,  5060, 5070;
    v6_on_5070: Routed6,  5070, 5060;
}
