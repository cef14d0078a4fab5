//! What the agent needs of the machine.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;

#[test]
fn without_nft() {
    let lab = Lab::new();
    let without = Config::of(&lab).with("nft", "\"/nonexistent/nft\"");
    let said = ask_with(&lab, &without);
    said.assert_found(
        "nft",
        "wrong",
        &["/nonexistent/nft", "install the nftables package"],
    );
    said.assert_found("helpers", "unknown", &["not without nft"]);
    said.assert_found("carrier", "unknown", &["nft"]);
    let said = ask(&lab);
    for check in ["nft", "helpers"] {
        said.assert_ok(check);
    }
}

/// As where it was built without, and the kernel has all that it takes.
#[test]
fn an_nft_without_json() {
    let lab = Lab::new();
    let script =
        "case \"$*\" in -j*) echo 'Error: JSON support not compiled-in' >&2; exit 1 ;; esac";
    let without = Config::of(&lab).with_nft(&lab, script);
    let said = ask_with(&lab, &without);
    said.assert_found("helpers", "wrong", &["not compiled-in", "nft -V"]);
    ask(&lab).assert_ok("helpers");
}

#[test]
fn without_a_capability() {
    for capability in ["BPF", "NET_ADMIN", "SYS_ADMIN"] {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let set = format!("--bounding-set=-{}", capability.to_lowercase());
        let said = ask_through(&lab, &Config::of(&lab), &["setpriv", &set]);
        let name = format!("CAP_{capability}");
        said.assert_found("capabilities", "wrong", &[&name]);
        // What can't be asked without it is neither well nor wrong. In the place of
        // CAP_BPF the kernel takes CAP_SYS_ADMIN (`bpf_capable`), so all else
        // can be asked.
        let unasked: &[&str] = match capability {
            "NET_ADMIN" => &["helpers", "marks", "limits"],
            "SYS_ADMIN" => &["helpers", "attach"],
            _ => &[],
        };
        for check in unasked {
            let results = said.results(check);
            assert!(results.contains(&"unknown"), "{check}: {said:?}");
            assert!(!results.contains(&"wrong"), "{check}: {said:?}");
        }
        if unasked.is_empty() {
            assert!(!said.results("attach").contains(&"unknown"), "{said:?}");
            said.assert_ok("helpers");
        }
        let said = ask(&lab);
        for check in unasked.iter().chain(&["capabilities"]) {
            said.assert_ok(check);
        }
        drop(router);
    }
}

#[test]
fn without_a_bpffs() {
    let lab = Lab::without_bpffs();
    let said = ask(&lab);
    said.assert_found("bpffs", "warn", &["mount -t bpf"]);
    // One that can't be mounted.
    fs::write(lab.dir().bpf_dir().join("file"), "").expect("a file");
    ask(&lab).assert_found("bpffs", "wrong", &["mount -t bpf"]);
    fs::remove_file(lab.dir().bpf_dir().join("file")).expect("no file");
    // As the remedy says it.
    let remedy = said.of("bpffs").next().map(|finding| &finding["remedy"]);
    let remedy = remedy.and_then(Value::as_str).expect("a remedy");
    let mounted = Command::new("sh").args(["-c", remedy]).status();
    assert!(mounted.expect("mount").success());
    ask(&lab).assert_ok("bpffs");
    let mode = fs::metadata(lab.dir().bpf_dir())
        .expect("the folder")
        .mode();
    assert_eq!(mode & 0o777, 0o700, "as the agent mounts it");
}

/// `doctor` as on a machine whose `file` says `text`. What is the machine's stays as
/// it is.
fn ask_where(lab: &Lab, file: &str, text: &str) -> Diagnosis {
    let other = lab.dir().path().join(format!("file-{}", Uuid::new_v4()));
    fs::write(&other, text).expect("a file");
    ask_beneath(lab, &other, file)
}

/// `doctor` in a mount namespace of its own, where something else lies over a file or
/// a folder.
fn ask_beneath(lab: &Lab, other: &Path, place: &str) -> Diagnosis {
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let launcher = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        script,
        other.to_str().expect("text"),
        place,
    ];
    ask_through(lab, &Config::of(lab), &launcher)
}

#[test]
fn what_is_unsafe_on_the_whole_machine() {
    let fixture = Fixture::new();
    let lab = &fixture.lab;
    let sip = "/sys/module/nf_conntrack_sip/parameters";
    let cases = [
        (
            "parameters",
            "/sys/module/nf_conntrack_ftp/parameters/loose".to_owned(),
            ["Y\n", "N\n"],
            ["nf_conntrack_ftp", "loose"],
        ),
        (
            "parameters",
            format!("{sip}/sip_direct_signalling"),
            ["0\n", "1\n"],
            ["nf_conntrack_sip", "sip_direct_signalling"],
        ),
        (
            "parameters",
            format!("{sip}/sip_direct_media"),
            ["0\n", "1\n"],
            ["nf_conntrack_sip", "sip_direct_media"],
        ),
        (
            "parameters",
            "/sys/module/nf_conntrack_h323/parameters/gkrouted_only".to_owned(),
            ["0\n", "1\n"],
            ["nf_conntrack_h323", "gkrouted_only"],
        ),
        (
            "bpf-jit",
            "/proc/sys/net/core/bpf_jit_enable".to_owned(),
            ["0\n", "1\n"],
            ["bpf_jit_enable", "sysctl"],
        ),
        (
            "kernel",
            "/proc/sys/kernel/osrelease".to_owned(),
            ["5.15.0-91-generic\n", "6.12.0\n"],
            ["5.15", "6.1"],
        ),
    ];
    for (check, file, [unsafe_text, safe_text], words) in &cases {
        ask_where(lab, file, unsafe_text).assert_found(check, "warn", words);
        ask_where(lab, file, safe_text).assert_ok(check);
    }
}

/// As kernels before 6.0 have it, whose sysctls these are then.
#[test]
fn helpers_that_the_kernel_gives_by_itself() {
    let fixture = Fixture::new();
    let lab = &fixture.lab;
    let with = |value: &str| {
        let folder = lab.dir().path().join(format!("net-{}", Uuid::new_v4()));
        fs::create_dir_all(folder.join("netfilter")).expect("a folder");
        fs::write(folder.join("netfilter/nf_conntrack_helper"), value).expect("a sysctl");
        ask_beneath(lab, &folder, "/proc/sys/net")
    };
    let name = fixture.netns().name();
    let words = [name.as_str(), "net.netfilter.nf_conntrack_helper=0"];
    with("1\n").assert_found("automatic-helpers", "warn", &words);
    with("0\n").assert_ok("automatic-helpers");
    fixture.ask().assert_ok("automatic-helpers");
}
