//! The thread that waits for events, one for the whole process.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};

use super::{
    super::is_bpffs,
    Places, WatchError,
    dirty_set::{DirtyRouters, Mailbox, WatchCommand},
    files::{Files, Happened},
    namespaces::Namespaces,
    pinned_links::PinnedLinks,
};
use crate::model::RouterId;

/// The meaning of an event's number; from [`SOCKETS`] on, a namespace's
/// sockets.
const ORDERS: u64 = 0;
const FILES: u64 = 1;
const MOUNTS: u64 = 2;
const SOCKETS: u64 = 3;

/// The interval between two queries whether links are attached. A query takes
/// about 1.6 µs, so 3,000 links take 0.6 % of a core; and it is soon enough for
/// a repair within a second.
const LINKS_EVERY: Duration = Duration::from_millis(850);
/// The interval between two surveys of all names.
const SURVEY_EVERY: Duration = Duration::from_millis(25);
/// The intervals between surveys while something that should be watched can't
/// be; they grow from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// The state of the thread.
pub(super) struct EventLoop {
    epoll: OwnedFd,
    mailbox: Arc<Mailbox>,
    pinned_links: Arc<PinnedLinks>,
    files: Files,
    /// The mount table, kept open so that epoll goes on watching it.
    _mounts: File,
    namespaces: Namespaces,
    followed: BTreeSet<RouterId>,
    /// The path where a bpffs should be mounted, and its device.
    bpffs: PathBuf,
    bpffs_is: Option<u64>,
    news: DirtyRouters,
    next_links: Instant,
    next_survey: Option<Instant>,
    last_survey: Instant,
    retry: Duration,
}

impl EventLoop {
    /// Starts to watch what there is of these routers. What happens from now on
    /// is noticed.
    pub(super) fn new(
        places: Places,
        mailbox: Arc<Mailbox>,
        pinned_links: Arc<PinnedLinks>,
        routers: BTreeSet<RouterId>,
    ) -> Result<Self, WatchError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(WatchError::system("epoll"))?;
        let files = Files::new(places.namespaces.folder().path(), places.pins)
            .map_err(WatchError::system("inotify"))?;
        let mounts =
            File::open("/proc/self/mountinfo").map_err(WatchError::system("the mount table"))?;
        let add = |source: &dyn std::os::fd::AsFd, number, flags| {
            let data = EventData::new_u64(number);
            epoll::add(&epoll, source.as_fd(), data, flags).map_err(WatchError::system("epoll"))
        };
        add(&*mailbox, ORDERS, EventFlags::IN)?;
        add(&files, FILES, EventFlags::IN)?;
        // proc_pid_mountinfo(5): a change of the mount table is an exception.
        add(&mounts, MOUNTS, EventFlags::PRI)?;
        let now = Instant::now();
        let mut round = Self {
            namespaces: Namespaces::new(
                places.namespaces,
                places.table,
                Arc::clone(&pinned_links.budget),
                SOCKETS,
            ),
            epoll,
            mailbox,
            pinned_links,
            files,
            _mounts: mounts,
            followed: routers,
            bpffs_is: device(&places.bpffs),
            bpffs: places.bpffs,
            news: DirtyRouters::default(),
            next_links: now + LINKS_EVERY,
            next_survey: None,
            last_survey: now,
            retry: RETRY_FIRST,
        };
        // The watch comes before the list, so that nothing is missed between
        // them.
        round.survey(now);
        for router in &round.followed {
            round.files.watch_pins(*router);
        }
        // What was there before is not news: the agent looks at everything
        // anyway.
        round.news = DirtyRouters::default();
        Ok(round)
    }

    /// Watches until it is told to stop.
    pub(super) fn run(mut self) -> Result<(), WatchError> {
        let mut events = Vec::with_capacity(64);
        loop {
            let now = Instant::now();
            if self.next_links <= now {
                self.news.routers.extend(self.pinned_links.detached());
                self.pinned_links.budget.say();
                self.next_links = now + LINKS_EVERY;
            }
            if self.next_survey.is_some_and(|time| time <= now) {
                self.survey(now);
            }
            self.mailbox.tell(std::mem::take(&mut self.news));
            let wake = self
                .next_survey
                .map_or(self.next_links, |time| time.min(self.next_links));
            let wait = wake.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(wait)
                .map_err(|error| WatchError::system("the time to wait")(io::Error::other(error)))?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(WatchError::system("epoll")(error)),
            }
            for event in &events {
                match event.data.u64() {
                    ORDERS => {
                        let Some(orders) = self.mailbox.orders() else {
                            return Ok(());
                        };
                        for (router, order) in orders {
                            self.obey(router, order);
                        }
                    }
                    FILES => self.files_have_changed()?,
                    MOUNTS => self.mounts_have_changed(),
                    number => {
                        let read = self.namespaces.read(&self.epoll, number);
                        if read.is_err() {
                            self.survey_soon();
                        }
                        let router = read.unwrap_or_else(Some);
                        self.news.routers.extend(router);
                    }
                }
            }
        }
    }

    fn obey(&mut self, router: RouterId, order: WatchCommand) {
        match order {
            WatchCommand::Follow => {
                let is_new = self.followed.insert(router);
                let has_changed = is_new && self.namespaces.survey(&self.epoll, router);
                // What is watched only now may have changed since it was seen.
                if self.files.watch_pins(router) || has_changed {
                    self.news.routers.insert(router);
                }
            }
            WatchCommand::Leave => {
                if self.followed.remove(&router) {
                    self.namespaces.leave(&self.epoll, router);
                    self.files.leave(router);
                }
            }
        }
    }

    fn files_have_changed(&mut self) -> Result<(), WatchError> {
        let happened = self.files.read().map_err(WatchError::system("inotify"))?;
        for each in happened {
            match each {
                Happened::Namespaces(name) => {
                    let router = name.and_then(|name| self.namespaces.routers().router_of(&name));
                    let router = router.filter(|router| self.followed.contains(router));
                    if let Some(router) = router {
                        // Surveyed at once: a socket would keep a deleted
                        // namespace alive.
                        self.namespaces.survey(&self.epoll, router);
                        self.news.routers.insert(router);
                    } else {
                        self.survey_soon();
                    }
                }
                Happened::Pins(router) => {
                    self.news.routers.insert(router);
                }
                // Every instance uses the shared maps; the looks tell which
                // instance uses others.
                Happened::Shared => self.news.everything = true,
                Happened::Overflow => {
                    self.news.everything = true;
                    self.survey_soon();
                }
            }
        }
        Ok(())
    }

    /// Handles a change of the mount table. A namespace is ready when it is
    /// mounted onto its file, which inotify does not report, and pins vanish
    /// without an event when a bpffs does.
    fn mounts_have_changed(&mut self) {
        let bpffs = device(&self.bpffs);
        if bpffs != self.bpffs_is {
            self.bpffs_is = bpffs;
            self.news.everything = true;
        }
        self.survey_soon();
    }

    fn survey_soon(&mut self) {
        let soon = self.last_survey + SURVEY_EVERY;
        self.retry = RETRY_FIRST;
        self.next_survey = Some(self.next_survey.map_or(soon, |time| time.min(soon)));
    }

    fn survey(&mut self, now: Instant) {
        let is_watched = self.files.watch_folder();
        for router in &self.followed {
            if self.namespaces.survey(&self.epoll, *router) {
                self.news.routers.insert(*router);
            }
        }
        self.last_survey = now;
        self.next_survey = None;
        if !is_watched || self.namespaces.is_incomplete() {
            self.next_survey = Some(now + self.retry);
            self.retry = (self.retry * 2).min(RETRY_LAST);
        }
    }
}

/// Returns the device that tells one bpffs from another at the same path.
fn device(bpffs: &std::path::Path) -> Option<u64> {
    let metadata = fs::metadata(bpffs).ok()?;
    is_bpffs(bpffs).then(|| metadata.dev())
}
