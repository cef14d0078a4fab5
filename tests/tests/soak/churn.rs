//! Routers, interfaces and rules that come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use conntrack_agent::engine::Mapping;
use conntrack_agent::kernel::Pins;
use conntrack_agent::model::RouterId;
use conntrack_tests::agent::{Agent, Reload};
use conntrack_tests::connection::Connection;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::wait;
use fastrand::Rng;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};
use uuid::Builder;

/// Routers that come and go.
const ROUTERS: usize = 12;
/// Ports that rules are for.
const PORTS: u16 = 40;
/// An interface beside a router's own.
const EXTRA: &str = "qr-extra";

pub(crate) struct Churn<'a> {
    lab: &'a Lab,
    random: Rng,
    agent: &'a mut Agent,
    /// The rules file at the start: the router with traffic.
    rules: &'a str,
    socket: PathBuf,
    /// Those that have a namespace, and whether its extra interface is there.
    here: BTreeMap<RouterId, (BareRouter, bool)>,
    all: Vec<RouterId>,
    counts: BTreeMap<&'static str, usize>,
}

impl<'a> Churn<'a> {
    pub(crate) fn new(lab: &'a Lab, seed: u64, agent: &'a mut Agent, rules: &'a str) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut id = || {
            let uuid = Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid();
            uuid.to_string().parse().expect("a router id")
        };
        let all = (0..ROUTERS).map(|_| id()).collect();
        Self {
            lab,
            random,
            agent,
            rules,
            socket: lab.dir().run_dir().join("agent.sock"),
            here: BTreeMap::new(),
            all,
            counts: BTreeMap::new(),
        }
    }

    /// Whatever comes to its mind, for so long.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let router = self.all[self.random.usize(..ROUTERS)];
            match self.random.u8(..100) {
                0..15 => self.come_or_go(router),
                15..25 => self.go_and_come_at_once(router),
                25..35 => self.replug(router),
                35..45 => self.extra(router),
                45..50 => self.flush(router),
                50..55 => self.unpin(router),
                55..58 => self.reload(),
                58..80 => self.create(router),
                80..92 => self.delete(router),
                _ => self.replace(router),
            }
            thread::sleep(Duration::from_millis(self.random.u64(..30)));
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn come_or_go(&mut self, router: RouterId) {
        if let Some((gone, _)) = self.here.remove(&router) {
            self.count("routers gone");
            remove(&gone);
        } else {
            self.count("routers come");
            let come = BareRouter::of(self.lab, router);
            self.here.insert(router, (come, false));
        }
    }

    fn go_and_come_at_once(&mut self, router: RouterId) {
        if let Some((gone, _)) = self.here.remove(&router) {
            self.count("routers made again");
            remove(&gone);
            let come = BareRouter::of(self.lab, router);
            self.here.insert(router, (come, false));
        }
    }

    fn replug(&mut self, router: RouterId) {
        if let Some((here, _)) = self.here.get(&router) {
            here.unplug();
            here.plug();
            self.count("interfaces replaced");
        }
    }

    fn extra(&mut self, router: RouterId) {
        if let Some((here, is_there)) = self.here.get_mut(&router) {
            here.netns().ip(&if *is_there {
                format!("link del {EXTRA}")
            } else {
                format!("link add {EXTRA} up type veth peer name {EXTRA}-peer")
            });
            *is_there = !*is_there;
            self.count("interfaces come or gone");
        }
    }

    fn flush(&mut self, router: RouterId) {
        if let Some((here, _)) = self.here.get(&router) {
            here.netns().nft("flush ruleset");
            self.count("rulesets flushed");
        }
    }

    fn unpin(&mut self, router: RouterId) {
        let pins = Pins::new(self.lab.dir().agent_bpffs_dir());
        let links = pins.links_of(router).unwrap_or_default();
        if let Some(link) = self.random.choice(links)
            && fs::remove_file(link).is_ok()
        {
            self.count("links removed");
        }
    }

    /// The rules file with a rule on a router, or without.
    fn reload(&mut self) {
        let more = self.random.bool().then(|| {
            let router = self.all[0];
            format!("[[router]]\nid = \"{router}\"\nhelpers = [{{ protocol = \"udp\", port = 69, helper = \"tftp\" }}]\n")
        });
        let rules = format!("{}{}", self.rules, more.unwrap_or_default());
        // A namespace may go in the middle: then all of it is refused.
        let done = self.agent.reload(&rules) == Reload::Done;
        self.count(if done { "reloads" } else { "reloads refused" });
    }

    fn rule(&mut self) -> Value {
        let port = self.random.u16(2000..2000 + PORTS);
        let (protocol, helper) = *self
            .random
            .choice(&[("tcp", "ftp"), ("udp", "tftp"), ("udp", "sip")])
            .expect("one");
        json!({ "protocol": protocol, "port": port, "helper": helper })
    }

    /// Another each time: the agent closes one that nobody asked on for a while, and
    /// on a busy machine removing a router may take longer.
    fn connection(&self) -> Connection {
        Connection::open(&self.socket)
    }

    /// One of these statuses must be the answer; 503 is a namespace that went in
    /// the middle.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>, allowed: &[u16]) {
        let answer = self.connection().ask(method, path, body);
        let status = answer.status;
        let is_gone = status == 503 && answer.message().contains("qrouter-");
        assert!(
            is_gone || allowed.contains(&status),
            "{method} {path} {body:?}: {answer:?}"
        );
        self.count(match status {
            200..300 => "changes",
            503 => "changes refused whole",
            _ => "changes that may not be",
        });
    }

    fn create(&mut self, router: RouterId) {
        let body = json!({ "conntrack_helper": self.rule() });
        // 400: there is one like it.
        self.ask("POST", &rules_of(router), Some(&body), &[201, 400]);
    }

    fn delete(&mut self, router: RouterId) {
        let answer = self.connection().ask("GET", &rules_of(router), None);
        // 404: it has neither a rule nor a namespace.
        assert!([200, 404].contains(&answer.status), "{answer:?}");
        let rules = answer.body["conntrack_helpers"].as_array();
        let ids = rules
            .into_iter()
            .flatten()
            .filter_map(|rule| rule["id"].as_str());
        let id = self
            .random
            .choice(ids.collect::<Vec<_>>())
            .map(str::to_owned);
        if let Some(id) = id {
            // 409: it is the rules file's.
            let path = format!("{}/{id}", rules_of(router));
            self.ask("DELETE", &path, None, &[204, 409]);
        }
    }

    fn replace(&mut self, router: RouterId) {
        let number = self.random.usize(..20);
        let rules: Vec<_> = (0..number).map(|_| self.rule()).collect();
        // 400: two are alike.
        self.ask(
            "PUT",
            &rules_of(router),
            Some(&json!({ "conntrack_helpers": rules })),
            &[200, 400],
        );
    }

    /// As it was at the beginning: no router that comes and goes, no rule of one.
    pub(crate) fn settle(&mut self) {
        for (router, _) in std::mem::take(&mut self.here).into_values() {
            remove(&router);
        }
        assert_eq!(self.agent.reload(self.rules), Reload::Done);
        for router in self.all.clone() {
            let none = json!({ "conntrack_helpers": [] });
            self.ask("PUT", &rules_of(router), Some(&none), &[200, 404]);
        }
        let pins = Pins::new(self.lab.dir().agent_bpffs_dir());
        let gone = wait::until(wait::patience(), || {
            let left = pins.routers().expect("the pins");
            let left = left.iter().any(|router| self.all.contains(router));
            (!left).then_some(())
        });
        assert!(gone.is_some(), "pins stay: {:?}", pins.routers());
        // Two passes, and what they gave up.
        thread::sleep(Duration::from_secs(3));
    }

    /// That it is so for every router, in some seconds: the agent repairs.
    pub(crate) fn assert_kernel_is_store(&mut self) {
        let here: Vec<_> = self.here.keys().copied().collect();
        for router in here {
            if self.here[&router].1 {
                self.extra(router);
            }
        }
        // What is half-way is no state to judge.
        thread::sleep(Duration::from_secs(3));
        let same = wait::until(wait::patience(), || {
            let mapping = stored(self.lab.dir()).expect("the store");
            self.all_are(&mapping).then_some(mapping)
        });
        let mapping = same.unwrap_or_else(|| {
            let mapping = stored(self.lab.dir()).expect("the store");
            let here: Vec<_> = self.here.keys().copied().collect();
            for id in here {
                if !self.here[&id].0.in_kernel().is(&mapping.winners(id)) {
                    self.tell(id);
                }
                self.here[&id].0.assert_has(&mapping);
            }
            panic!("pins of routers that are not there");
        });
        println!(
            "soak: kernel equals store: {} rules, {} routers of {ROUTERS} here",
            mapping.len(),
            self.here.len()
        );
    }

    /// What the agent has said last of a router.
    fn tell(&mut self, router: RouterId) {
        let lines = self.agent.process().lines();
        let id = router.to_string();
        let mut lines: Vec<_> = lines.iter().filter(|line| line.contains(&id)).collect();
        let lines = lines.split_off(lines.len().saturating_sub(40));
        println!("soak: the agent on {router}:");
        for line in lines {
            println!("{line}");
        }
    }

    fn all_are(&self, mapping: &Mapping) -> bool {
        let pins = Pins::new(self.lab.dir().agent_bpffs_dir());
        let pinned = pins.routers().expect("the pins");
        let here = self.here.values();
        let mut here = here.map(|(router, _)| router.in_kernel().is(&mapping.winners(router.id())));
        let absent = self
            .all
            .iter()
            .filter(|router| !self.here.contains_key(router));
        here.all(|is| is) && absent.into_iter().all(|router| !pinned.contains(router))
    }

    pub(crate) fn end(self) {
        let made: usize = self.counts.values().sum();
        assert!(made > 0 && self.counts.contains_key("changes"), "{self}");
    }
}

fn rules_of(router: RouterId) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}

/// As `ip netns delete` does.
fn remove(router: &BareRouter) {
    let path: PathBuf = router.netns().path().to_owned();
    unmount(&path, UnmountFlags::DETACH).expect("the namespace's mount");
    fs::remove_file(&path).expect("its file");
}

impl fmt::Display for Churn<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter();
        let counts: Vec<_> = counts
            .map(|(what, number)| format!("{number} {what}"))
            .collect();
        formatter.write_str(&counts.join(", "))
    }
}
