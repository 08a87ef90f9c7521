//! `cargo xtask test`: every test, with the real programs they compare us with, as far as these are installed.

use crate::commands;
use crate::demo;
use crate::failure::{Failure, Outcome};
use crate::setup::{self, Extent};
use crate::tools;
use crate::workspace::Workspace;

/// Which tests run, and what is demanded of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Only the tests inside the crates: no built binary, no real programs.
    pub fast: bool,
    /// A missing program is a failure and no skip.
    pub demand_peers: bool,
}

/// Runs the tests.
pub fn run(workspace: &Workspace, choice: Choice) -> Outcome {
    let mut cargo = workspace.cargo();
    if choice.fast {
        cargo.args(["test", "--workspace", "--lib", "--bins"]);
        commands::announce("cargo test --workspace --lib --bins");
        return commands::run(&mut cargo);
    }
    setup::check_machine(Extent::Trivy)?;
    if let Err(failure) = tools::trivy(workspace) {
        println!("trivy could not be installed: {failure}");
    }
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    // Most of what they do is to wait for other programs and for the disk.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cargo.env("RUST_TEST_THREADS", (2 * processors).to_string());
    let mut missing = Vec::new();
    cargo.envs(tools::for_tests(workspace, |name| missing.push(name.to_owned())));
    for name in &missing {
        println!("skipped: tests against the real {name}; cargo xtask setup --peers installs it");
    }
    if choice.demand_peers {
        if !missing.is_empty() {
            return Err(Failure::new(format!(
                "missing here: {}; cargo xtask setup --peers installs them",
                missing.join(", ")
            )));
        }
        cargo.env("SLUICEGATE_REQUIRE_PEERS", "1");
    }
    cargo.env("SLUICEGATE_BIN", demo::build(workspace)?);
    commands::announce("cargo test --workspace --no-fail-fast");
    commands::run(&mut cargo)
}
