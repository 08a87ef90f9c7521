//! The ledger: one leaf per evidence record in an append-only Merkle log, so that completeness can be proved without showing content.

use sluicegate_attestation::summary::LedgerHead;
use sluicegate_types::Digest;

/// An append-only Merkle log of record digests (RFC 6962 hashes). Leaf *i* is the evidence record with sequence *i* + 1: record 1 is
/// leaf 0. A leaf's content is the 32 bytes of the record's digest, which is SHA-256 of the record's canonical bytes; its hash in the
/// tree is SHA-256 of a zero byte and these 32. Equal leaves are never merged.
pub trait Ledger: Send + Sync {
    /// Appends `leaves` behind leaf `from - 1`, durable when this returns, and gives the head that then is. [`LedgerError::Moved`],
    /// and nothing is appended, if the ledger has not exactly `from` leaves: somebody else appended meanwhile, or it was cut back.
    fn append(&self, from: u64, leaves: &[Digest]) -> Result<LedgerHead, LedgerError>;

    /// Name, size and root, after the newest part of the files was compared with the signed checkpoint.
    fn head(&self) -> Result<LedgerHead, LedgerError>;

    /// The leaves from leaf `from` on, at most `count` and as many as there are, each proved by the tree.
    fn leaves(&self, from: u64, count: u64) -> Result<Vec<Digest>, LedgerError>;

    /// The root over the first `size` leaves; [`LedgerError::Short`] if there are fewer.
    fn root_at(&self, size: u64) -> Result<Digest, LedgerError>;

    /// Reads everything anew: every tile against the leaves, all of it against the signed checkpoint.
    fn check(&self) -> Result<LedgerHead, LedgerError>;
}

/// Why the ledger could not do it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger has not as many leaves as the caller believed.
    #[error("the ledger has {size} leaves, which is not what was expected: ask again")]
    Moved {
        /// How many it has.
        size: u64,
    },
    /// A question about more leaves than there are.
    #[error("the ledger has {size} leaves, not {asked}")]
    Short {
        /// How many it has.
        size: u64,
        /// How many were asked about.
        asked: u64,
    },
    /// Tiles, checkpoint and key contradict each other, or the tiles are gone.
    #[error("the ledger in {folder} is damaged: {reason}")]
    Damaged {
        /// Its folder.
        folder: String,
        /// What is wrong, with the file's name.
        reason: String,
    },
    /// The system.
    #[error("cannot {action}: {reason}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// Why not.
        reason: String,
    },
}
