//! XDP hooks in memory, for tests.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Obstacle, XdpEffect, XdpState};
use crate::kernel::XdpMode;

/// The state of an interface's XDP hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryXdp {
    /// The hook has the instance's program, in this mode.
    Own(XdpMode),
    /// The hook has the program of an agent with an older ABI, in this mode.
    Older(XdpMode),
    /// The hook has a program of another owner.
    Foreign,
    /// The hook is empty: the driver can't do XDP natively.
    Unable,
    /// The hook is empty, and the kernel has refused to change that.
    Refused,
}

impl MemoryXdp {
    /// Returns what is observed of a hook; the agent's pin and an older one's are at
    /// these paths.
    pub(in crate::reconcile) fn observe(
        hook: Option<Self>,
        wanted: Option<XdpMode>,
        is_loaded: bool,
        [pin, older]: [PathBuf; 2],
    ) -> XdpState {
        let obstacle = match hook {
            Some(Self::Foreign) => Some(Obstacle::Foreign),
            Some(Self::Refused) => Some(Obstacle::Refused),
            _ => None,
        };
        let own = match hook {
            Some(Self::Own(mode)) => Some(mode),
            _ => None,
        };
        XdpState {
            pin,
            wanted,
            obstacle: obstacle.filter(|_| wanted.is_some()),
            attached: is_loaded && own.is_some() && own == wanted,
            pinned: own.is_some(),
            inherited: matches!(hook, Some(Self::Older(_))).then_some(older),
        }
    }

    /// Carries out an effect on the hooks of a namespace. Returns whether undoing it takes
    /// nothing away that was there before.
    pub(in crate::reconcile) fn run(hooks: &mut BTreeMap<u32, Self>, effect: &XdpEffect) -> bool {
        let index = effect.attachment().interface.index;
        let before = hooks.get(&index).copied();
        let (after, is_new) = match (effect, before) {
            (XdpEffect::Detach { .. }, Some(Self::Own(_))) => {
                hooks.remove(&index);
                return true;
            }
            (XdpEffect::Detach { .. }, _) => return true,
            (XdpEffect::Attach { .. }, Some(Self::Foreign)) => (Self::Foreign, false),
            (XdpEffect::Attach { mode, .. }, Some(Self::Unable | Self::Refused))
                if *mode == XdpMode::Native =>
            {
                (Self::Refused, false)
            }
            (XdpEffect::Attach { mode, .. }, _) => {
                let was_there = matches!(before, Some(Self::Own(_) | Self::Older(_)));
                (Self::Own(*mode), !was_there)
            }
        };
        hooks.insert(index, after);
        is_new
    }

    /// Removes the links of an agent with an older ABI from these interfaces.
    pub(in crate::reconcile) fn reap_older(
        hooks: &mut BTreeMap<u32, Self>,
        is_of: impl Fn(u32) -> bool,
    ) {
        hooks.retain(|index, hook| !matches!(hook, Self::Older(_)) || !is_of(*index));
    }
}
