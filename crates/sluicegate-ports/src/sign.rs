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

/// A signed statement on its way into a log.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// What was signed: the bytes of the in-toto statement.
    pub payload: &'a [u8],
    /// The canonical `hashedrekord` 0.0.2 body, which has the signature and its public key.
    pub body: &'a [u8],
}

/// An append-only log of signatures in Rekor v2's format.
pub trait TransparencyLog: Send + Sync {
    /// Appends these canonical `hashedrekord` 0.0.2 bodies and returns an entry with inclusion proof and signed checkpoint for each,
    /// in order, every proof checked against the checkpoint before it is returned. A body that is there already is not added
    /// again: its present place is returned. All of it is durable when this returns.
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError>;

    /// The same, but what is new may be in memory alone until [`TransparencyLog::make_durable`]: statements that name each other can't be
    /// appended at once, and need not be synced one by one. Until then nothing that came of these entries may be written or sent: what was
    /// not made durable was never said, and another entry may come to stand in its place. Every other question to the log comes after
    /// what is held; the log is nobody else's meanwhile.
    fn append_held(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        self.append(bodies)
    }

    /// Makes durable what [`TransparencyLog::append_held`] appended. On an error none of it was appended.
    fn make_durable(&self) -> Result<(), SignError> {
        Ok(())
    }

    /// Told what is about to be appended. A log elsewhere keeps it until [`TransparencyLog::settled`], so that the same bytes are sent
    /// again whatever happens in between (trust model 15); one that appends all or nothing has nothing to keep.
    fn about_to_append(&self, _envelopes: &[Envelope<'_>]) -> Result<(), SignError> {
        Ok(())
    }

    /// Told that the bundles with these bodies are stored: nothing has to be sent again.
    fn settled(&self, _bodies: &[Vec<u8>]) -> Result<(), SignError> {
        Ok(())
    }

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
    /// A log elsewhere that is not asked, as this machine's certificates or proxy cannot be used.
    #[error("the log at {url} is not asked: {reason}")]
    Settings {
        /// Where it is.
        url: String,
        /// What is wrong here.
        reason: String,
    },
    /// A log elsewhere that was not reached, or did not do what was asked. Nothing is known to be wrong with it.
    #[error("the log at {url}: {reason}")]
    Remote {
        /// Where it is.
        url: String,
        /// What it did instead.
        reason: String,
    },
    /// The same, and what was signed waits to be sent again.
    #[error("{} for the log at {url}: {reason}", waits(.waiting, .outbox))]
    Waiting {
        /// Where the log is.
        url: String,
        /// How many statements wait.
        waiting: usize,
        /// Where they wait.
        outbox: String,
        /// Why they were not logged.
        reason: String,
    },
    /// A log elsewhere said what its own key, or the proof, does not bear out.
    #[error("the log at {url} is not to be believed: {reason}")]
    Unproved {
        /// Where it is.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A log elsewhere is none of those that are trusted.
    #[error("the log at {url} is none of the trusted root's: {reason}")]
    Stranger {
        /// Where it is.
        url: String,
        /// Which one it is.
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

fn waits(waiting: &usize, outbox: &str) -> String {
    match waiting {
        1 => format!("1 signed statement waits in {outbox}"),
        more => format!("{more} signed statements wait in {outbox}"),
    }
}
