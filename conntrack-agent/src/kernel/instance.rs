//! One router's instance: its pinned maps and programs.

mod counting;
mod making;
mod matched;
mod programs;

pub use matched::matched;
pub use programs::{program_names, programs_in};

use std::{collections::BTreeSet, io, mem::discriminant, path::Path};

use aya::{
    maps::{Array, Map, MapData, PerCpuArray},
    programs::SchedClassifier,
    sys::SyscallError,
};
use conntrack_ebpf::abi::{self, COUNTER_GROUP, Destination, Globals, Identity, Page, Slot};

use super::{AgentId, Carrier, Error, Object, XdpClassifier, bpffs::entries, shared, sys};
use crate::port_table::{Capacity, Edit, Image, PartialTable, Write};

/// The name of the program's pin. It is made last: an instance that has it is
/// whole.
pub(super) const PROGRAM: &str = "classify";

/// The name of the section's pin. bpffs knows no name with a dot, so it differs
/// from the section's.
const GLOBALS_PIN: &str = "globals";

/// The [`Counters`] as plain numbers: packets and bytes.
type RawCounters = [u64; 2];
type RawGroup = [RawCounters; COUNTER_GROUP as usize];

/// A pinned instance that can be used.
pub struct Instance {
    pages: Array<MapData, Page>,
    slots: Array<MapData, u64>,
    counters: PerCpuArray<MapData, RawGroup>,
    bases: Array<MapData, RawCounters>,
    identity: Array<MapData, [u8; Identity::SIZE]>,
    program: SchedClassifier,
    program_id: u32,
    xdp: Option<XdpClassifier>,
    globals: Globals,
}

/// The usability of a folder of pins.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and taken apart at once"
)]
pub enum Usable {
    /// The folder has no pins.
    Absent,
    /// A pin is missing or has another shape: the remains of an agent that died
    /// at work, or somebody's mischief. The instance has to be made anew.
    Broken,
    /// The folder has a whole instance.
    Whole(Instance),
}

impl Instance {
    /// Opens the instance pinned in `folder`.
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

    /// Returns the agent that loaded what is pinned in `folder`, as far as the
    /// folder tells: the globals are pinned before the program and removed last.
    #[must_use]
    pub fn owner_of(folder: &Path) -> Option<AgentId> {
        let globals = open_globals(folder).ok()?;
        Some(AgentId::from_bytes(globals.agent))
    }

    /// Returns the agent that loaded the instance.
    #[must_use]
    pub const fn owner(&self) -> AgentId {
        AgentId::from_bytes(self.globals.agent)
    }

    /// Returns whether the instance is as `object` would load it now, or has an
    /// XDP program in addition.
    #[must_use]
    pub fn is_of(&self, object: &Object) -> bool {
        self.globals == object.globals() && (self.xdp.is_some() || !object.wants_xdp())
    }

    /// Returns whether its program reports new connections to the same maps as
    /// `object`'s would. Somebody may have removed the pins of the shared maps,
    /// or put others there, and then a reader hears only of some routers.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    pub fn shares_current_maps(&self, object: &Object) -> Result<bool, Error> {
        let maps = self.program.info().and_then(|info| info.map_ids());
        let maps = maps.map_err(Error::program("the classifier's maps cannot be listed"))?;
        shared::are_among(object.shared(), &maps.unwrap_or_default())
    }

    /// Returns the kernel's id of its program.
    #[must_use]
    pub const fn program_id(&self) -> u32 {
        self.program_id
    }

    /// Returns its program.
    pub const fn program(&mut self) -> &mut SchedClassifier {
        &mut self.program
    }

    /// Returns its XDP program, if it has one.
    #[must_use]
    pub const fn xdp(&self) -> Option<&XdpClassifier> {
        self.xdp.as_ref()
    }

    /// Returns the carrier that its programs use, or `None` if the value is not
    /// a carrier.
    ///
    /// # Errors
    /// [`Error::Map`] if it can't be read.
    pub fn carrier(&self) -> Result<Option<Carrier>, Error> {
        let carriers = [Carrier::Mark, Carrier::Priority];
        let number = self.identity()?.carrier;
        Ok(carriers.into_iter().find(|each| *each as u64 == number))
    }

    /// Makes its programs use this carrier: all that begin to run from now on.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn set_carrier(&mut self, carrier: Carrier) -> Result<(), Error> {
        // The rest of the identity is written as it was, byte for byte.
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

    /// Returns a copy of its maps.
    ///
    /// # Errors
    /// [`Error::Map`] if they can't be read.
    pub fn image(&self) -> Result<Image, Error> {
        let pages = sys::read_all(&self.pages).map_err(batch("reading", abi::PAGES))?;
        let slots = sys::read_all(&self.slots).map_err(batch("reading", abi::SLOTS))?;
        let slots = slots.into_iter().map(Slot::from_bits).collect();
        Ok(Image::new(pages, slots))
    }

    /// Returns the size of its maps.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let size = |elements: u32| u16::try_from(elements).unwrap_or(u16::MAX);
        Capacity {
            pages: size(self.pages.len()),
            slots: size(self.slots.len()),
        }
    }

    /// Returns the part of its maps that concerns these destinations.
    ///
    /// # Errors
    /// [`Error::Map`] if they can't be read.
    pub fn partial(
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

    /// Carries out all writes, or none: if one is refused, those before it are
    /// undone.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses one.
    pub fn edit(&mut self, edit: &Edit) -> Result<(), Error> {
        let writes: Vec<_> = edit.writes().collect();
        let mut done = 0;
        // Adjoining writes of one kind take one system call.
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

    /// Carries out writes of one kind. An error comes with the number of writes
    /// done before it.
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
                // Each has to be read before it is written.
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
        xdp: XdpClassifier::open(folder),
        globals,
    })
}
