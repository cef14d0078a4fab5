//! Defines a grant as the configuration has it, and checks it.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use serde::Deserialize;

use super::{TokenName, accounts::Accounts};
use crate::model::RouterId;

/// The role of a grant. Each role includes the permissions of the ones before it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads rules and routers.
    Reader,
    /// Changes rules, router by router.
    Operator,
    /// Reads and changes also what spans all routers.
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

/// A table `[[grant]]` of the configuration, as it is written there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The users to whom it applies.
    #[serde(default)]
    pub users: Vec<Account>,
    /// The groups to whose members it applies.
    #[serde(default)]
    pub groups: Vec<Account>,
    /// The names of the tokens to whose bearers it applies.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// The role that they have.
    pub role: Role,
    /// The routers that it covers; by default all.
    pub routers: Option<Vec<String>>,
}

/// A user or a group of the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(
    untagged,
    expecting = "a name in quotes or a number from 0 to 4294967294 is wanted"
)]
pub enum Account {
    /// A number, whether the host knows it or not.
    Number(u32),
    /// A name on this host.
    Name(String),
}

/// A checked grant, with resolved names and parsed ids of routers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// The position among the configuration's grants, from 1.
    pub(super) number: usize,
    pub(super) role: Role,
    pub(super) users: BTreeSet<u32>,
    pub(super) groups: BTreeSet<u32>,
    pub(super) tokens: BTreeSet<TokenName>,
    /// The routers that it covers; `None` for all.
    routers: Option<BTreeSet<RouterId>>,
}

impl Checked {
    /// Checks a grant.
    ///
    /// # Errors
    /// Returns all faults of the grant.
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
        // The fault does not repeat the entry, which can be the token itself by mistake.
        let tokens = grant
            .tokens
            .iter()
            .map(|name| TokenName::new(name))
            .collect::<Option<BTreeSet<_>>>();
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

    /// Returns whether the grant covers a router.
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

/// Resolves users or groups to their numbers.
fn numbers(
    what: &str,
    accounts: &[Account],
    number_of: impl Fn(&str) -> nix::Result<Option<u32>>,
    faults: &mut Vec<String>,
) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for account in accounts {
        match account {
            // (uid_t)-1 is not an account: system calls that take a number read it as
            // "unchanged" or "none" (chown(2), setreuid(2)).
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

/// Parses the routers of a grant.
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
