//! Who is trusted in these tests, and bundles to change.
#![allow(dead_code, reason = "each test binary uses another part of it")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{VirtualLog, VirtualSigner};
use sluicegate_types::{Digest, NonEmpty, RepositoryPattern};
use sluicegate_verify::{Revocation, Role, SignerRule, Trust, TrustRoot};

pub(crate) const LOG: &str = "log.example";
pub(crate) const GATE: &str = "https://example.com/gate";

/// The signer `name` with every role, id and environment that it could have; tests take away.
pub(crate) fn rule(name: &str, roles: &[Role]) -> SignerRule {
    SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: roles.iter().copied().collect(),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: [GATE.to_owned()].into_iter().collect(),
        environments: ["production".parse().unwrap()].into_iter().collect(),
        repositories: Some(vec![RepositoryPattern::Any]),
    }
}

/// One signer for each role.
pub(crate) fn rules() -> Vec<SignerRule> {
    vec![
        rule("builder", &[Role::Steps]),
        rule("decider", &[Role::Decisions]),
        rule("recorder", &[Role::Records]),
        rule("person", &[Role::Manual]),
    ]
}

pub(crate) fn trust(log: &VirtualLog) -> Trust {
    trust_in(rules(), log)
}

pub(crate) fn trust_in(rules: Vec<SignerRule>, log: &VirtualLog) -> Trust {
    trust_of(rules, Vec::new(), &log.trusted_root_json())
}

pub(crate) fn trust_of(rules: Vec<SignerRule>, revoked: Vec<Revocation>, root: &[u8]) -> Trust {
    Trust::new(rules, BTreeSet::from([LOG.to_owned()]), revoked, TrustRoot::parse(root).unwrap()).unwrap()
}

pub(crate) fn image() -> Digest {
    Digest::of(b"image")
}

pub(crate) fn about_image(predicate_type: PredicateType, predicate: Value) -> Statement {
    let subject =
        Subject { name: Some("shop".to_owned()), digest: image(), media_type: Some(IMAGE_MANIFEST.to_owned()) };
    Statement { subjects: NonEmpty::one(subject), predicate_type, predicate }
}

pub(crate) fn sbom() -> Statement {
    about_image(PredicateType::Sbom, json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}))
}

/// The bundle with `change` made to its JSON.
pub(crate) fn changed(bundle: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bundle).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

/// The text with its first digit or letter exchanged; base64 stays base64.
pub(crate) fn flipped(text: &str) -> String {
    let other = if text.starts_with('A') { "B" } else { "A" };
    format!("{other}{}", &text[1..])
}
