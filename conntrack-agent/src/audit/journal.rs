//! Writes the trail to systemd's journal by its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): one datagram for each event, one field
//! for each value.
//!
//! The crate tracing-journald would not do: it drops silently what it can't send, and it
//! has no lists.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::line::Line;

/// The socket of journald.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The prefix of the names of the line's own fields.
const PREFIX: &str = "CONNTRACK";

/// The longest time that an event waits for journald to read those before it.
const PATIENCE: Duration = Duration::from_millis(200);

/// A sender to journald.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    /// Opens a sender to the socket at `path`; fails if journald does not listen there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Only finds out whether journald listens. The sender itself stays unconnected,
        // so that it survives a restart of journald.
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            path: path.to_owned(),
            socket,
        })
    }

    /// Sends a line.
    pub(super) fn write(&self, line: &Line) -> io::Result<()> {
        let sent = self.socket.send_to(&datagram(line)?, &self.path);
        // Waits once; until journald reads again, later events are sent without waiting.
        self.socket.set_nonblocking(sent.is_err())?;
        sent.map(|_| ())
    }
}

/// Returns the datagram of a line.
fn datagram(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    field(&mut text, "MESSAGE", &line.sentence());
    field(&mut text, "PRIORITY", &(line.severity() as u8).to_string());
    field(&mut text, "SYSLOG_IDENTIFIER", "conntrack-agent");
    fields(&mut text, PREFIX, &serde_json::to_value(line)?);
    Ok(text)
}

/// Adds the fields of a value. The fields of an object have its name as a prefix, a list is
/// one field for each element, an object in a list is JSON, and null is no field.
fn fields(text: &mut Vec<u8>, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(value) => field(text, name, value),
        Value::Array(values) => {
            for value in values {
                match value {
                    Value::String(value) => field(text, name, value),
                    other => field(text, name, &other.to_string()),
                }
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                fields(text, &format!("{name}_{}", key.to_uppercase()), value);
            }
        }
        Value::Bool(_) | Value::Number(_) => field(text, name, &value.to_string()),
    }
}

/// Adds one field, in the form with a length, which allows any value.
fn field(text: &mut Vec<u8>, name: &str, value: &str) {
    text.extend_from_slice(name.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(&(value.len() as u64).to_le_bytes());
    text.extend_from_slice(value.as_bytes());
    text.push(b'\n');
}

/// Returns the fields of a datagram, as journald reads them.
#[cfg(test)]
pub(super) fn parsed(mut datagram: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        let (name, rest) = datagram.split_at(end);
        let (length, rest) = rest[1..].split_first_chunk().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let (value, rest) = rest.split_at(length);
        assert_eq!(rest[0], b'\n');
        datagram = &rest[1..];
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(name), text(value)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        Outcome,
        testing::{event, rule, time},
    };

    #[test]
    fn an_event_is_fields() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        let mut event = event(Outcome::Refused("two\nlines".into()));
        event.before = vec![rule(21), rule(22)];
        journal.write(&Line::request(&event, time())).unwrap();
        let mut buffer = [0; 9000];
        let length = journald.recv(&mut buffer).unwrap();
        let fields = parsed(&buffer[..length]);
        let of = |name: &str| -> Vec<&str> {
            let named = fields.iter().filter(|(given, _)| given == name);
            named.map(|(_, value)| value.as_str()).collect()
        };
        for (name, value) in [
            (
                "MESSAGE",
                "create by uid 1000 (pid 7): refused: two\\nlines",
            ),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "conntrack-agent"),
            ("CONNTRACK_TIME", "2027-01-15T08:00:00.000Z"),
            ("CONNTRACK_EVENT", "request"),
            ("CONNTRACK_REQUEST", &event.request.to_string()),
            ("CONNTRACK_PEER_KIND", "local"),
            ("CONNTRACK_PEER_UID", "1000"),
            ("CONNTRACK_OPERATION", "create"),
            ("CONNTRACK_ROUTERS", "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab"),
            ("CONNTRACK_BEFORE_COUNT", "2"),
            ("CONNTRACK_OUTCOME", "refused"),
            ("CONNTRACK_REASON", "two\\nlines"),
            ("CONNTRACK_TOOK_US", "0"),
        ] {
            assert_eq!(of(name), [value], "{name}");
        }
        let before = of("CONNTRACK_BEFORE");
        assert_eq!(before.len(), 2);
        let first: Value = serde_json::from_str(before[0]).unwrap();
        assert_eq!(first["port"], 21);
        assert_eq!(of("CONNTRACK_AFTER"), Vec::<&str>::new());
        for (name, _) in &fields {
            let allowed = |c: char| c.is_ascii_uppercase() || c == '_';
            assert!(name.len() <= 64 && name.chars().all(allowed), "{name}");
        }
    }

    #[test]
    fn without_journald_it_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let kind = || Journal::open(&path).unwrap_err().kind();
        assert_eq!(kind(), io::ErrorKind::NotFound);
        drop(UnixDatagram::bind(&path).unwrap());
        assert_eq!(kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_journald_that_does_not_read_is_not_waited_for_twice() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        let line = Line::request(&event(Outcome::Done), time());
        let mut sent = 0;
        let error = loop {
            match journal.write(&line) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let waits = || {
            let flags = rustix::fs::fcntl_getfl(&journal.socket).unwrap();
            !flags.contains(rustix::fs::OFlags::NONBLOCK)
        };
        assert!(!waits());
        journal.write(&line).unwrap_err();
        assert!(!waits());
        let mut buffer = [0; 9000];
        for _ in 0..sent {
            journald.recv(&mut buffer).unwrap();
        }
        journal.write(&line).unwrap();
        assert!(waits());
        assert!(journald.recv(&mut buffer).unwrap() > 0);
    }
}
