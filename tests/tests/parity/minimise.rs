//! The fewest frames that still make a difference.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use crate::compare::{Difference, differences};
use crate::grammar::Step;
use crate::rig::Rig;
use crate::wire::Frame;

/// Until the kernel has forgotten the fragments that wait for others.
const FORGOTTEN: Duration = Duration::from_millis(1300);

/// What makes a difference, as text.
pub(crate) fn explain(rig: &Rig, steps: &[Step], difference: &Difference) -> String {
    let frames = fewest(rig, steps, difference);
    let mut text = format!("{difference}\n");
    let Some(frames) = frames else {
        text.push_str("  not seen again with the same frames\n");
        return text;
    };
    for Frame { from, bytes, .. } in &frames {
        let _infallible = write!(text, "  from the {from:?}, {} bytes: ", bytes.len());
        for byte in bytes {
            let _infallible = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn fewest(rig: &Rig, steps: &[Step], difference: &Difference) -> Option<Vec<Frame>> {
    let is_seen = |frames: &[Frame]| {
        if frames.iter().any(|frame| frame.may_wait) {
            thread::sleep(FORGOTTEN);
        }
        let found = differences(&rig.run(frames.iter()));
        found.iter().any(|found| found.tuple == difference.tuple)
    };
    let frames = |steps: &mut dyn Iterator<Item = &Step>| -> Vec<Frame> {
        steps.flat_map(|step| step.frames.clone()).collect()
    };
    let concerned = frames(&mut steps.iter().filter(|step| step.concerns(&difference.tuple)));
    let all = || frames(&mut steps.iter());
    let mut rest = if is_seen(&concerned) {
        concerned
    } else {
        Some(all()).filter(|all| is_seen(all))?
    };
    // Parts of them taken away, ever smaller ones.
    let mut size = rest.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < rest.len() {
            let mut without = rest.clone();
            without.drain(at..(at + size).min(rest.len()));
            if is_seen(&without) {
                rest = without;
            } else {
                at += size;
            }
        }
        if size == 1 {
            return Some(rest);
        }
        size = size.div_ceil(2);
    }
}
