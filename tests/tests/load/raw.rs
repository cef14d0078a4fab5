//! Requests to the API as bytes, good ones and bad ones.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use conntrack_tests::wait;
use serde_json::Value;

/// A connection that is kept, and whose requests may fail.
pub(super) struct RawConnection(BufReader<UnixStream>);

impl RawConnection {
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(wait::patience()))?;
        stream.set_write_timeout(Some(wait::patience()))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
        let length = format!("content-length: {}", body.len());
        let request = head(method, path, &length) + body;
        self.0.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    pub(super) fn answer(&mut self) -> io::Result<(u16, Value)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(first))?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        Ok((status, serde_json::from_slice(&body)?))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_ascii_lowercase())
    }

    /// Writes until the agent takes no more; how much it took, and its answer.
    pub(super) fn pour(
        socket: &Path,
        head: &str,
        piece: &[u8],
        most: usize,
    ) -> (usize, u16, Value) {
        let mut connection = Self::open(socket).expect("a connection");
        let stream = connection.0.get_mut();
        stream.write_all(head.as_bytes()).expect("a head");
        let mut written = 0;
        while written < most && stream.write_all(piece).is_ok() {
            written += piece.len();
        }
        let (status, body) = connection.answer().expect("an answer");
        (written, status, body)
    }
}

/// The head of a request with a body of JSON, with one more header.
pub(super) fn head(method: &str, path: &str, header: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n\
         {header}\r\n\r\n"
    )
}
