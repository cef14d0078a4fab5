//! FTP through a router.

use std::io::ErrorKind;
use std::thread;

use suppaftp::{FtpError, Status};

use crate::clients::ftp::{Failure, Mode, fetch};
use crate::conntrack::assert_helpers;
use crate::helpers::{By, Protocol, Rule};
use crate::lab::Lab;
use crate::servers::ftp::FtpServer;
use crate::site::{Crossing, Plan, Site};

/// One way to transfer a file.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How the client's packets cross the router.
    pub crossing: Crossing,
    /// Who opens the data connection.
    pub mode: Mode,
    /// The control port that has a rule.
    pub port: u16,
    /// One that hasn't.
    pub unruled: u16,
}

/// The transfer works on the ruled port with the rule, and on neither port
/// without one.
pub fn check(by: By, case: Case) {
    let Case {
        crossing,
        mode,
        port,
        unruled,
    } = case;
    let lab = Lab::new();
    let control = [(Protocol::Tcp, port), (Protocol::Tcp, unruled)];
    let site = Site::new(&lab, &Plan::new(crossing, &control));
    let ruled_server = FtpServer::start(&site.server, site.server_address(port));
    let _unruled_server = FtpServer::start(&site.server, site.server_address(unruled));
    let fetch = |port| fetch(&site.client, site.published_address(port), mode);

    thread::scope(|scope| {
        scope.spawn(|| assert_no_data(&fetch(port)));
        scope.spawn(|| assert_no_data(&fetch(unruled)));
    });
    assert_helpers(site.router.netns(), &[]);
    // What the rule is to change is new connections: forget the old ones.
    site.router.netns().tool("conntrack", ["-F"], "");

    let _agent = by.install(&lab, &site.router, &[Rule::ftp(port)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = fetch(port).unwrap_or_else(|e| panic!("with a rule on {port}: {e}"));
            assert!(bytes == ruled_server.bytes, "the file arrives as it is");
        });
        scope.spawn(|| assert_no_data(&fetch(unruled)));
    });
    assert_helpers(site.router.netns(), &[(port, "ftp")]);
}

/// Asserts that a session came as far as the data connection, and that this
/// didn't come about: neither the server (active) nor the client (passive)
/// could connect.
pub fn assert_no_data(session: &Result<Vec<u8>, Failure>) {
    let not_connected = match session {
        Err(Failure::Data(FtpError::UnexpectedResponse(answer))) => {
            answer.status == Status::CannotOpenDataConnection
        }
        Err(Failure::Data(FtpError::ConnectionError(error))) => error.kind() == ErrorKind::TimedOut,
        Err(_) | Ok(_) => false,
    };
    assert!(
        not_connected,
        "without a rule, the data connection alone must fail: {}",
        match session {
            Ok(bytes) => format!("{} bytes came", bytes.len()),
            Err(error) => error.to_string(),
        }
    );
}
