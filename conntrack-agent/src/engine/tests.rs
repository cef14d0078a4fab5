//! The engine against a model so simple that it is plainly right.

use std::collections::{BTreeMap, BTreeSet};

use conntrack_ebpf::lookup::lookup;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};

use super::*;
use crate::{
    model::{Destination, Helper, Origin, Port, Protocol, RouterId, RuleId, RuleTarget},
    port_table::{Capacity, Image, Wanted, plan},
};

const ROUTERS: u8 = 5;
const LIMITS: Limits = Limits {
    rules_per_router: 8,
    routers: 4,
};

fn router(number: u8) -> RouterId {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
        .parse()
        .unwrap()
}

fn id(number: u8) -> RuleId {
    RuleId::from_bytes([number; 16])
}

fn helper(name: &str, protocol: Protocol) -> Helper {
    Helper::new(name, protocol).unwrap()
}

fn port(number: i64) -> Port {
    Port::try_from(number).unwrap()
}

/// Two that one destination can have, one for each protocol, and two that
/// nobody may have.
fn helpers() -> [Helper; 6] {
    [
        helper("ftp", Protocol::Tcp),
        helper("irc", Protocol::Tcp),
        helper("tftp", Protocol::Udp),
        helper("sip", Protocol::Udp),
        helper("pptp", Protocol::Tcp),
        helper("snmp", Protocol::Udp),
    ]
}

fn policy() -> Policy {
    let all = helpers();
    Policy::new(
        LIMITS,
        all[..5].to_vec(),
        [all[0], all[1], all[2], all[3], all[5]],
    )
}

fn target(number: u8, port_number: i64, helper: Helper) -> RuleTarget {
    RuleTarget {
        router: router(number),
        port: port(port_number),
        helper,
    }
}

/// Rules in the order in which they were made. Searched from end to end.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naive(Vec<HelperRuleOf>);

type HelperRuleOf = crate::model::HelperRule;

impl Naive {
    /// The state after the batch, if nothing speaks against it.
    fn after(&self, origin: Origin, batch: &[Operation]) -> Option<Self> {
        let mut next = self.clone();
        let mut fine = true;
        for operation in batch {
            fine &= next.carry_out(origin, operation);
        }
        for number in 0..ROUTERS {
            let count = |rules: &Self| rules.of(router(number)).count();
            fine &= count(&next) <= LIMITS.rules_per_router || count(&next) <= count(self);
        }
        let routers = |rules: &Self| {
            rules
                .0
                .iter()
                .map(|r| r.target.router)
                .collect::<BTreeSet<_>>()
                .len()
        };
        fine &= routers(&next) <= LIMITS.routers || routers(&next) <= routers(self);
        fine.then_some(next)
    }

    fn carry_out(&mut self, origin: Origin, operation: &Operation) -> bool {
        match operation {
            Operation::Create(new) => self.create(origin, *new),
            Operation::Update {
                id,
                router,
                port,
                helper,
            } => {
                let Some(at) = self.0.iter().position(|rule| rule.id == *id) else {
                    return false;
                };
                let old = self.0[at];
                let target = RuleTarget {
                    router: old.target.router,
                    port: port.unwrap_or(old.target.port),
                    helper: helper.unwrap_or(old.target.helper),
                };
                let twin = self
                    .0
                    .iter()
                    .any(|r| r.id != *id && r.origin == origin && r.target == target);
                let same_router = router.is_none_or(|router| router == old.target.router);
                self.0[at].target = target;
                old.origin == origin
                    && same_router
                    && !twin
                    && policy().objection(target.helper).is_none()
            }
            Operation::Delete(id) => {
                let before = self.0.len();
                self.0
                    .retain(|rule| rule.id != *id || rule.origin != origin);
                self.0.len() < before
            }
            Operation::Clear(of) => {
                self.0
                    .retain(|rule| rule.target.router != *of || rule.origin != origin);
                true
            }
            Operation::Replace { router, rules } => {
                let wanted: Vec<_> = rules.iter().map(|rule| rule.target).collect();
                let distinct: BTreeSet<_> = wanted.iter().collect();
                let mut fine = distinct.len() == wanted.len()
                    && wanted.iter().all(|target| target.router == *router)
                    && wanted
                        .iter()
                        .all(|target| policy().objection(target.helper).is_none());
                self.0.retain(|rule| {
                    rule.target.router != *router
                        || rule.origin != origin
                        || wanted.contains(&rule.target)
                });
                for new in rules {
                    if !self
                        .0
                        .iter()
                        .any(|r| r.origin == origin && r.target == new.target)
                    {
                        fine &= self.create(origin, *new);
                    }
                }
                fine
            }
        }
    }

    fn create(&mut self, origin: Origin, new: NewRule) -> bool {
        let taken = self.0.iter().any(|rule| rule.id == new.id);
        let twin = self
            .0
            .iter()
            .any(|r| r.origin == origin && r.target == new.target);
        let rule = HelperRuleOf {
            id: new.id,
            target: new.target,
            origin,
        };
        self.0.push(rule);
        !taken && !twin && policy().objection(new.target.helper).is_none()
    }

    fn of(&self, router: RouterId) -> impl Iterator<Item = &HelperRuleOf> {
        self.0
            .iter()
            .filter(move |rule| rule.target.router == router)
    }

    fn winner(&self, router: RouterId, at: Destination) -> Option<Helper> {
        let mut rules = self
            .of(router)
            .filter(|rule| rule.target.destination() == at);
        rules.next().map(|rule| rule.target.helper)
    }
}

fn any_says() -> impl Strategy<Value = RuleTarget> {
    // The last two of the helpers, which are refused, less often.
    let helper = prop_oneof![20 => 0_usize..4, 1 => 4_usize..6];
    (0..ROUTERS, select(vec![21, 69, 300, 301, 5060]), helper)
        .prop_map(|(router, port, helper)| target(router, port, helpers()[helper]))
}

fn any_rule() -> impl Strategy<Value = NewRule> {
    (any::<u8>(), any_says()).prop_map(|(number, target)| NewRule {
        id: id(number),
        target,
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let update = (
        0_u8..60,
        option::weighted(0.2, 0..ROUTERS),
        any_says(),
        any::<(bool, bool)>(),
    );
    let replace = (0..ROUTERS, vec(any_rule(), 0..4), any::<u8>());
    prop_oneof![
        6 => any_rule().prop_map(Operation::Create),
        3 => update.prop_map(|(number, to, target, (port, helper))| Operation::Update {
            id: id(number),
            router: to.map(router),
            port: port.then_some(target.port),
            helper: helper.then_some(target.helper),
        }),
        2 => any::<u8>().prop_map(|number| Operation::Delete(id(number))),
        1 => (0..ROUTERS).prop_map(|number| Operation::Clear(router(number))),
        2 => replace.prop_map(|(number, mut rules, stray)| {
            // Now and then a rule of another router among them.
            for rule in rules.iter_mut().skip(usize::from(stray % 16 == 0)) {
                rule.target.router = router(number);
            }
            Operation::Replace { router: router(number), rules }
        }),
    ]
}

/// Lets most operations that name a rule name one that is there, and most of
/// those one of the asker's own.
fn aim(operation: &mut Operation, origin: Origin, naive: &Naive) {
    let (Operation::Update { id, .. } | Operation::Delete(id)) = operation else {
        return;
    };
    let number = usize::from(id.to_bytes()[0]);
    let choice: Vec<_> = match number {
        0..200 => naive
            .0
            .iter()
            .filter(|rule| rule.origin == origin)
            .collect(),
        200..240 => naive.0.iter().collect(),
        _ => Vec::new(),
    };
    if let Some(rule) = choice.get(number % choice.len().max(1)) {
        *id = rule.id;
    }
}

fn any_origin() -> impl Strategy<Value = Origin> {
    select(vec![Origin::File, Origin::Api, Origin::Neutron])
}

/// Everything that must hold of a mapping, whatever led to it.
fn check_invariants(mapping: &Mapping, naive: &Naive) {
    let mut by_router = Vec::new();
    for router in mapping.routers() {
        let of: Vec<_> = mapping.of(router).copied().collect();
        assert!(!of.is_empty(), "a router without rules is not there");
        assert_eq!(of.len(), mapping.rules_of(router));
        assert!(of.iter().all(|entry| entry.rule.target.router == router));
        by_router.extend(of);
    }
    let mut by_id: Vec<_> = mapping.entries().copied().collect();
    by_id.sort_by_key(|entry| entry.age);
    by_router.sort_by_key(|entry| entry.age);
    assert_eq!(
        by_id, by_router,
        "both indexes hold the same rules, each once"
    );
    assert!(by_id.windows(2).all(|pair| pair[0].age < pair[1].age));
    let rules: Vec<_> = by_id.iter().map(|entry| entry.rule).collect();
    assert_eq!(rules, naive.0, "and they are the model's, in its order");
    let again = Mapping::from_entries(by_id).unwrap();
    assert!(
        mapping
            .entries()
            .all(|entry| again.get(entry.rule.id) == Some(entry))
    );
}

/// The port tables, written as the reconciler writes them, give each packet the
/// helper that the model gives it.
fn check_tables(mapping: &Mapping, naive: &Naive, tables: &mut BTreeMap<RouterId, Image>) {
    for number in 0..ROUTERS {
        let router = router(number);
        let winners = mapping.winners(router);
        let wanted: Wanted = winners
            .iter()
            .map(|(at, helper)| (*at, helper.mark()))
            .collect();
        let table = tables
            .entry(router)
            .or_insert_with(|| Image::empty(Capacity::DEFAULT));
        table.edit(&plan(table, &wanted).unwrap());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in [21, 69, 300, 22] {
                let at = Destination { protocol, port };
                let expected = naive.winner(router, at);
                assert_eq!(winners.get(&at).copied(), expected, "the oldest wins");
                let mark = lookup(table, at).map(|hit| hit.mark.get());
                assert_eq!(
                    mark,
                    expected.map(Helper::mark),
                    "as the classifier sees it"
                );
            }
        }
        for entry in mapping.of(router) {
            let oldest = naive
                .of(router)
                .find(|rule| rule.target.destination() == entry.rule.target.destination());
            let wins = oldest.is_some_and(|rule| rule.id == entry.rule.id);
            assert_eq!(mapping.is_shadowed(entry), !wins);
        }
    }
}

#[test]
fn any_row_of_batches_leads_where_the_naive_model_says() {
    const CASES: u32 = 120;
    const BATCHES: usize = 600;
    let batches = vec((any_origin(), vec(any_operation(), 0..4)), BATCHES);
    let mut operations = 0;
    let mut accepted = 0;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        // A failing row is shrunk by hand sooner than by machine.
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let counts = std::cell::RefCell::new((&mut operations, &mut accepted));
    runner
        .run(&batches, |batches| {
            let policy = policy();
            let mut mapping = Mapping::default();
            let mut naive = Naive::default();
            let mut tables = BTreeMap::new();
            for (origin, mut batch) in batches {
                for operation in &mut batch {
                    aim(operation, origin, &naive);
                }
                *counts.borrow_mut().0 += batch.len();
                let before = mapping.clone();
                let decided = mapping.decide(&policy, origin, &batch);
                prop_assert_eq!(&mapping, &before, "deciding changes nothing");
                let after = naive.after(origin, &batch);
                prop_assert_eq!(
                    decided.is_ok(),
                    after.is_some(),
                    "{:?} {:?}",
                    batch,
                    decided
                );
                let (Ok(change), Some(after)) = (decided, after) else {
                    continue;
                };
                *counts.borrow_mut().1 += batch.len();
                prop_assert!(
                    change
                        .removed()
                        .iter()
                        .chain(change.added())
                        .all(|e| e.rule.origin == origin),
                    "only the asker's own rules change"
                );
                mapping.commit(&change);
                naive = after;
                check_invariants(&mapping, &naive);
                check_tables(&mapping, &naive, &mut tables);
                let mut back = mapping.clone();
                back.commit(&change.inverse());
                prop_assert!(back.entries().count() == before.entries().count());
                prop_assert!(
                    before
                        .entries()
                        .all(|entry| back.get(entry.rule.id) == Some(entry))
                );
            }
            Ok(())
        })
        .unwrap();
    assert!(operations >= 100_000, "{operations} operations");
    assert!(
        accepted * 4 > operations,
        "{accepted} of {operations} accepted: the rows test little"
    );
}
