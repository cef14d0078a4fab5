//! The namespaces of routers, by their names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use super::{Error, NetnsFolder};
use crate::model::RouterId;

/// The namespaces of routers: their folder, and the prefixes of their names, which a
/// router's id follows.
#[derive(Clone, Debug)]
pub struct RouterNamespaces {
    folder: NetnsFolder,
    /// Shared, as each API request takes a copy.
    prefixes: Arc<[String]>,
}

impl RouterNamespaces {
    /// Takes the folder `netns_dir`, and the prefixes of the names.
    #[must_use]
    pub fn new(netns_dir: impl Into<PathBuf>, prefixes: Vec<String>) -> Self {
        Self {
            folder: NetnsFolder::new(netns_dir),
            prefixes: prefixes.into(),
        }
    }

    /// Returns the folder, which has other namespaces too.
    #[must_use]
    pub const fn folder(&self) -> &NetnsFolder {
        &self.folder
    }

    /// Returns the possible names of the router's namespaces, existing or not.
    pub fn names_of(&self, router: RouterId) -> impl Iterator<Item = String> {
        let prefixes = self.prefixes.iter();
        prefixes.map(move |prefix| format!("{prefix}{router}"))
    }

    /// Returns the names of the router's namespaces that exist.
    #[must_use]
    pub fn existing(&self, router: RouterId) -> BTreeSet<String> {
        self.names_of(router)
            .filter(|name| matches!(self.folder.identity(name), Ok(Some(_))))
            .collect()
    }

    /// Returns the router whose namespace has this name, or would have it.
    #[must_use]
    pub fn router_of(&self, name: &str) -> Option<RouterId> {
        let mut rests = self.prefixes.iter();
        rests.find_map(|prefix| name.strip_prefix(prefix.as_str())?.parse().ok())
    }

    /// Returns the existing names by router, in order.
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
