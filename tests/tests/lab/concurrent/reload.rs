//! Requests while a reload goes on.

use std::fs;
use std::path::PathBuf;
use std::thread;

use conntrack_tests::agent::Reload;
use conntrack_tests::connection::Connection;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::wait;
use serde_json::json;

use super::{file, ftp_on, in_answer};

/// nft, which waits while a file is there and says that it does.
struct SlowNft {
    hold: PathBuf,
    waits: PathBuf,
}

impl SlowNft {
    fn new(lab: &Lab) -> Self {
        let at = |name: &str| lab.dir().path().join(name);
        Self {
            hold: at("hold"),
            waits: at("waits"),
        }
    }

    /// It gives up before the agent does, which waits for 30 s.
    fn script(&self) -> String {
        format!(
            "left=400\nwhile [ -e {hold} ] && [ $left -gt 0 ]; do\n\
             : >{waits}; left=$((left - 1)); sleep 0.05\ndone",
            hold = self.hold.display(),
            waits = self.waits.display()
        )
    }
}

#[test]
fn requests_are_answered_while_a_reload_goes_on() {
    let builder = Served::builder().rules(&[Rule::tftp(69)]);
    let (new, nft) = (BareRouter::new(&builder.lab), SlowNft::new(&builder.lab));
    let lab = builder.lab.clone();
    let slow = builder.config(|config| config.with_nft(&lab, &nft.script()));
    let Served {
        mut agent,
        router: here,
        ..
    } = slow.start();
    let after = file(&here, &[69]) + &file(&new, &[6969]);
    let connect = || Connection::open(&lab.dir().socket());
    let rules = rules_of(here.id());

    fs::write(&nft.hold, "").expect("the reload is to stop there");
    thread::scope(|scope| {
        let reload = scope.spawn(|| agent.reload(&after));
        let waits = wait::until(wait::patience(), || nft.waits.exists().then_some(()));
        assert_eq!(waits, Some(()), "the reload has come to its first rule");
        let mut changes = connect();
        changes.send("POST", &rules, Some(&ftp_on(21)));
        for _ in 0..20 {
            let mut connection = connect();
            let listed = connection.ask("GET", "/v1/conntrack_helpers", None);
            assert_eq!(listed.status, 200, "{listed:?}");
            let listed = listed.body["conntrack_helpers"].as_array().expect("rules");
            let ports: Vec<_> = listed.iter().map(|rule| in_answer(rule).1).collect();
            assert_eq!(ports, [69], "nothing is seen that isn't in force yet");
            assert_eq!(connection.ask("GET", "/v1/status", None).status, 200);
            // One that can't be right needs no turn.
            let wrong = connection.ask("POST", &rules, Some(&json!({})));
            assert_eq!(wrong.status, 400, "{wrong:?}");
        }
        assert!(changes.is_silent(), "one change after the other");
        assert!(!reload.is_finished());
        fs::remove_file(&nft.hold).expect("the reload goes on");
        let made = changes.receive();
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(reload.join().expect("a reload"), Reload::Done);
    });
    let mapping = stored(lab.dir()).expect("a good store");
    assert_eq!(mapping.len(), 3);
    here.assert_has(&mapping);
    new.assert_has(&mapping);
}
