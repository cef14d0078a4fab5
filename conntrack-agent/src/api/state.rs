//! Holds the state of the API's handlers; each handler extracts only the part that it
//! needs.

use axum::extract::FromRef;

use super::{
    body::BodyBudget, events::Followers, metrics::ScrapeLock, status::AgentFacts,
    traffic::Gathering,
};
use crate::{
    agent::Handle,
    config::Config,
    kernel::{AgentId, RouterNamespaces},
};

/// The state that the handlers share. A copy is cheap, and shares all counters and locks
/// with the original.
#[derive(Clone, Debug, FromRef)]
pub struct Api {
    agent: Handle,
    facts: AgentFacts,
    namespaces: RouterNamespaces,
    bodies: BodyBudget,
    scrapes: ScrapeLock,
    followers: Followers,
    gathering: Gathering,
}

impl Api {
    /// Returns the state for the API of this agent.
    #[must_use]
    pub fn new(config: &Config, agent_id: AgentId, agent: Handle) -> Self {
        Self {
            agent,
            facts: AgentFacts::new(agent_id, config.follow_connections),
            namespaces: config.router_namespaces(),
            bodies: BodyBudget::new(config.api.limits),
            scrapes: ScrapeLock::default(),
            followers: Followers::default(),
            gathering: Gathering::default(),
        }
    }
}
