//! Defines the `[[interface]]` tables: which interfaces get an XDP program, and in which mode.

use serde::Deserialize;

use super::{Interfaces, interfaces::pattern};
use crate::kernel::XdpMode;

/// A table `[[interface]]` of the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct XdpEntry {
    /// The pattern of the interfaces' names.
    pub name: String,
    /// The mode of the XDP program that they get in front of the tc program.
    pub attach: XdpMode,
}

/// The interfaces that get an XDP program too, each with its mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpInterfaces(Vec<(Interfaces, XdpMode)>);

impl XdpInterfaces {
    /// Returns the interfaces and modes of the entries.
    ///
    /// # Errors
    /// Returns the fault of each invalid pattern.
    pub fn of(entries: &[XdpEntry]) -> Result<Self, Vec<String>> {
        let (mut good, mut faults) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            match pattern(&entry.name) {
                Ok(pattern) => good.push((Interfaces::one(pattern), entry.attach)),
                Err(fault) => faults.push(format!("interface {}: name = {fault}", index + 1)),
            }
        }
        if faults.is_empty() {
            Ok(Self(good))
        } else {
            Err(faults)
        }
    }

    /// Returns the mode for an interface of this name, from the first entry that matches;
    /// `None` for no XDP.
    #[must_use]
    pub fn mode_of(&self, name: &str) -> Option<XdpMode> {
        let matching = self.0.iter().find(|(interfaces, _)| interfaces.has(name));
        matching.map(|(_, mode)| *mode)
    }

    /// Returns whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, attach: XdpMode) -> XdpEntry {
        let name = name.into();
        XdpEntry { name, attach }
    }

    #[test]
    fn the_first_entry_that_matches_says_the_mode() {
        let interfaces = XdpInterfaces::of(&[
            entry("qg-1*", XdpMode::Generic),
            entry("qg-*", XdpMode::Native),
            entry("qg-2", XdpMode::Generic),
        ])
        .unwrap();
        for (name, expected) in [
            ("qg-12", Some(XdpMode::Generic)),
            ("qg-2", Some(XdpMode::Native)),
            ("qr-1", None),
            ("", None),
        ] {
            assert_eq!(interfaces.mode_of(name), expected, "{name}");
        }
        assert!(!interfaces.is_empty());
        assert_eq!(XdpInterfaces::default().mode_of("qg-1"), None);
        assert!(XdpInterfaces::of(&[]).unwrap().is_empty());
    }

    #[test]
    fn every_pattern_that_is_none_is_named() {
        let faults = XdpInterfaces::of(&[
            entry("", XdpMode::Native),
            entry("ok", XdpMode::Native),
            entry("q[", XdpMode::Generic),
        ])
        .unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        for (fault, parts) in faults
            .iter()
            .zip([["interface 1", "\"\""], ["interface 3", "\"q[\""]])
        {
            assert!(parts.iter().all(|part| fault.contains(part)), "{fault}");
            assert!(fault.contains("allowed"), "{fault}");
        }
    }
}
