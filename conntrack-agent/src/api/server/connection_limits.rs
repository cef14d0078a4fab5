//! How many may come in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PeerAccount;
use crate::{access::Principal, config::ApiLimits};

/// How many connections there are, in all and for each peer.
pub(super) struct ConnectionLimits {
    all: Arc<Semaphore>,
    of_peers: Mutex<HashMap<PeerAccount, Arc<Semaphore>>>,
    limits: ApiLimits,
}

/// One connection's place.
pub(super) struct AdmittedConnection {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    pub(super) fn new(limits: ApiLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            of_peers: Mutex::new(HashMap::new()),
            limits,
        }
    }

    pub(super) fn admit(&self, peer: &Principal) -> Result<AdmittedConnection, String> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let of_all = all.map_err(|_| {
            let most = self.limits.connections;
            format!("{most} connections are open already; try again")
        })?;
        let most = self.limits.connections_per_peer;
        let mut peers = self.of_peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone need no account.
        if peers.len() > 1024 {
            peers.retain(|_, account| account.available_permits() < most);
        }
        let account = peers.entry(PeerAccount::of(peer));
        let account = account.or_insert_with(|| Arc::new(Semaphore::new(most)));
        let of_peer = Arc::clone(account).try_acquire_owned();
        let of_peer = of_peer
            .map_err(|_| format!("{most} connections of this peer are open already; try again"))?;
        Ok(AdmittedConnection {
            _of_all: of_all,
            _of_peer: of_peer,
        })
    }
}
