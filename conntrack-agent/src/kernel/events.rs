//! Reads the ring buffer of new connections that the programs write.

mod new_connection;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf};
use conntrack_ebpf::{abi, event::Limiter};
use tracing::warn;

pub use new_connection::{NewConnection, UnreadableEvent};

use super::{Error, Pins};

/// A [`Limiter`] as plain numbers.
type RawLimiter = [u64; size_of::<Limiter>() / size_of::<u64>()];

/// The numbers of events over all CPUs, since the maps were made. Their sum is the
/// number of packets that an event was due for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of events written to the ring buffer.
    pub sent: u64,
    /// The number of events not written because there were too many at once:
    /// [`EVENTS_PER_WINDOW`](conntrack_ebpf::event::EVENTS_PER_WINDOW) on each CPU.
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
        tally(&shaped(limiter, abi::LIMITER)?).map(Some)
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
            ring: shaped(ring, abi::EVENTS)?,
            ring_id,
            limiter: shaped(limiter, abi::LIMITER)?,
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
            .debug_struct("EventReader")
            .field("folder", &self.folder)
            .field("unreadable", &self.unreadable)
            .finish_non_exhaustive()
    }
}

fn tally(limiter: &PerCpuArray<MapData, RawLimiter>) -> Result<Tally, Error> {
    let of_cpus = limiter
        .get(&0, 0)
        .map_err(Error::map("reading", abi::LIMITER))?;
    Ok(of_cpus.iter().fold(Tally::default(), Tally::add))
}

/// Opens a pinned map. Returns its kernel id as well, or `None` if there is no pin.
fn open(folder: &Path, name: &'static str) -> Result<Option<(u32, Map)>, Error> {
    let map = match MapData::from_pin(folder.join(name)) {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        map => map.map_err(Error::map("opening", name))?,
    };
    let info = map.info().map_err(Error::map("examining", name))?;
    let typed = Map::from_map_data(map).map_err(Error::map("shape", name))?;
    Ok(Some((info.id(), typed)))
}

/// Returns the map as one of the kind that it should be.
fn shaped<T: TryFrom<Map, Error = MapError>>(map: Map, name: &'static str) -> Result<T, Error> {
    map.try_into().map_err(Error::map("shape", name))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let opened = EventReader::open(&Pins::new(folder.path())).unwrap();
        assert!(opened.is_none(), "{opened:?}");
    }
}
