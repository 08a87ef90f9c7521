//! The evidence store: append-only records of runs, scans, decisions and promotions.

use serde::{Deserialize, Serialize};
use sluicegate_types::{Digest, EnvironmentName, UnixTime};

/// Bytes of a record's body as canonical JSON; more is refused.
pub const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// Append-only records. What was recorded is never changed or removed by this interface.
pub trait EvidenceLog: Send + Sync {
    /// Waits for the turn to record, and holds it until what is given is dropped: one process at a time, from before the row to after
    /// its leaf. A row without a leaf that is found in one's own turn is then nobody's who is still at it.
    fn turn(&self) -> Result<Box<dyn Send>, EvidenceError>;

    /// Appends a record; it is durable, and was read back, when this returns.
    fn append(&self, record: &NewRecord) -> Result<Record, EvidenceError>;

    /// The newest `limit` records, newest first.
    fn list(&self, limit: u32) -> Result<Vec<Record>, EvidenceError>;

    /// The record with this sequence number; [`EvidenceError::NoRecord`] if there is none.
    fn show(&self, sequence: u64) -> Result<Record, EvidenceError>;

    /// The digests of the records after `sequence`, oldest first, at most `limit`, each record checked like one that is shown: the first
    /// digest is that of record `sequence` + 1. None is an empty list.
    fn digests_after(&self, sequence: u64, limit: u32) -> Result<Vec<Digest>, EvidenceError>;

    /// Shows every record, oldest first, each checked, and gives how many there are. The first that is not as it was written, or that
    /// does not follow the one before it, is an error.
    fn walk(&self, show: &mut dyn FnMut(&Record)) -> Result<u64, EvidenceError>;

    /// Walks every record and everything that keeps them, and gives how many there are. The first that is not as it was written is an
    /// error.
    fn check(&self) -> Result<u64, EvidenceError>;
}

/// A record to be.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// What it records.
    pub kind: RecordKind,
    /// When it happened.
    pub at: UnixTime,
    /// The image it is about.
    pub subject: Option<Digest>,
    /// The environment it is about.
    pub environment: Option<EnvironmentName>,
    /// One word: `succeeded`, `failed`, `allow`, `deny`, `undecided`, `promoted`, `attested`, `ungated`, `would-allow`, `found`,
    /// `adopted`, `refused`, `signed`, `unsigned`.
    pub outcome: String,
    /// Everything else, as a JSON object.
    pub body: serde_json::Value,
}

/// What a record records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// A run of a pipeline.
    Run,
    /// A gate's decision, denials and undecided ones too.
    Decision,
    /// An image copied to an environment, its tag moved.
    Promotion,
    /// A statement about an image that somebody signed by hand.
    Attestation,
    /// The signature of a denial, or why there is none.
    Denial,
    /// Records that were taken along into the ledger by another process than the one that wrote them.
    Ledger,
}

/// A record as it stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// SHA-256 of its canonical JSON (RFC 8785) with the previous record's digest inside.
    pub digest: Digest,
    /// The digest of the record before; `None` for the first.
    pub previous: Option<Digest>,
    /// What it records.
    pub kind: RecordKind,
    /// When it happened.
    pub at: UnixTime,
    /// The image it is about.
    pub subject: Option<Digest>,
    /// The environment it is about.
    pub environment: Option<EnvironmentName>,
    /// One word.
    pub outcome: String,
    /// Everything else.
    pub body: serde_json::Value,
}

/// Why the evidence store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// No such record.
    #[error("there is no evidence record {sequence}")]
    NoRecord {
        /// The number asked for.
        sequence: u64,
    },
    /// A record does not match its digest or its neighbour.
    #[error("evidence record {sequence} is damaged: {reason}")]
    Damaged {
        /// Which.
        sequence: u64,
        /// In what way.
        reason: String,
    },
    /// The database file is not what was written, in a way that is no single record's.
    #[error("the evidence store {path} is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The database file.
    #[error("cannot {action} the evidence store {path}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}
