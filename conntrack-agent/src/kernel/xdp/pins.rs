//! The pins of XDP links.

use std::path::PathBuf;

use crate::{
    kernel::{
        Error, Pins,
        bpffs::{entries, make_one},
    },
    model::RouterId,
};

impl Pins {
    /// Returns the path where the XDP link of an attachment is pinned.
    #[must_use]
    pub fn xdp_link(&self, router: RouterId, namespace: &str, interface: u32) -> PathBuf {
        let folder = self.xdp_links(router);
        folder.join(format!("{namespace}:{interface}"))
    }

    /// Returns the folder where the router's XDP links are pinned.
    pub(in crate::kernel) fn xdp_links(&self, router: RouterId) -> PathBuf {
        self.router(router).join("xdp")
    }

    /// Returns the path of every pinned XDP link of the router.
    ///
    /// # Errors
    /// [`Error::File`] if the folder can't be read.
    pub fn xdp_links_of(&self, router: RouterId) -> Result<Vec<PathBuf>, Error> {
        entries(&self.xdp_links(router))
    }

    /// Makes the folder of the router's XDP links, as [`Self::prepare_links`] does.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be made.
    pub fn prepare_xdp_links(&self, router: RouterId) -> Result<(), Error> {
        make_one(&self.xdp_links(router))
    }
}
