//! A loaded instance that frames are given to.

use std::ops::Range;

use aya::programs::{ProgramError, TestRun as _, TestRunOptions};
use conntrack_agent::{
    kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Usable},
    port_table::{Capacity, Image, Wanted, plan},
};
use conntrack_ebpf::{
    abi::{Counters, Destination},
    lookup::lookup,
    parse::{self, ETHERNET_HEADER},
};
use conntrack_tests::lab::Lab;
use uuid::Uuid;

use super::frames::{tcp, udp};

pub(super) const MASK: u32 = 0xff00_0000;

/// Ports at both ends, on both sides of a page boundary, and one that both
/// protocols have; each with a mark of its own.
pub(super) const RULES: [(Destination, u32); 9] = [
    (tcp(1), 1),
    (tcp(21), 2),
    (tcp(255), 3),
    (tcp(256), 4),
    (tcp(65535), 5),
    (udp(69), 6),
    (udp(5060), 7),
    (tcp(5060), 8),
    (udp(65535), 12),
];

/// A loaded instance in a bpffs of its own.
pub(super) struct Loaded {
    pub(super) instance: Instance,
    image: Image,
    /// Dropped last: its bpffs holds the pins.
    _lab: Lab,
}

impl Loaded {
    pub(super) fn new() -> Self {
        let lab = Lab::new();
        let folder = lab.dir().bpf_dir().join("instance");
        let router = Uuid::new_v4().to_string().parse().unwrap();
        let (build, agent) = (Build::built_in(), AgentId::random());
        let shared = lab.dir().bpf_dir().join("shared");
        let mut object = Object::new(build, agent, MarkBits::new(MASK).unwrap(), shared);
        let (capacity, carrier) = (Capacity::DEFAULT, Carrier::Mark);
        Instance::create(&mut object, &folder, router, capacity, carrier).unwrap();
        let Usable::Whole(instance) = Instance::open(&folder).unwrap() else {
            panic!("the instance that was just made isn't whole");
        };
        let mut loaded = Self {
            image: instance.image().unwrap(),
            instance,
            _lab: lab,
        };
        loaded.put(&Wanted::from(RULES));
        loaded
    }

    /// Gives it other rules.
    pub(super) fn put(&mut self, wanted: &Wanted) {
        let edit = plan(&self.instance.image().unwrap(), wanted).unwrap();
        self.instance.edit(&edit).unwrap();
        self.image = self.instance.image().unwrap();
    }

    fn counters(&self) -> Vec<Counters> {
        let counters = |rule| self.instance.counters(rule).unwrap().expect("a rule");
        RULES.iter().map(|(rule, _)| counters(*rule)).collect()
    }

    /// Runs the program on a frame that arrives with `mark`; what it leaves in
    /// the mark, where it leaves the priority alone. The frame must come out as
    /// it went in.
    pub(super) fn run(&mut self, frame: &[u8], mark: u32) -> u32 {
        self.try_run(frame, mark).unwrap()
    }

    /// The same, where the kernel may find the frame too short to run on.
    pub(super) fn try_run(&mut self, frame: &[u8], mark: u32) -> Result<u32, ProgramError> {
        const PRIORITY: u32 = 0x0102_0304;
        let (mark, priority) = self.run_with(frame, mark, PRIORITY)?;
        assert_eq!(priority, PRIORITY, "the priority was changed");
        Ok(mark)
    }

    /// Runs it on a frame with this mark and this priority; what becomes of them.
    fn run_with(
        &mut self,
        frame: &[u8],
        mark: u32,
        priority: u32,
    ) -> Result<(u32, u32), ProgramError> {
        // Where `struct __sk_buff` has its fields.
        const MARK: Range<usize> = 8..12;
        const PRIORITY: Range<usize> = 32..36;
        const CB: Range<usize> = 48..68;
        const TSTAMP: Range<usize> = 152..160;
        const UNSPEC: u32 = u32::MAX; // TC_ACT_UNSPEC, -1
        let mut context = [0; 256];
        context[MARK].copy_from_slice(&mark.to_ne_bytes());
        // The other metadata that a test may set, each to something of its own.
        context[PRIORITY].copy_from_slice(&priority.to_ne_bytes());
        context[CB].fill(0xcb);
        context[TSTAMP].copy_from_slice(&0x0506_0708_u64.to_ne_bytes());
        let mut context_out = [0; 256];
        let mut frame_out = vec![0; frame.len()];
        let result = self.instance.program().test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut frame_out),
            ctx_in: Some(&context[..TSTAMP.end]),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::default()
        })?;
        assert_eq!(result.return_value, UNSPEC, "the verdict is never ours");
        assert_eq!(frame_out, frame, "the frame was changed");
        for part in [CB, TSTAMP] {
            let (before, after) = (&context[part.clone()], &context_out[part.clone()]);
            assert_eq!(before, after, "metadata at {part:?} was changed");
        }
        let word = |at: Range<usize>| u32::from_ne_bytes(context_out[at].try_into().unwrap());
        Ok((word(MARK), word(PRIORITY)))
    }

    /// One row: this frame belongs to this rule, or to none.
    pub(super) fn check(&mut self, what: &str, frame: &[u8], expected: Option<Destination>) {
        let helper_mark = expected.map_or(0, |at| Wanted::from(RULES)[&at]);
        for arriving in [0, 0x0400_0002 & !MASK, MASK, 0x7f00_0001, u32::MAX] {
            let before = self.counters();
            let left = self.run(frame, arriving);
            assert_eq!(
                left,
                (arriving & !MASK) | (helper_mark << 24),
                "{what}: mark {arriving:#x} became {left:#x}"
            );
            let after = self.counters();
            for (index, (rule, _)) in RULES.iter().enumerate() {
                let mut wanted = before[index];
                if expected == Some(*rule) {
                    wanted.packets += 1;
                    wanted.bytes += (frame.len() - ETHERNET_HEADER) as u64;
                }
                assert_eq!(after[index], wanted, "{what}: counters of {rule:?}");
            }
        }
        assert_eq!(self.on_host(frame), helper_mark, "{what}: on the host");
        self.check_carriers(what, frame, helper_mark);
    }

    /// Whichever carrier is used: the helper mark is in that one, and neither has
    /// a bit of ours beyond that, whatever the frame has brought along. What is
    /// anybody's stays.
    fn check_carriers(&mut self, what: &str, frame: &[u8], helper_mark: u32) {
        const FORGED: u32 = 0xc000_0030;
        for carrier in [Carrier::Mark, Carrier::Priority] {
            self.instance.set_carrier(carrier).unwrap();
            for (mark, priority, left) in [
                (0, 0, 0),
                (MASK, FORGED, 0),
                (0, 0xc000_0000, 0),
                (0, 0xc000_0ff0, 0),
                (0x12, 6, 6),
                (0, 0xc000_0031, 0xc000_0031),
                (0, 0xc000_1030, 0xc000_1030),
                (0, 0x4000_0030, 0x4000_0030),
                (u32::MAX, u32::MAX, u32::MAX),
            ] {
                let wanted = match carrier {
                    Carrier::Mark => ((mark & !MASK) | (helper_mark << 24), left),
                    Carrier::Priority if helper_mark == 0 => (mark & !MASK, left),
                    Carrier::Priority => (mark & !MASK, 0xc000_0000 | (helper_mark << 4)),
                };
                assert_eq!(
                    self.run_with(frame, mark, priority).unwrap(),
                    wanted,
                    "{what}: mark {mark:#x}, priority {priority:#x}, by {carrier:?}"
                );
            }
        }
        self.instance.set_carrier(Carrier::Mark).unwrap();
    }

    /// The same parser and lookup, outside of the kernel; 0 for no rule.
    pub(super) fn on_host(&self, frame: &[u8]) -> u32 {
        let ethertype = frame
            .get(12..14)
            .map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().unwrap()));
        parse::control(frame, ethertype, ETHERNET_HEADER)
            .ok()
            .and_then(|control| lookup(&self.image, control.destination))
            .map_or(0, |hit| hit.mark.get())
    }
}
