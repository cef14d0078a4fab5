//! Filters nfnetlink notifications for the agent's own table: Neutron's iptables-nft
//! sends hundreds about others.

use netlink_packet_core::{NLMSG_ALIGNTO, NetlinkBuffer, NlaBuffer, NlasIterator};

/// The subsystem `NFNL_SUBSYS_NFTABLES`, include/uapi/linux/netfilter/nfnetlink.h.
const SUBSYSTEM: u16 = 10;
/// The size of `struct nfgenmsg`: family, version, resource id.
const GENERIC_HEADER: usize = 4;
/// The family `NFPROTO_INET`, include/uapi/linux/netfilter.h.
const INET: u8 = 1;
/// The attribute `NFTA_TABLE_NAME`, which is the table's name also in messages about
/// chains, rules, sets, elements and objects
/// (`include/uapi/linux/netfilter/nf_tables.h`).
const TABLE: u16 = 1;

/// Returns whether one of a datagram's messages is about the table of this name in
/// family inet. A message that can't be understood may be.
pub(super) fn concern(mut datagram: &[u8], table: &str) -> bool {
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            return true;
        };
        if message.message_type() >> 8 == SUBSYSTEM && concerns(message.payload(), table) {
            return true;
        }
        let Ok(length) = usize::try_from(message.length()) else {
            return true;
        };
        let next = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        datagram = datagram.get(next..).unwrap_or_default();
    }
    false
}

fn concerns(message: &[u8], table: &str) -> bool {
    let Some((header, attributes)) = message.split_at_checked(GENERIC_HEADER) else {
        return true;
    };
    if header.first() != Some(&INET) {
        return false;
    }
    for attribute in NlasIterator::new(attributes) {
        let Ok(attribute) = attribute else {
            return true;
        };
        let attribute: NlaBuffer<&[u8]> = attribute;
        if attribute.kind() == TABLE {
            let name = attribute.value();
            return name.strip_suffix(b"\0").unwrap_or(name) == table.as_bytes();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "conntrack-agent-1";
    const NEW_TABLE: u16 = SUBSYSTEM << 8;
    const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;

    fn message(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![family, 0, 0, 0];
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            payload.extend(length.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(*value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        message
    }

    fn about(family: u8, table: &[u8]) -> Vec<u8> {
        message(NEW_TABLE, family, &[(3, b"flag"), (TABLE, table)])
    }

    #[test]
    fn only_our_table_in_our_family_counts() {
        let ours = about(INET, b"conntrack-agent-1\0");
        assert!(concern(&ours, OURS));
        for other in [
            about(INET, b"conntrack-agent-2\0"),
            about(INET, b"conntrack-agent-11\0"),
            about(INET, b"conntrack-agent\0"),
            about(2, b"conntrack-agent-1\0"),
            message(NEW_TABLE, INET, &[]),
            message(NEW_GENERATION, 0, &[(TABLE, &[0, 0, 0, 9])]),
        ] {
            assert!(!concern(&other, OURS), "{other:?}");
            let after = [other.as_slice(), &ours].concat();
            assert!(concern(&after, OURS), "the second of two counts");
        }
        assert!(!concern(&[], OURS));
    }

    #[test]
    fn what_cannot_be_understood_counts_and_does_no_harm() {
        let other = about(INET, b"another\0");
        for length in 1..other.len() {
            assert!(concern(&other[..length], OURS), "cut to {length}");
        }
        let mut damaged = other;
        for at in 0..damaged.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let whole = std::mem::replace(&mut damaged[at], value);
                let _either = concern(&damaged, OURS);
                damaged[at] = whole;
            }
        }
    }
}
