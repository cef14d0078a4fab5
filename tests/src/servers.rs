//! Real servers, each in its namespace, ready when they are handed out.

pub mod ftp;
pub mod sip;
pub mod tftp;

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::netns::Netns;
use crate::wait;

/// The file that servers offer.
pub const FILE: &str = "payload.bin";

/// Puts `size` random bytes into a folder as [`FILE`], readable by all.
pub(crate) fn offer_file(folder: &Path, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let random = fs::File::open("/dev/urandom").expect("randomness");
    random
        .take(size)
        .read_to_end(&mut bytes)
        .expect("random bytes");
    let path = folder.join(FILE);
    fs::write(&path, &bytes).expect("the file to offer");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
    bytes
}

/// Waits until something in the namespace is bound to a UDP port.
///
/// Read from procfs: a datagram to try it with could be an answered request,
/// and a bind to try it with could take the port from the server.
pub(crate) fn wait_for_udp(netns: &Netns, address: SocketAddr) {
    let table = match address.ip() {
        IpAddr::V4(_) => "/proc/thread-self/net/udp",
        IpAddr::V6(_) => "/proc/thread-self/net/udp6",
    };
    let port = format!(":{:04X}", address.port());
    let bound = || {
        let table = fs::read_to_string(table).expect("the namespace's sockets");
        let mut locals = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        locals.any(|local| local.ends_with(&port)).then_some(())
    };
    netns
        .run(|| wait::until(wait::patience(), bound))
        .unwrap_or_else(|| panic!("nothing listens on {address}/udp in {}", netns.name()));
}
