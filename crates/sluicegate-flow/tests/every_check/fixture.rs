//! What the scenarios share: who is trusted, one image, and how a question was answered.

use std::{collections::BTreeSet, fmt::Display};

use serde_json::Value;
use sluicegate_attestation::{
    bundle::Bundle,
    identifiers::{IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{VirtualBuild, VirtualLog, VirtualSigner};
use sluicegate_types::{Digest, NonEmpty, RepositoryPattern};
use sluicegate_verify::{Revocation, Role, SignerRule, Trust, TrustRoot, TrustRules};

pub(crate) use crate::gate_world::{GATE, environment, promotion, summary};

pub(crate) const LOG: &str = "log.example";
pub(crate) const OTHER_GATE: &str = "https://example.com/other-gate";

/// Accepted, or refused in these words.
pub(crate) type Said = Result<(), String>;

pub(crate) fn said<T, E: Display>(result: Result<T, E>) -> Said {
    result.map(drop).map_err(|error| error.to_string())
}

/// What became of a good input, and of the same with one fault each.
pub(crate) struct Tried {
    good: Said,
    /// What is wrong, what it must be refused with, what became of it.
    faults: Vec<(&'static str, &'static str, Said)>,
}

impl Tried {
    pub(crate) fn good(good: Said) -> Self {
        Self { good, faults: Vec::new() }
    }

    /// `what` is wrong, and the refusal must say `words`.
    pub(crate) fn fault(mut self, what: &'static str, words: &'static str, said: Said) -> Self {
        self.faults.push((what, words, said));
        self
    }

    /// The good one is accepted, and each fault refused with its own reason.
    pub(crate) fn holds(&self) -> Said {
        self.good.clone().map_err(|reason| format!("without a fault: {reason}"))?;
        for (what, words, said) in &self.faults {
            match said {
                Err(reason) if reason.contains(words) => {}
                Err(reason) => return Err(format!("{what}: not {words:?} but {reason:?}")),
                Ok(()) => return Err(format!("{what}: accepted")),
            }
        }
        if self.faults.is_empty() { Err("nothing was tried".to_owned()) } else { Ok(()) }
    }

    /// Everything is accepted, the faults too.
    pub(crate) fn gets_through(&self) -> Said {
        self.good.clone().map_err(|reason| format!("without a fault: {reason}"))?;
        for (what, _, said) in &self.faults {
            said.clone().map_err(|reason| format!("{what}: still refused: {reason}"))?;
        }
        Ok(())
    }
}

pub(crate) fn image() -> Digest {
    Digest::of(b"image")
}

/// The signer `name` with every id and environment that it could have; scenarios take away.
pub(crate) fn rule(name: &str, roles: &[Role]) -> SignerRule {
    SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: roles.iter().copied().collect(),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: [GATE.to_owned(), OTHER_GATE.to_owned()].into_iter().collect(),
        environments: ["production", "staging"].map(environment).into_iter().collect(),
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

pub(crate) fn trust_in(signers: Vec<SignerRule>, log: &VirtualLog) -> Trust {
    trust_of(signers, Vec::new(), &log.trusted_root_json())
}

/// Trust that takes decisions of authority `self`.
pub(crate) fn trust_of(signers: Vec<SignerRule>, revoked: Vec<Revocation>, root: &[u8]) -> Trust {
    let untimed = BTreeSet::from([LOG.to_owned()]);
    let rules = TrustRules { signers, untimed, revoked, authority_self: true, ..TrustRules::default() };
    Trust::from_rules(rules, TrustRoot::parse(root).unwrap()).unwrap()
}

pub(crate) fn of_image(image: Digest) -> NonEmpty<Subject> {
    NonEmpty::one(Subject { name: Some("shop".to_owned()), digest: image, media_type: Some(IMAGE_MANIFEST.to_owned()) })
}

pub(crate) fn about(image: Digest, predicate_type: PredicateType, predicate: Value) -> Statement {
    Statement { subjects: of_image(image), predicate_type, predicate }
}

/// The statement of one part of a good build.
pub(crate) fn part(build: &VirtualBuild, part: &str) -> Statement {
    let signed = build.sign(&VirtualLog::new("aside.example"));
    Statement::parse(&Bundle::parse(&signed.bundles[part]).unwrap().payload).unwrap()
}

/// The bundle with `change` made to its JSON.
pub(crate) fn changed(bundle: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bundle).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}
