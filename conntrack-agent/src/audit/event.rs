//! Defines the records of the audit trail: the caller, the operation and the outcome.

use std::{fmt, time::Duration};

use uuid::Uuid;

use crate::{
    access::Principal,
    model::{HelperRule, RouterId},
};

/// The id of a request, in the audit trail and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Returns a random id.
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

/// The operation of a request; its name does not depend on the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOperation {
    /// Reads resources.
    Read,
    /// Reads events, and waits for them.
    Follow,
    /// Reads the metrics.
    Scrape,
    /// Creates rules of a router.
    Create,
    /// Changes a rule.
    Update,
    /// Replaces the rules of a router.
    Replace,
    /// Replaces the rules of all routers.
    Apply,
    /// Removes a rule.
    Delete,
    /// Is not an operation of the API.
    Unknown,
    /// Applies the rules file.
    RulesFile,
}

impl RequestOperation {
    /// The operations that the API has.
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

    /// Returns the word for it in the trail, in events and in metrics.
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

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request was carried out.
    Done,
    /// The caller has no permission, for this reason.
    NotAllowed(String),
    /// The request was invalid or exceeded a limit, for this reason: the message of the
    /// answer, never the content of the request.
    Refused(String),
    /// The request was valid, but the agent failed, for this reason.
    Failed(String),
}

impl Outcome {
    /// Returns the word for it in the trail, in events and in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotAllowed(_) => "not_allowed",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns the reason for a refusal or a failure.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::NotAllowed(reason) | Self::Refused(reason) | Self::Failed(reason) => Some(reason),
        }
    }

    /// Returns whether the request was refused. A client can cause any number of refusals,
    /// so they are recorded up to a limit.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::Refused(_))
    }
}

/// The record of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// The id of the request.
    pub request: RequestId,
    /// The caller.
    pub peer: Principal,
    /// The operation.
    pub operation: RequestOperation,
    /// The routers that the request concerns.
    pub routers: Vec<RouterId>,
    /// The rules that were removed or changed, as they were before.
    pub before: Vec<HelperRule>,
    /// The rules that were added or changed, as they are now.
    pub after: Vec<HelperRule>,
    /// The outcome.
    pub outcome: Outcome,
    /// The time from the request to the answer.
    pub took: Duration,
}
