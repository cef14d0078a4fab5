//! The fuzzer's corpus through the loaded programs: they, the parser on the host
//! and the reference reading say the same of every frame.
//!
//! Every port has a rule, so that whichever port a program finds is seen.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use conntrack_agent::{
    kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Usable, load_again},
    port_table::{Capacity, Wanted, plan},
};
use conntrack_ebpf::{
    abi::{self, Destination, Protocol},
    event::Limiter,
    parse,
};
use conntrack_tests::{
    lab::Lab,
    packets::{
        choices::Choices,
        reference::{self, Reading},
        shape::{Extension, Family, Shape, damage, tcp},
    },
};
use uuid::Uuid;

/// The whole field: each port has a mark of its own.
const MASK: u32 = u32::MAX;

const UNSPEC: u32 = u32::MAX; // TC_ACT_UNSPEC, -1
const PASS: u32 = 2; // XDP_PASS

/// The most that both programs are run on here, in bytes: what fits in one page
/// with the room that the kernel adds (`bpf_test_init`, `net/bpf/test_run.c`).
const ONE_PAGE: usize = 3 * 1024;

/// Both programs, with a rule for every port of one protocol: a table has slots
/// for no more.
struct Loaded {
    instance: Instance,
    xdp: Ebpf,
    limiter: PerCpuArray<MapData, [u64; size_of::<Limiter>() / 8]>,
    protocol: Protocol,
    /// Dropped last: its bpffs holds the pins.
    _lab: Lab,
}

impl Loaded {
    fn new(protocol: Protocol) -> Self {
        let lab = Lab::new();
        let (folder, shared) = (
            lab.dir().bpf_dir().join("instance"),
            lab.dir().bpf_dir().join("shared"),
        );
        let router = Uuid::new_v4().to_string().parse().unwrap();
        let carrier = MarkBits::new(MASK).unwrap();
        let mut object = Object::new(
            Build::built_in(),
            AgentId::random(),
            carrier,
            shared.clone(),
        );
        Instance::create(&mut object, &folder, router, Capacity::MAX, Carrier::Mark).unwrap();
        let Usable::Whole(mut instance) = Instance::open(&folder).unwrap() else {
            panic!("the instance that was just made isn't whole");
        };
        let rules = (1..u16::MAX).map(|port| (Destination { protocol, port }, mark(port)));
        let wanted: Wanted = rules.collect();
        let edit = plan(&instance.image().unwrap(), &wanted).unwrap();
        instance.edit(&edit).unwrap();
        let limiter = MapData::from_pin(shared.join(abi::LIMITER)).unwrap();
        Self {
            instance,
            xdp: with_xdp(&folder, &shared),
            limiter: PerCpuArray::try_from(Map::PerCpuArray(limiter)).unwrap(),
            protocol,
            _lab: lab,
        }
    }

    /// What the tc program finds in a frame whose VLAN tag is off: the port, and
    /// whether it tells of a connection that begins.
    fn by_tc(&mut self, frame: &[u8]) -> Result<Option<(u16, bool)>, ProgramError> {
        self.by_tc_merged(frame, 0)
    }

    /// The same of segments with so much payload each, merged; none are, if 0.
    fn by_tc_merged(
        &mut self,
        frame: &[u8],
        size: u32,
    ) -> Result<Option<(u16, bool)>, ProgramError> {
        const MARK_AT: usize = 8; // offsetof(struct __sk_buff, mark)
        const GSO_SIZE_AT: usize = 176; // offsetof(struct __sk_buff, gso_size)
        let mut context_in = [0; GSO_SIZE_AT + 4];
        context_in[GSO_SIZE_AT..].copy_from_slice(&size.to_ne_bytes());
        let mut context = [0; 256];
        let before = self.told();
        let result = self.instance.program().test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context_in),
            ctx_out: Some(&mut context),
            ..TestRunOptions::default()
        })?;
        assert_eq!(result.return_value, UNSPEC);
        let told = self.told() - before;
        let found = u32::from_ne_bytes(context[MARK_AT..MARK_AT + 4].try_into().unwrap());
        assert!(told <= u64::from(found != 0), "told {told} times");
        Ok((found != 0).then(|| (port(found), told == 1)))
    }

    /// How many packets the tc program had something to tell of, whatever became
    /// of it: sent, limited, and the ring buffer full.
    fn told(&self) -> u64 {
        let of_all = self.limiter.get(&0, 0).unwrap();
        of_all
            .iter()
            .map(|limiter| limiter[2..5].iter().sum::<u64>())
            .sum()
    }

    /// What the XDP program hands over.
    fn by_xdp(&self, frame: &[u8]) -> Result<Option<Reading>, ProgramError> {
        const METADATA: usize = conntrack_ebpf::handover::Handover::SIZE;
        let mut out = vec![0; METADATA + frame.len()];
        let program: &Xdp = self
            .xdp
            .program("classify_xdp")
            .unwrap()
            .try_into()
            .unwrap();
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })?;
        assert_eq!(result.return_value, PASS);
        let (metadata, behind) = out.split_at(METADATA);
        assert_eq!(
            behind, frame,
            "the frame was changed, or nothing handed over"
        );
        let number = |at: usize| u16::from_ne_bytes(metadata[at..at + 2].try_into().unwrap());
        // handover::Raw: token, key (slot, unused, port, protocol), interface,
        // transport, opens.
        let key = u64::from_ne_bytes(metadata[8..16].try_into().unwrap());
        let [.., protocol_high, protocol, port_high, port_low, _, _, _, _] = key.to_be_bytes();
        assert_eq!(protocol_high, 0);
        Ok((key != 0).then(|| Reading {
            protocol,
            port: u16::from_be_bytes([port_high, port_low]),
            before: number(20).into(),
            opens: number(22) != 0,
        }))
    }

    /// None where there is no rule: for the other protocol's ports, and 0 and 65535.
    fn ruled(&self, reading: Option<Reading>) -> Option<Reading> {
        reading.filter(|reading| {
            reading.protocol == self.protocol as u8 && (1..u16::MAX).contains(&reading.port)
        })
    }

    /// All four say the same of the frame, or the kernel refuses to run on it,
    /// where that is known. Returns whether both programs have run.
    fn check(&mut self, frame: &[u8]) -> bool {
        let expected = reference::of_frame(frame);
        let (ethertype, network) = parse::ethernet(frame);
        let on_host = parse::control(frame, ethertype, network).ok();
        let on_host = on_host.map(|control| Reading {
            protocol: control.destination.protocol as u8,
            port: control.destination.port,
            before: control.transport,
            opens: parse::opens(frame, network, &control),
        });
        assert_eq!(on_host, expected, "{frame:02x?}");
        let expected = self.ruled(expected);

        let untagged = reference::without_tag(frame);
        let by_tc = self.by_tc(&untagged);
        let by_xdp = self.by_xdp(frame);
        match &by_tc {
            Ok(found) => {
                // A test run can't say which tag was taken off, and says 0.
                let expected = if untagged == frame {
                    expected
                } else {
                    self.ruled(reference::of_frame(&naming_no_vlan(frame)))
                };
                let mut expected = expected.map(|reading| (reading.port, reading.opens));
                // A UDP flow is told of once in a while, not each time.
                if self.protocol == Protocol::Udp {
                    expected = expected.map(|(port, _)| (port, found.is_some_and(|found| found.1)));
                }
                assert_eq!(*found, expected, "tc: {frame:02x?}");
            }
            Err(error) => assert!(is_refused_by_tc(&untagged), "{error}: {frame:02x?}"),
        }
        match &by_xdp {
            Ok(found) => assert_eq!(*found, expected, "XDP: {frame:02x?}"),
            Err(error) => assert!(is_refused_by_xdp(frame), "{error}: {frame:02x?}"),
        }
        by_tc.is_ok() && by_xdp.is_ok()
    }
}

/// The object of this edition on the maps of an instance, with its XDP program in
/// the kernel.
fn with_xdp(folder: &Path, shared: &Path) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in [
        abi::PAGES,
        abi::SLOTS,
        abi::COUNTERS,
        abi::BASES,
        abi::IDENTITY,
    ] {
        loader.map_pin_path(map, folder.join(map));
    }
    for map in [abi::EVENTS, abi::LIMITER, abi::RECENT] {
        loader.map_pin_path(map, shared.join(map));
    }
    let mut object = loader.load(Build::built_in().object()).unwrap();
    let program: &mut Xdp = object
        .program_mut("classify_xdp")
        .expect("the XDP program")
        .try_into()
        .unwrap();
    load_again(|| program.load()).unwrap();
    object
}

const fn mark(port: u16) -> u32 {
    (port as u32) << 8 | 1
}

fn port(mark: u32) -> u16 {
    assert_eq!(mark & 0xff, 1, "{mark:#x} is nobody's mark");
    (mark >> 8).try_into().unwrap()
}

/// The frame with a first tag that names no VLAN.
fn naming_no_vlan(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(control) = frame.get_mut(14..16) {
        control.fill(0);
    }
    frame
}

/// What `bpf_prog_test_run_skb` takes for no packet: an Ethernet header alone, or
/// less than the IP header that the EtherType promises; and what is too large.
fn is_refused_by_tc(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 15,
    };
    frame.len() < least || frame.len() > ONE_PAGE
}

/// What `bpf_prog_test_run_xdp` takes for no frame.
fn is_refused_by_xdp(frame: &[u8]) -> bool {
    frame.len() < 14 || frame.len() > ONE_PAGE
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/parse");
    let files = fs::read_dir(folder).unwrap();
    let frames: Vec<_> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(frames.len() > 50, "the corpus has {} files", frames.len());
    frames
}

/// Runs each frame for both protocols' rules.
fn check_all(frames: &[Vec<u8>]) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut loaded = Loaded::new(protocol);
        let ran = frames.iter().filter(|frame| loaded.check(frame)).count();
        println!("{protocol:?}: {ran} of {} frames ran", frames.len());
        assert!(ran > frames.len() / 2, "{ran} of {} ran", frames.len());
    }
}

#[test]
fn all_say_the_same_of_the_corpus() {
    check_all(&corpus());
}

#[test]
fn all_say_the_same_of_generated_frames() {
    let mut random = fastrand::Rng::with_seed(7);
    let frames: Vec<_> = (0..20_000_u16)
        .map(|nth| {
            let mut bytes = [0; 180];
            random.fill(&mut bytes);
            let mut choices = Choices::new(&bytes);
            let mut frame = Shape::choose(&mut choices, &[(6, 21), (17, 69)]).frame();
            if nth % 2 == 1 {
                damage(&mut choices, &mut frame, 4);
            }
            frame
        })
        .collect();
    check_all(&frames);
}

const FTP: Option<(u16, bool)> = Some((21, true));

fn syn(family: Family) -> Shape {
    Shape::plain(family, 6, tcp(49152, 21, 0x02))
}

/// Of a frame in several buffers. What of a packet is not in an skb's linear part
/// is tested over a veth, in truncated.rs.
#[test]
fn headers_behind_the_first_buffer_are_read() {
    let loaded = Loaded::new(Protocol::Tcp);
    for headers in 1..=5 {
        let mut shape = syn(Family::V6);
        shape.extensions = vec![Extension::new(60, 2048); headers];
        let frame = shape.frame();
        let expected = Reading {
            protocol: 6,
            port: 21,
            before: 40 + headers * 2048,
            opens: true,
        };
        assert_eq!(loaded.by_xdp(&frame).unwrap(), Some(expected), "{headers}");
        let short = &frame[..frame.len() - 1];
        assert_eq!(loaded.by_xdp(short).unwrap(), None, "{headers}");
    }
}

/// A length field of 0 is merged segments', which the kernel knows them by.
#[test]
fn merged_segments_need_not_say_their_length() {
    let mut loaded = Loaded::new(Protocol::Tcp);
    for family in [Family::V4, Family::V6] {
        let mut shape = syn(family);
        shape.payload.resize(3000, 0);
        shape.length = Some(0);
        let frame = shape.frame();
        assert_eq!(loaded.by_tc_merged(&frame, 1400).unwrap(), FTP);
        assert_eq!(loaded.by_tc(&frame).unwrap(), None);
        // What can say it is believed.
        shape.length = None;
        assert_eq!(loaded.by_tc_merged(&shape.frame(), 1400).unwrap(), FTP);
    }
}
