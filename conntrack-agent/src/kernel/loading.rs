//! Loads programs, and retries while the verifier is interrupted by signals.

use std::{thread, time::Duration};

use aya::programs::ProgramError;
use rustix::io::Errno;
use tracing::debug;

use super::netlink::is;

/// The number of attempts without a pause: as many as libbpf makes
/// (`bpf_prog_load`, tools/lib/bpf/bpf.c).
const AT_ONCE: usize = 5;
/// The number of attempts in all. Where the verifier's tenths of a second are
/// interrupted that often, the pauses let the cause of the signals finish first.
const ATTEMPTS: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Loads by `load`, and again while the kernel says EAGAIN: a signal, or other work
/// for the thread, came during verification (`do_check`, kernel/bpf/verifier.c).
///
/// # Errors
/// The error of the last attempt.
pub fn load_again(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    repeated(load, |error| match error {
        ProgramError::LoadError { io_error, .. } => is(io_error, Errno::AGAIN),
        _ => false,
    })
}

fn repeated<E>(
    mut work: impl FnMut() -> Result<(), E>,
    was_interrupted: impl Fn(&E) -> bool,
) -> Result<(), E> {
    for attempt in 1..ATTEMPTS {
        match work() {
            Err(error) if was_interrupted(&error) => {
                debug!(attempt, "a program's load was interrupted; once more");
            }
            other => return other,
        }
        if attempt >= AT_ONCE {
            thread::sleep(PAUSE);
        }
    }
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_load_is_taken_up_again_and_no_other() {
        let attempts = |answers: &[Result<(), Errno>]| {
            let mut given = 0;
            let work = || {
                let answer = answers[given.min(answers.len() - 1)];
                given += 1;
                answer
            };
            let done = repeated(work, |error| *error == Errno::AGAIN);
            (done.is_ok(), given)
        };
        let again = Err(Errno::AGAIN);
        assert_eq!(attempts(&[Ok(())]), (true, 1));
        assert_eq!(attempts(&[again, again, Ok(())]), (true, 3));
        assert_eq!(attempts(&[again]), (false, ATTEMPTS));
        assert_eq!(attempts(&[Err(Errno::ACCESS)]), (false, 1));
        assert_eq!(attempts(&[again, Err(Errno::PERM)]), (false, 2));
    }
}
