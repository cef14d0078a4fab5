//! The control API: HTTP over a Unix socket, and over loopback TCP if configured.
//!
//! A connection is let in and its peer known (`server`), the peer has a permit
//! ([`access`], [`tokens`]), which is asked before a body is read (`gate`), a
//! resource answers (`app`) with what the body (`body`) or the query
//! ([`query`]) asks for; each answer that says no has one form (`error`).

pub mod access;
mod app;
mod authorize;
mod body;
mod error;
mod events;
mod metrics;
mod openapi;
mod parameters;
mod path;
pub mod query;
mod reserve_fd;
mod response_budget;
mod responses;
mod server;
pub mod tokens;
mod traffic;
mod views;

pub use access::{Access, AccessError};
pub use app::{Api, metrics_routes, routes};
pub use openapi::Description;
pub use server::{ListenError, Listeners, Probe, SOCKET, Service, remove_socket, serve};
pub use tokens::{Tokens, TokensError};
