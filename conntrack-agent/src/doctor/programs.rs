//! Checks the programs and tc filters on classified interfaces, the agent's and others'.

use std::collections::BTreeMap;

use super::{Finding, routers::LocalRouter};
use crate::{
    config::Config,
    input::sentence,
    kernel::{Hooks, LinkKind, Netns, Occupant, OnHook, program_names},
};

const CHECK: &str = "programs";

/// Returns a finding if no router's interfaces can be checked.
pub(super) fn obstacle(hooks: Option<&Hooks>) -> Option<Finding> {
    let unknown = || Finding::unknown(CHECK, "not to be told where programs can't be asked for");
    hooks.is_none().then(unknown)
}

/// Checks the classified interfaces of the router.
pub(super) fn check(
    hooks: &Hooks,
    config: &Config,
    router: &LocalRouter,
    names: &mut Names,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for netns in &router.namespaces {
        let found = look(hooks, config, router, netns, names);
        if found.is_empty() {
            let what = if router.has_rules() {
                "the agent's alone are on its interfaces"
            } else {
                "none is on its interfaces"
            };
            findings.push(Finding::ok(CHECK, what).at(netns.name()));
        }
        findings.extend(found);
    }
    findings
}

fn look(
    hooks: &Hooks,
    config: &Config,
    router: &LocalRouter,
    netns: &Netns,
    names: &mut Names,
) -> Vec<Finding> {
    let occupants = match hooks.occupants(netns) {
        Ok(occupants) => occupants,
        Err(error) => return vec![Finding::unknown(CHECK, sentence(&error)).at(netns.name())],
    };
    let (interfaces, xdp) = (&config.interfaces, &config.xdp);
    let mut findings = Vec::new();
    for (interface, occupants) in occupants {
        if interface.kind != LinkKind::Ethernet || !interfaces.has(&interface.name) {
            continue;
        }
        let wants_xdp = xdp.mode_of(&interface.name).is_some();
        let is_own = |occupant: &Occupant| {
            let program = occupant.program;
            occupant.is_own_filter || program.is_some_and(|id| router.programs.contains(&id))
        };
        let found = judge(
            &occupants,
            is_own,
            router.has_rules(),
            wants_xdp,
            |program| names.of(program).to_owned(),
        );
        let place = format!("{} {}", netns.name(), interface.name);
        findings.extend(found.into_iter().map(|finding| finding.at(place.clone())));
    }
    findings
}

/// Returns the findings of one interface; none where all is well.
fn judge(
    occupants: &[Occupant],
    is_own: impl Fn(&Occupant) -> bool,
    has_rules: bool,
    wants_xdp: bool,
    mut name: impl FnMut(u32) -> String,
) -> Vec<Finding> {
    let is_classifier = |occupant: &Occupant| occupant.by != OnHook::Xdp && is_own(occupant);
    let ours = occupants.iter().position(is_classifier);
    let mut findings = Vec::new();
    if has_rules && ours.is_none() {
        findings.push(Finding::wrong(
            CHECK,
            "the agent's program is not on it: what comes in there gets no helper",
            "start the agent, or reload it: it puts back what is missing; if `interfaces` in the \
             configuration has changed since it started, restart it",
        ));
    }
    let has_xdp = || occupants.iter().any(|it| it.by == OnHook::Xdp);
    if has_rules && ours.is_some() && wants_xdp && !has_xdp() {
        findings.push(Finding::warn(
            CHECK,
            "XDP is wanted on it, and no XDP program is there: tc does its work",
            "its driver has none or refused it, as the agent's log says: attach = \"xdp-generic\", \
             or take the interface out of [[interface]] in the configuration, and restart the \
             agent; or it was not restarted since",
        ));
    }
    for (at, other) in occupants.iter().enumerate() {
        if is_own(other) {
            continue;
        }
        let is_in_front = ours.is_some_and(|ours| at < ours);
        let (by, remedy) = match other.by {
            OnHook::Xdp if wants_xdp => (
                "an XDP program".to_owned(),
                "the agent's own has no place there, and tc does its work: remove the other, \
                 or take the interface out of [[interface]] in the configuration and restart the \
                 agent",
            ),
            OnHook::Xdp => (
                "an XDP program".to_owned(),
                "nothing, if it passes on what is to have a helper",
            ),
            OnHook::Tcx => ("a tcx program".into(), BESIDE),
            // Only where the agent's program is a filter too: tcx runs before all
            // filters.
            OnHook::Filter if is_in_front => (filter(other), IN_FRONT),
            OnHook::Filter => (filter(other), BESIDE),
        };
        let program = other.program.map(|id| match name(id) {
            name if name.is_empty() => format!(", program {id}"),
            name => format!(", program {id} {name:?}"),
        });
        let program = program.unwrap_or_default();
        let order = match ours {
            Some(_) if is_in_front => ", in front of the agent's",
            Some(_) => ", behind the agent's",
            None => "",
        };
        let what = format!("{by} of somebody else's is on it{program}{order}");
        findings.push(Finding::warn(CHECK, what, remedy));
    }
    findings
}

/// Describes a tc filter, by its kind if it runs no program whose name says more:
/// Neutron's rate limits of floating IPs are u32 filters, and an action of any filter may
/// change the mark.
fn filter(occupant: &Occupant) -> String {
    match (occupant.program, &occupant.kind) {
        (None, Some(kind)) => format!("a tc filter ({kind})"),
        _ => "a tc filter's program".into(),
    }
}

/// The remedy for a filter in front of the agent's: the first filter that gives a verdict
/// is the packet's last (`tcf_classify`, `net/sched/cls_api.c`).
const IN_FRONT: &str = "nothing, if it gives no verdict on what is to have a helper: what it lets \
    pass or drops never comes to the agent's. By tcx the agent's comes first: Linux 6.6 or newer, \
    attach = \"auto\", and a restart of the agent";

const BESIDE: &str = "nothing, if it passes on what is to have a helper and leaves the field \
    alone that carries the helper mark";

/// The names of all programs, read once, when the first foreign program is found.
#[derive(Default)]
pub(super) struct Names(Option<BTreeMap<u32, String>>);

impl Names {
    fn of(&mut self, program: u32) -> &str {
        let names = self.0.get_or_insert_with(program_names);
        names.get(&program).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const OWN: u32 = 7;

    /// A tc filter that runs no program.
    const NO_PROGRAM: u32 = u32::MAX;

    /// Programs by their ways, of which those with the agent's number are its own.
    #[track_caller]
    fn check(occupants: &[(OnHook, u32)], has_rules: bool, expected: &[(Verdict, &str)]) {
        let occupants: Vec<_> = occupants
            .iter()
            .map(|&(by, program)| Occupant {
                by,
                program: (program != NO_PROGRAM).then_some(program),
                kind: (by == OnHook::Filter).then(|| "u32".into()),
                is_own_filter: false,
            })
            .collect();
        let is_own = |occupant: &Occupant| occupant.program == Some(OWN);
        let found = judge(&occupants, is_own, has_rules, false, |_| "other".into());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, (verdict, part)) in found.iter().zip(expected) {
            assert_eq!(finding.result, *verdict);
            assert!(finding.what.contains(part), "{finding:?} lacks {part}");
        }
    }

    #[test]
    fn others_are_told_by_where_they_are() {
        use OnHook::{Filter, Tcx, Xdp};
        use Verdict::{Warn, Wrong};
        check(&[(Tcx, OWN)], true, &[]);
        check(&[(Xdp, OWN), (Tcx, OWN)], true, &[]);
        check(&[], false, &[]);
        check(&[], true, &[(Wrong, "not on it")]);
        check(&[(Xdp, OWN)], true, &[(Wrong, "not on it")]);
        check(
            &[(Tcx, 1), (Tcx, OWN)],
            true,
            &[(Warn, "program 1 \"other\", in front")],
        );
        check(
            &[(Tcx, OWN), (Filter, 1)],
            true,
            &[(
                Warn,
                "a tc filter's program of somebody else's is on it, program 1 \"other\", behind",
            )],
        );
        check(&[(Xdp, 1), (Tcx, OWN)], true, &[(Warn, "an XDP program")]);
        check(&[(Tcx, 1)], false, &[(Warn, "program 1 \"other\"")]);
        check(
            &[(Tcx, 1)],
            true,
            &[(Wrong, "not on it"), (Warn, "a tcx program")],
        );
    }

    #[test]
    fn a_filter_without_a_program_is_told_by_its_kind() {
        use OnHook::{Filter, Tcx};
        use Verdict::Warn;
        let what = "a tc filter (u32) of somebody else's is on it";
        let told = |order: &str| format!("{what}{order}");
        check(&[(Filter, NO_PROGRAM)], false, &[(Warn, what)]);
        check(
            &[(Filter, NO_PROGRAM), (Filter, OWN)],
            true,
            &[(Warn, &told(", in front of the agent's"))],
        );
        check(
            &[(Tcx, OWN), (Filter, NO_PROGRAM)],
            true,
            &[(Warn, &told(", behind the agent's"))],
        );
    }

    #[test]
    fn what_a_filter_keeps_from_ours_has_a_remedy_of_its_own() {
        let occupant = |by, program| Occupant {
            by,
            program: Some(program),
            kind: None,
            is_own_filter: false,
        };
        let remedy = |first, second| {
            let occupants = [first, second].map(|(by, program)| occupant(by, program));
            let is_own = |occupant: &Occupant| occupant.program == Some(OWN);
            let found = judge(&occupants, is_own, true, false, |_| String::new());
            found[0].remedy.clone().unwrap()
        };
        let (own, other) = ((OnHook::Filter, OWN), (OnHook::Filter, 1));
        assert_eq!(remedy(other, own), IN_FRONT);
        assert_eq!(remedy(own, other), BESIDE);
        assert_eq!(remedy((OnHook::Tcx, OWN), other), BESIDE);
    }

    #[test]
    fn xdp_that_is_wanted_and_not_there_is_told_of() {
        let occupant = |by| Occupant {
            by,
            program: Some(OWN),
            kind: None,
            is_own_filter: false,
        };
        let told = |occupants: &[OnHook], has_rules, wants_xdp| {
            let occupants: Vec<_> = occupants.iter().copied().map(occupant).collect();
            let found = judge(
                &occupants,
                |_| true,
                has_rules,
                wants_xdp,
                |_| String::new(),
            );
            found
                .iter()
                .any(|finding| finding.what.contains("XDP is wanted"))
        };
        assert!(told(&[OnHook::Tcx], true, true));
        assert!(!told(&[OnHook::Xdp, OnHook::Tcx], true, true));
        assert!(!told(&[OnHook::Tcx], true, false));
        assert!(!told(&[], false, true));
        // That says more.
        assert!(!told(&[], true, true));
    }

    #[test]
    fn an_xdp_program_in_the_place_of_ours_is_told_so() {
        let occupant = Occupant {
            by: OnHook::Xdp,
            program: Some(1),
            kind: None,
            is_own_filter: false,
        };
        let remedy = |wants_xdp| {
            let found = judge(
                std::slice::from_ref(&occupant),
                |_| false,
                false,
                wants_xdp,
                |_| String::new(),
            );
            assert!(found[0].what.ends_with("program 1"), "{found:?}");
            found[0].remedy.clone().unwrap()
        };
        assert!(remedy(true).contains("[[interface]]"));
        assert!(!remedy(false).contains("[[interface]]"));
    }
}
