//! What is behind the IP header, with its checksum.

use std::net::IpAddr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ESP: u8 = 50;
pub(crate) const AH: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDP_LITE: u8 = 136;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// The ports of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
}

impl Ports {
    pub(crate) const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let ports = [self.source, self.destination];
        ports.iter().flat_map(|port| port.to_be_bytes()).collect()
    }
}

/// Where the checksum goes, and what it covers.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    None,
    /// RFC 1071, the segment alone.
    Plain(usize),
    /// RFC 1071, with a pseudo header.
    Pseudo(usize),
    /// SCTP's (RFC 9260, appendix A).
    Crc32c(usize),
}

/// A segment whose checksum is still to come.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) protocol: u8,
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl Segment {
    pub(crate) fn tcp(ports: Ports, [sequence, acknowledged]: [u32; 2], flags: u8) -> Tcp {
        Tcp {
            ports,
            sequence,
            acknowledged,
            flags,
            options: Vec::new(),
        }
    }

    pub(crate) fn udp(ports: Ports, payload: &[u8]) -> Self {
        let length = u16::try_from(8 + payload.len()).expect("a datagram");
        let mut bytes = ports.bytes();
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        Self {
            protocol: UDP,
            bytes,
            checksum: Checksum::Pseudo(6),
        }
    }

    /// UDP-Lite whose checksum covers all of it (RFC 3828).
    pub(crate) fn udp_lite(ports: Ports, payload: &[u8]) -> Self {
        let mut segment = Self::udp(ports, payload);
        segment.protocol = UDP_LITE;
        segment.bytes[4..6].fill(0);
        segment
    }

    /// SCTP's INIT (RFC 9260, 3.3.2).
    pub(crate) fn sctp(ports: Ports, tag: u32) -> Self {
        let mut bytes = ports.bytes();
        bytes.extend([0; 8]);
        bytes.extend([1, 0, 0, 20]);
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        Self {
            protocol: SCTP,
            bytes,
            checksum: Checksum::Crc32c(8),
        }
    }

    /// ICMP of either version, from its type on.
    pub(crate) fn icmp(protocol: u8, bytes: Vec<u8>) -> Self {
        let checksum = match protocol {
            ICMPV6 => Checksum::Pseudo(2),
            _ => Checksum::Plain(2),
        };
        Self {
            protocol,
            bytes,
            checksum,
        }
    }

    /// Anything.
    pub(crate) fn raw(protocol: u8, bytes: Vec<u8>) -> Self {
        Self {
            protocol,
            bytes,
            checksum: Checksum::None,
        }
    }

    /// Without a checksum, which UDP allows (RFC 768).
    pub(crate) fn unsummed(mut self) -> Self {
        self.checksum = Checksum::None;
        self
    }

    /// The bytes as they are between these two.
    pub(crate) fn between(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        match self.checksum {
            Checksum::None => {}
            Checksum::Plain(at) => {
                let sum = internet(0, &bytes);
                bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Checksum::Pseudo(at) => {
                let sum = pseudo(source, destination, self.protocol, bytes.len());
                let sum = match internet(sum, &bytes) {
                    // Zero would mean none.
                    0 => 0xffff,
                    sum => sum,
                };
                bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Checksum::Crc32c(at) => {
                let sum = crc32c(&bytes);
                bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
            }
        }
        bytes
    }
}

/// A TCP segment that is being made.
pub(crate) struct Tcp {
    ports: Ports,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    options: Vec<u8>,
}

impl Tcp {
    /// With options, whose length is a multiple of 4.
    pub(crate) fn options(mut self, options: Vec<u8>) -> Self {
        self.options = options;
        self
    }

    pub(crate) fn payload(self, payload: &[u8]) -> Segment {
        let words = u8::try_from(5 + self.options.len() / 4).expect("a few options");
        let mut bytes = self.ports.bytes();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.extend([words << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(&self.options);
        bytes.extend(payload);
        Segment {
            protocol: TCP,
            bytes,
            checksum: Checksum::Pseudo(16),
        }
    }
}

/// The sum of a pseudo header, not yet folded.
fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let addresses = [source, destination].map(|address| match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    });
    addresses[0] + addresses[1] + u64::from(protocol) + length as u64
}

fn words(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    sum
}

/// RFC 1071.
pub(crate) fn internet(start: u64, bytes: &[u8]) -> u16 {
    let mut sum = start + words(bytes);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).expect("folded")
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let bit = sum & 1;
            sum = sum >> 1 ^ if bit == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !sum
}
