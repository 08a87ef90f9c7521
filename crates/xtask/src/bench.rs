//! `cargo xtask bench`: a release build measured beside the programs that it is compared with, in one run, in turn. A run that did not do
//! everything that is claimed of it is a failure and no number.

mod buildkit;
mod cached;
mod chain;
mod images;
mod log_appends;
mod machine;
mod policy;
mod process;
mod project;
mod registry;
mod samples;
mod table;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::calendar;
use crate::commands;
use crate::demo;
use crate::failure::{Failure, Outcome};
use crate::setup::{self, Extent};
use crate::tools::{self, BenchPeers, RegistryPeers};
use crate::workspace::Workspace;
use machine::Business;
use registry::Sizes;
use table::Table;

/// What is measured, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    verify: bool,
    chain: bool,
    cache: bool,
    policy: bool,
    registry: bool,
    /// Rounds, if not as many as each part has by itself.
    rounds: Option<usize>,
    sizes: Sizes,
}

const USAGE: &str =
    "bench [verify|chain|cache|policy|registry] [--runs N] [--size MIB] [--attachments N] [--entries N]";

impl Choice {
    /// Reads the words after `bench`.
    pub fn parse(words: &[&str]) -> Outcome<Self> {
        let mut choice = Self {
            verify: false,
            chain: false,
            cache: false,
            policy: false,
            registry: false,
            rounds: None,
            sizes: Sizes::default(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = |most| {
                let number = words.next().and_then(|number| number.parse().ok());
                number
                    .filter(|number| (1..=most).contains(number))
                    .ok_or_else(|| Failure::new(format!("{word} needs a number from 1 to {most}")))
            };
            match *word {
                "verify" => choice.verify = true,
                "chain" => choice.chain = true,
                "cache" => choice.cache = true,
                "policy" => choice.policy = true,
                "registry" => choice.registry = true,
                "--runs" => choice.rounds = Some(number(MOST_ROUNDS)? as usize),
                "--size" => choice.sizes.mib = number(MOST_MIB)?,
                "--attachments" => choice.sizes.attachments = number(MOST_ATTACHMENTS)?,
                "--entries" => choice.sizes.entries = number(MOST_ENTRIES)?,
                other => return Err(Failure::new(format!("{other}: {USAGE}"))),
            }
        }
        if !(choice.verify || choice.chain || choice.cache || choice.policy || choice.registry) {
            (choice.verify, choice.chain, choice.cache) = (true, true, true);
            (choice.policy, choice.registry) = (true, true);
        }
        Ok(choice)
    }
}

/// What the parts share.
struct Bench<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    sluicegate: PathBuf,
    choice: Choice,
}

/// What `verify`, `chain` and `cache` need beside us.
struct StepPeers {
    trivy: PathBuf,
    programs: BenchPeers,
}

/// What `policy` needs beside us.
struct PolicyPeers {
    trivy: PathBuf,
    opa: PathBuf,
    opa_version: &'static str,
    /// Our own measurement of a warm process.
    policy_load: PathBuf,
}

/// A part: its name, how often it does everything, and what it does.
type Part<'a> = (&'static str, usize, Box<dyn FnOnce(&mut Table) -> Outcome + 'a>);

const MOST_ROUNDS: u64 = 1000;
const MOST_MIB: u64 = 64 * 1024;
/// With the image as many as we read in one index.json.
const MOST_ATTACHMENTS: u64 = 1023;
const MOST_ENTRIES: u64 = 10_000_000;

impl Bench<'_> {
    fn rounds(&self, by_itself: usize) -> usize {
        self.choice.rounds.unwrap_or(by_itself)
    }
}

/// Builds, installs what is missing, measures, prints the table and leaves it in `target/bench`.
pub fn run(workspace: &Workspace, choice: Choice) -> Outcome {
    // Before anything of our own raises it.
    let load = Business::load_now();
    setup::check_machine(Extent::Bench)?;
    let sluicegate = demo::build_with(workspace, &["--release"])?;
    let folder = workspace.path("target/bench");
    fs::create_dir_all(&folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
    // Everything is built and installed before the first clock runs.
    let steps = if choice.verify || choice.chain || choice.cache {
        Some(StepPeers { trivy: tools::trivy(workspace)?, programs: tools::bench_peers(workspace)? })
    } else {
        None
    };
    let policies = if choice.policy {
        let (opa, opa_version) = tools::opa(workspace)?;
        let policy_load = policy_load(workspace)?;
        Some(PolicyPeers { trivy: tools::trivy(workspace)?, opa, opa_version, policy_load })
    } else {
        None
    };
    let registries =
        if choice.registry { Some((tools::registry_peers(workspace)?, append_load(workspace)?)) } else { None };
    let bench = Bench { workspace, folder, sluicegate, choice };
    let mut parts: Vec<Part<'_>> = Vec::new();
    if let Some(steps) = steps.as_ref().filter(|_| choice.verify) {
        parts.push(("verify", verify::ROUNDS, Box::new(|table| verify::measure(&bench, steps, table))));
    }
    if let Some(steps) = steps.as_ref().filter(|_| choice.chain) {
        parts.push(("chain", chain::ROUNDS, Box::new(|table| chain::measure(&bench, steps, table))));
    }
    if let Some(steps) = steps.as_ref().filter(|_| choice.cache) {
        parts.push(("cache", cached::ROUNDS, Box::new(|table| cached::measure(&bench, steps, table))));
    }
    if let Some(peers) = &policies {
        parts.push(("policy", policy::ROUNDS, Box::new(|table| policy::measure(&bench, peers, table))));
    }
    if let Some((peers, append_load)) = &registries {
        let part = |table: &mut Table| registry::measure(&bench, peers, append_load, table);
        parts.push(("registry", registry::ROUNDS, Box::new(part)));
    }
    let mut table = Table {
        at: calendar::to_rfc3339(crate::now()?),
        about: Vec::new(),
        noisy: Vec::new(),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let rounds: Vec<_> =
        parts.iter().map(|(name, rounds, _)| format!("{name} {} rounds", bench.rounds(*rounds))).collect();
    table.about = about(&bench, &table.at, steps.as_ref(), registries.as_ref().map(|(peers, _)| peers), &rounds)?;
    table.about.extend(policies.iter().map(|peers| format!("The rules of policies beside opa {}.", peers.opa_version)));
    for (name, _, part) in parts {
        let business = Business::watch(load);
        let words = format!(
            "before {name} the load was {:.2} and other programs took {:.0} % of the processors",
            business.load,
            business.share * 100.0
        );
        if business.is_noisy() {
            table.noisy.push(words);
        } else {
            table.about.push(format!("Quiet: {words}."));
        }
        part(&mut table)?;
    }
    let markdown = table.markdown();
    write(&bench.folder.join("bench.json"), &table.json().pretty())?;
    write(&bench.folder.join("bench.md"), &markdown)?;
    println!("\n{markdown}\ntarget/bench/bench.json has every single time, bench.md this table");
    Ok(())
}

/// The load that a served log is put under, built; SLUICEGATE_APPEND_LOAD names one that is built already.
fn append_load(workspace: &Workspace) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os("SLUICEGATE_APPEND_LOAD") {
        return fs::canonicalize(&named).map_err(Failure::while_doing("find what SLUICEGATE_APPEND_LOAD names"));
    }
    demo::build_program(workspace, &["-p", "sluicegate-server", "--example", "append_load", "--release"], "append_load")
}

/// The rules in a warm process, built; SLUICEGATE_POLICY_LOAD names one that is built already.
fn policy_load(workspace: &Workspace) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os("SLUICEGATE_POLICY_LOAD") {
        return fs::canonicalize(&named).map_err(Failure::while_doing("find what SLUICEGATE_POLICY_LOAD names"));
    }
    demo::build_program(workspace, &["-p", "sluicegate-policy", "--example", "policy_load", "--release"], "policy_load")
}

fn about(
    bench: &Bench<'_>,
    at: &str,
    steps: Option<&StepPeers>,
    registries: Option<&RegistryPeers>,
    rounds: &[String],
) -> Outcome<Vec<String>> {
    let size = fs::metadata(&bench.sluicegate).map_err(Failure::while_doing("look at the program"))?.len();
    let build =
        if std::env::var_os("SLUICEGATE_BIN").is_some() { "the build SLUICEGATE_BIN names" } else { "release build" };
    let mut programs = vec![format!("{build} ({})", megabytes(size))];
    let named = |(name, version): (&str, &str)| format!("{name} {version}");
    if let Some(steps) = steps {
        let runc = commands::output(Command::new(&steps.programs.runc).arg("--version"))?;
        let runc = runc.lines().next().unwrap_or_default().replace("runc version ", "runc ");
        let [cosign, buildkit] = tools::bench_versions().map(named);
        programs.extend([cosign, format!("{buildkit} with {runc}")]);
    }
    if let Some(registries) = registries {
        programs.extend(tools::registry_versions().map(named));
        let skopeo = commands::output(Command::new(&registries.skopeo).arg("--version"))?;
        programs.push(skopeo.trim().replace("skopeo version ", "skopeo "));
    }
    Ok(vec![
        format!("Measured {at} on {}: {}.", machine::description(), programs.join(", ")),
        format!(
            "Whole processes, wall time of the parent, in turn after a warm-up: {}. The ratio is the median over the rounds. Peak memory is \
             of one further run, by GNU time (the largest process), of BuildKit's daemon VmHWM.",
            rounds.join(", ")
        ),
    ])
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(Failure::while_doing(format!("write {}", path.display())))
}

fn megabytes(bytes: u64) -> String {
    if bytes < 100_000 { format!("{:.0} kB", bytes as f64 / 1e3) } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_measured_unless_one_is_named() {
        let parse = |words: &[&str]| Choice::parse(words);
        let parts = |words: &[&str]| {
            let choice = parse(words).unwrap();
            [choice.verify, choice.chain, choice.cache, choice.policy, choice.registry]
        };
        assert_eq!(parts(&[]), [true; 5]);
        assert_eq!(parts(&["verify"]), [true, false, false, false, false]);
        assert_eq!(parts(&["chain", "--runs", "3"]), [false, true, false, false, false]);
        assert_eq!(parts(&["registry", "verify"]), [true, false, false, false, true]);
        assert_eq!(parse(&["chain", "--runs", "3"]).unwrap().rounds, Some(3));
        for wrong in [&["--runs"][..], &["--runs", "0"], &["--runs", "x"], &["admission"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_parameters_with_limits() {
        assert_eq!(Choice::parse(&[]).unwrap().sizes, Sizes { mib: 1024, attachments: 1000, entries: 30_000 });
        let small = Choice::parse(&["registry", "--size", "8", "--attachments", "5", "--entries", "100"]).unwrap();
        assert_eq!(small.sizes, Sizes { mib: 8, attachments: 5, entries: 100 });
        for wrong in [&["--size", "0"][..], &["--size"], &["--attachments", "1024"], &["--entries", "-1"]] {
            assert!(Choice::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_a_unit_that_fits() {
        assert_eq!(megabytes(14_900), "15 kB");
        assert_eq!(megabytes(17_000_000), "17.0 MB");
    }
}
