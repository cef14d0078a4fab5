//! Answers `GET /v1/events` with the events of the log, by long polling.
//!
//! A client asks again and again, each time for the events after the last one that it
//! has, and the answer waits while there is none. So no answer grows without limit, a
//! client needs no special case for a restart, and a slow client learns how many events
//! it has missed.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
};
use serde_json::Map;
use tokio::{sync::Semaphore, time::Instant};

use super::error::ApiError;
use crate::{
    access::Authorization,
    agent::Handle,
    event_log::{Event, LoggedEvent},
    model::RouterId,
    resource::{EventPageView, EventView},
};

/// The maximum number of events in one answer; an event has some hundred bytes.
const MOST: usize = 500;

/// The maximum number of waiting requests, of callers that may read all routers and of
/// other callers each. A waiting request counts against the limit on requests too.
const FOLLOWERS: usize = 16;

/// The longest wait, in seconds.
const LONGEST_WAIT: u64 = 20;

/// The limits on waiting requests.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    /// The limit for callers that may read all routers.
    of_all: Arc<Semaphore>,
    /// The limit for other callers.
    of_some: Arc<Semaphore>,
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            of_all: Arc::new(Semaphore::new(FOLLOWERS)),
            of_some: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }
}

/// The query: which events, and how long to wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only events with a `sequence` above this number; by default all that the log still
    /// has.
    after: Option<u64>,
    /// The longest time to wait while there is no such event, in seconds.
    #[param(maximum = 20)]
    wait: Option<u64>,
    /// Only events that concern this router.
    #[param(value_type = Option<String>, format = Uuid)]
    router_id: Option<RouterId>,
}

impl Wanted {
    /// Parses the query, or returns what is wrong with it.
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut wanted = Self::default();
        for part in query.unwrap_or_default().split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "" if part.is_empty() => continue,
                "after" => &mut wanted.after,
                "wait" => &mut wanted.wait,
                "router_id" => {
                    let id = value.parse().map_err(|_| "router_id must be a UUID")?;
                    if wanted.router_id.replace(id).is_some() {
                        return Err("router_id is given twice".into());
                    }
                    continue;
                }
                _ => {
                    return Err(
                        "the query may have after=, wait= and router_id=, and nothing else".into(),
                    );
                }
            };
            let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
            // The OpenAPI document declares an int64, so 63 bits are the limit.
            let number = value
                .parse()
                .ok()
                .filter(|_| is_number)
                .map(i64::cast_unsigned)
                .ok_or_else(|| format!("{name} must be a whole number"))?;
            if place.replace(number).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        match wanted.wait {
            Some(wait) if wait > LONGEST_WAIT => {
                Err(format!("wait must be at most {LONGEST_WAIT} seconds"))
            }
            _ => Ok(wanted),
        }
    }
}

fn shown(entry: &LoggedEvent) -> EventView<Event> {
    EventView {
        sequence: entry.sequence,
        time: humantime::format_rfc3339_millis(entry.at).to_string(),
        what: entry.what.clone(),
    }
}

/// Lists the events after a given one that concern only routers which the caller may
/// read; waits for one if asked to.
#[utoipa::path(get, tag = "agent", path = "/v1/events", params(Wanted),
    responses((status = 200, description = "The events", body = EventPageView)))]
pub(super) async fn events(
    State(agent): State<Handle>,
    State(followers): State<Followers>,
    Extension(authorization): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventPageView<Event>>, ApiError> {
    let wanted = Wanted::parse(query.as_deref()).map_err(ApiError::invalid)?;
    let event_log = Arc::clone(agent.event_log());
    let after = wanted.after.unwrap_or(0);
    let sees_all = authorization.may_read_all().is_ok();
    // An event that names no router concerns all of them.
    let is_for = |entry: &LoggedEvent| match (&entry.routers[..], wanted.router_id) {
        ([], None) => sees_all,
        ([], Some(_)) => false,
        (routers, wanted) => {
            wanted.is_none_or(|router| routers.contains(&router))
                && (sees_all
                    || routers
                        .iter()
                        .all(|router| authorization.may_read(*router).is_ok()))
        }
    };
    let mut page = event_log.after(after, MOST);
    if let Some(wait) = wanted.wait.filter(|wait| *wait > 0) {
        let places = if sees_all {
            &followers.of_all
        } else {
            &followers.of_some
        };
        let _room = places.try_acquire().map_err(|_| {
            ApiError::busy(format!(
                "{FOLLOWERS} wait for events already; ask without wait="
            ))
        })?;
        let end = Instant::now() + Duration::from_secs(wait);
        // Events that the caller may not see don't end the wait.
        while !page.entries.iter().any(|entry| is_for(entry))
            && event_log.wait(page.last, end).await
        {
            let missed = page.missed;
            page = event_log.after(page.last, MOST);
            page.missed += missed;
        }
    }
    Ok(Json(EventPageView {
        run: event_log.run().to_string(),
        events: page
            .entries
            .iter()
            .filter(|entry| is_for(entry))
            .map(|entry| shown(entry))
            .collect(),
        missed: page.missed,
        last: page.last,
        other: Map::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_two_numbers_at_most() {
        let wanted = |after, wait| {
            Ok(Wanted {
                after,
                wait,
                router_id: None,
            })
        };
        let id = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        let of_one = Wanted::parse(Some(&format!("router_id={id}"))).unwrap();
        assert_eq!(of_one.router_id, Some(id.parse().unwrap()));
        assert_eq!(Wanted::parse(None), wanted(None, None));
        assert_eq!(Wanted::parse(Some("")), wanted(None, None));
        assert_eq!(Wanted::parse(Some("after=7")), wanted(Some(7), None));
        let both = Wanted::parse(Some("wait=20&after=0"));
        assert_eq!(both, wanted(Some(0), Some(20)));
        for (query, word) in [
            ("after=", "whole number"),
            ("after", "whole number"),
            ("after=-1", "whole number"),
            ("after=%2B1", "whole number"),
            ("after=+1", "whole number"),
            ("after=9223372036854775808", "whole number"),
            ("after=1&after=1", "twice"),
            ("wait=21", "at most 20"),
            ("since=1", "nothing else"),
            ("router_id=x", "UUID"),
        ] {
            let why = Wanted::parse(Some(query)).unwrap_err();
            assert!(why.contains(word), "{query}: {why}");
        }
    }
}
