//! What the disk costs: the store on it, and the least that durability takes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use conntrack_agent::engine::{Change, Mapping};
use conntrack_agent::store::Store;
use conntrack_tests::bench::samples::Samples;

/// A file of one block, written over and over.
pub(crate) struct Floor(File);

impl Floor {
    pub(crate) fn new(folder: &Path) -> Self {
        let file = File::create_new(folder.join("floor")).expect("a file");
        let floor = Self(file);
        // Once before it counts: afterwards the block is there, and a write
        // changes no metadata that fdatasync would have to wait for.
        floor.write(1);
        floor
    }

    /// Writes 4 KiB and has them on the disk, several times.
    pub(crate) fn write(&self, times: u8) {
        for time in 0..times {
            self.0.write_all_at(&[time; 4096], 0).expect("a block");
            self.0.sync_data().expect("a block on the disk");
        }
    }
}

/// A store, and the change that it makes and takes back.
pub(crate) struct Stored {
    store: Store,
    mapping: Mapping,
    change: Change,
}

impl Stored {
    pub(crate) fn new(folder: &Path, mapping: Mapping, change: Change) -> Self {
        let store = Store::create(folder, &mapping).expect("a store");
        Self {
            store,
            mapping,
            change,
        }
    }

    /// One durable change; the next one takes it back.
    pub(crate) fn change(&mut self, samples: &mut Samples) {
        let (store, mapping) = (&mut self.store, &mut self.mapping);
        samples.time(|| store.commit(mapping, &self.change).expect("a commit"));
        mapping.commit(&self.change);
        self.change = std::mem::take(&mut self.change).inverse();
    }
}
