//! Eight minutes in which routers, interfaces and rules come and go at random,
//! beside real traffic and requests good and bad. In the end the kernel is what
//! the store says, and the agent holds no more than after the first minute.
//!
//! `SOAK_SECONDS` makes it shorter; `SOAK_SEED` repeats the churn of another run.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

#[path = "soak/churn.rs"]
mod churn;
#[path = "soak/figures.rs"]
mod figures;
#[path = "soak/requests.rs"]
mod requests;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_tests::agent::{Agent, Config, subcommand};
use conntrack_tests::clients::ftp::{Mode, fetch};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::{Snapshot, assert_same};
use conntrack_tests::wait;

use churn::Churn;
use figures::Figures;

const LENGTH: u64 = 480;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: {text}")),
    )
}

/// FTP sessions, one after the other, until it is told to stop; how many.
fn traffic(site: &Site, server: &FtpServer, stop: &AtomicBool) -> usize {
    let mut sessions = 0;
    while !stop.load(Ordering::Relaxed) {
        // Active: the server's connection to the client needs the helper.
        let came = fetch(&site.client, site.published_address(21), Mode::Active);
        let bytes = came.unwrap_or_else(|error| panic!("session {sessions}: {error}"));
        assert!(bytes == server.bytes, "session {sessions}: another file");
        sessions += 1;
        thread::sleep(Duration::from_millis(100));
    }
    sessions
}

/// Stops the others whatever happens: a scope waits for all its threads.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "eight minutes; cargo xtask test --soak"]
fn churn_beside_traffic_leaves_the_kernel_as_the_store_and_the_agent_as_it_was() {
    let length = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(LENGTH));
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("soak: {length:?}, SOAK_SEED={seed}");

    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &[(Protocol::Tcp, 21)]));
    let server = FtpServer::start(&site.server, site.server_address(21));
    let namespaces = [site.router.netns(), &site.client, &site.server];
    let before = Snapshot::take(&lab, &namespaces);
    let config = Config::of(&lab).with("full_pass_seconds", "1");
    let rules = rules_file(&[(&site.router, &[Rule::ftp(21)])]);
    let mut agent = Agent::start_with(&lab, &config, &rules);
    let pid = agent.process().pid();

    let socket = lab.dir().run_dir().join("agent.sock");
    let stop = AtomicBool::new(false);
    let (sessions, requests) = thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let traffic = scope.spawn(|| traffic(&site, &server, &stop));
        let requests = scope.spawn(|| requests::bad_and_good(&socket, &stop));
        let mut churn = Churn::new(&lab, seed, &mut agent, &rules);
        // An eighth of it to get warm.
        churn.run(length / 8);
        churn.settle();
        let warm = Figures::least(pid);
        println!("soak: after {:?}: {warm}", length / 8);
        let end = Instant::now() + length * 7 / 8;
        while Instant::now() < end {
            churn.run(Duration::from_secs(30).min(end.saturating_duration_since(Instant::now())));
            println!("soak: {} ({churn})", Figures::of(pid));
        }
        churn.assert_kernel_is_store();
        churn.settle();
        // What is lent for a while (a thread of the runtime's, say) comes back.
        let flat = wait::until(wait::patience(), || {
            let cold = Figures::least(pid);
            println!("soak: at the end: {cold}");
            cold.is_flat_since(&warm).then_some(())
        });
        assert!(flat.is_some(), "it was {warm}");
        stop.store(true, Ordering::Relaxed);
        churn.end();
        let counted = |what: thread::Result<usize>| {
            what.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (counted(traffic.join()), counted(requests.join()))
    });
    println!("soak: {sessions} FTP sessions, each with its data; {requests} other requests");
    assert!(sessions > 0 && requests > 0);

    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert_same(&before, &Snapshot::take(&lab, &namespaces));
}
