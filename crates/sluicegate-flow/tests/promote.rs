//! `promote` over a world in memory: what becomes visible, what is signed by whom, what is on record, and when nothing happens.

use std::sync::atomic::Ordering;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{
        BUNDLE, DENIAL_ARTIFACT, DOCKER_MANIFEST, EVIDENCE_ARTIFACT, GATE_SCAN_ARTIFACT, IMAGE_MANIFEST, TRIVY_REPORT,
    },
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{Error, Failure, evidence::record, gate::RuleEvaluator, promote::Promoted, verify::verify};
use sluicegate_policy::{
    judge::Basis,
    rego::{EvaluationRequest, Outcome, PolicyError, RuleResults, Violation},
};
use sluicegate_ports::{
    evidence::{EvidenceLog, NewRecord, RecordKind},
    images::{Descriptor, ImagePlaceError, ImagePlaces, Manifest},
    sign::TransparencyLog,
    store::{ContentStore, StoreError},
};
use sluicegate_testkit::{
    FakeScanner, FixedClock, MemoryPlaces, SignedBuild, VirtualBuild, VirtualImage, VirtualSigner, sign_statement,
    today, vulns,
};
use sluicegate_types::{Digest, NonEmpty, UnixTime};
use sluicegate_verify::Role;

use crate::gate_world::{
    Crash, GATE, MemoryScans, Rules, SOURCE, TARGET, World, assert_allowed, bans, clean_scanner, denial, deny, pass,
    scanner_that_finds, undecided,
};

/// A statement about the world's image, signed and attached at the source; its bundle's digest.
fn attach(world: &World, signer: &str, kind: PredicateType, predicate: Value) -> Digest {
    let subject = Subject { name: None, digest: world.image.digest(), media_type: Some(IMAGE_MANIFEST.to_owned()) };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: kind, predicate };
    let bundle = sign_statement(&VirtualSigner::new(signer), &world.log, &statement);
    world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &bundle)]);
    Digest::of(&bundle)
}

#[test]
fn what_is_allowed_is_published_with_its_evidence_and_its_decision() {
    let (world, build) = World::good();
    let promoted = world.promote(&pass()).unwrap();
    let Promoted::Allowed { image, record, basis } = promoted else { panic!("{promoted:?}") };
    assert_eq!(image.to_string(), format!("oci:production@{}", world.image.digest()));
    assert_eq!(basis, Basis::Gate { expires: today().plus(30 * 24 * 60 * 60) });
    let held = world.places.occupant(TARGET).unwrap();
    assert_eq!((held.image, held.tags), (world.image.digest(), vec!["current".parse().unwrap()]));
    let bundles = world.bundles_at_target();
    let kinds: Vec<&str> = bundles.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["provenance", "sbom", "vulns", "verification-summary", "promotion", "signature"]);
    for (number, part) in ["image", "sbom", "vulns"].into_iter().enumerate() {
        assert_eq!(bundles[number].1, build.digest(part));
    }
    let manifests = world.places.attached(TARGET);
    let of = |kind: &str| manifests.iter().find(|m| m.artifact_type.as_deref() == Some(kind)).unwrap();
    let carried: BTreeSet<Digest> = of(EVIDENCE_ARTIFACT).layers.iter().map(|part| part.digest).collect();
    assert_eq!(carried, build.blobs().into_keys().collect());
    let scan = &of(GATE_SCAN_ARTIFACT).layers;
    let media: Vec<&str> = scan.iter().map(|part| part.media_type.as_str()).collect();
    assert_eq!(media, [BUNDLE, TRIVY_REPORT]);
    assert_eq!(manifests.len(), 8, "six bundles, the evidence, the gate's scan");
    assert!(manifests.iter().all(|m| m.subject.as_ref().is_some_and(|s| s.digest == world.image.digest())));
    assert_eq!(world.outcomes(), ["allow", "promoted"]);
    assert_eq!((record, world.opened.get()), (1, 1));
    let moved = world.last_record();
    assert_eq!((moved.kind, moved.subject), (RecordKind::Promotion, Some(world.image.digest())));
    assert_eq!((&moved.body["from"], &moved.body["decision"]), (&Value::Null, &json!(1)));
}

#[test]
fn what_the_decision_says_is_what_was_decided() {
    let (world, _) = World::good();
    assert_allowed(world.promote(&pass()));
    let bundles = world.bundles_at_target();
    let bundle = |kind: &str| bundles.iter().find(|(k, _)| k == kind).unwrap().1;
    let summary = world.statement(&bundle("verification-summary")).predicate;
    assert_eq!(summary["verificationResult"], "PASSED");
    assert_eq!(summary["verifier"]["id"], GATE);
    assert_eq!(summary["resourceUri"], format!("oci:production@{}", world.image.digest()));
    assert_eq!(summary["policy"]["digest"]["sha256"], world.judge.gateway.hex());
    assert_eq!(summary["verifiedLevels"], json!(["SLSA_BUILD_LEVEL_1"]));
    assert_eq!(summary["sluicegate_authority"], "self");
    let decision = &world.evidence.records()[0].body;
    let used: Vec<Value> = decision["used"]
        .as_array()
        .unwrap()
        .iter()
        .map(|digest| json!({"digest": {"sha256": digest.as_str().unwrap().strip_prefix("sha256:").unwrap()}}))
        .collect();
    assert_eq!(summary["inputAttestations"], json!(used));
    assert_eq!(world.last_record().body["summary"], json!(bundle("verification-summary")));
    let facts: Digest = decision["facts"].as_str().unwrap().parse().unwrap();
    let facts = world.store.read(&facts, 1 << 20).unwrap();
    assert!(serde_json::from_slice::<Value>(&facts).unwrap()["attestations"].is_array(), "the facts are kept");
    let promotion = world.statement(&bundle("promotion")).predicate;
    assert_eq!(promotion["sluicegate_basis"]["sha256"], bundle("verification-summary").hex());
    for kind in ["verification-summary", "promotion", "signature"] {
        let bytes = world.store.read(&bundle(kind), 1 << 20).unwrap();
        let verified = sluicegate_verify::verify(&bytes, &world.trust, today()).unwrap();
        assert_eq!(verified.signer(), "decider");
        assert!(verified.is_in_role(Role::Decisions));
    }
}

#[test]
fn what_was_promoted_verifies_where_it_is_now() {
    let (world, build) = World::good();
    assert_allowed(world.promote(&pass()));
    let reference = "oci:environments/production:current".parse().unwrap();
    let report = verify(&world.places, &reference, Path::new("/gateway"), &world.trust, None, today()).unwrap();
    assert_eq!(report.failure(), None);
    assert_eq!(report.followed.sets[0].provenance().0.bundle(), build.digest("image"));
}

#[test]
fn tr_23_an_image_of_dockers_types_stays_what_it_is_and_is_spoken_of_as_that() {
    let docker = VirtualImage::new(b"a layer that Docker named").of_dockers_types();
    let (world, _) = World::of_image(docker.clone(), |build| build);
    let by_hand = attach(&world, "person", PredicateType::from_uri("https://example.com/review/v1"), json!({}));
    assert_allowed(world.promote(&pass()));
    assert_eq!(world.places.occupant(TARGET).unwrap().image, docker.digest());
    let there = world.places.source(&TARGET.into()).unwrap();
    let mut bytes = Vec::new();
    there.open(&docker.descriptor).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, docker.blobs[&docker.digest()]);
    for manifest in world.places.attached(TARGET) {
        assert_eq!(manifest.subject.unwrap().media_type, DOCKER_MANIFEST);
    }
    let bundles = world.bundles_at_target();
    assert!(bundles.iter().any(|(_, bundle)| *bundle == by_hand));
    let signed_here = ["verification-summary", "promotion", "signature"];
    for (kind, bundle) in bundles.iter().filter(|(kind, _)| signed_here.contains(&kind.as_str())) {
        let subjects = world.statement(bundle).subjects.into_vec();
        let expected = (docker.digest(), Some(DOCKER_MANIFEST.to_owned()), Some("oci:production".to_owned()));
        let [subject] = subjects.as_slice() else { panic!("{kind}: {subjects:?}") };
        assert_eq!((subject.digest, subject.media_type.clone(), subject.name.clone()), expected, "{kind}");
    }
    let report = verify(
        &world.places,
        &format!("oci:{TARGET}").parse().unwrap(),
        Path::new("/"),
        &world.trust,
        Some(&world.judge.repository()),
        today(),
    );
    assert_eq!(report.unwrap().failure(), None);
}

#[test]
fn what_else_was_attached_stays_behind() {
    let (clean, _) = World::good();
    assert_allowed(clean.promote(&pass()));
    let (world, _) = World::good();
    let mut junk = vec![
        attach(&world, "builder", PredicateType::Sbom, json!({"bomFormat": "CycloneDX", "specVersion": "1.6"})),
        attach(&world, "stranger", PredicateType::ImageSignature, json!({})),
        attach(&world, "decider", PredicateType::ImageSignature, json!({})),
        attach(&world, "recorder", PredicateType::Vulns, vulns(b"{}", Digest::of(b"database")).to_predicate(&[])),
    ];
    for (kind, bytes) in [(BUNDLE, &b"junk"[..]), (EVIDENCE_ARTIFACT, b"more junk"), ("text/plain", b"notes")] {
        world.places.attach(SOURCE, &world.image, kind, &[("text/plain", bytes)]);
        junk.push(Digest::of(bytes));
    }
    assert_allowed(world.promote(&pass()));
    let there = world.places.blobs(TARGET);
    for digest in junk {
        assert!(world.places.blobs(SOURCE).contains(&digest));
        assert!(!there.contains(&digest), "{digest} rode along");
    }
    assert_eq!(there.len(), clean.places.blobs(TARGET).len());
    assert_eq!(world.places.attached(TARGET).len(), 8);
}

#[test]
fn junk_that_is_too_large_to_be_evidence_locks_nobody_out() {
    let (world, _) = World::good();
    let huge = vec![b'x'; sluicegate_attestation::bundle::MAX_BUNDLE + 1];
    world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &huge)]);
    assert_allowed(world.promote(&pass()));
    assert!(!world.places.blobs(TARGET).contains(&Digest::of(&huge)));
}

/// A manifest about the world's image that names things and brings none of them.
fn names(world: &World, artifact_type: &str, config_size: u64, layers: Vec<Descriptor>) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.to_owned()),
        config: Descriptor::new("application/json", Digest::of(b"no configuration"), config_size),
        layers,
        subject: Some(world.image.descriptor.clone()),
        annotations: Default::default(),
    }
}

/// What nobody has, small.
fn absent(count: usize) -> Vec<Descriptor> {
    (0..count).map(|number| Descriptor::new(BUNDLE, Digest::of(&number.to_le_bytes()), 1)).collect()
}

#[test]
fn tm12_a_manifest_that_says_too_much_of_itself_locks_nobody_out() {
    for (kind, size, layers) in [
        (BUNDLE, 5 << 20, absent(1)),
        (EVIDENCE_ARTIFACT, 5 << 20, absent(1)),
        (BUNDLE, u64::MAX, Vec::new()),
        (BUNDLE, 2, absent(10_000)),
        (BUNDLE, 2, Vec::new()),
        (EVIDENCE_ARTIFACT, 2, absent(10_000)),
    ] {
        let (world, build) = World::good();
        let junk = world.places.attach_manifest(SOURCE, &names(&world, kind, size, layers));
        let reference = "oci:out/shop".parse().unwrap();
        let report = verify(&world.places, &reference, Path::new("/project"), &world.trust, None, today()).unwrap();
        assert_eq!(report.failure(), None, "{kind} {size}");
        assert!(report.statements().len() < 20, "junk is not listed thousandfold");
        assert_eq!(report.followed.sets[0].provenance().0.bundle(), build.digest("image"));
        assert_allowed(world.promote(&pass()));
        assert!(!world.places.blobs(TARGET).contains(&junk));
    }
}

#[test]
fn tm12_what_is_described_falsely_locks_nobody_out() {
    let (world, build) = World::good();
    // Bytes that are there under a size that they do not have: the image's own bundle, and somebody's.
    let stray = b"something";
    world.places.attach(SOURCE, &world.image, "text/plain", &[("text/plain", stray)]);
    for digest in [Digest::of(stray), build.digest("image")] {
        for (kind, size) in [(BUNDLE, 1), (BUNDLE, 1 << 20), (EVIDENCE_ARTIFACT, 1), (EVIDENCE_ARTIFACT, 1 << 20)] {
            let layers = vec![Descriptor::new(BUNDLE, digest, size)];
            world.places.attach_manifest(SOURCE, &names(&world, kind, 2, layers));
        }
    }
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_large_manifests_of_others_keep_nothing_out() {
    let (world, _) = World::good();
    let whole = world.fetched_at_source();
    for number in 0..20 {
        let mut junk = names(&world, BUNDLE, 2, absent(1));
        junk.annotations.insert("padding".to_owned(), format!("{number}{}", "x".repeat(4_000_000)));
        world.places.attach_manifest(SOURCE, &junk);
    }
    let with_junk = world.fetched_at_source();
    assert_eq!((with_junk.attached, with_junk.blobs), (whole.attached, whole.blobs));
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_one_part_in_any_number_of_manifests_is_one_part() {
    let (world, build) = World::good();
    let report = Digest::of(&build.report);
    let sizes = [build.report.len() as u64, 1, 2, 3];
    let layers: Vec<Descriptor> =
        (0..14).map(|number| Descriptor::new("text/plain", report, sizes[number % sizes.len()])).collect();
    for number in 0..800 {
        let mut junk = names(&world, EVIDENCE_ARTIFACT, 2, layers.clone());
        junk.annotations.insert("number".to_owned(), number.to_string());
        world.places.attach_manifest(SOURCE, &junk);
    }
    // More than may be read, and of everything that is named nothing fits any more: so it comes before them.
    world.places.attach_manifest(SOURCE, &names(&world, EVIDENCE_ARTIFACT, 2, absent(10_000)));
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_configurations_of_others_take_no_room_from_manifests() {
    let (world, _) = World::good();
    let whole = world.fetched_at_source();
    let halves = (8..22).rev().flat_map(|power| [1 << power; 3]);
    for (number, size) in [4 << 20; 15].into_iter().chain(halves).enumerate() {
        let config = [&(number as u32).to_le_bytes()[..], &vec![b'x'; size - 4]].concat();
        world.places.attach(SOURCE, &world.image, "text/plain", &[("text/plain", &config)]);
        let mut junk = names(&world, "text/plain", config.len() as u64, Vec::new());
        junk.config.digest = Digest::of(&config);
        // Smallest manifests are read first: those of the largest configurations.
        junk.annotations.insert("p".to_owned(), "x".repeat(number));
        world.places.attach_manifest(SOURCE, &junk);
    }
    let with_junk = world.fetched_at_source();
    assert_eq!(with_junk.attached, whole.attached);
    assert!(whole.blobs.keys().all(|digest| with_junk.blobs.contains_key(digest)));
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_what_a_strangers_provenance_names_is_not_read_before_what_a_builders_does() {
    let (world, _) = World::good();
    // A provenance that nobody believes names as many parts as may be read, and a manifest before all others carries them.
    let dependencies: Vec<Value> = absent(10_000)
        .iter()
        .map(|part| json!({"name": "attestation:x", "digest": {"sha256": part.digest.hex()}, "mediaType": BUNDLE}))
        .collect();
    let mut predicate = world.statement_at_source(PredicateType::Provenance).predicate;
    predicate["buildDefinition"]["resolvedDependencies"] = json!(dependencies);
    attach(&world, "stranger", PredicateType::Provenance, predicate);
    world.places.attach_manifest(SOURCE, &names(&world, EVIDENCE_ARTIFACT, 2, absent(10_000)));
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm12_a_large_bundle_that_a_provenance_names_is_read_behind_any_number_of_small_ones() {
    // Just below a thousand of 300 KB fill the limit before the SBOM, which is larger, has its turn.
    let padding = "x".repeat(400_000);
    let components = json!([{"type": "application", "name": "server", "version": "1", "description": padding}]);
    let (world, _) = World::new(|build| {
        let mut build = build;
        build.components = components;
        build
    });
    for number in 0..900_u32 {
        let mut junk = vec![b'x'; 300_000];
        junk[..4].copy_from_slice(&number.to_le_bytes());
        world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &junk)]);
    }
    assert_allowed(world.promote(&pass()));
}

#[test]
fn tm10_what_was_said_by_hand_and_counted_goes_along() {
    let (mut world, _) = World::good();
    let review = PredicateType::from_uri("https://example.com/review/v1");
    world.require(&review);
    assert!(undecided(world.promote(&pass()))[0].contains("https://example.com/review/v1"));
    let said = attach(&world, "person", review.clone(), json!({"reviewed": true}));
    let stranger = attach(&world, "stranger", review, json!({"reviewed": true}));
    assert_allowed(world.promote(&pass()));
    let there = world.places.blobs(TARGET);
    assert!(there.contains(&said) && !there.contains(&stranger));
    let summary = world.bundles_at_target().into_iter().find(|(kind, _)| kind == "verification-summary").unwrap().1;
    for input in world.statement(&summary).predicate["inputAttestations"].as_array().unwrap() {
        let digest: Digest = format!("sha256:{}", input["digest"]["sha256"].as_str().unwrap()).parse().unwrap();
        assert!(there.contains(&digest), "{digest} is named by the decision and was not copied");
    }
}

#[test]
fn tm06_a_groups_word_is_a_fact_only_with_every_voice_and_each_is_named() {
    let ask = |vexers: &str, alice: &str, by: &[&str]| {
        let (mut world, _) = World::good();
        world.trust = crate::gate_world::trust_of(&world.log, vexers, alice);
        let gate = world.judge.gate.as_mut().unwrap();
        let kinds = gate.conditions.require.iter().cloned().chain([PredicateType::Vex]).collect::<Vec<_>>();
        gate.conditions.require = kinds.try_into().unwrap();
        let words: Vec<Digest> =
            by.iter().map(|signer| attach(&world, signer, PredicateType::Vex, json!({"statements": []}))).collect();
        let promoted = world.promote(&pass());
        (world, words, promoted)
    };
    let (world, words, promoted) = ask("oci:production", "*", &["alice", "bob"]);
    assert_allowed(promoted);
    let used = world.evidence.records()[0].body["used"].clone();
    for word in words {
        assert!(used.as_array().unwrap().contains(&json!(word)), "{word} was counted and is not named");
        assert!(world.places.blobs(TARGET).contains(&word), "{word} was counted and not copied");
    }
    for (vexers, alice, by) in [
        ("oci:production", "*", &["alice"][..]),
        ("oci:production", "*", &["alice", "stranger"]),
        ("oci:staging", "*", &["alice", "bob"]),
        ("*", "oci:staging", &["alice", "bob"]),
    ] {
        let reasons = undecided(ask(vexers, alice, by).2);
        assert!(reasons[0].contains("vex"), "{vexers} {alice} {by:?}: {reasons:?}");
    }
}

#[test]
fn tm10_where_it_came_from_is_what_the_gateway_says_and_no_layout() {
    let source = |world: &World| {
        let promotion = world.bundles_at_target().into_iter().find(|(kind, _)| kind == "promotion").unwrap().1;
        world.statement(&promotion).predicate["srcRef"].clone()
    };
    let (world, _) = World::good();
    world.places.mark_environment(SOURCE, "staging");
    assert_allowed(world.promote(&pass()));
    assert_eq!(source(&world), "build", "a mark is nobody's word");
    let (mut world, _) = World::good();
    world.environments = [("staging", SOURCE), ("production", TARGET)]
        .map(|(name, at)| (name.parse().unwrap(), at.into()))
        .into_iter()
        .collect();
    assert_allowed(world.promote(&pass()));
    assert_eq!(source(&world), "oci:staging");
}

#[test]
fn a_denial_lies_beside_what_was_built_and_never_in_an_environments_place() {
    let denials = |world: &World| {
        let of_kind = |manifest: &Manifest| manifest.artifact_type.as_deref() == Some(DENIAL_ARTIFACT);
        world.places.attached(SOURCE).iter().filter(|manifest| of_kind(manifest)).count()
    };
    let (world, _) = World::good();
    world.promote(&deny()).unwrap();
    assert_eq!(denials(&world), 1);
    let (marked, _) = World::good();
    marked.places.mark_environment(SOURCE, "staging");
    let (mut named, _) = World::good();
    named.environments = [("staging".parse().unwrap(), SOURCE.into())].into_iter().collect();
    for world in [marked, named] {
        world.promote(&deny()).unwrap();
        assert_eq!(denials(&world), 0);
        assert_eq!(world.outcomes(), ["deny", "signed"]);
        assert!(world.told.borrow().iter().any(|line| line.contains("stays in the store")));
    }
}

#[test]
fn a_report_that_came_in_an_odd_place_is_published_whole() {
    let (mut world, build) = World::good();
    // The evidence manifest carries the steps alone; the raw report comes in a manifest that looks like a bundle's.
    world.places = MemoryPlaces::new();
    world.places.put_image(SOURCE, &world.image, None);
    for (digest, bytes) in build.attached().into_iter().chain(build.blobs()) {
        let is_report = digest == Digest::of(&build.report);
        let kind = if is_report { TRIVY_REPORT } else { BUNDLE };
        let attached = is_report || build.attached().contains_key(&digest);
        let artifact = if attached { BUNDLE } else { EVIDENCE_ARTIFACT };
        world.places.attach(SOURCE, &world.image, artifact, &[(kind, &bytes)]);
    }
    assert_allowed(world.promote(&pass()));
    let reference = "oci:environments/production:current".parse().unwrap();
    let report = verify(&world.places, &reference, Path::new("/gateway"), &world.trust, None, today()).unwrap();
    assert_eq!(report.failure(), None);
}

#[test]
fn a_denial_publishes_nothing_and_is_signed_and_kept_by_the_recorder() {
    let (world, _) = World::good();
    let promoted = world.promote(&deny()).unwrap();
    let Promoted::Denied { image, denials, record } = promoted else { panic!("{promoted:?}") };
    assert_eq!((image, record), (world.image.digest(), 1));
    assert_eq!(denials.first().violation.msg, "too bad");
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["deny", "signed"]);
    assert_eq!(world.evidence.records()[0].body["denials"][0]["code"], "a.rule");
    let body = world.last_record().body;
    assert_eq!(body["decision"], 1);
    let summary: Digest = body["summary"].as_str().unwrap().parse().unwrap();
    let bytes = world.store.read(&summary, 1 << 20).unwrap();
    let verified = sluicegate_verify::verify(&bytes, &world.trust, today()).unwrap();
    assert_eq!(verified.signer(), "recorder");
    let predicate = &verified.statement().predicate;
    assert_eq!(predicate["verificationResult"], "FAILED");
    assert_eq!(predicate["verifiedLevels"], json!(["FAILED"]));
}

#[test]
fn tm05_a_denial_is_on_record_however_much_there_is_to_say() {
    let (world, _) = World::good();
    let violation = |number: u32| Violation {
        msg: format!("{number} {}", "\u{1}".repeat(16 << 10)),
        term: Some("t".repeat(16 << 10)),
        subject: Some("s".repeat(16 << 10)),
        fields: BTreeMap::new(),
        clause: None,
    };
    let wordy =
        Rules(|_: &str| Outcome::Deny(NonEmpty::try_from((0..400).map(violation).collect::<Vec<_>>()).unwrap()));
    let promoted = world.promote(&wordy).unwrap();
    let Promoted::Denied { denials, .. } = promoted else { panic!("{promoted:?}") };
    assert_eq!(denials.as_slice().len(), 400);
    assert_eq!(world.outcomes(), ["deny", "signed"]);
    let body = &world.evidence.records()[0].body;
    let listed = body["denials"].as_array().unwrap().len();
    assert!((1..400).contains(&listed), "{listed}");
    assert_eq!(body["denialsCount"], 400);
    let document: Digest = body["document"].as_str().unwrap().parse().unwrap();
    let document: Value = serde_json::from_slice(&world.store.read(&document, 1 << 30).unwrap()).unwrap();
    assert_eq!(document["denials"].as_array().unwrap().len(), 400);
    // What is left open has words of any length too.
    struct Wordy;
    impl RuleEvaluator for Wordy {
        fn evaluate(&self, _: &EvaluationRequest) -> Result<RuleResults, PolicyError> {
            Err(PolicyError::Engine { reason: "é".repeat(4 << 20) })
        }
    }
    assert_eq!(undecided(world.promote(&Wordy)).len(), 1);
    assert!(world.last_record().body["reasons"][0].as_str().unwrap().len() < 5000);
}

#[test]
fn a_denial_that_cannot_be_signed_is_still_a_denial_and_on_record() {
    let (world, _) = World::good();
    // One append for the gate's scan; the next, the denial's, fails.
    world.appends_left.store(1, Ordering::Relaxed);
    assert!(matches!(world.promote(&deny()), Ok(Promoted::Denied { .. })));
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["deny", "unsigned"]);
    let body = world.last_record().body;
    assert!(body["reasons"].to_string().contains("it broke") && body["summary"].is_null(), "{body}");
    assert_eq!(world.evidence.records()[0].body["denials"][0]["code"], "a.rule");
    assert!(world.told.borrow().iter().any(|line| line.contains("could not be signed")));
    // An allowed image whose decision can't be signed is not promoted, and that is on record too.
    let (world, _) = World::good();
    world.appends_left.store(1, Ordering::Relaxed);
    assert!(matches!(world.promote(&pass()), Err(Error::Sign(_))));
    assert_eq!(world.places.occupant(TARGET), None);
    assert_eq!(world.outcomes(), ["allow", "failed"]);
}

#[test]
fn what_cannot_be_decided_publishes_nothing_signs_no_decision_and_is_on_record() {
    let (world, _) = World::good();
    let silent = Rules(|_: &str| Outcome::Silent);
    assert!(undecided(world.promote(&silent))[0].contains("a.rule gave no answer"));
    assert!(undecided(world.promote(&Crash))[0].contains("the child died"));
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["undecided", "undecided"]);
    assert!(world.last_record().body["reasons"][0].as_str().unwrap().contains("the child died"));
    assert_eq!(world.last_record().body.get("summary"), None);
}

#[test]
fn a_scanner_that_fails_or_is_not_there_leaves_it_undecided() {
    let (world, _) = World::good();
    for scanner in [Some(FakeScanner::fails("it crashed")), None] {
        let scanner = scanner.as_ref().map(|s| s as &dyn sluicegate_ports::scan::Scanner);
        let reasons = undecided(world.promote_scanned(scanner, &pass()));
        assert!(reasons[0].contains("the gate's own scan"), "{reasons:?}");
        let why = if scanner.is_some() { "it crashed" } else { "names no scanner" };
        assert!(reasons[1].contains(why), "{reasons:?}");
        assert!(world.last_record().body["reasons"][1].as_str().unwrap().contains(why));
    }
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["undecided", "undecided"]);
    let mut garbled = FakeScanner::report(b"no report", Digest::of(b"database"), today());
    undecided(world.promote_scanned(Some(&FakeScanner::gives(garbled.clone())), &pass()));
    garbled.scan.raw = FakeScanner::raw(&[]);
    assert_allowed(world.promote_scanned(Some(&FakeScanner::gives(garbled)), &pass()));
}

#[test]
fn a_scan_that_somebody_attached_is_never_the_gates_own() {
    let (world, _) = World::good();
    let scan = vulns(&FakeScanner::raw(&[]), Digest::of(b"database")).to_predicate(&[]);
    attach(&world, "recorder", PredicateType::Vulns, scan);
    undecided(world.promote_scanned(None, &pass()));
    world.assert_nothing_happened();
    let scanner = clean_scanner();
    assert_allowed(world.promote_scanned(Some(&scanner), &pass()));
    assert_eq!(scanner.scanned(), [world.image.digest()]);
}

#[test]
fn rules_see_what_the_gates_own_scan_finds() {
    let (world, _) = World::good();
    let ban = bans("CVE-2026-1");
    let found = scanner_that_finds(&["CVE-2026-1"]);
    assert!(matches!(world.promote_scanned(Some(&found), &ban), Ok(Promoted::Denied { .. })));
    assert_allowed(world.promote_scanned(Some(&clean_scanner()), &ban));
}

#[test]
fn a_brought_scan_with_the_gates_database_counts_and_one_with_another_does_not() {
    let ban = || bans("CVE-2026-1");
    let with = |database: &'static [u8]| {
        let (world, _) = World::new(|mut build| {
            build.report = FakeScanner::raw(&["CVE-2026-1"]);
            build.database = Digest::of(database);
            build
        });
        world.promote(&ban())
    };
    assert!(matches!(with(b"database"), Ok(Promoted::Denied { .. })));
    assert_allowed(with(b"an old database"));
}

#[test]
fn evidence_that_is_missing_is_undecided_and_on_record() {
    let (world, build) = World::good();
    world.places.drop_blob(SOURCE, &build.digest("test"));
    let reasons = undecided(world.promote(&pass()));
    assert!(reasons[0].contains("attestation:test is missing"), "{reasons:?}");
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["undecided"]);
    assert_eq!(world.last_record().body["gateway"], json!(world.judge.gateway));
}

#[test]
fn an_image_without_any_evidence_is_undecided() {
    let (world, _) = World::good();
    let bare = VirtualImage::new(b"a bare image");
    world.places.put_image("/project/out/shop", &bare, None);
    undecided(world.promote(&pass()));
    world.assert_nothing_happened();
}

#[test]
fn a_named_bundle_that_is_false_is_wrong_and_on_record_as_undecided() {
    let (world, build) = World::new(|build| build.with_signer("test", "stranger"));
    let error = world.promote(&pass()).unwrap_err();
    assert!(matches!(&error, Error::Incomplete { image, .. } if *image == build.image), "{error}");
    assert_eq!(error.failure(), Failure::Wrong);
    world.assert_nothing_happened();
    assert_eq!(world.outcomes(), ["undecided"]);
    assert!(world.last_record().body["reasons"][1].as_str().unwrap().contains("not to be believed"));
}

#[test]
fn bytes_that_are_not_those_of_their_digest_are_wrong() {
    let blobs: [fn(&World, &SignedBuild) -> Digest; 4] = [
        |world, _| world.image.digest(),
        |world, _| world.image.layer,
        |_, build| build.digest("test"),
        |_, build| build.digest("image"),
    ];
    for blob in blobs {
        let (world, build) = World::good();
        world.places.flip_byte(SOURCE, &blob(&world, &build));
        let error = world.promote(&pass()).unwrap_err();
        assert_eq!(error.failure(), Failure::Wrong, "{error}");
        world.assert_nothing_happened();
    }
}

#[test]
fn an_image_whose_own_blobs_are_missing_is_not_promoted() {
    for blob in [|world: &World| world.image.layer, |world: &World| world.image.digest()] {
        let (world, _) = World::good();
        world.places.drop_blob(SOURCE, &blob(&world));
        let error = world.promote(&pass()).unwrap_err();
        assert_eq!(error.failure(), Failure::Undecided, "{error}");
        world.assert_nothing_happened();
    }
}

#[test]
fn a_target_that_changed_meanwhile_is_left_as_it_is() {
    let other = VirtualImage::new(b"somebody else's");
    let (world, _) = World::good();
    world.places.move_before_publish(TARGET, &other);
    let error = world.promote(&pass()).unwrap_err();
    assert!(matches!(error, Error::Place(ImagePlaceError::Moved { .. })), "{error}");
    let held = world.places.occupant(TARGET).unwrap();
    assert_eq!((held.image, held.tags.len()), (other.digest(), 0));
    assert_eq!(world.places.attached(TARGET).len(), 0);
    assert_eq!(world.outcomes(), ["allow", "failed"], "the decision stands on record, no promotion does");
    // The same between the look at the target and the decision.
    let (world, _) = World::good();
    let meddling = Rules(|_: &str| {
        world.places.put_image(TARGET, &other, Some("current"));
        Outcome::Pass
    });
    let error = world.promote(&meddling).unwrap_err();
    assert!(matches!(error, Error::Place(ImagePlaceError::Moved { .. })), "{error}");
    assert_eq!(world.places.occupant(TARGET).unwrap().image, other.digest());
}

#[test]
fn the_next_image_replaces_the_one_that_was_there() {
    let (world, _) = World::good();
    let old = VirtualImage::new(b"last week's");
    world.places.put_image(TARGET, &old, Some("current"));
    assert_allowed(world.promote(&pass()));
    assert_eq!(world.places.occupant(TARGET).unwrap().image, world.image.digest());
    assert_eq!(world.last_record().body["from"], json!(old.digest()));
    assert_allowed(world.promote(&pass()));
    assert_eq!(world.last_record().body["from"], json!(world.image.digest()), "once more is no harm");
}

#[test]
fn a_tag_never_moves_back_to_an_image_that_it_named_before() {
    let (world, first) = World::good();
    assert_allowed(world.promote(&pass()));
    let newer = VirtualImage::new(b"next week's");
    world.places.put_image(SOURCE, &newer, None);
    let build = VirtualBuild::new("run-2", newer.digest()).sign(&world.log);
    world.places.attach_build(SOURCE, &newer, &build);
    assert_allowed(world.promote(&pass()));
    world.places.put_image(SOURCE, &world.image, None);
    world.places.attach_build(SOURCE, &world.image, &first);
    let error = world.promote(&pass()).unwrap_err();
    assert!(error.to_string().contains("--rollback"), "{error}");
    assert_eq!(world.places.occupant(TARGET).unwrap().image, newer.digest());
}

#[test]
fn tm10_what_nobody_logged_or_nobody_can_read_was_never_there() {
    let (world, _) = World::good();
    let older = VirtualImage::new(b"planted");
    world.places.put_image(TARGET, &older, None);
    world.places.drop_blob(TARGET, &older.digest());
    world.evidence.append(&promoted_record(&world)).unwrap();
    assert_allowed(world.promote(&pass()));
    assert_eq!(world.outcomes(), ["promoted", "adopted", "allow", "promoted"]);
    // The same place with its bytes, and the same record logged by its writer, are what was there.
    let (world, _) = World::good();
    world.places.put_image(TARGET, &older, None);
    world.with_ports(|ports| record(ports, &promoted_record(&world)).unwrap());
    let error = world.promote(&pass()).unwrap_err();
    assert!(error.to_string().contains("--rollback"), "{error}");
    assert_eq!(world.outcomes(), ["promoted", "found", "refused"]);
}

/// That the world's image was promoted to production.
fn promoted_record(world: &World) -> NewRecord {
    NewRecord {
        kind: RecordKind::Promotion,
        at: today(),
        subject: Some(world.image.digest()),
        environment: Some("production".parse().unwrap()),
        outcome: "promoted".to_owned(),
        body: json!({}),
    }
}

#[test]
fn a_publication_that_breaks_off_leaves_what_was_visible() {
    for old in [None, Some(VirtualImage::new(b"last week's"))] {
        let (world, _) = World::good();
        if let Some(old) = &old {
            world.places.put_image(TARGET, old, Some("current"));
        }
        let before = world.places.occupant(TARGET);
        world.places.break_publish(TARGET);
        let error = world.promote(&pass()).unwrap_err();
        assert_eq!(error.failure(), Failure::Unavailable);
        assert_eq!(world.places.occupant(TARGET), before);
        assert_eq!(world.places.attached(TARGET).len(), 0);
        let found = if old.is_some() { &["found", "allow", "failed"][..] } else { &["allow", "failed"] };
        assert_eq!(world.outcomes(), found);
    }
}

#[test]
fn a_store_that_lost_a_blob_publishes_nothing() {
    let (world, build) = World::good();
    let lossy = Rules(|_: &str| {
        world.store.remove(&build.digest("package"));
        Outcome::Pass
    });
    let error = world.promote(&lossy).unwrap_err();
    assert!(matches!(error, Error::Place(ImagePlaceError::Store(StoreError::Missing { .. }))), "{error}");
    assert_eq!(world.places.occupant(TARGET), None);
}

#[test]
fn a_permit_is_used_within_ten_minutes_of_the_decision() {
    for (seconds, used) in [(600, true), (601, false)] {
        let (mut world, _) = World::good();
        world.clock = FixedClock::ticking(today(), seconds);
        match world.promote(&pass()) {
            Ok(Promoted::Allowed { .. }) => assert!(used, "{seconds}"),
            Err(Error::Again(why)) => {
                assert!(!used && why.contains("too old"), "{seconds}: {why}");
                assert_eq!((world.opened.get(), world.places.occupant(TARGET)), (0, None));
            }
            other => panic!("{seconds}: {other:?}"),
        }
    }
    let (world, _) = World::good();
    let back = Rules(|_: &str| {
        world.clock.set(UnixTime::from_seconds(today().seconds() - 1).unwrap());
        Outcome::Pass
    });
    assert!(matches!(world.promote(&back), Err(Error::Again(_))), "a clock that went back");
    assert_eq!(world.places.occupant(TARGET), None);
}

#[test]
fn one_allowed_set_suffices_and_brings_only_its_own_evidence() {
    let (world, first) = World::good();
    let second = VirtualBuild::new("run-2", world.image.digest()).sign(&world.log);
    world.places.attach_build(SOURCE, &world.image, &second);
    let picky = Rules(|facts: &str| if facts.contains("run-1") { denial() } else { Outcome::Pass });
    assert_allowed(world.promote(&picky));
    let there = world.places.blobs(TARGET);
    for part in ["image", "test", "sbom"] {
        assert!(there.contains(&second.digest(part)) && !there.contains(&first.digest(part)), "{part}");
    }
    let (world, _) = World::good();
    let second = VirtualBuild::new("run-2", world.image.digest()).sign(&world.log);
    world.places.attach_build(SOURCE, &world.image, &second);
    assert!(matches!(world.promote(&deny()), Ok(Promoted::Denied { .. })));
    world.assert_nothing_happened();
}

#[test]
fn nothing_is_signed_by_the_decisions_key_but_what_an_allowed_image_needs() {
    let (world, _) = World::good();
    let logged = || world.log.size().unwrap();
    let before = logged();
    undecided(world.promote(&Rules(|_: &str| Outcome::Silent)));
    assert_eq!(logged(), before + 1, "the gate's scan");
    assert!(matches!(world.promote(&deny()), Ok(Promoted::Denied { .. })));
    assert_eq!(logged(), before + 2, "the same scan is logged once, and the denial");
    assert_allowed(world.promote(&pass()));
    assert_eq!(logged(), before + 5, "three by the decisions key");
}

#[test]
fn tm04_the_gate_scans_an_image_once_for_each_database() {
    let (mut world, _) = World::good();
    world.scans = Some(MemoryScans::default());
    world.dry_run.set(true);
    let scanner = clean_scanner();
    for _ in 0..2 {
        world.promote_scanned(Some(&scanner), &pass()).unwrap();
        assert_eq!(scanner.scanned().len(), 1);
    }
    let documents: Vec<_> = world.evidence.records().iter().map(|record| record.body["document"].clone()).collect();
    assert_eq!(documents[0], documents[1], "the same case is the same decision");
    // A newer database is asked anew.
    let raw = FakeScanner::raw(&[]);
    let newer = FakeScanner::gives(FakeScanner::report(&raw, Digest::of(b"a newer database"), today()));
    world.promote_scanned(Some(&newer), &pass()).unwrap();
    assert_eq!(newer.scanned().len(), 1);
    // What the index says is believed in nothing.
    world.scans.as_ref().unwrap().lead_to(Digest::of(b"nowhere"));
    world.promote_scanned(Some(&scanner), &pass()).unwrap();
    assert_eq!((scanner.scanned().len(), world.scans.as_ref().unwrap().forgotten()), (2, 1));
    world.promote_scanned(Some(&scanner), &pass()).unwrap();
    assert_eq!(scanner.scanned().len(), 2);
}
