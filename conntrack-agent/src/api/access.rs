//! Who may do what: the configuration's grants, and what they make of a peer.
//!
//! Without a grant only root gets in. Root is always an admin, whatever the
//! grants say: it can replace the agent, its configuration and what is in the
//! kernel anyway, so refusing it would protect nothing, and a mistake in the
//! grants would lock out the one who has to mend it.

mod accounts;
mod authorization;
mod grant;

pub use authorization::{Authorization, Forbidden};
pub use grant::{Account, Grant, Role};

use std::{collections::BTreeSet, sync::Arc};

use accounts::{Accounts, NameService};
use authorization::Principal;
use grant::Checked;

use crate::sources::listed;

/// The grants, checked.
#[derive(Clone, Debug)]
pub struct Access {
    grants: Vec<Arc<Checked>>,
}

/// Why grants were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the grants are refused:{}", listed(faults))]
pub struct AccessError {
    /// Everything that is wrong: which grant, counted from 1, what, and what is
    /// allowed.
    pub faults: Vec<String>,
}

impl Access {
    /// Takes the names that the grants use for what the host says that they are
    /// now; an account that is made again with another number needs a restart.
    ///
    /// # Errors
    /// [`AccessError`] with every fault, among them each name that the host
    /// does not know.
    pub fn new(grants: &[Grant]) -> Result<Self, AccessError> {
        Self::on(&NameService, grants)
    }

    fn on(host: &impl Accounts, grants: &[Grant]) -> Result<Self, AccessError> {
        let (mut checked, mut faults) = (Vec::new(), Vec::new());
        for (number, grant) in (1..).zip(grants) {
            match Checked::new(number, grant, host) {
                Ok(grant) => checked.push(Arc::new(grant)),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() {
            Ok(Self { grants: checked })
        } else {
            Err(AccessError { faults })
        }
    }

    /// What a peer of the Unix socket may do, by what the kernel says of it
    /// (`SO_PEERCRED`, unix(7)). Its other groups are those that the host has
    /// for the user; where the host doesn't know the user or can't tell, it is
    /// in `gid` alone.
    ///
    /// Asks the host's name service if a grant names a group, and then blocks.
    #[must_use]
    pub fn of_peer(&self, uid: u32, gid: u32) -> Authorization {
        self.peer(&NameService, uid, gid)
    }

    /// What the bearer of the token of this name may do.
    #[must_use]
    pub fn of_token(&self, name: &str) -> Authorization {
        let grants = self.matching(|grant| grant.tokens.contains(name));
        Authorization::new(Principal::Token(name.to_owned()), grants)
    }

    /// What whoever connects to the metrics' own address may do: read them.
    #[must_use]
    pub const fn of_scraper() -> Authorization {
        Authorization::new(Principal::Scraper, Vec::new())
    }

    fn peer(&self, host: &impl Accounts, uid: u32, gid: u32) -> Authorization {
        if uid == 0 {
            return Authorization::new(Principal::Root, Vec::new());
        }
        let mut groups = BTreeSet::from([gid]);
        if self.grants.iter().any(|grant| !grant.groups.is_empty()) {
            match host.groups_of(uid) {
                Ok(more) => groups.extend(more),
                Err(error) => tracing::warn!(
                    uid,
                    %error,
                    "a peer's groups cannot be looked up; no grant to one of them is for it"
                ),
            }
        }
        let grants =
            self.matching(|grant| grant.users.contains(&uid) || !grant.groups.is_disjoint(&groups));
        Authorization::new(Principal::User(uid), grants)
    }

    fn matching(&self, is_for: impl Fn(&Checked) -> bool) -> Vec<Arc<Checked>> {
        let matching = self.grants.iter().filter(|grant| is_for(grant));
        matching.cloned().collect()
    }
}

#[cfg(test)]
mod tests;
