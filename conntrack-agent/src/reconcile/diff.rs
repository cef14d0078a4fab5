//! Computes the effects that lead from the observed to the desired state,
//! without touching the kernel.

mod carrier_switch;

use super::{Effect, InstanceState, InterfaceState, Observed};
use crate::{
    kernel::{BindingCarriers, BindingState, Carrier},
    port_table::{Capacity, TooManyRules, Wanted, fill, plan},
};

/// The desired state of a router: its port table, in each of its namespaces.
pub type Desired = Wanted;

/// The reason why the desired state can't be reached.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// There are more rules than an instance can hold.
    #[error(transparent)]
    TooManyRules(#[from] TooManyRules),
}

/// Returns the effects that turn `observed` into `desired`, in the order in
/// which they must happen; none where all is as it should be.
///
/// What is added is complete before the first packet meets it: maps, then the
/// binding, then the attachments. What is removed goes in reverse. A router
/// without rules, or without a namespace to have them in, has nothing at all.
///
/// # Errors
/// [`Unreachable`] if no effects lead there.
pub fn diff(observed: &Observed, desired: &Desired) -> Result<Vec<Effect>, Unreachable> {
    let mut effects: Vec<_> = observed
        .dead_links
        .iter()
        .cloned()
        .map(Effect::ReapLink)
        .collect();
    if desired.is_empty() || observed.namespaces.is_empty() {
        removal(observed, &mut effects);
    } else {
        let carrier = observed.carrier.wanted;
        instance(&observed.instance, desired, carrier, &mut effects)?;
        carrier_switch::before(observed, &mut effects);
        let namespaces = observed.namespaces.iter();
        for interface in namespaces.flat_map(|namespace| &namespace.interfaces) {
            presence(interface, &mut effects);
        }
        carrier_switch::after(observed, &mut effects);
    }
    if observed.has_predecessor {
        effects.push(Effect::RemovePredecessor);
    }
    Ok(effects)
}

fn instance(
    state: &InstanceState,
    desired: &Desired,
    carrier: Carrier,
    effects: &mut Vec<Effect>,
) -> Result<(), Unreachable> {
    let needed = Capacity::for_table(desired)?;
    let edit = match state {
        InstanceState::Absent => {
            effects.push(Effect::LoadInstance(needed, carrier));
            fill(needed, desired)
        }
        InstanceState::Broken => {
            effects.push(Effect::RebuildInstance(needed, desired.clone(), carrier));
            return Ok(());
        }
        InstanceState::Outdated(image) | InstanceState::Current(image) => {
            let present = image.capacity();
            let current = matches!(state, InstanceState::Current(_));
            if current && present.holds(needed) {
                plan(image, desired)
            } else {
                let capacity = present.or(needed);
                effects.push(Effect::RenewInstance(capacity));
                plan(&image.resized(capacity), desired)
            }
        }
    };
    let edit = edit.map_err(|_| TooManyRules {
        given: desired.len(),
    })?;
    if !edit.is_empty() {
        effects.push(Effect::WriteTable(edit));
    }
    Ok(())
}

fn presence(interface: &InterfaceState, effects: &mut Vec<Effect>) {
    let attachment = &interface.attachment;
    interface.xdp.before_tc(attachment, effects);
    match &interface.inherited {
        _ if !interface.wanted => absence(interface, effects),
        Some(from) => effects.push(Effect::TakeOver {
            attachment: attachment.clone(),
            from: from.clone(),
        }),
        None if interface.attached => {}
        None => effects.push(Effect::Attach(attachment.clone())),
    }
    interface.xdp.after_tc(attachment, effects);
}

fn absence(interface: &InterfaceState, effects: &mut Vec<Effect>) {
    effects.extend(interface.inherited.clone().map(Effect::ReapLink));
    if interface.pinned {
        effects.push(Effect::Detach(interface.attachment.clone()));
    }
}

fn removal(observed: &Observed, effects: &mut Vec<Effect>) {
    for namespace in &observed.namespaces {
        let interfaces = namespace.interfaces.iter();
        interfaces
            .clone()
            .for_each(|state| state.xdp.remove(&state.attachment, effects));
        interfaces.for_each(|state| absence(state, effects));
        let reads = match namespace.binding {
            BindingState::Absent => continue,
            BindingState::Reading(reads) => reads,
            BindingState::Different => BindingCarriers::Both,
        };
        effects.push(Effect::Unbind {
            namespace: namespace.name.clone(),
            reads,
        });
    }
    if observed.instance != InstanceState::Absent {
        effects.push(Effect::RemoveInstance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::{Attachment, Interface, LinkKind},
        model::{Destination, Protocol},
        port_table::Image,
        reconcile::{CarrierState, NamespaceState, XdpState},
    };

    const CURRENT: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
    const BY_MARK: CarrierState = CarrierState {
        present: Some(Carrier::Mark),
        wanted: Carrier::Mark,
    };

    const ATTACH: &str = "attach to qr-1 in qrouter-1";
    const DETACH: &str = "detach from qr-1 in qrouter-1";

    fn desired(ports: impl IntoIterator<Item = u16>) -> Desired {
        let destination = |port| Destination {
            protocol: Protocol::Tcp,
            port,
        };
        ports
            .into_iter()
            .map(|port| (destination(port), 1))
            .collect()
    }

    fn image(desired: &Desired) -> Image {
        let mut image = Image::empty(Capacity::DEFAULT);
        image.edit(&plan(&image, desired).unwrap());
        image
    }

    fn namespace(binding: BindingState, attached: bool) -> NamespaceState {
        NamespaceState {
            name: "qrouter-1".into(),
            binding,
            interfaces: vec![InterfaceState {
                attachment: Attachment {
                    namespace: "qrouter-1".into(),
                    interface: Interface {
                        index: 2,
                        name: "qr-1".into(),
                        kind: LinkKind::Ethernet,
                    },
                    pin: "/links/qrouter-1:2".into(),
                },
                wanted: true,
                attached,
                pinned: attached,
                inherited: None,
                xdp: XdpState::default(),
            }],
        }
    }

    fn observed(instance: InstanceState, namespaces: Vec<NamespaceState>) -> Observed {
        Observed {
            instance,
            carrier: BY_MARK,
            namespaces,
            dead_links: vec![],
            has_predecessor: false,
        }
    }

    fn effects(observed: &Observed, desired: &Desired) -> Vec<String> {
        let effects = diff(observed, desired).unwrap();
        effects.iter().map(ToString::to_string).collect()
    }

    fn check(
        instance: InstanceState,
        namespace: NamespaceState,
        desired: &Desired,
        expected: &[&str],
    ) {
        let observed = observed(instance, vec![namespace]);
        assert_eq!(effects(&observed, desired), expected);
    }

    #[test]
    fn a_new_router_is_built_from_the_maps_up() {
        check(
            InstanceState::Absent,
            namespace(BindingState::Absent, false),
            &desired([21]),
            &[
                "load an instance of 15 pages, 32 slots",
                "3 writes to the port table",
                "install the binding in qrouter-1, which reads mark",
                ATTACH,
            ],
        );
    }

    #[test]
    fn nothing_is_done_where_nothing_differs() {
        let rules = desired([21, 2121]);
        let current = InstanceState::Current(image(&rules));
        check(current, namespace(CURRENT, true), &rules, &[]);
        let absent = observed(InstanceState::Absent, vec![]);
        assert_eq!(effects(&absent, &desired([])), [""; 0]);
        assert_eq!(effects(&absent, &rules), [""; 0]);
        let bare = namespace(BindingState::Absent, false);
        check(InstanceState::Absent, bare, &desired([]), &[]);
    }

    #[test]
    fn just_what_is_missing_comes_back() {
        let rules = desired([21]);
        let whole = InstanceState::Current(image(&rules));
        let empty = InstanceState::Current(Image::empty(Capacity::DEFAULT));
        let bind = "install the binding in qrouter-1, which reads mark";
        let write = "4 writes to the port table";
        let rebuild = "rebuild a broken instance";
        let different = BindingState::Different;
        check(whole.clone(), namespace(different, true), &rules, &[bind]);
        check(whole, namespace(CURRENT, false), &rules, &[ATTACH]);
        check(empty, namespace(CURRENT, true), &rules, &[write]);
        let lost = namespace(CURRENT, false);
        check(InstanceState::Broken, lost, &rules, &[rebuild, ATTACH]);
    }

    #[test]
    fn a_router_without_rules_loses_everything_attachments_first() {
        let whole = InstanceState::Current(image(&desired([21])));
        let unbind = "remove the binding from qrouter-1";
        let all = [DETACH, unbind, "remove the instance"];
        check(whole, namespace(CURRENT, true), &desired([]), &all);
    }

    #[test]
    fn an_instance_that_is_outgrown_is_renewed_before_the_table_is_written() {
        let (old, new) = (desired([21]), desired(1..=64));
        check(
            InstanceState::Current(image(&old)),
            namespace(CURRENT, true),
            &new,
            &[
                "renew the instance with 15 pages, 128 slots",
                "127 writes to the port table",
            ],
        );
        check(
            InstanceState::Outdated(image(&old)),
            namespace(CURRENT, true),
            &old,
            &["renew the instance with 15 pages, 32 slots"],
        );
    }

    #[test]
    fn what_is_there_but_not_whole_is_attached_again() {
        let rules = desired([21]);
        let mut half = namespace(CURRENT, false);
        half.interfaces[0].pinned = true;
        let whole = InstanceState::Current(image(&rules));
        check(whole.clone(), half.clone(), &rules, &[ATTACH]);
        half.binding = BindingState::Absent;
        let gone = [DETACH, "remove the instance"];
        check(whole, half, &desired([]), &gone);
    }

    #[test]
    fn an_interface_that_is_not_wanted_is_detached_and_stays_so() {
        let rules = desired([21]);
        let whole = InstanceState::Current(image(&rules));
        for (attached, expected) in [(true, &[DETACH][..]), (false, &[])] {
            let mut unwanted = namespace(CURRENT, attached);
            unwanted.interfaces[0].wanted = false;
            check(whole.clone(), unwanted, &rules, expected);
        }
    }

    #[test]
    fn an_older_abis_links_are_taken_over_and_its_rest_removed_last() {
        const TAKE_OVER: &str = "take over the link on qr-1 in qrouter-1";
        const REST: &str = "remove the older ABI's instance";
        let rules = desired([21]);
        let mut inherited = namespace(CURRENT, false);
        inherited.interfaces[0].inherited = Some("/older/qrouter-1:2".into());
        let mut observed = observed(InstanceState::Absent, vec![inherited]);
        observed.has_predecessor = true;
        let check = |observed: &Observed, desired: &Desired, expected: &[&str]| {
            let last = diff(observed, desired).unwrap().pop();
            assert!(last.is_none_or(|effect| effect.is_final()));
            assert_eq!(effects(observed, desired), expected);
        };
        let new = [
            "load an instance of 15 pages, 32 slots",
            "3 writes to the port table",
            TAKE_OVER,
            REST,
        ];
        check(&observed, &rules, &new);
        let nothing = [
            "reap the dead link /older/qrouter-1:2",
            "remove the binding from qrouter-1",
            REST,
        ];
        check(&observed, &desired([]), &nothing);
        // Given the program, and not yet moved.
        observed.instance = InstanceState::Current(image(&rules));
        observed.namespaces[0].interfaces[0].attached = true;
        check(&observed, &rules, &[TAKE_OVER, REST]);
        observed.namespaces.clear();
        check(&observed, &rules, &["remove the instance", REST]);
    }

    #[test]
    fn dead_links_are_reaped() {
        let mut observed = observed(InstanceState::Absent, vec![]);
        observed.dead_links.push("/links/gone:7".into());
        let effects = diff(&observed, &desired([])).unwrap();
        assert_eq!(effects, [Effect::ReapLink("/links/gone:7".into())]);
    }
}
