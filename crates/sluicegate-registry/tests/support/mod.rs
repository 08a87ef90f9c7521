//! A registry of the test, a client of it, and what the client was heard to say.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::{
    collections::BTreeMap,
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use sluicegate_attestation::identifiers::{BUNDLE, IMAGE_CONFIG, IMAGE_MANIFEST, LAYER_TAR};
use sluicegate_ports::{
    images::{
        Descriptor, FaultKind, ImagePlaceError, ImagePlaces, ImageSource, ImageTarget, Manifest, Publication,
        RegistryFault,
    },
    store::ContentStore,
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, Logged, MemoryStore, TestRegistry, VirtualImage};
use sluicegate_types::{Digest, Place, RegistryRepository, Selector, TagName};

/// A registry, and a client that waits for nothing.
pub(crate) struct World {
    pub(crate) registry: TestRegistry,
    pub(crate) places: Places,
    pub(crate) store: MemoryStore,
    pub(crate) heard: Heard,
}

/// What a client said and waited for.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    pub(crate) warnings: Arc<Mutex<Vec<String>>>,
    pub(crate) pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Heard {
    /// Settings that write down warnings and pauses, and wait for none.
    pub(crate) fn settings(&self) -> RegistrySettings {
        let (warnings, pauses) = (self.warnings.clone(), self.pauses.clone());
        RegistrySettings {
            warn: Arc::new(move |words| warnings.lock().unwrap().push(words.to_owned())),
            pause: Arc::new(move |pause| pauses.lock().unwrap().push(pause)),
            ..RegistrySettings::default()
        }
    }

    pub(crate) fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().unwrap().clone()
    }

    pub(crate) fn warned(&self) -> String {
        self.warnings.lock().unwrap().join("\n")
    }
}

impl World {
    /// A registry that behaves as these words say.
    pub(crate) fn of(words: &str) -> Self {
        Self::new(words.parse().unwrap())
    }

    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self::with(behaviour, |_, _| {})
    }

    /// The same with other settings, which may depend on the registry's host.
    pub(crate) fn with(behaviour: Behaviour, change: impl FnOnce(&str, &mut RegistrySettings)) -> Self {
        let (registry, heard) = (TestRegistry::start(behaviour), Heard::default());
        let mut settings = heard.settings();
        change(&registry.host(), &mut settings);
        Self { registry, places: Places::new(settings), store: MemoryStore::new(), heard }
    }

    pub(crate) fn place(&self) -> Place {
        Place::Registry(self.repository("team/shop"))
    }

    pub(crate) fn repository(&self, name: &str) -> RegistryRepository {
        repository(&self.registry.host(), name)
    }

    pub(crate) fn source(&self) -> Box<dyn ImageSource> {
        self.places.source(&self.place()).unwrap()
    }

    pub(crate) fn target(&self) -> Box<dyn ImageTarget> {
        self.places.target(&self.place()).unwrap()
    }

    /// A client that knows nothing of what another one was told.
    pub(crate) fn stranger(&self) -> Places {
        Places::new(self.heard.settings())
    }

    pub(crate) fn publish(&self, image: &Content) -> Result<(), ImagePlaceError> {
        image.store_in(&self.store);
        self.target().publish(&image.publication(&["v1"]), &self.store)
    }

    pub(crate) fn referrers(&self, image: &Content) -> Result<Vec<Descriptor>, ImagePlaceError> {
        self.source().referrers(&image.digest())
    }

    /// Puts an image into the registry without asking it.
    pub(crate) fn hold(&self, image: &Content) {
        for bytes in image.image.blobs.values() {
            self.registry.put_blob("team/shop", bytes);
        }
        let manifest = &image.image.blobs[&image.digest()];
        self.registry.put_manifest("team/shop", "v1", IMAGE_MANIFEST, manifest);
        for (descriptor, parts) in &image.referrers {
            for bytes in parts.values() {
                self.registry.put_blob("team/shop", bytes);
            }
            self.registry.put_manifest(
                "team/shop",
                &descriptor.digest.to_string(),
                IMAGE_MANIFEST,
                &parts[&descriptor.digest],
            );
        }
    }

    /// Requests of a method whose path has a part.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.asked(method, part).len()
    }

    pub(crate) fn asked(&self, method: &str, part: &str) -> Vec<Logged> {
        let log = self.registry.log().into_iter();
        log.filter(|one| (method.is_empty() || one.method == method) && one.path_and_query.contains(part)).collect()
    }

    /// How many requests for tokens there were.
    pub(crate) fn token_requests(&self) -> usize {
        self.count("", "/token")
    }
}

pub(crate) fn repository(host: &str, name: &str) -> RegistryRepository {
    let reference = format!("{host}/{name}");
    reference.parse().unwrap()
}

/// An image of several layers with manifests that refer to it.
pub(crate) struct Content {
    pub(crate) image: VirtualImage,
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: Digest,
    pub(crate) referrers: Vec<(Descriptor, BTreeMap<Digest, Vec<u8>>)>,
}

impl Content {
    pub(crate) fn new(layers: &[&[u8]], referrers: &[&str]) -> Self {
        let describe = |kind: &str, bytes: &[u8]| Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64);
        let config = br#"{"architecture":"amd64","os":"linux"}"#;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config: describe(IMAGE_CONFIG, config),
            layers: layers.iter().map(|bytes| describe(LAYER_TAR, bytes)).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let descriptor = describe(IMAGE_MANIFEST, &manifest);
        let all = layers.iter().map(|bytes| bytes.to_vec()).chain([config.to_vec(), manifest]);
        let blobs = all.map(|bytes| (Digest::of(&bytes), bytes)).collect();
        let image = VirtualImage { descriptor, blobs, layer: Digest::of(layers[0]) };
        let referrers = referrers.iter().map(|words| image.referrer(BUNDLE, &[(BUNDLE, words.as_bytes())])).collect();
        let layers = layers.iter().map(|bytes| Digest::of(bytes)).collect();
        Self { image, layers, config: Digest::of(config), referrers }
    }

    /// Three layers, three referrers.
    pub(crate) fn usual() -> Self {
        Self::new(&[b"the base", b"what was built", &noise(100_000)], &["provenance", "sbom", "vulns"])
    }

    pub(crate) fn digest(&self) -> Digest {
        self.image.digest()
    }

    pub(crate) fn layer(&self, number: usize) -> Descriptor {
        let digest = self.layers[number];
        Descriptor::new(LAYER_TAR, digest, self.image.blobs[&digest].len() as u64)
    }

    pub(crate) fn store_in(&self, store: &MemoryStore) {
        let parts = self.referrers.iter().flat_map(|(_, parts)| parts.values());
        for bytes in self.image.blobs.values().chain(parts) {
            store.put_bytes(bytes).unwrap();
        }
    }

    pub(crate) fn publication(&self, tags: &[&str]) -> Publication {
        let blobs: Vec<Digest> = self.layers.iter().copied().chain([self.config]).collect();
        let evidence = self
            .referrers
            .iter()
            .flat_map(|(descriptor, parts)| parts.keys().copied().filter(|digest| *digest != descriptor.digest));
        Publication {
            image: self.image.descriptor.clone(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            children: Vec::new(),
            referrers: self.referrers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
            blobs,
            evidence: evidence.collect(),
            beside: Vec::new(),
            source: None,
            expected: None,
            environment: None,
        }
    }

    /// The digests of its referrers, in order.
    pub(crate) fn referring(&self) -> Vec<Digest> {
        let mut all: Vec<Digest> = self.referrers.iter().map(|(descriptor, _)| descriptor.digest).collect();
        all.sort();
        all
    }

    /// Reads all of it from a place, hashing every byte.
    pub(crate) fn assert_is_in(&self, places: &Places, place: &Place) {
        let source = places.source(place).unwrap();
        let found = source.resolve(&Selector::Tag("v1".parse().unwrap())).unwrap();
        assert_eq!((found.digest, found.size), (self.digest(), self.image.descriptor.size));
        let manifest: Manifest = serde_json::from_slice(&read(source.as_ref(), &found).unwrap()).unwrap();
        for part in manifest.layers.iter().chain([&manifest.config]) {
            read(source.as_ref(), part).unwrap();
        }
        let referrers = source.referrers(&self.digest()).unwrap();
        assert_eq!(referrers.iter().map(|one| one.digest).collect::<Vec<_>>(), self.referring());
        for referrer in &referrers {
            let bytes = read(source.as_ref(), referrer).unwrap();
            let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(manifest.subject.unwrap().digest, self.digest());
            for part in manifest.layers.iter().chain([&manifest.config]) {
                read(source.as_ref(), part).unwrap();
            }
        }
    }
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| byte()).collect()
}

/// What a descriptor names, if its bytes are those of its digest and size.
pub(crate) fn read(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = source.open(descriptor).map_err(|error| describe(&error))?;
    opened.take(descriptor.size + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if Digest::of(&bytes) == descriptor.digest && bytes.len() as u64 == descriptor.size {
        return Ok(bytes);
    }
    Err(format!("{} bytes of {}", bytes.len(), Digest::of(&bytes)))
}

/// What was being done, and why it failed.
pub(crate) fn describe(error: &ImagePlaceError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

/// The registry's fault in an error.
#[track_caller]
pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, ImagePlaceError>) -> RegistryFault {
    match result {
        Err(ImagePlaceError::Registry { fault, .. }) => fault,
        other => panic!("no fault of a registry: {other:?}"),
    }
}

/// The kind of a fault, beside the same request without it.
#[track_caller]
pub(crate) fn assert_fault<T: std::fmt::Debug>(result: Result<T, ImagePlaceError>, kind: FaultKind, words: &[&str]) {
    let fault = fault(result);
    assert_eq!(fault.kind, kind, "{}", fault.reason);
    for part in words {
        assert!(fault.reason.contains(part), "{part:?} is not in {:?}", fault.reason);
    }
}

pub(crate) fn tag(text: &str) -> TagName {
    text.parse().unwrap()
}

pub(crate) fn selector() -> Selector {
    Selector::Tag(tag("v1"))
}

/// The fallback tag of an image.
pub(crate) fn fallback(image: &Digest) -> String {
    format!("sha256-{}", image.hex())
}

/// A file of credentials in Docker's form.
pub(crate) fn credentials(folder: &std::path::Path, json: &str) -> Vec<PathBuf> {
    let path = folder.join("config.json");
    std::fs::write(&path, json).unwrap();
    vec![path]
}
