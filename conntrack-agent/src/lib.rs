//! conntrack-agent: gives routers' traffic its conntrack helpers by eBPF.
//!
//! Layers, each knowing only the ones below it; ARCHITECTURE.md has the map:
//!
//! - [`cli`], [`daemon`], [`cleanup`], [`doctor`]: the commands
//! - [`teardown`]: removes the datapath
//! - [`client`]: the client of a running agent's API
//! - [`api`]: the control API: authorization, resources, lists
//! - [`resource`]: the API's JSON types, for agent and clients
//! - [`conntrack_verifier`]: asks conntrack whether new connections have their helper
//! - [`agent`]: owns mapping, store and kernel, and applies one change after the other
//! - [`sources`]: turns rules from outside into checked values
//! - [`store`]: the durable copy of the mapping
//! - [`audit`]: the audit trail
//! - [`metrics`]: the agent's own metrics
//! - [`event_log`]: recent events, for clients that follow them
//! - [`reconcile`]: closes the gap between desired and observed state
//! - [`port_table`]: the content of a router's maps (pure)
//! - [`engine`]: the mapping of routers to rules (pure)
//! - [`model`]: the checked values that all layers use (pure)
//! - [`heartbeat`]: shows that a part of the daemon makes progress
//! - [`kernel`]: the only code that touches the kernel

pub mod access;
pub mod agent;
pub mod api;
pub mod audit;
pub mod cleanup;
pub mod cli;
pub mod client;
pub mod config;
pub mod conntrack_verifier;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod event_log;
pub mod heartbeat;
pub mod host_state;
mod input;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod port_table;
pub mod reconcile;
pub mod resource;
pub mod sources;
pub mod store;
pub mod teardown;
pub mod telemetry;

#[cfg(test)]
mod review;
