use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sluicegate_attestation::{bundle::key_hint, predicate::PredicateType};
use sluicegate_types::EnvironmentName;

use crate::TrustRoot;

/// Who is trusted to say what, and which logs count: trust.yaml and trusted_root.json as one value.
#[derive(Debug)]
pub struct Trust {
    signers: BTreeMap<String, SignerRule>,
    by_hint: BTreeMap<String, String>,
    pub(crate) untimed: BTreeSet<String>,
    pub(crate) revoked: Vec<Revocation>,
    pub(crate) root: TrustRoot,
}

/// What one signer may say (trust model 6). A list that is empty allows nothing.
#[derive(Clone, Debug)]
pub struct SignerRule {
    /// Its name in trust.yaml.
    pub name: String,
    /// Its P-256 key as DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// In which roles it speaks.
    pub roles: BTreeSet<Role>,
    /// What it may sign; `None` is what its roles allow.
    pub predicate_types: Option<BTreeSet<PredicateType>>,
    /// The builders it may claim in provenance.
    pub builder_ids: BTreeSet<String>,
    /// The verifiers it may claim in verification summaries.
    pub verifier_ids: BTreeSet<String>,
    /// The environments it decides for.
    pub environments: BTreeSet<EnvironmentName>,
}

/// A role of trust.yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Says what steps did.
    Steps,
    /// Decides for an environment; signs nothing but what was allowed.
    Decisions,
    /// Keeps records: denials, ungated promotions, the gate's own scans.
    Records,
    /// Says something by hand.
    Manual,
}

impl Role {
    /// The role with this name in trust.yaml.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Steps, Self::Decisions, Self::Records, Self::Manual].into_iter().find(|role| role.name() == name)
    }

    /// Its name in trust.yaml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Decisions => "decisions",
            Self::Records => "records",
            Self::Manual => "manual",
        }
    }

    /// Whether this role may sign this type at all.
    pub(crate) fn may_sign(self, predicate: &PredicateType) -> bool {
        use PredicateType as P;
        match self {
            Self::Steps => matches!(predicate, P::Provenance | P::Sbom | P::Vulns | P::TestResult),
            Self::Decisions => matches!(predicate, P::VerificationSummary | P::Promotion | P::ImageSignature),
            Self::Records => matches!(predicate, P::Vulns | P::VerificationSummary | P::Promotion),
            Self::Manual => matches!(predicate, P::Sbom | P::TestResult | P::Other(_)),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A signer that is not believed any more.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The signer.
    pub signer: String,
    /// Entries of this log below this index still count; those beyond it and those of other logs don't. `None`: nothing counts.
    /// (A date alone is `None` too: key-signed entries carry no time, and untimed ones are refused; trust model 14.)
    pub before: Option<(String, u64)>,
}

impl Trust {
    /// Joins signers, log trust and revocations.
    pub fn new(
        signers: Vec<SignerRule>,
        untimed: BTreeSet<String>,
        revoked: Vec<Revocation>,
        root: TrustRoot,
    ) -> Result<Self, TrustError> {
        let mut by_hint = BTreeMap::new();
        for signer in &signers {
            if let Some(other) = by_hint.insert(key_hint(&signer.public_key), signer.name.clone()) {
                return Err(TrustError::SameKey { one: other, two: signer.name.clone() });
            }
        }
        if signers.is_empty() {
            return Err(TrustError::NoSigner);
        }
        let signers: BTreeMap<_, _> = signers.into_iter().map(|signer| (signer.name.clone(), signer)).collect();
        for line in &revoked {
            if !signers.contains_key(&line.signer) {
                return Err(TrustError::RevokedStranger { signer: line.signer.clone() });
            }
        }
        Ok(Self { signers, by_hint, untimed, revoked, root })
    }

    /// The signer whose key this hint names.
    pub(crate) fn signer_by_hint(&self, hint: &str) -> Option<&SignerRule> {
        self.by_hint.get(hint).and_then(|name| self.signers.get(name))
    }
}

/// Why signers can't be trusted together.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Two names for one key: roles could no longer be told apart.
    #[error("signers {one} and {two} have the same key: every role needs a key of its own")]
    SameKey {
        /// One.
        one: String,
        /// The other.
        two: String,
    },
    /// Nobody.
    #[error("no signer is trusted, so nothing could be verified")]
    NoSigner,
    /// A revocation that would silently do nothing.
    #[error("revoked names {signer:?}, which is no signer of this file")]
    RevokedStranger {
        /// The name.
        signer: String,
    },
}
