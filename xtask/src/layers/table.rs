//! Which part of conntrack-agent may import which: the truth that the code and
//! ARCHITECTURE.md are held to.

/// A layer: a top-level module of the agent, or another crate.
pub(super) struct LayerRow {
    pub(super) layer: &'static str,
    /// All of them have rows further down.
    pub(super) imports: &'static [&'static str],
}

/// From the top down; a row is changed only with a reason that ARCHITECTURE.md can give.
#[rustfmt::skip]
pub(super) const TABLE: &[LayerRow] = &[
    row("agent-main", &["cli", "kernel"]),
    row("cli", &[
        "client", "doctor", "daemon", "cleanup", "agent", "resource", "event_log", "config",
        "telemetry", "sources", "engine", "kernel", "input", "model",
    ]),
    row("client", &["resource", "sources", "model"]),
    row("doctor", &["host_state", "config", "engine", "kernel", "input", "model"]),
    row("daemon", &[
        "cleanup", "teardown", "conntrack_verifier", "api", "agent", "host_state", "reconcile", "audit", "access",
        "config", "store", "sources", "engine", "kernel", "input", "heartbeat", "model",
    ]),
    row("cleanup", &["teardown", "api", "host_state", "audit", "config", "kernel", "model"]),
    row("teardown", &["kernel", "model"]),
    row("conntrack_verifier", &["agent", "event_log", "config", "kernel", "input", "model"]),
    row("api", &[
        "agent", "resource", "event_log", "metrics", "audit", "access", "config", "sources",
        "engine", "kernel", "input", "heartbeat", "model", "conntrack_ebpf",
    ]),
    row("agent", &[
        "event_log", "metrics", "host_state", "reconcile", "audit", "access", "config", "store",
        "sources", "engine", "kernel", "input", "heartbeat", "model",
    ]),
    row("resource", &["event_log", "model", "conntrack_ebpf"]),
    row("event_log", &["reconcile", "audit", "model"]),
    row("metrics", &["reconcile", "audit"]),
    row("host_state", &["audit", "config", "store", "kernel"]),
    row("reconcile", &[
        "config", "engine", "kernel", "port_table", "heartbeat", "model", "conntrack_ebpf",
    ]),
    row("config", &[
        "telemetry", "audit", "access", "sources", "engine", "kernel", "port_table", "input", "model",
    ]),
    row("telemetry", &[]),
    row("audit", &["access", "model"]),
    row("access", &["model"]),
    row("store", &["engine", "model"]),
    row("sources", &["engine", "input", "model"]),
    row("engine", &["model"]),
    row("kernel", &["port_table", "model", "conntrack_ebpf"]),
    row("port_table", &["conntrack_ebpf"]),
    row("input", &[]),
    row("heartbeat", &[]),
    row("model", &["conntrack_ebpf"]),
    row("classifier-main", &["conntrack_ebpf"]),
    row("conntrack_ebpf", &[]),
];

const fn row(layer: &'static str, imports: &'static [&'static str]) -> LayerRow {
    LayerRow { layer, imports }
}
