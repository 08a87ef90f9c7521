use std::{collections::BTreeMap, fs::File, io::Read, path::PathBuf, sync::Mutex};

use sluicegate_ports::{
    prune::{Listed, PrunableStore, StoredContent},
    store::{ContentStore, StoreError},
};
use sluicegate_types::Digest;

/// Blobs in memory; a file of a private temporary folder where a caller needs one.
pub struct MemoryStore {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    files: tempfile::TempDir,
}

impl MemoryStore {
    /// A store that holds nothing.
    pub fn new() -> Self {
        Self { blobs: Mutex::new(BTreeMap::new()), files: tempfile::tempdir().unwrap() }
    }

    /// Puts other bytes under a digest.
    pub fn replace(&self, digest: Digest, bytes: &[u8]) {
        self.blobs.lock().unwrap().insert(digest, bytes.to_vec());
    }

    /// Forgets a blob.
    pub fn remove(&self, digest: &Digest) {
        self.blobs.lock().unwrap().remove(digest);
    }

    /// The digests of everything it holds.
    pub fn digests(&self) -> Vec<Digest> {
        self.blobs.lock().unwrap().keys().copied().collect()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentStore for MemoryStore {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        let mut bytes = Vec::new();
        reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|source| StoreError::Io {
            action: "read the content for",
            path: self.files.path().to_owned(),
            source,
        })?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.blobs.lock().unwrap().insert(digest, bytes);
        Ok((digest, size))
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest)?;
        File::open(&path).map_err(|source| StoreError::Io { action: "open", path, source })
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.blobs.lock().unwrap().get(digest).cloned().ok_or(StoreError::Missing { digest: *digest })?;
        let found = Digest::of(&bytes);
        if bytes.len() as u64 > limit {
            Err(StoreError::TooLarge { limit })
        } else if found != *digest {
            Err(StoreError::Corrupt { digest: *digest, found })
        } else {
            Ok(bytes)
        }
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(digest).ok_or(StoreError::Missing { digest: *digest })?;
        let path = self.files.path().join(digest.hex());
        // Whoever has it open already goes on reading what it was.
        let draft = self.files.path().join("draft");
        std::fs::write(&draft, bytes)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|source| StoreError::Io { action: "write", path: path.clone(), source })?;
        Ok(path)
    }
}

impl PrunableStore for MemoryStore {
    fn list(&self) -> Result<Listed, StoreError> {
        let blobs = self.blobs.lock().unwrap();
        let contents = blobs.iter().map(|(digest, bytes)| StoredContent { digest: *digest, size: bytes.len() as u64 });
        Ok(Listed { contents: contents.collect(), ..Listed::default() })
    }

    fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        Self::remove(self, digest);
        Ok(())
    }

    fn remove_drafts(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
