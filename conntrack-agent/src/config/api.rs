//! Where the API is, and how much may come in by it.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// The control API.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// The group that may open the socket, beside root; by default root's.
    pub socket_group: Option<String>,
    /// How much there may be of everything.
    pub limits: ApiLimits,
}

/// What one client, or all of them, can take of the agent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user; all of TCP are one.
    pub connections_per_peer: usize,
    /// Requests that are being answered at one time.
    pub requests: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Seconds in which a request's head must have come, and in which the next
    /// request must follow.
    pub header_seconds: u64,
    /// Seconds in which its body must have come.
    pub body_seconds: u64,
    /// Seconds for which a client may take nothing of its answer.
    pub answer_seconds: u64,
    /// Bytes of large answers that are under way at one time.
    pub answer_bytes: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 2048,
            requests: 2048,
            // 100,000 rules.
            body_bytes: 8 << 20,
            header_seconds: 10,
            body_seconds: 10,
            answer_seconds: 30,
            answer_bytes: 256 << 20,
        }
    }
}

impl ApiLimits {
    /// What is wrong with each value that is out of its range.
    pub(super) fn faults(self) -> Vec<String> {
        let seconds =
            |key, given: u64| (key, usize::try_from(given).unwrap_or(usize::MAX), 1..=600);
        let ranges = [
            ("connections", self.connections, 1..=65_536),
            (
                "connections_per_peer",
                self.connections_per_peer,
                1..=65_536,
            ),
            ("requests", self.requests, 1..=65_536),
            ("body_bytes", self.body_bytes, 1024..=256 << 20),
            seconds("header_seconds", self.header_seconds),
            seconds("body_seconds", self.body_seconds),
            seconds("answer_seconds", self.answer_seconds),
            ("answer_bytes", self.answer_bytes, 1 << 20..=4 << 30),
        ];
        let wrong = ranges
            .into_iter()
            .filter(|(_, given, range)| !range.contains(given));
        let fault = |(key, given, range): (_, _, std::ops::RangeInclusive<usize>)| {
            let (least, most) = (range.start(), range.end());
            format!("api.limits.{key} = {given}: {least} to {most} are allowed")
        };
        wrong.map(fault).collect()
    }
}

/// The API's TCP listener.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// An address of this host that no other host can reach: there is no
    /// encryption, so a token must not leave the host.
    pub listen: SocketAddr,
    /// The tokens, [`crate::api::tokens`] says in what form.
    pub token_file: PathBuf,
}

/// The address of metrics, for a Prometheus that can't ask a Unix socket.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MetricsAddress {
    /// An address of this host that no other host can reach. Everybody on this
    /// host can, and reads there which routers have which rules.
    pub listen: SocketAddr,
}

impl Tcp {
    /// What is wrong with its values.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = loopback_faults("tcp.listen", self.listen);
        if !self.token_file.is_absolute() {
            faults.push(format!(
                "tcp.token_file = {:?}: an absolute path is wanted",
                self.token_file.display()
            ));
        }
        faults
    }
}

impl MetricsAddress {
    /// What is wrong with its address.
    pub(super) fn faults(self) -> Vec<String> {
        loopback_faults("metrics.listen", self.listen)
    }
}

/// What is wrong with an address that this key says.
fn loopback_faults(key: &str, address: SocketAddr) -> Vec<String> {
    let mut faults = Vec::new();
    // ::ffff:127.0.0.1 is none here, though it is reached as 127.0.0.1 is: one way
    // to write it is enough.
    if !address.ip().is_loopback() {
        faults.push(format!(
            "{key} = \"{address}\": a loopback address is wanted, 127.0.0.1 or [::1]; \
             what comes over a network is not encrypted"
        ));
    }
    if address.port() == 0 {
        faults.push(format!(
            "{key} = \"{address}\": a port from 1 to 65535 is wanted"
        ));
    }
    faults
}
