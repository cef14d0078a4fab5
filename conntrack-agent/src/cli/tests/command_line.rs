//! Arguments, help and completions: what needs no daemon.

use clap::CommandFactory as _;

use super::{A, Cli, Status, alone};

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn bad_arguments_are_usage_errors_and_nobody_is_asked() {
    let helper = format!("helper set {A}");
    for good in [
        format!("helper create --router={A} --protocol=tcp --port=21 --helper=ftp"),
        format!("{helper} --port 22"),
        format!("{helper} --helper h323 --protocol udp"),
    ] {
        alone(&good).fails(Status::Unavailable, &[]);
    }
    let created: [(_, &[&str]); _] = [
        ("xyz tcp 21 ftp", &["\"xyz\" is not a router id", "UUID"]),
        ("A sctp 21 ftp", &["\"sctp\"", "\"udp\" are allowed"]),
        ("A tcp 0 ftp", &["port 0 is out of range; 1 to 65535"]),
        ("A tcp 65536 ftp", &["port 65536", "1 to 65535"]),
        ("A tcp -1 ftp", &["port -1", "1 to 65535"]),
        ("A tcp ftp ftp", &["\"ftp\"", "1 to 65535"]),
        ("A tcp 21 gopher", &["\"gopher\"", "tftp"]),
        ("A udp 21 ftp", &["ftp", "it is for tcp"]),
    ];
    for (values, parts) in created {
        let values = values.replace('A', A);
        let options = ["--router", "--protocol", "--port", "--helper"].into_iter();
        let pairs = options
            .zip(values.split(' '))
            .map(|(key, value)| format!(" {key}={value}"));
        alone(&format!("helper create{}", pairs.collect::<String>())).fails(Status::Usage, parts);
    }
    let others: [(_, &[&str]); _] = [
        (&*helper, &["--protocol", "--port", "--helper"]),
        (&format!("{helper} --port -1"), &["port -1"]),
        (
            &format!("{helper} --helper ftp --protocol udp"),
            &["it is for tcp"],
        ),
        ("helper show x", &["\"x\" is not a rule id"]),
        ("router clear ", &["not a router id"]),
        ("helper list -o xml", &["xml", "json"]),
        ("helper", &["create"]),
        ("completions csh", &["csh", "fish"]),
    ];
    for (command, parts) in others {
        alone(command).fails(Status::Usage, parts);
    }
}

#[test]
fn help_and_version_are_data() {
    let help = alone("--help");
    assert!(
        help.lines().iter().any(|line| line.contains("cleanup")),
        "{help:?}"
    );
    let version = format!("conntrack-agent {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(alone("--version").lines(), [version]);
}

#[test]
fn completions_have_the_verbs_and_their_values() {
    let words = "run check-config cleanup helper router apply status completions create list show \
                 set delete clear dry-run socket netbios-ns";
    for shell in ["bash", "zsh", "fish"] {
        let done = alone(&format!("completions {shell}"));
        let script = done.lines().join("\n");
        for word in words.split(' ') {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}
