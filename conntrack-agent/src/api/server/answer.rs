//! Answers one request: authenticates the caller, runs the handler, and records the
//! outcome.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
    response::IntoResponse as _,
};
use hyper::body::Incoming;
use tokio::sync::SemaphorePermit;
use tower::ServiceExt as _;

use super::{Quota, Service};
use crate::{
    access::{Authorization, Principal},
    api::{
        error::ApiError,
        operation::operation,
        result::{ChangedRules, RequestResult},
    },
    audit::{AuditRecord, Outcome, RequestId, RequestOperation},
    event_log::Event,
    model::RouterId,
};

/// Returns whether the request may wait for events, and can't change anything.
pub(super) fn waits<T>(request: &Request<T>) -> bool {
    operation(request.method(), request.uri().path()) == RequestOperation::Follow
}

/// Answers one request; `authorization` is that of the connection's peer.
pub(super) async fn answer(
    request: Request<Incoming>,
    authorization: Authorization,
    service: &Service,
) -> Response<Body> {
    let begun = Instant::now();
    let id = RequestId::random();
    let quota = service.quota(authorization.principal());
    let is_scraper = matches!(authorization.principal(), Principal::Scraper { .. });
    let operation = if is_scraper {
        RequestOperation::Scrape
    } else {
        operation(request.method(), request.uri().path())
    };
    let router = router_of(request.uri().path());
    let (peer, authorization) = authenticate(&request, authorization, service);
    let resources = if is_scraper {
        &service.metrics_routes
    } else {
        &service.routes
    };
    let mut response = match authorization.and_then(|authorization| admit(authorization, quota)) {
        Ok((authorization, _place)) => {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(authorization);
            // The error type of a router has no value.
            match resources.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(error) => error.into_response(),
    };
    let RequestResult { outcome, changes } = RequestResult::taken_from(&mut response);
    // A response to a change is always sent, whatever the budget: it is about as large as
    // its request.
    if changes.is_none() {
        response = quota.answers.reserve(response);
    }
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        response
            .headers_mut()
            .insert("x-openstack-request-id", value);
    }
    let took = begun.elapsed();
    service
        .metrics
        .answered(operation.name(), outcome.word(), took);
    // Reads are not recorded, nor are requests on the metrics' own address, which can only
    // read.
    if is_scraper || outcome == Outcome::Done && changes.is_none() {
        return response;
    }
    let asked = AnsweredRequest {
        request: id,
        peer,
        operation,
        router,
    };
    let record = asked.record(changes.unwrap_or_default(), outcome, took);
    service.auditor.record(&record);
    // Refusals are left out of the event log: a client can cause any number of them, and
    // they would push out all other events.
    if !record.outcome.is_refusal() {
        let event = Event::change(&record);
        service.event_log.note(event, record.routers);
    }
    response
}

/// Takes a place in the quota for a caller that has any permission.
fn admit(
    authorization: Authorization,
    quota: &Quota,
) -> Result<(Authorization, SemaphorePermit<'_>), ApiError> {
    authorization.may_enter()?;
    let place = quota.requests.try_acquire().map_err(|_| {
        let most = quota.most;
        ApiError::busy(format!(
            "{most} requests are being answered already; try again"
        ))
    })?;
    Ok((authorization, place))
}

/// An answered request: the caller and the operation.
struct AnsweredRequest {
    request: RequestId,
    peer: Principal,
    operation: RequestOperation,
    /// The router that the path names.
    router: Option<RouterId>,
}

impl AnsweredRequest {
    /// Returns the audit record of the request.
    fn record(self, changes: ChangedRules, outcome: Outcome, took: Duration) -> AuditRecord {
        let ChangedRules { before, after } = changes;
        let in_rules = before.iter().chain(&after).map(|rule| rule.target.router);
        let routers: BTreeSet<_> = in_rules.chain(self.router).collect();
        AuditRecord {
            request: self.request,
            peer: self.peer,
            operation: self.operation,
            routers: routers.into_iter().collect(),
            before,
            after,
            outcome,
            took,
        }
    }
}

/// Returns the router that a path names, if any.
fn router_of(path: &str) -> Option<RouterId> {
    let after = ["/v2.0/routers/", "/v1/traffic/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))?;
    after.split('/').next()?.parse().ok()
}

/// Returns the caller and its authorization: over TCP each request has a token, as
/// Neutron's clients send it.
fn authenticate(
    request: &Request<Incoming>,
    authorization: Authorization,
    service: &Service,
) -> (Principal, Result<Authorization, ApiError>) {
    let peer = authorization.principal().clone();
    if !matches!(peer, Principal::Unknown { .. }) {
        return (peer, Ok(authorization));
    }
    let presented = request.headers().get("x-auth-token");
    let name = presented
        .zip(service.tokens.as_ref())
        .and_then(|(token, tokens)| tokens.name_of(token.as_bytes()));
    if let Some(name) = name {
        let bearer = Principal::Token { name: name.clone() };
        return (bearer.clone(), Ok(service.access.of(bearer)));
    }
    let message = if presented.is_none() {
        "a token is wanted, in the header X-Auth-Token"
    } else {
        "the token is not known"
    };
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
    (peer, Err(error))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn the_router_of_a_path_is_known_wherever_it_stands() {
        let id = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        for (path, has_router) in [
            (format!("/v2.0/routers/{id}"), true),
            (format!("/v2.0/routers/{id}/conntrack_helpers"), true),
            (format!("/v1/traffic/{id}"), true),
            ("/v1/traffic".to_owned(), false),
            ("/v1/traffic/x".to_owned(), false),
            (format!("/v1/status/{id}"), false),
        ] {
            let expected = has_router.then(|| id.parse().unwrap());
            assert_eq!(router_of(&path), expected, "{path}");
        }
    }

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
                Outcome::Done,
                Outcome::Refused("why".into()),
                Outcome::NotAllowed("why".into()),
                Outcome::Failed("why".into()),
            ]
            .map(|outcome| {
                let asked = AnsweredRequest {
                    request: RequestId::random(),
                    peer: Principal::RulesFile,
                    operation: operation(&Method::PUT, path),
                    router: router_of(path),
                };
                let record = asked.record(ChangedRules::default(), outcome, Duration::ZERO);
                let Event::Change { operation, .. } = Event::change(&record) else {
                    panic!("no change");
                };
                assert_eq!(operation, record.operation.name());
                operation
            });
            assert_eq!(names, [name; 4], "{path}");
        }
    }
}
