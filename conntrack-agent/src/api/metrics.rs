//! Answers `GET /metrics` with the agent's own metrics and with those that are gathered at
//! each scrape.

mod fullness;

use std::{fmt, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use conntrack_ebpf::abi::Counters;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::debug;

use self::fullness::NamespaceFullness;
use super::error::ApiError;
use crate::{
    access::Authorization,
    agent::{Condition, Connections, Handle},
    kernel::{RouterNamespaces, Tally, matched},
    metrics::Exposition,
    model::{Port, RuleTarget, protocol_name},
    resource::{RouterCounts, RuleCounts},
};

/// Serialises scrapes: each reads the maps of all routers, which can be a thousand.
#[derive(Clone, Debug, Default)]
pub(super) struct ScrapeLock(Arc<Mutex<()>>);

/// Returns all metrics, in OpenMetrics if the client accepts it, otherwise in the
/// Prometheus text format.
#[utoipa::path(get, tag = "agent", path = "/metrics",
    responses((status = 200, description = "The metrics", content(
        (String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(super) async fn metrics(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    State(ScrapeLock(lock)): State<ScrapeLock>,
    Extension(authorization): Extension<Authorization>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorization.may_read_metrics()?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let exposition = Exposition::accepted(accept.unwrap_or_default());
    let scrape = lock.lock().await;
    let text = spawn_blocking(move || {
        let gathered = Gathered::now(&agent, &namespaces);
        agent.metrics().text(gathered, exposition)
    })
    .await
    .ok()
    .and_then(Result::ok);
    drop(scrape);
    let text = text.ok_or_else(|| ApiError::internal("metrics could not be gathered"))?;
    let content_type = [(header::CONTENT_TYPE, exposition.content_type())];
    Ok((content_type, text).into_response())
}

/// The metrics that are gathered at a scrape.
#[derive(Debug)]
struct Gathered {
    rules: RuleCounts,
    routers: RouterCounts,
    matched: Vec<(RuleTarget, Counters)>,
    /// The control connections of each rule, by whether they have their helper.
    connections: Vec<(RuleTarget, Connections)>,
    /// The conntrack usage of the routers' namespaces.
    namespaces: Vec<NamespaceFullness>,
    /// The limit on expectations in each namespace.
    most_expected: Option<u64>,
    /// The number of routers whose counters could not be read.
    unread: usize,
    /// The counts of connection events; `None` if no router has rules, or they can't be
    /// read.
    told: Option<Tally>,
}

impl Gathered {
    /// Gathers the metrics.
    fn now(agent: &Handle, on_host: &RouterNamespaces) -> Self {
        let seen = agent.view().read();
        let (rules, routers) = (RuleCounts::of(&seen), RouterCounts::of(&seen));
        let winners: Vec<_> = seen
            .mapping
            .routers()
            .into_iter()
            // A failed router may still have its previous datapath, which goes on counting.
            .filter(|router| seen.conditions.get(router) != Some(&Condition::Pending))
            .map(|router| (router, seen.mapping.winners(router)))
            .collect();
        let connections = seen
            .connections
            .iter()
            .map(|(target, counts)| (*target, counts.clone()))
            .collect();
        // Reading maps takes long, and the agent must not wait for the view meanwhile.
        drop(seen);
        let (mut all, mut unread) = (Vec::new(), 0);
        let pins = agent.pins();
        let routers_with_rules = winners.iter().map(|(router, _)| *router);
        let namespaces = fullness::of(on_host, routers_with_rules);
        for (router, winners) in winners {
            // An instance that is being replaced has moved; the next scrape finds it.
            let Ok(Some(counters)) = matched(&pins.instance(router)) else {
                unread += 1;
                continue;
            };
            for (destination, counters) in counters {
                let port = Port::try_from(i64::from(destination.port));
                if let (Some(helper), Ok(port)) = (winners.get(&destination), port) {
                    let target = RuleTarget {
                        router,
                        port,
                        helper: *helper,
                    };
                    all.push((target, counters));
                }
            }
        }
        all.sort_unstable_by_key(|(target, _)| *target);
        let told = Tally::read(pins).unwrap_or_else(|error| {
            debug!(%error, "what the programs told of cannot be read");
            None
        });
        Self {
            rules,
            routers,
            matched: all,
            connections,
            namespaces,
            most_expected: fullness::most_expected(),
            unread,
            told,
        }
    }
}

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let rules = [
            ("active", self.rules.active),
            ("degraded", self.rules.degraded),
            ("pending", self.rules.pending),
            ("shadowed", self.rules.shadowed),
            ("failed", self.rules.failed),
        ];
        let routers = [
            ("active", self.routers.active),
            ("pending", self.routers.pending),
            ("failed", self.routers.failed),
        ];
        let help = "Rules, by whether packets meet them";
        by_status(&mut encoder, "rules", help, &rules)?;
        let help = "Routers with rules, by whether these are in force";
        by_status(&mut encoder, "routers", help, &routers)?;
        let unread = ConstGauge::new(self.unread as u64);
        let help = "Routers whose counters are not among these";
        unread.encode(encoder.encode_descriptor(
            "routers_unread",
            help,
            None,
            MetricType::Gauge,
        )?)?;
        self.per_rule(
            &mut encoder,
            "rule_packets",
            "Packets that matched a rule",
            |counters| counters.packets,
        )?;
        self.per_rule(
            &mut encoder,
            "rule_bytes",
            "Bytes of packets that matched a rule, from the network header on",
            |counters| counters.bytes,
        )?;
        self.per_fate(&mut encoder)?;
        fullness::encode(&mut encoder, &self.namespaces, self.most_expected)?;
        if let Some(told) = self.told {
            let fates = [
                ("told", told.sent),
                ("limited", told.limited),
                ("lost", told.full),
            ];
            let mut metric = encoder.encode_descriptor(
                "connection_events",
                "Packets that may begin a helper connection, by whether the program could tell of them",
                None,
                MetricType::Counter,
            )?;
            for (outcome, count) in fates {
                let labels = [("fate", outcome)];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Gathered {
    /// Encodes a counter with one value for each rule.
    fn per_rule(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        count: fn(&Counters) -> u64,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (target, counters) in &self.matched {
            let labels = labels(target);
            ConstCounter::new(count(counters)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Encodes the control connections of each rule, by whether they have their helper.
    fn per_fate(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "rule_connections",
            "Control connections that met a rule, by whether conntrack says that they have its helper; from the first that met it",
            None,
            MetricType::Counter,
        )?;
        for (target, connections) in &self.connections {
            let fates = [
                ("yes", connections.helped),
                ("no", connections.lacking),
                ("unknown", connections.unknown),
            ];
            for (has_helper, count) in fates {
                let [router, protocol, port, helper] = labels(target);
                let has_helper = ("has_helper", has_helper.to_owned());
                let labels = [router, protocol, port, helper, has_helper];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Returns the labels that identify a rule.
fn labels(target: &RuleTarget) -> [(&'static str, String); 4] {
    [
        ("router", target.router.to_string()),
        (
            "protocol",
            protocol_name(target.helper.protocol()).to_owned(),
        ),
        ("port", target.port.get().to_string()),
        ("helper", target.helper.name().to_owned()),
    ]
}

/// Encodes a gauge with one value for each status.
fn by_status(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: &[(&str, usize)],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (status, count) in counts {
        let labels = [("status", *status)];
        ConstGauge::new(*count as u64).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
