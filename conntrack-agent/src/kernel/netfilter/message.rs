//! Encodes and decodes `nf_tables` netlink messages.
//!
//! Layouts: `include/uapi/linux/netlink.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nf_tables.h`.

use std::{error::Error, io};

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlaBuffer, NlasIterator,
};

/// The subsystem `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// The families `NFPROTO_INET` and `NFPROTO_UNSPEC`,
/// include/uapi/linux/netfilter.h.
const FAMILY: u8 = 1;
const ALL_FAMILIES: u8 = 0;
/// The sizes of `struct nlmsghdr` and of `struct nfgenmsg`: family, version and
/// `res_id`, two bytes that the kernel fills with its ruleset's generation.
const HEADER: usize = 16;
const GENERAL: usize = 4;

/// The attribute with the table's name, 1 in every message (`NFTA_TABLE_NAME`,
/// `NFTA_CHAIN_TABLE`, …).
pub(in crate::kernel) const TABLE: u16 = 1;
/// The attributes `NFTA_SET_NAME` and `NFTA_SET_ELEM_LIST_SET`.
pub(in crate::kernel) const SET: u16 = 2;
/// The attribute `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;

/// The attribute `NFTA_CHAIN_TYPE`: "filter", "nat" or "route".
pub(in crate::kernel) const NAME_OF_TYPE: u16 = 7;

/// A kind of object in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum ObjectKind {
    Table,
    Chain,
    Object,
    Set,
    Element,
    Rule,
}

impl ObjectKind {
    /// Returns the request's type, `NFT_MSG_GET…` of `enum nf_tables_msg_types`.
    const fn get(self) -> u16 {
        SUBSYSTEM
            | match self {
                Self::Table => 1,
                Self::Chain => 4,
                Self::Rule => 7,
                Self::Set => 10,
                Self::Element => 13,
                Self::Object => 19,
            }
    }

    /// Returns the type of the kernel's answer, `NFT_MSG_NEW…`: the one before.
    const fn answered(self) -> u16 {
        self.get() - 1
    }

    /// Returns the attributes that differ between equal tables: handles, which
    /// the kernel numbers as objects come, and the padding in front of 64-bit
    /// values. The use count is kept: nothing else shows a flow table in our
    /// table.
    const fn incidental(self) -> &'static [u16] {
        match self {
            // NFTA_TABLE_HANDLE, _PAD
            Self::Table => &[4, 5],
            // NFTA_CHAIN_HANDLE, _PAD
            Self::Chain => &[2, 9],
            // NFTA_RULE_HANDLE, _POSITION (the handle of the rule before), _PAD
            Self::Rule => &[3, 6, 8],
            // NFTA_SET_PAD, _HANDLE
            Self::Set => &[14, 16],
            Self::Element => &[],
            // NFTA_OBJ_HANDLE, _PAD
            Self::Object => &[6, 7],
        }
    }
}

/// Returns the request for the table itself, or for all of its objects of one
/// kind: those of `set`, or any. (The kernel heeds the table's name for all
/// kinds but chains.)
pub(super) fn request(kind: ObjectKind, table: &str, set: Option<&[u8]>, sequence: u32) -> Vec<u8> {
    let mut name = table.as_bytes().to_vec();
    name.push(0);
    let mut attributes = vec![DefaultNla::new(TABLE, name)];
    attributes.extend(set.map(|set| DefaultNla::new(SET, set.to_vec())));
    message(kind, FAMILY, &attributes, sequence)
}

/// Returns the request for all objects of one kind in the namespace.
pub(super) fn request_of_all_families(kind: ObjectKind, sequence: u32) -> Vec<u8> {
    message(kind, ALL_FAMILIES, &[], sequence)
}

fn message(kind: ObjectKind, family: u8, attributes: &[DefaultNla], sequence: u32) -> Vec<u8> {
    let length = HEADER + GENERAL + attributes.buffer_len();
    let mut header = NetlinkHeader::default();
    // The length is that of two names, at most.
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = kind.get();
    header.flags = match kind {
        ObjectKind::Table => NLM_F_REQUEST,
        _ => NLM_F_REQUEST | NLM_F_DUMP,
    };
    header.sequence_number = sequence;
    let mut message = vec![0; length];
    header.emit(&mut message[..HEADER]);
    message[HEADER] = family;
    attributes.emit(&mut message[HEADER + GENERAL..]);
    message
}

/// One message of an answer.
#[derive(Debug)]
pub(super) enum Reply<'a> {
    /// An object; for elements, several.
    Part(DumpPart<'a>),
    /// A dump has ended.
    Done,
    /// Something changed during a dump: `NLM_F_DUMP_INTR`.
    Interrupted,
    /// The kernel refused: `NLMSG_ERROR`, or a dump that ended with an error.
    Refused(io::Error),
}

/// The kernel's description of one object.
#[derive(Debug)]
pub(in crate::kernel) struct DumpPart<'a> {
    kind: ObjectKind,
    /// The family of the table.
    pub family: u8,
    /// The generation, which changes with each change of the namespace's
    /// ruleset.
    pub generation: [u8; 2],
    attributes: &'a [u8],
}

/// Returns the messages of one datagram that answers the request `sequence` for
/// `kind`. A damaged message ends them.
pub(super) fn answers(
    mut rest: &[u8],
    kind: ObjectKind,
    sequence: u32,
) -> impl Iterator<Item = io::Result<Reply<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let answer = answer(&mut rest, kind, sequence);
        if answer.is_err() {
            rest = &[];
        }
        Some(answer)
    })
}

fn answer<'a>(rest: &mut &'a [u8], kind: ObjectKind, sequence: u32) -> io::Result<Reply<'a>> {
    let message = NetlinkBuffer::new_checked(*rest).map_err(damaged)?;
    let length = usize::try_from(message.length()).map_err(damaged)?;
    // Messages begin at multiples of NLMSG_ALIGNTO, 4; the last need not be padded.
    let next = length.next_multiple_of(4).min(rest.len());
    *rest = rest.get(next..).unwrap_or_default();
    let payload = message.payload();
    if message.sequence_number() != sequence {
        return Err(damaged("the answer is to another question"));
    }
    if message.flags() & NLM_F_DUMP_INTR != 0 {
        return Ok(Reply::Interrupted);
    }
    let message_type = message.message_type();
    if matches!(message_type, NLMSG_ERROR | NLMSG_DONE) {
        let code = payload
            .first_chunk()
            .ok_or_else(|| damaged("the answer ends before its error code"))?;
        return Ok(match i32::from_ne_bytes(*code) {
            0 => Reply::Done,
            code => Reply::Refused(io::Error::from_raw_os_error(code.wrapping_neg())),
        });
    }
    if message_type != kind.answered() {
        return Err(damaged("the answer is of another kind than was asked for"));
    }
    match payload {
        [family, _version, high, low, attributes @ ..] => Ok(Reply::Part(DumpPart {
            kind,
            family: *family,
            generation: [*high, *low],
            attributes,
        })),
        _ => Err(damaged("the answer ends in its header")),
    }
}

impl<'a> DumpPart<'a> {
    /// Returns whether it is this table, or belongs to it.
    ///
    /// # Errors
    /// An error if it is damaged.
    pub(super) fn is_of(&self, table: &str) -> io::Result<bool> {
        let name = self
            .attribute(TABLE)?
            .and_then(|name| name.strip_suffix(b"\0"));
        Ok(name == Some(table.as_bytes()))
    }

    /// Returns the value of its first attribute of this type.
    ///
    /// # Errors
    /// An error if it is damaged.
    pub(in crate::kernel) fn attribute(&self, wanted: u16) -> io::Result<Option<&'a [u8]>> {
        for attribute in attributes(self.attributes) {
            let (kind, value) = attribute?;
            if kind & !NLA_F_NESTED == wanted {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Appends what is not incidental, in a form that is equal for equal
    /// objects.
    ///
    /// # Errors
    /// An error if it is damaged.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend(self.kind.answered().to_ne_bytes());
        for attribute in attributes(self.attributes) {
            let (kind, value) = attribute?;
            if !self.kind.incidental().contains(&(kind & !NLA_F_NESTED)) {
                write_attribute(kind, value, out);
            }
        }
        Ok(())
    }

    /// Returns the elements of a set that are in this part.
    ///
    /// # Errors
    /// An error if it is damaged.
    pub(super) fn elements(&self) -> io::Result<Vec<&'a [u8]>> {
        let list = self.attribute(ELEMENTS)?.unwrap_or_default();
        attributes(list)
            .map(|each| each.map(|(_, value)| value))
            .collect()
    }
}

/// Appends an attribute with its length, so that no two rows of attributes have
/// the same bytes.
pub(super) fn write_attribute(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend(kind.to_ne_bytes());
    out.extend(value.len().to_ne_bytes());
    out.extend(value);
}

/// Returns each attribute's type, with the flag for nested ones, and its value.
pub(in crate::kernel) fn attributes(
    bytes: &[u8],
) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    let mut offset = 0;
    NlasIterator::new(bytes).map(move |attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute.map_err(damaged)?;
        let nested = if attribute.nested_flag() {
            NLA_F_NESTED
        } else {
            0
        };
        let length = usize::from(attribute.length());
        // The value is a slice of the whole, because the iterator's buffers
        // don't outlive it.
        let value = bytes.get(offset + 4..offset + length);
        offset += length.next_multiple_of(4);
        let value = value.ok_or_else(|| damaged("an attribute of the answer is longer than it"))?;
        Ok((attribute.kind() | nested, value))
    })
}

fn damaged(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
