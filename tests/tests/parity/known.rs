//! The differences that are meant to be; ARCHITECTURE.md gives the reasons.

use conntrack_ebpf::parse::MOST_HEADERS;

use crate::compare::Difference;
use crate::grammar::Step;
use crate::network::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::transport::AH;
use crate::wire::{ETHERTYPE_IPV6, Frame};

/// Why a connection has its helper with iptables, and none with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Known {
    /// The IPv6 header chain goes on in a later fragment: the ports are not in
    /// the first one, where the mark is looked for. RFC 7112 has such packets
    /// discarded; the kernel reassembles them.
    SplitChain,
    /// There are more extension headers than we follow.
    LongChain,
}

/// Why this difference is meant to be, if it is.
pub(crate) fn known(difference: &Difference, steps: &[Step]) -> Option<Known> {
    if !difference.is_a_helper_less() {
        return None;
    }
    let concerned = steps.iter().filter(|step| step.concerns(&difference.tuple));
    let mut frames = concerned.flat_map(|step| &step.frames);
    frames.find_map(of_frame)
}

fn of_frame(frame: &Frame) -> Option<Known> {
    let mut at = 12;
    let word = |at: usize| Some(u16::from_be_bytes(*frame.bytes.get(at..)?.first_chunk()?));
    while matches!(word(at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    if word(at)? != ETHERTYPE_IPV6 {
        return None;
    }
    of_chain(frame.bytes.get(at + 2..)?)
}

/// Walks an IPv6 packet's header chain: further than the parser under test, and
/// as far as the packet goes.
fn of_chain(packet: &[u8]) -> Option<Known> {
    let payload = match packet.get(4..6) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => return None,
    };
    let end = packet.len().min(40 + payload);
    let (mut at, mut is_first_fragment) = (40, false);
    let mut next = packet.get(6).copied();
    let mut headers = 0;
    while let Some(number) = next {
        let splits = |is_split: bool| is_split.then_some(Known::SplitChain);
        let length = match (number, packet.get(at..end)) {
            (FRAGMENT, Some(&[_, _, high, low, ..])) => {
                let field = u16::from_be_bytes([high, low]);
                if field & !7 != 0 {
                    return None;
                }
                is_first_fragment |= field & 1 == 1;
                8
            }
            (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS, Some(&[_, units, ..])) => {
                8 * (usize::from(units) + 1)
            }
            (AH, Some(&[_, words, ..])) => 4 * (usize::from(words) + 2),
            (HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS | AH, _) => {
                return splits(is_first_fragment);
            }
            // It begins behind the end, or here.
            _ if headers > MOST_HEADERS => return Some(Known::LongChain),
            _ => return splits(is_first_fragment && at >= end),
        };
        headers += 1;
        next = packet.get(at).copied();
        at += length;
    }
    None
}
