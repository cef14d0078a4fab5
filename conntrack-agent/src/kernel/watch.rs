//! Reports routers that need to be looked at, but not why: the receiver asks the kernel,
//! so a missed or repeated event costs one look.
//!
//! One thread waits for all events: names in the folder of namespaces and
//! mounts onto them, each watched namespace's links and tables, and the pins.
//! No event reports a link that is detached by force, so links are polled for
//! that.

mod budget;
mod dirty_set;
mod event_loop;
mod files;
mod message;
mod namespaces;
mod pinned_links;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

pub use dirty_set::DirtyRouters;
use dirty_set::{Mailbox, WatchCommand};
use event_loop::EventLoop;
pub use pinned_links::PinnedLinks;

use super::{Pins, RouterNamespaces};
use crate::model::RouterId;

/// A callback for news; it must not block.
type Waker = Box<dyn Fn() + Send>;

/// The places to watch.
#[derive(Clone, Debug)]
pub struct Places {
    /// The routers' namespaces.
    pub namespaces: RouterNamespaces,
    /// The pins.
    pub pins: Pins,
    /// The mount point of the bpffs with the pins.
    pub bpffs: PathBuf,
    /// The name of the agent's binding, a table of family inet.
    pub table: String,
}

/// The reason why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system refused a watch.
    #[error("the kernel's events cannot be watched ({what})")]
    System {
        /// The facility that was used.
        what: &'static str,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The watching thread has ended without being told to, which is a bug.
    #[error("the watch for the kernel's events has ended unexpectedly")]
    Ended,
}

impl WatchError {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}

/// A watch that goes on until it is dropped.
pub struct Watch {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch these routers. What happens after this returns is
    /// noticed, and is news; what is there already is not.
    ///
    /// # Errors
    /// [`WatchError`] if the system refuses.
    pub fn start(
        places: Places,
        pinned_links: Arc<PinnedLinks>,
        routers: BTreeSet<RouterId>,
    ) -> Result<Self, WatchError> {
        let mailbox = Mailbox::new().map_err(WatchError::system("eventfd"))?;
        let mailbox = Arc::new(mailbox);
        let round = EventLoop::new(places, Arc::clone(&mailbox), pinned_links, routers)?;
        let end = End(Arc::clone(&mailbox));
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            if let Err(error) = round.run() {
                end.0.end(error);
            }
            drop(end);
        });
        Ok(Self {
            mailbox,
            thread: Some(thread.map_err(WatchError::system("a thread"))?),
        })
    }

    /// Sets the callback for news that were not fetched.
    pub fn on_news(&self, waker: impl Fn() + Send + 'static) {
        self.mailbox.wake_with(Box::new(waker));
    }

    /// Returns what has happened since the last call.
    ///
    /// # Errors
    /// [`WatchError`] if no more news will come.
    pub fn news(&self) -> Result<DirtyRouters, WatchError> {
        self.mailbox.news()
    }

    /// Watches a router too; for one that is watched already, the watch is
    /// brought up to date.
    pub fn follow(&self, router: RouterId) {
        self.mailbox.order(router, WatchCommand::Follow);
    }

    /// Stops watching a router.
    pub fn leave(&self, router: RouterId) {
        self.mailbox.order(router, WatchCommand::Leave);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread would have been news.
            drop(thread.join());
        }
    }
}

/// A guard that reports the end of the thread, also by a panic. Where the
/// thread was stopped, the report is not read.
struct End(Arc<Mailbox>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end_if_unsaid(WatchError::Ended);
    }
}
