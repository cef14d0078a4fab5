//! Finds programs by their ids, whatever the ABI version of their instance.

use std::{collections::BTreeMap, path::Path};

use aya::programs::{ProgramInfo, loaded_programs};

use super::PROGRAM;
use crate::kernel::XdpClassifier;

/// Returns the kernel's ids of the programs that are pinned in an instance's
/// folder, without those that can't be opened.
#[must_use]
pub fn programs_in(folder: &Path) -> Vec<u32> {
    let pins = [PROGRAM, XdpClassifier::NAME].map(|pin| folder.join(pin));
    let infos = pins
        .iter()
        .filter_map(|pin| ProgramInfo::from_pin(pin).ok());
    infos.map(|info| info.id()).collect()
}

/// Returns the names of the kernel's programs by their ids, as far as the kernel
/// gives them.
#[must_use]
pub fn program_names() -> BTreeMap<u32, String> {
    let infos = loaded_programs().filter_map(Result::ok);
    let name = |info: ProgramInfo| {
        let name = String::from_utf8_lossy(info.name()).into_owned();
        (info.id(), name)
    };
    infos.map(name).collect()
}
