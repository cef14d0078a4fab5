//! Limits the connections, in all and for each peer account.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PeerAccount;
use crate::{access::Principal, config::ApiLimits};

/// The free places of connections, in all and for each account.
pub(super) struct ConnectionLimits {
    all: Arc<Semaphore>,
    of_peers: Mutex<HashMap<PeerAccount, Arc<Semaphore>>>,
    limits: ApiLimits,
}

/// The place of a connection; dropping it frees the place.
pub(super) struct AdmittedConnection {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// Returns the places that these limits allow.
    pub(super) fn new(limits: ApiLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            of_peers: Mutex::new(HashMap::new()),
            limits,
        }
    }

    /// Takes a place for a connection of this peer, or returns the reason for a refusal.
    pub(super) fn admit(&self, peer: &Principal) -> Result<AdmittedConnection, String> {
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            let most = self.limits.connections;
            format!("{most} connections are open already; try again")
        })?;
        let most = self.limits.connections_per_peer;
        let mut peers = self.of_peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Accounts without a connection are removed, so that their number stays bounded.
        if peers.len() > 1024 {
            peers.retain(|_, account| account.available_permits() < most);
        }
        let account = peers
            .entry(PeerAccount::of(peer))
            .or_insert_with(|| Arc::new(Semaphore::new(most)));
        let of_peer = Arc::clone(account)
            .try_acquire_owned()
            .map_err(|_| format!("{most} connections of this peer are open already; try again"))?;
        Ok(AdmittedConnection {
            _of_all: of_all,
            _of_peer: of_peer,
        })
    }
}
