use std::{cell::Cell, rc::Rc};

use super::*;
use crate::{
    engine::Entry,
    model::{HelperRule, Origin, RuleId, RuleTarget},
    reconcile::Memory,
};

const MOMENT: Duration = Duration::from_millis(1);

fn world() -> (RouterId, Mapping, Memory) {
    let router: RouterId = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
    let rule = HelperRule {
        id: RuleId::random(),
        target: RuleTarget {
            router,
            port: 21.try_into().unwrap(),
            helper: crate::model::Helper::all().next().unwrap(),
        },
        origin: Origin::Api,
    };
    let mapping = Mapping::from_entries([Entry { rule, age: 0 }]).unwrap();
    let mut kernel = Memory::default();
    let namespaces = &mut kernel.router(router).namespaces;
    namespaces.entry(format!("qrouter-{router}")).or_default();
    (router, mapping, kernel)
}

#[test]
fn many_events_are_one_look_and_then_one_in_a_while() {
    let (router, mapping, mut kernel) = world();
    let mut reconciler = Reconciler::default();
    let start = Instant::now();
    let mut looks = 0;
    // An event a millisecond, for 200.
    for passed in 0..200 {
        let now = start + MOMENT * passed;
        reconciler.enqueue(router, now);
        looks += u32::from(
            reconciler
                .reconcile_next(&mut kernel, &mapping, now)
                .is_some(),
        );
    }
    assert_eq!(looks, 4, "at once, and then every 50 ms");
    let later = reconciler.next_look().unwrap();
    assert!(
        reconciler
            .reconcile_next(&mut kernel, &mapping, later)
            .is_some()
    );
    assert_eq!(reconciler.next_look(), None, "the last event had its look");
}

#[test]
fn events_hasten_the_first_retry_and_no_other() {
    let (router, mapping, mut kernel) = world();
    let mut reconciler = Reconciler::default();
    let fails = Rc::new(Cell::new(true));
    let will_fail = Rc::clone(&fails);
    kernel.refuse(move |_, _| {
        if will_fail.get() {
            Err(Error::Missing("luck"))
        } else {
            Ok(())
        }
    });
    let mut now = Instant::now();
    reconciler.enqueue(router, now);
    assert!(
        reconciler
            .reconcile_next(&mut kernel, &mapping, now)
            .is_some()
    );
    now += MOMENT;
    reconciler.enqueue(router, now);
    now = reconciler.next_look().unwrap();
    assert!(
        reconciler
            .reconcile_next(&mut kernel, &mapping, now)
            .is_some()
    );
    let trouble = &reconciler.failures()[&router];
    assert_eq!(trouble.failures, 2);
    let retry = trouble.retry;
    reconciler.enqueue(router, now + REST);
    assert_eq!(reconciler.next_look(), Some(retry), "not sooner");

    fails.set(false);
    assert!(
        reconciler
            .reconcile_next(&mut kernel, &mapping, retry)
            .is_some()
    );
    assert!(reconciler.failures().is_empty());
    reconciler.enqueue(router, retry + MOMENT);
    assert_eq!(
        reconciler.next_look(),
        Some(retry + REST),
        "and all is as before"
    );
}
