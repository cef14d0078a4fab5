//! The table of programs that tests, demo and benchmarks run.

/// A program that something in the lab runs, by the name that it is run by.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The Debian package that installs it.
    pub(crate) package: &'static str,
    /// Whether the guests of `cargo xtask test --kernel` have it too. Their core
    /// suite needs no more, and a guest holds all of its files in memory.
    pub(crate) in_guest: bool,
}

/// The Python that makes virtual environments, which is more than a program: Debian
/// has `venv` in a package of its own, and leaves `ensurepip` out of the
/// interpreter's.
pub(crate) const PYTHON: &str = "python3";

/// All of them. Nothing else is on the PATH of tests, demo and benchmarks, so what is
/// missing here fails on every machine, not only on one without the program.
pub(crate) const PROGRAMS: &[Program] = &[
    guest("bpftool", "bpftool"),
    guest("capsh", "libcap2-bin"),
    guest("cat", "coreutils"),
    guest("conntrack", "conntrack"),
    guest("curl", "curl"),
    guest("env", "coreutils"),
    guest("false", "coreutils"),
    guest("faketime", "faketime"),
    guest("in.tftpd", "tftpd-hpa"),
    guest("ip", "iproute2"),
    guest("ip6tables", "iptables"),
    guest("ip6tables-restore", "iptables"),
    guest("ip6tables-save", "iptables"),
    guest("iptables", "iptables"),
    guest("iptables-restore", "iptables"),
    guest("iptables-save", "iptables"),
    guest("mount", "mount"),
    guest("nft", "nftables"),
    guest("nsenter", "util-linux"),
    guest("prlimit", "util-linux"),
    guest("rm", "coreutils"),
    guest("setpriv", "util-linux"),
    guest("sh", "dash"),
    guest("sipp", "sip-tester"),
    guest("sleep", "coreutils"),
    guest("stat", "coreutils"),
    guest("tc", "iproute2"),
    guest("tftp", "tftp-hpa"),
    guest("touch", "coreutils"),
    guest("true", "coreutils"),
    guest("umount", "mount"),
    guest("vsftpd", "vsftpd"),
    host("chrt", "util-linux"),
    host("date", "coreutils"),
    host("git", "git"),
    host("ip6tables-legacy", "iptables"),
    host("ip6tables-legacy-restore", "iptables"),
    host("ip6tables-legacy-save", "iptables"),
    host("ip6tables-nft", "iptables"),
    host("ip6tables-nft-restore", "iptables"),
    host("ip6tables-nft-save", "iptables"),
    host("iptables-legacy", "iptables"),
    host("iptables-legacy-restore", "iptables"),
    host("iptables-legacy-save", "iptables"),
    host("iptables-nft", "iptables"),
    host("iptables-nft-restore", "iptables"),
    host("iptables-nft-save", "iptables"),
    host("objcopy", "binutils"),
    host("ping", "iputils-ping"),
    host("promtool", "prometheus"),
    host(PYTHON, "python3-venv"),
    host("sed", "sed"),
    host("seq", "coreutils"),
    host("tmux", "tmux"),
    host("unshare", "util-linux"),
];

const fn guest(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        in_guest: true,
    }
}

const fn host(name: &'static str, package: &'static str) -> Program {
    Program {
        in_guest: false,
        ..guest(name, package)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_stands_once() {
        let names: BTreeSet<_> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
    }
}
