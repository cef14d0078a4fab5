//! The `top` command: shows a live view of routers and their rules.

mod draw;
mod history;
mod state;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use ratatui::{
    DefaultTerminal, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event as Input, KeyEventKind},
};

use self::{
    draw::{Look, draw},
    state::{Sample, TopState, Wish},
};
use super::{
    exit::{Failed, Status},
    output::{Output, OutputFormat},
};
use crate::{
    client::{Bounds, Client, ClientError},
    model::RouterId,
    resource::EventView,
};

/// The time after which a daemon without an answer counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between the two samples of a single frame.
const MOMENT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Top {
    /// Print one frame, after a second, and end; with `-o json`, the data at once.
    #[arg(long)]
    once: bool,
    /// Look into this router.
    #[arg(long, value_name = "ID")]
    router: Option<RouterId>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
}

/// The source of samples: the client, and the last event that was read.
struct Source {
    client: Client,
    run: String,
    last: u64,
}

impl Top {
    /// Runs until the user quits, and waits for a daemon that goes away.
    pub(super) fn execute(&self, socket: &Path, output: &mut Output<'_>) -> Result<(), Failed> {
        if output.format == OutputFormat::Json {
            return self.resources(socket, output);
        }
        let bounds = Bounds {
            time: PATIENCE,
            ..Bounds::default()
        };
        let mut source = Source {
            client: Client::bounded(socket, bounds)?,
            run: String::new(),
            last: 0,
        };
        let mut state = TopState::new();
        state.inside = self.router;
        // If the first request fails, the reason is not a restart of the daemon, so it is
        // an error.
        state.take(source.sample(self.router)?, Instant::now());
        let look = Look {
            colours: output.terminal.is_some_and(|terminal| terminal.colours),
            blocks: shows_blocks(|name| std::env::var_os(name)),
        };
        if self.once {
            thread::sleep(MOMENT);
            state.take(source.sample(self.router)?, Instant::now());
            return output.lines(&one_frame(&state, look)?);
        }
        let is_addressable = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        if output.terminal.is_none() || !io::stdin().is_terminal() || !is_addressable {
            let why = anyhow!("top needs a terminal; `top --once` prints one frame");
            return Err(why.into());
        }
        let mut screen = ratatui::try_init().context("the terminal cannot be used")?;
        let ended = self.watch(&mut screen, &mut source, &mut state, look);
        let restored = ratatui::try_restore().context("the terminal cannot be restored");
        ended?;
        Ok(restored?)
    }

    /// Prints one sample in the API's form, without rates, which need two samples.
    fn resources(&self, socket: &Path, output: &mut Output<'_>) -> Result<(), Failed> {
        if !self.once {
            let why = anyhow!("top has data for programs with --once alone");
            return Err(Failed(Status::Usage, why));
        }
        let client = Client::new(socket)?;
        match self.router {
            Some(router) => output.json(&client.traffic_of(router)?),
            None => output.json(&client.traffic()?),
        }
    }

    fn watch(
        &self,
        screen: &mut DefaultTerminal,
        source: &mut Source,
        state: &mut TopState,
        look: Look,
    ) -> anyhow::Result<()> {
        let interval = Duration::from_secs(self.interval);
        let mut next = Instant::now() + interval;
        loop {
            screen
                .draw(|frame| draw(frame, state, look))
                .context("the terminal cannot be written")?;
            let wait = next.saturating_duration_since(Instant::now());
            let mut wish = Wish::Nothing;
            if event::poll(wait).context("the terminal cannot be read")? {
                match event::read().context("the terminal cannot be read")? {
                    Input::Key(key) if key.kind != KeyEventKind::Release => {
                        wish = state.key(key);
                    }
                    // The screen is drawn again in any case, in its new size.
                    _ => {}
                }
            }
            if wish == Wish::Quit {
                return Ok(());
            }
            let now = Instant::now();
            if wish == Wish::Sample || next <= now {
                match source.sample(state.inside) {
                    Ok(sample) => state.take(sample, Instant::now()),
                    Err(error) => state.away = Some(error.to_string()),
                }
                next = Instant::now() + interval;
            }
        }
    }
}

impl Source {
    fn sample(&mut self, inside: Option<RouterId>) -> Result<Sample, ClientError> {
        let status = self.client.status()?;
        let routers = self.client.traffic()?;
        let detail = match inside.map(|router| self.client.traffic_of(router)) {
            None => None,
            // The router is gone.
            Some(Err(ClientError::Refused { status, .. })) if status.as_u16() == 404 => None,
            Some(detail) => Some(detail?),
        };
        Ok(Sample {
            status,
            routers,
            events: self.news()?,
            detail,
        })
    }

    /// Returns the events since the last call.
    fn news(&mut self) -> Result<Vec<EventView>, ClientError> {
        /// The maximum number of answers read at once, enough for all events that a
        /// daemon keeps: newer ones are read the next time.
        const ANSWERS: usize = 8;
        let mut news = Vec::new();
        for _ in 0..ANSWERS {
            let heard = self.client.events(self.last, 0, None)?;
            if heard.run != self.run {
                // Event numbers of another run don't apply to this one.
                self.run = heard.run;
                self.last = 0;
                continue;
            }
            news.extend(heard.events);
            if std::mem::replace(&mut self.last, heard.last) == heard.last {
                break;
            }
        }
        Ok(news)
    }
}

/// Draws one frame in the size of the terminal, or in a usual size without one.
fn one_frame(state: &TopState, look: Look) -> anyhow::Result<Vec<String>> {
    const USUAL: (u16, u16) = (80, 24);
    let size = io::stdout()
        .is_terminal()
        .then(ratatui::crossterm::terminal::size);
    let (width, height) = size.and_then(Result::ok).unwrap_or(USUAL);
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| draw(frame, state, look))?;
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width).max(1));
    let lines = rows.map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    Ok(lines.collect())
}

/// Returns whether the locale uses UTF-8, by the first of its environment variables that
/// is set (locale(7)).
fn shows_blocks(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let mut set = names
        .into_iter()
        .filter_map(variable)
        .filter(|value| !value.is_empty());
    let first = set.next().unwrap_or_default();
    let locale = first.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_for_terminals_that_have_them() {
        let with = |given: &[(&str, &str)]| {
            shows_blocks(|name| {
                let found = given.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).into())
            })
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LANG", "C"), ("LC_ALL", "C.utf8")]));
        assert!(!with(&[("LANG", "C.UTF-8"), ("LC_ALL", "C")]));
        assert!(with(&[("LANG", "C.UTF-8"), ("LC_ALL", "")]));
        assert!(!with(&[]));
    }
}
