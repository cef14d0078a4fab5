//! What carries helper marks, and how it changes.

use conntrack_agent::kernel::{
    BindingCarriers, BindingState,
    Carrier::{self, Mark, Priority},
};

use super::{Act, World};

/// Reaches these rules, and checks that the instance and the binding use the
/// carrier; without one, that there is no binding.
fn settle(world: &mut impl World, what: &str, ports: Vec<u16>, carrier: Option<Carrier>) {
    let observed = world.settle(what, ports);
    let namespace = &observed.namespaces[0];
    let binding = carrier.map_or(BindingState::Absent, |carrier| {
        BindingState::Reading(BindingCarriers::One(carrier))
    });
    let found = (observed.carrier.present, namespace.binding);
    assert_eq!(found, (carrier, binding), "{what}");
    let mut interfaces = namespace.interfaces.iter();
    let as_wanted = interfaces.all(|state| state.attached == carrier.is_some());
    assert!(as_wanted, "{what}: {observed:?}");
}

fn the_carrier_follows_nat(mut world: impl World) {
    let nat = |is_there| Some(Act::SetNat(is_there));
    #[rustfmt::skip]
    let rows = [
        ("without NAT", None, vec![21], Some(Mark)),
        ("with NAT", nat(true), vec![21], Some(Priority)),
        ("a larger instance in its place", None, (1..=200).collect(), Some(Priority)),
        ("a rebuilt program", Some(Act::Rebuild), (1..=200).collect(), Some(Priority)),
        ("without NAT again", nat(false), vec![21], Some(Mark)),
        ("without rules", nat(true), vec![], None),
        ("with NAT from the beginning", None, vec![21], Some(Priority)),
        ("without rules again", None, vec![], None),
    ];
    for (what, change, ports, carrier) in rows {
        if let Some(change) = change {
            world.change(change);
        }
        settle(&mut world, what, ports, carrier);
    }
}

fn a_change_of_carrier_can_be_undone_at_each_step(mut world: impl World) {
    world.reach([21]);
    world.change(Act::SetNat(true));
    let steps = world.missing([21]);
    assert!(steps.len() >= 3, "{steps:?}");
    for done in 1..=steps.len() {
        world.assert_undone(&format!("after {done} steps"), &steps[..done]);
    }
    // Where it dies half-way, the next one goes on.
    for done in 1..=steps.len() {
        for step in &steps[..done] {
            world.run(step).expect("a step");
        }
        let what = format!("after {done} steps");
        settle(&mut world, &what, vec![21], Some(Priority));
        world.change(Act::SetNat(false));
        settle(&mut world, &what, vec![21], Some(Mark));
        world.change(Act::SetNat(true));
    }
}

on_both! {
    the_carrier_follows_nat
    a_change_of_carrier_can_be_undone_at_each_step
}
