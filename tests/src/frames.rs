//! Frames put on the wire as they are, fast.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use etherparse::PacketBuilder;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A packet socket that sends out of one interface. It receives nothing.
pub struct Sender {
    socket: OwnedFd,
    out: LinkAddr,
}

impl Sender {
    /// One for `interface`, which must be of the calling thread's namespace.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let no_protocol = None::<SockProtocol>;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, no_protocol)
            .expect("a packet socket (the lab needs root)");
        let mut addresses = getifaddrs().expect("the interfaces");
        let out = addresses.find_map(|of| {
            let is_it = of.interface_name == interface;
            of.address?.as_link_addr().copied().filter(|_| is_it)
        });
        Self {
            socket,
            out: out.unwrap_or_else(|| panic!("no interface {interface}")),
        }
    }

    /// Sends one frame. Returns whether it got through: over a veth it doesn't
    /// where its other end has no room for more.
    #[must_use]
    pub fn send(&self, frame: &[u8]) -> bool {
        match sendto(self.socket.as_raw_fd(), frame, &self.out, MsgFlags::empty()) {
            Ok(length) => {
                assert_eq!(length, frame.len(), "a part of a frame");
                true
            }
            Err(Errno::ENOBUFS) => false,
            Err(error) => panic!("a frame of {} bytes: {error}", frame.len()),
        }
    }
}

/// Has the calling thread run on one processor alone: the `nth` of those that it
/// may run on, counted round and round. What it sends over a veth is received on
/// the same one.
pub fn stay_on_one_cpu(nth: usize) {
    let allowed = sched_getaffinity(None).expect("the processors");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let count = usize::try_from(allowed.count()).expect("a number of processors");
    let cpu = cpus.nth(nth % count).expect("a processor");
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one)
        .map_err(io::Error::from)
        .expect("a processor of its own");
}

/// A SYN to port 21 of 10.0.2.2, for the interface with this hardware address, from
/// this port of 10.0.1.2.
#[must_use]
pub fn syn(to: [u8; 6], from: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], to)
        .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        .tcp(from, 21, 1, 1000)
        .syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("a frame");
    frame
}
