//! What the benchmarks have in common.

pub mod machine;
pub mod samples;
