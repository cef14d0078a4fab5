//! Frames that `BPF_PROG_TEST_RUN` doesn't take, or make: that end inside the IP
//! header, and whose headers are not in the skb's linear part. Sent over a real
//! interface, with the classifier attached to it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::os::fd::{AsRawFd as _, OwnedFd};

use conntrack_agent::{
    kernel::{
        AgentId, AttachMode, Attachment, Build, Carrier, Hooks, Instance, MarkBits, NetnsFolder,
        Object, Usable,
    },
    port_table::{Capacity, Wanted, plan},
};
use conntrack_ebpf::abi::{Counters, Destination, Protocol};
use conntrack_tests::{
    lab::Lab,
    netns::Netns,
    packets::shape::{Extension, Family, Shape, tcp},
};
use etherparse::PacketBuilder;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _,
        sendto, setsockopt, socket, sockopt,
    },
};
use uuid::Uuid;

const MASK: u32 = 0xff00_0000;
const FTP: Destination = Destination {
    protocol: Protocol::Tcp,
    port: 2121,
};
/// With our bits forged, and one that isn't ours.
const FORGED: u32 = 0xff00_0001;

/// Counts what comes out of the classifier, of the frames sent here: the veth
/// has IPv6's own as well. The netdev ingress hook is behind tcx
/// (`__netif_receive_skb_core` in `net/core/dev.c`).
const COUNT: &str = "
table netdev count {
    counter clean {}
    counter ftp {}
    counter seen {}
    chain ingress {
        type filter hook ingress device in0 priority 0;
        ether saddr != 02:02:02:02:02:02 accept
        counter name seen
        meta mark 0x00000001 counter name clean
        meta mark 0x01000001 counter name ftp
        drop
    }
}";

fn counted(netns: &Netns, name: &str) -> u64 {
    let listing = netns.tool("nft", ["list", "counter", "netdev", "count", name], "");
    let words: Vec<_> = listing.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").unwrap();
    words[at + 1].parse().unwrap()
}

/// Sends each frame out of `out0`, so that it comes in by `in0`. Both are in one
/// namespace, so the mark that the socket gives stays on the packet.
fn send(netns: &Netns, frames: &[Vec<u8>]) {
    netns.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw: OwnedFd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            None::<SockProtocol>,
        )
        .expect("a packet socket");
        setsockopt(&raw, sockopt::Mark, &FORGED).expect("its mark");
        let out: LinkAddr = getifaddrs()
            .unwrap()
            .filter(|interface| interface.interface_name == "out0")
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .expect("the address of out0");
        assert_eq!(out.family(), Some(AddressFamily::Packet));
        for frame in frames {
            let sent = sendto(raw.as_raw_fd(), frame, &out, MsgFlags::empty());
            assert_eq!(sent, Ok(frame.len()));
        }
    });
}

#[test]
fn truncated_frames_are_nobodys_and_scattered_ones_are_read() {
    let lab = Lab::new();
    let router = lab.netns("router");
    router.ip("link add out0 type veth peer name in0");
    router.ip("link set out0 mtu 9000");
    router.ip("link set in0 mtu 9000");
    router.ip("link set out0 up");
    router.ip("link set in0 up");

    let agent = AgentId::random();
    let carrier = MarkBits::new(MASK).unwrap();
    let shared = lab.dir().bpf_dir().join("shared");
    let mut object = Object::new(Build::built_in(), agent, carrier, shared);
    let id = Uuid::new_v4().to_string().parse().unwrap();
    let folder = lab.dir().bpf_dir().join("instance");
    Instance::create(&mut object, &folder, id, Capacity::DEFAULT, Carrier::Mark).unwrap();
    let Usable::Whole(mut instance) = Instance::open(&folder).unwrap() else {
        panic!("the instance that was just made isn't whole");
    };
    let wanted = Wanted::from([(FTP, 1)]);
    let edit = plan(&instance.image().unwrap(), &wanted).unwrap();
    instance.edit(&edit).unwrap();
    let netns = NetnsFolder::new(lab.dir().netns_dir())
        .open("router")
        .unwrap()
        .expect("the namespace");
    let hooks = Hooks::probe(agent).unwrap();
    let mut found = hooks.look(&netns).unwrap().into_iter();
    let ingress = found.find(|ingress| ingress.interface.name == "in0");
    let attachment = Attachment {
        namespace: "router".into(),
        interface: ingress.expect("in0").interface,
        pin: lab.dir().bpf_dir().join("link"),
    };

    let mut frames = Vec::new();
    let mut whole_frames = Vec::new();
    for v4 in [true, false] {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let packet = if v4 {
            ethernet.ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        } else {
            ethernet.ipv6([0xfd; 16], [0xfc; 16], 64)
        };
        let mut whole = Vec::new();
        packet
            .tcp(21, FTP.port, 1, 1000)
            .write(&mut whole, &[])
            .unwrap();
        // A packet socket sends nothing that is only an Ethernet header.
        frames.extend((15..whole.len()).map(|length| whole[..length].to_vec()));
        // Of more than a page, a packet socket puts the Ethernet header alone into
        // the linear part (`packet_alloc_skb`, net/packet/af_packet.c).
        let family = if v4 { Family::V4 } else { Family::V6 };
        let mut payload = tcp(21, FTP.port, 0x10);
        payload.resize(5000, 0);
        let mut large = Shape::plain(family, 6, payload);
        whole_frames.extend([whole, large.frame()]);
        if v4 {
            large.options = vec![1; 40];
        } else {
            large.extensions = [0, 60, 43].map(|number| Extension::new(number, 16)).into();
        }
        whole_frames.push(large.frame());
    }
    let short = frames.len() as u64;
    let whole = whole_frames.len() as u64;

    // The twin: without the classifier, the forged bits get through.
    router.nft(COUNT);
    send(&router, &frames);
    assert_eq!(counted(&router, "seen"), short);
    assert_eq!(counted(&router, "clean"), 0);
    router.tool("nft", ["reset", "counters"], "");

    hooks
        .attach(AttachMode::Tcx, &netns, &attachment, &mut instance)
        .unwrap();
    send(&router, &frames);
    send(&router, &whole_frames);
    assert_eq!(counted(&router, "seen"), short + whole);
    assert_eq!(counted(&router, "clean"), short);
    assert_eq!(counted(&router, "ftp"), whole);
    let bytes = whole_frames
        .iter()
        .map(|frame| frame.len() as u64 - 14)
        .sum();
    let expected = Counters {
        packets: whole,
        bytes,
    };
    assert_eq!(instance.counters(FTP).unwrap(), Some(expected));
}
