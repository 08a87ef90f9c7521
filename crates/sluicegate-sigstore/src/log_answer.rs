//! What a log elsewhere says about an entry, read strictly and believed only as far as it is proved.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use sluicegate_attestation::bundle::{Checkpoint as Note, InclusionProof, KindVersion, LogEntry, LogId};
use tlog_tiles::{Hash, check_record, record_hash};

use crate::{checkpoint::Checkpoint, trust_root::LogPublic};

/// Bytes of an answer about one entry: a body of 64 KiB in base64, a checkpoint and 64 hashes fit.
pub(crate) const ANSWER_LIMIT: u64 = 256 * 1024;
/// Hashes of a proof in a tree of 64-bit size.
const PROOF_LIMIT: usize = 64;
const KIND: (&str, &str) = ("hashedrekord", "0.0.2");

/// The request that a log answers with the entry of this canonical body.
pub(crate) fn request(body: &[u8]) -> Option<Vec<u8>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let logged = body.pointer("/spec/hashedRekordV002")?;
    let request = json!({"hashedRekordRequestV002": {
        "digest": logged.pointer("/data/digest")?, "signature": logged.get("signature")?,
    }});
    serde_json::to_vec(&request).ok()
}

/// An entry as it was sent; nothing in it is proved.
pub(crate) struct Claimed(Box<WireEntry>);

/// Reads an answer as protojson's `TransparencyLogEntry`, with or without what is zero.
pub(crate) fn read(answer: &[u8]) -> Result<Claimed, String> {
    let wire: WireEntry = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    let hashes = wire.inclusion_proof.hashes.len();
    if hashes > PROOF_LIMIT {
        return Err(format!("a proof of {hashes} hashes; at most {PROOF_LIMIT} lead to any root"));
    }
    Ok(Claimed(Box::new(wire)))
}

impl Claimed {
    /// The entry, if it is of this body in this log and its checkpoint proves it.
    pub(crate) fn proved(self, body: &[u8], log: &LogPublic) -> Result<LogEntry, String> {
        let wire = *self.0;
        let says =
            |field: &str| format!("the entry's {field} is not what was asked for, or disagrees with what is proved");
        if STANDARD.decode(&wire.canonicalized_body).ok().as_deref() != Some(body) {
            return Err(says("canonicalizedBody"));
        }
        if wire.log_id.key_id != STANDARD.encode(log.key_id()) {
            return Err(says("logId"));
        }
        if (wire.kind_version.kind.as_str(), wire.kind_version.version.as_str()) != KIND {
            return Err(says("kindVersion"));
        }
        if wire.inclusion_promise.is_some() {
            return Err(says("inclusionPromise"));
        }
        if wire.integrated_time.is_some_and(|time| time != "0") {
            return Err(says("integratedTime"));
        }
        let proof = wire.inclusion_proof;
        let index = number(&wire.log_index).ok_or_else(|| says("logIndex"))?;
        if number(&proof.log_index) != Some(index) {
            return Err(says("inclusionProof.logIndex"));
        }
        let checkpoint = Checkpoint::verify(&proof.checkpoint.envelope, log)?;
        if number(&proof.tree_size) != Some(checkpoint.size) {
            return Err(says("treeSize"));
        }
        if STANDARD.decode(&proof.root_hash).ok().as_deref() != Some(&checkpoint.root.0[..]) {
            return Err(says("rootHash"));
        }
        let hash = |text: &String| STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Hash);
        let hashes: Option<Vec<Hash>> = proof.hashes.iter().map(hash).collect();
        proved(index, body, &hashes.ok_or_else(|| says("hashes"))?, &checkpoint, log)
    }
}

/// The entry of `body` at `index`, if these hashes lead from it to the checkpoint's root.
pub(crate) fn proved(
    index: u64,
    body: &[u8],
    hashes: &[Hash],
    checkpoint: &Checkpoint,
    log: &LogPublic,
) -> Result<LogEntry, String> {
    if index >= checkpoint.size {
        return Err(format!("entry {index} is said to be in a tree of {} entries", checkpoint.size));
    }
    check_record(&hashes.to_vec(), checkpoint.size, checkpoint.root, index, record_hash(body)).map_err(|_| {
        format!("entry {index} is not proved by the checkpoint of {} entries that came with it", checkpoint.size)
    })?;
    // protojson leaves out a zero.
    let log_index = if index == 0 { String::new() } else { index.to_string() };
    Ok(LogEntry {
        log_index: log_index.clone(),
        log_id: LogId { key_id: STANDARD.encode(log.key_id()) },
        kind_version: KindVersion { kind: KIND.0.into(), version: KIND.1.into() },
        integrated_time: None,
        inclusion_proof: InclusionProof {
            log_index,
            root_hash: STANDARD.encode(checkpoint.root.0),
            tree_size: checkpoint.size.to_string(),
            hashes: hashes.iter().map(|hash| STANDARD.encode(hash.0)).collect(),
            checkpoint: Note { envelope: checkpoint.note.clone() },
        },
        canonicalized_body: STANDARD.encode(body),
    })
}

/// A plain decimal number; nothing is zero.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEntry {
    #[serde(default)]
    log_index: String,
    log_id: LogId,
    kind_version: KindVersion,
    #[serde(default)]
    integrated_time: Option<String>,
    #[serde(default)]
    inclusion_promise: Option<IgnoredAny>,
    inclusion_proof: WireProof,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProof {
    #[serde(default)]
    log_index: String,
    root_hash: String,
    tree_size: String,
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: Note,
}
