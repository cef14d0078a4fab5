//! What the benchmarks have in common.

pub mod circumstances;
pub mod cpu;
pub mod interval;
pub mod machine;
pub mod samples;
pub mod target;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Writes results for machines to a file, and says where.
pub fn write(path: &Path, results: &Value) {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).expect("the result's folder");
    }
    fs::write(path, format!("{results:#}\n")).expect("the result's file");
    println!("\nwritten to {}", path.display());
}
