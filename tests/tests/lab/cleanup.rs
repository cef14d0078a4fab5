//! What the subcommand that cleans up removes, and what it leaves alone.

use std::fs;

use conntrack_tests::agent::rewrite_config;
use conntrack_tests::ftp_router::FtpRouter;

use crate::adoption::assert_left;

#[test]
fn folders_that_were_not_there_are_gone_after_cleanup_and_after_a_failed_start() {
    let fixture = FtpRouter::new();
    let dir = fixture.lab.dir().path().to_owned();
    let path = |name: &str| format!("{:?}", dir.join(name).to_string_lossy());
    let config = fixture
        .config()
        .with("state_dir", path("made/by/agent/state"))
        .with("runtime_dir", path("made/by/agent/run"));
    let broken = config.clone().with("nft", "\"/bin/false\"");
    let exit = fixture.run_to_exit(&broken);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(!dir.join("made").exists());

    let agent = fixture.start_with(&config);
    assert!(dir.join("made/by/agent/state/mapping.redb").exists());
    assert_eq!(agent.kill().code, None);
    let cleanup = fixture.cleanup();
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    // All but what says who changed what, and cleanup says so.
    assert!(
        cleanup.stdout.contains("the audit trail stays"),
        "{cleanup:?}"
    );
    assert!(!dir.join("made/by/agent/run").exists());
    let state = dir.join("made/by/agent/state");
    let files = fs::read_dir(&state).expect("the state folder");
    let files: Vec<_> = files
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert_eq!(files, ["audit.jsonl"]);
}

#[test]
fn cleanup_leaves_a_running_agent_alone_whatever_else_is_lost() {
    let fixture = FtpRouter::new();
    let _agent = fixture.start();
    let footprint = fixture.lab.dir().state_dir().join("footprint.json");
    fs::remove_file(&footprint).expect("a removed footprint");
    let cleanup = fixture.cleanup();
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    fixture.assert_works();
}

#[test]
fn cleanup_that_cannot_ask_nft_says_so_and_can_be_called_again() {
    let fixture = FtpRouter::new();
    assert_eq!(fixture.start().kill().code, None);
    let script = "echo 'nft: error while loading shared libraries: \
                  libnftables.so.1: No such file or directory' >&2\nexit 127";
    let broken = fixture.config().with_nft(&fixture.lab, script);
    rewrite_config(&fixture.lab, &broken);
    let cleanup = fixture.cleanup();
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    rewrite_config(&fixture.lab, &fixture.config());
    fixture.assert_cleans_up();
    let ruleset = fixture.netns.ruleset();
    assert!(!ruleset.contains("conntrack-agent"), "{ruleset}");
}

#[test]
fn a_moved_bpffs_dir_is_refused_while_the_old_one_is_in_use() {
    let fixture = FtpRouter::new();
    assert_eq!(fixture.start().kill().code, None);
    let other = fixture.lab.dir().bpf_dir().join("other");
    let other = format!("{:?}", other.to_string_lossy());
    let moved = fixture.config().with("bpffs_dir", other);
    let exit = fixture.run_to_exit(&moved);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("bpffs_dir is "), "{exit:?}");
    fixture.assert_works();
    // Cleanup knows where it was, whatever is configured now.
    fixture.assert_cleans_up();
    assert_left(&fixture.netns, fixture.site.router.client_side());
}
