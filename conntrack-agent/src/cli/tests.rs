//! The commands as a shell sees them, against daemons good and bad.

mod contract;
mod daemon;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use axum::http::Method;
use clap::CommandFactory as _;
use serde_json::{Value, json};

use self::{
    contract::{A, B, id, rule, with},
    daemon::{Daemon, Rude},
};
use super::{Cli, Status, run, terminal::Terminal};
use crate::{
    client::{Bounds, Client, ClientError, ResponseFault},
    kernel::Build,
};

/// What a command left behind.
#[derive(Debug)]
struct Done {
    status: Status,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!((self.status, &*self.err), (Status::Success, ""));
        assert!(self.out.ends_with('\n'), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn lines(&self) -> Vec<&str> {
        assert_eq!((self.status, &*self.err), (Status::Success, ""));
        self.out.lines().collect()
    }

    /// A failure: nothing on stdout, one sentence on stderr, with these parts.
    #[track_caller]
    fn fails(&self, status: Status, parts: &[&str]) {
        assert_eq!((self.status, &*self.out), (status, ""), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{self:?} lacks {part}");
        }
        if status != Status::Usage {
            assert!(self.err.starts_with("conntrack-agent: "), "{self:?}");
        }
    }
}

fn on(terminal: Option<Terminal>, socket: &Path, arguments: &[&str]) -> Done {
    let program = [OsString::from("conntrack-agent")];
    let global = [OsString::from("--socket"), socket.into()];
    let arguments = program
        .into_iter()
        .chain(arguments.iter().map(OsString::from))
        .chain(global);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&Build::built_in(), arguments, &mut out, terminal, &mut err);
    Done {
        status,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

fn ask(daemon: &Daemon, arguments: &[&str]) -> Done {
    on(None, &daemon.socket(), arguments)
}

/// Against nobody; what gets as far as asking exits 69.
fn alone(arguments: &[&str]) -> Done {
    on(None, Path::new("/nonexistent/agent.sock"), arguments)
}

/// Four rules on two routers, in no order.
fn some() -> Vec<Value> {
    let shadowed = with(rule(4, A, "tcp", 21, "sane"), "status", "shadowed");
    vec![
        rule(3, B, "udp", 69, "tftp"),
        with(rule(2, A, "udp", 69, "tftp"), "origin", "file"),
        with(shadowed, "status_reason", "rule 1 is older"),
        rule(1, A, "tcp", 21, "ftp"),
    ]
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_rule_is_created_as_asked() {
    let daemon = contract::daemon(Vec::new());
    let create = [
        "helper",
        "create",
        "--router",
        A,
        "--protocol",
        "tcp",
        "--port",
        "1720",
        "--helper",
        "h323",
    ];
    let made = ask(
        &daemon,
        &[&create[..], &["-o", "json", "--id", &id(5)]].concat(),
    )
    .json();
    assert_eq!(made, rule(5, A, "tcp", 1720, "h323"));
    ask(&daemon, &create).lines();
    let path = format!("/v2.0/routers/{A}/conntrack_helpers");
    let body = json!({"protocol": "tcp", "port": 1720, "helper": "h323"});
    let mut named = body.clone();
    named["id"] = id(5).into();
    assert_eq!(
        daemon.asked(),
        [
            (
                Method::POST,
                path.clone(),
                json!({ "conntrack_helper": named })
            ),
            (Method::POST, path, json!({ "conntrack_helper": body })),
        ]
    );
}

#[test]
fn rules_are_listed_in_order_all_or_of_a_router() {
    let daemon = contract::daemon(some());
    let ids = |done: &Done| -> Vec<_> {
        let rules = done.json();
        let rules = rules.as_array().unwrap().iter();
        rules
            .map(|rule| rule["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ask(&daemon, &["helper", "list", "-o", "json"]);
    assert_eq!(ids(&all), [id(1), id(4), id(2), id(3)]);
    let of_a = ask(&daemon, &["-o", "json", "helper", "list", "--router", A]);
    assert_eq!(ids(&of_a), [id(1), id(4), id(2)]);
    assert_eq!(all.json()[1], some()[2], "the resource as it is");
    // The order of the fields is the API's, whatever order they came in.
    assert!(
        all.out.find("\"id\"") < all.out.find("\"router_id\""),
        "{}",
        all.out
    );
    assert!(
        all.out.find("\"router_id\"") < all.out.find("\"protocol\""),
        "{}",
        all.out
    );

    let table = ask(&daemon, &["helper", "list"]);
    let lines = table.lines();
    assert_eq!(lines.len(), 5, "{table:?}");
    assert!(lines[0].starts_with("ROUTER "), "{table:?}");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(words, [A, &id(1), "tcp/21", "ftp", "api", "active", "-"]);
    assert!(lines[2].ends_with("shadowed  rule 1 is older"), "{table:?}");

    let empty = contract::daemon(Vec::new());
    assert_eq!(ask(&empty, &["helper", "list", "-o", "json"]).out, "[]\n");
    assert_eq!(
        ask(&empty, &["helper", "list"]).lines().len(),
        1,
        "the header"
    );
}

#[test]
fn fields_of_a_newer_daemon_are_kept() {
    let newer = with(rule(1, A, "tcp", 21, "ftp"), "colour", "green");
    let daemon = contract::daemon(vec![newer.clone()]);
    assert_eq!(
        ask(&daemon, &["helper", "show", &id(1), "-o", "json"]).json(),
        newer
    );
}

#[test]
fn a_rule_is_shown_set_and_deleted_by_its_id_alone() {
    let daemon = contract::daemon(some());
    let shown = ask(&daemon, &["helper", "show", &id(4)]);
    let lines = shown.lines();
    assert!(lines.contains(&&*format!("router    {A}")), "{shown:?}");
    assert!(lines.contains(&"reason    rule 1 is older"), "{shown:?}");

    let set = ask(
        &daemon,
        &["helper", "set", &id(3), "--port", "6969", "-o", "json"],
    )
    .json();
    assert_eq!(set, rule(3, B, "udp", 6969, "tftp"));
    let path = format!("/v2.0/routers/{B}/conntrack_helpers/{}", id(3));
    let body = json!({ "conntrack_helper": {"port": 6969} });
    assert_eq!(
        daemon.asked().pop(),
        Some((Method::PUT, path.clone(), body))
    );

    let gone = ask(&daemon, &["helper", "delete", &id(3)]);
    assert_eq!(
        gone.lines(),
        [format!(
            "rule {} is gone; router {B}: tftp on udp port 6969",
            id(3)
        )]
    );
    assert_eq!(
        daemon.asked().pop(),
        Some((Method::DELETE, path, Value::Null))
    );
    let third = id(3);
    for verb in [&["show"][..], &["delete"], &["set", "--port", "1"]] {
        let again = [&["helper"], verb, &[&*third]].concat();
        ask(&daemon, &again).fails(Status::Failure, &[&format!("there is no rule {}\n", id(3))]);
        assert_eq!(
            daemon.asked().pop().unwrap().0,
            Method::GET,
            "nothing else is tried"
        );
    }
    let gone = ask(&daemon, &["helper", "delete", &id(1), "-o", "json"]).json();
    assert_eq!(gone, rule(1, A, "tcp", 21, "ftp"));
}

#[test]
fn another_rule_than_the_one_asked_for_is_not_touched() {
    let others = json!({ "conntrack_helpers": some() }).to_string();
    let daemon = Daemon::saying(200, &others);
    ask(&daemon, &["helper", "delete", &id(9)]).fails(Status::Failure, &["no rule"]);
    assert_eq!(daemon.asked().len(), 1);
}

#[test]
fn routers_are_listed_shown_and_cleared_of_the_apis_rules() {
    let daemon = contract::daemon(some());
    let list = ask(&daemon, &["router", "list"]);
    let ids: Vec<_> = list.lines()[1..].iter().map(|line| &line[..36]).collect();
    assert_eq!(ids, [A, B]);
    assert_eq!(
        ask(&daemon, &["router", "show", A, "-o", "json"]).json()["rules"],
        3
    );
    let shown = ask(&daemon, &["router", "show", A]);
    assert!(
        shown
            .lines()
            .iter()
            .any(|line| line.trim() == format!("snat-{A}")),
        "{shown:?}"
    );

    let cleared = ask(&daemon, &["router", "clear", A]);
    assert_eq!(cleared.lines(), [format!("router {A}: 2 rules are gone")]);
    let cleared = ask(&daemon, &["router", "clear", A]);
    assert_eq!(
        cleared.lines(),
        [format!("router {A} had no rules of the API")]
    );
    let cleared = ask(&daemon, &["router", "clear", B, "-o", "json"]).json();
    assert_eq!(cleared, json!([rule(3, B, "udp", 69, "tftp")]));
    let left = ask(&daemon, &["helper", "list", "-o", "json"]).json();
    assert_eq!(left, json!([some()[1]]), "the file's rule stays");

    let unknown = id(1);
    for verb in ["show", "clear"] {
        ask(&daemon, &["router", verb, &unknown]).fails(Status::Failure, &["no router", &unknown]);
    }
}

#[test]
fn a_file_is_applied_or_compared() {
    let daemon = contract::daemon(some());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let rules = format!(
        "[[router]]\nid = \"{A}\"\nhelpers = [ {{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}, \
         {{ protocol = \"udp\", port = 1719, helper = \"h323\" }} ]\n\
         [[router]]\nid = \"{B}\"\nhelpers = []\n"
    );
    fs::write(&file, rules).unwrap();
    let file = file.to_str().unwrap();
    let lines = [
        format!("- router {A}: sane on tcp port 21"),
        format!("+ router {A}: RAS on udp port 1719"),
        format!("- router {B}: tftp on udp port 69"),
    ];
    let with_end = |end: &str| [&lines[..], &[end.to_owned()]].concat();
    let list = || ask(&daemon, &["helper", "list", "-o", "json"]).json();

    let before = list();
    let compared = ask(&daemon, &["apply", file, "--dry-run"]);
    assert_eq!(
        compared.lines(),
        with_end("1 to add, 2 to remove, 1 unchanged")
    );
    assert_eq!(list(), before);
    let applied = ask(&daemon, &["apply", file]);
    assert_eq!(applied.lines(), with_end("1 added, 2 removed, 1 unchanged"));
    assert_ne!(list(), before);
    let again = ask(&daemon, &["apply", file]);
    assert_eq!(again.lines(), ["0 added, 0 removed, 2 unchanged"]);
    let again = ask(&daemon, &["apply", file, "-o", "json"]).json();
    assert_eq!(again, json!({"added": [], "removed": [], "unchanged": 2}));
    let (method, path, body) = daemon.asked().pop().unwrap();
    assert_eq!((method, &*path), (Method::PUT, "/v1/conntrack_helpers"));
    let sent = json!({ "routers": [{ "id": A, "conntrack_helpers": [
        {"protocol": "tcp", "port": 21, "helper": "ftp"},
        {"protocol": "udp", "port": 1719, "helper": "RAS"},
    ]}]});
    assert_eq!(body, sent);
}

#[test]
fn a_faulty_file_is_refused_with_every_fault_before_anybody_is_asked() {
    let daemon = contract::daemon(some());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    fs::write(
        &file,
        "[[router]]\nid = \"x\"\nhelpers = [ { port = 0 } ]\n",
    )
    .unwrap();
    let refused = ask(&daemon, &["apply", file.to_str().unwrap()]);
    refused.fails(
        Status::Configuration,
        &["line 2", "line 3", "1 to 65535", "protocol is missing"],
    );
    let missing = folder.path().join("none.toml");
    let refused = ask(&daemon, &["apply", missing.to_str().unwrap()]);
    refused.fails(Status::Configuration, &["none.toml", "cannot be read"]);
    assert_eq!(daemon.asked(), []);
    // An empty file is a good one.
    fs::write(&file, "").unwrap();
    let emptied = ask(&daemon, &["apply", file.to_str().unwrap()]);
    assert_eq!(
        emptied.lines().last(),
        Some(&"0 added, 3 removed, 0 unchanged")
    );
}

#[test]
fn status_is_a_few_lines_or_the_resource() {
    let daemon = contract::daemon(Vec::new());
    let said = ask(&daemon, &["status"]);
    assert_eq!(
        said.lines(),
        [
            "NEEDS A LOOK: 1 router failed".to_owned(),
            "rules: 4 (1 active, 1 pending, 1 shadowed, 1 failed)".to_owned(),
            "routers: 3 (1 active, 1 pending, 1 failed)".to_owned(),
            format!(
                "conntrack-agent 0.1.0, pid 42, up 1h 2m 5s, agent {}",
                id(7)
            ),
            format!("router {B} failed 3 times: no nft"),
        ]
    );
    let mut status = contract::status();
    status["rules"] = json!({
        "total": 3, "active": 1, "degraded": 2, "pending": 0, "shadowed": 0, "failed": 0
    });
    status["routers"] = json!({ "total": 1, "active": 1, "pending": 0, "failed": 0 });
    status["connections"] = json!({ "helped": 7, "lacking": 2, "unknown": 1 });
    status["troubles"] = json!([]);
    let degraded = ask(&Daemon::saying(200, &status.to_string()), &["status"]);
    assert_eq!(
        degraded.lines()[..4],
        [
            "NEEDS A LOOK: 2 rules degraded",
            "rules: 3 (1 active, 2 degraded)",
            "routers: 1 (1 active)",
            "connections: 7 with their helper, 2 without, 1 unknown",
        ]
    );
    status["rules"]["degraded"] = 0.into();
    let well = ask(&Daemon::saying(200, &status.to_string()), &["status"]);
    assert_eq!(well.lines()[0], "all is well");
    let resource = ask(&daemon, &["status", "-o", "json"]).json();
    assert_eq!(resource["troubles"][0]["failures"], 3);
    assert_eq!(resource["uptime_seconds"], 3725);
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
        let done = ask(&daemon, &["helper", "list"]);
        done.fails(status, &[]);
        assert_eq!(
            done.err, "conntrack-agent: rule 1 of [[access]] refuses\n",
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
        ask(&daemon, &["status"]).fails(Status::Failure, &["502 Bad Gateway", "no reason"]);
        let daemon = Daemon::saying(403, body);
        ask(&daemon, &["status"]).fails(Status::NotPermitted, &["403 Forbidden"]);
    }
    // Neither success nor failure, and a message that goes with neither.
    let daemon = Daemon::refusing(302, "over there");
    ask(&daemon, &["status"]).fails(Status::Failure, &["302 Found"]);
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
        ask(&daemon, &["helper", "list"]).fails(Status::Failure, &["not understood"]);
    }
    // An id that is none, which must not become part of a path.
    let bad = with(rule(1, A, "tcp", 21, "ftp"), "router_id", "../../x");
    let daemon = Daemon::saying(200, &json!({ "conntrack_helpers": [bad] }).to_string());
    ask(&daemon, &["helper", "delete", &id(1)]).fails(Status::Failure, &["not understood"]);
    assert_eq!(daemon.asked().len(), 1);
}

#[test]
fn what_is_no_whole_answer_is_said_in_a_sentence() {
    let create = [
        "helper",
        "create",
        "--router",
        A,
        "--protocol",
        "tcp",
        "--port",
        "21",
        "--helper",
        "ftp",
    ];
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
        let read = on(
            None,
            &Rude::new(bytes.to_vec()).socket(),
            &["helper", "list"],
        );
        read.fails(Status::Failure, &[part]);
        assert!(!read.err.contains(unknown), "{read:?}");
        let written = on(None, &Rude::new(bytes.to_vec()).socket(), &create);
        written.fails(Status::Failure, &[part, unknown]);
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
    let bounds = |answer| Bounds {
        answer,
        ..Bounds::default()
    };
    let fits = Client::bounded(&daemon.socket(), bounds(list.len())).unwrap();
    assert_eq!(fits.rules().unwrap().len(), 4);
    let short = Client::bounded(&daemon.socket(), bounds(list.len() - 1)).unwrap();
    let error = short.rules().unwrap_err().to_string();
    assert!(
        error.contains(&format!("larger than {} bytes", list.len() - 1)),
        "{error}"
    );
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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let helpers: Vec<_> = (1..=65535)
        .map(|port| format!("{{ protocol = \"tcp\", port = {port}, helper = \"ftp\" }}"))
        .collect();
    let rules = format!(
        "[[router]]\nid = \"{A}\"\nhelpers = [ {} ]\n",
        helpers.join(", ")
    );
    fs::write(&file, rules).unwrap();
    let done = on(None, &rude.socket(), &["apply", file.to_str().unwrap()]);
    done.fails(Status::Failure, &["larger than 1 MiB"]);
}

#[test]
fn a_daemon_that_is_not_there_cannot_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let file = folder.path().join("rules.toml");
    fs::write(&file, "").unwrap();
    let all = [
        &["helper", "list"][..],
        &["helper", "show", A],
        &["router", "clear", A],
        &["status"],
        &["apply", file.to_str().unwrap()],
    ];
    let check = |part: &str| {
        for arguments in all {
            on(None, &socket, arguments).fails(
                Status::Unavailable,
                &["cannot be reached", "agent.sock", part],
            );
        }
    };
    check("No such file");
    // A socket that nobody listens on any more, and a file that is none.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    check("Connection refused");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    check("Connection refused");
}

#[test]
fn bad_arguments_are_usage_errors_and_nobody_is_asked() {
    let create = |router: &str, protocol: &str, port: &str, helper: &str| {
        let router = format!("--router={router}");
        let (protocol, port) = (format!("--protocol={protocol}"), format!("--port={port}"));
        let helper = format!("--helper={helper}");
        alone(&["helper", "create", &router, &protocol, &port, &helper])
    };
    create(A, "tcp", "21", "ftp").fails(Status::Unavailable, &[]);
    create("xyz", "tcp", "21", "ftp").fails(Status::Usage, &["\"xyz\" is not a router id", "UUID"]);
    create(A, "sctp", "21", "ftp").fails(Status::Usage, &["\"sctp\"", "\"udp\" are allowed"]);
    create(A, "tcp", "0", "ftp").fails(Status::Usage, &["port 0 is out of range; 1 to 65535"]);
    create(A, "tcp", "65536", "ftp").fails(Status::Usage, &["port 65536", "1 to 65535"]);
    create(A, "tcp", "-1", "ftp").fails(Status::Usage, &["port -1", "1 to 65535"]);
    create(A, "tcp", "ftp", "ftp").fails(Status::Usage, &["\"ftp\"", "1 to 65535"]);
    create(A, "tcp", "21", "gopher").fails(Status::Usage, &["\"gopher\"", "tftp"]);
    create(A, "udp", "21", "ftp").fails(Status::Usage, &["ftp", "it is for tcp"]);

    let set = |arguments: &[&str]| alone(&[&["helper", "set", A], arguments].concat());
    set(&["--port", "22"]).fails(Status::Unavailable, &[]);
    set(&["--helper", "h323", "--protocol", "udp"]).fails(Status::Unavailable, &[]);
    set(&[]).fails(Status::Usage, &["--protocol", "--port", "--helper"]);
    set(&["--port", "-1"]).fails(Status::Usage, &["port -1"]);
    set(&["--helper", "ftp", "--protocol", "udp"]).fails(Status::Usage, &["it is for tcp"]);

    alone(&["helper", "show", "x"]).fails(Status::Usage, &["\"x\" is not a rule id"]);
    alone(&["router", "clear", ""]).fails(Status::Usage, &["not a router id"]);
    alone(&["helper", "list", "-o", "xml"]).fails(Status::Usage, &["xml", "json"]);
    alone(&["helper"]).fails(Status::Usage, &["create"]);
    alone(&["completions", "csh"]).fails(Status::Usage, &["csh", "fish"]);
}

#[test]
fn help_and_version_are_data() {
    assert!(
        alone(&["--help"])
            .lines()
            .iter()
            .any(|line| line.contains("cleanup"))
    );
    let version = alone(&["--version"]);
    assert_eq!(
        version.lines(),
        [format!("conntrack-agent {}", env!("CARGO_PKG_VERSION"))]
    );
}

#[test]
fn completions_have_the_verbs_and_their_values() {
    for shell in ["bash", "zsh", "fish"] {
        let done = alone(&["completions", shell]);
        let script = done.lines().join("\n");
        for word in [
            "run",
            "check-config",
            "cleanup",
            "helper",
            "router",
            "apply",
            "status",
            "completions",
            "create",
            "list",
            "show",
            "set",
            "delete",
            "clear",
            "dry-run",
            "socket",
            "netbios-ns",
        ] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

/// A pipe that nobody reads from any more.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_closed_stdout_is_a_failure_and_a_closed_stderr_no_panic() {
    let daemon = contract::daemon(some());
    let socket = daemon.socket();
    let socket = socket.to_str().unwrap();
    for arguments in [
        &["helper", "list"][..],
        &["helper", "list", "-o", "json"],
        &["helper", "show", &id(1)],
        &["router", "list"],
        &["status"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let arguments = [&["conntrack-agent", "--socket", socket], arguments].concat();
        let arguments = || arguments.iter().map(OsString::from);
        let mut err = Vec::new();
        assert_eq!(
            run(&Build::built_in(), arguments(), &mut Closed, None, &mut err),
            Status::Failure
        );
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("stdout cannot be written"), "{err}");
        assert_eq!(
            run(
                &Build::built_in(),
                arguments(),
                &mut Closed,
                None,
                &mut Closed
            ),
            Status::Failure
        );
    }
}

#[test]
fn nothing_from_elsewhere_reaches_the_terminal_as_a_command() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\r\u{202e}";
    let named = with(
        rule(1, A, "tcp", 21, "ftp"),
        "status_reason",
        &format!("a\nb{evil}"),
    );
    let daemon = contract::daemon(vec![named]);
    let mut said = String::new();
    for width in [None, Some(80)] {
        let terminal = width.map(|width| Terminal {
            width,
            colours: false,
        });
        for arguments in [&["helper", "list"][..], &["helper", "show", &id(1)]] {
            let done = on(terminal, &daemon.socket(), arguments);
            assert!(done.out.contains("\\u{1b}"), "{done:?}");
            said.push_str(&done.out);
        }
    }
    let refused = ask(&Daemon::refusing(400, evil), &["status"]);
    refused.fails(Status::Failure, &["\\u{9b}31m"]);
    said.push_str(&refused.err);
    let active = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(said.chars().find(active), None);
    assert!(!said.contains('\u{202e}'));
}

#[test]
fn a_narrow_terminal_gets_a_table_for_each_router_and_whole_ids() {
    let daemon = contract::daemon(some());
    let terminal = |width| {
        Some(Terminal {
            width,
            colours: false,
        })
    };
    let list = |width| on(terminal(width), &daemon.socket(), &["helper", "list"]);
    let wide = list(200);
    assert_eq!(
        wide.out,
        on(None, &daemon.socket(), &["helper", "list"]).out
    );
    let narrow = list(80);
    let lines = narrow.lines();
    assert_eq!(lines[0], format!("router {A}"));
    assert!(lines[1].starts_with("ID "), "{narrow:?}");
    assert!(lines.contains(&"    reason: rule 1 is older"), "{narrow:?}");
    assert!(lines.contains(&&*format!("router {B}")), "{narrow:?}");
    assert!(lines.iter().all(|line| line.len() <= 80), "{narrow:?}");
    for width in 0..200 {
        let list = list(width).out;
        assert!(
            (1..=4).all(|number| list.contains(&id(number))),
            "{width}: {list}"
        );
        let routers = on(terminal(width), &daemon.socket(), &["router", "list"]).out;
        assert!(routers.contains(&format!("snat-{A}")), "{width}: {routers}");
        let shown = on(terminal(width), &daemon.socket(), &["router", "show", B]).out;
        assert!(shown.contains(&format!("qrouter-{B}")), "{width}: {shown}");
    }
}
