//! Measures how full conntrack is in the routers' namespaces.

use std::{fmt, fs, io};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use tracing::debug;

use crate::{
    kernel::{Conntrack, Fullness, RouterNamespaces},
    model::RouterId,
};

/// The file with the limit on expectations in each namespace, one for the whole host
/// (`nf_ct_expect_max`, `net/netfilter/nf_conntrack_expect.c`).
const MOST_EXPECTED: &str = "/proc/sys/net/netfilter/nf_conntrack_expect_max";

/// The conntrack usage of a namespace.
#[derive(Debug)]
pub(super) struct NamespaceFullness {
    name: String,
    fullness: Fullness,
}

/// Measures the namespaces of these routers; keeps none of them open.
pub(super) fn of(
    on_host: &RouterNamespaces,
    routers: impl Iterator<Item = RouterId>,
) -> Vec<NamespaceFullness> {
    let names: Vec<_> = routers
        .flat_map(|router| on_host.names_of(router))
        .collect();
    on_host
        .folder()
        .visit(&names, |name, entered| {
            entered
                .map_err(io::Error::other)
                .and_then(|()| Conntrack::open()?.fullness())
                .inspect_err(|error| debug!(%error, name, "conntrack cannot be asked"))
                .ok()
                .map(|fullness| NamespaceFullness {
                    name: name.to_owned(),
                    fullness,
                })
        })
        .inspect_err(|error| debug!(%error, "namespaces cannot be visited"))
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the limit on expectations, or `None` if it can't be read.
pub(super) fn most_expected() -> Option<u64> {
    let text = fs::read_to_string(MOST_EXPECTED).ok()?;
    text.trim().parse().ok()
}

/// Encodes the usage of each namespace, and the limits.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    namespaces: &[NamespaceFullness],
    most_expected: Option<u64>,
) -> fmt::Result {
    let per_namespace = |encoder: &mut DescriptorEncoder<'_>,
                         name: &str,
                         help: &str,
                         value: fn(&NamespaceFullness) -> u64| {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for namespace in namespaces {
            let labels = [("namespace", namespace.name.as_str())];
            let value = ConstGauge::new(value(namespace));
            value.encode(metric.encode_family(&labels)?)?;
        }
        fmt::Result::Ok(())
    };
    let limit = |encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, most: u64| {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(most).encode(metric)
    };
    per_namespace(
        encoder,
        "tracked_connections",
        "Connections that conntrack has in a router's namespace",
        |namespace| namespace.fullness.usage.entries.into(),
    )?;
    let most = namespaces
        .iter()
        .map(|namespace| namespace.fullness.usage.most);
    if let Some(most) = most.max() {
        limit(
            encoder,
            "tracked_connections_limit",
            "How many it may have in each (nf_conntrack_max)",
            most.into(),
        )?;
    }
    per_namespace(
        encoder,
        "expectations",
        "Connections that helpers expect in a router's namespace",
        |namespace| namespace.fullness.expected as u64,
    )?;
    if let Some(most) = most_expected {
        limit(
            encoder,
            "expectations_limit",
            "How many they may expect in each (nf_conntrack_expect_max)",
            most,
        )?;
    }
    Ok(())
}
