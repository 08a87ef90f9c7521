//! Reading from a repository of a registry.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    sync::Mutex,
};

use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaceError, ImageSource, ListedBy, Listing, RegistryFault};
use sluicegate_types::{Digest, Place, Selector};

use crate::client::{Held, Listed, MANIFEST_TYPES, Repository};

/// The configuration of what is no image, `{}`: known without asking, as its digest says what it is.
const EMPTY: &[u8] = b"{}";
/// The tag that is meant where none is written.
const LATEST: &str = "latest";
/// Bytes of manifests that are kept between being found and being read.
const KEPT: usize = 16 * 1024 * 1024;

/// A repository, and the one that evidence about its images is in, if that is another.
pub(crate) struct RegistrySource {
    repository: Repository,
    evidence: Option<Repository>,
    /// Manifests that were read to find an image by its tag.
    resolved: Mutex<BTreeMap<Digest, Vec<u8>>>,
}

impl RegistrySource {
    pub(crate) fn new(repository: Repository, evidence: Option<Repository>) -> Self {
        Self { repository, evidence, resolved: Mutex::default() }
    }

    fn place(&self) -> Place {
        Place::Registry(self.repository.name().clone())
    }

    fn keep(&self, held: &Held) {
        if let Ok(mut resolved) = self.resolved.lock()
            && resolved.values().map(Vec::len).sum::<usize>() + held.bytes.len() <= KEPT
        {
            resolved.insert(held.digest, held.bytes.clone());
        }
    }

    /// The repositories that content may be in.
    fn all(&self) -> impl Iterator<Item = &Repository> {
        [&self.repository].into_iter().chain(&self.evidence)
    }
}

impl ImageSource for RegistrySource {
    fn resolve(&self, selector: &Selector) -> Result<Descriptor, ImagePlaceError> {
        let (name, held) = match selector {
            Selector::Tag(tag) => (format!("tagged {tag}"), self.repository.tagged(tag.as_str())),
            Selector::Only => (format!("tagged {LATEST}"), self.repository.tagged(LATEST)),
            Selector::Digest(digest) => (digest.to_string(), self.repository.manifest_of(digest)),
        };
        let held =
            held.map_err(|fault| doing(format!("find the image {name} in {}", self.repository.name()), fault))?;
        let held = held.ok_or_else(|| ImagePlaceError::NoImage {
            place: self.place(),
            selector: name,
            hint: "; the registry has none".to_owned(),
        })?;
        self.keep(&held);
        Ok(Descriptor::new(&held.media_type, held.digest, held.bytes.len() as u64))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
        let digest = &descriptor.digest;
        if *digest == Digest::of(EMPTY) {
            return Ok(Box::new(EMPTY));
        }
        let known = self.resolved.lock().ok().and_then(|resolved| resolved.get(digest).cloned());
        if let Some(bytes) = known {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        for repository in self.all() {
            let failed = |fault| doing(format!("read {digest} from {}", repository.name()), fault);
            if MANIFEST_TYPES.contains(&descriptor.media_type.as_str()) {
                if let Some(held) = repository.manifest_of(digest).map_err(failed)? {
                    return Ok(Box::new(Cursor::new(held.bytes)));
                }
            } else if let Some(blob) = repository.blob(digest, descriptor.size).map_err(failed)? {
                return Ok(Box::new(blob));
            }
        }
        Err(ImagePlaceError::MissingBlob { place: self.place(), digest: *digest })
    }

    fn is_far(&self) -> bool {
        true
    }

    fn listings(&self, subject: &Digest) -> Result<Vec<Listing>, ImagePlaceError> {
        let mut out: Vec<Listing> = Vec::new();
        for repository in self.all() {
            let listed = repository.referrers(subject);
            let listed = listed.map_err(|fault| {
                doing(format!("list what is attached to {subject} in {}", repository.name()), fault)
            })?;
            let of = |by, is_there: fn(&Listed) -> bool| Listing {
                by,
                manifests: listed.found.iter().filter(|(_, (_, at))| is_there(at)).map(|(digest, _)| *digest).collect(),
            };
            // A registry without the API has no such list; one with it has, even if nothing stands in it.
            let api = listed.has_api.then(|| of(ListedBy::Api, |at| at.by_api));
            for listing in api.into_iter().chain([of(ListedBy::FallbackTag, |at| at.by_tag)]) {
                match out.iter_mut().find(|known| known.by == listing.by) {
                    Some(known) => known.manifests.extend(listing.manifests),
                    None => out.push(listing),
                }
            }
        }
        Ok(out)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
        let mut all: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for repository in self.all() {
            let listed = repository.referrers(subject);
            let listed = listed.map_err(|fault| {
                doing(format!("list what is attached to {subject} in {}", repository.name()), fault)
            })?;
            // Others who find the API ask nothing else.
            let tagged_only = listed.found.values().filter(|(_, place)| !place.by_api).count();
            if listed.has_api && tagged_only > 0 {
                repository.warn_once(format!(
                    "{tagged_only} of {} that are attached to {subject} in {} are listed only under the tag sha256-{}, not by the \
                     registry's referrers API",
                    listed.found.len(),
                    repository.name(),
                    subject.hex()
                ));
            }
            for (digest, (descriptor, _)) in listed.found {
                all.entry(digest).or_insert(descriptor);
            }
        }
        // What is no image manifest by its type carries nothing.
        Ok(all.into_values().collect())
    }
}

/// A registry's fault with what was being done.
pub(crate) fn doing(action: String, fault: RegistryFault) -> ImagePlaceError {
    debug_assert!(fault.kind != FaultKind::Configuration || !fault.reason.is_empty());
    ImagePlaceError::Registry { action, fault }
}
