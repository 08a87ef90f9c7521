//! Lock files: they pin what may be installed, and Trivy does not read most of them in images, where it goes by what is installed. So
//! they are laid into a folder of their own, which Trivy looks at once more, as at a work tree (`trivy fs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use sluicegate_attestation::trivy_report::Summary;
use sluicegate_ports::scan::Gap;
use sluicegate_types::Digest;

use crate::{
    coverage::{gap, is_packages},
    own_system::SystemText,
    pinned_copy::readable,
};

/// Files that pin the packages of a program. Trivy reads some of them in images and leaves others; which, the report says.
const LOCK_FILES: &[&str] = &[
    "Cargo.lock",
    "Gemfile.lock",
    "Package.resolved",
    "Pipfile.lock",
    "Podfile.lock",
    "bun.lock",
    "bun.lockb",
    "composer.lock",
    "conan.lock",
    "go.sum",
    "gradle.lockfile",
    "mix.lock",
    "npm-shrinkwrap.json",
    "package-lock.json",
    "packages.lock.json",
    "pdm.lock",
    "pnpm-lock.yaml",
    "poetry.lock",
    "pubspec.lock",
    "pylock.toml",
    "requirements.lock",
    "requirements.txt",
    "uv.lock",
    "yarn.lock",
];

/// Folders of installed packages: a lock file in one belongs to the development of that package and says nothing about what is
/// installed, which its own record there says.
const INSTALLED: &[&str] = &["node_modules", "site-packages", "dist-packages"];

/// The same for the system's own packages of JavaScript in Debian, whose record is that of dpkg: its npm alone brings five such files.
const INSTALLED_BY_SYSTEM: &str = "usr/share/nodejs/";

/// Bytes of one lock file that is read.
pub(crate) const LOCK_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where Go names its modules, whose hashes alone stand in the lock file.
const GO_MODULES: &str = "go.mod";

/// Whether a file pins the packages of a program, outside the folders of installed packages.
pub(crate) fn is_lock_file(path: &str) -> bool {
    LOCK_FILES.contains(&name_of(path)) && !is_installed(path)
}

/// Whether Trivy needs a file to read lock files: it is one, or stands beside one.
pub(crate) fn is_read_as_lock_file(path: &str) -> bool {
    is_lock_file(path) || (name_of(path) == GO_MODULES && !is_installed(path))
}

/// Lays those files into `folder` that no package list of the report comes from, each at its own path, for everybody to read. Returns
/// whether there are any.
pub(crate) fn lay_out(report: &Summary, files: &[SystemText], folder: &Path) -> io::Result<bool> {
    let read = read_by(report);
    if !files.iter().any(|file| is_lock_file(&file.path) && !read.contains(&file.path)) {
        return Ok(false);
    }
    for file in files.iter().filter(|file| !read.contains(&file.path)) {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        readable(&path, 0o444)?;
    }
    Ok(true)
}

/// Lock files from which no package list of the report comes, and lists of requirements that do not pin each of them, for Trivy passes
/// over those that they leave open.
pub(crate) fn gaps(report: &Summary, files: &BTreeMap<String, Digest>, contents: &[SystemText]) -> Vec<Gap> {
    let read = read_by(report);
    let content = |path: &str| contents.iter().find(|text| text.path == path).map(|text| text.bytes.as_slice());
    let reason = |path: &str| {
        if !read.contains(path) {
            return Some("a lock file that no package list of the report comes from");
        }
        let is_open = name_of(path).starts_with("requirements.") && !content(path).is_some_and(pins_all);
        is_open.then_some("a list of requirements of which not each is pinned to one version with ==")
    };
    let locks = files.iter().filter(|(path, _)| is_lock_file(path));
    locks.filter_map(|(path, digest)| Some(gap("lock-file", path, digest, reason(path)?.to_owned()))).collect()
}

/// The files from which the report's package lists come. The list of a Go module is that of its lock file.
fn read_by(report: &Summary) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for list in report.results.iter().filter(|list| is_packages(list)) {
        if list.lock_file && name_of(&list.place) == GO_MODULES {
            let folder = list.place.strip_suffix(GO_MODULES).unwrap_or_default();
            read.insert(format!("{folder}go.sum"));
        }
        read.insert(list.place.clone());
        read.extend(list.packages.iter().filter_map(|package| package.file.clone()));
    }
    read
}

/// Whether each requirement of a list (pip's "Requirements File Format") names one version, and nothing leads elsewhere.
fn pins_all(list: &[u8]) -> bool {
    let text = String::from_utf8_lossy(list);
    text.lines().all(|line| {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let is_nothing = line.is_empty() || line.starts_with('#') || line.starts_with("--hash=");
        is_nothing || (!line.starts_with('-') && line.contains("==") && !line.contains('*'))
    })
}

fn is_installed(path: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.split('/').any(|part| INSTALLED.contains(&part)) || path.starts_with(INSTALLED_BY_SYSTEM)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use sluicegate_attestation::trivy_report::{ListedPackage, PackageList};

    use super::*;

    fn report(places: &[(&str, bool)]) -> Summary {
        let package = |file: Option<&str>| ListedPackage {
            name: "a".into(),
            version: "1".into(),
            purl: None,
            licenses: Vec::new(),
            file: file.map(str::to_owned),
            analyzed_by: String::new(),
        };
        let list = |(place, lock_file): &(&str, bool)| PackageList {
            class: "lang-pkgs".into(),
            kind: "npm".into(),
            place: (*place).into(),
            packages: vec![package(None)],
            lock_file: *lock_file,
        };
        Summary {
            version: String::new(),
            artifact_type: String::new(),
            image_id: String::new(),
            diff_ids: Vec::new(),
            system: None,
            results: places.iter().map(list).collect(),
        }
    }

    fn texts(files: &[(&str, &str)]) -> Vec<SystemText> {
        let text = |(path, text): &(&str, &str)| SystemText {
            path: (*path).into(),
            digest: Digest::of(text.as_bytes()),
            bytes: (*text).into(),
        };
        files.iter().map(text).collect()
    }

    /// The places of gaps in an image with these files, of which `unkept` are not read.
    fn gaps_of(report: &Summary, files: &[(&str, &str)], unkept: &str) -> Vec<String> {
        let mut texts = texts(files);
        let all = texts.iter().map(|text| (text.path.clone(), text.digest)).collect();
        texts.retain(|text| text.path != unkept);
        gaps(report, &all, &texts).into_iter().map(|gap| gap.place).collect()
    }

    #[test]
    fn tm04_a_lock_file_is_a_gap_until_a_list_comes_from_it() {
        let files = [("srv/package-lock.json", "{}"), ("go/go.sum", "x"), ("other/go.sum", "x"), ("go/go.mod", "y")];
        assert_eq!(gaps_of(&report(&[]), &files, ""), ["go/go.sum", "other/go.sum", "srv/package-lock.json"]);
        let read = report(&[("srv/package-lock.json", true), ("go/go.mod", true)]);
        assert_eq!(gaps_of(&read, &files, ""), ["other/go.sum"]);
        // A module that is listed as installed says nothing of the hashes beside it.
        let installed = report(&[("srv/package-lock.json", false), ("go/go.mod", false)]);
        assert_eq!(gaps_of(&installed, &files, ""), ["go/go.sum", "other/go.sum"]);
    }

    #[test]
    fn tm04_requirements_that_are_left_open_are_a_gap() {
        let place = "srv/requirements.txt";
        let read = report(&[(place, true)]);
        for whole in ["", "# all\na==1 # because\n\nb[c]==2; python_version > '3'\n", "a==1 \\\n    --hash=sha256:00\n"]
        {
            assert_eq!(gaps_of(&read, &[(place, whole)], ""), [] as [&str; 0], "{whole}");
            assert_eq!(gaps_of(&read, &[(place, whole)], place), [place], "not read, so nobody knows");
        }
        for open in ["a", "a==1\nb>=2", "-r more.txt", "-e .", "git+https://a/b", "a==1.*", "--index-url x"] {
            assert_eq!(gaps_of(&read, &[(place, open)], ""), [place], "{open}");
        }
    }

    #[test]
    fn only_what_was_not_read_is_laid_out() {
        let folder = tempfile::tempdir().unwrap();
        let files = texts(&[("srv/yarn.lock", "1"), ("go/go.mod", "2"), ("read/Cargo.lock", "3")]);
        let read = report(&[("read/Cargo.lock", false)]);
        assert!(lay_out(&read, &files, folder.path()).unwrap());
        assert_eq!(fs::read(folder.path().join("srv/yarn.lock")).unwrap(), b"1");
        assert_eq!(fs::read(folder.path().join("go/go.mod")).unwrap(), b"2");
        assert!(!folder.path().join("read").exists());
        let nothing = tempfile::tempdir().unwrap();
        assert!(!lay_out(&read, &texts(&[("go/go.mod", "2"), ("read/Cargo.lock", "3")]), nothing.path()).unwrap());
        assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
        let clash = texts(&[("srv/yarn.lock", "1"), ("srv/yarn.lock/yarn.lock", "2")]);
        assert!(lay_out(&read, &clash, tempfile::tempdir().unwrap().path()).is_err());
    }
}
