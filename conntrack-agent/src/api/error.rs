//! Answers refusals and failures in the form of Neutron's errors.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{query::QueryError, result::RequestResult};
use crate::{
    access::Forbidden,
    agent::Rejection,
    audit::Outcome,
    engine::{Reason, Refusal},
    model::HelperError,
};

/// The kind of an error of the store, the kernel or the host.
const FAILED: &str = "ServiceUnavailable";

/// An error answer: the status, the kind and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

/// The body of every error answer (status 400 or above).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// The error itself.
    #[serde(rename = "NeutronError")]
    neutron_error: ErrorDetail,
}

/// The kind of an error, and its reason.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// The kind of the error; Neutron's name for it where Neutron has one.
    #[serde(rename = "type")]
    kind: &'static str,
    /// One sentence that says what was refused, why, and what is allowed.
    message: String,
    /// Always empty; Neutron's clients require the field.
    detail: &'static str,
}

impl ApiError {
    /// Returns an error with this status, kind and reason.
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
        }
    }

    /// Returns the error for a body, a path or a query that can't be parsed.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidInput", message)
    }

    /// Returns the error for a failure of the agent itself.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "HTTPInternalServerError", message)
    }

    /// Returns the error for a resource that can't be written as a JSON object, which is a
    /// bug.
    pub(super) fn unwritten() -> Self {
        Self::internal("an answer could not be written")
    }

    /// Returns the error for a request that a limit does not allow now.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyRequests", message)
    }

    /// Returns the error for a failure of the store, the kernel or the host.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, FAILED, message)
    }

    /// Returns the error for a router that does not exist.
    pub(super) fn no_router(given: &str) -> Self {
        let message = format!("Router {} could not be found", short(given));
        Self::new(StatusCode::NOT_FOUND, "RouterNotFound", message)
    }

    /// Returns the outcome of the request. A failure is never limited in the audit trail,
    /// because no client can cause it at will.
    fn outcome(&self) -> Outcome {
        let message = self.message.clone();
        match (self.status, self.kind) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Outcome::NotAllowed(message),
            (_, FAILED) => Outcome::Failed(message),
            _ => Outcome::Refused(message),
        }
    }

    /// Returns the error for a rule that the router does not have.
    pub(super) fn no_rule(given: &str) -> Self {
        let message = format!("Conntrack helper {} could not be found", short(given));
        Self::new(StatusCode::NOT_FOUND, "ConntrackHelperNotFound", message)
    }
}

/// Returns the beginning of a given text, short enough for a sentence.
fn short(given: &str) -> String {
    given.chars().take(64).collect()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let outcome = self.outcome();
        let body = ErrorBody {
            neutron_error: ErrorDetail {
                kind: self.kind,
                message: self.message,
                detail: "",
            },
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        RequestResult::put_into(&mut response, outcome);
        response
    }
}

impl From<Forbidden> for ApiError {
    fn from(why: Forbidden) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", why.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<HelperError> for ApiError {
    fn from(error: HelperError) -> Self {
        let kind = match error {
            HelperError::Unknown { .. } => "ConntrackHelperNotAllowed",
            HelperError::Protocol { .. } => "InvalidProtocolForHelper",
        };
        Self::new(StatusCode::BAD_REQUEST, kind, error.to_string())
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Refused(refusals) => refused(&refusals),
            Rejection::Failed(why) => Self::failed(why),
            Rejection::Busy | Rejection::Stopping => Self::busy(rejection.to_string()),
        }
    }
}

/// Returns one error for all refusals. The first decides the status and the kind; of very
/// many, only the first are listed.
fn refused(refusals: &[Refusal]) -> ApiError {
    const MOST: usize = 20;
    let (status, kind) = match refusals.first().map(|refusal| &refusal.reason) {
        Some(Reason::NoSuchRule(_)) => (StatusCode::NOT_FOUND, "ConntrackHelperNotFound"),
        Some(Reason::NotYours { .. } | Reason::IdTaken(_)) => (StatusCode::CONFLICT, "Conflict"),
        Some(Reason::TooManyRules { .. } | Reason::TooManyRouters { .. }) => {
            (StatusCode::CONFLICT, "OverQuota")
        }
        Some(Reason::HelperNotAllowed(_) | Reason::HelperNotPresent(_)) => {
            (StatusCode::BAD_REQUEST, "ConntrackHelperNotAllowed")
        }
        Some(Reason::Duplicate { .. } | Reason::OtherRouter { .. }) | None => {
            (StatusCode::BAD_REQUEST, "BadRequest")
        }
    };
    let of_many = refusals.len() > 1;
    let sentences = refusals.iter().take(MOST).map(|refusal| {
        if of_many || refusal.operation > 0 {
            format!("rule {}: {}", refusal.operation, refusal.reason)
        } else {
            refusal.reason.to_string()
        }
    });
    let mut message = sentences.collect::<Vec<_>>().join("; ");
    if let Some(more @ 1..) = refusals.len().checked_sub(MOST) {
        message.push_str("; and ");
        message.push_str(&more.to_string());
        message.push_str(" more");
    }
    ApiError::new(status, kind, message)
}
