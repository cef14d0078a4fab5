//! Keeps pinned links open, for two reasons.
//!
//! No event reports a link that is detached by force (`bpftool link detach`), so each
//! has to be polled, and a query of an open link takes one or two microseconds. And an
//! open link goes on running its program when its pin, or the whole bpffs, is removed,
//! until it has been pinned again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::debug;

use super::{
    super::{Error, sys},
    budget::{Budget, FdPermit},
};
use crate::model::RouterId;

/// The open links, by router.
#[derive(Debug)]
pub struct PinnedLinks {
    pub(super) budget: Arc<Budget>,
    /// The links of each router, side by side: most of the time of a query is spent
    /// waiting for memory.
    kept: Mutex<BTreeMap<RouterId, Vec<HeldLink>>>,
}

#[derive(Debug)]
struct HeldLink {
    pin: PathBuf,
    link: OwnedFd,
    _permit: FdPermit,
    /// Whether its pin was missing when the router was last found in order.
    is_stray: bool,
}

impl PinnedLinks {
    /// Makes a keeper without links. Together with all watches it takes at most half
    /// of the descriptors that the process may have now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::of_process(),
            kept: Mutex::default(),
        })
    }

    /// Keeps the pinned links open. A kept link that has lost its pin since the router
    /// was looked at stays until the next call; a look that wants the link will have
    /// pinned it again by then.
    pub fn keep(&self, router: RouterId, pins: &[PathBuf]) {
        // These are closed without the lock: closing a link's last descriptor detaches
        // a program.
        let mut before = self.lock().remove(&router).unwrap_or_default();
        let mut links = Vec::with_capacity(pins.len());
        for pin in pins {
            let same = before.iter().position(|kept| kept.pin == *pin);
            let same = same.map(|at| before.swap_remove(at));
            match (sys::open_pinned(pin), same) {
                (Ok(link), Some(kept)) => links.push(HeldLink {
                    link,
                    is_stray: false,
                    ..kept
                }),
                (Ok(link), None) => {
                    let Some(permit) = self.budget.take(1) else {
                        continue;
                    };
                    links.push(HeldLink {
                        pin: pin.clone(),
                        link,
                        _permit: permit,
                        is_stray: false,
                    });
                }
                // The pin was removed since it was listed. The descriptor may be all
                // that keeps the program attached, so it stays open.
                (Err(_), Some(kept)) => before.push(kept),
                // The same goes for a link that was not kept, or for what is no link.
                (Err(error), None) => debug!(pin = %pin.display(), %error, "not kept open"),
            }
        }
        before.retain_mut(|kept| !std::mem::replace(&mut kept.is_stray, true));
        links.append(&mut before);
        if !links.is_empty() {
            self.lock().insert(router, links);
        }
    }

    /// Closes all links of a router that should have none.
    pub fn forget_all(&self, router: RouterId) {
        let forgotten = self.lock().remove(&router);
        drop(forgotten);
    }

    /// Closes a link, so that it ends with its pin.
    pub fn forget(&self, router: RouterId, pin: &Path) {
        let forgotten = self.lock().get_mut(&router).and_then(|links| {
            let at = links.iter().position(|kept| kept.pin == pin)?;
            Some(links.swap_remove(at))
        });
        drop(forgotten);
    }

    /// Pins a link again whose pin was removed. Returns whether it was pinned, and is
    /// on the interface with this number in some namespace.
    ///
    /// # Errors
    /// [`Error::File`] if the kernel refuses.
    pub fn restore(&self, router: RouterId, pin: &Path, interface: u32) -> Result<bool, Error> {
        let kept = self.lock();
        let Some(kept) = find(&kept, router, pin) else {
            return Ok(false);
        };
        let failed = |source| Error::file(pin, "pinned again")(source);
        if sys::link_interface(kept.link.as_fd()).map_err(failed)? != interface {
            return Ok(false);
        }
        match sys::pin(&kept.link, pin) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns whether a link is kept that was pinned there and is on the interface
    /// with this number in some namespace.
    #[must_use]
    pub fn holds(&self, router: RouterId, pin: &Path, interface: u32) -> bool {
        let kept = self.lock();
        let is_on =
            |kept: &HeldLink| sys::link_interface(kept.link.as_fd()).ok() == Some(interface);
        find(&kept, router, pin).is_some_and(is_on)
    }

    /// Returns the routers with a link that is on no interface any more.
    pub(super) fn detached(&self) -> BTreeSet<RouterId> {
        let kept = self.lock();
        let is_detached = |kept: &HeldLink| {
            // A link that can't be queried is worth a look too.
            sys::link_interface(kept.link.as_fd()).map_or(true, |interface| interface == 0)
        };
        let some = kept
            .iter()
            .filter(|(_, links)| links.iter().any(is_detached));
        some.map(|(router, _)| *router).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RouterId, Vec<HeldLink>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(
    kept: &'a BTreeMap<RouterId, Vec<HeldLink>>,
    router: RouterId,
    pin: &Path,
) -> Option<&'a HeldLink> {
    let mut links = kept.get(&router)?.iter();
    links.find(|kept| kept.pin == pin)
}
