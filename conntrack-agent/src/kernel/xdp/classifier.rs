//! An instance's XDP program, which is pinned beside its tc program.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{ProgramInfo, Xdp},
};

use crate::kernel::{Error, load_again, sys};

/// An instance's XDP program.
#[derive(Debug)]
pub struct XdpClassifier {
    program: OwnedFd,
    id: u32,
}

impl XdpClassifier {
    /// The name of the program and of its pin.
    pub(in crate::kernel) const NAME: &str = "classify_xdp";

    /// Opens the XDP program that is pinned in an instance's folder. A program that
    /// can't be used counts as none: then the instance is made anew if it should have
    /// one. Holds a bare descriptor, because aya opens a pinned XDP program only for a
    /// caller that can name its kind, and tells its callers no kind.
    pub(in crate::kernel) fn open(folder: &Path) -> Option<Self> {
        let pin = folder.join(Self::NAME);
        let program = sys::open_pinned(&pin).ok()?;
        let id = ProgramInfo::from_pin(&pin).ok()?.id();
        Some(Self { program, id })
    }

    /// Loads the XDP program and pins it into an instance's folder.
    pub(in crate::kernel) fn load(ebpf: &mut Ebpf, folder: &Path) -> Result<(), Error> {
        let program = ebpf.program_mut(Self::NAME);
        let program = program.ok_or(Error::Missing(Self::NAME))?;
        let program: &mut Xdp = program
            .try_into()
            .map_err(Error::program("the XDP classifier is no XDP program"))?;
        load_again(|| program.load())
            .map_err(Error::program("the XDP classifier cannot be loaded"))?;
        let path = folder.join(Self::NAME);
        program.pin(&path).map_err(|source| Error::Pin {
            path,
            source: Box::new(source),
        })
    }

    /// Returns the kernel's id of the program.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
