//! The control API: who may do what, by which token, and what a list shows.

pub mod access;
pub mod query;
pub mod tokens;
