//! `copy`: what arrives is what was there, byte for byte, or nothing that has a name.

use std::{cell::RefCell, path::Path};

use serde_json::json;
use sluicegate_attestation::identifiers::{BUNDLE, DOCKER_MANIFEST, IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_flow::{
    Error, Failure,
    copy::{Copied, CopyRequest, copy},
    folders::EnvironmentPlaces,
};
use sluicegate_ports::images::{FaultKind, ImagePlaceError, ImagePlaces};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, Fault, MemoryPlaces, MemoryStore, TestRegistry, VirtualImage};
use sluicegate_types::{Digest, Selector};

struct World {
    registry: TestRegistry,
    places: Places,
    environments: EnvironmentPlaces,
    told: RefCell<Vec<String>>,
}

impl World {
    fn new(behaviour: Behaviour) -> Self {
        let registry = TestRegistry::start(behaviour);
        let environment = ("production".parse().unwrap(), format!("{}/prod/app", registry.host()).parse().unwrap());
        Self {
            registry,
            places: Places::new(RegistrySettings::default()),
            environments: EnvironmentPlaces::from_iter([environment]),
            told: RefCell::default(),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    fn copy(&self, from: &str, to: &str) -> Result<Copied, Error> {
        let (from, to, store) = (from.parse().unwrap(), to.parse().unwrap(), MemoryStore::new());
        copy(&CopyRequest {
            from: &from,
            to: &to,
            folder: Path::new("."),
            sources: &self.places,
            targets: &self.places,
            environments: &self.environments,
            store: &store,
            warn: &|line| self.told.borrow_mut().push(line.to_owned()),
        })
    }

    /// Puts an image with a bundle beside it into a repository and gives the bundle's manifest.
    fn put(&self, repository: &str, tag: &str, image: &VirtualImage) -> Digest {
        let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, image.layer.to_string().as_bytes())]);
        for bytes in image.blobs.values().chain(blobs.values()) {
            self.registry.put_blob(repository, bytes);
        }
        let manifest = &image.blobs[&image.digest()];
        for name in [tag, &image.digest().to_string()] {
            self.registry.put_manifest(repository, name, IMAGE_MANIFEST, manifest);
        }
        let name = referrer.digest.to_string();
        self.registry.put_manifest(repository, &name, IMAGE_MANIFEST, &blobs[&referrer.digest]);
        referrer.digest
    }

    fn referrers(&self, name: &str, image: &Digest) -> Vec<Digest> {
        let source = self.places.source(&name.parse().unwrap()).unwrap();
        source.referrers(image).unwrap().into_iter().map(|one| one.digest).collect()
    }
}

#[test]
fn an_image_and_what_is_attached_to_it_goes_round_through_a_layout_unchanged() {
    for behaviour in [Behaviour::default(), Behaviour::without_referrers()] {
        let api = behaviour.referrers;
        let world = World::new(behaviour);
        let image = VirtualImage::new(b"a layer");
        let bundle = world.put("app", "v1", &image);
        if !api {
            let entry = json!({"mediaType": IMAGE_MANIFEST, "digest": bundle, "size": world.registry.manifest("app", &bundle.to_string()).unwrap().1.len()});
            let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry]}).to_string();
            let tag = format!("sha256-{}", image.digest().hex());
            world.registry.put_manifest("app", &tag, IMAGE_INDEX, index.as_bytes());
        }
        let folder = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}", folder.path().join("layout").display());
        let copied = world.copy(&world.at("app:v1"), &format!("{layout}:v1")).unwrap();
        assert_eq!((copied.image, copied.children, copied.attached), (image.digest(), 0, 1));
        world.copy(&layout, &world.at("mirror/app:v2")).unwrap();
        let held = world.registry.manifest("mirror/app", "v2").unwrap();
        assert_eq!(Digest::of(&held.1), image.digest());
        assert_eq!(world.referrers(&world.at("mirror/app"), &image.digest()), [bundle]);
        // Once more is no harm.
        world.copy(&layout, &world.at("mirror/app:v2")).unwrap();
        assert!(world.told.borrow().is_empty());
    }
}

#[test]
fn an_index_is_copied_with_every_manifest_that_it_names_and_what_is_attached_to_each() {
    let world = World::new(Behaviour::default());
    let (one, two) = (VirtualImage::new(b"amd64"), VirtualImage::new(b"arm64"));
    let bundles = [world.put("app", "one", &one), world.put("app", "two", &two)];
    let entry = |image: &VirtualImage, architecture: &str| {
        json!({"mediaType": IMAGE_MANIFEST, "digest": image.digest(), "size": image.descriptor.size,
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry(&one, "amd64"), entry(&two, "arm64")]});
    let index = index.to_string().into_bytes();
    let digest = world.registry.put_manifest("app", "all", IMAGE_INDEX, &index);
    let copied = world.copy(&world.at("app:all"), &world.at("mirror:all")).unwrap();
    assert_eq!((copied.image, copied.children, copied.attached), (digest, 2, 2));
    assert_eq!(world.registry.manifest("mirror", "all").unwrap().1, index);
    for (image, bundle) in [&one, &two].into_iter().zip(bundles) {
        assert_eq!(world.referrers(&world.at("mirror"), &image.digest()), [bundle]);
    }
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", folder.path().join("layout").display());
    world.copy(&world.at("mirror:all"), &layout).unwrap();
    let source = world.places.source(&layout.parse().unwrap()).unwrap();
    assert_eq!(source.resolve(&Selector::Only).unwrap().digest, digest);
    assert_eq!(source.referrers(&two.digest()).unwrap().len(), 1);
}

#[test]
fn tr_23_a_manifest_of_dockers_type_arrives_as_it_was_or_not_at_all() {
    let docker = VirtualImage::new(b"a layer of Docker's");
    let manifest =
        String::from_utf8(docker.blobs[&docker.digest()].clone()).unwrap().replace(IMAGE_MANIFEST, DOCKER_MANIFEST);
    let put = |world: &World| {
        for bytes in docker.blobs.values() {
            world.registry.put_blob("app", bytes);
        }
        world.registry.put_manifest("app", "v1", DOCKER_MANIFEST, manifest.as_bytes())
    };
    let world = World::new(Behaviour::default());
    let digest = put(&world);
    assert_eq!(world.copy(&world.at("app:v1"), &world.at("mirror:v1")).unwrap().image, digest);
    assert_eq!(
        world.registry.manifest("mirror", "v1").unwrap(),
        (DOCKER_MANIFEST.to_owned(), manifest.clone().into_bytes())
    );
    for status in [400, 415] {
        let world = World::new(Behaviour::with_faults([Fault::media_type_refused(DOCKER_MANIFEST, status)]));
        put(&world);
        let error = world.copy(&world.at("app:v1"), &world.at("mirror:v1")).unwrap_err();
        let words = error.causes().join(" ");
        assert!(words.contains("does not take application/vnd.docker.distribution.manifest.v2+json"), "{words}");
        assert_eq!((error.failure(), error.reason()), (Failure::Unavailable, Some("media_type_refused")));
        assert_eq!(world.registry.tags("mirror"), Vec::<String>::new());
    }
}

#[test]
fn no_tag_moves_and_no_environments_place_is_written_to() {
    let world = World::new(Behaviour::default());
    world.put("app", "v1", &VirtualImage::new(b"one"));
    world.put("app", "v2", &VirtualImage::new(b"two"));
    world.copy(&world.at("app:v1"), &world.at("mirror:x")).unwrap();
    let said = |from: &str, to: &str| {
        let error = world.copy(from, to).unwrap_err();
        assert_eq!(error.failure(), Failure::Usage, "{error}");
        error.to_string()
    };
    assert!(said(&world.at("app:v2"), &world.at("mirror:x")).contains("copy moves no tag"));
    assert!(said(&world.at("app:v2"), &world.at("prod/app:x")).contains("is the place of production"));
    assert!(said(&world.at("app:v2"), &world.at("app:v3")).contains("is already"));
    assert!(said(&world.at("app:v2"), &world.at(&format!("mirror@{}", Digest::of(b"")))).contains("name a tag"));
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", folder.path().join("layout").display());
    world.copy(&world.at("app:v1"), &layout).unwrap();
    assert!(said(&world.at("app:v2"), &layout).contains("a layout holds one image"));
    world.copy(&world.at("app:v2"), &world.at("mirror:y")).unwrap();
    assert_eq!(world.registry.tags("mirror"), ["x", "y"]);
    assert!(world.registry.tags("prod/app").is_empty());
}

#[test]
fn what_is_attached_to_another_image_by_its_own_word_is_told_of_and_left() {
    let world = World::new(Behaviour::without_referrers());
    let (image, other) = (VirtualImage::new(b"one"), VirtualImage::new(b"two"));
    let bundle = world.put("app", "v1", &image);
    let foreign = world.put("app", "v2", &other);
    let entries: Vec<_> = [bundle, foreign]
        .iter()
        .map(|digest| {
            let size = world.registry.manifest("app", &digest.to_string()).unwrap().1.len();
            json!({"mediaType": IMAGE_MANIFEST, "digest": digest, "size": size})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).to_string();
    let tag = format!("sha256-{}", image.digest().hex());
    world.registry.put_manifest("app", &tag, IMAGE_INDEX, index.as_bytes());
    assert_eq!(world.copy(&world.at("app:v1"), &world.at("mirror:v1")).unwrap().attached, 1);
    let told = world.told.borrow().join("\n");
    assert!(told.contains(&foreign.to_string()) && told.contains("its subject is another image"), "{told}");
}

#[test]
fn a_layer_with_other_bytes_is_not_copied() {
    let image = VirtualImage::new(b"a layer");
    let layer = format!("/v2/app/blobs/{}", image.layer);
    let lie = sluicegate_testkit::Answer::status(200).content("application/octet-stream", b"b layer");
    let faults = [vec![], vec![sluicegate_testkit::When::get(&layer).answer(lie)]];
    for (number, faults) in faults.into_iter().enumerate() {
        let (world, mirror) = (World::new(Behaviour::with_faults(faults)), World::new(Behaviour::default()));
        world.put("app", "v1", &image);
        let folder = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}", folder.path().join("layout").display());
        for to in [mirror.at("mirror:v1"), layout] {
            let copied = world.copy(&world.at("app:v1"), &to).map_err(|error| error.failure());
            assert_eq!(copied.map(|copied| copied.image).ok(), (number == 0).then_some(image.digest()));
        }
        assert_eq!(
            (mirror.registry.tags("mirror").len(), folder.path().join("layout/index.json").exists() as usize),
            (1 - number, 1 - number)
        );
    }
    let world = World::new(Behaviour::default());
    world.put("app", "v1", &image);
    // A registry that answers another manifest than the one of a digest is not asked again and again.
    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    let lie = sluicegate_testkit::Answer::status(200).content(IMAGE_MANIFEST, b"{\"schemaVersion\":2}");
    let world = World::new(Behaviour::with_faults([sluicegate_testkit::When::get(&by_digest).answer(lie)]));
    world.put("app", "v1", &image);
    let error = world.copy(&world.at(&format!("app@{}", image.digest())), &world.at("mirror:v1")).unwrap_err();
    let kind = match &error {
        Error::Place(ImagePlaceError::Registry { fault, .. }) => fault.kind,
        other => panic!("{other}"),
    };
    assert_eq!((kind, error.failure()), (FaultKind::DigestMismatch, Failure::Wrong));
}

#[test]
fn a_registry_takes_layers_over_and_none_is_read_or_sent() {
    for (words, is_taken) in [("", true), ("auth", true), ("mount401", false)] {
        let world = World::new(words.parse().unwrap());
        let image = VirtualImage::new(b"a layer");
        let bundle = world.put("app", "v1", &image);
        world.copy(&world.at("app:v1"), &world.at("mirror:v1")).unwrap();
        let log = world.registry.log();
        let is_asked = |method: &str, path: String| {
            log.iter().any(|one| one.method == method && one.path_and_query.starts_with(&path))
        };
        assert_eq!(is_asked("GET", format!("/v2/app/blobs/{}", image.layer)), !is_taken, "{words}");
        assert_eq!(world.registry.blob("mirror", &image.layer.to_string()).unwrap(), b"a layer");
        // All else is read here as from anywhere.
        let manifest: sluicegate_ports::images::Manifest =
            serde_json::from_slice(&image.blobs[&image.digest()]).unwrap();
        assert!(is_asked("GET", format!("/v2/app/blobs/{}", manifest.config.digest)), "{words}");
        assert_eq!(world.referrers(&world.at("mirror"), &image.digest()), [bundle]);
        assert_eq!(world.registry.open_uploads(), 0, "{words}");
    }
}

#[test]
fn a_layer_that_the_target_has_is_not_read_where_it_comes_from() {
    let (world, mirror) = (World::new(Behaviour::default()), World::new(Behaviour::default()));
    let image = VirtualImage::new(b"a layer");
    world.put("app", "v1", &image);
    mirror.registry.put_blob("mirror", b"a layer");
    world.copy(&world.at("app:v1"), &mirror.at("mirror:v1")).unwrap();
    let layer = format!("/v2/app/blobs/{}", image.layer);
    assert!(world.registry.log().iter().all(|one| one.path_and_query != layer));
    assert_eq!(mirror.registry.tags("mirror"), ["v1"]);
}

#[test]
fn a_registry_that_lies_about_having_a_layer_gets_no_tag() {
    let image = VirtualImage::new(b"a layer");
    let head =
        |repository: &str| sluicegate_testkit::When::method("HEAD", &format!("/v2/{repository}/blobs/{}", image.layer));
    let yes = || sluicegate_testkit::Answer::status(200).bytes(&b"a layer"[..]);
    let mount = || sluicegate_testkit::When::method("POST", "mount=");
    // It says so once, says that it mounted it and says so once, and says that it mounted it.
    for (faults, is_copied) in [
        (vec![head("mirror").first(1).answer(yes())], false),
        (vec![mount().answer(sluicegate_testkit::Answer::status(201)), head("mirror").nth(2).answer(yes())], false),
        (vec![mount().answer(sluicegate_testkit::Answer::status(201))], true),
    ] {
        // One that looked for the layer itself would not take the manifest.
        let world = World::new(Behaviour { sparse: true, ..Behaviour::with_faults(faults) });
        world.put("app", "v1", &image);
        let copied = world.copy(&world.at("app:v1"), &world.at("mirror:v1"));
        assert_eq!(copied.is_ok(), is_copied, "{copied:?}");
        if let Err(error) = copied {
            let words = error.causes().join(": ");
            assert!(words.contains(&image.layer.to_string()), "{words}");
            assert_eq!((error.failure(), error.reason()), (Failure::Unavailable, Some("registry_not_kept")), "{words}");
        }
        assert_eq!(world.registry.tags("mirror").is_empty(), !is_copied);
    }
}

#[test]
fn a_layer_of_another_size_than_described_is_not_taken_over() {
    let world = World::new(Behaviour::default());
    let image = VirtualImage::new(b"a layer");
    world.put("app", "v1", &image);
    let manifest = String::from_utf8(image.blobs[&image.digest()].clone()).unwrap();
    let other = manifest.replace(r#""size":7"#, r#""size":8"#);
    assert_ne!(manifest, other);
    world.registry.put_manifest("app", "v2", IMAGE_MANIFEST, other.as_bytes());
    let error = world.copy(&world.at("app:v2"), &world.at("mirror:v1")).unwrap_err();
    assert_eq!(error.failure(), Failure::Wrong, "{error}");
    assert!(world.registry.tags("mirror").is_empty());
}

#[test]
fn what_is_attached_arrives_in_the_order_in_which_it_is_listed() {
    let world = World::new(Behaviour::default());
    let image = VirtualImage::new(b"a layer");
    world.put("app", "v1", &image);
    for number in 0..40_u8 {
        let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, &[number])]);
        for bytes in blobs.values() {
            world.registry.put_blob("app", bytes);
        }
        world.registry.put_manifest("app", &referrer.digest.to_string(), IMAGE_MANIFEST, &blobs[&referrer.digest]);
    }
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", folder.path().join("layout").display());
    let copied = world.copy(&world.at("app:v1"), &layout).unwrap();
    let listed = world.referrers(&world.at("app"), &image.digest());
    assert_eq!((copied.attached, listed.len()), (41, 41));
    let index = std::fs::read(folder.path().join("layout/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let held = index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned());
    assert_eq!(held.skip(1).collect::<Vec<_>>(), listed.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn ten_thousand_manifests_are_attached_and_not_one_more() {
    let memory = MemoryPlaces::new();
    let image = VirtualImage::new(b"a layer");
    memory.put_image("/one", &image, None);
    let attach = |number: usize| memory.attach("/one", &image, BUNDLE, &[(BUNDLE, &number.to_le_bytes())]);
    for number in 0..10_000 {
        attach(number);
    }
    let told = RefCell::new(Vec::new());
    let copied = |to: &str| {
        copy(&CopyRequest {
            from: &"oci:/one".parse().unwrap(),
            to: &to.parse().unwrap(),
            folder: Path::new("."),
            sources: &memory,
            targets: &memory,
            environments: &EnvironmentPlaces::default(),
            store: &MemoryStore::new(),
            warn: &|line| told.borrow_mut().push(line.to_owned()),
        })
    };
    assert_eq!(copied("oci:/two").unwrap().attached, 10_000);
    let last = attach(10_000);
    let error = copied("oci:/three").unwrap_err();
    assert!(error.to_string().contains("more than 10000 manifests are attached to it"), "{error}");
    assert!(memory.occupant("/three").is_none() && told.borrow().is_empty());
    // What can't be read takes nobody's place, and is told.
    memory.drop_blob("/one", &Digest::of(&7_usize.to_le_bytes()));
    assert_eq!(copied("oci:/four").unwrap().attached, 10_000);
    assert_eq!(told.borrow().len(), 1);
    assert_eq!(memory.attached("/four").len(), 10_000);
    assert!(memory.blobs("/four").contains(&last));
}
