//! The way that is ours: an agent for each way to run it.

use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::attach::Xdp;
use conntrack_tests::durable::{Rules, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::snapshot::{filter_programs, ingress_programs, xdp_on};
use conntrack_tests::wait;

use crate::configuration::{Attach, Carrier, Ours, Watched, Way};
use crate::network::{INSIDE, Translation};
use crate::rig::Router;
use crate::rules;
use crate::watchers::{Busy, Watchers};

/// Starts an agent on its routers, and waits until their rules are in force, in the way
/// that was asked for.
pub(crate) fn serve(lab: &Lab, ours: Ours, routers: &[Router]) -> Served {
    let of_it = routers.iter();
    let of_it = of_it.filter(|router| router.configuration.way == Way::Ours(ours));
    let rules = of_it.clone().flat_map(|router| {
        let rules = rules::rules(router.configuration.rules);
        rules.into_iter().map(|rule| rule.of(router.id))
    });
    let busy = (ours.watched == Watched::Closely).then(|| Busy::new(lab));
    let rules = rules.chain(busy.as_ref().map(Busy::rule));
    let rules = rules_file(&rules.collect::<Rules>());
    let agent = Agent::spawn(lab, &config(lab, ours), Some(&rules), &[]);
    let (agent, _) = agent
        .ready_within(wait::patience())
        .unwrap_or_else(|exit| panic!("{}: the agent isn't ready: {}", name(ours), exit.stderr));
    of_it.for_each(|router| assert_served(router, ours));
    Served {
        _watchers: busy.map(|busy| Watchers::start(lab, busy)),
        _agent: agent,
    }
}

/// An agent, and those who watch it, who end first.
pub(crate) struct Served {
    _watchers: Option<Watchers>,
    _agent: Agent,
}

/// Asserts that a router's hooks have what this way puts there, and nothing else.
fn assert_served(router: &Router, ours: Ours) {
    let (netns, has_rules) = (&router.netns, router.configuration.rules > 0);
    let about = format!("{} with {} rules", name(ours), router.configuration.rules);
    let filters = filter_programs(netns, INSIDE).len();
    let programs = ingress_programs(netns, INSIDE).len();
    let xdp = xdp_on(netns, INSIDE);
    let is_by_filters = ours.attach == Attach::Clsact;
    assert_eq!(programs, usize::from(has_rules), "{about}: programs");
    assert_eq!(
        filters,
        usize::from(has_rules && is_by_filters),
        "{about}: tc filters"
    );
    let wanted = match ours.attach {
        Attach::Tcx | Attach::Clsact => None,
        Attach::Xdp => Some(Xdp::Native),
        Attach::XdpGeneric => Some(Xdp::Generic),
    };
    assert_eq!(xdp, wanted.filter(|_| has_rules), "{about}: XDP");
    let chain = match (ours.carrier, router.configuration.translation) {
        (Carrier::Mark, _) | (Carrier::Auto, Translation::None) => "filter",
        (Carrier::Priority, _) | (Carrier::Auto, Translation::Masquerade) => "nat",
    };
    let ruleset = netns.ruleset();
    for kind in ["filter", "nat"] {
        let is_there = ruleset.contains(&format!("type {kind} hook prerouting"));
        assert_eq!(is_there, has_rules && kind == chain, "{about}: {ruleset}");
    }
}

fn name(ours: Ours) -> &'static str {
    Way::Ours(ours).name()
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
    let follows = ours.watched != Watched::Not;
    let config = config.with("follow_connections", follows.to_string());
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
