//! The API's contract, on rules in memory.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::daemon::{Asked, Daemon, Reply, refusal};

pub(super) const A: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
pub(super) const B: &str = "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

/// The id of the rule with this number.
pub(super) fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(super) fn rule(number: u64, router: &str, protocol: &str, port: u16, helper: &str) -> Value {
    json!({
        "id": id(number), "router_id": router, "protocol": protocol, "port": port,
        "helper": helper, "origin": "api", "status": "active", "status_reason": null,
    })
}

/// The same rule, of another origin or state.
pub(super) fn with(mut rule: Value, key: &str, value: &str) -> Value {
    rule[key] = value.into();
    rule
}

/// A daemon that keeps the contract, and has these rules.
pub(super) fn daemon(mut rules: Vec<Value>) -> Daemon {
    let mut next = 1000;
    Daemon::new(move |asked| reply(&mut rules, &mut next, asked))
}

/// Of an agent that has not told of degraded rules yet, nor of connections.
pub(super) fn status() -> Value {
    json!({
        "version": "0.1.0", "agent_id": id(7), "pid": 42, "uptime_seconds": 3725,
        "rules": {"total": 4, "active": 1, "pending": 1, "shadowed": 1, "failed": 1},
        "routers": {"total": 3, "active": 1, "pending": 1, "failed": 1},
        "troubles": [{"router_id": B, "reason": "no nft", "failures": 3}],
    })
}

fn reply(rules: &mut Vec<Value>, next: &mut u64, (method, uri, body): &Asked) -> Reply {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let segments: Vec<_> = path.split('/').skip(1).collect();
    match (method.as_str(), &segments[..]) {
        ("GET", ["v1", "conntrack_helpers"]) => {
            let filters = || query.split('&').filter_map(|pair| pair.split_once('='));
            listed(rules, |rule| {
                filters().all(|(key, value)| rule[key] == *value)
            })
        }
        ("PUT", ["v1", "conntrack_helpers"]) => {
            replace_all(rules, next, body, query == "dry_run=true")
        }
        ("GET", ["v1", "status"]) => ok(&status()),
        ("GET", ["v2.0", "routers"]) => {
            ok(&json!({ "routers": [router(rules, B), router(rules, A)] }))
        }
        (_, ["v2.0", "routers", other, ..]) if ![A, B].contains(other) => {
            not_found("router", other)
        }
        ("GET", ["v2.0", "routers", id]) => ok(&json!({ "router": router(rules, id) })),
        ("GET", ["v2.0", "routers", router, "conntrack_helpers"]) => {
            listed(rules, |rule| rule["router_id"] == **router)
        }
        ("POST", ["v2.0", "routers", router, "conntrack_helpers"]) => {
            let made = made(next, router, &body["conntrack_helper"]);
            rules.push(made.clone());
            let body = json!({ "conntrack_helper": made });
            (StatusCode::CREATED, body.to_string())
        }
        ("PUT", ["v2.0", "routers", router, "conntrack_helpers"]) => {
            rules.retain(|rule| rule["router_id"] != **router || rule["origin"] != "api");
            let wanted = list(&body["conntrack_helpers"]);
            rules.extend(wanted.map(|wanted| made(next, router, wanted)));
            ok(body)
        }
        (method, ["v2.0", "routers", router, "conntrack_helpers", id]) => {
            let is_it = |rule: &Value| rule["id"] == *id && rule["router_id"] == *router;
            let Some(place) = rules.iter().position(is_it) else {
                return not_found("conntrack helper", id);
            };
            if method == "DELETE" {
                rules.remove(place);
                return (StatusCode::NO_CONTENT, String::new());
            }
            for (key, value) in body["conntrack_helper"].as_object().unwrap() {
                rules[place][key] = value.clone();
            }
            ok(&json!({ "conntrack_helper": rules[place] }))
        }
        _ => not_found("resource", path),
    }
}

fn list(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().unwrap().iter()
}

fn listed(rules: &[Value], fits: impl Fn(&Value) -> bool) -> Reply {
    let found: Vec<_> = rules.iter().filter(|rule| fits(rule)).collect();
    ok(&json!({ "conntrack_helpers": found }))
}

fn replace_all(rules: &mut Vec<Value>, next: &mut u64, body: &Value, dry_run: bool) -> Reply {
    let mut wanted = Vec::new();
    for router in list(&body["routers"]) {
        let id = router["id"].as_str().unwrap();
        wanted.extend(list(&router["conntrack_helpers"]).map(|rule| made(next, id, rule)));
    }
    let target =
        |rule: &Value| ["router_id", "protocol", "port", "helper"].map(|key| rule[key].clone());
    let among = |rules: &[Value], rule: &Value| rules.iter().any(|it| target(it) == target(rule));
    let (owned, others): (Vec<_>, Vec<_>) = rules
        .iter()
        .cloned()
        .partition(|rule| rule["origin"] == "api");
    let added: Vec<_> = wanted
        .iter()
        .filter(|rule| !among(&owned, rule))
        .cloned()
        .collect();
    let (unchanged, removed): (Vec<_>, Vec<_>) =
        owned.into_iter().partition(|rule| among(&wanted, rule));
    if !dry_run {
        *rules = [others, unchanged.clone(), added.clone()].concat();
    }
    ok(&json!({ "added": added, "removed": removed, "unchanged": unchanged.len() }))
}

fn made(next: &mut u64, router: &str, wanted: &Value) -> Value {
    *next += 1;
    let text = |key: &str| wanted[key].as_str().unwrap();
    let port = u16::try_from(wanted["port"].as_u64().unwrap()).unwrap();
    let made = rule(*next, router, text("protocol"), port, text("helper"));
    match wanted["id"].as_str() {
        Some(id) => with(made, "id", id),
        None => made,
    }
}

fn router(rules: &[Value], id: &str) -> Value {
    let count = rules.iter().filter(|rule| rule["router_id"] == *id).count();
    json!({
        "id": id, "name": "", "status": "ACTIVE", "status_reason": null, "rules": count,
        "namespaces": [format!("qrouter-{id}"), format!("snat-{id}")],
    })
}

fn ok(body: &Value) -> Reply {
    (StatusCode::OK, body.to_string())
}

fn not_found(what: &str, id: &str) -> Reply {
    let message = format!("there is no {what} {id}");
    (StatusCode::NOT_FOUND, refusal(&message))
}
