//! One router's instance: its maps and its program, as they are pinned.

mod counting;
mod making;
mod matched;
mod programs;

pub use matched::matched;
pub use programs::{program_names, programs_in};

use std::{
    collections::BTreeSet,
    io,
    mem::discriminant,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{ProgramInfo, SchedClassifier},
    sys::SyscallError,
};
use conntrack_ebpf::abi::{self, COUNTER_GROUP, Destination, Globals, Identity, Page, Slot};

use super::{AgentId, Carrier, Error, Object, bpffs::entries, shared, sys};
use crate::port_table::{Capacity, Edit, Image, PartialTable, Write};

/// The pin of the program, made last: an instance that has it is whole.
pub(super) const PROGRAM: &str = "classify";

/// The pin of the XDP program, where there is one.
const XDP_PROGRAM: &str = "classify_xdp";

/// bpffs knows no name with a dot, so the section is pinned under another.
const GLOBALS_PIN: &str = "globals";

/// [`Counters`] as plain numbers: packets and bytes.
type RawCounters = [u64; 2];
type RawGroup = [RawCounters; COUNTER_GROUP as usize];

/// An instance that is pinned and can be used.
pub struct Instance {
    pages: Array<MapData, Page>,
    slots: Array<MapData, u64>,
    counters: PerCpuArray<MapData, RawGroup>,
    bases: Array<MapData, RawCounters>,
    identity: Array<MapData, [u8; Identity::SIZE]>,
    program: SchedClassifier,
    program_id: u32,
    /// The XDP program and the kernel's id of it.
    xdp: Option<(OwnedFd, u32)>,
    globals: Globals,
}

/// What a folder of pins is worth.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and taken apart at once"
)]
pub enum Usable {
    /// There is nothing.
    Absent,
    /// Something is missing or of another shape: the remains of an agent that
    /// died at work, or somebody's mischief. To be made anew.
    Broken,
    /// A whole instance.
    Whole(Instance),
}

impl Instance {
    /// Opens what is pinned in `folder`.
    ///
    /// # Errors
    /// [`Error`] if the folder can't be read.
    pub fn open(folder: &Path) -> Result<Usable, Error> {
        if entries(folder)?.is_empty() {
            return Ok(if folder.is_dir() {
                Usable::Broken
            } else {
                Usable::Absent
            });
        }
        Ok(match open_whole(folder) {
            Ok(instance) => Usable::Whole(instance),
            Err(error) => {
                tracing::debug!(%error, folder = %folder.display(), "broken instance");
                Usable::Broken
            }
        })
    }

    /// Who loaded what is pinned in `folder`, as far as it can tell: its globals
    /// are pinned before the program and removed last.
    #[must_use]
    pub fn owner_of(folder: &Path) -> Option<AgentId> {
        let globals = open_globals(folder).ok()?;
        Some(AgentId::from_bytes(globals.agent))
    }

    /// Which agent loaded it.
    #[must_use]
    pub const fn owner(&self) -> AgentId {
        AgentId::from_bytes(self.globals.agent)
    }

    /// Whether it was loaded as `object` would load it now, or has an XDP program
    /// beyond that.
    #[must_use]
    pub fn is_of(&self, object: &Object) -> bool {
        self.globals == object.globals() && (self.xdp.is_some() || !object.wants_xdp())
    }

    /// Whether its program tells of new connections where `object`'s would:
    /// somebody may have taken the pins of what all instances share, or put
    /// others there, and then a reader hears of some routers alone.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    pub fn shares_current_maps(&self, object: &Object) -> Result<bool, Error> {
        let maps = self.program.info().and_then(|info| info.map_ids());
        let maps = maps.map_err(Error::program("the classifier's maps cannot be listed"))?;
        shared::are_among(object.shared(), &maps.unwrap_or_default())
    }

    /// The kernel's id of its program.
    #[must_use]
    pub const fn program_id(&self) -> u32 {
        self.program_id
    }

    /// Its program.
    pub const fn program(&mut self) -> &mut SchedClassifier {
        &mut self.program
    }

    /// The kernel's id of its XDP program, if it has one.
    #[must_use]
    pub fn xdp_program_id(&self) -> Option<u32> {
        self.xdp.as_ref().map(|(_, id)| *id)
    }

    /// Its XDP program, if it has one.
    pub(super) fn xdp_program(&self) -> Option<BorrowedFd<'_>> {
        self.xdp.as_ref().map(|(program, _)| program.as_fd())
    }

    /// Which carrier its programs use; one that is none of them is none.
    ///
    /// # Errors
    /// [`Error::Map`] if it can't be read.
    pub fn carrier(&self) -> Result<Option<Carrier>, Error> {
        let carriers = [Carrier::Mark, Carrier::Priority];
        let number = self.identity()?.carrier;
        Ok(carriers.into_iter().find(|each| *each as u64 == number))
    }

    /// Has its programs use this carrier: all that begin to run from now on.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn set_carrier(&mut self, carrier: Carrier) -> Result<(), Error> {
        // The rest of it is written as it was, byte for byte.
        let identity = Identity {
            carrier: carrier as u64,
            ..self.identity()?
        };
        let written = self.identity.set(0, identity.to_bytes(), 0);
        written.map_err(Error::map("writing", abi::IDENTITY))
    }

    fn identity(&self) -> Result<Identity, Error> {
        let identity = self.identity.get(&0, 0);
        let identity = identity.map_err(Error::map("reading", abi::IDENTITY))?;
        Ok(Identity::from_bytes(identity))
    }

    /// A copy of its maps.
    ///
    /// # Errors
    /// [`Error::Map`] if they can't be read.
    pub fn image(&self) -> Result<Image, Error> {
        let pages = sys::read_all(&self.pages).map_err(batch("reading", abi::PAGES))?;
        let slots = sys::read_all(&self.slots).map_err(batch("reading", abi::SLOTS))?;
        let slots = slots.into_iter().map(Slot::from_bits).collect();
        Ok(Image::new(pages, slots))
    }

    /// The size of its maps.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let size = |elements: u32| u16::try_from(elements).unwrap_or(u16::MAX);
        Capacity {
            pages: size(self.pages.len()),
            slots: size(self.slots.len()),
        }
    }

    /// What of its maps concerns these destinations.
    ///
    /// # Errors
    /// [`Error::Map`] if they can't be read.
    pub fn excerpt(
        &self,
        destinations: &BTreeSet<Destination>,
        candidates: impl IntoIterator<Item = u16>,
    ) -> Result<PartialTable, Error> {
        let page = |number: u16| {
            let page = self.pages.get(&number.into(), 0);
            page.map_err(Error::map("reading", abi::PAGES))
        };
        let slot = |number: u16| {
            let slot = self.slots.get(&number.into(), 0);
            let slot = slot.map_err(Error::map("reading", abi::SLOTS));
            slot.map(Slot::from_bits)
        };
        PartialTable::read(self.capacity(), destinations, page, slot, candidates)
    }

    /// Carries out all writes, or none: where one is refused, those before it
    /// are taken back.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses one.
    pub fn edit(&mut self, edit: &Edit) -> Result<(), Error> {
        let writes: Vec<_> = edit.writes().collect();
        let mut done = 0;
        // Neighbours of one kind are one system call.
        for run in writes.chunk_by(|one, next| discriminant(*one) == discriminant(*next)) {
            if let Err((more, error)) = self.write_run(run) {
                for write in edit.undo_of_first(done + more).writes() {
                    self.write(write)?;
                }
                return Err(error);
            }
            done += run.len();
        }
        Ok(())
    }

    /// Writes of one kind, and how many were done before one was refused.
    fn write_run(&mut self, run: &[&Write]) -> Result<(), (usize, Error)> {
        let mut keys = Vec::with_capacity(run.len());
        let (mut slots, mut pages) = (Vec::new(), Vec::new());
        for (done, write) in run.iter().enumerate() {
            match write {
                Write::Slot { index, slot } => {
                    keys.push(u32::from(*index));
                    slots.push(slot.to_bits());
                }
                Write::Page { index, page } => {
                    keys.push(u32::from(*index));
                    pages.push(**page);
                }
                // Each has to be read first.
                Write::ResetCounters { .. } => {
                    self.write(write).map_err(|error| (done, error))?;
                }
            }
        }
        let failed = |map| move |(done, error)| (done, batch("writing", map)(error));
        if !slots.is_empty() {
            sys::write_batch(&mut self.slots, &keys, &slots).map_err(failed(abi::SLOTS))?;
        }
        if !pages.is_empty() {
            sys::write_batch(&mut self.pages, &keys, &pages).map_err(failed(abi::PAGES))?;
        }
        Ok(())
    }

    /// Carries out one write.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses it.
    pub fn write(&mut self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Slot { index, slot } => self
                .slots
                .set(u32::from(*index), slot.to_bits(), 0)
                .map_err(Error::map("writing", abi::SLOTS)),
            Write::Page { index, page } => self
                .pages
                .set(u32::from(*index), **page, 0)
                .map_err(Error::map("writing", abi::PAGES)),
            Write::ResetCounters { index } => {
                let base = self.counted(*index)?;
                self.set_base(*index, base)
            }
        }
    }
}

fn batch(what: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |io_error| {
        let call = "bpf";
        Error::map(what, map)(SyscallError { call, io_error }.into())
    }
}

fn open_globals(folder: &Path) -> Result<Globals, Error> {
    let map = MapData::from_pin(folder.join(GLOBALS_PIN));
    let map = map.map_err(Error::map("opening", abi::GLOBALS_SECTION))?;
    let globals: Array<MapData, [u8; Globals::SIZE]> = Map::Array(map)
        .try_into()
        .map_err(Error::map("shape", abi::GLOBALS_SECTION))?;
    let globals = globals.get(&0, 0);
    globals
        .map(Globals::from_bytes)
        .map_err(Error::map("reading", abi::GLOBALS_SECTION))
}

fn open_whole(folder: &Path) -> Result<Instance, Error> {
    let map = |pin: &'static str| -> Result<MapData, Error> {
        MapData::from_pin(folder.join(pin)).map_err(Error::map("opening", pin))
    };
    let array = |pin| map(pin).map(Map::Array);
    let globals = open_globals(folder)?;
    let program = SchedClassifier::from_pin(folder.join(PROGRAM))
        .map_err(Error::program("the pinned classifier cannot be opened"))?;
    let program_id = program
        .info()
        .map_err(Error::program("the pinned classifier cannot be examined"))?
        .id();
    Ok(Instance {
        pages: array(abi::PAGES)?
            .try_into()
            .map_err(Error::map("shape", abi::PAGES))?,
        slots: array(abi::SLOTS)?
            .try_into()
            .map_err(Error::map("shape", abi::SLOTS))?,
        counters: Map::PerCpuArray(map(abi::COUNTERS)?)
            .try_into()
            .map_err(Error::map("shape", abi::COUNTERS))?,
        bases: array(abi::BASES)?
            .try_into()
            .map_err(Error::map("shape", abi::BASES))?,
        identity: array(abi::IDENTITY)?
            .try_into()
            .map_err(Error::map("shape", abi::IDENTITY))?,
        program,
        program_id,
        xdp: open_xdp(folder),
        globals,
    })
}

/// One that can't be used is none: then the instance is made anew if it should
/// have one. A bare descriptor: aya opens no pinned XDP program whose kind its
/// caller can't name, and it names none to its callers.
fn open_xdp(folder: &Path) -> Option<(OwnedFd, u32)> {
    let pin = folder.join(XDP_PROGRAM);
    let program = sys::open_pinned(&pin).ok()?;
    let info = ProgramInfo::from_pin(&pin).ok()?;
    Some((program, info.id()))
}
