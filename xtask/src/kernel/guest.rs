//! Booting the guest, and hearing how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::QEMU;
use super::image::Kernel;
use super::machine::Accelerator;
use crate::{programs, say};

/// How the suite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All tests passed.
    Passed,
    /// Some failed.
    Failed,
}

/// Memory in MiB: the initramfs takes a third of it.
const MEMORY: &str = "2048";

/// Boots the kernel, passes on what the tests say, and returns how they ended.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, folder: &Path) -> Result<End> {
    let fastest = Accelerator::find();
    match boot_with(fastest, kernel, initramfs, folder)? {
        Some(end) => Ok(end),
        None if fastest == Accelerator::Kvm => {
            say::note("/dev/kvm is there, but the guest doesn't start on it");
            boot_with(Accelerator::Emulation, kernel, initramfs, folder)?
                .context("the guest doesn't start by emulation either")
        }
        None => bail!(
            "the guest doesn't start; its kernel said:\n{}",
            last_lines(&folder.join(CONSOLE))
        ),
    }
}

const CONSOLE: &str = "console.log";
const STATUS: &str = "status";

/// The same in one way; none if the guest was never heard of.
fn boot_with(
    accelerator: Accelerator,
    kernel: &Kernel,
    initramfs: &Path,
    folder: &Path,
) -> Result<Option<End>> {
    let [console, status] = [CONSOLE, STATUS].map(|name| folder.join(name));
    for file in [&console, &status] {
        fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    say::note(&format!(
        "booting {} by {accelerator:?}; its console is in {}",
        kernel.version,
        console.display()
    ));
    let started = Instant::now();
    let mut command = command(accelerator, kernel, initramfs, &console, &status)?;
    let mut guest = Guest::start(&mut command)?;
    let lines = guest.lines.take().context("QEMU has no output")?;
    let lines = listen(lines);

    let first = lines.recv_timeout(accelerator.boot());
    let Ok(first) = first else {
        return Ok(None);
    };
    show(&first);
    let deadline = started + accelerator.suite();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => show(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "the guest has not ended after {} minutes",
                accelerator.suite().as_secs() / 60
            ),
        }
    }
    // Its output has ended, and so has QEMU or is about to.
    guest.process.wait().context("waiting for QEMU")?;
    let said = fs::read_to_string(&status).context("the guest's exit status")?;
    match end_in(&said) {
        Some(end) => Ok(Some(end)),
        None => bail!(
            "the guest ended before its tests did; its kernel said:\n{}",
            last_lines(&console)
        ),
    }
}

fn command(
    accelerator: Accelerator,
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    status: &Path,
) -> Result<Command> {
    let qemu = programs::find(QEMU.0).context("there is no QEMU")?;
    // The kernel ends QEMU where xtask is killed and cannot.
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg("KILL").arg(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-machine", "pc"])
        .args(accelerator.arguments())
        .args(["-smp", "2", "-m", MEMORY])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        // A kernel that panics restarts at once, which ends QEMU.
        .args(["-append", "console=ttyS0 panic=-1 oops=panic"])
        .args(["-serial", &to_file(console)?])
        .args(["-serial", "stdio"])
        .args(["-serial", &to_file(status)?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// QEMU takes a comma for the end of a name, and two for one comma.
fn to_file(file: &Path) -> Result<String> {
    let file = file.to_str().context("the target directory is no text")?;
    Ok(format!("file:{}", file.replace(',', ",,")))
}

/// A running QEMU. Dropping it ends it.
struct Guest {
    process: Child,
    lines: Option<ChildStdout>,
}

impl Guest {
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = command.spawn().context("starting QEMU")?;
        let lines = process.stdout.take();
        Ok(Self { process, lines })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // One that has ended and was waited for gets no signal.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the guest says, line by line, until it ends.
fn listen(output: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Passes a line on. Nobody may be there to read it, which is no failure.
fn show(line: &[u8]) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut out = std::io::stdout().lock();
    drop(out.write_all(line).and_then(|()| out.write_all(b"\n")));
}

/// What the guest wrote when its tests had ended; none if it didn't.
fn end_in(status: &str) -> Option<End> {
    match status.trim() {
        "0" => Some(End::Passed),
        "" => None,
        _ => Some(End::Failed),
    }
}

fn last_lines(console: &Path) -> String {
    let said = fs::read(console).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_zero_is_success() {
        assert_eq!(end_in("0\r\n"), Some(End::Passed));
        assert_eq!(end_in("1\n"), Some(End::Failed));
        assert_eq!(end_in("127"), Some(End::Failed));
        assert_eq!(end_in(""), None, "it never came so far");
    }

    #[test]
    fn a_comma_in_a_path_is_not_an_option() {
        assert_eq!(to_file(Path::new("/a,b/c")).unwrap(), "file:/a,,b/c");
    }

    #[test]
    fn of_a_console_the_end_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<_> = (0..40).map(|line| format!("line {line}")).collect();
        fs::write(file.path(), lines.join("\n")).unwrap();
        let shown = last_lines(file.path());
        assert!(
            shown.starts_with("line 25\n") && shown.ends_with("line 39"),
            "{shown}"
        );
        assert_eq!(last_lines(Path::new("/no/such")), "");
    }
}
