//! Carries the result of a request from its handler to the audit trail and the metrics.
//!
//! axum keeps only the HTTP response of what a handler returns, so the result travels as
//! an extension of the response: only [`Changed`] and [`ApiError`](super::error::ApiError)
//! insert it, and only the server removes it, before the response is sent.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    audit::Outcome,
    engine::{Change, Entry},
    model::HelperRule,
};

/// The result of a request.
#[derive(Clone, Debug)]
pub(super) struct RequestResult {
    /// The outcome.
    pub(super) outcome: Outcome,
    /// The changes; `None` for a request that only reads.
    pub(super) changes: Option<ChangedRules>,
}

impl RequestResult {
    /// Inserts the result of a refused or failed request into its response.
    pub(super) fn put_into(response: &mut Response, outcome: Outcome) {
        let changes = None;
        response.extensions_mut().insert(Self { outcome, changes });
    }

    /// Removes the result from a response; a response without one is that of a read.
    pub(super) fn taken_from(response: &mut Response) -> Self {
        response.extensions_mut().remove().unwrap_or(Self {
            outcome: Outcome::Done,
            changes: None,
        })
    }
}

/// The rules that a request changed.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangedRules {
    /// The rules that were removed or changed, as they were before.
    pub(super) before: Vec<HelperRule>,
    /// The rules that were added or changed, as they are now.
    pub(super) after: Vec<HelperRule>,
}

impl ChangedRules {
    /// Returns the rules of a change.
    pub(super) fn of(change: &Change) -> Self {
        let rules = |entries: &[Entry]| entries.iter().map(|entry| entry.rule).collect();
        Self {
            before: rules(change.removed()),
            after: rules(change.added()),
        }
    }
}

/// A handler's response to a request that changes rules.
#[derive(Debug)]
pub(super) struct Changed<T> {
    /// The status.
    pub(super) status: StatusCode,
    /// The changed rules.
    pub(super) changes: ChangedRules,
    /// The body; `None` for a response without one.
    pub(super) body: Option<T>,
}

impl<T: Serialize> Changed<T> {
    /// Returns a response with status 200 and this body.
    pub(super) const fn ok(changes: ChangedRules, body: T) -> Self {
        Self {
            status: StatusCode::OK,
            changes,
            body: Some(body),
        }
    }
}

impl<T: Serialize> IntoResponse for Changed<T> {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, Json(body)).into_response(),
            None => self.status.into_response(),
        };
        response.extensions_mut().insert(RequestResult {
            outcome: Outcome::Done,
            changes: Some(self.changes),
        });
        response
    }
}
