//! Reads legacy iptables' tables by their own interface, getsockopt(2).
//!
//! A table is asked for only where the kernel says that there is one, because asking
//! for one creates it.
//!
//! A table of INPUT, FORWARD and OUTPUT alone (filter, security) is not read: the
//! binding comes before them. Nor is a target known here that could write a priority
//! before the binding: CLASSIFY and SET are not for prerouting (`classify_tg_reg`,
//! `net/netfilter/xt_CLASSIFY.c`; `set_target_v3_checkentry`,
//! `net/netfilter/xt_set.c`).

mod table;

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rustix::io::Errno;

use super::ruleset::{Hook, Ruleset, TableName};
use crate::kernel::{Error, netlink::is, sys::socket_option};
use table::{EntryLayout, INFO_SIZE, TableInfo};

/// The file that lists a family's tables in the calling thread's namespace, one a
/// line (`xt_table_seq_ops`, `net/netfilter/x_tables.c`).
pub(super) const IPV4_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const IPV6_TABLES: &str = "/proc/thread-self/net/ip6_tables_names";

/// A family of tables.
struct LegacyFamily {
    /// The file that lists its tables.
    list: &'static str,
    /// The name of its tables here.
    name: &'static str,
    socket: AddressFamily,
    level: libc::c_int,
    layout: EntryLayout,
}

const FAMILIES: [LegacyFamily; 2] = [
    LegacyFamily {
        list: IPV4_TABLES,
        name: "iptables-legacy",
        socket: AddressFamily::Inet,
        level: libc::SOL_IP,
        layout: table::IPV4,
    },
    LegacyFamily {
        list: IPV6_TABLES,
        name: "ip6tables-legacy",
        socket: AddressFamily::Inet6,
        level: libc::SOL_IPV6,
        layout: table::IPV6,
    },
];

/// The tables that are read, and the hooks of their PREROUTING chains: `NF_IP_PRI_RAW`,
/// `…_MANGLE` and `…_NAT_DST`, `include/uapi/linux/netfilter_ipv4.h`.
const TABLES: [(&str, Hook); 3] = [
    ("raw", Hook::Prerouting(-300)),
    ("mangle", Hook::Prerouting(-150)),
    ("nat", Hook::Nat(-100)),
];

/// The options `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, which are `IP6T_SO_…` too,
/// `include/uapi/linux/netfilter_ipv4/ip_tables.h`.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// The size of a table's name, and of `struct ipt_get_entries`: the name, the size of
/// the entries, which follow, and padding in front of them.
const NAME_SIZE: usize = 32;
const HEADER_SIZE: usize = 40;

/// The number of attempts to read a table that changes meanwhile.
const ATTEMPTS: usize = 16;

/// Returns the names of the tables that the calling thread's namespace has; `list` is
/// the file that lists the family's tables.
///
/// # Errors
/// An error if the list can't be read.
pub(super) fn tables(list: &str) -> io::Result<BTreeSet<String>> {
    match fs::read_to_string(list) {
        Ok(tables) => Ok(tables.lines().map(str::to_owned).collect()),
        // The kernel lacks it, or it has not been used yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Reads the tables of the calling thread's network namespace; `place` is its name,
/// for errors.
///
/// # Errors
/// [`Error::Legacy`] if a table can't be read.
pub(super) fn ruleset(place: &str) -> Result<Ruleset, Error> {
    let mut found = Ruleset::default();
    for family in &FAMILIES {
        let failed = |table: String, why: String| Error::Legacy {
            place: place.to_owned(),
            table,
            why,
        };
        let there = tables(family.list)
            .map_err(|error| failed(family.name.into(), format!("{}: {error}", family.list)))?;
        for (name, prerouting) in TABLES {
            if there.contains(name) {
                let table = TableName {
                    family: family.name,
                    name: name.to_owned(),
                };
                let read = family.read(&table, prerouting);
                found.extend(read.map_err(|error| failed(table.to_string(), error.to_string()))?);
            }
        }
    }
    Ok(found)
}

impl LegacyFamily {
    fn read(&self, table: &TableName, prerouting: Hook) -> io::Result<Ruleset> {
        // Any socket of the family will do, and this kind takes no capability.
        let socket = socket(
            self.socket,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        for _ in 0..ATTEMPTS {
            let info = self.info(&socket, &table.name)?;
            match self.entries(&socket, &table.name, info.size) {
                Ok(entries) => return info.decode(self.layout, table, prerouting, &entries),
                // The table has another size by now (`get_entries`,
                // net/ipv4/netfilter/ip_tables.c).
                Err(error) if is(&error, Errno::AGAIN) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("it changed each time while it was read"))
    }

    fn info(&self, socket: &OwnedFd, table: &str) -> io::Result<TableInfo> {
        let mut info = vec![0; INFO_SIZE];
        self.ask(socket, GET_INFO, table, &mut info)?;
        TableInfo::read(&info)
    }

    fn entries(&self, socket: &OwnedFd, table: &str, size: u32) -> io::Result<Vec<u8>> {
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let mut answer = vec![0; HEADER_SIZE + length];
        answer[NAME_SIZE..NAME_SIZE + 4].copy_from_slice(&size.to_ne_bytes());
        self.ask(socket, GET_ENTRIES, table, &mut answer)?;
        Ok(answer.split_off(HEADER_SIZE))
    }

    /// Asks for a struct that begins with the table's name.
    fn ask(
        &self,
        socket: &OwnedFd,
        option: libc::c_int,
        table: &str,
        answer: &mut [u8],
    ) -> io::Result<()> {
        answer[..table.len()].copy_from_slice(table.as_bytes());
        match socket_option(socket.as_fd(), self.level, option, answer)? {
            length if length == answer.len() => Ok(()),
            length => Err(io::Error::other(format!("an answer of {length} bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_there_if_it_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("names");
        let has = || tables(list.to_str().unwrap()).unwrap().contains("raw");
        assert!(!has(), "nobody has used it yet");
        for (names, expected) in [("nat\nraw\n", true), ("nat\nrawer\n", false), ("", false)] {
            fs::write(&list, names).unwrap();
            assert_eq!(has(), expected, "{names}");
        }
    }
}
