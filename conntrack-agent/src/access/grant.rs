//! A grant: as the configuration has it, and as it is once it was checked.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use serde::Deserialize;

use super::{TokenName, accounts::Accounts};
use crate::model::RouterId;

/// What somebody who was granted it may do. The later ones may all that the
/// earlier ones may.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees rules and routers.
    Reader,
    /// Changes rules, router by router.
    Operator,
    /// Also does what spans all routers.
    Admin,
}

impl Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// A `[[grant]]` of the configuration, as it is written there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The users that it is for.
    #[serde(default)]
    pub users: Vec<Account>,
    /// The groups whose members it is for.
    #[serde(default)]
    pub groups: Vec<Account>,
    /// The names of the tokens that it is for.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// What they may do.
    pub role: Role,
    /// The only routers on which they may; without it, all.
    pub routers: Option<Vec<String>>,
}

/// A user or a group, as the configuration names it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(
    untagged,
    expecting = "a name in quotes or a number from 0 to 4294967294 is wanted"
)]
pub enum Account {
    /// By its number, whether the host knows it or not.
    Number(u32),
    /// By the name that it has on this host.
    Name(String),
}

/// A grant whose names are resolved and whose routers are ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Its place among the configuration's grants, from 1.
    pub(super) number: usize,
    pub(super) role: Role,
    pub(super) users: BTreeSet<u32>,
    pub(super) groups: BTreeSet<u32>,
    pub(super) tokens: BTreeSet<TokenName>,
    /// None: all.
    routers: Option<BTreeSet<RouterId>>,
}

impl Checked {
    /// # Errors
    /// Everything that is wrong with the grant.
    pub(super) fn new(
        number: usize,
        grant: &Grant,
        host: &impl Accounts,
    ) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        if grant.users.is_empty() && grant.groups.is_empty() && grant.tokens.is_empty() {
            faults.push(
                "it is for nobody: at least one of users, groups and tokens is wanted".into(),
            );
        }
        let users = numbers("user", &grant.users, |name| host.user(name), &mut faults);
        let groups = numbers("group", &grant.groups, |name| host.group(name), &mut faults);
        // What stands in a name's place may be the token itself: not repeated.
        let names = grant.tokens.iter().map(|name| TokenName::new(name));
        let tokens = names.collect::<Option<BTreeSet<_>>>();
        if tokens.is_none() {
            faults.push(format!(
                "tokens has an entry that is no token's name: {}",
                TokenName::RULE
            ));
        }
        let routers = grant
            .routers
            .as_deref()
            .map(|given| routers(grant.role, given, &mut faults));
        if faults.is_empty() {
            Ok(Self {
                number,
                role: grant.role,
                users,
                groups,
                tokens: tokens.unwrap_or_default(),
                routers,
            })
        } else {
            let numbered = |fault| format!("grant {number}: {fault}");
            Err(faults.into_iter().map(numbered).collect())
        }
    }

    pub(super) fn covers(&self, router: RouterId) -> bool {
        let covers = |routers: &BTreeSet<RouterId>| routers.contains(&router);
        self.routers.as_ref().is_none_or(covers)
    }
}

impl Display for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "grant {} (role {})", self.number, self.role)
    }
}

fn numbers(
    what: &str,
    accounts: &[Account],
    number_of: impl Fn(&str) -> nix::Result<Option<u32>>,
    faults: &mut Vec<String>,
) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for account in accounts {
        match account {
            // (uid_t)-1 is no number of anybody's, but "unchanged" or "none" to
            // the system calls that take one (chown(2), setreuid(2)).
            Account::Number(u32::MAX) => faults.push(format!(
                "{what} {} is nobody's number; 0 to {} are allowed",
                u32::MAX,
                u32::MAX - 1
            )),
            Account::Number(number) => {
                numbers.insert(*number);
            }
            Account::Name(name) => match number_of(name) {
                Ok(Some(number)) => {
                    numbers.insert(number);
                }
                Ok(None) => faults.push(format!(
                    "this host has no {what} {name:?}; a {what}'s name is wanted, \
                     or its number without quotes"
                )),
                Err(error) => {
                    faults.push(format!("{what} {name:?} cannot be looked up: {error}"));
                }
            },
        }
    }
    numbers
}

fn routers(role: Role, given: &[String], faults: &mut Vec<String>) -> BTreeSet<RouterId> {
    if given.is_empty() {
        faults.push("routers is empty: name at least one, or leave routers out for all".into());
    }
    if role == Role::Admin {
        faults.push(
            "role admin spans all routers, so it cannot be limited to some; \
             leave routers out, or grant operator"
                .into(),
        );
    }
    let parsed = given.iter().filter_map(|router| {
        let refused = |error: crate::model::RouterIdError| faults.push(format!("routers: {error}"));
        router.parse().map_err(refused).ok()
    });
    parsed.collect()
}
