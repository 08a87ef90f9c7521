//! `cargo xtask bench`: a release build measured beside the programs that it is compared with, in one run, in turn. A run that did not do
//! everything that is claimed of it is a failure and no number.

mod buildkit;
mod chain;
mod machine;
mod process;
mod project;
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
use crate::tools::{self, BenchPeers};
use crate::workspace::Workspace;
use machine::Business;
use table::Table;

/// What is measured, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    verify: bool,
    chain: bool,
    /// Rounds, if not as many as each part has by itself.
    rounds: Option<usize>,
}

impl Choice {
    /// Reads the words after `bench`.
    pub fn parse(words: &[&str]) -> Outcome<Self> {
        let mut choice = Self { verify: false, chain: false, rounds: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "verify" => choice.verify = true,
                "chain" => choice.chain = true,
                "--runs" => {
                    let number = words.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
                    choice.rounds = Some(number.ok_or_else(|| Failure::new("--runs needs a number, at least 1"))?);
                }
                other => return Err(Failure::new(format!("{other}: bench [verify|chain] [--runs N]"))),
            }
        }
        if !choice.verify && !choice.chain {
            (choice.verify, choice.chain) = (true, true);
        }
        Ok(choice)
    }
}

/// What the parts share.
struct Bench<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    sluicegate: PathBuf,
    trivy: PathBuf,
    peers: BenchPeers,
    choice: Choice,
}

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
    let bench = Bench {
        workspace,
        folder,
        sluicegate,
        trivy: tools::trivy(workspace)?,
        peers: tools::bench_peers(workspace)?,
        choice,
    };
    let mut table = Table {
        at: calendar::to_rfc3339(crate::now()?),
        about: Vec::new(),
        noisy: Vec::new(),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    table.about = about(&bench, &table.at)?;
    type Part = fn(&Bench<'_>, &mut Table) -> Outcome;
    for (name, wanted, part) in
        [("verify", choice.verify, verify::measure as Part), ("chain", choice.chain, chain::measure)]
    {
        if wanted {
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
            part(&bench, &mut table)?;
        }
    }
    let markdown = table.markdown();
    write(&bench.folder.join("bench.json"), &table.json().pretty())?;
    write(&bench.folder.join("bench.md"), &markdown)?;
    println!("\n{markdown}\ntarget/bench/bench.json has every single time, bench.md this table");
    Ok(())
}

fn about(bench: &Bench<'_>, at: &str) -> Outcome<Vec<String>> {
    let size = fs::metadata(&bench.sluicegate).map_err(Failure::while_doing("look at the program"))?.len();
    let runc = commands::output(Command::new(&bench.peers.runc).arg("--version"))?;
    let runc = runc.lines().next().unwrap_or_default().replace("runc version ", "runc ");
    let [cosign, buildkit] = tools::bench_versions().map(|(name, version)| format!("{name} {version}"));
    let build =
        if std::env::var_os("SLUICEGATE_BIN").is_some() { "the build SLUICEGATE_BIN names" } else { "release build" };
    let rounds = |by_itself| bench.rounds(by_itself);
    Ok(vec![
        format!(
            "Measured {at} on {}: {build} ({}), {cosign}, {buildkit} with {runc}.",
            machine::description(),
            megabytes(size)
        ),
        format!(
            "Whole processes, wall time of the parent, in turn after a warm-up: verify {} rounds, chain {} rounds. The ratio is the median over \
             the rounds. Peak memory is of one further run, by GNU time (the largest process), of BuildKit's daemon VmHWM.",
            rounds(verify::ROUNDS),
            rounds(chain::ROUNDS)
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
    fn both_parts_are_measured_unless_one_is_named() {
        let parse = |words: &[&str]| Choice::parse(words);
        assert_eq!(parse(&[]).unwrap(), Choice { verify: true, chain: true, rounds: None });
        assert_eq!(parse(&["verify"]).unwrap(), Choice { verify: true, chain: false, rounds: None });
        assert_eq!(parse(&["chain", "--runs", "3"]).unwrap(), Choice { verify: false, chain: true, rounds: Some(3) });
        for wrong in [&["--runs"][..], &["--runs", "0"], &["--runs", "x"], &["admission"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_a_unit_that_fits() {
        assert_eq!(megabytes(14_900), "15 kB");
        assert_eq!(megabytes(17_000_000), "17.0 MB");
    }
}
