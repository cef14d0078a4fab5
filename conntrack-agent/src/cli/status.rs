//! `status`: how the daemon is, in a few lines.

use std::time::Duration;

use super::output::printable;
use crate::client::AgentStatus;

/// The summary for people.
pub(super) fn summary(status: &AgentStatus) -> Vec<String> {
    let AgentStatus { rules, routers, .. } = status;
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let mut lines = vec![
        format!(
            "conntrack-agent {}, pid {}, up {uptime}",
            status.version, status.pid
        ),
        format!("agent {}", status.agent_id),
        format!(
            "rules: {} ({} active, {} degraded, {} pending, {} shadowed, {} failed)",
            rules.total, rules.active, rules.degraded, rules.pending, rules.shadowed, rules.failed
        ),
        format!(
            "routers: {} ({} active, {} pending, {} failed)",
            routers.total, routers.active, routers.pending, routers.failed
        ),
    ];
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
    lines
        .iter()
        .map(|line| printable(line).into_owned())
        .collect()
}
