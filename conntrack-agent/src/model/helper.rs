//! The conntrack helpers that kernels have.

use std::fmt;

use conntrack_ebpf::abi::Protocol;

/// The address families that a helper serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// The helper serves IPv4 only.
    Ipv4,
    /// The helper serves IPv4 and IPv6.
    Both,
}

/// A conntrack helper and the protocol of its control connection. They are one value,
/// because the kernel registers helpers by both, and has only some pairs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Helper(usize);

/// The properties of a helper that the kernel can have.
struct HelperSpec {
    name: &'static str,
    protocol: Protocol,
    families: Families,
}

const fn entry(name: &'static str, protocol: Protocol, families: Families) -> HelperSpec {
    HelperSpec {
        name,
        protocol,
        families,
    }
}

/// The known helpers, with names, protocols and families as the modules under
/// net/netfilter/ and net/ipv4/netfilter/ of Linux 6.18 register them; checked by
/// creating each.
///
/// A helper's position, from 1, is its helper mark. Pinned maps and bindings that outlive
/// the agent hold these marks: append only, never reorder.
const HELPERS: [HelperSpec; 12] = [
    entry("ftp", Protocol::Tcp, Families::Both),
    entry("tftp", Protocol::Udp, Families::Both),
    entry("sip", Protocol::Udp, Families::Both),
    entry("sip", Protocol::Tcp, Families::Both),
    entry("amanda", Protocol::Udp, Families::Both),
    entry("sane", Protocol::Tcp, Families::Both),
    entry("irc", Protocol::Tcp, Families::Ipv4),
    entry("pptp", Protocol::Tcp, Families::Ipv4),
    entry("netbios-ns", Protocol::Udp, Families::Ipv4),
    entry("snmp", Protocol::Udp, Families::Ipv4),
    entry("Q.931", Protocol::Tcp, Families::Both),
    entry("RAS", Protocol::Udp, Families::Both),
];

/// The largest helper mark; a carrier must have room for it.
#[expect(clippy::cast_possible_truncation, reason = "a dozen")]
pub const MAX_HELPER_MARK: u32 = HELPERS.len() as u32;

/// The error for text that names no helper.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// No helper has this name.
    #[error("there is no helper {given:?}; {known} are known")]
    Unknown {
        /// The given name.
        given: String,
        /// All known names.
        known: String,
    },
    /// The helper exists, but not for this protocol.
    #[error("helper {name} does not exist for {given}; it is for {allowed}")]
    Protocol {
        /// The helper's name.
        name: &'static str,
        /// The given protocol.
        given: &'static str,
        /// The protocols that the helper exists for.
        allowed: String,
    },
}

/// Returns the name of a protocol as people write it.
#[must_use]
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl Helper {
    /// Returns the helper named `name` for `protocol`.
    ///
    /// Neutron's `h323` names no kernel helper: for TCP it means Q.931, for UDP
    /// RAS, the two halves of that protocol (ITU-T H.225.0).
    ///
    /// # Errors
    /// Returns [`HelperError`], which lists what exists, if there is none.
    pub fn new(name: &str, protocol: Protocol) -> Result<Self, HelperError> {
        let kernel_name = match (name, protocol) {
            ("h323", Protocol::Tcp) => "Q.931",
            ("h323", Protocol::Udp) => "RAS",
            _ => name,
        };
        let mut allowed = Vec::new();
        let mut known_name = None;
        for helper in Self::all().filter(|helper| helper.name() == kernel_name) {
            if helper.protocol() == protocol {
                return Ok(helper);
            }
            known_name = Some(helper.name());
            allowed.push(protocol_name(helper.protocol()));
        }
        Err(match known_name {
            Some(name) => HelperError::Protocol {
                name,
                given: protocol_name(protocol),
                allowed: allowed.join(", "),
            },
            None => unknown(name),
        })
    }

    /// Returns the helpers named `name`, for any protocol.
    ///
    /// # Errors
    /// Returns [`HelperError::Unknown`], which lists what exists, if there is none.
    pub fn named(name: &str) -> Result<Vec<Self>, HelperError> {
        let named = [Protocol::Tcp, Protocol::Udp].map(|protocol| Self::new(name, protocol));
        let helpers: Vec<_> = named.into_iter().flatten().collect();
        if helpers.is_empty() {
            Err(unknown(name))
        } else {
            Ok(helpers)
        }
    }

    /// Returns every helper that the kernel can have, by ascending helper mark.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..HELPERS.len()).map(Self)
    }

    /// Returns the helper with this mark, if there is one.
    #[must_use]
    pub fn with_mark(mark: u32) -> Option<Self> {
        Self::all().find(|helper| helper.mark() == mark)
    }

    /// Returns the kernel's name of the helper.
    #[must_use]
    pub fn name(self) -> &'static str {
        HELPERS[self.0].name
    }

    /// Returns the protocol of its control connection.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        HELPERS[self.0].protocol
    }

    /// Returns the address families that it serves.
    #[must_use]
    pub fn families(self) -> Families {
        HELPERS[self.0].families
    }

    /// Returns its helper mark, 1 to [`MAX_HELPER_MARK`].
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "an index below a dozen")]
    pub const fn mark(self) -> u32 {
        self.0 as u32 + 1
    }
}

fn unknown(name: &str) -> HelperError {
    HelperError::Unknown {
        given: name.chars().take(64).collect(),
        known: known_names(),
    }
}

fn known_names() -> String {
    let mut names: Vec<_> = Helper::all().map(Helper::name).chain(["h323"]).collect();
    names.dedup();
    names.join(", ")
}

impl fmt::Display for Helper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}",
            self.name(),
            protocol_name(self.protocol())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_never_change() {
        let marks: Vec<_> = Helper::all()
            .map(|h| (h.mark(), format!("{h:?}")))
            .collect();
        let expected = [
            "ftp/tcp",
            "tftp/udp",
            "sip/udp",
            "sip/tcp",
            "amanda/udp",
            "sane/tcp",
            "irc/tcp",
            "pptp/tcp",
            "netbios-ns/udp",
            "snmp/udp",
            "Q.931/tcp",
            "RAS/udp",
        ];
        let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
        assert_eq!(marks, expected);
    }

    #[test]
    fn a_helper_is_found_by_name_and_protocol() {
        for helper in Helper::all() {
            assert_eq!(Helper::new(helper.name(), helper.protocol()), Ok(helper));
        }
        let alias = |protocol| Helper::new("h323", protocol).unwrap().name();
        assert_eq!(alias(Protocol::Tcp), "Q.931");
        assert_eq!(alias(Protocol::Udp), "RAS");
    }

    #[test]
    fn a_refusal_says_what_there_is() {
        let check = |name, protocol, expected: &[&str]| {
            let error = Helper::new(name, protocol).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{error} lacks {part}");
            }
        };
        check("ftp", Protocol::Udp, &["ftp", "udp", "it is for tcp"]);
        check("amanda", Protocol::Tcp, &["amanda", "tcp", "it is for udp"]);
        check("gopher", Protocol::Tcp, &["\"gopher\"", "tftp", "h323"]);
        check("FTP", Protocol::Tcp, &["\"FTP\"", "ftp"]);
        check("", Protocol::Tcp, &["\"\""]);
    }
}
