//! What a scan read, what stands in the image beside it, and what its database does not know (trust model 4): a list, for a scan
//! that recognised an image in part looks like a clean one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as IoRead, Seek},
};

use sluicegate_attestation::trivy_report::{PackageList, Summary};
use sluicegate_ports::scan::{Coverage, Gap, Read, System};
use sluicegate_types::Digest;

use crate::{
    advisory_buckets::{of_system, prefix_of_packages},
    bolt::{Bolt, BoltError},
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

/// Package lists of systems and the analyser that reads each; no analyser where Trivy has none.
const PACKAGE_LISTS: &[(&str, &str)] = &[
    ("var/lib/dpkg/status", "dpkg"),
    ("lib/apk/db/installed", "apk"),
    ("usr/lib/apk/db/installed", "apk"),
    ("var/lib/rpm/Packages", "rpm"),
    ("var/lib/rpm/Packages.db", "rpm"),
    ("var/lib/rpm/rpmdb.sqlite", "rpm"),
    ("usr/lib/sysimage/rpm/Packages", "rpm"),
    ("usr/lib/sysimage/rpm/Packages.db", "rpm"),
    ("usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm"),
    ("var/lib/rpmmanifest/container-manifest-2", "rpmqa"),
    ("var/lib/pacman/local/ALPM_DB_VERSION", ""),
    ("usr/lib/opkg/status", ""),
    ("var/lib/opkg/status", ""),
];

/// Files that say there is an operating system.
const SYSTEM_FILES: &[&str] = &[
    "etc/os-release",
    "usr/lib/os-release",
    "etc/debian_version",
    "etc/alpine-release",
    "etc/redhat-release",
    "etc/lsb-release",
    "etc/arch-release",
];

/// Folders where systems keep their records of packages. Not only the lists count: Trivy leaves out what some of the other files name.
const RECORD_FOLDERS: &[&str] = &[
    "var/lib/dpkg/",
    "lib/apk/",
    "usr/lib/apk/",
    "var/lib/rpm/",
    "usr/lib/sysimage/rpm/",
    "var/lib/rpmmanifest/",
    "var/lib/pacman/",
    "usr/lib/opkg/",
    "var/lib/opkg/",
];

/// Whether a file of the image says something about coverage.
pub fn is_telling(path: &str) -> bool {
    is_lock_file(path) || is_record(path)
}

/// Whether a file says which system this is or which packages it has.
fn is_record(path: &str) -> bool {
    SYSTEM_FILES.contains(&path) || RECORD_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Sets a report beside the image's telling files and the database's buckets. `files` are those [`is_telling`] chose, `below` the
/// same without the uppermost layer, `image` is the image's digest, which stands for a gap that has no file.
pub fn coverage<R: IoRead + Seek>(
    report: &Summary,
    files: &BTreeMap<String, Digest>,
    below: &BTreeMap<String, Digest>,
    image: &Digest,
    database: &mut Bolt<R>,
) -> Result<Coverage, BoltError> {
    let read: Vec<_> = report.results.iter().filter(|list| is_packages(list)).map(read_of).collect();
    let system = report.system.as_ref().map(|system| System {
        family: system.family.clone(),
        release: system.release.clone(),
        ended: system.ended,
    });
    let mut unread = Vec::new();
    if read.iter().all(|list| list.packages == 0) {
        unread.push(gap("nothing-recognised", "image", image, "the scanner recognised no package in the image".into()));
    }
    unread.extend(rewritten_gaps(files, below, image));
    unread.extend(lock_gaps(report, files));
    unread.extend(list_gaps(report, files, image, system.as_ref()));
    unread.extend(system_gaps(system.as_ref(), files, image, database)?);
    unread.extend(ecosystem_gaps(&read, report, image, database)?);
    Ok(Coverage { read, unread, system })
}

fn read_of(list: &PackageList) -> Read {
    Read { kind: list.kind.clone(), place: list.place.clone(), packages: list.packages.len() as u64 }
}

fn is_packages(list: &PackageList) -> bool {
    matches!(list.class.as_str(), "os-pkgs" | "lang-pkgs")
}

/// The records of a base that the layer upon it changes: a product that writes a shorter package list, or another release's name,
/// hides the base's packages from every scanner. Where the base has no records there is nothing to hide.
fn rewritten_gaps(files: &BTreeMap<String, Digest>, below: &BTreeMap<String, Digest>, image: &Digest) -> Vec<Gap> {
    if !below.keys().any(|path| is_record(path)) {
        return Vec::new();
    }
    let paths: BTreeSet<&String> = files.keys().chain(below.keys()).filter(|path| is_record(path)).collect();
    let changed = paths.into_iter().filter(|path| files.get(*path) != below.get(*path));
    changed
        .map(|path| {
            let digest = files.get(path).unwrap_or(image);
            gap(
                "records-rewritten",
                path,
                digest,
                "the uppermost layer changes the records of the base's packages".into(),
            )
        })
        .collect()
}

fn lock_gaps<'a>(report: &Summary, files: &'a BTreeMap<String, Digest>) -> impl Iterator<Item = Gap> + use<'a> {
    let mut named = BTreeSet::new();
    for list in report.results.iter().filter(|list| is_packages(list)) {
        named.insert(list.place.clone());
        named.extend(list.packages.iter().filter_map(|package| package.file.clone()));
    }
    files.iter().filter(|(path, _)| is_lock_file(path)).filter_map(move |(path, digest)| {
        let seen = named.contains(path);
        (!seen)
            .then(|| gap("lock-file", path, digest, "a lock file that no package list of the report comes from".into()))
    })
}

fn list_gaps(report: &Summary, files: &BTreeMap<String, Digest>, image: &Digest, system: Option<&System>) -> Vec<Gap> {
    let analysers: BTreeSet<_> = report
        .results
        .iter()
        .filter(|list| list.class == "os-pkgs")
        .flat_map(|list| list.packages.iter().map(|package| package.analyzed_by.as_str()))
        .collect();
    let mut gaps = Vec::new();
    for (path, digest) in files {
        match analyser_of(path) {
            None => {}
            Some("") => {
                gaps.push(gap("package-list", path, digest, "a package list that the scanner cannot read".into()))
            }
            Some(analyser) if analysers.contains(analyser) => {}
            Some(_) => {
                gaps.push(gap("package-list", path, digest, "a package list of which no package was read".into()))
            }
        }
    }
    if let (Some(system), true, true) = (system, analysers.is_empty(), gaps.is_empty()) {
        let reason = "a system was recognised and not one of its packages: its package list is missing".to_owned();
        gaps.push(gap("package-list", &name_of(system), image, reason));
    }
    gaps
}

fn system_gaps<R: IoRead + Seek>(
    system: Option<&System>,
    files: &BTreeMap<String, Digest>,
    image: &Digest,
    database: &mut Bolt<R>,
) -> Result<Option<Gap>, BoltError> {
    let Some(system) = system.filter(|system| !system.release.is_empty()) else {
        // An image of one static program has no system, and lacks nothing.
        let sign = files.iter().find(|(path, _)| SYSTEM_FILES.contains(&path.as_str()) || analyser_of(path).is_some());
        let reason = "the image has an operating system, and the scanner does not recognise which release".to_owned();
        return Ok(match (sign, system) {
            (Some((path, digest)), _) => Some(gap("system-unknown", path, digest, reason)),
            (None, Some(system)) => Some(gap("system-unknown", &system.family, image, reason)),
            (None, None) => None,
        });
    };
    let name = name_of(system);
    if system.ended {
        let reason = "support has ended: no advisories are written for this release any more".to_owned();
        return Ok(Some(gap("system-ended", &name, image, reason)));
    }
    let reason = match of_system(system) {
        None => "this version does not know under which name the database keeps this system".to_owned(),
        Some(bucket) => match database.keys(&bucket)? {
            Some(1..) => return Ok(None),
            Some(0) => format!("the database has a bucket {bucket:?} without one advisory"),
            None => format!("the database has no bucket {bucket:?}: it does not know this system"),
        },
    };
    Ok(Some(gap("system-not-in-database", &name, image, reason)))
}

fn ecosystem_gaps<R: IoRead + Seek>(
    read: &[Read],
    report: &Summary,
    image: &Digest,
    database: &mut Bolt<R>,
) -> Result<Vec<Gap>, BoltError> {
    let kinds: BTreeSet<_> = report
        .results
        .iter()
        .filter(|list| list.class == "lang-pkgs")
        .map(|list| list.kind.as_str())
        .filter(|kind| read.iter().any(|read| read.kind == *kind && read.packages > 0))
        .collect();
    let mut gaps = Vec::new();
    for kind in kinds {
        let reason = match prefix_of_packages(kind) {
            None => "this version knows of no advisories for packages of this kind".to_owned(),
            Some(prefix) if knows(database, prefix)? => continue,
            Some(prefix) => format!("the database has no advisories in a bucket {prefix}…"),
        };
        gaps.push(gap("ecosystem-not-in-database", kind, image, reason));
    }
    Ok(gaps)
}

fn knows<R: IoRead + Seek>(database: &mut Bolt<R>, prefix: &str) -> Result<bool, BoltError> {
    let names: Vec<_> = database.buckets().filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
    for name in names {
        if database.keys(&name)?.is_some_and(|keys| keys > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_lock_file(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    LOCK_FILES.contains(&name) && !folder.split('/').any(|part| INSTALLED.contains(&part))
}

/// The analyser that ought to read a package list; `None` for another file.
fn analyser_of(path: &str) -> Option<&'static str> {
    let single = path.strip_prefix("var/lib/dpkg/status.d/");
    if single.is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums")) {
        return Some("dpkg");
    }
    PACKAGE_LISTS.iter().find(|(list, _)| *list == path).map(|(_, analyser)| *analyser)
}

fn name_of(system: &System) -> String {
    format!("{} {}", system.family, system.release)
}

fn gap(kind: &str, place: &str, digest: &Digest, reason: String) -> Gap {
    Gap { kind: kind.to_owned(), place: place.to_owned(), digest: *digest, reason }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use sluicegate_attestation::trivy_report::{ListedPackage, ReportedSystem};

    use super::*;
    use crate::test_database::{bolt_file, sample};

    fn report() -> Summary {
        let package = |name: &str, file: Option<&str>, analyzed_by: &str| ListedPackage {
            name: name.into(),
            file: file.map(str::to_owned),
            analyzed_by: analyzed_by.into(),
        };
        let list = |class: &str, kind: &str, place: &str, packages| PackageList {
            class: class.into(),
            kind: kind.into(),
            place: place.into(),
            packages,
        };
        Summary {
            version: "0.76.0".into(),
            artifact_type: "container_image".into(),
            image_id: String::new(),
            diff_ids: vec![],
            system: Some(ReportedSystem { family: "debian".into(), release: "12.11".into(), ended: false }),
            results: vec![
                list("os-pkgs", "debian", "debian 12.11", vec![package("zlib1g", None, "dpkg")]),
                list("lang-pkgs", "python-pkg", "Python", vec![package("h11", Some("srv/h11/METADATA"), "python-pkg")]),
                list("secret", "", "etc/passwd", vec![]),
            ],
        }
    }

    fn files(paths: &[&str]) -> BTreeMap<String, Digest> {
        paths
            .iter()
            .inspect(|path| assert!(is_telling(path), "{path}"))
            .map(|path| (path.to_string(), Digest::of(path.as_bytes())))
            .collect()
    }

    fn gaps(report: &Summary, paths: &[&str]) -> Vec<(String, String)> {
        let mut database = Bolt::open(Cursor::new(bolt_file(&sample()))).unwrap();
        let coverage = coverage(report, &files(paths), &files(paths), &Digest::of(b"image"), &mut database).unwrap();
        coverage.unread.into_iter().map(|gap| (gap.kind, gap.place)).collect()
    }

    fn is(kind: &str, place: &str) -> Vec<(String, String)> {
        vec![(kind.to_owned(), place.to_owned())]
    }

    const WHOLE: &[&str] = &["etc/os-release", "var/lib/dpkg/status"];

    #[test]
    fn an_image_that_was_read_whole_has_no_gap() {
        let mut database = Bolt::open(Cursor::new(bolt_file(&sample()))).unwrap();
        let coverage = coverage(&report(), &files(WHOLE), &files(WHOLE), &Digest::of(b"image"), &mut database).unwrap();
        assert_eq!(coverage.unread, vec![]);
        assert_eq!(coverage.read[0], Read { kind: "debian".into(), place: "debian 12.11".into(), packages: 1 });
        assert_eq!(coverage.read.len(), 2);
        assert_eq!(coverage.system.unwrap().release, "12.11");
    }

    #[test]
    fn a_lock_file_counts_as_read_only_when_the_report_names_it() {
        let with = [WHOLE, &["srv/Cargo.lock"]].concat();
        assert_eq!(gaps(&report(), &with), is("lock-file", "srv/Cargo.lock"));
        let mut read = report();
        read.results[2].class = "lang-pkgs".into();
        read.results[2].place = "srv/Cargo.lock".into();
        assert_eq!(gaps(&read, &with), vec![]);
        assert!(!is_telling("srv/node_modules/x/package-lock.json") && is_telling("srv/package-lock.json"));
    }

    #[test]
    fn a_package_list_that_gave_nothing_is_a_gap() {
        let mut unread = report();
        unread.results[0].packages.clear();
        assert_eq!(gaps(&unread, WHOLE), is("package-list", "var/lib/dpkg/status"));
        assert_eq!(gaps(&unread, &["etc/os-release"]), is("package-list", "debian 12.11"));
        assert_eq!(
            gaps(&report(), &[WHOLE, &["usr/lib/opkg/status"]].concat()),
            is("package-list", "usr/lib/opkg/status")
        );
        assert_eq!(gaps(&report(), &["etc/os-release", "var/lib/dpkg/status.d/tzdata"]), vec![]);
        // A list of sums beside it is a record that must not be rewritten, and no package list that something must come from.
        let with_sums = ["etc/os-release", "var/lib/dpkg/status.d/tzdata", "var/lib/dpkg/status.d/tzdata.md5sums"];
        assert_eq!(gaps(&report(), &with_sums), vec![]);
        assert!(is_telling(with_sums[2]) && analyser_of(with_sums[2]).is_none());
    }

    #[test]
    fn a_system_that_is_unknown_ended_or_not_in_the_database_is_a_gap() {
        let with = |family: &str, release: &str, ended| Summary {
            system: Some(ReportedSystem { family: family.into(), release: release.into(), ended }),
            ..report()
        };
        assert_eq!(gaps(&with("debian", "12.11", true), WHOLE), is("system-ended", "debian 12.11"));
        assert_eq!(gaps(&with("debian", "13.1", false), WHOLE), is("system-not-in-database", "debian 13.1"));
        assert_eq!(gaps(&with("haiku", "1", false), WHOLE), is("system-not-in-database", "haiku 1"));
        assert_eq!(gaps(&with("debian", "", false), WHOLE), is("system-unknown", "etc/os-release"));
        let none = Summary { system: None, ..report() };
        assert_eq!(gaps(&none, WHOLE), is("system-unknown", "etc/os-release"));
        assert_eq!(gaps(&none, &[]), vec![], "an image without a system lacks none");
    }

    #[test]
    fn packages_of_a_kind_without_advisories_are_a_gap() {
        let mut node = report();
        node.results[1].kind = "node-pkg".into();
        assert_eq!(gaps(&node, WHOLE), is("ecosystem-not-in-database", "node-pkg"));
        node.results[1].kind = "conda-pkg".into();
        assert_eq!(gaps(&node, WHOLE), is("ecosystem-not-in-database", "conda-pkg"));
        node.results[1].packages.clear();
        assert_eq!(gaps(&node, WHOLE), vec![]);
    }

    #[test]
    fn nothing_recognised_is_a_gap() {
        let empty = Summary { system: None, results: vec![], ..report() };
        assert_eq!(gaps(&empty, &[]), is("nothing-recognised", "image"));
    }

    #[test]
    fn a_layer_that_changes_the_records_of_its_base_is_a_gap() {
        let image = Digest::of(b"image");
        let base = files(WHOLE);
        assert_eq!(rewritten_gaps(&base, &base, &image), []);
        let mut shorter = base.clone();
        shorter.insert("var/lib/dpkg/status".to_owned(), Digest::of(b"one package"));
        let mut hidden = base.clone();
        hidden.remove("var/lib/dpkg/status");
        let mut more = base.clone();
        more.insert("var/lib/dpkg/info/own.md5sums".to_owned(), Digest::of(b"x"));
        for changed in [shorter, hidden, more] {
            let gaps = rewritten_gaps(&changed, &base, &image);
            assert_eq!(gaps.len(), 1, "{gaps:?}");
            assert_eq!(gaps[0].kind, "records-rewritten");
        }
        // On nothing, or upon a base without records, there is nothing to hide.
        assert_eq!(rewritten_gaps(&base, &BTreeMap::new(), &image), []);
    }
}
