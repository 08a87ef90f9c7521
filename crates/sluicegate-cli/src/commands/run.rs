use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;
use sluicegate_attestation::test_result::TestResult;
use sluicegate_flow::{
    Error, Failure,
    run::{self as flow, Selection, StepReport, StepStatus},
    steps::StepEvent,
};
use sluicegate_pipeline::pipeline::Pipeline;
use sluicegate_ports::{
    Clock,
    execute::StepExecutor,
    scan::{ScanIndex, Scanner},
    shared_cache::SharedCache,
    step_cache::StepCache,
    trees::TreePacker,
};
use sluicegate_types::{Digest, OutputName, RunId, StepName};

use super::{later, pipeline::OpenedPipeline, promote::With, release::Releases};
use crate::{
    amounts::steps,
    arguments::Run,
    gateway_folder::GatewayFolder,
    interrupts, passphrase,
    progress::{Form, Progress},
    wire::{self, Logging, SystemClock, Wired},
    words::{Problem, Words, printable},
};

/// `run`.
pub(crate) fn run(words: &Words, arguments: &Run) -> Result<ExitCode, Problem> {
    later("--engine", arguments.later.engine.is_some())?;
    let form = Form::of(words, arguments.progress.form)?;
    let opened = OpenedPipeline::open(&arguments.file, &arguments.gateway, &arguments.values)?;
    let OpenedPipeline { pipeline, folder, gateway, trust, wired, executor, .. } = &opened;
    // Found out before a passphrase is asked for, a key is opened or a run is on record.
    arguments.steps.iter().try_for_each(|name| pipeline.step(name).map(drop)).map_err(Error::from)?;
    let releases = Releases::open(&opened, arguments)?;
    let names: BTreeSet<StepName> = arguments.steps.iter().cloned().collect();
    let selection = (!names.is_empty()).then_some(Selection { steps: names, only: arguments.only });
    let export = arguments.export.as_deref().map(Export::prepare).transpose()?;
    let secrets = match &selection {
        None => opened.secrets(&pipeline.steps)?,
        Some(selection) => opened.secrets(pipeline.with_what_they_need(&selection.steps))?,
    };
    let stop = interrupts::listen()?;
    let shared = opened.shared_store(!arguments.no_cache, &stop)?;
    let scanner = match (&gateway.gateway.scanner, arguments.no_scan || selection.is_some()) {
        (_, true) => None,
        (Some(trivy), false) => {
            let name = pipeline.name.as_str();
            Some(wired.scanner(executor, trivy, &gateway.folder, arguments.trivy.as_deref(), name)?)
        }
        (None, false) => {
            return Err(Problem::usage(
                "the gateway file names no scanner, so there would be no SBOM and no scan",
                format!(
                    "{}; or run with --no-scan: no gate that asks for a scan allows what comes of it",
                    gateway.how_to_add_a_scanner()
                ),
            ));
        }
    };
    // Found out before a passphrase is asked for and anything is unpacked, where something is executed in any case.
    if scanner.is_some() || arguments.no_cache {
        executor.probe().map_err(Error::from)?;
    }
    let passphrase = passphrase::ask(false)?;
    let scanner = scanner.map(|scanner| scanner.stopped_by(stop.clone()));
    let run = run_id()?;
    let progress = Progress::begin(words, form, pipeline, Some(run.clone()));
    let tell = |line: &str| progress.tell(line);
    let warn = |line: &str| progress.warn(line);
    let on_event = |event: &StepEvent<'_>| progress.event(event);
    let pinning = opened.pin_request(selection.as_ref(), &stop);
    let signing = &gateway.gateway.signing;
    let logging = Logging { gateway, trust, words };
    let (keys, pinned) = std::thread::scope(|scope| {
        let keys = wired.begin_to_open(scope, &signing.steps, &passphrase, gateway, &stop)?;
        // What promotes is opened before the run: a key that is missing is not found out after it.
        let open = || wire::begin(scope, &stop, || wired.signer(&signing.records, &passphrase));
        let records = releases.are_asked_for().then(open).transpose()?;
        let pinned = flow::pin(&wired.workbench(&tell), &pinning);
        let records =
            records.map(|records| records.join().map_err(|_| Error::Bug("opening a key broke off".to_owned()))?);
        Ok::<_, Problem>(((keys.finish(wired, logging)?, records.transpose()?), pinned))
    })?;
    let ((signer, log, ledger), records) = keys;
    let scans = wired.scan_index();
    let request = flow::RunRequest {
        pinning,
        run,
        scanner: scanner.as_ref().map(|scanner| scanner as &dyn Scanner),
        signer: signer.as_ref(),
        trust,
        scratch: wired.scratch(),
        arguments: &opened.arguments,
        secrets: &secrets,
        private: &opened.private,
        cache: (!arguments.no_cache).then_some(&opened.cache as &dyn StepCache),
        scans: (!arguments.no_cache).then_some(&scans as &dyn ScanIndex),
        shared: shared.as_ref().map(|shared| shared as &dyn SharedCache),
        domain: opened.domain,
        release: releases.are_asked_for(),
        keep_going: arguments.keep_going,
        capacity: Wired::capacity(arguments.jobs),
        observe: arguments.observe,
        on_event: &on_event,
    };
    let ports = wired.ports(log.as_ref(), &ledger, &tell, &warn);
    let ran = flow::run(&ports, &request, pinned);
    drop(progress);
    let exported = export.map_or(Ok(()), |export| {
        let steps = match &ran {
            Ok(report) => &report.steps,
            Err(failed) => &failed.report.steps,
        };
        export.write(&wired.packer, steps)
    });
    let report = match ran {
        Ok(report) => report,
        Err(failed) => {
            for other in failed.other_failures() {
                words.warn(&other);
            }
            // What ended the run decides how it ended; that what it left is not where it was asked for is told beside it.
            if let Err(problem) = exported {
                words.warn(&format!("--export: {}", problem.lines().join("; ")));
            }
            let is_stopped = failed.error.failure() == Failure::Stopped;
            let problem = Problem::from(*failed.error).recorded(failed.record);
            return Err(if is_stopped { problem.or_also("what was proved stays in the log") } else { problem });
        }
    };
    let mut run = document(&report);
    if !words.json() {
        print(words, &report, pipeline, folder, gateway, &releases.artifacts());
    }
    exported?;
    let mut code = 0;
    if let Some(records) = records {
        let (tell, warn) = (|line: &str| words.tell(line), |line: &str| words.warn(line));
        let ports = wired.ports(log.as_ref(), &ledger, &tell, &warn);
        let with = With { ports: &ports, wired, gateway, trust, records: records.as_ref(), passphrase: &passphrase };
        let (worst, promotions) = releases.promote(words, &with, (&report.images, folder), &stop);
        run["promotions"] = promotions.into();
        code = worst;
    }
    if words.json() {
        words.document(&run);
    }
    words.finished(code);
    Ok(ExitCode::from(code))
}

/// A folder for what steps left.
struct Export(PathBuf);

impl Export {
    /// Finds out before anything runs that it can be written.
    fn prepare(folder: &Path) -> Result<Self, Problem> {
        std::fs::create_dir_all(folder).map_err(|error| Problem::io("make the folder", folder, &error))?;
        let mut entries = std::fs::read_dir(folder).map_err(|error| Problem::io("read", folder, &error))?;
        if entries.next().is_some() {
            return Err(Problem::usage(
                format!("--export: {} is not empty", folder.display()),
                "name a new folder, so that nothing of an earlier run is taken for this one's",
            ));
        }
        Ok(Self(folder.to_owned()))
    }

    fn write(&self, packer: &dyn TreePacker, steps: &[StepReport]) -> Result<(), Problem> {
        for step in steps {
            let folder = self.0.join(step.step.as_str());
            for product in step.outputs.values().chain(&step.report) {
                std::fs::create_dir_all(&folder).map_err(|error| Problem::io("make the folder", &folder, &error))?;
                let to = folder.join(product.name.as_str());
                packer.unpack(product.content, product.executable, &to).map_err(Error::from)?;
            }
        }
        Ok(())
    }
}

fn document(report: &flow::RunReport) -> serde_json::Value {
    json!({
        "schemaVersion": 1,
        "run": report.run,
        "steps": report.steps.iter().map(step_document).collect::<Vec<_>>(),
        "tests": report.tests.iter().map(|(step, result)| json!({
            "step": step, "passed": result.passed(),
            "counts": {"passed": result.junit.passed.len(), "failed": result.junit.failed.len(),
                       "errors": result.junit.errors.len(), "skipped": result.junit.skipped.len()},
        })).collect::<Vec<_>>(),
        "images": report.images.iter().map(|image| json!({
            "artifact": image.artifact, "digest": image.digest, "repository": image.repository,
            "attestations": image.attestations, "findings": image.findings,
            "platforms": image.platforms.iter().map(|(platform, digest)| {
                json!({"platform": platform.to_string(), "digest": digest})
            }).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

/// `promoted` are artifacts about which more is to be said.
fn print(
    words: &Words,
    report: &flow::RunReport,
    pipeline: &Pipeline,
    folder: &Path,
    gateway: &GatewayFolder,
    promoted: &BTreeSet<&OutputName>,
) {
    let taken = report.steps.iter().filter(|step| step.status == StepStatus::Taken).count();
    if taken > 0 {
        words.line(format!(
            "{taken} of {} taken from earlier runs, their content hashed again",
            steps(report.steps.len())
        ));
    }
    if report.images.is_empty() {
        let did = if taken > 0 && taken == report.steps.len() { "TAKEN" } else { "RAN" };
        words.line(format!(
            "{}  {} of run {}; no image was asked for",
            words.good(did),
            steps(report.steps.len()),
            report.run
        ));
    }
    for image in &report.images {
        words.line(format!("{}  {}  {}", words.good("BUILT"), image.artifact, image.digest));
        for (platform, digest) in &image.platforms {
            words.line(format!("  {platform}  {digest}"));
        }
        let findings = match image.findings {
            None => "not scanned".to_owned(),
            Some(0) => "no known vulnerability".to_owned(),
            Some(1) => "1 known vulnerability".to_owned(),
            Some(n) => format!("{n} known vulnerabilities"),
        };
        let place = printable(&image.repository.to_string());
        words.line(format!("  {} attestations, {findings}, in {place}", image.attestations));
        let stands_on = behind(pipeline, &image.artifact);
        for (step, result) in report.tests.iter().filter(|(step, _)| stands_on.contains(step)) {
            words.line(format!("  tests of {step}: {}", counts(words, result)));
        }
        if promoted.contains(&image.artifact) {
            continue;
        }
        // Where a gate looks is what people build for; the first by name may be one where nothing is asked.
        let environments = &gateway.gateway.environments;
        let gated = environments.iter().find(|(_, environment)| environment.gate.is_some());
        if let Some((environment, _)) = gated.or_else(|| environments.iter().next()) {
            let place = image.repository.seen_from(folder);
            // A layout holds this one image; a repository many.
            let which = place.folder().map_or_else(|| format!("@{}", image.digest), |_| String::new());
            words.line(printable(&format!("  next: sluicegate promote {place}{which} --to {environment}")));
        }
    }
    let used: BTreeSet<&StepName> = report.images.iter().flat_map(|image| behind(pipeline, &image.artifact)).collect();
    for (step, result) in report.tests.iter().filter(|(step, _)| !used.contains(step)) {
        words.line(format!("tests of {step}, on which no image stands: {}", counts(words, result)));
    }
}

fn step_document(step: &StepReport) -> serde_json::Value {
    let outputs: BTreeMap<&OutputName, Digest> =
        step.outputs.iter().map(|(name, product)| (name, product.content.digest)).collect();
    json!({
        "step": step.step, "status": step.status, "exitCode": step.exit_code, "key": step.key, "outputs": outputs, "log": step.log,
        "report": step.report.as_ref().map(|report| report.content.digest), "attestation": step.attestation,
        "testResult": step.test_result, "origin": step.origin,
    })
}

/// The steps that an image stands on.
fn behind<'a>(pipeline: &'a Pipeline, artifact: &OutputName) -> BTreeSet<&'a StepName> {
    let artifact = pipeline.artifacts.iter().find(|one| one.name == *artifact);
    artifact.map(|one| pipeline.closure(one)).into_iter().flatten().map(|step| &step.name).collect()
}

fn counts(words: &Words, result: &TestResult) -> String {
    let word = if result.passed() { words.good("passed") } else { words.bad("did not pass") };
    let junit = &result.junit;
    format!(
        "{word} ({} passed, {} failed, {} errors, {} skipped)",
        junit.passed.len(),
        junit.failed.len(),
        junit.errors.len(),
        junit.skipped.len()
    )
}

/// A name for this run: its time, and something that another run in the same second has not.
fn run_id() -> Result<RunId, Problem> {
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|d| d.as_nanos()).unwrap_or_default();
    let unique = Digest::of(format!("{nanos} {}", std::process::id()).as_bytes()).hex();
    let time: String = SystemClock.now().to_string().chars().filter(|c| c.is_ascii_digit()).collect();
    format!("r{time}-{}", &unique[..8]).parse().map_err(|error| Problem::usage(format!("{error}"), "set the clock"))
}
