//! One request: who asks, what comes of it, and the audit trail's line.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
    response::IntoResponse as _,
};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::{Service, Transport};
use crate::{
    api::{
        access::{Access, Authorization},
        change::ChangeSummary,
        error::{ApiError, ErrorSummary},
        operation::operation,
    },
    audit::{AuditRecord, Outcome, Peer, RequestId, RequestOperation},
    event_log::Event,
    model::RouterId,
};

/// Whether all that the request can do is to wait.
pub(super) fn waits<T>(request: &Request<T>) -> bool {
    operation(request.method(), request.uri().path()) == RequestOperation::Follow
}

/// Answers one request.
pub(super) async fn answer(
    request: Request<Incoming>,
    origin: Transport,
    authorization: Option<Authorization>,
    service: &Service,
) -> Response<Body> {
    let begun = std::time::Instant::now();
    let id = RequestId::random();
    let quota = service.quota(origin);
    let operation = match origin {
        Transport::Metrics { .. } => RequestOperation::Scrape,
        Transport::Local { .. } | Transport::Tcp { .. } => {
            operation(request.method(), request.uri().path())
        }
    };
    let router = router_of(request.uri().path());
    let (peer, authorization) = who_asks(&request, origin, authorization, service);
    let mut response = match authorization {
        Ok(authorization) => match authorization
            .may_enter()
            .map_err(ApiError::forbidden)
            .and_then(|()| {
                let room = quota.requests.try_acquire();
                room.map_err(|_| {
                    let most = quota.most;
                    ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "TooManyRequests",
                        format!("{most} requests are being answered already; try again"),
                    )
                })
            }) {
            Ok(_room) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(authorization);
                // The router never fails.
                let resources = match origin {
                    Transport::Metrics { .. } => &service.metrics_routes,
                    Transport::Local { .. } | Transport::Tcp { .. } => &service.routes,
                };
                match resources.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => error.into_response(),
        },
        Err(error) => error.into_response(),
    };
    let did = response.extensions_mut().remove::<ChangeSummary>();
    // What was done is said, whatever room there is: it is as large as the request.
    if did.is_none() {
        response = quota.answers.reserve(response);
    }
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        response
            .headers_mut()
            .insert("x-openstack-request-id", value);
    }
    let said = response.extensions_mut().remove::<ErrorSummary>();
    let outcome = match (response.status().as_u16(), said) {
        (401 | 403, Some(said)) => Outcome::NotAllowed(said.sentence),
        (_, Some(said)) if said.is_failure => Outcome::Failed(said.sentence),
        (_, Some(said)) => Outcome::Refused(said.sentence),
        (_, None) => Outcome::Done,
    };
    let took = begun.elapsed();
    service
        .metrics
        .answered(operation.name(), outcome.word(), took);
    // Whoever knocks there can ask for nothing, and so leaves no trace.
    if matches!(origin, Transport::Metrics { .. }) {
        return response;
    }
    // Who only reads leaves no trace.
    if outcome == Outcome::Done && did.is_none() {
        return response;
    }
    let asked = AnsweredRequest {
        request: id,
        peer,
        operation,
        router,
    };
    let record = asked.record(did, outcome, took);
    service.auditor.record(&record);
    // Anybody can have as many refusals as they like, and would push out all else.
    if !record.outcome.is_refusal() {
        let event = Event::change(&record);
        service.event_log.note(event, record.routers);
    }
    response
}

/// What was asked for, and by whom.
struct AnsweredRequest {
    request: RequestId,
    peer: Peer,
    operation: RequestOperation,
    /// The router that its path names.
    router: Option<RouterId>,
}

impl AnsweredRequest {
    /// The trail's record of what became of it.
    fn record(self, did: Option<ChangeSummary>, outcome: Outcome, took: Duration) -> AuditRecord {
        let ChangeSummary { before, after } = did.unwrap_or_default();
        let rules = before.iter().chain(&after);
        let mut routers: Vec<_> = rules.map(|rule| rule.target.router).collect();
        routers.extend(self.router);
        routers.sort_unstable();
        routers.dedup();
        AuditRecord {
            request: self.request,
            peer: self.peer,
            operation: self.operation.name(),
            routers,
            before,
            after,
            outcome,
            took,
        }
    }
}

/// Who it is, and what that one may do.
fn who_asks(
    request: &Request<Incoming>,
    origin: Transport,
    authorization: Option<Authorization>,
    service: &Service,
) -> (Peer, Result<Authorization, ApiError>) {
    match (origin, authorization) {
        (Transport::Local { pid, uid, gid }, Some(authorization)) => {
            (Peer::Local { pid, uid, gid }, Ok(authorization))
        }
        (Transport::Tcp { address }, _) => by_token(request, address, service),
        (Transport::Metrics { address }, _) => {
            (Peer::Unknown { address }, Ok(Access::of_scraper()))
        }
        // A local peer always has its permit.
        (Transport::Local { pid, uid, gid }, None) => (
            Peer::Local { pid, uid, gid },
            Ok(service.access.of_peer(uid, gid)),
        ),
    }
}

/// The router that a path is about, if it names one.
fn router_of(path: &str) -> Option<RouterId> {
    let mut parts = path.strip_prefix("/v2.0/routers/")?.split('/');
    parts.next()?.parse().ok()
}

/// Neutron's clients bring a token with each request.
fn by_token(
    request: &Request<Incoming>,
    address: SocketAddr,
    service: &Service,
) -> (Peer, Result<Authorization, ApiError>) {
    let presented = request.headers().get("x-auth-token");
    let name = presented
        .zip(service.tokens.as_ref())
        .and_then(|(token, tokens)| tokens.name_of(token.as_bytes()));
    match name {
        Some(name) => (
            Peer::Token {
                name: name.to_owned(),
            },
            Ok(service.access.of_token(name)),
        ),
        None => (
            Peer::Unknown { address },
            Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                if presented.is_none() {
                    "a token is wanted, in the header X-Auth-Token"
                } else {
                    "the token is not known"
                },
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn a_request_has_one_name_whether_it_is_refused_or_done() {
        let rules = "/v2.0/routers/6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab/conntrack_helpers";
        let rule = format!("{rules}/7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab");
        for (path, name) in [
            (rules, "replace"),
            (&rule, "update"),
            ("/v1/conntrack_helpers", "apply"),
        ] {
            let names = [
                (Some(ChangeSummary::default()), Outcome::Done),
                (None, Outcome::Refused("why".into())),
                (None, Outcome::NotAllowed("why".into())),
                (None, Outcome::Failed("why".into())),
            ]
            .map(|(did, outcome)| {
                let asked = AnsweredRequest {
                    request: RequestId::random(),
                    peer: Peer::RulesFile,
                    operation: operation(&Method::PUT, path),
                    router: router_of(path),
                };
                let record = asked.record(did, outcome, Duration::ZERO);
                let Event::Change { operation, .. } = Event::change(&record) else {
                    panic!("no change");
                };
                assert_eq!(operation, record.operation);
                operation
            });
            assert_eq!(names, [name; 4], "{path}");
        }
    }
}
