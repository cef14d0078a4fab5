//! The binding: the constant nftables table that turns a helper mark into the
//! conntrack helper of a new connection.

mod chains;

use std::io;

use serde_json::Value;

use self::chains::BindingChain;
use super::{
    AgentId, BindingCarriers, Carrier, Error, MarkBits, Netns, Nft, foreign_rules,
    netfilter::{self, Dump, TableState},
    nft::{NftChange, NftFailure, NftObject, TableFamily},
    wait_for_programs,
};
use crate::model::{Families, Helper, protocol_name};

/// The prefix of the binding table's name, in front of the agent's id.
pub const TABLE_PREFIX: &str = "conntrack-agent-";

/// The binding: the table as it is in every namespace that needs one.
#[derive(Clone, Debug)]
pub struct Binding {
    nft: Nft,
    table: String,
    bits: MarkBits,
    helpers: Vec<Helper>,
    /// The forms of the table that this kernel can have.
    forms: Vec<Form>,
}

/// A form of the table: how it looks when it reads certain carriers.
#[derive(Clone, Debug, PartialEq)]
struct Form {
    reads: BindingCarriers,
    /// The kernel's dump of this form.
    dump: Dump,
    /// The listing of this form by nft.
    listing: Value,
}

/// The name of a scratch namespace in errors.
const PLACE: &str = "a scratch namespace";

/// The state of a namespace in the binding's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingState {
    /// The namespace has no such table.
    Absent,
    /// The namespace has the binding, which reads these carriers.
    Reading(BindingCarriers),
    /// The namespace has a table of ours that is no binding.
    Different,
}

impl Binding {
    /// Finds the binding for all helpers that this kernel has.
    ///
    /// The helpers, and how the table looks to the kernel and in a listing, are
    /// found out by making the table in a scratch namespace: the kernel knows its
    /// helpers, nft its spelling.
    ///
    /// # Errors
    /// [`Error`] if there is no nft, or if it refuses the table for a reason other
    /// than a missing helper.
    pub fn probe(nft: Nft, agent: AgentId, bits: MarkBits) -> Result<Self, Error> {
        let mut binding = Self {
            nft,
            table: format!("{TABLE_PREFIX}{agent}"),
            bits,
            helpers: Helper::all().collect(),
            forms: Vec::new(),
        };
        Netns::scratch(move || {
            const MARK: BindingCarriers = BindingCarriers::One(Carrier::Mark);
            const PRIORITY: BindingCarriers = BindingCarriers::One(Carrier::Priority);
            let refused = |refusal: NftFailure| refusal.in_place(PLACE);
            if binding.nft.transact(&binding.creation(MARK))?.is_err() {
                binding.helpers = binding.present_helpers()?;
                let made = binding.nft.transact(&binding.creation(MARK))?;
                made.map_err(refused)?;
            }
            binding.note_form(MARK)?;
            // A kernel without nat chains refuses this.
            if binding
                .nft
                .transact(&binding.replacement(PRIORITY))?
                .is_ok()
            {
                binding.note_forms()?;
            }
            Ok(binding)
        })
    }

    /// Records the forms of tables that are made in steps. A form depends on the
    /// steps: chains are listed in the order of their creation, and the kernel
    /// gives a rule's set the lowest free number (`nf_tables_set_alloc_name`). So
    /// every step is taken until none leads to a new form.
    fn note_forms(&mut self) -> Result<(), Error> {
        const WAYS: [[BindingCarriers; 5]; 2] = {
            const MARK: BindingCarriers = BindingCarriers::One(Carrier::Mark);
            const PRIORITY: BindingCarriers = BindingCarriers::One(Carrier::Priority);
            const BOTH: BindingCarriers = BindingCarriers::Both;
            [
                [MARK, BOTH, PRIORITY, BOTH, MARK],
                [PRIORITY, BOTH, MARK, BOTH, PRIORITY],
            ]
        };
        for [first, rest @ ..] in WAYS {
            let made = self.nft.transact(&self.replacement(first))?;
            made.map_err(|refusal| refusal.in_place(PLACE))?;
            self.note_form(first)?;
            let mut before = first;
            for reads in rest {
                let made = self.nft.transact(&self.step(before, reads))?;
                made.map_err(|refusal| refusal.in_place(PLACE))?;
                self.note_form(reads)?;
                before = reads;
            }
        }
        Ok(())
    }

    /// Records the form of the table that was just made in a scratch namespace.
    fn note_form(&mut self, reads: BindingCarriers) -> Result<(), Error> {
        let listing = self.nft.list_table(&self.table)?;
        let listing = listing.map_err(|refusal| refusal.in_place(PLACE))?;
        let dump = match look_up(&self.table, PLACE)? {
            TableState::Table(dump) => dump,
            // No other process is in that namespace to change or remove it.
            TableState::Absent | TableState::Changing => {
                return Err(Error::Table {
                    place: PLACE.into(),
                    table: self.table.clone(),
                    source: io::Error::other("nft has made it, and it is not there"),
                });
            }
        };
        let form = Form {
            reads,
            dump,
            listing,
        };
        if !self.forms.contains(&form) {
            self.forms.push(form);
        }
        Ok(())
    }

    /// Returns whether this kernel can have a binding that reads these carriers.
    #[must_use]
    pub fn can_read(&self, reads: BindingCarriers) -> bool {
        self.forms.iter().any(|form| form.reads == reads)
    }

    /// Returns the helpers that this kernel has.
    #[must_use]
    pub fn helpers(&self) -> &[Helper] {
        &self.helpers
    }

    /// Returns the state of the namespace.
    ///
    /// # Errors
    /// [`Error`] if it can't be determined.
    pub fn observe(&self, netns: &Netns) -> Result<BindingState, Error> {
        netns.enter(|| self.observe_here(netns.name()))
    }

    /// Returns the state of the calling thread's network namespace; `place` is its
    /// name, for errors.
    ///
    /// The kernel is asked first. A table that it describes differently from ours
    /// may still be the same in other words, so then nft decides.
    ///
    /// # Errors
    /// [`Error`] if it can't be determined.
    pub fn observe_here(&self, place: &str) -> Result<BindingState, Error> {
        match look_up(&self.table, place)? {
            TableState::Absent => return Ok(BindingState::Absent),
            TableState::Table(dump) => {
                if let Some(form) = self.forms.iter().find(|form| form.dump == dump) {
                    return Ok(BindingState::Reading(form.reads));
                }
            }
            TableState::Changing => {}
        }
        match self.nft.list_table(&self.table)? {
            Ok(listing) => {
                let form = self.forms.iter().find(|form| form.listing == listing);
                Ok(form.map_or(BindingState::Different, |form| {
                    BindingState::Reading(form.reads)
                }))
            }
            Err(refusal) if refusal.is_not_found() => Ok(BindingState::Absent),
            Err(refusal) => Err(refusal.in_place(place)),
        }
    }

    /// Puts the table that reads these carriers into the namespace, in place of
    /// what was seen there, in one transaction. Of a table that is a binding
    /// already, only what has to change is replaced. A carrier that the new table
    /// no longer reads is one that no program uses any more: programs that still
    /// run are waited for.
    ///
    /// # Errors
    /// [`Error`] if nft refuses, as it does where nothing was seen and a table has
    /// appeared since; then nothing changed.
    pub fn install(
        &self,
        netns: &Netns,
        instead_of: BindingState,
        reads: BindingCarriers,
    ) -> Result<(), Error> {
        let commands = match instead_of {
            // A deletion makes the kernel wait until no packet is in the table
            // that goes: 11 of 18 ms (Linux 6.18).
            BindingState::Absent => self.creation(reads),
            BindingState::Reading(before) => {
                if !reads.has_all_of(before) {
                    wait_for_programs();
                }
                self.step(before, reads)
            }
            BindingState::Different => self.replacement(reads),
        };
        netns
            .enter(|| self.nft.transact(&commands))?
            .map_err(|refusal| refusal.in_place(netns.name()))
    }

    /// Returns whether the namespace has NAT for IPv4, apart from the binding's
    /// own chain.
    ///
    /// # Errors
    /// [`Error::Table`] if it can't be determined.
    pub fn is_beside_nat(&self, netns: &Netns) -> Result<bool, Error> {
        netns.enter(|| {
            foreign_rules::has_nat(TABLE_PREFIX).map_err(|source| Error::Table {
                place: netns.name().to_owned(),
                table: "nat".into(),
                source,
            })
        })
    }

    /// Removes the table from the namespace; a namespace without one stays as it
    /// is.
    ///
    /// # Errors
    /// [`Error`] if nft refuses.
    pub fn remove(&self, netns: &Netns) -> Result<(), Error> {
        remove_table(&self.nft, netns, &self.table).map(|_| ())
    }

    fn table(&self) -> NftObject {
        NftObject::Table {
            family: TableFamily::Inet,
            name: self.table.clone(),
        }
    }

    fn present_helpers(&self) -> Result<Vec<Helper>, Error> {
        let mut present = Vec::new();
        for helper in Helper::all() {
            let alone = [
                NftChange::Add(self.table()),
                NftChange::Add(self.helper(helper)),
                NftChange::Delete(self.table()),
            ];
            if self.nft.transact(&alone)?.is_ok() {
                present.push(helper);
            }
        }
        Ok(present)
    }

    /// Returns the changes that replace a table that may be there.
    fn replacement(&self, reads: BindingCarriers) -> Vec<NftChange> {
        // The table is added first so that there is one to delete.
        let mut commands = vec![
            NftChange::Add(self.table()),
            NftChange::Delete(self.table()),
        ];
        commands.extend(self.creation(reads));
        commands
    }

    /// Returns the changes from one whole table to another. The chain that both
    /// have stays as it is: a packet may be on its way through it, and a
    /// transaction isn't one moment for a packet, as the kernel checks the
    /// generation of each chain and each set separately (`nft_do_chain`,
    /// `net/netfilter/nf_tables_core.c`; `nft_genmask_cur`). In a table that was
    /// replaced whole, one connection in some 100,000 missed its helper.
    fn step(&self, before: BindingCarriers, reads: BindingCarriers) -> Vec<NftChange> {
        let differs = |wanted: BindingCarriers, other: BindingCarriers| {
            let carriers = [Carrier::Mark, Carrier::Priority].into_iter();
            carriers.filter(move |carrier| wanted.has(*carrier) && !other.has(*carrier))
        };
        let added = differs(reads, before).flat_map(|carrier| self.chain(carrier));
        let removed = differs(before, reads).map(|carrier| {
            let chain = BindingChain::of(carrier, self.bits, &self.helpers);
            NftChange::Delete(chain.named(&self.table))
        });
        added.chain(removed).collect()
    }

    /// Returns the changes that make a chain that is not there yet.
    fn chain(&self, carrier: Carrier) -> impl Iterator<Item = NftChange> {
        let chain = BindingChain::of(carrier, self.bits, &self.helpers);
        let objects = chain.objects(&self.table).into_iter();
        objects.enumerate().map(|(place, object)| match place {
            0 => NftChange::Create(object),
            _ => NftChange::Add(object),
        })
    }

    fn creation(&self, reads: BindingCarriers) -> Vec<NftChange> {
        let mut objects: Vec<_> = self.helpers.iter().map(|each| self.helper(*each)).collect();
        for carrier in [Carrier::Mark, Carrier::Priority] {
            if reads.has(carrier) {
                let chain = BindingChain::of(carrier, self.bits, &self.helpers);
                objects.extend(chain.objects(&self.table));
            }
        }
        // `Create` and not `Add`: with `Add`, what is there already would stay.
        let table = NftChange::Create(self.table());
        let objects = objects.into_iter().map(NftChange::Add);
        std::iter::once(table).chain(objects).collect()
    }

    fn helper(&self, helper: Helper) -> NftObject {
        NftObject::CtHelper {
            family: TableFamily::Inet,
            table: self.table.clone(),
            name: object_name(helper),
            kind: helper.name(),
            protocol: protocol_name(helper.protocol()),
            l3proto: match helper.families() {
                Families::Ipv4 => "ip",
                Families::Both => "inet",
            },
        }
    }
}

/// Removes the table that the agent `owner` calls its binding from the namespace.
/// Returns whether there was one.
///
/// # Errors
/// [`Error`] if nft refuses.
pub fn remove_binding_of(nft: &Nft, netns: &Netns, owner: AgentId) -> Result<bool, Error> {
    remove_table(nft, netns, &format!("{TABLE_PREFIX}{owner}"))
}

fn remove_table(nft: &Nft, netns: &Netns, name: &str) -> Result<bool, Error> {
    let table = NftChange::Delete(NftObject::Table {
        family: TableFamily::Inet,
        name: name.to_owned(),
    });
    netns.enter(|| {
        if look_up(name, netns.name())? == TableState::Absent {
            return Ok(false);
        }
        let refused = |refusal: NftFailure| refusal.in_place(netns.name());
        nft.transact(&[table])?.map_err(refused)?;
        Ok(true)
    })
}

fn look_up(table: &str, place: &str) -> Result<TableState, Error> {
    netfilter::table(table).map_err(|source| Error::Table {
        place: place.to_owned(),
        table: table.to_owned(),
        source,
    })
}

/// Returns the name of a helper's object, with the protocol, because sip has two
/// objects.
fn object_name(helper: Helper) -> String {
    format!("{}-{}", helper.name(), protocol_name(helper.protocol()))
}
