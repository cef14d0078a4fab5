//! Another program, and another ABI, in the place of what an agent has left.

use conntrack_agent::{port_table::Amendment, reconcile::InstanceState};

use super::{Act, World, desired, kinds};

fn another_program_takes_the_place_of_one(mut world: impl World) {
    let before = world.settle("at first", [21, 22]);
    world.change(Act::Rebuild);
    let observed = world.observe();
    let InstanceState::Outdated(image) = &observed.instance else {
        panic!("it is another program: {observed:?}");
    };
    assert_eq!(image.rules(), desired([21, 22]));
    assert_eq!(world.partial(&Amendment::new()), None, "all of it is due");
    assert_eq!(kinds(&world.missing([21, 22])), ["RenewInstance"]);
    assert_eq!(world.settle("the same rules", [21, 22]), before);
    for (what, ports) in [
        ("other rules", vec![22, 23]),
        ("more rules than fit", (1..=200).collect()),
        ("no rules", vec![]),
    ] {
        world.change(Act::Rebuild);
        world.settle(what, ports);
    }
}

fn another_abi_takes_over_and_leaves_nothing_of_the_one_before(mut world: impl World) {
    let before = world.settle("at first", [21]);
    world.change(Act::NextAbi);
    assert!(world.is_known());
    let observed = world.observe();
    assert!(observed.has_predecessor);
    assert_eq!(observed.instance, InstanceState::Absent);
    assert!(observed.dead_links.is_empty());
    let filled = ["LoadInstance", "WriteTable"];
    let taken = ["TakeOver", "TakeOver", "RemovePredecessor"];
    let effects = kinds(&world.missing([21]));
    assert_eq!(
        effects,
        [&filled[..], &taken].concat(),
        "filled first, removed last"
    );

    let after = world.settle("the same rules", [21]);
    assert!(!after.has_predecessor);
    assert_eq!(after.instance, before.instance);
    for state in &after.namespaces[0].interfaces {
        let is_taken = state.attached && state.pinned && state.inherited.is_none();
        assert!(is_taken, "{after:?}");
    }
    for (what, ports) in [("other rules", vec![22, 23]), ("no rules", vec![])] {
        world.change(Act::NextAbi);
        world.settle(what, ports);
    }
}

/// Each effect of a takeover can be the last one before the agent dies.
fn a_takeover_that_stops_anywhere_goes_on(mut world: impl World) {
    world.reach([21]);
    for done in 0..5 {
        world.change(Act::NextAbi);
        let effects = world.missing([21]);
        assert_eq!(effects.len(), 5);
        for effect in &effects[..done] {
            world.run(effect).unwrap();
        }
        world.settle(&format!("after {done} effects"), [21, 22]);
        world.reach([21]);
    }
}

fn an_older_links_interface_that_goes_leaves_a_dead_link(mut world: impl World) {
    world.reach([21]);
    world.change(Act::NextAbi);
    world.change(Act::RemoveInterface(3));
    let observed = world.observe();
    let mut interfaces = observed.namespaces[0].interfaces.iter();
    assert!(interfaces.all(|state| state.inherited.is_some()));
    assert!(!world.settle("taken over", [21]).has_predecessor);
}

on_both! {
    another_program_takes_the_place_of_one
    another_abi_takes_over_and_leaves_nothing_of_the_one_before
    a_takeover_that_stops_anywhere_goes_on
    an_older_links_interface_that_goes_leaves_a_dead_link
}
