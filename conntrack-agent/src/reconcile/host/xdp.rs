//! Decides where an XDP program is wanted and can be attached.
//!
//! XDP is never a reason for a router to fail: without it the tc program itself
//! finds what would have been handed over.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{Host, renewal::rename};
use crate::{
    kernel::{Attachment, Error, Ingress, Netns, XdpMode, XdpOutcome, XdpPin, XdpProgram},
    model::RouterId,
    reconcile::{Observed, Obstacle, XdpState},
};

/// The notices about interfaces that can't have XDP, by router and pin. A refusal
/// by the kernel is noted with the state of the interface: until that changes the
/// kernel is not asked again, for each look would be an attempt.
pub(super) type Obstacles = BTreeMap<RouterId, BTreeMap<PathBuf, XdpNotice>>;

/// A notice about one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XdpNotice {
    /// Another owner's program is on it.
    Foreign,
    /// The kernel refused this attempt.
    Refused(Attempt),
}

/// An attempt to attach, as far as a driver's answer may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    mode: XdpMode,
    mtu: u32,
}

impl Host {
    /// Returns the XDP state of an interface. XDP is wanted only where the tc
    /// program is wanted too.
    pub(super) fn look_at_xdp(
        &self,
        router: RouterId,
        netns: &Netns,
        ingress: &Ingress,
        is_classified: bool,
        program: Option<u32>,
    ) -> XdpState {
        let (index, name) = (ingress.interface.index, &ingress.interface.name);
        let path = self.pins.xdp_link(router, netns.name(), index);
        let (pin, there) = (XdpPin::at(&path), ingress.xdp);
        let wanted = self.xdp.mode_of(name).filter(|_| is_classified);
        let is_ours = pin.is_of(there, index);
        // A link whose pin was removed is still the agent's.
        let is_stray = |there: XdpProgram| {
            Some(there.id) == program || self.pinned_links.holds(router, &path, index)
        };
        let was_refused = |mode| {
            let attempt = Attempt {
                mode,
                mtu: ingress.mtu,
            };
            let said = self.obstacles.get(&router).and_then(|said| said.get(&path));
            said == Some(&XdpNotice::Refused(attempt))
        };
        let obstacle = match (wanted, there) {
            (Some(_), Some(there)) if !is_ours && !is_stray(there) => Some(Obstacle::Foreign),
            (Some(mode), None) if was_refused(mode) => Some(Obstacle::Refused),
            _ => None,
        };
        XdpState {
            wanted,
            obstacle,
            attached: is_ours
                && there.is_some_and(|there| {
                    Some(there.id) == program && there.mode.is_some() && there.mode == wanted
                }),
            pinned: pin != XdpPin::Absent,
            inherited: None,
            pin: path,
        }
    }

    /// Logs once which interfaces can't have XDP, and forgets those that can.
    pub(super) fn note_obstacles(&mut self, router: RouterId, observed: &Observed) {
        let before = self.obstacles.remove(&router).unwrap_or_default();
        let mut now = BTreeMap::new();
        for namespace in &observed.namespaces {
            for state in &namespace.interfaces {
                let pin = &state.xdp.pin;
                let said = match (state.xdp.obstacle, before.get(pin)) {
                    (None, _) | (Some(Obstacle::Refused), None) => continue,
                    // This was logged when the kernel refused.
                    (Some(Obstacle::Refused), Some(said)) => *said,
                    (Some(Obstacle::Foreign), before) => {
                        if before != Some(&XdpNotice::Foreign) {
                            warn!(%router, namespace = namespace.name,
                                interface = state.attachment.interface.name,
                                "another XDP program is on the interface and stays: \
                                 its traffic is classified by tc alone");
                        }
                        XdpNotice::Foreign
                    }
                };
                now.insert(pin.clone(), said);
            }
        }
        if !now.is_empty() {
            self.obstacles.insert(router, now);
        }
    }

    /// Attaches the XDP program. Returns whether the interface has it now and had
    /// nothing of the agent's before.
    pub(super) fn attach_xdp(
        &mut self,
        router: RouterId,
        namespace: &str,
        attachment: &Attachment,
        mode: XdpMode,
        from: Option<&Path>,
    ) -> Result<bool, Error> {
        self.pins.prepare_xdp_links(router)?;
        let (pin, interface) = (&attachment.pin, &attachment.interface);
        if let Some(from) = from {
            rename(from, pin)?;
        }
        // The link may still exist without a pin.
        if XdpPin::at(pin) == XdpPin::Absent {
            self.pinned_links.restore(router, pin, interface.index)?;
        }
        let (outcome, mtu) = self.with_instance(router, |host, instance| {
            let netns = host.netns(router, namespace)?;
            host.hooks.attach_xdp(mode, netns, attachment, instance)
        })?;
        match outcome {
            XdpOutcome::Attached => Ok(true),
            XdpOutcome::Replaced => Ok(false),
            XdpOutcome::Refused(error) => {
                warn!(%router, namespace, interface = interface.name, %error,
                    "the interface can't have XDP in this mode: \
                     its traffic is classified by tc alone");
                // The next look will find another owner's program there, or it
                // will be gone by then.
                if error.kind() != io::ErrorKind::ResourceBusy {
                    let said = XdpNotice::Refused(Attempt { mode, mtu });
                    let of_router = self.obstacles.entry(router).or_default();
                    of_router.insert(pin.clone(), said);
                }
                self.pins.tidy(router)?;
                Ok(false)
            }
        }
    }
}
