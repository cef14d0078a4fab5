//! What the XDP program leaves in a packet's metadata, byte by byte, by
//! `BPF_PROG_TEST_RUN`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use conntrack_agent::{
    kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Usable, load_again},
    model::RouterId,
    port_table::{Capacity, Wanted, plan},
};
use conntrack_ebpf::{
    abi::{self, Destination, Identity, Protocol, Slot},
    handover::Handover,
};
use conntrack_tests::lab::Lab;
use etherparse::PacketBuilder;
use uuid::Uuid;

const PASS: u32 = 2; // XDP_PASS

/// `struct xdp_md`, include/uapi/linux/bpf.h: six numbers, of which these are
/// set or looked at.
const CONTEXT: usize = 24;
const DATA: usize = 0;
const DATA_END: usize = 4;
const DATA_META: usize = 8;
const INTERFACE: usize = 12;

/// The loopback has this number in every namespace.
const LOOPBACK: u32 = 1;

const FTP: Destination = Destination {
    protocol: Protocol::Tcp,
    port: 21,
};
const TFTP: Destination = Destination {
    protocol: Protocol::Udp,
    port: 69,
};

/// An instance, and its XDP program once more, on the same maps.
struct Loaded {
    object: Ebpf,
    instance: Instance,
    token: u64,
    _lab: Lab,
}

impl Loaded {
    fn new() -> Self {
        let lab = Lab::new();
        let folder = lab.dir().bpf_dir().join("instance");
        let router: RouterId = Uuid::new_v4().to_string().parse().unwrap();
        let mut maker = Object::new(
            Build::built_in(),
            AgentId::random(),
            MarkBits::new(0xff00_0000).unwrap(),
            lab.dir().bpf_dir().join("shared"),
        )
        .with_xdp();
        Instance::create(
            &mut maker,
            &folder,
            router,
            Capacity::DEFAULT,
            Carrier::Mark,
        )
        .unwrap();
        let Usable::Whole(mut instance) = Instance::open(&folder).unwrap() else {
            panic!("the instance that was just made isn't whole");
        };
        let wanted = Wanted::from([(FTP, 1), (TFTP, 2)]);
        let edit = plan(&instance.image().unwrap(), &wanted).unwrap();
        instance.edit(&edit).unwrap();
        let mut loader = EbpfLoader::new();
        for map in [abi::PAGES, abi::SLOTS, abi::IDENTITY] {
            loader.map_pin_path(map, folder.join(map));
        }
        let mut object = loader.load(Build::built_in().object()).unwrap();
        let program = xdp(&mut object);
        load_again(|| program.load()).unwrap();
        let identity = MapData::from_pin(folder.join(abi::IDENTITY)).unwrap();
        let identity: Array<_, [u8; Identity::SIZE]> = Map::Array(identity).try_into().unwrap();
        let identity = identity.get(&0, 0).unwrap();
        Self {
            object,
            instance,
            // Its first field.
            token: u64::from_ne_bytes(identity[..8].try_into().unwrap()),
            _lab: lab,
        }
    }

    /// The metadata that the program leaves in front of the frame.
    fn run(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut context = [0; CONTEXT];
        let length = u32::try_from(frame.len()).unwrap();
        context[DATA_END..DATA_END + 4].copy_from_slice(&length.to_ne_bytes());
        context[INTERFACE..INTERFACE + 4].copy_from_slice(&LOOPBACK.to_ne_bytes());
        let mut context_out = [0; CONTEXT];
        let mut out = vec![0; frame.len() + 64];
        let result = xdp(&mut self.object)
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ctx_out: Some(&mut context_out),
                ..TestRunOptions::default()
            })
            .unwrap();
        assert_eq!(result.return_value, PASS, "the verdict is never ours");
        assert_eq!(context_out[DATA_META..DATA_META + 4], [0; 4]);
        let data = u32::from_ne_bytes(context_out[DATA..DATA + 4].try_into().unwrap());
        let (metadata, rest) = out.split_at(usize::try_from(data).unwrap());
        assert_eq!(&rest[..frame.len()], frame, "the frame was changed");
        metadata.to_vec()
    }

    /// What it should leave, as the ABI says it: token, key, interface, where the
    /// transport header is, whether the packet opens a connection.
    fn metadata(&self, found: Option<(Destination, u16, bool)>) -> Vec<u8> {
        let (key, transport, opens) = found.map_or((0, 0, 0), |(to, transport, opens)| {
            let slots = self.instance.image().unwrap();
            let slot = (0..slots.capacity().slots).find(|slot| {
                let content = slots.slot_at(*slot).content();
                content.is_some_and(|(destination, _)| destination == to)
            });
            let slot = u32::from(slot.unwrap());
            (Slot::new(to, slot).to_bits(), transport, u16::from(opens))
        });
        let mut bytes = self.token.to_ne_bytes().to_vec();
        bytes.extend(key.to_ne_bytes());
        bytes.extend(LOOPBACK.to_ne_bytes());
        bytes.extend(transport.to_ne_bytes());
        bytes.extend(opens.to_ne_bytes());
        assert_eq!(bytes.len(), Handover::SIZE);
        bytes
    }
}

fn xdp(object: &mut Ebpf) -> &mut Xdp {
    object
        .program_mut("classify_xdp")
        .unwrap()
        .try_into()
        .unwrap()
}

fn v4(to: Destination, syn: bool) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64);
    with_transport(packet, to, syn)
}

fn v6(to: Destination, syn: bool) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([0xfd; 16], [0xfc; 16], 64);
    with_transport(packet, to, syn)
}

fn with_transport(
    packet: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
    to: Destination,
    syn: bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    match to.protocol {
        Protocol::Tcp => {
            let packet = packet.tcp(40_000, to.port, 1, 1000);
            let packet = if syn { packet.syn() } else { packet.ack(7) };
            packet.write(&mut bytes, b"payload").unwrap();
        }
        Protocol::Udp => {
            let packet = packet.udp(40_000, to.port);
            packet.write(&mut bytes, b"payload").unwrap();
        }
    }
    bytes
}

/// With a tag of this kind between the addresses and the EtherType.
fn tagged(frame: &[u8], kind: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(100_u16.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

#[test]
fn what_was_found_is_handed_over_byte_by_byte() {
    let mut loaded = Loaded::new();
    for (frame, transport) in [(v4 as fn(_, _) -> _, 20), (v6, 40)] {
        for (to, syn, opens) in [(FTP, true, true), (FTP, false, false), (TFTP, true, true)] {
            let expected = loaded.metadata(Some((to, transport, opens)));
            let frame: Vec<u8> = frame(to, syn);
            assert_eq!(loaded.run(&frame), expected, "{to:?}, SYN {syn}");
            // The tc program sees a frame after its first tag was taken off.
            for kind in [0x8100, 0x88a8] {
                let tagged = tagged(&frame, kind);
                assert_eq!(loaded.run(&tagged), expected, "{to:?}, tag {kind:#06x}");
            }
        }
    }
}

#[test]
fn nothing_found_is_handed_over_too() {
    let mut loaded = Loaded::new();
    let nothing = loaded.metadata(None);
    let telnet = Destination { port: 23, ..FTP };
    let mut arp = v4(FTP, true);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let twice = tagged(&tagged(&v4(FTP, true), 0x8100), 0x8100);
    for frame in [v4(telnet, true), v6(telnet, true), arp, twice] {
        assert_eq!(loaded.run(&frame), nothing, "{frame:02x?}");
    }
}
