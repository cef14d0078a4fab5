//! Acquires what needs more privileges than the running daemon keeps: folders, sockets,
//! tokens.

use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use super::RunError;
use crate::{
    access::Access,
    api::{Listeners, Tokens, tokens},
    audit::Auditor,
    config::{ApiLimits, Config},
};

/// The resources that take more privileges to acquire than to use: a socket that is
/// given to a group, a low TCP port, files of other users.
pub(super) struct Prepared {
    pub(super) listeners: Listeners,
    pub(super) access: Access,
    pub(super) tokens: Option<Tokens>,
    pub(super) auditor: Arc<Auditor>,
    pub(super) limits: ApiLimits,
}

impl Prepared {
    /// Acquires them for an agent that has its folders, before anything is changed.
    pub(super) fn of(config: &Config, descriptors: Option<u64>) -> Result<Self, RunError> {
        let tokens = match &config.tcp {
            Some(tcp) => Some(tokens::read(&tcp.token_file)?),
            None => None,
        };
        for name in config.access.token_names() {
            if !tokens.as_ref().is_some_and(|tokens| tokens.has(name)) {
                warn!(
                    token = %name,
                    "a grant is for a token that the token file doesn't have"
                );
            }
        }
        let auditor = Arc::new(Auditor::open(&config.audit, &config.state_dir)?);
        Ok(Self {
            listeners: Listeners::bind(config)?,
            access: config.access.clone(),
            tokens,
            auditor,
            limits: bounded(config.api.limits, descriptors),
        })
    }
}

/// Raises the limit of open files to its maximum, and returns it: each connection is a
/// descriptor, and the customary limit is 1,024.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current
}

/// Limits connections to a quarter of the descriptors, so that the agent can work while
/// all connections are taken.
fn bounded(mut limits: ApiLimits, descriptors: Option<u64>) -> ApiLimits {
    let quarter = descriptors.map_or(usize::MAX, |descriptors| {
        usize::try_from(descriptors / 4).unwrap_or(usize::MAX)
    });
    if limits.connections > quarter {
        let most = quarter.max(1);
        info!(
            connections = most,
            wanted = limits.connections,
            descriptors,
            "fewer connections than api.limits.connections: LimitNOFILE is low"
        );
        limits.connections = most;
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_agents_work() {
        let connections = |descriptors| bounded(ApiLimits::default(), descriptors).connections;
        let wanted = ApiLimits::default().connections;
        assert_eq!(connections(None), wanted);
        assert_eq!(connections(Some(4 * wanted as u64)), wanted);
        assert_eq!(connections(Some(64)), 16);
        assert_eq!(connections(Some(1)), 1);
    }
}
