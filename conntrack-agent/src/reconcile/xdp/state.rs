//! The observed XDP state of an interface, and the effects that it lacks.

use std::path::{Path, PathBuf};

use super::XdpEffect;
use crate::{
    kernel::{Attachment, XdpMode},
    reconcile::Effect,
};

/// The XDP state of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// The path where its XDP link is or would be pinned.
    pub pin: PathBuf,
    /// The mode in which it should have the instance's XDP program; `None` if it
    /// should have none.
    pub wanted: Option<XdpMode>,
    /// The reason why it can't have the program; then the tc program does all by
    /// itself.
    pub obstacle: Option<Obstacle>,
    /// Whether it has the program, in that mode and kept by the pin.
    pub attached: bool,
    /// Whether anything of the agent's is in the pin's place.
    pub pinned: bool,
    /// The link that an agent with an older ABI has pinned for it, if its own
    /// pin's place is empty.
    pub inherited: Option<PathBuf>,
}

/// The reason why an interface can't have the XDP program that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another owner's XDP program is on it, and an interface can have only one.
    Foreign,
    /// The kernel refused at the last attempt, and the interface is as it was
    /// then.
    Refused,
}

impl XdpState {
    /// Takes a link that an agent with an older ABI has pinned, if it is this
    /// interface's. Returns whether it is.
    pub(in crate::reconcile) fn inherit(&mut self, link: &Path) -> bool {
        let is_its =
            !self.pinned && self.inherited.is_none() && self.pin.file_name() == link.file_name();
        if is_its {
            // The program that looked like another owner's is this link's.
            self.obstacle = None;
            self.inherited = Some(link.to_owned());
        }
        is_its
    }

    /// Adds the effects that come before the tc program is attached: an interface
    /// that should have no XDP program, or can have none, loses what it has.
    pub(in crate::reconcile) fn before_tc(&self, on: &Attachment, effects: &mut Vec<Effect>) {
        if self.reachable().is_none() {
            self.remove(on, effects);
        }
    }

    /// Adds the effects that have to wait until the tc program is there, as the XDP
    /// program hands packets over to it.
    pub(in crate::reconcile) fn after_tc(&self, on: &Attachment, effects: &mut Vec<Effect>) {
        if let Some(mode) = self.reachable()
            && (!self.attached || self.inherited.is_some())
        {
            effects.push(Effect::Xdp(XdpEffect::Attach {
                attachment: self.attachment(on),
                mode,
                from: self.inherited.clone(),
            }));
        }
    }

    /// Adds the effects that leave nothing of the agent's XDP on the interface.
    pub(in crate::reconcile) fn remove(&self, on: &Attachment, effects: &mut Vec<Effect>) {
        effects.extend(self.inherited.clone().map(Effect::ReapLink));
        if self.pinned {
            effects.push(Effect::Xdp(XdpEffect::Detach {
                attachment: self.attachment(on),
                back: self.wanted,
            }));
        }
    }

    /// Returns the mode in which it should have the program and can have it.
    const fn reachable(&self) -> Option<XdpMode> {
        match self.obstacle {
            None => self.wanted,
            Some(_) => None,
        }
    }

    /// Returns the interface of the tc program's attachment, with the XDP link's pin.
    fn attachment(&self, tc: &Attachment) -> Attachment {
        Attachment {
            pin: self.pin.clone(),
            ..tc.clone()
        }
    }
}
