//! sipp as the called party.

use std::net::SocketAddr;
use std::process::Command;

use super::wait_for_udp;
use crate::netns::Netns;
use crate::process::Process;

/// A running sipp that answers every call.
pub struct SipServer {
    _process: Process,
}

impl SipServer {
    /// Starts it on an address of the namespace.
    #[must_use]
    pub fn start(netns: &Netns, address: SocketAddr) -> Self {
        let folder = netns
            .lab()
            .folder(&format!("uas-{}-{}", netns.name(), address.port()));
        let mut command = Command::new("sipp");
        command.args(["-sn", "uas", "-nostdin"]);
        command.args(["-i", &address.ip().to_string()]);
        command.args(["-p", &address.port().to_string()]);
        command.current_dir(folder).env("TERM", "dumb");
        let process = Process::start(Some(netns), command);
        wait_for_udp(netns, address);
        Self { _process: process }
    }
}
