use std::{collections::BTreeSet, fmt};

use sluicegate_attestation::predicate::PredicateType;
use sluicegate_types::{EnvironmentName, RepositoryPattern};

/// What one signer may say (trust model 6). A list that is empty allows nothing.
#[derive(Clone, Debug)]
pub struct SignerRule {
    /// Its name in trust.yaml.
    pub name: String,
    /// Its P-256 key as DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// In which roles it speaks. None: it only counts towards groups.
    pub roles: BTreeSet<Role>,
    /// What it may sign; `None` is what its roles allow.
    pub predicate_types: Option<BTreeSet<PredicateType>>,
    /// The builders it may claim in provenance.
    pub builder_ids: Allowed<String>,
    /// The verifiers it may claim in verification summaries.
    pub verifier_ids: Allowed<String>,
    /// The environments it decides for.
    pub environments: Allowed<EnvironmentName>,
    /// The repositories it may speak about; see [`Trust::covers`](crate::Trust::covers) for what `None` means.
    pub repositories: Option<Vec<RepositoryPattern>>,
}

/// Signers that say something only together: a threshold of them, over the same bytes. A group has no key.
#[derive(Clone, Debug)]
pub struct GroupRule {
    /// Its name in trust.yaml.
    pub name: String,
    /// How many distinct identities must say it; at least 2.
    pub threshold: usize,
    /// The names of its signers.
    pub of: BTreeSet<String>,
    /// In which roles it speaks: manual alone, in this version.
    pub roles: BTreeSet<Role>,
    /// What it may sign; `None` is what its roles allow.
    pub predicate_types: Option<BTreeSet<PredicateType>>,
    /// The repositories it may speak about; left out, none.
    pub repositories: Option<Vec<RepositoryPattern>>,
}

/// Somebody with a name: several keys of one person are one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their name in trust.yaml.
    pub name: String,
    /// Their addresses; nothing folds case.
    pub emails: BTreeSet<String>,
    /// The names of the signers that are theirs.
    pub signers: BTreeSet<String>,
}

/// Which values a signer may claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed<T> {
    /// All of them: a key that somebody names on the command line. trust.yaml can't say this.
    Any,
    /// These, compared whole. An empty list allows nothing.
    Listed(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// None at all.
    pub fn nothing() -> Self {
        Self::Listed(BTreeSet::new())
    }

    /// Whether this value may be claimed.
    pub fn allows(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(values) => values.contains(value),
        }
    }
}

impl<T: Ord> FromIterator<T> for Allowed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::Listed(values.into_iter().collect())
    }
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

/// Families of types, without scheme and version, that only machines say. Older versions are refused too: a reader that knows
/// only those would take them for the machine's word.
const ONLY_MACHINES: [(&str, &str); 10] = [
    ("slsa.dev/provenance", "only the builder says how something was built"),
    ("in-toto.io/provenance", "only the builder says how something was built"),
    ("in-toto.io/attestation/vulns", "only a run or the gate says what a scanner found"),
    ("in-toto.io/attestation/runtime-trace", "only a run says what a step opened and executed"),
    ("cosign.sigstore.dev/attestation/vuln", "only a run or the gate says what a scanner found"),
    ("slsa.dev/verification_summary", "only a gate says what a gate decided"),
    ("in-toto.io/attestation/promotion-record", "only promote says what was promoted"),
    ("in-toto.io/attestation/promotion", "only promote says what was promoted"),
    ("sigstore.dev/cosign/sign", "only promote signs an image"),
    ("cosign.sigstore.dev/signature", "only promote signs an image"),
];

/// Why nobody says this type by hand, in whatever version and spelling: scheme and letter case are not looked at. `None` if it may be.
pub fn only_machines_say(uri: &str) -> Option<&'static str> {
    let folded = uri.to_ascii_lowercase();
    let family = folded.split_once("://").map_or(folded.as_str(), |(_, rest)| rest).trim_start_matches("www.");
    let is = |known: &str| {
        family
            .strip_prefix(known)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
    };
    ONLY_MACHINES.iter().find(|(known, _)| is(known)).map(|(_, reason)| *reason)
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
            Self::Steps => matches!(predicate, P::Provenance | P::Sbom | P::Vulns | P::TestResult | P::RuntimeTrace),
            Self::Decisions => matches!(predicate, P::VerificationSummary | P::Promotion | P::ImageSignature),
            Self::Records => matches!(predicate, P::Vulns | P::VerificationSummary | P::Promotion),
            Self::Manual => match predicate {
                P::Sbom | P::Spdx | P::TestResult | P::Vex => true,
                P::Other(uri) => only_machines_say(uri).is_none(),
                _ => false,
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The roles as errors write them.
pub(crate) fn role_names(roles: &BTreeSet<Role>) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Those of `roles` in which `predicate` may be signed, narrowed by `listed`.
pub(crate) fn roles_for(
    roles: &BTreeSet<Role>,
    listed: Option<&BTreeSet<PredicateType>>,
    predicate: &PredicateType,
) -> BTreeSet<Role> {
    let listed = listed.is_none_or(|types| types.contains(predicate));
    roles.iter().copied().filter(|role| listed && role.may_sign(predicate)).collect()
}
