//! Reads the messages of an eBPF object built with its `log` feature. This is
//! for debugging in a lab: it takes one thread for each instance that this
//! process loads, until the process ends.

use std::thread;

use aya::programs::SchedClassifier;
use aya_log::EbpfLogger;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;

/// Logs the program's messages from now on.
pub(super) fn follow(program: &SchedClassifier) {
    let logger = program
        .info()
        .map_err(|error| error.to_string())
        .and_then(|info| EbpfLogger::init_from_id(info.id()).map_err(|error| error.to_string()));
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => return warn!(error, "the program's messages cannot be read"),
    };
    let reader = move || {
        loop {
            let ready = poll(&mut [PollFd::new(&logger, PollFlags::IN)], None);
            logger.flush();
            if let Err(error) = ready {
                return warn!(%error, "the program's messages are read no more");
            }
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("packet-log".into())
        .spawn(reader)
    {
        warn!(%error, "the program's messages cannot be read");
    }
}
