//! All routers at once, each with its way in force.

use conntrack_agent::model::RouterId;
use conntrack_tests::attach::Xdp;
use conntrack_tests::foreign::{ForeignProgram, ForeignXdp};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use uuid::Uuid;

use crate::configuration::{Configuration, Ours, Way};
use crate::network::{Hosts, INSIDE, Links};
use crate::ours::{self, Served};
use crate::rivals;
use crate::stop::{Stop, Stopped};

/// One router that is measured.
pub(crate) struct Router {
    pub(crate) configuration: Configuration,
    pub(crate) netns: Netns,
    pub(crate) links: Links,
    pub(crate) id: RouterId,
}

/// All of them, and what serves them. The agents end first.
pub(crate) struct Rig {
    _agents: Vec<Served>,
    _programs: Vec<ForeignProgram>,
    _xdp: Vec<ForeignXdp>,
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
        let (mut programs, mut xdp) = (Vec::new(), Vec::new());
        for router in &routers {
            stop.check()?;
            match router.configuration.way {
                Way::Empty => programs.push(ForeignProgram::attach_last(&router.netns, INSIDE)),
                Way::XdpAlone => {
                    // Any token will do, as nobody reads it.
                    let program = ForeignXdp::attach(&router.netns, INSIDE, Xdp::Native, 1);
                    xdp.push(program);
                }
                // An agent serves all of its lab at once.
                Way::Nothing | Way::Ours(_) => {}
                Way::Gone | Way::Neutron(_) | Way::Map => rivals::put_in_force(router),
            }
        }
        let mut agents = Vec::new();
        for (ours, lab) in &labs {
            stop.check()?;
            agents.push(ours::serve(lab, *ours, &routers));
        }
        Ok(Self {
            _agents: agents,
            _programs: programs,
            _xdp: xdp,
            routers,
            hosts,
        })
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
