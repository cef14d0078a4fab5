//! Frames put on one interface's wire as they are, many with one system call.

use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, socket,
};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Frames in one system call. Each frame is forwarded before the next one is sent: a
/// veth hands it over in a soft interrupt, which runs as soon as it may, on this CPU.
const BATCH: usize = 64;

/// A packet socket that sends out of one interface, and receives nothing.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// One for `interface`, of the calling thread's namespace.
    pub(crate) fn open(interface: &str) -> Self {
        let no_protocol = None::<SockProtocol>;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, no_protocol)
            .expect("a packet socket (the lab needs root)");
        let mut addresses = getifaddrs().expect("the interfaces");
        let address = addresses.find_map(|of| {
            let is_it = of.interface_name == interface;
            let is_link = |address: &nix::sys::socket::SockaddrStorage| {
                address.family() == Some(AddressFamily::Packet)
            };
            of.address.filter(|address| is_it && is_link(address))
        });
        let address = address.unwrap_or_else(|| panic!("no interface {interface}"));
        bind(socket.as_raw_fd(), &address).expect("the socket on its interface");
        Self(socket)
    }

    /// Sends a frame once.
    pub(crate) fn send(&self, frame: &[u8]) {
        let _time = self.burst(frame, 0, 1);
    }

    /// Sends a frame `first` times, then `count` times, and says how long the latter took.
    pub(crate) fn burst(&self, frame: &[u8], first: usize, count: usize) -> Duration {
        let content = [IoSlice::new(frame)];
        let mut controls: [_; BATCH] = std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages = controls
            .each_mut()
            .map(|control| MMsgHdr::new(&content, control));
        let mut send = |mut left: usize| {
            while left > 0 {
                let batch = &mut messages[..left.min(BATCH)];
                let sent = sendmmsg(&self.0, batch, SendFlags::empty());
                left -= sent.unwrap_or_else(|error| panic!("{} bytes: {error}", frame.len()));
            }
        };
        send(first);
        let begun = Instant::now();
        send(count);
        begun.elapsed()
    }
}
