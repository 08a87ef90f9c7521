//! Scanning an image: SBOM and vulnerabilities, by a scanner and a database that are both named by digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
pub use sluicegate_attestation::coverage::{Coverage, Executable, Executables, Gap, Read, System};
pub use sluicegate_attestation::output_sbom::{Inventory, KnownPackage};
pub use sluicegate_attestation::trivy_report::Finding;
pub use sluicegate_attestation::vulns::Database;
use sluicegate_types::Digest;

/// Scans images.
pub trait Scanner: Send + Sync {
    /// Scans the one image of the OCI layout folder `layout` and returns the scanner's own reports with what they were made with.
    fn scan(&self, layout: &Path, image: &Digest) -> Result<ScanReport, ScanError>;

    /// What its scans are made with, if that is known before one is made.
    fn identity(&self) -> Result<Option<ScannerIdentity>, ScanError> {
        Ok(None)
    }

    /// What the scanner says of an output of a step, which is all that the one image of the OCI layout folder `layout` holds.
    fn output(&self, layout: &Path, image: &Digest) -> Result<OutputReport, ScanError>;
}

/// What a scan is made with, beside the image: the same of all of it gives the same scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannerIdentity {
    /// The digest of the executable.
    pub tool: Digest,
    /// The digest of the database.
    pub database: Digest,
    /// The digest of the database of Java archives that it would ask if there are any; `None` if it has none.
    pub java_database: Option<Digest>,
    /// What else goes into its documents, in the adapter's own words.
    pub rules: String,
}

/// A disposable index of scans: from a key to the bundle of the statement that was made. Losing it costs time and nothing else, and what
/// somebody wrote into it is believed by nobody.
pub trait ScanIndex: Send + Sync {
    /// The bundle that was kept under this key, which was used just now. Whatever can't be read is not there.
    fn bundle(&self, key: &Digest) -> Option<Digest>;

    /// Keeps which bundle holds the statement of this key. What can't be kept is not, with the reason.
    fn keep(&self, key: &Digest, bundle: &Digest) -> Result<(), String>;

    /// Forgets a key: what it led to was not what it should be.
    fn forget(&self, key: &Digest);
}

/// What a scanner said of an image.
#[derive(Clone, Debug)]
pub struct ScanReport {
    /// What is wrong with it.
    pub scan: Scan,
    /// The CycloneDX document, made reproducible: serial number and time derived from the image, root named by its digest.
    pub sbom: Vec<u8>,
}

/// What a scanner said of an output.
#[derive(Clone, Debug)]
pub struct OutputReport {
    /// The packages that it recognises.
    pub inventory: Inventory,
    /// What is wrong with them; `None` where it has not the database that this output needs.
    pub scan: Option<Scan>,
}

/// What a scanner said, in its own bytes, and what it was.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The raw report (Trivy's JSON).
    pub raw: Vec<u8>,
    /// The scanner.
    pub tool: Tool,
    /// The database of vulnerabilities.
    pub database: Database,
    /// The database of Java archives, if the image has any.
    pub java_database: Option<Database>,
    /// What was read and what was not.
    pub coverage: Coverage,
}

/// A scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tool {
    /// Its name: `trivy`.
    pub name: String,
    /// The version it says.
    pub version: String,
    /// The digest of its executable.
    pub digest: Digest,
}

/// Why there is no scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No scanner on this machine.
    #[error("no scanner: {looked}")]
    NoScanner {
        /// Where it was looked for and how to get it.
        looked: String,
    },
    /// The executable is not an allowed one.
    #[error(
        "the scanner {path} has the digest {found}, which the gateway file does not list under scanner.trivy.digests"
    )]
    Scanner {
        /// The executable.
        path: PathBuf,
        /// Its digest.
        found: Digest,
    },
    /// The database is missing, damaged, another one than pinned, or of an unknown form.
    #[error("the scanner's database {path}: {reason}")]
    Database {
        /// Its folder.
        path: PathBuf,
        /// Why it is refused.
        reason: String,
    },
    /// The image has Java archives, and no database of them is named.
    #[error(
        "the image has a Java archive, {archive}, for which the scanner needs its Java database, and the gateway file names none: add scanner.trivy.java_db"
    )]
    NoJavaDatabase {
        /// One of them.
        archive: String,
    },
    /// The scanner failed, crashed, ran too long or printed no report.
    #[error("the scanner failed: {reason}")]
    Failed {
        /// Its words.
        reason: String,
    },
    /// It was stopped from outside.
    #[error("the scan was stopped")]
    Stopped,
    /// The report is not one.
    #[error("the scanner's report: {reason}")]
    Report {
        /// Why not.
        reason: String,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] crate::execute::ExecuteError),
    /// The system.
    #[error("cannot {action}: {reason}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// Why not.
        reason: String,
    },
}
