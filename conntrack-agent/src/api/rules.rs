//! Answers requests for rules, of one router and of all.

use std::collections::HashMap;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::Map;

use super::{
    authorize::{AuthorizedForAll, AuthorizedRouter, readable_router},
    body::{JsonBody, JsonObject},
    error::ApiError,
    parameters::RuleParameters,
    path::PathParams,
    query::ListQuery,
    requests::{CreateBody, ReplaceAllBody, ReplaceBody, UpdateBody},
    responses::{MadeAnswer, RuleList, item},
    result::{Changed, ChangedRules},
};
use crate::{
    access::Authorization,
    agent::{Handle, Request, Snapshot},
    engine::{Change, Entry, Operation},
    kernel::RouterNamespaces,
    model::{Origin, RouterId, RuleId},
    resource::{DifferenceView, RuleAnswer, RuleView, RulesAnswer},
    sources::RuleSet,
};

/// Lists the rules of a router.
#[utoipa::path(get, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid), RuleParameters),
    responses((status = 200, description = "The rules", body = RuleList)))]
pub(super) async fn list_rules(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    Extension(authorization): Extension<Authorization>,
    PathParams(given): PathParams<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<RuleList>, ApiError> {
    let router = readable_router(&authorization, &given)?;
    let query = ListQuery::parse(query.as_deref(), RuleView::FIELDS)?;
    let seen = agent.view().read();
    if !seen.mapping.has(router) && namespaces.existing(router).is_empty() {
        return Err(ApiError::no_router(&given));
    }
    let rules = seen
        .mapping
        .of(router)
        .map(|entry| item(RuleView::new(&seen, entry)))
        .collect::<Result<_, _>>()?;
    drop(seen);
    let conntrack_helpers = query.apply(rules)?;
    Ok(Json(RuleList { conntrack_helpers }))
}

/// Lists the rules of all routers.
#[utoipa::path(get, tag = "rules", path = "/v1/conntrack_helpers",
    params(RuleParameters),
    responses((status = 200, description = "The rules", body = RuleList)))]
pub(super) async fn list_all_rules(
    State(agent): State<Handle>,
    Extension(authorization): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<RuleList>, ApiError> {
    let query = ListQuery::parse(query.as_deref(), RuleView::FIELDS)?;
    let seen = agent.view().read();
    let rules = seen
        .mapping
        .entries()
        .filter(|entry| authorization.may_read(entry.rule.target.router).is_ok())
        .map(|entry| item(RuleView::new(&seen, entry)))
        .collect::<Result<_, _>>()?;
    drop(seen);
    let conntrack_helpers = query.apply(rules)?;
    Ok(Json(RuleList { conntrack_helpers }))
}

/// Creates one rule or several: all of them, or none.
#[utoipa::path(post, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid)), request_body = CreateBody,
    responses((status = 201, description = "The created rules", body = MadeAnswer)))]
pub(super) async fn create_rules(
    State(agent): State<Handle>,
    AuthorizedRouter(router): AuthorizedRouter,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<Changed<MadeAnswer>, ApiError> {
    let (is_bulk, rules) = match body {
        CreateBody::One(rule) => (false, vec![rule]),
        CreateBody::Several(rules) => (true, rules),
    };
    let rules = rules
        .into_iter()
        .map(|JsonObject(rule)| rule.on(router))
        .collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = rules.iter().map(|rule| rule.id).collect();
    let batch = rules.into_iter().map(Operation::Create).collect();
    let request = Request::OnRouter(router, batch);
    let change = agent.change(Origin::Api, request).await?;
    let mut views = added_views(&agent, &change);
    let mut made = ids.iter().filter_map(|id| views.remove(id));
    let answer = if is_bulk {
        MadeAnswer::Several(RulesAnswer {
            conntrack_helpers: made.collect(),
        })
    } else {
        let conntrack_helper = made.next().ok_or_else(ApiError::unwritten)?;
        MadeAnswer::One(RuleAnswer { conntrack_helper })
    };
    Ok(Changed {
        status: StatusCode::CREATED,
        changes: ChangedRules::of(&change),
        body: Some(answer),
    })
}

/// Replaces the router's rules of origin api with these: all of them, or none.
#[utoipa::path(put, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid)), request_body = ReplaceBody,
    responses((status = 200, description = "The router's rules of origin api", body = RulesAnswer)))]
pub(super) async fn replace_rules(
    State(agent): State<Handle>,
    AuthorizedRouter(router): AuthorizedRouter,
    JsonBody(body): JsonBody<ReplaceBody>,
) -> Result<Changed<RulesAnswer>, ApiError> {
    let rules = body
        .conntrack_helpers
        .into_iter()
        .map(|JsonObject(rule)| rule.on(router))
        .collect::<Result<_, _>>()?;
    let batch = vec![Operation::Replace { router, rules }];
    let change = agent
        .change(Origin::Api, Request::OnRouter(router, batch))
        .await?;
    let seen = agent.view().read();
    let conntrack_helpers = seen
        .mapping
        .of(router)
        .filter(|entry| entry.rule.origin == Origin::Api)
        .map(|entry| RuleView::new(&seen, entry))
        .collect();
    let answer = RulesAnswer { conntrack_helpers };
    Ok(Changed::ok(ChangedRules::of(&change), answer))
}

/// Replaces the rules of origin api on all routers with these: all of them, or none.
#[utoipa::path(put, tag = "rules", path = "/v1/conntrack_helpers",
    params(("dry_run" = Option<bool>, Query,
        description = "Whether to return the difference without changing anything")),
    request_body = ReplaceAllBody,
    responses((status = 200, description = "The difference that the request makes, or would make", body = DifferenceView)))]
pub(super) async fn replace_all_rules(
    State(agent): State<Handle>,
    AuthorizedForAll: AuthorizedForAll,
    RawQuery(query): RawQuery,
    JsonBody(body): JsonBody<ReplaceAllBody>,
) -> Result<Response, ApiError> {
    let dry_run = match query.as_deref() {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(_) => {
            return Err(ApiError::invalid(
                "the query must be dry_run=true or dry_run=false, or nothing",
            ));
        }
    };
    let mut wanted = RuleSet::default();
    for JsonObject(router) in body.routers {
        let id = router.id.0;
        wanted.name(id);
        for JsonObject(rule) in router.conntrack_helpers {
            let target = rule.on(id)?.target;
            if !wanted.insert(target) {
                let message = format!("router {id} has {target} twice in the body");
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "BadRequest",
                    message,
                ));
            }
        }
    }
    let count = wanted.rules().count();
    let request = Request::Everything(wanted);
    let change = if dry_run {
        agent.decide(Origin::Api, &request)?
    } else {
        agent.change(Origin::Api, request).await?
    };
    let seen = agent.view().read();
    let shown = |entries: &[Entry]| -> Vec<_> {
        entries
            .iter()
            .map(|entry| RuleView::new(&seen, entry))
            .collect()
    };
    let answer = DifferenceView {
        added: shown(change.added()),
        removed: shown(change.removed()),
        unchanged: count - change.added().len(),
        other: Map::new(),
    };
    if dry_run {
        return Ok(Json(answer).into_response());
    }
    Ok(Changed::ok(ChangedRules::of(&change), answer).into_response())
}

/// Returns one rule.
#[utoipa::path(get, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The rule", body = RuleAnswer)))]
pub(super) async fn show_rule(
    State(agent): State<Handle>,
    Extension(authorization): Extension<Authorization>,
    PathParams((router, id)): PathParams<(String, String)>,
) -> Result<Json<RuleAnswer>, ApiError> {
    let router = readable_router(&authorization, &router)?;
    let seen = agent.view().read();
    let entry = rule_of(&seen, router, &id)?;
    let conntrack_helper = RuleView::new(&seen, &entry);
    Ok(Json(RuleAnswer { conntrack_helper }))
}

/// Changes a rule; it keeps its id, its router and its age.
#[utoipa::path(put, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)), request_body = UpdateBody,
    responses((status = 200, description = "The changed rule", body = RuleAnswer)))]
pub(super) async fn update_rule(
    State(agent): State<Handle>,
    AuthorizedRouter(router): AuthorizedRouter,
    PathParams((_, given)): PathParams<(String, String)>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> Result<Changed<RuleAnswer>, ApiError> {
    let entry = rule_of(&agent.view().read(), router, &given)?;
    let id = entry.rule.id;
    let (port, helper) = body.conntrack_helper.0.from(entry.rule.target)?;
    let batch = vec![Operation::Update {
        id,
        router: Some(router),
        port,
        helper,
    }];
    let change = agent
        .change(Origin::Api, Request::OnRouter(router, batch))
        .await?;
    // A rule that already is what the request wants does not change.
    let conntrack_helper = added_views(&agent, &change)
        .remove(&id)
        .unwrap_or_else(|| RuleView::new(&agent.view().read(), &entry));
    let answer = RuleAnswer { conntrack_helper };
    Ok(Changed::ok(ChangedRules::of(&change), answer))
}

/// Removes a rule.
#[utoipa::path(delete, tag = "rules", path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)),
    responses((status = 204, description = "The rule is removed")))]
pub(super) async fn delete_rule(
    State(agent): State<Handle>,
    AuthorizedRouter(router): AuthorizedRouter,
    PathParams((_, given)): PathParams<(String, String)>,
) -> Result<Changed<()>, ApiError> {
    let entry = rule_of(&agent.view().read(), router, &given)?;
    let batch = vec![Operation::Delete(entry.rule.id)];
    let change = agent
        .change(Origin::Api, Request::OnRouter(router, batch))
        .await?;
    Ok(Changed {
        status: StatusCode::NO_CONTENT,
        changes: ChangedRules::of(&change),
        body: None,
    })
}

/// Returns the views of the rules that a change added, even if they are removed again by
/// now.
fn added_views(agent: &Handle, change: &Change) -> HashMap<RuleId, RuleView> {
    let seen = agent.view().read();
    change
        .added()
        .iter()
        .map(|entry| (entry.rule.id, RuleView::new(&seen, entry)))
        .collect()
}

/// Returns the router's rule with this id.
fn rule_of(seen: &Snapshot, router: RouterId, given: &str) -> Result<Entry, ApiError> {
    given
        .parse()
        .ok()
        .and_then(|id| seen.mapping.get(id))
        .filter(|entry| entry.rule.target.router == router)
        .copied()
        .ok_or_else(|| ApiError::no_rule(given))
}
