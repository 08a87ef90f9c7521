#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's program; what it prints is what it is for"
)]
//! `cargo xtask`: what a developer, a newcomer and CI run. It has no dependencies, so that it compiles in seconds on a new machine and can
//! say what is missing before the big build begins.

pub mod advisories;
pub mod advisory_db;
pub mod bench;
pub mod bolt_file;
pub mod calendar;
pub mod checksum;
pub mod ci;
pub mod commands;
pub mod demo;
pub mod demo_record;
pub mod failure;
pub mod json;
pub mod oci_layout;
pub mod registry;
pub mod setup;
pub mod shipped_layout;
pub mod test_suite;
pub mod tools;
pub mod workspace;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use failure::{Failure, Outcome};
use setup::Extent;
use test_suite::Choice;
use workspace::Workspace;

const USAGE: &str = "cargo xtask COMMAND

  demo [--no-scan]     builds, then shows the main job on the sample project; leaves target/demo/demo.json
  demo --registry [HOST]
                       with one act more: the same build in a registry, the one at HOST, which has to be on this
                       machine, or one of its own (setup --peers installs it)
  demo-replay          runs the commands of target/demo/demo.json again and compares
  test [--fast]        every test; --fast: those inside the crates
  ci                   format, clippy, documentation, tests, demo, its replay, demo with a registry, dependencies
  setup [--peers|--bench]
                       checks this machine, installs Trivy; --peers: also cosign, OPA, registries and their
                       clients; --bench: what bench compares us with
  bench [verify|chain|cache|registry] [--runs N] [--size MIB] [--attachments N] [--entries N]
                       measures a release build beside cosign, BuildKit, and skopeo, crane and oras with a registry;
                       leaves target/bench/bench.json and bench.md. Sizes are those of registry
  advisory-db DIR [--updated-at RFC3339]
                       writes a small vulnerability database of real advisories and prints its digest
  shipped-layout       makes fixtures/verified-layout anew";

/// Does what `arguments` (without the program's name) ask for.
pub fn run(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["demo"] => demo::run(&Workspace::locate()?, true).map(|_| ()),
        ["demo", "--no-scan"] => demo::run(&Workspace::locate()?, false).map(|_| ()),
        ["demo", "--registry"] => demo::run_with_registry(&Workspace::locate()?, None).map(|_| ()),
        ["demo", "--registry", host] => demo::run_with_registry(&Workspace::locate()?, Some(host)).map(|_| ()),
        ["demo-replay"] => demo_record::replay(&Workspace::locate()?),
        ["test"] => test_suite::run(&Workspace::locate()?, Choice { fast: false, demand_peers: in_ci() }),
        ["test", "--fast"] => test_suite::run(&Workspace::locate()?, Choice { fast: true, demand_peers: false }),
        ["ci"] => ci::run(&Workspace::locate()?),
        ["setup"] | ["setup", "--trivy-only"] => setup::run(&Workspace::locate()?, Extent::Trivy),
        ["setup", "--peers"] => setup::run(&Workspace::locate()?, Extent::Peers),
        ["setup", "--bench"] => setup::run(&Workspace::locate()?, Extent::Bench),
        ["bench", ref rest @ ..] => bench::run(&Workspace::locate()?, bench::Choice::parse(rest)?),
        ["shipped-layout"] => shipped_layout::make(&Workspace::locate()?),
        ["advisory-db", dir] => advisory_db(dir, now()?),
        ["advisory-db", dir, "--updated-at", moment] => {
            let seconds = calendar::from_rfc3339(moment);
            advisory_db(dir, seconds.ok_or_else(|| Failure::new(format!("{moment} is not YYYY-MM-DDTHH:MM:SSZ")))?)
        }
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Failure::new(USAGE)),
    }
}

fn advisory_db(dir: &str, updated_at: u64) -> Outcome {
    let dir = Path::new(dir);
    advisory_db::write(dir, updated_at).map_err(Failure::while_doing(format!("write {}", dir.display())))?;
    println!("{}", advisory_db::digest(dir).map_err(Failure::while_doing("hash the database"))?);
    Ok(())
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

fn now() -> Outcome<u64> {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Ok(since.as_secs()),
        Err(_) => Err(Failure::new("this machine's clock stands before 1970")),
    }
}
