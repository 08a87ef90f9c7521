//! A file with its bundle, and what a person says about an image.

use std::path::Path;

use serde_json::json;
use sluicegate_attestation::{
    identifiers::{IMAGE_MANIFEST, LAYER_TAR},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{
    attest_by_hand::{ByHandRequest, kind, prepare, sign},
    verify_file::{Asked, verify_file},
};
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, NonEmpty};
use sluicegate_verify::{GroupRule, Role, SignerRule, Trust, TrustRoot, TrustRules};

use crate::{
    fixture::{LOG, Said, Tried, environment, rule, rules, said, trust, trust_in},
    gate_world::{SOURCE, World},
};

/// Whether a bundle about these bytes of this kind is about the file.
fn verifies(bytes: &[u8], media_type: Option<&str>) -> Said {
    verifies_by(bytes, media_type, &trust(&VirtualLog::new(LOG)))
}

fn verifies_by(bytes: &[u8], media_type: Option<&str>, trust: &Trust) -> Said {
    let log = VirtualLog::new(LOG);
    let subject = Subject {
        name: Some("the file".to_owned()),
        digest: Digest::of(bytes),
        media_type: media_type.map(str::to_owned),
    };
    let statement = Statement {
        subjects: NonEmpty::one(subject),
        predicate_type: PredicateType::Other("https://example.com/review/v1".to_owned()),
        predicate: json!({}),
    };
    let bundle = sign_statement(&VirtualSigner::new("person"), &log, &statement);
    said(verify_file(Asked::Bytes(&mut &b"the file"[..]), Path::new("b.json"), &bundle, trust, today()))
}

pub(crate) fn tm01_a_bundle_verifies_its_own_file_only() -> Tried {
    Tried::good(verifies(b"the file", None)).fault("another's", "about something else", verifies(b"another", None))
}

pub(crate) fn tm06_a_members_word_for_its_group_is_not_its_own_about_a_file() -> Tried {
    let ask = |grouped: bool| {
        let group = GroupRule {
            name: "reviewers".to_owned(),
            threshold: 2,
            of: ["person", "another"].map(str::to_owned).into(),
            roles: [Role::Manual].into(),
            predicate_types: None,
            repositories: None,
        };
        let rules = TrustRules {
            signers: ["person", "another"].map(|name| rule(name, &[Role::Manual])).into(),
            groups: grouped.then_some(group).into_iter().collect(),
            untimed: [LOG.to_owned()].into(),
            ..TrustRules::default()
        };
        let root = TrustRoot::parse(&VirtualLog::new(LOG).trusted_root_json()).unwrap();
        verifies_by(b"the file", None, &Trust::from_rules(rules, root).unwrap())
    };
    Tried::good(ask(false)).fault("a member's", "says this only together with others", ask(true))
}

pub(crate) fn tm01_an_image_or_a_directory_is_no_file() -> Tried {
    Tried::good(verifies(b"the file", Some("text/plain")))
        .fault("an image", "which is no file", verifies(b"the file", Some(IMAGE_MANIFEST)))
        .fault("a directory", "which is no file", verifies(b"the file", Some(LAYER_TAR)))
}

pub(crate) fn tm06_nobody_says_by_hand_what_only_machines_say() -> Tried {
    let ask = |text: &str| said(kind(text));
    let words = "cannot be attested by hand";
    let kinds = ["provenance", "vulns", "verification-summary", "promotion", "signature"];
    let older = ["https://slsa.dev/provenance/v0.2", "http://SLSA.dev/Provenance/v1?x"];
    let tried = Tried::good(ask("sbom").and(ask("https://example.com/review/v1")));
    kinds.into_iter().chain(older).fold(tried, |tried, kind| tried.fault(kind, words, ask(kind)))
}

/// What becomes of an SBOM by hand.
fn attested(world: &World, key: &str, staging: Option<&str>) -> Said {
    let narrow =
        SignerRule { repositories: Some(vec!["oci:production".parse().unwrap()]), ..rule("narrow", &[Role::Manual]) };
    let trust = trust_in(rules().into_iter().chain([narrow]).collect(), &world.log);
    let signer = VirtualSigner::new(key);
    let request = ByHandRequest {
        reference: &"oci:out/shop".parse().unwrap(),
        folder: Path::new("/project"),
        environments: &staging.map(|place| (environment("staging"), place.into())).into_iter().collect(),
        kind: &PredicateType::Sbom,
        predicate: br#"{"bomFormat": "CycloneDX", "specVersion": "1.6"}"#,
        trust: &trust,
        key,
        public_key: signer.public_key(),
    };
    let before = world.places.attached(SOURCE).len();
    let said =
        said(world.with_ports(|ports| prepare(ports, &request).and_then(|prepared| sign(ports, prepared, &signer))));
    assert_eq!(world.places.attached(SOURCE).len(), before + usize::from(said.is_ok()));
    said
}

pub(crate) fn tm06_a_machines_key_says_nothing_by_hand() -> Tried {
    let ask = |key: &str| attested(&World::good().0, key, None);
    Tried::good(ask("person")).fault("the builder's", "would say this as steps", ask("builder")).fault(
        "of another place",
        "would not believe narrow about",
        ask("narrow"),
    )
}

pub(crate) fn tm10_nothing_is_attached_by_hand_in_an_environments_place() -> Tried {
    let (marked, _) = World::good();
    marked.places.mark_environment(SOURCE, "staging");
    Tried::good(attested(&World::good().0, "person", None))
        .fault("a marked place", "is the place of the environment staging", attested(&marked, "person", None))
        .fault("the gateway's", "changes only by promote", attested(&World::good().0, "person", Some(SOURCE)))
}
