//! Scans that were made before: one for each image, scanner and database, and what was said of each output that is a directory. What the index says is believed in nothing: it leads to a
//! statement that is verified anew, in the role that it is asked for, over a report that is hashed anew (trust model 4).

use serde_json::{Value, json};
use sluicegate_attestation::{predicate::PredicateType, statement::Statement, vulns::Vulns};
use sluicegate_ports::{
    scan::{ScanIndex, ScannerIdentity},
    store::ContentStore,
};
use sluicegate_types::{
    Content, Digest, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{Role, Trust, VerifiedStatement, verify};

use crate::{Error, assemble::json_bytes};

/// Bytes of a bundle, and of a raw report.
const MAX_BUNDLE: u64 = 16 * 1024 * 1024;
const MAX_REPORT: u64 = 128 * 1024 * 1024;

/// Where earlier scans are found, and who is believed about them.
#[derive(Clone, Copy)]
pub struct KnownScans<'a> {
    /// Where they are looked up.
    pub index: &'a dyn ScanIndex,
    /// Where they are.
    pub store: &'a dyn ContentStore,
    /// Whom to believe.
    pub trust: &'a Trust,
    /// In which role who scanned signs.
    pub role: Role,
    /// The moment.
    pub at: UnixTime,
}

/// An earlier scan that counts.
pub(crate) struct KnownScan {
    /// The statement of type `vulns`.
    pub(crate) vulns: VerifiedStatement,
    /// Bytes of its bundle.
    pub(crate) size: u64,
    /// The raw report that it names.
    pub(crate) report: Vec<u8>,
}

impl KnownScans<'_> {
    /// The scan of this image by this scanner, if there is one that counts.
    pub(crate) fn of_image(&self, scanner: &ScannerIdentity, image: &Digest) -> Option<KnownScan> {
        let key = self.key(scanner, image, &PredicateType::Vulns).ok()?;
        let (vulns, size) = self.statement(&key, &|said| said.is_about_image(image), &PredicateType::Vulns)?;
        self.scan(scanner, &key, vulns, size)
    }

    /// A scan that is one of this scanner, with its raw report.
    fn scan(&self, scanner: &ScannerIdentity, key: &Digest, vulns: VerifiedStatement, size: u64) -> Option<KnownScan> {
        let said = Vulns::parse(&vulns.statement().predicate).ok()?;
        // One that needed no Java database asked the same of none.
        let by_it = (said.scanner.digest, said.scanner.database.digest) == (scanner.tool, scanner.database)
            && said.scanner.java_database.is_none_or(|java| Some(java.digest) == scanner.java_database);
        if !by_it && is_on(Check::KnownScanScanner) {
            self.index.forget(key);
            return None;
        }
        let report = self.store.read(&said.report, MAX_REPORT).ok()?;
        Some(KnownScan { vulns, size, report })
    }

    /// The SBOM that was made with it.
    pub(crate) fn sbom(&self, scanner: &ScannerIdentity, image: &Digest) -> Option<VerifiedStatement> {
        let key = self.key(scanner, image, &PredicateType::Sbom).ok()?;
        self.statement(&key, &|said| said.is_about_image(image), &PredicateType::Sbom).map(|(statement, _)| statement)
    }

    /// The SBOM of an output: `output` is all that it depends on beside the scanner, its name included.
    pub(crate) fn sbom_of_output(
        &self,
        scanner: &ScannerIdentity,
        output: &Value,
        content: Content,
    ) -> Option<VerifiedStatement> {
        let key = self.output_key(scanner, output, &PredicateType::Sbom).ok()?;
        let (sbom, _) = self.statement(&key, &|said| said.is_about(content), &PredicateType::Sbom)?;
        // It says itself for which output, and which scanner looked; one of a run without a scanner names none.
        let said = &sbom.statement().predicate["metadata"];
        let tool = json!([{"alg": "SHA-256", "content": scanner.tool.hex()}]);
        let by_it = said["component"]["name"] == output["name"] && said["tools"]["components"][0]["hashes"] == tool;
        if !by_it && is_on(Check::KnownScanScanner) {
            self.index.forget(&key);
            return None;
        }
        Some(sbom)
    }

    /// The scan of such an output.
    pub(crate) fn scan_of_output(
        &self,
        scanner: &ScannerIdentity,
        output: &Value,
        content: Content,
    ) -> Option<KnownScan> {
        let key = self.output_key(scanner, output, &PredicateType::Vulns).ok()?;
        let (vulns, size) = self.statement(&key, &|said| said.is_about(content), &PredicateType::Vulns)?;
        self.scan(scanner, &key, vulns, size)
    }

    /// Keeps which bundle holds a statement about such an output.
    pub(crate) fn keep_output(&self, scanner: &ScannerIdentity, output: &Value, statement: &VerifiedStatement) {
        if let Ok(key) = self.output_key(scanner, output, &statement.statement().predicate_type) {
            let _ = self.index.keep(&key, &statement.bundle());
        }
    }

    /// Keeps which bundle holds a statement about this image. What can't be kept is not: the image is scanned again.
    pub(crate) fn keep(&self, scanner: &ScannerIdentity, image: &Digest, statement: &VerifiedStatement) {
        if let Ok(key) = self.key(scanner, image, &statement.statement().predicate_type) {
            let _ = self.index.keep(&key, &statement.bundle());
        }
    }

    fn statement(
        &self,
        key: &Digest,
        is_about: &dyn Fn(&Statement) -> bool,
        kind: &PredicateType,
    ) -> Option<(VerifiedStatement, u64)> {
        let bundle = self.index.bundle(key)?;
        let found = self.store.read(&bundle, MAX_BUNDLE).ok().and_then(|bytes| {
            let statement = verify(&bytes, self.trust, self.at).ok()?;
            let said: &Statement = statement.statement();
            let counts = said.predicate_type == *kind
                && (is_about(said) || !is_on(Check::KnownScanSubject))
                && (statement.is_in_role(self.role) || !is_on(Check::KnownScanRole));
            counts.then_some((statement, bytes.len() as u64))
        });
        if found.is_none() {
            self.index.forget(key);
        }
        found
    }

    /// What a scan depends on, and in which role it is signed. What is made of a report, coverage above all, is this version's.
    fn key(&self, scanner: &ScannerIdentity, image: &Digest, kind: &PredicateType) -> Result<Digest, Error> {
        self.key_of(scanner, "image", &json!(image), kind)
    }

    fn output_key(&self, scanner: &ScannerIdentity, output: &Value, kind: &PredicateType) -> Result<Digest, Error> {
        self.key_of(scanner, "output", output, kind)
    }

    fn key_of(
        &self,
        scanner: &ScannerIdentity,
        what: &str,
        named: &Value,
        kind: &PredicateType,
    ) -> Result<Digest, Error> {
        let parts = json!({
            "version": env!("CARGO_PKG_VERSION"), what: named, "kind": kind.short(), "role": self.role.name(),
            "scanner": scanner.tool, "database": scanner.database, "javaDatabase": scanner.java_database,
            "rules": scanner.rules,
        });
        Ok(Digest::of(&json_bytes("the key of a scan", &parts)?))
    }
}
