//! The API's contract, on rules in memory.

use axum::http::{Method, StatusCode};
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
pub(super) fn daemon(rules: Vec<Value>) -> Daemon {
    let mut rules = rules;
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
    match (method, &segments[..]) {
        (&Method::GET, ["v1", "conntrack_helpers"]) => {
            let filters: Vec<_> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .collect();
            let fits = |rule: &&Value| filters.iter().all(|(key, value)| rule[key] == *value);
            let found: Vec<_> = rules.iter().filter(fits).collect();
            ok(&json!({ "conntrack_helpers": found }))
        }
        (&Method::PUT, ["v1", "conntrack_helpers"]) => {
            replace_all(rules, next, body, query == "dry_run=true")
        }
        (&Method::GET, ["v1", "status"]) => ok(&status()),
        (&Method::GET, ["v2.0", "routers"]) => {
            ok(&json!({ "routers": [router(rules, B), router(rules, A)] }))
        }
        (_, ["v2.0", "routers", other, ..]) if ![A, B].contains(other) => {
            not_found("router", other)
        }
        (&Method::GET, ["v2.0", "routers", id]) => ok(&json!({ "router": router(rules, id) })),
        (method, ["v2.0", "routers", router, "conntrack_helpers"]) => {
            let of_router = |rule: &Value| rule["router_id"] == **router;
            match *method {
                Method::GET => {
                    let found: Vec<_> = rules.iter().filter(|rule| of_router(rule)).collect();
                    ok(&json!({ "conntrack_helpers": found }))
                }
                Method::POST => {
                    let made = made(next, router, &body["conntrack_helper"]);
                    rules.push(made.clone());
                    (
                        StatusCode::CREATED,
                        json!({ "conntrack_helper": made }).to_string(),
                    )
                }
                Method::PUT => {
                    let wanted = body["conntrack_helpers"].as_array().unwrap();
                    rules.retain(|rule| !of_router(rule) || rule["origin"] != "api");
                    rules.extend(wanted.iter().map(|wanted| made(next, router, wanted)));
                    ok(&body.clone())
                }
                _ => (StatusCode::METHOD_NOT_ALLOWED, refusal("not allowed")),
            }
        }
        (method, ["v2.0", "routers", router, "conntrack_helpers", id]) => {
            let place = rules
                .iter()
                .position(|rule| rule["id"] == *id && rule["router_id"] == *router);
            let Some(place) = place else {
                return not_found("conntrack helper", id);
            };
            if *method == Method::DELETE {
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

fn replace_all(rules: &mut Vec<Value>, next: &mut u64, body: &Value, dry_run: bool) -> Reply {
    let target =
        |rule: &Value| ["router_id", "protocol", "port", "helper"].map(|key| rule[key].clone());
    let wanted: Vec<Value> = body["routers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|router| {
            let id = router["id"].as_str().unwrap();
            let rules = router["conntrack_helpers"].as_array().unwrap();
            rules.iter().map(move |rule| (id, rule))
        })
        .map(|(router, rule)| made(next, router, rule))
        .collect();
    let (owned, others): (Vec<_>, Vec<_>) = rules
        .iter()
        .cloned()
        .partition(|rule| rule["origin"] == "api");
    let among =
        |rules: &[Value], rule: &Value| rules.iter().any(|other| target(other) == target(rule));
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
    (
        StatusCode::NOT_FOUND,
        refusal(&format!("there is no {what} {id}")),
    )
}
