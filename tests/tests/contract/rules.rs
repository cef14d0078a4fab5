//! Rules that are brought about, changed, undone, damaged and refused.

use aya::{maps::MapError, sys::SyscallError};
use conntrack_agent::{
    kernel::{BindingCarriers, BindingState, Carrier, Error},
    port_table::{Amendment, Capacity, Wanted, plan},
    reconcile::{Effect, InstanceState},
};
use conntrack_ebpf::abi::Slot;

use super::{Act, INTERFACES, World, desired, image, rules_of, tcp};

fn what_is_brought_about_is_observed(mut world: impl World) {
    let before = world.settle("at first", []);
    assert_eq!(before.instance, InstanceState::Absent);
    let [namespace] = &before.namespaces[..] else {
        panic!("one namespace: {before:?}");
    };
    assert_eq!(namespace.name, format!("qrouter-{}", world.kernel().1));
    assert_eq!(namespace.binding, BindingState::Absent);
    let interfaces = namespace.interfaces.iter().map(|state| {
        assert!(!state.attached && !state.pinned);
        let interface = &state.attachment.interface;
        (interface.index, interface.name.as_str())
    });
    assert_eq!(interfaces.collect::<Vec<_>>(), INTERFACES);

    let after = world.settle("two rules", [21, 2121]);
    let namespace = &after.namespaces[0];
    let reading = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
    assert_eq!(namespace.binding, reading);
    let mut interfaces = namespace.interfaces.iter();
    assert!(interfaces.all(|state| state.attached && state.pinned));
    assert!(after.dead_links.is_empty());

    world.settle("one rule", [21]);
    assert_eq!(world.settle("no rules", []), before);
}

fn what_is_undone_was_never_there(mut world: impl World) {
    for (what, before, wanted) in [
        ("the first rule", vec![], vec![21]),
        ("other rules", vec![21], vec![22, 23]),
    ] {
        world.reach(before);
        let effects = world.missing(wanted);
        world.assert_undone(what, &effects);
    }
}

fn a_larger_instance_has_the_same_rules(mut world: impl World) {
    world.reach([21]);
    let observed = world.settle("more rules", 1..=200);
    assert_eq!(image(&observed).capacity().slots, 256);
    let mut interfaces = observed.namespaces[0].interfaces.iter();
    assert!(interfaces.all(|state| state.attached));
}

fn just_what_somebody_took_away_comes_back(mut world: impl World) {
    let whole = world.settle("at first", [21]);
    for (what, change) in [
        ("an emptied map entry", Act::WriteSlot(1, Slot::default())),
        ("no table", Act::DeleteTable),
        ("an edited table", Act::EditTable),
        ("no link on 2", Act::DeleteLink(2)),
        ("no link on 3", Act::DeleteLink(3)),
    ] {
        world.change(change);
        let effects = world.missing([21]);
        assert_eq!(effects.len(), 1, "{what}: {effects:?}");
        assert_eq!(world.settle(what, [21]), whole, "{what}");
    }
}

/// E2BIG, for real where the kernel is: the maps are smaller than the write
/// wants, and nothing of a row of writes stays when one is refused.
fn a_write_beyond_the_maps_is_refused_whole(mut world: impl World) {
    let before = world.settle("at first", [21]);
    let slots = 1024;
    let large = image(&before).resized(Capacity { pages: 30, slots });
    let edit = plan(&large, &desired(1..=200)).unwrap();
    let error = world.run(&Effect::WriteTable(edit)).unwrap_err();
    let Error::Map { source, .. } = &error else {
        panic!("the map refused it: {error:?}");
    };
    let MapError::SyscallError(SyscallError { io_error, .. }) = &**source else {
        panic!("the kernel refused it: {error:?}");
    };
    let too_big = rustix::io::Errno::TOOBIG.raw_os_error();
    assert_eq!(io_error.raw_os_error(), Some(too_big), "{error:?}");
    assert_eq!(world.observe(), before);
}

/// Of what a router has for some destinations, as much is told as is needed to
/// change it, and nothing where the router is not as it was.
fn a_part_can_be_changed_without_the_whole(mut world: impl World) {
    fn amend(world: &mut impl World, amendment: &Amendment) -> Option<Effect> {
        let partial = world.partial(amendment).expect("a router as it was");
        let edit = partial.amend(amendment).unwrap();
        world.run(&Effect::WriteTable(edit)).unwrap()
    }
    let amendment = Amendment::from([
        (tcp(21), None),
        (tcp(22), Some(2)),
        (tcp(2121), Some(3)),
        (tcp(990), Some(4)),
    ]);
    assert_eq!(world.partial(&amendment), None, "there is no instance");
    let before = world.settle("at first", [21, 22, 69]);
    // Somebody else takes what was free when it was last looked at.
    let slot = Slot::new(tcp(9), 1);
    world.change(Act::WriteSlot(4, slot));

    let undo = amend(&mut world, &amendment).unwrap();
    let wanted = [(tcp(22), 2), (tcp(69), 1), (tcp(990), 4), (tcp(2121), 3)];
    let observed = world.observe();
    assert_eq!(rules_of(&observed), Wanted::from(wanted));
    let kept = image(&observed).slot_at(4);
    assert_eq!(kept, slot, "it is not ours to write over");
    world.run(&undo).unwrap();
    world.change(Act::WriteSlot(4, Slot::default()));
    assert_eq!(world.observe(), before);

    // Again and again, without an observation in between.
    for port in 1000..1100 {
        amend(
            &mut world,
            &[(tcp(port), Some(1)), (tcp(port - 1), None)].into(),
        );
    }
    assert_eq!(rules_of(&world.observe()), desired([21, 22, 69, 1099]));

    world.change(Act::DeleteInstance);
    assert_eq!(world.partial(&amendment), None, "its instance is gone");
    world.reach([21]);
    assert!(world.partial(&amendment).is_some());
    world.change(Act::RemoveNamespace);
    assert_eq!(world.partial(&amendment), None, "its namespace is gone");
}

on_both! {
    what_is_brought_about_is_observed
    what_is_undone_was_never_there
    a_larger_instance_has_the_same_rules
    just_what_somebody_took_away_comes_back
    a_write_beyond_the_maps_is_refused_whole
    a_part_can_be_changed_without_the_whole
}
