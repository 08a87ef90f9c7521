#![forbid(unsafe_code)]
//! Scans an image with the real Trivy, run as a process in the tool sandbox: SBOM, findings, and what was not read.
//!
//! Trivy fails open in several ways: it ends well with a database that is years old, with one that does not know the image's
//! system, and with an image of which it recognised nothing. So nothing here trusts its exit code alone. The executable and the
//! database are pinned by digest ([`scanner`]), the report must be about this image, and [`coverage`] lists what stands in the
//! image and in the database beside what was read.

pub mod bolt;
pub mod coverage;
pub mod database;
pub mod database_archive;
pub mod own_system;
pub mod sbom;
pub mod scanner;

mod advisory_buckets;
mod entry_names;
mod executables;
mod image_files;
mod java_archives;
mod lock_entries;
mod lock_files;
mod package_files;
mod pinned_copy;

#[cfg(test)]
mod test_database;
#[cfg(test)]
mod test_image;

pub use scanner::{Config, NamedDatabase, ScanLimits, TrivyScanner};
