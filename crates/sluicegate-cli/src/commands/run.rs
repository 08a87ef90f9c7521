use std::{cell::RefCell, collections::BTreeSet, env::VarError, path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_attestation::test_result::TestResult;
use sluicegate_flow::{Error, folders::EnvironmentPlaces, gateway::trust, run as flow};
use sluicegate_pipeline::pipeline::Pipeline;
use sluicegate_ports::{
    Clock,
    execute::{StepExecutor, Stop},
    scan::Scanner,
};
use sluicegate_types::{Digest, OutputName, RunId, StepName, UnixTime};

use super::{folder_of, later};
use crate::{
    arguments::Run,
    gateway_folder::{GatewayFolder, read},
    home::Home,
    passphrase,
    wire::{self, Logging, SystemClock, Wired},
    words::{Problem, Words, printable},
};

/// `run`.
pub(crate) fn run(words: &Words, arguments: &Run) -> Result<ExitCode, Problem> {
    let flags = &arguments.later;
    later("--to", flags.to.is_some())?;
    later("--set", !flags.set.is_empty())?;
    later("--only", flags.only)?;
    later("--keep-going", flags.keep_going)?;
    later("--no-cache", flags.no_cache)?;
    later("--engine", flags.engine.is_some())?;
    later("--export", flags.export.is_some())?;
    later("naming steps", !arguments.steps.is_empty())?;
    let text = read(&arguments.file).map_err(|error| {
        Problem::named("read the pipeline file", &arguments.file, &error)
            .or("sluicegate init writes one; -f names another")
    })?;
    let file = arguments.file.display().to_string();
    let text =
        String::from_utf8(text).map_err(|_| Problem::usage(format!("{file} is not UTF-8"), "write it as UTF-8"))?;
    let pipeline = Pipeline::parse(&file, &text).map_err(Error::from)?;
    let folder = folder_of(&arguments.file);
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), folder)?;
    let (trust, _) = trust(&gateway.gateway, &gateway)?;
    let epoch = epoch()?;
    let wired = Wired::new(Home::open()?)?.judged_by(&gateway.gateway);
    let executor = wired.executor()?;
    // Found out before a passphrase is asked for and anything is unpacked.
    executor.probe().map_err(Error::from)?;
    let scanner = match (&gateway.gateway.scanner, arguments.no_scan) {
        (_, true) => None,
        (Some(trivy), false) => {
            let name = pipeline.name.as_str();
            Some(wired.scanner(&executor, trivy, &gateway.folder, arguments.trivy.as_deref(), name)?)
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
    let passphrase = passphrase::ask(false)?;
    let logging = Logging { gateway: &gateway, trust: &trust, words };
    let (signer, log, ledger) = wired.signer_and_logs(&gateway.gateway.signing.steps, &passphrase, logging)?;
    let tell = |line: &str| words.tell(line);
    let warn = |line: &str| words.warn(line);
    let lines = StepLines::default();
    let on_output = |step: &StepName, bytes: &[u8]| lines.take(words, step, bytes);
    let excluded = [wired.home.folder().to_owned()];
    let environments = EnvironmentPlaces::of(&gateway.gateway, &gateway.folder);
    let request = flow::RunRequest {
        environments: &environments,
        pipeline: &pipeline,
        folder,
        run: run_id()?,
        epoch,
        executor: executor.as_ref(),
        lister: &wire::lister(),
        excluded: &excluded,
        scanner: scanner.as_ref().map(|scanner| scanner as &dyn Scanner),
        signer: signer.as_ref(),
        trust: &trust,
        scratch: wired.scratch(),
        stop: Stop::default(),
        on_output: &on_output,
    };
    let report = flow::run(&wired.ports(log.as_ref(), &ledger, &tell, &warn), &request);
    lines.flush(words);
    let report = report.map_err(|failed| Problem::from(*failed.error).recorded(failed.record))?;
    print(words, &report, &pipeline, folder, &gateway);
    Ok(ExitCode::SUCCESS)
}

fn print(words: &Words, report: &flow::RunReport, pipeline: &Pipeline, folder: &Path, gateway: &GatewayFolder) {
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1,
            "run": report.run,
            "steps": report.steps.iter().map(|(step, outputs)| json!({"step": step, "outputs": outputs})).collect::<Vec<_>>(),
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
        }));
        return;
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

/// Puts a step's output together to whole lines, however it arrives.
#[derive(Default)]
struct StepLines(RefCell<(String, Vec<u8>)>);

impl StepLines {
    /// Bytes of a line that is printed although it has not ended.
    const LONG: usize = 8192;

    fn take(&self, words: &Words, step: &StepName, bytes: &[u8]) {
        if self.0.borrow().0 != step.as_str() {
            self.flush(words);
        }
        let (name, rest) = &mut *self.0.borrow_mut();
        step.as_str().clone_into(name);
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            words.step_line(name, &rest[..end]);
            rest.drain(..=end);
        }
        if rest.len() > Self::LONG {
            words.step_line(name, rest);
            rest.clear();
        }
    }

    fn flush(&self, words: &Words) {
        let (name, rest) = &mut *self.0.borrow_mut();
        if !rest.is_empty() {
            words.step_line(name, rest);
            rest.clear();
        }
    }
}

/// SOURCE_DATE_EPOCH, if it is set.
fn epoch() -> Result<Option<u64>, Problem> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|seconds| i64::try_from(*seconds).is_ok_and(|seconds| seconds <= UnixTime::LAST.seconds()))
            .map(Some)
            .ok_or_else(|| {
                Problem::usage(format!("SOURCE_DATE_EPOCH is {text:?}"), "set it to seconds since 1970, or not at all")
            }),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Problem::usage("SOURCE_DATE_EPOCH is no number", "set it to seconds since 1970, or not at all"))
        }
    }
}

/// A name for this run: its time, and something that another run in the same second has not.
fn run_id() -> Result<RunId, Problem> {
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|d| d.as_nanos()).unwrap_or_default();
    let unique = Digest::of(format!("{nanos} {}", std::process::id()).as_bytes()).hex();
    let time: String = SystemClock.now().to_string().chars().filter(|c| c.is_ascii_digit()).collect();
    format!("r{time}-{}", &unique[..8]).parse().map_err(|error| Problem::usage(format!("{error}"), "set the clock"))
}
