//! Serves the control API: HTTP over a Unix socket, and over loopback TCP if configured.
//!
//! The server admits a connection and identifies its peer (`server`), whose permissions
//! come from the grants ([`crate::access`]) and, over TCP, from its token ([`tokens`]).
//! The route (`app`) selects a handler, which checks the permissions before the body is
//! read (`authorize`) and then reads the body (`body`) or the query ([`query`]). All
//! errors have one form (`error`).

mod app;
mod authorize;
mod body;
mod error;
mod events;
mod metrics;
mod openapi;
mod operation;
mod parameters;
mod path;
pub mod query;
mod requests;
mod reserve_fd;
mod response_budget;
mod responses;
mod result;
mod routers;
mod rules;
mod server;
mod state;
mod status;
pub mod tokens;
mod traffic;
mod versions;
mod views;

pub use app::{metrics_routes, routes};
pub use server::{ListenError, Listeners, Probe, SOCKET, Service, remove_socket, serve};
pub use state::Api;
pub use tokens::{Tokens, TokensError};
