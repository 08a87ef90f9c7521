#![forbid(unsafe_code)]
//! Decides whether a bundle is what it claims: signed by a known key, in a role that may say this, logged in a trusted log.
//!
//! Everything it trusts is an argument, the time included; it opens nothing. A [`VerifiedStatement`] has no public
//! constructor: only [`verify`] makes one. [`closed_set::follow`] decides whether everything an image's provenance names is
//! there and says what it should (trust model 1 to 3, 6, 12 to 14). [`threshold::endorsed`] adds up what several must say together.
//!
//! Signatures, inclusion proofs and checkpoints are checked by `sigstore-verify`; this crate adds what it leaves
//! unauthenticated (interop.md section 5) and who may say what.

pub mod closed_set;
mod crypto_provider;
mod signer_rule;
mod statement;
pub mod threshold;
mod trust;
mod trust_root;

pub use signer_rule::{Allowed, GroupRule, Person, Role, SignerRule, only_machines_say};
pub use statement::{LogPlace, VerifiedStatement, roles_of_key, verify};
pub use trust::{Revocation, Trust, TrustError, TrustRules};
pub use trust_root::{TrustRoot, TrustRootError};

use sluicegate_attestation::predicate::PredicateType;
use sluicegate_types::{EnvironmentName, UnixTime};

/// Why a bundle is not believed. One variant for each thing that is checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no bundle, statement or predicate of the accepted form.
    #[error(transparent)]
    Form(#[from] sluicegate_attestation::Error),
    /// No trusted signer has this key.
    #[error("signed by an unknown key (hint {hint})")]
    UnknownSigner {
        /// The key hint of the bundle, cut at 64 characters.
        hint: String,
    },
    /// The signature is not the signer's over these bytes.
    #[error("the signature is not {signer}'s over this statement")]
    Signature {
        /// Who it claims to be from.
        signer: String,
    },
    /// The log entry is missing, of another kind, or not proved.
    #[error("the log entry is not proved: {reason}")]
    Log {
        /// What failed.
        reason: String,
    },
    /// A field that no signature covers contradicts what is proved.
    #[error("the log entry's {field} disagrees with what is proved")]
    Disagrees {
        /// Which field.
        field: &'static str,
    },
    /// The log's key was not valid yet, or no more.
    #[error("the log {origin} is not trusted at {at}")]
    LogWindow {
        /// The log.
        origin: String,
        /// The time of the decision.
        at: UnixTime,
    },
    /// The log gives no time and is not allowed to (trust model 13).
    #[error("the log {origin} gives no time and trust.yaml does not list it under formats.untimed")]
    Untimed {
        /// The log.
        origin: String,
    },
    /// The signer's key is revoked for this entry.
    #[error("{signer} is revoked: {reason}")]
    Revoked {
        /// The signer.
        signer: String,
        /// By which line of trust.yaml.
        reason: String,
    },
    /// The signer may not say this.
    #[error("{signer} may not sign {predicate}: its roles are {roles}")]
    Role {
        /// The signer.
        signer: String,
        /// What was signed.
        predicate: PredicateType,
        /// The roles it has.
        roles: String,
    },
    /// The signer may not claim this builder.
    #[error("{signer} may not claim the builder {builder:?}")]
    Builder {
        /// The signer.
        signer: String,
        /// The builder it claims.
        builder: String,
    },
    /// The signer may sign this type, and not with this verdict.
    #[error("{signer} may not sign {verdict} {predicate}: its roles are {roles}")]
    Verdict {
        /// The signer.
        signer: String,
        /// `an allowed`, `a denied`, `a gated` or `an ungated`.
        verdict: &'static str,
        /// What was signed.
        predicate: PredicateType,
        /// The roles it has.
        roles: String,
    },
    /// The signer may not claim this verifier.
    #[error(
        "{signer} may not sign {predicate} as {verifier:?}: its roles are {roles}, and its verifier_ids don't list that"
    )]
    Verifier {
        /// The signer.
        signer: String,
        /// What was signed.
        predicate: PredicateType,
        /// The verifier it claims.
        verifier: String,
        /// The roles it has.
        roles: String,
    },
    /// The signer may not decide for this environment.
    #[error(
        "{signer} may not sign {predicate} for {environment}: its roles are {roles}, and its environments don't list that"
    )]
    Environment {
        /// The signer.
        signer: String,
        /// What was signed.
        predicate: PredicateType,
        /// The environment it claims.
        environment: EnvironmentName,
        /// The roles it has.
        roles: String,
    },
}
