//! Defines the principal, the identity of a caller.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

/// The identity of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Principal {
    /// A process that connected to the Unix socket, as the kernel identifies it
    /// (`SO_PEERCRED`, unix(7)).
    Local {
        /// The process id.
        pid: i32,
        /// The effective user id.
        uid: u32,
        /// The effective group id.
        gid: u32,
    },
    /// The bearer of a token.
    Token {
        /// The name of the token; never the token.
        name: TokenName,
    },
    /// A TCP client without a known token.
    Unknown {
        /// The address of the client.
        address: SocketAddr,
    },
    /// A client of the metrics' own address, which any user of the host can use.
    Scraper {
        /// The address of the client.
        address: SocketAddr,
    },
    /// The rules file, read at the start or on SIGHUP.
    RulesFile,
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { pid, uid, .. } => write!(formatter, "uid {uid} (pid {pid})"),
            Self::Token { name } => write!(formatter, "token {name}"),
            Self::Unknown { address } => write!(formatter, "unknown ({address})"),
            Self::Scraper { address } => write!(formatter, "metrics reader ({address})"),
            Self::RulesFile => formatter.write_str("the rules file"),
        }
    }
}

/// The name of a token: 1 to 32 of a-z, 0-9, _ and -, so that it is safe in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TokenName(String);

impl TokenName {
    /// The rule for the name of a token, as part of a sentence.
    pub const RULE: &str = "1 to 32 of a-z, 0-9, _ and - are allowed";

    /// Returns the name, or `None` if the text is not a valid one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let is_name = (1..=32).contains(&text.len()) && text.bytes().all(allowed);
        is_name.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
