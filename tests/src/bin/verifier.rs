//! What the programs cost the kernel's verifier: for `cargo xtask check`, which
//! fails where this does.

use std::process::ExitCode;

use conntrack_agent::kernel::Build;
use conntrack_tests::verifier::{Figures, measure};

fn main() -> ExitCode {
    let all = match measure(&Build::built_in()) {
        Ok(all) => all,
        Err(failure) => {
            eprintln!("verifier: {failure}");
            return ExitCode::FAILURE;
        }
    };
    println!("{:<12}  {}", "program", Figures::HEAD);
    for (program, figures) in &all {
        println!("{program:<12}  {figures}");
    }
    let mut result = ExitCode::SUCCESS;
    for (program, figures) in &all {
        for excess in figures.excesses() {
            eprintln!("verifier: {program}: {excess}");
            result = ExitCode::FAILURE;
        }
    }
    result
}
