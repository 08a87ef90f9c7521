//! The content store: bytes by digest.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
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

    /// Gives the file of a blob one more name, `to`, which nobody has yet, in place of a copy, and the file itself, open. `None` where
    /// that is not to be: then nothing has that name, and whoever wants the blob copies it.
    ///
    /// Two names of one file are one content: whoever changes what is called `to` changes what is here. So no store that lasts does it,
    /// and none gives away what it did not write and hash itself.
    fn give(&self, _digest: &Digest, _to: &Path) -> Option<File> {
        None
    }

    /// Keeps somebody else's file of at most `limit` bytes under the digest of its bytes, which are read here once and neither copied
    /// nor changed, and says digest and size. `None` where that is not to be: then nothing is kept, and whoever has the file puts its
    /// bytes.
    ///
    /// Its owner may change the file afterwards: whoever reads it from here hashes it once more. So no store that lasts does it.
    fn borrow(&self, _file: &Path, _limit: u64) -> Option<(Digest, u64)> {
        None
    }

    /// Stores these bytes and returns their digest.
    fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.put(&mut &bytes[..], bytes.len() as u64).map(|(digest, _)| digest)
    }

    /// Stores all of these. On an error some of them may be stored.
    fn put_all(&self, contents: &[Vec<u8>]) -> Result<(), StoreError> {
        contents.iter().try_for_each(|bytes| self.put_bytes(bytes).map(drop))
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
