//! Tests of what grants make of a peer.

use std::{collections::BTreeSet, fmt::Write as _};

use nix::errno::Errno;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::model::RouterId;

/// A host with the users alice (1000, in netops) and bob (1001), and the group
/// netops (50). Of user 1002 it can't say in which groups it is.
struct Small;

impl Accounts for Small {
    fn user(&self, name: &str) -> nix::Result<Option<u32>> {
        match name {
            "alice" => Ok(Some(1000)),
            "bob" => Ok(Some(1001)),
            "broken" => Err(Errno::EIO),
            _ => Ok(None),
        }
    }

    fn group(&self, name: &str) -> nix::Result<Option<u32>> {
        Ok((name == "netops").then_some(50))
    }

    fn groups_of(&self, uid: u32) -> nix::Result<BTreeSet<u32>> {
        match uid {
            1000 => Ok(BTreeSet::from([50, 1000])),
            1002 => Err(Errno::EIO),
            _ => Ok(BTreeSet::new()),
        }
    }
}

/// A host that must not be asked in which groups somebody is.
struct Mute;

impl Accounts for Mute {
    fn user(&self, name: &str) -> nix::Result<Option<u32>> {
        Small.user(name)
    }

    fn group(&self, name: &str) -> nix::Result<Option<u32>> {
        Small.group(name)
    }

    fn groups_of(&self, uid: u32) -> nix::Result<BTreeSet<u32>> {
        panic!("asked for the groups of {uid}")
    }
}

fn router(number: u8) -> RouterId {
    let text = format!("00000000-0000-4000-8000-0000000000{number:02x}");
    text.parse().unwrap()
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    grant: Vec<Grant>,
}

fn grants(text: &str) -> Result<Vec<Grant>, toml::de::Error> {
    toml::from_str(text).map(|document: Document| document.grant)
}

fn access(text: &str) -> Access {
    Access::on(&Small, &grants(text).unwrap()).unwrap()
}

fn local(uid: u32, gid: u32) -> Principal {
    Principal::Local { pid: 7, uid, gid }
}

fn token(name: &str) -> Principal {
    let name = TokenName::new(name).unwrap();
    Principal::Token { name }
}

fn peer(text: &str, uid: u32, gid: u32) -> Authorization {
    access(text).on_host(&Small, local(uid, gid))
}

fn sentence(decision: Result<(), Forbidden>) -> String {
    decision.unwrap_err().to_string()
}

/// read, change, read all, change all.
fn allowed(authorization: &Authorization, router: RouterId) -> [bool; 4] {
    [
        authorization.may_read(router).is_ok(),
        authorization.may_change(router).is_ok(),
        authorization.may_read_all().is_ok(),
        authorization.may_change_all().is_ok(),
    ]
}

#[test]
fn cwe_284_without_a_grant_only_root_gets_in() {
    let root = peer("", 0, 0);
    assert!(!root.is_nobody() && root.may_enter().is_ok());
    assert_eq!(allowed(&root, router(1)), [true; 4]);
    for nobody in [
        peer("", 1000, 0),
        peer("", 65534, 65534),
        access("").of(token("root")),
    ] {
        assert!(nobody.is_nobody() && nobody.may_enter().is_err());
        assert_eq!(allowed(&nobody, router(1)), [false; 4]);
    }
}

#[test]
fn root_is_an_admin_whatever_the_grants_say() {
    let text = "[[grant]]\nusers = [\"alice\", 0]\nrole = \"reader\"";
    assert_eq!(allowed(&peer(text, 0, 7), router(1)), [true; 4]);
    // To be in root's group is not to be root.
    assert!(peer(text, 1001, 0).is_nobody());
}

#[test]
fn each_role_may_what_it_says_and_no_more() {
    for (role, may) in [
        ("reader", [true, false, false, false]),
        ("operator", [true, true, false, false]),
        ("admin", [true, true, true, true]),
    ] {
        let text = format!("[[grant]]\nusers = [1000]\nrole = \"{role}\"");
        let authorization = peer(&text, 1000, 1000);
        assert_eq!(allowed(&authorization, router(1)), may, "{role}");
        assert!(authorization.may_enter().is_ok() && !authorization.is_nobody());
    }
}

#[test]
fn a_grant_with_routers_covers_these_alone() {
    let text = format!(
        "[[grant]]\nusers = [1000]\nrole = \"operator\"\nrouters = [\"{}\", \"{}\"]",
        router(1),
        router(2)
    );
    let authorization = peer(&text, 1000, 1000);
    assert_eq!(
        allowed(&authorization, router(1)),
        [true, true, false, false]
    );
    assert_eq!(
        allowed(&authorization, router(2)),
        [true, true, false, false]
    );
    assert_eq!(allowed(&authorization, router(3)), [false; 4]);
}

#[test]
fn a_grant_is_for_users_members_of_groups_and_tokens() {
    let text = "[[grant]]\nusers = [\"bob\", 7]\ngroups = [\"netops\", 60]\ntokens = [\"ci\"]\n\
                role = \"reader\"";
    for (uid, gid, is_for) in [
        (1001, 1001, true), // by name
        (7, 7, true),       // by number
        (1000, 1000, true), // the host says that alice is in netops
        (8, 50, true),      // netops is what it came with
        (8, 60, true),
        (8, 7, false), // a group's number is no user's
        (50, 8, false),
        (8, 8, false),
        (1002, 8, false), // the host can't say: what it came with counts
        (1002, 60, true),
    ] {
        assert_eq!(!peer(text, uid, gid).is_nobody(), is_for, "{uid} {gid}");
    }
    assert!(!access(text).of(token("ci")).is_nobody());
    for name in ["ci2", "bob", "7", "netops"] {
        assert!(access(text).of(token(name)).is_nobody(), "{name:?}");
    }
    for name in ["", "CI"] {
        assert_eq!(TokenName::new(name), None, "{name:?}");
    }
}

#[test]
fn the_host_is_asked_for_groups_only_where_a_grant_names_one() {
    let text = "[[grant]]\nusers = [\"alice\"]\ntokens = [\"ci\"]\nrole = \"reader\"";
    let of = |text: &str, uid| access(text).on_host(&Mute, local(uid, uid)).is_nobody();
    assert!(!of(text, 1000));
    assert!(of(text, 1001));
    assert!(!of("[[grant]]\ngroups = [50]\nrole = \"reader\"", 0));
    let asks = std::panic::catch_unwind(|| of("[[grant]]\ngroups = [50]\nrole = \"reader\"", 1));
    assert!(asks.is_err());
}

#[test]
fn several_grants_are_their_union() {
    let text = format!(
        "[[grant]]\nusers = [1000]\nrole = \"reader\"\n\
         [[grant]]\ngroups = [50]\nrole = \"operator\"\nrouters = [\"{}\"]\n\
         [[grant]]\nusers = [1001]\nrole = \"admin\"",
        router(1)
    );
    let authorization = peer(&text, 1000, 1000);
    assert_eq!(
        allowed(&authorization, router(1)),
        [true, true, false, false]
    );
    assert_eq!(
        allowed(&authorization, router(2)),
        [true, false, false, false]
    );
    assert_eq!(
        sentence(authorization.may_change(router(2))),
        format!(
            "grant 1 (role reader) allows no change, \
             grant 2 (role operator) does not cover router {}",
            router(2)
        )
    );
}

#[test]
fn cwe_284_a_refusal_names_the_grant_that_refuses() {
    let text = format!(
        "[[grant]]\nusers = [7]\nrole = \"admin\"\n\
         [[grant]]\nusers = [1000]\ntokens = [\"ci\"]\nrole = \"operator\"\nrouters = [\"{}\"]",
        router(1)
    );
    let asked = router(9);
    for authorization in [peer(&text, 1000, 1000), access(&text).of(token("ci"))] {
        let covers = format!("grant 2 (role operator) does not cover router {asked}");
        assert_eq!(sentence(authorization.may_read(asked)), covers);
        assert_eq!(sentence(authorization.may_change(asked)), covers);
        for decision in [authorization.may_read_all(), authorization.may_change_all()] {
            let said = sentence(decision);
            assert!(said.starts_with("grant 2 (role operator) "), "{said}");
            assert!(
                said.contains("span") && said.ends_with("role admin does"),
                "{said}"
            );
        }
    }
    let nobody = peer(&text, 1001, 1001);
    let target = "no grant names uid 1001 or a group that it is in";
    assert_eq!(sentence(nobody.may_read(asked)), target);
    assert_eq!(sentence(nobody.may_change_all()), target);
    let nobody = access(&text).of(token("cd"));
    assert_eq!(sentence(nobody.may_enter()), "no grant names token \"cd\"");
}

#[test]
fn a_principal_says_who_it_is() {
    let address = ([127, 0, 0, 1], 5).into();
    for (principal, expected) in [
        (local(0, 0), "uid 0 (pid 7)"),
        (token("ci"), "token ci"),
        (Principal::Unknown { address }, "unknown (127.0.0.1:5)"),
        (
            Principal::Scraper { address },
            "metrics reader (127.0.0.1:5)",
        ),
        (Principal::RulesFile, "the rules file"),
    ] {
        assert_eq!(principal.to_string(), expected);
    }
}

#[test]
fn a_wrong_grant_is_refused_with_its_number_and_what_is_allowed() {
    let good = "[[grant]]\nusers = [1]\nrole = \"admin\"\n";
    let some = format!("routers = [\"{}\"]", router(1));
    for (entry, parts) in [
        ("role = \"reader\"", &["for nobody", "users"][..]),
        ("users = []\nrole = \"reader\"", &["for nobody"]),
        (
            "users = [\"carol\"]\nrole = \"reader\"",
            &["no user \"carol\"", "without quotes"],
        ),
        (
            "users = [\"netops\"]\nrole = \"reader\"",
            &["no user \"netops\""],
        ),
        (
            "groups = [\"alice\"]\nrole = \"reader\"",
            &["no group \"alice\""],
        ),
        ("users = [\"1000\"]\nrole = \"reader\"", &["without quotes"]),
        (
            "users = [\"broken\"]\nrole = \"reader\"",
            &["\"broken\"", "looked up"],
        ),
        (
            "groups = [4294967295]\nrole = \"reader\"",
            &["group 4294967295", "4294967294"],
        ),
        (
            "users = [1]\nrole = \"reader\"\nrouters = []",
            &["routers is empty", "leave"],
        ),
        (
            "users = [1]\nrole = \"reader\"\nrouters = [\"r1\"]",
            &["\"r1\"", "UUID"],
        ),
        (
            &format!("users = [1]\nrole = \"admin\"\n{some}"),
            &["role admin", "operator"],
        ),
        (
            "tokens = [\"Secret!of-somebody\"]\nrole = \"reader\"",
            &["tokens", "1 to 32"],
        ),
    ] {
        let text = format!("{good}[[grant]]\n{entry}");
        let faults = Access::on(&Small, &grants(&text).unwrap()).unwrap_err();
        let [fault] = &faults[..] else {
            panic!("{faults:?}")
        };
        assert!(fault.starts_with("grant 2: "), "{fault}");
        assert!(!fault.contains("Secret"), "{fault}");
        for part in parts {
            assert!(fault.contains(part), "{fault} lacks {part}");
        }
    }
}

#[test]
fn all_faults_of_all_grants_are_named() {
    let text = "[[grant]]\nusers = [\"x\", \"y\"]\nrole = \"admin\"\nrouters = []\n\
                [[grant]]\nusers = [1]\nrole = \"reader\"\n[[grant]]\nrole = \"reader\"";
    let faults = Access::on(&Small, &grants(text).unwrap()).unwrap_err();
    let numbers: Vec<_> = faults.iter().map(|fault| &fault[..8]).collect();
    assert_eq!(
        numbers,
        ["grant 1:", "grant 1:", "grant 1:", "grant 1:", "grant 3:"]
    );
}

#[test]
fn what_is_no_grant_at_all_is_refused_as_it_is_read() {
    for (text, parts) in [
        ("users = [1]", &["role"][..]),
        ("users = [1]\nrole = \"king\"", &["king", "reader"]),
        ("users = [-1]\nrole = \"reader\"", &["4294967294"]),
        ("users = [4294967296]\nrole = \"reader\"", &["4294967294"]),
        ("users = [1.5]\nrole = \"reader\"", &["number"]),
        ("user = [1]\nrole = \"reader\"", &["`user`", "`users`"]),
    ] {
        let error = grants(&format!("[[grant]]\n{text}"))
            .unwrap_err()
            .to_string();
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}

/// A grant to uid 1: its role, and its routers of the numbers 0 to 3.
type Given = (u8, Option<BTreeSet<u8>>);

proptest! {
    /// Against a table of who may what on which router, filled grant by grant.
    #[test]
    fn any_grants_are_per_router_the_strongest(
        given in prop::collection::vec(
            (0u8..3, prop::option::of(prop::collection::btree_set(0u8..4, 1..4))),
            0..5,
        )
    ) {
        let mut table = [0u8; 4];
        let mut spans = false;
        let mut text = String::new();
        for (role, routers) in &given as &[Given] {
            // An admin's grant covers all routers.
            let routers = routers.as_ref().filter(|_| *role < 2);
            let name = ["reader", "operator", "admin"][usize::from(*role)];
            writeln!(text, "[[grant]]\nusers = [1]\nrole = \"{name}\"").unwrap();
            if let Some(routers) = routers {
                let ids: Vec<_> = routers.iter().map(|id| router(*id).to_string()).collect();
                writeln!(text, "routers = {ids:?}").unwrap();
            }
            for (id, may) in (0u8..).zip(&mut table) {
                if routers.is_none_or(|routers| routers.contains(&id)) {
                    *may = (*may).max(role + 1);
                }
            }
            spans |= *role == 2;
        }
        let authorization = peer(&text, 1, 1);
        for (id, may) in (0u8..).zip(table) {
            prop_assert_eq!(allowed(&authorization, router(id)), [may > 0, may > 1, spans, spans]);
        }
        prop_assert_eq!(authorization.is_nobody(), given.is_empty());
        prop_assert!(peer(&text, 2, 2).is_nobody());
    }
}
