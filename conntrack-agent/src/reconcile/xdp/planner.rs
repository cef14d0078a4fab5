//! Decides where an XDP program is wanted and can be attached, and attaches it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{Obstacle, XdpState};
use crate::{
    config::XdpInterfaces,
    kernel::{
        Attachment, Error, Ingress, Instance, Netns, PinnedLinks, Pins, XdpClassifier, XdpMode,
        XdpOutcome, XdpPin, XdpProgram,
    },
    model::RouterId,
    reconcile::Observed,
};

/// The planner: the interfaces that should have XDP, and those that can't have it.
pub(in crate::reconcile) struct XdpPlanner {
    interfaces: XdpInterfaces,
    pins: Pins,
    pinned_links: Arc<PinnedLinks>,
    /// The notices about interfaces that can't have XDP, by router and pin. A refusal
    /// by the kernel is noted with the state of the interface: until that changes the
    /// kernel is not asked again, for each look would be an attempt.
    notices: BTreeMap<RouterId, BTreeMap<PathBuf, Notice>>,
}

/// A notice about one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Another owner's program is on it.
    Foreign,
    /// The kernel refused an attempt in this mode while the interface had this MTU, as
    /// far as a driver's answer may depend on it.
    Refused { mode: XdpMode, mtu: u32 },
}

impl XdpPlanner {
    pub(in crate::reconcile) const fn new(
        interfaces: XdpInterfaces,
        pins: Pins,
        pinned_links: Arc<PinnedLinks>,
    ) -> Self {
        Self {
            interfaces,
            pins,
            pinned_links,
            notices: BTreeMap::new(),
        }
    }

    /// Returns the XDP state of an interface. XDP is wanted only where the tc
    /// program is wanted too.
    pub(in crate::reconcile) fn observe(
        &self,
        router: RouterId,
        netns: &Netns,
        ingress: &Ingress,
        is_classified: bool,
        instance: Option<&Instance>,
    ) -> XdpState {
        let program = instance.and_then(Instance::xdp).map(XdpClassifier::id);
        let (index, name) = (ingress.interface.index, &ingress.interface.name);
        let path = self.pins.xdp_link(router, netns.name(), index);
        let (pin, there) = (XdpPin::at(&path), ingress.xdp);
        let wanted = self.interfaces.mode_of(name).filter(|_| is_classified);
        let is_ours = pin.is_of(there, index);
        // A link whose pin was removed is still the agent's.
        let is_stray = |there: XdpProgram| {
            Some(there.id) == program || self.pinned_links.holds(router, &path, index)
        };
        let was_refused = |mode| {
            let refused = Notice::Refused {
                mode,
                mtu: ingress.mtu,
            };
            let notices = self.notices.get(&router);
            notices.and_then(|notices| notices.get(&path)) == Some(&refused)
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
    pub(in crate::reconcile) fn note(&mut self, router: RouterId, observed: &Observed) {
        let before = self.notices.remove(&router).unwrap_or_default();
        let mut now = BTreeMap::new();
        let interfaces = observed.namespaces.iter().flat_map(|of| &of.interfaces);
        for state in interfaces {
            let pin = &state.xdp.pin;
            let notice = match (state.xdp.obstacle, before.get(pin)) {
                (None, _) | (Some(Obstacle::Refused), None) => continue,
                // This was logged when the kernel refused.
                (Some(Obstacle::Refused), Some(notice)) => *notice,
                (Some(Obstacle::Foreign), before) => {
                    if before != Some(&Notice::Foreign) {
                        warn!(%router, namespace = state.attachment.namespace,
                            interface = state.attachment.interface.name,
                            "another XDP program is on the interface and stays: \
                             its traffic is classified by tc alone");
                    }
                    Notice::Foreign
                }
            };
            now.insert(pin.clone(), notice);
        }
        if !now.is_empty() {
            self.notices.insert(router, now);
        }
    }

    /// Attaches the instance's XDP program; a link that an agent with an older ABI
    /// has pinned at `from` is used for it. Also returns the interface's MTU.
    pub(in crate::reconcile) fn attach(
        &self,
        router: RouterId,
        netns: &Netns,
        instance: &Instance,
        attachment: &Attachment,
        (mode, from): (XdpMode, Option<&Path>),
    ) -> Result<(XdpOutcome, u32), Error> {
        let program = instance.xdp();
        let program = program.ok_or(Error::Missing("XDP program in the instance"))?;
        self.pins.prepare_xdp_links(router)?;
        let pin = &attachment.pin;
        if let Some(from) = from {
            fs::rename(from, pin).map_err(Error::file(from, "renamed"))?;
        }
        // The link may still exist without a pin.
        if XdpPin::at(pin) == XdpPin::Absent {
            let index = attachment.interface.index;
            self.pinned_links.restore(router, pin, index)?;
        }
        program.attach(mode, netns, attachment)
    }

    /// Notes what came of an attempt to attach. Returns whether the interface has the
    /// program now and had nothing of the agent's before.
    pub(in crate::reconcile) fn note_attempt(
        &mut self,
        router: RouterId,
        attachment: &Attachment,
        mode: XdpMode,
        (outcome, mtu): (XdpOutcome, u32),
    ) -> Result<bool, Error> {
        let error = match outcome {
            XdpOutcome::Attached => return Ok(true),
            XdpOutcome::Replaced => return Ok(false),
            XdpOutcome::Refused(error) => error,
        };
        let (namespace, interface) = (&attachment.namespace, &attachment.interface.name);
        warn!(%router, namespace, interface, %error,
            "the interface can't have XDP in this mode: its traffic is classified by tc alone");
        // The next look will find another owner's program there, or it will be gone by
        // then.
        if error.kind() != io::ErrorKind::ResourceBusy {
            let notices = self.notices.entry(router).or_default();
            notices.insert(attachment.pin.clone(), Notice::Refused { mode, mtu });
        }
        self.pins.tidy(router)?;
        Ok(false)
    }

    /// Detaches the XDP program.
    pub(in crate::reconcile) fn detach(&self, router: RouterId, pin: &Path) -> Result<(), Error> {
        XdpPin::detach(pin)?;
        self.pinned_links.forget(router, pin);
        self.pins.tidy(router)
    }

    /// Makes the router's XDP links run the program of another instance, if it has one.
    pub(in crate::reconcile) fn relink(
        &self,
        router: RouterId,
        next: &Instance,
    ) -> Result<(), Error> {
        let Some(program) = next.xdp() else {
            return Ok(());
        };
        for pin in self.pins.xdp_links_of(router)? {
            if let XdpPin::Link { .. } = XdpPin::at(&pin) {
                program.replace(&pin)?;
            }
        }
        Ok(())
    }
}
