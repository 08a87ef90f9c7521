//! `run`: executes a pipeline step by step, proves each step, assembles, scans and proves the image, writes it with its evidence.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

use serde_json::json;
use sluicegate_attestation::{
    identifiers::{IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
    provenance::{Build, Dependency, ImageParameters, Provenance, StepParameters},
    statement::{Statement, Subject},
};
use sluicegate_pipeline::pipeline::{Artifact, InputSource, Pipeline, Step};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::{Ended, Input, InputAccess, Limits, OutputRequest, Product, StepExecutor, StepOutcome, StepRequest},
    images::{Descriptor, ImagePlaceError, Publication},
    scan::Scanner,
    sign::Signer,
    trees::SourceLister,
};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, OutputName, RunId, StepName, UnixTime};
use sluicegate_verify::Trust;

use crate::{
    Error, Ports,
    assemble::{self, Assembled},
    attest::{Attested, attest},
    evidence,
    folders::where_it_leads,
    pin::{self, PinnedBase, PinnedSource},
    scan,
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
    /// Folders and files that never belong to a source: the home.
    pub excluded: &'a [PathBuf],
    /// Scans images; `None` is `--no-scan`, and no gate that requires `sbom` or `vulns` will allow the result.
    pub scanner: Option<&'a dyn Scanner>,
    /// The key of role `steps`.
    pub signer: &'a dyn Signer,
    /// Places of environments, where nothing is built: a build tag is never a promotion.
    pub environments: &'a [PathBuf],
    /// What is signed must verify with this.
    pub trust: &'a Trust,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Gets every step's output as it comes.
    pub on_output: &'a dyn Fn(&StepName, &[u8]),
}

/// What a run left.
#[derive(Debug)]
pub struct RunReport {
    /// The run's name.
    pub run: RunId,
    /// Images, in the order of the file.
    pub images: Vec<BuiltImage>,
    /// Steps in the order they ran: name, and the digest of each output.
    pub steps: Vec<(StepName, BTreeMap<OutputName, Digest>)>,
}

/// An image that was built and proved.
#[derive(Debug)]
pub struct BuiltImage {
    /// The artifact's name.
    pub artifact: OutputName,
    /// Where it was written.
    pub repository: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Attestations in its closed set, its own included.
    pub attestations: usize,
    /// Findings of the scan; `None` without one.
    pub findings: Option<usize>,
}

/// Without a commit and without SOURCE_DATE_EPOCH: 1980-01-01, the first moment that zip files can write.
const DEFAULT_EPOCH: u64 = 315_532_800;
/// Bytes of one step's log.
const LOG_LIMIT: u64 = 256 * 1024 * 1024;
/// Bytes of one step's outputs together.
const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024 * 1024;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a pipeline. The first failing step ends it; the failure is recorded. An image becomes visible at its repository only with
/// all of its evidence.
pub fn run(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<RunReport, Error> {
    run_all(ports, request).inspect_err(|error| {
        let record = NewRecord {
            kind: RecordKind::Run,
            at: ports.clock.now(),
            subject: None,
            environment: None,
            outcome: "failed".to_owned(),
            body: json!({"run": request.run, "pipeline": request.pipeline.name, "error": error.causes()}),
        };
        if let Err(unrecorded) = evidence::record(ports, &record) {
            (ports.warn)(&format!("the failure could not be recorded: {unrecorded}"));
        }
    })
}

/// An image is on record as soon as it can be seen, whatever becomes of the next one.
fn record_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    image: &BuiltImage,
    done: &BTreeMap<StepName, Done>,
) -> Result<(), Error> {
    let steps = done.iter().map(|(step, done)| {
        let outputs: BTreeMap<_, _> = done.products.iter().map(|(name, p)| (name, p.content.digest)).collect();
        json!({"step": step, "outputs": outputs, "attestation": done.attested.statement.bundle(), "log": done.log})
    });
    let record = NewRecord {
        kind: RecordKind::Run,
        at: ports.clock.now(),
        subject: Some(image.digest),
        environment: None,
        outcome: "succeeded".to_owned(),
        body: json!({
            "run": request.run, "pipeline": request.pipeline.name, "artifact": image.artifact,
            "attestations": image.attestations, "steps": steps.collect::<Vec<_>>(),
        }),
    };
    evidence::record(ports, &record)?;
    Ok(())
}

/// A step that ran, with what proves it.
struct Done {
    attested: Attested,
    products: BTreeMap<OutputName, Product>,
    log: Digest,
}

fn run_all(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<RunReport, Error> {
    let pipeline = request.pipeline;
    request.executor.probe()?;
    check_places(ports, request)?;
    let mut images: BTreeMap<String, PinnedBase> = BTreeMap::new();
    let step_images = pipeline.steps.iter().map(|step| &step.image);
    for reference in step_images.chain(pipeline.artifacts.iter().filter_map(|a| a.base.as_ref())) {
        if let Entry::Vacant(place) = images.entry(reference.to_string()) {
            let pinned = pin::image(ports, reference, request.folder)?;
            (ports.tell)(&format!("pinned {reference} to {}", pinned.digest));
            place.insert(pinned);
        }
    }
    let mut snapshots = BTreeMap::new();
    for (name, source) in &pipeline.sources {
        snapshots.insert(name.clone(), pin::source(request.lister, request.folder, &source.path, request.excluded)?);
    }
    let epoch =
        request.epoch.or_else(|| snapshots.values().filter_map(|s| s.commit_time).max()).unwrap_or(DEFAULT_EPOCH);
    let mut sources: BTreeMap<OutputName, PinnedSource> = BTreeMap::new();
    for (name, snapshot) in snapshots {
        let packed = snapshot.pack(ports, epoch)?;
        let state = if packed.dirty { " (uncommitted changes)" } else { "" };
        (ports.tell)(&format!("source {name} is {}{state}", packed.content.digest));
        sources.insert(name, packed);
    }
    let mut done: BTreeMap<StepName, Done> = BTreeMap::new();
    let mut report = RunReport { run: request.run.clone(), images: Vec::new(), steps: Vec::new() };
    for step in &pipeline.steps {
        let image =
            images.get(&step.image.to_string()).ok_or_else(|| Error::Usage(format!("{} is not pinned", step.image)))?;
        let finished = run_step(ports, request, step, image, &sources, &done, epoch)?;
        let outputs = finished.products.iter().map(|(name, p)| (name.clone(), p.content.digest)).collect();
        report.steps.push((step.name.clone(), outputs));
        done.insert(step.name.clone(), finished);
    }
    for artifact in &pipeline.artifacts {
        let base = artifact.base.as_ref().and_then(|base| images.get(&base.to_string()));
        let image = build_image(ports, request, artifact, base, &done, epoch)?;
        record_image(ports, request, &image, &done)?;
        report.images.push(image);
    }
    Ok(report)
}

/// Finds out before anything runs that the images can be written: to layouts, and to none that is an environment's.
fn check_places(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<(), Error> {
    for artifact in &request.pipeline.artifacts {
        let place = request.folder.join(&artifact.repository);
        let leads = where_it_leads(&place);
        if !leads.starts_with(where_it_leads(request.folder)) {
            return Err(Error::Usage(format!(
                "artifacts.{}.repository leads to {}, out of the pipeline file's folder",
                artifact.name,
                leads.display()
            )));
        }
        if request.environments.iter().any(|environment| where_it_leads(environment) == leads) {
            return Err(Error::Usage(format!(
                "artifacts.{}.repository is the place of an environment, where only promote writes; choose another folder",
                artifact.name
            )));
        }
        let occupant = ports.places.target(&place)?.current()?;
        if let Some(environment) = occupant.and_then(|occupant| occupant.environment) {
            return Err(ImagePlaceError::OfEnvironment { path: place, environment }.into());
        }
    }
    Ok(())
}

fn run_step(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    image: &PinnedBase,
    sources: &BTreeMap<OutputName, PinnedSource>,
    done: &BTreeMap<StepName, Done>,
    epoch: u64,
) -> Result<Done, Error> {
    let mut inputs = Vec::new();
    let mut dependencies = vec![Dependency::image("image", image.digest)];
    for (mount_point, source) in &step.inputs {
        let (content, executable, dependency) = match source {
            InputSource::Source(name) => {
                let source = sources.get(name).ok_or_else(|| Error::Usage(format!("no source {name}")))?;
                (source.content, false, source_dependency(name, source))
            }
            InputSource::Output(from, output) => {
                let (product, attestation) = product_of(done, from, output)?;
                let dependency = Dependency::content(format!("{from}.{output}"), product.content, Some(attestation));
                (product.content, product.executable, dependency)
            }
        };
        dependencies.push(dependency);
        inputs.push(Input { mount_point: mount_point.clone(), content, executable, access: InputAccess::CopyOnWrite });
    }
    let mut attestations: Vec<Dependency> = Vec::new();
    for dependency in &dependencies {
        if let Some(bundle) = dependency.attested_by()? {
            let step = dependency.name.split('.').next().unwrap_or_default();
            let entry = Dependency::attestation(format!("attestation:{step}"), bundle);
            if !attestations.contains(&entry) {
                attestations.push(entry);
            }
        }
    }
    dependencies.extend(attestations);
    let env = environment(step, image, epoch);
    let limits = Limits {
        timeout: step.timeout,
        memory: step.memory,
        pids: step.pids,
        cpu_millis: step.cpu_millis,
        log_bytes: LOG_LIMIT,
        output_bytes: OUTPUT_LIMIT,
    };
    let outputs = step.outputs.iter().map(|(name, path)| OutputRequest { name: name.clone(), path: path.clone() });
    let execution = StepRequest {
        step: step.name.clone(),
        layers: image.layers.clone(),
        argv: step.argv.clone(),
        env: env.clone(),
        workdir: step.workdir.clone(),
        user: image.user()?,
        inputs,
        outputs: outputs.collect(),
        limits: limits.clone(),
        epoch,
    };
    (ports.tell)(&format!("step {} runs", step.name));
    let started_on = ports.clock.now();
    let outcome = request.executor.run_step(&execution, &mut |bytes| (request.on_output)(&step.name, bytes))?;
    let finished_on = ports.clock.now();
    check_outcome(step, &outcome)?;
    let products: BTreeMap<OutputName, Product> = outcome.outputs.iter().map(|p| (p.name.clone(), p.clone())).collect();
    let provenance = Provenance {
        build: Build::Step(StepParameters {
            pipeline: request.pipeline.name.clone(),
            step: step.name.clone(),
            run: step.argv.clone(),
            env: env.into_iter().collect(),
            workdir: step.workdir.display().to_string(),
            inputs: step.inputs.iter().map(|(at, what)| (at.display().to_string(), what.to_string())).collect(),
            outputs: step.outputs.iter().map(|(name, at)| (name.to_string(), at.display().to_string())).collect(),
            limits: limit_parameters(&limits),
            network: "none".to_owned(),
            platform: "linux/amd64".to_owned(),
            exit_code: 0,
        }),
        dependencies,
        builder_id: LOCAL_BUILDER.to_owned(),
        builder_version: builder_version(request),
        run: request.run.clone(),
        started_on,
        finished_on,
        byproducts: vec![Dependency::other("log", outcome.log, "text/plain")],
    };
    let statement = Statement {
        subjects: step_subjects(&step.name, &products, outcome.log),
        predicate_type: PredicateType::Provenance,
        predicate: provenance.to_predicate()?,
    };
    let mut attested = attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?;
    let attested = attested.pop().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))?;
    (ports.tell)(&format!(
        "step {} is proved: {} at {} of {}",
        step.name,
        attested.statement.bundle(),
        attested.statement.log().index,
        attested.statement.log().origin
    ));
    Ok(Done { attested, products, log: outcome.log })
}

fn builder_version(request: &RunRequest<'_>) -> BTreeMap<String, String> {
    let identity = request.executor.identity();
    let own = ("sluicegate".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    BTreeMap::from([own, (identity.name, identity.version)])
}

fn source_dependency(name: &OutputName, source: &PinnedSource) -> Dependency {
    let mut dependency = Dependency::content(format!("source:{name}"), source.content, None);
    if let Some(commit) = &source.commit {
        // The commit is what the work tree says, not one that this builder fetched: it must not count as resolved.
        dependency.annotations.insert("sluicegate.dev/commit-unverified".to_owned(), commit.clone());
        dependency.annotations.insert("sluicegate.dev/dirty".to_owned(), source.dirty.to_string());
    }
    dependency
}

fn product_of<'a>(
    done: &'a BTreeMap<StepName, Done>,
    step: &StepName,
    output: &OutputName,
) -> Result<(&'a Product, Digest), Error> {
    let found = done.get(step).and_then(|done| Some((done.products.get(output)?, done.attested.statement.bundle())));
    found.ok_or_else(|| Error::Usage(format!("the step {step} left no output {output}")))
}

fn environment(step: &Step, image: &PinnedBase, epoch: u64) -> Vec<(String, String)> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), image.variable("PATH").unwrap_or(DEFAULT_PATH).to_owned()),
        ("HOME".to_owned(), image.variable("HOME").unwrap_or("/").to_owned()),
        ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string()),
    ]);
    env.extend(step.env.clone());
    env.into_iter().collect()
}

fn limit_parameters(limits: &Limits) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::from([("timeoutSeconds".to_owned(), limits.timeout.as_secs())]);
    let optional =
        [("memoryBytes", limits.memory), ("pids", limits.pids), ("cpuMillis", limits.cpu_millis.map(u64::from))];
    out.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    out
}

fn check_outcome(step: &Step, outcome: &StepOutcome) -> Result<(), Error> {
    let failed = |how: String| Err(Error::StepFailed { step: step.name.to_string(), how });
    match outcome.ended {
        Ended::Exit(0) => {}
        Ended::Exit(code) => {
            let oom = outcome.oom_kills.filter(|kills| *kills > 0);
            let hint = match (code, oom) {
                (_, Some(kills)) => format!("; the memory limit killed {kills} of its processes (limits.memory)"),
                (127, _) => "; the program was not found in the step's image".to_owned(),
                (126, _) => "; the program could not be executed".to_owned(),
                _ => String::new(),
            };
            return failed(format!("ended with code {code}{hint}"));
        }
        Ended::TimedOut => {
            return failed(format!("was killed after {} s (limits.timeout)", step.timeout.as_secs()));
        }
        Ended::LogFull => return failed(format!("was killed: it printed more than {LOG_LIMIT} bytes")),
    }
    if let Some(kills) = outcome.oom_kills.filter(|kills| *kills > 0) {
        return failed(format!(
            "ended with code 0, but the memory limit killed {kills} of its processes (limits.memory)"
        ));
    }
    if let Some(output) = outcome.missing.first() {
        let path = step.outputs.get(output).map(|path| path.display().to_string()).unwrap_or_default();
        return failed(format!("did not leave its output {output} at {path}"));
    }
    Ok(())
}

/// A step's outputs; of a step without outputs, its log.
fn step_subjects(step: &StepName, products: &BTreeMap<OutputName, Product>, log: Digest) -> NonEmpty<Subject> {
    let outputs: Vec<Subject> =
        products.iter().map(|(name, product)| Subject::product(format!("{step}.{name}"), product.content)).collect();
    NonEmpty::try_from(outputs).unwrap_or_else(|_| {
        NonEmpty::one(Subject::product(format!("{step}:log"), Content { kind: ContentKind::File, digest: log }))
    })
}

fn build_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    artifact: &Artifact,
    base: Option<&PinnedBase>,
    done: &BTreeMap<StepName, Done>,
    epoch: u64,
) -> Result<BuiltImage, Error> {
    let started_on = ports.clock.now();
    let mut files = BTreeMap::new();
    let mut dependencies: Vec<Dependency> =
        base.map(|base| Dependency::image("base", base.digest)).into_iter().collect();
    for (path, (step, output)) in &artifact.files {
        let (product, attestation) = product_of(done, step, output)?;
        let dependency = Dependency::content(format!("{step}.{output}"), product.content, Some(attestation));
        if !dependencies.contains(&dependency) {
            dependencies.push(dependency);
        }
        files.insert(path.clone(), product.clone());
    }
    let assembled = assemble::image(ports, base, &files, &artifact.config, epoch)?;
    (ports.tell)(&format!("image {} is {}", artifact.name, assembled.image.digest));
    // Everything the products came from: in this version the whole pipeline, of which every step must have passed.
    let mut parts = Vec::new();
    for (step, done) in done {
        let bundle = done.attested.statement.bundle();
        dependencies.push(Dependency::attestation(format!("attestation:{step}"), bundle));
        parts.push(Descriptor::new(sluicegate_attestation::identifiers::BUNDLE, bundle, done.attested.size));
    }
    let mut about_image: Vec<Attested> = Vec::new();
    let mut findings = None;
    if let Some(scanner) = request.scanner {
        (ports.tell)(&format!("image {} is scanned", artifact.name));
        let name = artifact.name.to_string();
        let scan = scan::scan(ports, scanner, &assembled.image, &assembled.blobs, &name, request.scratch)?;
        findings = Some(scan.findings);
        about_image = attest(ports, request.signer, request.trust, &[scan.sbom, scan.vulns], ports.clock.now())?;
        for attested in &about_image {
            let kind = attested.statement.statement().predicate_type.short();
            dependencies.push(Dependency::attestation(format!("attestation:{kind}"), attested.statement.bundle()));
        }
        dependencies.push(Dependency::other("report:trivy", scan.report.digest, &scan.report.media_type));
        parts.push(scan.report);
    }
    let provenance = image_provenance(request, artifact, dependencies, started_on, ports.clock.now());
    let statement = scan::about_image(
        assembled.image.digest,
        artifact.name.as_str(),
        PredicateType::Provenance,
        provenance.to_predicate()?,
    );
    about_image.extend(attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?);
    let attestations = about_image.len() + done.len();
    publish(ports, request, artifact, &assembled, &about_image, parts)?;
    Ok(BuiltImage {
        artifact: artifact.name.clone(),
        repository: artifact.repository.clone(),
        digest: assembled.image.digest,
        attestations,
        findings,
    })
}

fn image_provenance(
    request: &RunRequest<'_>,
    artifact: &Artifact,
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
        }),
        dependencies,
        builder_id: LOCAL_BUILDER.to_owned(),
        builder_version: builder_version(request),
        run: request.run.clone(),
        started_on,
        finished_on,
        byproducts: Vec::new(),
    }
}

fn publish(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    artifact: &Artifact,
    assembled: &Assembled,
    about_image: &[Attested],
    parts: Vec<Descriptor>,
) -> Result<(), Error> {
    let created = ports.clock.now();
    let mut blobs = assembled.blobs.clone();
    blobs.push(assemble::empty_config());
    blobs.extend(parts.iter().map(|part| part.digest));
    let mut referrers = vec![assemble::evidence_manifest(ports, &assembled.image, parts)?];
    for attested in about_image {
        let bundle = attested.statement.bundle();
        let kind = &attested.statement.statement().predicate_type;
        referrers.push(assemble::bundle_referrer(ports, &assembled.image, bundle, attested.size, kind, created)?);
        blobs.push(bundle);
    }
    let target = ports.places.target(&request.folder.join(&artifact.repository))?;
    let current = target.current()?;
    if let Some(occupant) = &current
        && occupant.image != assembled.image.digest
    {
        if let Some(tag) = artifact.tags.iter().find(|tag| occupant.tags.contains(tag)) {
            return Err(Error::Usage(format!(
                "the build tag {tag} of {} names {} and is never moved; choose another tag for {}",
                artifact.repository.display(),
                occupant.image,
                assembled.image.digest
            )));
        }
        (ports.tell)(&format!("{} held {} until now", artifact.repository.display(), occupant.image));
    }
    debug_assert_eq!(assembled.image.media_type, IMAGE_MANIFEST);
    target.publish(
        &Publication {
            image: assembled.image.clone(),
            tags: artifact.tags.clone(),
            referrers,
            blobs,
            expected: current.map(|occupant| occupant.image),
            environment: None,
        },
        ports.store,
    )?;
    Ok(())
}
