//! Loads the eBPF object into instances.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use conntrack_ebpf::abi::{self, Globals};

use super::{AgentId, Build, Error, MarkBits, shared};
use crate::port_table::Capacity;

/// The names of an instance's maps; each map is pinned under its name.
pub(super) const MAPS: [&str; 5] = [
    abi::PAGES,
    abi::SLOTS,
    abi::COUNTERS,
    abi::BASES,
    abi::IDENTITY,
];

/// A loader of instances of the object.
pub struct Object {
    /// The loader, kept for the life of the process: making one reads and parses
    /// the kernel's BTF, 5.5 MB, which takes twenty times as long as a load.
    loader: EbpfLoader<'static>,
    build: Build,
    globals: Globals,
    /// The folder of the maps that all instances share.
    shared: PathBuf,
    wants_xdp: bool,
}

impl Object {
    /// Makes a loader for one agent's instances of this edition. The maps that
    /// all of them share are pinned in the folder `shared`, by the first instance
    /// that is loaded.
    #[must_use]
    pub fn new(build: Build, agent: AgentId, bits: MarkBits, shared: PathBuf) -> Self {
        let globals = Globals {
            mark_mask: bits.mask(),
            mark_shift: bits.shift(),
            agent: agent.to_bytes(),
            object: build.digest(),
        };
        let mut loader = EbpfLoader::new();
        // The loader borrows them for its lifetime, which is that of the process.
        let bytes: &'static [u8] = Box::leak(Box::new(globals.to_bytes()));
        loader
            // The kernel's types that it has just read serve programs that are
            // relocated by them, which ours are not, and would take MiB of memory.
            .btf(None)
            .override_global(abi::GLOBALS, bytes, true)
            // The log is asked for only where a load has failed; the second
            // attempt then tells why. STATS makes it one line. No log at all
            // would have the kernel refuse that attempt with EINVAL for its empty
            // log, and hide an EAGAIN (`bpf_vlog_init`, kernel/bpf/log.c).
            .verifier_log_level(VerifierLogLevel::STATS);
        Self {
            loader,
            build,
            globals,
            shared,
            wants_xdp: false,
        }
    }

    /// Returns the same loader, whose instances have the XDP program too.
    #[must_use]
    pub fn with_xdp(self) -> Self {
        Self {
            wants_xdp: true,
            ..self
        }
    }

    /// Returns whether its instances have the XDP program.
    pub(super) const fn wants_xdp(&self) -> bool {
        self.wants_xdp
    }

    /// Returns the folder of the maps that all its instances share.
    pub(super) fn shared(&self) -> &Path {
        &self.shared
    }

    /// Returns the globals of every instance that it loads.
    pub(super) const fn globals(&self) -> Globals {
        self.globals
    }

    /// Makes an instance with the maps that are pinned in `folder`. A missing map
    /// is made in this capacity, and pinned there. The instance's programs are
    /// not in the kernel yet.
    pub(super) fn load(&mut self, folder: &Path, capacity: Capacity) -> Result<Ebpf, Error> {
        shared::prepare(&self.shared)?;
        // All paths are set each time, because the loader remembers them.
        for map in MAPS {
            self.loader.map_pin_path(map, folder.join(map));
        }
        for map in shared::names() {
            self.loader.map_pin_path(map, self.shared.join(map));
        }
        let counter_groups = capacity.slots.div_ceil(abi::COUNTER_GROUP);
        self.loader
            .map_max_entries(abi::PAGES, capacity.pages.into())
            .map_max_entries(abi::SLOTS, capacity.slots.into())
            .map_max_entries(abi::COUNTERS, counter_groups.into())
            .map_max_entries(abi::BASES, capacity.slots.into())
            .load(self.build.object())
            .map_err(|source| Error::Object(Box::new(source)))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Object")
            .field("globals", &self.globals)
            .finish_non_exhaustive()
    }
}
