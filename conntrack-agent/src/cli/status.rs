//! The `status` command: prints a summary to be read in five seconds: first whether
//! anything needs attention, then the counts, then each problem.

use std::time::Duration;

use super::terminal::printable;
use crate::resource::AgentStatus;

/// Formats the summary for people.
pub(super) fn summary(status: &AgentStatus) -> Vec<String> {
    let AgentStatus { rules, routers, .. } = status;
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let wrong = listed(&[
        (routers.failed, "router failed", "routers failed"),
        (rules.degraded, "rule degraded", "rules degraded"),
    ]);
    let verdict = match wrong {
        None => "all is well".to_owned(),
        Some(wrong) => format!("NEEDS A LOOK: {wrong}"),
    };
    let counted = |what: &str, total: usize, states: &[(usize, &str)]| {
        let each = states.iter().map(|(count, state)| (*count, *state, *state));
        match listed(&each.collect::<Vec<_>>()) {
            Some(parts) => format!("{what}: {total} ({parts})"),
            None => format!("{what}: {total}"),
        }
    };
    let of_rules = [
        (rules.active, "active"),
        (rules.degraded, "degraded"),
        (rules.pending, "pending"),
        (rules.shadowed, "shadowed"),
        (rules.failed, "failed"),
    ];
    let of_routers = [
        (routers.active, "active"),
        (routers.pending, "pending"),
        (routers.failed, "failed"),
    ];
    let mut lines = vec![
        verdict,
        counted("rules", rules.total, &of_rules),
        counted("routers", routers.total, &of_routers),
    ];
    if let Some(connections) = status.connections {
        lines.push(format!(
            "connections: {} with their helper, {} without, {} unknown",
            connections.helped, connections.lacking, connections.unknown
        ));
    }
    lines.push(format!(
        "conntrack-agent {}, pid {}, up {uptime}, agent {}",
        status.version, status.pid, status.agent_id
    ));
    lines.extend(status.troubles.iter().map(|trouble| {
        let times = match trouble.failures {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        format!(
            "router {} failed {times}: {}",
            trouble.router_id, trouble.reason
        )
    }));
    if rules.degraded > 0 {
        lines.push(
            "degraded: connections without their helper; `helper list` says why, `events` \
             which"
                .to_owned(),
        );
    }
    lines
        .iter()
        .map(|line| printable(line).into_owned())
        .collect()
}

/// Lists the counts above 0, each with its name for one or for several; `None` if there
/// are none.
fn listed(counts: &[(usize, &str, &str)]) -> Option<String> {
    let part = |(count, one, several): &(usize, &str, &str)| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {several}")),
    };
    let parts: Vec<_> = counts.iter().filter_map(part).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
