//! Sigstore bundle v0.3: one DSSE envelope, one key hint, one log entry with proof (see `LogEntry`).

use serde::{Deserialize, Serialize};

/// One entry of a Rekor v2 log with its inclusion proof and the checkpoint it is proved against, as protojson's
/// `TransparencyLogEntry`. 64-bit numbers are decimal strings, bytes are standard base64 with padding; protojson leaves out zero values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogEntry {
    /// Place in the log, from 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_index: String,
    /// Which log.
    pub log_id: LogId,
    /// `hashedrekord`, `0.0.2`.
    pub kind_version: KindVersion,
    /// Unix seconds; `0` or absent, as Rekor v2 gives no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrated_time: Option<String>,
    /// The proof.
    pub inclusion_proof: InclusionProof,
    /// base64 of the logged body (RFC 8785 JSON).
    pub canonicalized_body: String,
}

/// A log's key id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogId {
    /// base64 of the 32-byte C2SP key id (signing.md 5, item 5).
    pub key_id: String,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KindVersion {
    /// `hashedrekord`.
    pub kind: String,
    /// `0.0.2`.
    pub version: String,
}

/// A Merkle inclusion proof (RFC 6962) with the checkpoint that carries the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InclusionProof {
    /// The same as the entry's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_index: String,
    /// base64 of the root.
    pub root_hash: String,
    /// Entries in the tree.
    pub tree_size: String,
    /// base64 of the sibling hashes, leaf first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
    /// The signed note.
    pub checkpoint: Checkpoint,
}

/// A C2SP signed note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// Its text, signatures included.
    pub envelope: String,
}
