//! Packets that are not as they should be.

use fastrand::Rng;

use crate::grammar::mended;
use crate::wire::Family;

/// Damages a packet in one way.
pub(crate) fn packet(rng: &mut Rng, family: Family, packet: &mut Vec<u8>) {
    match rng.u8(..16) {
        0..4 => length(rng, family, packet),
        // A checksum, or any other byte.
        4..6 => {
            let at = rng.usize(..packet.len());
            packet[at] ^= 1 << rng.u8(..8);
        }
        6..8 => {
            let at = rng.usize(..packet.len());
            packet[at] ^= 1 << rng.u8(..8);
            mended(family, packet);
        }
        8 => {
            if let (Family::V4, Some(byte)) = (family, packet.get_mut(10)) {
                *byte ^= 0x55;
            }
        }
        // Its end is missing.
        9 | 10 => {
            let length = packet.len();
            packet.truncate(rng.usize(1..=length));
        }
        // What the shortest frames have behind the packet, or more of it.
        11 | 12 => {
            let more = rng.usize(1..64);
            packet.resize(packet.len() + more, rng.u8(..));
        }
        // IHL, or the version.
        13 => {
            packet[0] = packet[0] & 0xf0 | rng.u8(..16);
            mended(family, packet);
        }
        14 => packet[0] = rng.u8(..16) << 4 | packet[0] & 0x0f,
        // TCP's data offset, UDP's length or checksum.
        _ => {
            let transport = match family {
                Family::V4 => usize::from(packet[0] & 0x0f) * 4,
                Family::V6 => 40,
            };
            let at = transport + rng.usize(4..20);
            if let Some(byte) = packet.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
    }
}

/// The length in the IP header, and so where the packet ends in the frame.
fn length(rng: &mut Rng, family: Family, packet: &mut [u8]) {
    let at = match family {
        Family::V4 => 2,
        Family::V6 => 4,
    };
    let Some(field) = packet.get_mut(at..at + 2) else {
        return;
    };
    let old = u16::from_be_bytes([field[0], field[1]]);
    let new = match rng.u8(..8) {
        0..3 => old.saturating_sub(rng.u16(1..24)),
        3 => rng.u16(..old.max(1)),
        4 => old.saturating_add(rng.u16(1..24)),
        5 => 0,
        6 => rng.u16(..64),
        _ => rng.u16(..),
    };
    field.copy_from_slice(&new.to_be_bytes());
    mended(family, packet);
}
