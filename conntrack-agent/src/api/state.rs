//! What the handlers share; each takes only the part of it that it needs.

use std::sync::Arc;

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

/// What answers need.
#[derive(Debug)]
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
    /// Answers for this agent.
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

macro_rules! parts {
    ($($field:ident: $part:ty),* $(,)?) => {$(
        impl FromRef<Arc<Api>> for $part {
            fn from_ref(api: &Arc<Api>) -> Self {
                api.$field.clone()
            }
        }
    )*};
}

parts! {
    agent: Handle,
    facts: AgentFacts,
    namespaces: RouterNamespaces,
    bodies: BodyBudget,
    scrapes: ScrapeLock,
    followers: Followers,
    gathering: Gathering,
}
