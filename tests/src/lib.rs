//! The lab: routers in network namespaces, real servers and clients on both
//! sides of them, and the agent under test beside them.
//!
//! A [`lab::Lab`] owns one directory in which everything of it lives, its
//! namespaces and its bpffs included, so that any number of labs run beside
//! each other. All of it is undone when the last handle on the lab is dropped,
//! also when that is a panicking test's unwinding.
//!
//! **What is absent:** nothing here is found by a global name. No `ip netns`,
//! no interface or sysctl of the host, no fixed path, no fixed port of the host.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test's machinery fails by panicking, where and with what it found"
)]

pub mod accounts;
pub mod agent;
pub mod assembly;
pub mod attach;
pub mod audit;
pub mod bench;
pub mod clients;
pub mod connection;
pub mod conntrack;
pub mod counters;
pub mod ctnetlink;
pub mod curl;
pub mod durable;
pub mod foreign;
pub mod frames;
pub mod ftp_router;
pub mod helpers;
pub mod lab;
pub mod manager;
pub mod marks;
pub mod netns;
pub mod neutron;
pub mod packets;
pub mod process;
pub mod python;
pub mod release;
pub mod router;
pub mod router_lab;
pub mod scenario;
pub mod served;
pub mod servers;
pub mod site;
pub mod snapshot;
pub mod state;
pub mod table;
pub mod tmux;
pub mod usage;
pub mod verifier;
pub mod wait;
