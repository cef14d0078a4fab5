//! Authorizes principals by the grants of the configuration.
//!
//! Without a grant, only root has access. Root is always an admin, whatever the grants
//! say: it can replace the agent, its configuration and its state in the kernel anyway, so
//! a refusal would protect nothing, and a mistake in the grants would lock out the one who
//! has to correct it.

mod accounts;
mod authorization;
mod grant;
mod principal;

pub use authorization::{Authorization, Forbidden};
pub use grant::{Account, Grant, Role};
pub use principal::{Principal, TokenName};

use std::{collections::BTreeSet, sync::Arc};

use accounts::{Accounts, NameService};
use grant::Checked;

/// The checked grants of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    grants: Vec<Arc<Checked>>,
}

impl Access {
    /// Checks the grants, and resolves their names to the host's present numbers; after an
    /// account is created again with another number, the agent must be restarted.
    ///
    /// # Errors
    /// Returns all faults, among them each name that the host does not know: which grant,
    /// counted from 1, what is wrong, and what is allowed.
    pub fn new(grants: &[Grant]) -> Result<Self, Vec<String>> {
        Self::on(&NameService, grants)
    }

    fn on(host: &impl Accounts, grants: &[Grant]) -> Result<Self, Vec<String>> {
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
            Err(faults)
        }
    }

    /// Returns the authorization of a principal. The supplementary groups of a process are
    /// those that the host has for its user; if the host doesn't know the user or can't
    /// tell, only the process's own group counts.
    ///
    /// Blocks on the host's name service if the principal is a process and a grant names a
    /// group.
    #[must_use]
    pub fn of(&self, principal: Principal) -> Authorization {
        self.on_host(&NameService, principal)
    }

    fn on_host(&self, host: &impl Accounts, principal: Principal) -> Authorization {
        let grants = match &principal {
            Principal::Local { uid: 0, .. } => Vec::new(),
            Principal::Local { uid, gid, .. } => self.of_user(host, *uid, *gid),
            Principal::Token { name } => self.matching(|grant| grant.tokens.contains(name)),
            Principal::Unknown { .. } | Principal::Scraper { .. } | Principal::RulesFile => {
                Vec::new()
            }
        };
        Authorization::new(principal, grants)
    }

    /// Returns the grants for a user, by the user itself or by its groups.
    fn of_user(&self, host: &impl Accounts, uid: u32, gid: u32) -> Vec<Arc<Checked>> {
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
        self.matching(|grant| grant.users.contains(&uid) || !grant.groups.is_disjoint(&groups))
    }

    /// Returns the names of all tokens that have a grant.
    pub fn token_names(&self) -> impl Iterator<Item = &TokenName> {
        self.grants.iter().flat_map(|grant| &grant.tokens)
    }

    fn matching(&self, is_for: impl Fn(&Checked) -> bool) -> Vec<Arc<Checked>> {
        self.grants
            .iter()
            .filter(|grant| is_for(grant))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests;
