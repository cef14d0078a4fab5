//! Looks up the host's users and groups by name and by number.

use std::{collections::BTreeSet, ffi::CString};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, getgrouplist},
};

/// The lookups of accounts; a trait, so that tests need no accounts on the host.
pub(super) trait Accounts {
    /// Returns the number of the user of this name, if there is one.
    fn user(&self, name: &str) -> nix::Result<Option<u32>>;
    /// Returns the number of the group of this name, if there is one.
    fn group(&self, name: &str) -> nix::Result<Option<u32>>;
    /// Returns the groups of a user; none for an unknown user.
    fn groups_of(&self, uid: u32) -> nix::Result<BTreeSet<u32>>;
}

/// The host's name service (NSS), with all its configured sources.
pub(super) struct NameService;

impl Accounts for NameService {
    fn user(&self, name: &str) -> nix::Result<Option<u32>> {
        Ok(known(User::from_name(name))?.map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> nix::Result<Option<u32>> {
        Ok(known(Group::from_name(name))?.map(|group| group.gid.as_raw()))
    }

    fn groups_of(&self, uid: u32) -> nix::Result<BTreeSet<u32>> {
        let Some(user) = known(User::from_uid(Uid::from_raw(uid)))? else {
            return Ok(BTreeSet::new());
        };
        let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }
}

/// Returns no account for the errors by which some services report *no such account*
/// (getpwnam(3), ERRORS: 0 or ENOENT or ESRCH or EBADF or EPERM). ENOENT and ESRCH can mean
/// nothing else; the others stay errors.
fn known<T>(answer: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match answer {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_both_names_and_is_in_its_group() {
        assert_eq!(NameService.user("root"), Ok(Some(0)));
        assert_eq!(NameService.group("root"), Ok(Some(0)));
        assert!(NameService.groups_of(0).unwrap().contains(&0));
    }

    #[test]
    fn a_name_that_nobody_has_is_no_account() {
        for name in ["conntrack-agent-has-no-such-account", "", "ro\0ot"] {
            assert_eq!(NameService.user(name), Ok(None), "{name:?}");
            assert_eq!(NameService.group(name), Ok(None), "{name:?}");
        }
        assert_eq!(NameService.groups_of(3_999_999_999), Ok(BTreeSet::new()));
    }

    #[test]
    fn only_what_means_no_such_account_is_taken_for_it() {
        assert_eq!(known::<()>(Err(Errno::ENOENT)), Ok(None));
        assert_eq!(known::<()>(Err(Errno::ESRCH)), Ok(None));
        assert_eq!(known(Ok(Some(1))), Ok(Some(1)));
        assert_eq!(known::<()>(Err(Errno::EIO)), Err(Errno::EIO));
    }
}
