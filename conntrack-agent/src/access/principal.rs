//! The principal: whoever asks.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

/// Whoever asks for something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Principal {
    /// A process on this host, as the kernel names it when it connects to the
    /// Unix socket (`SO_PEERCRED`, unix(7)).
    Local {
        /// Its process id.
        pid: i32,
        /// Its effective user id.
        uid: u32,
        /// Its effective group id.
        gid: u32,
    },
    /// The bearer of a token.
    Token {
        /// The name of the token; never the token.
        name: TokenName,
    },
    /// A TCP peer that has shown no known token.
    Unknown {
        /// The address that the connection came from.
        address: SocketAddr,
    },
    /// Anybody on this host, by the address that is for metrics alone.
    Scraper {
        /// The address that the connection came from.
        address: SocketAddr,
    },
    /// The rules file, at a start or a SIGHUP.
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

/// The name of a token: 1 to 32 of a-z, 0-9, _ and -, so that it can stand in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TokenName(String);

impl TokenName {
    /// The rule for a token's name, in words.
    pub const RULE: &str = "1 to 32 of a-z, 0-9, _ and - are allowed";

    /// Returns the name, unless the text can't be one.
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
