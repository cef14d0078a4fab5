//! All routers at once, each with its way in force.

use conntrack_agent::model::RouterId;
use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::attach::Xdp;
use conntrack_tests::durable::{Rules, rules_file};
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use std::time::Duration;
use uuid::Uuid;

use crate::configuration::{Attach, Carrier, Configuration, Ours, Way};
use crate::network::{Hosts, INSIDE, Links};
use crate::rivals;
use crate::rules;
use crate::stop::{Stop, Stopped};

/// Against hanging alone.
const LIMIT: Duration = Duration::from_mins(2);

/// One router that is measured.
pub(crate) struct Router {
    pub(crate) configuration: Configuration,
    pub(crate) netns: Netns,
    pub(crate) links: Links,
    id: RouterId,
}

/// All of them, and what serves them. The agents end first.
pub(crate) struct Rig {
    _agents: Vec<Agent>,
    _programs: Vec<ForeignProgram>,
    pub(crate) routers: Vec<Router>,
    pub(crate) hosts: Hosts,
}

impl Rig {
    /// Makes routers of these kinds, and waits until all is in force.
    pub(crate) fn new(configurations: &[Configuration], stop: &Stop) -> Result<Self, Stopped> {
        // An agent sees all routers of its lab.
        let own = Lab::new();
        let mut hosts = Hosts::new(&own);
        let mut labs: Vec<(Ours, Lab)> = Vec::new();
        let mut routers = Vec::new();
        for configuration in configurations {
            stop.check()?;
            let lab = match configuration.way {
                Way::Ours(ours) => lab_of(&mut labs, ours),
                _ => &own,
            };
            let id: RouterId = Uuid::new_v4().to_string().parse().expect("a router id");
            let netns = lab.netns(&format!("qrouter-{id}"));
            let links = hosts.connect(&netns, configuration.translation);
            routers.push(Router {
                configuration: *configuration,
                netns,
                links,
                id,
            });
        }
        let mut programs = Vec::new();
        for router in &routers {
            stop.check()?;
            match router.configuration.way {
                Way::Empty => programs.push(ForeignProgram::attach_last(&router.netns, INSIDE)),
                // An agent serves all of its lab at once.
                Way::Nothing | Way::Ours(_) => {}
                Way::Gone | Way::Neutron(_) | Way::Map => rivals::put_in_force(router),
            }
        }
        let mut agents = Vec::new();
        for (ours, lab) in &labs {
            stop.check()?;
            agents.push(serve(lab, *ours, &routers));
        }
        Ok(Self {
            _agents: agents,
            _programs: programs,
            routers,
            hosts,
        })
    }
}

/// Starts an agent on its routers, and waits until their rules are in force.
fn serve(lab: &Lab, ours: Ours, routers: &[Router]) -> Agent {
    let of_it = routers
        .iter()
        .filter(|router| router.configuration.way == Way::Ours(ours));
    let rules = of_it.flat_map(|router| {
        let rules = rules::rules(router.configuration.rules);
        rules.into_iter().map(|rule| rule.of(router.id))
    });
    let rules = rules_file(&rules.collect::<Rules>());
    let agent = Agent::spawn(lab, &config(lab, ours), Some(&rules), &[]);
    match agent.ready_within(LIMIT) {
        Ok((agent, _)) => agent,
        Err(exit) => panic!(
            "{}: the agent isn't ready: {}",
            Way::Ours(ours).name(),
            exit.stderr
        ),
    }
}

fn lab_of(labs: &mut Vec<(Ours, Lab)>, ours: Ours) -> &Lab {
    let place = labs.iter().position(|(of, _)| *of == ours);
    let place = place.unwrap_or_else(|| {
        labs.push((ours, Lab::new()));
        labs.len() - 1
    });
    &labs[place].1
}

fn config(lab: &Lab, ours: Ours) -> Config {
    let most = rules::COUNTS.into_iter().max().unwrap_or_default();
    let config = Config::of(lab).with("limits", format!("{{ rules_per_router = {most} }}"));
    let carrier = match ours.carrier {
        Carrier::Auto => "\"auto\"",
        Carrier::Mark => "\"mark\"",
        Carrier::Priority => "\"priority\"",
    };
    let config = config.with("carrier", carrier);
    match ours.attach {
        Attach::Tcx => config.with("attach", "\"tcx\""),
        Attach::Clsact => config.with("attach", "\"clsact\""),
        Attach::Xdp => config
            .with("attach", "\"tcx\"")
            .with_xdp(INSIDE, Xdp::Native),
        Attach::XdpGeneric => config
            .with("attach", "\"tcx\"")
            .with_xdp(INSIDE, Xdp::Generic),
    }
}
