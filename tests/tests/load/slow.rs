//! Clients that never come to an end, all by one thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_tests::wait;

use super::raw::head;

/// How many there are; each sends a byte a second.
pub(super) const SLOW: usize = 500;

pub(super) struct SlowOnes {
    stop: Arc<AtomicBool>,
    closed: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl SlowOnes {
    /// Some never end their head, some never their body; of these, some
    /// announce the largest that there may be.
    pub(super) fn start(socket: &Path, rules: &str) -> Self {
        let post = |header: &str| head("POST", rules, header);
        let scripts = [
            format!("GET {rules} HTTP/1.1\r\nhost: {}", "a".repeat(1000)),
            post("content-length: 1000") + &" ".repeat(1000),
            post(&format!("content-length: {}", 8 << 20)) + &" ".repeat(1000),
            post("transfer-encoding: chunked") + &"1\r\n \r\n".repeat(200),
        ];
        let socket = socket.to_owned();
        let connect = move |number: usize| Slow::connect(&socket, &scripts[number % 4]);
        let mut slow: Vec<_> = (0..SLOW).map(&connect).collect();
        let (stop, closed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::<AtomicUsize>::clone(&closed));
        let thread = thread::spawn(move || {
            let mut was_closed = vec![false; SLOW];
            let begun = Instant::now();
            for second in 1.. {
                if stopped.load(Ordering::Relaxed) || begun.elapsed() > 2 * wait::patience() {
                    break;
                }
                for (number, client) in slow.iter_mut().enumerate() {
                    if !client.send_a_byte() {
                        was_closed[number] = true;
                        *client = connect(number);
                    }
                }
                let closed = was_closed.iter().filter(|closed| **closed).count();
                count.store(closed, Ordering::Relaxed);
                let next = begun + Duration::from_secs(second);
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self {
            stop,
            closed,
            thread,
        }
    }

    /// How many of them the agent has closed at least once.
    pub(super) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the slow ones' thread");
    }
}

struct Slow {
    stream: UnixStream,
    rest: std::vec::IntoIter<u8>,
}

impl Slow {
    /// The head comes at once if it has an end: the body is what is slow.
    fn connect(socket: &Path, script: &str) -> Self {
        let mut stream = UnixStream::connect(socket).expect("a connection");
        let end = script.find("\r\n\r\n").map_or(0, |at| at + 4);
        let (head, rest) = script.split_at(end);
        stream.write_all(head.as_bytes()).expect("a head");
        stream.set_nonblocking(true).expect("its mode");
        Self {
            stream,
            rest: rest.as_bytes().to_vec().into_iter(),
        }
    }

    /// Whether the agent still wants it.
    fn send_a_byte(&mut self) -> bool {
        // An answer, or the end, says that it doesn't.
        let answer = self.stream.read(&mut [0; 1024]);
        if !answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            return false;
        }
        let byte = self.rest.next();
        byte.is_some_and(|byte| self.stream.write_all(&[byte]).is_ok())
    }
}
