//! Pins what a pipeline names: images by manifest digest with their layers in the store, sources by the digest of their tree.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sluicegate_attestation::{
    identifiers::{
        DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, DOCKER_LAYER_ZSTD, IMAGE_INDEX, LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD,
    },
    provenance::Dependency,
};
use sluicegate_pipeline::pipeline::{Artifact, InputSource, Pipeline, SourcePlace, Step};
use sluicegate_ports::{
    execute::{Compression, Layer, Stop},
    images::{Descriptor, Manifest},
    trees::{LastChange, SourceFetcher, SourceLister},
};
use sluicegate_types::{Content, ContentKind, Digest, ImageRef, OutputName, Platform, StepName};

use crate::{Error, Workbench, fetch, image_tree, named_folders, shared_caches::CachePlace};

/// An image whose every layer is in the store.
#[derive(Clone, Debug)]
pub struct PinnedBase {
    /// What the pipeline file calls it.
    pub name: String,
    /// Its manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The indexes that led to it, outermost first.
    pub indexes: Vec<Digest>,
    /// Bytes of the manifest.
    pub size: u64,
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Its configuration.
    pub config: serde_json::Value,
}

/// The images that a pipeline names, each pinned once for each platform that it is needed for.
#[derive(Debug, Default)]
pub struct PinnedImages(BTreeMap<(String, Platform), PinnedBase>);

impl PinnedImages {
    /// Pins an image, unless that is done; what it was pinned to is told.
    pub fn pin(
        &mut self,
        bench: &Workbench<'_>,
        reference: &ImageRef,
        folder: &Path,
        platform: &Platform,
    ) -> Result<(), Error> {
        if let Entry::Vacant(place) = self.0.entry((reference.to_string(), platform.clone())) {
            let pinned = image(bench, reference, folder, platform)?;
            let through =
                if pinned.indexes.is_empty() { String::new() } else { format!(", the {platform} image of an index") };
            (bench.tell)(&format!("pinned {reference} to {}{through}", pinned.digest));
            place.insert(pinned);
        }
        Ok(())
    }

    /// The image that was pinned.
    pub fn get(&self, reference: &ImageRef, platform: &Platform) -> Result<&PinnedBase, Error> {
        let pinned = self.0.get(&(reference.to_string(), platform.clone()));
        pinned.ok_or_else(|| Error::Bug(format!("{reference} is not pinned for {platform}")))
    }

    /// All of them: what the pipeline file calls each, for which platform, and what that is.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Platform, &PinnedBase)> {
        self.0.iter().map(|((name, platform), image)| (name.as_str(), platform, image))
    }

    /// The image that a step runs in.
    pub fn of_step(&self, step: &Step) -> Result<&PinnedBase, Error> {
        self.get(&step.image, &Platform::of_steps())
    }
}

/// A source tree in the store.
#[derive(Clone, Debug)]
pub struct PinnedSource {
    /// Its deterministic tar.
    pub content: Content,
    /// The commit it was taken at; not resolved by us, so only a claim (trust model 11).
    pub commit: Option<String>,
    /// Whether it had changes that are not committed.
    pub dirty: bool,
    /// When it was changed last.
    pub last_change: LastChange,
    /// Where it was fetched from at that commit, and by which name, if we fetched it; then the commit is known and no claim.
    pub fetched: Option<(String, String)>,
    /// Folders of other repositories in it, with the commit that each is at.
    pub submodules: BTreeMap<PathBuf, String>,
    entries: Vec<sluicegate_ports::trees::TreeEntry>,
}

/// What is to be pinned of a pipeline.
pub(crate) struct Pins<'a> {
    pub(crate) pipeline: &'a Pipeline,
    /// The folder of the pipeline file.
    pub(crate) folder: &'a Path,
    /// SOURCE_DATE_EPOCH, if it was given.
    pub(crate) epoch: Option<u64>,
    pub(crate) lister: &'a dyn SourceLister,
    pub(crate) fetcher: &'a dyn SourceFetcher,
    /// What never belongs to a source.
    pub(crate) excluded: &'a [PathBuf],
    /// Ends it from outside, between images and within a source.
    pub(crate) stop: &'a Stop,
}

/// Everything that steps and artifacts name, by digest.
pub(crate) struct Pinned {
    pub(crate) images: PinnedImages,
    pub(crate) sources: BTreeMap<OutputName, PinnedSource>,
    pub(crate) epochs: Epochs,
    /// Whose the shared caches of these steps are; `None` if none of them has one.
    pub(crate) cache_place: Option<CachePlace>,
}

/// SOURCE_DATE_EPOCH of each step: what was given, for all; else when the newest of the sources was changed last that went into the step,
/// by itself or through the steps whose outputs it reads. So a commit that changes none of them leaves the step's environment, and with
/// it the key of its result, as it was.
#[derive(Clone, Debug)]
pub struct Epochs {
    given: Option<u64>,
    steps: BTreeMap<StepName, u64>,
}

/// Without a commit and without SOURCE_DATE_EPOCH: 1980-01-01, the first moment that zip files can write. It is also the mtime of
/// everything in the tar of a source, whose digest is that of its content alone.
const DEFAULT_EPOCH: u64 = 315_532_800;

impl Epochs {
    /// `steps` in an order in which each comes after those that it reads from.
    fn new(given: Option<u64>, steps: &[&Step], sources: &BTreeMap<OutputName, PinnedSource>) -> Self {
        let mut newest: BTreeMap<&StepName, Option<u64>> = BTreeMap::new();
        for step in steps {
            let dates = step.inputs.values().filter_map(|input| match input {
                InputSource::Source(name) => sources.get(name)?.last_change.seconds(),
                InputSource::Output(from, _) => newest.get(from).copied().flatten(),
            });
            let date = dates.max();
            newest.insert(&step.name, date);
        }
        let steps = newest.into_iter().map(|(name, date)| (name.clone(), date.unwrap_or(DEFAULT_EPOCH)));
        Self { given, steps: steps.collect() }
    }

    /// That of a step.
    pub fn of(&self, step: &StepName) -> u64 {
        self.given.or_else(|| self.steps.get(step).copied()).unwrap_or(DEFAULT_EPOCH)
    }

    /// That of an artifact: the newest of the steps whose outputs it is made of.
    pub fn of_artifact(&self, artifact: &Artifact) -> u64 {
        let steps = artifact.files.values().map(|(step, _)| self.of(step));
        self.given.or_else(|| steps.max()).unwrap_or(DEFAULT_EPOCH)
    }
}

impl Pinned {
    /// Pins the images of these steps and artifacts, and every source.
    pub(crate) fn of(
        bench: &Workbench<'_>,
        pins: &Pins<'_>,
        steps: &[&Step],
        artifacts: &[Artifact],
    ) -> Result<Self, Error> {
        let mut images = PinnedImages::default();
        let go_on = || if pins.stop.is_raised() { Err(Error::Stopped) } else { Ok(()) };
        for step in steps {
            go_on()?;
            images.pin(bench, &step.image, pins.folder, &Platform::of_steps())?;
        }
        for artifact in artifacts {
            for (base, platform) in
                artifact.base.iter().flat_map(|base| artifact.platforms.iter().map(move |platform| (base, platform)))
            {
                go_on()?;
                images.pin(bench, base, pins.folder, platform)?;
            }
        }
        let mut snapshots = BTreeMap::new();
        for (name, wanted) in &pins.pipeline.sources {
            let snapshot = match &wanted.place {
                SourcePlace::Folder(path) => {
                    source(pins.lister, pins.folder, path, &wanted.include, pins.excluded, pins.stop)?
                }
                SourcePlace::Git { url, reference } => {
                    (bench.tell)(&format!("source {name} is fetched from {url} at {reference}"));
                    fetched(pins.fetcher, url, reference, pins.stop)
                        .map_err(|error| named_folders::at_its_reference(pins.pipeline, name, error))?
                }
            };
            snapshots.insert(name.clone(), snapshot);
        }
        let mut sources: BTreeMap<OutputName, PinnedSource> = BTreeMap::new();
        for (name, snapshot) in snapshots {
            let packed = snapshot.pack(bench)?;
            let state = match (&packed.commit, packed.dirty) {
                (None, _) => " (in no commit)",
                (Some(_), true) => " (uncommitted changes)",
                (Some(_), false) => "",
            };
            (bench.tell)(&format!("source {name} is {}{state}", packed.content.digest));
            if packed.last_change == LastChange::CutOff && pins.epoch.is_none() {
                (bench.tell)(&format!(
                    "when source {name} was changed last is not known: the history of this clone is cut off; steps see the date \
                     1980-01-01 (git fetch --unshallow, or set SOURCE_DATE_EPOCH)"
                ));
            }
            sources.insert(name, packed);
        }
        let epochs = Epochs::new(pins.epoch, steps, &sources);
        let cache_place = CachePlace::of(pins.lister, pins.folder, steps)?;
        Ok(Self { images, sources, epochs, cache_place })
    }
}

/// Brings the image for `platform` into the store.
pub fn image(
    bench: &Workbench<'_>,
    reference: &ImageRef,
    folder: &Path,
    platform: &Platform,
) -> Result<PinnedBase, Error> {
    let image = reference.relative_to(folder);
    let source = bench.places.source(&image.place)?;
    let named = source.resolve(&image.selector)?;
    let (descriptor, indexes) = image_tree::for_platform(source.as_ref(), &named, platform)?;
    let (manifest, config) = fetch::fetch_image(source.as_ref(), &descriptor, Some(bench.store))?;
    let fault = |reason: String| Error::Image { image: reference.to_string(), reason };
    let wire: WireConfig =
        serde_json::from_slice(&config).map_err(|error| fault(format!("its configuration: {error}")))?;
    // What an index says of it is one thing; what it is for stands in its own configuration.
    let own = Platform { os: wire.os, architecture: wire.architecture, variant: wire.variant };
    if !own.is_same(platform) {
        return Err(fault(format!("it is for {own}, and an image for {platform} is needed")));
    }
    if wire.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(fault(format!("{} layers, but {} diff_ids", manifest.layers.len(), wire.rootfs.diff_ids.len())));
    }
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&wire.rootfs.diff_ids) {
        let other = layer.media_type.as_str();
        if !LAYERS.contains(&other) {
            return Err(fault(format!("a layer of media type {other:?}: not in this version")));
        }
        let compression = compression(bench.store.open(&layer.digest)?, &layer.digest)?;
        layers.push(Layer { blob: layer.digest, compression, diff_id: *diff_id });
    }
    let config = serde_json::from_slice(&config).map_err(|error| fault(format!("its configuration: {error}")))?;
    Ok(PinnedBase {
        name: reference.to_string(),
        digest: descriptor.digest,
        media_type: descriptor.media_type,
        indexes,
        size: descriptor.size,
        manifest,
        layers,
        config,
    })
}

/// Media types of layers that can be read.
const LAYERS: [&str; 6] =
    [LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD, DOCKER_LAYER_TAR, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD];

/// How a layer is compressed: its own first bytes say it, for there are images whose media types are wrong.
fn compression(blob: impl Read, digest: &Digest) -> Result<Compression, Error> {
    let mut begins = Vec::new();
    let read = blob.take(4).read_to_end(&mut begins);
    read.map_err(|source| Error::Io { action: "read", path: digest.to_string().into(), source })?;
    Ok(match begins.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one that is to be skipped (RFC 8878, 3.1).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    })
}

/// Takes a snapshot of a source tree.
pub fn source(
    lister: &dyn SourceLister,
    project: &Path,
    folder: &Path,
    include: &[PathBuf],
    excluded: &[PathBuf],
    stop: &Stop,
) -> Result<PinnedSource, Error> {
    let tree = lister.list_including(project, folder, include, excluded, stop)?;
    Ok(PinnedSource {
        content: Content { kind: ContentKind::Directory, digest: Digest::of(b"") },
        commit: tree.commit,
        dirty: tree.dirty,
        last_change: tree.last_change,
        fetched: None,
        submodules: tree.submodules,
        entries: tree.entries,
    })
}

/// Fetches a source at one commit.
fn fetched(fetcher: &dyn SourceFetcher, url: &str, reference: &str, stop: &Stop) -> Result<PinnedSource, Error> {
    let source = fetcher.fetch(url, reference, stop)?;
    Ok(PinnedSource {
        content: Content { kind: ContentKind::Directory, digest: Digest::of(b"") },
        commit: Some(source.commit),
        dirty: false,
        last_change: LastChange::At(source.commit_time),
        fetched: Some((url.to_owned(), source.reference)),
        submodules: BTreeMap::new(),
        entries: source.entries,
    })
}

impl PinnedSource {
    /// Packs the snapshot into the store.
    pub fn pack(mut self, bench: &Workbench<'_>) -> Result<Self, Error> {
        let (digest, _) = bench.packer.pack(std::mem::take(&mut self.entries), DEFAULT_EPOCH)?;
        self.content.digest = digest;
        Ok(self)
    }
}

impl PinnedBase {
    /// Its manifest, as a place would describe it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }

    /// What a build that stands on it or ran in it names: the image as `name`, and each index that led to it as `NAME:index`.
    pub fn dependencies(&self, name: &str) -> Vec<Dependency> {
        let indexes = self.indexes.iter().map(|index| Dependency::other(&format!("{name}:index"), *index, IMAGE_INDEX));
        std::iter::once(Dependency::image(name, self.digest)).chain(indexes).collect()
    }

    /// Its configuration and layers.
    pub fn blobs(&self) -> Vec<Digest> {
        let layers = self.manifest.layers.iter().map(|layer| layer.digest);
        layers.chain([self.manifest.config.digest]).collect()
    }

    /// A variable of the image's environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let env = self.config.pointer("/config/Env")?.as_array()?;
        env.iter().filter_map(|v| v.as_str()).find_map(|v| v.strip_prefix(name)?.strip_prefix('='))
    }

    /// The user that the image says; empty for root.
    pub fn user(&self) -> &str {
        self.config.pointer("/config/User").and_then(|v| v.as_str()).unwrap_or("")
    }
}

#[derive(Deserialize)]
struct WireConfig {
    os: String,
    architecture: String,
    variant: Option<String>,
    rootfs: WireRootfs,
}

#[derive(Deserialize)]
struct WireRootfs {
    diff_ids: Vec<Digest>,
}
