use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature as ring_signature;
use sigstore_types::{DerPublicKey, Sha256Hash};
use sigstore_verify::PublicKeyVerificationPolicy;
use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body, key_hint},
    dsse,
    predicate::PredicateType,
    provenance::Provenance,
    statement::Statement,
    summary::{SummaryClaim, promoted_to},
};
use sluicegate_types::{Digest, UnixTime};

use crate::{Error, Role, SignerRule, Trust};

/// A statement whose signature, signer, role and log entry were all checked.
///
/// There is no public constructor: look for `VerifiedStatement {` to find every origin.
///
/// ```compile_fail
/// let forged = sluicegate_verify::VerifiedStatement { ..todo!() };
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedStatement {
    statement: Statement,
    bundle: Digest,
    signer: String,
    key_id: String,
    roles: BTreeSet<Role>,
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

    /// Whether it was said in this role.
    pub fn is_in_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
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
    check_signature(&bundle, signer)?;
    let statement = Statement::parse(&bundle.payload)?;
    check_log(bundle_bytes, &bundle, statement.subjects.first().digest, signer, trust)?;
    let log = check_unauthenticated_fields(&bundle, signer, trust, at)?;
    check_revocation(signer, &log, trust)?;
    let roles = roles_of(signer, &statement.predicate_type)?;
    check_claims(signer, &statement, &roles)?;
    Ok(VerifiedStatement {
        statement,
        bundle: bundle.digest,
        signer: signer.name.clone(),
        key_id: key_hint(&signer.public_key),
        roles,
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
    if origin != Some(log.origin.as_str()) {
        return disagrees("checkpoint origin");
    }
    if size != Some(proof.tree_size.as_str()) {
        return disagrees("treeSize");
    }
    if root != Some(proof.root_hash.as_str()) {
        return disagrees("rootHash");
    }
    let index = number(&entry.log_index).ok_or(Error::Disagrees { field: "logIndex" })?;
    if number(&proof.log_index) != Some(index) {
        return disagrees("inclusionProof.logIndex");
    }
    if entry.kind_version.kind != "hashedrekord" || entry.kind_version.version != "0.0.2" {
        return disagrees("kindVersion");
    }
    if entry.integrated_time.as_deref().is_some_and(|time| time != "0") {
        return disagrees("integratedTime");
    }
    let pae = Digest::of(&dsse::pae(dsse::IN_TOTO, &bundle.payload));
    let body = hashedrekord_body(&pae, &bundle.signature, &signer.public_key);
    if BASE64.decode(&entry.canonicalized_body).ok().as_deref() != Some(body.as_slice()) {
        return disagrees("canonicalizedBody");
    }
    if !log.is_trusted_at(at) {
        return Err(Error::LogWindow { origin: log.origin.clone(), at });
    }
    if !trust.untimed.contains(&log.origin) {
        return Err(Error::Untimed { origin: log.origin.clone() });
    }
    Ok(LogPlace { origin: log.origin.clone(), index })
}

/// A 64-bit number of protojson, which leaves out zero.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

fn check_revocation(signer: &SignerRule, log: &LogPlace, trust: &Trust) -> Result<(), Error> {
    for line in trust.revoked.iter().filter(|line| line.signer == signer.name) {
        let reason = match &line.before {
            Some((origin, size)) if *origin == log.origin && log.index < *size => continue,
            Some((origin, size)) => {
                format!("only entries below {size} of {origin} count, this is {} of {}", log.index, log.origin)
            }
            None => "none of its statements count".to_owned(),
        };
        return Err(Error::Revoked { signer: signer.name.clone(), reason });
    }
    Ok(())
}

fn roles_of(signer: &SignerRule, predicate: &PredicateType) -> Result<BTreeSet<Role>, Error> {
    let listed = signer.predicate_types.as_ref().is_none_or(|types| types.contains(predicate));
    let roles: BTreeSet<Role> =
        signer.roles.iter().copied().filter(|role| listed && role.may_sign(predicate)).collect();
    if roles.is_empty() {
        let names: Vec<&str> = signer.roles.iter().map(|role| role.name()).collect();
        return Err(Error::Role { signer: signer.name.clone(), predicate: predicate.clone(), roles: names.join(", ") });
    }
    Ok(roles)
}

fn check_claims(signer: &SignerRule, statement: &Statement, roles: &BTreeSet<Role>) -> Result<(), Error> {
    match statement.predicate_type {
        PredicateType::Provenance => {
            let builder = Provenance::parse(&statement.predicate)?.builder_id;
            if !signer.builder_ids.contains(&builder) {
                return Err(Error::Builder { signer: signer.name.clone(), builder });
            }
        }
        PredicateType::VerificationSummary => {
            let claim = SummaryClaim::parse(&statement.predicate)?;
            // A decisions key says yes and only for its environments; a records key keeps what was refused.
            let may = signer.verifier_ids.contains(&claim.verifier_id)
                && ((claim.passed
                    && roles.contains(&Role::Decisions)
                    && signer.environments.contains(&claim.environment))
                    || (!claim.passed && roles.contains(&Role::Records)));
            if !may {
                return Err(Error::Verifier {
                    signer: signer.name.clone(),
                    verifier: claim.verifier_id,
                    environment: claim.environment.to_string(),
                });
            }
        }
        PredicateType::Promotion => {
            // Only the key of an environment says that something was promoted to it; records keep what no gate decided.
            let environment = promoted_to(&statement.predicate)?;
            if !roles.contains(&Role::Records) && !signer.environments.contains(&environment) {
                return Err(Error::Verifier {
                    signer: signer.name.clone(),
                    verifier: "a promotion".to_owned(),
                    environment: environment.to_string(),
                });
            }
        }
        _ => {}
    }
    Ok(())
}
