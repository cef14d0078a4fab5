//! Tests each defect that a review found in the Python original, with a case that the
//! original's logic would fail.
//!
//! The tests are named after the findings; the CWE numbers are those of ARCHITECTURE.md.
//! Tests that need a real kernel, or a process to kill, are in the lab.

mod bench;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use self::bench::{Bench, create, refused, router, target};
use crate::{
    engine::{Limits, Mapping, NewRule, Operation, Policy, Reason},
    kernel::{AgentId, BindingState},
    model::{Helper, Origin, Protocol, RuleId, RuleTarget},
    port_table::{Capacity, Wanted, plan},
    reconcile::{ApplyError, Effect, apply, memory::MemoryNamespace},
};

/// What somebody may do to a namespace.
type Damage = fn(&mut MemoryNamespace);

#[test]
fn resync_of_one_router_does_not_forget_the_others() {
    let mut bench = Bench::with(&[create(1, 21), create(2, 2121)]);
    let replace = Operation::Replace {
        router: router(1),
        rules: vec![NewRule {
            id: RuleId::random(),
            target: target(1, 990),
        }],
    };
    bench.api(&[replace]);
    assert_eq!(bench.in_force(1), [990]);
    assert_eq!(bench.in_force(2), [2121]);
}

#[test]
fn a_batch_does_not_stop_at_a_router_that_is_not_here() {
    let mut bench = Bench::with(&[create(9, 21), create(1, 21), create(2, 21)]);
    assert_eq!(bench.in_force(1), [21]);
    assert_eq!(bench.in_force(2), [21]);
    let summary = bench.pass();
    assert_eq!((summary.active, summary.pending), (2, 1));
    // And when it comes, it has its rule.
    let namespace = MemoryNamespace::default();
    bench.namespaces(9).insert("qrouter-9".into(), namespace);
    bench.pass();
    assert_eq!(bench.in_force(9), [21]);
}

#[test]
fn a_refused_rule_does_not_poison_later_changes() {
    let mut bench = Bench::with(&[create(1, 21)]);
    bench.kernel.refuse(|_, _| Err(refused(28)));
    bench.ask(Origin::Api, &[create(1, 22)]).unwrap_err();
    bench.kernel.relent();
    bench.api(&[create(1, 23)]);
    assert_eq!(bench.in_force(1), [21, 23]);
    assert_eq!(bench.pass().effects.total(), 0);
}

#[test]
fn cwe_20_every_fault_of_a_batch_is_named_and_nothing_of_it_happens() {
    let mut bench = Bench::new();
    let limits = Limits {
        rules_per_router: 2,
        routers: 2,
    };
    let ftp = Helper::all().filter(|helper| helper.name() == "ftp");
    bench.policy = Policy::new(limits, Helper::all(), ftp);
    bench.api(&[create(1, 21)]);
    let (before, kernel) = (bench.mapping.clone(), bench.kernel.state());
    let irc = RuleTarget {
        helper: Helper::new("irc", Protocol::Tcp).unwrap(),
        ..target(1, 6667)
    };
    let batch = [
        create(1, 21),
        Operation::Create(NewRule {
            id: RuleId::random(),
            target: irc,
        }),
        Operation::Delete(RuleId::random()),
        create(1, 22),
        create(1, 23),
        create(2, 21),
        create(3, 21),
    ];
    let refusals = bench.decide(Origin::Api, &batch).unwrap_err();
    let reasons: Vec<_> = refusals
        .iter()
        .map(|it| (it.operation, &it.reason))
        .collect();
    let expected = matches!(
        reasons[..],
        [
            (0, Reason::Duplicate { .. }),
            (1, Reason::HelperNotAllowed(_)),
            (2, Reason::NoSuchRule(_)),
            (
                4,
                Reason::TooManyRules {
                    count: 3,
                    limit: 2,
                    ..
                }
            ),
            (6, Reason::TooManyRouters { count: 3, limit: 2 }),
        ]
    );
    assert!(expected, "{reasons:?}");
    bench.ask(Origin::Api, &batch).unwrap_err();
    assert_eq!(bench.mapping, before);
    assert_eq!(bench.kernel.state(), kernel);
}

/// Whatever step of a change is refused, and for whatever reason, everything
/// that it had done is undone, and the answer names the step.
#[test]
fn cwe_404_a_change_that_is_refused_half_way_leaves_nothing() {
    for errno in [libc::E2BIG, libc::ENOSPC, libc::ENODEV, libc::EPERM] {
        let mut steps = 0;
        loop {
            let mut bench = Bench::with(&[create(1, 21), create(2, 21)]);
            let (before, kernel) = (bench.mapping.clone(), bench.kernel.state());
            let step = Rc::new(RefCell::new((0, None)));
            let shared = Rc::clone(&step);
            bench.kernel.refuse(move |_, effect| {
                let mut seen = shared.borrow_mut();
                seen.0 += 1;
                // Only that step: what takes the others back goes through.
                if seen.0 == steps + 1 {
                    seen.1 = Some(effect.to_string());
                    return Err(refused(errno));
                }
                Ok(())
            });
            // Grows one router, empties one, makes one.
            let mut batch: Vec<_> = (1000..1100).map(|port| create(1, port)).collect();
            batch.push(Operation::Clear(router(2)));
            batch.push(create(3, 21));
            let answer = bench.ask(Origin::Api, &batch);
            let Some(refused_step) = step.borrow().1.clone() else {
                assert_eq!(answer, Ok(steps), "all steps were tried");
                break;
            };
            let message = answer.unwrap_err();
            assert!(message.contains(&refused_step), "{message}: {refused_step}");
            assert!(bench.mapping.difference(&before).is_empty());
            bench.kernel.relent();
            let mut now = bench.kernel.state();
            // A larger instance with the same rules in it stays: it is as good.
            for (id, router) in &mut now {
                if let (Some(now), Some(then)) = (&mut router.instance, &kernel[id].instance) {
                    assert_eq!(now.rules(), then.rules());
                    *now = then.clone();
                }
            }
            assert_eq!(now, kernel, "after {refused_step} was refused");
            assert_eq!(bench.pass().effects.total(), 0);
            steps += 1;
        }
        assert!(steps >= 10, "{steps} steps");
    }
}

#[test]
fn cwe_391_a_routers_failure_is_seen_retried_and_holds_up_no_other() {
    let mut bench = Bench::new();
    let batch = [create(1, 21), create(2, 21), create(3, 21)];
    let change = bench.decide(Origin::File, &batch).unwrap();
    bench.mapping.commit(&change);
    bench.kernel.refuse(|id, effect| match effect {
        Effect::Attach { .. } if id == router(2) => Err(refused(19)),
        _ => Ok(()),
    });
    let summary = bench.pass();
    assert_eq!((summary.active, summary.failed), (2, 1));
    assert_eq!(bench.in_force(3), [21], "the one behind it has its rules");
    assert_eq!(bench.in_force(2), [0_u16; 0], "and it has nothing half-way");

    let mut waits = Vec::new();
    for failures in 1..=9 {
        let trouble = &bench.reconciler.failures()[&router(2)];
        assert_eq!(trouble.failures, failures);
        assert!(matches!(trouble.error, ApplyError::Effect { .. }));
        waits.push((trouble.retry - bench.now).as_secs());
        // Not a moment earlier.
        let early = trouble.retry.checked_sub(Duration::from_millis(1));
        bench.now = early.unwrap();
        assert_eq!(bench.look().failed, 0);
        bench.now += Duration::from_millis(1);
        if failures < 9 {
            assert_eq!(bench.look().failed, 1);
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    bench.kernel.relent();
    let mended = bench.look();
    assert_eq!((mended.active, mended.failed), (1, 0));
    assert_eq!(bench.in_force(2), [21]);
    assert_eq!(bench.reconciler.next_look(), None);
}

#[test]
fn cwe_682_removing_is_confined_to_the_router_and_the_origin_named() {
    let mut bench = Bench::new();
    bench
        .ask(Origin::File, &[create(1, 21), create(2, 21)])
        .unwrap();
    bench.api(&[create(1, 22), create(2, 22)]);
    bench.ask(Origin::Neutron, &[create(1, 23)]).unwrap();
    bench.api(&[Operation::Clear(router(1))]);
    assert_eq!(bench.in_force(1), [21, 23]);
    assert_eq!(bench.in_force(2), [21, 22]);
    let mut rules = bench.mapping.of(router(2)).map(|entry| entry.rule);
    let of_file = rules.find(|rule| rule.origin == Origin::File).unwrap();
    drop(rules);
    let delete = Operation::Delete(of_file.id);
    let message = bench.ask(Origin::Api, &[delete]).unwrap_err();
    assert!(message.contains("belongs to file"), "{message}");
}

#[test]
fn cwe_691_empty_input_is_a_no_op() {
    let mut bench = Bench::with(&[create(1, 21)]);
    let (mapping, writes) = (bench.mapping.clone(), bench.kernel.writes());
    let nothing = Operation::Replace {
        router: router(3),
        rules: Vec::new(),
    };
    for batch in [&[][..], &[Operation::Clear(router(2))], &[nothing]] {
        assert_eq!(bench.ask(Origin::Api, batch), Ok(0));
    }
    assert_eq!(bench.mapping, mapping);
    assert_eq!(bench.kernel.writes(), writes);
    let none = apply(&mut bench.kernel, &mapping, &BTreeMap::new()).unwrap();
    assert_eq!(none, BTreeMap::new());
}

#[test]
fn cwe_697_presence_is_asked_and_just_what_is_missing_comes_back() {
    let mut bench = Bench::with(&[create(1, 21), create(1, 22), create(2, 21)]);
    let whole = bench.kernel.state();
    let writes = bench.kernel.writes();
    assert_eq!(bench.pass().effects.total(), 0, "nothing is wrong");
    assert_eq!(bench.kernel.writes(), writes, "so nothing is written");

    let name = format!("qrouter-{}", router(1));

    let damages: [(&str, Damage); _] = [
        ("no table", |namespace| namespace.binding = None),
        ("an edited table", |namespace| {
            namespace.binding = Some(BindingState::Different);
        }),
        ("no link", |namespace| {
            namespace.interfaces.get_mut(&2).unwrap().1 = false;
        }),
        ("another link", |namespace| {
            namespace.interfaces.get_mut(&3).unwrap().1 = false;
        }),
    ];
    for (what, damage) in damages {
        damage(bench.namespaces(1).get_mut(&name).unwrap());
        let effects = bench.pass().effects.total();
        assert_eq!(effects, 1, "{what}: one thing was missing");
        assert_eq!(bench.kernel.state(), whole, "{what}");
    }

    // An entry of the port table: one destination's leaf is emptied.
    let image = bench.kernel.router(router(1)).instance.clone().unwrap();
    let less = plan(&image, &Wanted::from([(target(1, 21).destination(), 1)])).unwrap();
    let image = bench.kernel.router(router(1)).instance.as_mut().unwrap();
    image.edit(&less);
    assert_eq!(bench.in_force(1), [21]);
    assert_eq!(bench.pass().effects.total(), 1);
    assert_eq!(bench.in_force(1), [21, 22]);

    // All of it at once, as after a reboot.
    bench.kernel.router(router(1)).instance = None;
    let namespace = bench.namespaces(1).get_mut(&name).unwrap();
    for (_, attached) in namespace.interfaces.values_mut() {
        *attached = false;
    }
    bench.pass();
    assert_eq!(bench.in_force(1), [21, 22]);
    assert_eq!(bench.in_force(2), [21]);
}

/// A change of a router that is as it should be looks at no more than its own
/// destinations; what else became of the router meanwhile is found soon after.
#[test]
fn cwe_697_a_change_in_part_is_followed_by_a_look_at_the_whole() {
    let mut bench = Bench::with(&[create(1, 21)]);
    let seen = bench.kernel.observations();
    let name = format!("qrouter-{}", router(1));
    bench.namespaces(1).get_mut(&name).unwrap().binding = None;

    bench.api(&[create(1, 22)]);
    assert_eq!(bench.in_force(1), [21, 22]);
    assert_eq!(bench.kernel.observations(), seen, "nothing else was asked");
    bench.now += Duration::from_millis(400);
    bench.api(&[create(1, 23)]);
    // More changes do not put it off.
    let due = bench.reconciler.next_look().unwrap();
    assert_eq!(due - bench.now, Duration::from_millis(100));
    bench.now = due;
    let summary = bench.look();
    let done = (summary.effects.total(), summary.active);
    assert_eq!(done, (1, 1), "the binding");
    assert_eq!(bench.kernel.observations(), seen + 1);
    assert_eq!(bench.reconciler.next_look(), None);
    assert_eq!(bench.pass().effects.total(), 0);
}

/// What can be told at a glance is told before the change is answered.
#[test]
fn cwe_697_a_change_on_a_router_that_went_away_is_pending() {
    let mut bench = Bench::with(&[create(1, 21)]);
    bench.namespaces(1).clear();
    bench.api(&[create(1, 22)]);
    assert_eq!(bench.in_force(1), [0_u16; 0], "there is nothing to have it");
    assert_eq!(bench.pass().pending, 1);
}

/// No name, number or content of what the agent makes follows from a router or
/// a rule: the same rules twice give two agents' tables that neither takes for
/// its own.
#[test]
fn cwe_707_nothing_of_ours_carries_a_tag_that_can_be_derived() {
    let ids: BTreeSet<_> = (0..1000).map(|_| AgentId::random()).collect();
    assert_eq!(ids.len(), 1000);
    let rules: BTreeSet<_> = (0..1000).map(|_| RuleId::random()).collect();
    assert_eq!(rules.len(), 1000);
}

/// The mapping is built of standard maps with stated invariants; a state that
/// breaks one can't be loaded.
#[test]
fn cwe_710_a_state_that_no_mapping_can_have_is_not_loaded() {
    let bench = Bench::with(&[create(1, 21), create(2, 22)]);
    let entries: Vec<_> = bench.mapping.entries().copied().collect();
    assert!(Mapping::from_entries(entries.clone()).is_ok());
    let mut same_id = entries.clone();
    same_id[1].rule.id = same_id[0].rule.id;
    assert!(Mapping::from_entries(same_id).is_err());
    let mut same_age = entries;
    same_age[1].age = same_age[0].age;
    assert!(Mapping::from_entries(same_age).is_err());
    assert!(Capacity::MAX.holds(Capacity::DEFAULT));
}
