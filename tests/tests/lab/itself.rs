//! The lab works: scenarios come true with a plain nftables rule in the agent's
//! place, and a lab leaves nothing behind.

use std::fs;

use conntrack_tests::clients::ftp::Mode;
use conntrack_tests::helpers::{By, Protocol};
use conntrack_tests::lab::Lab;
use conntrack_tests::scenario::{ftp, sip, tftp};
use conntrack_tests::site::{Crossing, Plan, Site};

#[test]
fn ftp_works_with_a_plain_nft_rule() {
    let case = ftp::Case {
        crossing: Crossing::Snat4,
        mode: Mode::Active,
        port: 2121,
        unruled: 21,
    };
    ftp::check(By::PlainNft, case);
}

#[test]
fn tftp_works_with_a_plain_nft_rule() {
    let case = tftp::Case {
        crossing: Crossing::Routed6,
        port: 6969,
        unruled: 69,
    };
    tftp::check(By::PlainNft, case);
}

#[test]
fn sip_works_with_a_plain_nft_rule() {
    let case = sip::Case {
        crossing: Crossing::Routed4,
        port: 5070,
        unruled: 5060,
    };
    sip::check(By::PlainNft, case);
}

#[test]
fn a_panicking_test_leaves_nothing() {
    let mut path = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new();
        path = Some(lab.dir().path().to_owned());
        let _site = Site::new(&lab, &Plan::new(Crossing::Routed4, &[(Protocol::Tcp, 21)]));
        assert_eq!(lab.dir().mounts().len(), 4, "three namespaces and a bpffs");
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let path = path.expect("the lab's directory");
    assert!(!path.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(!mounts.contains(path.to_str().expect("text")));
}
