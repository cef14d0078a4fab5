//! Where the times were taken, without which they mean nothing.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// The machine, its software, and the day; `state` is where the agent keeps its
/// own.
#[must_use]
pub fn describe(state: &Path) -> Value {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "date": said("date", &["-u", "+%FT%TZ"]),
        "kernel": read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cpu": model,
        "cpus": available_parallelism().map_or(0, usize::from),
        "load_before": load.split(' ').next(),
        "conntrack-agent": env!("CARGO_PKG_VERSION"),
        "commit": said("git", &["describe", "--always", "--dirty"]),
        "nft": said("nft", &["--version"]),
        "iptables": said("iptables", &["--version"]),
        "state": file_system(state),
    })
}

/// What a program says; nothing where it is not there.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The file system that a folder is on, and what that is on.
fn file_system(folder: &Path) -> String {
    let table = read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let point = Path::new(of_mount.split(' ').nth(4)?);
        let mut words = of_system.split(' ');
        let described = format!("{} on {}", words.next()?, words.next()?);
        folder.starts_with(point).then_some((point, described))
    });
    // The later of two on one point hides the earlier.
    let innermost = mounts.max_by_key(|(point, _)| point.components().count());
    innermost.map_or_else(|| "unknown".to_owned(), |(_, described)| described)
}
