//! The configuration file of an agent under test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use uuid::Uuid;

use crate::attach::{self, Xdp};
use crate::lab::{Lab, LabDir};

/// The agent's configuration, by key.
#[derive(Clone, Debug)]
pub struct Config {
    keys: Vec<(&'static str, String)>,
}

impl Config {
    /// Everything of the agent's in the lab's directory.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        let dir = lab.dir();
        let path = |path: PathBuf| format!("{:?}", path.to_string_lossy());
        let config = Self {
            keys: vec![
                ("state_dir", path(dir.state_dir())),
                ("runtime_dir", path(dir.run_dir())),
                ("bpffs_dir", path(dir.agent_bpffs_dir())),
                ("netns_dir", path(dir.netns_dir())),
            ],
        };
        match attach::configured() {
            Some(way) if way == attach::XDP => config.with_xdp("*", Xdp::Generic),
            Some(way) => config.with("attach", format!("{way:?}")),
            None => config,
        }
    }

    /// The same with one key set to a TOML value.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.keys.retain(|(present, _)| *present != key);
        self.keys.push((key, value.into()));
        self
    }

    /// The same with an nft that first runs this script (sh(1)), which may end it.
    #[must_use]
    pub fn with_nft(self, lab: &Lab, script: &str) -> Self {
        let nft = lab.dir().path().join(format!("nft-{}", Uuid::new_v4()));
        fs::write(&nft, format!("#!/bin/sh\n{script}\nexec nft \"$@\"\n")).expect("a script");
        fs::set_permissions(&nft, Permissions::from_mode(0o755)).expect("its mode");
        self.with("nft", format!("{:?}", nft.to_string_lossy()))
    }

    /// The same with XDP programs on the interfaces that match this pattern.
    #[must_use]
    pub fn with_xdp(self, interfaces: &str, xdp: Xdp) -> Self {
        let word = xdp.word();
        let entry = format!("[{{ name = {interfaces:?}, attach = {word:?} }}]");
        self.with("interface", entry)
    }

    /// Writes the file of the lab's agent; its path.
    pub(super) fn write(&self, dir: &LabDir) -> PathBuf {
        let line = |(key, value): &(&str, String)| format!("{key} = {value}\n");
        let text: String = self.keys.iter().map(line).collect();
        fs::write(path(dir), text).expect("the agent's configuration");
        path(dir)
    }
}

/// Where the lab's agent has its configuration.
pub(super) fn path(dir: &LabDir) -> PathBuf {
    dir.path().join("agent.toml")
}
