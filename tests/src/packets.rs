//! Packets by a grammar, and a second way to read them.
//!
//! Of the standard library alone, and of nothing of the parser under test. The
//! fuzz target, which is no part of the workspace, compiles reference.rs too.

pub mod choices;
pub mod reference;
pub mod shape;
