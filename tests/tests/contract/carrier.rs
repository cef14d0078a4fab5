//! What carries helper marks, and how it changes.

use conntrack_agent::kernel::{BindingCarriers, BindingState, Carrier};

use super::{World, desired};

const MARK: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
const PRIORITY: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Priority));

/// What the instance uses, and what the one namespace's binding is.
fn state(world: &mut impl World) -> (Option<Carrier>, BindingState) {
    let observed = world.observe();
    (observed.carrier.present, observed.namespaces[0].binding)
}

pub(super) fn the_carrier_follows_nat(mut world: impl World) {
    let rules = desired([21]);
    world.reach(&rules);
    assert_eq!(state(&mut world), (Some(Carrier::Mark), MARK));
    world.set_nat(true);
    world.reach(&rules);
    assert_eq!(state(&mut world), (Some(Carrier::Priority), PRIORITY));
    world.assert_reached(&rules);
    assert!(
        world.observe().namespaces[0]
            .interfaces
            .iter()
            .all(|state| state.attached)
    );

    // A larger instance in its place, and a rebuilt program, use the same.
    world.reach(&desired(1..=200));
    assert_eq!(state(&mut world), (Some(Carrier::Priority), PRIORITY));
    world.rebuild_agent();
    world.reach(&desired(1..=200));
    assert_eq!(state(&mut world), (Some(Carrier::Priority), PRIORITY));

    world.set_nat(false);
    world.reach(&rules);
    assert_eq!(state(&mut world), (Some(Carrier::Mark), MARK));
    world.assert_reached(&rules);
    world.set_nat(true);
    world.reach(&desired([]));
    assert_eq!(world.observe().namespaces[0].binding, BindingState::Absent);
    world.reach(&rules);
    assert_eq!(
        state(&mut world),
        (Some(Carrier::Priority), PRIORITY),
        "from the beginning"
    );
    world.reach(&desired([]));
}

pub(super) fn a_change_of_carrier_can_be_undone_at_each_step(mut world: impl World) {
    let rules = desired([21]);
    world.reach(&rules);
    world.set_nat(true);
    let before = world.observe();
    let steps = conntrack_agent::reconcile::diff(&before, &rules).expect("a way there");
    assert!(steps.len() >= 3, "{steps:?}");
    for done in 1..=steps.len() {
        let undo: Vec<_> = steps[..done]
            .iter()
            .map(|step| world.run(step).expect("a step").expect("a step back"))
            .collect();
        for step in undo.iter().rev() {
            world.run(step).expect("a step back");
        }
        assert_eq!(world.observe(), before, "after {done} steps");
    }
    // Where it dies half-way, the next one goes on.
    for done in 1..=steps.len() {
        for step in &steps[..done] {
            world.run(step).expect("a step");
        }
        world.reach(&rules);
        assert_eq!(
            state(&mut world),
            (Some(Carrier::Priority), PRIORITY),
            "{done}"
        );
        world.set_nat(false);
        world.reach(&rules);
        assert_eq!(state(&mut world), (Some(Carrier::Mark), MARK), "{done}");
        world.set_nat(true);
    }
}
