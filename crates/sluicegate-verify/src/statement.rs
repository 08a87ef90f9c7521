use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature as ring_signature;
use sigstore_types::{DerPublicKey, Sha256Hash};
use sigstore_verify::PublicKeyVerificationPolicy;
use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body, key_hint},
    dsse,
    predicate::PredicateType,
    provenance::builder_id,
    statement::Statement,
    summary::{Basis, PromotionClaim, SummaryClaim},
};
use sluicegate_types::{
    Digest, EnvironmentName, UnixTime,
    checks::{Check, is_on},
};

use crate::{
    Error, Role, SignerRule, Trust,
    signer_rule::{role_names, roles_for},
};

/// A statement whose signature, signer, role and log entry were all checked.
///
/// There is no public constructor: look for `VerifiedStatement {` to find every origin.
///
/// ```compile_fail
/// let forged = sluicegate_verify::VerifiedStatement { ..todo!() };
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedStatement {
    statement: Box<Statement>,
    payload: Digest,
    bundle: Digest,
    signer: String,
    key_id: String,
    roles: BTreeSet<Role>,
    endorses: BTreeSet<String>,
    log: LogPlace,
}

/// Where a statement is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// The log's name.
    pub origin: String,
    /// The entry's index.
    pub index: u64,
}

impl VerifiedStatement {
    /// What was said.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The digest of the bytes that were signed: two statements with the same say the same.
    pub fn payload(&self) -> Digest {
        self.payload
    }

    /// The digest of the bundle, which identifies this attestation.
    pub fn bundle(&self) -> Digest {
        self.bundle
    }

    /// Who said it, by the name in trust.yaml.
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// The signer's key: base64 of SHA-256 over its SubjectPublicKeyInfo.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Whether it was said in this role. What only counts towards a group was said in none.
    pub fn is_in_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether its signer says it alone, in any role.
    pub fn stands_alone(&self) -> bool {
        !self.roles.is_empty()
    }

    /// The groups it counts towards: [`endorsed`](crate::threshold::endorsed) says whether there are enough.
    pub fn endorses(&self) -> &BTreeSet<String> {
        &self.endorses
    }

    /// Where it is logged.
    pub fn log(&self) -> &LogPlace {
        &self.log
    }
}

/// Verifies a bundle offline: form, signer, signature, inclusion proof and checkpoint, the fields that nothing authenticates,
/// the log's window, revocation, role, and the builder or verifier it claims to be.
///
/// The caller asks for the role and the subject it needs; a statement about something else is verified all the same.
pub fn verify(bundle_bytes: &[u8], trust: &Trust, at: UnixTime) -> Result<VerifiedStatement, Error> {
    let bundle = Bundle::parse(bundle_bytes)?;
    let signer = trust
        .signer_by_hint(&bundle.key_hint)
        .ok_or_else(|| Error::UnknownSigner { hint: bundle.key_hint.chars().take(64).collect() })?;
    if is_on(Check::Signature) {
        check_signature(&bundle, signer)?;
    }
    let statement = Statement::parse(&bundle.payload)?;
    if is_on(Check::LogEntry) {
        check_log(bundle_bytes, &bundle, statement.subjects.first().digest, signer, trust)?;
    }
    let log = check_unauthenticated_fields(&bundle, signer, trust, at)?;
    if is_on(Check::Revocation)
        && let Some(reason) = trust.revocation(&signer.name, &log)
    {
        return Err(Error::Revoked { signer: signer.name.clone(), reason });
    }
    let endorses = trust.groups_of(&signer.name, &statement.predicate_type).map(|group| group.name.clone()).collect();
    let roles = check_claims(signer, &statement, roles_of(signer, &statement.predicate_type, trust)?)?;
    Ok(VerifiedStatement {
        statement: Box::new(statement),
        payload: Digest::of(&bundle.payload),
        bundle: bundle.digest,
        signer: signer.name.clone(),
        key_id: key_hint(&signer.public_key),
        roles,
        endorses,
        log,
    })
}

/// DER prefix of a P-256 SubjectPublicKeyInfo; the 65-byte point follows (RFC 5480).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The library checks the signature once more; asking first gives a wrong signature an error of its own.
fn check_signature(bundle: &Bundle, signer: &SignerRule) -> Result<(), Error> {
    let wrong = || Error::Signature { signer: signer.name.clone() };
    let point = signer.public_key.strip_prefix(&P256_SPKI_PREFIX).ok_or_else(wrong)?;
    ring_signature::UnparsedPublicKey::new(&ring_signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(&dsse::pae(dsse::IN_TOTO, &bundle.payload), &bundle.signature)
        .map_err(|_| wrong())
}

fn check_log(bytes: &[u8], bundle: &Bundle, subject: Digest, signer: &SignerRule, trust: &Trust) -> Result<(), Error> {
    let fault = |reason: String| Error::Log { reason };
    if trust.root.log(&bundle.log_entry.log_id.key_id).is_none() {
        return Err(fault("the log is not one of the trusted root".to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| fault(e.to_string()))?;
    let parsed = sigstore_types::Bundle::from_json(text).map_err(|e| fault(e.to_string()))?;
    let policy = PublicKeyVerificationPolicy::new(DerPublicKey::new(signer.public_key.clone()));
    let subject = Sha256Hash::from_hex(&subject.hex()).map_err(|e| fault(e.to_string()))?;
    let result = trust.root.verifier().verify(subject, &parsed, &policy).map_err(|e| fault(e.to_string()))?;
    if result.tlog_verified() { Ok(()) } else { Err(fault("the log entry was not verified".to_owned())) }
}

/// Checks what neither cosign nor the library authenticates (interop.md section 5): a field that says something else than
/// what is proved is a lie that a reader further on could believe.
fn check_unauthenticated_fields(
    bundle: &Bundle,
    signer: &SignerRule,
    trust: &Trust,
    at: UnixTime,
) -> Result<LogPlace, Error> {
    let entry = &bundle.log_entry;
    let proof = &entry.inclusion_proof;
    let disagrees = |field: &'static str| Err(Error::Disagrees { field });
    let Some(log) = trust.root.log(&entry.log_id.key_id) else { return disagrees("logId") };
    let mut lines = proof.checkpoint.envelope.split('\n');
    let (origin, size, root) = (lines.next(), lines.next(), lines.next());
    if is_on(Check::CheckpointOrigin) && origin != Some(log.origin.as_str()) {
        return disagrees("checkpoint origin");
    }
    if is_on(Check::TreeSize) && size != Some(proof.tree_size.as_str()) {
        return disagrees("treeSize");
    }
    if is_on(Check::RootHash) && root != Some(proof.root_hash.as_str()) {
        return disagrees("rootHash");
    }
    let index = number(&entry.log_index).ok_or(Error::Disagrees { field: "logIndex" })?;
    if is_on(Check::LogIndex) && number(&proof.log_index) != Some(index) {
        return disagrees("inclusionProof.logIndex");
    }
    let kind = (entry.kind_version.kind.as_str(), entry.kind_version.version.as_str());
    if is_on(Check::KindVersion) && kind != ("hashedrekord", "0.0.2") {
        return disagrees("kindVersion");
    }
    if is_on(Check::IntegratedTime) && entry.integrated_time.as_deref().is_some_and(|time| time != "0") {
        return disagrees("integratedTime");
    }
    let pae = Digest::of(&dsse::pae(dsse::IN_TOTO, &bundle.payload));
    let body = hashedrekord_body(&pae, &bundle.signature, &signer.public_key);
    let logged = BASE64.decode(&entry.canonicalized_body).ok();
    if is_on(Check::CanonicalizedBody) && logged.as_deref() != Some(body.as_slice()) {
        return disagrees("canonicalizedBody");
    }
    if is_on(Check::LogWindow) && !log.is_trusted_at(at) {
        return Err(Error::LogWindow { origin: log.origin.clone(), at });
    }
    if is_on(Check::Untimed) && !trust.untimed.contains(&log.origin) {
        return Err(Error::Untimed { origin: log.origin.clone() });
    }
    Ok(LogPlace { origin: log.origin.clone(), index })
}

/// A 64-bit number of protojson, which leaves out zero.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

/// In which roles the holder of this key would be believed to say this, before anything is signed. What it would claim in the
/// predicate, and the log, are looked at by [`verify`] only.
pub fn roles_of_key(public_key: &[u8], predicate: &PredicateType, trust: &Trust) -> Result<BTreeSet<Role>, Error> {
    let hint = key_hint(public_key);
    let signer = trust.signer_by_hint(&hint).ok_or(Error::UnknownSigner { hint })?;
    if trust.revoked.iter().any(|line| line.signer == signer.name && line.before.is_none()) {
        let reason = "none of its statements count".to_owned();
        return Err(Error::Revoked { signer: signer.name.clone(), reason });
    }
    roles_of(signer, predicate, trust)
}

/// In which roles this signer says this type of its own; none only if it counts towards a group.
fn roles_of(signer: &SignerRule, predicate: &PredicateType, trust: &Trust) -> Result<BTreeSet<Role>, Error> {
    let mut roles = roles_for(&signer.roles, signer.predicate_types.as_ref(), predicate);
    let mut counts = false;
    for group in trust.groups_of(&signer.name, predicate) {
        counts = true;
        // What a group says by threshold is not one member's to say alone.
        roles = &roles - &group.roles_for(predicate);
    }
    if is_on(Check::Role) && roles.is_empty() && !counts {
        return Err(Error::Role {
            signer: signer.name.clone(),
            predicate: predicate.clone(),
            roles: role_names(&signer.roles),
        });
    }
    Ok(roles)
}

/// Checks what a statement claims beside its type, and leaves of `roles` those in which its signer may claim that.
fn check_claims(
    signer: &SignerRule,
    statement: &Statement,
    mut roles: BTreeSet<Role>,
) -> Result<BTreeSet<Role>, Error> {
    let predicate = &statement.predicate_type;
    let names = || role_names(&signer.roles);
    // A decisions key says yes; a records key keeps what was refused and what no gate decided (trust model 5).
    let mut only = |role: Role, verdict: &'static str| {
        if !is_on(Check::Verdict) {
            return Ok(());
        }
        roles.retain(|own| *own == role);
        if roles.is_empty() {
            let (signer, predicate) = (signer.name.clone(), predicate.clone());
            return Err(Error::Verdict { signer, verdict, predicate, roles: names() });
        }
        Ok(())
    };
    let decides_for = |environment: EnvironmentName, check: Check| {
        if !is_on(check) || signer.environments.allows(&environment) {
            return Ok(());
        }
        let (signer, predicate) = (signer.name.clone(), predicate.clone());
        Err(Error::Environment { signer, predicate, environment, roles: names() })
    };
    let decides_as = |verifier: String| {
        if !is_on(Check::Verifier) || signer.verifier_ids.allows(&verifier) {
            return Ok(());
        }
        let (signer, predicate) = (signer.name.clone(), predicate.clone());
        Err(Error::Verifier { signer, predicate, verifier, roles: names() })
    };
    match predicate {
        PredicateType::Provenance => {
            let builder = builder_id(&statement.predicate)?;
            if is_on(Check::Builder) && !signer.builder_ids.allows(&builder) {
                return Err(Error::Builder { signer: signer.name.clone(), builder });
            }
        }
        PredicateType::VerificationSummary => {
            let claim = SummaryClaim::parse(&statement.predicate)?;
            if claim.passed {
                only(Role::Decisions, "an allowed")?;
            } else {
                only(Role::Records, "a denied")?;
            }
            decides_as(claim.verifier_id)?;
            if claim.passed {
                decides_for(claim.environment, Check::DecisionEnvironment)?;
            }
        }
        PredicateType::Promotion => {
            let claim = PromotionClaim::parse(&statement.predicate)?;
            let gated = claim.basis != Basis::Ungated;
            if gated {
                only(Role::Decisions, "a gated")?;
            } else {
                only(Role::Records, "an ungated")?;
            }
            decides_as(claim.verifier_id)?;
            if gated {
                decides_for(claim.environment, Check::PromotionEnvironment)?;
            }
        }
        _ => {}
    }
    Ok(roles)
}
