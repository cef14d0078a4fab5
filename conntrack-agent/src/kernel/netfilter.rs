//! Reads an `nf_tables` table by netlink.
//!
//! Running nft takes 3 ms, and a start asks once for each namespace. The
//! kernel's answer is not interpreted, as nft's expressions are its own
//! business. It is only made comparable, so that a table can be recognised as
//! equal to another that nft made.

mod listing;
mod message;
#[cfg(test)]
mod tests;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::netlink::receive_from_kernel;
pub(super) use listing::Listing;
pub(super) use message::{DumpPart, NAME_OF_TYPE, ObjectKind, SET, TABLE, attributes};
use message::{Reply, answers, request, write_attribute};

/// The number of attempts to read a table that changes meanwhile.
const ATTEMPTS: usize = 3;

/// The most that the kernel puts into one datagram of a dump, if the buffer
/// allows it (`netlink_dump`, `net/netlink/af_netlink.c`).
const DATAGRAM: usize = 32 * 1024;

/// The content of a table in a comparable form: all that can differ between two
/// tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dump(Vec<u8>);

/// The state of a table of a certain name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TableState {
    Absent,
    Table(Dump),
    /// The table changed each time while it was read.
    Changing,
}

/// Reads the table of family inet in the calling thread's network namespace.
///
/// # Errors
/// The error of netlink(7): EPERM without `CAP_NET_ADMIN`; an answer that can't
/// be read.
pub(super) fn table(name: &str) -> io::Result<TableState> {
    for _ in 0..ATTEMPTS {
        let mut reading = Reading::new(name)?;
        return match reading.read() {
            Ok(()) => Ok(TableState::Table(Dump(reading.dump))),
            Err(Stop::Absent) => Ok(TableState::Absent),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Changed) => continue,
        };
    }
    Ok(TableState::Changing)
}

/// The reason why a reading ends early.
enum Stop {
    Absent,
    Changed,
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// One attempt to read a table. It has a socket of its own, because a socket
/// whose dump was left half-way can't take the next request.
struct Reading<'a> {
    socket: Socket,
    table: &'a str,
    sequence: u32,
    generation: Option<[u8; 2]>,
    buffer: Vec<u8>,
    dump: Vec<u8>,
}

impl<'a> Reading<'a> {
    fn new(table: &'a str) -> io::Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        // The kernel answers during the request (`nfnetlink_rcv`): an answer
        // that isn't there yet will never come.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            table,
            sequence: 0,
            generation: None,
            buffer: Vec::with_capacity(DATAGRAM),
            dump: Vec::new(),
        })
    }

    fn read(&mut self) -> Result<(), Stop> {
        let mut dump = Vec::new();
        self.each(ObjectKind::Table, None, |part| part.write(&mut dump))?;
        let mut sets = Vec::new();
        for kind in [
            ObjectKind::Chain,
            ObjectKind::Object,
            ObjectKind::Set,
            ObjectKind::Rule,
        ] {
            self.each(kind, None, |part| {
                if let (ObjectKind::Set, Some(name)) = (kind, part.attribute(SET)?) {
                    sets.push(name.to_vec());
                }
                part.write(&mut dump)
            })?;
        }
        for set in sets {
            let mut elements = Vec::new();
            self.each(ObjectKind::Element, Some(&set), |part| {
                elements.extend(part.elements()?.into_iter().map(<[u8]>::to_vec));
                Ok(())
            })?;
            // Each set has a hash function of its own (`nft_hash_init`,
            // `net/netfilter/nft_set_hash.c`), so the elements' order says
            // nothing.
            elements.sort_unstable();
            write_attribute(SET, &set, &mut dump);
            for element in elements {
                write_attribute(0, &element, &mut dump);
            }
        }
        self.dump = dump;
        Ok(())
    }

    /// Asks for the table's objects of one kind, and passes each to `take`.
    fn each(
        &mut self,
        kind: ObjectKind,
        set: Option<&[u8]>,
        mut take: impl FnMut(&DumpPart<'_>) -> io::Result<()>,
    ) -> Result<(), Stop> {
        self.sequence += 1;
        self.ask(&request(kind, self.table, set, self.sequence))?;
        loop {
            self.receive()?;
            for answer in answers(&self.buffer, kind, self.sequence) {
                let part = match answer? {
                    Reply::Part(part) => part,
                    Reply::Done => return Ok(()),
                    Reply::Interrupted => return Err(Stop::Changed),
                    Reply::Refused(error) => return Err(refused(kind, error)),
                };
                // The kernel sends the chains of all tables of the family.
                if !part.is_of(self.table)? {
                    continue;
                }
                if *self.generation.get_or_insert(part.generation) != part.generation {
                    return Err(Stop::Changed);
                }
                take(&part)?;
                // This is the one answer that is no dump, and so has no end.
                if kind == ObjectKind::Table {
                    return Ok(());
                }
            }
        }
    }

    fn ask(&self, question: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(question, &kernel, 0).map(|_| ())
    }

    /// Receives one datagram from the kernel into the buffer.
    fn receive(&mut self) -> io::Result<()> {
        receive_from_kernel(&self.socket, &mut self.buffer)
    }
}

/// Returns the reason for an error: the table, or a set whose elements were
/// asked for, is not there (any more).
fn refused(kind: ObjectKind, error: io::Error) -> Stop {
    match (error.kind(), kind) {
        (io::ErrorKind::NotFound, ObjectKind::Table) => Stop::Absent,
        (io::ErrorKind::NotFound, _) => Stop::Changed,
        _ => Stop::Failed(error),
    }
}
