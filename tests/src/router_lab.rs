//! A lab with a router, its rules, and what an agent makes of them.

use std::path::PathBuf;

use conntrack_agent::kernel::{Instance, Pins, Usable};
use conntrack_agent::model::RouterId;
use uuid::Uuid;

use crate::agent::{Agent, Config, Exit, run_to_exit, subcommand};
use crate::helpers::{Rule, rules_of};
use crate::lab::Lab;
use crate::netns::Netns;
use crate::snapshot::Snapshot;

/// A router in a lab, and the rules file that gives it rules.
pub struct RouterLab {
    /// The lab.
    pub lab: Lab,
    /// The router's id.
    pub id: RouterId,
    /// The router's namespace.
    pub netns: Netns,
    rules: String,
}

impl RouterLab {
    /// Takes a router that is there.
    #[must_use]
    pub fn of(lab: &Lab, id: RouterId, netns: &Netns, rules: &[Rule]) -> Self {
        Self {
            lab: lab.clone(),
            id,
            netns: netns.clone(),
            rules: rules_of(id, rules),
        }
    }

    /// Makes a router's namespace with these interfaces, by commands of `ip`, and a rule
    /// for FTP on port 21.
    #[must_use]
    pub fn make(lab: &Lab, id: RouterId, interfaces: &str) -> Self {
        let netns = lab.netns(&format!("qrouter-{id}"));
        netns.ip(interfaces);
        Self::of(lab, id, &netns, &[Rule::ftp(21)])
    }

    /// The rules file.
    #[must_use]
    pub fn rules(&self) -> String {
        self.rules.clone()
    }

    /// The agent's configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::of(&self.lab)
    }

    /// Starts the agent on the rules.
    #[must_use]
    pub fn start(&self) -> Agent {
        self.start_with(&self.config())
    }

    /// Starts the agent on the rules with a configuration of the caller's.
    #[must_use]
    pub fn start_with(&self, config: &Config) -> Agent {
        Agent::start_with(&self.lab, config, &self.rules)
    }

    /// Runs an agent on the rules that must end by itself.
    #[must_use]
    pub fn run_to_exit(&self, config: &Config) -> Exit {
        run_to_exit(&self.lab, config, &self.rules, &[])
    }

    /// Runs the subcommand that removes what the agent has left.
    #[must_use]
    pub fn cleanup(&self) -> Exit {
        subcommand(&self.lab, "cleanup")
    }

    /// Asserts that the subcommand removes what the agent has left.
    #[track_caller]
    pub fn assert_cleans_up(&self) {
        let cleanup = self.cleanup();
        assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    }

    /// The agent's pins.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::new(self.lab.dir().agent_bpffs_dir())
    }

    /// The pins of the router's links.
    #[must_use]
    pub fn links(&self) -> Vec<PathBuf> {
        self.pins().links_of(self.id).unwrap_or_default()
    }

    /// The router's instance, if it is whole.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        match Instance::open(&self.pins().instance(self.id)) {
            Ok(Usable::Whole(instance)) => Some(instance),
            _ => None,
        }
    }

    /// A snapshot of the lab and the router.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.lab, &[&self.netns])
    }
}

/// The id of a router that there is not yet.
#[must_use]
pub fn any_router() -> RouterId {
    let id = Uuid::new_v4().to_string();
    id.parse().expect("a router id")
}
