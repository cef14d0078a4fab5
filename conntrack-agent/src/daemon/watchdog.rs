//! Feeds the service manager's watchdog as long as every part of the daemon makes
//! progress.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::warn;

use crate::heartbeat::Heartbeat;

/// A part of the daemon that must make progress.
struct WatchedPart {
    name: &'static str,
    seen: u64,
    is_late: bool,
}

impl WatchedPart {
    /// Returns whether it has made progress since the last call.
    fn is_alive(&mut self, heartbeat: &Heartbeat) -> bool {
        let count = heartbeat.count();
        let is_alive = count != self.seen;
        if !is_alive && !self.is_late {
            warn!(part = self.name, "shows no life; the watchdog is not told");
        }
        self.is_late = !is_alive;
        self.seen = count;
        is_alive
    }
}

/// A timer at half of the service manager's limit, as `sd_watchdog_enabled(3)` advises;
/// it never fires without a limit.
pub(super) struct Watchdog {
    ticks: Option<Interval>,
    parts: [WatchedPart; 2],
}

impl Watchdog {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let ticks = limit.map(|limit| {
            let period = (limit / 2).max(Duration::from_millis(1));
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let part = |name| WatchedPart {
            name,
            // What no pulse is at: both have just started, and are alive.
            seen: u64::MAX,
            is_late: false,
        };
        Self {
            ticks,
            parts: [part("the agent's thread"), part("the server")],
        }
    }

    /// Waits for the next check.
    pub(super) async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => pending().await,
        }
    }

    /// Returns whether every part has made progress since the last check.
    pub(super) fn is_alive(&mut self, pulses: [&Heartbeat; 2]) -> bool {
        let both = self.parts.iter_mut().zip(pulses);
        both.fold(true, |all, (part, heartbeat)| {
            part.is_alive(heartbeat) && all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_hangs_is_enough_to_say_nothing() {
        let mut watchdog = Watchdog::new(None);
        let [agent, server] = [Heartbeat::default(), Heartbeat::default()];
        assert!(watchdog.is_alive([&agent, &server]), "just started");
        for (agent_beats, server_beats) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            if agent_beats {
                agent.tick();
            }
            if server_beats {
                server.tick();
            }
            let alive = watchdog.is_alive([&agent, &server]);
            assert_eq!(alive, agent_beats && server_beats);
        }
    }
}
