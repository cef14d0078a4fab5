//! The layout of pins in the bpffs.
//!
//! ```text
//! <bpffs_dir>/v2/<router>/instance/{PAGES,SLOTS,COUNTERS,BASES,IDENTITY,globals,classify}
//!                         next/…       an instance that is being made
//!                         successor/…  one that is whole and is taking over
//!                         links/<namespace>:<ifindex>
//!                         xdp/<namespace>:<ifindex>    where there are XDP links
//!                shared/{EVENTS,LIMITER,RECENT}   of all instances
//! ```
//!
//! `v2` is the ABI's version. What is said here of folders, links and the globals
//! holds for all versions: each must be able to follow, or to remove, any other.
//! bpffs knows no names with a dot.

mod removal;
mod versions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use conntrack_ebpf::abi;

use super::{
    Build, Error,
    bpffs::{entries, make_one},
};
use crate::model::RouterId;

/// The folder with the pins of one ABI version.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs_dir: PathBuf,
    abi: u32,
}

impl Pins {
    /// Names the pins below `bpffs_dir` that this build would make.
    #[must_use]
    pub fn new(bpffs_dir: impl Into<PathBuf>) -> Self {
        Self {
            bpffs_dir: bpffs_dir.into(),
            abi: abi::VERSION,
        }
    }

    /// Names the pins that an agent of this edition would make.
    #[must_use]
    pub fn of(build: &Build, bpffs_dir: impl Into<PathBuf>) -> Self {
        Self {
            abi: build.abi(),
            ..Self::new(bpffs_dir)
        }
    }

    /// Returns the version of the ABI.
    #[must_use]
    pub const fn abi(&self) -> u32 {
        self.abi
    }

    /// Returns the folder of all versions' pins.
    #[must_use]
    pub fn bpffs_dir(&self) -> &Path {
        &self.bpffs_dir
    }

    fn version(&self) -> PathBuf {
        self.bpffs_dir.join(format!("v{}", self.abi))
    }

    pub(super) fn router(&self, router: RouterId) -> PathBuf {
        self.version().join(router.to_string())
    }

    /// Returns the folder of the maps that all instances share.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.version().join(SHARED)
    }

    /// Returns the folder of the router's instance.
    #[must_use]
    pub fn instance(&self, router: RouterId) -> PathBuf {
        self.router(router).join("instance")
    }

    /// Returns the folder where another instance of the router is made. Links
    /// never run its program.
    #[must_use]
    pub fn next_instance(&self, router: RouterId) -> PathBuf {
        self.router(router).join("next")
    }

    /// Returns the folder that it moves to when it is whole, to take over the
    /// router's links.
    #[must_use]
    pub fn successor(&self, router: RouterId) -> PathBuf {
        self.router(router).join("successor")
    }

    /// Returns all folders where an instance of the router can be.
    #[must_use]
    pub fn instances(&self, router: RouterId) -> [PathBuf; 3] {
        [
            self.instance(router),
            self.successor(router),
            self.next_instance(router),
        ]
    }

    /// Returns whether anything is pinned for the router.
    #[must_use]
    pub fn has(&self, router: RouterId) -> bool {
        self.router(router).exists()
    }

    /// Returns the path where the link of an attachment is pinned.
    #[must_use]
    pub fn link(&self, router: RouterId, namespace: &str, interface: u32) -> PathBuf {
        self.links(router).join(format!("{namespace}:{interface}"))
    }

    /// Returns the folder where the router's links are pinned.
    pub(super) fn links(&self, router: RouterId) -> PathBuf {
        self.router(router).join("links")
    }

    /// Returns every router that has pins.
    ///
    /// # Errors
    /// [`Error::File`] if the folder can't be read.
    pub fn routers(&self) -> Result<Vec<RouterId>, Error> {
        let names = entries(&self.version())?;
        Ok(names
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect())
    }

    /// Returns the path of every pinned link of the router.
    ///
    /// # Errors
    /// [`Error::File`] if the folder can't be read.
    pub fn links_of(&self, router: RouterId) -> Result<Vec<PathBuf>, Error> {
        entries(&self.links(router))
    }

    /// Returns the pins of all that the router has on interfaces, in the order in
    /// which they can be removed: XDP links first.
    ///
    /// # Errors
    /// [`Error::File`] if a folder can't be read.
    pub fn attachments_of(&self, router: RouterId) -> Result<Vec<PathBuf>, Error> {
        let mut pins = self.xdp_links_of(router)?;
        pins.extend(self.links_of(router)?);
        Ok(pins)
    }

    /// Makes the folders for the router's pins.
    ///
    /// # Errors
    /// [`Error::File`] if one can't be made.
    pub fn prepare(&self, router: RouterId) -> Result<(), Error> {
        let links = self.links(router);
        fs::create_dir_all(&links).map_err(Error::file(links, "made"))
    }

    /// Makes the folder of the links of a router that has an instance. None above
    /// it: where those are gone, so may be the bpffs, and what is made outside of
    /// it keeps another from being mounted.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be made.
    pub fn prepare_links(&self, router: RouterId) -> Result<(), Error> {
        make_one(&self.links(router))
    }
}

/// The name of the shared folder inside a version's folder, which is no router's
/// name.
const SHARED: &str = "shared";
