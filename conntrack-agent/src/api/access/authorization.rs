//! What one peer may do, and the sentence that refuses the rest.

use std::{fmt, sync::Arc};

use super::{Role, grant::Checked};
use crate::model::RouterId;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    Root,
    User(u32),
    Token(String),
    /// Anybody on this host, by the address that is for metrics alone.
    Scraper,
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => formatter.write_str("root"),
            Self::User(uid) => write!(formatter, "uid {uid}"),
            Self::Token(name) => write!(formatter, "token {name:?}"),
            Self::Scraper => formatter.write_str("whoever reads metrics"),
        }
    }
}

/// What one peer may do: the union of the grants that are for it. Its
/// [`Display`](fmt::Display) says who the peer is, for the log.
///
/// It is all that a decision needs, so one is taken before anything else is
/// looked up, and the same whether a router exists or not.
#[derive(Clone, Debug)]
pub struct Authorization {
    who: Principal,
    /// The grants that are for this peer. Root needs none.
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
    pub(super) const fn new(who: Principal, grants: Vec<Arc<Checked>>) -> Self {
        Self { who, grants }
    }

    /// Whether no grant is for this peer, so that it may do nothing at all.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        !matches!(self.who, Principal::Root | Principal::Scraper) && self.grants.is_empty()
    }

    /// Whether the peer may do anything at all: what tells nothing of any
    /// router, like the version.
    ///
    /// # Errors
    /// [`Forbidden`] if no grant is for it.
    pub fn may_enter(&self) -> Result<(), Forbidden> {
        if self.who == Principal::Scraper {
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
        match self.who {
            Principal::Scraper => Ok(()),
            Principal::Root | Principal::User(_) | Principal::Token(_) => self.may_read_all(),
        }
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
        let mut objections = Vec::new();
        for grant in &self.grants {
            match asked(grant) {
                Ok(()) => return Ok(()),
                Err(objection) => objections.push(format!("{grant} {objection}")),
            }
        }
        let sentence = match &self.who {
            Principal::Root => return Ok(()),
            Principal::User(uid) if objections.is_empty() => {
                format!("no grant names uid {uid} or a group that it is in")
            }
            Principal::Token(name) if objections.is_empty() => {
                format!("no grant names token {name:?}")
            }
            Principal::User(_) | Principal::Token(_) => objections.join(", "),
            Principal::Scraper => "this address shows metrics and nothing else".to_owned(),
        };
        Err(Forbidden { sentence })
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.who.fmt(formatter)
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
