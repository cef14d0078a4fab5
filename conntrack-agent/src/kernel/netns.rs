//! Network namespaces: opening them by name, and working inside one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{OFlags, fstatfs},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{Error, sys};

/// The magic number `NSFS_MAGIC`, include/uapi/linux/magic.h.
const NSFS_MAGIC: u32 = 0x6e73_6673;

/// The folder of named network namespaces, as `ip netns` keeps it.
#[derive(Clone, Debug)]
pub struct NetnsFolder(PathBuf);

impl NetnsFolder {
    /// Names the folder at `path`; it need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the namespace called `name`; none if there is no such one, or if
    /// what has the name is no namespace (yet: `ip netns add` makes a plain
    /// file first, then mounts the namespace onto it).
    ///
    /// # Errors
    /// [`Error::Namespace`] if it exists and can't be opened.
    pub fn open(&self, name: &str) -> Result<Option<Netns>, Error> {
        let path = self.0.join(name);
        let failed = |what| {
            let name = name.to_owned();
            move |source| Error::Namespace { name, what, source }
        };
        // `NONBLOCK` keeps the open from waiting for the other end of a FIFO.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot be opened")(error)),
        };
        if !is_nsfs(&file).map_err(failed("cannot be examined"))? {
            return Ok(None);
        }
        Ok(Some(Netns {
            name: name.to_owned(),
            path,
            file,
        }))
    }

    /// Does `work` inside each of these namespaces that exists, one after the
    /// other, on one thread that ends with the last. If one can't be entered,
    /// `work` runs outside of it and is told why.
    ///
    /// # Errors
    /// [`Error::Namespace`] if no thread can be started.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn visit<T: Send>(
        &self,
        names: &[String],
        mut work: impl FnMut(&str, Result<(), Error>) -> T + Send,
    ) -> Result<Vec<T>, Error> {
        on_thread("(several)", || {
            let mut done = Vec::new();
            for name in names {
                match self.open(name) {
                    Ok(None) => {}
                    Ok(Some(netns)) => done.push(work(name, netns.move_into())),
                    Err(error) => done.push(work(name, Err(error))),
                }
            }
            Ok(done)
        })
    }

    /// Returns the identity of the namespace with this name, or `None` if there
    /// is none.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it can't be determined.
    pub fn identity(&self, name: &str) -> Result<Option<NetnsIdentity>, Error> {
        match fs::metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(NetnsIdentity::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Namespace {
                name: name.to_owned(),
                what: "cannot be examined",
                source,
            }),
        }
    }

    /// Returns the names in the folder, rising; none if there is no folder.
    ///
    /// # Errors
    /// [`Error::Namespace`] if the folder can't be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let unreadable = |source| Error::Namespace {
            name: self.0.display().to_string(),
            what: "the folder cannot be listed",
            source,
        };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that isn't UTF-8 belongs to no router.
            if let Ok(name) = entry.map_err(unreadable)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The identity of a namespace, which tells it from another that has or had its
/// name (namespaces(7): the device and inode numbers of the file that it is
/// mounted on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsIdentity {
    device: u64,
    inode: u64,
}

impl NetnsIdentity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// An open network namespace, which lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Returns the namespace's name in the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether its name no longer leads to it: a deleted namespace goes
    /// on existing, unused, while somebody holds it open.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match (fs::metadata(&self.path), self.identity()) {
            (Ok(named), Ok(held)) => NetnsIdentity::of(&named) != held,
            _ => true,
        }
    }

    /// Returns the namespace's identity.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it can't be determined.
    pub fn identity(&self) -> Result<NetnsIdentity, Error> {
        let metadata = self.file.metadata().map_err(|source| Error::Namespace {
            name: self.name.clone(),
            what: "cannot be examined",
            source,
        })?;
        Ok(NetnsIdentity::of(&metadata))
    }

    /// Does `work` inside the namespace.
    ///
    /// The work gets a thread of its own that ends with it: setns(2) moves one
    /// thread, and a moved thread must never get other work. Processes and
    /// sockets that `work` makes are born in the namespace.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it can't be entered; the error of `work`.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        on_thread(&self.name, || {
            self.move_into()?;
            work()
        })
    }

    /// Moves the calling thread into the namespace, for good.
    fn move_into(&self) -> Result<(), Error> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            |source| Error::Namespace {
                name: self.name.clone(),
                what: "cannot be entered",
                source: source.into(),
            },
        )
    }

    /// Does `work` inside a new namespace, which is gone when it returns.
    ///
    /// # Errors
    /// [`Error::Namespace`] if none can be made; the error of `work`.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn scratch<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        const NAME: &str = "(scratch)";
        on_thread(NAME, || {
            sys::unshare_network().map_err(|source| Error::Namespace {
                name: NAME.into(),
                what: "cannot be made",
                source,
            })?;
            work()
        })
    }
}

fn on_thread<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|source| Error::Namespace {
                name: name.into(),
                what: "no thread can be started to enter it",
                source,
            })?;
        match worker.join() {
            Ok(result) => result,
            // A panic is a bug; it ends the agent as it would have on this
            // thread.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn is_nsfs(file: &File) -> io::Result<bool> {
    // The type of the magic number differs by architecture.
    let magic = fstatfs(file)?.f_type;
    Ok(u32::try_from(magic).is_ok_and(|magic| magic == NSFS_MAGIC))
}
