//! `verify` of a file with its bundle, and what the report of an image lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    bundle::Bundle,
    identifiers::{BUNDLE, DENIAL_ARTIFACT, IMAGE_MANIFEST, LAYER_TAR, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{
    Error, Failure,
    gateway::trust_in_key,
    verify::{VerifyReport, verify},
    verify_file::{Asked, FileReport, verify_file},
};
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{
    MemoryPlaces, PARTS, SignedBuild, VirtualBuild, VirtualImage, VirtualLog, VirtualSigner, sign_payload,
    sign_statement, today,
};
use sluicegate_types::{Digest, NonEmpty, RepositoryPattern};
use sluicegate_verify::{Allowed, Role, SignerRule, Trust, TrustRoot};

const LOG: &str = "log.example";
const PLACE: &str = "/project/out/shop";
const FILE: &[u8] = b"the file";

fn trust(log: &VirtualLog) -> Trust {
    let rule = |name: &str, role: Role| SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: BTreeSet::from([role]),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: Allowed::nothing(),
        environments: Allowed::nothing(),
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
    let rules = vec![rule("builder", Role::Steps), rule("person", Role::Manual)];
    Trust::new(rules, BTreeSet::from([LOG.to_owned()]), vec![], root).unwrap()
}

fn about(subjects: &[(&str, &[u8], Option<&str>)]) -> Statement {
    let subjects: Vec<Subject> = subjects
        .iter()
        .map(|(name, bytes, kind)| Subject {
            name: Some((*name).to_owned()),
            digest: Digest::of(bytes),
            media_type: kind.map(str::to_owned),
        })
        .collect();
    Statement {
        subjects: NonEmpty::try_from(subjects).unwrap(),
        predicate_type: PredicateType::Other("https://example.com/review/v1".to_owned()),
        predicate: json!({}),
    }
}

fn asked(bundle: &[u8], log: &VirtualLog) -> Result<FileReport, Error> {
    let by_digest = verify_file(Asked::Digest(Digest::of(FILE)), Path::new("b.json"), bundle, &trust(log), today());
    let by_bytes = verify_file(Asked::Bytes(&mut &FILE[..]), Path::new("b.json"), bundle, &trust(log), today());
    assert_eq!(by_digest.is_ok(), by_bytes.is_ok(), "a file and its digest are one question");
    by_bytes
}

#[test]
fn tm01_a_file_verifies_by_its_digest_whatever_it_is_called() {
    let log = VirtualLog::new(LOG);
    for subjects in [
        &[("shop", FILE, None)][..],
        &[("../../etc/passwd", FILE, Some("application/octet-stream"))],
        &[("a", b"one", None), ("a", FILE, None), ("b", b"two", None)],
    ] {
        let report = asked(&sign_statement(&VirtualSigner::new("person"), &log, &about(subjects)), &log).unwrap();
        let document = report.to_json();
        assert_eq!(document["file"], json!(Digest::of(FILE)));
        assert_eq!((&document["verified"], &document["gateAsked"]), (&json!(true), &json!(false)));
        assert_eq!(document["statement"]["signer"], "person");
        assert_eq!(document["statement"]["log"]["origin"], LOG);
    }
}

#[test]
fn tm01_a_bundle_about_something_else_is_wrong_and_both_digests_are_said() {
    let log = VirtualLog::new(LOG);
    let refused = |subjects: &[(&str, &[u8], Option<&str>)], says: &str| {
        let error = asked(&sign_statement(&VirtualSigner::new("person"), &log, &about(subjects)), &log).unwrap_err();
        assert_eq!((error.failure(), error.reason()), (Failure::Wrong, Some("other_content")));
        assert!(error.to_string().contains(&Digest::of(FILE).to_string()), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&[("the file", b"other", None)], &Digest::of(b"other").to_string());
    refused(&[("the file", FILE, Some(IMAGE_MANIFEST))], "which is no file");
    refused(&[("the file", FILE, Some(LAYER_TAR))], "which is no file");
    let many: Vec<(&str, &[u8], Option<&str>)> = ["a", "b", "c", "d", "e", "f"].map(|n| (n, n.as_bytes(), None)).into();
    refused(&many, "2 more");
}

#[test]
fn what_is_wrong_with_a_named_bundle_has_its_own_kind_and_word() {
    let log = VirtualLog::new(LOG);
    let person = VirtualSigner::new("person");
    let statement = about(&[("shop", FILE, None)]);
    let good = sign_statement(&person, &log, &statement);
    asked(&good, &log).unwrap();
    let payload = String::from_utf8(statement.to_payload().unwrap()).unwrap();
    let hex = Digest::of(FILE).hex();
    let malformed = payload.replace(&hex, &format!("sha256:{hex}"));
    let changed = |pointer: &str, value: Value| {
        let mut bundle: Value = serde_json::from_slice(&good).unwrap();
        *bundle.pointer_mut(pointer).unwrap() = value;
        serde_json::to_vec(&bundle).unwrap()
    };
    let mut flipped = Bundle::parse(&good).unwrap().signature;
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let flipped = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.encode(flipped)
    };
    for (bundle, failure, word) in [
        (sign_payload(&person, &log, malformed.as_bytes()), Failure::Wrong, "subject_digest_malformed"),
        (sign_statement(&VirtualSigner::new("stranger"), &log, &statement), Failure::Wrong, "unknown_signer"),
        (sign_statement(&VirtualSigner::new("builder"), &log, &statement), Failure::Wrong, "role"),
        (changed("/dsseEnvelope/signatures/0/sig", json!(flipped)), Failure::Wrong, "signature"),
        (changed("/verificationMaterial/tlogEntries", json!([])), Failure::Wrong, "malformed"),
        (b"{}".to_vec(), Failure::Wrong, "malformed"),
        ([&good[..], &good].concat(), Failure::Usage, "not_one_bundle"),
        (Vec::new(), Failure::Usage, "not_one_bundle"),
        (b"not JSON".to_vec(), Failure::Usage, "not_one_bundle"),
        (vec![b' '; (16 << 20) + 1], Failure::Usage, "not_one_bundle"),
    ] {
        let error = asked(&bundle, &log).unwrap_err();
        assert_eq!((error.failure(), error.reason()), (failure, Some(word)), "{:?}", error.causes());
    }
    let two = asked(&[&good[..], b"\n", &good].concat(), &log).unwrap_err();
    assert_eq!(two.to_string(), "b.json: it holds 2 bundles; one is supported");
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_is_not_verified() {
    struct Breaks;
    impl std::io::Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the line went dead"))
        }
    }
    let log = VirtualLog::new(LOG);
    let bundle = sign_statement(&VirtualSigner::new("person"), &log, &about(&[("shop", FILE, None)]));
    let error = verify_file(Asked::Bytes(&mut Breaks), Path::new("b"), &bundle, &trust(&log), today()).unwrap_err();
    assert_eq!(error.failure(), Failure::Unavailable);
}

#[test]
fn a_key_that_was_named_says_provenance_of_any_builder() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let log = VirtualLog::new(LOG);
    let signer = VirtualSigner::new("somebody");
    let mut statement = about(&[("shop", FILE, None)]);
    statement.predicate_type = PredicateType::Provenance;
    statement.predicate = json!({"buildDefinition": {"buildType": "x:y"}, "runDetails": {"builder": {"id": "x:z"}}});
    let bundle = sign_statement(&signer, &log, &statement);
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(signer.public_key()));
    let trust = trust_in_key(pem.as_bytes(), &log.trusted_root_json()).unwrap();
    let ask = |bundle: &[u8]| verify_file(Asked::Digest(Digest::of(FILE)), Path::new("b"), bundle, &trust, today());
    assert_eq!(ask(&bundle).unwrap().statement.signer(), "--key");
    assert!(ask(&sign_statement(&VirtualSigner::new("another"), &log, &statement)).is_err());
}

// What the report of an image lists.

struct World {
    log: VirtualLog,
    places: MemoryPlaces,
    image: VirtualImage,
    build: SignedBuild,
}

impl World {
    fn new(build: impl FnOnce(VirtualBuild) -> VirtualBuild) -> Self {
        let log = VirtualLog::new(LOG);
        let image = VirtualImage::new(b"the layer of the shop");
        let build = build(VirtualBuild::new("run-1", image.digest())).sign(&log);
        let places = MemoryPlaces::new();
        places.put_image(PLACE, &image, None);
        places.attach_build(PLACE, &image, &build);
        Self { log, places, image, build }
    }

    fn bare() -> Self {
        let world = Self::new(|build| build);
        let places = MemoryPlaces::new();
        places.put_image(PLACE, &world.image, None);
        Self { places, ..world }
    }

    /// The report, in which every bundle stands once.
    fn verify(&self) -> VerifyReport {
        let reference = "oci:out/shop".parse().unwrap();
        let report = verify(&self.places, &reference, Path::new("/project"), &trust(&self.log), None, today()).unwrap();
        let mut seen = BTreeSet::new();
        for statement in report.statements() {
            assert!(seen.insert(statement["bundle"].to_string()), "twice: {statement}");
        }
        report
    }

    fn attach(&self, bundle: &[u8]) -> Digest {
        self.places.attach(PLACE, &self.image, BUNDLE, &[(BUNDLE, bundle)]);
        Digest::of(bundle)
    }
}

fn statuses(report: &VerifyReport) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for statement in report.statements() {
        *out.entry(statement["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    out
}

fn entry(report: &VerifyReport, bundle: &Digest) -> Value {
    report.statements().iter().find(|s| s["bundle"] == json!(bundle)).unwrap().clone()
}

fn codes(report: &VerifyReport) -> Vec<&'static str> {
    report.reasons().iter().map(|(code, _)| *code).collect()
}

fn counts(verified: usize, others: &[(&str, usize)]) -> BTreeMap<String, usize> {
    others.iter().copied().chain([("verified", verified)]).map(|(status, n)| (status.to_owned(), n)).collect()
}

#[test]
fn every_statement_of_a_whole_set_is_listed_once_as_verified() {
    let world = World::new(|build| build);
    let report = world.verify();
    assert_eq!((statuses(&report), report.failure()), (counts(PARTS.len(), &[]), None));
    assert_eq!(report.reasons(), []);
    let sbom = entry(&report, &world.build.digest("sbom"));
    assert_eq!((&sbom["signer"], &sbom["time"]["source"]), (&json!("builder"), &json!("none")));
    assert!(sbom["keyId"].as_str().unwrap().ends_with('=') && sbom["log"]["index"].is_u64());
}

#[test]
fn a_named_statement_that_is_not_there_is_listed_as_missing_and_the_others_as_verified() {
    let world = World::new(|build| build);
    for part in ["build", "test", "package", "sbom", "vulns"] {
        let world = World::new(|build| build);
        let digest = world.build.digest(part);
        world.places.drop_blob(PLACE, &digest);
        let report = world.verify();
        assert_eq!(
            (statuses(&report), report.failure()),
            (counts(PARTS.len() - 1, &[("missing", 1)]), Some(Failure::Undecided))
        );
        assert_eq!(entry(&report, &digest)["name"], format!("attestation:{part}"));
        assert_eq!(codes(&report), ["missing"]);
    }
    let report_digest = Digest::of(&world.build.report);
    world.places.drop_blob(PLACE, &report_digest);
    let report = world.verify();
    assert_eq!(statuses(&report), counts(PARTS.len(), &[("missing", 1)]));
    assert_eq!(entry(&report, &report_digest)["status"], "missing");
}

#[test]
fn two_named_statements_that_are_gone_are_both_listed() {
    let world = World::new(|build| build);
    for part in ["build", "vulns"] {
        world.places.drop_blob(PLACE, &world.build.digest(part));
    }
    assert_eq!(statuses(&world.verify()), counts(PARTS.len() - 2, &[("missing", 2)]));
}

#[test]
fn a_named_statement_that_is_not_to_be_believed_is_broken_and_listed_once() {
    for part in ["build", "sbom"] {
        let world = World::new(|build| build.with_signer(part, "stranger"));
        let report = world.verify();
        assert_eq!(
            (statuses(&report), report.failure()),
            (counts(PARTS.len() - 1, &[("broken", 1)]), Some(Failure::Wrong)),
            "{part}"
        );
        let broken = entry(&report, &world.build.digest(part));
        assert!(broken["reason"].as_str().unwrap().contains("unknown key"), "{broken}");
        assert_eq!(codes(&report), ["broken"]);
    }
}

#[test]
fn what_else_is_attached_is_ignored_with_its_reason() {
    let world = World::new(|build| build);
    let review = sign_statement(&VirtualSigner::new("stranger"), &world.log, &about(&[("shop", b"x", None)]));
    let elsewhere = sign_statement(&VirtualSigner::new("person"), &world.log, &about(&[("shop", b"x", None)]));
    let (stranger, elsewhere, junk) = (world.attach(&review), world.attach(&elsewhere), world.attach(b"junk"));
    let gone = world.attach(b"soon gone");
    world.places.drop_blob(PLACE, &gone);
    let report = world.verify();
    assert_eq!((statuses(&report), report.failure()), (counts(PARTS.len(), &[("ignored", 4)]), None));
    for (bundle, says) in [
        (stranger, "unknown key"),
        (elsewhere, "about something else"),
        (junk, "the bundle"),
        (gone, "its bytes are not there"),
    ] {
        let reason = entry(&report, &bundle)["reason"].to_string();
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn what_came_with_what_is_attached_is_listed_too_and_what_is_not_verified_with_its_claims() {
    let world = World::new(|build| build);
    let of = |signer: &str| sign_statement(&VirtualSigner::new(signer), &world.log, &about(&[("shop", b"x", None)]));
    let (person, stranger) = (of("person"), of("stranger"));
    world.places.attach(
        PLACE,
        &world.image,
        DENIAL_ARTIFACT,
        &[(BUNDLE, &person), (BUNDLE, &stranger), ("text/plain", b"x")],
    );
    let broken = World::new(|build| build.with_signer("sbom", "stranger"));
    let report = world.verify();
    assert_eq!((statuses(&report), report.failure()), (counts(PARTS.len() + 1, &[("ignored", 1)]), None));
    let listed = entry(&report, &Digest::of(&person));
    assert_eq!((&listed["status"], &listed["signer"]), (&json!("verified"), &json!("person")));
    assert!(listed["beside"].as_str().unwrap().contains("no provenance names it"));
    let ignored = entry(&report, &Digest::of(&stranger));
    let claims = &ignored["claims"];
    assert_eq!((&claims["signer"], &claims["predicateType"]), (&Value::Null, &listed["predicateType"]));
    assert!(claims["keyId"].as_str().unwrap().ends_with('=') && claims["log"]["index"].is_u64(), "{ignored}");
    assert_eq!(claims["time"], json!({"source": "none"}));
    // A time that a bundle says of itself is told as its claim.
    let mut dated: Value = serde_json::from_slice(&stranger).unwrap();
    dated["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!("1795000000");
    let dated = serde_json::to_vec(&dated).unwrap();
    world.attach(&dated);
    let claimed = entry(&world.verify(), &Digest::of(&dated))["claims"]["time"].clone();
    assert_eq!(claimed, json!({"source": "integratedTime", "seconds": 1_795_000_000_u64}));
    let zero = String::from_utf8(dated).unwrap().replace("\"1795000000\"", "\"0\"");
    world.attach(zero.as_bytes());
    assert_eq!(entry(&world.verify(), &Digest::of(zero.as_bytes()))["claims"]["time"], json!({"source": "none"}));
    let listed = entry(&broken.verify(), &broken.build.digest("sbom"));
    assert_eq!(
        (&listed["status"], &listed["claims"]["predicateType"]),
        (&json!("broken"), &json!("https://cyclonedx.org/bom"))
    );
}

#[test]
fn tr_27_none_attached_and_none_usable_are_two_answers() {
    let world = World::bare();
    let report = world.verify();
    assert_eq!((codes(&report), report.failure()), (vec!["none_attached"], Some(Failure::Undecided)));
    assert_eq!(report.statements(), [] as [Value; 0]);

    let foreign = World::new(|build| build.with_signer("image", "stranger"));
    world.attach(&foreign.build.bundles["image"]);
    let report = world.verify();
    assert_eq!((codes(&report), report.failure()), (vec!["none_usable"], Some(Failure::Undecided)));
    let text = &report.reasons()[0].1;
    let key = |name: &str| sluicegate_attestation::bundle::key_hint(VirtualSigner::new(name).public_key());
    assert!(text.contains("1 attached, 0 usable"), "{text}");
    assert!(text.contains(&format!("signed by key {}", key("stranger"))), "{text}");
    assert!(text.contains(&format!("expected builder (key {})", key("builder"))), "{text}");

    world.attach(&world.build.bundles["sbom"]);
    let report = world.verify();
    assert_eq!(codes(&report), ["no_provenance"]);
    assert!(report.reasons()[0].1.contains("2 attached, 1 verified"), "{:?}", report.reasons());
}

#[test]
fn layers_are_hashed_of_what_its_evidence_proves_and_of_nothing_else() {
    let log = VirtualLog::new(LOG);
    let image = VirtualImage::new(b"the layer of the shop");
    let places = MemoryPlaces::new();
    places.put_image(PLACE, &image, None);
    let ask = || {
        let reference = format!("oci:{PLACE}").parse().unwrap();
        verify(&places, &reference, Path::new("/"), &trust(&log), None, today()).map(|report| report.failure())
    };
    places.flip_byte(PLACE, &image.layer);
    assert_eq!(ask().unwrap(), Some(Failure::Undecided), "it proves nothing, however large its layers are");
    places.attach_build(PLACE, &image, &VirtualBuild::new("run-1", image.digest()).sign(&log));
    let error = ask().unwrap_err();
    assert_eq!(error.failure(), Failure::Wrong, "{error}");
    places.flip_byte(PLACE, &image.layer);
    assert_eq!(ask().unwrap(), None);
}
