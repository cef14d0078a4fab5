//! XDP in front of the tc program: where it is to be, what is in its way, and
//! that the router is served whatever becomes of it.

use conntrack_agent::{
    kernel::XdpMode::{self, Generic, Native},
    reconcile::{Desired, Effect, InstanceState, Kernel as _, Observed, Obstacle, XdpState, diff},
};

use super::{World, desired, rules};

fn xdp(observed: &Observed) -> Vec<XdpState> {
    let interfaces = observed.namespaces[0].interfaces.iter();
    interfaces.map(|state| state.xdp.clone()).collect()
}

/// What is missing, in words.
fn missing(world: &mut impl World, desired: &Desired) -> Vec<String> {
    let observed = world.observe();
    let effects = diff(&observed, desired).unwrap();
    effects.iter().map(ToString::to_string).collect()
}

fn assert_in_mode(world: &mut impl World, modes: [Option<XdpMode>; 2]) {
    for (state, mode) in xdp(&world.observe()).into_iter().zip(modes) {
        assert_eq!(state.wanted, mode, "{state:?}");
        assert_eq!(state.attached, mode.is_some(), "{state:?}");
        assert_eq!(state.pinned, mode.is_some(), "{state:?}");
        assert_eq!(state.obstacle, None, "{state:?}");
    }
}

pub(super) fn xdp_comes_behind_the_tc_program_and_goes_before_it(mut world: impl World) {
    world.classify_by_xdp(&[("qr-*", Native), ("q*", Generic)]);
    let said = missing(&mut world, &desired([21]));
    let name = world.observe().namespaces[0].name.clone();
    assert_eq!(
        said[3..],
        [
            format!("attach to qr-1 in {name}"),
            format!("attach native XDP to qr-1 in {name}"),
            format!("attach to qg-1 in {name}"),
            format!("attach generic XDP to qg-1 in {name}"),
        ]
    );
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [Some(Native), Some(Generic)]);
    let said = missing(&mut world, &desired([]));
    assert_eq!(
        said[..4],
        [
            format!("detach XDP from qr-1 in {name}"),
            format!("detach XDP from qg-1 in {name}"),
            format!("detach from qr-1 in {name}"),
            format!("detach from qg-1 in {name}"),
        ]
    );
    world.reach(&desired([]));
    world.assert_reached(&desired([]));
    let router = world.router();
    assert!(!world.kernel().routers().unwrap().contains(&router));
}

pub(super) fn xdp_that_is_undone_was_never_there(mut world: impl World) {
    world.classify_by_xdp(&[("*", Native)]);
    let before = world.observe();
    for effect in world.reach(&desired([21])) {
        world.run(&effect).unwrap();
    }
    assert_eq!(world.observe(), before);
    // And back, where a removal is taken back.
    world.reach(&desired([21]));
    let observed = world.observe();
    let effects = diff(&observed, &desired([])).unwrap();
    let back = effects.iter().filter(|effect| !effect.is_final());
    let back: Vec<_> = back.map(|effect| world.run(effect).unwrap()).collect();
    for effect in back.into_iter().rev().flatten() {
        world.run(&effect).unwrap();
    }
    assert_eq!(world.observe(), observed);
}

pub(super) fn xdp_comes_in_another_mode_and_goes_when_it_is_not_wanted(mut world: impl World) {
    world.reach(&desired([21]));
    world.classify_by_xdp(&[("qr-1", Native)]);
    let observed = world.observe();
    let InstanceState::Outdated(image) = &observed.instance else {
        panic!("it has no XDP program: {observed:?}");
    };
    assert_eq!(image.rules(), desired([21]));
    for (mode, other) in [
        (Native, Some(Native)),
        (Generic, None),
        (Native, Some(Generic)),
    ] {
        let mut entries = vec![("qr-1", mode)];
        entries.extend(other.map(|other| ("qg-1", other)));
        world.classify_by_xdp(&entries);
        world.reach(&desired([21]));
        world.assert_reached(&desired([21]));
        assert_in_mode(&mut world, [Some(mode), other]);
        assert_eq!(rules(&world.observe()), desired([21]));
    }
    world.classify_by_xdp(&[]);
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [None, None]);
    // It goes with the tc program, too.
    world.classify_by_xdp(&[("*", Native)]);
    world.reach(&desired([21]));
    world.classify(&["qg-*"]);
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_eq!(xdp(&world.observe()).len(), 1);
}

pub(super) fn anothers_xdp_program_stays_and_is_followed(mut world: impl World) {
    world.foreign_xdp(true);
    world.classify_by_xdp(&[("*", Native)]);
    world.reach(&desired([21]));
    // Nothing that is done again at each look.
    world.assert_reached(&desired([21]));
    let observed = world.observe();
    let [first, second] = &xdp(&observed)[..] else {
        panic!("two interfaces: {observed:?}");
    };
    assert_eq!(first.obstacle, Some(Obstacle::Foreign));
    assert!(!first.attached && !first.pinned);
    assert!(second.attached && second.obstacle.is_none());
    assert!(
        observed.namespaces[0]
            .interfaces
            .iter()
            .all(|state| state.attached)
    );
    world.reach(&desired([]));
    assert_eq!(xdp(&world.observe())[0].obstacle, Some(Obstacle::Foreign));
    world.reach(&desired([21]));
    world.foreign_xdp(false);
    let observed = world.observe();
    let [Effect::AttachXdp { .. }] = &diff(&observed, &desired([21])).unwrap()[..] else {
        panic!("the way is free: {observed:?}");
    };
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [Some(Native), Some(Native)]);
}

pub(super) fn an_xdp_link_that_somebody_took_away_comes_back(mut world: impl World) {
    world.classify_by_xdp(&[("*", Native)]);
    world.reach(&desired([21]));
    world.delete_xdp_link(2);
    let observed = world.observe();
    let [Effect::AttachXdp { attachment, .. }] = &diff(&observed, &desired([21])).unwrap()[..]
    else {
        panic!("just that: {observed:?}");
    };
    assert_eq!(attachment.interface.name, "qr-1");
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [Some(Native), Some(Native)]);
    // An interface that goes leaves the pins of both of its links.
    world.remove_interface(3);
    assert_eq!(world.observe().dead_links.len(), 2);
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    // A lost instance is made again, and every link runs its programs.
    world.delete_instance();
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert!(xdp(&world.observe())[0].attached);
}

pub(super) fn xdp_links_outlive_a_program_and_an_abi(mut world: impl World) {
    world.classify_by_xdp(&[("*", Native)]);
    world.reach(&desired([21]));
    world.rebuild_agent();
    let observed = world.observe();
    let [Effect::RenewInstance(_)] = &diff(&observed, &desired([21])).unwrap()[..] else {
        panic!("links follow by themselves: {observed:?}");
    };
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [Some(Native), Some(Native)]);
    world.reach(&desired(1..=200));
    world.assert_reached(&desired(1..=200));
    assert_in_mode(&mut world, [Some(Native), Some(Native)]);

    world.next_abi();
    let inherited = xdp(&world.observe());
    assert!(
        inherited
            .iter()
            .all(|state| state.inherited.is_some() && state.obstacle.is_none())
    );
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [Some(Native), Some(Native)]);
    assert!(!world.observe().has_predecessor);
    // And where it is not wanted any more.
    world.next_abi();
    world.classify_by_xdp(&[]);
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert_in_mode(&mut world, [None, None]);
}
