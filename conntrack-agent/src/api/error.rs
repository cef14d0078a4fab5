//! Refusals and failures, in Neutron's form.

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

/// The store or the kernel did not do what was asked.
const FAILED: &str = "ServiceUnavailable";

/// An answer that says why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

/// The body of every answer with a status of 400 or more.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// The error.
    #[serde(rename = "NeutronError")]
    neutron_error: ErrorDetail,
}

/// What was refused, and why.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Neutron's name for the kind of error, where it has one.
    #[serde(rename = "type")]
    kind: &'static str,
    /// One sentence: what was refused, why, what is allowed.
    message: String,
    /// Nothing; Neutron's clients want the field.
    detail: &'static str,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
        }
    }

    /// The body or the query can't be understood.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidInput", message)
    }

    /// The caller may not do that.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn forbidden(why: Forbidden) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", why.to_string())
    }

    /// No resource is anything but a JSON object, so this is a bug.
    pub(super) fn unwritten() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HTTPInternalServerError",
            "an answer could not be written",
        )
    }

    /// There is no such router.
    pub(super) fn no_router(given: &str) -> Self {
        let message = format!("Router {} could not be found", short(given));
        Self::new(StatusCode::NOT_FOUND, "RouterNotFound", message)
    }

    /// Returns the outcome of the request. A failure is the agent's: nobody can bring it
    /// about at will, so all of these are recorded.
    fn outcome(&self) -> Outcome {
        let message = self.message.clone();
        match (self.status, self.kind) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Outcome::NotAllowed(message),
            (_, FAILED) => Outcome::Failed(message),
            _ => Outcome::Refused(message),
        }
    }

    /// There is no such rule on the router.
    pub(super) fn no_rule(given: &str) -> Self {
        let message = format!("Conntrack helper {} could not be found", short(given));
        Self::new(StatusCode::NOT_FOUND, "ConntrackHelperNotFound", message)
    }
}

/// Of what was given, no more than a sentence can bear.
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
            Rejection::Failed(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, FAILED, why),
            Rejection::Busy | Rejection::Stopping => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TooManyRequests",
                rejection.to_string(),
            ),
        }
    }
}

/// Every reason, of very many the first; the first decides the kind.
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
