//! Decides what a principal may do, and words the refusals.

use std::sync::Arc;

use super::{Principal, Role, grant::Checked};
use crate::model::RouterId;

/// The permissions of one principal: the union of the grants that are for it.
///
/// A decision needs nothing else, so it is made before any router is looked up, and is the
/// same whether the router exists or not.
#[derive(Clone, Debug)]
pub struct Authorization {
    principal: Principal,
    /// The grants for this principal. Root needs none.
    grants: Vec<Arc<Checked>>,
}

/// A refusal: one sentence, which says of each of the principal's grants why it does not
/// allow the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Forbidden {
    sentence: String,
}

impl Authorization {
    pub(super) const fn new(principal: Principal, grants: Vec<Arc<Checked>>) -> Self {
        Self { principal, grants }
    }

    /// Returns the principal that has the permissions.
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

    /// Returns whether the principal has no permission at all.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.grants.is_empty() && !self.is_root() && !self.is_scraper()
    }

    /// Checks that the principal has any permission; then it may read what concerns no
    /// router, such as the version.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if it has no grant.
    pub fn may_enter(&self) -> Result<(), Forbidden> {
        if self.is_scraper() {
            return Ok(());
        }
        self.any(|_| Ok(()))
    }

    /// Checks that the principal may read this router and its rules. Lists show only
    /// routers that it may read.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if none of its grants covers the router.
    pub fn may_read(&self, router: RouterId) -> Result<(), Forbidden> {
        self.any(|grant| covering(grant, router))
    }

    /// Checks that the principal may change this router's rules.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if none of its grants has a role that changes rules and
    /// covers the router.
    pub fn may_change(&self, router: RouterId) -> Result<(), Forbidden> {
        self.any(|grant| match grant.role {
            Role::Reader => Err("allows no change".into()),
            Role::Operator | Role::Admin => covering(grant, router),
        })
    }

    /// Checks that the principal may read what spans all routers, such as the status.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if it is not an admin.
    pub fn may_read_all(&self) -> Result<(), Forbidden> {
        self.any(|grant| admin(grant, "does not show what spans all routers"))
    }

    /// Checks that the principal may read the metrics, which span all routers.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if it is not an admin and does not use the metrics' own
    /// address.
    pub fn may_read_metrics(&self) -> Result<(), Forbidden> {
        if self.is_scraper() {
            return Ok(());
        }
        self.may_read_all()
    }

    /// Checks that the principal may change the rules of all routers at once.
    ///
    /// # Errors
    /// Returns [`Forbidden`] if it is not an admin.
    pub fn may_change_all(&self) -> Result<(), Forbidden> {
        self.any(|grant| admin(grant, "does not allow changes that span all routers"))
    }

    /// Checks that at least one grant allows the request; otherwise joins the objections of
    /// all grants.
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

/// Checks that a grant covers the router.
fn covering(grant: &Checked, router: RouterId) -> Result<(), String> {
    if grant.covers(router) {
        Ok(())
    } else {
        Err(format!("does not cover router {router}"))
    }
}

/// Checks that a grant has the role admin.
fn admin(grant: &Checked, objection: &str) -> Result<(), String> {
    if grant.role == Role::Admin {
        Ok(())
    } else {
        Err(format!("{objection}; role admin does"))
    }
}
