//! What the datapath takes of the kernel's memory, from two sides.

use std::fs::{read_dir, read_to_string};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;
use conntrack_agent::kernel::Pins;
use serde_json::{Map, Value, json};

use crate::fleet::Fleet;
use crate::observer::kibibytes;

/// What of /proc/meminfo grows with the kernel's own data. `SReclaimable` is
/// the dentries and inodes of the pins, and whatever else was looked up.
const FIELDS: [&str; 6] = [
    "SUnreclaim:",
    "SReclaimable:",
    "Percpu:",
    "VmallocUsed:",
    "KernelStack:",
    "PageTables:",
];

/// Those that can't be had back.
const LASTING: [&str; 3] = ["SUnreclaim:", "Percpu:", "VmallocUsed:"];

/// The pin that is no map.
const PROGRAM: &str = "classify";

/// /proc/meminfo at one time, in bytes, of all that the machine does.
pub(crate) struct Meminfo(Vec<i64>);

impl Meminfo {
    pub(crate) fn now() -> Self {
        let text = read_to_string("/proc/meminfo").expect("/proc/meminfo");
        let bytes = |name| kibibytes(&text, name).unwrap_or_default();
        let bytes = FIELDS.map(|name| i64::try_from(bytes(name)).expect("a size"));
        Self(bytes.to_vec())
    }

    /// What has come since `before`, in KiB for each of so many routers.
    pub(crate) fn growth(&self, before: &Self, routers: usize) -> Growth {
        let fields = FIELDS.iter().zip(self.0.iter().zip(&before.0));
        let fields = fields.map(|(name, (now, before))| {
            let kib = (now - before) as f64 / 1024.0 / routers as f64;
            (name.trim_end_matches(':'), kib)
        });
        Growth(fields.collect())
    }
}

/// KiB of each kind.
pub(crate) struct Growth(Vec<(&'static str, f64)>);

impl Growth {
    /// Of all kinds that can't be had back.
    pub(crate) fn lasting(&self) -> f64 {
        let lasting = |name: &str| {
            LASTING
                .iter()
                .any(|each| each.trim_end_matches(':') == name)
        };
        let kinds = self.0.iter().filter(|(name, _)| lasting(name));
        kinds.map(|(_, kib)| kib).sum()
    }

    pub(crate) fn json(&self) -> Value {
        let kinds = self.0.iter();
        let kinds: Map<_, _> = kinds
            .map(|(name, kib)| ((*name).to_owned(), json!((kib * 10.0).round() / 10.0)))
            .collect();
        json!(kinds)
    }
}

/// What all pinned maps and programs say of themselves (`memlock` in their
/// fdinfo), in KiB for each router.
pub(crate) fn pinned(fleet: &Fleet) -> f64 {
    let pins = Pins::new(fleet.lab().dir().agent_bpffs_dir());
    let routers = (0..fleet.len()).map(|number| fleet.router(number));
    let bytes: u64 = routers
        .map(|router| of_instance(&pins.instance(router)))
        .sum();
    bytes as f64 / 1024.0 / fleet.len() as f64
}

fn of_instance(folder: &Path) -> u64 {
    let entries = read_dir(folder).expect("a pinned instance");
    let bytes = entries.map(|entry| {
        let path = entry.expect("a pin").path();
        // The kernel gives the one for the other, and leaves it to the reader.
        if !path.ends_with(PROGRAM) {
            let map = MapInfo::from_pin(&path).expect("a map");
            let descriptor = map.fd().expect("the map");
            return memlock(descriptor.as_fd().as_raw_fd());
        }
        let program = ProgramInfo::from_pin(&path).expect("a program");
        u64::from(program.memory_locked().expect("its size"))
    });
    bytes.sum()
}

fn memlock(descriptor: i32) -> u64 {
    let path = format!("/proc/self/fdinfo/{descriptor}");
    let info = read_to_string(path).expect("its fdinfo");
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .expect("its size")
}
