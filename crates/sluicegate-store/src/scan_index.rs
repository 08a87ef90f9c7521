//! The index of scans as small files: `HEX` holds the digest of a bundle.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sluicegate_ports::scan::ScanIndex;
use sluicegate_types::Digest;

use crate::{
    file_store::open_regular,
    step_cache::{read_digest, write},
};

/// Keeps the index in a folder of its own, which is made when something is kept; all of it is disposable.
pub struct FileScanIndex {
    folder: PathBuf,
}

impl FileScanIndex {
    /// The index in this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn entry(&self, key: &Digest) -> PathBuf {
        self.folder.join(key.hex())
    }
}

impl ScanIndex for FileScanIndex {
    fn bundle(&self, key: &Digest) -> Option<Digest> {
        let entry = self.entry(key);
        let bundle = read_digest(&entry)?;
        // An entry whose use can't be noted is only let go sooner.
        if let Ok(file) = open_regular(&entry) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bundle)
    }

    fn keep(&self, key: &Digest, bundle: &Digest) -> Result<(), String> {
        write(&self.entry(key), format!("{bundle}\n").as_bytes())
    }

    fn forget(&self, key: &Digest) {
        // What is gone already was to be gone.
        let _ = fs::remove_file(self.entry(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten_and_junk_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let index = FileScanIndex::new(&dir.path().join("scans"));
        let (key, bundle) = (Digest::of(b"key"), Digest::of(b"bundle"));
        assert_eq!(index.bundle(&key), None);
        index.keep(&key, &bundle).unwrap();
        assert_eq!(index.bundle(&key), Some(bundle));
        fs::write(index.entry(&key), "sha256:12").unwrap();
        assert_eq!(index.bundle(&key), None);
        index.keep(&key, &bundle).unwrap();
        index.forget(&key);
        assert_eq!(index.bundle(&key), None);
    }
}
