//! The client of a running agent: what its control API can be asked, in the
//! crate's own types.

mod error;
mod exchange;
mod half_open;

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

pub use error::{ClientError, ResponseFault};
pub use exchange::Bounds;

use crate::{
    model::{Helper, Port, Protocol, RouterId, RuleId, protocol_name},
    resource::{
        AgentStatus, DifferenceView, EventPageView, RouterAnswer, RouterDetail, RouterDetailAnswer,
        RouterTraffic, RouterView, RuleAnswer, RuleView, RulesAnswer, TrafficAnswer,
    },
    sources::RuleSet,
};
use exchange::{Exchange, HttpRequest};

/// Where the agent listens by default.
pub const DEFAULT_SOCKET: &str = "/run/conntrack-agent/agent.sock";

const EVERY_RULE: &str = "/v1/conntrack_helpers";

/// What is to be different about a rule; what is not named stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleUpdate<'a> {
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// Its port.
    pub port: Option<Port>,
    /// Its helper, by the name that people use.
    pub helper: Option<&'a str>,
}

/// Asks an agent. Each request has a connection of its own, so a client
/// outlives a restart of the agent.
///
/// Every method fails with [`ClientError`]: the agent can't be reached, may not
/// be asked, refuses, or its answer is none.
#[derive(Debug)]
pub struct Client {
    exchange: Exchange,
}

impl Client {
    /// A client of the agent that listens on `socket`.
    ///
    /// # Errors
    /// [`ClientError::Runtime`]; whether anybody listens is not asked yet.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        Self::bounded(socket, Bounds::default())
    }

    /// The same, with other bounds on what is waited for and read.
    ///
    /// # Errors
    /// [`ClientError::Runtime`].
    pub fn bounded(socket: &Path, bounds: Bounds) -> Result<Self, ClientError> {
        let exchange = Exchange::new(socket, bounds)?;
        Ok(Self { exchange })
    }

    /// Every rule of every router, by router, protocol and port.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn rules(&self) -> Result<Vec<RuleView>, ClientError> {
        self.rules_at(EVERY_RULE)
    }

    /// The rules of one router.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` where the agent knows no such router.
    pub fn rules_of(&self, router: RouterId) -> Result<Vec<RuleView>, ClientError> {
        self.rules_at(&rules_of(router))
    }

    /// The rule with this name, whichever router it is of.
    ///
    /// # Errors
    /// [`ClientError`]; `NoSuchRule` where there is none.
    pub fn rule(&self, id: RuleId) -> Result<RuleView, ClientError> {
        let found = self.rules_at(&format!("{EVERY_RULE}?id={id}"))?;
        let mut found = found.into_iter().filter(|rule| rule.id == id);
        found.next().ok_or(ClientError::NoSuchRule(id))
    }

    /// Gives a router a rule for `port`. Without an id the agent makes one.
    ///
    /// `helper` is the name that people use, for the agent to understand: it
    /// may have an alias that stands for several of the kernel's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create(
        &self,
        router: RouterId,
        protocol: Protocol,
        port: Port,
        helper: &str,
        id: Option<RuleId>,
    ) -> Result<RuleView, ClientError> {
        let rule = fields(Some(protocol), Some(port), Some(helper), id);
        let body = json!({ "conntrack_helper": rule });
        let answer: RuleAnswer = self.ask(HttpRequest::create(rules_of(router), body))?;
        Ok(answer.conntrack_helper)
    }

    /// Lets a rule say something else.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn update(&self, rule: &RuleView, update: RuleUpdate<'_>) -> Result<RuleView, ClientError> {
        let rule_fields = fields(update.protocol, update.port, update.helper, None);
        let body = json!({ "conntrack_helper": rule_fields });
        let answer: RuleAnswer = self.ask(HttpRequest::replace(path_of(rule), body))?;
        Ok(answer.conntrack_helper)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(&self, rule: &RuleView) -> Result<(), ClientError> {
        self.exchange
            .answer_to(HttpRequest::delete(path_of(rule)))?
            .success()
    }

    /// Every router that the agent knows, by its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn routers(&self) -> Result<Vec<RouterView>, ClientError> {
        let answer: Routers = self.ask(HttpRequest::read("/v2.0/routers".into()))?;
        let mut routers = answer.routers;
        routers.sort_by_key(|router| router.id);
        Ok(routers)
    }

    /// One router.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` where the agent knows no such router.
    pub fn router(&self, id: RouterId) -> Result<RouterView, ClientError> {
        let answer: RouterAnswer = self.ask(HttpRequest::read(format!("/v2.0/routers/{id}")))?;
        Ok(answer.router)
    }

    /// Removes the rules that the API owns on a router. Returns those that were
    /// there just before; what somebody else changes in between is not seen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn clear(&self, router: RouterId) -> Result<Vec<RuleView>, ClientError> {
        let there = self.rules_at(&format!("{EVERY_RULE}?router_id={router}&origin=api"))?;
        let owned = |rule: &RuleView| rule.router_id == router && rule.origin == "api";
        let gone = there.into_iter().filter(owned).collect();
        let nothing = json!({ "conntrack_helpers": [] });
        self.exchange
            .answer_to(HttpRequest::replace(rules_of(router), nothing))?
            .success()?;
        Ok(gone)
    }

    /// Makes the rules that the API owns exactly these, on all routers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn replace_all(&self, rules: &RuleSet) -> Result<DifferenceView, ClientError> {
        self.difference(HttpRequest::replace(EVERY_RULE.into(), every(rules)))
    }

    /// What [`replace_all`](Self::replace_all) would change; nothing is changed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn compare_all(&self, rules: &RuleSet) -> Result<DifferenceView, ClientError> {
        let path = format!("{EVERY_RULE}?dry_run=true");
        self.difference(HttpRequest::rehearse(path, every(rules)))
    }

    /// How the agent is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&self) -> Result<AgentStatus, ClientError> {
        self.ask(HttpRequest::read("/v1/status".into()))
    }

    /// What has happened after the event with this number, to a router or to all.
    /// Where that is nothing, the agent waits so many seconds for something, at most
    /// 20. There may be more than one answer has: until its `last` is the number that
    /// was asked with.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn events(
        &self,
        after: u64,
        wait_seconds: u64,
        router: Option<RouterId>,
    ) -> Result<EventPageView, ClientError> {
        let of = router.map_or_else(String::new, |router| format!("&router_id={router}"));
        let path = format!("/v1/events?after={after}&wait={wait_seconds}{of}");
        self.ask(HttpRequest::read(path))
    }

    /// What the rules of each router have matched.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn traffic(&self) -> Result<Vec<RouterTraffic>, ClientError> {
        let answer: TrafficAnswer = self.ask(HttpRequest::read("/v1/traffic".into()))?;
        Ok(answer.routers)
    }

    /// What each rule of a router has matched, and its connections.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` where the agent knows no such router.
    pub fn traffic_of(&self, router: RouterId) -> Result<RouterDetail, ClientError> {
        let answer: RouterDetailAnswer =
            self.ask(HttpRequest::read(format!("/v1/traffic/{router}")))?;
        Ok(answer.router)
    }

    fn rules_at(&self, path: &str) -> Result<Vec<RuleView>, ClientError> {
        let answer: RulesAnswer = self.ask(HttpRequest::read(path.to_owned()))?;
        let mut rules = answer.conntrack_helpers;
        rules.sort_by(RuleView::by_place);
        Ok(rules)
    }

    fn difference(&self, question: HttpRequest) -> Result<DifferenceView, ClientError> {
        let mut difference: DifferenceView = self.ask(question)?;
        difference.added.sort_by(RuleView::by_place);
        difference.removed.sort_by(RuleView::by_place);
        Ok(difference)
    }

    fn ask<T: DeserializeOwned>(&self, question: HttpRequest) -> Result<T, ClientError> {
        self.exchange.answer_to(question)?.resource()
    }
}

#[derive(Deserialize)]
struct Routers {
    routers: Vec<RouterView>,
}

// Paths are made of ids alone, which have no character that means anything in
// one.

fn rules_of(router: RouterId) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}

fn path_of(rule: &RuleView) -> String {
    format!("{}/{}", rules_of(rule.router_id), rule.id)
}

/// The fields of a rule that are given.
fn fields(
    protocol: Option<Protocol>,
    port: Option<Port>,
    helper: Option<&str>,
    id: Option<RuleId>,
) -> Map<String, Value> {
    let given = [
        ("protocol", protocol.map(|it| protocol_name(it).into())),
        ("port", port.map(|it| it.get().into())),
        ("helper", helper.map(Into::into)),
        ("id", id.map(|it| it.to_string().into())),
    ];
    let given = given.into_iter();
    given
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// All rules by their routers. A router that is named without rules is none of
/// them, and so loses what it has.
fn every(rules: &RuleSet) -> Value {
    let mut routers: BTreeMap<RouterId, Vec<Value>> = BTreeMap::new();
    for target in rules.rules() {
        let helper: Helper = target.helper;
        let (protocol, name) = (helper.protocol(), helper.name());
        let rule = fields(Some(protocol), Some(target.port), Some(name), None);
        routers.entry(target.router).or_default().push(rule.into());
    }
    let routers: Vec<_> = routers
        .into_iter()
        .map(|(id, rules)| json!({ "id": id.to_string(), "conntrack_helpers": rules }))
        .collect();
    json!({ "routers": routers })
}
