//! conntrack-agent: gives routers' traffic its conntrack helpers by eBPF.
//!
//! Layers, each knowing only the ones below it; ARCHITECTURE.md has the map:
//!
//! - [`cli`], [`daemon`], [`cleanup`], [`doctor`]: the commands
//! - [`teardown`]: what removes the datapath
//! - [`client`]: what the commands ask of a running agent
//! - [`api`]: the control API: who may do what, by which token; lists
//! - [`resource`]: what the control API answers, to the agent and to its clients
//! - [`witness`]: which new connections have their helper
//! - [`agent`]: what works on mapping, store and kernel, one thing after the other
//! - [`sources`]: where rules come from, and how they become checked values
//! - [`store`]: the durable copy of the mapping
//! - [`audit`]: who asked for what, and what became of it
//! - [`metrics`]: what the agent counts of its own work
//! - [`event_log`]: what has happened lately, for whoever follows it
//! - [`reconcile`]: desired against observed, and the effects that close the gap
//! - [`port_table`]: a router's rules as the maps hold them (pure)
//! - [`engine`]: which router has which rules, and who may change that (pure)
//! - [`model`]: the values everything is made of (pure)
//! - [`heartbeat`]: how one part of the agent sees that another gets on
//! - [`kernel`]: the only code that touches the kernel

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
