//! IP packets around a segment: whole, or in fragments.

use std::net::IpAddr;

use crate::transport::{Segment, internet};

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
pub(crate) const MOBILITY: u8 = 135;

/// An IPv6 extension header; its first byte is to become the next one's number.
#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) number: u8,
    pub(crate) bytes: Vec<u8>,
}

/// A packet that is not yet bytes.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IPv4's.
    pub(crate) options: Vec<u8>,
    /// IPv6's.
    pub(crate) chain: Vec<Extension>,
    pub(crate) segment: Segment,
}

/// A part of what is fragmented.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) more: bool,
}

impl Packet {
    pub(crate) fn plain(source: IpAddr, destination: IpAddr, segment: Segment) -> Self {
        Self {
            source,
            destination,
            options: Vec::new(),
            chain: Vec::new(),
            segment,
        }
    }

    /// The whole packet.
    pub(crate) fn whole(&self, id: u16) -> Vec<u8> {
        let segment = self.segment.between(self.source, self.destination);
        if self.is_v4() {
            let mut bytes = self.ipv4(id, 0, segment.len());
            bytes.extend(segment);
            return bytes;
        }
        let (first, chain) = linked(&self.chain, self.segment.protocol);
        let mut bytes = self.ipv6(first, chain.len() + segment.len());
        bytes.extend(chain);
        bytes.extend(segment);
        bytes
    }

    /// What is fragmented, if the first `kept` extension headers are not, and
    /// the number of what it begins with.
    pub(crate) fn fragmentable(&self, kept: usize) -> (u8, Vec<u8>) {
        let (first, mut bytes) = linked(&self.chain[kept..], self.segment.protocol);
        bytes.extend(self.segment.between(self.source, self.destination));
        (first, bytes)
    }

    /// A fragment of it.
    pub(crate) fn fragment(&self, kept: usize, id: u32, piece: &Piece) -> Vec<u8> {
        let more = u16::from(piece.more);
        if self.is_v4() {
            let offset = u16::try_from(piece.offset / 8).expect("an offset") | more << 13;
            let [_, _, a, b] = id.to_be_bytes();
            let mut bytes = self.ipv4(u16::from_be_bytes([a, b]), offset, piece.bytes.len());
            bytes.extend(&piece.bytes);
            return bytes;
        }
        let offset = u16::try_from(piece.offset).expect("an offset") | more;
        let mut header = vec![0, 0];
        header.extend(offset.to_be_bytes());
        header.extend(id.to_be_bytes());
        let mut kept_chain = self.chain[..kept].to_vec();
        kept_chain.push(Extension {
            number: FRAGMENT,
            bytes: header,
        });
        let (first, chain) = linked(&kept_chain, self.fragmentable_number(kept));
        let mut bytes = self.ipv6(first, chain.len() + piece.bytes.len());
        bytes.extend(chain);
        bytes.extend(&piece.bytes);
        bytes
    }

    fn fragmentable_number(&self, kept: usize) -> u8 {
        let next = self.chain.get(kept);
        next.map_or(self.segment.protocol, |extension| extension.number)
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    fn ipv4(&self, id: u16, flags_and_offset: u16, payload: usize) -> Vec<u8> {
        let length = 20 + self.options.len();
        let words = u8::try_from(length / 4).expect("a few options");
        let mut bytes = vec![0x40 | words, 0];
        let total = u16::try_from(length + payload).expect("a packet's length");
        bytes.extend(total.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(flags_and_offset.to_be_bytes());
        bytes.extend([64, self.segment.protocol, 0, 0]);
        for address in [self.source, self.destination] {
            if let IpAddr::V4(address) = address {
                bytes.extend(address.octets());
            }
        }
        bytes.extend(&self.options);
        sum_ipv4(&mut bytes);
        bytes
    }

    fn ipv6(&self, next: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        let length = u16::try_from(payload).expect("a packet's length");
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, 64]);
        for address in [self.source, self.destination] {
            if let IpAddr::V6(address) = address {
                bytes.extend(address.octets());
            }
        }
        bytes
    }
}

/// Puts the checksum into the header of an IPv4 packet, as far as it has one.
pub(crate) fn sum_ipv4(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 0x0f) * 4;
    let Some(header) = packet.get_mut(..length).filter(|header| header.len() >= 20) else {
        return;
    };
    header[10..12].fill(0);
    let sum = internet(0, header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
}

/// Extension headers, each with the number of what follows; and the first
/// one's number.
fn linked(chain: &[Extension], last: u8) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (at, extension) in chain.iter().enumerate() {
        let next = chain.get(at + 1).map_or(last, |next| next.number);
        bytes.push(next);
        bytes.extend(&extension.bytes[1..]);
    }
    let first = chain.first().map_or(last, |first| first.number);
    (first, bytes)
}
