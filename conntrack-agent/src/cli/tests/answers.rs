//! Daemons that refuse, say something else, say nothing, or aren't there.

use std::{fs, os::unix::net::UnixListener, time::Duration};

use serde_json::json;

use super::{A, Daemon, Rude, Status, ask, daemon, id, on, rule, rules_file, some, with};
use crate::client::{Bounds, Client, ClientError, ResponseFault};

#[test]
fn another_rule_than_the_one_asked_for_is_not_touched() {
    let others = json!({ "conntrack_helpers": some() }).to_string();
    let daemon = Daemon::saying(200, &others);
    let done = ask(&daemon, &format!("helper delete {}", id(9)));
    done.fails(Status::Failure, &["no rule"]);
    assert_eq!(daemon.asked().len(), 1);
}

#[test]
fn the_apis_message_is_what_is_said_and_its_status_is_the_exit_code() {
    for (code, status) in [
        (400, Status::Failure),
        (401, Status::NotPermitted),
        (403, Status::NotPermitted),
        (404, Status::Failure),
        (409, Status::Failure),
        (413, Status::Failure),
        (500, Status::Failure),
        (503, Status::Failure),
    ] {
        let daemon = Daemon::refusing(code, "rule 1 of [[access]] refuses");
        let done = ask(&daemon, "helper list");
        let message = "conntrack-agent: rule 1 of [[access]] refuses\n";
        assert_eq!(
            (done.status, &*done.err, &*done.out),
            (status, message, ""),
            "{code}"
        );
    }
}

#[test]
fn an_error_without_a_reason_is_said_to_have_none() {
    for body in [
        "",
        "<html>",
        "{}",
        "{\"NeutronError\":{}}",
        "{\"NeutronError\":{\"message\":\" \"}}",
    ] {
        let daemon = Daemon::saying(502, body);
        ask(&daemon, "status").fails(Status::Failure, &["502 Bad Gateway", "no reason"]);
        let daemon = Daemon::saying(403, body);
        ask(&daemon, "status").fails(Status::NotPermitted, &["403 Forbidden"]);
    }
    // Neither success nor failure, and a message that goes with neither.
    let daemon = Daemon::refusing(302, "over there");
    ask(&daemon, "status").fails(Status::Failure, &["302 Found"]);
}

#[test]
fn a_success_that_says_something_else_is_not_taken_for_one() {
    for body in [
        "",
        "nonsense",
        "[]",
        "{\"conntrack_helpers\":7}",
        "{\"conntrack_helpers\":[{}]}",
    ] {
        let daemon = Daemon::saying(200, body);
        ask(&daemon, "helper list").fails(Status::Failure, &["not understood"]);
    }
    // An id that is none, which must not become part of a path.
    let bad = with(rule(1, A, "tcp", 21, "ftp"), "router_id", "../../x");
    let daemon = Daemon::saying(200, &json!({ "conntrack_helpers": [bad] }).to_string());
    let done = ask(&daemon, &format!("helper delete {}", id(1)));
    done.fails(Status::Failure, &["not understood"]);
    assert_eq!(daemon.asked().len(), 1);
}

#[test]
fn what_is_no_whole_answer_is_said_in_a_sentence() {
    let create = format!("helper create --router {A} --protocol tcp --port 21 --helper ftp");
    let unknown = "whether the change was made is not known";
    for (bytes, part) in [
        (&b""[..], "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
            "closed the connection",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP"),
        (b"\0\xff\0\xff\r\n\r\n", "HTTP"),
    ] {
        let hear = |command| on(None, &Rude::new(bytes.to_vec()).socket(), command);
        let read = hear("helper list");
        read.fails(Status::Failure, &[part]);
        assert!(!read.err.contains(unknown), "{read:?}");
        hear(&create).fails(Status::Failure, &[part, unknown]);
    }
}

#[test]
fn an_answer_is_read_up_to_its_bound_and_waited_for_no_longer() {
    let bounds = Bounds {
        time: Duration::from_millis(50),
        answer: 1 << 20,
    };
    let (silent, stop) = Rude::silent();
    let client = Client::bounded(&silent.socket(), bounds).unwrap();
    let error = client.rules().unwrap_err();
    assert!(error.to_string().contains("within 0.05 seconds"), "{error}");
    let late = matches!(
        error,
        ClientError::NoAnswer {
            fault: ResponseFault::Late(_),
            changes: false
        }
    );
    assert!(late, "{error:?}");
    drop(stop);

    let list = json!({ "conntrack_helpers": some() }).to_string();
    let daemon = Daemon::saying(200, &list);
    let rules = |answer| {
        let bounds = Bounds {
            answer,
            ..Bounds::default()
        };
        Client::bounded(&daemon.socket(), bounds).unwrap().rules()
    };
    assert_eq!(rules(list.len()).unwrap().len(), 4);
    let error = rules(list.len() - 1).unwrap_err().to_string();
    let part = format!("larger than {} bytes", list.len() - 1);
    assert!(error.contains(&part), "{error}");
    let usual = ResponseFault::TooLarge(Bounds::default().answer).to_string();
    assert!(usual.contains("larger than 64 MiB"), "{usual}");
    assert_eq!(Bounds::default().time.as_secs(), 120);
}

/// A daemon that has heard enough says why before it closes, and that is what
/// counts; not that it stopped listening.
#[test]
fn a_refusal_of_a_request_that_is_too_large_is_heard() {
    let said = daemon::refusal("the request is larger than 1 MiB");
    let reply = format!(
        "HTTP/1.1 413 Payload Too Large\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
        said.len()
    );
    let rude = Rude::new(reply.into_bytes());
    let helpers: Vec<_> = (1..=65535)
        .map(|port| format!("{{ protocol = \"tcp\", port = {port}, helper = \"ftp\" }}"))
        .collect();
    let (_folder, file) = rules_file(&format!(
        "[[router]]\nid = \"{A}\"\nhelpers = [ {} ]\n",
        helpers.join(", ")
    ));
    let done = on(None, &rude.socket(), &format!("apply {file}"));
    done.fails(Status::Failure, &["larger than 1 MiB"]);
}

#[test]
fn a_daemon_that_is_not_there_cannot_be_reached() {
    let (folder, file) = rules_file("");
    let socket = folder.path().join("agent.sock");
    let check = |part: &str| {
        for command in [
            "helper list",
            &format!("helper show {A}"),
            &format!("router clear {A}"),
            "status",
            &format!("apply {file}"),
        ] {
            let parts = ["cannot be reached", "agent.sock", part];
            on(None, &socket, command).fails(Status::Unavailable, &parts);
        }
    };
    check("No such file");
    // A socket that nobody listens on any more, and a file that is none.
    drop(UnixListener::bind(&socket).unwrap());
    check("Connection refused");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    check("Connection refused");
}
