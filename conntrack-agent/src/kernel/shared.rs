//! The pinned maps that all instances share.

use std::{fs, io, path::Path};

use aya::maps::{MapError, MapInfo, MapType};
use conntrack_ebpf::{
    abi,
    event::{Limiter, Recent},
};
use tracing::warn;

use super::{Error, bpffs::remove_pin};

/// The name of each shared map, and the shape that a map must have to serve as
/// it.
const SHARED: [(&str, Shape); 3] = [
    (
        abi::EVENTS,
        Shape {
            kind: MapType::RingBuf,
            key: 0,
            value: 0,
        },
    ),
    (abi::LIMITER, Shape::per_cpu(size_of::<Limiter>())),
    (abi::RECENT, Shape::per_cpu(size_of::<Recent>())),
];

/// Returns the names of the shared maps; each map is pinned under its name.
pub(super) fn names() -> [&'static str; SHARED.len()] {
    SHARED.map(|(name, _)| name)
}

/// The properties of a map that the programs' accesses rely on.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    kind: MapType,
    /// The size of the map's keys, in bytes.
    key: usize,
    /// The size of the map's values, in bytes.
    value: usize,
}

impl Shape {
    const fn per_cpu(value: usize) -> Self {
        Self {
            kind: MapType::PerCpuArray,
            key: size_of::<u32>(),
            value,
        }
    }

    fn of(map: &MapInfo) -> Option<Self> {
        Some(Self {
            kind: map.map_type().ok()?,
            key: usize::try_from(map.key_size()).ok()?,
            value: usize::try_from(map.value_size()).ok()?,
        })
    }
}

/// Returns whether a program that uses the maps with these ids uses all shared
/// maps that are pinned in `folder`. It doesn't if one isn't there, or is none of
/// these maps.
///
/// # Errors
/// [`Error::Map`] if a pin exists and can't be opened: with no descriptor left,
/// nothing is known of it.
pub(super) fn are_among(folder: &Path, ids: &[u32]) -> Result<bool, Error> {
    for name in names() {
        match MapInfo::from_pin(folder.join(name)) {
            Ok(map) if ids.contains(&map.id()) => {}
            Ok(_) => return Ok(false),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(false);
            }
            Err(error) => return Err(Error::map("opening", name)(error)),
        }
    }
    Ok(true)
}

/// Prepares `folder` for a load, which takes the maps that are pinned there and
/// makes the others. Makes the folder, and removes pins in a map's place that
/// can't serve as it.
///
/// # Errors
/// [`Error::File`] if the folder can't be made, or a pin can't be removed.
pub(super) fn prepare(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::file(folder, "made")(error)),
    }
    for (name, shape) in SHARED {
        let path = folder.join(name);
        let present = MapInfo::from_pin(&path).ok();
        let can_serve = present.as_ref().and_then(Shape::of) == Some(shape);
        if !can_serve && fs::symlink_metadata(&path).is_ok() {
            warn!(path = %path.display(), "no map that serves here: removed, and made anew");
            remove_pin(&path)?;
        }
    }
    Ok(())
}
