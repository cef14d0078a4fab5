//! What was measured, slice by slice.

use std::collections::BTreeMap;
use std::time::Duration;

use conntrack_tests::bench::interval::Median;

use crate::configuration::Configuration;
use crate::traffic::Stream;

/// Nanoseconds a packet, of every stream through every router, cycle by cycle.
pub(crate) struct Series {
    streams: Vec<Stream>,
    configurations: Vec<Configuration>,
    /// By stream, then by router, then by cycle: not all have their turn in each.
    values: Vec<Vec<BTreeMap<usize, f64>>>,
    packets: Vec<Vec<u64>>,
    cycles: usize,
    /// All packets that were sent, by router: also those that were not timed.
    pub(crate) sent: Vec<u64>,
}

impl Series {
    pub(crate) fn new(
        streams: &[Stream],
        configurations: impl Iterator<Item = Configuration>,
    ) -> Self {
        let configurations: Vec<_> = configurations.collect();
        let routers = configurations.len();
        Self {
            streams: streams.to_vec(),
            configurations,
            values: vec![vec![BTreeMap::new(); routers]; streams.len()],
            packets: vec![vec![0; routers]; streams.len()],
            cycles: 0,
            sent: Vec::new(),
        }
    }

    /// One slice.
    pub(crate) fn add(&mut self, stream: usize, router: usize, time: Duration, packets: usize) {
        let each = time.as_secs_f64() * 1e9 / packets as f64;
        self.values[stream][router].insert(self.cycles, each);
        self.packets[stream][router] += packets as u64;
    }

    /// All slices of a cycle have been added.
    pub(crate) fn end_cycle(&mut self) {
        self.cycles += 1;
    }

    pub(crate) const fn cycles(&self) -> usize {
        self.cycles
    }

    /// The streams that were measured.
    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The routers that were measured.
    pub(crate) fn configurations(&self) -> &[Configuration] {
        &self.configurations
    }

    /// How many packets were timed.
    pub(crate) fn packets(&self, stream: Stream, of: &Configuration) -> u64 {
        self.place(stream, of)
            .map_or(0, |(stream, router)| self.packets[stream][router])
    }

    /// What a packet took, through one router.
    pub(crate) fn absolute(&self, stream: Stream, of: &Configuration) -> Option<Median> {
        self.combined(stream, [of], |[value]| value)
    }

    /// What a packet took more through one router than through another: the median of
    /// the cycles' differences.
    pub(crate) fn difference(
        &self,
        stream: Stream,
        of: &Configuration,
        to: &Configuration,
    ) -> Option<Median> {
        self.combined(stream, [of, to], |[of, to]| of - to)
    }

    /// The median of what `combine` makes of these routers' values of each cycle.
    pub(crate) fn combined<const N: usize>(
        &self,
        stream: Stream,
        of: [&Configuration; N],
        combine: impl Fn([f64; N]) -> f64,
    ) -> Option<Median> {
        let nowhere = BTreeMap::new();
        let values = of.map(|each| self.values(stream, each).unwrap_or(&nowhere));
        let [first, ..] = values.as_slice() else {
            return None;
        };
        let combined = first.keys().filter_map(|cycle| {
            let mut of_cycle = [0.0; N];
            for (value, values) in of_cycle.iter_mut().zip(values) {
                *value = *values.get(cycle)?;
            }
            Some(combine(of_cycle))
        });
        Median::of(combined.collect())
    }

    fn values(&self, stream: Stream, of: &Configuration) -> Option<&BTreeMap<usize, f64>> {
        let (stream, router) = self.place(stream, of)?;
        Some(&self.values[stream][router])
    }

    fn place(&self, stream: Stream, of: &Configuration) -> Option<(usize, usize)> {
        let stream = self.streams.iter().position(|each| *each == stream)?;
        let router = self.configurations.iter().position(|each| each == of)?;
        (!self.values[stream][router].is_empty()).then_some((stream, router))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Way;

    #[test]
    fn differences_are_taken_within_a_cycle() {
        let stream = Stream::all().next().expect("a stream");
        let [base, more] = [Way::Nothing, Way::Empty].map(|way| Configuration::with(way, 0));
        let mut series = Series::new(&[stream], [base, more].into_iter());
        // The machine gets slower, and both with it.
        for (cycle, slow) in [1_000, 2_000, 9_000].into_iter().enumerate() {
            let extra = [50, 60, 70][cycle];
            series.add(0, 0, Duration::from_nanos(slow * 10), 10);
            series.add(0, 1, Duration::from_nanos((slow + extra) * 10), 10);
            series.end_cycle();
        }
        let difference = series.difference(stream, &more, &base).expect("both");
        assert!((difference.value - 60.0).abs() < 1e-6, "{difference:?}");
        assert_eq!(series.packets(stream, &more), 30);
        let absolute = series.absolute(stream, &base).expect("it");
        assert!((absolute.value - 2_000.0).abs() < 1e-6, "{absolute:?}");
    }

    #[test]
    fn what_was_not_measured_has_no_median() {
        let stream = Stream::all().next().expect("a stream");
        let base = Configuration::BASE;
        let mut series = Series::new(&[stream], [base].into_iter());
        series.add(0, 0, Duration::from_nanos(10), 1);
        assert!(
            series
                .difference(stream, &Configuration::AGAIN, &base)
                .is_none()
        );
    }
}
