use std::{path::Path, sync::Mutex};

use serde_json::json;
use sluicegate_ports::scan::{
    Coverage, Database, Executables, OutputReport, Read, Scan, ScanError, ScanReport, Scanner, ScannerIdentity, Tool,
};
use sluicegate_types::{Digest, UnixTime};

/// A scanner that gives what it was told to give.
pub struct FakeScanner {
    answer: Result<ScanReport, String>,
    scanned: Mutex<Vec<Digest>>,
}

impl FakeScanner {
    /// One that gives this report about every image.
    pub fn gives(report: ScanReport) -> Self {
        Self { answer: Ok(report), scanned: Mutex::new(Vec::new()) }
    }

    /// One that fails with these words.
    pub fn fails(reason: &str) -> Self {
        Self { answer: Err(reason.to_owned()), scanned: Mutex::new(Vec::new()) }
    }

    /// The report of a whole scan that found what `raw` says, with a database of this content and date.
    pub fn report(raw: &[u8], database: Digest, updated_at: UnixTime) -> ScanReport {
        let sbom = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "application", "name": "server"}]});
        let scan = Scan {
            raw: raw.to_vec(),
            tool: Tool { name: "trivy".to_owned(), version: "0.70.0".to_owned(), digest: Digest::of(b"trivy") },
            database: Database { digest: database, updated_at },
            java_database: None,
            coverage: Coverage {
                read: vec![Read {
                    kind: "debian".to_owned(),
                    place: "var/lib/dpkg/status".to_owned(),
                    packages: 1,
                    lock_file: false,
                }],
                unread: Vec::new(),
                system: None,
                executables: Some(Executables::default()),
            },
        };
        ScanReport { scan, sbom: serde_json::to_vec(&sbom).unwrap() }
    }

    /// A raw report that names these advisories, each critical and with a fix.
    pub fn raw(advisories: &[&str]) -> Vec<u8> {
        let findings = advisories.iter().map(|id| {
            json!({"VulnerabilityID": id, "PkgName": "openssl", "InstalledVersion": "3.0", "FixedVersion": "3.1", "Severity": "CRITICAL"})
        });
        let findings: Vec<_> = findings.collect();
        let list = json!({"Target": "debian", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": findings});
        serde_json::to_vec(&json!({"SchemaVersion": 2, "ArtifactType": "container_image", "Results": [list]})).unwrap()
    }

    /// The images that it was asked about.
    pub fn scanned(&self) -> Vec<Digest> {
        self.scanned.lock().unwrap().clone()
    }
}

impl Scanner for FakeScanner {
    fn scan(&self, _: &Path, image: &Digest) -> Result<ScanReport, ScanError> {
        self.scanned.lock().unwrap().push(*image);
        self.answer.clone().map_err(|reason| ScanError::Failed { reason })
    }

    fn identity(&self) -> Result<Option<ScannerIdentity>, ScanError> {
        Ok(self.answer.as_ref().ok().map(|report| ScannerIdentity {
            tool: report.scan.tool.digest,
            database: report.scan.database.digest,
            java_database: None,
            rules: String::new(),
        }))
    }

    fn output(&self, _: &Path, _: &Digest) -> Result<OutputReport, ScanError> {
        Err(ScanError::Failed { reason: "this scanner is for images".to_owned() })
    }
}
