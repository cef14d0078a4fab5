//! Offers a client of a running agent's control API, in the crate's own types.

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

/// The default path of the agent's socket.
pub const DEFAULT_SOCKET: &str = "/run/conntrack-agent/agent.sock";

/// The path of the rules of all routers.
const EVERY_RULE: &str = "/v1/conntrack_helpers";

/// A client of an agent. Each request has its own connection, so that a client survives a
/// restart of the agent.
///
/// Every method fails with [`ClientError`] if the agent can't be reached, does not permit
/// the request, refuses it, or gives no valid answer.
#[derive(Debug)]
pub struct Client {
    exchange: Exchange,
}

impl Client {
    /// Returns a client of the agent that listens on `socket`. Connects only when a request
    /// is made.
    ///
    /// # Errors
    /// Returns [`ClientError::Runtime`] if the process can't make a runtime.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        Self::bounded(socket, Bounds::default())
    }

    /// Returns a client with other bounds on the time and the size of an answer.
    ///
    /// # Errors
    /// Returns [`ClientError::Runtime`] if the process can't make a runtime.
    pub fn bounded(socket: &Path, bounds: Bounds) -> Result<Self, ClientError> {
        let exchange = Exchange::new(socket, bounds)?;
        Ok(Self { exchange })
    }

    /// Returns the rules of all routers, by router, protocol and port.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn rules(&self) -> Result<Vec<RuleView>, ClientError> {
        self.rules_at(EVERY_RULE)
    }

    /// Returns the rules of one router.
    ///
    /// # Errors
    /// Returns [`ClientError`]; `Refused` if the agent does not know the router.
    pub fn rules_of(&self, router: RouterId) -> Result<Vec<RuleView>, ClientError> {
        self.rules_at(&rules_of(router))
    }

    /// Returns the rule with this id, on any router.
    ///
    /// # Errors
    /// Returns [`ClientError`]; `NoSuchRule` if there is none.
    pub fn rule(&self, id: RuleId) -> Result<RuleView, ClientError> {
        self.rules_at(&format!("{EVERY_RULE}?id={id}"))?
            .into_iter()
            .find(|rule| rule.id == id)
            .ok_or(ClientError::NoSuchRule(id))
    }

    /// Creates a rule. Without an id the agent makes one.
    ///
    /// The agent resolves the name `helper`, which can be an alias of several of the
    /// kernel's helpers.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
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

    /// Changes a rule; what is `None` stays as it is. `helper` is a name or an alias.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn update(
        &self,
        rule: &RuleView,
        protocol: Option<Protocol>,
        port: Option<Port>,
        helper: Option<&str>,
    ) -> Result<RuleView, ClientError> {
        let rule_fields = fields(protocol, port, helper, None);
        let body = json!({ "conntrack_helper": rule_fields });
        let answer: RuleAnswer = self.ask(HttpRequest::replace(path_of(rule), body))?;
        Ok(answer.conntrack_helper)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn delete(&self, rule: &RuleView) -> Result<(), ClientError> {
        self.exchange
            .answer_to(HttpRequest::delete(path_of(rule)))?
            .success()
    }

    /// Returns all routers that the agent knows, by id.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn routers(&self) -> Result<Vec<RouterView>, ClientError> {
        let answer: Routers = self.ask(HttpRequest::read("/v2.0/routers".into()))?;
        let mut routers = answer.routers;
        routers.sort_by_key(|router| router.id);
        Ok(routers)
    }

    /// Returns one router.
    ///
    /// # Errors
    /// Returns [`ClientError`]; `Refused` if the agent does not know the router.
    pub fn router(&self, id: RouterId) -> Result<RouterView, ClientError> {
        let answer: RouterAnswer = self.ask(HttpRequest::read(format!("/v2.0/routers/{id}")))?;
        Ok(answer.router)
    }

    /// Removes a router's rules of origin api. Returns the rules of just before; a change by
    /// another client in between goes unnoticed.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn clear(&self, router: RouterId) -> Result<Vec<RuleView>, ClientError> {
        let mut removed = self.rules_at(&format!("{EVERY_RULE}?router_id={router}&origin=api"))?;
        removed.retain(|rule| rule.router_id == router && rule.origin == "api");
        let nothing = json!({ "conntrack_helpers": [] });
        self.exchange
            .answer_to(HttpRequest::replace(rules_of(router), nothing))?
            .success()?;
        Ok(removed)
    }

    /// Replaces the rules of origin api on all routers.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn replace_all(&self, rules: &RuleSet) -> Result<DifferenceView, ClientError> {
        self.difference(HttpRequest::replace(EVERY_RULE.into(), every(rules)))
    }

    /// Returns what [`replace_all`](Self::replace_all) would change, and changes nothing.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn compare_all(&self, rules: &RuleSet) -> Result<DifferenceView, ClientError> {
        let path = format!("{EVERY_RULE}?dry_run=true");
        self.difference(HttpRequest::rehearse(path, every(rules)))
    }

    /// Returns the state of the agent.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn status(&self) -> Result<AgentStatus, ClientError> {
        self.ask(HttpRequest::read("/v1/status".into()))
    }

    /// Returns the events after the one with this number, of one router or of all. While
    /// there is none, the agent waits for the given time, at most 20 seconds. One answer may
    /// not have all events: there are no more when its `last` equals `after`.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
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

    /// Returns the traffic of each router's rules together.
    ///
    /// # Errors
    /// Returns [`ClientError`], as all methods do.
    pub fn traffic(&self) -> Result<Vec<RouterTraffic>, ClientError> {
        let answer: TrafficAnswer = self.ask(HttpRequest::read("/v1/traffic".into()))?;
        Ok(answer.routers)
    }

    /// Returns the traffic of each rule of a router, and the router's connections.
    ///
    /// # Errors
    /// Returns [`ClientError`]; `Refused` if the agent does not know the router.
    pub fn traffic_of(&self, router: RouterId) -> Result<RouterDetail, ClientError> {
        let answer: RouterDetailAnswer =
            self.ask(HttpRequest::read(format!("/v1/traffic/{router}")))?;
        Ok(answer.router)
    }

    /// Reads the rules at a path, in the order of lists.
    fn rules_at(&self, path: &str) -> Result<Vec<RuleView>, ClientError> {
        let answer: RulesAnswer = self.ask(HttpRequest::read(path.to_owned()))?;
        let mut rules = answer.conntrack_helpers;
        rules.sort_by(RuleView::by_place);
        Ok(rules)
    }

    /// Makes a request whose answer is a difference.
    fn difference(&self, question: HttpRequest) -> Result<DifferenceView, ClientError> {
        let mut difference: DifferenceView = self.ask(question)?;
        difference.added.sort_by(RuleView::by_place);
        difference.removed.sort_by(RuleView::by_place);
        Ok(difference)
    }

    /// Makes a request and reads the resource in its answer.
    fn ask<T: DeserializeOwned>(&self, question: HttpRequest) -> Result<T, ClientError> {
        self.exchange.answer_to(question)?.resource()
    }
}

#[derive(Deserialize)]
struct Routers {
    routers: Vec<RouterView>,
}

// Only ids are put into paths, and none of their characters has a meaning there.

fn rules_of(router: RouterId) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}

fn path_of(rule: &RuleView) -> String {
    format!("{}/{}", rules_of(rule.router_id), rule.id)
}

/// Returns the given fields of a rule.
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
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Returns the body that replaces the rules of all routers. A router without rules is left
/// out, and so loses those that it has.
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
