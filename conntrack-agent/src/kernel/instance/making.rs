//! Creates instances, new or on the maps of another, and removes them.

use std::{fs, path::Path};

use aya::{
    Ebpf,
    maps::{Array, IterableMap as _, MapData},
    programs::SchedClassifier,
};
use conntrack_ebpf::abi::{self, Identity};
use uuid::Uuid;

use super::{GLOBALS_PIN, Instance, PROGRAM};
use crate::{
    kernel::{
        Carrier, Error, Object, XdpClassifier,
        bpffs::{entries, remove_if_empty, remove_pin},
        load_again,
        object::MAPS,
    },
    model::RouterId,
    port_table::Capacity,
};

impl Instance {
    /// Loads an instance for `router` with an empty port table, whose programs use
    /// this carrier, and pins it into `folder`, which must not exist. On failure,
    /// nothing of it stays.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses, or bpffs does.
    pub fn create(
        object: &mut Object,
        folder: &Path,
        router: RouterId,
        capacity: Capacity,
        carrier: Carrier,
    ) -> Result<(), Error> {
        Self::make(folder, || {
            let mut ebpf = object.load(folder, capacity)?;
            identify(&mut ebpf, router, carrier)?;
            pin(&mut ebpf, folder, object.wants_xdp())
        })
    }

    /// Loads an instance that works on this one's maps, and pins it into `folder`,
    /// which must not exist. On failure, nothing of it stays.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses, or bpffs does.
    pub fn create_twin(&self, object: &mut Object, folder: &Path) -> Result<(), Error> {
        Self::make(folder, || {
            for (name, map) in MAPS.into_iter().zip(self.maps()) {
                let path = folder.join(name);
                map.pin(&path).map_err(|source| Error::Pin {
                    path,
                    source: Box::new(source),
                })?;
            }
            let mut ebpf = object.load(folder, self.capacity())?;
            pin(&mut ebpf, folder, object.wants_xdp())
        })
    }

    fn make(folder: &Path, load: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let made = fs::create_dir(folder)
            .map_err(Error::file(folder, "made"))
            .and_then(|()| load());
        if made.is_err() {
            // The first error is the one to report; remains that can't be removed
            // are found as a broken instance.
            if let Err(error) = Self::remove(folder) {
                tracing::warn!(%error, folder = %folder.display(), "could not undo a failed load");
            }
        }
        made
    }

    /// Removes every pin in `folder`, and the folder; a missing folder is no
    /// error. The kernel frees the maps and the program when no link uses them any
    /// more.
    ///
    /// # Errors
    /// [`Error::File`] if a pin can't be removed.
    pub fn remove(folder: &Path) -> Result<(), Error> {
        // The program goes first: the remains of an interrupted removal must not
        // look whole.
        remove_pin(&folder.join(PROGRAM))?;
        let globals = folder.join(GLOBALS_PIN);
        for pin in entries(folder)?.iter().filter(|pin| **pin != globals) {
            remove_pin(pin)?;
        }
        remove_pin(&globals)?;
        remove_if_empty(folder)
    }

    /// Returns whether both instances work on the same maps.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be asked.
    pub fn is_twin_of(&self, other: &Self) -> Result<bool, Error> {
        let id = |map: &MapData| {
            let info = map.info().map_err(Error::map("examining", abi::SLOTS));
            info.map(|info| info.id())
        };
        Ok(id(self.slots.map())? == id(other.slots.map())?)
    }

    /// Returns the maps in the order of [`MAPS`].
    fn maps(&self) -> [&MapData; MAPS.len()] {
        [
            self.pages.map(),
            self.slots.map(),
            self.counters.map(),
            self.bases.map(),
            self.identity.map(),
        ]
    }
}

/// Writes the identity of the instance, before any packet reaches it.
fn identify(ebpf: &mut Ebpf, router: RouterId, carrier: Carrier) -> Result<(), Error> {
    let identity = Identity {
        // The token is random but for four bits, which are not 0.
        token: Uuid::new_v4().as_u64_pair().0,
        router: router.to_words(),
        carrier: carrier as u64,
    };
    let map = ebpf.map_mut(abi::IDENTITY);
    let map = map.ok_or(Error::Missing(abi::IDENTITY))?;
    let mut map: Array<_, [u8; Identity::SIZE]> =
        map.try_into().map_err(Error::map("shape", abi::IDENTITY))?;
    map.set(0, identity.to_bytes(), 0)
        .map_err(Error::map("writing", abi::IDENTITY))
}

/// Loads the programs and pins them. The maps must be held until then, as the
/// programs need them.
fn pin(ebpf: &mut Ebpf, folder: &Path, with_xdp: bool) -> Result<(), Error> {
    let globals = ebpf.map(abi::GLOBALS_SECTION);
    let globals = globals.ok_or(Error::Missing(abi::GLOBALS_SECTION))?;
    let path = folder.join(GLOBALS_PIN);
    globals.pin(&path).map_err(|source| Error::Pin {
        path,
        source: Box::new(source),
    })?;
    if with_xdp {
        XdpClassifier::load(ebpf, folder)?;
    }
    let program = ebpf.program_mut(PROGRAM).ok_or(Error::Missing(PROGRAM))?;
    let program: &mut SchedClassifier = program
        .try_into()
        .map_err(Error::program("the classifier is no tc program"))?;
    load_again(|| program.load()).map_err(Error::program("the classifier cannot be loaded"))?;
    let path = folder.join(PROGRAM);
    program.pin(&path).map_err(|source| Error::Pin {
        path,
        source: Box::new(source),
    })?;
    #[cfg(feature = "ebpf-log")]
    crate::kernel::packet_log::follow(program);
    Ok(())
}
