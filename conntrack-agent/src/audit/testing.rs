//! Makes events for the tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{AuditRecord, Outcome, RequestId, RequestOperation};
use crate::{
    access::Principal,
    model::{Helper, HelperRule, Origin, Port, Protocol, RouterId, RuleId, RuleTarget},
};

/// Returns the time of all test events: 2027-01-15 08:00 UTC.
pub(super) fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

fn router() -> RouterId {
    "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap()
}

pub(super) fn rule(port: u16) -> HelperRule {
    HelperRule {
        id: RuleId::random(),
        target: RuleTarget {
            router: router(),
            port: Port::try_from(i64::from(port)).unwrap(),
            helper: Helper::new("ftp", Protocol::Tcp).unwrap(),
        },
        origin: Origin::Api,
    }
}

pub(super) fn event(outcome: Outcome) -> AuditRecord {
    AuditRecord {
        request: RequestId::random(),
        peer: Principal::Local {
            pid: 7,
            uid: 1000,
            gid: 100,
        },
        operation: RequestOperation::Create,
        routers: vec![router()],
        before: Vec::new(),
        after: Vec::new(),
        outcome,
        took: Duration::ZERO,
    }
}
