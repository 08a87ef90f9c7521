//! The SBOM of what a step left, with as much in it as one bundle holds.

use std::collections::BTreeSet;

use sluicegate_attestation::{
    output_sbom::{Inventory, output_sbom},
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_ports::{
    execute::Product,
    trees::{FileEntry, ITSELF, TreeError},
};
use sluicegate_types::{ContentKind, NonEmpty};

use crate::{Error, Ports, attest::refuse_too_large};

/// Files of an output that its SBOM names one by one.
const MAX_FILES: usize = 20_000;

/// The statement about the output `name`: the packages of `inventory`, where a scanner looked, and every file by its hash. Where both
/// do not fit into one bundle, packages are left out, for they are claims of whoever wrote the output, and its files are not. Where
/// the files are too many or do not fit, the output is one thing that its own hash describes. Either is warned about, and then
/// the second value is false.
pub(crate) fn output(
    ports: &Ports<'_>,
    name: &str,
    product: &Product,
    inventory: Option<Inventory>,
) -> Result<(Statement, bool), Error> {
    let files = match ports.packer.files(product.content) {
        Ok(files) => Some(files),
        Err(TreeError::TooMany { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let described = fullest(name, product, files.as_deref(), inventory)?;
    for warning in &described.warnings {
        (ports.warn)(&format!("output {name} {warning}"));
    }
    Ok((described.statement, described.warnings.is_empty()))
}

struct Described {
    statement: Statement,
    warnings: Vec<String>,
}

/// `files` are all there are, or `None` if there are too many to be listed.
fn fullest(
    name: &str,
    product: &Product,
    files: Option<&[FileEntry]>,
    inventory: Option<Inventory>,
) -> Result<Described, Error> {
    let content = product.content;
    let paths: BTreeSet<&str> = files.into_iter().flatten().map(|file| file.path.as_str()).collect();
    let inventory = inventory.map(|inventory| {
        inventory.placed(|place| match content.kind {
            ContentKind::File => Some(name.to_owned()),
            ContentKind::Directory => paths.contains(place).then(|| place.to_owned()),
        })
    });
    let unlisted = inventory.as_ref().filter(|inventory| !inventory.packages.is_empty()).map(Inventory::unlisted);
    let inventories = || std::iter::once(inventory.as_ref()).chain(unlisted.as_ref().map(Some));
    let itself = [FileEntry { path: ITSELF.to_owned(), digest: content.digest, size: product.size, executable: false }];
    let one_by_one = files.filter(|files| files.len() <= MAX_FILES);
    for files in one_by_one.into_iter().chain([&itself[..]]) {
        for inventory in inventories() {
            let statement = Statement {
                subjects: NonEmpty::one(Subject::product(name.to_owned(), content)),
                predicate_type: PredicateType::Sbom,
                predicate: output_sbom(name, content, inventory, files),
            };
            if refuse_too_large(&statement.to_payload()?).is_err() {
                continue;
            }
            let mut warnings = Vec::new();
            if files.is_empty() {
                warnings.push("holds no file: its SBOM names none".to_owned());
            }
            if one_by_one.is_none() {
                warnings.push(format!("has more than {MAX_FILES} files: its SBOM names it as a whole"));
            } else if !one_by_one.is_some_and(|all| std::ptr::eq(all, files)) {
                warnings
                    .push("has more or longer names than one statement holds: its SBOM names it as a whole".to_owned());
            }
            if let Some(left_out) = inventory.map(|inventory| inventory.left_out).filter(|left_out| *left_out > 0) {
                warnings.push(format!(
                    "has {left_out} packages that its SBOM does not list: with texts that are too long or odd, or too many for one statement"
                ));
            }
            return Ok(Described { statement, warnings });
        }
    }
    Err(Error::Bug(format!("no SBOM of the output {name} fits into a bundle")))
}

#[cfg(test)]
mod tests {
    use sluicegate_attestation::{cyclonedx::components, output_sbom::KnownPackage};
    use sluicegate_types::{Content, Digest};

    use super::*;

    fn product(kind: ContentKind) -> Product {
        let content = Content { kind, digest: Digest::of(b"output") };
        Product { name: "site".parse().unwrap(), content, size: 6, executable: false }
    }

    fn entry(path: String) -> FileEntry {
        FileEntry { digest: Digest::of(path.as_bytes()), path, size: 1, executable: false }
    }

    /// Packages with names of `length` bytes, at `place`.
    fn inventory(packages: usize, length: usize, place: &str) -> Inventory {
        let package = |number: usize| KnownPackage {
            name: format!("{number:0length$}"),
            version: "1".to_owned(),
            purl: None,
            licenses: BTreeSet::new(),
            places: [place.to_owned()].into(),
        };
        Inventory {
            scanner: "trivy".to_owned(),
            version: "0.76.0".to_owned(),
            digest: Digest::of(b"trivy"),
            packages: (0..packages).map(package).collect(),
            left_out: 0,
        }
    }

    /// How many components of either type there are, and what is warned about.
    fn counts(files: Option<&[FileEntry]>, inventory: Option<Inventory>) -> (usize, usize, Vec<String>) {
        let described = fullest("build.site", &product(ContentKind::Directory), files, inventory).unwrap();
        let predicate = &described.statement.predicate;
        components(predicate.to_string().as_bytes()).unwrap();
        let listed = predicate["components"].as_array().unwrap();
        let of = |kind: &str| listed.iter().filter(|component| component["type"] == kind).count();
        (of("library"), of("file"), described.warnings)
    }

    #[test]
    fn packages_that_do_not_fit_take_no_files_hash_away() {
        let files: Vec<FileEntry> = (0..100).map(|number| entry(format!("f{number}"))).collect();
        assert_eq!(counts(Some(&files), Some(inventory(10_000, 1000, "f1"))), (10_000, 100, Vec::new()));
        let (packages, listed, warnings) = counts(Some(&files), Some(inventory(20_000, 1000, "f1")));
        assert_eq!((packages, listed), (0, 100));
        assert!(warnings.len() == 1 && warnings[0].contains("20000 packages"), "{warnings:?}");
        // Nor do they where the files are not listed one by one.
        let (packages, listed, warnings) = counts(None, Some(inventory(20_000, 1000, "f1")));
        assert_eq!((packages, listed, warnings.len()), (0, 1, 2), "{warnings:?}");
        assert_eq!(counts(None, Some(inventory(10, 10, "f1"))).0, 10);
    }

    #[test]
    fn files_are_named_to_the_limit_and_beyond_it_the_output_as_a_whole() {
        let files: Vec<FileEntry> = (0..=MAX_FILES).map(|number| entry(format!("f{number}"))).collect();
        assert_eq!(counts(Some(&files[1..]), None), (0, MAX_FILES, Vec::new()));
        let (_, listed, warnings) = counts(Some(&files), None);
        assert!(listed == 1 && warnings[0].contains("more than 20000 files"), "{warnings:?}");
        let long: Vec<FileEntry> = (0..4000).map(|number| entry(format!("{number:04000}"))).collect();
        let (_, listed, warnings) = counts(Some(&long), None);
        assert!(listed == 1 && warnings[0].contains("longer names"), "{warnings:?}");
        assert_eq!(counts(Some(&long[..2000]), None).1, 2000);
    }

    #[test]
    fn places_are_files_that_are_there() {
        let files = [entry("a".to_owned())];
        let places = |kind, place: &str| {
            let found = Some(inventory(1, 1, place));
            fullest("build.site", &product(kind), Some(&files), found).unwrap().statement.predicate["components"][0]
                ["evidence"]["occurrences"][0]["location"]
                .clone()
        };
        assert_eq!(places(ContentKind::Directory, "a"), "a");
        assert!(places(ContentKind::Directory, "no/such/file").is_null());
        // What is in an output that is a file is in the component with the output's name.
        assert_eq!(places(ContentKind::File, "tool"), "build.site");
    }

    #[test]
    fn an_output_without_files_is_warned_about() {
        let (packages, files, warnings) = counts(Some(&[]), None);
        assert_eq!((packages, files, warnings.len()), (0, 0, 1));
    }
}
