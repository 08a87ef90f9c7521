//! A layout folder of the test, the store that it is published from, and an image in it.

use std::{fs, io::Read, path::PathBuf};

use serde_json::Value;
use sluicegate_attestation::identifiers::BUNDLE;
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, Publication},
    store::ContentStore,
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{MemoryStore, VirtualImage};
use sluicegate_types::Digest;

pub(crate) fn places() -> Places {
    Places::new(RegistrySettings::default())
}

pub(crate) struct Layout {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: MemoryStore,
}

impl Layout {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), store: MemoryStore::new() }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("layout")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder().join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn publish(&self, publication: &Publication) -> Result<(), ImagePlaceError> {
        places().target(&self.folder().into()).unwrap().publish(publication, &self.store)
    }

    pub(crate) fn source(&self) -> Box<dyn ImageSource> {
        places().source(&self.folder().into()).unwrap()
    }

    pub(crate) fn current(&self) -> Option<Digest> {
        places().target(&self.folder().into()).unwrap().current(None).unwrap().map(|held| held.image)
    }

    /// The image with one referrer, everything in the store.
    pub(crate) fn publication(&self, image: &VirtualImage, expected: Option<Digest>) -> Publication {
        let (referrer, parts) = image.referrer(BUNDLE, &[(BUNDLE, b"a bundle")]);
        for bytes in image.blobs.values().chain(parts.values()) {
            self.store.put_bytes(bytes).unwrap();
        }
        let manifests = [image.digest(), referrer.digest];
        let blobs = image.blobs.keys().chain(parts.keys()).copied().filter(|d| !manifests.contains(d)).collect();
        Publication {
            image: image.descriptor.clone(),
            tags: vec!["current".parse().unwrap()],
            children: Vec::new(),
            referrers: vec![referrer],
            blobs,
            evidence: Vec::new(),
            beside: Vec::new(),
            source: None,
            expected,
            environment: None,
        }
    }

    pub(crate) fn index(&self) -> Vec<u8> {
        fs::read(self.folder().join("index.json")).unwrap()
    }

    pub(crate) fn index_json(&self) -> Value {
        serde_json::from_slice(&self.index()).unwrap()
    }

    pub(crate) fn edit_index(&self, edit: impl FnOnce(&mut Value)) {
        let mut index: Value = serde_json::from_slice(&self.index()).unwrap();
        edit(&mut index);
        fs::write(self.folder().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

pub(crate) fn bytes(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Vec<u8>, ImagePlaceError> {
    let mut bytes = Vec::new();
    source.open(descriptor)?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// An image published to a new folder.
pub(crate) fn published() -> (Layout, VirtualImage) {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    layout.publish(&layout.publication(&image, None)).unwrap();
    (layout, image)
}
