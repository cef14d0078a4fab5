//! Interprets the entries of a legacy iptables table.
//!
//! Layouts: `include/uapi/linux/netfilter/x_tables.h`,
//! `linux/netfilter_ipv4/ip_tables.h` and `linux/netfilter_ipv6/ip6_tables.h`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io};

use super::super::{
    bytes::{text, u16_at, u32_at},
    ruleset::{Chain, ForeignRule, Hook, RuleAction, RuleScope, Ruleset, TableName},
    xtables,
};

/// The chains of the hooks, by their numbers.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// The size of `struct ipt_getinfo`: char name\[32\], u32 `valid_hooks`, u32
/// `hook_entry`\[5\], u32 underflow\[5\], u32 `num_entries`, u32 size.
pub(super) const INFO_SIZE: usize = 84;
const VALID_HOOKS: usize = 32;
const HOOK_ENTRIES: usize = 36;
const SIZE: usize = 80;

/// The size of `struct xt_entry_match` and `struct xt_entry_target`: u16 size, char
/// name\[29\], u8 revision; the data follows.
const PART: usize = 32;

/// The target that begins a chain, with the chain's name: `XT_ERROR_TARGET`.
const ERROR: &str = "ERROR";
/// The target that is a verdict, or the offset of the chain to go to:
/// `XT_STANDARD_TARGET`.
const STANDARD: &str = "";

/// The flag `XT_INV_PROTO`.
const OTHER_PROTOCOLS: u8 = 0x40;

/// The offsets of the fields of `struct ipt_entry` or `struct ip6t_entry`.
#[derive(Clone, Copy)]
pub(super) struct EntryLayout {
    protocol: usize,
    inversions: usize,
    /// `target_offset`, and behind it `next_offset`.
    offsets: usize,
    size: usize,
}

pub(super) const IPV4: EntryLayout = EntryLayout {
    protocol: 80,
    inversions: 83,
    offsets: 88,
    size: 112,
};
pub(super) const IPV6: EntryLayout = EntryLayout {
    protocol: 128,
    inversions: 132,
    offsets: 140,
    size: 168,
};

/// The kernel's description of a table.
#[derive(Debug)]
pub(super) struct TableInfo {
    valid_hooks: u32,
    /// The offset of each hook's first entry.
    hook_entries: [u32; HOOKS.len()],
    /// The size of all entries.
    pub size: u32,
}

impl TableInfo {
    /// Reads a `struct ipt_getinfo`.
    ///
    /// # Errors
    /// An error if it is too short.
    pub(super) fn read(info: &[u8]) -> io::Result<Self> {
        let word = |at| u32_at(info, at).ok_or_else(damaged);
        let mut hook_entries = [0; HOOKS.len()];
        for (number, entry) in hook_entries.iter_mut().enumerate() {
            *entry = word(HOOK_ENTRIES + number * 4)?;
        }
        Ok(Self {
            valid_hooks: word(VALID_HOOKS)?,
            hook_entries,
            size: word(SIZE)?,
        })
    }

    /// Returns the chains of a table with these entries, and its rules that concern
    /// the agent; `prerouting` is the hook of its PREROUTING chain.
    ///
    /// # Errors
    /// An error if the entries are damaged.
    pub(super) fn decode(
        &self,
        layout: EntryLayout,
        table: &TableName,
        prerouting: Hook,
        entries: &[u8],
    ) -> io::Result<Ruleset> {
        let entries = split(layout, entries)?;
        let mut found = Ruleset::default();
        let chains = self.chains(&entries);
        let mut current = None;
        for entry in &entries {
            if let Some((name, hook)) = chains.get(&entry.offset) {
                found.chains.push(Chain {
                    table: table.clone(),
                    name: name.clone(),
                    hook: hook.map(|number| match number {
                        0 => prerouting,
                        _ => Hook::Elsewhere,
                    }),
                });
                current = Some((name, 0));
            }
            let Some((chain, number)) = &mut current else {
                continue;
            };
            *number += 1;
            let (scope, mut actions) = entry.conditions();
            match (entry.target.name.as_str(), entry.target.data) {
                (STANDARD, data) => {
                    let to = u32_at(data, 0).and_then(|to| chains.get(&to));
                    actions.extend(to.map(|(name, _)| RuleAction::Jumps(name.clone())));
                }
                (name, data) => {
                    let revision = entry.target.revision.into();
                    xtables::target(name, revision, data, &mut actions);
                }
            }
            if !actions.is_empty() {
                found.rules.push(ForeignRule {
                    table: table.clone(),
                    chain: (*chain).clone(),
                    handle: *number,
                    scope,
                    actions,
                });
            }
        }
        Ok(found)
    }

    /// Returns the chains' names, and the numbers of their hooks, by the offsets of
    /// their first entries.
    fn chains(&self, entries: &[TableEntry<'_>]) -> BTreeMap<u32, (String, Option<usize>)> {
        let mut chains = BTreeMap::new();
        for [before, first] in entries.array_windows() {
            if before.target.name == ERROR {
                chains.insert(first.offset, (text(before.target.data), None));
            }
        }
        for (number, (name, offset)) in HOOKS.into_iter().zip(self.hook_entries).enumerate() {
            if self.valid_hooks & 1 << number != 0 {
                chains.insert(offset, (name.to_owned(), Some(number)));
            }
        }
        chains
    }
}

/// An entry: a rule, a chain's policy or its beginning, or the table's end.
struct TableEntry<'a> {
    offset: u32,
    /// The protocol that it is limited to.
    protocol: Option<u8>,
    matches: Vec<Part<'a>>,
    target: Part<'a>,
}

/// A match or a target.
struct Part<'a> {
    name: String,
    revision: u8,
    data: &'a [u8],
}

impl TableEntry<'_> {
    fn conditions(&self) -> (RuleScope, Vec<RuleAction>) {
        let mut scope = RuleScope {
            protocol: self.protocol,
            port: None,
        };
        let mut actions = Vec::new();
        for part in &self.matches {
            xtables::match_of(&part.name, part.data, &mut scope, &mut actions);
        }
        (scope, actions)
    }
}

fn split(layout: EntryLayout, entries: &[u8]) -> io::Result<Vec<TableEntry<'_>>> {
    let mut found = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let offset = u32::try_from(entries.len() - rest.len()).map_err(io::Error::other)?;
        let field = |at| u16_at(rest, at).map(usize::from).ok_or_else(damaged);
        let target = field(layout.offsets)?;
        let next = field(layout.offsets + 2)?;
        let (entry, behind) = rest.split_at_checked(next).ok_or_else(damaged)?;
        let mut matches = entry.get(layout.size..target).ok_or_else(damaged)?;
        let mut parts = Vec::new();
        while !matches.is_empty() {
            let size = u16_at(matches, 0).map(usize::from).ok_or_else(damaged)?;
            let (part, others) = matches.split_at_checked(size).ok_or_else(damaged)?;
            parts.push(Part::read(part)?);
            matches = others;
        }
        let is_inverted = entry[layout.inversions] & OTHER_PROTOCOLS != 0;
        let protocol = u16_at(entry, layout.protocol).and_then(|number| number.try_into().ok());
        found.push(TableEntry {
            offset,
            protocol: protocol.filter(|number| *number != 0 && !is_inverted),
            matches: parts,
            target: Part::read(&entry[target..])?,
        });
        rest = behind;
    }
    Ok(found)
}

impl<'a> Part<'a> {
    fn read(bytes: &'a [u8]) -> io::Result<Self> {
        let (head, data) = bytes.split_at_checked(PART).ok_or_else(damaged)?;
        Ok(Self {
            name: text(&head[2..PART - 1]),
            revision: head[PART - 1],
            data,
        })
    }
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the entries are not as long as they say",
    )
}
