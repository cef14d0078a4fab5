//! Defines the addresses of the API and the limits on its clients.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// The table `[api]`: the Unix socket and the limits of the control API.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// The group that may open the socket, beside root; by default that of root.
    pub socket_group: Option<String>,
    /// The limits on connections, requests and bodies.
    pub limits: ApiLimits,
}

/// The limits on what one client, or all of them, can use of the agent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// The maximum number of connections.
    pub connections: usize,
    /// The maximum number of connections of one user; all TCP clients count as one.
    pub connections_per_peer: usize,
    /// The maximum number of requests at a time.
    pub requests: usize,
    /// The maximum size of a request's body, in bytes.
    pub body_bytes: usize,
    /// The seconds within which a request's head must be received, and the next request
    /// must follow.
    pub header_seconds: u64,
    /// The seconds within which a request's body must be received.
    pub body_seconds: u64,
    /// The seconds after which a client that receives nothing of its answer is
    /// disconnected.
    pub answer_seconds: u64,
    /// The maximum size of all large answers at a time, in bytes.
    pub answer_bytes: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 2048,
            requests: 2048,
            // Enough for 100,000 rules.
            body_bytes: 8 << 20,
            header_seconds: 10,
            body_seconds: 10,
            answer_seconds: 30,
            answer_bytes: 256 << 20,
        }
    }
}

impl ApiLimits {
    /// Returns the fault of each value that is out of its range.
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
        ranges
            .into_iter()
            .filter(|(_, given, range)| !range.contains(given))
            .map(|(key, given, range)| {
                let (least, most) = range.into_inner();
                format!("api.limits.{key} = {given}: {least} to {most} are allowed")
            })
            .collect()
    }
}

/// The table `[tcp]`: the API's TCP listener.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// The address to listen on, a loopback address: there is no encryption, so a token
    /// must not leave the host.
    pub listen: SocketAddr,
    /// The file with the tokens; [`crate::api::tokens`] describes its format.
    pub token_file: PathBuf,
}

/// The table `[metrics]`: the metrics' own address, for a Prometheus that can't use a Unix
/// socket.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MetricsAddress {
    /// The address to listen on, a loopback address. Any user of the host can read the
    /// metrics there, which show the rules of all routers.
    pub listen: SocketAddr,
}

impl Tcp {
    /// Returns the faults of the values.
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
    /// Returns the faults of the address.
    pub(super) fn faults(self) -> Vec<String> {
        loopback_faults("metrics.listen", self.listen)
    }
}

/// Returns the faults of an address that must be a loopback address.
fn loopback_faults(key: &str, address: SocketAddr) -> Vec<String> {
    let mut faults = Vec::new();
    // ::ffff:127.0.0.1 is refused, though it is the same as 127.0.0.1: one spelling is
    // enough.
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
