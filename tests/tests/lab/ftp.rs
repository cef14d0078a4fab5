//! FTP, active and passive, through every kind of router, on the standard and
//! on another control port.

use conntrack_tests::clients::ftp::Mode::{self, Active, Passive};
use conntrack_tests::helpers::By;
use conntrack_tests::scenario::ftp;
use conntrack_tests::site::Crossing::{self, Dnat4, Routed4, Routed6, Snat4};

fn check(crossing: Crossing, mode: Mode, port: u16, unruled: u16) {
    let case = ftp::Case {
        crossing,
        mode,
        port,
        unruled,
    };
    ftp::check(By::Agent, case);
}

#[rustfmt::skip]
cases! {
    // name                     crossing  mode     rule  no rule
    active_routed_v4:           Routed4,  Active,    21, 2121;
    active_routed_v4_on_2121:   Routed4,  Active,  2121,   21;
    active_snat_v4:             Snat4,    Active,    21, 2121;
    active_snat_v4_on_2121:     Snat4,    Active,  2121,   21;
    active_dnat_v4:             Dnat4,    Active,    21, 2121;
    active_dnat_v4_on_2121:     Dnat4,    Active,  2121,   21;
    active_routed_v6:           Routed6,  Active,    21, 2121;
    active_routed_v6_on_2121:   Routed6,  Active,  2121,   21;
    passive_routed_v4:          Routed4,  Passive,   21, 2121;
    passive_routed_v4_on_2121:  Routed4,  Passive, 2121,   21;
    passive_snat_v4:            Snat4,    Passive,   21, 2121;
    passive_snat_v4_on_2121:    Snat4,    Passive, 2121,   21;
    passive_dnat_v4:            Dnat4,    Passive,   21, 2121;
    passive_dnat_v4_on_2121:    Dnat4,    Passive, 2121,   21;
    passive_routed_v6:          Routed6,  Passive,   21, 2121;
    passive_routed_v6_on_2121:  Routed6,  Passive, 2121,   21;
}
