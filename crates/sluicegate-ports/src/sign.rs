//! Signing and logging. A signature says who, a log entry says that it was said in public.

use sluicegate_attestation::bundle::LogEntry;
use sluicegate_types::Digest;

/// A key that signs. Only P-256 with SHA-256 in this version, so that every verifier of the field reads it.
pub trait Signer: Send + Sync {
    /// The name it has in the home and in trust.yaml.
    fn name(&self) -> &str;

    /// The public key as DER SubjectPublicKeyInfo.
    fn public_key(&self) -> &[u8];

    /// The ECDSA signature over SHA-256 of `message`, as ASN.1 DER; the same message gives the same signature (RFC 6979).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An append-only log of signatures in Rekor v2's format.
pub trait TransparencyLog: Send + Sync {
    /// Appends these canonical `hashedrekord` 0.0.2 bodies and returns an entry with inclusion proof and signed checkpoint for each,
    /// in order, every proof checked against the checkpoint before it is returned. A body that is there already is not added
    /// again: its present place is returned. All of it is durable when this returns.
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError>;

    /// The log's name: a bare host name, the origin line of its checkpoints.
    fn origin(&self) -> &str;

    /// Entries in the log.
    fn size(&self) -> Result<u64, SignError>;

    /// The Merkle root over all entries.
    fn root(&self) -> Result<Digest, SignError>;
}

/// Why a signature or a log entry could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No such key.
    #[error("no key named {name:?} in {folder}")]
    NoKey {
        /// The name.
        name: String,
        /// Where it was looked for.
        folder: String,
    },
    /// The passphrase is wrong or the file is damaged.
    #[error("cannot open the key {name:?}: wrong passphrase, or the file is damaged")]
    Locked {
        /// The name.
        name: String,
    },
    /// Not a key file that this version reads.
    #[error("key file of {name:?}: {reason}")]
    KeyFile {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The key exists and is not overwritten.
    #[error("a key named {name:?} exists already and is never overwritten")]
    KeyExists {
        /// The name.
        name: String,
    },
    /// The log's files contradict each other or its key.
    #[error("the log in {folder} cannot be used: {reason}")]
    Log {
        /// Its folder.
        folder: String,
        /// Why.
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
