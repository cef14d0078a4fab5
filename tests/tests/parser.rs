//! The parser against the reference reading, over what the grammar makes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use conntrack_ebpf::parse::{self, Control, ETHERNET_HEADER, NotOurs};
use conntrack_tests::packets::{
    choices::Choices,
    reference::{self, Reading},
    shape::{Family, Shape, damage, tcp},
};
use proptest::prelude::*;

const TARGETS: [(u8, u16); 4] = [(6, 21), (17, 69), (6, 5060), (17, 5060)];

/// The same frame by both front ends.
fn parsed(frame: &[u8]) -> (Result<Control, NotOurs>, Option<Reading>) {
    let reading = |network, control: Control, packet: &[u8]| Reading {
        protocol: control.destination.protocol as u8,
        port: control.destination.port,
        before: control.transport,
        opens: parse::opens(packet, network, &control),
    };
    let (ethertype, network) = parse::ethernet(frame);
    let xdp = parse::control(frame, ethertype, network);
    let by_xdp = xdp.ok().map(|control| reading(network, control, frame));

    // tc has the EtherType from the kernel, which took the tag off.
    let untagged = reference::without_tag(frame);
    let untagged = untagged.as_slice();
    let ethertype = untagged
        .get(12..14)
        .map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().unwrap()));
    let was_tagged = untagged != frame;
    let tag = frame.get(14..16).filter(|_| was_tagged);
    let tag = tag.map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().unwrap()));
    let (ethertype, network) =
        parse::behind_priority_tag(untagged, tag, ethertype, ETHERNET_HEADER);
    let tc = parse::control(untagged, ethertype, network);
    let by_tc = tc.ok().map(|control| reading(network, control, untagged));
    assert_eq!(by_xdp, by_tc, "{frame:02x?}");
    (xdp, by_xdp)
}

fn generated(bytes: &[u8], damaged_bytes: u16) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    let mut frame = Shape::choose(&mut choices, &TARGETS).frame();
    if damaged_bytes > 0 {
        damage(&mut choices, &mut frame, damaged_bytes);
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn both_read_the_same_from_whole_frames(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        let frame = generated(&bytes, 0);
        prop_assert_eq!(parsed(&frame).1, reference::of_frame(&frame), "{:02x?}", frame);
    }

    #[test]
    fn both_read_the_same_from_damaged_frames(bytes in proptest::collection::vec(any::<u8>(), 0..180)) {
        let frame = generated(&bytes, 4);
        prop_assert_eq!(parsed(&frame).1, reference::of_frame(&frame), "{:02x?}", frame);
    }

    #[test]
    fn both_read_the_same_from_noise(noise in proptest::collection::vec(any::<u8>(), 0..200), ip in 0..3_usize) {
        let mut frame = noise;
        if let Some(at) = frame.get_mut(12..15) {
            at.copy_from_slice([&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0]][ip]);
        }
        prop_assert_eq!(parsed(&frame).1, reference::of_frame(&frame), "{:02x?}", frame);
    }
}

/// What the grammar makes has all results, none of them rarely.
#[test]
fn the_grammar_reaches_every_result() {
    const FRAMES: u32 = 50_000;
    let mut random = fastrand::Rng::with_seed(6);
    let mut seen = BTreeMap::<_, u32>::new();
    for _ in 0..FRAMES {
        let mut bytes = [0; 160];
        random.fill(&mut bytes);
        let frame = generated(&bytes, 0);
        let result = match parsed(&frame) {
            (_, Some(reading)) => {
                let v6 = frame.windows(2).position(|pair| pair == [0x86, 0xdd]) == Some(12);
                let plain = reading.before == if v6 { 40 } else { 20 };
                format!(
                    "v6 {v6} {} plain {plain} opens {}",
                    reading.protocol, reading.opens
                )
            }
            (result, None) => format!("{:?}", result.unwrap_err()),
        };
        *seen.entry(result).or_default() += 1;
    }
    for (result, times) in &seen {
        assert!(*times > FRAMES / 1000, "{result}: {times}");
    }
    // UDP always opens: 2 families, plain or not, 3 kinds; and 5 reasons.
    assert_eq!(seen.len(), 2 * 2 * 3 + 5, "{seen:?}");
}

/// The comparison finds what a parser gets wrong: each of these is right of most
/// packets.
#[test]
fn the_reference_tells_wrong_parsers() {
    type Wrong = fn(&[u8]) -> Option<Reading>;
    let wrong: [(&str, Wrong); 4] = [
        ("reads ports from padding", |frame| {
            let mut frame = frame.to_vec();
            let (ethertype, network) = parse::ethernet(frame.as_slice());
            let length = frame.len().saturating_sub(network);
            let (at, length) = match ethertype {
                0x0800 => (network + 2, length),
                _ => (network + 4, length.saturating_sub(40)),
            };
            let length = u16::try_from(length).unwrap().to_be_bytes();
            frame.get_mut(at..at + 2)?.copy_from_slice(&length);
            parsed(&frame).1
        }),
        ("passes over no extension header", |frame| {
            parsed(frame).1.filter(|reading| {
                reading.before == 40 || frame.windows(2).position(|pair| pair == [8, 0]) == Some(12)
            })
        }),
        ("takes every TCP for a beginning", |frame| {
            parsed(frame).1.map(|reading| Reading {
                opens: true,
                ..reading
            })
        }),
        ("knows no VLAN tag", |frame| {
            let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().unwrap());
            reference::of_packet(ethertype, frame.get(14..)?)
        }),
    ];
    let mut random = fastrand::Rng::with_seed(6);
    let mut found = [0; 4];
    for _ in 0..10_000 {
        let mut bytes = [0; 160];
        random.fill(&mut bytes);
        let frame = generated(&bytes, 0);
        for (count, (_, wrong)) in found.iter_mut().zip(wrong) {
            *count += u32::from(wrong(&frame) != reference::of_frame(&frame));
        }
    }
    for (count, (name, _)) in found.into_iter().zip(wrong) {
        assert!(count > 20 && count < 9_000, "{name}: {count}");
    }
}

/// More than a length field can say.
#[test]
fn both_read_the_same_from_merged_segments() {
    for family in [Family::V4, Family::V6] {
        let header = if family == Family::V4 { 20 } else { 0 };
        for length in [65_535, 65_536, 65_575, 65_576, 70_000] {
            let mut payload = tcp(49152, 21, 0x10);
            payload.resize(length - header, 0);
            let frame = Shape::plain(family, 6, payload).frame();
            let (_, reading) = parsed(&frame);
            assert_eq!(reading, reference::of_frame(&frame));
            let expected = (reading.map(|reading| reading.port), length);
            assert!(matches!(expected, (Some(21), _)), "{family:?} {expected:?}");
        }
    }
}
