//! in.tftpd (tftpd-hpa).

use std::net::SocketAddr;
use std::process::Command;

use super::{offer_file, wait_for_udp};
use crate::netns::Netns;
use crate::process::Process;

/// A running in.tftpd that offers one file.
pub struct TftpServer {
    /// What the file holds.
    pub bytes: Vec<u8>,
    _process: Process,
}

/// Several blocks of 512 bytes, the last one short.
const SIZE: u64 = 20_000;

impl TftpServer {
    /// Starts it on an address of the namespace.
    #[must_use]
    pub fn start(netns: &Netns, address: SocketAddr) -> Self {
        let name = format!("tftp-{}-{}", netns.name(), address.port());
        let root = netns.lab().folder(&name);
        let bytes = offer_file(&root, SIZE);

        let mut command = Command::new("in.tftpd");
        command.args(["--foreground", "--listen", "--secure", "--address"]);
        command.arg(address.to_string());
        command.arg(root);
        let process = Process::start(Some(netns), command);
        wait_for_udp(netns, address);
        Self {
            bytes,
            _process: process,
        }
    }
}
