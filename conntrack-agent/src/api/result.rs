//! The result of a request, for the audit trail and the metrics.
//!
//! axum turns what a handler returns into an HTTP response and keeps nothing else of
//! it, so the result travels in the response as its one extension that is ours: only
//! [`Changed`] and [`ApiError`](super::error::ApiError) put it in, and only the server
//! takes it out, before the response is sent.

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
    pub(super) outcome: Outcome,
    /// The changes; none for a request that changes nothing by its nature.
    pub(super) changes: Option<Changes>,
}

impl RequestResult {
    /// Puts the result of a refused or failed request into its response.
    pub(super) fn put_into(response: &mut Response, outcome: Outcome) {
        let changes = None;
        response.extensions_mut().insert(Self { outcome, changes });
    }

    /// Takes the result out of a response; without one, something was read.
    pub(super) fn taken_from(response: &mut Response) -> Self {
        response.extensions_mut().remove().unwrap_or(Self {
            outcome: Outcome::Done,
            changes: None,
        })
    }
}

/// The rules that a request changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// The rules that it removed or changed, as they were.
    pub(super) before: Vec<HelperRule>,
    /// The rules that it added or changed, as they are.
    pub(super) after: Vec<HelperRule>,
}

impl Changes {
    pub(super) fn of(change: &Change) -> Self {
        let rules = |entries: &[Entry]| entries.iter().map(|entry| entry.rule).collect();
        Self {
            before: rules(change.removed()),
            after: rules(change.added()),
        }
    }
}

/// A handler's answer to a request that has changed something.
#[derive(Debug)]
pub(super) struct Changed<T> {
    pub(super) status: StatusCode,
    pub(super) changes: Changes,
    /// The body; none for an answer without one.
    pub(super) body: Option<T>,
}

impl<T: Serialize> Changed<T> {
    /// Returns an answer with status 200 and this body.
    pub(super) const fn ok(changes: Changes, body: T) -> Self {
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
