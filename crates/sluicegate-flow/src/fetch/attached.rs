//! What is attached to an image or an index: every byte of it hashed, within limits, and nobody locked out by what others attach.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use sluicegate_attestation::{bundle::MAX_BUNDLE, identifiers::BUNDLE};
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImageSource, Manifest};
use sluicegate_types::{
    Digest, Hasher,
    checks::{Check, is_on},
};

use super::{Fetched, MAX_DESCRIPTORS, MAX_MANIFEST, is_described, unreadable, wrong};
use crate::Error;

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
pub(super) type Bundles = BTreeMap<Digest, Vec<u8>>;

/// Bytes of what is read beside an image: bundles that are attached to it, and everything else.
#[derive(Clone, Copy)]
pub(super) struct Room {
    attached: u64,
    carried: u64,
}

impl Room {
    /// That of one image.
    pub(super) const OF_ONE: Self = Self { attached: MAX_ATTACHED, carried: MAX_EVIDENCE };

    /// At most `bytes` of it, one part in three for bundles that are attached.
    pub(super) fn shared(bytes: u64) -> Self {
        Self { attached: MAX_ATTACHED.min(bytes / 3), carried: MAX_EVIDENCE.min(bytes - bytes / 3) }
    }

    /// At most `bytes` of bundles that are attached, and nothing else.
    pub(super) fn of_bundles(bytes: u64) -> Self {
        Self { attached: MAX_ATTACHED.min(bytes), carried: 0 }
    }
}

/// Reads what is attached to an image or an index, whose manifest and configuration are here. Where there is more than the room allows,
/// what `first` names comes first.
pub(super) fn attached(
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
