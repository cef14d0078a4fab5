//! `cargo xtask demo`: an active FTP transfer through a router that
//! masquerades, first without a helper rule and then with one.

use std::fmt::Display;
use std::io::{IsTerminal as _, stdout};
use std::panic::catch_unwind;
use std::process::ExitCode;

use conntrack_ebpf::abi::Counters;
use conntrack_tests::agent::{Agent, subcommand};
use conntrack_tests::clients::ftp::{Failure, Mode, fetch};
use conntrack_tests::conntrack::connections;
use conntrack_tests::counters::rule_counters;
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use sha2::{Digest as _, Sha256};

const PORT: u16 = 2121;

fn main() -> ExitCode {
    let tell = Tell::new();
    // The lab panics where something of the machine fails it, and says what.
    match catch_unwind(|| demo(tell)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(unexpected)) => {
            tell.unexpected(&unexpected);
            ExitCode::FAILURE
        }
        Err(_) => {
            tell.unexpected("the lab could not be made or used");
            ExitCode::FAILURE
        }
    }
}

fn demo(tell: Tell) -> Result<(), String> {
    tell.step("A lab: client, router and server, each in its own network namespace");
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &[(Protocol::Tcp, PORT)]));
    let server = FtpServer::start(&site.server, site.server_address(PORT));
    let netns = site.router.netns();
    note(format!("router     {}", netns.name()));
    note(format!(
        "           masquerades; drops all but new connections to {PORT}/tcp and"
    ));
    note("           what conntrack knows to belong to one");
    note(format!(
        "server     vsftpd on {}",
        site.server_address(PORT)
    ));

    tell.step("Active FTP without a helper rule");
    note("the server opens the data connection, and the router knows nothing of it");
    match transfer(&site) {
        Err(failure @ Failure::Data(_)) => tell.expected(format!("fails: {failure}")),
        Err(failure) => return Err(format!("the wrong thing fails: {failure}")),
        Ok(bytes) => return Err(format!("{} bytes came without a helper", bytes.len())),
    }
    netns.tool("conntrack", ["-F"], "");

    let rule = Rule::ftp(PORT);
    let rules = rules_file(&[(&site.router, &[rule])]);
    tell.step("conntrack-agent with one rule");
    rules.lines().for_each(note);
    let agent = Agent::start(&lab, &rules);
    tell.expected("ready: the classifier is on the router's interfaces");

    tell.step("The same transfer");
    let bytes = transfer(&site).map_err(|failure| format!("it fails still: {failure}"))?;
    let (sent, came) = (checksum(&server.bytes), checksum(&bytes));
    note(format!("sent       {sent}"));
    note(format!("received   {came}"));
    if bytes != server.bytes {
        return Err("what came is not what was sent".to_owned());
    }
    tell.expected("works: the checksums are equal");

    tell.step("The control connection in conntrack");
    let with_helper: Vec<_> = connections(netns)
        .into_iter()
        .filter(|connection| connection.helper.is_some())
        .collect();
    match with_helper.as_slice() {
        [connection] if connection.helper.as_deref() == Some(rule.helper) => {
            tell.expected(&connection.line);
        }
        other => return Err(format!("connections with a helper: {other:?}")),
    }

    tell.step("The rule's counters");
    let Counters { packets, bytes } = rule_counters(lab.dir(), &site.router, rule)?;
    if packets == 0 {
        return Err("the rule has counted nothing".to_owned());
    }
    tell.expected(format!("{packets} packets, {bytes} bytes to {PORT}/tcp"));

    tell.step("Cleaning up");
    let stopped = agent.stop();
    if stopped.code != Some(0) {
        return Err(format!("the agent's end: {stopped:?}"));
    }
    let cleanup = subcommand(&lab, "cleanup");
    if cleanup.code != Some(0) {
        return Err(format!("cleanup: {}", cleanup.stderr));
    }
    tell.expected(cleanup.stdout.trim_end());
    Ok(())
}

fn transfer(site: &Site) -> Result<Vec<u8>, Failure> {
    fetch(&site.client, site.published_address(PORT), Mode::Active)
}

/// For people to compare two lines by. The transfer itself is checked byte by
/// byte.
fn checksum(bytes: &[u8]) -> String {
    format!("{} bytes, sha256 {:x}", bytes.len(), Sha256::digest(bytes))
}

fn note(text: impl Display) {
    println!("  {text}");
}

/// What the demo says on its terminal, in colours where there are any.
#[derive(Clone, Copy)]
struct Tell {
    colour: bool,
}

impl Tell {
    fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Self {
            colour: wanted && stdout().is_terminal(),
        }
    }

    fn step(self, text: &str) {
        println!("\n{}", self.in_style("1", text));
    }

    fn expected(self, text: impl Display) {
        println!("{} {text}", self.in_style("32", "✓"));
    }

    fn unexpected(self, text: &str) {
        println!("{} {text}", self.in_style("31", "✗"));
    }

    fn in_style(self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
