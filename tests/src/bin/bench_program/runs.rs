//! One run of a program on a packet, many times over.

use std::time::Instant;

use aya::programs::{ProgramError, TestRunOptions};
use conntrack_ebpf::abi::{Carrier, in_priority};
use conntrack_ebpf::handover::Handover;
use fastrand::Rng;

use crate::loaded::{MASK, PASS, Program, UNSPEC};
use crate::packets::{Path, Way};

/// What the kernel is told of a packet's metadata: nothing of an skb, as long as
/// all of it is linear.
fn context(path: &Path) -> Vec<u8> {
    // `struct __sk_buff` and `struct xdp_md`, include/uapi/linux/bpf.h.
    const SKB_DATA_END: usize = 80;
    const FRAME_DATA_END: usize = 4;
    const INTERFACE: usize = 12;
    const FRAME: usize = 24;
    /// It has this number in every namespace.
    const LOOPBACK: u32 = 1;
    let end = path.linear.unwrap_or(path.frame.len());
    let end = u32::try_from(end).expect("a small frame").to_ne_bytes();
    let mut context = Vec::new();
    if path.way == Way::Xdp {
        context.resize(FRAME, 0);
        context[FRAME_DATA_END..FRAME_DATA_END + 4].copy_from_slice(&end);
        context[INTERFACE..INTERFACE + 4].copy_from_slice(&LOOPBACK.to_ne_bytes());
    } else if path.linear.is_some() {
        context.resize(SKB_DATA_END, 0);
        context.extend(end);
    }
    context
}

/// A packet, ready to be run on.
pub(crate) struct Ready<'a> {
    path: &'a Path,
    context: Vec<u8>,
}

impl<'a> Ready<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        let context = context(path);
        Self { path, context }
    }

    fn options(&self) -> TestRunOptions<'_> {
        TestRunOptions {
            data_in: Some(&self.path.frame),
            ctx_in: Some(&self.context)
                .filter(|it| !it.is_empty())
                .map(Vec::as_slice),
            ..TestRunOptions::default()
        }
    }

    /// Nanoseconds a packet.
    pub(crate) fn time(&self, program: &mut Program, rng: &mut Rng) -> f64 {
        let times = self.path.way.times();
        let options = TestRunOptions {
            repeat: times,
            ..self.options()
        };
        let begun = Instant::now();
        let result = program.run(options).expect("a run");
        let around = begun.elapsed().as_secs_f64() * 1e9 / f64::from(times);
        assert_eq!(
            result.return_value.cast_signed(),
            self.verdict(),
            "the verdict"
        );
        match self.path.way {
            // What the call itself takes is in it, and is the same for each program.
            Way::Tc | Way::TcAnew(_) => around,
            // The call waits for much else. The kernel's own time is cut off to whole
            // nanoseconds: so much as may be missing is added by chance.
            Way::Xdp => result.duration.as_secs_f64() * 1e9 + rng.f64(),
        }
    }

    fn verdict(&self) -> i32 {
        if self.path.way == Way::Xdp {
            PASS
        } else {
            UNSPEC
        }
    }

    /// Whether the program finds the packet's rule, or none, as it should.
    ///
    /// # Errors
    /// What the kernel says where it can't make such a packet.
    pub(crate) fn check(&self, program: &mut Program, mark: u32) -> Result<(), ProgramError> {
        let what = format!("{}: {}", self.path.way.name(), self.path.what);
        let mut data_out = vec![0; self.path.frame.len() + Handover::SIZE];
        let mut context_out = [0; 256];
        let result = program.run(TestRunOptions {
            data_out: Some(&mut data_out),
            ctx_out: Some(&mut context_out),
            ..self.options()
        })?;
        let verdict = result.return_value.cast_signed();
        assert_eq!(verdict, self.verdict(), "{what}: the verdict");
        let word = |at: usize| {
            let bytes = context_out[at..at + 4].try_into().expect("four bytes");
            u32::from_ne_bytes(bytes)
        };
        if self.path.way == Way::Xdp {
            // Where the packet starts, behind its metadata; of which the second word
            // says what was found.
            assert_eq!(
                word(0),
                u32::try_from(Handover::SIZE).expect("24"),
                "{what}"
            );
            assert_eq!(data_out[8..16] != [0; 8], mark != 0, "{what}: handed over");
        } else {
            const MARK_AT: usize = 8;
            const PRIORITY_AT: usize = 32;
            let expected = match self.path.way.carrier() {
                _ if mark == 0 => [0, 0],
                Carrier::Mark => [mark << MASK.trailing_zeros(), 0],
                Carrier::Priority => [0, in_priority(mark)],
            };
            let left = [MARK_AT, PRIORITY_AT].map(word);
            assert_eq!(left, expected, "{what}: mark and priority");
        }
        Ok(())
    }
}
