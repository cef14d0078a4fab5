//! What reaches a terminal, and a stdout that is closed.

use std::io::{self, Write};

use super::{A, B, Daemon, Status, Terminal, ask, contract, id, on, rule, run, some, with, words};
use crate::kernel::Build;

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
    for command in [
        "helper list",
        "helper list -o json",
        &format!("helper show {}", id(1)),
        "router list",
        "status",
        "completions bash",
        "--help",
    ] {
        let command = format!("--socket {} {command}", daemon.socket().display());
        let closed = |stderr: &mut dyn Write| {
            let status = run(
                &Build::built_in(),
                words(&command),
                &mut Closed,
                None,
                stderr,
            );
            assert_eq!(status, Status::Failure, "{command}");
        };
        let mut err = Vec::new();
        closed(&mut err);
        let said = String::from_utf8(err).unwrap();
        assert!(said.contains("stdout cannot be written"), "{said}");
        closed(&mut Closed);
    }
}

const fn terminal(width: u16) -> Terminal {
    let colours = false;
    Terminal { width, colours }
}

#[test]
fn nothing_from_elsewhere_reaches_the_terminal_as_a_command() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\r\u{202e}";
    let ftp = rule(1, A, "tcp", 21, "ftp");
    let named = with(ftp, "status_reason", &format!("a\nb{evil}"));
    let daemon = contract::daemon(vec![named]);
    let mut said = String::new();
    for terminal in [None, Some(terminal(80))] {
        for command in ["helper list", &format!("helper show {}", id(1))] {
            let done = on(terminal, &daemon.socket(), command);
            assert!(done.out.contains("\\u{1b}"), "{done:?}");
            said.push_str(&done.out);
        }
    }
    let refused = ask(&Daemon::refusing(400, evil), "status");
    refused.fails(Status::Failure, &["\\u{9b}31m"]);
    said.push_str(&refused.err);
    let active = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(said.chars().find(active), None);
    assert!(!said.contains('\u{202e}'));
}

#[test]
fn a_narrow_terminal_gets_a_table_for_each_router_and_whole_ids() {
    let daemon = contract::daemon(some());
    let ask_in = |width, command: &str| on(Some(terminal(width)), &daemon.socket(), command);
    assert_eq!(
        ask_in(200, "helper list").out,
        ask(&daemon, "helper list").out
    );
    let narrow = ask_in(80, "helper list");
    let lines = narrow.lines();
    assert_eq!(lines[0], format!("router {A}"));
    assert!(lines[1].starts_with("ID "), "{narrow:?}");
    assert!(lines.contains(&"    reason: rule 1 is older"), "{narrow:?}");
    assert!(lines.contains(&&*format!("router {B}")), "{narrow:?}");
    assert!(lines.iter().all(|line| line.len() <= 80), "{narrow:?}");
    for width in 0..200 {
        let has = |command: &str, part: &str| {
            let out = ask_in(width, command).out;
            assert!(out.contains(part), "{width}: {out} lacks {part}");
        };
        let list = ask_in(width, "helper list").out;
        assert!(
            (1..=4).all(|number| list.contains(&id(number))),
            "{width}: {list}"
        );
        has("router list", &format!("snat-{A}"));
        has(&format!("router show {B}"), &format!("qrouter-{B}"));
    }
}
