//! Which image of an index is taken for this machine, and what is refused instead of chosen.

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_flow::{
    Error, Failure,
    image_tree::{for_platform, read},
};
use sluicegate_ports::images::{Descriptor, ImagePlaces, ImageSource};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, TestRegistry, VirtualImage};
use sluicegate_types::{Digest, Platform, Selector};

struct World {
    registry: TestRegistry,
}

impl World {
    fn new() -> Self {
        Self { registry: TestRegistry::start(Behaviour { sparse: true, ..Behaviour::default() }) }
    }

    fn image(&self, layer: &str) -> Value {
        let image = VirtualImage::new(layer.as_bytes());
        let bytes = &image.blobs[&image.digest()];
        self.registry.put_manifest("app", &image.digest().to_string(), IMAGE_MANIFEST, bytes);
        json!({"mediaType": IMAGE_MANIFEST, "digest": image.digest(), "size": bytes.len()})
    }

    fn index(&self, entries: &[Value]) -> Value {
        let bytes = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).to_string();
        let digest = Digest::of(bytes.as_bytes());
        self.registry.put_manifest("app", &digest.to_string(), IMAGE_INDEX, bytes.as_bytes());
        json!({"mediaType": IMAGE_INDEX, "digest": digest, "size": bytes.len()})
    }

    fn open(&self, root: &Value) -> (Box<dyn ImageSource>, Descriptor) {
        let places = Places::new(RegistrySettings::default());
        let source = places.source(&format!("{}/app", self.registry.host()).parse().unwrap()).unwrap();
        let digest = root["digest"].as_str().unwrap().parse().unwrap();
        let descriptor = source.resolve(&Selector::Digest(digest)).unwrap();
        (source, descriptor)
    }

    fn chosen(&self, root: &Value) -> Result<(String, usize), Error> {
        let (source, descriptor) = self.open(root);
        let chosen = for_platform(source.as_ref(), &descriptor, &Platform::of_steps());
        chosen.map(|(image, path)| (image.digest.to_string(), path.len()))
    }
}

fn for_machine(mut entry: Value, os: &str, architecture: &str) -> Value {
    entry["platform"] = json!({"os": os, "architecture": architecture});
    entry
}

#[test]
fn the_image_for_this_machine_is_taken_through_every_index_that_leads_to_it() {
    let world = World::new();
    let (amd64, arm64) = (world.image("amd64"), world.image("arm64"));
    assert_eq!(world.chosen(&amd64).unwrap(), (amd64["digest"].as_str().unwrap().to_owned(), 0));
    let unknown = for_machine(world.image("attestations"), "unknown", "unknown");
    let flat = world.index(&[
        for_machine(arm64.clone(), "linux", "arm64"),
        unknown,
        for_machine(amd64.clone(), "linux", "amd64"),
    ]);
    assert_eq!(world.chosen(&flat).unwrap(), (amd64["digest"].as_str().unwrap().to_owned(), 1));
    // Indexes in each other need not say what they are for; the limit is four.
    let mut nested = flat;
    for _ in 0..3 {
        nested = world.index(&[nested]);
    }
    assert_eq!(world.chosen(&nested).unwrap(), (amd64["digest"].as_str().unwrap().to_owned(), 4));
    let error = world.chosen(&world.index(&[nested.clone()])).unwrap_err();
    assert!(error.to_string().contains("deeper than 4"), "{error}");
    let (source, root) = world.open(&nested);
    assert_eq!(read(source.as_ref(), &root).unwrap().below.len(), 3 + 3);
    let (source, root) = world.open(&world.index(&[nested]));
    assert!(read(source.as_ref(), &root).unwrap_err().to_string().contains("deeper than 4"));
}

#[test]
fn two_for_this_machine_or_none_is_an_error_that_lists_what_there_is() {
    let world = World::new();
    let (one, two) = (world.image("one"), world.image("two"));
    let said = |entries: &[Value]| {
        let error = world.chosen(&world.index(entries)).unwrap_err();
        assert_eq!(error.failure(), Failure::Usage);
        error.to_string()
    };
    let amd64 = |image: &Value| for_machine(image.clone(), "linux", "amd64");
    assert!(world.chosen(&world.index(&[amd64(&one)])).is_ok());
    assert!(said(&[amd64(&one), amd64(&two)]).contains("2 of its images are for linux/amd64"));
    let none = said(&[for_machine(one.clone(), "linux", "arm64"), for_machine(two, "windows", "amd64")]);
    assert!(none.contains("it holds linux/arm64, windows/amd64"), "{none}");
    assert!(said(&[one]).contains("none that says what it is for"));
}

#[test]
fn neg_index_100k_entries() {
    let world = World::new();
    let one = world.image("one");
    let many = |n: usize| world.index(&vec![for_machine(one.clone(), "linux", "amd64"); n]);
    assert!(world.chosen(&many(1_024)).is_ok());
    assert!(world.chosen(&many(1_025)).unwrap_err().to_string().contains("more than 1024 manifests"));
    let (source, root) = world.open(&many(1_025));
    assert!(read(source.as_ref(), &root).unwrap_err().to_string().contains("more than 1024 manifests"));
}
