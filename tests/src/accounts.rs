//! Other users than root, without an account.

use std::fs;

/// A group of this host other than root's, to be given the socket.
pub struct SocketGroup {
    /// What the host calls it.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

impl SocketGroup {
    /// The first that there is.
    #[must_use]
    pub fn any() -> Self {
        let groups = fs::read_to_string("/etc/group").expect("this host's groups");
        let group = groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            (gid != 0).then(|| Self {
                name: name.to_owned(),
                gid,
            })
        });
        group.expect("a group in /etc/group beside root's")
    }
}

/// What a command line begins with, to be another user's.
#[must_use]
pub fn launcher(uid: u32, gid: u32, others: &[u32]) -> Vec<String> {
    let others: Vec<_> = others.iter().map(u32::to_string).collect();
    let groups = if others.is_empty() {
        "--clear-groups".to_owned()
    } else {
        format!("--groups={}", others.join(","))
    };
    vec![
        "setpriv".to_owned(),
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        groups,
    ]
}
