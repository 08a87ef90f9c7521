//! `bench cache`: what a run costs that has little or nothing to do, beside BuildKit with nothing signed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::buildkit::{self, Daemon};
use super::chain;
use super::process::{Program, Ran, in_turn_after};
use super::project::{self, Project};
use super::samples::Samples;
use super::table::{Bar, Measured, Row, Table};
use super::{Bench, StepPeers};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::tools;

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: usize = 10;
/// Steps of the chain.
const STEPS: u64 = 50;
/// Steps of the pipeline that is only planned.
const PLANNED: u64 = 1000;
/// Files of the source that is hashed, in folders of a hundred.
const FILES: u64 = 10_000;
const CACHED: Bar = Bar { milliseconds: Some(90.0), peak_kib: None };
/// The exit code of a command without a passphrase and of one with a wrong passphrase.
const LOCKED: i32 = 2;

/// What a program has to have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// Of ours: steps that were taken from earlier runs, and steps that were executed.
    Ours(u64, u64),
    /// Of ours: steps that a plan has.
    Planned(u64),
    /// Of BuildKit: steps that it took from its cache, and steps that it executed.
    Peer(u64, u64),
    /// Only the exit code says it.
    Nothing,
}

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    println!("\n# cache: runs that have little or nothing to do, beside BuildKit");
    let project = Project::new(&bench.folder.join("cache"), &bench.sluicegate)?;
    project.write("sluicegate.yaml", &chain::pipeline(STEPS))?;
    project.write("thousand.yaml", &chain::pipeline(PLANNED))?;
    project.write("files.yaml", FILES_PIPELINE)?;
    many_files(&project)?;
    project.prepare(&["--binary", "true"], &peers.trivy)?;
    let folder = bench.folder.join("buildkit-cache");
    buildkit::beside(&peers.programs, &folder, |daemon| beside(bench, table, &project, daemon))
}

fn beside(bench: &Bench<'_>, table: &mut Table, project: &Project, daemon: &Daemon) -> Outcome {
    let layout = project.path("images/base");
    let last = format!("s{STEPS}");
    let ours = |arguments: &[&str]| project.sluicegate(arguments);
    let run = ["run", "--no-scan", "-o", "json"];
    let taken = ours(&[&run[..], &[&last]].concat());
    let with_image = ours(&run);
    let changed = ours(&[&run[..], &["-f", "changed.yaml", &last]].concat());
    let one = ours(&[&run[..], &["s1"]].concat());
    let plan = ours(&["plan", "-f", "thousand.yaml", "-o", "json"]);
    let files = ours(&["plan", "-f", "files.yaml", "-o", "json"]);
    let locked = ours(&run).without("COSIGN_PASSWORD").exits(LOCKED);
    let wrong = ours(&run).env("COSIGN_PASSWORD", "wrong").exits(LOCKED);
    let peer = daemon.cached(&layout, "cached", &buildkit::dockerfile(STEPS as usize), None)?;
    let peer_changed = daemon.cached(&layout, "changed", &buildkit::dockerfile(STEPS as usize), None)?;
    let peer_one = daemon.cached(&layout, "one", &buildkit::dockerfile(1), None)?;
    let copied = "FROM base\nCOPY . /src\n";
    let peer_files = daemon.cached(&layout, "files", copied, Some(&project.path("files")))?;
    let steps = STEPS;
    let all: [(&Program, Done); 12] = [
        (&taken, Done::Ours(steps, 0)),
        (&with_image, Done::Ours(steps, 0)),
        (&changed, Done::Ours(steps - 1, 1)),
        (&one, Done::Ours(1, 0)),
        (&plan, Done::Planned(PLANNED)),
        (&files, Done::Planned(1)),
        (&locked, Done::Nothing),
        (&wrong, Done::Nothing),
        (&peer, Done::Peer(steps, 0)),
        (&peer_changed, Done::Peer(steps - 1, 1)),
        (&peer_one, Done::Peer(1, 0)),
        (&peer_files, Done::Nothing),
    ];
    for (program, _) in &all {
        commands::announce(&program.line());
    }
    // What is to be taken has to be made once.
    project.must(&["run", "--no-scan"])?;
    for program in [&peer, &peer_one, &peer_files] {
        program.run(project.scratch())?;
    }
    let programs: Vec<&Program> = all.iter().map(|(program, _)| *program).collect();
    let mut rounds = BTreeMap::from([(2, 0_u64), (9, 0)]);
    let before = |at: usize| {
        let Some(round) = rounds.get_mut(&at) else {
            // An image of the same digest is there already, but for this one.
            return if at == 1 { tools::remove(&project.path("out")) } else { Ok(()) };
        };
        *round += 1;
        match at {
            2 => project.write("changed.yaml", &with_another_end(&chain::pipeline(STEPS), &format!("- round-{round}"))),
            _ => daemon.write_dockerfile("changed", &with_another_run(&buildkit::dockerfile(STEPS as usize), *round)),
        }
    };
    let check = |at: usize, ran: &Ran| all.get(at).map_or(Ok(()), |(_, done)| check(*done, ran));
    let times = in_turn_after(&programs, bench.rounds(ROUNDS), project.scratch(), before, check)?;
    let [
        taken_times,
        image_times,
        changed_times,
        one_times,
        plan_times,
        files_times,
        locked_times,
        wrong_times,
        peers @ ..,
    ] = &times[..]
    else {
        return Err(Failure::new("twelve programs have twelve times"));
    };
    let [peer_times, peer_changed_times, peer_one_times, peer_files_times] = peers else {
        return Err(Failure::new("twelve programs have twelve times"));
    };
    let peak = taken.peak_kib(project.scratch()).map(Some)?;
    let peer_peak = daemon.peak_kib();
    let keys = wrong_times.beyond(locked_times);
    let name = "BuildKit, unsigned";
    let measured = |times: &Samples, peak_kib| Measured { times: times.clone(), peak_kib };
    let mut row = |what: String, ours: Measured, peer: Option<&Samples>, bar: Option<Bar>, counts| {
        let peer = peer.map(|times| (name.to_owned(), measured(times, peer_peak)));
        table.rows.push(Row { what, ours, peer, bar, counts });
    };
    let counts = |taken: u64, executed: u64| {
        vec![
            ("steps taken from earlier runs".to_owned(), taken, Some(taken)),
            ("steps executed".to_owned(), executed, Some(executed)),
            ("statements signed and logged".to_owned(), taken + executed, None),
        ]
    };
    let what = format!("{STEPS} steps of true in a chain, all taken from an earlier run");
    row(what.clone(), measured(taken_times, peak), Some(peer_times), Some(CACHED), counts(STEPS, 0));
    let without_keys = taken_times.beyond(&keys);
    row(
        format!("{what}, less opening the keys"),
        measured(&without_keys, None),
        Some(peer_times),
        Some(CACHED),
        Vec::new(),
    );
    row(format!("{what}, and their image, --no-scan"), measured(image_times, None), None, None, Vec::new());
    let what = format!("{STEPS} steps of true in a chain, the last one changed");
    row(what, measured(changed_times, None), Some(peer_changed_times), None, counts(STEPS - 1, 1));
    let what = "1 step of true, taken from an earlier run: the start of a run with nothing to do".to_owned();
    row(what, measured(one_times, None), Some(peer_one_times), None, counts(1, 0));
    row(format!("plan of {PLANNED} steps in a chain"), measured(plan_times, None), None, None, Vec::new());
    let what =
        format!("plan of 1 step with a source of {FILES} files of git, each hashed (BuildKit: COPY, by size and time)");
    row(what, measured(files_times, None), Some(peer_files_times), None, Vec::new());
    row(
        "opening the keys (scrypt, by design), in every run above but the plans".to_owned(),
        measured(&keys, None),
        None,
        None,
        Vec::new(),
    );
    table.notes.extend([
        format!(
            "cache: each taken step has its origin's bundle verified (signature, log entry, role, builder, age), its log and outputs hashed \
             again, and a statement of its own, signed, logged and verified. The chain's outputs are one file of {} KiB; logs are empty. \
             BuildKit looks its keys up in its daemon, which was started before, and signs nothing.",
            program_kib(project)?
        ),
        "cache: all runs are whole processes. The last step changes by its arguments before every round, so that both execute it. Keys are opened while it is planned, so that what is less opening them is less planning, too: that of 50 steps is a part of the row of 1000.".to_owned(),
        "cache: a run whose counts are not these ends the benchmark.".to_owned(),
    ]);
    Ok(())
}

const FILES_PIPELINE: &str = "version: 1\nname: files\nsources: { files: { path: files } }\n\
    defaults: { image: oci:images/base }\nsteps:\n  look:\n    run: [/usr/bin/true]\n    inputs: { /src: files }\n";

/// A repository of many small files, all of them committed.
fn many_files(project: &Project) -> Outcome {
    let folder = project.path("files");
    for number in 0..FILES {
        let inner = folder.join(format!("{:03}", number / 100));
        fs::create_dir_all(&inner).map_err(Failure::while_doing(format!("make {}", inner.display())))?;
        let (path, line) = (inner.join(format!("{number:05}.txt")), format!("file {number}\n"));
        fs::write(&path, line.repeat(1 + number as usize % 400))
            .map_err(Failure::while_doing(format!("write {}", path.display())))?;
    }
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&folder).args(["-c", "user.name=b", "-c", "user.email=b@example.org"]).args(arguments);
        commands::run(&mut command)
    };
    git(&["init", "--quiet"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message", "many files"])
}

/// The size of what the chain leaves.
fn program_kib(project: &Project) -> Outcome<u64> {
    let contents = project::contents(&project.path("out/chain"))?;
    Ok(contents.bytes / 1024)
}

/// The chain with one more argument for its last step.
fn with_another_end(pipeline: &str, argument: &str) -> String {
    let argument = argument.trim_start_matches("- ");
    let (before, last) = pipeline.rsplit_once("run: [/usr/bin/true]").unwrap_or((pipeline, ""));
    let mut text = String::from(before);
    let _ = write!(text, "run: [/usr/bin/true, {argument}]{last}");
    text
}

fn with_another_run(dockerfile: &str, round: u64) -> String {
    let before = dockerfile.trim_end().rsplit_once('\n').map_or("", |(before, _)| before);
    format!("{before}\nRUN [\"/usr/bin/true\", \"round-{round}\"]\n")
}

fn check(done: Done, ran: &Ran) -> Outcome {
    let found = match done {
        Done::Nothing => return Ok(()),
        Done::Ours(..) => counted(&ran.stdout).map(|(taken, executed)| Done::Ours(taken, executed)),
        Done::Planned(_) => {
            Json::parse(&ran.stdout).ok().map(|plan| Done::Planned(plan.get("steps").list().len() as u64))
        }
        Done::Peer(..) => {
            let (executed, cached) = buildkit::vertices(&ran.stderr);
            Some(Done::Peer(cached, executed))
        }
    };
    match found {
        Some(found) if found == done => Ok(()),
        found => Err(Failure::new(format!("a run did {found:?} and not {done:?}:\n{}{}", ran.stdout, ran.stderr))),
    }
}

/// Of the document of a run: steps that were taken and steps that were executed.
fn counted(stdout: &str) -> Option<(u64, u64)> {
    let document = Json::parse(stdout).ok()?;
    let of = |status: &str| {
        let all = document.get("steps");
        all.list().iter().filter(|step| step.get("status").as_text() == Some(status)).count() as u64
    };
    Some((of("taken"), of("passed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_step_changes() {
        let before = chain::pipeline(3);
        let after = with_another_end(&before, "round-1");
        let differ: Vec<_> = before.lines().zip(after.lines()).filter(|(one, other)| one != other).collect();
        assert_eq!(differ, [("    run: [/usr/bin/true]", "    run: [/usr/bin/true, round-1]")]);
        assert!(after.find("round-1").unwrap() > after.find("s3:").unwrap());
        let dockerfile = with_another_run(&buildkit::dockerfile(2), 7);
        assert_eq!(dockerfile, "FROM base\nRUN [\"/usr/bin/true\"]\nRUN [\"/usr/bin/true\", \"round-7\"]\n");
    }

    #[test]
    fn what_a_run_did_is_counted_and_anything_else_fails() {
        let steps = r#"{"steps":[{"status":"taken"},{"status":"taken"},{"status":"passed"}]}"#;
        assert_eq!(counted(steps), Some((2, 1)));
        assert_eq!(counted("no document"), None);
        let ran = |stdout: &str| Ran { milliseconds: 1.0, stdout: stdout.to_owned(), stderr: String::new() };
        assert!(check(Done::Ours(2, 1), &ran(steps)).is_ok());
        assert!(check(Done::Ours(3, 0), &ran(steps)).is_err());
        assert!(check(Done::Planned(3), &ran(steps)).is_ok());
        assert!(check(Done::Peer(1, 0), &ran("")).is_err());
    }
}
