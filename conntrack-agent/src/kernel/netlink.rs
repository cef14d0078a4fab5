//! A blocking rtnetlink client (rtnetlink(7), RFC 3549).
//!
//! The client is synchronous: the agent's calls take microseconds, in a thread
//! that does nothing else. Answers are passed on as they came: what a foreign
//! qdisc, filter or interface says about itself may have any shape, and must not
//! keep the agent from its own.

use std::io;

use netlink_packet_core::{
    DecodeError, ErrorBuffer, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

/// The size of the largest buffer that the kernel fills in one answer
/// (`netlink_dump`, `net/netlink/af_netlink.c`).
const BUFFER: usize = 32 << 10;

/// The number of attempts to read a listing that changes while it is being made.
const ATTEMPTS: usize = 16;

/// A socket in the namespace that it was opened in.
pub(super) struct Route {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The error of socket(2).
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(NETLINK_ROUTE)?,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Returns everything in the listing that `request` asks for, as `read`
    /// understands the messages' payload. A message for which `read` returns
    /// `None` is left out.
    ///
    /// # Errors
    /// The error of the kernel; `InvalidData` for an answer that can't be read;
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

    /// Makes the kernel carry out `request`.
    ///
    /// # Errors
    /// The error of the kernel.
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
            let part = part(&self.buffer, self.sequence, &mut each)?;
            is_whole &= part.is_whole;
            if part.is_last {
                return Ok(is_whole);
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        // `MSG_TRUNC` returns the whole length even where the datagram didn't
        // fit.
        let length = self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)?;
        if length != self.buffer.len() || length == 0 {
            return Err(unreadable("of no length that the kernel sends"));
        }
        Ok(())
    }
}

/// Receives one datagram from the kernel into the buffer. Datagrams of other
/// senders are skipped.
///
/// # Errors
/// The error of recvmsg(2), or one for a datagram that is longer than the
/// buffer.
pub(super) fn receive_from_kernel(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        // `MSG_TRUNC` returns the whole length even where the datagram didn't
        // fit.
        let (length, sender) = socket.recv_from(buffer, libc::MSG_TRUNC)?;
        if sender.port_number() != 0 {
            continue;
        }
        if length != buffer.len() {
            return Err(io::Error::other("the kernel's answer is longer than any"));
        }
        return Ok(());
    }
}

/// A part of the kernel's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MessagePart {
    pub(super) is_last: bool,
    /// Nothing changed while the answer was made.
    is_whole: bool,
}

/// Reads those messages in a buffer that answer the request with this number.
///
/// # Errors
/// The error of the kernel; `InvalidData` for an answer that can't be read.
pub(super) fn part(
    buffer: &[u8],
    sequence: u32,
    mut each: impl FnMut(&[u8]) -> Result<(), DecodeError>,
) -> io::Result<MessagePart> {
    let mut part = MessagePart {
        is_last: false,
        is_whole: true,
    };
    let mut rest = buffer;
    while !rest.is_empty() {
        // A message is at least as long as its header and at most as long as the
        // rest.
        let message = NetlinkBuffer::new_checked(rest).map_err(unreadable)?;
        let length = usize::try_from(message.length()).map_err(io::Error::other)?;
        let next = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(next..).unwrap_or_default();
        if message.sequence_number() != sequence {
            continue;
        }
        part.is_whole &= message.flags() & NLM_F_DUMP_INTR == 0;
        match message.message_type() {
            NLMSG_DONE | NLMSG_ERROR => {
                status(message.payload())?;
                part.is_last = true;
                return Ok(part);
            }
            NLMSG_NOOP => {}
            _ => each(message.payload()).map_err(unreadable)?,
        }
    }
    Ok(part)
}

/// Returns the status in an acknowledgement or at the end of a listing: an
/// error's number, negative, or 0 (include/uapi/linux/netlink.h, `struct
/// nlmsgerr`).
fn status(payload: &[u8]) -> io::Result<()> {
    // Linux may end a listing with an empty payload.
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

/// Returns the value of the first attribute of a kind, or `None` if there is
/// none.
///
/// # Errors
/// An error if an attribute's length is invalid.
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

/// Returns whether an error is this one of the kernel's.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of request 7, as it lies in a buffer.
    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(buffer: &[u8]) -> (io::Result<MessagePart>, Vec<Vec<u8>>) {
        let mut seen = Vec::new();
        let part = part(buffer, 7, |payload| {
            seen.push(payload.to_vec());
            Ok(())
        });
        (part, seen)
    }

    fn of(is_last: bool, is_whole: bool) -> MessagePart {
        MessagePart { is_last, is_whole }
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let done = message(NLMSG_DONE, 0, &0_i32.to_ne_bytes());
        let two = [message(16, 0, b"one"), message(16, 0, b"other")].concat();
        let (part, seen) = read(&two);
        assert_eq!(part.unwrap(), of(false, true));
        assert_eq!(seen, [b"one".to_vec(), b"other".to_vec()]);
        let (part, seen) = read(&[two, done.clone(), message(16, 0, b"after")].concat());
        assert_eq!(part.unwrap(), of(true, true));
        assert_eq!(seen.len(), 2, "nothing comes after the end");
        assert_eq!(
            read(&message(NLMSG_DONE, 0, b"")).0.unwrap(),
            of(true, true)
        );
        let interrupted = [message(16, NLM_F_DUMP_INTR, b"x"), done].concat();
        assert_eq!(read(&interrupted).0.unwrap(), of(true, false));
    }

    #[test]
    fn another_requests_answers_are_passed_over() {
        let mut other = message(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes());
        other[8] = 6;
        let (part, seen) = read(&[other, message(16, 0, b"mine")].concat());
        assert_eq!(part.unwrap(), of(false, true));
        assert_eq!(seen, [b"mine"]);
    }

    #[test]
    fn a_refusal_is_the_kernels_error() {
        let refusal = |number: i32| read(&message(NLMSG_ERROR, 0, &number.to_ne_bytes())).0;
        assert_eq!(refusal(0).unwrap(), of(true, true));
        assert!(is(&refusal(-19).unwrap_err(), Errno::NODEV));
        assert!(refusal(i32::MIN).is_err());
    }

    #[test]
    fn damaged_answers_are_errors_and_never_panics() {
        let good = [
            message(16, 0, b"payload"),
            message(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes()),
        ]
        .concat();
        for end in 0..good.len() {
            let (part, _) = read(&good[..end]);
            // Cut between messages it is whole, but has no end.
            assert!(part.is_err() || !part.unwrap().is_last, "{end}");
        }
        for length in [0, 1, 15, 1 << 20, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(read(&bad).0.is_err(), "{length}");
        }
        assert!(read(&message(NLMSG_ERROR, 0, b"xyz")).0.is_err());
        let attributes: [&[u8]; 4] = [&[1], &[2, 0, 1, 0], &[255, 255, 1, 0], &[9, 0, 1, 0, 1]];
        for bad in attributes {
            assert!(attribute(bad, 1).is_err(), "{bad:?}");
        }
        assert_eq!(
            attribute(&[6, 0, 1, 0, 8, 9, 0, 0], 1).unwrap(),
            Some(&[8, 9][..])
        );
        assert_eq!(attribute(&[4, 0, 1, 0], 1).unwrap(), Some(&[][..]));
        assert_eq!(attribute(&[4, 0, 1, 0], 2).unwrap(), None);
    }
}
