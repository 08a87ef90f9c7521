//! Reads an image with everything attached to it, hashing every byte, from a place that is not trusted.

mod attached;
mod layers;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use attached::{Bundles, Room, attached};
pub(crate) use layers::{AT_ONCE, keep, layers_of_all, read_layers, read_layers_but};
use sluicegate_attestation::identifiers::{DOCKER_MANIFEST, EMPTY_CONFIG, IMAGE_MANIFEST};
use sluicegate_ports::{
    images::{Descriptor, ImageSource, Manifest},
    store::ContentStore,
};
use sluicegate_types::{
    Digest,
    checks::{Check, is_on},
};
use sluicegate_verify::closed_set::{Asked, named};

use crate::{
    Error,
    image_tree::{self, is_index},
};

/// Bytes of a manifest or configuration (DESIGN section 7).
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Descriptors that one image, or its evidence, may list (DESIGN section 7).
const MAX_DESCRIPTORS: usize = 10_000;

/// An image, whole.
#[derive(Debug)]
pub struct Fetched {
    /// The image's manifest, as the place described it.
    pub descriptor: Descriptor,
    /// The manifest's bytes, parsed.
    pub manifest: Manifest,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// Bundles that are attached to the image.
    pub attached: BTreeMap<Digest, Vec<u8>>,
    /// Everything else that evidence manifests carry.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Bundles that are attached to the image and were not read, with the reason.
    pub unread: BTreeMap<Digest, &'static str>,
}

impl Fetched {
    /// Bytes of evidence that it holds.
    pub(crate) fn evidence_size(&self) -> u64 {
        self.attached.values().chain(self.blobs.values()).map(|bytes| bytes.len() as u64).sum()
    }
}

/// Reads the image `descriptor` and its referrers, hashing its layers. A blob whose bytes are not its digest's is an error, whatever it
/// is (trust model 12); one that evidence names and that is not there is simply not there. Where there is more than the limits allow,
/// what a provenance names that `asked` believes comes first.
pub fn fetch(source: &dyn ImageSource, descriptor: &Descriptor, asked: Asked<'_>) -> Result<Fetched, Error> {
    let fetched = fetch_evidence(source, descriptor, asked)?;
    read_layers(source, &fetched.manifest, None)?;
    Ok(fetched)
}

/// The same without the image's layers: evidence is small and says whether the rest is worth the room.
pub fn fetch_evidence(source: &dyn ImageSource, descriptor: &Descriptor, asked: Asked<'_>) -> Result<Fetched, Error> {
    evidence(source, descriptor, Room::OF_ONE, &|attached| named(descriptor.digest, attached, asked))
}

/// The same of one image of several that share the room: `bytes` of evidence at most.
pub(crate) fn fetch_evidence_within(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    asked: Asked<'_>,
    bytes: u64,
) -> Result<Fetched, Error> {
    evidence(source, descriptor, Room::shared(bytes), &|attached| named(descriptor.digest, attached, asked))
}

/// What is attached to an index, which has no layers of its own; what it names is for whoever reads its tree.
pub(crate) fn fetch_attached(source: &dyn ImageSource, index: &Descriptor, asked: Asked<'_>) -> Result<Fetched, Error> {
    attached(source, index, of_no_image(), Room::OF_ONE, &|attached| named(index.digest, attached, asked))
}

/// The same of `bytes` at most, and of bundles alone: nothing is proved of an index by what others carry.
pub(crate) fn fetch_attached_within(
    source: &dyn ImageSource,
    index: &Descriptor,
    asked: Asked<'_>,
    bytes: u64,
) -> Result<Fetched, Error> {
    attached(source, index, of_no_image(), Room::of_bundles(bytes), &|attached| named(index.digest, attached, asked))
}

/// What is attached to an image or to an index, with the image's manifest if it is one.
pub(crate) fn fetch_evidence_of_any(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    asked: Asked<'_>,
) -> Result<Fetched, Error> {
    if is_index(&descriptor.media_type) {
        fetch_attached(source, descriptor, asked)
    } else {
        fetch_evidence(source, descriptor, asked)
    }
}

/// What stands for the manifest and configuration of an index.
fn of_no_image() -> (Manifest, Vec<u8>) {
    let manifest = Manifest {
        schema_version: 2,
        media_type: None,
        artifact_type: None,
        config: Descriptor::new(EMPTY_CONFIG, Digest::of(b"{}"), 2),
        layers: Vec::new(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    (manifest, Vec::new())
}

/// The same of an image, with its layers, or of an index where nobody is believed: what was just written, and reads back whole or not.
pub(crate) fn fetch_unasked(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Fetched, Error> {
    if is_index(&descriptor.media_type) {
        return attached(source, descriptor, of_no_image(), Room::OF_ONE, &|_| BTreeSet::new());
    }
    let fetched = evidence(source, descriptor, Room::OF_ONE, &|_| BTreeSet::new())?;
    read_layers(source, &fetched.manifest, None)?;
    Ok(fetched)
}

fn evidence(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    room: Room,
    first: &dyn Fn(&Bundles) -> BTreeSet<Digest>,
) -> Result<Fetched, Error> {
    let (_, manifest, config) = fetch_manifest(source, descriptor)?;
    attached(source, descriptor, (manifest, config), room, first)
}

/// Reads an image without what is attached to it.
pub(crate) fn fetch_image(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    keep: Option<&dyn ContentStore>,
) -> Result<(Manifest, Vec<u8>), Error> {
    let (bytes, manifest, config) = fetch_manifest(source, descriptor)?;
    read_layers(source, &manifest, keep)?;
    if let Some(store) = keep {
        store.put_bytes(&bytes)?;
        store.put_bytes(&config)?;
    }
    Ok((manifest, config))
}

/// The manifest's bytes, parsed, and the configuration.
fn fetch_manifest(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<(Vec<u8>, Manifest, Vec<u8>), Error> {
    let fault = |reason: String| Error::Image { image: descriptor.digest.to_string(), reason };
    if !matches!(descriptor.media_type.as_str(), IMAGE_MANIFEST | DOCKER_MANIFEST) {
        let what = match descriptor.media_type.as_str() {
            media_type if is_index(media_type) => {
                "an image index: of images of several platforms, name one platform's by its digest"
            }
            _ => "an image manifest is needed",
        };
        return Err(fault(format!("media type {:?}: not in this version; {what}", descriptor.media_type)));
    }
    let bytes = read(source, descriptor, MAX_MANIFEST)?;
    let manifest = image_tree::image(descriptor, &bytes)?;
    if manifest.layers.len() > MAX_DESCRIPTORS {
        return Err(fault(format!("more than {MAX_DESCRIPTORS} layers")));
    }
    let config = read(source, &manifest.config, MAX_MANIFEST)?;
    Ok((bytes, manifest, config))
}

/// Reads a blob into memory and checks size and digest.
pub(crate) fn read(source: &dyn ImageSource, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
    is_within(descriptor, limit)?;
    let mut bytes = Vec::new();
    source
        .open(descriptor)?
        .take(descriptor.size + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(descriptor, error))?;
    if !is_described(descriptor, Digest::of(&bytes), bytes.len() as u64) {
        return Err(wrong(descriptor, "its bytes are not those of its digest".to_owned()));
    }
    Ok(bytes)
}

fn is_within(descriptor: &Descriptor, limit: u64) -> Result<(), Error> {
    if descriptor.size > limit {
        return Err(wrong(descriptor, format!("it is said to have {} bytes, the limit is {limit}", descriptor.size)));
    }
    Ok(())
}

fn is_described(descriptor: &Descriptor, digest: Digest, size: u64) -> bool {
    Compared::here().check(descriptor, digest, size).is_ok()
}

/// What bytes are compared with. A test that takes a check away takes it from its own thread, and blobs are read by others.
#[derive(Clone, Copy)]
struct Compared {
    digest: bool,
    size: bool,
}

impl Compared {
    fn here() -> Self {
        Self { digest: is_on(Check::FetchDigest), size: is_on(Check::FetchSize) }
    }

    fn check(self, descriptor: &Descriptor, digest: Digest, size: u64) -> Result<(), Error> {
        if (digest == descriptor.digest || !self.digest) && (size == descriptor.size || !self.size) {
            Ok(())
        } else {
            Err(wrong(descriptor, "its bytes are not those of its digest".to_owned()))
        }
    }
}

fn wrong(descriptor: &Descriptor, reason: String) -> Error {
    Error::Content { what: "blob", digest: descriptor.digest, reason }
}

fn unreadable(descriptor: &Descriptor, source: std::io::Error) -> Error {
    Error::Io { action: "read", path: descriptor.digest.to_string().into(), source }
}
