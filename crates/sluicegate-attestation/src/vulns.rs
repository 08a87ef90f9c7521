//! in-toto vulns v0.2, with the scanner, its database and the raw report named by digest.
//!
//! The findings in `result` are for other readers. Our own facts come from the raw report's verified bytes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_types::{Digest, UnixTime};

use crate::{Error, coverage::Coverage, form, trivy_report::Finding};

/// The predicate of `https://in-toto.io/attestation/vulns/v0.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vulns {
    /// The scanner.
    pub scanner: Scanner,
    /// When the scan began.
    pub started_on: UnixTime,
    /// When it was over.
    pub finished_on: UnixTime,
    /// The scanner's own report, which travels beside this statement.
    pub report: Digest,
    /// What was read and what was not.
    pub coverage: Coverage,
}

/// A scanner and its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanner {
    /// `trivy`.
    pub name: String,
    /// What it calls its version.
    pub version: String,
    /// Its executable's digest.
    pub digest: Digest,
    /// The vulnerabilities that it knows.
    pub database: Database,
    /// The Java archives that it knows by their content; only where the image has such archives.
    pub java_database: Option<Database>,
}

/// A database of a scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    /// Over its files, as `sha256sum metadata.json FILE` prints them.
    pub digest: Digest,
    /// When its makers updated it (`UpdatedAt`), from its own verified bytes.
    pub updated_at: UnixTime,
}

impl Vulns {
    /// The predicate as JSON, with `findings` as its `result`.
    pub fn to_predicate(&self, findings: &[Finding]) -> Value {
        let mut databases = self.scanner.databases().map(|(name, known)| database(&name, known));
        let mut predicate = json!({
            "scanner": {
                "uri": format!("pkg:generic/{}@{}", self.scanner.name, self.scanner.version),
                "version": self.scanner.version,
                "sluicegate_name": self.scanner.name,
                "sluicegate_digest": self.scanner.digest,
                "db": databases.next(),
                "result": findings.iter().map(result).collect::<Vec<_>>(),
            },
            "metadata": {"scanStartedOn": self.started_on, "scanFinishedOn": self.finished_on},
            "sluicegate_coverage": self.coverage,
            "sluicegate_report": {"digest": {"sha256": self.report.hex()}, "mediaType": crate::identifiers::TRIVY_REPORT},
        });
        if let Some(java) = databases.next() {
            predicate["scanner"]["sluicegate_java_db"] = java;
        }
        predicate
    }

    /// Whether a predicate sums up these findings: the same advisories in the same packages at the same places, rated alike.
    pub fn sums_up(predicate: &Value, findings: &[Finding]) -> bool {
        let key = |result: &Value| -> [String; 4] {
            let note = &result["annotations"][0];
            [&result["id"], &result["severity"][0]["score"], &note["purl"], &note["place"]].map(Value::to_string)
        };
        let mut said: Vec<_> = predicate["scanner"]["result"].as_array().into_iter().flatten().map(key).collect();
        let mut found: Vec<_> = findings.iter().map(|finding| key(&result(finding))).collect();
        said.sort_unstable();
        found.sort_unstable();
        said == found
    }

    /// Reads a predicate of ours; one without the raw report's digest can't be a fact and is refused.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire = WireVulns::deserialize(predicate).map_err(form("the vulns predicate"))?;
        if wire.sluicegate_report.media_type != crate::identifiers::TRIVY_REPORT {
            return Err(crate::unsupported("report media type", &wire.sluicegate_report.media_type));
        }
        Ok(Self {
            scanner: Scanner {
                name: wire.scanner.sluicegate_name,
                version: wire.scanner.version,
                digest: wire.scanner.sluicegate_digest,
                database: wire.scanner.db.into(),
                java_database: wire.scanner.sluicegate_java_db.map(Database::from),
            },
            started_on: wire.metadata.scan_started_on,
            finished_on: wire.metadata.scan_finished_on,
            report: Digest::from_hex(&wire.sluicegate_report.digest.sha256)
                .map_err(|e| Error::Invalid { what: "sluicegate_report", reason: e.to_string() })?,
            coverage: wire.sluicegate_coverage,
        })
    }
}

impl Scanner {
    /// Every database that it asked, by the name by which statements and facts know it.
    pub fn databases(&self) -> impl Iterator<Item = (String, &Database)> {
        let java = self.java_database.iter().map(|java| (format!("{}-java-db", self.name), java));
        std::iter::once((format!("{}-db", self.name), &self.database)).chain(java)
    }
}

fn database(name: &str, database: &Database) -> Value {
    json!({"uri": format!("pkg:generic/{name}"), "version": database.digest, "lastUpdate": database.updated_at})
}

fn result(finding: &Finding) -> Value {
    let mut severity = vec![json!({"method": "trivy", "score": finding.severity})];
    if let Some(score) = &finding.score {
        severity.push(json!({"method": "cvss_score", "score": score.to_string()}));
    }
    let mut note = json!({
        "purl": finding.purl, "package": finding.package, "installed": finding.installed, "fixed": finding.fixed,
        "status": finding.status, "place": finding.place,
    });
    if finding.lock_file {
        note["lockFile"] = json!(true);
    }
    json!({"id": finding.id, "severity": severity, "annotations": [note]})
}

#[derive(Serialize, Deserialize)]
struct WireVulns {
    scanner: WireScanner,
    metadata: WireMetadata,
    sluicegate_report: WireReport,
    sluicegate_coverage: Coverage,
}

#[derive(Serialize, Deserialize)]
struct WireScanner {
    version: String,
    sluicegate_name: String,
    sluicegate_digest: Digest,
    db: WireDatabase,
    #[serde(default)]
    sluicegate_java_db: Option<WireDatabase>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDatabase {
    version: Digest,
    last_update: UnixTime,
}

impl From<WireDatabase> for Database {
    fn from(wire: WireDatabase) -> Self {
        Self { digest: wire.version, updated_at: wire.last_update }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    scan_started_on: UnixTime,
    scan_finished_on: UnixTime,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireReport {
    digest: WireDigest,
    media_type: String,
}

#[derive(Serialize, Deserialize)]
struct WireDigest {
    sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_report_is_demanded() {
        let time = UnixTime::from_seconds(1_700_000_000).unwrap();
        let written = Vulns {
            scanner: Scanner {
                name: "trivy".to_owned(),
                version: "0.76.0".to_owned(),
                digest: Digest::of(b"tool"),
                database: Database { digest: Digest::of(b"db"), updated_at: time },
                java_database: Some(Database { digest: Digest::of(b"java"), updated_at: time }),
            },
            started_on: time,
            finished_on: time,
            report: Digest::of(b"report"),
            coverage: Coverage { read: vec![], unread: vec![], system: None, executables: None },
        };
        let mut predicate = written.to_predicate(&[]);
        assert_eq!(Vulns::parse(&predicate).unwrap(), written);
        predicate["scanner"]["sluicegate_java_db"]["version"] = json!("newest");
        assert!(Vulns::parse(&predicate).is_err(), "a second database without a digest");
        predicate["scanner"].as_object_mut().unwrap().remove("sluicegate_java_db");
        let mut without = written.clone();
        without.scanner.java_database = None;
        assert_eq!(Vulns::parse(&predicate).unwrap(), without);
        predicate.as_object_mut().unwrap().remove("sluicegate_report");
        assert!(Vulns::parse(&predicate).is_err());
    }
}
