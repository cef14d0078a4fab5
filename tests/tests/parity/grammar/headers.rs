//! Headers at random: VLAN tags, IPv4 options, IPv6 extension headers.

use super::Grammar;
use crate::network::{DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING};
use crate::transport::{AH, ESP};

impl Grammar<'_> {
    /// Rarely any. Number 0 says nothing but a priority (IEEE 802.1Q), and the
    /// kernel takes such a frame for an untagged one.
    pub(super) fn tags(&mut self) -> Vec<(u16, u16)> {
        if self.rng.u8(..25) > 0 {
            return Vec::new();
        }
        let count = if self.rng.u8(..4) == 0 { 2 } else { 1 };
        let tag = |_| {
            let kind = self.pick(&[0x8100, 0x8100, 0x88a8]);
            (kind, self.pick(&[0, 0, 0xe000, 5]))
        };
        (0..count).map(tag).collect()
    }

    pub(super) fn options(&mut self) -> Vec<u8> {
        match self.rng.u8(..6) {
            0 | 1 => vec![1; 4 * self.rng.usize(1..=10)],
            // Router alert (RFC 2113), record route, timestamp (RFC 791).
            2 => vec![148, 4, 0, 0],
            3 => vec![7, 7, 4, 0, 0, 0, 0, 0],
            4 => vec![68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => {
                let count = 4 * self.rng.usize(1..=10);
                self.bytes(count)
            }
        }
    }

    pub(super) fn chain(&mut self) -> Vec<Extension> {
        let count = match self.rng.u8(..12) {
            0..6 => 1,
            6..9 => 2,
            9 | 10 => self.rng.usize(3..8),
            _ => self.rng.usize(8..20),
        };
        (0..count).map(|_| self.extension()).collect()
    }

    fn extension(&mut self) -> Extension {
        let twice = DESTINATION_OPTIONS;
        let often = [HOP_BY_HOP, ROUTING, twice, twice, FRAGMENT, AH];
        let number = match self.rng.u8(..20) {
            0 => self.pick(&[MOBILITY, ESP, 59, 139, 140, 253]),
            _ => self.pick(&often),
        };
        let units = match self.rng.u8(..20) {
            0 => self.rng.u8(4..60),
            _ => self.rng.u8(..3),
        };
        let length = 8 * (usize::from(units) + 1);
        let bytes = match number {
            HOP_BY_HOP | DESTINATION_OPTIONS => self.padding(units, length),
            ROUTING => {
                let kind = self.pick(&[0, 2, 4, 253]);
                filled(&[0, units, kind, self.pick(&[0, 0, 1])], length, 0)
            }
            // An atomic one (RFC 6946), or one that lacks its others.
            FRAGMENT => {
                let offset = self.pick(&[0, 0, 0, 1, 8, 0x60]);
                let [a, b, c, d] = self.next_id().to_be_bytes();
                vec![0, 0, 0, offset, a, b, c, d]
            }
            // In units of four bytes, without the first two (RFC 4302, 2.2).
            AH => filled(&[0, units * 2 + 1], 4 * (usize::from(units) * 2 + 3), 7),
            _ => filled(&[0, units], length, 1),
        };
        Extension { number, bytes }
    }

    /// `PadN`, as many as it takes (RFC 8200, 4.2); sometimes an option that nobody
    /// knows, to be skipped.
    fn padding(&mut self, units: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, units];
        while bytes.len() < length {
            let left = length - bytes.len();
            if left == 1 {
                bytes.push(0);
            } else {
                let inner = (left - 2).min(7);
                let kind = if self.rng.u8(..12) == 0 { 0x1e } else { 1 };
                bytes.extend([kind, u8::try_from(inner).expect("small")]);
                bytes.resize(bytes.len() + inner, 0);
            }
        }
        bytes
    }
}

/// These bytes, and behind them as many others as make up the length.
fn filled(start: &[u8], length: usize, other: u8) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(length, other);
    bytes
}
