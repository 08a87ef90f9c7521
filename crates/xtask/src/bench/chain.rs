//! `bench chain`: a pipeline of steps that do nothing, one after the other, with everything on, beside BuildKit with nothing signed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use super::buildkit::{self, Daemon};
use super::process::{Program, Ran, in_turn};
use super::project::{self, Project};
use super::samples::Samples;
use super::table::{Bar, Measured, Row, Table};
use super::{Bench, StepPeers};
use crate::commands;
use crate::failure::{Failure, Outcome};

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: usize = 10;
/// Steps of the chain.
const STEPS: u64 = 50;
/// Statements about the image: provenance, SBOM and scan; without a scan its provenance alone.
const ABOUT_IMAGE: u64 = 3;
const ABOUT_IMAGE_UNSCANNED: u64 = 1;
/// Statements about what the last step left, and with a scan also its scan, and SBOM and scan of the image that the steps run in.
const BESIDE: u64 = 4;
const BESIDE_UNSCANNED: u64 = 1;
/// The exit code of a command without a passphrase and of one with a wrong passphrase.
const LOCKED: i32 = 2;

const WHOLE: Bar = Bar { milliseconds: Some(1250.0), peak_kib: None };
const STEP: Bar = Bar { milliseconds: Some(25.0), peak_kib: None };

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    println!("\n# chain: {STEPS} steps of true in a row, with everything on, beside BuildKit");
    let project = Project::new(&bench.folder.join("chain"), &bench.sluicegate)?;
    project.write("sluicegate.yaml", &pipeline(STEPS))?;
    project.write("one.yaml", &pipeline(1))?;
    project.prepare(&["--binary", "true"], &peers.trivy)?;
    let folder = bench.folder.join("buildkit");
    buildkit::beside(&peers.programs, &folder, |daemon| beside(bench, table, &project, daemon))
}

fn beside(bench: &Bench<'_>, table: &mut Table, project: &Project, daemon: &Daemon) -> Outcome {
    let layout = project.path("images/base");
    let all = project.sluicegate(&["run", "--no-cache"]);
    let unscanned = project.sluicegate(&["run", "--no-scan", "--no-cache"]);
    let one = project.sluicegate(&["run", "-f", "one.yaml", "--no-scan", "--no-cache"]);
    let peer = daemon.chain(&layout, STEPS as usize)?;
    let peer_one = daemon.chain(&layout, 1)?;
    // The one is refused before a key is opened, the other when the keys do not open.
    let locked = project.sluicegate(&["run", "--no-scan"]).without("COSIGN_PASSWORD").exits(LOCKED);
    let wrong = project.sluicegate(&["run", "--no-scan"]).env("COSIGN_PASSWORD", "wrong").exits(LOCKED);
    for program in [&all, &unscanned, &peer] {
        commands::announce(&program.line());
    }
    let ours = |steps, about_image| Some(Expected { steps, about_image });
    let expected = [
        ours(STEPS, ABOUT_IMAGE),
        ours(STEPS, ABOUT_IMAGE_UNSCANNED),
        ours(1, ABOUT_IMAGE_UNSCANNED),
        None,
        None,
        None,
        None,
    ];
    let peer_steps = [0, 0, 0, STEPS, 1, 0, 0];
    let programs: [&Program; 7] = [&all, &unscanned, &one, &peer, &peer_one, &locked, &wrong];
    let mut counter = Counter::start(project)?;
    let begun = counter.log;
    let times = in_turn(&programs, bench.rounds(ROUNDS), project.scratch(), |at, ran| match expected.get(at) {
        Some(Some(expected)) => counter.check(project, expected),
        _ => check_peer(peer_steps.get(at).copied().unwrap_or_default(), ran),
    })?;
    let ended = counter.log;
    let [all_times, unscanned_times, one_times, peer_times, peer_one_times, locked_times, wrong_times] = &times[..]
    else {
        return Err(Failure::new("seven programs have seven times"));
    };
    let peak = |program: &Program| program.peak_kib(project.scratch()).map(Some);
    let peak_all = peak(&all)?;
    counter.check(project, &Expected { steps: STEPS, about_image: ABOUT_IMAGE })?;
    let peak_unscanned = peak(&unscanned)?;
    counter.check(project, &Expected { steps: STEPS, about_image: ABOUT_IMAGE_UNSCANNED })?;
    let peer_peak = daemon.peak_kib();

    let name = "BuildKit, unsigned";
    let measured = |times: &Samples, peak_kib| Measured { times: times.clone(), peak_kib };
    let counts = |about_image: u64| {
        let bundles = STEPS + about_image + beside_the_image(about_image);
        let ours =
            [("bundles in the layout", bundles), ("log entries that prove them", bundles), ("new evidence records", 1)];
        let mut counts = vec![("steps executed".to_owned(), STEPS, Some(STEPS))];
        counts.extend(ours.map(|(name, count)| (name.to_owned(), count, None)));
        counts.push(("statements verified afterwards".to_owned(), bundles, None));
        counts
    };
    for (what, times, peak_kib, about_image) in [
        ("with SBOM and scan", all_times, peak_all, ABOUT_IMAGE),
        ("--no-scan", unscanned_times, peak_unscanned, ABOUT_IMAGE_UNSCANNED),
    ] {
        table.rows.push(Row {
            what: format!("{STEPS} steps of true in a chain, {what}"),
            ours: measured(times, peak_kib),
            peer: Some((name.to_owned(), measured(peer_times, peer_peak))),
            bar: Some(WHOLE),
            counts: counts(about_image),
        });
    }
    let per_step = |times: &Samples| measured(&times.map(|time| time / STEPS as f64), None);
    for (what, times) in [("with SBOM and scan", all_times), ("--no-scan", unscanned_times)] {
        table.rows.push(Row {
            what: format!("the same, {what}, a step (whole / {STEPS})"),
            ours: per_step(times),
            peer: Some((name.to_owned(), per_step(peer_times))),
            bar: Some(STEP),
            counts: Vec::new(),
        });
    }
    let further =
        |whole: &Samples, one: &Samples| measured(&whole.beyond(one).map(|time| time / (STEPS - 1) as f64), None);
    table.rows.push(Row {
        what: format!("each further step ((chain of {STEPS} - chain of 1) / {}), --no-scan", STEPS - 1),
        ours: further(unscanned_times, one_times),
        peer: Some((name.to_owned(), further(peer_times, peer_one_times))),
        bar: Some(STEP),
        counts: Vec::new(),
    });
    table.rows.push(Row {
        what: "a chain of 1 step, --no-scan: what every run costs".to_owned(),
        ours: measured(one_times, None),
        peer: Some((name.to_owned(), measured(peer_one_times, None))),
        bar: None,
        counts: Vec::new(),
    });
    table.rows.push(Row {
        what: "SBOM and scan (whole with them - whole without)".to_owned(),
        ours: measured(&all_times.beyond(unscanned_times), None),
        peer: None,
        bar: None,
        counts: Vec::new(),
    });
    table.rows.push(Row {
        what: "opening the keys of the builder and the log (scrypt, by design), in every run above".to_owned(),
        ours: measured(&wrong_times.beyond(locked_times), None),
        peer: None,
        bar: None,
        counts: Vec::new(),
    });
    table.notes.extend([
        format!(
            "chain: every step of ours has limits for memory, processes and processors, seccomp, a network namespace of its own, and \
             provenance that is signed, logged, verified again and made durable before the next step starts. The log had {begun} entries \
             before and {ended} after all rounds."
        ),
        "chain: with `--no-cache`, so that every step is executed.".to_owned(),
        "chain: BuildKit runs `RUN [\"/usr/bin/true\"]` on the same root with runc, without a network, with `--no-cache`, signs nothing and \
         writes no result; its daemon was started before and its peak memory is the daemon's. Ours is the whole process; its peak is that of \
         its largest process, with a scan Trivy."
            .to_owned(),
        "chain: a run whose counts are not these ends the benchmark. SBOMs are the same in every run and in the log once, so that runs after \
         the first add up to three entries less than they have bundles."
            .to_owned(),
        "chain: the time of opening the keys is that of a run with a wrong passphrase, which ends when both did not open, less one \
         without a passphrase, which ends before that."
            .to_owned(),
    ]);
    Ok(())
}

fn check_peer(steps: u64, ran: &Ran) -> Outcome {
    if steps == 0 {
        return Ok(());
    }
    let executed = buildkit::executed(ran)?;
    if executed == steps {
        Ok(())
    } else {
        Err(Failure::new(format!("BuildKit executed {executed} steps and not {steps}:\n{}", ran.stderr)))
    }
}

/// What a run with everything on leaves.
#[derive(Clone, Copy, Debug)]
struct Expected {
    steps: u64,
    about_image: u64,
}

/// What stood in the home and the layout before a run.
struct Counter {
    log: u64,
    records: (u64, u64),
    /// Whether the SBOMs of both images are in the log. They are the same in every run, signed the same, and the log takes no entry twice.
    has_sboms: bool,
    /// The chains, by their length and by whether a scanner looked, whose output's SBOM is in the log.
    outputs: BTreeSet<(u64, bool)>,
}

impl Counter {
    fn start(project: &Project) -> Outcome<Self> {
        Ok(Self { log: project.log_size()?, records: project.records()?, has_sboms: false, outputs: BTreeSet::new() })
    }

    /// Fails unless the run that has just ended left exactly what it has to, and takes its image away.
    fn check(&mut self, project: &Project, expected: &Expected) -> Outcome {
        let mut now = Self::start(project)?;
        let bundles = expected.steps + expected.about_image + beside_the_image(expected.about_image);
        let is_scanned = expected.about_image == ABOUT_IMAGE;
        now.has_sboms = self.has_sboms || is_scanned;
        now.outputs = std::mem::take(&mut self.outputs);
        let knows_output = !now.outputs.insert((expected.steps, is_scanned));
        let again = u64::from(knows_output) + if is_scanned && self.has_sboms { 2 } else { 0 };
        let layout = project.path("out/chain");
        let contents = project::contents(&layout)?;
        let verified = project.verified("oci:out/chain")?;
        let counted = [
            ("bundles in the layout", contents.bundles, bundles),
            ("of them attached to the image", contents.attached, expected.about_image),
            ("new entries of the log", now.log.saturating_sub(self.log), bundles - again),
            ("new evidence records", now.records.0.saturating_sub(self.records.0), 1),
            ("of them runs that succeeded", now.records.1.saturating_sub(self.records.1), 1),
            ("statements verified", verified.statements, bundles),
            ("log entries that prove them", verified.log_places, bundles),
        ];
        compare(&counted)?;
        *self = now;
        // A next run is not to find an image of its own digest there.
        fs::remove_dir_all(&layout).map_err(Failure::while_doing(format!("remove {}", layout.display())))
    }
}

fn beside_the_image(about_image: u64) -> u64 {
    if about_image == ABOUT_IMAGE { BESIDE } else { BESIDE_UNSCANNED }
}

/// Fails with every count that is not as expected.
fn compare(counted: &[(&str, u64, u64)]) -> Outcome {
    let wrong = counted.iter().filter(|(_, found, expected)| found != expected);
    let words: Vec<_> = wrong.map(|(what, found, expected)| format!("{what}: {found} and not {expected}")).collect();
    if words.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("a run did not do everything that is measured: {}", words.join("; "))))
    }
}

/// Steps of `true`, each of which needs the one before; the last one's output is the program that it ran.
pub(super) fn pipeline(steps: u64) -> String {
    let mut text = String::from(
        "version: 1\nname: chain\n\
         defaults: { image: oci:images/base, limits: { timeout: 1m, memory: 256MiB, pids: 64, cpus: 1 } }\nsteps:\n",
    );
    for step in 1..=steps {
        let _ = write!(text, "  s{step}:\n    run: [/usr/bin/true]\n");
        if step > 1 {
            let _ = writeln!(text, "    needs: [s{}]", step - 1);
        }
    }
    let _ = write!(
        text,
        "    outputs: {{ program: /usr/bin/true }}\nartifacts:\n  chain:\n    base: oci:images/base\n    \
         files: {{ /program: s{steps}.program }}\n    repository: oci:out/chain\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_the_chain_needs_the_one_before_and_the_last_has_the_output() {
        let text = pipeline(3);
        assert_eq!(text.matches("run: [/usr/bin/true]").count(), 3);
        assert!(text.contains("  s2:\n    run: [/usr/bin/true]\n    needs: [s1]\n"), "{text}");
        assert!(text.contains("    needs: [s2]\n    outputs: { program: /usr/bin/true }\n"), "{text}");
        assert!(text.ends_with("files: { /program: s3.program }\n    repository: oci:out/chain\n"), "{text}");
        assert!(!pipeline(1).contains("needs"));
    }

    #[test]
    fn a_count_that_is_off_by_one_fails_with_its_name() {
        compare(&[("bundles", 53, 53), ("log entries", 53, 53)]).unwrap();
        let words = compare(&[("bundles", 53, 53), ("log entries", 52, 53)]).unwrap_err().to_string();
        assert!(words.ends_with("log entries: 52 and not 53"), "{words}");
    }

    #[test]
    fn a_peer_that_did_less_is_found_out() {
        let ran = |stderr: &str| Ran { milliseconds: 1.0, stdout: String::new(), stderr: stderr.to_owned() };
        let one = "#5 [2/2] RUN [\"/usr/bin/true\"]\n#5 DONE 0.1s\n";
        check_peer(1, &ran(one)).unwrap();
        assert!(check_peer(2, &ran(one)).is_err());
        check_peer(0, &ran("")).unwrap();
    }
}
