//! Receives the signals SIGHUP, SIGTERM and SIGINT.

use std::{cell::Cell, io};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::signal::unix::{self, SignalKind, signal};

/// The signals that arrive before there is a runtime.
///
/// The signals are blocked, so that none ends the agent, and read from a
/// descriptor (signalfd(2)). Every thread that is started later has them
/// blocked too; nft doesn't, std gives each child an empty mask.
#[derive(Debug)]
pub(super) struct Signals {
    blocked: SigSet,
    descriptor: SignalFd,
    reload: Cell<bool>,
    stop: Cell<bool>,
}

/// The request that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// SIGHUP: reads the rules file again.
    Reload,
    /// SIGTERM or SIGINT: ends the daemon.
    Stop,
}

impl Signals {
    /// Begins to receive signals. Must be called before there is another thread: a thread
    /// without the mask would get the signal, and the process would end.
    pub(super) fn take() -> io::Result<Self> {
        let mut blocked = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
            blocked.add(signal);
        }
        blocked.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            blocked,
            descriptor: SignalFd::with_flags(&blocked, flags)?,
            reload: Cell::new(false),
            stop: Cell::new(false),
        })
    }

    /// Returns whether the daemon has been told to end.
    pub(super) fn is_stop(&self) -> bool {
        // What can't be read stays pending, and comes when it is waited for.
        while let Ok(Some(signal)) = self.descriptor.read_signal() {
            let is_hangup = i32::try_from(signal.ssi_signo) == Ok(Signal::SIGHUP as i32);
            let told = if is_hangup { &self.reload } else { &self.stop };
            told.set(true);
        }
        self.stop.get()
    }

    /// Hands the signals over to the runtime. Must be called in its context, on the thread
    /// that began to receive them.
    pub(super) fn wait(self) -> io::Result<SignalStream> {
        let waiting = SignalStream {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: self.reload.get(),
            stop: self.stop.get(),
        };
        // Those that are pending come now, to their new receivers.
        self.blocked.thread_unblock()?;
        Ok(waiting)
    }
}

/// The signals that arrive in a runtime.
#[derive(Debug)]
pub(super) struct SignalStream {
    hangup: unix::Signal,
    terminate: unix::Signal,
    interrupt: unix::Signal,
    /// The signal that arrived before there was a runtime.
    reload: bool,
    stop: bool,
}

impl SignalStream {
    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Told {
        if self.stop {
            return Told::Stop;
        }
        if std::mem::take(&mut self.reload) {
            return Told::Reload;
        }
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
