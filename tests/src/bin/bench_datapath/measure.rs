//! Slices of sending, in random order, again and again.

use std::time::{Duration, Instant};

use crate::rig::Router;
use crate::series::Series;
use crate::stop::{Stop, Stopped};
use crate::traffic::{Step, Stream};

/// How long one slice takes, about.
pub(crate) const SLICE: Duration = Duration::from_micros(500);
/// Packets of a slice at the least: with thousands of chains each takes long.
const LEAST: usize = 8;
/// Packets in front of a slice that are not timed: they bring the router's code and
/// data back into the caches.
const WARM: usize = 32;
/// Where a packet takes longer than this, a few slices are enough, and many would take
/// all the time.
const SLOW: Duration = Duration::from_micros(20);
/// Such a router has its turn once in so many cycles.
const RARELY: usize = 10;
/// Cycles at the least: of fewer than six values, not even the smallest and the largest
/// have the median between them with a probability of 95 % (1 − 2 · 2⁻⁵ is 94 %).
pub(crate) const FEWEST: usize = 6 * RARELY;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Until {
    /// So many cycles, [`FEWEST`] at the least.
    Cycles(usize),
    /// So much time, and the cycle that it ends in; longer for [`FEWEST`].
    Elapsed(Duration),
}

/// One stream through one router.
struct Slice {
    router: usize,
    frame: Vec<u8>,
    /// Packets before the time is taken, and while it is.
    warm: usize,
    packets: usize,
    is_slow: bool,
}

/// Measures every stream through every router that carries it.
///
/// A cycle has every stream once; a stream has every router once, in random order, so
/// that what is compared was measured within a few hundredths of a second.
pub(crate) fn measure(routers: &[Router], until: Until, stop: &Stop) -> Result<Series, Stopped> {
    let mut random = fastrand::Rng::new();
    let streams: Vec<_> = Stream::all().collect();
    let mut sent = vec![0; routers.len()];
    let mut slices: Vec<Vec<_>> = Vec::new();
    for stream in &streams {
        stop.check()?;
        let carrying = routers.iter().enumerate();
        let carrying = carrying.filter(|(_, router)| router.configuration.carries(*stream));
        slices.push(
            carrying
                .map(|(number, router)| Slice::calibrated(number, router, *stream, &mut sent))
                .collect(),
        );
    }
    let mut series = Series::new(&streams, routers.iter().map(|router| router.configuration));
    let begun = Instant::now();
    let mut order: Vec<_> = (0..streams.len()).collect();
    while until.goes_on(series.cycles(), begun.elapsed()) {
        random.shuffle(&mut order);
        for stream in &order {
            stop.check()?;
            let slices = &mut slices[*stream];
            random.shuffle(slices);
            let all_are_due = series.cycles().is_multiple_of(RARELY);
            let is_due = |slice: &&mut Slice| all_are_due || !slice.is_slow;
            for slice in slices.iter_mut().filter(is_due) {
                let wire = &routers[slice.router].links.client;
                let time = wire.burst(&slice.frame, slice.warm, slice.packets);
                sent[slice.router] += slice.both();
                series.add(*stream, slice.router, time, slice.packets);
            }
        }
        series.end_cycle();
    }
    series.sent = sent;
    Ok(series)
}

impl Until {
    fn goes_on(self, cycles: usize, elapsed: Duration) -> bool {
        match self {
            Self::Cycles(count) => cycles < count.max(FEWEST),
            Self::Elapsed(limit) => cycles < FEWEST || elapsed < limit,
        }
    }
}

impl Slice {
    /// As many packets as take the time that a slice should.
    fn calibrated(number: usize, router: &Router, stream: Stream, sent: &mut [u64]) -> Self {
        let frame = stream.frame(Step::Established, router.configuration.translation);
        let mut slice = Self {
            router: number,
            frame,
            warm: LEAST,
            packets: LEAST,
            is_slow: false,
        };
        // The second time with caches and code as they will be.
        for _ in 0..2 {
            let time = router
                .links
                .client
                .burst(&slice.frame, slice.warm, slice.packets);
            sent[number] += slice.both();
            let each = time.as_nanos() / slice.packets as u128;
            let packets = SLICE.as_nanos() / each.max(1);
            slice.packets = usize::try_from(packets).unwrap_or(usize::MAX).max(LEAST);
            slice.is_slow = each > SLOW.as_nanos();
            slice.warm = (slice.packets / LEAST).clamp(1, WARM);
        }
        slice
    }

    fn both(&self) -> u64 {
        (self.warm + self.packets) as u64
    }
}
