//! The kinds of files that can be found at an attachment's pin.

use std::{fs, io, path::Path};

use aya::programs::links::{FdLink, PinnedLink};

use crate::kernel::{
    Error,
    bpffs::{make_one, remove_if_empty, remove_pin},
};

/// The mark in a filter's folder that says that the filter's qdisc was made for
/// it.
const QDISC: &str = "qdisc";

/// The file in the place of an attachment's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// There is nothing.
    Absent,
    /// There is a link, with this id.
    Link(u32),
    /// There is a filter's folder.
    Filter,
    /// There is something else, which keeps nothing on an interface.
    Other,
}

impl Pin {
    /// Returns the kind of file at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be determined.
    pub fn at(path: &Path) -> Result<Self, Error> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(Self::Filter),
            Ok(_) => {
                let link: Result<FdLink, _> = PinnedLink::from_pin(path).map(Into::into);
                let info = link.and_then(|link| link.info());
                Ok(info.map_or(Self::Other, |info| Self::Link(info.id())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Absent),
            Err(error) => Err(Error::file(path, "examined")(error)),
        }
    }
}

/// Makes a filter's folder; an existing folder stays.
pub(super) fn mark_filter(path: &Path, made_qdisc: bool) -> Result<(), Error> {
    make_one(path)?;
    if made_qdisc {
        make_one(&path.join(QDISC))?;
    }
    Ok(())
}

/// Returns whether the qdisc was made for the filter.
pub(super) fn made_qdisc(path: &Path) -> bool {
    path.join(QDISC).is_dir()
}

/// Removes the pin; a missing pin is no error. A link that has no other holder
/// goes with its pin; a filter stays on its interface.
///
/// # Errors
/// [`Error::File`] if it can't be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        remove_if_empty(&path.join(QDISC))?;
        remove_if_empty(path)
    } else {
        remove_pin(path)
    }
}

/// Removes a link's pin; a folder stays.
pub(super) fn remove_link(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        Ok(())
    } else {
        remove_pin(path)
    }
}

/// Removes the mark of a qdisc that was not made for the filter after all.
pub(super) fn forget_qdisc(path: &Path) -> Result<(), Error> {
    remove_if_empty(&path.join(QDISC))
}
