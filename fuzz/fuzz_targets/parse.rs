//! The parser against the reference reading, on any bytes: both as XDP and as tc
//! sees them.
#![no_main]

use conntrack_ebpf::parse::{self, ETHERNET_HEADER};
use libfuzzer_sys::fuzz_target;

use reference::Reading;

// By path, not as a dependency: the tests' crate has the whole agent in it.
#[path = "../../tests/src/packets/reference.rs"]
mod reference;

fuzz_target!(|frame: &[u8]| {
    let (ethertype, network) = parse::ethernet(frame);
    let expected = reference::of_frame(frame);
    assert_eq!(read(frame, ethertype, network), expected, "as XDP sees it");

    // The kernel takes a tag off, and says what it was and what was behind it.
    let untagged = reference::without_tag(frame);
    let number = |of: &[u8], at: usize| {
        of.get(at..at + 2)
            .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let control = number(frame, 14);
    let (ethertype, network) = parse::behind_priority_tag(
        untagged.as_slice(),
        control,
        number(&untagged, 12),
        ETHERNET_HEADER,
    );
    let by_tc = read(&untagged, ethertype, network);
    assert_eq!(by_tc, expected, "as tc sees it");
});

fn read(frame: &[u8], ethertype: u16, network: usize) -> Option<Reading> {
    let control = parse::control(frame, ethertype, network).ok()?;
    Some(Reading {
        protocol: control.destination.protocol as u8,
        port: control.destination.port,
        before: control.transport,
        opens: parse::opens(frame, network, &control),
    })
}
