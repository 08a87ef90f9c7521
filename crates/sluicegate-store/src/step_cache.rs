//! The index of step results as small files: `steps/HEX` holds the digest of a bundle, `last/PIPELINE/STEP` what a key was made of.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sluicegate_ports::step_cache::StepCache;
use sluicegate_types::{Digest, StepName};

use crate::file_store::open_regular;

/// Bytes of what a key was made of.
const MAX_PARTS: u64 = 4 * 1024 * 1024;
/// Bytes of a digest and its line break.
const MAX_DIGEST: u64 = 128;

/// Keeps the index in a folder of its own. Each file is written beside its name and renamed; nothing is synced, as all of it is
/// disposable.
pub struct FileStepCache {
    folder: PathBuf,
}

impl FileStepCache {
    /// The index in this folder, which is made when something is kept.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn entry(&self, key: &Digest) -> PathBuf {
        self.folder.join("steps").join(key.hex())
    }

    fn last(&self, pipeline: &StepName, step: &StepName) -> PathBuf {
        self.folder.join("last").join(pipeline.as_str()).join(step.as_str())
    }
}

impl StepCache for FileStepCache {
    fn origin(&self, key: &Digest) -> Option<Digest> {
        read_digest(&self.entry(key))
    }

    fn keep(&self, key: &Digest, bundle: &Digest) -> Result<(), String> {
        write(&self.entry(key), format!("{bundle}\n").as_bytes())
    }

    fn forget(&self, key: &Digest) {
        // What is gone already was to be gone.
        let _ = fs::remove_file(self.entry(key));
    }

    fn used(&self, key: &Digest) {
        // A result whose use can't be noted is only let go sooner.
        if let Ok(file) = open_regular(&self.entry(key)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    fn remembered(&self, pipeline: &StepName, step: &StepName) -> Option<Vec<u8>> {
        read(&self.last(pipeline, step), MAX_PARTS)
    }

    fn remember(&self, pipeline: &StepName, step: &StepName, parts: &[u8]) -> Result<(), String> {
        let path = self.last(pipeline, step);
        // It is the same whenever a result is taken.
        if read(&path, MAX_PARTS).as_deref() == Some(parts) { Ok(()) } else { write(&path, parts) }
    }
}

/// The digest in a small file; whatever else is there is none.
pub(crate) fn read_digest(path: &Path) -> Option<Digest> {
    std::str::from_utf8(&read(path, MAX_DIGEST)?).ok()?.trim_end().parse().ok()
}

fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = open_regular(path).ok()?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let inner = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(bytes)?;
        draft.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    inner().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten_and_junk_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FileStepCache::new(&dir.path().join("cache"));
        let (key, bundle) = (Digest::of(b"key"), Digest::of(b"bundle"));
        assert_eq!(cache.origin(&key), None);
        cache.keep(&key, &bundle).unwrap();
        assert_eq!(cache.origin(&key), Some(bundle));
        assert_eq!(cache.origin(&Digest::of(b"other")), None);
        for junk in [&b""[..], b"sha256:12", b"\xff", &[b'a'; 4096]] {
            fs::write(cache.entry(&key), junk).unwrap();
            assert_eq!(cache.origin(&key), None);
        }
        cache.keep(&key, &bundle).unwrap();
        cache.forget(&key);
        cache.forget(&key);
        assert_eq!(cache.origin(&key), None);
        let pipe = std::process::Command::new("mkfifo").arg(cache.entry(&key)).status().unwrap();
        assert!(pipe.success());
        assert_eq!(cache.origin(&key), None, "nobody waits for who writes to a pipe");
        fs::remove_file(cache.entry(&key)).unwrap();
        fs::create_dir(cache.entry(&key)).unwrap();
        assert_eq!(cache.origin(&key), None);
        assert!(cache.keep(&key, &bundle).is_err());
    }

    #[test]
    fn parts_are_remembered_by_pipeline_and_step() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FileStepCache::new(dir.path());
        let name = |name: &str| name.parse::<StepName>().unwrap();
        cache.remember(&name("shop"), &name("build"), b"{}").unwrap();
        assert_eq!(cache.remembered(&name("shop"), &name("build")), Some(b"{}".to_vec()));
        assert_eq!(cache.remembered(&name("shop"), &name("test")), None);
        assert_eq!(cache.remembered(&name("other"), &name("build")), None);
    }
}
