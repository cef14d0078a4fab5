//! What was measured, slice by slice.

use std::collections::BTreeMap;
use std::time::Duration;

use conntrack_tests::bench::interval::Median;

use crate::configuration::Configuration;
use crate::network::Translation;
use crate::traffic::Stream;

/// Nanoseconds a packet, by cycle: not all routers have their turn in each.
pub(crate) type Cycles = BTreeMap<usize, f64>;

/// Nanoseconds a packet, of every stream through every router, cycle by cycle.
pub(crate) struct Series {
    streams: Vec<Stream>,
    configurations: Vec<Configuration>,
    /// By stream, then by router.
    slices: Vec<Vec<Slices>>,
    cycles: usize,
    /// All packets that were sent, by router: also those that were not timed.
    pub(crate) sent: Vec<u64>,
}

/// Those of one stream through one router.
#[derive(Clone, Default)]
struct Slices {
    each: Cycles,
    packets: u64,
}

impl Series {
    pub(crate) fn new(
        streams: &[Stream],
        configurations: impl Iterator<Item = Configuration>,
    ) -> Self {
        let configurations: Vec<_> = configurations.collect();
        Self {
            streams: streams.to_vec(),
            slices: vec![vec![Slices::default(); configurations.len()]; streams.len()],
            configurations,
            cycles: 0,
            sent: Vec::new(),
        }
    }

    /// One slice.
    pub(crate) fn add(&mut self, stream: usize, router: usize, time: Duration, packets: usize) {
        let slices = &mut self.slices[stream][router];
        let each = time.as_secs_f64() * 1e9 / packets as f64;
        slices.each.insert(self.cycles, each);
        slices.packets += packets as u64;
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
        let alike = self.configurations.iter();
        let alike = alike.filter(|each| *each == of || !of.is_base() && each.is_like(of));
        let slices = alike.filter_map(|each| self.slices(stream, each));
        slices.map(|slices| slices.packets).sum()
    }

    /// What a packet took through one router.
    pub(crate) fn whole(&self, stream: Stream, of: &Configuration) -> Option<&Cycles> {
        let slices = self.slices(stream, of)?;
        (!slices.each.is_empty()).then_some(&slices.each)
    }

    /// What it took through all routers that are like this one: the median of each
    /// cycle. None if there is no such router, or nothing was measured.
    pub(crate) fn alike(&self, stream: Stream, of: &Configuration) -> Option<Cycles> {
        let alike = self.configurations.iter().filter(|each| each.is_like(of));
        let alike = self.medians(stream, alike);
        (!alike.is_empty()).then_some(alike)
    }

    /// What it took more through one router than through the others that are like it.
    pub(crate) fn apart(&self, stream: Stream, of: &Configuration) -> Option<Median> {
        let others = self.configurations.iter();
        let others = others.filter(|each| each.is_like(of) && *each != of);
        let others = self.medians(stream, others);
        combined([self.whole(stream, of)?, &others], |[of, others]| {
            of - others
        })
    }

    /// What it took through the bases of this kind, but for one of them: the median of
    /// each cycle.
    pub(crate) fn base(
        &self,
        stream: Stream,
        translation: Translation,
        but: Option<&Configuration>,
    ) -> Cycles {
        let bases: Vec<_> = Configuration::bases(translation).collect();
        let bases = bases.iter().filter(|base| Some(*base) != but);
        self.medians(stream, bases)
    }

    fn medians<'a>(
        &self,
        stream: Stream,
        routers: impl Iterator<Item = &'a Configuration>,
    ) -> Cycles {
        let routers: Vec<_> = routers
            .filter_map(|router| self.whole(stream, router))
            .collect();
        let cycles = (0..self.cycles).filter_map(|cycle| {
            let values = routers.iter().filter_map(|of| of.get(&cycle).copied());
            Some((cycle, Median::of(values.collect())?.value))
        });
        cycles.collect()
    }

    /// What a packet took more through routers like this one than through the bases;
    /// through one of these, more than through the others.
    pub(crate) fn added(&self, stream: Stream, of: &Configuration) -> Option<Median> {
        let base = self.base(stream, of.translation, Some(of));
        let of = if of.is_base() {
            self.whole(stream, of)?.clone()
        } else {
            self.alike(stream, of)?
        };
        combined([&of, &base], |[of, base]| of - base)
    }

    fn slices(&self, stream: Stream, of: &Configuration) -> Option<&Slices> {
        let stream = self.streams.iter().position(|each| *each == stream)?;
        let router = self.configurations.iter().position(|each| each == of)?;
        Some(&self.slices[stream][router])
    }
}

/// The median of what `combine` makes of each cycle that all of these have.
pub(crate) fn combined<const N: usize>(
    of: [&Cycles; N],
    combine: impl Fn([f64; N]) -> f64,
) -> Option<Median> {
    let [first, ..] = of.as_slice() else {
        return None;
    };
    let combined = first.keys().filter_map(|cycle| {
        let mut values = [0.0; N];
        for (value, cycles) in values.iter_mut().zip(of) {
            *value = *cycles.get(cycle)?;
        }
        Some(combine(values))
    });
    Median::of(combined.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Way;

    /// Two bases and another router, of which the machine makes each cycle slower.
    fn series() -> (Series, Stream, [Configuration; 3]) {
        let stream = Stream::all().next().expect("a stream");
        let mut bases = Configuration::bases(Translation::Masquerade);
        let [a, b] = [bases.next(), bases.next()].map(|base| base.expect("a base"));
        let routers = [a, b, Configuration::with(Way::Empty, 0)];
        let mut series = Series::new(&[stream], routers.into_iter());
        for (slow, extra) in [(1_000, 50), (2_000, 60), (9_000, 70)] {
            for (router, more) in [0, 4, extra].into_iter().enumerate() {
                series.add(0, router, Duration::from_nanos((slow + more) * 10), 10);
            }
            series.end_cycle();
        }
        (series, stream, routers)
    }

    /// Nanoseconds come from seconds in floating point.
    fn value(median: Option<Median>) -> Option<String> {
        median.map(|median| format!("{:.3}", median.value))
    }

    #[test]
    fn differences_are_taken_within_a_cycle() {
        let (series, stream, [_, _, more]) = series();
        assert_eq!(series.packets(stream, &more), 30);
        let added = series.added(stream, &more);
        assert_eq!(
            value(added).as_deref(),
            Some("58.000"),
            "60, over the middle of 0 and 4"
        );
    }

    #[test]
    fn a_base_is_compared_with_the_others() {
        let (series, stream, [a, b, _]) = series();
        assert_eq!(value(series.added(stream, &a)).as_deref(), Some("-4.000"));
        assert_eq!(value(series.added(stream, &b)).as_deref(), Some("4.000"));
    }

    #[test]
    fn a_cycle_counts_that_all_have() {
        let [a, b] = [
            [(0, 1.0), (1, 5.0), (2, 9.0)].as_slice(),
            &[(1, 2.0), (3, 7.0)],
        ];
        let [a, b] = [a, b].map(|cycles| cycles.iter().copied().collect::<Cycles>());
        let both = combined([&a, &b], |[a, b]| a - b);
        assert_eq!(value(both).as_deref(), Some("3.000"));
        assert_eq!(combined([&a, &Cycles::new()], |[a, b]| a - b), None);
    }

    #[test]
    fn what_was_not_measured_has_no_median() {
        let (series, stream, _) = series();
        let other = Configuration::with(Way::Map, 1);
        assert_eq!(series.added(stream, &other), None);
        assert_eq!(series.packets(stream, &other), 0);
    }
}
