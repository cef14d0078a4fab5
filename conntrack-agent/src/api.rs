//! The control API: HTTP over a Unix socket, and over loopback TCP if configured.
//!
//! A connection is let in and its peer known (`server`), it has its
//! permissions ([`crate::access`], [`tokens`]), which is asked before a body is read (`authorize`),
//! and the path's handler (`app`) answers with what the body (`body`) or the query
//! ([`query`]) asks for; each answer that says no has one form (`error`).

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
