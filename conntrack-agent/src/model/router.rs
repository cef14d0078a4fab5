//! The id of a router.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The UUID that Neutron gives a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Uuid);

/// The error for text that is not a router id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a router id; a UUID in its hyphenated form is, \
     like 6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab"
)]
pub struct RouterIdError {
    given: String,
}

impl FromStr for RouterId {
    type Err = RouterIdError;

    /// Parses the hyphenated form only: namespaces' names have that form, and two
    /// spellings of one router must not look like two routers.
    fn from_str(given: &str) -> Result<Self, Self::Err> {
        const HYPHENATED: usize = 36;
        Uuid::try_parse(given)
            .ok()
            .filter(|_| given.len() == HYPHENATED)
            .map(Self)
            .ok_or_else(|| RouterIdError {
                // An error repeats only the start of the input, which may be hostile.
                given: given.chars().take(64).collect(),
            })
    }
}

impl RouterId {
    /// Returns the 16 bytes of the id, as two words.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        let (first, second) = self.0.as_u64_pair();
        // The bytes keep their own order in memory.
        [first.to_be(), second.to_be()]
    }

    /// Returns the id of two words that [`to_words`](Self::to_words) made.
    #[must_use]
    pub const fn from_words([first, second]: [u64; 2]) -> Self {
        Self(Uuid::from_u64_pair(
            u64::from_be(first),
            u64::from_be(second),
        ))
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_a_router_id() {
        const GOOD: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        let id: RouterId = GOOD.parse().unwrap();
        assert_eq!(id.to_string(), GOOD);
        assert_eq!(GOOD.to_uppercase().parse(), Ok(id));
        assert_eq!(RouterId::from_words(id.to_words()), id);
        for bad in [
            "",
            "router",
            "6ab1c2d30a1b4c2d8e3f0123456789ab",
            "{6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab}",
            "urn:uuid:6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab",
            "6ab1c2d3-0a1b-4c2d-8e3f-0123456789a",
            "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ag",
            "../../../../../../../../../etc/shadow",
        ] {
            let error = bad.parse::<RouterId>().unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("UUID"), "{error}");
        }
    }
}
