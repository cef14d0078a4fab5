//! A destination port, which is never 0.

use std::{fmt, num::NonZeroU16};

/// A destination port, 1 to 65535. Port 0 is reserved (RFC 6335), and no connection goes
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// The error for a number that is not a port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {given} is out of range; 1 to 65535 are allowed")]
pub struct PortError {
    given: i64,
}

impl Port {
    /// Returns the port's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<i64> for Port {
    type Error = PortError;

    fn try_from(given: i64) -> Result<Self, Self::Error> {
        u16::try_from(given)
            .ok()
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or(PortError { given })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_1_to_65535() {
        for good in [1, 21, 65535] {
            assert_eq!(i64::from(Port::try_from(good).unwrap().get()), good);
        }
        for bad in [i64::MIN, -1, 0, 65536, 65536 + 21, i64::MAX] {
            let error = Port::try_from(bad).unwrap_err().to_string();
            assert!(error.contains(&bad.to_string()), "{error}");
        }
    }
}
