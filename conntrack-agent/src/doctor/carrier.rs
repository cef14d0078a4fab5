//! Checks which carrier is in use in each namespace, why, and whether programs and table
//! agree.

use super::{
    Finding,
    routers::{InForce, LocalRouter},
};
use crate::{
    config::{CarrierChoice, Nat},
    input::sentence,
    kernel::{Binding, BindingCarriers, BindingState, Carrier, Error, Netns, carrier_name},
};

const CHECK: &str = "carrier";

/// The state of a namespace.
struct NamespaceFindings {
    has_nat: bool,
    table: BindingState,
}

/// Returns a finding if no router can get the carrier that the configuration wants.
pub(super) fn obstacle(choice: CarrierChoice, binding: Option<&Binding>) -> Option<Finding> {
    match binding {
        None => {
            let what = "not to be told without nft and the kernel's helpers";
            Some(Finding::unknown(CHECK, what))
        }
        Some(binding) if choice == CarrierChoice::Priority && !has_nat_chains(binding) => {
            let what = sentence(&Error::NoNatChains);
            let remedy =
                "carrier = \"auto\" in the configuration, and start the agent: so it doesn't";
            Some(Finding::wrong(CHECK, what, remedy))
        }
        Some(_) => None,
    }
}

/// The carrier that a router is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) carrier: Carrier,
    /// Whether `carrier = "auto"` would choose `priority`: then nothing speaks against
    /// it.
    pub(super) suits_priority: bool,
}

/// Returns the carrier that the router has or would get, if that can be told, and the
/// findings of its namespaces.
pub(super) fn look(
    choice: CarrierChoice,
    binding: &Binding,
    router: &LocalRouter,
) -> (Option<Due>, Vec<Finding>) {
    let namespaces = router.namespaces.iter();
    let seen: Result<Vec<_>, Error> = namespaces
        .map(|netns| Ok((netns, see(binding, netns)?)))
        .collect();
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let finding = Finding::unknown(CHECK, sentence(&error));
            return (None, vec![finding.at(format!("router {}", router.id))]);
        }
    };
    let nat_chains = has_nat_chains(binding);
    let nat = Nat(seen.iter().map(|(_, seen)| seen.has_nat).collect());
    let carrier = choice.of(&nat, nat_chains);
    let why = why(choice, &nat, nat_chains);
    let judge = |(netns, seen): &(&Netns, NamespaceFindings)| {
        judge(router.in_force, carrier, why, choice, seen).at(netns.name())
    };
    let due = Due {
        carrier,
        suits_priority: CarrierChoice::Auto.of(&nat, nat_chains) == Carrier::Priority,
    };
    (Some(due), seen.iter().map(judge).collect())
}

/// Returns whether the kernel has nat chains, as a start decides it: a carrier that can't
/// be switched back and forth isn't used.
fn has_nat_chains(binding: &Binding) -> bool {
    binding.can_read(BindingCarriers::One(Carrier::Priority))
        && binding.can_read(BindingCarriers::Both)
}

fn see(binding: &Binding, netns: &Netns) -> Result<NamespaceFindings, Error> {
    Ok(NamespaceFindings {
        has_nat: binding.is_beside_nat(netns)?,
        table: binding.observe(netns)?,
    })
}

fn why(choice: CarrierChoice, nat: &Nat, nat_chains: bool) -> &'static str {
    match choice {
        CarrierChoice::Mark | CarrierChoice::Priority => "the configuration says so",
        CarrierChoice::Auto if !nat_chains => "this kernel has no nat chains of nftables",
        CarrierChoice::Auto => match nat.0.as_slice() {
            [true] => "the router has NAT",
            [false] => "the router has no NAT",
            all if all.iter().all(|each| *each) && !all.is_empty() => {
                "each of the router's namespaces has NAT"
            }
            _ => "not each of the router's namespaces has NAT",
        },
    }
}

fn judge(
    in_force: InForce,
    wanted: Carrier,
    why: &str,
    choice: CarrierChoice,
    seen: &NamespaceFindings,
) -> Finding {
    const AGAIN: &str = "start the agent, or reload it: it puts back what is missing";
    // A reload reads the rules again, but not the configuration.
    const ANEW: &str = "restart the agent: it makes the table anew, as the configuration wants it";
    let name = carrier_name(wanted);
    let carrier = match in_force {
        InForce::Rules { carrier, .. } => carrier,
        InForce::Nothing => {
            return Finding::ok(CHECK, format!("{name}, once there are rules: {why}"));
        }
        InForce::Older(_) => {
            let what = "not to be told of an older agent's rules";
            return Finding::unknown(CHECK, what);
        }
        InForce::Broken => {
            let what = "not to be told: what is pinned of the rules is not whole";
            return Finding::unknown(CHECK, what);
        }
    };
    match (carrier, seen.table) {
        (_, BindingState::Absent) => Finding::wrong(
            CHECK,
            "the agent's nftables table is missing: no connection gets a helper",
            AGAIN,
        ),
        (_, BindingState::Different) => Finding::wrong(
            CHECK,
            "the agent's nftables table is not as the agent would make it",
            ANEW,
        ),
        (None, _) => Finding::wrong(CHECK, "the programs use none that is known", AGAIN),
        (Some(used), BindingState::Reading(reads)) if !reads.has(used) => Finding::wrong(
            CHECK,
            format!(
                "the programs use {}, and the table reads {reads}",
                carrier_name(used)
            ),
            AGAIN,
        ),
        (Some(used), BindingState::Reading(_)) if used != wanted => Finding::warn(
            CHECK,
            format!(
                "{} is in force, and {name} is due: {why}",
                carrier_name(used)
            ),
            match choice {
                CarrierChoice::Auto => {
                    "the agent changes it at its next look: start it, or reload it; if the \
                     configuration has changed since it started, restart it"
                }
                CarrierChoice::Mark | CarrierChoice::Priority => {
                    "restart the agent: it reads the configuration when it starts"
                }
            },
        ),
        (Some(_), BindingState::Reading(_))
            if choice == CarrierChoice::Priority && !seen.has_nat =>
        {
            Finding::warn(
                CHECK,
                "priority, by configuration, where there is no NAT: the kernel's NAT sees each \
                 packet for it, and may give a connection another port",
                "carrier = \"auto\" in the configuration, and restart the agent",
            )
        }
        (Some(_), BindingState::Reading(_)) => Finding::ok(CHECK, format!("{name}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const MARK: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
    const PRIORITY: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Priority));
    const BOTH: BindingState = BindingState::Reading(BindingCarriers::Both);

    #[track_caller]
    fn check(
        choice: CarrierChoice,
        (has_nat, table): (bool, BindingState),
        used: Option<Carrier>,
        expected: Verdict,
    ) {
        let nat = Nat(vec![has_nat]);
        let in_force = InForce::Rules {
            count: 1,
            carrier: used,
        };
        let seen = NamespaceFindings { has_nat, table };
        let why = why(choice, &nat, true);
        let finding = judge(in_force, choice.of(&nat, true), why, choice, &seen);
        assert_eq!(finding.result, expected, "{finding:?}");
        for (in_force, expected) in [
            (InForce::Nothing, Verdict::Ok),
            (InForce::Broken, Verdict::Unknown),
            (InForce::Older(1), Verdict::Unknown),
        ] {
            let finding = judge(in_force, choice.of(&nat, true), why, choice, &seen);
            assert_eq!(finding.result, expected, "{finding:?}");
        }
    }

    #[test]
    fn programs_and_table_must_agree_with_what_is_wanted() {
        use CarrierChoice::{Auto, Mark, Priority};
        let (mark, priority) = (Some(Carrier::Mark), Some(Carrier::Priority));
        check(Auto, (false, MARK), mark, Verdict::Ok);
        check(Auto, (true, PRIORITY), priority, Verdict::Ok);
        check(Auto, (true, BOTH), priority, Verdict::Ok);
        check(Mark, (true, MARK), mark, Verdict::Ok);
        check(Priority, (true, PRIORITY), priority, Verdict::Ok);
        check(Priority, (false, PRIORITY), priority, Verdict::Warn);
        check(Auto, (true, MARK), mark, Verdict::Warn);
        check(Auto, (false, PRIORITY), priority, Verdict::Warn);
        check(Auto, (true, MARK), priority, Verdict::Wrong);
        check(Auto, (false, BindingState::Absent), mark, Verdict::Wrong);
        check(Auto, (false, BindingState::Different), mark, Verdict::Wrong);
        check(Auto, (false, MARK), None, Verdict::Wrong);
    }

    /// Which a reload doesn't read.
    #[test]
    fn what_the_configuration_wants_takes_a_restart() {
        use CarrierChoice::{Auto, Mark, Priority};
        let remedy = |choice: CarrierChoice, has_nat, table| {
            let nat = Nat(vec![has_nat]);
            let in_force = InForce::Rules {
                count: 1,
                carrier: Some(Carrier::Priority),
            };
            let seen = NamespaceFindings { has_nat, table };
            let finding = judge(in_force, choice.of(&nat, true), "so", choice, &seen);
            finding.remedy.unwrap()
        };
        assert!(remedy(Mark, true, PRIORITY).starts_with("restart"));
        assert!(remedy(Auto, false, PRIORITY).contains("reload"));
        assert!(remedy(Priority, false, PRIORITY).ends_with("restart the agent"));
        assert!(remedy(Auto, true, BindingState::Different).starts_with("restart"));
        assert!(remedy(Auto, true, BindingState::Absent).contains("reload"));
    }

    #[test]
    fn the_reason_is_said() {
        use CarrierChoice::{Auto, Mark};
        let why = |choice, nat: &[bool], nat_chains| why(choice, &Nat(nat.to_vec()), nat_chains);
        assert!(why(Mark, &[true], true).contains("configuration"));
        assert!(why(Auto, &[true], true).contains("has NAT"));
        assert!(why(Auto, &[false], true).contains("no NAT"));
        assert!(why(Auto, &[true, false], true).contains("not each"));
        assert!(why(Auto, &[true, true], true).starts_with("each"));
        assert!(why(Auto, &[true], false).contains("nat chains"));
    }
}
