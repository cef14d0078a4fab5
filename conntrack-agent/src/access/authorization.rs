//! What one peer may do, and the sentence that refuses the rest.

use std::sync::Arc;

use super::{Principal, Role, grant::Checked};
use crate::model::RouterId;

/// The permissions of one principal: the union of the grants that are for it.
///
/// It is all that a decision needs, so one is taken before anything else is
/// looked up, and the same whether a router exists or not.
#[derive(Clone, Debug)]
pub struct Authorization {
    principal: Principal,
    /// The grants that are for this principal. Root needs none.
    grants: Vec<Arc<Checked>>,
}

/// A refusal: one sentence, with each grant that could have allowed it and why
/// it does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Forbidden {
    sentence: String,
}

impl Authorization {
    pub(super) const fn new(principal: Principal, grants: Vec<Arc<Checked>>) -> Self {
        Self { principal, grants }
    }

    /// Returns whose permissions they are.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    const fn is_root(&self) -> bool {
        matches!(self.principal, Principal::Local { uid: 0, .. })
    }

    const fn is_scraper(&self) -> bool {
        matches!(self.principal, Principal::Scraper { .. })
    }

    /// Whether no grant is for this peer, so that it may do nothing at all.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.grants.is_empty() && !self.is_root() && !self.is_scraper()
    }

    /// Whether the peer may do anything at all: what tells nothing of any
    /// router, like the version.
    ///
    /// # Errors
    /// [`Forbidden`] if no grant is for it.
    pub fn may_enter(&self) -> Result<(), Forbidden> {
        if self.is_scraper() {
            return Ok(());
        }
        self.any(|_| Ok(()))
    }

    /// Whether the peer may see this router and its rules. Lists show the
    /// routers for which this holds.
    ///
    /// # Errors
    /// [`Forbidden`] if none of its grants covers the router.
    pub fn may_read(&self, router: RouterId) -> Result<(), Forbidden> {
        self.any(|grant| covering(grant, router))
    }

    /// Whether the peer may change this router's rules.
    ///
    /// # Errors
    /// [`Forbidden`] if none of its grants has a role that changes rules and
    /// covers the router.
    pub fn may_change(&self, router: RouterId) -> Result<(), Forbidden> {
        self.any(|grant| match grant.role {
            Role::Reader => Err("allows no change".into()),
            Role::Operator | Role::Admin => covering(grant, router),
        })
    }

    /// Whether the peer may see what spans all routers: the whole status.
    ///
    /// # Errors
    /// [`Forbidden`] if it is no admin.
    pub fn may_read_all(&self) -> Result<(), Forbidden> {
        self.any(|grant| admin(grant, "does not show what spans all routers"))
    }

    /// Whether the peer may see the metrics, which span all routers.
    ///
    /// # Errors
    /// [`Forbidden`] if it is no admin, and didn't come by their own address.
    pub fn may_read_metrics(&self) -> Result<(), Forbidden> {
        if self.is_scraper() {
            return Ok(());
        }
        self.may_read_all()
    }

    /// Whether the peer may change what spans all routers: the rules of all of
    /// them in one.
    ///
    /// # Errors
    /// [`Forbidden`] if it is no admin.
    pub fn may_change_all(&self) -> Result<(), Forbidden> {
        self.any(|grant| admin(grant, "does not allow changes that span all routers"))
    }

    /// Whether any one grant allows it; else what each of them says.
    fn any(&self, asked: impl Fn(&Checked) -> Result<(), String>) -> Result<(), Forbidden> {
        if self.is_root() {
            return Ok(());
        }
        let mut objections = Vec::new();
        for grant in &self.grants {
            match asked(grant) {
                Ok(()) => return Ok(()),
                Err(objection) => objections.push(format!("{grant} {objection}")),
            }
        }
        let sentence = match &self.principal {
            _ if !objections.is_empty() => objections.join(", "),
            Principal::Local { uid, .. } => {
                format!("no grant names uid {uid} or a group that it is in")
            }
            Principal::Token { name } => format!("no grant names token \"{name}\""),
            Principal::Scraper { .. } => "this address shows metrics and nothing else".to_owned(),
            Principal::Unknown { .. } | Principal::RulesFile => {
                format!("{} has no grant", self.principal)
            }
        };
        Err(Forbidden { sentence })
    }
}

fn covering(grant: &Checked, router: RouterId) -> Result<(), String> {
    if grant.covers(router) {
        Ok(())
    } else {
        Err(format!("does not cover router {router}"))
    }
}

fn admin(grant: &Checked, objection: &str) -> Result<(), String> {
    if grant.role == Role::Admin {
        Ok(())
    } else {
        Err(format!("{objection}; role admin does"))
    }
}
