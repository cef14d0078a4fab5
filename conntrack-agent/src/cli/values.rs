//! Parses values of the command line into the crate's checked types.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};

use crate::{
    model::{Helper, HelperError, Port, Protocol},
    sources,
};

/// A helper's name as it was given; at least one helper has it. `h323` stands for a
/// different helper with each protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HelperName(String);

impl HelperName {
    /// Checks that this helper exists for this protocol.
    pub(super) fn check(&self, protocol: Protocol) -> Result<(), HelperError> {
        Helper::new(&self.0, protocol).map(drop)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The parser of a value with a fixed set of names, which completions offer.
#[derive(Clone)]
pub(super) struct Named<T> {
    names: fn() -> Vec<&'static str>,
    parse: fn(&str) -> Result<T, String>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        self.parse.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = (self.names)().into_iter().map(PossibleValue::new);
        Some(Box::new(names))
    }
}

pub(super) fn protocol() -> Named<Protocol> {
    Named {
        names: || vec!["tcp", "udp"],
        parse: sources::protocol,
    }
}

pub(super) fn helper() -> Named<HelperName> {
    Named {
        names: || {
            let mut names: Vec<_> = Helper::all().map(Helper::name).chain(["h323"]).collect();
            names.sort_unstable();
            names.dedup();
            names
        },
        parse: |given| match Helper::named(given) {
            Ok(_) => Ok(HelperName(given.to_owned())),
            Err(error) => Err(error.to_string()),
        },
    }
}

pub(super) fn port(given: &str) -> Result<Port, String> {
    if let Ok(number) = given.parse::<i64>() {
        return Port::try_from(number).map_err(|error| error.to_string());
    }
    Err(format!(
        "port {:?} is not a number from 1 to 65535; those are allowed",
        sources::excerpt(given)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_in_its_range() {
        assert_eq!(port("21").unwrap().get(), 21);
        assert_eq!(port("65535").unwrap().get(), 65535);
        for bad in "0 65536 -1 ftp  21.0 0x15 99999999999999999999".split(' ') {
            let error = port(bad).unwrap_err();
            assert!(error.contains(bad), "{bad:?}: {error}");
            assert!(error.contains("1 to 65535"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn every_name_that_is_offered_is_taken() {
        for name in (helper().names)() {
            assert_eq!((helper().parse)(name).unwrap().as_str(), name);
        }
        for name in (protocol().names)() {
            (protocol().parse)(name).unwrap();
        }
        let helper = (helper().parse)("gopher").unwrap_err();
        let protocol = (protocol().parse)("sctp").unwrap_err();
        for (error, given, allowed) in [
            (helper, "\"gopher\"", "tftp"),
            (protocol, "\"sctp\"", "udp"),
        ] {
            assert!(error.contains(given), "{error}");
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn a_helper_is_checked_with_its_protocol() {
        let h323 = (helper().parse)("h323").unwrap();
        assert_eq!(h323.check(Protocol::Tcp), Ok(()));
        assert_eq!(h323.check(Protocol::Udp), Ok(()));
        let ftp = (helper().parse)("ftp").unwrap();
        assert_eq!(ftp.check(Protocol::Tcp), Ok(()));
        let error = ftp.check(Protocol::Udp).unwrap_err().to_string();
        assert!(error.contains("it is for tcp"), "{error}");
    }
}
