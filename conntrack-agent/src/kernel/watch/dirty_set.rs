//! The sets of routers and commands that pass between the watching thread and the agent:
//! a burst of events costs as much as one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

use super::{Waker, WatchError};
use crate::model::RouterId;

/// The routers that something has happened to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DirtyRouters {
    /// Whether every router may be concerned.
    pub everything: bool,
    /// The routers that are concerned.
    pub routers: BTreeSet<RouterId>,
}

impl DirtyRouters {
    /// Returns whether nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.routers.is_empty()
    }
}

/// A command to the thread about a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchCommand {
    /// Watches the router as it is now.
    Follow,
    /// Stops watching the router.
    Leave,
}

/// A mailbox with orders in one direction and news in the other.
pub(super) struct Mailbox {
    state: Mutex<DirtySet>,
    /// The eventfd that rings for orders.
    bell: OwnedFd,
}

#[derive(Default)]
struct DirtySet {
    news: DirtyRouters,
    orders: BTreeMap<RouterId, WatchCommand>,
    stop: bool,
    /// The reason why there will be no more news.
    end: Option<WatchError>,
    waker: Option<Waker>,
    /// Whether the agent was woken and has not looked yet.
    is_woken: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Sets the callback for news.
    pub(super) fn wake_with(&self, waker: Waker) {
        let mut state = self.lock();
        state.waker = Some(waker);
        wake(&mut state);
    }

    /// Returns the news since the last call.
    pub(super) fn news(&self) -> Result<DirtyRouters, WatchError> {
        let mut state = self.lock();
        state.is_woken = false;
        match state.end.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.news)),
        }
    }

    pub(super) fn tell(&self, news: DirtyRouters) {
        if news.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.news.everything |= news.everything;
        state.news.routers.extend(news.routers);
        wake(&mut state);
    }

    /// Ends the news, for this reason.
    pub(super) fn end(&self, error: WatchError) {
        let mut state = self.lock();
        state.end = Some(error);
        state.is_woken = false;
        wake(&mut state);
    }

    /// Ends the news likewise, unless a better reason was given.
    pub(super) fn end_if_unsaid(&self, error: WatchError) {
        if self.lock().end.is_none() {
            self.end(error);
        }
    }

    pub(super) fn order(&self, router: RouterId, order: WatchCommand) {
        self.lock().orders.insert(router, order);
        self.ring();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.ring();
    }

    /// Returns the orders since the last call, or `None` for the order to stop.
    pub(super) fn orders(&self) -> Option<BTreeMap<RouterId, WatchCommand>> {
        let mut count = [0; size_of::<u64>()];
        // The read is empty where the bell rang for orders that were taken before.
        let _ = rustix::io::read(&self.bell, &mut count);
        let mut state = self.lock();
        (!state.stop).then(|| std::mem::take(&mut state.orders))
    }

    /// Rings the bell. A full counter still rings it.
    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, DirtySet> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

fn wake(state: &mut DirtySet) {
    if state.is_woken || (state.news.is_empty() && state.end.is_none()) {
        return;
    }
    if let Some(waker) = &state.waker {
        waker();
        state.is_woken = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    fn router(number: u8) -> RouterId {
        format!("00000000-0000-0000-0000-0000000000{number:02}")
            .parse()
            .unwrap()
    }

    fn of(numbers: impl IntoIterator<Item = u8>) -> DirtyRouters {
        DirtyRouters {
            everything: false,
            routers: numbers.into_iter().map(router).collect(),
        }
    }

    #[test]
    fn a_burst_wakes_once_and_is_one_piece_of_news() {
        let mailbox = Mailbox::new().unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        mailbox.tell(of([1]));
        mailbox.wake_with(Box::new(move || {
            count.fetch_add(1, Relaxed);
        }));
        assert_eq!(woken.load(Relaxed), 1, "for what came before");
        for _ in 0..10_000 {
            mailbox.tell(of([1, 2]));
        }
        assert_eq!(woken.load(Relaxed), 1);
        assert_eq!(mailbox.news().unwrap(), of([1, 2]));
        assert!(mailbox.news().unwrap().is_empty());
        mailbox.tell(DirtyRouters::default());
        assert_eq!(woken.load(Relaxed), 1, "nothing is no news");
        mailbox.tell(of([3]));
        assert_eq!(woken.load(Relaxed), 2);
        mailbox.end(WatchError::Ended);
        assert_eq!(woken.load(Relaxed), 3, "the end is said in any case");
        assert!(mailbox.news().is_err());
    }

    #[test]
    fn the_last_order_counts_and_stop_above_all() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.order(router(1), WatchCommand::Follow);
        mailbox.order(router(1), WatchCommand::Leave);
        let orders = mailbox.orders().unwrap();
        assert_eq!(orders, BTreeMap::from([(router(1), WatchCommand::Leave)]));
        assert!(mailbox.orders().unwrap().is_empty());
        mailbox.stop();
        assert!(mailbox.orders().is_none());
    }
}
