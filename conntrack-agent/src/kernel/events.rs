//! Reads the ring buffer of new connections that the programs write.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Map, MapData, MapInfo, PerCpuArray, RingBuf};
use conntrack_ebpf::{
    abi,
    event::{self, Limiter},
};
use tracing::warn;

use super::{Error, Pins};
use crate::model::{Destination, Protocol, RouterId};

/// A [`Limiter`] as plain numbers.
type RawLimiter = [u64; size_of::<Limiter>() / size_of::<u64>()];

/// A packet that matches a rule and may be the first of its connection: a TCP SYN,
/// or the first UDP packet of a flow in two minutes, as far as the CPU remembers the
/// flows that it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// The time of its arrival: the time since the host started, without suspended
    /// time (`CLOCK_MONOTONIC`), with the precision of the kernel's tick.
    pub at: Duration,
    /// The router that it arrived at.
    pub router: RouterId,
    /// The number of the interface that it arrived on, in that interface's
    /// namespace.
    pub interface: u32,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The packet's source, before the router translates any address.
    pub source: SocketAddr,
    /// The packet's destination, likewise untranslated.
    pub destination: SocketAddr,
    /// The helper mark of its rule.
    pub mark: u32,
}

impl NewConnection {
    /// Returns the destination of its rule.
    #[must_use]
    pub const fn rule(&self) -> Destination {
        Destination {
            protocol: self.protocol,
            port: self.destination.port(),
        }
    }
}

/// The reason why an entry of the ring buffer is none that a program of this ABI
/// writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEvent {
    /// The entry is too long or too short.
    #[error("it has {0} bytes and not {size}", size = event::Opened::SIZE)]
    Length(usize),
    /// The entry's family is neither 4 nor 6.
    #[error("it is of IP version {0}")]
    Family(u8),
    /// The entry's protocol carries no helper's control connection.
    #[error("it is of IP protocol {0}, and TCP is 6, UDP 17")]
    Protocol(u8),
}

impl TryFrom<&[u8]> for NewConnection {
    type Error = UnreadableEvent;

    fn try_from(entry: &[u8]) -> Result<Self, UnreadableEvent> {
        let event = event::Opened::from_bytes(entry).ok_or(UnreadableEvent::Length(entry.len()))?;
        let [s0, s1, d0, d1] = event.flow.addresses;
        let address = |words: [u64; 2]| address(event.family, words);
        let [f0, f1, t0, t1] = event.flow.ports.to_ne_bytes();
        let (from, to) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([t0, t1]));
        Ok(Self {
            at: Duration::from_nanos(event.at),
            router: RouterId::from_words(event.router),
            interface: event.flow.interface,
            protocol: match event.protocol {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                other => return Err(UnreadableEvent::Protocol(other)),
            },
            source: SocketAddr::new(address([s0, s1])?, from),
            destination: SocketAddr::new(address([d0, d1])?, to),
            mark: event.mark,
        })
    }
}

const TCP: u8 = Protocol::Tcp as u8;
const UDP: u8 = Protocol::Udp as u8;

/// Returns the address in the words that hold its bytes; IPv4 uses the first four
/// bytes.
fn address(family: u8, words: [u64; 2]) -> Result<IpAddr, UnreadableEvent> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(words.map(u64::to_ne_bytes).as_flattened());
    match family {
        4 => {
            let [a, b, c, d, ..] = bytes;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        6 => Ok(Ipv6Addr::from(bytes).into()),
        other => Err(UnreadableEvent::Family(other)),
    }
}

/// The numbers of events over all CPUs, since the maps were made. Their sum is the
/// number of packets that an event was due for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of events written to the ring buffer.
    pub sent: u64,
    /// The number of events not written because there were too many at once:
    /// [`EVENTS_PER_WINDOW`](event::EVENTS_PER_WINDOW) on each CPU.
    pub limited: u64,
    /// The number of events not written because the ring buffer was full, as no
    /// reader emptied it.
    pub full: u64,
}

impl Tally {
    /// Returns the programs' counts, or `None` if nothing is pinned, as no router
    /// has rules. Takes nothing from a reader.
    ///
    /// # Errors
    /// [`Error::Map`] if it can't be read.
    pub fn read(pins: &Pins) -> Result<Option<Self>, Error> {
        let Some((_, limiter)) = open(&pins.shared(), abi::LIMITER)? else {
            return Ok(None);
        };
        let limiter = limiter.try_into();
        tally(&limiter.map_err(Error::map("shape", abi::LIMITER))?).map(Some)
    }

    /// Returns the number of events that were lost, for either reason.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.limited.wrapping_add(self.full)
    }

    fn add(self, [_window, _in_window, sent, limited, full, ..]: &RawLimiter) -> Self {
        Self {
            sent: self.sent.wrapping_add(*sent),
            limited: self.limited.wrapping_add(*limited),
            full: self.full.wrapping_add(*full),
        }
    }
}

/// The events that an older ring buffer lost before this agent began; an agent
/// before this one may have reported them.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    ring_id: u32,
    lost: u64,
}

/// The reader of the ring buffer that all instances of an agent write to.
///
/// There must be only one at a time: what one reader has read the others never see,
/// and two that read at once see some entries twice. Its descriptor ([`AsFd`]) is
/// readable when there is something to read (poll(2)).
pub struct EventReader {
    ring: RingBuf<MapData>,
    ring_id: u32,
    limiter: PerCpuArray<MapData, RawLimiter>,
    folder: PathBuf,
    unreadable: u64,
}

impl EventReader {
    /// Opens the pinned ring buffer. Returns `None` if nothing is pinned, as no
    /// router has rules. Entries that were written before and never read come first.
    ///
    /// # Errors
    /// [`Error::Map`] if what is pinned can't be opened, or isn't what it should
    /// be.
    pub fn open(pins: &Pins) -> Result<Option<Self>, Error> {
        let folder = pins.shared();
        let Some((ring_id, ring)) = open(&folder, abi::EVENTS)? else {
            return Ok(None);
        };
        let Some((_, limiter)) = open(&folder, abi::LIMITER)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            ring: ring.try_into().map_err(Error::map("shape", abi::EVENTS))?,
            ring_id,
            limiter: limiter
                .try_into()
                .map_err(Error::map("shape", abi::LIMITER))?,
            folder,
            unreadable: 0,
        }))
    }

    /// Returns what was lost so far, or `None` if nothing is pinned or it can't be
    /// read.
    #[must_use]
    pub fn inherited(pins: &Pins) -> Option<Inherited> {
        let events = Self::open(pins).ok()??;
        Some(Inherited {
            ring_id: events.ring_id,
            lost: events.tally().ok()?.lost(),
        })
    }

    /// Returns what this ring buffer lost before the agent began; 0 for one that was
    /// made since.
    #[must_use]
    pub fn lost_before(&self, inherited: Option<Inherited>) -> u64 {
        let same = inherited.filter(|inherited| inherited.ring_id == self.ring_id);
        same.map_or(0, |inherited| inherited.lost)
    }

    /// Returns whether the ring buffer that it reads is still the pinned one, which
    /// programs write to. It isn't after the last rule went and another came, or
    /// after somebody removed the pin. Then this one has to be read to its end, and
    /// the pinned one opened.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        let pinned = MapInfo::from_pin(self.folder.join(abi::EVENTS));
        pinned.is_ok_and(|map| map.id() == self.ring_id)
    }

    /// Takes at most `most` entries, the oldest first. Never waits. Fewer than
    /// `most` means that there were no more, apart from entries that could not be
    /// read.
    pub fn read(&mut self, most: usize) -> Vec<NewConnection> {
        let mut all = Vec::new();
        for _ in 0..most {
            let Some(entry) = self.ring.next() else { break };
            match NewConnection::try_from(&*entry) {
                Ok(opened) => all.push(opened),
                Err(error) => {
                    // Logged once: if there is one, there are thousands.
                    if self.unreadable == 0 {
                        warn!(%error, "an event of a new connection cannot be read");
                    }
                    self.unreadable += 1;
                }
            }
        }
        all
    }

    /// Returns the number of entries that could not be read so far.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Returns the programs' counts.
    ///
    /// # Errors
    /// [`Error::Map`] if it can't be read.
    pub fn tally(&self) -> Result<Tally, Error> {
        tally(&self.limiter)
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl fmt::Debug for EventReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Events")
            .field("folder", &self.folder)
            .field("unreadable", &self.unreadable)
            .finish_non_exhaustive()
    }
}

fn tally(limiter: &PerCpuArray<MapData, RawLimiter>) -> Result<Tally, Error> {
    let of_cpus = limiter.get(&0, 0);
    let of_cpus = of_cpus.map_err(Error::map("reading", abi::LIMITER))?;
    Ok(of_cpus.iter().fold(Tally::default(), Tally::add))
}

/// Opens a pinned map. Returns its kernel id as well, or `None` if there is no pin.
fn open(folder: &Path, name: &'static str) -> Result<Option<(u32, Map)>, Error> {
    use aya::maps::MapError::SyscallError;
    let map = match MapData::from_pin(folder.join(name)) {
        Err(SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        map => map.map_err(Error::map("opening", name))?,
    };
    let info = map.info().map_err(Error::map("examining", name))?;
    let map = Map::from_map_data(map).map_err(Error::map("shape", name))?;
    Ok(Some((info.id(), map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

    /// As the program writes it: the fields of `event::Opened`, in memory.
    fn entry(family: u8, protocol: u8, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let router: RouterId = ROUTER.parse().unwrap();
        let mut bytes = 1_500_000_000_u64.to_ne_bytes().to_vec();
        bytes.extend(router.to_words().map(u64::to_ne_bytes).as_flattened());
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(40_000_u16.to_be_bytes());
        bytes.extend(2121_u16.to_be_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(9_u16.to_ne_bytes());
        bytes.extend([protocol, family]);
        bytes
    }

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    #[test]
    fn an_entry_says_who_talks_to_whom() {
        let opened = NewConnection::try_from(&*entry(4, 6, v4([10, 0, 1, 2]), v4([10, 0, 2, 2])));
        let expected = NewConnection {
            at: Duration::from_millis(1_500),
            router: ROUTER.parse().unwrap(),
            interface: 7,
            protocol: Protocol::Tcp,
            source: "10.0.1.2:40000".parse().unwrap(),
            destination: "10.0.2.2:2121".parse().unwrap(),
            mark: 3,
        };
        assert_eq!(opened, Ok(expected));
        assert_eq!(
            expected.rule(),
            Destination {
                protocol: Protocol::Tcp,
                port: 2121
            }
        );

        let [client, server] = ["fd00:1::2", "fd00:2::2"].map(|ip| ip.parse::<Ipv6Addr>().unwrap());
        let opened =
            NewConnection::try_from(&*entry(6, 17, client.octets(), server.octets())).unwrap();
        assert_eq!(opened.protocol, Protocol::Udp);
        assert_eq!(opened.source, "[fd00:1::2]:40000".parse().unwrap());
        assert_eq!(opened.destination, "[fd00:2::2]:2121".parse().unwrap());
    }

    #[test]
    fn what_no_program_writes_is_no_event() {
        let good = entry(4, 17, [1; 16], [2; 16]);
        assert!(NewConnection::try_from(&*good).is_ok());
        let refused = |entry: &[u8]| NewConnection::try_from(entry).unwrap_err();
        assert_eq!(refused(&[]), UnreadableEvent::Length(0));
        assert_eq!(refused(&good[1..]), UnreadableEvent::Length(71));
        let longer = [&good[..], &[0]].concat();
        assert_eq!(refused(&longer), UnreadableEvent::Length(73));
        for family in [0, 5, 7, 255] {
            let entry = entry(family, 17, [1; 16], [2; 16]);
            assert_eq!(refused(&entry), UnreadableEvent::Family(family));
        }
        for protocol in [0, 1, 132, 136] {
            let entry = entry(6, protocol, [1; 16], [2; 16]);
            assert_eq!(refused(&entry), UnreadableEvent::Protocol(protocol));
        }
        let text = UnreadableEvent::Length(3).to_string();
        assert_eq!(text, "it has 3 bytes and not 72");
    }

    #[test]
    fn the_tally_is_the_sum_over_cpus() {
        let raw = |numbers: [u64; 5]| {
            let mut raw = RawLimiter::default();
            raw[..5].copy_from_slice(&numbers);
            raw
        };
        let of_cpus = [[1, 2, 10, 20, 30], [3, 4, 100, 200, 300]].map(raw);
        let tally = of_cpus.iter().fold(Tally::default(), Tally::add);
        let expected = Tally {
            sent: 110,
            limited: 220,
            full: 330,
        };
        assert_eq!((tally, tally.lost()), (expected, 550));
    }

    #[test]
    fn where_nothing_is_pinned_there_are_no_events() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            EventReader::open(&Pins::new(folder.path()))
                .unwrap()
                .is_none()
        );
    }
}
