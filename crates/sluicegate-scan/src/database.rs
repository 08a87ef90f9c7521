//! Trivy's databases as the gateway pins them: both files of one copied into the private folder under the digest they were pinned by.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sluicegate_ports::scan::{Database, ScanError};
use sluicegate_types::{Digest, UnixTime};

use crate::pinned_copy;

/// The file beside the database itself that says when it was made.
pub(crate) const METADATA_FILE: &str = "metadata.json";
/// Bytes of that file.
pub(crate) const METADATA: u64 = 64 * 1024;
/// Bytes of a database.
pub(crate) const DATABASE: u64 = 4 * 1024 * 1024 * 1024;

/// One of the two databases that Trivy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which vulnerabilities there are (trivy-db).
    Vulnerabilities,
    /// Which Java archives there are, by their content (trivy-java-db).
    Java,
}

impl Kind {
    /// Its folder in Trivy's cache folder.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Vulnerabilities => "db",
            Self::Java => "java-db",
        }
    }

    /// The file with its content.
    pub fn file(self) -> &'static str {
        match self {
            Self::Vulnerabilities => "trivy.db",
            Self::Java => "trivy-java.db",
        }
    }

    /// The media type of the layer in which registries hold it.
    pub fn layer(self) -> &'static str {
        match self {
            Self::Vulnerabilities => "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip",
            Self::Java => "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip",
        }
    }

    /// The schema that this version knows.
    fn version(self) -> u64 {
        match self {
            Self::Vulnerabilities => 2,
            Self::Java => 1,
        }
    }
}

/// A database whose bytes have the pinned digest.
#[derive(Clone, Debug)]
pub struct PinnedDatabase {
    /// The private folder with its files, for Trivy's cache folder.
    pub files: PathBuf,
    /// Its digest and its date; how old it may be is the judge's question.
    pub database: Database,
    kind: Kind,
}

impl PinnedDatabase {
    /// Takes the database that `folder` gives into `work`. A copy that an earlier process made is used again when it still has the
    /// digest, and then `folder` is not asked; a damaged one is replaced.
    pub fn take(
        kind: Kind,
        folder: &dyn Fn() -> Result<PathBuf, ScanError>,
        pin: &Digest,
        work: &Path,
    ) -> Result<Self, ScanError> {
        let files = work.join(format!("{}-{}", kind.folder(), pin.hex()));
        if !(files.is_dir() && digest_of(kind, &files).is_ok_and(|found| found == *pin)) {
            copy(kind, &folder()?, pin, &files, work)?;
        }
        let updated_at = updated_at(kind, &files)?;
        Ok(Self { files, database: Database { digest: *pin, updated_at }, kind })
    }

    /// Where Trivy looks for it when this is its cache folder.
    pub(crate) fn place_in(&self, cache: &str) -> String {
        format!("{cache}/{}", self.kind.folder())
    }

    /// Where its content is.
    pub fn file(&self) -> PathBuf {
        self.files.join(self.kind.file())
    }
}

/// The digest by which the database in `folder` is pinned: SHA-256 of the two lines that `sha256sum metadata.json FILE` prints.
pub fn digest_of(kind: Kind, folder: &Path) -> Result<Digest, ScanError> {
    let hash = |name: &str, limit| {
        pinned_copy::digest(&folder.join(name), limit).map_err(|error| refused(folder, &format!("{name}: {error}")))
    };
    Ok(digest_of_both(kind, &hash(METADATA_FILE, METADATA)?, &hash(kind.file(), DATABASE)?))
}

fn digest_of_both(kind: Kind, metadata: &Digest, database: &Digest) -> Digest {
    Digest::of(format!("{}  {METADATA_FILE}\n{}  {}\n", metadata.hex(), database.hex(), kind.file()).as_bytes())
}

fn copy(kind: Kind, folder: &Path, pin: &Digest, files: &Path, work: &Path) -> Result<(), ScanError> {
    let io = |action: &str, path: &Path, error: std::io::Error| ScanError::Io {
        action: format!("{action} {}", path.display()),
        reason: error.to_string(),
    };
    let fresh = tempfile::Builder::new().prefix(kind.folder()).tempdir_in(work);
    let fresh = fresh.map_err(|error| io("make a folder in", work, error))?;
    let whole = fresh.path().join("whole");
    fs::create_dir(&whole).map_err(|error| io("make the folder", &whole, error))?;
    let take = |name: &str, limit| {
        pinned_copy::copy(&folder.join(name), &whole.join(name), 0o444, limit)
            .map_err(|error| refused(folder, &format!("cannot copy {name}: {error}")))
    };
    let found = digest_of_both(kind, &take(METADATA_FILE, METADATA)?, &take(kind.file(), DATABASE)?);
    if found != *pin {
        let reason = format!(
            "it has the digest {found}, and the gateway file pins {pin}: pin the new one, or give the pinned one"
        );
        return Err(refused(folder, &reason));
    }
    if files.exists() {
        let old = fresh.path().join("old");
        fs::rename(files, &old).map_err(|error| io("replace the damaged copy", files, error))?;
    }
    pinned_copy::readable(&whole, 0o755).map_err(|error| io("set the permissions of", &whole, error))?;
    match fs::rename(&whole, files) {
        // Another process was faster; its copy is as good if it has the digest.
        Err(_) if digest_of(kind, files).is_ok_and(|found| found == *pin) => Ok(()),
        renamed => renamed.map_err(|error| io("move the copy to", files, error)),
    }
}

fn updated_at(kind: Kind, files: &Path) -> Result<UnixTime, ScanError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metadata {
        version: u64,
        updated_at: UnixTime,
    }
    let bytes = fs::read(files.join(METADATA_FILE)).map_err(|error| refused(files, &error.to_string()))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| refused(files, &format!("{METADATA_FILE}: {error}")))?;
    let (found, known) = (metadata.version, kind.version());
    if found != known {
        let reason = format!("it has schema version {found}, this version of sluicegate knows {known}");
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

    fn take(folder: &Path, pin: &Digest, work: &Path) -> Result<PinnedDatabase, ScanError> {
        PinnedDatabase::take(Kind::Vulnerabilities, &|| Ok(folder.to_owned()), pin, work)
    }

    fn source(metadata: &str) -> (tempfile::TempDir, Digest) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metadata.json"), metadata).unwrap();
        fs::write(folder.path().join("trivy.db"), "pages").unwrap();
        let pin = digest_of(Kind::Vulnerabilities, folder.path()).unwrap();
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
        let taken = take(folder.path(), &pin, work.path()).unwrap();
        assert_eq!(taken.database.updated_at.to_string(), "2026-11-23T00:00:00Z");
        assert_eq!(fs::read(taken.file()).unwrap(), b"pages");
        let gone = Path::new("/nonexistent");
        assert!(take(gone, &pin, work.path()).is_ok(), "the copy is used again");
        fs::remove_file(taken.file()).unwrap();
        fs::write(taken.file(), "pagez").unwrap();
        assert!(take(gone, &pin, work.path()).is_err(), "a damaged copy is not used");
        take(folder.path(), &pin, work.path()).unwrap();
        assert_eq!(fs::read(taken.file()).unwrap(), b"pages");
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn another_database_than_the_pinned_one_is_refused() {
        let (folder, pin) = source(METADATA_JSON);
        let work = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("trivy.db"), "other").unwrap();
        let words = take(folder.path(), &pin, work.path()).unwrap_err().to_string();
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
            assert!(take(folder.path(), &pin, work.path()).is_err(), "{bad}");
        }
        let (folder, _) = source(&METADATA_JSON.replace("\"Version\":2", "\"Version\":1"));
        fs::rename(folder.path().join("trivy.db"), folder.path().join("trivy-java.db")).unwrap();
        let pin = digest_of(Kind::Java, folder.path()).unwrap();
        let java = |kind| PinnedDatabase::take(kind, &|| Ok(folder.path().to_owned()), &pin, work.path());
        assert_eq!(java(Kind::Java).unwrap().database.digest, pin, "the Java database has a schema of its own");
        assert!(java(Kind::Vulnerabilities).is_err());
    }
}
