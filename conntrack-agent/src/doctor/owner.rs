//! Checks which agent owns the pins on this host.

use std::io;

use super::Finding;
use crate::{
    config::Config,
    host_state::{FootprintError, HostState},
    input::sentence,
    kernel::{self, AgentId, Instance, Pins},
};

const CHECK: &str = "agent";

/// Returns the agent's id, from its footprint or else from the pins, and the finding
/// whether an agent would start on both.
pub(super) fn find(config: &Config) -> (Option<AgentId>, Finding) {
    let known = HostState::known(config);
    let pinned = pinned(config);
    let owner = known.as_ref().ok().copied().flatten();
    let owner = owner.or_else(|| {
        pinned
            .as_ref()
            .ok()
            .and_then(|found| found.first().copied())
    });
    (owner, judge(known, pinned))
}

fn judge(
    known: Result<Option<AgentId>, FootprintError>,
    pinned: Result<Vec<AgentId>, kernel::Error>,
) -> Finding {
    let known = match known {
        Ok(known) => known,
        Err(error) if is_forbidden(&error) => return Finding::unknown(CHECK, sentence(&error)),
        Err(error) => {
            let remedy = "the agent doesn't start: do as the sentence says";
            return Finding::wrong(CHECK, sentence(&error), remedy);
        }
    };
    let pinned = match pinned {
        Ok(pinned) => pinned,
        Err(error @ kernel::Error::NewerAbi { .. }) => {
            return Finding::wrong(CHECK, sentence(&error), "run the agent that was here last");
        }
        Err(error) => return Finding::unknown(CHECK, sentence(&error)),
    };
    let owner = known.or(pinned.first().copied());
    match (owner, pinned.iter().find(|pinned| Some(**pinned) != owner)) {
        (_, Some(other)) => Finding::wrong(
            CHECK,
            format!("something of agent {other}'s is pinned in this agent's folder"),
            "give each agent its own bpffs_dir, and restart both",
        ),
        (Some(owner), None) => Finding::ok(CHECK, format!("agent {owner}")),
        (None, None) => Finding::ok(CHECK, "no agent has worked here yet"),
    }
}

fn is_forbidden(error: &FootprintError) -> bool {
    matches!(error, FootprintError::File { source, .. }
        if source.kind() == io::ErrorKind::PermissionDenied)
}

/// Returns the owners of all pinned instances.
fn pinned(config: &Config) -> Result<Vec<AgentId>, kernel::Error> {
    let mut owners = Vec::new();
    Pins::new(&config.bpffs_dir).require_none_newer()?;
    for pins in Pins::of_all_versions(&config.bpffs_dir)? {
        for router in pins.routers()? {
            let folders = pins.instances(router);
            owners.extend(
                folders
                    .iter()
                    .filter_map(|folder| Instance::owner_of(folder)),
            );
        }
    }
    owners.dedup();
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn an_agent_works_alone_in_its_folders() {
        let (one, other) = (AgentId::random(), AgentId::random());
        for (known, pinned, expected) in [
            (None, vec![], Verdict::Ok),
            (Some(one), vec![], Verdict::Ok),
            (Some(one), vec![one], Verdict::Ok),
            (None, vec![one], Verdict::Ok),
            (None, vec![one, other], Verdict::Wrong),
            (Some(one), vec![other], Verdict::Wrong),
        ] {
            let finding = judge(Ok(known), Ok(pinned));
            assert_eq!(finding.result, expected, "{finding:?}");
        }
        let newer = kernel::Error::NewerAbi {
            folder: "/x".into(),
            pinned: 9,
            known: 2,
        };
        assert_eq!(judge(Ok(None), Err(newer)).result, Verdict::Wrong);
        let unreadable = kernel::Error::Missing("map");
        assert_eq!(judge(Ok(None), Err(unreadable)).result, Verdict::Unknown);
        let damaged = FootprintError::Damaged {
            path: "/x".into(),
            said: "no".into(),
        };
        assert_eq!(judge(Err(damaged), Ok(vec![])).result, Verdict::Wrong);
        let forbidden = FootprintError::File {
            path: "/x".into(),
            what: "read",
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(judge(Err(forbidden), Ok(vec![])).result, Verdict::Unknown);
    }
}
