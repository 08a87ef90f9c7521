//! Signs statements, logs them, and keeps only bundles that verify with the configured trust.

use sluicegate_attestation::{
    bundle::{Bundle, LogEntry, MAX_BUNDLE, hashedrekord_body, key_hint, of_hashedrekord_body},
    dsse,
    statement::Statement,
};
use sluicegate_ports::{
    sign::{Envelope, Signer},
    store::ContentStore,
};
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
    let (mut payloads, mut signed, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for statement in statements {
        let payload = statement.to_payload()?;
        let kind = statement.predicate_type.short();
        refuse_too_large(&payload).map_err(|reason| {
            let about = statement.subjects.first().digest;
            Error::Usage(format!("the {kind} of {about} is too large: {reason}; nothing was signed"))
        })?;
        payloads.push(payload);
    }
    for payload in payloads {
        let pae = dsse::pae(dsse::IN_TOTO, &payload);
        let signature = signer.sign(&pae)?;
        bodies.push(hashedrekord_body(&Digest::of(&pae), &signature, signer.public_key()));
        signed.push((payload, signature));
    }
    let envelopes: Vec<_> = signed.iter().zip(&bodies).map(|((payload, _), body)| Envelope { payload, body }).collect();
    ports.log.about_to_append(&envelopes)?;
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
    ports.log.settled(&bodies)?;
    Ok(attested)
}

/// A statement that waited for a log, and is logged now.
#[derive(Clone, Copy, Debug)]
pub struct Late<'a> {
    /// What was signed; empty if that is not known any more.
    pub payload: &'a [u8],
    /// The canonical body.
    pub body: &'a [u8],
    /// Its entry, proved.
    pub entry: &'a LogEntry,
}

/// Keeps the bundle of a statement that waited for the log, if it verifies with `trust` now, and says in a line what became of it.
/// The verb that signed it did not come to its end, so nothing refers to it.
pub fn keep_late(store: &dyn ContentStore, trust: &Trust, late: &Late<'_>, now: UnixTime) -> Result<String, Error> {
    let index = if late.entry.log_index.is_empty() { "0" } else { &late.entry.log_index };
    let waited = |what: String| format!("{what}, signed before and not logged then, is logged now: entry {index}");
    let Some((signature, public_key)) = of_hashedrekord_body(late.body) else {
        return Ok(waited(format!("entry {}", Digest::of(late.body))));
    };
    let bytes = Bundle::assemble(late.payload, &signature, &public_key, late.entry.clone())?;
    Ok(match sluicegate_verify::verify(&bytes, trust, now) {
        Ok(statement) => {
            store.put_bytes(&bytes)?;
            let said = statement.statement();
            let (kind, about) = (said.predicate_type.short(), said.subjects.first().digest);
            waited(format!("the {kind} of {about} by {}", statement.signer()))
        }
        Err(reason) => {
            let words = waited(format!("a statement of the key {}", key_hint(&public_key)));
            format!("{words}; its bundle is not kept, as it does not verify: {reason}")
        }
    })
}

/// Bytes that key, signature and log entry add to a bundle, generously.
const AROUND: usize = 64 * 1024;

/// What would not be read again is not signed; the error says how large it would be.
pub(crate) fn refuse_too_large(payload: &[u8]) -> Result<(), String> {
    let size = payload.len().div_ceil(3) * 4 + AROUND;
    if size > MAX_BUNDLE {
        return Err(format!("its bundle would have {size} bytes, the limit is {MAX_BUNDLE}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_would_not_be_read_again_is_refused_at_its_last_byte() {
        let most = (MAX_BUNDLE - AROUND) / 4 * 3;
        assert_eq!(refuse_too_large(&vec![0; most]), Ok(()));
        assert!(refuse_too_large(&vec![0; most + 1]).is_err_and(|said| said.contains("the limit is 16777216")));
    }
}
