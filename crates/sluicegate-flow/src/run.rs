//! `run`: executes a pipeline step by step, proves each step, assembles, scans and proves the image, writes it with its evidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::json;
use sluicegate_attestation::{
    bundle::key_hint,
    identifiers::{BUNDLE, LOCAL_BUILDER},
    predicate::PredicateType,
    provenance::{Build, Dependency, ImageParameters, Provenance},
    test_result::TestResult,
};
use sluicegate_pipeline::pipeline::{Artifact, Pipeline, SourcePlace};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::{Product, StepExecutor, Stop},
    images::{Descriptor, ImagePlaceError, ImageTarget, Occupant, Publication},
    scan::Scanner,
    sign::Signer,
    trees::{ITSELF, SourceLister},
};
use sluicegate_types::{Digest, OutputName, Place, Platform, RunId, StepName, TagName, UnixTime};
use sluicegate_verify::Trust;

use crate::{
    Error, Ports,
    assemble::{self, Assembled},
    attest::{Attested, attest},
    built::Built,
    evidence, execute,
    folders::{EnvironmentPlaces, where_it_leads},
    pin::{self, PinnedImages, PinnedSource},
    push, scan,
    survey::Survey,
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
    pub environments: &'a EnvironmentPlaces,
    /// What is signed must verify with this.
    pub trust: &'a Trust,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Ends the run from outside.
    pub stop: Stop,
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
    /// What steps reported of their tests.
    pub tests: Vec<(StepName, TestResult)>,
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
}

/// Without a commit and without SOURCE_DATE_EPOCH: 1980-01-01, the first moment that zip files can write.
const DEFAULT_EPOCH: u64 = 315_532_800;

/// Runs a pipeline. The first failing step ends it; the failure is recorded. An image becomes visible at its repository only with
/// all of its evidence.
pub fn run(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<RunReport, FailedRun> {
    run_all(ports, request).map_err(|error| {
        let record = NewRecord {
            kind: RecordKind::Run,
            at: ports.clock.now(),
            subject: None,
            environment: None,
            outcome: "failed".to_owned(),
            body: json!({"run": request.run, "pipeline": request.pipeline.name, "error": error.causes()}),
        };
        let record = match evidence::record(ports, &record) {
            Ok(record) => Some(record.sequence),
            Err(unrecorded) => {
                (ports.warn)(&format!("the failure could not be recorded: {unrecorded}"));
                None
            }
        };
        FailedRun { error: Box::new(error), record }
    })
}

/// An image is on record as soon as it can be seen, whatever becomes of the next one.
fn record_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    image: &BuiltImage,
    artifact: &Artifact,
    built: &Built,
) -> Result<(), Error> {
    let mut steps = Vec::new();
    for step in request.pipeline.closure(artifact) {
        let done = built.step(&step.name)?;
        let outputs: BTreeMap<_, _> = done.products.iter().map(|(name, p)| (name, p.content.digest)).collect();
        steps.push(json!({
            "step": step.name, "outputs": outputs, "attestation": done.attested.statement.bundle(), "log": done.log,
            "testResult": done.tested.as_ref().map(|tested| tested.attested.statement.bundle()),
        }));
    }
    let mut body = json!({
        "run": request.run, "pipeline": request.pipeline.name, "artifact": image.artifact,
        "attestations": image.attestations, "evidence": image.evidence, "steps": steps,
    });
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

fn run_all(ports: &Ports<'_>, request: &RunRequest<'_>) -> Result<RunReport, Error> {
    let pipeline = request.pipeline;
    request.executor.probe()?;
    check_places(ports, request)?;
    let mut images = PinnedImages::default();
    for step in &pipeline.steps {
        images.pin(ports, &step.image, request.folder, &Platform::of_steps())?;
    }
    for artifact in &pipeline.artifacts {
        for (base, platform) in artifact.base.iter().flat_map(|base| artifact.platforms.iter().map(move |p| (base, p)))
        {
            images.pin(ports, base, request.folder, platform)?;
        }
    }
    let mut snapshots = BTreeMap::new();
    for (name, source) in &pipeline.sources {
        let SourcePlace::Folder(path) = &source.place else {
            return Err(Error::Usage(format!("sources.{name}.git: not in this version")));
        };
        if !source.include.is_empty() {
            return Err(Error::Usage(format!("sources.{name}.include: not in this version")));
        }
        snapshots.insert(name.clone(), pin::source(request.lister, request.folder, path, request.excluded)?);
    }
    let epoch =
        request.epoch.or_else(|| snapshots.values().filter_map(|s| s.commit_time).max()).unwrap_or(DEFAULT_EPOCH);
    let mut sources: BTreeMap<OutputName, PinnedSource> = BTreeMap::new();
    for (name, snapshot) in snapshots {
        let packed = snapshot.pack(ports, epoch)?;
        let state = match (&packed.commit, packed.dirty) {
            (None, _) => " (in no commit)",
            (Some(_), true) => " (uncommitted changes)",
            (Some(_), false) => "",
        };
        (ports.tell)(&format!("source {name} is {}{state}", packed.content.digest));
        sources.insert(name, packed);
    }
    let mut built = Built::default();
    let mut report = RunReport { run: request.run.clone(), images: Vec::new(), steps: Vec::new(), tests: Vec::new() };
    for step in &pipeline.steps {
        let finished = execute::step(ports, request, step, images.of_step(step)?, &sources, &built, epoch)?;
        let outputs = finished.products.iter().map(|(name, p)| (name.clone(), p.content.digest)).collect();
        report.steps.push((step.name.clone(), outputs));
        if let Some(tested) = &finished.tested {
            report.tests.push((step.name.clone(), tested.result.clone()));
        }
        built.add(step.name.clone(), finished);
    }
    for artifact in &pipeline.artifacts {
        let image = build_artifact(ports, request, artifact, &images, &mut built, epoch)?;
        record_image(ports, request, &image, artifact, &built)?;
        report.images.push(image);
    }
    Ok(report)
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
        let occupant = ports.places.target(&place)?.current(build_tags(artifact)?.first())?;
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
        let bundle = attested.statement.bundle();
        if self.carried.iter().any(|part| part.digest == bundle) {
            return;
        }
        self.dependencies.push(Dependency::attestation(name, bundle));
        self.carried.push(Descriptor::new(BUNDLE, bundle, attested.size));
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
    artifact: &Artifact,
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
    publish(ports, request, artifact, &image, &proved)?;
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
    let survey =
        request.scanner.map(|scanner| Survey::ask(ports, request, scanner, (artifact, &assembled), images, built));
    let mut survey = survey.transpose()?;
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
    let tags = build_tags(artifact)?;
    let held = held(target.as_ref(), &place, &tags)?;
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
            tags,
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

/// The build tags of an artifact.
fn build_tags(artifact: &Artifact) -> Result<Vec<TagName>, Error> {
    let tags = artifact.tags.iter().map(|tag| {
        // Which commit that is, is not found out yet.
        let hint = if tag.needs_commit() { " (a tag with {commit} is not in this version)" } else { "" };
        tag.fill(None, false).map_err(|e| Error::Usage(format!("artifacts.{}.tags: {e}{hint}", artifact.name)))
    });
    tags.collect()
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
pub(crate) fn builder_version(request: &RunRequest<'_>) -> BTreeMap<String, String> {
    let identity = request.executor.identity();
    let own = ("sluicegate".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    BTreeMap::from([own, (identity.name, identity.version)])
}
