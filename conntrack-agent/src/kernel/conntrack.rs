//! Queries a network namespace's conntrack by ctnetlink.
//!
//! One connection is asked about at a time, because no more is wanted: the
//! programs tell which connections are a helper's. Events for all connections of
//! a namespace (`NFNLGRP_CONNTRACK_NEW`) would make the kernel build one for
//! each connection of each router, on the packet's path.

mod message;

use std::{io, net::SocketAddr};

use netlink_sys::{Socket, SocketAddr as Peer, protocols::NETLINK_NETFILTER};

use super::netlink::{part, receive_from_kernel};
use crate::model::Protocol;
use message::{ConntrackQuery, question};
pub use message::{Tracked, Usage};

/// The most that the kernel puts into one datagram of a dump, if the buffer
/// allows it (`netlink_dump`, `net/netlink/af_netlink.c`).
const DATAGRAM: usize = 32 * 1024;

/// The addresses and protocol of a connection, as its first packet has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The packet's source.
    pub source: SocketAddr,
    /// The packet's destination, of the same family.
    pub destination: SocketAddr,
}

/// The fill level of a namespace's connection tracking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fullness {
    /// The number of connections, and the limit.
    pub usage: Usage,
    /// The number of expectations.
    pub expected: usize,
}

/// A socket to the connection tracking of the namespace that it was opened in.
/// The socket keeps the namespace alive.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The error of socket(2).
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        // The kernel answers during the request (`nfnetlink_rcv`): an answer
        // that isn't there yet will never come.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Returns the connection in the default zone that began with this tuple, or
    /// `None` if there is none (any more).
    ///
    /// # Errors
    /// The error of netlink(7): EPERM without `CAP_NET_ADMIN`; an answer that
    /// can't be read.
    pub fn find(&mut self, flow: &OriginalTuple) -> io::Result<Option<Tracked>> {
        let mut found = None;
        let asked = self.ask(ConntrackQuery::Connection(flow), |attributes| {
            found = Tracked::read(attributes)?;
            Ok(())
        });
        match asked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// Returns at most `most` of the connections that were given a helper by the
    /// ruleset.
    ///
    /// # Errors
    /// The same as those of [`Self::find`].
    pub fn with_helper(&mut self, most: usize) -> io::Result<Vec<(OriginalTuple, Tracked)>> {
        let mut all = Vec::new();
        self.ask(ConntrackQuery::WithHelper, |attributes| {
            if all.len() < most
                && let Some(tracked) = Tracked::read(attributes)?
                && tracked.helper.is_some()
                && let Some(flow) = message::flow(attributes)?
            {
                all.push((flow, tracked));
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Returns the fill level.
    ///
    /// # Errors
    /// The same as those of [`Self::find`].
    pub fn fullness(&mut self) -> io::Result<Fullness> {
        Ok(Fullness {
            usage: self.usage()?,
            expected: self.expected()?,
        })
    }

    fn usage(&mut self) -> io::Result<Usage> {
        let mut usage = Usage::default();
        self.ask(ConntrackQuery::Usage, |attributes| {
            usage = Usage::read(attributes)?;
            Ok(())
        })?;
        Ok(usage)
    }

    fn expected(&mut self) -> io::Result<usize> {
        let mut count = 0;
        self.ask(ConntrackQuery::Expectations, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Passes the attributes of each answer to `take`.
    fn ask(
        &mut self,
        what: ConntrackQuery<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), netlink_packet_core::DecodeError>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let kernel = Peer::new(0, 0);
        let question = question(what, self.sequence);
        self.socket.send_to(&question, &kernel, 0)?;
        loop {
            receive_from_kernel(&self.socket, &mut self.buffer)?;
            // The attributes come after `struct nfgenmsg`. A listing that
            // changed meanwhile is as good as an older one.
            let part = part(&self.buffer, self.sequence, &mut |payload: &[u8]| {
                take(payload.get(message::GENERAL..).unwrap_or_default())
            })?;
            if part.is_last {
                return Ok(());
            }
        }
    }
}
