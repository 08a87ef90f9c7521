//! An index of several platforms: each is proved, and only what holds nothing but documents is none.

use serde_json::{Value, json};
use sluicegate_attestation::{
    dsse,
    identifiers::{BUNDLE, EVIDENCE_ARTIFACT, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LAYER_TAR, TRIVY_REPORT},
};
use sluicegate_flow::verify::verify;
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, TestRegistry, VirtualImage, today};
use sluicegate_types::Digest;

use crate::{
    fixture::{Said, Tried},
    gate_world::World,
};

/// Whether `verify` finds everything whole of an index of these entries.
fn complete(entries: impl Fn(&TestRegistry, &World) -> Vec<Value>) -> Said {
    let registry = TestRegistry::start(Behaviour::default());
    let (world, build) = World::good();
    put_image(&registry, &world.image);
    // What a run attaches.
    let blobs = build.blobs();
    let report = Digest::of(&build.report);
    let kind = |digest: &Digest| if *digest == report { TRIVY_REPORT } else { BUNDLE };
    let parts: Vec<_> = blobs.iter().map(|(digest, bytes)| (kind(digest), bytes.as_slice())).collect();
    attach(&registry, &world.image, EVIDENCE_ARTIFACT, &parts);
    for bundle in build.attached().values() {
        attach(&registry, &world.image, BUNDLE, &[(BUNDLE, bundle)]);
    }
    let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries(&registry, &world)});
    registry.put_manifest("app", "all", IMAGE_INDEX, index.to_string().as_bytes());
    let places = Places::new(RegistrySettings::default());
    let reference = format!("{}/app:all", registry.host()).parse().unwrap();
    let report = verify(&places, &reference, ".".as_ref(), &world.trust, None, today()).unwrap();
    match report.failure() {
        None => Ok(()),
        Some(failure) => {
            let index = report.index.unwrap();
            let open = index.platforms.iter().filter(|one| one.report.failure().is_some());
            Err(format!("{failure:?}: {}", open.map(|one| one.name()).collect::<Vec<_>>().join(", ")))
        }
    }
}

fn put_image(registry: &TestRegistry, image: &VirtualImage) {
    image.blobs.values().for_each(|bytes| {
        registry.put_blob("app", bytes);
    });
    registry.put_manifest("app", &image.digest().to_string(), IMAGE_MANIFEST, &image.blobs[&image.digest()]);
}

fn attach(registry: &TestRegistry, image: &VirtualImage, artifact_type: &str, parts: &[(&str, &[u8])]) {
    let (referrer, blobs) = image.referrer(artifact_type, parts);
    for bytes in blobs.values() {
        registry.put_blob("app", bytes);
    }
    registry.put_manifest("app", &referrer.digest.to_string(), IMAGE_MANIFEST, &blobs[&referrer.digest]);
}

fn entry(digest: Digest, size: u64, os: &str, architecture: &str) -> Value {
    json!({"mediaType": IMAGE_MANIFEST, "digest": digest, "size": size, "platform": {"os": os, "architecture": architecture}})
}

fn image_entry(image: &VirtualImage, os: &str, architecture: &str) -> Value {
    entry(image.digest(), image.descriptor.size, os, architecture)
}

pub(crate) fn tm03_every_platform_of_an_index_is_proved() -> Tried {
    let with = |other: Option<&'static str>| {
        complete(|registry, world| {
            let mut entries = vec![image_entry(&world.image, "linux", "amd64")];
            if let Some(architecture) = other {
                let unproved = VirtualImage::new(b"for another machine");
                put_image(registry, &unproved);
                entries.push(image_entry(&unproved, "linux", architecture));
            }
            entries
        })
    };
    Tried::good(with(None)).fault("another platform", "Undecided: linux/arm64", with(Some("arm64")))
}

/// The proved image, and a manifest for no machine with one layer of this type and content.
fn beside(media_type: &'static str, content: &'static [u8], platform: &'static str) -> Said {
    complete(|registry, world| {
        let (config, layer) = (registry.put_blob("app", b"{}"), registry.put_blob("app", content));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE_MANIFEST,
            "config": {"mediaType": IMAGE_CONFIG, "digest": config, "size": 2},
            "layers": [{"mediaType": media_type, "digest": layer, "size": content.len()}],
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = registry.put_manifest("app", &Digest::of(&bytes).to_string(), IMAGE_MANIFEST, &bytes);
        let other = entry(digest, bytes.len() as u64, platform, platform);
        vec![image_entry(&world.image, "linux", "amd64"), other]
    })
}

pub(crate) fn tm12_what_is_exempt_holds_nothing_but_documents() -> Tried {
    const DOCUMENT: &[u8] =
        br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}"#;
    let words = "Undecided: unknown/unknown";
    // What is called an image for a machine is one, whatever is in it.
    assert!(beside(dsse::IN_TOTO, DOCUMENT, "linux").is_err());
    Tried::good(beside(dsse::IN_TOTO, DOCUMENT, "unknown"))
        .fault("a layer", words, beside(LAYER_TAR, DOCUMENT, "unknown"))
        .fault("something else by that name", words, beside(dsse::IN_TOTO, b"a tar", "unknown"))
}
