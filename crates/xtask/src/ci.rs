//! `cargo xtask ci`: everything that has to hold before a change is taken, each part timed, all of them run even if one fails.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::commands;
use crate::demo::{self, Shown};
use crate::demo_record;
use crate::failure::{Failure, Outcome};
use crate::test_suite::{self, Choice};
use crate::tools;
use crate::workspace::Workspace;

type Part = (&'static str, fn(&Workspace) -> Outcome);

const PARTS: [Part; 9] = [
    ("format", |workspace| cargo(workspace, &["fmt", "--all", "--check"], &[])),
    ("clippy", |workspace| {
        cargo(workspace, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
    }),
    ("documentation", |workspace| {
        let strict = [("RUSTDOCFLAGS", "-D warnings")];
        cargo(workspace, &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"], &strict)
    }),
    ("tests", |workspace| test_suite::run(workspace, Choice { fast: false, demand_peers: true })),
    ("demo, no scan", |workspace| demo::run(workspace, false).map(drop)),
    ("demo", |workspace| whole(demo::run(workspace, true)?)),
    ("demo again", demo_record::replay),
    ("demo, registry", |workspace| whole(demo::run_with_registry(workspace, None)?)),
    ("dependencies", dependencies),
];

/// Runs every part and prints the table.
pub fn run(workspace: &Workspace) -> Outcome {
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = part(workspace);
        if let Err(failure) = &outcome {
            println!("{failure}");
        }
        rows.push((name, started.elapsed(), outcome.is_ok()));
    }
    println!("\n{}", table(&rows));
    let failed: Vec<_> = rows.iter().filter(|(_, _, good)| !good).map(|(name, _, _)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("failed: {}", failed.join(", ")))) }
}

fn table(rows: &[(&str, Duration, bool)]) -> String {
    let line = |name: &str, time: Duration, word: &str| format!("{name:<16}{:>8.1} s  {word}\n", time.as_secs_f32());
    let mut text = String::new();
    for (name, time, good) in rows {
        text.push_str(&line(name, *time, if *good { "ok" } else { "FAILED" }));
    }
    text + &line("in all", rows.iter().map(|(_, time, _)| *time).sum(), "")
}

fn cargo(workspace: &Workspace, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    commands::announce(&format!("cargo {}", arguments.join(" ")));
    commands::run(workspace.cargo().args(arguments).envs(environment.iter().copied()))
}

fn whole(shown: Shown) -> Outcome {
    match shown {
        Shown::Everything => Ok(()),
        Shown::WithoutSteps => Err(Failure::new("steps cannot run on this machine; CI needs one where they can")),
    }
}

fn dependencies(workspace: &Workspace) -> Outcome {
    let program = tools::cargo_deny(workspace)?;
    commands::announce("cargo deny check bans licenses sources");
    commands::run(Command::new(program).current_dir(workspace.root()).args(["check", "bans", "licenses", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_failed_and_adds_up() {
        let rows = [("format", Duration::from_millis(1_500), true), ("tests", Duration::from_secs(60), false)];
        let text = table(&rows);
        assert_eq!(
            text,
            "format               1.5 s  ok\ntests               60.0 s  FAILED\nin all              61.5 s  \n"
        );
    }
}
