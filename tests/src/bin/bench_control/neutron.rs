//! Neutron's way: a chain for each helper in the raw table, once for IPv4 and
//! once for IPv6, changed by saving all tables and restoring what differs.
//!
//! As in `neutron/agent/l3/extensions/conntrack_helper.py` (the chains) and
//! `neutron/agent/linux/iptables_manager.py` (`iptables-save`, the difference,
//! `iptables-restore -n`). Left out, to its advantage: Python, its privileged
//! helper process, `ip netns exec`, and every rule of a router that is about
//! something else.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_agent::engine::NewRule;
use conntrack_agent::model::{RouterId, protocol_name};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::neutron::{self, CHAIN, chain, line};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::rules;

/// A program that takes longer is ended, and its way given up.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Why a way was given up.
pub(crate) struct TooSlow(pub(crate) String);

/// How the change reaches the kernel.
#[derive(Clone, Copy)]
pub(crate) enum Restore {
    /// As Neutron does it: the difference alone.
    Difference,
    /// The whole table: what it would be without Neutron's care.
    Whole,
}

#[derive(Clone, Copy)]
enum Edit {
    Add,
    Delete,
}

/// A namespace with rules of this kind.
pub(crate) struct Neutron {
    /// `legacy` or `nft`.
    pub(crate) variant: &'static str,
    netns: Netns,
    lock: PathBuf,
    router: RouterId,
    count: usize,
}

impl Neutron {
    pub(crate) fn new(lab: &Lab, variant: &'static str, router: RouterId) -> Self {
        Self {
            variant,
            netns: lab.netns(&format!("neutron-{variant}")),
            lock: lab.dir().run_dir().join("xtables.lock"),
            router,
            count: 0,
        }
    }

    /// All rules in one go, from nothing.
    pub(crate) fn fill(&mut self, count: usize) -> Result<Duration, TooSlow> {
        self.count = count;
        let input =
            neutron::table((0..count).map(|number| helper(&rules::nth(self.router, number))));
        let start = Instant::now();
        for family in ["iptables", "ip6tables"] {
            self.tool(family, "save", &[], "")?;
            self.tool(family, "restore", &["-n"], &input)?;
        }
        Ok(start.elapsed())
    }

    /// One rule more, and away with it again: two changes.
    pub(crate) fn change(&self, how: Restore) -> Result<[Duration; 2], TooSlow> {
        Ok([self.edit(Edit::Add, how)?, self.edit(Edit::Delete, how)?])
    }

    fn edit(&self, edit: Edit, how: Restore) -> Result<Duration, TooSlow> {
        let start = Instant::now();
        for family in ["iptables", "ip6tables"] {
            match how {
                Restore::Difference => {
                    let saved = self.tool(family, "save", &[], "")?;
                    let input = self.difference(&saved, edit);
                    self.tool(family, "restore", &["-n"], &input)?;
                }
                Restore::Whole => {
                    let saved = self.tool(family, "save", &["-c"], "")?;
                    let input = self.whole(&saved, edit);
                    self.tool(family, "restore", &["-c"], &input)?;
                }
            }
        }
        Ok(start.elapsed())
    }

    /// The rule beyond those that stay: its chain, and what is in it.
    fn extra(&self) -> (String, String) {
        let rule = rules::nth(self.router, self.count);
        (chain(self.count), helper(&rule))
    }

    fn difference(&self, saved: &str, edit: Edit) -> String {
        let (chain, helper) = self.extra();
        let mut jumps = raw(saved).filter(|line| line.starts_with(&format!("-A {CHAIN} ")));
        let body = match edit {
            Edit::Add => {
                let place = jumps.count() + 1;
                format!(":{chain} - [0:0]\n-I {CHAIN} {place} -j {chain}\n-I {chain} 1 {helper}")
            }
            Edit::Delete => {
                let place = 1 + jumps
                    .position(|line| line.ends_with(&chain))
                    .expect("the rule that was added");
                format!("-D {CHAIN} {place}\n-D {chain} 1\n-X {chain}")
            }
        };
        format!("*raw\n{body}\nCOMMIT\n")
    }

    fn whole(&self, saved: &str, edit: Edit) -> String {
        let (chain, helper) = self.extra();
        let mut input = String::with_capacity(saved.len() + 256);
        line(&mut input, "*raw");
        if let Edit::Add = edit {
            line(&mut input, &format!(":{chain} - [0:0]"));
        }
        for old in raw(saved) {
            match edit {
                Edit::Delete if old.contains(&chain) => {}
                _ => line(&mut input, old),
            }
        }
        if let Edit::Add = edit {
            line(&mut input, &format!("[0:0] -A {CHAIN} -j {chain}"));
            line(&mut input, &format!("[0:0] -A {chain} {helper}"));
        }
        line(&mut input, "COMMIT");
        input
    }

    /// Runs one of its programs in the namespace; gives what it prints.
    fn tool(
        &self,
        family: &str,
        does: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, TooSlow> {
        let program = format!("{family}-{}-{does}", self.variant);
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("XTABLES_LOCKFILE", &self.lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .netns
            .run(|| command.spawn())
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a pidfd");
        let (done, is_done) = channel::<()>();
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // Nothing is ever sent: the channel closes when it is done.
                if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                    // It may just have ended by itself.
                    let _ended = pidfd_send_signal(&process, Signal::KILL);
                }
            });
            if let Some(mut stdin) = child.stdin.take() {
                // One that fails before it has read its input says so itself.
                drop(stdin.write_all(input.as_bytes()));
            }
            let output = child.wait_with_output().expect("its output");
            drop(done);
            output
        });
        if output.status.signal().is_some() {
            let lines = input.lines().count();
            return Err(TooSlow(format!(
                "{program}, on {lines} lines of input, among {} rules, took over {LIMIT:?}",
                self.count
            )));
        }
        assert!(
            output.status.success(),
            "{program}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The lines of the saved raw table.
fn raw(saved: &str) -> impl Iterator<Item = &str> {
    let from = saved.lines().skip_while(|line| *line != "*raw").skip(1);
    from.take_while(|line| *line != "COMMIT")
}

fn helper(rule: &NewRule) -> String {
    let helper = rule.target.helper;
    let protocol = protocol_name(helper.protocol());
    neutron::assignment(protocol, rule.target.port, helper.name())
}
