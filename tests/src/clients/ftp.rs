//! An FTP client.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpStream};

use crate::netns::Netns;
use crate::servers::FILE;
use crate::wait;

/// Who opens the data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server, to where PORT or EPRT says.
    Active,
    /// The client, to where PASV or EPSV says.
    Passive,
}

/// Where a session failed.
#[derive(Debug)]
pub enum Failure {
    /// On the control connection, before any data was asked for.
    Control(FtpError),
    /// At the data connection.
    Data(FtpError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connection, error) = match self {
            Self::Control(error) => ("control", error),
            Self::Data(error) => ("data", error),
        };
        write!(f, "{connection} connection: ")?;
        match error {
            FtpError::UnexpectedResponse(answer) => {
                let text = String::from_utf8_lossy(&answer.body);
                write!(f, "the server says {:?}", text.trim_end())
            }
            other => write!(f, "{other}"),
        }
    }
}

/// How long a data connection may take to come about. The negative twins wait
/// for all of it.
const DATA: Duration = Duration::from_secs(4);

/// Fetches the server's file in a session of its own.
///
/// # Errors
/// When a connection doesn't come about or breaks.
pub fn fetch(client: &Netns, server: SocketAddr, mode: Mode) -> Result<Vec<u8>, Failure> {
    client.run(|| {
        let mut session = log_in(server, mode).map_err(Failure::Control)?;
        let bytes = session.retr_as_buffer(FILE).map_err(Failure::Data)?;
        // The transfer is complete; what becomes of the session is no matter.
        drop(session.quit());
        Ok(bytes.into_inner())
    })
}

fn log_in(server: SocketAddr, mode: Mode) -> Result<FtpStream, FtpError> {
    let mut session = FtpStream::connect_timeout(server, DATA)?.passive_stream_builder(connect);
    {
        let control = session.get_ref();
        let timeouts = control
            .set_read_timeout(Some(wait::patience()))
            .and_then(|()| control.set_write_timeout(Some(wait::patience())));
        timeouts.map_err(FtpError::ConnectionError)?;
    }
    match (mode, server) {
        // PORT on IPv4, EPRT on IPv6.
        (Mode::Active, _) => session = session.active_mode(DATA),
        (Mode::Passive, SocketAddr::V4(_)) => session.set_mode(suppaftp::Mode::Passive),
        (Mode::Passive, SocketAddr::V6(_)) => session.set_mode(suppaftp::Mode::ExtendedPassive),
    }
    session.login("anonymous", "lab@example.org")?;
    session.transfer_type(FileType::Binary)?;
    Ok(session)
}

fn connect(address: SocketAddr) -> Result<TcpStream, FtpError> {
    let stream = TcpStream::connect_timeout(&address, DATA).map_err(FtpError::ConnectionError)?;
    let timeout = stream.set_read_timeout(Some(wait::patience()));
    timeout.map_err(FtpError::ConnectionError)?;
    Ok(stream)
}
