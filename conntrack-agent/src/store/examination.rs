//! Examines a database without changing it.
//!
//! redb repairs what it opens, and writes to the file while it does. A database that is
//! to be set aside unchanged must be examined in another way: what redb writes goes to
//! memory alone.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

const BLOCK: usize = 4096;
type Block = Box<[u8; BLOCK]>;

/// A file whose content is changed in memory only.
pub(super) struct Examination {
    file: File,
    written: Mutex<Written>,
}

struct Written {
    length: u64,
    /// The length up to which the file's own content counts; beyond it are zeros.
    of_file: u64,
    /// The blocks that differ from the file, by their number.
    blocks: BTreeMap<u64, Block>,
}

impl Examination {
    /// Opens the file as it is now.
    ///
    /// # Errors
    /// Returns the error of opening the file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            written: Mutex::new(Written {
                length,
                of_file: length,
                blocks: BTreeMap::new(),
            }),
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // A poisoned lock is fine: nothing here panics half-way through a change.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn original(&self, of_file: u64, number: u64) -> io::Result<Block> {
        let mut block = Box::new([0; BLOCK]);
        let start = number * BLOCK as u64;
        let rest = usize::try_from(of_file.saturating_sub(start)).unwrap_or(BLOCK);
        let length = rest.min(BLOCK);
        self.file.read_exact_at(&mut block[..length], start)?;
        Ok(block)
    }
}

impl fmt::Debug for Examination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        formatter.debug_tuple("Examination").field(file).finish()
    }
}

impl StorageBackend for Examination {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        in_range(offset, out.len(), written.length)?;
        for (number, range, within) in blocks(offset, out.len()) {
            let part = &mut out[range];
            match written.blocks.get(&number) {
                Some(block) => part.copy_from_slice(&block[within]),
                None => {
                    part.copy_from_slice(&self.original(written.of_file, number)?[within]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        let kept = length.min(written.length);
        // Content that is cut off must read as zeros if the file grows again.
        written.of_file = written.of_file.min(kept);
        written.blocks.split_off(&kept.div_ceil(BLOCK as u64));
        let rest = usize::try_from(kept % BLOCK as u64).map_err(io::Error::other)?;
        if let Some(last) = written.blocks.get_mut(&(kept / BLOCK as u64)) {
            last[rest..].fill(0);
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        in_range(offset, data.len(), written.length)?;
        let of_file = written.of_file;
        for (number, range, within) in blocks(offset, data.len()) {
            let mut block = match written.blocks.remove(&number) {
                Some(block) => block,
                None => self.original(of_file, number)?,
            };
            block[within].copy_from_slice(&data[range]);
            written.blocks.insert(number, block);
        }
        Ok(())
    }
}

fn in_range(offset: u64, length: usize, end: u64) -> io::Result<()> {
    let fits = u64::try_from(length)
        .ok()
        .and_then(|length| offset.checked_add(length))
        .is_some_and(|last| last <= end);
    if fits {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Returns the blocks that a piece of the file lies in: each block's number, the part of
/// the piece that is in it, and its range within the block.
fn blocks(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).unwrap_or(0);
        let count = (BLOCK - within).min(length - done);
        let piece = (
            at / BLOCK as u64,
            done..done + count,
            within..within + count,
        );
        done += count;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::{collection, prelude::*};

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        const END: u64 = 5 * BLOCK as u64;
        prop_oneof![
            (0..END, collection::vec(any::<u8>(), 0..9000)).prop_map(|(at, b)| Step::Write(at, b)),
            (0..END).prop_map(Step::SetLen),
            (0..END, 0..9000_usize).prop_map(|(at, length)| Step::Read(at, length)),
        ]
    }

    proptest! {
        /// It behaves as a plain array of bytes would, and the file stays as it was.
        #[test]
        fn all_is_written_and_nothing_to_the_file(
            original in collection::vec(1..=u8::MAX, 0..12000),
            steps in collection::vec(step(), 1..30),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, &original).unwrap();
            let examined = Examination::of(&path).unwrap();
            let mut model = original.clone();
            for step in steps {
                let range = |at: u64, length: usize| {
                    let at = usize::try_from(at).unwrap();
                    (at + length <= model.len()).then_some(at..at + length)
                };
                match step {
                    Step::Write(at, bytes) => {
                        let range = range(at, bytes.len());
                        prop_assert_eq!(examined.write(at, &bytes).is_ok(), range.is_some());
                        if let Some(range) = range {
                            model[range].copy_from_slice(&bytes);
                        }
                    }
                    Step::SetLen(length) => {
                        examined.set_len(length).unwrap();
                        model.resize(usize::try_from(length).unwrap(), 0);
                    }
                    Step::Read(at, length) => {
                        let mut bytes = vec![7; length];
                        let range = range(at, length);
                        prop_assert_eq!(examined.read(at, &mut bytes).is_ok(), range.is_some());
                        if let Some(range) = range {
                            prop_assert_eq!(&bytes, &model[range]);
                        }
                    }
                }
                prop_assert_eq!(examined.len().unwrap(), model.len() as u64);
            }
            prop_assert_eq!(fs::read(&path).unwrap(), original);
        }
    }
}
