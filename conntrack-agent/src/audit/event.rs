//! What is recorded: who asked for what, and what became of it.

use std::{fmt, time::Duration};

use uuid::Uuid;

use crate::{
    access::Principal,
    model::{HelperRule, RouterId},
};

/// The name of one request, in the audit trail and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new one, from the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// What a request asks for: it has one name, whatever becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOperation {
    /// To be told something.
    Read,
    /// To be told what has happened, and to wait for it.
    Follow,
    /// To be told the metrics.
    Scrape,
    /// To give a router rules.
    Create,
    /// To let a rule say something else.
    Update,
    /// To have a router's rules be exactly these.
    Replace,
    /// To have all routers' rules be exactly these.
    Apply,
    /// To remove a rule.
    Delete,
    /// To do what nothing has this method for.
    Unknown,
    /// To take over what the rules file says.
    RulesFile,
}

impl RequestOperation {
    /// The operations that a client can ask for.
    pub const KNOWN: [Self; 8] = [
        Self::Read,
        Self::Follow,
        Self::Scrape,
        Self::Create,
        Self::Update,
        Self::Replace,
        Self::Apply,
        Self::Delete,
    ];

    /// The word for it in the trail, in events and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Follow => "follow",
            Self::Scrape => "scrape",
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Apply => "apply",
            Self::Delete => "delete",
            Self::Unknown => "unknown",
            Self::RulesFile => "rules_file",
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The peer may not do that: which grant or rule says so.
    NotAllowed(String),
    /// It was wrong, or too much: the sentence of the answer, never what was
    /// sent.
    Refused(String),
    /// It was allowed and right, and the agent could not do it: why.
    Failed(String),
}

impl Outcome {
    /// The word for it in the trail, in events and in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotAllowed(_) => "not_allowed",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// Why the request was not done.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::NotAllowed(reason) | Self::Refused(reason) | Self::Failed(reason) => Some(reason),
        }
    }

    /// Whether it changed nothing because it was not to. Anybody can have as
    /// many of these as they like, so they are recorded up to a limit.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::Refused(_))
    }
}

/// One request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its name.
    pub request: RequestId,
    /// Who asked.
    pub peer: Principal,
    /// The operation.
    pub operation: RequestOperation,
    /// The routers that it is about.
    pub routers: Vec<RouterId>,
    /// The rules that it removed or changed, as they were.
    pub before: Vec<HelperRule>,
    /// The rules that it added or changed, as they are.
    pub after: Vec<HelperRule>,
    /// What became of it.
    pub outcome: Outcome,
    /// From its arrival to its answer.
    pub took: Duration,
}
