//! Packets by a grammar, and a second way to read them.
//!
//! Of the standard library alone, and of nothing of the parser under test: the
//! fuzz targets, which are no part of the workspace, compile these files too.

pub mod choices;
pub mod reference;
pub mod shape;
