//! The content store: bytes by digest.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use sluicegate_types::Digest;

/// Bytes by digest. A blob is written under a temporary name, synced and renamed, so that a name always holds the whole content.
pub trait ContentStore: Send + Sync {
    /// Stores everything `reader` gives and returns its digest and size; refuses more than `limit` bytes and keeps nothing then.
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError>;

    /// The blob as an open file, not yet re-hashed; [`StoreError::Missing`] if there is none.
    fn open(&self, digest: &Digest) -> Result<File, StoreError>;

    /// The whole blob, re-hashed: [`StoreError::Corrupt`] if the bytes are not the digest's, [`StoreError::TooLarge`] beyond `limit`.
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// The file that holds the blob, for tools that need a path; [`StoreError::Missing`] if there is none.
    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError>;

    /// Stores these bytes and returns their digest.
    fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.put(&mut &bytes[..], bytes.len() as u64).map(|(digest, _)| digest)
    }
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such blob.
    #[error("content {digest} is not in the store")]
    Missing {
        /// What was looked for.
        digest: Digest,
    },
    /// The bytes under that name are others.
    #[error("content {digest} is damaged: the stored bytes have the digest {found}")]
    Corrupt {
        /// What was looked for.
        digest: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// More bytes than allowed.
    #[error("content is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The file system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
