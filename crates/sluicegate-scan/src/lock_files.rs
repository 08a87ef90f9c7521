//! Lock files: they pin what may be installed, and Trivy does not read most of them in images, where it goes by what is installed. So
//! they are laid into a folder of their own, which Trivy looks at once more, as at a work tree (`trivy fs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use sluicegate_attestation::trivy_report::{ListedPackage, Summary};
use sluicegate_ports::scan::Gap;

use crate::{
    coverage::{gap, is_of_standing_file, is_packages},
    image_files::Files,
    lock_entries::{Entry, entries, plain, spelling},
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

/// The kind of the gaps that lock files leave.
pub(crate) const GAP: &str = "lock-file";
/// Bytes of one lock file that is read.
pub(crate) const LOCK_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where Go names its modules, whose hashes alone stand in the lock file.
const GO_MODULES: &str = "go.mod";
/// Where it keeps their hashes.
const GO_SUMS: &str = "go.sum";

/// Whether a file pins the packages of a program, outside the folders of installed packages.
pub(crate) fn is_lock_file(path: &str) -> bool {
    LOCK_FILES.contains(&name_of(path)) && !is_installed(path)
}

/// Whether Trivy needs a file to read lock files: it is one, or stands beside one.
pub(crate) fn is_read_as_lock_file(path: &str) -> bool {
    is_lock_file(path) || (name_of(path) == GO_MODULES && !is_installed(path))
}

/// Lays those files into `folder` that the report does not list whole, each at its own path, for everybody to read. Returns whether there are
/// any. One whose path is longer than a file system takes, or is that of another's folder, is not laid out and so not read.
pub(crate) fn lay_out(report: &Summary, seen: &Files, folder: &Path) -> io::Result<bool> {
    let read = read_by(report, seen);
    let is_read = |path: &str| is_lock_file(path) && left_out(path, read.get(path), seen).is_none();
    let unread = || seen.lock_files.iter().filter(|file| !is_read(&file.path) && fits(&file.path));
    if !unread().any(|file| is_lock_file(&file.path)) {
        return Ok(false);
    }
    let mut taken = BTreeSet::new();
    for file in unread() {
        let folders = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
        if folders.clone().any(|folder| taken.contains(folder)) {
            continue;
        }
        let path = folder.join(&file.path);
        if path.exists() {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        readable(&path, 0o444)?;
        taken.insert(file.path.as_str());
    }
    Ok(true)
}

/// Whether a path is one that can be made in any folder.
fn fits(path: &str) -> bool {
    path.len() <= 1024 && path.split('/').all(|name| name.len() <= 255)
}

/// Lock files from which no package list of the report comes, and those of which the list says less than they do, or of which nobody can
/// say: Trivy passes over groups, categories and sources of several formats without a word.
pub(crate) fn gaps(report: &Summary, seen: &Files) -> Vec<Gap> {
    let read = read_by(report, seen);
    let reason = |path: &str| left_out(path, read.get(path), seen);
    let locks = seen.all.iter().filter(|(path, _)| is_lock_file(path));
    locks.filter_map(|(path, digest)| Some(gap(GAP, path, digest, printable(reason(path)?)))).collect()
}

/// Why a lock file of which the report lists this, if anything, does not count as read.
fn left_out(path: &str, listed: Option<&BTreeSet<Entry>>, seen: &Files) -> Option<String> {
    let (folder, name) =
        path.rsplit_once('/').map_or(("", path), |(folder, _)| (&path[..=folder.len()], name_of(path)));
    // What is selected of the modules whose hashes stand in the one stands in the other.
    let (of, name) =
        if name == GO_SUMS { (format!("{folder}{GO_MODULES}"), GO_MODULES) } else { (path.to_owned(), name) };
    let content = seen.lock_files.binary_search_by(|text| text.path.as_str().cmp(&of)).ok();
    let pinned = content.and_then(|at| entries(name, &seen.lock_files[at].bytes));
    let Some(listed) = listed else {
        // One that pins nothing has no list.
        let is_empty = name != GO_MODULES && pinned.is_some_and(|pinned| pinned.is_empty());
        return (!is_empty).then(|| "a lock file that no package list of the report comes from".to_owned());
    };
    let Some(pinned) = pinned else {
        if name.starts_with("requirements.") {
            return Some("a list of requirements of which not each is pinned to one version with ==".to_owned());
        }
        return Some(format!(
            "a lock file of which nobody can say whether the scanner read all of it; {} packages were read",
            listed.len()
        ));
    };
    let left_out: Vec<_> = pinned.difference(listed).collect();
    let (package, version) = left_out.first()?;
    Some(format!(
        "a lock file of which the scanner passed over {} packages, such as {package} {version}",
        left_out.len()
    ))
}

/// What the report lists of each lock file. The list of a Go module is that of its lock file.
fn read_by(report: &Summary, seen: &Files) -> BTreeMap<String, BTreeSet<Entry>> {
    let mut read: BTreeMap<String, BTreeSet<Entry>> = BTreeMap::new();
    for list in report.results.iter().filter(|list| is_packages(list)) {
        let path = match list.place.strip_suffix(GO_MODULES) {
            Some(folder) if folder.is_empty() || folder.ends_with('/') => format!("{folder}{GO_SUMS}"),
            _ => list.place.clone(),
        };
        // What an image's own list says counts only if it comes from the file that stands there.
        let counts = |package: &&ListedPackage| {
            list.lock_file || is_of_standing_file(package, &list.place, report, &seen.layers)
        };
        let listed: Vec<&ListedPackage> = list.packages.iter().filter(counts).collect();
        if is_lock_file(&path) && !listed.is_empty() {
            let name = name_of(&list.place).to_owned();
            let listed = listed.into_iter().map(|package| (spelling(&name, &package.name), plain(&package.version)));
            read.entry(path).or_default().extend(listed);
        }
    }
    read
}

/// The beginning of a text that somebody else chose a part of, without control characters.
fn printable(text: String) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
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
    use sluicegate_attestation::trivy_report::PackageList;
    use sluicegate_types::Digest;

    use super::*;
    use crate::own_system::SystemText;

    type TestList<'a> = (&'a str, bool, &'a [(&'a str, &'a str)]);

    /// Lists of packages by place: whether it is one of the second report, and names with versions.
    fn report(lists: &[TestList<'_>]) -> Summary {
        let package = |(name, version): &(&str, &str)| ListedPackage {
            name: (*name).into(),
            version: (*version).into(),
            purl: None,
            licenses: Vec::new(),
            file: None,
            analyzed_by: "npm".into(),
            layer: Some("sha256:of-the-layer".into()),
        };
        let list = |(place, lock_file, packages): &TestList<'_>| PackageList {
            class: "lang-pkgs".into(),
            kind: "npm".into(),
            place: (*place).into(),
            packages: packages.iter().map(package).collect(),
            lock_file: *lock_file,
        };
        Summary {
            version: String::new(),
            artifact_type: String::new(),
            image_id: String::new(),
            diff_ids: vec!["sha256:of-the-layer".into()],
            system: None,
            results: lists.iter().map(list).collect(),
        }
    }

    /// An image with these files, of which `unkept` is longer than is read.
    fn image(files: &[(&str, &str)], unkept: &str) -> Files {
        let text = |(path, text): &(&str, &str)| SystemText {
            path: (*path).into(),
            digest: Digest::of(text.as_bytes()),
            bytes: (*text).into(),
        };
        let mut texts: Vec<SystemText> = files.iter().map(text).collect();
        texts.sort_by(|a, b| a.path.cmp(&b.path));
        let all = texts.iter().map(|text| (text.path.clone(), text.digest)).collect();
        let layers = texts.iter().map(|text| (text.path.clone(), 0)).collect();
        texts.retain(|text| text.path != unkept);
        Files { all, layers, lock_files: texts, ..Files::default() }
    }

    fn places(gaps: Vec<Gap>) -> Vec<String> {
        gaps.into_iter().map(|gap| gap.place).collect()
    }

    const LOCK: &str =
        r#"{"packages": {"node_modules/a": {"version": "1"}, "node_modules/b": {"version": "2", "dev": true}}}"#;

    #[test]
    fn tm04_a_lock_file_is_a_gap_until_all_that_it_pins_is_listed() {
        let place = "srv/package-lock.json";
        let of = |report: &Summary, unkept| places(gaps(report, &image(&[(place, LOCK)], unkept)));
        let whole = report(&[(place, true, &[("a", "1"), ("b", "2"), ("c", "3")])]);
        assert_eq!(of(&whole, ""), [] as [&str; 0]);
        assert_eq!(of(&whole, place), [place], "not read here, so nobody knows");
        for short in [
            report(&[]),
            report(&[(place, true, &[("a", "1")])]),
            report(&[(place, true, &[("a", "1"), ("b", "1")])]),
            report(&[("package-lock.json", true, &[("a", "1"), ("b", "2")])]),
        ] {
            assert_eq!(of(&short, ""), [place]);
        }
        let said = gaps(&report(&[(place, true, &[("a", "1")])]), &image(&[(place, LOCK)], "")).remove(0).reason;
        assert!(said.contains("passed over 1 packages, such as b 2"), "{said}");
    }

    #[test]
    fn a_lock_file_that_pins_nothing_is_no_gap() {
        for (place, nothing) in [
            ("srv/package-lock.json", r#"{"packages": {"": {"name": "own"}}}"#),
            ("srv/requirements.txt", "# nothing\n"),
        ] {
            assert_eq!(places(gaps(&report(&[]), &image(&[(place, nothing)], ""))), [] as [&str; 0], "{place}");
            assert_eq!(places(gaps(&report(&[]), &image(&[(place, nothing)], place))), [place]);
        }
    }

    #[test]
    fn tm04_a_list_of_the_image_counts_for_the_file_that_stands_there() {
        let place = "srv/package-lock.json";
        let mut by = report(&[(place, false, &[("a", "1"), ("b", "2")])]);
        let ask = |by: &Summary| places(gaps(by, &image(&[(place, LOCK)], "")));
        assert_eq!(ask(&by), [] as [&str; 0]);
        by.results[0].packages.iter_mut().for_each(|package| package.layer = Some("sha256:another".into()));
        assert_eq!(ask(&by), [place], "of a file that was replaced");
        let mut by = report(&[(place, false, &[("a", "1"), ("b", "2")])]);
        by.results[0].packages.iter_mut().for_each(|package| package.analyzed_by = "sbom".into());
        assert_eq!(ask(&by), [place], "of an SBOM that says so");
        let mut by = report(&[("other", false, &[("a", "1"), ("b", "2")])]);
        by.results[0].packages.iter_mut().for_each(|package| package.file = Some(place.into()));
        assert_eq!(ask(&by), [place], "of packages that say so");
    }

    #[test]
    fn tm04_the_hashes_of_modules_are_read_where_the_modules_are_listed() {
        // Hashes of what only tests of dependencies use stand in the one and not in the other.
        let sums = "x.org/m v1.0.0 h1:a=\nx.org/n v1.0.0/go.mod h1:b=\nx.org/test v1.0.0 h1:c=\n";
        let files = [("go/go.sum", sums), ("go/go.mod", "module y\nrequire x.org/m v1.0.0\n")];
        let of =
            |packages: &[(&str, &str)]| places(gaps(&report(&[("go/go.mod", true, packages)]), &image(&files, "")));
        assert_eq!(of(&[("y", ""), ("x.org/m", "v1.0.0")]), [] as [&str; 0]);
        assert_eq!(of(&[("y", "")]), ["go/go.sum"]);
        assert_eq!(places(gaps(&report(&[]), &image(&files, ""))), ["go/go.sum"]);
    }

    #[test]
    fn tm04_a_format_that_is_not_read_here_stays_a_gap() {
        let place = "srv/yarn.lock";
        let read = report(&[(place, true, &[("a", "1")])]);
        let said = gaps(&read, &image(&[(place, "a@1:\n")], "")).remove(0);
        assert!(said.reason.contains("nobody can say") && said.reason.contains("1 packages"), "{said:?}");
    }

    #[test]
    fn what_was_not_read_is_laid_out_and_odd_paths_stay_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/yarn.lock", "x".repeat(256));
        let files = [
            ("short/Cargo.lock", "[[package]]\nname = \"b\"\nversion = \"1\"\n"),
            ("srv/yarn.lock", "1"),
            ("srv/yarn.lock/yarn.lock", "2"),
            ("go/go.mod", "3"),
            ("read/Cargo.lock", "4"),
            (long.as_str(), "5"),
        ];
        let read = report(&[("read/Cargo.lock", false, &[("a", "1")]), ("short/Cargo.lock", false, &[("a", "1")])]);
        assert!(lay_out(&read, &image(&files, ""), folder.path()).unwrap());
        assert_eq!(fs::read(folder.path().join("srv/yarn.lock")).unwrap(), b"1");
        assert_eq!(fs::read(folder.path().join("go/go.mod")).unwrap(), b"3");
        assert!(!folder.path().join("read").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "go, short and srv");
        let nothing = tempfile::tempdir().unwrap();
        let files = [("go/go.mod", "3"), ("read/Cargo.lock", "4"), (long.as_str(), "5")];
        assert!(!lay_out(&read, &image(&files, ""), nothing.path()).unwrap());
        assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
    }
}
