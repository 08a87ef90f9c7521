//! Java archives: which of them Trivy opens, for which it asks its Java database, and in which it recognised nothing.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::trivy_report::{ListedPackage, Summary};
use sluicegate_ports::scan::Gap;
use sluicegate_types::Digest;

use crate::{
    coverage::{gap, is_of_standing_file, is_packages},
    image_files::Files,
    package_files::PackageFiles,
};

/// Endings of Java archives that Trivy opens, for which it asks its Java database.
const JAVA_ARCHIVES: &[&str] = &[".jar", ".war", ".ear", ".par"];

/// Endings of archives that hold such archives, and that Trivy does not open.
const CLOSED_JAVA_ARCHIVES: &[&str] = &[".aar", ".hpi", ".jpi", ".kar", ".lpkg", ".nar", ".sar"];

/// Whether Trivy asks its Java database about a file.
pub(crate) fn needs_java_database(path: &str) -> bool {
    ends_with_any(path, JAVA_ARCHIVES)
}

/// Whether it is such an archive, or one of such archives.
pub(crate) fn is_java_archive(path: &str) -> bool {
    needs_java_database(path) || ends_with_any(path, CLOSED_JAVA_ARCHIVES)
}

/// In upper or lower case.
fn ends_with_any(path: &str, endings: &[&str]) -> bool {
    let path = path.as_bytes();
    endings
        .iter()
        .any(|end| path.len().checked_sub(end.len()).is_some_and(|at| path[at..].eq_ignore_ascii_case(end.as_bytes())))
}

/// Java archives in which nothing was recognised: Trivy leaves out without a word what its Java database does not know and what does not
/// say itself what it is. One that stands in the image twice is read once. One that a package of the system brought is covered by that.
pub(crate) fn gaps(report: &Summary, seen: &Files, of_system: Option<&PackageFiles>) -> Vec<Gap> {
    let files = &seen.all;
    let packages = report.results.iter().filter(|list| is_packages(list)).flat_map(|list| &list.packages);
    let packages: Vec<(&str, &ListedPackage)> =
        packages.filter_map(|package| Some((package.file.as_deref()?, package))).collect();
    let mut within: BTreeMap<&str, Vec<&ListedPackage>> = BTreeMap::new();
    packages.into_iter().for_each(|(file, package)| within.entry(file).or_default().push(package));
    // What is in an archive has the archive's path before its own.
    let is_read = |path: &str| {
        let inside = format!("{path}/");
        let inside = within.range(inside.as_str()..).take_while(|(file, _)| file.starts_with(&inside));
        let own = within.get_key_value(path);
        let mut packages = own.into_iter().chain(inside).flat_map(|(_, packages)| packages);
        packages.any(|package| is_of_standing_file(package, path, report, &seen.layers))
    };
    // Advisories about a package of the system are about its archives, those about a package of Python are not.
    let is_of_package = |path: &str| {
        let layer = seen.layers.get(path).copied().unwrap_or_default();
        layer < seen.uppermost && of_system.is_some_and(|packages| packages.own(path, layer))
    };
    let archives = || files.iter().filter(|(path, _)| is_java_archive(path));
    let read: BTreeSet<&Digest> = archives().filter(|(path, _)| is_read(path)).map(|(_, digest)| digest).collect();
    let unread = archives().filter(|(path, digest)| !read.contains(digest) && !is_of_package(path));
    unread
        .map(|(path, digest)| {
            let reason = match needs_java_database(path) {
                true => "a Java archive in which the scanner recognised nothing",
                false => "an archive of Java archives, which the scanner does not open",
            };
            gap("java-archive", path, digest, reason.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coverage::{is_telling, package_files},
        image_files::Image,
        package_files::is_list_of_system,
        test_image::{TestEntry, TestImage, file},
    };

    /// The places of gaps in an image of which the scanner recognised nothing.
    fn of(layers: &[Vec<TestEntry>]) -> Vec<String> {
        let image = TestImage::new(layers);
        let files = Image::open(image.path(), &image.digest).unwrap().files(&is_telling).unwrap();
        let report = Summary {
            version: String::new(),
            artifact_type: String::new(),
            image_id: String::new(),
            diff_ids: image.diff_ids.iter().map(Digest::to_string).collect(),
            system: None,
            results: Vec::new(),
        };
        let gaps = gaps(&report, &files, package_files(&files, is_list_of_system).as_ref());
        gaps.into_iter().map(|gap| gap.place).collect()
    }

    #[test]
    fn tm04_only_packages_of_the_bases_system_speak_for_archives() {
        let archive = || file("usr/share/java/a.jar", b"PK");
        let list = || file("var/lib/dpkg/info/a.list", b"/usr/share/java/a.jar\n");
        let nothing = || vec![file("srv/x", b"")];
        assert_eq!(of(&[vec![archive(), list()], nothing()]), [] as [&str; 0]);
        assert_eq!(of(&[vec![archive()], nothing()]), ["usr/share/java/a.jar"]);
        assert_eq!(of(&[vec![archive()], vec![list()]]), ["usr/share/java/a.jar"], "a product's list");
        assert_eq!(of(&[nothing(), vec![archive(), list()]]), ["usr/share/java/a.jar"], "a product's archive");
        assert_eq!(of(&[vec![list()], vec![archive()], nothing()]), ["usr/share/java/a.jar"], "one that was replaced");
        let site = "usr/lib/python3/site-packages";
        let python =
            vec![file(&format!("{site}/b.jar"), b"PK"), file(&format!("{site}/x.dist-info/RECORD"), b"b.jar,,\n")];
        assert_eq!(of(&[python, nothing()]), [format!("{site}/b.jar")]);
    }
}
