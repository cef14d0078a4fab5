//! `GET /v1/status`: how the agent is.

use std::time::Instant;

use axum::{Extension, Json, extract::State};
use serde_json::Map;

use super::error::ApiError;
use crate::{
    access::Authorization,
    agent::{Condition, Handle},
    kernel::AgentId,
    resource::{AgentStatus, ConnectionCounts, RouterCounts, RuleCounts, TroubleView},
};

/// What stays the same while the agent runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentFacts {
    id: AgentId,
    /// Whether connections are followed.
    follows: bool,
    begun: Instant,
}

impl AgentFacts {
    pub(super) fn new(id: AgentId, follows: bool) -> Self {
        let begun = Instant::now();
        Self { id, follows, begun }
    }
}

/// How the agent is.
#[utoipa::path(get, tag = "agent", path = "/v1/status",
    responses((status = 200, description = "The agent", body = AgentStatus)))]
pub(super) async fn status(
    State(agent): State<Handle>,
    State(facts): State<AgentFacts>,
    Extension(authorization): Extension<Authorization>,
) -> Result<Json<AgentStatus>, ApiError> {
    authorization.may_read_all().map_err(ApiError::forbidden)?;
    let seen = agent.view().read();
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
        agent_id: facts.id.to_string(),
        pid: std::process::id(),
        uptime_seconds: facts.begun.elapsed().as_secs(),
        rules: RuleCounts::of(&seen),
        routers: RouterCounts::of(&seen),
        connections: facts.follows.then(|| ConnectionCounts::of(&seen)),
        troubles: troubles.collect(),
        other: Map::new(),
    }))
}
