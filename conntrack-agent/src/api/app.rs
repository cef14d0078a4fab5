//! The resources: which request is answered by what.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use axum::{
    Extension, Json, Router,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use super::{
    access::Authorization,
    authorize::{AuthorizedForAll, AuthorizedRouter},
    body::{CreateBody, JsonBody, JsonObject, PAGE, ReplaceAllBody, ReplaceBody, UpdateBody},
    error::ApiError,
    events::{Followers, events},
    metrics::metrics,
    openapi,
    parameters::{RouterParameters, RuleParameters},
    path::PathParams,
    query::{Item, ListQuery},
    responses::{
        Hyperlink, MadeAnswer, Resource, ResourcesAnswer, RouterList, RuleList, Version,
        VersionsAnswer,
    },
    traffic::{Gathering, traffic, traffic_of},
};
use crate::{
    agent::{Condition, Handle, Request, Snapshot},
    config::{ApiLimits, Config},
    engine::{Change, Entry, Operation},
    kernel::{AgentId, NetnsFolder, names_of},
    model::{HelperRule, Origin, RouterId, RuleId},
    resource::{
        AgentStatus, ConnectionCounts, DifferenceView, RouterAnswer, RouterCounts, RouterView,
        RuleAnswer, RuleCounts, RuleView, RulesAnswer, TroubleView,
    },
    sources::RuleSet,
};

/// What answers need.
#[derive(Debug)]
pub struct Api {
    agent: Handle,
    agent_id: AgentId,
    netns: NetnsFolder,
    prefixes: Vec<String>,
    limits: ApiLimits,
    /// Room for bodies that are being received, in [`PAGE`]s.
    bodies: Semaphore,
    /// Held while metrics are gathered.
    scrape: Mutex<()>,
    /// Those who wait for events.
    followers: Followers,
    /// Those who ask for traffic.
    gathering: Gathering,
    /// Whether connections are followed.
    follows: bool,
    begun: Instant,
}

/// The same, by all requests.
pub(super) type Shared = Arc<Api>;

/// What a request did, for the audit trail.
#[derive(Clone, Debug)]
pub(super) struct ChangeSummary {
    pub(super) operation: &'static str,
    pub(super) before: Vec<HelperRule>,
    pub(super) after: Vec<HelperRule>,
}

impl Api {
    /// Answers for this agent.
    #[must_use]
    pub fn new(config: &Config, agent_id: AgentId, agent: Handle) -> Self {
        /// Bodies of the largest size that may be under way at once.
        const LARGEST: usize = 8;
        let limits = config.api.limits;
        Self {
            agent,
            agent_id,
            netns: NetnsFolder::new(&config.netns_dir),
            prefixes: config.namespace_prefixes.clone(),
            bodies: Semaphore::new(LARGEST * limits.body_bytes.div_ceil(PAGE)),
            scrape: Mutex::new(()),
            followers: Followers::default(),
            gathering: Gathering::default(),
            follows: config.follow_connections,
            limits,
            begun: Instant::now(),
        }
    }

    pub(super) const fn limits(&self) -> ApiLimits {
        self.limits
    }

    pub(super) const fn agent(&self) -> &Handle {
        &self.agent
    }

    pub(super) async fn scrape(&self) -> MutexGuard<'_, ()> {
        self.scrape.lock().await
    }

    pub(super) const fn gathering(&self) -> &Gathering {
        &self.gathering
    }

    pub(super) const fn followers(&self) -> &Followers {
        &self.followers
    }

    pub(super) const fn bodies(&self) -> &Semaphore {
        &self.bodies
    }

    pub(super) const fn netns(&self) -> &NetnsFolder {
        &self.netns
    }

    /// What a router's namespaces are called, those that there are and others.
    pub(super) fn names(&self, router: RouterId) -> impl Iterator<Item = String> {
        names_of(&self.prefixes, router)
    }

    /// The namespaces of a router that are on this host.
    fn namespaces(&self, router: RouterId) -> BTreeSet<String> {
        self.names(router)
            .filter(|name| matches!(self.netns.identity(name), Ok(Some(_))))
            .collect()
    }

    /// All routers that have a namespace on this host.
    fn present(&self) -> Result<BTreeSet<RouterId>, ApiError> {
        let names = self.netns.names().map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiError::new(status, "ServiceUnavailable", error.to_string())
        })?;
        let router = |name: &String| {
            let mut ids = self
                .prefixes
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix));
            ids.find_map(|id| id.parse().ok())
        };
        Ok(names.iter().filter_map(router).collect())
    }

    fn knows(&self, seen: &Snapshot, router: RouterId) -> bool {
        seen.mapping.has(router) || !self.namespaces(router).is_empty()
    }

    /// Makes a change that the caller may make, and says what became of it.
    async fn change(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<(Change, ChangeSummary), ApiError> {
        let change = self.agent.change(Origin::Api, request).await?;
        let rules = |entries: &[Entry]| entries.iter().map(|entry| entry.rule).collect();
        let did = ChangeSummary {
            operation,
            before: rules(change.removed()),
            after: rules(change.added()),
        };
        Ok((change, did))
    }

    /// The rules that came with a change, also if they are gone again by now.
    fn come(&self, change: &Change) -> HashMap<RuleId, RuleView> {
        let seen = self.agent.view().read();
        let come = change.added().iter();
        come.map(|entry| (entry.rule.id, RuleView::new(&seen, entry)))
            .collect()
    }
}

/// Every resource. Who asks is an extension of the request: a [`Authorization`].
pub fn routes(api: Arc<Api>) -> Router {
    const RULES: &str = "/v2.0/routers/{router_id}/conntrack_helpers";
    const RULE: &str = "/v2.0/routers/{router_id}/conntrack_helpers/{id}";
    Router::new()
        .route("/", get(versions))
        .route("/v2.0", get(resources))
        .route("/v2.0/", get(resources))
        .route("/v2.0/routers", get(list_routers))
        .route("/v2.0/routers/{router_id}", get(show_router))
        .route(RULES, get(list_rules).post(create_rules).put(replace_rules))
        .route(RULE, get(show_rule).put(update_rule).delete(delete_rule))
        .route(
            "/v1/conntrack_helpers",
            get(list_all_rules).put(replace_all_rules),
        )
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/traffic", get(traffic))
        .route("/v1/traffic/{router_id}", get(traffic_of))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(openapi::document))
        .fallback(no_resource)
        .method_not_allowed_fallback(no_method)
        .with_state(api)
}

/// What the metrics' own address has.
pub fn metrics_routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(no_resource_but_metrics)
        .method_not_allowed_fallback(no_method)
        .with_state(api)
}

async fn no_resource_but_metrics() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "HTTPNotFound",
        "this address has GET /metrics and nothing else",
    )
}

async fn no_resource() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "HTTPNotFound",
        "there is no such resource; GET /v1/openapi.json lists all",
    )
}

async fn no_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "HTTPMethodNotAllowed",
        "the resource does not have this method",
    )
}

/// The versions that there are, as keystoneauth asks for them.
#[utoipa::path(get, path = "/", responses((status = 200, description = "Versions", body = VersionsAnswer)))]
async fn versions() -> Json<VersionsAnswer> {
    Json(VersionsAnswer {
        versions: [Version {
            id: "v2.0",
            status: "CURRENT",
            links: [Hyperlink {
                rel: "self",
                href: "/v2.0/",
            }],
        }],
    })
}

/// What version 2.0 has.
#[utoipa::path(get, path = "/v2.0", responses((status = 200, description = "Resources", body = ResourcesAnswer)))]
async fn resources() -> Json<ResourcesAnswer> {
    Json(ResourcesAnswer {
        resources: [Resource {
            name: "router",
            collection: "routers",
            links: [Hyperlink {
                rel: "self",
                href: "/v2.0/routers",
            }],
        }],
    })
}

/// All routers that have a rule, or a namespace on this host.
#[utoipa::path(get, path = "/v2.0/routers",
    params(RouterParameters),
    responses((status = 200, description = "Routers", body = RouterList)))]
async fn list_routers(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<RouterList>, ApiError> {
    let query = parsed(query.as_deref(), RouterView::FIELDS)?;
    let mut ids = api.present()?;
    let seen = api.agent.view().read();
    ids.extend(seen.mapping.routers());
    let routers = ids
        .into_iter()
        .filter(|router| permit.may_read(*router).is_ok())
        .filter_map(|router| RouterView::new(&seen, router, api.namespaces(router)));
    let routers = routers.map(as_map).collect::<Result<_, _>>()?;
    drop(seen);
    let routers = listed(&query, routers)?;
    Ok(Json(RouterList { routers }))
}

/// One router.
#[utoipa::path(get, path = "/v2.0/routers/{router_id}",
    params(("router_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The router", body = RouterAnswer)))]
async fn show_router(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
    PathParams(given): PathParams<String>,
) -> Result<Json<RouterAnswer>, ApiError> {
    let router = router_id(&given)?;
    permit.may_read(router).map_err(ApiError::forbidden)?;
    let seen = api.agent.view().read();
    let shown = RouterView::new(&seen, router, api.namespaces(router));
    let router = shown.ok_or_else(|| ApiError::no_router(&given))?;
    Ok(Json(RouterAnswer { router }))
}

/// The rules of a router.
#[utoipa::path(get, path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid), RuleParameters),
    responses((status = 200, description = "Rules", body = RuleList)))]
async fn list_rules(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
    PathParams(given): PathParams<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<RuleList>, ApiError> {
    let router = router_id(&given)?;
    permit.may_read(router).map_err(ApiError::forbidden)?;
    let query = parsed(query.as_deref(), RuleView::FIELDS)?;
    let seen = api.agent.view().read();
    if !api.knows(&seen, router) {
        return Err(ApiError::no_router(&given));
    }
    let rules = seen
        .mapping
        .of(router)
        .map(|entry| RuleView::new(&seen, entry));
    let rules = rules.map(as_map).collect::<Result<_, _>>()?;
    drop(seen);
    let conntrack_helpers = listed(&query, rules)?;
    Ok(Json(RuleList { conntrack_helpers }))
}

/// The rules of all routers.
#[utoipa::path(get, path = "/v1/conntrack_helpers",
    params(RuleParameters),
    responses((status = 200, description = "Rules", body = RuleList)))]
async fn list_all_rules(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<RuleList>, ApiError> {
    let query = parsed(query.as_deref(), RuleView::FIELDS)?;
    let seen = api.agent.view().read();
    let readable = seen
        .mapping
        .entries()
        .filter(|entry| permit.may_read(entry.rule.target.router).is_ok());
    let rules = readable.map(|entry| as_map(RuleView::new(&seen, entry)));
    let rules = rules.collect::<Result<_, _>>()?;
    drop(seen);
    let conntrack_helpers = listed(&query, rules)?;
    Ok(Json(RuleList { conntrack_helpers }))
}

/// One rule or several: all of them, or none.
#[utoipa::path(post, path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid)), request_body = CreateBody,
    responses((status = 201, description = "Made", body = MadeAnswer)))]
async fn create_rules(
    State(api): State<Shared>,
    AuthorizedRouter(router): AuthorizedRouter,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<Response, ApiError> {
    let (is_bulk, rules) = match body {
        CreateBody::One(rule) => (false, vec![rule]),
        CreateBody::Several(rules) => (true, rules),
    };
    let rules = rules.into_iter().map(|JsonObject(rule)| rule.on(router));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = rules.iter().map(|rule| rule.id).collect();
    let batch = rules.into_iter().map(Operation::Create).collect();
    let request = Request::OnRouter(router, batch);
    let (change, did) = api.change("create", request).await?;
    let mut made = api.come(&change);
    let mut made = ids.iter().filter_map(|id| made.remove(id));
    let answer = if is_bulk {
        MadeAnswer::Several(RulesAnswer {
            conntrack_helpers: made.collect(),
        })
    } else {
        let conntrack_helper = made.next().ok_or_else(unwritten)?;
        MadeAnswer::One(RuleAnswer { conntrack_helper })
    };
    Ok((StatusCode::CREATED, Extension(did), Json(answer)).into_response())
}

/// The router's rules of origin api become these, or stay as they are.
#[utoipa::path(put, path = "/v2.0/routers/{router_id}/conntrack_helpers",
    params(("router_id" = String, Path, format = Uuid)), request_body = ReplaceBody,
    responses((status = 200, description = "Replaced", body = RulesAnswer)))]
async fn replace_rules(
    State(api): State<Shared>,
    AuthorizedRouter(router): AuthorizedRouter,
    JsonBody(body): JsonBody<ReplaceBody>,
) -> Result<Response, ApiError> {
    let rules = body
        .conntrack_helpers
        .into_iter()
        .map(|JsonObject(rule)| rule.on(router));
    let rules = rules.collect::<Result<_, _>>()?;
    let batch = vec![Operation::Replace { router, rules }];
    let (_, did) = api
        .change("replace", Request::OnRouter(router, batch))
        .await?;
    let seen = api.agent.view().read();
    let own = seen.mapping.of(router);
    let own = own.filter(|entry| entry.rule.origin == Origin::Api);
    let conntrack_helpers = own.map(|entry| RuleView::new(&seen, entry)).collect();
    let answer = RulesAnswer { conntrack_helpers };
    Ok((Extension(did), Json(answer)).into_response())
}

/// The rules of origin api on all routers become these, or stay as they are.
#[utoipa::path(put, path = "/v1/conntrack_helpers",
    params(("dry_run" = Option<bool>, Query)), request_body = ReplaceAllBody,
    responses((status = 200, description = "Replaced", body = DifferenceView)))]
async fn replace_all_rules(
    State(api): State<Shared>,
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
    let (change, did) = if dry_run {
        (api.agent.decide(Origin::Api, &request)?, None)
    } else {
        let (change, did) = api.change("apply", request).await?;
        (change, Some(did))
    };
    let seen = api.agent.view().read();
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
    Ok((did.map(Extension), Json(answer)).into_response())
}

/// One rule.
#[utoipa::path(get, path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The rule", body = RuleAnswer)))]
async fn show_rule(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
    PathParams((router, id)): PathParams<(String, String)>,
) -> Result<Json<RuleAnswer>, ApiError> {
    let router = router_id(&router)?;
    permit.may_read(router).map_err(ApiError::forbidden)?;
    let seen = api.agent.view().read();
    let entry = rule_of(&seen, router, &id)?;
    let conntrack_helper = RuleView::new(&seen, &entry);
    Ok(Json(RuleAnswer { conntrack_helper }))
}

/// Changes a rule; it keeps its name, its router and its age.
#[utoipa::path(put, path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)), request_body = UpdateBody,
    responses((status = 200, description = "Changed", body = RuleAnswer)))]
async fn update_rule(
    State(api): State<Shared>,
    AuthorizedRouter(router): AuthorizedRouter,
    PathParams((_, given)): PathParams<(String, String)>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> Result<Response, ApiError> {
    let entry = rule_of(&api.agent.view().read(), router, &given)?;
    let id = entry.rule.id;
    let (port, helper) = body.conntrack_helper.0.from(entry.rule.target)?;
    let router_of_rule = Some(router);
    let batch = vec![Operation::Update {
        id,
        router: router_of_rule,
        port,
        helper,
    }];
    let (change, did) = api
        .change("update", Request::OnRouter(router, batch))
        .await?;
    // Nothing comes if it says already what it is to say.
    let changed = api.come(&change).remove(&id);
    let conntrack_helper =
        changed.unwrap_or_else(|| RuleView::new(&api.agent.view().read(), &entry));
    let answer = RuleAnswer { conntrack_helper };
    Ok((Extension(did), Json(answer)).into_response())
}

/// Removes a rule.
#[utoipa::path(delete, path = "/v2.0/routers/{router_id}/conntrack_helpers/{id}",
    params(("router_id" = String, Path, format = Uuid), ("id" = String, Path, format = Uuid)),
    responses((status = 204, description = "Removed")))]
async fn delete_rule(
    State(api): State<Shared>,
    AuthorizedRouter(router): AuthorizedRouter,
    PathParams((_, given)): PathParams<(String, String)>,
) -> Result<Response, ApiError> {
    let entry = rule_of(&api.agent.view().read(), router, &given)?;
    let batch = vec![Operation::Delete(entry.rule.id)];
    let (_, did) = api
        .change("delete", Request::OnRouter(router, batch))
        .await?;
    Ok((StatusCode::NO_CONTENT, Extension(did)).into_response())
}

/// How the agent is.
#[utoipa::path(get, path = "/v1/status",
    responses((status = 200, description = "The agent", body = AgentStatus)))]
async fn status(
    State(api): State<Shared>,
    Extension(permit): Extension<Authorization>,
) -> Result<Json<AgentStatus>, ApiError> {
    permit.may_read_all().map_err(ApiError::forbidden)?;
    let seen = api.agent.view().read();
    let troubles = seen.conditions.iter();
    let troubles = troubles.filter_map(|(router, condition)| match condition {
        Condition::Pending => None,
        Condition::Failed { reason, failures } => Some(TroubleView {
            router_id: *router,
            reason: reason.clone(),
            failures: *failures,
            other: Map::new(),
        }),
    });
    Ok(Json(AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_id: api.agent_id.to_string(),
        pid: std::process::id(),
        uptime_seconds: api.begun.elapsed().as_secs(),
        rules: RuleCounts::of(&seen),
        routers: RouterCounts::of(&seen),
        connections: api.follows.then(|| ConnectionCounts::of(&seen)),
        troubles: troubles.collect(),
        other: Map::new(),
    }))
}

pub(super) fn router_id(given: &str) -> Result<RouterId, ApiError> {
    given.parse().map_err(|_| ApiError::no_router(given))
}

/// The rule with this id, if the router has one.
fn rule_of(seen: &Snapshot, router: RouterId, given: &str) -> Result<Entry, ApiError> {
    let id: Option<RuleId> = given.parse().ok();
    let entry = id.and_then(|id| seen.mapping.get(id));
    let entry = entry.filter(|entry| entry.rule.target.router == router);
    entry.copied().ok_or_else(|| ApiError::no_rule(given))
}

fn parsed(query: Option<&str>, fields: &'static [&'static str]) -> Result<ListQuery, ApiError> {
    ListQuery::parse(query, fields).map_err(|error| ApiError::invalid(error.to_string()))
}

fn listed(query: &ListQuery, items: Vec<Item>) -> Result<Vec<Item>, ApiError> {
    let items = query.apply(items);
    items.map_err(|error| ApiError::invalid(error.to_string()))
}

fn as_map(item: impl Serialize) -> Result<Item, ApiError> {
    match serde_json::to_value(item) {
        Ok(Value::Object(map)) => Ok(map),
        // No resource is anything else.
        _ => Err(unwritten()),
    }
}

fn unwritten() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "HTTPInternalServerError",
        "an answer could not be written",
    )
}
