//! Scans an assembled image and forms the statements about it; looks for packages in what a step left.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sluicegate_attestation::{
    cyclonedx,
    identifiers::TRIVY_REPORT,
    predicate::PredicateType,
    statement::{Statement, Subject},
    trivy_report,
    vulns::{self, Vulns},
};
use sluicegate_ports::{
    Clock,
    images::{Descriptor, ImagePlaces, Publication},
    scan::{Inventory, ScanError, Scanner},
    store::ContentStore,
};
use sluicegate_types::{Content, Digest, NonEmpty};
use tempfile::TempDir;

use crate::{Error, Ports, attest::Attested, known_scans::KnownScans};

/// A scan of an image, its raw report in the store.
#[derive(Debug)]
pub struct ImageScan {
    /// What is found in it; statement of type `sbom`.
    pub sbom: Statement,
    /// What is wrong with it; statement of type `vulns`.
    pub vulns: Statement,
    /// The raw report.
    pub report: Descriptor,
    /// How many findings there are.
    pub findings: usize,
}

/// A scanner and what it needs of the ports. Threads may share it.
pub struct Scanning<'a> {
    clock: &'a dyn Clock,
    store: &'a dyn ContentStore,
    places: &'a dyn ImagePlaces,
    scanner: &'a dyn Scanner,
    scratch: &'a Path,
    known: Option<KnownScans<'a>>,
}

impl<'a> Scanning<'a> {
    /// Scans with `scanner`, in private folders in `scratch`.
    pub fn new(ports: &Ports<'a>, scanner: &'a dyn Scanner, scratch: &'a Path) -> Self {
        Self { clock: ports.clock, store: ports.store, places: ports.places, scanner, scratch, known: None }
    }

    /// The same, where earlier scans of the same image by the same scanner and database count.
    pub fn knowing(self, known: Option<KnownScans<'a>>) -> Self {
        Self { known, ..self }
    }

    /// An earlier scan of an image, said anew.
    fn known_image(&self, image: &Descriptor, name: &str) -> Result<Option<ImageScan>, Error> {
        let Some((known, scanner)) = self.known.zip(self.scanner.identity()?) else { return Ok(None) };
        let found = known.of_image(&scanner, &image.digest).zip(known.sbom(&scanner, &image.digest));
        let Some((scan, sbom)) = found else { return Ok(None) };
        let Ok(findings) = trivy_report::findings(&scan.report) else { return Ok(None) };
        let report = Digest::of(&scan.report);
        let subject = (image.media_type.as_str(), image.digest);
        Ok(Some(ImageScan {
            sbom: about(subject, name, PredicateType::Sbom, sbom.statement().predicate.clone()),
            vulns: about(subject, name, PredicateType::Vulns, scan.vulns.statement().predicate.clone()),
            report: Descriptor::new(TRIVY_REPORT, report, scan.report.len() as u64),
            findings: findings.len(),
        }))
    }

    /// Keeps what was attested of a scan of this image, so that it is not made again.
    pub(crate) fn keep(&self, image: &Digest, attested: &[Attested]) {
        let Some((known, scanner)) = self.known.zip(self.scanner.identity().ok().flatten()) else { return };
        attested.iter().for_each(|attested| known.keep(&scanner, image, &attested.statement));
    }

    /// The predicate of the SBOM that was made of such an output before, by the same scanner.
    pub(crate) fn known_output(&self, output: &Value, content: Content) -> Result<Option<Value>, Error> {
        let Some((known, scanner)) = self.known.zip(self.scanner.identity()?) else { return Ok(None) };
        let found = known.of_output(&scanner.tool, output, content);
        Ok(found.map(|sbom| sbom.statement().predicate.clone()))
    }

    /// Keeps what was attested of such an output, so that nobody looks again.
    pub(crate) fn keep_output(&self, output: &Value, attested: &Attested) {
        let Some((known, scanner)) = self.known.zip(self.scanner.identity().ok().flatten()) else { return };
        known.keep_output(&scanner.tool, output, &attested.statement);
    }

    /// Scans `image`, whose blobs are in the store, in a private layout made from the store's verified bytes.
    pub fn image(&self, image: &Descriptor, blobs: &[Digest], name: &str) -> Result<ImageScan, Error> {
        if let Some(scan) = self.known_image(image, name)? {
            return Ok(scan);
        }
        let layout = self.private_layout(image, blobs)?;
        let started_on = self.clock.now();
        let report = self.scanner.scan(&layout.path, &image.digest)?;
        let finished_on = self.clock.now();
        let findings =
            trivy_report::findings(&report.raw).map_err(|error| ScanError::Report { reason: error.to_string() })?;
        let raw = self.store.put_bytes(&report.raw)?;
        let vulns = Vulns {
            scanner: vulns::Scanner {
                name: report.tool.name,
                version: report.tool.version,
                digest: report.tool.digest,
                database: report.database,
                java_database: report.java_database,
            },
            started_on,
            finished_on,
            report: raw,
            coverage: report.coverage,
        };
        // By the official schema of its version: what is no SBOM is not signed as one.
        let sbom = cyclonedx::parse(&report.sbom)
            .and_then(|sbom| cyclonedx::read(&sbom).map(|_| sbom))
            .map_err(|error| ScanError::Report { reason: format!("its SBOM: {error}") })?;
        let subject = (image.media_type.as_str(), image.digest);
        Ok(ImageScan {
            sbom: about(subject, name, PredicateType::Sbom, sbom),
            vulns: about(subject, name, PredicateType::Vulns, vulns.to_predicate(&findings)),
            report: Descriptor::new(TRIVY_REPORT, raw, report.raw.len() as u64),
            findings: findings.len(),
        })
    }

    /// The packages that the scanner recognises in `image`, which holds the output `name` of a step and nothing else.
    pub fn output(&self, image: &Descriptor, blobs: &[Digest], name: &str) -> Result<Inventory, Error> {
        let layout = self.private_layout(image, blobs)?;
        let found = self.scanner.inventory(&layout.path, &image.digest);
        found.map_err(|source| Error::Inventory { output: name.to_owned(), source })
    }

    fn private_layout(&self, image: &Descriptor, blobs: &[Digest]) -> Result<PrivateLayout, Error> {
        let scratch = self.scratch;
        let folder = tempfile::Builder::new().prefix("scan-").tempdir_in(scratch).map_err(|source| Error::Io {
            action: "create a folder in",
            path: scratch.to_owned(),
            source,
        })?;
        let path = folder.path().join("image");
        let publication = Publication {
            image: image.clone(),
            tags: Vec::new(),
            children: Vec::new(),
            referrers: Vec::new(),
            blobs: blobs.to_vec(),
            evidence: Vec::new(),
            beside: Vec::new(),
            source: None,
            expected: None,
            environment: None,
        };
        self.places.target(&path.clone().into())?.publish(&publication, self.store)?;
        Ok(PrivateLayout { _folder: folder, path })
    }
}

/// A layout for the scanner alone, gone when dropped.
struct PrivateLayout {
    _folder: TempDir,
    path: PathBuf,
}

/// A statement about an image or an index of images, by media type and digest.
pub(crate) fn about(
    (media_type, digest): (&str, Digest),
    name: &str,
    predicate_type: PredicateType,
    predicate: serde_json::Value,
) -> Statement {
    let subject = Subject { name: Some(name.to_owned()), digest, media_type: Some(media_type.to_owned()) };
    Statement { subjects: NonEmpty::one(subject), predicate_type, predicate }
}
