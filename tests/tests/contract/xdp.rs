//! XDP in front of the tc program: where it is to be, what is in its way, and
//! that the router is served whatever becomes of it.

use conntrack_agent::{
    kernel::XdpMode::{self, Generic, Native},
    reconcile::{Effect, InstanceState, Observed, Obstacle, XdpEffect, XdpState},
};

use super::{Act, World, desired, kinds};

const NATIVE: Act = Act::ClassifyByXdp(&[("*", Native)]);

fn xdp(observed: &Observed) -> Vec<XdpState> {
    let interfaces = observed.namespaces[0].interfaces.iter();
    interfaces.map(|state| state.xdp.clone()).collect()
}

/// Reaches these rules, and checks that the interfaces have the XDP program in
/// these modes.
fn settle(
    world: &mut impl World,
    what: &str,
    ports: impl IntoIterator<Item = u16>,
    modes: [Option<XdpMode>; 2],
) {
    let observed = world.settle(what, ports);
    for (state, mode) in xdp(&observed).into_iter().zip(modes) {
        let wanted = XdpState {
            wanted: mode,
            attached: mode.is_some(),
            pinned: mode.is_some(),
            obstacle: None,
            ..state.clone()
        };
        assert_eq!(state, wanted, "{what}");
    }
}

fn xdp_comes_behind_the_tc_program_and_goes_before_it(mut world: impl World) {
    world.change(Act::ClassifyByXdp(&[("qr-*", Native), ("q*", Generic)]));
    let name = world.observe().namespaces[0].name.clone();
    let assert_missing = |effects: &[Effect], wanted: [&str; 4]| {
        let texts: Vec<_> = effects.iter().map(ToString::to_string).collect();
        assert_eq!(texts, wanted.map(|text| format!("{text} in {name}")));
    };
    #[rustfmt::skip]
    assert_missing(
        &world.missing([21])[3..],
        ["attach to qr-1", "attach native XDP to qr-1", "attach to qg-1", "attach generic XDP to qg-1"],
    );
    settle(&mut world, "rules", [21], [Some(Native), Some(Generic)]);
    #[rustfmt::skip]
    assert_missing(
        &world.missing([])[..4],
        ["detach XDP from qr-1", "detach XDP from qg-1", "detach from qr-1", "detach from qg-1"],
    );
    world.settle("no rules", []);
}

fn xdp_that_is_undone_was_never_there(mut world: impl World) {
    world.change(NATIVE);
    let effects = world.missing([21]);
    world.assert_undone("an attachment", &effects);
    world.reach([21]);
    let effects = world.missing([]);
    world.assert_undone("a removal", &effects);
}

fn xdp_comes_in_another_mode_and_goes_when_it_is_not_wanted(mut world: impl World) {
    world.reach([21]);
    world.change(Act::ClassifyByXdp(&[("qr-1", Native)]));
    let observed = world.observe();
    let InstanceState::Outdated(image) = &observed.instance else {
        panic!("it has no XDP program: {observed:?}");
    };
    assert_eq!(image.rules(), desired([21]));
    #[rustfmt::skip]
    let rows: [(_, &[_], _); 4] = [
        ("native", &[("qr-1", Native), ("qg-1", Native)], [Some(Native), Some(Native)]),
        ("generic", &[("qr-1", Generic)], [Some(Generic), None]),
        ("both", &[("qr-1", Native), ("qg-1", Generic)], [Some(Native), Some(Generic)]),
        ("not wanted", &[], [None, None]),
    ];
    for (what, entries, modes) in rows {
        world.change(Act::ClassifyByXdp(entries));
        settle(&mut world, what, [21], modes);
    }
    // It goes with the tc program, too.
    world.change(NATIVE);
    world.reach([21]);
    world.change(Act::Classify(&["qg-*"]));
    assert_eq!(xdp(&world.settle("one interface", [21])).len(), 1);
}

fn anothers_xdp_program_stays_and_is_followed(mut world: impl World) {
    world.change(Act::SetForeignXdp(true));
    world.change(NATIVE);
    // With nothing that is done again at each look.
    let observed = world.settle("beside another's", [21]);
    let [first, second] = &xdp(&observed)[..] else {
        panic!("two interfaces: {observed:?}");
    };
    assert_eq!(first.obstacle, Some(Obstacle::Foreign));
    assert!(!first.attached && !first.pinned);
    assert!(second.attached && second.obstacle.is_none());
    let mut interfaces = observed.namespaces[0].interfaces.iter();
    assert!(interfaces.all(|state| state.attached));
    let observed = world.settle("without rules", []);
    assert_eq!(xdp(&observed)[0].obstacle, Some(Obstacle::Foreign));
    world.reach([21]);
    world.change(Act::SetForeignXdp(false));
    assert_eq!(
        kinds(&world.missing([21])),
        ["XdpAttach"],
        "the way is free"
    );
    settle(&mut world, "followed", [21], [Some(Native); 2]);
}

fn an_xdp_link_that_somebody_took_away_comes_back(mut world: impl World) {
    world.change(NATIVE);
    world.reach([21]);
    world.change(Act::DeleteXdpLink(2));
    let effects = world.missing([21]);
    let [Effect::Xdp(XdpEffect::Attach { attachment, .. })] = &effects[..] else {
        panic!("just that: {effects:?}");
    };
    assert_eq!(attachment.interface.name, "qr-1");
    settle(&mut world, "back", [21], [Some(Native); 2]);
    // An interface that goes leaves the pins of both of its links.
    world.change(Act::RemoveInterface(3));
    assert_eq!(world.observe().dead_links.len(), 2);
    world.settle("reaped", [21]);
    // A lost instance is made again, and every link runs its programs.
    world.change(Act::DeleteInstance);
    assert!(xdp(&world.settle("another instance", [21]))[0].attached);
}

fn xdp_links_outlive_a_program_and_an_abi(mut world: impl World) {
    world.change(NATIVE);
    world.reach([21]);
    world.change(Act::Rebuild);
    let effects = kinds(&world.missing([21]));
    assert_eq!(effects, ["RenewInstance"], "links follow by themselves");
    settle(&mut world, "a rebuilt program", [21], [Some(Native); 2]);
    settle(&mut world, "more rules", 1..=200, [Some(Native); 2]);
    world.change(Act::NextAbi);
    let mut inherited = xdp(&world.observe()).into_iter();
    assert!(inherited.all(|state| state.inherited.is_some() && state.obstacle.is_none()));
    settle(&mut world, "another ABI", [21], [Some(Native); 2]);
    assert!(!world.observe().has_predecessor);
    world.change(Act::NextAbi);
    world.change(Act::ClassifyByXdp(&[]));
    settle(&mut world, "an ABI that doesn't want it", [21], [None; 2]);
}

on_both! {
    xdp_comes_behind_the_tc_program_and_goes_before_it
    xdp_that_is_undone_was_never_there
    xdp_comes_in_another_mode_and_goes_when_it_is_not_wanted
    anothers_xdp_program_stays_and_is_followed
    an_xdp_link_that_somebody_took_away_comes_back
    xdp_links_outlive_a_program_and_an_abi
}
