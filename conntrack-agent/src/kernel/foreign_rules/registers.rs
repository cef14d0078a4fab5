//! The content of an nftables rule's registers, as far as it concerns the agent.

use std::collections::BTreeMap;

/// The content of a register.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// The packet's mark, or a value that is made of it.
    Mark(Mark),
    /// The number of the packet's transport protocol.
    Protocol,
    /// The packet's destination port.
    Port,
}

/// A value that is made of the mark.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// The bits of the mark that it is made of.
    pub kept: u32,
    /// The bits that are flipped: the value is `mark & kept ^ flipped`. `None` where
    /// it is something else made of these bits, like the same in another byte order.
    pub flipped: Option<u32>,
}

impl Mark {
    /// The mark itself.
    pub(super) const WHOLE: Self = Self {
        kept: u32::MAX,
        flipped: Some(0),
    };

    /// Returns the bits of the mark that change where this value is written to the
    /// mark.
    pub(super) fn changed(self) -> u32 {
        self.flipped
            .map_or(u32::MAX, |flipped| !self.kept | flipped)
    }

    /// Returns the value after a bitwise operation: `value & mask ^ flip`.
    pub(super) fn masked(self, mask: u32, flip: u32) -> Self {
        // In another form, the mask's bits are not the mark's.
        self.flipped.map_or(self, |flipped| Self {
            kept: self.kept & mask,
            flipped: Some(flipped & mask ^ flip),
        })
    }

    /// Returns the value after an operation that isn't followed.
    pub(super) const fn in_another_form(self) -> Self {
        Self {
            kept: self.kept,
            flipped: None,
        }
    }
}

/// The registers, by the number of their first four bytes.
#[derive(Default)]
pub(super) struct Registers(BTreeMap<u32, Content>);

impl Registers {
    /// Writes a value of any length: 16 bytes at most (`NFT_REG_SIZE`).
    pub(super) fn load(&mut self, to: u32, content: Option<Content>) {
        let first = normal(to);
        let overwritten = first..first.saturating_add(4);
        self.0.retain(|register, _| !overwritten.contains(register));
        self.replace(to, content);
    }

    /// Writes a value of four bytes.
    pub(super) fn replace(&mut self, to: u32, content: Option<Content>) {
        self.0.remove(&normal(to));
        self.0.extend(content.map(|content| (normal(to), content)));
    }

    /// Returns the content of a register.
    pub(super) fn content(&self, register: Option<u32>) -> Option<Content> {
        self.0.get(&normal(register?)).copied()
    }

    /// Returns the value in a register that is made of the mark.
    pub(super) fn mark(&self, register: Option<u32>) -> Option<Mark> {
        match self.content(register)? {
            Content::Mark(mark) => Some(mark),
            Content::Protocol | Content::Port => None,
        }
    }

    /// Returns the values made of the mark in a key, which may have several fields,
    /// one behind the other.
    pub(super) fn marks_from(&self, register: Option<u32>) -> impl Iterator<Item = Mark> {
        let from = register.map_or(u32::MAX, normal);
        self.0
            .range(from..)
            .filter_map(|(_, content)| match content {
                Content::Mark(mark) => Some(*mark),
                Content::Protocol | Content::Port => None,
            })
    }

    /// Forgets what an unknown expression may have changed: what held the mark may
    /// still hold it when it is read, and counts as any value when it is written.
    pub(super) fn blur(&mut self) {
        self.0.retain(|_, content| match content {
            Content::Mark(mark) => {
                *mark = mark.in_another_form();
                true
            }
            Content::Protocol | Content::Port => false,
        });
    }
}

/// Returns the number of a register's first four bytes: 1 to 4 are names of four such
/// registers each (`nft_parse_register`, `net/netfilter/nf_tables_api.c`).
const fn normal(register: u32) -> u32 {
    match register {
        1..=4 => 8 + (register - 1) * 4,
        _ => register,
    }
}
