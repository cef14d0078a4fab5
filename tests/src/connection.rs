//! A connection to the API that is kept, without a process for each request.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::curl::Answer;
use crate::wait;

/// HTTP/1.1 with one request at a time (RFC 9112, 9.3).
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    #[must_use]
    pub fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a connection");
        stream
            .set_read_timeout(Some(wait::patience()))
            .expect("a limit");
        stream
            .set_write_timeout(Some(wait::patience()))
            .expect("a limit");
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// One request, with a body of JSON or with none, and its answer.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send(method, path, body);
        self.receive()
    }

    /// Sends a request; the answer is to be received before the next one.
    pub fn send(&mut self, method: &str, path: &str, body: Option<&Value>) {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        sent.unwrap_or_else(|error| panic!("{method} {path} can't be sent: {error}"));
    }

    /// Whether nothing of the answer has come yet.
    #[must_use]
    pub fn is_silent(&mut self) -> bool {
        let socket = self.stream.get_ref();
        socket.set_nonblocking(true).expect("a mode");
        let come = self.stream.fill_buf().map(<[u8]>::len);
        let socket = self.stream.get_ref();
        socket.set_nonblocking(false).expect("a mode");
        match come {
            Ok(0) => panic!("the agent closed the connection"),
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("no connection any more: {error}"),
        }
    }

    /// One request for what is no JSON: the answer's status, and its body.
    pub fn read(&mut self, path: &str) -> (u16, Vec<u8>) {
        self.send("GET", path, None);
        self.receive_bytes()
    }

    /// The answer to what was sent.
    pub fn receive(&mut self) -> Answer {
        let (status, body) = self.receive_bytes();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).expect("JSON")
        };
        Answer { status, body }
    }

    fn receive_bytes(&mut self) -> (u16, Vec<u8>) {
        let first = self.line();
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| {
            let number = rest.split(' ').next()?;
            number.parse().ok()
        });
        let status = status.unwrap_or_else(|| panic!("no status: {first:?}"));
        let mut length = 0;
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            assert!(!line.starts_with("transfer-encoding:"), "{line}");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a whole body");
        (status, body)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        let ended = line.strip_suffix("\r\n");
        ended
            .unwrap_or_else(|| panic!("the answer breaks off: {line:?}"))
            .to_owned()
    }
}
