//! Those who watch an agent as closely as an operator would: a scrape each second,
//! one who follows its events, and new helper connections for both to see.
//!
//! The connections begin in a router of their own: what is measured are the packets
//! of others, beside all this work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use conntrack_agent::model::{Helper, Port, Protocol, RuleTarget};
use conntrack_tests::agent::listening;
use conntrack_tests::curl::{Caller, curl};
use conntrack_tests::durable::BareRouter;
use conntrack_tests::frames::{Sender, stay_on_one_cpu};
use conntrack_tests::lab::Lab;
use etherparse::PacketBuilder;

const PORT: u16 = 21;
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// So that a hundred connections begin in a second.
const CONNECT_EVERY: Duration = Duration::from_millis(10);
/// How long none of them sleeps without looking whether it is to end.
const MOMENT: Duration = Duration::from_millis(100);

/// The router in which connections begin that are watched.
pub(crate) struct Busy(BareRouter);

impl Busy {
    pub(crate) fn new(lab: &Lab) -> Self {
        let router = BareRouter::new(lab);
        router.netns().ip("link set qr-1 up\nlink set qg-1 up\n");
        Self(router)
    }

    /// The rule that they meet.
    pub(crate) fn rule(&self) -> RuleTarget {
        RuleTarget {
            router: self.0.id(),
            port: Port::try_from(i64::from(PORT)).expect("a port"),
            helper: Helper::new("ftp", Protocol::Tcp).expect("a helper"),
        }
    }
}

/// What they have seen.
#[derive(Default)]
struct Seen {
    scrapes: AtomicU64,
    begun: AtomicU64,
    told: AtomicU64,
    stop: AtomicBool,
}

/// They end when this does, and say what they have seen.
pub(crate) struct Watchers {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Watchers {
    /// Begins to watch the agent of a lab.
    pub(crate) fn start(lab: &Lab, busy: Busy) -> Self {
        let socket = listening(lab);
        let seen = Arc::new(Seen::default());
        let spawn = |work: fn(&Seen, &Path, &Busy), socket: PathBuf, busy: &Arc<Busy>| {
            let (seen, busy) = (Arc::clone(&seen), Arc::clone(busy));
            thread::spawn(move || {
                // Not on the one where packets are measured, which is the last.
                stay_on_one_cpu(0);
                work(&seen, &socket, &busy);
            })
        };
        let busy = Arc::new(busy);
        let threads = [scrape, follow, connect].map(|work| spawn(work, socket.clone(), &busy));
        Self {
            threads: threads.into(),
            seen: Arc::clone(&seen),
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok(), "one who watches has failed");
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Seen {
            scrapes,
            begun,
            told,
            ..
        } = &*self.seen;
        println!(
            "watched: {} scrapes, {} of {} connections told of",
            of(scrapes),
            of(told),
            of(begun)
        );
        assert!(of(scrapes) > 0 && of(told) > 0, "nobody watched");
    }
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Waits until then, or until it is to end.
    fn rest(&self, until: Instant) {
        while self.goes_on() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(MOMENT));
        }
    }
}

fn scrape(seen: &Seen, socket: &Path, _busy: &Busy) {
    let mut next = Instant::now();
    while seen.goes_on() {
        let (status, text) = Caller::local(socket).text("GET", "/metrics", "");
        assert_eq!(status, 200, "{text}");
        seen.scrapes.fetch_add(1, Ordering::Relaxed);
        next += SCRAPE_EVERY;
        seen.rest(next);
    }
}

fn follow(seen: &Seen, socket: &Path, _busy: &Busy) {
    let mut last = 0;
    while seen.goes_on() {
        let heard = curl(
            socket,
            "GET",
            &format!("/v1/events?after={last}&wait=1"),
            "",
        );
        assert_eq!(heard.status, 200, "{heard:?}");
        last = heard.body["last"].as_u64().expect("a number");
        let events = heard.body["events"].as_array().expect("events");
        let told = events.iter().filter(|event| event["kind"] == "connection");
        seen.told.fetch_add(told.count() as u64, Ordering::Relaxed);
        // As many at a time as a person reads.
        seen.rest(Instant::now() + MOMENT);
    }
}

fn connect(seen: &Seen, _socket: &Path, busy: &Busy) {
    let netns = busy.0.netns();
    netns.run(|| {
        let sender = Sender::new("qg-1");
        let mut next = Instant::now();
        for port in (1_024..=u16::MAX).cycle() {
            if !seen.goes_on() {
                break;
            }
            let sent = sender.send(&syn(port));
            seen.begun.fetch_add(u64::from(sent), Ordering::Relaxed);
            next += CONNECT_EVERY;
            seen.rest(next);
        }
    });
}

/// The first packet of a connection from this port.
fn syn(from: u16) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = link.ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64);
    let packet = packet.tcp(from, PORT, 1, 64_000).syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("room in memory");
    frame
}
