//! A change that was asked for, and what the audit trail is told of it.

use std::collections::HashMap;

use super::error::ApiError;
use crate::{
    agent::{Handle, Request},
    engine::{Change, Entry},
    model::{HelperRule, Origin, RuleId},
    resource::RuleView,
};

/// What a request did, for the audit trail.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeSummary {
    pub(super) before: Vec<HelperRule>,
    pub(super) after: Vec<HelperRule>,
}

/// Makes a change that the caller may make, and says what became of it.
pub(super) async fn change(
    agent: &Handle,
    request: Request,
) -> Result<(Change, ChangeSummary), ApiError> {
    let change = agent.change(Origin::Api, request).await?;
    let rules = |entries: &[Entry]| entries.iter().map(|entry| entry.rule).collect();
    let did = ChangeSummary {
        before: rules(change.removed()),
        after: rules(change.added()),
    };
    Ok((change, did))
}

/// The rules that came with a change, also if they are gone again by now.
pub(super) fn come(agent: &Handle, change: &Change) -> HashMap<RuleId, RuleView> {
    let seen = agent.view().read();
    let come = change.added().iter();
    come.map(|entry| (entry.rule.id, RuleView::new(&seen, entry)))
        .collect()
}
