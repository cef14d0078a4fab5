//! Lists objects of one kind in all tables of a network namespace.

use std::io;

use super::{
    Reading,
    message::{DumpPart, ObjectKind, Reply, answers, request_of_all_families},
};

/// The number of attempts where the ruleset changes meanwhile: nothing else tells of
/// a change.
const ATTEMPTS: usize = 20;

/// One attempt to list objects.
pub(in crate::kernel) struct Listing {
    reading: Reading<'static>,
    /// The generation of the ruleset when its first object was listed.
    generation: Option<[u8; 2]>,
}

impl Listing {
    /// Returns what `look` makes of a listing of the calling thread's network
    /// namespace; `look` returns `None` if something changed meanwhile.
    pub(in crate::kernel) fn whole<T>(
        look: impl Fn(&mut Self) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        for _ in 0..ATTEMPTS {
            let mut listing = Self {
                reading: Reading::new("")?,
                generation: None,
            };
            if let Some(found) = look(&mut listing)? {
                return Ok(found);
            }
        }
        Err(io::Error::other("the ruleset changes all the time"))
    }

    /// Passes all objects of a kind to `take`. Returns false if something changed.
    pub(in crate::kernel) fn each(
        &mut self,
        kind: ObjectKind,
        mut take: impl FnMut(&DumpPart<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let reading = &mut self.reading;
        reading.sequence += 1;
        reading.ask(&request_of_all_families(kind, reading.sequence))?;
        loop {
            reading.receive()?;
            for answer in answers(&reading.buffer, kind, reading.sequence) {
                let part = match answer? {
                    Reply::Part(part) => part,
                    Reply::Done => return Ok(true),
                    Reply::Interrupted => return Ok(false),
                    Reply::Refused(error) => return Err(error),
                };
                if *self.generation.get_or_insert(part.generation) != part.generation {
                    return Ok(false);
                }
                take(&part)?;
            }
        }
    }
}
