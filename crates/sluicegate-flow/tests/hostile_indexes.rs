//! Indexes that are made to take an old image back, to keep honest people out, or to make records say what is not so.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate_attestation::{
    dsse,
    identifiers::{BUNDLE, IMAGE_INDEX, IMAGE_MANIFEST},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{promote::Promoted, verify::verify};
use sluicegate_policy::rego::Outcome;
use sluicegate_ports::images::{Descriptor, ImageIndex, Manifest};
use sluicegate_testkit::{VirtualImage, VirtualIndex, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, NonEmpty};

use crate::gate_world::{Rules, SOURCE, TARGET, World, assert_allowed, deny, pass, undecided};

const DOCUMENT: &[u8] =
    br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}"#;

/// The index of these images with what `change` makes of it.
fn changed(images: &[(&VirtualImage, &str)], change: impl FnOnce(&mut ImageIndex)) -> VirtualIndex {
    let plain = VirtualIndex::new(images);
    let mut index: ImageIndex = serde_json::from_slice(&plain.bytes).unwrap();
    change(&mut index);
    let bytes = serde_json::to_vec(&index).unwrap();
    let descriptor = Descriptor::new(IMAGE_INDEX, Digest::of(&bytes), bytes.len() as u64);
    VirtualIndex { descriptor, bytes, ..plain }
}

/// A manifest as `change` makes it.
fn image_with(image: &VirtualImage, change: impl FnOnce(&mut Manifest)) -> VirtualImage {
    let mut image = image.clone();
    let mut manifest: Manifest = serde_json::from_slice(&image.blobs[&image.digest()]).unwrap();
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    image.blobs.remove(&image.descriptor.digest);
    image.descriptor = Descriptor::new(IMAGE_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    image.blobs.insert(image.descriptor.digest, bytes);
    image
}

fn refused(world: &World, words: &str) {
    let error = world.promote(&pass()).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

/// Puts an index of these images at the source, each proved.
fn put(world: &World, images: &[(&VirtualImage, &str)]) {
    world.put_index(&VirtualIndex::new(images));
    for (number, (image, _)) in images.iter().enumerate() {
        world.prove(image, &format!("run-{number}"));
    }
}

#[test]
fn tm10_an_old_image_does_not_come_back_by_way_of_another_platform() {
    let (world, _) = World::good();
    let (old, newer) = (world.image.clone(), VirtualImage::new(b"without the hole"));
    assert_allowed(world.promote(&pass()));
    // Whoever asks gets it now, so the machines of one kind may go on with it.
    put(&world, &[(&newer, "amd64"), (&old, "arm64")]);
    assert_allowed(world.promote(&pass()));
    for back in [&[(&old, "amd64")][..], &[(&old, "amd64"), (&newer, "arm64")], &[(&newer, "amd64"), (&old, "s390x")]] {
        put(&world, back);
        refused(&world, "needs --rollback");
    }
    world.places.clear(SOURCE);
    world.places.put_image(SOURCE, &old, None);
    world.prove(&old, "run-1");
    refused(&world, "needs --rollback");
    // What they have they keep.
    put(&world, &[(&VirtualImage::new(b"newest"), "amd64"), (&old, "arm64")]);
    assert_allowed(world.promote(&pass()));
    put(&world, &[(&old, "amd64"), (&newer, "arm64")]);
    world.rollback.set(true);
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_junk_beside_the_images_of_an_index_locks_nobody_out() {
    let (world, _) = World::good();
    let images: Vec<VirtualImage> = (0..3).map(|n| VirtualImage::new(format!("layer {n}").as_bytes())).collect();
    put(&world, &[(&images[0], "amd64"), (&images[1], "arm64"), (&images[2], "s390x")]);
    let junk: Vec<Vec<u8>> = (0..4).map(|n| vec![n; 110 << 20]).collect();
    let parts: Vec<(&str, &[u8])> = junk.iter().map(|bytes| ("application/x-junk", bytes.as_slice())).collect();
    for image in &images {
        world.places.attach(SOURCE, image, "application/x-junk", &parts);
    }
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_junk_beside_an_index_locks_nobody_out_and_hides_nothing_that_a_person_says() {
    let (mut world, index) = World::of_two_platforms();
    let review = PredicateType::from_uri("https://example.com/review/v1");
    world.require(&review);
    let root = &index.descriptor;
    world.places.attach_to(SOURCE, root, "application/x-junk", &[("application/x-junk", &vec![7; 110 << 20])]);
    // More of what says that it is a bundle than is read.
    for number in 0..18_u8 {
        let mut junk = vec![b'x'; 15 << 20];
        junk[0] = number;
        world.places.attach_to(SOURCE, root, BUNDLE, &[(BUNDLE, &junk)]);
    }
    assert_eq!(undecided(world.promote(&pass())).len(), 2);
    let subject = Subject { name: None, digest: root.digest, media_type: None };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: review, predicate: json!({}) };
    let bundle = sign_statement(&VirtualSigner::new("person"), &world.log, &statement);
    world.places.attach_to(SOURCE, root, BUNDLE, &[(BUNDLE, &bundle)]);
    assert_allowed(world.promote(&pass()));
    // Of all that, the promotion took what was counted.
    assert!(world.places.blobs(TARGET).contains(&Digest::of(&bundle)));
    let attached = world.places.attached(TARGET);
    let of_index = attached.iter().filter(|manifest| manifest.subject.as_ref().unwrap().digest == root.digest);
    assert_eq!(of_index.count(), 4);
}

#[test]
fn each_image_has_its_own_reasons_also_where_several_have_one_name() {
    let (world, _) = World::good();
    let images: Vec<VirtualImage> = (0..3).map(|n| VirtualImage::new(format!("layer {n}").as_bytes())).collect();
    put(&world, &[(&images[0], "amd64"), (&images[1], "amd64"), (&images[2], "amd64")]);
    let silent = Rules(|_: &str| Outcome::Silent);
    assert_eq!(undecided(world.promote(&silent)).len(), 3);
    let records = world.evidence.records();
    let reasons: Vec<usize> = records.iter().map(|one| one.body["reasons"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(reasons, [1, 1, 1, 3]);
}

#[test]
fn a_denial_is_on_record_however_many_documents_the_index_has() {
    let (world, _) = World::good();
    let text = |n: usize| {
        format!(r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"{n}{}"}}"#, "\\u0001".repeat(190))
    };
    let documents: Vec<Vec<u8>> = (0..64).map(|n| text(n).into_bytes()).collect();
    let with_documents = |count: usize| {
        let all: Vec<VirtualImage> = (0..count)
            .map(|n| {
                let plain = VirtualImage::of_layer(dsse::IN_TOTO, &documents[0], Digest::of(&documents[0]));
                let mut image = image_with(&plain, |manifest| {
                    manifest.annotations.insert("n".to_owned(), n.to_string());
                    let layers = documents.iter();
                    manifest.layers = layers
                        .map(|bytes| Descriptor::new(dsse::IN_TOTO, Digest::of(bytes), bytes.len() as u64))
                        .collect();
                });
                image.blobs.extend(documents.iter().map(|bytes| (Digest::of(bytes), bytes.clone())));
                image
            })
            .collect();
        let mut entries = vec![(&world.image, "amd64")];
        entries.extend(all.iter().map(|image| (image, "unknown")));
        let index = changed(&entries, |index| {
            for entry in &mut index.manifests[1..] {
                entry.platform.as_mut().unwrap().os = "unknown".to_owned();
            }
        });
        world.put_index(&index);
        world.prove(&world.image, "run-1");
    };
    with_documents(60);
    assert!(matches!(world.promote(&deny()), Ok(Promoted::Denied { .. })));
    assert_eq!(world.outcomes(), ["deny", "deny", "signed"]);
    with_documents(200);
    refused(&world, "more than 128 manifests");
}

#[test]
fn one_manifest_is_described_in_one_way() {
    let (world, build) = World::good();
    let with = |change: fn(&mut Descriptor)| {
        let index = changed(&[(&world.image, "amd64"), (&world.image, "arm64")], |index| {
            change(&mut index.manifests[1].descriptor);
        });
        world.put_index(&index);
        world.places.attach_build(SOURCE, &world.image, &build);
    };
    with(|entry| entry.size = 7);
    refused(&world, "twice, and not as the same");
    with(|entry| entry.media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned());
    refused(&world, "twice, and not as the same");
    with(|_| {});
    assert_allowed(world.promote(&pass()));
}

#[test]
fn what_a_platform_is_called_is_a_name() {
    let (world, build) = World::good();
    let named = |architecture: &str| {
        world.put_index(&VirtualIndex::new(&[(&world.image, architecture)]));
        world.places.attach_build(SOURCE, &world.image, &build);
    };
    for odd in ["amd64, linux/arm64", "", "a\u{1}", "amd64\n", &"x".repeat(65)] {
        named(odd);
        refused(&world, "it says that");
    }
    named(&"x".repeat(64));
    assert_allowed(world.promote(&pass()));
}

#[test]
fn nothing_that_is_promoted_is_attached_to_something_else() {
    let (world, _) = World::good();
    let subject = world.image.descriptor.clone();
    let attached = image_with(&VirtualImage::new(b"newer"), |manifest| manifest.subject = Some(subject.clone()));
    world.places.clear(SOURCE);
    world.places.put_image(SOURCE, &attached, None);
    world.prove(&attached, "run-1");
    refused(&world, "it says that it is attached to");
    put(&world, &[(&attached, "amd64")]);
    refused(&world, "it says that it is attached to");
    let documents = VirtualImage::of_layer(dsse::IN_TOTO, DOCUMENT, Digest::of(DOCUMENT));
    for subject in [Some(subject), None] {
        let documents = image_with(&documents, |manifest| manifest.subject = subject.clone());
        let index = changed(&[(&world.image, "amd64"), (&documents, "unknown")], |index| {
            index.manifests[1].platform.as_mut().unwrap().os = "unknown".to_owned();
        });
        world.put_index(&index);
        world.prove(&world.image, "run-1");
        match subject {
            Some(_) => refused(&world, "it says that it is attached to"),
            None => assert_allowed(world.promote(&pass())),
        }
    }
    let index = changed(&[(&world.image, "amd64")], |index| index.subject = Some(documents.descriptor.clone()));
    world.put_index(&index);
    world.prove(&world.image, "run-1");
    refused(&world, "it says that it is attached to");
}

#[test]
fn an_image_that_is_gone_keeps_no_ledger_from_being_compared() {
    let (world, index) = World::of_two_platforms();
    assert_allowed(world.promote(&pass()));
    world.places.drop_blob(TARGET, &index.images[1].digest());
    world.told.borrow_mut().clear();
    put(&world, &[(&VirtualImage::new(b"next week's"), "amd64")]);
    assert_allowed(world.promote(&pass()));
    let told = world.told.borrow().join("\n");
    assert!(told.contains("is not whole") && !told.contains("can't be compared"), "{told}");
    // The index's own decision says how much of a ledger there was.
    let (world, index) = World::of_two_platforms();
    assert_allowed(world.promote(&pass()));
    world.places.drop_blob(TARGET, &index.images[1].digest());
    world.evidence.tamper(Vec::clear);
    world.ledger.tamper(Vec::clear);
    put(&world, &[(&VirtualImage::new(b"next week's"), "amd64")]);
    refused(&world, "the evidence was cut back");
}

#[test]
fn what_strangers_claim_is_cut_in_a_report() {
    let (world, index) = World::of_two_platforms();
    let json = json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "x", "digest": {"sha256": "00".repeat(32)}}],
        "predicateType": format!("https://{}", "x".repeat(1 << 20)), "predicate": {},
    });
    let statement = Statement::parse(json.to_string().as_bytes()).unwrap();
    let bundle = sign_statement(&VirtualSigner::new("stranger"), &world.log, &statement);
    world.places.attach_to(SOURCE, &index.images[1].descriptor, BUNDLE, &[(BUNDLE, &bundle)]);
    let reference = format!("oci:{SOURCE}").parse().unwrap();
    let report = verify(&world.places, &reference, Path::new("/"), &world.trust, None, today()).unwrap();
    assert_eq!(report.failure(), None);
    let claims: Vec<Value> =
        report.index.unwrap().platforms[1].report.statements().iter().map(|one| one["claims"].clone()).collect();
    let kinds: Vec<usize> = claims.iter().filter_map(|one| one["predicateType"].as_str().map(str::len)).collect();
    assert_eq!(kinds, [200]);
}

#[test]
fn all_images_of_an_index_together_are_as_large_as_one_may_be() {
    let (world, _) = World::good();
    let large = |name: &str| {
        image_with(&VirtualImage::new(name.as_bytes()), |manifest| {
            let layer = |part: &str| {
                let digest = Digest::of(format!("{name} {part}").as_bytes());
                Descriptor::new(&manifest.layers[0].media_type, digest, 50 << 30)
            };
            manifest.layers = vec![layer("one"), layer("two")];
        })
    };
    let (one, other) = (large("one"), large("other"));
    let refusal = |images: &[(&VirtualImage, &str)]| {
        put(&world, images);
        world.promote(&pass()).unwrap_err().causes().join(": ")
    };
    let words = "the layers of the images of its index have 214748364800 bytes";
    assert!(refusal(&[(&one, "amd64"), (&other, "arm64")]).contains(words));
    // One of them alone is refused for what it lacks, and so is what both share.
    assert!(!refusal(&[(&one, "amd64")]).contains(words));
    assert!(!refusal(&[(&one, "amd64"), (&one, "arm64")]).contains(words));
}
