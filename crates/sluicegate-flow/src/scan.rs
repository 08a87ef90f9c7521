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
    scan::{Inventory, OutputReport, Scan, ScanError, Scanner},
    store::ContentStore,
};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, UnixTime};
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

/// What an earlier run attested of an output.
pub(crate) struct KnownOutput {
    /// The predicate of its SBOM.
    pub(crate) sbom: Value,
    /// The predicate of its scan.
    pub(crate) vulns: Value,
    /// The raw report that it names.
    pub(crate) report: Descriptor,
}

/// What a scanner says of an output.
pub(crate) struct OutputScan {
    /// The packages in it.
    pub(crate) inventory: Inventory,
    /// What is wrong with them, and the raw report; nothing where the scanner has not the database for it.
    pub(crate) vulns: Option<(Value, Descriptor)>,
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

    /// What was attested of such an output before, by the same scanner with the same databases: the predicates of its SBOM and its scan,
    /// and the raw report.
    pub(crate) fn known_output(&self, output: &Value, content: Content) -> Result<Option<KnownOutput>, Error> {
        // What the scanner says of a file depends on its name, too, of which the statements say nothing.
        let known = self.known.filter(|_| content.kind == ContentKind::Directory);
        let Some((known, scanner)) = known.zip(self.scanner.identity()?) else { return Ok(None) };
        let sbom = known.sbom_of_output(&scanner, output, content);
        let Some((sbom, scan)) = sbom.zip(known.scan_of_output(&scanner, output, content)) else { return Ok(None) };
        Ok(Some(KnownOutput {
            sbom: sbom.statement().predicate.clone(),
            vulns: scan.vulns.statement().predicate.clone(),
            report: Descriptor::new(TRIVY_REPORT, Digest::of(&scan.report), scan.report.len() as u64),
        }))
    }

    /// Keeps what was attested of such an output, so that nobody looks again.
    pub(crate) fn keep_output<'s>(&self, output: &Value, attested: impl Iterator<Item = &'s Attested>) {
        let Some((known, scanner)) = self.known.zip(self.scanner.identity().ok().flatten()) else { return };
        attested.for_each(|attested| known.keep_output(&scanner, output, &attested.statement));
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
        let (findings, vulns, raw) = self.said(report.scan, started_on, finished_on)?;
        // By the official schema of its version: what is no SBOM is not signed as one.
        let sbom = cyclonedx::parse(&report.sbom)
            .and_then(|sbom| cyclonedx::read(&sbom).map(|_| sbom))
            .map_err(|error| ScanError::Report { reason: format!("its SBOM: {error}") })?;
        let subject = (image.media_type.as_str(), image.digest);
        Ok(ImageScan {
            sbom: about(subject, name, PredicateType::Sbom, sbom),
            vulns: about(subject, name, PredicateType::Vulns, vulns),
            report: raw,
            findings,
        })
    }

    /// The number of findings of a scan, the predicate about it, and its raw report, which is in the store then.
    fn said(
        &self,
        scan: Scan,
        started_on: UnixTime,
        finished_on: UnixTime,
    ) -> Result<(usize, Value, Descriptor), Error> {
        let findings =
            trivy_report::findings(&scan.raw).map_err(|error| ScanError::Report { reason: error.to_string() })?;
        let report = self.store.put_bytes(&scan.raw)?;
        let vulns = Vulns {
            scanner: vulns::Scanner {
                name: scan.tool.name,
                version: scan.tool.version,
                digest: scan.tool.digest,
                database: scan.database,
                java_database: scan.java_database,
            },
            started_on,
            finished_on,
            report,
            coverage: scan.coverage,
        };
        let report = Descriptor::new(TRIVY_REPORT, report, scan.raw.len() as u64);
        Ok((findings.len(), vulns.to_predicate(&findings), report))
    }

    /// What the scanner says of the output `name` of a step, which is all that `image` holds.
    pub(crate) fn output(&self, image: &Descriptor, blobs: &[Digest], name: &str) -> Result<OutputScan, Error> {
        let layout = self.private_layout(image, blobs)?;
        let started_on = self.clock.now();
        let found = self.scanner.output(&layout.path, &image.digest);
        let finished_on = self.clock.now();
        let OutputReport { inventory, scan } =
            found.map_err(|source| Error::Inventory { output: name.to_owned(), source })?;
        let vulns = scan.map(|scan| self.said(scan, started_on, finished_on)).transpose()?;
        Ok(OutputScan { inventory, vulns: vulns.map(|(_, predicate, report)| (predicate, report)) })
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
