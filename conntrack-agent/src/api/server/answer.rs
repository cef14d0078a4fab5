//! One request: who asks, what comes of it, and the audit trail's line.

use std::net::SocketAddr;

use axum::{
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
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
    },
    audit::{AuditRecord, Outcome, Peer, RequestId},
    event_log::Event,
    model::RouterId,
};

/// Where one may wait for an answer.
const EVENTS: &str = "/v1/events";

/// Whether all that the request can do is to wait.
pub(super) fn waits<T>(request: &Request<T>) -> bool {
    request.uri().path() == EVENTS
}

/// Answers one request.
pub(super) async fn answer(
    request: Request<Incoming>,
    origin: Transport,
    permit: Option<Authorization>,
    service: &Service,
) -> Response<Body> {
    let begun = std::time::Instant::now();
    let id = RequestId::random();
    let lane = service.lane(origin);
    let is_scrape =
        matches!(origin, Transport::Metrics { .. }) || request.uri().path() == "/metrics";
    let operation = operation(request.method());
    // By names of their own: they take longer than reads do, or as long as is waited.
    let counted = match request.uri().path() {
        _ if is_scrape => "scrape",
        EVENTS => "follow",
        _ => operation,
    };
    let router = router_of(request.uri().path());
    let (peer, permit) = who_asks(&request, origin, permit, service);
    let mut response = match permit {
        Ok(permit) => match permit
            .may_enter()
            .map_err(ApiError::forbidden)
            .and_then(|()| {
                let room = lane.requests.try_acquire();
                room.map_err(|_| {
                    let most = lane.most;
                    ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "TooManyRequests",
                        format!("{most} requests are being answered already; try again"),
                    )
                })
            }) {
            Ok(_room) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(permit);
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
        response = lane.answers.reserve(response);
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
    service.metrics.answered(counted, outcome.word(), took);
    // Whoever knocks there can ask for nothing, and so leaves no trace.
    if matches!(origin, Transport::Metrics { .. }) {
        return response;
    }
    // Who only reads leaves no trace.
    if outcome == Outcome::Done && did.is_none() {
        return response;
    }
    let (operation, before, after) = match did {
        Some(did) => (did.operation, did.before, did.after),
        None => (operation, Vec::new(), Vec::new()),
    };
    let mut routers: Vec<_> = before
        .iter()
        .chain(&after)
        .map(|rule| rule.target.router)
        .collect();
    routers.extend(router);
    routers.sort_unstable();
    routers.dedup();
    let event = AuditRecord {
        request: id,
        peer,
        operation,
        routers,
        before,
        after,
        outcome,
        took,
    };
    service.auditor.record(&event);
    // Anybody can have as many refusals as they like, and would push out all else.
    if !event.outcome.is_refusal() {
        let happening = Event::change(&event);
        service.chronicle.note(happening, event.routers);
    }
    response
}

/// Who it is, and what that one may do.
fn who_asks(
    request: &Request<Incoming>,
    origin: Transport,
    permit: Option<Authorization>,
    service: &Service,
) -> (Peer, Result<Authorization, ApiError>) {
    match (origin, permit) {
        (Transport::Local { pid, uid, gid }, Some(permit)) => {
            (Peer::Local { pid, uid, gid }, Ok(permit))
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

fn operation(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "read",
        "POST" => "create",
        "PUT" => "change",
        "DELETE" => "delete",
        _ => "unknown",
    }
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
