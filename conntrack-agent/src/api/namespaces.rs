//! The routers' namespaces on this host.

use std::{collections::BTreeSet, sync::Arc};

use axum::http::StatusCode;

use super::error::ApiError;
use crate::{
    config::Config,
    kernel::{NetnsFolder, names_of},
    model::RouterId,
};

/// Where routers' namespaces are, and what they are called.
#[derive(Clone, Debug)]
pub(super) struct RouterNamespaces {
    netns: Arc<NetnsFolder>,
    prefixes: Arc<[String]>,
}

impl RouterNamespaces {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            netns: Arc::new(NetnsFolder::new(&config.netns_dir)),
            prefixes: config.namespace_prefixes.clone().into(),
        }
    }

    pub(super) fn netns(&self) -> &NetnsFolder {
        &self.netns
    }

    /// What a router's namespaces are called, those that there are and others.
    pub(super) fn names(&self, router: RouterId) -> impl Iterator<Item = String> {
        names_of(&self.prefixes, router)
    }

    /// The namespaces of a router that are on this host.
    pub(super) fn of(&self, router: RouterId) -> BTreeSet<String> {
        self.names(router)
            .filter(|name| matches!(self.netns.identity(name), Ok(Some(_))))
            .collect()
    }

    /// All routers that have a namespace on this host.
    pub(super) fn present(&self) -> Result<BTreeSet<RouterId>, ApiError> {
        let names = self.netns.names().map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiError::new(status, "ServiceUnavailable", error.to_string())
        })?;
        let router = |name: &String| {
            let mut ids = self
                .prefixes
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix));
            ids.find_map(|id| id.parse().ok())
        };
        Ok(names.iter().filter_map(router).collect())
    }
}
