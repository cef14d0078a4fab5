//! The grammar: an Ethernet frame, part by part, and how to put it together.

use super::choices::Choices;

/// One or the other IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A header between IPv6's and the transport's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its number, which the header before it names.
    pub number: u8,
    /// All of it but its first byte, which names the next. Its length is what
    /// the number makes of the first byte here, or isn't.
    pub rest: Vec<u8>,
}

impl Extension {
    /// One of so many bytes that says so: of 8, 16 … 2048 for options and
    /// routing, 8, 12 … 1028 for authentication (51), 8 for a fragment (44).
    #[must_use]
    pub fn new(number: u8, size: usize) -> Self {
        let units = match number {
            44 => 0,
            51 => size / 4 - 2,
            _ => size / 8 - 1,
        };
        let mut rest = vec![0; size - 1];
        rest[0] = u8::try_from(units).unwrap_or(u8::MAX);
        // One PadN option that fills it: a hop-by-hop header of anything else
        // would have the kernel drop the packet.
        if matches!(number, 0 | 60) && size <= 256 {
            rest[1] = 1;
            rest[2] = u8::try_from(size - 4).unwrap_or(u8::MAX);
        }
        Self { number, rest }
    }

    /// A fragment header.
    #[must_use]
    pub fn fragment(units: u16, has_more: bool, id: u32) -> Self {
        let field = (units << 3) | u16::from(has_more);
        let mut rest = vec![0];
        rest.extend(field.to_be_bytes());
        rest.extend(id.to_be_bytes());
        Self { number: 44, rest }
    }
}

/// An IPv4 fragment's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Its offset, in 8 bytes, below 2¹³.
    pub units: u16,
    /// Whether others follow it.
    pub has_more: bool,
    /// Whether it, or a whole packet, says not to be cut.
    pub is_uncut: bool,
}

/// A frame, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Destination, then source.
    pub stations: [[u8; 6]; 2],
    /// The type field and the VLAN of each tag, the outermost first.
    pub tags: Vec<(u16, u8)>,
    /// The EtherType before the IP header; the family's own if none.
    pub ethertype: Option<u16>,
    /// Which IP.
    pub family: Family,
    /// Source, then destination; IPv4's are the first four bytes.
    pub addresses: [[u8; 16]; 2],
    /// IPv4's identification.
    pub id: u16,
    /// IPv4's fragment field.
    pub fragment: Fragment,
    /// IPv4's options, at most 40 bytes in fours.
    pub options: Vec<u8>,
    /// IPv6's extension headers.
    pub extensions: Vec<Extension>,
    /// The number of what follows.
    pub protocol: u8,
    /// All that follows: the transport header and its payload.
    pub payload: Vec<u8>,
    /// What the length field says, if not the truth.
    pub length: Option<u16>,
    /// What follows the packet in its frame.
    pub padding: Vec<u8>,
}

/// A TCP header without options.
#[must_use]
pub fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::with_capacity(20);
    header.extend(from.to_be_bytes());
    header.extend(to.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    header
}

/// A UDP header and its payload.
#[must_use]
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(0);
    let mut datagram = Vec::with_capacity(8 + payload.len());
    for number in [from, to, length, 0] {
        datagram.extend(number.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

impl Shape {
    /// A plain packet of this family.
    #[must_use]
    pub fn plain(family: Family, protocol: u8, payload: Vec<u8>) -> Self {
        let addresses = match family {
            Family::V4 => [address([10, 0, 1, 2]), address([10, 0, 2, 2])],
            Family::V6 => [[0xfd; 16], [0xfc; 16]],
        };
        Self {
            stations: [[4; 6], [2; 6]],
            tags: Vec::new(),
            ethertype: None,
            family,
            addresses,
            id: 1,
            fragment: Fragment::default(),
            options: Vec::new(),
            extensions: Vec::new(),
            protocol,
            payload,
            length: None,
            padding: Vec::new(),
        }
    }

    /// One of all that the grammar has. Its destination is mostly one of `targets`
    /// (a protocol's number and a port) or a port beside it.
    #[must_use]
    pub fn choose(choices: &mut Choices<'_>, targets: &[(u8, u16)]) -> Self {
        let family = choices.one_of(&[Family::V4, Family::V6]);
        let (protocol, payload) = transport(choices, targets);
        let mut shape = Self::plain(family, protocol, payload);
        match family {
            Family::V4 => {
                if choices.once_in(3) {
                    let words = usize::from(choices.below(11));
                    shape.options = vec![1; words * 4];
                }
                if choices.once_in(4) {
                    shape.fragment = Fragment {
                        units: choices.one_of(&[0, 0, 0, 1, 2, 185, 0x1fff]),
                        has_more: choices.once_in(2),
                        is_uncut: choices.once_in(8),
                    };
                }
            }
            Family::V6 => shape.extensions = extensions(choices),
        }
        shape.tags = choices.one_of(&TAGS).to_vec();
        if choices.once_in(32) {
            shape.ethertype = Some(choices.one_of(&[0x0806, 0x0800, 0x86dd, 0, 0x0040]));
        }
        if choices.once_in(4) {
            let length = usize::from(choices.below(48));
            shape.padding = choices.fill(length);
        }
        if choices.once_in(6) {
            let truth = shape.said();
            shape.length = Some(match choices.below(4) {
                0 => 0,
                1 => choices.word(),
                // Into the padding, or out of the payload.
                2 => truth.wrapping_add(choices.below(24)),
                _ => truth.wrapping_sub(choices.below(24)),
            });
        }
        shape
    }

    /// The bytes of the frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.stations.concat();
        for (tag, vlan) in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, *vlan]);
        }
        let own = match self.family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        };
        frame.extend(self.ethertype.unwrap_or(own).to_be_bytes());
        frame.extend(self.packet());
        frame.extend(&self.padding);
        frame
    }

    /// The bytes of the IP packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let said = self.length.unwrap_or_else(|| self.said()).to_be_bytes();
        let mut packet = match self.family {
            Family::V4 => self.ipv4(said),
            Family::V6 => self.ipv6(said),
        };
        packet.extend(&self.payload);
        packet
    }

    fn ipv4(&self, said: [u8; 2]) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).unwrap_or(15);
        let Fragment {
            units,
            has_more,
            is_uncut,
        } = self.fragment;
        let fragment = units | (u16::from(has_more) << 13) | (u16::from(is_uncut) << 14);
        let mut header = vec![0x40 | words, 0];
        header.extend(said);
        header.extend(self.id.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        for address in &self.addresses {
            header.extend(&address[..4]);
        }
        header.extend(&self.options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(&self, said: [u8; 2]) -> Vec<u8> {
        let mut numbers: Vec<_> = self.extensions.iter().map(|one| one.number).collect();
        numbers.push(self.protocol);
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(said);
        header.extend([numbers[0], 64]);
        header.extend(self.addresses.as_flattened());
        for (extension, next) in self.extensions.iter().zip(&numbers[1..]) {
            header.push(*next);
            header.extend(&extension.rest);
        }
        header
    }

    /// What the length field should say; 0 where it can't.
    fn said(&self) -> u16 {
        let extensions = self.extensions.iter().map(|one| 1 + one.rest.len());
        let length = match self.family {
            Family::V4 => 20 + self.options.len() + self.payload.len(),
            Family::V6 => extensions.sum::<usize>() + self.payload.len(),
        };
        u16::try_from(length).unwrap_or(0)
    }
}

/// One in six frames has a tag, half of those have two.
const TAGS: [&[(u16, u8)]; 18] = [
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[(0x8100, 5)],
    &[(0x88a8, 0)],
    &[(0x88a8, 5), (0x8100, 5)],
    &[(0x88a8, 0), (0x8100, 0)],
    &[(0x8100, 0), (0x8100, 5)],
    &[(0x9100, 5)],
];

const fn address([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A transport header, whole or not, and what is in it.
fn transport(choices: &mut Choices<'_>, targets: &[(u8, u16)]) -> (u8, Vec<u8>) {
    let (mut protocol, mut port) = if targets.is_empty() {
        (choices.one_of(&[6, 17]), choices.word())
    } else {
        choices.one_of(targets)
    };
    if choices.once_in(4) {
        // Beside it, in the other half of it, or anywhere.
        port = match choices.below(4) {
            0 => port.wrapping_add(1),
            1 => port.wrapping_sub(1),
            2 => port ^ 0x0100,
            _ => choices.word(),
        };
    }
    if choices.once_in(8) {
        // ICMP, IP in IP, UDP, IPv6, GRE, ESP, AH, ICMPv6, none, SCTP, UDP-Lite.
        protocol = choices.one_of(&[1, 4, 17, 41, 47, 50, 51, 58, 59, 132, 136]);
    }
    let length = usize::from(choices.below(64));
    let data = choices.fill(length);
    let mut payload = if protocol == 6 {
        // SYN, SYN with ACK, ACK, FIN, RST, or anything.
        let any = choices.byte();
        let flags = choices.one_of(&[0x02, 0x12, 0x10, 0x11, 0x04, any]);
        let mut segment = tcp(49152, port, flags);
        segment.extend(data);
        segment
    } else {
        udp(49152, port, &data)
    };
    if choices.once_in(6) {
        payload.truncate(usize::from(choices.below(24)));
    }
    (protocol, payload)
}

/// None, a few of any kind, or about as many as are passed over.
fn extensions(choices: &mut Choices<'_>) -> Vec<Extension> {
    const ANY: [u8; 9] = [0, 43, 44, 51, 60, 60, 44, 43, 135];
    const WITHOUT_END: [u8; 3] = [60, 43, 51];
    let (count, numbers) = match choices.below(8) {
        0..4 => (0, ANY.as_slice()),
        4..7 => (1 + choices.below(4), ANY.as_slice()),
        _ => (13 + choices.below(6), WITHOUT_END.as_slice()),
    };
    (0..count).map(|_| extension(choices, numbers)).collect()
}

fn extension(choices: &mut Choices<'_>, numbers: &[u8]) -> Extension {
    let number = choices.one_of(numbers);
    let units = usize::from(choices.one_of(&[0_u8, 0, 1, 2, 5, 31]));
    match number {
        44 => {
            let units = choices.one_of(&[0, 0, 0, 1, 0x1fff]);
            Extension::fragment(units, choices.once_in(2), 7)
        }
        51 => Extension::new(number, 8 + 4 * units),
        _ => Extension::new(number, 8 + 8 * units),
    }
}

/// Some bytes of the frame made others, or its end cut off. At most `most` bytes
/// are; the Ethernet addresses stay.
pub fn damage(choices: &mut Choices<'_>, frame: &mut Vec<u8>, most: u16) {
    for _ in 0..choices.below(most + 1) {
        let at = 12 + usize::from(choices.below(96));
        let value = choices.byte();
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    if choices.once_in(8) {
        frame.truncate(usize::from(choices.below(120)));
    }
}

/// The Internet checksum (RFC 1071) of bytes whose own field of it is 0.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded into 16 bits")]
    let sum = sum as u16;
    !sum
}
