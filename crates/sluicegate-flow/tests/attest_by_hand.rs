//! `attest` over a world in memory: what is attached and recorded, and that nothing is where something stands against it.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::json;
use sluicegate_attestation::{
    identifiers::{BUNDLE, IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
};
use sluicegate_flow::{
    Error, Failure, Ports,
    attest_by_hand::{ByHand, ByHandRequest, kind, prepare, sign},
    folders::EnvironmentPlaces,
    verify::verify,
};
use sluicegate_ports::{
    evidence::RecordKind,
    images::ImagePlaceError,
    sign::{Signer, TransparencyLog},
};
use sluicegate_testkit::{
    FakePacker, FixedClock, MemoryEvidence, MemoryLedger, MemoryPlaces, MemoryStore, VirtualBuild, VirtualImage,
    VirtualIndex, VirtualLog, VirtualSigner, today,
};
use sluicegate_types::{Digest, RepositoryPattern};
use sluicegate_verify::{Allowed, Revocation, Role, SignerRule, Trust, TrustRoot};

const PLACE: &str = "/project/out/shop";
const LOG: &str = "log.example";
const REVIEW: &str = "https://example.com/review/v1";
const PREDICATE: &[u8] = br#"{"reviewed": true}"#;
const SBOM: &[u8] =
    br#"{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "application", "name": "server"}]}"#;

struct World {
    log: VirtualLog,
    clock: FixedClock,
    store: MemoryStore,
    places: MemoryPlaces,
    evidence: MemoryEvidence,
    ledger: MemoryLedger,
    image: VirtualImage,
    trust: Trust,
    environments: EnvironmentPlaces,
    told: RefCell<Vec<String>>,
}

/// Places of environments, each with a name of its own.
fn environments_at(folders: &[&str]) -> EnvironmentPlaces {
    let named = |(number, folder): (usize, &&str)| (format!("environment-{number}").parse().unwrap(), (*folder).into());
    folders.iter().enumerate().map(named).collect()
}

fn rule(name: &str, roles: &[Role]) -> SignerRule {
    SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: roles.iter().copied().collect(),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: Allowed::nothing(),
        environments: Allowed::nothing(),
        repositories: Some(vec![RepositoryPattern::Any]),
    }
}

impl World {
    fn new() -> Self {
        Self::trusting(Vec::new())
    }

    fn trusting(revoked: Vec<Revocation>) -> Self {
        let log = VirtualLog::new(LOG);
        let image = VirtualImage::new(b"the layer of the shop");
        let places = MemoryPlaces::new();
        places.put_image(PLACE, &image, Some("v1"));
        places.attach_build(PLACE, &image, &VirtualBuild::new("run-1", image.digest()).sign(&log));
        let mut narrow = rule("narrow", &[Role::Manual]);
        narrow.predicate_types = Some(BTreeSet::from([PredicateType::Sbom]));
        let rules = [
            rule("builder", &[Role::Steps]),
            rule("person", &[Role::Manual]),
            rule("both", &[Role::Steps, Role::Manual]),
            narrow,
        ];
        let mut elsewhere = rule("elsewhere", &[Role::Manual]);
        elsewhere.repositories = Some(vec!["registry.example/shop/*".parse().unwrap()]);
        let mut nowhere = rule("nowhere", &[Role::Manual]);
        nowhere.repositories = None;
        let rules = rules.into_iter().chain([elsewhere, nowhere]).collect();
        let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
        Self {
            trust: Trust::new(rules, BTreeSet::from([LOG.to_owned()]), revoked, root).unwrap(),
            log,
            clock: FixedClock::new(today()),
            store: MemoryStore::new(),
            places,
            evidence: MemoryEvidence::new(),
            ledger: MemoryLedger::new("ledger.example"),
            image,
            environments: environments_at(&["/gateway/env/production"]),
            told: RefCell::new(Vec::new()),
        }
    }

    fn attest(&self, key: &str, type_: &str, predicate: &[u8]) -> Result<ByHand, Error> {
        self.attest_in("oci:out/shop", key, type_, predicate)
    }

    fn attest_in(&self, reference: &str, key: &str, type_: &str, predicate: &[u8]) -> Result<ByHand, Error> {
        let packer = FakePacker::new(&self.store);
        let tell = |line: &str| self.told.borrow_mut().push(line.to_owned());
        let ports = Ports {
            clock: &self.clock,
            store: &self.store,
            places: &self.places,
            packer: &packer,
            log: &self.log,
            evidence: &self.evidence,
            ledger: &self.ledger,
            tell: &tell,
            warn: &tell,
        };
        let signer = VirtualSigner::new(key);
        let request = ByHandRequest {
            reference: &reference.parse().unwrap(),
            folder: Path::new("/project"),
            environments: &self.environments,
            kind: &kind(type_)?,
            predicate,
            trust: &self.trust,
            key,
            public_key: signer.public_key(),
        };
        let prepared = prepare(&ports, &request)?;
        sign(&ports, prepared, &signer)
    }

    /// Refused, and nothing was signed, logged, recorded or attached.
    #[track_caller]
    fn refused(&self, key: &str, type_: &str, predicate: &[u8], says: &str) {
        let before = (self.log.size().unwrap(), self.places.attached(PLACE).len(), self.evidence.records().len());
        let error = self.attest(key, type_, predicate).unwrap_err();
        assert!(error.causes().join(": ").contains(says), "{:?}", error.causes());
        assert_eq!(error.failure(), Failure::Usage);
        let after = (self.log.size().unwrap(), self.places.attached(PLACE).len(), self.evidence.records().len());
        assert_eq!(after, before);
    }
}

#[test]
fn what_is_said_by_hand_is_attached_recorded_and_verifies() {
    let world = World::new();
    let held = world.places.occupant(PLACE);
    let done = world.attest("person", REVIEW, PREDICATE).unwrap();
    assert_eq!((done.image, done.record), (world.image.digest(), 1));
    assert_eq!(world.told.borrow()[0], format!("oci:out/shop is {}", world.image.digest()));
    assert!(done.statement.is_in_role(Role::Manual) && !done.statement.is_in_role(Role::Steps));
    assert_eq!(done.statement.statement().predicate, json!({"reviewed": true}));
    assert_eq!(world.places.occupant(PLACE), held, "image and tags are as they were");
    let manifest = world.places.attached(PLACE).pop().unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some(BUNDLE));
    assert_eq!(manifest.subject.unwrap().digest, world.image.digest());
    assert_eq!(manifest.layers[0].digest, done.statement.bundle());
    assert_eq!(manifest.annotations["dev.sigstore.bundle.predicateType"], REVIEW);
    assert_eq!(manifest.annotations["dev.sigstore.bundle.content"], "dsse-envelope");
    let record = world.evidence.records().pop().unwrap();
    assert_eq!((record.kind, record.outcome.as_str()), (RecordKind::Attestation, "attested"));
    assert_eq!(record.subject, Some(world.image.digest()));
    assert_eq!(record.body["bundle"], json!(done.statement.bundle()));
    assert_eq!(record.body["predicate"], json!(Digest::of(PREDICATE)));
    let reference = "oci:out/shop:v1".parse().unwrap();
    let report = verify(&world.places, &reference, Path::new("/project"), &world.trust, None, today()).unwrap();
    assert_eq!(report.failure(), None);
    let own = report.statements().iter().find(|s| s["bundle"] == json!(done.statement.bundle())).unwrap();
    assert_eq!((&own["status"], &own["signer"]), (&json!("verified"), &json!("person")));
}

#[test]
fn tm06_attest_by_hand_refuses_what_only_machines_say() {
    let world = World::new();
    for type_ in ["provenance", "vulns", "verification-summary", "promotion", "signature"] {
        for key in ["person", "builder", "both"] {
            world.refused(key, type_, PREDICATE, "cannot be attested by hand");
        }
    }
    world.refused("person", "https://slsa.dev/provenance/v0.2", PREDICATE, "cannot be attested by hand");
    for type_ in ["test-result", "vex", REVIEW] {
        world.attest("person", type_, PREDICATE).unwrap();
    }
    world.attest("person", "sbom", SBOM).unwrap();
}

#[test]
fn tm06_attest_by_hand_refuses_a_key_that_trust_does_not_believe_by_hand() {
    let world = World::new();
    world.refused("stranger", REVIEW, PREDICATE, "unknown key");
    world.refused("builder", REVIEW, PREDICATE, "its roles are steps");
    world.refused("builder", "sbom", SBOM, "would say this as steps");
    world.refused("both", "sbom", SBOM, "only role is manual");
    world.refused("narrow", REVIEW, PREDICATE, "may not sign");
    world.refused("elsewhere", REVIEW, PREDICATE, "a layout's folder has no repository name");
    world.refused("nowhere", REVIEW, PREDICATE, "a layout's folder has no repository name");
    world.attest("narrow", "sbom", SBOM).unwrap();
    // Whether an entry is beyond a revocation is known only when it has its place: then it is never attached.
    let revoked = |before| World::trusting(vec![Revocation { signer: "person".to_owned(), before }]);
    revoked(None).refused("person", REVIEW, PREDICATE, "revoked");
    let world = revoked(Some((LOG.to_owned(), 1)));
    let attached = world.places.attached(PLACE).len();
    let error = world.attest("person", REVIEW, PREDICATE).unwrap_err();
    assert!(matches!(error, Error::OwnBundle { .. }), "{error}");
    assert_eq!((world.places.attached(PLACE).len(), world.evidence.records().len()), (attached, 0));
}

#[test]
fn tm01_what_is_said_is_about_the_digest_and_nothing_is_named() {
    let world = World::new();
    let other = VirtualImage::new(b"another");
    let by_digest = format!("oci:out/shop@{}", world.image.digest());
    let done = world.attest_in(&by_digest, "person", REVIEW, PREDICATE).unwrap();
    let subjects = done.statement.statement().subjects.as_slice();
    assert_eq!((subjects.len(), subjects[0].digest, &subjects[0].name), (1, world.image.digest(), &None));
    let absent = format!("oci:out/shop@{}", other.digest());
    assert!(matches!(world.attest_in(&absent, "person", REVIEW, PREDICATE), Err(Error::Place(_))));
    world.places.flip_byte(PLACE, &world.image.digest());
    let error = world.attest("person", REVIEW, PREDICATE).unwrap_err();
    assert_eq!(error.failure(), Failure::Wrong, "{error}");
}

#[test]
fn what_is_said_about_an_index_or_an_image_of_dockers_is_about_that() {
    let world = World::new();
    let docker = VirtualImage::new(b"a layer that Docker named").of_dockers_types();
    let index = VirtualIndex::new(&[(&docker, "amd64")]);
    world.places.clear(PLACE);
    world.places.put_index(PLACE, &index);
    for (reference, what) in [
        ("oci:out/shop".to_owned(), &index.descriptor),
        (format!("oci:out/shop@{}", docker.digest()), &docker.descriptor),
    ] {
        let done = world.attest_in(&reference, "person", REVIEW, PREDICATE).unwrap();
        let subject = done.statement.statement().subjects.first();
        assert_eq!((subject.digest, subject.media_type.as_ref()), (what.digest, Some(&what.media_type)));
        let manifest = world.places.attached(PLACE).pop().unwrap();
        assert_eq!(manifest.subject.unwrap(), *what);
    }
    // What is described as one and is the other, or as neither, is nothing to speak of.
    for (kind, says) in [(IMAGE_MANIFEST, "its manifest"), ("application/vnd.example+json", "not in this version")] {
        let mut odd = VirtualIndex::new(&[(&docker, "amd64")]);
        odd.descriptor.media_type = kind.to_owned();
        world.places.clear(PLACE);
        world.places.put_index(PLACE, &odd);
        let error = world.attest("person", REVIEW, PREDICATE).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(world.places.attached(PLACE).len(), 0);
    }
}

#[test]
fn what_is_said_to_be_cyclonedx_is_cyclonedx() {
    let world = World::new();
    for (predicate, says) in [
        (r#"{"reviewed": true}"#, "bomFormat is \"\""),
        (r#"{"bomFormat": "SPDX", "specVersion": "1.6"}"#, "bomFormat is \"SPDX\""),
        (r#"{"bomFormat": "CycloneDX"}"#, "reads 1.4 to 1.7"),
        (r#"{"bomFormat": "CycloneDX", "specVersion": "2.0"}"#, "CycloneDX 2.0: this version reads 1.4 to 1.7"),
        (r#"{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": {}}"#, "not a CycloneDX JSON document"),
        (r#"{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"version": "1"}]}"#, "has no name"),
    ] {
        for type_ in ["sbom", "https://cyclonedx.org/bom", "https://cyclonedx.org/bom/v1.6"] {
            world.refused("person", type_, predicate.as_bytes(), says);
        }
        // Under a name that promises nothing it is somebody's own affair.
        world.attest("person", "https://cyclonedx.org/bombs", predicate.as_bytes()).unwrap();
    }
    for type_ in ["sbom", "https://cyclonedx.org/bom", "https://cyclonedx.org/bom/v1.6"] {
        world.attest("person", type_, SBOM).unwrap();
    }
}

/// Four components, one inside another.
const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<bom xmlns="http://cyclonedx.org/schema/bom/1.4" version="1"><components>
  <component type="library"><name>outer</name><version>1</version><purl>pkg:npm/outer@1</purl>
    <components><component type="library"><name>inner</name><version>2</version></component></components>
  </component>
</components></bom>"#;

const SPDX: &str = r#"{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0", "name": "tiny",
  "documentNamespace": "https://example.com/tiny", "creationInfo": {"created": "2026-11-25T00:00:00Z", "creators": ["Tool: by-hand"]},
  "packages": [{"SPDXID": "SPDXRef-a", "name": "thing", "versionInfo": "1", "downloadLocation": "NOASSERTION"}]}"#;

#[test]
fn cyclonedx_in_xml_is_signed_as_json_or_not_at_all() {
    let world = World::new();
    for (from, to, says) in [
        ("bom/1.4", "bom/1.6", "of newer ones it reads JSON"),
        ("</bom>", "", "not a CycloneDX XML document"),
        (
            "<name>inner</name>",
            "<name>inner</name><purl>pkg:npm/a@1</purl><purl>pkg:npm/b@1</purl>",
            "could be taken over",
        ),
        ("?>", "?><!DOCTYPE a>", "DOCTYPE"),
    ] {
        assert!(XML.contains(from), "{from}");
        world.refused("person", "sbom", XML.replacen(from, to, 1).as_bytes(), says);
    }
    let said = world.attest("person", "sbom", XML.as_bytes()).unwrap();
    let signed = &said.statement.statement().predicate;
    assert_eq!((&signed["bomFormat"], &signed["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let inner = &signed["components"][0]["components"][0];
    assert_eq!((&inner["name"], &inner["version"]), (&"inner".into(), &"2".into()));
    // Nothing else is read as XML.
    world.refused("person", "https://example.com/review", XML.as_bytes(), "expected value");
}

#[test]
fn what_is_said_to_be_spdx_is_spdx() {
    let world = World::new();
    for (from, to, says) in [
        ("SPDX-2.3", "SPDX-2.2", "SPDX-2.2: of SPDX this version reads only 2.3"),
        ("\"name\": \"thing\"", "\"name\": \"\"", "has no name"),
        ("\"name\": \"thing\", ", "", "no SPDX 2.3: /packages/0"),
        ("\"spdxVersion\"", "\"@graph\": [], \"spdxVersion\"", "SPDX 3"),
        ("\"spdxVersion\"", "\"version\"", "not an SPDX document"),
    ] {
        assert!(SPDX.contains(from), "{from}");
        for type_ in ["spdx", "https://spdx.dev/Document", "https://spdx.dev/Document/v2.3"] {
            world.refused("person", type_, SPDX.replacen(from, to, 1).as_bytes(), says);
        }
    }
    world.refused("person", "spdx", SBOM, "attest it with --type sbom");
    world.refused("person", "sbom", SPDX.as_bytes(), "attest it with --type spdx");
    for type_ in ["spdx", "https://spdx.dev/Document", "https://spdx.dev/Document/v2.3"] {
        world.attest("person", type_, SPDX.as_bytes()).unwrap();
    }
}

#[test]
fn a_predicate_that_would_not_be_read_again_is_never_signed() {
    let world = World::new();
    for (bytes, says) in [
        (&b""[..], "EOF"),
        (b"[]", "no object"),
        (br#"{"a": 1, "a": 2}"#, "stands twice"),
        (b"{} {}", "trailing"),
        (b"\xff", "expected value"),
    ] {
        world.refused("person", REVIEW, bytes, says);
    }
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes();
    world.refused("person", REVIEW, &nested(101), "nested deeper than 100");
    world.refused("person", REVIEW, &nested(129), "recursion limit");
    world.attest("person", REVIEW, &nested(100)).unwrap();
    let long = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length)).into_bytes();
    world.refused("person", REVIEW, &long(13 << 20), "its bundle would have");
    world.refused("person", REVIEW, &long(17 << 20), "larger than the limit");
    world.attest("person", REVIEW, &long(11 << 20)).unwrap();
}

#[test]
fn an_environments_place_changes_only_by_promote() {
    let world = World::new();
    world.places.mark_environment(PLACE, "staging");
    let error = world.attest("person", REVIEW, PREDICATE).unwrap_err();
    assert!(
        matches!(&error, Error::Place(ImagePlaceError::OfEnvironment { environment, .. }) if environment == "staging")
    );
    let mut world = World::new();
    world.environments = environments_at(&["/gateway/env/production", PLACE]);
    world.refused("person", REVIEW, PREDICATE, "changes only by promote");
    world.environments = environments_at(&["/gateway/env/production"]);
    world.attest("person", REVIEW, PREDICATE).unwrap();
}

#[test]
fn what_was_signed_and_could_not_be_attached_is_on_record_as_both() {
    let world = World::new();
    world.places.break_publish(PLACE);
    let error = world.attest("person", REVIEW, PREDICATE).unwrap_err();
    assert_eq!(error.failure(), Failure::Unavailable);
    let outcomes: Vec<String> = world.evidence.records().into_iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, ["attested", "failed"]);
}
