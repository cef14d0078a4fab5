//! A lab with a router and an agent that is asked through its socket.

use std::path::PathBuf;

use crate::agent::{Agent, Config};
use crate::curl::{Answer, curl};
use crate::durable::{BareRouter, stored};
use crate::lab::Lab;
use crate::usage::Usage;

/// A lab with one router that is here, and an agent without rules.
pub struct Served {
    /// The agent, which is ready.
    pub agent: Agent,
    /// The router.
    pub router: BareRouter,
    /// The lab.
    pub lab: Lab,
}

impl Served {
    /// With the configuration that an agent has by default.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|config| config)
    }

    /// With a configuration of the caller's.
    #[must_use]
    pub fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let config = change(Config::of(&lab));
        let agent = Agent::spawn(&lab, &config, None, &[]).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("not ready: {exit:?}"));
        Self { agent, router, lab }
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.lab.dir().run_dir().join("agent.sock")
    }

    /// The path of the router's rules.
    #[must_use]
    pub fn rules(&self) -> String {
        rules_of(&self.router.id().to_string())
    }

    /// One request.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        curl(&self.socket(), method, path, body)
    }

    /// What the agent's process holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let status = self.ask("GET", "/v1/status", "");
        Usage::of(status.body["pid"].as_u64().expect("its process id"))
    }

    /// That the kernel and the store have the same rules, and how many.
    pub fn assert_settled(&self, count: usize) {
        let mapping = stored(self.lab.dir()).expect("a good store");
        assert_eq!(mapping.len(), count, "rules in the store");
        self.router.assert_has(&mapping);
    }
}

impl Default for Served {
    fn default() -> Self {
        Self::new()
    }
}

/// The path of a router's rules.
#[must_use]
pub fn rules_of(router: &str) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}
