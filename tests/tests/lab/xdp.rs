//! XDP in front of the tc program, in a driver and in the network stack.

use conntrack_tests::attach::Xdp::{Generic, Native};
use conntrack_tests::clients::ftp::Mode::Active;
use conntrack_tests::helpers::By;
use conntrack_tests::scenario::ftp;
use conntrack_tests::site::Crossing::{Routed6, Snat4};

#[test]
fn active_ftp_through_snat_by_native_xdp() {
    let case = ftp::Case {
        crossing: Snat4,
        mode: Active,
        port: 2121,
        unruled: 21,
    };
    ftp::check(By::Xdp(Native), case);
}

#[test]
fn active_ftp_through_snat_by_generic_xdp() {
    let case = ftp::Case {
        crossing: Snat4,
        mode: Active,
        port: 21,
        unruled: 2121,
    };
    ftp::check(By::Xdp(Generic), case);
}

#[test]
fn active_ftp_over_ipv6_by_native_xdp() {
    let case = ftp::Case {
        crossing: Routed6,
        mode: Active,
        port: 21,
        unruled: 2121,
    };
    ftp::check(By::Xdp(Native), case);
}
