//! Interfaces and namespaces that are classified, and that go.

use conntrack_agent::{
    kernel::Error,
    reconcile::{Effect, Observed},
};

use super::{Act, World};

/// The names of the interfaces, which must all be classified as wanted, or all be
/// left over.
fn names(observed: &Observed, wanted: bool) -> Vec<&str> {
    let interfaces = observed.namespaces[0].interfaces.iter();
    let such = interfaces.filter(|state| state.pinned && state.wanted == wanted);
    such.map(|state| state.attachment.interface.name.as_str())
        .collect()
}

fn the_interfaces_that_are_wanted_are_classified_and_no_others(mut world: impl World) {
    use Act::{Classify, RenameInterface};
    #[rustfmt::skip]
    let rows: [(_, _, &[_], &[_]); 5] = [
        ("one", Classify(&["qr-*"]), &[], &["qr-1"]),
        ("both", Classify(&["q[rg]-*", "x"]), &[], &["qr-1", "qg-1"]),
        // One that is renamed is another; what it had of ours is not left there.
        ("renamed", RenameInterface(2, "other"), &["other"], &["qg-1"]),
        ("none", Classify(&["nothing"]), &["qg-1"], &[]),
        ("all", Classify(&["*"]), &[], &["other", "qg-1"]),
    ];
    for (what, change, left_over, classified) in rows {
        world.change(change);
        assert_eq!(names(&world.observe(), false), left_over, "{what}");
        let observed = world.settle(what, [21]);
        assert_eq!(names(&observed, true), classified, "{what}");
        let interfaces = &observed.namespaces[0].interfaces;
        assert_eq!(interfaces.len(), classified.len(), "{what}: {observed:?}");
        assert!(interfaces.iter().all(|state| state.attached), "{what}");
    }
}

fn an_interface_that_goes_leaves_a_dead_link(mut world: impl World) {
    world.reach([21]);
    world.change(Act::RemoveInterface(3));
    let observed = world.observe();
    assert_eq!(observed.dead_links.len(), 1);
    assert_eq!(observed.namespaces[0].interfaces.len(), 1);
    assert!(world.settle("reaped", [21]).dead_links.is_empty());
}

/// ENODEV, for real where the kernel is.
fn an_interface_that_goes_half_way_is_an_error_and_changes_nothing(mut world: impl World) {
    world.reach([21]);
    world.change(Act::DeleteLink(3));
    let effects = world.missing([21]);
    world.change(Act::RemoveInterface(3));
    let [attach @ Effect::Attach { .. }] = &effects[..] else {
        panic!("one attachment is missing: {effects:?}");
    };
    let error = world.run(attach).unwrap_err();
    assert!(matches!(error, Error::InterfaceGone { .. }), "{error:?}");
    assert_eq!(world.missing([21]), []);
}

fn a_namespace_that_goes_leaves_pins_to_reap(mut world: impl World) {
    world.reach([21]);
    world.change(Act::RemoveNamespace);
    let observed = world.observe();
    assert_eq!(observed.namespaces, []);
    assert_eq!(observed.dead_links.len(), 2);
    world.settle("reaped", [21]);
}

on_both! {
    the_interfaces_that_are_wanted_are_classified_and_no_others
    an_interface_that_goes_leaves_a_dead_link
    an_interface_that_goes_half_way_is_an_error_and_changes_nothing
    a_namespace_that_goes_leaves_pins_to_reap
}
