//! Tells which routers something has happened to, but not what: whoever hears
//! of it asks the kernel. So an event that is missed, or comes twice, costs a
//! look and no more.
//!
//! One thread waits for all of it: names in the folder of namespaces and mounts
//! onto them, each watched namespace's links and tables, and the pins. What no
//! event tells, a link that is detached by force, is asked for.

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

/// Called when there are news; it must not block.
type Waker = Box<dyn Fn() + Send>;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// The routers' namespaces.
    pub namespaces: RouterNamespaces,
    /// The pins.
    pub pins: Pins,
    /// Where the bpffs with the pins is mounted.
    pub bpffs: PathBuf,
    /// The name of the agent's binding, a table of family inet.
    pub table: String,
}

/// Why events can't be had.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system refused.
    #[error("the kernel's events cannot be watched ({what})")]
    System {
        /// What was used.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Its thread has ended without being told to: a bug.
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
    /// Watches these routers. What happens after this returns is noticed, and
    /// is news; what there is already is not.
    ///
    /// # Errors
    /// [`WatchError`] if the system refuses.
    pub fn start(
        places: Places,
        keeper: Arc<PinnedLinks>,
        routers: BTreeSet<RouterId>,
    ) -> Result<Self, WatchError> {
        let mailbox = Mailbox::new().map_err(WatchError::system("eventfd"))?;
        let mailbox = Arc::new(mailbox);
        let round = EventLoop::new(places, Arc::clone(&mailbox), keeper, routers)?;
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

    /// Has `waker` called when there are news that were not fetched.
    pub fn on_news(&self, waker: impl Fn() + Send + 'static) {
        self.mailbox.wake_with(Box::new(waker));
    }

    /// What has happened since this was called last.
    ///
    /// # Errors
    /// [`WatchError`] if there will be no more news.
    pub fn news(&self) -> Result<DirtyRouters, WatchError> {
        self.mailbox.news()
    }

    /// Watches a router too; of one that is watched, what it has now.
    pub fn follow(&self, router: RouterId) {
        self.mailbox.order(router, WatchCommand::Follow);
    }

    /// Watches a router no more.
    pub fn leave(&self, router: RouterId) {
        self.mailbox.order(router, WatchCommand::Leave);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.take() {
            // Had it panicked, that would have been news.
            drop(thread.join());
        }
    }
}

/// Says that the thread has ended, by a panic too. Where it was stopped, nobody
/// listens any more.
struct End(Arc<Mailbox>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end_if_unsaid(WatchError::Ended);
    }
}
