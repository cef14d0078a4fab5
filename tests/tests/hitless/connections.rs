//! New connections at a steady rate, each from an address and port that no other
//! has had.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use conntrack_tests::netns::Netns;
use conntrack_tests::site::Site;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Besides the site's own client.
const CLIENTS: [Ipv4Addr; 8] = [
    Ipv4Addr::new(10, 0, 1, 101),
    Ipv4Addr::new(10, 0, 1, 102),
    Ipv4Addr::new(10, 0, 1, 103),
    Ipv4Addr::new(10, 0, 1, 104),
    Ipv4Addr::new(10, 0, 1, 105),
    Ipv4Addr::new(10, 0, 1, 106),
    Ipv4Addr::new(10, 0, 1, 107),
    Ipv4Addr::new(10, 0, 1, 108),
];
const PORTS: std::ops::Range<u16> = 10_000..60_000;

/// A connection is as bad as none after this.
const LIMIT: TimeVal = TimeVal::new(10, 0);

/// Where a connection came from.
pub(crate) type Source = (Ipv4Addr, u16);

/// Which of the two is to end: the server only after the client, whose last
/// connection would be refused otherwise.
#[derive(Default)]
struct Stop {
    client: Arc<AtomicBool>,
    server: Arc<AtomicBool>,
}

/// A client that makes connections, and a server that takes them.
pub(crate) struct Connections {
    made: Arc<AtomicUsize>,
    stop: Stop,
    client: JoinHandle<(BTreeSet<Source>, usize)>,
    server: JoinHandle<()>,
    address: SocketAddr,
    client_side: Netns,
}

impl Connections {
    /// Begins with `rate` of them a second.
    pub(crate) fn begin(site: &Site, port: u16, rate: u32) -> Self {
        let addresses = CLIENTS.map(|address| format!("addr add {address}/24 dev eth0\n"));
        site.client.ip(&addresses.concat());
        let (made, stop) = (Arc::default(), Stop::default());
        let listener = site
            .server
            .run(|| TcpListener::bind(site.server_address(port)));
        let server = take(listener.expect("a server"), &stop.server);
        let address = site.published_address(port);
        let netns = site.client.clone();
        let client = {
            let (made, stop, netns) = (Arc::clone(&made), Arc::clone(&stop.client), netns.clone());
            thread::spawn(move || netns.run(|| make(address, rate, &made, &stop)))
        };
        Self {
            made,
            stop,
            client,
            server,
            address,
            client_side: netns,
        }
    }

    /// How many there were so far.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it; all connections, and how many failed.
    pub(crate) fn end(self) -> (BTreeSet<Source>, usize) {
        self.stop.client.store(true, Ordering::Relaxed);
        let done = self.client.join().expect("the client");
        self.stop.server.store(true, Ordering::Relaxed);
        // The server may be waiting for one more.
        drop(self.client_side.run(|| TcpStream::connect(self.address)));
        self.server.join().expect("the server");
        done
    }
}

/// Takes connections and waits for their end.
fn take(listener: TcpListener, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            // A reset, as the client ends all of them.
            let _ended = connection.read(&mut [0]);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    })
}

fn make(
    to: SocketAddr,
    rate: u32,
    made: &AtomicUsize,
    stop: &AtomicBool,
) -> (BTreeSet<Source>, usize) {
    let SocketAddr::V4(to) = to else {
        panic!("an IPv4 site");
    };
    let sources = PORTS.flat_map(|port| CLIENTS.map(|address| (address, port)));
    let (mut all, mut failed) = (BTreeSet::new(), 0);
    let begun = Instant::now();
    for (source, nth) in sources.zip(0..) {
        if stop.load(Ordering::Relaxed) {
            return (all, failed);
        }
        let due = Duration::from_secs(1) * nth / rate;
        thread::sleep(due.saturating_sub(begun.elapsed()));
        if let Err(error) = one(source, to) {
            println!("hitless: from {source:?}: {error}");
            failed += 1;
        } else {
            all.insert(source);
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
    panic!("no ports are left");
}

fn one((address, port): Source, to: SocketAddrV4) -> Result<(), Errno> {
    let none = None;
    let client = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        none,
    )?;
    // It ends with a reset, and leaves no port in TIME_WAIT.
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&client, sockopt::Linger, &linger)?;
    setsockopt(&client, sockopt::SendTimeout, &LIMIT)?;
    let from = SocketAddrV4::new(address, port);
    bind(client.as_raw_fd(), &SockaddrIn::from(from))?;
    connect(client.as_raw_fd(), &SockaddrIn::from(to))
}
