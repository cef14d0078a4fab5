//! A median, and how sure it is.

use serde_json::{Value, json};

/// The median of many values, and an interval that holds the true one with a
/// probability of 95 %: by order statistics, which assume nothing of how the values
/// are distributed (David and Nagaraja, Order Statistics, 7.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The median itself.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Median {
    /// That of these values; none of no values.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        /// The normal distribution has 95 % within so many deviations.
        const DEVIATIONS: f64 = 1.96;
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let last = count.checked_sub(1)?;
        // The rank of the true median is binomial, with a deviation of half the root.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of values, and half its root"
        )]
        let reach = (DEVIATIONS * (count as f64).sqrt() / 2.0).ceil() as usize;
        let (lower, upper) = (last / 2, count / 2);
        Some(Self {
            value: f64::midpoint(values[lower], values[upper]),
            low: values[lower.saturating_sub(reach)],
            high: values[upper.saturating_add(reach).min(last)],
        })
    }

    /// All of it, to a hundredth.
    #[must_use]
    pub fn json(&self) -> Value {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        json!({
            "median": hundredths(self.value),
            "low": hundredths(self.low), "high": hundredths(self.high),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_numbers_to(last: u32) -> Median {
        // Backwards: the order doesn't matter.
        let numbers = (1..=last).rev().map(f64::from);
        Median::of(numbers.collect()).expect("values")
    }

    #[test]
    fn the_middle_value_or_what_lies_between_the_two_middle_ones() {
        assert_eq!(Median::of(Vec::new()), None);
        for (last, middle) in [(1, 1.0), (2, 1.5), (101, 51.0)] {
            assert!((of_numbers_to(last).value - middle).abs() < 1e-9);
        }
    }

    #[test]
    fn the_interval_narrows_with_the_root_of_the_number() {
        // Few values say little; tables of the sign test say ranks 40 and 61 of 100.
        for (last, ends) in [
            (3, [1.0, 3.0]),
            (100, [40.0, 61.0]),
            (10_000, [4902.0, 5099.0]),
        ] {
            let Median { low, high, .. } = of_numbers_to(last);
            assert!((low - ends[0]).abs() < 1e-9 && (high - ends[1]).abs() < 1e-9);
        }
    }
}
