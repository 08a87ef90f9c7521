//! `copy` on one file system: what was hashed need not be written again, and no file of anybody's changes for it.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sluicegate_attestation::identifiers::{BUNDLE, IMAGE_MANIFEST};
use sluicegate_flow::{
    Error, Failure,
    copy::{CopyRequest, copy},
    folders::EnvironmentPlaces,
};
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, ImageTarget, Occupant, Publication},
    store::ContentStore,
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_store::{FileStore, ScratchStore};
use sluicegate_testkit::{Behaviour, MemoryPlaces, TestRegistry, VirtualImage};
use sluicegate_types::{Digest, Place, TagName};

struct World {
    folder: tempfile::TempDir,
    registry: TestRegistry,
    image: VirtualImage,
    bundle: Vec<u8>,
}

impl World {
    fn new(behaviour: Behaviour, layer: &[u8]) -> Self {
        let (folder, registry, image) =
            (tempfile::tempdir().unwrap(), TestRegistry::start(behaviour), VirtualImage::new(layer));
        let bundle = b"a bundle".to_vec();
        let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, &bundle)]);
        for bytes in image.blobs.values().chain(blobs.values()) {
            registry.put_blob("app", bytes);
        }
        let manifests = [("v1".to_owned(), &image.blobs[&image.digest()])];
        for (name, bytes) in manifests.into_iter().chain([(referrer.digest.to_string(), &blobs[&referrer.digest])]) {
            registry.put_manifest("app", &name, IMAGE_MANIFEST, bytes);
        }
        Self { folder, registry, image, bundle }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    fn layout(&self, name: &str) -> String {
        format!("oci:{}", self.folder.path().join(name).display())
    }

    fn file(&self, layout: &str, blob: &Digest) -> PathBuf {
        self.folder.path().join(layout).join("blobs/sha256").join(blob.hex())
    }

    fn scratch(&self, name: &str) -> ScratchStore {
        ScratchStore::open(&self.folder.path().join(name)).unwrap()
    }
}

fn places() -> Places {
    Places::new(RegistrySettings { pause: std::sync::Arc::new(|_| {}), ..RegistrySettings::default() })
}

fn copied(targets: &dyn ImagePlaces, from: &str, to: &str, store: &dyn ContentStore) -> Result<(), Error> {
    let sources = places();
    copy(&CopyRequest {
        from: &from.parse().unwrap(),
        to: &to.parse().unwrap(),
        folder: Path::new("."),
        sources: &sources,
        targets,
        environments: &EnvironmentPlaces::default(),
        store,
        warn: &|line| panic!("{line}"),
    })
    .map(|_| ())
}

fn metadata(path: &Path) -> (u64, u64, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.nlink(), metadata.mode() & 0o7777)
}

#[test]
fn a_layout_gets_the_files_of_scratch_and_none_of_a_store_that_lasts() {
    let world = World::new(Behaviour::default(), b"a layer");
    let scratch = world.scratch("scratch");
    copied(&places(), &world.at("app:v1"), &world.layout("linked"), &scratch).unwrap();
    let home = FileStore::open(&world.folder.path().join("home")).unwrap();
    copied(&places(), &world.at("app:v1"), &world.layout("copied"), &home).unwrap();
    for blob in world.image.blobs.keys().copied().chain([Digest::of(&world.bundle)]) {
        let linked = world.file("linked", &blob);
        let (inode, _, _) = metadata(&scratch.path(&blob).unwrap());
        assert_eq!(metadata(&linked), (inode, 2, 0o644));
        let (_, links, mode) = metadata(&world.file("copied", &blob));
        assert_eq!((links, mode), (1, 0o644));
        let (_, links, mode) = metadata(&home.path(&blob).unwrap());
        assert_eq!((links, mode), (1, 0o600));
    }
    // It is whole without the scratch store.
    drop(scratch);
    fs::remove_dir_all(world.folder.path().join("scratch")).unwrap();
    copied(&places(), &world.layout("linked"), &world.at("back:v1"), &world.scratch("next")).unwrap();
    assert_eq!(world.registry.tags("back"), ["v1"]);
    let left = fs::read_dir(world.folder.path().join("linked/blobs/sha256")).unwrap();
    assert!(left.flatten().all(|entry| entry.file_name().len() == 64));
}

#[test]
fn between_two_file_systems_it_is_copied() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let world = World::new(Behaviour::default(), b"a layer");
    if fs::metadata(elsewhere.path()).unwrap().dev() == fs::metadata(world.folder.path()).unwrap().dev() {
        return;
    }
    let scratch = ScratchStore::open(&elsewhere.path().join("scratch")).unwrap();
    copied(&places(), &world.at("app:v1"), &world.layout("one"), &scratch).unwrap();
    let scratch = ScratchStore::open(&elsewhere.path().join("next")).unwrap();
    copied(&places(), &world.layout("one"), &world.at("mirror:v1"), &scratch).unwrap();
    for blob in world.image.blobs.keys().copied().chain([Digest::of(&world.bundle)]) {
        let (_, links, mode) = metadata(&world.file("one", &blob));
        assert_eq!((links, mode), (1, 0o644));
    }
    assert_eq!(world.registry.tags("mirror"), ["v1"]);
}

#[test]
fn a_layouts_layer_is_hashed_where_it_lies_and_is_shared_with_no_other_layout() {
    let world = World::new(Behaviour::default(), b"a layer");
    copied(&places(), &world.at("app:v1"), &world.layout("one"), &world.scratch("first")).unwrap();
    fs::remove_dir_all(world.folder.path().join("first")).unwrap();
    let layer = world.file("one", &world.image.layer);
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o640)).unwrap();
    let before = metadata(&layer);
    for (name, to) in [("a", world.at("mirror:v1")), ("b", world.layout("two"))] {
        let scratch = world.scratch(name);
        copied(&places(), &world.layout("one"), &to, &scratch).unwrap();
        assert_eq!(metadata(&scratch.path(&world.image.layer).unwrap()).0, before.0);
        fs::remove_dir_all(world.folder.path().join(name)).unwrap();
        assert_eq!(metadata(&layer), before);
    }
    assert_eq!(world.registry.blob("mirror", &world.image.layer.to_string()).unwrap(), b"a layer");
    let (inode, links, mode) = metadata(&world.file("two", &world.image.layer));
    assert_eq!((inode != before.0, links, mode), (true, 1, 0o644));
    // Nor is it linked into a store that lasts.
    let home = FileStore::open(&world.folder.path().join("home")).unwrap();
    copied(&places(), &world.layout("one"), &world.at("other:v1"), &home).unwrap();
    assert_ne!(metadata(&home.path(&world.image.layer).unwrap()).0, before.0);
    assert_eq!(metadata(&layer), before);
}

#[test]
fn a_layer_that_is_damaged_where_it_lies_is_refused() {
    let world = World::new(Behaviour::default(), b"a layer");
    copied(&places(), &world.at("app:v1"), &world.layout("one"), &world.scratch("first")).unwrap();
    fs::remove_dir_all(world.folder.path().join("first")).unwrap();
    let layer = world.file("one", &world.image.layer);
    for bytes in [&b"b layer"[..], b"a laye", b"a layer and more"] {
        fs::write(&layer, bytes).unwrap();
        let error = copied(&places(), &world.layout("one"), &world.at("mirror:v1"), &world.scratch("a")).unwrap_err();
        assert_eq!(error.failure(), Failure::Wrong, "{error}");
    }
    let elsewhere = world.folder.path().join("elsewhere");
    fs::write(&elsewhere, b"a layer").unwrap();
    fs::remove_file(&layer).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &layer).unwrap();
    let error = copied(&places(), &world.layout("one"), &world.at("mirror:v1"), &world.scratch("a")).unwrap_err();
    assert!(error.causes().join(": ").contains("is not a regular file"), "{error}");
    assert!(world.registry.tags("mirror").is_empty());
}

/// Places where somebody writes to a file just before anything is sent.
struct Meddled(Places, PathBuf);

struct MeddledTarget(Box<dyn ImageTarget>, PathBuf);

impl ImagePlaces for Meddled {
    fn source(&self, place: &Place) -> Result<Box<dyn ImageSource>, ImagePlaceError> {
        self.0.source(place)
    }

    fn target(&self, place: &Place) -> Result<Box<dyn ImageTarget>, ImagePlaceError> {
        Ok(Box::new(MeddledTarget(self.0.target(place)?, self.1.clone())))
    }
}

impl ImageTarget for MeddledTarget {
    fn current(&self, tag: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError> {
        self.0.current(tag)
    }

    fn take_over(&self, blobs: &[Descriptor], from: &Place) -> Result<Vec<Descriptor>, ImagePlaceError> {
        self.0.take_over(blobs, from)
    }

    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        fs::OpenOptions::new().write(true).open(&self.1).unwrap().write_at(b"X", 3).unwrap();
        self.0.publish(publication, store)
    }

    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        self.0.attach(image, referrers, blobs, store)
    }
}

#[test]
fn what_is_exchanged_between_hashing_and_sending_is_refused() {
    // At once, in parts, and into another layout.
    for (size, to) in [(3 << 20, "mirror:v1"), (65 << 20, "mirror:v1"), (3 << 20, "oci")] {
        let world = World::new(Behaviour::default(), &vec![7; size]);
        copied(&places(), &world.at("app:v1"), &world.layout("one"), &world.scratch("first")).unwrap();
        fs::remove_dir_all(world.folder.path().join("first")).unwrap();
        let meddled = Meddled(places(), world.file("one", &world.image.layer));
        let target = if to == "oci" { world.layout("two") } else { world.at(to) };
        let error = copied(&meddled, &world.layout("one"), &target, &world.scratch("a")).unwrap_err();
        assert_eq!(error.failure(), Failure::Wrong, "{error}");
        assert!(world.registry.tags("mirror").is_empty());
        assert!(world.registry.blob("mirror", &world.image.layer.to_string()).is_none());
        assert!(!world.folder.path().join("two/index.json").exists());
        if size > 64 << 20 {
            // Parts are not called a blob at all.
            let layer = world.image.layer.hex();
            let log = world.registry.log();
            assert!(log.iter().any(|one| one.method == "PATCH" && one.status == 202));
            assert!(
                !log.iter().any(|one| one.method == "PUT" && one.status == 201 && one.path_and_query.contains(&layer))
            );
            let words = error.causes().join(": ");
            assert!(words.contains("nothing is to be sent from there"), "{words}");
        }
    }
}

#[test]
fn places_that_have_no_files_are_read_as_ever() {
    let memory = MemoryPlaces::new();
    let image = VirtualImage::new(b"a layer");
    memory.put_image("/one", &image, Some("v1"));
    let layer = Descriptor::new("any", image.layer, 7);
    assert!(memory.source(&"/one".into()).unwrap().file(&layer).is_none());
    let taken = memory.target(&"/two".into()).unwrap().take_over(&[layer], &"/one".into()).unwrap();
    assert!(taken.is_empty());
}
