//! Computes the effects that lead from the observed to the desired state,
//! without touching the kernel.

mod carrier_switch;

use super::{Effect, InstanceState, InterfaceState, NamespaceState, Observed};
use crate::{
    kernel::{Attachment, BindingCarriers, BindingState, Carrier},
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
        for namespace in &observed.namespaces {
            presence(namespace, &mut effects);
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

fn presence(namespace: &NamespaceState, effects: &mut Vec<Effect>) {
    for interface in &namespace.interfaces {
        if interface.xdp.reachable().is_none() {
            without_xdp(&namespace.name, interface, effects);
        }
        ingress(&namespace.name, interface, effects);
        // The tc program must be there before the XDP program hands packets
        // over to it.
        with_xdp(&namespace.name, interface, effects);
    }
}

fn ingress(namespace: &str, interface: &InterfaceState, effects: &mut Vec<Effect>) {
    let (namespace, attachment) = (namespace.to_owned(), interface.attachment.clone());
    let inherited = interface.inherited.clone();
    match (interface.wanted, inherited) {
        (true, Some(from)) => effects.push(Effect::TakeOver {
            namespace,
            attachment,
            from,
        }),
        (true, None) if !interface.attached => effects.push(Effect::Attach {
            namespace,
            attachment,
        }),
        (true, None) => {}
        (false, inherited) => {
            effects.extend(inherited.map(Effect::ReapLink));
            if interface.pinned {
                effects.push(Effect::Detach {
                    namespace,
                    attachment,
                });
            }
        }
    }
}

fn with_xdp(namespace: &str, interface: &InterfaceState, effects: &mut Vec<Effect>) {
    let xdp = &interface.xdp;
    if let Some(mode) = xdp.reachable()
        && (!xdp.attached || xdp.inherited.is_some())
    {
        effects.push(Effect::AttachXdp {
            namespace: namespace.to_owned(),
            attachment: xdp_attachment(interface),
            mode,
            from: xdp.inherited.clone(),
        });
    }
}

fn without_xdp(namespace: &str, interface: &InterfaceState, effects: &mut Vec<Effect>) {
    effects.extend(interface.xdp.inherited.clone().map(Effect::ReapLink));
    if interface.xdp.pinned {
        effects.push(Effect::DetachXdp {
            namespace: namespace.to_owned(),
            attachment: xdp_attachment(interface),
        });
    }
}

fn xdp_attachment(interface: &InterfaceState) -> Attachment {
    Attachment {
        interface: interface.attachment.interface.clone(),
        pin: interface.xdp.pin.clone(),
    }
}

fn removal(observed: &Observed, effects: &mut Vec<Effect>) {
    for namespace in &observed.namespaces {
        for interface in &namespace.interfaces {
            without_xdp(&namespace.name, interface, effects);
        }
        let inherited = namespace.interfaces.iter();
        let inherited = inherited.filter_map(|state| state.inherited.clone());
        effects.extend(inherited.map(Effect::ReapLink));
        for interface in namespace.interfaces.iter().filter(|state| state.pinned) {
            effects.push(Effect::Detach {
                namespace: namespace.name.clone(),
                attachment: interface.attachment.clone(),
            });
        }
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
    use std::path::PathBuf;

    use super::*;
    use crate::{
        kernel::{Attachment, Interface, LinkKind},
        model::{Destination, Protocol},
        port_table::Image,
        reconcile::{CarrierState, InterfaceState, XdpState},
    };

    const CURRENT: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
    const BY_MARK: CarrierState = CarrierState {
        present: Some(Carrier::Mark),
        wanted: Carrier::Mark,
    };

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

    fn check(
        instance: InstanceState,
        namespaces: Vec<NamespaceState>,
        desired: &Desired,
        expected: &[&str],
    ) {
        let observed = Observed {
            instance,
            carrier: BY_MARK,
            namespaces,
            dead_links: vec![],
            has_predecessor: false,
        };
        let effects = diff(&observed, desired).unwrap();
        let effects: Vec<_> = effects.iter().map(ToString::to_string).collect();
        assert_eq!(effects, expected);
    }

    #[test]
    fn a_new_router_is_built_from_the_maps_up() {
        check(
            InstanceState::Absent,
            vec![namespace(BindingState::Absent, false)],
            &desired([21]),
            &[
                "load an instance of 15 pages, 32 slots",
                "3 writes to the port table",
                "install the binding in qrouter-1, which reads mark",
                "attach to qr-1 in qrouter-1",
            ],
        );
    }

    #[test]
    fn nothing_is_done_where_nothing_differs() {
        let rules = desired([21, 2121]);
        check(
            InstanceState::Current(image(&rules)),
            vec![namespace(CURRENT, true)],
            &rules,
            &[],
        );
        check(InstanceState::Absent, vec![], &desired([]), &[]);
        check(InstanceState::Absent, vec![], &rules, &[]);
        check(
            InstanceState::Absent,
            vec![namespace(BindingState::Absent, false)],
            &desired([]),
            &[],
        );
    }

    #[test]
    fn just_what_is_missing_comes_back() {
        let rules = desired([21]);
        let whole = InstanceState::Current(image(&rules));
        check(
            whole.clone(),
            vec![namespace(BindingState::Different, true)],
            &rules,
            &["install the binding in qrouter-1, which reads mark"],
        );
        check(
            whole,
            vec![namespace(CURRENT, false)],
            &rules,
            &["attach to qr-1 in qrouter-1"],
        );
        check(
            InstanceState::Current(Image::empty(Capacity::DEFAULT)),
            vec![namespace(CURRENT, true)],
            &rules,
            &["4 writes to the port table"],
        );
        check(
            InstanceState::Broken,
            vec![namespace(CURRENT, false)],
            &rules,
            &["rebuild a broken instance", "attach to qr-1 in qrouter-1"],
        );
    }

    #[test]
    fn a_router_without_rules_loses_everything_attachments_first() {
        check(
            InstanceState::Current(image(&desired([21]))),
            vec![namespace(CURRENT, true)],
            &desired([]),
            &[
                "detach from qr-1 in qrouter-1",
                "remove the binding from qrouter-1",
                "remove the instance",
            ],
        );
    }

    #[test]
    fn an_instance_that_is_outgrown_is_renewed_before_the_table_is_written() {
        let old = desired([21]);
        let new = desired(1..=64);
        check(
            InstanceState::Current(image(&old)),
            vec![namespace(CURRENT, true)],
            &new,
            &[
                "renew the instance with 15 pages, 128 slots",
                "127 writes to the port table",
            ],
        );
        check(
            InstanceState::Outdated(image(&old)),
            vec![namespace(CURRENT, true)],
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
        let again = ["attach to qr-1 in qrouter-1"];
        check(whole.clone(), vec![half.clone()], &rules, &again);
        let gone = ["detach from qr-1 in qrouter-1", "remove the instance"];
        half.binding = BindingState::Absent;
        check(whole, vec![half], &desired([]), &gone);
    }

    #[test]
    fn an_interface_that_is_not_wanted_is_detached_and_stays_so() {
        let rules = desired([21]);
        let whole = InstanceState::Current(image(&rules));
        for (attached, expected) in [(true, &["detach from qr-1 in qrouter-1"][..]), (false, &[])] {
            let mut unwanted = namespace(CURRENT, attached);
            unwanted.interfaces[0].wanted = false;
            check(whole.clone(), vec![unwanted], &rules, expected);
        }
    }

    #[test]
    fn an_older_abis_links_are_taken_over_and_its_rest_removed_last() {
        let rules = desired([21]);
        let mut inherited = namespace(CURRENT, false);
        inherited.interfaces[0].inherited = Some("/older/qrouter-1:2".into());
        let mut observed = Observed {
            instance: InstanceState::Absent,
            carrier: BY_MARK,
            namespaces: vec![inherited],
            dead_links: vec![],
            has_predecessor: true,
        };
        let said = |observed: &Observed, desired: &Desired| -> Vec<_> {
            let effects = diff(observed, desired).unwrap();
            assert!(effects.last().is_none_or(Effect::is_final));
            effects.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            said(&observed, &rules),
            [
                "load an instance of 15 pages, 32 slots",
                "3 writes to the port table",
                "take over the link on qr-1 in qrouter-1",
                "remove the older ABI's instance",
            ]
        );
        assert_eq!(
            said(&observed, &desired([])),
            [
                "reap the dead link /older/qrouter-1:2",
                "remove the binding from qrouter-1",
                "remove the older ABI's instance",
            ]
        );
        // Given the program, and not yet moved.
        observed.instance = InstanceState::Current(image(&rules));
        observed.namespaces[0].interfaces[0].attached = true;
        assert_eq!(
            said(&observed, &rules),
            [
                "take over the link on qr-1 in qrouter-1",
                "remove the older ABI's instance",
            ]
        );
        observed.namespaces.clear();
        assert_eq!(
            said(&observed, &rules),
            ["remove the instance", "remove the older ABI's instance"]
        );
    }

    #[test]
    fn dead_links_are_reaped() {
        let observed = Observed {
            instance: InstanceState::Absent,
            carrier: BY_MARK,
            namespaces: vec![],
            dead_links: vec![PathBuf::from("/links/gone:7")],
            has_predecessor: false,
        };
        let effects = diff(&observed, &desired([])).unwrap();
        assert_eq!(effects, [Effect::ReapLink("/links/gone:7".into())]);
    }
}
