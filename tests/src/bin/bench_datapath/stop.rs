//! Ctrl-C: the run ends between two steps, and takes away what it has made.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that ask for an end. They interrupt nothing; who has time looks for them.
pub(crate) struct Stop(SignalFd);

/// A signal has asked for the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

impl Stop {
    /// For the whole process, which must not have a second thread yet. What it starts
    /// takes signals as ever: `Command` unblocks them.
    pub(crate) fn on_signals() -> Self {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        signals.thread_block().expect("signals blocked");
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Self(SignalFd::with_flags(&signals, flags).expect("signalfd(2)"))
    }

    /// An error if one has come.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.0.read_signal().expect("signalfd(2)") {
            Some(_) => Err(Stopped),
            None => Ok(()),
        }
    }
}
