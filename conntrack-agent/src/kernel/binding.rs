//! The binding: the constant nftables table that turns a helper mark into the
//! conntrack helper of a new connection.

use std::io;

use serde_json::Value;

use super::{
    AgentId, Carrier, Error, Netns, Nft,
    netfilter::{self, Dump, Found},
    nft::{Change, Expression, Family, Object, Refusal, Statement},
};
use crate::model::{Families, Helper, protocol_name};

/// What the binding's table is called, in front of the agent's id.
pub const TABLE_PREFIX: &str = "conntrack-agent-";

const CHAIN: &str = "bind";

/// After conntrack (−200), before which there is no connection to give a helper
/// to; before Neutron's mangle rules (−150), which own all of `skb->mark`, and
/// before DNAT (−100), after which a helper lacks its sequence adjustment.
/// Priorities: `include/uapi/linux/netfilter_ipv4.h`.
const PRIORITY: i32 = -160;

/// The table, as it should be in every namespace that needs one.
#[derive(Clone, Debug)]
pub struct Binding {
    nft: Nft,
    table: String,
    carrier: Carrier,
    helpers: Vec<Helper>,
    /// How the kernel tells of this very table.
    dump: Dump,
    /// How nft lists it.
    listing: Value,
}

/// What a namespace holds in the binding's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingState {
    /// Nothing.
    Absent,
    /// The binding.
    Current,
    /// A table of ours that is not what it should be.
    Different,
}

impl Binding {
    /// The binding for all helpers that this kernel has.
    ///
    /// Both that, and how the table looks to the kernel and in a listing, are
    /// found out by making it in a scratch namespace: the kernel knows its
    /// helpers, nft its spelling.
    ///
    /// # Errors
    /// [`Error`] if there is no nft, or if it refuses the table for another
    /// reason than a helper that is not there.
    pub fn probe(nft: Nft, agent: AgentId, carrier: Carrier) -> Result<Self, Error> {
        let mut binding = Self {
            nft,
            table: format!("{TABLE_PREFIX}{agent}"),
            carrier,
            helpers: Helper::all().collect(),
            dump: Dump::default(),
            listing: Value::Null,
        };
        Netns::scratch(move || {
            const PLACE: &str = "a scratch namespace";
            let refused = |refusal: Refusal| refusal.in_place(PLACE);
            if binding.nft.transact(&binding.creation())?.is_err() {
                binding.helpers = binding.present_helpers()?;
                binding
                    .nft
                    .transact(&binding.creation())?
                    .map_err(refused)?;
            }
            let listing = binding.nft.list_table(&binding.table)?;
            binding.listing = listing.map_err(refused)?;
            match look_up(&binding.table, PLACE)? {
                Found::Table(dump) => binding.dump = dump,
                // Nobody else is in that namespace to change or remove it.
                Found::Absent | Found::Changing => {
                    return Err(Error::Table {
                        place: PLACE.into(),
                        table: binding.table,
                        source: io::Error::other("nft has made it, and it is not there"),
                    });
                }
            }
            Ok(binding)
        })
    }

    /// The helpers that this kernel has.
    #[must_use]
    pub fn helpers(&self) -> &[Helper] {
        &self.helpers
    }

    /// What the namespace holds.
    ///
    /// # Errors
    /// [`Error`] if that can't be told.
    pub fn observe(&self, netns: &Netns) -> Result<BindingState, Error> {
        netns.enter(|| self.observe_here(netns.name()))
    }

    /// What the calling thread's network namespace holds; `place` is its name,
    /// for errors.
    ///
    /// The kernel is asked. A table that it tells of otherwise than of ours may
    /// still be the same in other words, so then it is nft that decides.
    ///
    /// # Errors
    /// [`Error`] if that can't be told.
    pub fn observe_here(&self, place: &str) -> Result<BindingState, Error> {
        match look_up(&self.table, place)? {
            Found::Absent => return Ok(BindingState::Absent),
            Found::Table(dump) if dump == self.dump => return Ok(BindingState::Current),
            Found::Table(_) | Found::Changing => {}
        }
        match self.nft.list_table(&self.table)? {
            Ok(listing) if listing == self.listing => Ok(BindingState::Current),
            Ok(_) => Ok(BindingState::Different),
            Err(refusal) if refusal.is_not_found() => Ok(BindingState::Absent),
            Err(refusal) => Err(refusal.in_place(place)),
        }
    }

    /// Puts the table into the namespace, in the place of what was seen there:
    /// one transaction, so that no packet meets half of it.
    ///
    /// # Errors
    /// [`Error`] if nft refuses, as it does where nothing was seen and a table
    /// has come since; then nothing changed.
    pub fn install(&self, netns: &Netns, instead_of: BindingState) -> Result<(), Error> {
        let commands = match instead_of {
            // A deletion has the kernel wait until no packet meets the table
            // that goes: 11 of 18 ms (Linux 6.18).
            BindingState::Absent => self.creation(),
            // Added first so that there is one to delete.
            BindingState::Current | BindingState::Different => {
                let mut commands = vec![Change::Add(self.table()), Change::Delete(self.table())];
                commands.extend(self.creation());
                commands
            }
        };
        netns
            .enter(|| self.nft.transact(&commands))?
            .map_err(|refusal| refusal.in_place(netns.name()))
    }

    /// Takes the table out of the namespace; one that has none stays as it is.
    ///
    /// # Errors
    /// [`Error`] if nft refuses.
    pub fn remove(&self, netns: &Netns) -> Result<(), Error> {
        remove_table(&self.nft, netns, &self.table).map(|_| ())
    }

    fn table(&self) -> Object {
        Object::Table {
            family: Family::Inet,
            name: self.table.clone(),
        }
    }

    fn present_helpers(&self) -> Result<Vec<Helper>, Error> {
        let mut present = Vec::new();
        for helper in Helper::all() {
            let alone = [
                Change::Add(self.table()),
                Change::Add(self.helper(helper)),
                Change::Delete(self.table()),
            ];
            if self.nft.transact(&alone)?.is_ok() {
                present.push(helper);
            }
        }
        Ok(present)
    }

    fn creation(&self) -> Vec<Change> {
        let mut objects: Vec<_> = self.helpers.iter().map(|each| self.helper(*each)).collect();
        objects.push(Object::Chain {
            family: Family::Inet,
            table: self.table.clone(),
            name: CHAIN,
            kind: "filter",
            hook: "prerouting",
            prio: PRIORITY,
            policy: "accept",
        });
        let rules = self.rules().map(|expr| Object::Rule {
            family: Family::Inet,
            table: self.table.clone(),
            chain: CHAIN,
            expr,
        });
        objects.extend(rules);
        // Not added: what would be there already would stay.
        let table = Change::Create(self.table());
        let objects = objects.into_iter().map(Change::Add);
        std::iter::once(table).chain(objects).collect()
    }

    fn helper(&self, helper: Helper) -> Object {
        Object::CtHelper {
            family: Family::Inet,
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

    /// Most packets have no mark and leave at the first rule. Setting and
    /// clearing are rules of their own: a mark that the map has no entry for
    /// ends its rule, and must be cleared all the same.
    ///
    /// Only new connections get a helper. One that another connection's helper
    /// has announced has what that one gives it, or none, as with iptables: its
    /// CT target's template counts for nothing there (`init_conntrack`,
    /// `net/netfilter/nf_conntrack_core.c`), whereas `ct helper set` would act.
    fn rules(&self) -> [Vec<Statement>; 3] {
        let mark = || Expression::Meta { key: "mark" };
        let and = |bits| Expression::And(Box::new(mark()), Box::new(Expression::Number(bits)));
        let ours = self.carrier.mask();
        let entries = self
            .helpers
            .iter()
            .map(|helper| (self.carrier.bits(helper.mark()), object_name(*helper)));
        [
            vec![
                Statement::Match {
                    op: "==",
                    left: and(ours),
                    right: Expression::Number(0),
                },
                Statement::Accept(()),
            ],
            vec![
                Statement::Match {
                    op: "in",
                    left: Expression::Ct { key: "state" },
                    right: Expression::Symbol("new"),
                },
                Statement::SetHelper(Expression::Map {
                    key: Box::new(and(ours)),
                    data: Box::new(Expression::Set(entries.collect())),
                }),
            ],
            vec![Statement::Mangle {
                key: mark(),
                value: and(!ours),
            }],
        ]
    }
}

/// Takes the table that the agent `owner` calls its binding out of the
/// namespace. Returns whether there was one.
///
/// # Errors
/// [`Error`] if nft refuses.
pub fn remove_binding_of(nft: &Nft, netns: &Netns, owner: AgentId) -> Result<bool, Error> {
    remove_table(nft, netns, &format!("{TABLE_PREFIX}{owner}"))
}

fn remove_table(nft: &Nft, netns: &Netns, name: &str) -> Result<bool, Error> {
    let table = Change::Delete(Object::Table {
        family: Family::Inet,
        name: name.to_owned(),
    });
    netns.enter(|| {
        if look_up(name, netns.name())? == Found::Absent {
            return Ok(false);
        }
        let refused = |refusal: Refusal| refusal.in_place(netns.name());
        nft.transact(&[table])?.map_err(refused)?;
        Ok(true)
    })
}

fn look_up(table: &str, place: &str) -> Result<Found, Error> {
    netfilter::table(table).map_err(|source| Error::Table {
        place: place.to_owned(),
        table: table.to_owned(),
        source,
    })
}

/// With the protocol, because sip has two objects.
fn object_name(helper: Helper) -> String {
    format!("{}-{}", helper.name(), protocol_name(helper.protocol()))
}
