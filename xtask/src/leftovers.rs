//! What tests leave on the machine: compared before and after, so that what was
//! there already is nobody's fault.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Every lab lives in a directory whose path begins so.
const LAB: &str = "/tmp/conntrack-lab-";

/// Ended processes take a moment to go, and programs go when the kernel has torn
/// down their namespaces, which on a busy machine is some time later. The count
/// of programs is the whole kernel's: another lab beside this run is counted.
const PATIENCE: Duration = Duration::from_secs(30);

/// What belongs to labs, each thing by a name that tells it from others.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    things: BTreeSet<String>,
    /// Loaded eBPF programs have no names of their own to compare by.
    classifiers: usize,
}

impl Snapshot {
    /// Looks at the machine.
    pub(crate) fn take() -> Result<Self> {
        let mut things = BTreeSet::new();
        things.extend(directories()?);
        things.extend(mounts(&read("/proc/self/mountinfo")?));
        things.extend(namespaces()?);
        things.extend(processes()?);
        let classifiers = classifiers(&read("/proc/kallsyms")?);
        Ok(Self {
            things,
            classifiers,
        })
    }

    /// What is there now and was not then, a line for each; waits for what is
    /// about to go.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.new_in(&Self::take()?);
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn new_in(&self, now: &Self) -> Vec<String> {
        let mut left: Vec<_> = now.things.difference(&self.things).cloned().collect();
        if now.classifiers > self.classifiers {
            let more = now.classifiers - self.classifiers;
            left.push(format!("{more} loaded eBPF program(s) named classify…"));
        }
        left
    }
}

fn directories() -> Result<Vec<String>> {
    let (parent, prefix) = LAB.rsplit_once('/').unwrap_or_default();
    let found = list(Path::new(parent))?.into_iter();
    Ok(found
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("directory {parent}/{name}"))
        .collect())
}

/// The fifth field of a line is where it is mounted.
fn mounts(mountinfo: &str) -> Vec<String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| place.starts_with(LAB))
        .map(|place| format!("mount {place}"))
        .collect()
}

fn namespaces() -> Result<Vec<String>> {
    let names = list(Path::new("/run/netns"))?.into_iter();
    Ok(names
        .map(|name| format!("network namespace {name}"))
        .collect())
}

/// Processes that work in a lab: their command line or environment names it.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pid in list(Path::new("/proc"))? {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process can end while it is looked at, and then is none.
        let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let command = of("cmdline");
        if names_a_lab(&command) || names_a_lab(&of("environ")) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("process {pid}: {}", command.trim_end()));
        }
    }
    Ok(found)
}

fn names_a_lab(text: &[u8]) -> bool {
    text.windows(LAB.len())
        .any(|window| window == LAB.as_bytes())
}

/// The kernel lists compiled eBPF programs among its symbols, as
/// `bpf_prog_<tag>_<name>`; where an administrator turned that off, none are seen.
fn classifiers(kallsyms: &str) -> usize {
    kallsyms
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter_map(|symbol| symbol.strip_prefix("bpf_prog_"))
        .filter_map(|symbol| symbol.split_once('_'))
        .filter(|(_tag, name)| name.starts_with("classify"))
        .count()
}

fn list(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| cannot_read(directory)),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .with_context(|| cannot_read(directory))
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| cannot_read(Path::new(file)))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let before = Snapshot {
            things: BTreeSet::from(["a".to_owned()]),
            classifiers: 2,
        };
        let after = Snapshot {
            things: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            classifiers: 3,
        };

        assert_eq!(
            before.new_in(&after),
            ["b", "1 loaded eBPF program(s) named classify…"]
        );
        assert!(after.new_in(&before).is_empty());
    }

    #[test]
    fn mounts_of_a_lab_are_found() {
        let mountinfo = "22 1 0:21 / /tmp rw - tmpfs tmpfs rw\n\
                         23 22 0:22 / /tmp/conntrack-lab-x/bpf rw - bpf bpf rw\n";

        assert_eq!(mounts(mountinfo), ["mount /tmp/conntrack-lab-x/bpf"]);
    }

    #[test]
    fn classifiers_are_counted_by_name() {
        let kallsyms = "ffffffffc0000000 t bpf_prog_6deef7357e7b4530_classify_tc\t[bpf]\n\
                        ffffffffc0000000 t bpf_prog_6deef7357e7b4530_sd_fw_egress\t[bpf]\n\
                        ffffffff81206a92 t bpf_prog_realloc.cold\n";

        assert_eq!(classifiers(kallsyms), 1);
    }
}
