//! tftp-hpa's client.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use uuid::Uuid;

use crate::netns::Netns;
use crate::process::Process;
use crate::servers::FILE;

/// Far more than a transfer takes, and less than the client's first retry.
const LIMIT: Duration = Duration::from_secs(4);

/// Fetches the server's file.
///
/// # Errors
/// When the transfer isn't complete in time, with what the client said.
pub fn fetch(client: &Netns, server: SocketAddr) -> Result<Vec<u8>, String> {
    let folder = client.lab().folder(&format!("tftp-get-{}", Uuid::new_v4()));
    let mut command = Command::new("tftp");
    command.args(["-m", "binary", &server.ip().to_string()]);
    command.args([&server.port().to_string(), "-c", "get", FILE]);
    command.current_dir(&folder);
    let mut process = Process::start(Some(client), command);
    let status = process.wait(LIMIT)?;
    // It exits 0 even after an error from the server.
    let bytes = fs::read(folder.join(FILE));
    bytes.map_err(|e| format!("tftp: {status}, {e}, {:?}", process.lines()))
}
