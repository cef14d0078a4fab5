//! The namespaces of routers, by their names.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Error, NetnsFolder, names_of};
use crate::model::RouterId;

/// The namespaces of routers: the folder that they are in, and what stands in
/// front of a router's id in their names.
#[derive(Clone, Debug)]
pub struct RouterNamespaces {
    folder: NetnsFolder,
    prefixes: Vec<String>,
}

impl RouterNamespaces {
    /// Those in the folder `netns_dir` whose names begin with one of `prefixes`.
    #[must_use]
    pub fn new(netns_dir: impl Into<PathBuf>, prefixes: Vec<String>) -> Self {
        Self {
            folder: NetnsFolder::new(netns_dir),
            prefixes,
        }
    }

    /// The folder that they are in, and others too.
    #[must_use]
    pub const fn folder(&self) -> &NetnsFolder {
        &self.folder
    }

    /// What the router's namespaces are called, those that there are and others.
    pub fn names_of(&self, router: RouterId) -> impl Iterator<Item = String> {
        names_of(&self.prefixes, router)
    }

    /// The router whose namespace has this name, or would have it.
    #[must_use]
    pub fn router_of(&self, name: &str) -> Option<RouterId> {
        let mut rests = self.prefixes.iter();
        rests.find_map(|prefix| name.strip_prefix(prefix.as_str())?.parse().ok())
    }

    /// The names that there are in the folder, rising, by their routers.
    ///
    /// # Errors
    /// [`Error::Namespace`] if the folder can't be read.
    pub fn by_router(&self) -> Result<BTreeMap<RouterId, Vec<String>>, Error> {
        let mut names = BTreeMap::<_, Vec<_>>::new();
        for name in self.folder.names()? {
            if let Some(router) = self.router_of(&name) {
                names.entry(router).or_default().push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_routers_by_its_name() {
        const ID: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        let prefixes = ["qrouter-", "snat-"].map(str::to_owned);
        let namespaces = RouterNamespaces::new("/run/netns", prefixes.to_vec());
        let of = |name: String| namespaces.router_of(&name).is_some();
        assert!(of(format!("qrouter-{ID}")));
        assert!(of(format!("snat-{ID}")));
        for other in [format!("qdhcp-{ID}"), format!("qrouter-{ID}x"), ID.into()] {
            assert!(!of(other));
        }
    }
}
