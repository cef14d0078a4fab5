//! What a kernel has, or lacks: what the agent does about it, and `doctor` says.

use conntrack_tests::agent::run_to_exit;

use super::*;

/// As of Linux 6.6, by which version this one says that it is: agent and doctor try
/// it.
fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    (next(), next()) >= (Some(6), Some(6))
}

/// What the agent says when it refuses to start.
fn refusal(lab: &Lab, config: &Config, rules: &str) -> String {
    let exit = run_to_exit(lab, config, rules, &[]);
    assert!(exit.code.is_some_and(|code| code > 0), "{exit:?}");
    exit.stderr
}

/// Either half of it is about other kernels: `cargo xtask test --kernel 6.1` has one
/// that has none.
#[test]
fn tcx_or_none() {
    let lab = Lab::new();
    let with = |way: &str| Config::of(&lab).with("attach", format!("{way:?}"));
    let [auto, tcx, filters] = ["auto", "tcx", "clsact"].map(with);
    let found = |config: &Config, result: &str, words: &[&str]| {
        ask_with(&lab, config).assert_found("attach", result, words);
    };
    found(&filters, "ok", &["by tc filters, as configured"]);
    if has_tcx() {
        for config in [auto, tcx] {
            found(&config, "ok", &["by tcx links"]);
        }
        return;
    }
    found(&auto, "ok", &["by tc filters: this kernel has no tcx"]);
    let sentence = "this kernel has no tcx";
    found(&tcx, "wrong", &[sentence, "attach = \\\"auto\\\""]);
    let said = refusal(&lab, &tcx, "");
    assert!(said.contains(sentence), "{said}");
}

/// This configuration on a kernel that lacks a type of helper or of chain. No kernel
/// of the lab's lacks any, so each is asked for one in its place that none of them
/// has: the refusal is the kernel's.
fn lacking(kind: &str, config: Config, lab: &Lab) -> Config {
    let other = format!("s/\"type\":\"{kind}\"/\"type\":\"nonesuch\"/g");
    let script = format!(
        "case \"$*\" in
        *'-f -') sed '{other}' | nft \"$@\"; exit $? ;;
        esac"
    );
    config.with_nft(lab, &script)
}

#[test]
fn without_a_helper() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let lacks = || lacking("sip", Config::of(&lab), &lab);
    let words = ["this kernel lacks sip/udp, sip/tcp:", "allowed_helpers"];
    ask_with(&lab, &lacks()).assert_found("helpers", "warn", &words);
    // Its two remedies: rules that don't want it, and a kernel that has it.
    let unwanted = lacks().with("allowed_helpers", "[\"ftp\", \"tftp\"]");
    ask_with(&lab, &unwanted).assert_ok("helpers");
    ask(&lab).assert_ok("helpers");

    let wants_it = router.rules_file(&[Rule::sip(5060)]);
    let said = refusal(&lab, &lacks(), &wants_it);
    assert!(said.contains("this kernel has no helper sip/udp"), "{said}");
    let _without_it = Agent::start_with(&lab, &lacks(), &rules(&router));
    ask_with(&lab, &lacks()).assert_ok("carrier");
}

#[test]
fn without_nat_chains() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    nat(router.netns());
    let lacks = || lacking("nat", Config::of(&lab), &lab);
    let by_priority = lacks().with("carrier", "\"priority\"");
    let sentence = "this kernel has no nftables nat chains";
    let words = [sentence, "carrier = \\\"auto\\\""];
    ask_with(&lab, &by_priority).assert_found("carrier", "wrong", &words);
    let said = refusal(&lab, &by_priority, &rules(&router));
    assert!(said.contains(sentence), "{said}");

    // By itself the agent takes what there is, on a router with NAT too.
    let _agent = Agent::start_with(&lab, &lacks(), &rules(&router));
    let words = ["mark: this kernel has no nat chains of nftables"];
    ask_with(&lab, &lacks()).assert_found("carrier", "ok", &words);
}
