//! The product in the lab: real sessions through router namespaces.
//!
//! One test program, because cargo runs test programs one after the other and
//! these tests mostly wait.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

/// Makes a test of each row: its name, and what the module's `check` gets.
macro_rules! cases {
    ($($name:ident: $($argument:expr),+;)*) => {
        $(#[test] fn $name() { check($($argument),+); })*
    };
}

mod access;
mod adoption;
mod api;
mod attach;
mod carrier;
mod cleanup;
mod cli;
mod concurrent;
mod counting;
mod crash;
mod descriptors;
mod discovery;
mod doctor;
mod ending;
mod environment;
mod events;
mod followed;
mod ftp;
mod itself;
mod lifecycle;
mod loading;
mod managed;
mod many;
mod marks;
mod metrics;
mod opened;
mod privileges;
mod releases;
mod repair;
mod routers;
mod rules_file;
mod sip;
mod store;
mod tftp;
mod top;
mod unmounted;
mod xdp;
