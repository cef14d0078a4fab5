//! The `events` command: prints events as they happen.

use std::{io::Write, thread, time::Duration};

use serde::Deserialize as _;
use serde_json::Value;

use super::{
    exit::Failed,
    output::{Output, OutputFormat},
    terminal::printable,
};
use crate::{
    client::{Client, ClientError},
    event_log::{Event, HelperState, RuleText},
    model::RouterId,
    resource::{EventPageView, EventView},
};

/// The seconds that the daemon waits for an event: short enough that nothing in between
/// closes the connection as idle.
const WAIT_SECONDS: u64 = 10;

/// The time until an unreachable daemon is asked again.
const AWAY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct FollowEvents {
    /// Begin with the past events that the daemon has kept.
    #[arg(long)]
    past: bool,
    /// Print what there is, the past events too, and end.
    #[arg(long)]
    once: bool,
    /// Only those of this router.
    #[arg(long, value_name = "ID")]
    router: Option<RouterId>,
}

impl FollowEvents {
    /// Prints events until stdout is closed or the process is ended, and waits for a
    /// daemon that goes away.
    pub(super) fn execute(
        &self,
        client: &Client,
        output: &mut Output<'_>,
        stderr: &mut dyn Write,
    ) -> Result<(), Failed> {
        let is_wanted = self.past || self.once;
        let mut last = 0;
        let mut run;
        // The kept events may not fit into one answer.
        loop {
            let heard = client.events(last, 0, self.router)?;
            if is_wanted {
                print(&heard, output, stderr)?;
            }
            run = heard.run;
            if std::mem::replace(&mut last, heard.last) == heard.last {
                break;
            }
        }
        if self.once {
            return Ok(());
        }
        let mut is_away = false;
        let mut wait = WAIT_SECONDS;
        loop {
            match client.events(last, wait, self.router) {
                // Event numbers of another run don't apply to this one.
                Ok(now) if now.run != run => {
                    run = now.run;
                    last = 0;
                }
                Ok(now) => {
                    is_away = false;
                    last = now.last;
                    print(&now, output, stderr)?;
                    if wait == 0 {
                        thread::sleep(AWAY);
                    }
                }
                // Too many clients are waiting: the daemon still answers requests that
                // don't wait.
                Err(ClientError::Refused { status, .. }) if status.as_u16() == 503 && wait > 0 => {
                    wait = 0;
                }
                Err(
                    error @ (ClientError::Unreachable { .. }
                    | ClientError::NoAnswer { .. }
                    | ClientError::Refused { .. }),
                ) => {
                    if !std::mem::replace(&mut is_away, true) {
                        say(stderr, &format!("{error}; waiting for it"));
                    }
                    wait = WAIT_SECONDS;
                    thread::sleep(AWAY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn print(
    heard: &EventPageView,
    output: &mut Output<'_>,
    stderr: &mut dyn Write,
) -> Result<(), Failed> {
    if heard.missed > 0 {
        let missed = heard.missed;
        say(stderr, &format!("{missed} events are not kept any more"));
    }
    let mut lines = Vec::new();
    for event in &heard.events {
        lines.push(match output.format {
            OutputFormat::Json => serde_json::to_string(event).map_err(anyhow::Error::from)?,
            OutputFormat::Table => printable(&line(event)).into_owned(),
        });
    }
    output.lines(&lines)
}

fn say(stderr: &mut dyn Write, what: &str) {
    // If stderr is closed, there is no other place to report it.
    let _ = writeln!(stderr, "conntrack-agent: {}", printable(what));
}

/// Formats an event for people.
fn line(event: &EventView) -> String {
    let what = match known(event) {
        Some(known) => text(&known),
        // The event is of an agent newer than this client.
        None => Value::Object(event.what.clone()).to_string(),
    };
    format!("{} {what}", event.time)
}

/// Returns the event, if it is of a kind that this client knows.
fn known(event: &EventView) -> Option<Event> {
    Event::deserialize(Value::Object(event.what.clone())).ok()
}

/// Formats an event for `top`, in short, and returns whether somebody should look at it;
/// `None` for a connection that doesn't lack its helper.
pub(super) fn news(event: &EventView) -> Option<(String, bool)> {
    // The time of day.
    let time = event.time.get(11..19).unwrap_or(&event.time);
    let (what, is_bad) = match &known(event)? {
        Event::Connection {
            rule,
            source,
            has_helper: HelperState::No,
            reason,
            ..
        } => {
            // The start of the id, which distinguishes most routers.
            let router = rule.router_id.get(..8).unwrap_or(&rule.router_id);
            let reason = because(reason.as_deref());
            let rule = rule_text(rule);
            let what = format!("NO HELPER {router} {rule} from {source}{reason}");
            (what, true)
        }
        Event::Connection { .. } => return None,
        other => {
            let is_bad = matches!(other, Event::Failure { .. } | Event::Untold { .. });
            (text(other), is_bad)
        }
    };
    Some((format!("{time} {what}"), is_bad))
}

fn text(event: &Event) -> String {
    match event {
        Event::Connection {
            rule,
            source,
            destination,
            has_helper,
            reason,
        } => {
            let target = match has_helper {
                HelperState::Yes => "has its helper",
                HelperState::No => "HAS NO HELPER",
                HelperState::Unknown => "helper unknown",
            };
            let reason = because(reason.as_deref());
            format!(
                "connection  router {}: {} {source} -> {destination} {target}{reason}",
                rule.router_id,
                rule_text(rule)
            )
        }
        Event::Untold { count } => format!("connection  {count} more than could be told of"),
        Event::Change {
            by,
            operation,
            routers,
            routers_count,
            added,
            added_count,
            removed,
            removed_count,
            outcome,
            reason,
        } => {
            let listed = |sign: char, rules: &[RuleText], count: usize| {
                let more = count.saturating_sub(rules.len());
                let rest = (more > 0).then(|| format!("{more} more"));
                let all = rules.iter().map(rule_text).chain(rest);
                let signed = all.map(|text| format!(" {sign}{text}"));
                signed.collect::<String>()
            };
            let router = match &routers[..] {
                [one] => format!("router {one}"),
                _ => format!("{routers_count} routers"),
            };
            format!(
                "change      {router}: {operation} by {by} {outcome}{}{}{}",
                listed('-', removed, *removed_count),
                listed('+', added, *added_count),
                because(reason.as_deref())
            )
        }
        Event::Repair { router_id, effects } => {
            let each = effects
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"));
            let effects = each.collect::<Vec<_>>().join(", ");
            format!("repair      router {router_id}: {effects}")
        }
        Event::Failure {
            router_id,
            reason,
            failures,
        } => format!("failure     router {router_id}, {failures} in a row: {reason}"),
        Event::Recovery { router_id } => {
            format!("recovery    router {router_id} is what it should be")
        }
    }
}

fn rule_text(rule: &RuleText) -> String {
    format!("{} {}/{}", rule.helper, rule.protocol, rule.port)
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(what: &Value) -> String {
        let mut fields = what.clone();
        fields["sequence"] = 1.into();
        fields["time"] = "2026-11-22T05:00:00.000Z".into();
        let event: EventView = serde_json::from_value(fields).unwrap();
        line(&event)
    }

    #[test]
    fn each_kind_is_a_line() {
        let router = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        let mut connection = json!({
            "kind": "connection", "router_id": router, "protocol": "tcp", "port": 21,
            "helper": "ftp", "source": "10.0.0.1:4000", "destination": "10.0.0.2:21",
            "has_helper": "yes", "reason": null,
        });
        let front = "2026-11-22T05:00:00.000Z connection  router \
                     6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab: ftp tcp/21 10.0.0.1:4000 -> 10.0.0.2:21";
        assert_eq!(shown(&connection), format!("{front} has its helper"));
        connection["has_helper"] = "no".into();
        connection["reason"] = "why".into();
        assert_eq!(shown(&connection), format!("{front} HAS NO HELPER: why"));

        let rule = json!({ "router_id": router, "protocol": "udp", "port": 69, "helper": "tftp" });
        let change = json!({
            "kind": "change", "by": "uid 0 (pid 7)", "operation": "create", "routers": [router],
            "routers_count": 1,
            "added": [rule], "added_count": 3, "removed": [], "removed_count": 0,
            "outcome": "done", "reason": null,
        });
        let expected = "2026-11-22T05:00:00.000Z change      router \
            6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab: create by uid 0 (pid 7) done +tftp udp/69 +2 more";
        assert_eq!(shown(&change), expected);
        for (kind, fields, end) in [
            ("repair", json!({ "effects": { "bind": 1 } }), ": bind 1"),
            (
                "failure",
                json!({ "reason": "why", "failures": 2 }),
                ", 2 in a row: why",
            ),
            ("recovery", json!({}), " is what it should be"),
        ] {
            let mut event = fields;
            event["kind"] = kind.into();
            event["router_id"] = router.into();
            let line = shown(&event);
            assert!(line.contains(kind) && line.ends_with(end), "{line}");
        }
        let untold = json!({ "kind": "untold", "count": 9 });
        assert!(shown(&untold).ends_with("9 more than could be told of"));
        let newer = json!({ "kind": "comet", "tail": true });
        assert!(shown(&newer).ends_with("{\"kind\":\"comet\",\"tail\":true}"));
    }
}
