//! Computes the effects that switch a router to another carrier.
//!
//! A packet must never get its helper mark in a carrier that its binding doesn't
//! read. So while classifiers change from one carrier to the other, bindings read
//! both:
//!
//! ```text
//! binding    mark      both             priority
//! programs   mark      mark  priority   priority
//! ```

use crate::{
    kernel::{BindingCarriers, BindingState},
    reconcile::{Effect, InstanceState, InterfaceState, NamespaceState, Observed},
};

/// Adds the effects that have to come before programs change, or are attached to
/// an interface.
pub(super) fn before(observed: &Observed, effects: &mut Vec<Effect>) {
    for namespace in &observed.namespaces {
        let reads = if is_in_between(observed, namespace) {
            BindingCarriers::Both
        } else {
            BindingCarriers::One(observed.carrier.wanted)
        };
        bind(namespace, namespace.binding, reads, effects);
    }
    let (present, wanted) = (observed.carrier.present, observed.carrier.wanted);
    let can_carry = matches!(
        observed.instance,
        InstanceState::Current(_) | InstanceState::Outdated(_)
    );
    // An instance that is made new has the right carrier from the beginning.
    if can_carry && present != Some(wanted) {
        effects.push(Effect::SetCarrier {
            instead_of: present,
            carrier: wanted,
        });
    }
}

/// Adds the effects that have to wait until all programs are the wanted ones.
pub(super) fn after(observed: &Observed, effects: &mut Vec<Effect>) {
    for namespace in &observed.namespaces {
        if is_in_between(observed, namespace) {
            let both = BindingState::Reading(BindingCarriers::Both);
            let reads = BindingCarriers::One(observed.carrier.wanted);
            bind(namespace, both, reads, effects);
        }
    }
}

fn bind(
    namespace: &NamespaceState,
    instead_of: BindingState,
    reads: BindingCarriers,
    effects: &mut Vec<Effect>,
) {
    if instead_of != BindingState::Reading(reads) {
        effects.push(Effect::Bind {
            namespace: namespace.name.clone(),
            instead_of,
            reads,
        });
    }
}

/// Returns whether programs in the namespace may use another carrier than the
/// wanted one: those of the instance, or those of an instance that can't be read.
/// The carrier of the latter shows in its binding.
fn is_in_between(observed: &Observed, namespace: &NamespaceState) -> bool {
    let is_bound =
        namespace.binding == BindingState::Reading(BindingCarriers::One(observed.carrier.wanted));
    let mut interfaces = namespace.interfaces.iter();
    let runs_older = interfaces
        .clone()
        .any(|state: &InterfaceState| state.inherited.is_some());
    let runs = interfaces.any(|state| state.pinned);
    match observed.instance {
        InstanceState::Current(_) | InstanceState::Outdated(_) => {
            let differs = observed.carrier.present != Some(observed.carrier.wanted);
            (runs && differs) || (runs_older && !is_bound)
        }
        InstanceState::Absent | InstanceState::Broken => (runs || runs_older) && !is_bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::{Attachment, Carrier, Interface, LinkKind},
        port_table::{Capacity, Image},
        reconcile::{CarrierState, XdpState},
    };

    const MARK: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));
    const PRIORITY: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Priority));
    const BOTH: BindingState = BindingState::Reading(BindingCarriers::Both);

    /// A router that is to change to `priority`, or has changed.
    fn router(present: Option<Carrier>, bindings: &[BindingState]) -> Observed {
        let namespaces = bindings.iter().enumerate();
        Observed {
            instance: match present {
                Some(_) => InstanceState::Current(Image::empty(Capacity::DEFAULT)),
                None => InstanceState::Absent,
            },
            carrier: CarrierState {
                present,
                wanted: Carrier::Priority,
            },
            namespaces: namespaces
                .map(|(number, binding)| NamespaceState {
                    name: format!("ns-{number}"),
                    binding: *binding,
                    interfaces: vec![interface(present.is_some())],
                })
                .collect(),
            dead_links: vec![],
            has_predecessor: false,
        }
    }

    fn interface(pinned: bool) -> InterfaceState {
        InterfaceState {
            attachment: Attachment {
                namespace: "ns".into(),
                interface: Interface {
                    index: 2,
                    name: "qr-1".into(),
                    kind: LinkKind::Ethernet,
                },
                pin: "/links/2".into(),
            },
            wanted: true,
            attached: pinned,
            pinned,
            inherited: None,
            xdp: XdpState::default(),
        }
    }

    fn check(observed: &Observed, first: &[&str], last: &[&str]) {
        let said = |step: fn(&Observed, &mut Vec<Effect>)| -> Vec<_> {
            let mut effects = vec![];
            step(observed, &mut effects);
            effects.iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(before), first, "before");
        assert_eq!(said(after), last, "after");
    }

    const BY_BOTH: &str = "install the binding in ns-0, which reads mark and priority";
    const BY_PRIORITY: &str = "install the binding in ns-0, which reads priority";

    #[test]
    fn where_the_carrier_changes_bindings_read_both_meanwhile() {
        let observed = router(Some(Carrier::Mark), &[MARK, MARK]);
        check(
            &observed,
            &[
                BY_BOTH,
                "install the binding in ns-1, which reads mark and priority",
                "carry by priority",
            ],
            &[
                BY_PRIORITY,
                "install the binding in ns-1, which reads priority",
            ],
        );
    }

    #[test]
    fn wherever_it_stopped_it_goes_on() {
        let half = router(Some(Carrier::Mark), &[BOTH]);
        check(&half, &["carry by priority"], &[BY_PRIORITY]);
        let nearly = router(Some(Carrier::Priority), &[BOTH]);
        check(&nearly, &[BY_PRIORITY], &[]);
        let done = router(Some(Carrier::Priority), &[PRIORITY]);
        check(&done, &[], &[]);
    }

    #[test]
    fn where_nothing_runs_nothing_has_to_be_bridged() {
        check(&router(None, &[BindingState::Absent]), &[BY_PRIORITY], &[]);
        check(&router(None, &[MARK]), &[BY_PRIORITY], &[]);
        let mut bare = router(Some(Carrier::Mark), &[MARK]);
        bare.namespaces[0].interfaces.clear();
        check(&bare, &[BY_PRIORITY, "carry by priority"], &[]);
    }

    #[test]
    fn a_carrier_that_is_none_is_written_anew() {
        let mut damaged = router(Some(Carrier::Mark), &[PRIORITY]);
        damaged.carrier.present = None;
        check(&damaged, &[BY_BOTH, "carry by priority"], &[BY_PRIORITY]);
    }

    #[test]
    fn what_an_older_abi_left_may_use_what_its_binding_reads() {
        let mut inherited = router(None, &[MARK]);
        inherited.namespaces[0].interfaces[0].inherited = Some("/older/2".into());
        check(&inherited, &[BY_BOTH], &[BY_PRIORITY]);
        inherited.namespaces[0].binding = PRIORITY;
        check(&inherited, &[], &[]);
        // The new instance is there, and not all links run it.
        inherited.instance = InstanceState::Current(Image::empty(Capacity::DEFAULT));
        inherited.carrier.present = Some(Carrier::Priority);
        inherited.namespaces[0].binding = BOTH;
        check(&inherited, &[], &[BY_PRIORITY]);
    }
}
