//! What xtask tells its user, on stderr: stdout belongs to the commands it runs.

use std::io::{IsTerminal, stderr};

/// Says in one line what is being done, or was found.
pub(crate) fn note(text: &str) {
    eprintln!("{} {text}", painted("1;36", "xtask:"));
}

/// Says why xtask ends in failure.
pub(crate) fn error(text: &str) {
    eprintln!("{} {text}", painted("1;31", "error:"));
}

fn painted(colour: &str, word: &str) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && stderr().is_terminal() {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}
