//! Signs statements, logs them, and keeps only bundles that verify with the configured trust.

use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body},
    dsse,
    statement::Statement,
};
use sluicegate_ports::sign::Signer;
use sluicegate_types::{Digest, UnixTime};
use sluicegate_verify::{Trust, VerifiedStatement};

use crate::{Error, Ports};

/// A statement that was signed, logged, verified and stored.
#[derive(Debug)]
pub struct Attested {
    /// The statement, as verification gave it back.
    pub statement: VerifiedStatement,
    /// Bytes of the bundle.
    pub size: u64,
}

/// Attests these statements with one key: one checkpoint for all, in order. Each bundle is verified with `trust` before it is
/// stored, so that nothing leaves the machine that the machine itself would not believe (trust model 15).
pub fn attest(
    ports: &Ports<'_>,
    signer: &dyn Signer,
    trust: &Trust,
    statements: &[Statement],
    now: UnixTime,
) -> Result<Vec<Attested>, Error> {
    let (mut signed, mut bodies) = (Vec::new(), Vec::new());
    for statement in statements {
        let payload = statement.to_payload()?;
        let pae = dsse::pae(dsse::IN_TOTO, &payload);
        let signature = signer.sign(&pae)?;
        bodies.push(hashedrekord_body(&Digest::of(&pae), &signature, signer.public_key()));
        signed.push((payload, signature));
    }
    let entries = ports.log.append(&bodies)?;
    if entries.len() != signed.len() {
        return Err(Error::Bug(format!("the log gave {} entries for {} statements", entries.len(), signed.len())));
    }
    let mut attested = Vec::new();
    for ((payload, signature), entry) in signed.iter().zip(entries) {
        let bytes = Bundle::assemble(payload, signature, signer.public_key(), entry)?;
        let statement = sluicegate_verify::verify(&bytes, trust, now)
            .map_err(|source| Error::OwnBundle { signer: signer.name().to_owned(), source: Box::new(source) })?;
        ports.store.put_bytes(&bytes)?;
        attested.push(Attested { statement, size: bytes.len() as u64 });
    }
    Ok(attested)
}
