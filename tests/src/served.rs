//! A lab with routers and an agent that is asked through its socket.

use std::fmt::Display;
use std::path::PathBuf;

use crate::agent::{Agent, Config};
use crate::connection::Connection;
use crate::curl::{Answer, Caller};
use crate::durable::{BareRouter, stored};
use crate::helpers::Rule;
use crate::lab::Lab;
use crate::state::State;
use crate::usage::Usage;

/// A lab with one router that is here, in which an agent is to be started.
pub struct LabBuilder {
    /// The lab.
    pub lab: Lab,
    /// The router.
    pub router: BareRouter,
    config: Config,
    rules: Option<String>,
    launcher: Vec<String>,
}

impl LabBuilder {
    /// Changes the agent's configuration.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    /// Gives the router these rules by a rules file.
    #[must_use]
    pub fn rules(mut self, rules: &[Rule]) -> Self {
        self.rules = Some(self.router.rules_file(rules));
        self
    }

    /// Gives the agent a rules file without any rules.
    #[must_use]
    pub fn no_rules(mut self) -> Self {
        self.rules = Some(String::new());
        self
    }

    /// Starts the agent through a program and its arguments, which becomes it.
    #[must_use]
    pub fn launcher(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts the agent and waits until it is ready.
    #[must_use]
    pub fn start(self) -> Served {
        let Self { lab, router, .. } = self;
        let launcher: Vec<_> = self.launcher.iter().map(String::as_str).collect();
        let agent = Agent::launch(&lab, &self.config, self.rules.as_deref(), &launcher).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("not ready: {exit:?}"));
        Served { agent, router, lab }
    }
}

/// A lab with one router that is here, and an agent.
pub struct Served {
    /// The agent, which is ready.
    pub agent: Agent,
    /// The router.
    pub router: BareRouter,
    /// The lab.
    pub lab: Lab,
}

impl Served {
    /// Starts an agent without rules, with the configuration that it has by default.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().start()
    }

    /// Starts an agent without rules, with a configuration of the caller's.
    #[must_use]
    pub fn with(change: impl FnOnce(Config) -> Config) -> Self {
        Self::builder().config(change).start()
    }

    /// Makes the lab and the router.
    #[must_use]
    pub fn builder() -> LabBuilder {
        let lab = Lab::new();
        LabBuilder {
            router: BareRouter::new(&lab),
            config: Config::of(&lab),
            rules: None,
            launcher: Vec::new(),
            lab,
        }
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.lab.dir().socket()
    }

    /// The path of the router's rules.
    #[must_use]
    pub fn rules(&self) -> String {
        rules_of(self.router.id())
    }

    /// Root, over the Unix socket.
    #[must_use]
    pub fn root(&self) -> Caller {
        Caller::local(&self.socket())
    }

    /// Makes one request.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.root().ask(method, path, body)
    }

    /// Opens a connection that is kept.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket())
    }

    /// What the agent's process holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let status = self.ask("GET", "/v1/status", "");
        Usage::of(status.body["pid"].as_u64().expect("its process id"))
    }

    /// Takes the state that a refused change must leave as it was.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.lab.dir(), &[&self.router])
    }

    /// Asserts that the kernel and the store have the same rules, and how many.
    #[track_caller]
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
pub fn rules_of(router: impl Display + Copy) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}
