//! An artifact's image: what belongs to its closed set, assembled, scanned, proved, and written with its evidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::json;
use sluicegate_attestation::{
    bundle::key_hint,
    identifiers::{BUNDLE, LOCAL_BUILDER},
    predicate::PredicateType,
    provenance::{Build, Dependency, ImageParameters, Internals, Provenance},
};
use sluicegate_pipeline::pipeline::{Artifact, InputSource, Pipeline};
use sluicegate_ports::{
    execute::Product,
    images::{Descriptor, ImagePlaceError, ImageTarget, Occupant, Publication},
    trees::ITSELF,
};
use sluicegate_types::{Digest, OutputName, Place, Platform, TagName, UnixTime};

use crate::{
    Error, Ports, Workbench, assemble,
    assemble::Assembled,
    attest::{Attested, attest},
    built::Built,
    folders::where_it_leads,
    pin::{PinnedImages, PinnedSource},
    push, scan,
    steps::{ImageStage, StepEvent},
    survey::{Survey, scanning},
};

use super::{BuiltImage, PinRequest, RunRequest, builder_version};

/// Finds out before anything runs that the images can be written: to layouts, and to none that is an environment's.
pub(super) fn check_places(bench: &Workbench<'_>, request: &PinRequest<'_>) -> Result<(), Error> {
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
        let occupant = bench.places.target(&place)?.current(known_tag(artifact)?.as_ref())?;
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
    let steps = request.pinning.pipeline.closure(artifact);
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
            let described = built.output(ports, request, &name, step, product, survey.as_deref_mut())?;
            parts.add(format!("attestation:{name}:sbom"), &described.sbom);
            if let Some((vulns, report)) = &described.scan {
                parts.add(format!("attestation:{name}:vulns"), vulns);
                parts.add_report(&format!("report:{name}:trivy"), report);
            }
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
pub(super) fn build_artifact(
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
        if let Some(scanner) = request.scanner {
            scanning(ports, request, scanner).keep(&assembled.image.digest, &about_image);
        }
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
            pipeline: request.pinning.pipeline.name.clone(),
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
        builder_version: builder_version(request.pinning.executor),
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
    let place = artifact.repository.relative_to(request.pinning.folder);
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
pub(super) fn build_tags(
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
