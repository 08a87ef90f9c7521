//! Stub of the lead: the owner of this file replaces it and keeps `Finding` here.
use serde::{Deserialize, Serialize};

/// A vulnerability in a package, as the scanner reports it (DESIGN section 5, `input.vulnerabilities[]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The scanner's id: a CVE or GHSA number.
    pub id: String,
    /// Other names of the same thing.
    pub aliases: Vec<String>,
    /// `CRITICAL`, `HIGH`, `MEDIUM`, `LOW` or `UNKNOWN`, as the scanner writes it.
    pub severity: String,
    /// The package's name.
    pub package: String,
    /// The package's purl.
    pub purl: String,
    /// The file in the image that told of the package.
    pub place: String,
    /// The version that is there.
    pub installed: String,
    /// The versions that mend it, as the scanner writes them; `None` or empty where there is none.
    pub fixed: Option<String>,
    /// `affected`, `fixed`, …
    pub status: String,
    /// CVSS score, if any.
    pub score: Option<f64>,
}
