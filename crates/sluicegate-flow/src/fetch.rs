//! Reads an image with everything attached to it, hashing every byte, from a place that is not trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
};

use sluicegate_attestation::{
    bundle::MAX_BUNDLE,
    identifiers::{BUNDLE, DOCKER_MANIFEST, EMPTY_CONFIG, IMAGE_MANIFEST},
};
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImageSource, Manifest},
    store::ContentStore,
};
use sluicegate_types::{
    Digest, Hasher,
    checks::{Check, is_on},
};
use sluicegate_verify::closed_set::{Asked, named};

use crate::{
    Error,
    image_tree::{self, is_index},
    in_parallel::in_parallel,
};

/// Bytes of a manifest or configuration (DESIGN section 7).
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Bytes of one layer.
pub(crate) const MAX_LAYER: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of all layers of one image.
const MAX_LAYERS: u64 = 128 * 1024 * 1024 * 1024;
/// Blobs of one image that are read at a time: some wait for a place while others are hashed.
pub(crate) const AT_ONCE: usize = 4;
/// Descriptors that one image's evidence may list (DESIGN section 7).
const MAX_DESCRIPTORS: usize = 10_000;
/// Bytes of one blob of evidence that is no bundle: a raw report.
const MAX_REPORT: u64 = 128 * 1024 * 1024;
/// Bytes of all manifests that refer to one image.
const MAX_MANIFESTS: u64 = 64 * 1024 * 1024;
/// Bytes of all bundles that are attached to one image.
const MAX_ATTACHED: u64 = 256 * 1024 * 1024;
/// Bytes of everything else that evidence manifests carry.
const MAX_EVIDENCE: u64 = 512 * 1024 * 1024;

/// Bytes that are hashed although they are not as many as described, only to know whether they are damaged.
const MAX_FALSE: u64 = 256 * 1024 * 1024;

/// Bundles by digest.
type Bundles = BTreeMap<Digest, Vec<u8>>;

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
    fetch_evidence_within(source, descriptor, asked, MAX_ATTACHED + MAX_EVIDENCE)
}

/// The same of one image of several that share the room: `bytes` of evidence, one part in three of it for bundles that are attached.
pub(crate) fn fetch_evidence_within(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    asked: Asked<'_>,
    bytes: u64,
) -> Result<Fetched, Error> {
    let room = Room { attached: MAX_ATTACHED.min(bytes / 3), carried: MAX_EVIDENCE.min(bytes - bytes / 3) };
    evidence(source, descriptor, room, &|attached| named(descriptor.digest, attached, asked))
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
    let room = Room { attached: MAX_ATTACHED.min(bytes), carried: 0 };
    attached(source, index, of_no_image(), room, &|attached| named(index.digest, attached, asked))
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

/// Bytes of what is read beside an image: bundles that are attached to it, and everything else.
#[derive(Clone, Copy)]
struct Room {
    attached: u64,
    carried: u64,
}

impl Room {
    const OF_ONE: Self = Self { attached: MAX_ATTACHED, carried: MAX_EVIDENCE };
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

fn attached(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    (manifest, config): (Manifest, Vec<u8>),
    room: Room,
    first: &dyn Fn(&Bundles) -> BTreeSet<Digest>,
) -> Result<Fetched, Error> {
    let mut fetched = Fetched {
        descriptor: descriptor.clone(),
        manifest,
        config,
        attached: BTreeMap::new(),
        blobs: BTreeMap::new(),
        unread: BTreeMap::new(),
    };
    let mut rest = Rest { source, fetched: &mut fetched, sizes: BTreeMap::new(), false_bytes: 0 };
    let (attached, carried) = rest.manifests(&descriptor.digest)?;
    // Smallest first: as many as an index may list, each of a provenance's usual size, fit the limit, whatever else is attached.
    rest.read_attached(&attached, &mut { room.attached })?;
    let is_left = |part: &&Descriptor| !rest.fetched.attached.contains_key(&part.digest);
    let left: Vec<Descriptor> = attached.iter().filter(is_left).cloned().collect();
    let digests: BTreeSet<Digest> = carried.iter().map(|part| part.digest).collect();
    let whole = carried.iter().map(|part| part.size).fold(0_u64, u64::saturating_add);
    let all_fit = left.is_empty() && digests.len() <= MAX_DESCRIPTORS && whole <= room.carried;
    // What believed provenances name comes before what nobody names: junk starves nothing, however large, many or early it is.
    let named = if all_fit { BTreeSet::new() } else { first(&rest.fetched.attached) };
    let left: Vec<Descriptor> = left.into_iter().filter(|part| named.contains(&part.digest)).collect();
    rest.read_attached(&left, &mut { room.attached })?;
    let (named, others): (Vec<_>, Vec<_>) = carried.into_iter().partition(|part| named.contains(&part.digest));
    rest.read_carried(named.into_iter().chain(others), room.carried)?;
    Ok(fetched)
}

/// Reads what is attached to an image, within limits. What is beyond one is not read and says so; nobody is locked out by it, and
/// whoever needs it will miss it.
struct Rest<'a> {
    source: &'a dyn ImageSource,
    fetched: &'a mut Fetched,
    /// The true size of what was described with another one.
    sizes: BTreeMap<Digest, u64>,
    /// Bytes that were hashed only to find that out.
    false_bytes: u64,
}

impl Rest<'_> {
    /// The parts that all referrers carry: bundles that are attached to the image, smallest first, and everything else, each once however
    /// many manifests list it.
    fn manifests(&mut self, image: &Digest) -> Result<(Vec<Descriptor>, Vec<Descriptor>), Error> {
        let (mut attached, mut carried, mut configs) = (Listed::default(), Listed::default(), Listed::default());
        let mut budget = MAX_MANIFESTS;
        let mut referrers = self.source.referrers(image)?;
        // Smallest first, so that a few that fill the limit keep nothing of a usual size out.
        referrers.sort_by_key(|referrer| (referrer.size, referrer.digest));
        for referrer in referrers {
            let bytes = match self.attachment(&referrer, MAX_MANIFEST.min(budget))? {
                Ok(bytes) => bytes,
                Err(MISSING) => continue,
                Err(reason) => {
                    self.fetched.unread.insert(referrer.digest, reason);
                    continue;
                }
            };
            budget = budget.saturating_sub(bytes.len() as u64);
            // What is attached and no manifest is junk, and anyone may attach junk.
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
                self.fetched.unread.insert(referrer.digest, "it is no manifest");
                continue;
            };
            // A list says what it likes; what something is attached to stands in the thing itself.
            if manifest.subject.as_ref().is_none_or(|subject| subject.digest != *image) && is_on(Check::ReferrerSubject)
            {
                self.fetched.unread.insert(referrer.digest, "its subject is another image");
                continue;
            }
            configs.add(manifest.config);
            let of_bundle = manifest.artifact_type.as_deref() == Some(BUNDLE);
            match (of_bundle, <[Descriptor; 1]>::try_from(manifest.layers)) {
                (true, Ok([bundle])) => attached.add(bundle),
                (true, Err(_)) => {
                    self.fetched.unread.insert(referrer.digest, "its manifest says bundle and does not carry one part");
                }
                (false, Ok([part])) => carried.add(part),
                (false, Err(parts)) => parts.into_iter().for_each(|part| carried.add(part)),
            }
        }
        self.hash_configurations(configs.0)?;
        attached.0.sort_by_key(|part| (part.size, part.digest));
        Ok((attached.0, carried.0))
    }

    /// Nothing is taken from a referrer's configuration; its bytes are those of its digest like all others. Those of others take no room
    /// from a manifest.
    fn hash_configurations(&mut self, mut configs: Vec<Descriptor>) -> Result<(), Error> {
        configs.sort_by_key(|config| (config.size, config.digest));
        let mut budget = MAX_MANIFESTS;
        for config in configs {
            let read = self.attachment(&config, MAX_MANIFEST.min(budget))?;
            budget = budget.saturating_sub(read.map_or(0, |bytes| bytes.len() as u64));
        }
        Ok(())
    }

    fn read_attached(&mut self, parts: &[Descriptor], budget: &mut u64) -> Result<(), Error> {
        for part in parts {
            if self.fetched.attached.contains_key(&part.digest) {
                continue;
            }
            match self.within(part, budget)? {
                Ok(bytes) => {
                    self.fetched.unread.remove(&part.digest);
                    self.fetched.attached.insert(part.digest, bytes);
                }
                Err(reason) => {
                    self.fetched.unread.insert(part.digest, reason);
                }
            }
        }
        Ok(())
    }

    /// Of [`MAX_DESCRIPTORS`] contents; one that several descriptors describe differently is one.
    fn read_carried(&mut self, parts: impl Iterator<Item = Descriptor>, mut budget: u64) -> Result<(), Error> {
        let mut tried = BTreeSet::new();
        for part in parts {
            if tried.len() >= MAX_DESCRIPTORS && !tried.contains(&part.digest) {
                continue;
            }
            tried.insert(part.digest);
            if !self.fetched.blobs.contains_key(&part.digest)
                && let Ok(bytes) = self.within(&part, &mut budget)?
            {
                self.fetched.blobs.insert(part.digest, bytes);
            }
        }
        Ok(())
    }

    /// The bytes of one part, taken from the budget; or why they are not read.
    fn within(&mut self, part: &Descriptor, budget: &mut u64) -> Result<Result<Vec<u8>, &'static str>, Error> {
        let limit = if part.media_type == BUNDLE { MAX_BUNDLE as u64 } else { MAX_REPORT };
        let read = self.attachment(part, limit.min(*budget))?;
        *budget = budget.saturating_sub(read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        Ok(read)
    }

    /// Reads something that is attached, which anyone may do: what is not there, too large or not as large as described is not read, and
    /// only bytes that are not those of their digest are an error.
    fn attachment(&mut self, descriptor: &Descriptor, limit: u64) -> Result<Result<Vec<u8>, &'static str>, Error> {
        if descriptor.size > limit {
            return Ok(Err("it is larger than the limit"));
        }
        if self.sizes.get(&descriptor.digest).is_some_and(|size| *size != descriptor.size) {
            return Ok(Err(OTHER_SIZE));
        }
        let opened = match self.source.open(descriptor) {
            Err(ImagePlaceError::MissingBlob { .. }) => return Ok(Err(MISSING)),
            opened => opened?,
        };
        let io = |error| unreadable(descriptor, error);
        let mut bytes = Vec::new();
        let mut hashing = Hashing { inner: opened.take(limit.saturating_add(1)), hasher: Hasher::new(), size: 0 };
        // No more than was described is kept, and the rest is hashed all the same: a blob that was exchanged is told from one that is
        // described falsely.
        (&mut hashing).take(descriptor.size).read_to_end(&mut bytes).map_err(io)?;
        let has_more = hashing.read(&mut [0]).map_err(io)? > 0;
        if !has_more && bytes.len() as u64 == descriptor.size {
            return if is_described(descriptor, hashing.hasher.finish(), descriptor.size) {
                Ok(Ok(bytes))
            } else {
                Err(wrong(descriptor, "its bytes are not those of its digest".to_owned()))
            };
        }
        if has_more && self.false_bytes >= MAX_FALSE {
            return Ok(Err(OTHER_SIZE));
        }
        std::io::copy(&mut hashing, &mut std::io::sink()).map_err(io)?;
        let (found, size) = (hashing.hasher.finish(), hashing.size);
        self.false_bytes = self.false_bytes.saturating_add(size);
        if size > limit {
            return Ok(Err("it is larger than the limit"));
        }
        if !is_described(descriptor, found, descriptor.size) {
            return Err(wrong(descriptor, "its bytes are not those of its digest".to_owned()));
        }
        self.sizes.insert(descriptor.digest, size);
        Ok(Err(OTHER_SIZE))
    }
}

/// Descriptors of parts, each once with its size and whether it is said to be a bundle, which decides its limit.
#[derive(Default)]
struct Listed(Vec<Descriptor>, BTreeSet<(Digest, u64, bool)>);

impl Listed {
    fn add(&mut self, part: Descriptor) {
        if self.1.insert((part.digest, part.size, part.media_type == BUNDLE)) {
            self.0.push(part);
        }
    }
}

/// Why something that is attached was not read.
const MISSING: &str = "its bytes are not there";
const OTHER_SIZE: &str = "it is not as large as its descriptor says";

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

/// Hashes every layer, and keeps it if there is a store for it.
pub(crate) fn read_layers(
    source: &dyn ImageSource,
    manifest: &Manifest,
    keep: Option<&dyn ContentStore>,
) -> Result<(), Error> {
    stream_all(source, &layers(manifest)?, MAX_LAYER, keep)
}

/// Keeps every layer but those that are where they go to.
pub(crate) fn read_layers_but(
    source: &dyn ImageSource,
    manifest: &Manifest,
    store: &dyn ContentStore,
    held: &[Descriptor],
) -> Result<(), Error> {
    // One of the same digest and another size is wrong, and is found out when it is read.
    let held: BTreeSet<(Digest, u64)> = held.iter().map(|layer| (layer.digest, layer.size)).collect();
    let left = layers(manifest)?.into_iter().filter(|layer| !held.contains(&(layer.digest, layer.size)));
    stream_all(source, &left.collect::<Vec<_>>(), MAX_LAYER, Some(store))
}

/// Keeps a blob of at most `limit` bytes, whose bytes are never all in memory.
pub(crate) fn keep(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    limit: u64,
    store: &dyn ContentStore,
) -> Result<(), Error> {
    stream_all(source, &[descriptor], limit, Some(store))
}

/// The layers of several images of one index, each content once, under the same limit as those of one image.
pub(crate) fn layers_of_all<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Result<Vec<&'m Descriptor>, Error> {
    let mut all = BTreeMap::new();
    for manifest in manifests {
        all.extend(layers(manifest)?.into_iter().map(|layer| (layer.digest, layer)));
    }
    let whole = all.values().map(|layer| layer.size).fold(0_u64, u64::saturating_add);
    match all.values().next() {
        Some(first) if whole > MAX_LAYERS => {
            let reason = format!("the layers of the images of its index have {whole} bytes, the limit is {MAX_LAYERS}");
            Err(wrong(first, reason))
        }
        _ => Ok(all.into_values().collect()),
    }
}

/// The layers of an image: each content once, however often it is named, and no more of all of it than one image may have.
pub(crate) fn layers(manifest: &Manifest) -> Result<Vec<&Descriptor>, Error> {
    let mut seen = BTreeSet::new();
    let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).collect();
    let whole = layers.iter().map(|layer| layer.size).fold(0_u64, u64::saturating_add);
    if let Some(first) = layers.first().filter(|_| whole > MAX_LAYERS) {
        let reason =
            format!("it and the other layers of its image are said to have {whole} bytes, the limit is {MAX_LAYERS}");
        return Err(wrong(first, reason));
    }
    layers.iter().try_for_each(|layer| is_within(layer, MAX_LAYER))?;
    Ok(layers)
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

/// Hashes each blob, several at a time, and keeps it if there is a store for it. The first failure ends all of them.
fn stream_all(
    source: &dyn ImageSource,
    blobs: &[&Descriptor],
    limit: u64,
    keep: Option<&dyn ContentStore>,
) -> Result<(), Error> {
    let (compared, is_over) = (Compared::here(), AtomicBool::new(false));
    let stream = |blob: &&Descriptor| {
        let streamed = is_within(blob, limit).and_then(|()| stream(source, blob, keep, (compared, &is_over)));
        // What only broke off because another one failed is no failure of its own.
        streamed.or_else(|error| if is_over.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(error) })
    };
    in_parallel(AT_ONCE, blobs, stream).map(drop)
}

fn stream(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    keep: Option<&dyn ContentStore>,
    (compared, is_over): (Compared, &AtomicBool),
) -> Result<(), Error> {
    // What is here already, whole, is not brought here once more.
    if let Some(store) = keep.filter(|_| source.is_far())
        && let Ok(mut held) = store.open(&descriptor.digest)
        && Digest::of_reader(&mut held).is_ok_and(|found| found == (descriptor.digest, descriptor.size))
    {
        return Ok(());
    }
    // What the store can take as it lies there is hashed there. What it does not take, for whatever reason, is read as from anywhere.
    if let Some(store) = keep
        && let Some(file) = source.file(descriptor)
        && let Some((digest, size)) = store.borrow(&file, descriptor.size)
    {
        return compared.check(descriptor, digest, size);
    }
    let mut opened = Stoppable { inner: source.open(descriptor)?.take(descriptor.size + 1), is_over, failed: None };
    let found = match keep {
        // The store hashes what it keeps; once is enough.
        Some(store) => store.put(&mut opened, descriptor.size.saturating_add(1)).map_err(Error::from),
        None => Digest::of_reader(&mut opened).map_err(|error| unreadable(descriptor, error)),
    };
    // A place that can't be read is no fault of the store.
    if let Some(error) = opened.failed.take() {
        return Err(unreadable(descriptor, error));
    }
    let (digest, size) = found?;
    compared.check(descriptor, digest, size)
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

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// Bytes that end with an error when it is over.
struct Stoppable<'a, R> {
    inner: R,
    is_over: &'a AtomicBool,
    /// What went wrong at the place.
    failed: Option<std::io::Error>,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(std::io::Error::other("another one failed"));
            }
            match self.inner.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failed = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sluicegate_attestation::identifiers::LAYER_TAR;
    use sluicegate_testkit::MemoryStore;
    use sluicegate_types::{Place, Selector};

    use super::*;

    /// A place where some blobs are, some break off, and some have no end.
    struct Odd;

    struct BreaksOff;

    impl Read for BreaksOff {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line went dead"))
        }
    }

    impl ImageSource for Odd {
        fn resolve(&self, _: &Selector) -> Result<Descriptor, ImagePlaceError> {
            Err(missing(Digest::of(b"")))
        }

        fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
            match descriptor.media_type.as_str() {
                "here" => Ok(Box::new(io::repeat(0))),
                "broken" => Ok(Box::new(BreaksOff)),
                _ => Err(missing(descriptor.digest)),
            }
        }

        fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
            Ok(Vec::new())
        }
    }

    fn missing(digest: Digest) -> ImagePlaceError {
        ImagePlaceError::MissingBlob { place: Place::Layout("/odd".into()), digest }
    }

    fn manifest(layers: &[(&str, u64)]) -> Manifest {
        let layer = |(at, (kind, size)): (usize, &(&str, u64))| Descriptor::new(kind, Digest::of(&[at as u8]), *size);
        Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::new(EMPTY_CONFIG, Digest::of(b"{}"), 2),
            layers: layers.iter().enumerate().map(layer).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_first_failure_ends_what_would_take_hours_and_is_what_is_told() {
        let store = MemoryStore::new();
        // Bytes without end are nothing for a store in memory.
        let image = manifest(&[("here", MAX_LAYER), ("here", MAX_LAYER - 1), ("gone", 1)]);
        let error = read_layers(&Odd, &image, None).unwrap_err();
        assert!(matches!(error, Error::Place(ImagePlaceError::MissingBlob { .. })), "{error}");
        for keep in [None, Some(&store as &dyn ContentStore)] {
            let error = read_layers(&Odd, &manifest(&[("broken", 9)]), keep).unwrap_err();
            let words = error.causes().join(": ");
            assert!(
                matches!(error, Error::Io { action: "read", .. }) && words.contains("the line went dead"),
                "{words}"
            );
            let error = read_layers(&Odd, &manifest(&[("here", 9)]), keep).unwrap_err();
            assert!(matches!(error, Error::Content { .. }), "{error}");
        }
    }

    #[test]
    fn layers_beyond_a_limit_are_refused_before_any_is_read() {
        assert_eq!(layers(&manifest(&[(LAYER_TAR, MAX_LAYER), (LAYER_TAR, MAX_LAYER)])).unwrap().len(), 2);
        for layers in
            [&[("gone", 1), ("gone", MAX_LAYER + 1)][..], &[("gone", MAX_LAYER), ("gone", MAX_LAYER), ("gone", 1)]]
        {
            let error = read_layers(&Odd, &manifest(layers), None).unwrap_err();
            assert!(error.to_string().contains("the limit is"), "{error}");
        }
    }
}
