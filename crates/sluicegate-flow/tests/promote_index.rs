//! `promote` of an index: each of its images is judged, one permit is made of theirs, and the index and every image of it are signed.

use std::{cell::RefCell, collections::BTreeSet, io::Read, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::{
    dsse,
    identifiers::{BUNDLE, DENIAL_ARTIFACT, EVIDENCE_ARTIFACT, GATE_SCAN_ARTIFACT, IMAGE_INDEX, IMAGE_MANIFEST},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{
    admit::{Presented, admit},
    promote::Promoted,
    verify::{VerifyReport, verify},
};
use sluicegate_policy::rego::Outcome;
use sluicegate_ports::{
    evidence::RecordKind,
    images::{Descriptor, ImageIndex, ImagePlaces, Manifest},
};
use sluicegate_testkit::{FakeScanner, VirtualImage, VirtualIndex, VirtualSigner, sign_statement, today};
use sluicegate_types::Digest;

use crate::gate_world::{Rules, SOURCE, TARGET, World, assert_allowed, clean_scanner, denial, pass, undecided};

/// What is attached at the target to one image: artifact type or kind of statement.
fn attached_to(world: &World, image: Digest) -> Vec<String> {
    let of_image = |manifest: &Manifest| manifest.subject.as_ref().is_some_and(|subject| subject.digest == image);
    let name = |manifest: Manifest| match manifest.annotations.get("dev.sigstore.bundle.predicateType") {
        Some(kind) => PredicateType::from_uri(kind).short().to_owned(),
        None => manifest.artifact_type.unwrap(),
    };
    world.places.attached(TARGET).into_iter().filter(of_image).map(name).collect()
}

fn verified(world: &World, reference: &str) -> VerifyReport {
    let reference = reference.parse().unwrap();
    let repository = world.judge.repository();
    verify(&world.places, &reference, Path::new("/"), &world.trust, Some(&repository), today()).unwrap()
}

fn other(index: &VirtualIndex) -> Digest {
    index.images[1].digest()
}

#[test]
fn an_index_is_promoted_with_the_decision_about_it_and_about_each_image() {
    let (world, index) = World::of_two_platforms();
    let promoted = world.promote(&pass()).unwrap();
    let Promoted::Allowed { image, record, .. } = promoted else { panic!("{promoted:?}") };
    assert_eq!(image.digest, index.digest());
    let held = world.places.occupant(TARGET).unwrap();
    assert_eq!((held.image, held.tags), (index.digest(), vec!["current".parse().unwrap()]));
    assert_eq!(attached_to(&world, index.digest()), ["verification-summary", "promotion", "signature"]);
    for image in &index.images {
        assert_eq!(
            attached_to(&world, image.digest()),
            [
                EVIDENCE_ARTIFACT,
                "provenance",
                "sbom",
                "vulns",
                GATE_SCAN_ARTIFACT,
                "verification-summary",
                "promotion",
                "signature"
            ]
        );
    }
    assert_eq!(world.opened.get(), 1, "the decisions key is opened once");
    assert_eq!(world.outcomes(), ["allow", "allow", "allow", "promoted"]);
    let records = world.evidence.records();
    let decision = records.iter().find(|one| one.sequence == record).unwrap();
    assert_eq!(decision.subject, Some(index.digest()));
    let platforms: Vec<(&str, Digest, u64)> = decision.body["platforms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let image: Digest = one["image"].as_str().unwrap().parse().unwrap();
            (one["platform"].as_str().unwrap(), image, one["record"].as_u64().unwrap())
        })
        .collect();
    let expected = [("linux/amd64", world.image.digest()), ("linux/arm64", other(&index))];
    for ((platform, image, number), expected) in platforms.iter().zip(expected) {
        assert_eq!((*platform, *image), expected);
        let own = records.iter().find(|one| one.sequence == *number).unwrap();
        assert_eq!((own.subject, &own.body["index"]), (Some(*image), &json!(index.digest())));
    }
    let moved = world.last_record();
    assert_eq!(moved.kind, RecordKind::Promotion);
    let deployed = [("linux/amd64", world.image.digest()), ("linux/arm64", other(&index))];
    let mut deployed = deployed.map(|(platform, image)| json!({"platform": platform, "image": image})).to_vec();
    deployed.sort_by_key(|one| one["platform"].to_string());
    assert_eq!(moved.body["platforms"], json!(deployed));
    assert_eq!(moved.body["statements"].as_array().unwrap().len(), 9);
}

#[test]
fn what_was_promoted_is_admitted_as_an_index_and_image_by_image() {
    let (world, index) = World::of_two_platforms();
    assert_allowed(world.promote(&pass()));
    let trust = world.trusting_itself();
    let ask = |reference: String| {
        let report = verified(&world, &reference);
        assert_eq!(report.failure(), None, "{reference}");
        admit(&Presented::of(&report), &world.judge, &trust, today(), None)
            .map(|admission| admission.image.digest)
            .map_err(|reasons| reasons.map(|reason| reason.to_string()).into_vec())
    };
    assert_eq!(ask(format!("oci:{TARGET}")), Ok(index.digest()));
    for image in &index.images {
        assert_eq!(ask(format!("oci:{TARGET}@{}", image.digest())), Ok(image.digest()));
    }
    // One image was decided about alone: that lets in no index that names it.
    let words = "no decision for production is attached";
    let before = ask(format!("oci:{SOURCE}")).unwrap_err();
    assert!(before[0].starts_with(words), "{before:?}");
}

/// A statement, signed and attached at the source to the index or to an image of it; its bundle's digest.
fn say(world: &World, signer: &str, to: &Descriptor, about: &[Digest], kind: &PredicateType) -> Digest {
    let subject = |about: &Digest| Subject { name: None, digest: *about, media_type: None };
    let subjects = about.iter().map(subject).collect::<Vec<_>>().try_into().unwrap();
    let predicate = match kind {
        PredicateType::Sbom => json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}),
        PredicateType::Vex => json!({"@context": "https://openvex.dev/ns/v0.2.0", "statements": []}),
        _ => json!({"reviewed": true}),
    };
    let statement = Statement { subjects, predicate_type: kind.clone(), predicate };
    let bundle = sign_statement(&VirtualSigner::new(signer), &world.log, &statement);
    world.places.attach_to(SOURCE, to, BUNDLE, &[(BUNDLE, &bundle)]);
    Digest::of(&bundle)
}

fn review() -> PredicateType {
    PredicateType::from_uri("https://example.com/review/v1")
}

#[test]
fn what_is_said_by_hand_about_an_index_counts_for_each_of_its_images_and_goes_along() {
    let (mut world, index) = World::of_two_platforms();
    world.require(&review());
    let lacks = |world: &World| {
        let reasons = undecided(world.promote(&pass()));
        let of_review =
            |reason: &String| reason.contains("required evidence is missing: https://example.com/review/v1");
        assert!(reasons.iter().all(of_review), "{reasons:?}");
        reasons.iter().map(|reason| reason.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let both = ["linux/amd64", "linux/arm64"];
    assert_eq!(lacks(&world), both);
    // Nobody's word, words about something else that lie where they do not belong, and one about one image only.
    let root = &index.descriptor;
    let stranger = say(&world, "stranger", root, &[index.digest()], &review());
    let of_image = say(&world, "person", root, &[world.image.digest()], &review());
    let of_another = say(&world, "person", root, &[Digest::of(b"another index")], &review());
    assert_eq!(lacks(&world), both);
    let of_index = say(&world, "person", &world.image.descriptor, &[index.digest()], &review());
    assert_eq!(lacks(&world), both);
    let of_first = say(&world, "person", &world.image.descriptor, &[world.image.digest()], &review());
    assert_eq!(lacks(&world), ["linux/arm64"]);
    // The index's own.
    world.places.attach_to(SOURCE, root, BUNDLE, &[(BUNDLE, &bundle_at_source(&world, of_index))]);
    let promoted = world.promote(&pass());
    assert!(matches!(promoted, Ok(Promoted::Allowed { .. })), "{promoted:?}");
    let review_uri = review().uri().to_owned();
    assert_eq!(
        attached_to(&world, index.digest()),
        [review_uri.as_str(), "verification-summary", "promotion", "signature"]
    );
    let there = world.places.blobs(TARGET);
    assert!(there.contains(&of_index) && there.contains(&of_first));
    assert!([stranger, of_image, of_another].iter().all(|bundle| !there.contains(bundle)));
    // Every decision says that it rests on it.
    let summaries = world.bundles_at_target().into_iter().filter(|(kind, _)| kind == "verification-summary");
    let inputs: Vec<String> =
        summaries.map(|(_, bundle)| world.statement(&bundle).predicate["inputAttestations"].to_string()).collect();
    assert_eq!(inputs.len(), 3);
    assert!(inputs.iter().all(|inputs| inputs.contains(&of_index.hex())), "{inputs:?}");
    let trust = world.trusting_itself();
    for reference in [format!("oci:{TARGET}"), format!("oci:{TARGET}@{}", other(&index))] {
        let report = verified(&world, &reference);
        assert_eq!(report.failure(), None);
        assert!(admit(&Presented::of(&report), &world.judge, &trust, today(), None).is_ok(), "{reference}");
    }
}

fn bundle_at_source(world: &World, digest: Digest) -> Vec<u8> {
    let source = world.places.source(&SOURCE.into()).unwrap();
    let mut bytes = Vec::new();
    source.open(&Descriptor::new(BUNDLE, digest, 0)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_word_about_an_index_is_no_word_about_an_image_that_is_promoted_alone() {
    let (mut world, index) = World::of_two_platforms();
    world.require(&review());
    say(&world, "person", &index.descriptor, &[index.digest()], &review());
    assert_allowed(world.promote(&pass()));
    let (mut alone, _) = World::good();
    alone.require(&review());
    let image = alone.image.descriptor.clone();
    say(&alone, "person", &image, &[index.digest()], &review());
    assert_eq!(undecided(alone.promote(&pass())).len(), 1);
    say(&alone, "person", &image, &[image.digest], &review());
    assert_allowed(alone.promote(&pass()));
}

#[test]
fn what_policies_see_of_an_index_is_its_digest_and_what_was_said_about_it() {
    let (world, index) = World::of_two_platforms();
    let root = &index.descriptor;
    let said = say(&world, "person", root, &[index.digest()], &review());
    let voices = ["alice", "bob"].map(|voice| say(&world, voice, root, &[index.digest()], &PredicateType::Vex));
    // About both, it is one word.
    let (first, release) = (index.images[0].clone(), PredicateType::from_uri("https://example.com/release/v1"));
    let both = say(&world, "person", root, &[index.digest(), first.digest()], &release);
    world.places.attach_to(SOURCE, &first.descriptor, BUNDLE, &[(BUNDLE, &bundle_at_source(&world, both))]);
    // Only machines say these.
    say(&world, "person", root, &[index.digest()], &PredicateType::Sbom);
    let seen = RefCell::new(Vec::new());
    let rules = Rules(|facts: &str| {
        seen.borrow_mut().push(serde_json::from_str::<Value>(facts).unwrap());
        Outcome::Pass
    });
    assert_allowed(world.promote(&rules));
    let images = index.images.iter().map(VirtualImage::digest);
    for (facts, image) in seen.borrow().iter().zip(images) {
        assert_eq!(facts["subject"], json!({"name": "oci:production", "digest": image, "index": index.digest()}));
        let of_index = |one: &&Value| one["subjects"][0]["digest"] == json!(index.digest());
        let of_index: Vec<&Value> = facts["attestations"].as_array().unwrap().iter().filter(of_index).collect();
        let of_both = of_index.iter().filter(|one| one["digest"] == json!(both)).count();
        assert_eq!(of_both, 1);
        let of_index: Vec<&Value> = of_index.into_iter().filter(|one| one["digest"] != json!(both)).collect();
        let told: Vec<(&Value, &Value)> =
            of_index.iter().map(|one| (&one["signer"]["kind"], &one["signer"]["name"])).collect();
        assert_eq!(told, [(&json!("key"), &json!("person")), (&json!("threshold"), &json!("vexers"))]);
        assert_eq!(of_index[0]["digest"], json!(said));
        assert!(voices.iter().any(|voice| of_index[1]["digest"] == json!(voice)));
    }
    let (alone, _) = World::good();
    let rules = Rules(|facts: &str| {
        let facts: Value = serde_json::from_str(facts).unwrap();
        if facts["subject"].get("index").is_none() { Outcome::Pass } else { denial() }
    });
    assert_allowed(alone.promote(&rules));
}

#[test]
fn a_platform_without_evidence_leaves_the_index_open() {
    let (world, _) = World::of_two_platforms();
    let unproved = VirtualImage::new(b"nobody knows who built this");
    world.put_index(&VirtualIndex::new(&[(&world.image, "amd64"), (&unproved, "arm64")]));
    world.prove(&world.image, "run-1");
    let reasons = undecided(world.promote(&pass()));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("linux/arm64: no provenance of a trusted builder"), "{reasons:?}");
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["undecided"]);
}

#[test]
fn one_platform_that_is_denied_denies_the_index() {
    let (world, index) = World::of_two_platforms();
    let bad = other(&index).to_string();
    let rules = Rules(move |facts: &str| {
        let of_bad = serde_json::from_str::<serde_json::Value>(facts).unwrap()["subject"]["digest"] == json!(bad);
        if of_bad { denial() } else { Outcome::Pass }
    });
    let promoted = world.promote(&rules).unwrap();
    let Promoted::Denied { image, denials, record } = promoted else { panic!("{promoted:?}") };
    assert_eq!(image, index.digest());
    let told: Vec<(Option<&str>, &str)> =
        denials.iter().map(|denial| (denial.platform.as_deref(), denial.code.as_str())).collect();
    assert_eq!(told, [(Some("linux/arm64"), "a.rule")]);
    assert_eq!(world.places.occupant(TARGET), None);
    assert_eq!(world.opened.get(), 0, "the decisions key was opened");
    // Both images' decisions, the index's, and that its denial was signed.
    assert_eq!(world.outcomes(), ["allow", "deny", "deny", "signed"]);
    let records = world.evidence.records();
    assert_eq!(records.iter().find(|one| one.sequence == record).unwrap().subject, Some(index.digest()));
    let denied = world.places.attached(SOURCE);
    let denied = denied.iter().find(|one| one.artifact_type.as_deref() == Some(DENIAL_ARTIFACT)).unwrap();
    assert_eq!(denied.subject.as_ref().unwrap().digest, index.digest());
    let statement = world.statement(&denied.layers[0].digest);
    assert_eq!(statement.subjects.first().digest, index.digest());
    assert_eq!(statement.subjects.first().media_type.as_deref(), Some(IMAGE_INDEX));
}

#[test]
fn a_denial_of_one_platform_weighs_more_than_what_another_leaves_open() {
    let (world, index) = World::of_two_platforms();
    let bad = other(&index).to_string();
    let rules = Rules(move |facts: &str| if facts.contains(&bad) { denial() } else { Outcome::Silent });
    assert!(matches!(world.promote(&rules), Ok(Promoted::Denied { .. })));
    let (world, _) = World::of_two_platforms();
    let silent = Rules(|_: &str| Outcome::Silent);
    let reasons = undecided(world.promote(&silent));
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[1].starts_with("linux/arm64: the rule a.rule gave no answer"), "{reasons:?}");
    world.assert_nothing_happened();
}

#[test]
fn each_platform_is_scanned_by_the_gate() {
    let (world, _) = World::of_two_platforms();
    let scanner = clean_scanner();
    assert_allowed(world.promote_scanned(Some(&scanner), &pass()));
    let asked: BTreeSet<Digest> = scanner.scanned().into_iter().collect();
    assert_eq!(asked.len(), 2);
    let (world, _) = World::of_two_platforms();
    let broken = FakeScanner::fails("it broke");
    let reasons = undecided(world.promote_scanned(Some(&broken), &pass()));
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(
            reasons.iter().any(|one| one.starts_with(&format!("{platform}: the gate could not scan"))),
            "{reasons:?}"
        );
    }
    assert_eq!(world.places.occupant(TARGET), None);
}

#[test]
fn a_dry_run_of_an_index_changes_nothing() {
    let (world, index) = World::of_two_platforms();
    world.dry_run.set(true);
    let promoted = world.promote(&pass()).unwrap();
    let Promoted::WouldAllow { image, .. } = promoted else { panic!("{promoted:?}") };
    assert_eq!(image.digest, index.digest());
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["would-allow", "would-allow", "would-allow"]);
}

#[test]
fn without_a_gate_each_platform_still_needs_a_whole_set() {
    let (mut world, index) = World::of_two_platforms();
    world.judge.gate = None;
    assert_allowed(world.promote(&pass()));
    for image in [index.digest(), world.image.digest(), other(&index)] {
        let kinds = attached_to(&world, image);
        assert!(kinds.contains(&"promotion".to_owned()), "{kinds:?}");
        assert!(!kinds.iter().any(|kind| ["signature", "verification-summary"].contains(&kind.as_str())), "{kinds:?}");
    }
    assert_eq!(world.opened.get(), 0);
    let unproved = VirtualImage::new(b"nobody knows who built this");
    world.put_index(&VirtualIndex::new(&[(&world.image, "amd64"), (&unproved, "arm64")]));
    world.prove(&world.image, "run-1");
    assert!(undecided(world.promote(&pass()))[0].starts_with("linux/arm64: "));
}

#[test]
fn an_index_without_images_is_no_image() {
    let (world, _) = World::good();
    world.put_index(&VirtualIndex::new(&[]));
    let error = world.promote(&pass()).unwrap_err();
    assert!(error.to_string().contains("names no image"), "{error}");
    world.assert_nothing_happened();
}

#[test]
fn what_holds_nothing_but_documents_goes_with_its_index() {
    const DOCUMENT: &[u8] =
        br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}"#;
    let (world, build) = World::good();
    let mut index: ImageIndex = serde_json::from_slice(&VirtualIndex::new(&[(&world.image, "amd64")]).bytes).unwrap();
    let documents = VirtualImage::of_layer(dsse::IN_TOTO, DOCUMENT, Digest::of(DOCUMENT));
    let mut entry = index.manifests[0].clone();
    entry.descriptor = documents.descriptor.clone();
    let platform = entry.platform.as_mut().unwrap();
    (platform.os, platform.architecture) = ("unknown".to_owned(), "unknown".to_owned());
    index.manifests.push(entry);
    let bytes = serde_json::to_vec(&index).unwrap();
    let index = VirtualIndex {
        descriptor: Descriptor::new(IMAGE_INDEX, Digest::of(&bytes), bytes.len() as u64),
        bytes,
        images: vec![world.image.clone(), documents.clone()],
    };
    world.put_index(&index);
    world.places.attach_build(SOURCE, &world.image, &build);
    assert_allowed(world.promote(&pass()));
    assert!(world.places.blobs(TARGET).contains(&Digest::of(DOCUMENT)));
    assert_eq!(attached_to(&world, documents.digest()), [] as [String; 0]);
    let decision = &world.evidence.records()[1];
    assert_eq!(decision.body["unsigned"][0]["digest"], json!(documents.digest()));
    assert_eq!(documents.descriptor.media_type, IMAGE_MANIFEST);
}

#[test]
fn a_bundle_that_a_platforms_provenance_names_and_that_is_false_is_an_error() {
    let (world, index) = World::of_two_platforms();
    world.put_index(&index);
    world.prove(&world.image, "run-1");
    let build = world.prove(&index.images[1], "run-2");
    world.places.flip_byte(SOURCE, &build.digest("sbom"));
    assert!(world.promote(&pass()).is_err());
    world.assert_nothing_happened();
    assert_eq!(world.places.attached(SOURCE).iter().filter(|m| m.artifact_type.as_deref() == Some(BUNDLE)).count(), 6);
}

#[test]
fn the_same_index_again_is_promoted_again() {
    let (world, index) = World::of_two_platforms();
    assert_allowed(world.promote(&pass()));
    assert_allowed(world.promote(&pass()));
    assert_eq!(world.places.occupant(TARGET).unwrap().image, index.digest());
}
