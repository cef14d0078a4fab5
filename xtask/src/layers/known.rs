//! What is not yet as it should be, with a reason for each. A line that is no longer
//! needed fails the check, so that these lists only get shorter.

/// An import that the table doesn't allow. It is not looked at for circles.
pub(super) struct KnownImport {
    /// In the folder of the agent's sources.
    pub(super) file: &'static str,
    /// The layer that it imports.
    pub(super) layer: &'static str,
    pub(super) reason: &'static str,
}

/// An import that closes a circle of files.
pub(super) struct KnownCircle {
    /// The folder that both files are in.
    pub(super) folder: &'static str,
    pub(super) file: &'static str,
    /// The file that it imports, and that leads back to it.
    pub(super) imports: &'static str,
    /// How many files there are on all the ways back, the two included.
    pub(super) size: usize,
    pub(super) reason: &'static str,
}

/// Imports against the table, a line each.
#[rustfmt::skip]
pub(super) const IMPORTS: &[KnownImport] = &[
    against("api/metrics.rs", "conntrack_ebpf", RAW_ABI),
    against("api/traffic.rs", "conntrack_ebpf", RAW_ABI),
    against("config.rs", "api", OTHERS_LIMITS),
    against("resource/schemas.rs", "conntrack_ebpf", RAW_ABI),
];

const RAW_ABI: &str = "the API shows what the model could name";
const OTHERS_LIMITS: &str = "a setting is checked by the part that it is for";

/// Imports that close circles, a line each.
#[rustfmt::skip]
pub(super) const CIRCLES: &[KnownCircle] = &[
    agent("api/query/order.rs", "api/query.rs", 2, PARENT),
    agent("api/server/answer.rs", "api/server.rs", 3, PARENT),
    agent("api/server/connection.rs", "api/server.rs", 2, PARENT),
    agent("api/server/connection_limits.rs", "api/server.rs", 2, PARENT),
    agent("api/server/listeners.rs", "api/server.rs", 2, PARENT),
    agent("cli/completions.rs", "cli.rs", 2, PARENT),
    agent("doctor/helpers.rs", "doctor.rs", 2, PARENT),
    agent("doctor/limits.rs", "doctor.rs", 2, PARENT),
    agent("doctor/machine.rs", "doctor.rs", 2, PARENT),
    agent("doctor/reverse_path.rs", "doctor.rs", 2, PARENT),
    agent("engine/change.rs", "engine/mapping.rs", 2, ENTRY),
    agent("host_state/folders.rs", "host_state.rs", 4, PARENT),
    agent("host_state/lock.rs", "host_state.rs", 2, PARENT),
    agent("host_state/record.rs", "host_state.rs", 2, PARENT),
    agent("kernel/binding/chains.rs", "kernel/binding.rs", 2, PARENT),
    agent("kernel/conntrack/message.rs", "kernel/conntrack.rs", 2, PARENT),
    agent("kernel/watch/dirty_set.rs", "kernel/watch.rs", 3, PARENT),
    agent("kernel/watch/event_loop.rs", "kernel/watch.rs", 2, PARENT),
    agent("port_table/capacity.rs", "port_table/plan.rs", 3, WANTED),
    agent("port_table/image.rs", "port_table/plan.rs", 2, WANTED),
    agent("reconcile/host/renewal.rs", "reconcile/host.rs", 3, PARENT),
    agent("reconcile/host/xdp.rs", "reconcile/host.rs", 2, PARENT),
    classifier("parse/extensions.rs", "parse.rs", 3, PARENT),
    classifier("parse/ipv4.rs", "parse.rs", 2, PARENT),
    classifier("parse/ipv6.rs", "parse.rs", 2, PARENT),
];

const PARENT: &str = "a part uses its parent's own types or helpers";
const WANTED: &str = "what is wanted stands beside the plan that leads there";
const ENTRY: &str = "what a change is made of stands in the mapping that it changes";

/// The folder of the agent's sources.
pub(super) const AGENT: &str = "conntrack-agent/src/";

const fn against(file: &'static str, layer: &'static str, reason: &'static str) -> KnownImport {
    KnownImport {
        file,
        layer,
        reason,
    }
}

const fn agent(
    file: &'static str,
    imports: &'static str,
    size: usize,
    reason: &'static str,
) -> KnownCircle {
    KnownCircle {
        folder: AGENT,
        file,
        imports,
        size,
        reason,
    }
}

const fn classifier(
    file: &'static str,
    imports: &'static str,
    size: usize,
    reason: &'static str,
) -> KnownCircle {
    KnownCircle {
        folder: "conntrack-ebpf/src/",
        file,
        imports,
        size,
        reason,
    }
}
