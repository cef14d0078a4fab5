//! Answers `GET /v1/status` with the state of the agent.

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

/// The facts about the agent that stay the same while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentFacts {
    id: AgentId,
    /// Whether new helper connections are looked up in conntrack.
    follows: bool,
    begun: Instant,
}

impl AgentFacts {
    pub(super) fn new(id: AgentId, follows: bool) -> Self {
        let begun = Instant::now();
        Self { id, follows, begun }
    }
}

/// Returns the state of the agent.
#[utoipa::path(get, tag = "agent", path = "/v1/status",
    responses((status = 200, description = "The state of the agent", body = AgentStatus)))]
pub(super) async fn status(
    State(agent): State<Handle>,
    State(facts): State<AgentFacts>,
    Extension(authorization): Extension<Authorization>,
) -> Result<Json<AgentStatus>, ApiError> {
    authorization.may_read_all()?;
    let seen = agent.view().read();
    let troubles = seen
        .conditions
        .iter()
        .filter_map(|(router, condition)| match condition {
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
