//! An index of several platforms: each is proved and judged, and only what holds nothing but documents is none.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::{
    dsse,
    identifiers::{BUNDLE, EVIDENCE_ARTIFACT, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LAYER_TAR, TRIVY_REPORT},
    predicate::PredicateType,
    summary::VerificationSummary,
};
use sluicegate_flow::{
    admit::{Presented, admit},
    verify::verify,
};
use sluicegate_policy::{
    facts::Facts,
    judge::{Permit, Question, Target, Verdict, judge, judge_index},
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{
    Behaviour, TestRegistry, VirtualBuild, VirtualImage, VirtualIndex, VirtualSigner, sign_statement, today,
};
use sluicegate_types::{Digest, Repository};
use sluicegate_verify::closed_set::{Asked, follow};

use crate::{
    fixture::{Said, Tried, about},
    gate_world::{SOURCE, TARGET, World, environment, pass, summary},
    promotion::ended,
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

fn other_image() -> VirtualImage {
    VirtualImage::new(b"for another machine")
}

/// Leave for `image` to go to `name`, where there is no gate, under this gateway.
fn permit(world: &World, image: &VirtualImage, name: &str, gateway: &[u8], seconds: u64) -> Permit {
    let build = VirtualBuild::new("run-1", image.digest()).sign(&world.log);
    let asked = Asked { trust: &world.trust, repository: None, at: today() };
    let set = follow(image.digest(), &build.attached(), &build.blobs(), asked).sets.remove(0);
    let environment = environment(name);
    let repository = Repository::of_environment(&environment);
    let now = today().plus(seconds);
    let facts = Facts::of_set(&set, &environment, &repository, now).unwrap();
    let target = Target { environment, repository, tag: "current".parse().unwrap(), current: None };
    match judge(&facts, Question::Ungated { gateway: Digest::of(gateway) }, target, now).verdict {
        Verdict::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// Whether these permits are leave for the index of `images`.
fn composed(images: &[&VirtualImage], permits: Vec<Permit>) -> Said {
    let images: BTreeSet<Digest> = images.iter().map(|image| image.digest()).collect();
    judge_index(Digest::of(b"index"), &images, permits).map(drop).map_err(|error| error.to_string())
}

pub(crate) fn tm03_the_permit_of_an_index_is_made_of_one_of_each_of_its_images() -> Tried {
    let (world, _) = World::good();
    let other = other_image();
    let both = [&world.image, &other];
    let of = |image: &VirtualImage| permit(&world, image, "production", b"gateway", 0);
    assert_eq!(composed(&[], Vec::new()), Err("the index names no image".to_owned()));
    let words = "are not those of the images of the index";
    Tried::good(composed(&both, vec![of(&world.image), of(&other)]))
        .fault("one is left out", words, composed(&both, vec![of(&world.image)]))
        .fault("one of another image", words, composed(&[&world.image], vec![of(&world.image), of(&other)]))
        .fault("one twice", words, composed(&[&world.image], vec![of(&world.image), of(&world.image)]))
}

pub(crate) fn tm03_the_permits_of_an_index_are_for_one_place_moment_and_gateway() -> Tried {
    let (world, _) = World::good();
    let other = other_image();
    let with = |name: &str, gateway: &[u8], seconds: u64| {
        let permits = vec![
            permit(&world, &world.image, "production", b"gateway", 0),
            permit(&world, &other, name, gateway, seconds),
        ];
        composed(&[&world.image, &other], permits)
    };
    let words = "is not for the same place, moment and gateway";
    Tried::good(with("production", b"gateway", 0))
        .fault("another environment", words, with("staging", b"gateway", 0))
        .fault("another gateway", words, with("production", b"another gateway", 0))
        .fault("another moment", words, with("production", b"gateway", 1))
}

pub(crate) fn tm10_an_index_takes_no_image_back_without_rollback() -> Tried {
    let ask = |rollback: bool| {
        let (world, first) = World::of_two_platforms();
        ended(world.promote(&pass()))?;
        // Both images anew, then one of the old ones beside a new one.
        let (amd64, arm64) = (VirtualImage::new(b"next week's"), VirtualImage::new(b"next week's for the other"));
        world.put_index(&VirtualIndex::new(&[(&amd64, "amd64"), (&arm64, "arm64")]));
        world.prove(&amd64, "run-3");
        world.prove(&arm64, "run-4");
        ended(world.promote(&pass()))?;
        let newest = VirtualImage::new(b"the week after");
        let old = &first.images[1];
        world.put_index(&VirtualIndex::new(&[(&newest, "amd64"), (old, "arm64")]));
        world.prove(&newest, "run-5");
        world.prove(old, "run-2");
        world.rollback.set(rollback);
        ended(world.promote(&pass()))
    };
    // One that is there now may stay.
    let stays = || {
        let (world, first) = World::of_two_platforms();
        ended(world.promote(&pass()))?;
        let newer = VirtualImage::new(b"next week's");
        world.put_index(&VirtualIndex::new(&[(&newer, "amd64"), (&first.images[1], "arm64")]));
        world.prove(&newer, "run-3");
        world.prove(&first.images[1], "run-2");
        ended(world.promote(&pass()))
    };
    Tried::good(ask(true).and(stays())).fault("an old one", "needs --rollback", ask(false))
}

/// Whether a decision on the index lets it in that was made over these of its images.
pub(crate) fn admitted_over(images: usize) -> Said {
    let (world, index) = World::of_two_platforms();
    let trust = world.trusting_itself();
    world.put_index(&index);
    let builds = [world.prove(&index.images[0], "run-1"), world.prove(&index.images[1], "run-2")];
    let bundles = builds.iter().take(images).flat_map(|build| build.bundles.keys().map(|part| build.digest(part)));
    let inputs = bundles.collect();
    let summary = VerificationSummary { inputs, ..summary(index.digest()) };
    let decision = about(index.digest(), PredicateType::VerificationSummary, summary.to_predicate());
    let bundle = sign_statement(&VirtualSigner::new("decider"), &world.log, &decision);
    world.places.attach_to(SOURCE, &index.descriptor, BUNDLE, &[(BUNDLE, &bundle)]);
    let reference = format!("oci:{SOURCE}").parse().unwrap();
    let report = verify(&world.places, &reference, "/".as_ref(), &trust, None, today()).unwrap();
    assert_eq!(report.failure(), None);
    assert_eq!(world.places.occupant(TARGET), None);
    admit(&Presented::of(&report), &world.judge, &trust, today(), None)
        .map(drop)
        .map_err(|reasons| reasons.map(|reason| reason.to_string()).into_vec().join("; "))
}
