//! `run`: executes a pipeline step by step, proves each step, assembles, scans and proves the image, writes it with its evidence.

mod image;
mod records;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::json;
use sluicegate_attestation::test_result::TestResult;
use sluicegate_pipeline::pipeline::{Artifact, Pipeline, SecretSource, Step};
use sluicegate_ports::{
    execute::{Ended, Product, StepExecutor, Stop},
    scan::{ScanIndex, Scanner},
    shared_cache::SharedCache,
    sign::Signer,
    step_cache::StepCache,
    trees::{SourceFetcher, SourceLister},
};
use sluicegate_types::{Destination, Digest, OutputName, Place, Platform, RunId, Secret, StepName, TagName};
use sluicegate_verify::Trust;

use crate::{
    Error, Failure, Ports, Workbench,
    built::Built,
    folders::EnvironmentPlaces,
    named_folders,
    pin::{Pinned, Pins},
    prepare::Surroundings,
    prove, reuse,
    reuse::{ContentThere, Elsewhere, Judged},
    shared,
    steps::{Capacity, Finished, ImageStage, StepEvent, StepsRequest, run_steps},
    together::Together,
};

use self::{
    image::{build_artifact, build_tags, check_places},
    records::{record_failure, record_image, record_run},
};

/// What is to run, as far as nothing is signed: everything that [`pin`] needs beside the shared ports.
#[derive(Clone, Copy)]
pub struct PinRequest<'a> {
    /// What to run.
    pub pipeline: &'a Pipeline,
    /// The folder of the pipeline file; its paths are relative to this.
    pub folder: &'a Path,
    /// SOURCE_DATE_EPOCH, if it was given.
    pub epoch: Option<u64>,
    /// Runs steps.
    pub executor: &'a dyn StepExecutor,
    /// Lists sources.
    pub lister: &'a dyn SourceLister,
    /// Fetches sources.
    pub fetcher: &'a dyn SourceFetcher,
    /// Folders and files that never belong to a source: the home.
    pub excluded: &'a [PathBuf],
    /// Places of environments, where nothing is built: a build tag is never a promotion.
    pub environments: &'a EnvironmentPlaces,
    /// Only these steps, and no image; `None` is all of the pipeline.
    pub selection: Option<&'a Selection>,
    /// Ends it from outside.
    pub stop: &'a Stop,
}

/// A run of which every image, source, date and tag is known and nothing has been done.
pub struct PinnedRun<'a> {
    pub(crate) steps: Vec<&'a Step>,
    only_taken: BTreeSet<StepName>,
    pub(crate) artifacts: &'a [Artifact],
    tags: Vec<Vec<TagName>>,
    pub(crate) pinned: Pinned,
}

/// Everything a run needs beside the shared ports and what was pinned.
pub struct RunRequest<'a> {
    /// What was pinned.
    pub pinning: PinRequest<'a>,
    /// The run's name.
    pub run: RunId,
    /// Scans images; `None` is `--no-scan`, and no gate that requires `sbom` or `vulns` will allow the result.
    pub scanner: Option<&'a dyn Scanner>,
    /// The key of role `steps`.
    pub signer: &'a dyn Signer,
    /// What is signed must verify with this.
    pub trust: &'a Trust,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// What `--set` says: `PARAM_NAME` and its value.
    pub arguments: &'a BTreeMap<String, String>,
    /// Values of secrets, by where they come from.
    pub secrets: &'a BTreeMap<SecretSource, Secret>,
    /// Private places that the gateway lists for steps.
    pub private: &'a [Destination],
    /// Earlier results; `None` takes none and keeps none.
    pub cache: Option<&'a dyn StepCache>,
    /// Earlier scans; `None` takes none and keeps none.
    pub scans: Option<&'a dyn ScanIndex>,
    /// Results that machines share, looked at after this machine's own; nothing is taken from there and put there without `cache`.
    pub shared: Option<&'a dyn SharedCache>,
    /// Whose results count (trust model 9): see [`crate::gateway::trust_domain`].
    pub domain: Digest,
    /// Whether what comes of it is promoted at once: then nothing is taken that came over a network or by secrets.
    pub release: bool,
    /// Whether a failure ends only what depends on it.
    pub keep_going: bool,
    /// How much may run at a time.
    pub capacity: Capacity,
    /// Whether what steps open and execute is observed.
    pub observe: bool,
    /// Gets what happens to steps as it happens.
    pub on_event: &'a dyn Fn(&StepEvent<'_>),
}

/// Steps that somebody named.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Their names.
    pub steps: BTreeSet<StepName>,
    /// Whether nothing else is executed: what they read is taken from earlier runs, or the run fails.
    pub only: bool,
}

/// What a run left.
#[derive(Debug)]
pub struct RunReport {
    /// The run's name.
    pub run: RunId,
    /// Images, in the order of the file.
    pub images: Vec<BuiltImage>,
    /// Steps that ended, in the order of the pipeline.
    pub steps: Vec<StepReport>,
    /// What steps reported of their tests.
    pub tests: Vec<(StepName, TestResult)>,
    /// Steps that failed, with why, in the order in which they did; one that left nothing to report is here alone.
    pub failures: Vec<(StepName, String)>,
    /// Steps that were to run and did not.
    pub skipped: Vec<StepName>,
}

/// What became of a step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Its name.
    pub step: StepName,
    /// Whether it was executed or taken, and how that ended.
    pub status: StepStatus,
    /// The code that it ended with.
    pub exit_code: i32,
    /// The key of its result.
    pub key: Digest,
    /// What it left.
    pub outputs: BTreeMap<OutputName, Product>,
    /// Its whole log.
    pub log: Digest,
    /// Its raw report of tests.
    pub report: Option<Product>,
    /// Its provenance.
    pub attestation: Option<Digest>,
    /// Where its result was taken from.
    pub origin: Option<Digest>,
    /// The statement about its tests.
    pub test_result: Option<Digest>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// It was executed and passed.
    Passed,
    /// The result of an earlier run was taken.
    Taken,
    /// It was executed and failed.
    Failed,
}

impl StepReport {
    fn to_json(&self) -> serde_json::Value {
        let outputs: BTreeMap<_, _> = self.outputs.iter().map(|(name, p)| (name, p.content.digest)).collect();
        let mut body = json!({
            "step": self.step, "status": self.status, "outputs": outputs, "attestation": self.attestation, "log": self.log,
            "testResult": self.test_result,
        });
        let optional = [("origin", self.origin), ("report", self.report.as_ref().map(|report| report.content.digest))];
        for (name, digest) in optional.into_iter().filter_map(|(name, digest)| Some((name, digest?))) {
            body[name] = json!(digest);
        }
        if self.exit_code != 0 {
            body["exitCode"] = json!(self.exit_code);
        }
        body
    }
}

/// An image that was built and proved.
#[derive(Debug)]
pub struct BuiltImage {
    /// The artifact's name.
    pub artifact: OutputName,
    /// Where it was written.
    pub repository: Place,
    /// Its digest.
    pub digest: Digest,
    /// If it is an index: its images.
    pub platforms: Vec<(Platform, Digest)>,
    /// Attestations in its closed set, its own included.
    pub attestations: usize,
    /// Every bundle and raw report that proves it.
    pub evidence: Vec<Digest>,
    /// Findings of the scan; `None` without one.
    pub findings: Option<usize>,
}

/// A run that broke off.
#[derive(Debug)]
pub struct FailedRun {
    /// Why.
    pub error: Box<Error>,
    /// The evidence record that says so; `None` if it could not be written, which was warned about.
    pub record: Option<u64>,
    /// What was done until then.
    pub report: Box<RunReport>,
}

impl FailedRun {
    /// Failures of steps beside the one that the run's error tells, a line each.
    pub fn other_failures(&self) -> Vec<String> {
        let told = self.error.causes().join(": ");
        let mut others: Vec<_> = self.report.failures.iter().collect();
        if let Some(at) = others.iter().position(|(_, why)| *why == told) {
            others.remove(at);
        }
        let line = |(step, why): &(StepName, String)| {
            if why.starts_with("step ") { why.clone() } else { format!("step {step}: {why}") }
        };
        others.into_iter().map(line).collect()
    }
}

/// Finds out what a run is made of, by digest: its images, sources and dates. Needs no key, so that keys can be opened meanwhile.
///
/// An artifact that would be written where nothing may be built, and a tag that cannot be filled, are found out here.
pub fn pin<'a>(bench: &Workbench<'_>, request: &PinRequest<'a>) -> Result<PinnedRun<'a>, Error> {
    let run = pin_alone(bench, request)?;
    // What an image's files say of its user is part of keys. Images are unpacked for it now, while nobody waits for the log; a fault is the
    // step's, once its turn comes.
    for step in &run.steps {
        let image = run.pinned.images.of_step(step)?;
        let _ = request.executor.account(&step.name, &image.layers, image.user(), request.stop);
    }
    Ok(run)
}

/// The same, and no image is unpacked.
pub(crate) fn pin_alone<'a>(bench: &Workbench<'_>, request: &PinRequest<'a>) -> Result<PinnedRun<'a>, Error> {
    let pipeline = request.pipeline;
    let artifacts: &[Artifact] = if request.selection.is_some() { &[] } else { &pipeline.artifacts };
    let (steps, only_taken) = selected(pipeline, request.selection)?;
    named_folders::check(pipeline, request.folder, &steps, artifacts)?;
    if !artifacts.is_empty() {
        check_places(bench, request)?;
    }
    let pins = Pins {
        pipeline,
        folder: request.folder,
        epoch: request.epoch,
        lister: request.lister,
        fetcher: request.fetcher,
        excluded: request.excluded,
        stop: request.stop,
    };
    let pinned = Pinned::of(bench, &pins, &steps, artifacts)?;
    let tags = artifacts.iter().map(|artifact| build_tags(pipeline, artifact, &pinned.sources));
    let tags = tags.collect::<Result<Vec<_>, _>>()?;
    Ok(PinnedRun { steps, only_taken, artifacts, tags, pinned })
}

/// Runs what was pinned, or records that it could not be pinned. The first failing step ends it; the failure is recorded. An image becomes
/// visible at its repository only with all of its evidence.
pub fn run(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    pinned: Result<PinnedRun<'_>, Error>,
) -> Result<RunReport, FailedRun> {
    let mut report = RunReport {
        run: request.run.clone(),
        images: Vec::new(),
        steps: Vec::new(),
        tests: Vec::new(),
        failures: Vec::new(),
        skipped: Vec::new(),
    };
    let ran = pinned.and_then(|pinned| run_all(ports, request, &pinned, &mut report));
    let ran = recorded(ports, request, report, ran);
    // What was proved before a failure is worth as much to other machines. The failure is on record before they are waited for.
    if let Some(shared) = request.shared {
        shared.settle();
    }
    ran
}

/// A failure is put on record; an image was, as soon as it was there.
fn recorded(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    report: RunReport,
    ran: Result<(), Error>,
) -> Result<RunReport, FailedRun> {
    match ran {
        Ok(()) => Ok(report),
        Err(error) => {
            let outcome = if error.failure() == Failure::Stopped { "aborted" } else { "failed" };
            let record = record_run(ports, request, outcome, &report, Some(&error));
            let record = match record {
                Ok(record) => Some(record),
                Err(unrecorded) => {
                    (ports.warn)(&format!("the failure could not be recorded: {unrecorded}"));
                    None
                }
            };
            Err(FailedRun { error: Box::new(error), record, report: Box::new(report) })
        }
    }
}

fn run_all(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    PinnedRun { steps, only_taken, artifacts, tags, pinned }: &PinnedRun<'_>,
    report: &mut RunReport,
) -> Result<(), Error> {
    let pipeline = request.pinning.pipeline;
    // With a scan something is executed in any case; else the first step that is executed asks.
    if request.scanner.is_some() || request.cache.is_none() {
        request.pinning.executor.probe()?;
    }
    let bench = ports.workbench();
    let around = Surroundings {
        images: &pinned.images,
        sources: &pinned.sources,
        epochs: &pinned.epochs,
        arguments: request.arguments,
        secrets: request.secrets,
        private: request.private,
        executor: request.pinning.executor,
        domain: request.domain,
        pipeline: &pipeline.name,
        cache_place: pinned.cache_place.as_ref(),
        keeps_caches: true,
        observe: request.observe,
        stop: request.pinning.stop.clone(),
    };
    let builder_version = builder_version(request.pinning.executor);
    let mut built = Built::default();
    let after_secrets = shared::after_secrets(&pipeline.steps);
    let judged = Judged {
        store: ports.store,
        trust: request.trust,
        clock: ports.clock,
        pipeline: &pipeline.name,
        builder_version: &builder_version,
        release: request.release,
        after_secrets: after_secrets.clone(),
        shared: request.shared.map(|store| Elsewhere { store, content: ContentThere::Kept }),
        exact: reuse::exact(pipeline, artifacts),
    };
    let (failures, skipped) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let on_event = |event: &StepEvent<'_>| {
        match event {
            StepEvent::Failed(step, why, false) => failures.borrow_mut().push(((*step).clone(), (*why).to_owned())),
            StepEvent::Skipped(step) => skipped.borrow_mut().push((*step).clone()),
            _ => {}
        }
        (request.on_event)(event);
    };
    let steps_request = StepsRequest {
        steps: steps.clone(),
        known: BTreeMap::new(),
        only_taken: only_taken.clone(),
        around: &around,
        executor: request.pinning.executor,
        capacity: request.capacity,
        keep_going: request.keep_going,
        cache: request.cache.map(|cache| (cache, judged)),
        stop: request.pinning.stop,
        on_event: &on_event,
    };
    // Taking a result takes no time, so that syncing each statement about one would be most of it.
    let together = Together::new(ports);
    let ran = run_steps(
        &bench,
        &steps_request,
        |(step, prepared, left)| {
            let taken = left.reused.is_some();
            let (tell, warn) = (|line: &str| together.tell(line), |line: &str| together.warn(line));
            let held = Ports { tell: &tell, warn: &warn, ..together.ports(ports) };
            let ports = if taken { &held } else { ports };
            finish(ports, request, (pinned, &after_secrets), &mut built, report, (step, prepared, left))
        },
        || together.make_durable(ports),
    );
    for done in &mut report.steps {
        let is_lost = |bundle: &Digest| together.has_lost(bundle);
        if done.attestation.as_ref().is_some_and(is_lost) || done.test_result.as_ref().is_some_and(is_lost) {
            // A record that named them would name for ever what nobody has.
            (done.attestation, done.test_result, done.status) = (None, None, StepStatus::Failed);
        }
    }
    report.failures = failures.into_inner();
    report.skipped = skipped.into_inner();
    // Which of two ended first says nothing: reports and records of the same run look the same.
    let place = |name: &StepName| pipeline.steps.iter().position(|step| step.name == *name);
    report.steps.sort_by_key(|done| place(&done.step));
    report.tests.sort_by_key(|(step, _)| place(step));
    ran?;
    for (artifact, tags) in artifacts.iter().zip(tags) {
        if request.pinning.stop.is_raised() {
            return Err(Error::Stopped);
        }
        let image = build_artifact(
            ports,
            request,
            (artifact, tags),
            &pinned.images,
            &mut built,
            pinned.epochs.of_artifact(artifact),
        )?;
        record_image(ports, request, &image, artifact, report)?;
        (request.on_event)(&StepEvent::Image(&artifact.name, ImageStage::Written));
        report.images.push(image);
    }
    if artifacts.is_empty() {
        record_run(ports, request, "succeeded", report, None)?;
    }
    Ok(())
}

/// The steps to run with all that they depend on, in the order of the pipeline, and those of them that are not to be executed.
fn selected<'a>(
    pipeline: &'a Pipeline,
    selection: Option<&Selection>,
) -> Result<(Vec<&'a Step>, BTreeSet<StepName>), Error> {
    let Some(selection) = selection else { return Ok((pipeline.steps.iter().collect(), BTreeSet::new())) };
    for name in &selection.steps {
        pipeline.step(name)?;
    }
    let steps = pipeline.with_what_they_need(selection.steps.iter());
    let others = steps.iter().map(|step| &step.name).filter(|name| selection.only && !selection.steps.contains(*name));
    let others = others.cloned().collect();
    Ok((steps, others))
}

/// Takes what a step left: on the report in any case; proved if that is worth a statement; kept for later runs if it passed.
fn finish(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    (pinned, after_secrets): (&Pinned, &BTreeSet<StepName>),
    built: &mut Built,
    report: &mut RunReport,
    (step, prepared, left): Finished<'_>,
) -> Result<(), Error> {
    let status = match (&left.failure, &left.reused) {
        (Some(_), _) => StepStatus::Failed,
        (None, Some(_)) => StepStatus::Taken,
        (None, None) => StepStatus::Passed,
    };
    report.steps.push(StepReport {
        step: step.name.clone(),
        status,
        exit_code: left.exit_code,
        key: prepared.key,
        outputs: left.products.clone(),
        log: left.log,
        report: left.report.clone(),
        attestation: None,
        origin: left.reused.as_ref().map(|reused| reused.origin.bundle()),
        test_result: None,
    });
    if let Some(cache) = request.cache {
        let parts = serde_json::to_vec(&prepared.parts).unwrap_or_default();
        if let Err(reason) = cache.remember(&request.pinning.pipeline.name, &step.name, &parts) {
            (ports.warn)(&format!("the key of the step {} is not remembered: {reason}", step.name));
        }
    }
    // A code that passes would make the statement of a step that failed otherwise one of a step that passed.
    let failed_by_itself = matches!(left.ended, Ended::Exit(code) if code != 0 && !step.accept_exit.contains(&code))
        && step.junit.is_some();
    if left.failure.is_some() && !failed_by_itself {
        return Ok(());
    }
    let proved = prove::step(ports, request, (step, prepared), (&pinned.images, &pinned.sources), built, left);
    if let Some(last) = report.steps.last_mut() {
        match &proved {
            Ok(done) => {
                last.attestation = Some(done.attested.statement.bundle());
                last.test_result = done.tested.as_ref().map(|tested| tested.attested.statement.bundle());
            }
            // What cannot be proved, or left a report that nobody can read, is on record as no success.
            Err(_) => last.status = StepStatus::Failed,
        }
    }
    let done = proved?;
    if left.failure.is_some() {
        return record_failure(ports, request, step, left.exit_code, &done);
    }
    let tests_passed = done.tested.as_ref().is_none_or(|tested| tested.result.passed());
    if let Some(cache) = request.cache
        && left.reused.is_none()
        && tests_passed
        && reuse::never(step, false).is_none()
    {
        let bundle = done.attested.statement.bundle();
        if let Err(reason) = cache.keep(&prepared.key, &bundle) {
            (ports.warn)(&format!("the result of the step {} is not kept for later runs: {reason}", step.name));
        }
        if let (Some(shared), Some(result)) =
            (request.shared, shared::result((step, after_secrets), prepared, left, bundle))
        {
            shared.offer(result);
        }
    }
    if let Some(tested) = &done.tested {
        report.tests.push((step.name.clone(), tested.result.clone()));
    }
    built.add(step.name.clone(), done);
    Ok(())
}

/// Versions of what takes part in a run.
pub(crate) fn builder_version(executor: &dyn StepExecutor) -> BTreeMap<String, String> {
    let identity = executor.identity();
    let own = ("sluicegate".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    BTreeMap::from([own, (identity.name, identity.version)])
}
