//! Everything that an agent may change around a lab, to be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aya::maps::loaded_maps;
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, loaded_programs};

use crate::attach::Xdp;
use crate::lab::Lab;
use crate::netns::Netns;

/// What the files of the audit trail are called, in front of a number.
const AUDIT_TRAIL: &str = "/audit.jsonl";

/// What there is, by what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    /// Looks at the lab's files, mounts and bpffs, and at the rulesets and
    /// interfaces of these namespaces.
    #[must_use]
    pub fn take(lab: &Lab, namespaces: &[&Netns]) -> Self {
        let mut things = BTreeMap::new();
        for mount in lab.dir().mounts() {
            things.insert(mount_key(&mount), String::new());
        }
        add_files(&mut things, &lab.dir().state_dir(), Contents::Read);
        add_files(&mut things, &lab.dir().run_dir(), Contents::Read);
        add_files(&mut things, &lab.dir().bpf_dir(), Contents::Skip);
        for netns in namespaces {
            let name = netns.name();
            things.insert(format!("ruleset of {name}"), netns.ruleset());
            for interface in interfaces(netns) {
                let ids = format!("{:?}", ingress_programs(netns, &interface));
                things.insert(format!("programs on {interface} of {name}"), ids);
                let xdp = format!("{:?}", xdp_program(netns, &interface));
                things.insert(format!("XDP on {interface} of {name}"), xdp);
                for (what, arguments) in [
                    ("qdiscs", &["qdisc", "show", "dev", &interface][..]),
                    ("filters", &["filter", "show", "dev", &interface]),
                    (
                        "ingress filters",
                        &["filter", "show", "dev", &interface, "ingress"],
                    ),
                ] {
                    let shown = netns.tool("tc", arguments, "");
                    things.insert(format!("{what} on {interface} of {name}"), shown);
                }
            }
        }
        // It stays on purpose: it says who changed what.
        things.retain(|key, _| !key.contains(AUDIT_TRAIL));
        Self(things)
    }

    /// Forgets a file that a test doesn't compare.
    pub fn forget_file(&mut self, path: &Path) {
        self.0.remove(&file_key(path));
    }

    /// Forgets the lab's locks, which say whose they were last.
    pub fn forget_locks(&mut self, lab: &Lab) {
        for folder in [lab.dir().run_dir(), lab.dir().state_dir()] {
            self.forget_file(&folder.join("lock"));
        }
    }

    /// Forgets the mount of a namespace that a test removes itself.
    pub fn forget(&mut self, mount: &Path) {
        self.0.remove(&mount_key(mount));
    }
}

/// What differs is what a failed comparison is about; a whole snapshot is long.
#[track_caller]
pub fn assert_same(before: &Snapshot, after: &Snapshot) {
    let gone = before
        .0
        .iter()
        .filter(|(key, value)| after.0.get(*key) != Some(value));
    let new = after
        .0
        .iter()
        .filter(|(key, value)| before.0.get(*key) != Some(value));
    let lines: String = gone
        .map(|thing| format!("- {thing:?}\n"))
        .chain(new.map(|thing| format!("+ {thing:?}\n")))
        .collect();
    assert!(lines.is_empty(), "before and after differ:\n{lines}");
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// The names of the namespace's interfaces, but lo.
#[must_use]
pub fn interfaces(netns: &Netns) -> Vec<String> {
    let listing = netns.tool("ip", ["-oneline", "link", "show"], "");
    // "7: qr-0123@if2: <BROADCAST,…": the peer's index isn't part of the name.
    let names = listing.lines().filter_map(|line| line.split(": ").nth(1));
    names
        .filter_map(|name| name.split('@').next())
        .filter(|name| *name != "lo")
        .map(str::to_owned)
        .collect()
}

/// The ids of the programs at an interface's ingress in the order in which they
/// run: those on tcx, then those of tc filters.
#[must_use]
pub fn ingress_programs(netns: &Netns, interface: &str) -> Vec<u32> {
    let found = netns.run(|| SchedClassifier::query_tcx(interface, TcAttachType::Ingress));
    let on_tcx = match found {
        Ok((_revision, programs)) => programs.iter().map(ProgramInfo::id).collect(),
        Err(error) if is_without_tcx(&error) => Vec::new(),
        Err(error) => panic!("the interface's programs: {error}"),
    };
    let on_tcx = on_tcx.into_iter();
    on_tcx.chain(filter_programs(netns, interface)).collect()
}

/// Whether that is how a kernel before 6.6 answers: it knows no such hook
/// (`bpf_prog_query`, kernel/bpf/syscall.c).
fn is_without_tcx(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else {
        return false;
    };
    error.io_error.kind() == ErrorKind::InvalidInput
}

/// In which way the interface has an XDP program, anybody's.
#[must_use]
pub fn xdp_on(netns: &Netns, interface: &str) -> Option<Xdp> {
    let (mode, _) = xdp_program(netns, interface)?;
    Some(mode)
}

/// The same with the kernel's id of the program.
#[must_use]
pub fn xdp_program(netns: &Netns, interface: &str) -> Option<(Xdp, u32)> {
    // ip-link(8): "xdp" has a mode of 1 in the driver, 2 in the stack.
    let listing = netns.tool("ip", ["-json", "-details", "link", "show", interface], "");
    let links: serde_json::Value = serde_json::from_str(&listing).expect("JSON from ip");
    let xdp = &links[0]["xdp"];
    let mode = match xdp["mode"].as_u64()? {
        1 => Xdp::Native,
        2 => Xdp::Generic,
        other => panic!("{interface} has XDP in mode {other}"),
    };
    let id = xdp["prog"]["id"].as_u64().expect("the program's id");
    Some((mode, u32::try_from(id).expect("an id of the kernel's")))
}

/// The ids of the programs that tc filters run on what comes in, first to last.
#[must_use]
pub fn filter_programs(netns: &Netns, interface: &str) -> Vec<u32> {
    let listing = netns.tool(
        "tc",
        ["-json", "filter", "show", "dev", interface, "ingress"],
        "",
    );
    let filters: Vec<serde_json::Value> = serde_json::from_str(&listing).expect("JSON from tc");
    let ids = filters
        .iter()
        .filter_map(|filter| filter["options"]["prog"]["id"].as_u64());
    ids.map(|id| u32::try_from(id).expect("an id of the kernel's"))
        .collect()
}

/// Programs and maps, by their numbers in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    programs: Vec<u32>,
    maps: Vec<u32>,
}

impl Loaded {
    /// The programs at the ingress of all interfaces, and the maps that they use.
    #[must_use]
    pub fn in_namespaces(namespaces: &[&Netns]) -> Self {
        let mut loaded = Self::default();
        for netns in namespaces {
            for interface in interfaces(netns) {
                loaded.programs.extend(ingress_programs(netns, &interface));
            }
        }
        for program in loaded_programs().filter_map(Result::ok) {
            if loaded.programs.contains(&program.id()) {
                let maps = program.map_ids().ok().flatten();
                loaded.maps.extend(maps.into_iter().flatten());
            }
        }
        loaded
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        self.programs.retain(|id| !other.programs.contains(id));
        self.maps.retain(|id| !other.maps.contains(id));
        self
    }

    /// Those of them that the kernel still has.
    #[must_use]
    pub fn still(&self) -> Self {
        let programs = loaded_programs().filter_map(Result::ok).map(|p| p.id());
        let maps = loaded_maps().filter_map(Result::ok).map(|m| m.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
        }
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty()
    }
}

fn file_key(path: &Path) -> String {
    format!("file {}", path.display())
}

fn mount_key(mount: &Path) -> String {
    format!("mount {}", mount.display())
}

#[derive(Clone, Copy)]
enum Contents {
    Read,
    /// A bpffs has files that list all of the kernel's programs and maps.
    Skip,
}

fn add_files(things: &mut BTreeMap<String, String>, path: &Path, contents: Contents) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let text = match contents {
        Contents::Read if metadata.is_file() => {
            let bytes = fs::read(path).expect("a file of the lab");
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Contents::Read | Contents::Skip => String::new(),
    };
    things.insert(file_key(path), text);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of the lab") {
            add_files(things, &entry.expect("an entry of it").path(), contents);
        }
    }
}
