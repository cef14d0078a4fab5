//! Watches the namespaces of routers: which exist, and what their netlink sockets report.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, sync::Arc};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
};
use tracing::warn;

use super::{
    super::{Error, Netns, NetnsIdentity, RouterNamespaces},
    budget::{Budget, FdPermit},
    message,
};
use crate::model::RouterId;

/// The groups `RTNLGRP_LINK` and `RTNLGRP_TC` of include/uapi/linux/rtnetlink.h, as bits.
const LINKS: u32 = 1 << 0 | 1 << 3;
/// The group `NFNLGRP_NFTABLES` of include/uapi/linux/netfilter/nfnetlink.h, as a bit.
const TABLES: u32 = 1 << 6;
/// The size of the buffer for a datagram. The kernel packs notifications into at most 8
/// KiB (`NLMSG_GOODSIZE`).
const DATAGRAM: usize = 1 << 14;
/// The number of datagrams read from one socket before others have their turn.
const AT_ONCE: usize = 256;

/// The namespaces that exist, by name.
pub(super) struct Namespaces {
    routers: RouterNamespaces,
    /// The name of the agent's binding.
    table: String,
    budget: Arc<Budget>,
    known: BTreeMap<String, Known>,
    /// The name of the namespace that an event's number belongs to.
    numbers: BTreeMap<u64, String>,
    next_number: u64,
    buffer: Vec<u8>,
}

struct Known {
    router: RouterId,
    identity: NetnsIdentity,
    state: NamespaceFile,
}

enum NamespaceFile {
    /// The name is a plain file: the namespace may be mounted onto it yet.
    Plain,
    /// The namespace could not be watched, which is to be tried again.
    Unwatched,
    Watched(Sockets),
}

/// The sockets opened inside the namespace. They keep it alive, so they are closed as
/// soon as its name is gone or belongs to another.
struct Sockets {
    links: Socket,
    tables: Socket,
    number: u64,
    _permit: FdPermit,
}

impl Namespaces {
    pub(super) fn new(
        routers: RouterNamespaces,
        table: String,
        budget: Arc<Budget>,
        first_number: u64,
    ) -> Self {
        Self {
            routers,
            table,
            budget,
            known: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: first_number,
            buffer: vec![0; DATAGRAM],
        }
    }

    /// What routers' namespaces are called, and where they are.
    pub(super) const fn routers(&self) -> &RouterNamespaces {
        &self.routers
    }

    /// Compares a router's names with what is known of them. Returns whether something
    /// has changed.
    pub(super) fn survey(&mut self, epoll: &OwnedFd, router: RouterId) -> bool {
        let names: Vec<_> = self.routers.names_of(router).collect();
        let mut has_changed = false;
        for name in names {
            has_changed |= self.survey_name(epoll, router, name);
        }
        has_changed
    }

    fn survey_name(&mut self, epoll: &OwnedFd, router: RouterId, name: String) -> bool {
        // A name that can't be examined is for the look to complain about.
        let identity = self.routers.folder().identity(&name).ok().flatten();
        let known = self.known.get(&name);
        let has_changed = known.map(|known| known.identity) != identity;
        let is_settled = known.is_none_or(|known| !matches!(known.state, NamespaceFile::Unwatched));
        if !has_changed && is_settled {
            return false;
        }
        self.close(epoll, &name);
        if let Some(identity) = identity {
            let state = self.open(epoll, &name, identity).unwrap_or_else(|error| {
                // An error that repeats at each attempt is logged once.
                if has_changed {
                    let error: &dyn std::error::Error = &error;
                    warn!(
                        namespace = name,
                        error, "what happens in it is not seen at once"
                    );
                }
                NamespaceFile::Unwatched
            });
            let known = Known {
                router,
                identity,
                state,
            };
            self.known.insert(name, known);
        }
        has_changed
    }

    fn open(
        &mut self,
        epoll: &OwnedFd,
        name: &str,
        identity: NetnsIdentity,
    ) -> Result<NamespaceFile, Error> {
        match self.routers.folder().open(name)? {
            // It has come to mean another since: the next survey sees to that.
            Some(netns) if netns.identity()? != identity => Ok(NamespaceFile::Unwatched),
            Some(netns) => self.listen(epoll, &netns),
            None => Ok(NamespaceFile::Plain),
        }
    }

    fn listen(&mut self, epoll: &OwnedFd, netns: &Netns) -> Result<NamespaceFile, Error> {
        let Some(permit) = self.budget.take(2) else {
            return Ok(NamespaceFile::Unwatched);
        };
        let failed = |source| Error::Namespace {
            name: netns.name().to_owned(),
            what: "cannot be listened to",
            source,
        };
        let number = self.next_number;
        let sockets = netns.enter(|| {
            let socket = |protocol, groups| -> io::Result<Socket> {
                let mut socket = Socket::new(protocol)?;
                socket.bind(&SocketAddr::new(0, groups))?;
                epoll::add(epoll, &socket, EventData::new_u64(number), EventFlags::IN)?;
                Ok(socket)
            };
            let links = socket(NETLINK_ROUTE, LINKS).map_err(failed)?;
            let tables = socket(NETLINK_NETFILTER, TABLES).map_err(failed)?;
            Ok((links, tables))
        });
        let (links, tables) = sockets?;
        self.next_number += 1;
        self.numbers.insert(number, netns.name().to_owned());
        Ok(NamespaceFile::Watched(Sockets {
            links,
            tables,
            number,
            _permit: permit,
        }))
    }

    fn close(&mut self, epoll: &OwnedFd, name: &str) {
        let known = self.known.remove(name);
        if let Some(NamespaceFile::Watched(sockets)) = known.map(|known| known.state) {
            self.numbers.remove(&sockets.number);
            for socket in [&sockets.links, &sockets.tables] {
                // Closing the socket removes it too, unless a child still has it open.
                let _ = epoll::delete(epoll, socket);
            }
        }
    }

    /// Stops watching a router's namespaces.
    pub(super) fn leave(&mut self, epoll: &OwnedFd, router: RouterId) {
        let names: Vec<_> = self.routers.names_of(router).collect();
        for name in names {
            self.close(epoll, &name);
        }
    }

    /// Returns whether a namespace should be tried again.
    pub(super) fn is_incomplete(&self) -> bool {
        let mut all = self.known.values();
        all.any(|known| !matches!(known.state, NamespaceFile::Watched(_)))
    }

    /// Reads what has come for this number. Returns the router if it is news.
    ///
    /// # Errors
    /// The router, if its sockets are no longer of use: the next survey opens others.
    pub(super) fn read(
        &mut self,
        epoll: &OwnedFd,
        number: u64,
    ) -> Result<Option<RouterId>, RouterId> {
        let name = self.numbers.get(&number);
        let Some((name, known)) = name.and_then(|name| self.known.get_key_value(name)) else {
            return Ok(None);
        };
        let NamespaceFile::Watched(sockets) = &known.state else {
            return Ok(None);
        };
        let router = known.router;
        let buffer = &mut self.buffer;
        let links = drain(&sockets.links, buffer, |_| true);
        let tables = drain(&sockets.tables, buffer, |datagram| {
            message::concern(datagram, &self.table)
        });
        match links.and_then(|links| Ok(links | tables?)) {
            Ok(is_news) => Ok(is_news.then_some(router)),
            Err(error) => {
                warn!(namespace = name, %error, "it cannot be listened to any more");
                let name = name.clone();
                self.close(epoll, &name);
                Err(router)
            }
        }
    }
}

/// Reads until there is no more, or until others must have their turn. Returns whether
/// anything concerns the agent.
fn drain(socket: &Socket, buffer: &mut [u8], concerns: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut is_news = false;
    for _ in 0..AT_ONCE {
        match socket.recv(&mut &mut *buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(length) => {
                // A truncated datagram may have been about anything.
                is_news |= buffer.get(..length).is_none_or(&concerns);
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => break,
                Some(Errno::INTR) => {}
                // The kernel had no room for some notifications: netlink(7).
                Some(Errno::NOBUFS) => is_news = true,
                _ => return Err(error),
            },
        }
    }
    Ok(is_news)
}
