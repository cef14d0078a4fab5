//! TFTP through a router, on the standard and on another port.

use conntrack_tests::helpers::By;
use conntrack_tests::scenario::tftp;
use conntrack_tests::site::Crossing::{self, Routed4, Routed6};

fn check(crossing: Crossing, port: u16, unruled: u16) {
    let case = tftp::Case {
        crossing,
        port,
        unruled,
    };
    tftp::check(By::Agent, case);
}

#[rustfmt::skip]
cases! {
    // name     crossing  rule  no rule
    v4:         Routed4,    69, 6969;
    v4_on_6969: Routed4,  6969,   69;
    v6:         Routed6,    69, 6969;
    v6_on_6969: Routed6,  6969,   69;
}
