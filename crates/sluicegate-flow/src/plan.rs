//! `plan`: the dry run. Everything is pinned, every key is made as far as it can be known, and nothing is executed or signed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use sluicegate_pipeline::{
    cache_key::{Difference, KeyParts},
    pipeline::{InputSource, SecretSource, Step},
};
use sluicegate_ports::{execute::Product, shared_cache::SharedCache, step_cache::StepCache};
use sluicegate_types::{Destination, Digest, OutputName, Secret, StepName};
use sluicegate_verify::Trust;

use crate::{
    Error, Workbench,
    prepare::{Surroundings, prepare},
    reuse::{self, ContentThere, Elsewhere, Judged, Looked},
    run::{PinRequest, PinnedRun, builder_version, pin_alone},
    shared,
};

/// What is planned, and by whom earlier results are judged.
pub struct PlanRequest<'a> {
    /// What would run.
    pub pinning: PinRequest<'a>,
    /// Whose statements count.
    pub trust: &'a Trust,
    /// `PARAM_NAME` and its value.
    pub arguments: &'a BTreeMap<String, String>,
    /// Private places that the gateway lists for steps.
    pub private: &'a [Destination],
    /// Earlier results, and what the keys of steps were made of when they last ran.
    pub cache: &'a dyn StepCache,
    /// Whether earlier results are looked at.
    pub reuses: bool,
    /// Where other machines put theirs.
    pub shared: Option<&'a dyn SharedCache>,
    /// Whose results count.
    pub domain: Digest,
}

/// What a run would do.
#[derive(Debug)]
pub struct Plan {
    /// Each image that is named, what it was pinned to, and the indexes that led to it.
    pub images: Vec<PlannedImage>,
    /// Each source with the digest of its tree.
    pub sources: Vec<PlannedSource>,
    /// Steps in the order in which they may run.
    pub steps: Vec<PlannedStep>,
}

/// An image by digest.
#[derive(Clone, Debug)]
pub struct PlannedImage {
    /// What the pipeline file calls it.
    pub name: String,
    /// The platform that it is needed for.
    pub platform: String,
    /// Its manifest.
    pub digest: Digest,
    /// The indexes that led to it, outermost first.
    pub indexes: Vec<Digest>,
}

/// A source by digest.
#[derive(Clone, Debug)]
pub struct PlannedSource {
    /// Its name.
    pub name: OutputName,
    /// Its tree.
    pub digest: Digest,
    /// The commit that it says it is at.
    pub commit: Option<String>,
    /// Whether it has changes that are not committed.
    pub dirty: bool,
}

/// A step with what would become of it.
#[derive(Debug)]
pub struct PlannedStep {
    /// Its name.
    pub step: StepName,
    /// The image that it runs in.
    pub image: Digest,
    /// Its SOURCE_DATE_EPOCH.
    pub epoch: u64,
    /// What has to pass before.
    pub after: BTreeSet<StepName>,
    /// The key of its result; `None` while something that it reads has to be made first.
    pub key: Option<Digest>,
    /// What would be done.
    pub fate: Fate,
    /// What is another part of the key than when it last ran; `None` if that is not known.
    pub changed: Option<Vec<Difference>>,
}

/// What would be done about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An earlier result is taken.
    Taken {
        /// The statement of the run that did the work.
        origin: Digest,
        /// If it is in the store that machines share: how many bytes of it a run has to fetch from there that it has not fetched for a step
        /// before. They are said to be there.
        to_fetch: Option<u64>,
    },
    /// It is executed, and why.
    Executed(String),
    /// That is known once these have run.
    Open(Vec<StepName>),
}

/// Plans a run. What a run would refuse before its first step is refused here, in the same words.
pub fn plan(bench: &Workbench<'_>, request: &PlanRequest<'_>) -> Result<Plan, Error> {
    let PinRequest { pipeline, executor, stop, .. } = request.pinning;
    let PinnedRun { steps, artifacts, pinned, .. } = pin_alone(bench, &request.pinning)?;
    // Of a secret only that it is there is part of a key.
    let placeholder = |source: &SecretSource| (source.clone(), Secret::new(b"not asked for".to_vec()));
    let secrets = steps.iter().flat_map(|step| step.secrets.values()).map(placeholder).collect();
    let around = Surroundings {
        images: &pinned.images,
        sources: &pinned.sources,
        epochs: &pinned.epochs,
        arguments: request.arguments,
        secrets: &secrets,
        private: request.private,
        executor,
        domain: request.domain,
        pipeline: &pipeline.name,
        cache_place: pinned.cache_place.as_ref(),
        keeps_caches: false,
        observe: false,
        stop: stop.clone(),
    };
    let builder_version = builder_version(executor);
    let sizes = RefCell::default();
    let judged = Judged {
        store: bench.store,
        trust: request.trust,
        clock: bench.clock,
        pipeline: &pipeline.name,
        builder_version: &builder_version,
        release: false,
        after_secrets: shared::after_secrets(&pipeline.steps),
        shared: request.shared.map(|store| Elsewhere { store, content: ContentThere::Asked(&sizes) }),
        exact: reuse::exact(pipeline, artifacts),
    };
    let mut left: BTreeMap<StepName, BTreeMap<OutputName, Product>> = BTreeMap::new();
    let mut planned = Vec::new();
    for step in steps {
        let product = |from: &StepName, output: &OutputName| left.get(from)?.get(output).cloned();
        let prepared = prepare(bench, &around, step, product)?;
        let (key, fate, changed) = match &prepared {
            None => (None, Fate::Open(unknown(step, &left)), None),
            Some(prepared) => {
                let looked = request.reuses.then(|| reuse::look(&judged, request.cache, step, prepared));
                let fate = match looked {
                    Some(Looked::Hit(reused)) => {
                        left.insert(step.name.clone(), reused.products);
                        Fate::Taken { origin: reused.origin.bundle(), to_fetch: reused.elsewhere }
                    }
                    Some(Looked::Miss(reason)) => Fate::Executed(reason),
                    None => Fate::Executed("earlier results are not looked at".to_owned()),
                };
                let before = request.cache.remembered(&pipeline.name, &step.name);
                let before = before.and_then(|bytes| serde_json::from_slice::<KeyParts>(&bytes).ok());
                (Some(prepared.key), fate, before.map(|before| prepared.parts.differences(&before)))
            }
        };
        let image = pinned.images.of_step(step)?.digest;
        let after = step.needs.iter().chain(step.inputs.values().filter_map(InputSource::step)).cloned().collect();
        planned.push(PlannedStep {
            step: step.name.clone(),
            image,
            epoch: pinned.epochs.of(&step.name),
            after,
            key,
            fate,
            changed,
        });
    }
    let images = pinned.images.all().map(|(name, platform, image)| PlannedImage {
        name: name.to_owned(),
        platform: platform.to_string(),
        digest: image.digest,
        indexes: image.indexes.clone(),
    });
    let sources = pinned.sources.iter().map(|(name, source)| PlannedSource {
        name: name.clone(),
        digest: source.content.digest,
        commit: source.commit.clone(),
        dirty: source.dirty,
    });
    Ok(Plan { images: images.collect(), sources: sources.collect(), steps: planned })
}

/// The steps whose outputs are not known yet, each once.
fn unknown(step: &Step, left: &BTreeMap<StepName, BTreeMap<OutputName, Product>>) -> Vec<StepName> {
    let open: BTreeSet<&StepName> =
        step.inputs.values().filter_map(InputSource::step).filter(|name| !left.contains_key(*name)).collect();
    open.into_iter().cloned().collect()
}
