//! What is in the place of an attachment's pin.

use std::{fs, io, path::Path};

use aya::programs::links::{FdLink, PinnedLink};

use crate::kernel::{
    Error,
    bpffs::{make_one, remove_if_empty, remove_pin},
};

/// In a filter's folder: that the qdisc which it is on was made for it.
const QDISC: &str = "qdisc";

/// What is in the place of an attachment's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Nothing.
    Absent,
    /// A link, with this id.
    Link(u32),
    /// A filter's folder.
    Filter,
    /// Something else; it keeps nothing on an interface.
    Other,
}

impl Pin {
    /// What is at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if that can't be told.
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

/// Makes a filter's folder; one that is there stays.
pub(super) fn mark_filter(path: &Path, made_qdisc: bool) -> Result<(), Error> {
    make_one(path)?;
    if made_qdisc {
        make_one(&path.join(QDISC))?;
    }
    Ok(())
}

/// Whether the qdisc was made for the filter.
pub(super) fn made_qdisc(path: &Path) -> bool {
    path.join(QDISC).is_dir()
}

/// Removes what there is; nothing is fine. A link that nobody else holds goes
/// with its pin; a filter stays where it is.
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

/// The qdisc was not made for the filter after all.
pub(super) fn forget_qdisc(path: &Path) -> Result<(), Error> {
    remove_if_empty(&path.join(QDISC))
}
