//! Trivy's database as the gateway pins it: both files copied into the private folder under the digest they were pinned by.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sluicegate_ports::scan::ScanError;
use sluicegate_types::{Digest, UnixTime};

use crate::pinned_copy;

/// Bytes of `trivy.db`.
pub(crate) const DATABASE: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of `metadata.json`.
pub(crate) const METADATA: u64 = 64 * 1024;
/// The schema of trivy-db that this version knows.
const VERSION: u64 = 2;

/// A database whose bytes have the pinned digest.
#[derive(Clone, Debug)]
pub struct PinnedDatabase {
    /// The folder for Trivy's `--cache-dir`; the files stand in `db/` below it.
    pub cache: PathBuf,
    /// Over both files, as `sha256sum metadata.json trivy.db` prints them.
    pub digest: Digest,
    /// `UpdatedAt` of its own metadata; how old it may be is the judge's question.
    pub updated_at: UnixTime,
}

impl PinnedDatabase {
    /// Takes the database in `folder` into `work`. A copy that an earlier process made is used again when it still has the
    /// digest, and then `folder` is not looked at; a damaged one is replaced.
    pub fn take(folder: &Path, pin: &Digest, work: &Path) -> Result<Self, ScanError> {
        let cache = work.join(format!("db-{}", pin.hex()));
        let files = cache.join("db");
        if !(files.is_dir() && digest_of(&files).is_ok_and(|found| found == *pin)) {
            copy(folder, pin, &cache, work)?;
        }
        let updated_at = updated_at(&files)?;
        Ok(Self { cache, digest: *pin, updated_at })
    }

    /// Where `trivy.db` is.
    pub fn file(&self) -> PathBuf {
        self.cache.join("db").join("trivy.db")
    }
}

/// The digest by which the database in `folder` is pinned: SHA-256 of the two lines that `sha256sum metadata.json trivy.db` prints.
pub fn digest_of(folder: &Path) -> Result<Digest, ScanError> {
    let hash = |name: &str, limit| {
        pinned_copy::digest(&folder.join(name), limit).map_err(|error| refused(folder, &format!("{name}: {error}")))
    };
    Ok(digest_of_both(&hash("metadata.json", METADATA)?, &hash("trivy.db", DATABASE)?))
}

fn digest_of_both(metadata: &Digest, database: &Digest) -> Digest {
    Digest::of(format!("{}  metadata.json\n{}  trivy.db\n", metadata.hex(), database.hex()).as_bytes())
}

fn copy(folder: &Path, pin: &Digest, cache: &Path, work: &Path) -> Result<(), ScanError> {
    let io = |action: &str, path: &Path, error: std::io::Error| ScanError::Io {
        action: format!("{action} {}", path.display()),
        reason: error.to_string(),
    };
    let fresh =
        tempfile::Builder::new().prefix("db-").tempdir_in(work).map_err(|error| io("make a folder in", work, error))?;
    let files = fresh.path().join("db");
    fs::create_dir(&files).map_err(|error| io("make the folder", &files, error))?;
    let take = |name: &str, limit| {
        pinned_copy::copy(&folder.join(name), &files.join(name), 0o444, limit)
            .map_err(|error| refused(folder, &format!("cannot copy {name}: {error}")))
    };
    let found = digest_of_both(&take("metadata.json", METADATA)?, &take("trivy.db", DATABASE)?);
    if found != *pin {
        let reason = format!(
            "it has the digest {found}, and the gateway file pins {pin}: pin the new one, or give the pinned one"
        );
        return Err(refused(folder, &reason));
    }
    if cache.exists() {
        let old = fresh.path().join("old");
        fs::rename(cache, &old).map_err(|error| io("replace the damaged copy", cache, error))?;
    }
    let whole = fresh.path().join("whole");
    fs::create_dir(&whole).map_err(|error| io("make the folder", &whole, error))?;
    for folder in [&whole, &files] {
        pinned_copy::readable(folder, 0o755).map_err(|error| io("set the permissions of", folder, error))?;
    }
    fs::rename(&files, whole.join("db")).map_err(|error| io("move the copy to", &whole, error))?;
    match fs::rename(&whole, cache) {
        // Another process was faster; its copy is as good if it has the digest.
        Err(_) if digest_of(&cache.join("db")).is_ok_and(|found| found == *pin) => Ok(()),
        renamed => renamed.map_err(|error| io("move the copy to", cache, error)),
    }
}

fn updated_at(files: &Path) -> Result<UnixTime, ScanError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metadata {
        version: u64,
        updated_at: UnixTime,
    }
    let bytes = fs::read(files.join("metadata.json")).map_err(|error| refused(files, &error.to_string()))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| refused(files, &format!("metadata.json: {error}")))?;
    if metadata.version != VERSION {
        let reason = format!("it has schema version {}, this version of sluicegate knows {VERSION}", metadata.version);
        return Err(refused(files, &reason));
    }
    Ok(metadata.updated_at)
}

fn refused(folder: &Path, reason: &str) -> ScanError {
    ScanError::Database { path: folder.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA_JSON: &str = r#"{"Version":2,"NextUpdate":"2036-01-01T00:00:00Z","UpdatedAt":"2026-11-23T00:00:00.5Z","DownloadedAt":"2026-11-23T00:00:00Z"}"#;

    fn source(metadata: &str) -> (tempfile::TempDir, Digest) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metadata.json"), metadata).unwrap();
        fs::write(folder.path().join("trivy.db"), "pages").unwrap();
        let pin = digest_of(folder.path()).unwrap();
        (folder, pin)
    }

    #[test]
    fn the_digest_is_that_of_sha256sums_own_text() {
        let (folder, pin) = source(METADATA_JSON);
        let printed = std::process::Command::new("sha256sum")
            .args(["metadata.json", "trivy.db"])
            .current_dir(folder.path())
            .output()
            .unwrap()
            .stdout;
        assert_eq!(Digest::of(&printed), pin);
    }

    #[test]
    fn a_pinned_database_is_copied_once_and_healed_when_damaged() {
        let (folder, pin) = source(METADATA_JSON);
        let work = tempfile::tempdir().unwrap();
        let taken = PinnedDatabase::take(folder.path(), &pin, work.path()).unwrap();
        assert_eq!(taken.updated_at.to_string(), "2026-11-23T00:00:00Z");
        assert_eq!(fs::read(taken.file()).unwrap(), b"pages");
        let gone = Path::new("/nonexistent");
        assert!(PinnedDatabase::take(gone, &pin, work.path()).is_ok(), "the copy is used again");
        fs::remove_file(taken.file()).unwrap();
        fs::write(taken.file(), "pagez").unwrap();
        assert!(PinnedDatabase::take(gone, &pin, work.path()).is_err(), "a damaged copy is not used");
        PinnedDatabase::take(folder.path(), &pin, work.path()).unwrap();
        assert_eq!(fs::read(taken.file()).unwrap(), b"pages");
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn another_database_than_the_pinned_one_is_refused() {
        let (folder, pin) = source(METADATA_JSON);
        let work = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("trivy.db"), "other").unwrap();
        let words = PinnedDatabase::take(folder.path(), &pin, work.path()).unwrap_err().to_string();
        assert!(words.contains(&pin.to_string()), "{words}");
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn metadata_of_another_version_or_without_a_date_is_refused() {
        let work = tempfile::tempdir().unwrap();
        for bad in [
            METADATA_JSON.replace("\"Version\":2", "\"Version\":1"),
            METADATA_JSON.replace("UpdatedAt", "Updated"),
            "{".into(),
        ] {
            let (folder, pin) = source(&bad);
            assert!(PinnedDatabase::take(folder.path(), &pin, work.path()).is_err(), "{bad}");
        }
    }
}
