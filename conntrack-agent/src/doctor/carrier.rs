//! Which carrier takes the helper marks to the binding, in each namespace, and why.

use super::{
    Finding,
    routers::{InForce, Router},
};
use crate::{
    config::{CarrierChoice, Nat},
    input::sentence,
    kernel::{Binding, BindingState, Carrier, Error, Netns, Reads, carrier_name},
};

const CHECK: &str = "carrier";

/// A namespace as it was found.
struct Seen {
    has_nat: bool,
    table: BindingState,
}

/// What keeps all routers from what the configuration wants.
pub(super) fn obstacle(choice: CarrierChoice, binding: Option<&Binding>) -> Option<Finding> {
    match binding {
        None => {
            let what = "not to be told without nft and the kernel's helpers";
            Some(Finding::unknown(CHECK, what))
        }
        Some(binding) if choice == CarrierChoice::Priority && !has_nat_chains(binding) => {
            let what = sentence(&Error::NoNatChains);
            let remedy = "carrier = \"auto\"; the agent doesn't start";
            Some(Finding::wrong(CHECK, what, remedy))
        }
        Some(_) => None,
    }
}

/// The carrier that the router has or would get, if that can be told, and how it is
/// in its namespaces.
pub(super) fn look(
    choice: CarrierChoice,
    binding: &Binding,
    router: &Router,
) -> (Option<Carrier>, Vec<Finding>) {
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
    let judge = |(netns, seen): &(&Netns, Seen)| {
        judge(router.in_force, carrier, why, choice, seen).at(netns.name())
    };
    (Some(carrier), seen.iter().map(judge).collect())
}

/// As a start asks for it: what can't change back and forth isn't used.
fn has_nat_chains(binding: &Binding) -> bool {
    binding.can_read(Reads::One(Carrier::Priority)) && binding.can_read(Reads::Both)
}

fn see(binding: &Binding, netns: &Netns) -> Result<Seen, Error> {
    Ok(Seen {
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
    seen: &Seen,
) -> Finding {
    const AGAIN: &str = "start the agent, or reload it: it puts back what is missing";
    let name = carrier_name(wanted);
    let InForce::Rules { carrier, .. } = in_force else {
        return Finding::ok(CHECK, format!("{name}, once there are rules: {why}"));
    };
    match (carrier, seen.table) {
        (_, BindingState::Absent) => Finding::wrong(
            CHECK,
            "the agent's nftables table is missing: no connection gets a helper",
            AGAIN,
        ),
        (_, BindingState::Different) => Finding::wrong(
            CHECK,
            "the agent's nftables table is not as the agent made it",
            AGAIN,
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
            "the agent changes it at its next look: start it, or reload it",
        ),
        (Some(_), BindingState::Reading(_))
            if choice == CarrierChoice::Priority && !seen.has_nat =>
        {
            Finding::warn(
                CHECK,
                "priority, by configuration, where there is no NAT: the kernel's NAT sees each \
                 packet for it, and may give a connection another port",
                "carrier = \"auto\"",
            )
        }
        (Some(_), BindingState::Reading(_)) => Finding::ok(CHECK, format!("{name}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const MARK: BindingState = BindingState::Reading(Reads::One(Carrier::Mark));
    const PRIORITY: BindingState = BindingState::Reading(Reads::One(Carrier::Priority));
    const BOTH: BindingState = BindingState::Reading(Reads::Both);

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
        let seen = Seen { has_nat, table };
        let why = why(choice, &nat, true);
        let finding = judge(in_force, choice.of(&nat, true), why, choice, &seen);
        assert_eq!(finding.result, expected, "{finding:?}");
        let none = judge(InForce::Nothing, choice.of(&nat, true), why, choice, &seen);
        assert_eq!(none.result, Verdict::Ok, "without rules");
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
