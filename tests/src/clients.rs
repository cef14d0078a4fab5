//! Real clients, whose failures say what failed.

pub mod ftp;
pub mod sip;
pub mod tftp;
