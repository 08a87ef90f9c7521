//! Writing to a repository of a registry: blobs, image, attestations, then the tag (DESIGN, rule 5).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluicegate_ports::{
    images::{
        Beside, Descriptor, FaultKind, ImagePlaceError, ImageTarget, Manifest, Occupant, Publication, RegistryFault,
    },
    store::ContentStore,
};
use sluicegate_types::{
    Digest, Place, RegistryRepository, TagName,
    checks::{Check, is_on},
};

use crate::{at_a_time::several_at_a_time, client::Repository, layout_index::MAX_MANIFEST, registry_source::doing};

/// Blobs on their way to one registry at a time.
const AT_A_TIME: usize = 4;

/// A repository, and the one that evidence about its images goes to, if that is another.
pub(crate) struct RegistryTarget {
    repository: Repository,
    evidence: Option<Repository>,
    /// The blobs that it was asked to take over: as large as it says that it has them, or not at all.
    taken_over: Mutex<BTreeMap<Digest, Option<u64>>>,
}

impl RegistryTarget {
    pub(crate) fn new(repository: Repository, evidence: Option<Repository>) -> Self {
        Self { repository, evidence, taken_over: Mutex::default() }
    }

    fn taken_over(&self) -> MutexGuard<'_, BTreeMap<Digest, Option<u64>>> {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the blobs of an image that are not there; what was taken over is, and what could not be is not asked for once more.
    fn push_image(
        &self,
        blobs: &[Digest],
        store: &dyn ContentStore,
        from: Option<&RegistryRepository>,
    ) -> Result<(), ImagePlaceError> {
        let asked = self.taken_over().clone();
        let (refused, others): (Vec<Digest>, Vec<Digest>) = blobs
            .iter()
            .filter(|blob| !matches!(asked.get(blob), Some(Some(_))))
            .partition(|blob| asked.contains_key(blob));
        self.push_blobs(&self.repository, &refused, store, None)?;
        self.push_blobs(&self.repository, &others, store, from)
    }

    /// Asks for each blob that was taken over: nobody here has hashed it, or could send it.
    fn look_for_taken_over(&self, blobs: &[Digest]) -> Result<(), ImagePlaceError> {
        let asked = self.taken_over().clone();
        let taken: Vec<(Digest, u64)> =
            blobs.iter().filter_map(|blob| Some((*blob, asked.get(blob).copied().flatten()?))).collect();
        several_at_a_time(AT_A_TIME, &taken, |(blob, size)| {
            let is_there = |_| self.repository.has_as_large(blob, *size);
            let kept = self.repository.until_kept(&format!("the blob {blob} of {size} bytes"), is_there);
            kept.map_err(|fault| doing(format!("find {blob} again in {}", self.repository.name()), fault))
        })
    }

    fn place(&self) -> Place {
        Place::Registry(self.repository.name().clone())
    }

    /// Where evidence goes.
    fn evidence(&self) -> &Repository {
        self.evidence.as_ref().unwrap_or(&self.repository)
    }

    fn digest_of(&self, tag: &TagName) -> Result<Option<Digest>, ImagePlaceError> {
        let held = self.repository.tagged(tag.as_str());
        let held = held
            .map_err(|fault| doing(format!("look where the tag {tag} of {} points", self.repository.name()), fault))?;
        Ok(held.map(|held| held.digest))
    }

    /// Whether the tag may name the image now: a promotion's only from what its permit saw, any other only if it names nothing else. What
    /// it names.
    fn check_tag(&self, tag: &TagName, publication: &Publication) -> Result<Option<Digest>, ImagePlaceError> {
        let found = self.digest_of(tag)?;
        let expected = match &publication.environment {
            Some(_) => publication.expected,
            None if found.is_none() => None,
            None => Some(publication.image.digest),
        };
        if is_on(Check::TagMoved) && found != expected {
            let name = |digest: Option<Digest>| digest.map_or_else(|| "no image".to_owned(), |d| d.to_string());
            return Err(ImagePlaceError::Moved { place: self.place(), expected: name(expected), found: name(found) });
        }
        Ok(found)
    }

    /// Attaches manifests whose blobs are there: each under its digest, and all that are of one subject with one write of its fallback
    /// tag where the registry keeps no list itself.
    fn put_referrers(&self, referrers: &[Descriptor], store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        let to = self.evidence();
        let mut listed: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        let mut unlisted: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for referrer in referrers {
            let bytes = store.read(&referrer.digest, MAX_MANIFEST)?;
            let taken = to.put_manifest(&referrer.digest, &referrer.media_type, &bytes);
            let failed = |fault| doing(format!("attach {} in {}", referrer.digest, to.name()), fault);
            let taken = taken.map_err(failed)?;
            // What stands in the list is what stands in the manifest (distribution-spec, "Referrers tag schema").
            if let Ok(Manifest { subject: Some(subject), artifact_type, config, annotations, .. }) =
                serde_json::from_slice(&bytes)
            {
                let is_listed = taken.subject.is_some_and(|told| told == subject.digest.to_string());
                let lists = if is_listed { &mut listed } else { &mut unlisted };
                let artifact_type = artifact_type.or(Some(config.media_type));
                let entry = Descriptor { artifact_type, annotations, ..referrer.clone() };
                lists.entry(subject.digest).or_default().push(entry);
            }
        }
        for (subject, referrers) in listed {
            // Who says that it lists them and does not gets the tag as well.
            let missing = to.not_by_api(&subject, referrers);
            let failed = |fault| doing(format!("see what is attached to {subject} in {}", to.name()), fault);
            unlisted.entry(subject).or_default().extend(missing.map_err(failed)?);
        }
        unlisted.retain(|_, referrers| !referrers.is_empty());
        for (subject, referrers) in unlisted {
            let listed = to.list_by_tag(&subject, &referrers);
            listed.map_err(|fault| {
                doing(format!("list what is attached to {subject} in {}", to.name()), with_way_out(fault))
            })?;
        }
        Ok(())
    }

    /// Writes a manifest under a tag that others may have written to: what its layers were stays, and these come behind them.
    fn put_beside(&self, beside: &Beside, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        let Beside { tag, manifest, blobs } = beside;
        self.push_blobs(&self.repository, blobs, store, None)?;
        let own: Manifest = parsed(&store.read(&manifest.digest, MAX_MANIFEST)?, tag, &self.repository)?;
        let failed = |fault| doing(format!("write the tag {tag} of {}", self.repository.name()), fault);
        let _turn = self.repository.turn(tag).map_err(failed)?;
        let look = |_| {
            let held = self.repository.tagged(tag.as_str()).map_err(failed)?;
            let mut whole = own.clone();
            if let Some(held) = held {
                let held: Manifest = parsed(&held.bytes, tag, &self.repository)?;
                whole.layers = held.layers.clone();
                whole.layers.extend(own.layers.iter().filter(|layer| !held.layers.contains(layer)).cloned());
                if whole.layers == held.layers {
                    return Ok(None);
                }
                whole.config = held.config;
            }
            let io = |error: serde_json::Error| ImagePlaceError::Io {
                action: "write the manifest of",
                path: tag.to_string().into(),
                source: std::io::Error::other(error),
            };
            serde_json::to_vec(&whole).map(Some).map_err(io)
        };
        self.repository.write_tag(tag, &manifest.media_type, look, failed).map(drop)
    }

    /// Sends blobs, several at a time; the first failure ends it.
    fn push_blobs(
        &self,
        to: &Repository,
        blobs: &[Digest],
        store: &dyn ContentStore,
        from: Option<&RegistryRepository>,
    ) -> Result<(), ImagePlaceError> {
        let blobs: Vec<&Digest> = blobs.iter().collect::<BTreeSet<_>>().into_iter().collect();
        several_at_a_time(AT_A_TIME, &blobs, |digest| push_blob(to, digest, store, from))
    }
}

/// Where the list of what is attached can't be written, evidence has to go somewhere else.
fn with_way_out(fault: RegistryFault) -> RegistryFault {
    if fault.kind != FaultKind::TagImmutable {
        return fault;
    }
    let reason = format!(
        "{}; what is attached to an image is listed under that tag in a registry without the referrers API: let evidence: of the \
         gateway name a repository whose tags can be changed",
        fault.reason
    );
    RegistryFault { reason, ..fault }
}

fn parsed(bytes: &[u8], tag: &TagName, repository: &Repository) -> Result<Manifest, ImagePlaceError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let fault = RegistryFault { kind: FaultKind::OutOfForm, reason: format!("it names no manifest: {error}") };
        doing(format!("read the tag {tag} of {}", repository.name()), fault)
    })
}

fn push_blob(
    to: &Repository,
    digest: &Digest,
    store: &dyn ContentStore,
    from: Option<&RegistryRepository>,
) -> Result<(), ImagePlaceError> {
    let file = store.open(digest)?;
    let io = |source| ImagePlaceError::Io { action: "look at", path: digest.to_string().into(), source };
    let size = file.metadata().map_err(io)?.len();
    to.push_blob(digest, &file, size, from).map_err(|fault| doing(format!("send {digest} to {}", to.name()), fault))
}

impl ImageTarget for RegistryTarget {
    fn current(&self, tag: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError> {
        let Some(tag) = tag else { return Ok(None) };
        let found = self.digest_of(tag)?;
        Ok(found.map(|image| Occupant { image, tags: vec![tag.clone()], environment: None }))
    }

    fn take_over(&self, blobs: &[Descriptor], from: &Place) -> Result<Vec<Descriptor>, ImagePlaceError> {
        let from = match from {
            Place::Registry(repository) => Some(repository),
            Place::Layout(_) => None,
        };
        several_at_a_time(AT_A_TIME, blobs, |blob| {
            let to = &self.repository;
            let taken = to.take_over(&blob.digest, blob.size, from);
            let taken = taken.map_err(|fault| doing(format!("look for {} in {}", blob.digest, to.name()), fault))?;
            self.taken_over().insert(blob.digest, taken.then_some(blob.size));
            Ok::<_, ImagePlaceError>(())
        })?;
        let asked = self.taken_over();
        let is_taken = |blob: &&Descriptor| asked.get(&blob.digest) == Some(&Some(blob.size));
        Ok(blobs.iter().filter(is_taken).cloned().collect())
    }

    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        for tag in &publication.tags {
            self.check_tag(tag, publication)?;
        }
        let from = match &publication.source {
            Some(Place::Registry(repository)) => Some(repository),
            _ => None,
        };
        self.push_image(&publication.blobs, store, from)?;
        self.push_blobs(self.evidence(), &publication.evidence, store, from)?;
        for child in &publication.children {
            let bytes = store.read(&child.digest, MAX_MANIFEST)?;
            let put = self.repository.put_manifest(&child.digest, &child.media_type, &bytes);
            put.map_err(|fault| doing(format!("write {} to {}", child.digest, self.repository.name()), fault))?;
        }
        let image = &publication.image;
        let bytes = store.read(&image.digest, MAX_MANIFEST)?;
        let put = self.repository.put_manifest(&image.digest, &image.media_type, &bytes);
        put.map_err(|fault| doing(format!("write the image {} to {}", image.digest, self.repository.name()), fault))?;
        self.put_referrers(&publication.referrers, store)?;
        for beside in &publication.beside {
            self.put_beside(beside, store)?;
        }
        self.look_for_taken_over(&publication.blobs)?;
        for tag in &publication.tags {
            let failed = |fault| doing(format!("tag {} as {tag} in {}", image.digest, self.repository.name()), fault);
            // As late as can be, as no registry moves a tag only from where it is said to be; and one after the other.
            let _turn = self.repository.turn(tag).map_err(failed)?;
            let look = |tries| {
                if tries > 0 && self.digest_of(tag)? == Some(image.digest) {
                    return Ok(None);
                }
                // One that names it already is not written: some registries let nobody write a tag twice.
                let found = self.check_tag(tag, publication)?;
                Ok((found != Some(image.digest)).then(|| bytes.clone()))
            };
            self.repository.write_tag(tag, &image.media_type, look, failed)?;
            self.repository.is_tagged(tag, &image.digest).map_err(failed)?;
        }
        Ok(())
    }

    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        let there = self.repository.manifest_of(image);
        let there =
            there.map_err(|fault| doing(format!("find the image {image} in {}", self.repository.name()), fault))?;
        if there.is_none() {
            return Err(ImagePlaceError::NoImage {
                place: self.place(),
                selector: image.to_string(),
                hint: "; nothing is attached to what is not there".to_owned(),
            });
        }
        self.push_blobs(self.evidence(), blobs, store, None)?;
        self.put_referrers(referrers, store)
    }
}
