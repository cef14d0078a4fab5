//! What removes a router's pins, and the folders that are left empty.

use std::path::Path;

use super::{Pins, versions};
use crate::{
    kernel::{
        Error, Instance,
        bpffs::{entries, remove_if_empty, remove_pin},
        unpin,
    },
    model::RouterId,
};

impl Pins {
    /// Removes what is pinned for the router, its links first, and its folders.
    ///
    /// # Errors
    /// [`Error::File`] if something can't be removed.
    pub fn remove(&self, router: RouterId) -> Result<(), Error> {
        for link in self.attachments_of(router)? {
            unpin(&link)?;
        }
        for folder in self.instances(router) {
            Instance::remove(&folder)?;
        }
        self.tidy(router)
    }

    /// Removes what is empty of the router's folders and those above.
    ///
    /// # Errors
    /// [`Error::File`] for any reason other than that one isn't empty.
    pub fn tidy(&self, router: RouterId) -> Result<(), Error> {
        remove_if_empty(&self.xdp_links(router))?;
        // Where there is an instance, there will be links.
        if self.instance(router).exists() {
            return Ok(());
        }
        remove_if_empty(&self.links(router))?;
        remove_if_empty(&self.router(router))?;
        self.remove_shared_if_last()?;
        remove_if_empty(&self.version())?;
        remove_if_empty(&self.bpffs_dir)
    }

    /// Removes what instances shared that are all gone, of every ABI version: an
    /// agent may have died before it came to it. No folder is fine.
    ///
    /// # Errors
    /// [`Error::File`] if something can't be removed.
    pub fn remove_unshared(bpffs_dir: &Path) -> Result<(), Error> {
        for version in entries(bpffs_dir)? {
            if let Some(abi) = versions::version_of(&version) {
                let bpffs_dir = bpffs_dir.to_owned();
                Self { bpffs_dir, abi }.remove_shared_if_last()?;
                remove_if_empty(&version)?;
            }
        }
        remove_if_empty(bpffs_dir)
    }

    /// What all instances share goes with the last of them.
    fn remove_shared_if_last(&self) -> Result<(), Error> {
        if versions::has_routers(&self.version())? {
            return Ok(());
        }
        let shared = self.shared();
        for pin in entries(&shared)? {
            remove_pin(&pin)?;
        }
        remove_if_empty(&shared)
    }
}
