//! Scans an assembled image and forms the statements about it; looks for packages in what a step left.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use sluicegate_attestation::{
    identifiers::{IMAGE_MANIFEST, TRIVY_REPORT},
    predicate::PredicateType,
    statement::{Statement, Subject},
    trivy_report,
    vulns::{self, Vulns},
};
use sluicegate_ports::{
    execute::Product,
    images::{Descriptor, Publication},
    scan::{Inventory, ScanError, Scanner},
};
use sluicegate_types::{Digest, NonEmpty};
use tempfile::TempDir;

use crate::{Error, Ports, assemble};

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

/// Scans `image`, whose blobs are in the store, in a private layout made from the store's verified bytes.
pub fn scan(
    ports: &Ports<'_>,
    scanner: &dyn Scanner,
    image: &Descriptor,
    blobs: &[Digest],
    name: &str,
    scratch: &Path,
) -> Result<ImageScan, Error> {
    let layout = PrivateLayout::write(ports, image, blobs, scratch)?;
    let started_on = ports.clock.now();
    let report = scanner.scan(&layout.path, &image.digest)?;
    let finished_on = ports.clock.now();
    let findings =
        trivy_report::findings(&report.raw).map_err(|error| ScanError::Report { reason: error.to_string() })?;
    let raw = ports.store.put_bytes(&report.raw)?;
    let vulns = Vulns {
        scanner: vulns::Scanner {
            name: report.tool.name,
            version: report.tool.version,
            digest: report.tool.digest,
            database: report.database.digest,
            database_updated_at: report.database.updated_at,
        },
        started_on,
        finished_on,
        report: raw,
        coverage: report.coverage,
    };
    let sbom: serde_json::Value = serde_json::from_slice(&report.sbom)
        .map_err(|error| ScanError::Report { reason: format!("its SBOM: {error}") })?;
    Ok(ImageScan {
        sbom: about_image(image.digest, name, PredicateType::Sbom, sbom),
        vulns: about_image(image.digest, name, PredicateType::Vulns, vulns.to_predicate(&findings)),
        report: Descriptor::new(TRIVY_REPORT, raw, report.raw.len() as u64),
        findings: findings.len(),
    })
}

/// The packages that `scanner` recognises in what a step left, which people call `output`. `file_name` is the file's own name, by which
/// scanners know what it is; a directory needs none. A file is packed into the store for it.
pub fn inventory(
    ports: &Ports<'_>,
    scanner: &dyn Scanner,
    output: &str,
    product: &Product,
    file_name: &OsStr,
    scratch: &Path,
) -> Result<Inventory, Error> {
    let image = assemble::of_output(ports, product, file_name)?;
    let layout = PrivateLayout::write(ports, &image.image, &image.blobs, scratch)?;
    let found = scanner.inventory(&layout.path, &image.image.digest);
    found.map_err(|source| Error::Inventory { output: output.to_owned(), source })
}

/// A layout for the scanner alone, gone when dropped.
struct PrivateLayout {
    _folder: TempDir,
    path: PathBuf,
}

impl PrivateLayout {
    fn write(ports: &Ports<'_>, image: &Descriptor, blobs: &[Digest], scratch: &Path) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("scan-").tempdir_in(scratch).map_err(|source| Error::Io {
            action: "create a folder in",
            path: scratch.to_owned(),
            source,
        })?;
        let path = folder.path().join("image");
        let publication = Publication {
            image: image.clone(),
            tags: Vec::new(),
            referrers: Vec::new(),
            blobs: blobs.to_vec(),
            expected: None,
            environment: None,
        };
        ports.places.target(&path)?.publish(&publication, ports.store)?;
        Ok(Self { _folder: folder, path })
    }
}

/// A statement about an image.
pub fn about_image(
    image: Digest,
    name: &str,
    predicate_type: PredicateType,
    predicate: serde_json::Value,
) -> Statement {
    let subject = Subject { name: Some(name.to_owned()), digest: image, media_type: Some(IMAGE_MANIFEST.to_owned()) };
    Statement { subjects: NonEmpty::one(subject), predicate_type, predicate }
}
