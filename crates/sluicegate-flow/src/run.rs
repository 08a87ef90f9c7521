//! `run`: executes a pipeline step by step, proves each step, assembles, scans and proves the image, writes it with its evidence.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::json;
use sluicegate_attestation::{
    bundle::key_hint,
    identifiers::{BUNDLE, LOCAL_BUILDER},
    predicate::PredicateType,
    provenance::{Build, Dependency, ImageParameters, Internals, Provenance},
    test_result::TestResult,
};
use sluicegate_pipeline::pipeline::{Artifact, InputSource, Pipeline, SecretSource, Step};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::{Destination, Ended, Product, StepExecutor, Stop},
    images::{Descriptor, ImagePlaceError, ImageTarget, Occupant, Publication},
    scan::Scanner,
    shared_cache::SharedCache,
    sign::Signer,
    step_cache::StepCache,
    trees::{ITSELF, SourceFetcher, SourceLister},
};
use sluicegate_types::{Digest, OutputName, Place, Platform, RunId, Secret, StepName, TagName, UnixTime};
use sluicegate_verify::Trust;

use crate::{
    Error, Failure, Ports,
    assemble::{self, Assembled},
    attest::{Attested, attest},
    built::{Built, Done},
    evidence,
    folders::{EnvironmentPlaces, where_it_leads},
    pin::{Pinned, PinnedImages, PinnedSource, Pins},
    prepare::Surroundings,
    prove, push,
    reuse::{self, Judged},
    scan, shared,
    steps::{Capacity, Finished, ImageStage, StepEvent, StepsRequest, run_steps},
    survey::Survey,
    together::Together,
};

/// Everything a run needs beside the shared ports.
pub struct RunRequest<'a> {
    /// What to run.
    pub pipeline: &'a Pipeline,
    /// The folder of the pipeline file; its paths are relative to this.
    pub folder: &'a Path,
    /// The run's name.
    pub run: RunId,
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
    /// Scans images; `None` is `--no-scan`, and no gate that requires `sbom` or `vulns` will allow the result.
    pub scanner: Option<&'a dyn Scanner>,
    /// The key of role `steps`.
    pub signer: &'a dyn Signer,
    /// Places of environments, where nothing is built: a build tag is never a promotion.
    pub environments: &'a EnvironmentPlaces,
    /// What is signed must verify with this.
    pub trust: &'a Trust,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Only these steps, and no image; `None` is all of the pipeline.
    pub selection: Option<&'a Selection>,
    /// What `--set` says: `PARAM_NAME` and its value.
    pub arguments: &'a BTreeMap<String, String>,
    /// Values of secrets, by where they come from.
    pub secrets: &'a BTreeMap<SecretSource, Secret>,
    /// Private places that the gateway lists for steps.
    pub private: &'a [Destination],
    /// Earlier results; `None` takes none and keeps none.
    pub cache: Option<&'a dyn StepCache>,
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
    /// Ends the run from outside.
    pub stop: Stop,
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

/// Runs a pipeline. The first failing step ends it; the failure is recorded. An image becomes visible at its repository only with
/// all of its evidence.
pub fn run(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<RunReport, FailedRun> {
    let mut report = RunReport {
        run: request.run.clone(),
        images: Vec::new(),
        steps: Vec::new(),
        tests: Vec::new(),
        failures: Vec::new(),
        skipped: Vec::new(),
    };
    let ran = run_all(ports, request, &mut report);
    // What was proved before a failure is worth as much to other machines.
    if let Some(shared) = request.shared {
        shared.settle();
    }
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

/// Puts a run on record that left no image.
fn record_run(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    outcome: &str,
    report: &RunReport,
    error: Option<&Error>,
) -> Result<u64, Error> {
    let steps: Vec<_> = report.steps.iter().map(StepReport::to_json).collect();
    let mut body = json!({"run": request.run, "pipeline": request.pipeline.name, "steps": steps});
    if let Some(error) = error {
        body["error"] = json!(error.causes());
    }
    // What became of steps that left nothing else to report.
    if !report.failures.is_empty() {
        let failures = report.failures.iter().map(|(step, error)| json!({"step": step, "error": error}));
        body["failures"] = failures.collect();
    }
    if !report.skipped.is_empty() {
        body["skipped"] = json!(report.skipped);
    }
    let record = NewRecord {
        kind: RecordKind::Run,
        at: ports.clock.now(),
        subject: None,
        environment: None,
        outcome: outcome.to_owned(),
        body,
    };
    Ok(evidence::record(ports, &record)?.sequence)
}

/// An image is on record as soon as it can be seen, whatever becomes of the next one.
fn record_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    image: &BuiltImage,
    artifact: &Artifact,
    report: &RunReport,
) -> Result<(), Error> {
    let closure: BTreeSet<&StepName> = request.pipeline.closure(artifact).iter().map(|step| &step.name).collect();
    let (steps, others): (Vec<_>, Vec<_>) = report.steps.iter().partition(|done| closure.contains(&done.step));
    let json = |steps: Vec<&StepReport>| steps.into_iter().map(StepReport::to_json).collect::<Vec<_>>();
    let (steps, others) = (json(steps), json(others));
    let mut body = json!({
        "run": request.run, "pipeline": request.pipeline.name, "artifact": image.artifact,
        "attestations": image.attestations, "evidence": image.evidence, "steps": steps,
    });
    if !others.is_empty() {
        // They are in no image's closure, and their logs are kept all the same.
        body["otherSteps"] = others.into();
    }
    if !image.platforms.is_empty() {
        let platforms = image.platforms.iter();
        let platforms = platforms.map(|(platform, image)| json!({"platform": platform.to_string(), "image": image}));
        body["platforms"] = platforms.collect();
    }
    let record = NewRecord {
        kind: RecordKind::Run,
        at: ports.clock.now(),
        subject: Some(image.digest),
        environment: None,
        outcome: "succeeded".to_owned(),
        body,
    };
    evidence::record(ports, &record).map(drop)
}

fn run_all(ports: &Ports<'_>, request: &RunRequest<'_>, report: &mut RunReport) -> Result<(), Error> {
    let pipeline = request.pipeline;
    // With a scan something is executed in any case; else the first step that is executed asks.
    if request.scanner.is_some() || request.cache.is_none() {
        request.executor.probe()?;
    }
    let artifacts: &[Artifact] = if request.selection.is_some() { &[] } else { &pipeline.artifacts };
    if !artifacts.is_empty() {
        check_places(ports, request)?;
    }
    let (steps, only_taken) = selected(pipeline, request.selection)?;
    let bench = ports.workbench();
    let pinned = Pinned::of(&bench, &pins(request), &steps, artifacts)?;
    // A tag that cannot be filled is found out before anything runs.
    let tags = artifacts.iter().map(|artifact| build_tags(pipeline, artifact, &pinned.sources));
    let tags = tags.collect::<Result<Vec<_>, _>>()?;
    let around = Surroundings {
        images: &pinned.images,
        sources: &pinned.sources,
        epochs: &pinned.epochs,
        arguments: request.arguments,
        secrets: request.secrets,
        private: request.private,
        executor: request.executor,
        domain: request.domain,
        pipeline: &pipeline.name,
        cache_place: pinned.cache_place.as_ref(),
        keeps_caches: true,
        observe: request.observe,
        stop: request.stop.clone(),
    };
    // What an image's files say of its user is part of keys. Images are unpacked for it now, while nobody waits for the log; a fault is the
    // step's, once its turn comes.
    for step in &steps {
        let image = pinned.images.of_step(step)?;
        let _ = request.executor.account(&step.name, &image.layers, image.user(), &request.stop);
    }
    let builder_version = builder_version(request.executor);
    let mut built = Built::default();
    let judged = Judged {
        store: ports.store,
        trust: request.trust,
        clock: ports.clock,
        pipeline: &pipeline.name,
        builder_version: &builder_version,
        release: request.release,
        shared: request.shared,
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
        steps,
        known: BTreeMap::new(),
        only_taken,
        around: &around,
        executor: request.executor,
        capacity: request.capacity,
        keep_going: request.keep_going,
        cache: request.cache.map(|cache| (cache, judged)),
        stop: &request.stop,
        on_event: &on_event,
    };
    // Taking a result takes no time, so that syncing each statement about one would be most of it.
    let together = Together::new(ports);
    let ran = run_steps(
        &bench,
        &steps_request,
        |(step, prepared, left)| {
            let taken = left.reused.is_some();
            let held = together.ports(ports);
            let ports = if taken { &held } else { ports };
            finish(ports, request, &pinned, &mut built, report, (step, prepared, left))
        },
        || together.make_durable(),
    );
    report.failures = failures.into_inner();
    report.skipped = skipped.into_inner();
    // Which of two ended first says nothing: reports and records of the same run look the same.
    let place = |name: &StepName| pipeline.steps.iter().position(|step| step.name == *name);
    report.steps.sort_by_key(|done| place(&done.step));
    report.tests.sort_by_key(|(step, _)| place(step));
    ran?;
    for (artifact, tags) in artifacts.iter().zip(&tags) {
        if request.stop.is_raised() {
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
pub(crate) fn selected<'a>(
    pipeline: &'a Pipeline,
    selection: Option<&Selection>,
) -> Result<(Vec<&'a Step>, BTreeSet<StepName>), Error> {
    let Some(selection) = selection else { return Ok((pipeline.steps.iter().collect(), BTreeSet::new())) };
    for name in &selection.steps {
        if !pipeline.steps.iter().any(|step| step.name == *name) {
            let known: Vec<&str> = pipeline.steps.iter().map(|step| step.name.as_str()).collect();
            return Err(Error::Usage(format!("no step is called {name}; there are {}", known.join(", "))));
        }
    }
    let steps = pipeline.with_what_they_need(selection.steps.iter());
    let others = steps.iter().map(|step| &step.name).filter(|name| selection.only && !selection.steps.contains(*name));
    let others = others.cloned().collect();
    Ok((steps, others))
}

fn pins<'a>(request: &'a RunRequest<'a>) -> Pins<'a> {
    Pins {
        pipeline: request.pipeline,
        folder: request.folder,
        epoch: request.epoch,
        lister: request.lister,
        fetcher: request.fetcher,
        excluded: request.excluded,
        stop: &request.stop,
    }
}

/// Takes what a step left: on the report in any case; proved if that is worth a statement; kept for later runs if it passed.
fn finish(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    pinned: &Pinned,
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
        if let Err(reason) = cache.remember(&request.pipeline.name, &step.name, &parts) {
            (ports.warn)(&format!("the key of the step {} is not remembered: {reason}", step.name));
        }
    }
    let failed_by_itself = matches!(left.ended, Ended::Exit(code) if code != 0) && step.junit.is_some();
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
        if let (Some(shared), Some(result)) = (request.shared, shared::result(step, prepared, left, bundle)) {
            shared.offer(result);
        }
    }
    if let Some(tested) = &done.tested {
        report.tests.push((step.name.clone(), tested.result.clone()));
    }
    built.add(step.name.clone(), done);
    Ok(())
}

/// Puts on record what a failed step left: its provenance, and what it reported of its tests.
fn record_failure(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    exit_code: i32,
    done: &Done,
) -> Result<(), Error> {
    let tested = done.tested.as_ref();
    let record = NewRecord {
        kind: RecordKind::Attestation,
        at: ports.clock.now(),
        subject: None,
        environment: None,
        outcome: "failed".to_owned(),
        body: json!({
            "run": request.run, "step": step.name, "exitCode": exit_code,
            "attestation": done.attested.statement.bundle(),
            "testResult": tested.map(|tested| tested.attested.statement.bundle()),
            "report": tested.map(|tested| tested.report.digest),
        }),
    };
    evidence::record(ports, &record)?;
    Ok(())
}

/// Finds out before anything runs that the images can be written: to layouts, and to none that is an environment's.
fn check_places(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<(), Error> {
    for artifact in &request.pipeline.artifacts {
        let place = artifact.repository.relative_to(request.folder);
        if let Some(leads) = place.folder().map(where_it_leads)
            && !leads.starts_with(where_it_leads(request.folder))
        {
            return Err(Error::Usage(format!(
                "artifacts.{}.repository leads to {}, out of the pipeline file's folder",
                artifact.name,
                leads.display()
            )));
        }
        if request.environments.at(&place).is_some() {
            return Err(Error::Usage(format!(
                "artifacts.{}.repository is the place of an environment, where only promote writes; choose another one",
                artifact.name
            )));
        }
        let occupant = ports.places.target(&place)?.current(known_tag(artifact)?.as_ref())?;
        if let Some(environment) = occupant.and_then(|occupant| occupant.environment) {
            return Err(ImagePlaceError::OfEnvironment { place, environment }.into());
        }
    }
    Ok(())
}

/// What descriptions an artifact's closure has, in the order in which they stand in the image's provenance.
#[derive(Default)]
struct Parts {
    dependencies: Vec<Dependency>,
    /// What the evidence manifest carries.
    carried: Vec<Descriptor>,
}

impl Parts {
    /// What two steps share stands there once.
    fn add(&mut self, name: String, attested: &Attested) {
        self.add_bundle(name, attested.statement.bundle(), attested.size);
    }

    fn add_bundle(&mut self, name: String, bundle: Digest, size: u64) {
        if self.carried.iter().any(|part| part.digest == bundle) {
            return;
        }
        self.dependencies.push(Dependency::attestation(name, bundle));
        self.carried.push(Descriptor::new(BUNDLE, bundle, size));
    }

    fn add_report(&mut self, name: &str, report: &Descriptor) {
        if !self.carried.contains(report) {
            self.dependencies.push(Dependency::other(name, report.digest, &report.media_type));
            self.carried.push(report.clone());
        }
    }
}

/// Names every attestation of the closure: steps and what they reported, the images that they ran in once each, what they left.
fn closure(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    artifact: &Artifact,
    images: &PinnedImages,
    built: &mut Built,
    mut survey: Option<&mut Survey>,
) -> Result<Parts, Error> {
    let mut parts = Parts::default();
    let steps = request.pipeline.closure(artifact);
    for step in &steps {
        let done = built.step(&step.name)?;
        parts.add(format!("attestation:{}", step.name), &done.attested);
        if let Some(origin) = &done.origin {
            parts.add_bundle(format!("attestation:{}:origin", step.name), origin.bundle, origin.size);
        }
        if let Some(trace) = &done.trace {
            parts.add(format!("attestation:{}:trace", step.name), trace);
        }
        if let Some(tested) = &done.tested {
            parts.add(format!("attestation:{}:test-result", step.name), &tested.attested);
            parts.add_report(&format!("report:{}.junit", step.name), &tested.report);
        }
    }
    for step in &steps {
        for product in built.step(&step.name)?.products.clone().values() {
            let name = format!("{}.{}", step.name, product.name);
            let attested = built.output(ports, request, &name, step, product, survey.as_deref_mut())?;
            parts.add(format!("attestation:{name}:sbom"), attested);
        }
        let Some(survey) = survey.as_deref_mut() else { continue };
        let image = images.of_step(step)?;
        let described = built.image(ports, request, image, survey)?;
        parts.add(format!("attestation:{}:sbom", image.digest), &described.sbom);
        parts.add(format!("attestation:{}:vulns", image.digest), &described.vulns);
        parts.add_report(&format!("report:{}:trivy", image.digest), &described.report);
    }
    Ok(parts)
}

/// Builds the image of an artifact, or an index of one for each of its platforms, and makes it visible.
fn build_artifact(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    (artifact, tags): (&Artifact, &[TagName]),
    images: &PinnedImages,
    built: &mut Built,
    epoch: u64,
) -> Result<BuiltImage, Error> {
    let mut proved = Vec::new();
    for platform in artifact.platforms.iter() {
        proved.push(build_image(ports, request, artifact, platform, images, built, epoch)?);
    }
    let image = match proved.as_slice() {
        [one] => one.assembled.image.clone(),
        several => {
            let platforms = several.iter().map(|one| (one.platform.clone(), one.assembled.image.clone()));
            let index = assemble::index(ports, &platforms.collect::<Vec<_>>())?;
            (ports.tell)(&format!("index {} of {} images is {}", artifact.name, several.len(), index.digest));
            index
        }
    };
    (request.on_event)(&StepEvent::Image(&artifact.name, ImageStage::Published));
    publish(ports, request, artifact, tags, &image, &proved)?;
    // What several images share is there once.
    let (mut evidence, mut seen) = (Vec::new(), BTreeSet::new());
    evidence.extend(proved.iter().flat_map(Proved::evidence).filter(|part| seen.insert(*part)));
    let bundles: BTreeSet<Digest> = proved.iter().flat_map(Proved::bundles).collect();
    let platforms = if proved.len() > 1 {
        proved.iter().map(|one| (one.platform.clone(), one.assembled.image.digest)).collect()
    } else {
        Vec::new()
    };
    Ok(BuiltImage {
        artifact: artifact.name.clone(),
        repository: artifact.repository.clone(),
        digest: image.digest,
        platforms,
        attestations: bundles.len(),
        evidence,
        findings: proved.iter().map(|one| one.findings).sum(),
    })
}

/// An image for one platform, with what proves it.
struct Proved {
    platform: Platform,
    assembled: Assembled,
    about_image: Vec<Attested>,
    /// What its evidence manifest carries.
    carried: Vec<Descriptor>,
    findings: Option<usize>,
}

impl Proved {
    fn evidence(&self) -> impl Iterator<Item = Digest> {
        let bundles = self.about_image.iter().map(|attested| attested.statement.bundle());
        bundles.chain(self.carried.iter().map(|part| part.digest))
    }

    fn bundles(&self) -> impl Iterator<Item = Digest> {
        let carried = self.carried.iter().filter(|part| part.media_type == BUNDLE).map(|part| part.digest);
        self.about_image.iter().map(|attested| attested.statement.bundle()).chain(carried)
    }
}

fn build_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    artifact: &Artifact,
    platform: &Platform,
    images: &PinnedImages,
    built: &mut Built,
    epoch: u64,
) -> Result<Proved, Error> {
    let began = |stage| (request.on_event)(&StepEvent::Image(&artifact.name, stage));
    began(ImageStage::Assembled);
    let started_on = ports.clock.now();
    let base = artifact.base.as_ref().map(|base| images.get(base, platform)).transpose()?;
    let mut files = BTreeMap::new();
    let mut dependencies = base.map(|base| base.dependencies("base")).unwrap_or_default();
    for (path, (step, output)) in &artifact.files {
        let (product, attestation) = built.product(step, output)?;
        let dependency = Dependency::content(format!("{step}.{output}"), product.content, Some(attestation));
        if !dependencies.contains(&dependency) {
            dependencies.push(dependency);
        }
        files.insert(path.clone(), product.clone());
    }
    if is_said(artifact) {
        files.iter().try_for_each(|(path, product)| refuse_other_machines(ports, artifact, platform, path, product))?;
    }
    let assembled = assemble::image(ports, base, &files, (&artifact.config, platform), epoch)?;
    let which = if is_said(artifact) { format!(" for {platform}") } else { String::new() };
    (ports.tell)(&format!("image {}{which} is {}", artifact.name, assembled.image.digest));
    if request.scanner.is_some() {
        began(ImageStage::Scanned);
    }
    let survey =
        request.scanner.map(|scanner| Survey::ask(ports, request, scanner, (artifact, &assembled), images, built));
    let mut survey = survey.transpose()?;
    began(ImageStage::Proved);
    let mut parts = closure(ports, request, artifact, images, built, survey.as_mut())?;
    let mut about_image: Vec<Attested> = Vec::new();
    let mut findings = None;
    if let Some(mut survey) = survey {
        let scan = survey.artifact()?;
        findings = Some(scan.findings);
        about_image = attest(ports, request.signer, request.trust, &[scan.sbom, scan.vulns], ports.clock.now())?;
        for attested in &about_image {
            let kind = attested.statement.statement().predicate_type.short();
            dependencies.push(Dependency::attestation(format!("attestation:{kind}"), attested.statement.bundle()));
        }
        parts.add_report("report:trivy", &scan.report);
    }
    dependencies.append(&mut parts.dependencies);
    // Written last, it names every bundle; what it does not name is not evidence of this image (trust model 3).
    let provenance = image_provenance(request, (artifact, platform), dependencies, started_on, ports.clock.now());
    let statement = scan::about(
        (&assembled.image.media_type, assembled.image.digest),
        artifact.name.as_str(),
        PredicateType::Provenance,
        provenance.to_predicate()?,
    );
    about_image.extend(attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?);
    Ok(Proved { platform: platform.clone(), assembled, about_image, carried: parts.carried, findings })
}

/// The same products go into the image of every platform, and a program runs on one kind of machine.
fn refuse_other_machines(
    ports: &Ports<'_>,
    artifact: &Artifact,
    platform: &Platform,
    path: &Path,
    product: &Product,
) -> Result<(), Error> {
    for (name, machine) in ports.packer.elf_machines(product.content)? {
        if platform.runs_elf(machine) {
            continue;
        }
        let inside = if name == ITSELF { path.to_owned() } else { path.join(name) };
        return Err(Error::Usage(format!(
            "artifacts.{}.platforms: {} is no program for {platform} (its ELF header says machine {machine}); the image of every platform \
             gets the same files, so leave that platform out or make an artifact of its own for it",
            artifact.name,
            inside.display()
        )));
    }
    Ok(())
}

/// Whether the artifact says something else of its platforms than what steps run on.
fn is_said(artifact: &Artifact) -> bool {
    artifact.platforms.as_slice() != [Platform::of_steps()]
}

fn image_provenance(
    request: &RunRequest<'_>,
    (artifact, platform): (&Artifact, &Platform),
    dependencies: Vec<Dependency>,
    started_on: UnixTime,
    finished_on: UnixTime,
) -> Provenance {
    Provenance {
        build: Build::Image(ImageParameters {
            pipeline: request.pipeline.name.clone(),
            artifact: artifact.name.to_string(),
            base: artifact.base.as_ref().map_or_else(|| "scratch".to_owned(), ToString::to_string),
            files: artifact
                .files
                .iter()
                .map(|(path, (step, output))| (path.display().to_string(), format!("{step}.{output}")))
                .collect(),
            needs: artifact.needs.clone(),
            config: json!(artifact.config),
            platform: is_said(artifact).then(|| platform.to_string()),
        }),
        dependencies,
        caches: Vec::new(),
        builder_id: LOCAL_BUILDER.to_owned(),
        builder_version: builder_version(request.executor),
        run: request.run.clone(),
        started_on,
        finished_on,
        byproducts: Vec::new(),
        internal: Internals::default(),
    }
}

fn publish(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    artifact: &Artifact,
    tags: &[TagName],
    image: &Descriptor,
    proved: &[Proved],
) -> Result<(), Error> {
    let created = ports.clock.now();
    let mut evidence = BTreeSet::from([assemble::empty_config()]);
    let (mut referrers, mut blobs) = (Vec::new(), BTreeSet::new());
    for one in proved {
        let own = &one.assembled.image;
        referrers.push(assemble::evidence_manifest(ports, own, one.carried.clone())?);
        for attested in &one.about_image {
            let bundle = attested.statement.bundle();
            let kind = &attested.statement.statement().predicate_type;
            referrers.push(assemble::bundle_referrer(ports, own, bundle, attested.size, kind, created)?);
        }
        evidence.extend(one.evidence());
        blobs.extend(one.assembled.blobs.iter().copied());
    }
    let children: Vec<Descriptor> = match proved {
        [_] => Vec::new(),
        several => several.iter().map(|one| one.assembled.image.clone()).collect(),
    };
    let place = artifact.repository.relative_to(request.folder);
    let target = ports.places.target(&place)?;
    let held = held(target.as_ref(), &place, tags)?;
    if place.folder().is_some() && held.iter().any(|occupant| occupant.image == image.digest) {
        let own = key_hint(request.signer.public_key());
        for subject in children.iter().chain([image]) {
            let (manifests, parts) = push::said_since(ports, &place, subject, &own, request.trust)?;
            referrers.extend(manifests);
            evidence.extend(parts);
        }
    }
    for occupant in held.iter().filter(|occupant| occupant.image != image.digest) {
        if let Some(tag) = tags.iter().find(|tag| occupant.tags.contains(tag)) {
            return Err(Error::Usage(format!(
                "the build tag {tag} of {} names {} and is never moved; choose another tag for {}",
                artifact.repository, occupant.image, image.digest
            )));
        }
        (ports.tell)(&format!("{} held {} until now", artifact.repository, occupant.image));
    }
    target.publish(
        &Publication {
            image: image.clone(),
            tags: tags.to_vec(),
            children,
            referrers,
            blobs: blobs.into_iter().collect(),
            evidence: evidence.into_iter().collect(),
            beside: Vec::new(),
            source: None,
            expected: held.first().map(|occupant| occupant.image),
            environment: None,
        },
        ports.store,
    )?;
    Ok(())
}

/// A build tag that is known before any source is.
fn known_tag(artifact: &Artifact) -> Result<Option<TagName>, Error> {
    let tag = artifact.tags.iter().find(|tag| !tag.needs_commit());
    tag.map(|tag| tag.fill(None, false).map_err(|error| tag_fault(artifact, &error))).transpose()
}

/// The build tags of an artifact, with the one commit that the sources of its steps are of where a tag asks for it.
fn build_tags(
    pipeline: &Pipeline,
    artifact: &Artifact,
    sources: &BTreeMap<OutputName, PinnedSource>,
) -> Result<Vec<TagName>, Error> {
    let mut used = Vec::new();
    for step in pipeline.closure(artifact) {
        for input in step.inputs.values() {
            if let InputSource::Source(name) = input {
                used.extend(sources.get(name));
            }
        }
    }
    let commits: BTreeSet<Option<&str>> = used.iter().map(|source| source.commit.as_deref()).collect();
    let commit = if commits.len() == 1 { commits.into_iter().next().flatten() } else { None };
    let dirty = used.iter().any(|source| source.dirty);
    artifact.tags.iter().map(|tag| tag.fill(commit, dirty).map_err(|error| tag_fault(artifact, &error))).collect()
}

fn tag_fault(artifact: &Artifact, error: &impl std::fmt::Display) -> Error {
    Error::Usage(format!("artifacts.{}.tags: {error}", artifact.name))
}

/// What is there that a new image could be in the way of: of a layout the one image, of a registry those that the build tags name.
fn held(target: &dyn ImageTarget, place: &Place, tags: &[TagName]) -> Result<Vec<Occupant>, Error> {
    Ok(match place {
        Place::Layout(_) => target.current(None)?.into_iter().collect(),
        Place::Registry(_) => {
            let of_tags = tags.iter().map(|tag| target.current(Some(tag))).collect::<Result<Vec<_>, _>>()?;
            of_tags.into_iter().flatten().collect()
        }
    })
}

/// Versions of what takes part in a run.
pub(crate) fn builder_version(executor: &dyn StepExecutor) -> BTreeMap<String, String> {
    let identity = executor.identity();
    let own = ("sluicegate".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    BTreeMap::from([own, (identity.name, identity.version)])
}
