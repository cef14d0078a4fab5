//! Watches the folder of namespaces and each router's pins by inotify.

use std::{
    collections::BTreeMap,
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tracing::warn;

use super::super::{NetnsIdentity, Pins};
use crate::model::RouterId;

/// The events of the folder of namespaces: names that come and go, and the
/// folder itself.
const FOLDER: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// The events of pins: those that are removed or replaced. An added pin does no
/// harm, and mostly the agent itself adds one.
const PINS: WatchFlags = WatchFlags::DELETE
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The subject of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// A name in the folder of namespaces; `None` for the folder itself.
    Namespaces(Option<String>),
    /// The pins of a router.
    Pins(RouterId),
    /// The pins that all routers share.
    Shared,
    /// More events than the kernel could store.
    Overflow,
}

enum Watched {
    Namespaces,
    Pins(RouterId),
    Shared,
}

/// The watches on files.
pub(super) struct Files {
    inotify: OwnedFd,
    folder: PathBuf,
    /// The identity of the folder when it got its watch, and the watch.
    folder_is: Option<(NetnsIdentity, i32)>,
    pins: Pins,
    watches: BTreeMap<i32, Watched>,
    is_full_said: bool,
}

impl Files {
    pub(super) fn new(folder: &Path, pins: Pins) -> io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            folder: folder.to_owned(),
            folder_is: None,
            pins,
            watches: BTreeMap::new(),
            is_full_said: false,
        })
    }

    /// Ensures that the current folder of namespaces has a watch; there may be
    /// no folder, and the former one may have been replaced or hidden by a
    /// mount. Returns whether it has one.
    pub(super) fn watch_folder(&mut self) -> bool {
        let now = fs::metadata(&self.folder)
            .ok()
            .as_ref()
            .map(NetnsIdentity::of);
        if let (Some(now), Some((then, _))) = (now, self.folder_is)
            && now == then
        {
            return true;
        }
        if let Some((_, watch)) = self.folder_is.take() {
            self.remove(watch);
        }
        let Some(now) = now else { return false };
        let folder = self.folder.clone();
        let Some(watch) = self.add(&folder, FOLDER) else {
            return false;
        };
        self.watches.insert(watch, Watched::Namespaces);
        self.folder_is = Some((now, watch));
        true
    }

    /// Ensures that the folders of the router's pins have watches, and the
    /// folder that all routers share. Returns whether one of them had none.
    pub(super) fn watch_pins(&mut self, router: RouterId) -> bool {
        let mut is_new = false;
        for (folder, watched) in [
            (self.pins.instance(router), Watched::Pins(router)),
            (self.pins.links(router), Watched::Pins(router)),
            (self.pins.xdp_links(router), Watched::Pins(router)),
            (self.pins.shared(), Watched::Shared),
        ] {
            if let Some(watch) = self.add(&folder, PINS) {
                is_new |= self.watches.insert(watch, watched).is_none();
            }
        }
        is_new
    }

    /// Stops watching the router's pins.
    pub(super) fn leave(&mut self, router: RouterId) {
        let of_router = |watched: &Watched| matches!(watched, Watched::Pins(of) if *of == router);
        let watches = self
            .watches
            .iter()
            .filter(|(_, watched)| of_router(watched));
        let watches: Vec<_> = watches.map(|(watch, _)| *watch).collect();
        for watch in watches {
            self.remove(watch);
        }
    }

    fn add(&mut self, folder: &Path, events: WatchFlags) -> Option<i32> {
        match inotify::add_watch(&self.inotify, folder, events) {
            Ok(watch) => Some(watch),
            // The folder does not exist, or no longer.
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => {
                if !self.is_full_said {
                    self.is_full_said = true;
                    warn!(folder = %folder.display(), %error,
                        "cannot be watched: what happens there is seen by the full pass alone; \
                         raise fs.inotify.max_user_watches if that is reached");
                }
                None
            }
        }
    }

    fn remove(&mut self, watch: i32) {
        self.watches.remove(&watch);
        // The kernel has already removed the watch of a folder that is gone.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }

    /// Returns what has happened since the last call.
    ///
    /// # Errors
    /// The error of read(2).
    pub(super) fn read(&mut self) -> io::Result<Vec<Happened>> {
        let mut all = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 1 << 14];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(all),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (watch, events) = (event.wd(), event.events());
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                all.push(Happened::Overflow);
                continue;
            }
            // A name that isn't UTF-8 belongs to no router.
            let name = event.file_name().and_then(|name| name.to_str().ok());
            match self.watches.get(&watch) {
                Some(Watched::Namespaces) => {
                    all.push(Happened::Namespaces(name.map(str::to_owned)));
                    // The folder may have been renamed: whether its name now
                    // belongs to the same folder must be checked again.
                }
                Some(Watched::Pins(router)) => all.push(Happened::Pins(*router)),
                Some(Watched::Shared) => all.push(Happened::Shared),
                None => {}
            }
            if events.contains(ReadFlags::IGNORED) {
                self.watches.remove(&watch);
                self.folder_is = self.folder_is.filter(|(_, of)| *of != watch);
            }
        }
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &mut Files) -> Vec<Option<String>> {
        let happened = files.read().unwrap().into_iter();
        happened
            .filter_map(|happened| match happened {
                Happened::Namespaces(name) => Some(name),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_folder_that_comes_late_goes_and_comes_again_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("netns");
        let mut files = Files::new(&folder, Pins::new(root.path())).unwrap();
        assert!(!files.watch_folder());
        for _ in 0..2 {
            fs::create_dir(&folder).unwrap();
            assert!(files.watch_folder());
            assert!(files.watch_folder(), "and once more changes nothing");
            fs::write(folder.join("a"), "").unwrap();
            assert_eq!(names(&mut files), [Some("a".to_owned())]);
            fs::remove_dir_all(&folder).unwrap();
            assert!(names(&mut files).contains(&None), "the folder itself");
            assert!(!files.watch_folder());
        }
        // Another in its place, without an event between.
        fs::create_dir(&folder).unwrap();
        assert!(files.watch_folder());
        fs::rename(&folder, root.path().join("away")).unwrap();
        fs::create_dir(&folder).unwrap();
        assert!(files.watch_folder());
        names(&mut files);
        fs::write(folder.join("b"), "").unwrap();
        fs::write(root.path().join("away/c"), "").unwrap();
        assert_eq!(names(&mut files), [Some("b".to_owned())]);
    }

    #[test]
    fn pins_that_go_are_told_and_those_that_come_are_not() {
        let root = tempfile::tempdir().unwrap();
        let router: RouterId = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let pins = Pins::new(root.path());
        let mut files = Files::new(&root.path().join("none"), pins.clone()).unwrap();
        assert!(!files.watch_pins(router), "there is nothing");
        pins.prepare(router).unwrap();
        assert!(files.watch_pins(router));
        assert!(!files.watch_pins(router), "it has it already");

        let pin = pins.link(router, "qrouter-x", 2);
        fs::write(&pin, "").unwrap();
        assert_eq!(files.read().unwrap(), []);
        fs::remove_file(&pin).unwrap();
        assert_eq!(files.read().unwrap(), [Happened::Pins(router)]);

        files.leave(router);
        fs::write(&pin, "").unwrap();
        fs::remove_file(&pin).unwrap();
        assert_eq!(files.read().unwrap(), []);
    }

    #[test]
    fn what_all_routers_share_is_watched_whichever_of_them_is() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::new(root.path());
        let mut files = Files::new(&root.path().join("none"), pins.clone()).unwrap();
        let routers = [
            "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab",
            "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ac",
        ]
        .map(|id| id.parse().unwrap());
        for _ in 0..2 {
            fs::create_dir_all(pins.shared()).unwrap();
            assert!(files.watch_pins(routers[0]), "it has none yet");
            assert!(!files.watch_pins(routers[1]), "one is enough");
            let pin = pins.shared().join("EVENTS");
            fs::write(&pin, "").unwrap();
            assert_eq!(files.read().unwrap(), []);
            files.leave(routers[0]);
            fs::remove_file(&pin).unwrap();
            assert_eq!(files.read().unwrap(), [Happened::Shared]);
            fs::remove_dir(pins.shared()).unwrap();
            assert!(files.read().unwrap().contains(&Happened::Shared));
        }
    }
}
