//! What the router's conntrack says of each new connection.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use conntrack_tests::netns::Netns;
use conntrack_tests::process::Process;
use conntrack_tests::wait;

use crate::connections::Source;

/// conntrack's own program, which prints an event for each connection as it is
/// confirmed, with its helper if it has one by then.
pub(crate) struct Events {
    process: Process,
    router: Netns,
    port: u16,
}

/// The connections that there were events of.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) with: BTreeSet<Source>,
    pub(crate) without: BTreeSet<Source>,
}

impl Seen {
    pub(crate) fn all(&self) -> BTreeSet<Source> {
        self.with.union(&self.without).copied().collect()
    }
}

impl Events {
    /// Listens for connections to this port from now on.
    pub(crate) fn listen(router: &Netns, port: u16) -> Self {
        let mut command = Command::new("conntrack");
        command
            .args(["-E", "-e", "NEW", "-p", "tcp", "--orig-port-dst"])
            .arg(port.to_string())
            // So that no burst is too much for it.
            .args(["-b", "33554432"]);
        let process = Process::start(Some(router), command);
        // It says nothing when it listens; that is seen by a socket of its kind.
        let listens = || {
            let sockets = router.run(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
            let sockets = sockets.expect("the netlink sockets");
            let pid = process.pid().as_raw_nonzero().to_string();
            let mut columns = sockets.lines().map(|line| line.split_whitespace());
            columns
                .any(|mut line| line.nth(1) == Some("12") && line.next() == Some(&pid))
                .then_some(())
        };
        wait::until(wait::patience(), listens).expect("conntrack listens");
        Self {
            process,
            router: router.clone(),
            port,
        }
    }

    /// What it has seen of these, when it has seen all that it will. Netlink drops events
    /// on a busy machine (netlink(7)), so the table is asked as well: an entry stays there
    /// for two minutes after its connection (`nf_conntrack_tcp_timeout_time_wait`).
    pub(crate) fn end(self, made: &BTreeSet<Source>) -> Seen {
        let port = self.port.to_string();
        let arguments = ["-L", "-p", "tcp", "--orig-port-dst", &port];
        let table = self.router.tool("conntrack", arguments, "");
        // It may lag behind; a connection that it never sees is for the caller.
        let mut last = 0;
        let all = || {
            let lines = self.process.lines().len();
            let is_quiet = lines == last;
            last = lines;
            std::thread::sleep(Duration::from_millis(500));
            (is_quiet && lines >= made.len()).then_some(())
        };
        if wait::until(wait::patience(), all).is_none() {
            println!("hitless: conntrack says less than there was");
        }
        let mut seen = Seen::default();
        let events = self.process.lines();
        let events = events.iter().map(String::as_str);
        for line in events
            .filter(|line| line.contains("[NEW]"))
            .chain(table.lines())
        {
            let Some(source) = self.source(line) else {
                continue;
            };
            let is_known = seen.with.contains(&source) || seen.without.contains(&source);
            if is_known || !made.contains(&source) {
                continue;
            }
            if line.contains("helper=ftp") {
                seen.with.insert(source);
            } else {
                seen.without.insert(source);
            }
        }
        seen
    }

    /// Of "[NEW] tcp 6 120 `SYN_SENT` src=… dst=… sport=… dport=… …", or the same from the
    /// table; the first fields are the original direction's.
    fn source(&self, line: &str) -> Option<Source> {
        let field = |name: &str| {
            let mut fields = line.split_whitespace();
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let to: u16 = field("dport")?.parse().ok()?;
        let source = (field("src")?.parse().ok()?, field("sport")?.parse().ok()?);
        (to == self.port).then_some(source)
    }
}
