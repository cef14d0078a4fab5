//! Whether a network namespace translates IPv4 addresses.

use std::{fs, io};

use super::{
    Reading,
    message::{Answer, Kind, NAME_OF_TYPE, Part, TABLE, answers, request_of_all_families},
};

/// What legacy iptables has in the namespace, a table a line
/// (`xt_table_seq_ops`, `net/netfilter/x_tables.c`).
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// How often it is asked again where the ruleset changes meanwhile: there is no
/// other way to tell.
const ATTEMPTS: usize = 20;

/// `NFPROTO_INET` and `NFPROTO_IPV4`, include/uapi/linux/netfilter.h.
const FAMILIES: [u8; 2] = [1, 2];

/// Whether the calling thread's network namespace has NAT for IPv4: a nat chain
/// in a table whose name does not begin with `ours`, or legacy iptables' nat
/// table. The first of either registers the hooks for all of them
/// (`nf_nat_register_fn`, `net/netfilter/nf_nat_core.c`).
///
/// # Errors
/// netlink(7): EPERM without `CAP_NET_ADMIN`; what can't be read.
pub(in crate::kernel) fn has_nat(ours: &str) -> io::Result<bool> {
    Ok(has_legacy_table()? || has_chain(ours)?)
}

fn has_legacy_table() -> io::Result<bool> {
    match fs::read_to_string(LEGACY_TABLES) {
        Ok(tables) => Ok(tables.lines().any(|table| table == "nat")),
        // A kernel without it, or one where nobody has used it yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn has_chain(ours: &str) -> io::Result<bool> {
    for _ in 0..ATTEMPTS {
        if let Some(found) = look_for_chain(ours)? {
            return Ok(found);
        }
    }
    Err(io::Error::other("the ruleset changes all the time"))
}

/// None if something changed meanwhile.
fn look_for_chain(ours: &str) -> io::Result<Option<bool>> {
    let mut reading = Reading::new("")?;
    reading.sequence += 1;
    reading.ask(&request_of_all_families(Kind::Chain, reading.sequence))?;
    let mut found = false;
    loop {
        reading.receive()?;
        for answer in answers(&reading.buffer, Kind::Chain, reading.sequence) {
            match answer? {
                Answer::Part(part) => found |= is_nat(&part, ours)?,
                Answer::Done => return Ok(Some(found)),
                Answer::Interrupted => return Ok(None),
                Answer::Refused(error) => return Err(error),
            }
        }
    }
}

fn is_nat(chain: &Part<'_>, ours: &str) -> io::Result<bool> {
    let is_ours = chain
        .attribute(TABLE)?
        .is_some_and(|name| name.starts_with(ours.as_bytes()));
    let is_nat = chain.attribute(NAME_OF_TYPE)? == Some(b"nat\0");
    Ok(is_nat && !is_ours && FAMILIES.contains(&chain.family))
}
