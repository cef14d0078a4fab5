//! rtnetlink, asked and answered in turn (rtnetlink(7), RFC 3549).
//!
//! Synchronous: the agent's calls take microseconds, inside a thread that lives
//! for nothing else. Answers are handed over as they came: what a foreign
//! qdisc, filter or interface says about itself may be of any shape, and must
//! not keep the agent from its own.

use std::io;

use netlink_packet_core::{
    DecodeError, ErrorBuffer, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

/// The kernel fills no larger buffer in one answer (`netlink_dump`,
/// net/netlink/af_netlink.c).
const BUFFER: usize = 32 << 10;

/// How often a listing is asked for that changes while it is being made.
const ATTEMPTS: usize = 16;

/// A socket of the namespace that it was opened in.
pub(super) struct Route {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// socket(2).
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(NETLINK_ROUTE)?,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Everything that `request` asks a listing of, as `read` understands the
    /// messages' payload; it passes over what it gives none for.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` for an answer that can't be read;
    /// `Interrupted` if the listing changed each time while it was made.
    pub(super) fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        mut read: impl FnMut(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            self.send(request, NLM_F_DUMP)?;
            let mut found = Vec::new();
            let is_whole = self.answers(|payload| {
                found.extend(read(payload)?);
                Ok(())
            })?;
            if is_whole {
                return Ok(found);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "it changed each time while it was being listed",
        ))
    }

    /// Has the kernel do what `request` says.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn change(&mut self, request: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(request, NLM_F_ACK | flags)?;
        self.answers(|_| Ok(())).map(|_| ())
    }

    fn send(&mut self, request: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, request.clone().into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads the answers to the last request. Returns whether they are of one
    /// moment.
    fn answers(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            self.receive()?;
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(unreadable)?;
                // As long as the kernel says, and as aligned messages are.
                let length = usize::try_from(message.length()).map_err(io::Error::other)?;
                rest = rest
                    .get(length.next_multiple_of(usize::from(NLMSG_ALIGNTO)).max(1)..)
                    .unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue;
                }
                is_whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE | NLMSG_ERROR => {
                        status(message.payload())?;
                        return Ok(is_whole);
                    }
                    NLMSG_NOOP => {}
                    _ => each(message.payload()).map_err(unreadable)?,
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        // The length comes back whole even where it didn't fit.
        let length = self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)?;
        if length != self.buffer.len() || length == 0 {
            return Err(unreadable("of no length that the kernel sends"));
        }
        Ok(())
    }
}

/// What an acknowledgement says, or the end of a listing: an error's number,
/// negative, or 0 (include/uapi/linux/netlink.h, `struct nlmsgerr`).
fn status(payload: &[u8]) -> io::Result<()> {
    // Linux may end a listing with nothing at all.
    if payload.is_empty() {
        return Ok(());
    }
    let error = ErrorBuffer::new_checked(payload).map_err(unreadable)?;
    match error.code() {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
    }
}

fn unreadable(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The value of the first attribute of a kind; none if there is none.
///
/// # Errors
/// If the attributes' lengths are none.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            let length = usize::from(attribute.length());
            return Ok(attribute.into_inner().get(NLA_HEADER_SIZE..length));
        }
    }
    Ok(None)
}

/// Whether an error is this one of the kernel's.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
