#![forbid(unsafe_code)]
//! Sluicegate: nothing flows downstream until it is proven.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicegate_runner::container_process::enter_if_asked();
    sluicegate_cli::main()
}
