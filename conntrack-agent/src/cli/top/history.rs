//! Computes rates from successive samples of a counter.

use std::{collections::VecDeque, time::Instant};

use crate::resource::TrafficSums;

/// The number of samples that are kept: as many as the widest screen shows.
const KEPT: usize = 120;

/// The counters of a router or rule over time.
#[derive(Clone, Debug)]
pub(super) struct History {
    last: TrafficSums,
    at: Instant,
    /// The packets per second, the oldest first.
    packets: VecDeque<f64>,
    /// The current bytes per second.
    bytes: f64,
}

impl History {
    /// Begins with a sample.
    pub(super) const fn new(first: TrafficSums, at: Instant) -> Self {
        Self {
            last: first,
            at,
            packets: VecDeque::new(),
            bytes: 0.0,
        }
    }

    /// Adds a sample to a history, or begins one with it.
    pub(super) fn continued(history: Option<Self>, sums: TrafficSums, at: Instant) -> Self {
        let mut history = history.unwrap_or_else(|| Self::new(sums, at));
        history.add(sums, at);
        history
    }

    /// Adds a sample. A sample without counters is ignored: the next one with counters
    /// covers its time too.
    #[expect(
        clippy::cast_precision_loss,
        reason = "what is counted in one interval is far below 2^52"
    )]
    pub(super) fn add(&mut self, sums: TrafficSums, at: Instant) {
        let seconds = at.saturating_duration_since(self.at).as_secs_f64();
        let (Some(packets), Some(bytes)) = (sums.packets, sums.bytes) else {
            return;
        };
        if seconds <= 0.0 {
            return;
        }
        if let (Some(packets_before), Some(bytes_before)) = (self.last.packets, self.last.bytes) {
            // Counters that were created anew begin at 0: their former values are
            // unknown.
            let grown = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            self.packets.push_back(grown(packets, packets_before));
            self.bytes = grown(bytes, bytes_before);
            if self.packets.len() > KEPT {
                self.packets.pop_front();
            }
        }
        self.last = sums;
        self.at = at;
    }

    /// Returns the current packets per second.
    pub(super) fn packets(&self) -> f64 {
        self.packets.back().copied().unwrap_or(0.0)
    }

    /// Returns the current bytes per second.
    pub(super) const fn bytes(&self) -> f64 {
        self.bytes
    }

    /// Returns the packets per second over time as a graph of `width` characters: the
    /// latest value is at its end, and the highest one has its full height.
    pub(super) fn graph(&self, width: usize, steps: &[char]) -> String {
        let surplus = self.packets.len().saturating_sub(width);
        let shown: Vec<_> = self.packets.iter().skip(surplus).collect();
        let most = shown.iter().fold(0.0_f64, |most, value| most.max(**value));
        let blank = std::iter::repeat_n(' ', width - shown.len());
        let step = |value: &f64| {
            let last = steps.len().saturating_sub(1);
            if *value <= 0.0 || most <= 0.0 {
                return steps.first().copied().unwrap_or(' ');
            }
            // Any value above 0 is drawn higher than 0.
            let high_enough = |place: &usize| value * index(last) <= most * index(*place);
            let place = (1..=last).find(high_enough).unwrap_or(last);
            steps.get(place).copied().unwrap_or(' ')
        };
        blank.chain(shown.into_iter().map(step)).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
const fn index(place: usize) -> f64 {
    place as f64
}

/// Formats a rate in four or five characters.
pub(super) fn human(rate: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut value = rate;
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    while value >= 999.5 {
        let Some(next) = unit.next() else { break };
        value /= 1000.0;
        name = next;
    }
    if value < 9.95 && (!name.is_empty() || value.fract() > 0.05) {
        format!("{value:.1}{name}")
    } else {
        format!("{value:.0}{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STEPS: [char; 5] = [' ', '.', ':', '+', '#'];

    fn sums(packets: u64) -> TrafficSums {
        TrafficSums {
            packets: Some(packets),
            bytes: Some(packets * 100),
            ..TrafficSums::default()
        }
    }

    #[test]
    fn rates_are_what_came_by_the_time_that_went() {
        let begun = Instant::now();
        let mut history = History::new(sums(1000), begun);
        assert_eq!((history.packets(), history.bytes()), (0.0, 0.0));
        let after = |seconds| begun + Duration::from_secs(seconds);
        history.add(sums(1010), after(2));
        assert_eq!((history.packets(), history.bytes()), (5.0, 500.0));
        // At the same moment there is nothing to divide by.
        history.add(sums(2000), after(2));
        assert_eq!((history.packets(), history.bytes()), (5.0, 500.0));
        // Made anew.
        history.add(sums(3), after(3));
        assert_eq!((history.packets(), history.bytes()), (0.0, 0.0));
        history.add(sums(4), after(4));
        assert_eq!((history.packets(), history.bytes()), (1.0, 100.0));
    }

    #[test]
    fn a_graph_ends_with_now_and_is_as_high_as_its_most() {
        let begun = Instant::now();
        let mut history = History::new(sums(0), begun);
        let mut total = 0;
        for (second, more) in (1..).zip([0, 4, 8, 16, 1]) {
            total += more;
            history.add(sums(total), begun + Duration::from_secs(second));
        }
        assert_eq!(history.graph(8, &STEPS), "    .:#.");
        assert_eq!(history.graph(2, &STEPS), "#.");
        assert_eq!(history.graph(0, &STEPS), "");
        for second in 6..600 {
            history.add(sums(total), begun + Duration::from_secs(second));
        }
        assert_eq!(history.packets.len(), KEPT);
        assert_eq!(history.graph(3, &STEPS), "   ");
    }

    #[test]
    fn rates_are_short() {
        for (rate, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (7.0, "7"),
            (12.4, "12"),
            (999.0, "999"),
            (999.6, "1.0k"),
            (1234.0, "1.2k"),
            (45_678.0, "46k"),
            (1.5e6, "1.5M"),
            (2e15, "2000T"),
        ] {
            assert_eq!(human(rate), text);
        }
    }
}
