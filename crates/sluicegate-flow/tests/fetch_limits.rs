//! What anyone may attach costs a reader no more than the limits say, however it is described (trust model 12).

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sluicegate_attestation::identifiers::{EMPTY_CONFIG, EVIDENCE_ARTIFACT, IMAGE_MANIFEST, TRIVY_REPORT};
use sluicegate_flow::fetch::fetch;
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, Manifest};
use sluicegate_testkit::today;
use sluicegate_types::{Digest, Selector};
use sluicegate_verify::closed_set::Asked;

use crate::gate_world::{SOURCE, World};

const MIB: u64 = 1024 * 1024;

/// A place that also has blobs of nothing but zeros, and counts what is read of them.
struct WithZeros {
    inner: Box<dyn ImageSource>,
    sizes: BTreeMap<Digest, u64>,
    read: Arc<AtomicU64>,
}

struct Counted<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl ImageSource for WithZeros {
    fn resolve(&self, selector: &Selector) -> Result<Descriptor, ImagePlaceError> {
        self.inner.resolve(selector)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
        match self.sizes.get(&descriptor.digest) {
            Some(size) => Ok(Box::new(Counted(io::repeat(0).take(*size), self.read.clone()))),
            None => self.inner.open(descriptor),
        }
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
        self.inner.referrers(subject)
    }
}

#[test]
fn tm12_bytes_that_are_described_falsely_are_hashed_up_to_a_limit() {
    let (world, _) = World::good();
    let sizes: BTreeMap<Digest, u64> = (0..10_u64)
        .map(|number| 40 * MIB + number)
        .map(|size| (Digest::of_reader(&mut io::repeat(0).take(size)).unwrap().0, size))
        .collect();
    let whole: u64 = sizes.values().sum();
    // Each is said to be one byte: whether that is a lie or damage is known only when all of it was hashed.
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: Some(EVIDENCE_ARTIFACT.to_owned()),
        config: Descriptor::new(EMPTY_CONFIG, Digest::of(b"{}"), 2),
        layers: sizes.keys().map(|digest| Descriptor::new(TRIVY_REPORT, *digest, 1)).collect(),
        subject: Some(world.image.descriptor.clone()),
        annotations: BTreeMap::new(),
    };
    world.places.attach_manifest(SOURCE, &manifest);
    let inner = world.places.source(&SOURCE.into()).unwrap();
    let source = WithZeros { inner, sizes, read: Arc::default() };
    let asked = Asked { trust: &world.trust, repository: None, at: today() };
    let fetched = fetch(&source, &world.image.descriptor, asked).unwrap();
    assert!(!fetched.blobs.is_empty() && source.sizes.keys().all(|digest| !fetched.blobs.contains_key(digest)));
    // The one that passes the limit is read to its end.
    let read = source.read.load(Ordering::Relaxed);
    assert!(read <= 256 * MIB + 41 * MIB && read < whole, "{read} of {whole} bytes");
    assert!(read >= 256 * MIB, "less than the limit was looked at: {read} bytes");
}
