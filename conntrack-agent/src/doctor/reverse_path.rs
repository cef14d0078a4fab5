//! Checks strict reverse-path filters, which drop a data connection whose packets come in
//! by another interface than the route back uses.

use std::{fs, io};

use super::{Finding, routers::LocalRouter, sys_paths::SysPaths};
use crate::{config::Interfaces, kernel::Netns};

const CHECK: &str = "rp-filter";

/// Entries of `net/ipv4/conf` that are not interfaces.
const ALL: &str = "all";
const DEFAULT: &str = "default";
const LOOPBACK: &str = "lo";

/// Checks the reverse-path filters of the classified interfaces.
pub(super) fn check(
    paths: &SysPaths,
    interfaces: &Interfaces,
    router: &LocalRouter,
) -> Vec<Finding> {
    let check = |netns: &Netns| {
        let strict = super::within(netns, || strict(paths, interfaces));
        judge(strict).at(netns.name())
    };
    router.namespaces.iter().map(check).collect()
}

/// Returns the interfaces whose filter is strict: the greater of the interface's own
/// value and that of `all` counts, and 1 is strict
/// (Documentation/networking/ip-sysctl.rst).
fn strict(paths: &SysPaths, interfaces: &Interfaces) -> io::Result<Vec<String>> {
    let value = |name: &str| paths.number(&format!("net/ipv4/conf/{name}/rp_filter"));
    let all = value(ALL)?;
    let mut strict = Vec::new();
    for entry in fs::read_dir(paths.proc.join("sys/net/ipv4/conf"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if [ALL, DEFAULT, LOOPBACK].contains(&name.as_str()) || !interfaces.has(&name) {
            continue;
        }
        match value(&name) {
            Ok(own) if own.max(all) == 1 => strict.push(name),
            // An interface that is not found was removed since it was listed.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    strict.sort();
    Ok(strict)
}

fn judge(strict: io::Result<Vec<String>>) -> Finding {
    match strict {
        Ok(strict) if strict.is_empty() => Finding::ok(CHECK, "strict on no interface"),
        Ok(strict) => Finding::warn(
            CHECK,
            format!(
                "strict on {}: data connections that come in by another interface than the \
                 way back goes are dropped",
                strict.join(", ")
            ),
            "where there is more than one way, set net.ipv4.conf.INTERFACE.rp_filter=2 \
             (loose) in this namespace, or conf.all's for all",
        ),
        Err(error) => Finding::unknown(CHECK, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, sys_paths::testing::with};

    #[track_caller]
    fn check_values(values: &[(&str, &str)], expected: Option<&[&str]>) {
        let paths: Vec<_> = values
            .iter()
            .map(|(name, value)| (format!("proc/sys/net/ipv4/conf/{name}/rp_filter"), *value))
            .collect();
        let files: Vec<_> = paths
            .iter()
            .map(|(path, value)| (path.as_str(), *value))
            .collect();
        let (paths, _folder) = with(&files);
        let patterns = ["qr-*".to_owned(), "qg-*".to_owned()];
        let found = strict(&paths, &Interfaces::matching(&patterns).unwrap());
        assert_eq!(
            found.as_deref().ok(),
            expected
                .map(|names| {
                    names
                        .iter()
                        .map(|&name| name.to_owned())
                        .collect::<Vec<_>>()
                })
                .as_deref(),
            "{values:?}"
        );
        let verdict = match expected {
            None => Verdict::Unknown,
            Some([]) => Verdict::Ok,
            Some(_) => Verdict::Warn,
        };
        assert_eq!(judge(found).result, verdict);
    }

    #[test]
    fn the_greater_value_counts_and_one_is_strict() {
        check_values(&[("all", "0"), ("qr-1", "0"), ("lo", "1")], Some(&[]));
        check_values(
            &[("all", "0"), ("qr-1", "1"), ("qg-1", "2")],
            Some(&["qr-1"]),
        );
        check_values(
            &[("all", "1"), ("qr-1", "0"), ("qg-1", "0")],
            Some(&["qg-1", "qr-1"]),
        );
        check_values(&[("all", "1"), ("qr-1", "2")], Some(&[]));
        check_values(&[("all", "2"), ("qr-1", "1")], Some(&[]));
        check_values(&[("all", "1"), ("tap1", "1"), ("default", "1")], Some(&[]));
        check_values(&[("all", "x"), ("qr-1", "1")], None);
        check_values(&[("qr-1", "1")], None);
    }
}
