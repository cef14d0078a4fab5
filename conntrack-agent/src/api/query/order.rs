//! Orders the items of a list totally, so that each has one place.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{ID, Item};

/// The direction of a sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// The sort keys, the most significant first; items with equal keys are ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SortOrder {
    keys: Vec<(&'static str, Direction)>,
}

impl SortOrder {
    /// Returns the order by these keys.
    pub(super) fn new(keys: impl Iterator<Item = (&'static str, Direction)>) -> Self {
        Self {
            keys: keys.collect(),
        }
    }

    /// Compares two items.
    pub(super) fn compare(&self, one: &Item, other: &Item) -> Ordering {
        let by = |field: &str| {
            let [one, other] = [one, other].map(|item| item.get(field).unwrap_or(&Value::Null));
            values(one, other)
        };
        for (field, direction) in &self.keys {
            let ordering = match direction {
                Direction::Ascending => by(field),
                Direction::Descending => by(field).reverse(),
            };
            if ordering.is_ne() {
                return ordering;
            }
        }
        by(ID)
    }
}

/// Compares two values of one type by value, and of different types by type. All objects
/// are equal; no field that lists can be sorted by is one.
fn values(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Number(one), Value::Number(other)) => numbers(one, other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Array(one), Value::Array(other)) => {
            let pairs = one.iter().zip(other);
            pairs
                .map(|(one, other)| values(one, other))
                .find(|ordering| ordering.is_ne())
                .unwrap_or_else(|| one.len().cmp(&other.len()))
        }
        _ => kind(one).cmp(&kind(other)),
    }
}

/// Returns the rank of a value's type.
const fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// Compares two numbers as floats first, and integers that are equal as floats exactly.
/// Comparing two integers exactly and any other pair as floats would not be an order: two
/// different integers can both equal the same float.
fn numbers(one: &Number, other: &Number) -> Ordering {
    let [(one, exact), (other, other_exact)] =
        [one, other].map(|number| (number.as_f64().unwrap_or(f64::NAN), number.as_i128()));
    one.total_cmp(&other).then(exact.cmp(&other_exact))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let large = prop::sample::select(vec![
            json!(9_007_199_254_740_992_u64),
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992.0),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(-0.0),
            json!(0),
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            (-3.0..3.0).prop_map(|float: f64| Value::from(float)),
            large,
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(inner, 0..3).prop_map(Value::from)
        })
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_text_as_text() {
        assert!(values(&json!(9), &json!(10)).is_lt());
        assert!(values(&json!("9"), &json!("10")).is_gt());
        assert!(values(&json!(-2), &json!(1.5)).is_lt());
        assert!(values(&json!(u64::MAX - 1), &json!(u64::MAX)).is_lt());
        assert!(values(&json!(null), &json!("")).is_lt());
        assert!(values(&json!(["a", "b"]), &json!(["a"])).is_gt());
        assert!(values(&json!(7), &json!(7)).is_eq());
    }

    #[test]
    fn integers_that_a_float_cannot_tell_apart_are_in_an_order_with_it() {
        let [float, same, next] = [
            json!(9_007_199_254_740_992.0),
            json!(9_007_199_254_740_992_u64),
            json!(9_007_199_254_740_993_u64),
        ];
        assert!(values(&float, &same).is_lt());
        assert!(values(&same, &next).is_lt());
        assert!(values(&float, &next).is_lt());
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in any_value(), b in any_value(), c in any_value()) {
            prop_assert_eq!(values(&a, &b), values(&b, &a).reverse());
            prop_assert!(values(&a, &a).is_eq());
            if values(&a, &b).is_le() && values(&b, &c).is_le() {
                prop_assert!(values(&a, &c).is_le());
            }
        }
    }
}
