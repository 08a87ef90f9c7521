//! What a scan read, what stands in the image beside it, and what its database does not know (trust model 4): a list, for a scan
//! that recognised an image in part looks like a clean one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as IoRead, Seek},
};

use sluicegate_attestation::trivy_report::{ListedPackage, PackageList, Summary};
use sluicegate_ports::scan::{Coverage, Gap, Read, System};
use sluicegate_types::Digest;

use crate::{
    advisory_buckets::{of_system, prefix_of_packages},
    bolt::{Bolt, BoltError},
    executables,
    image_files::Files,
    java_archives::{self, is_java_archive},
    lock_files::{self, is_lock_file},
    own_system::{SystemText, Word, is_repositories, is_text, package_analysers, word_of},
    package_files::{PackageFiles, is_list, is_list_of_system},
};

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
    ("usr/share/rpm/rpmdb.sqlite", "rpm"),
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
    "etc/almalinux-release",
    "etc/centos-release",
    "etc/fedora-release",
    "etc/oracle-release",
    "etc/rocky-release",
    "etc/system-release",
    "etc/lsb-release",
    "etc/arch-release",
];

/// Folders where systems keep their records of packages. Not only the lists count: Trivy leaves out what some of the other files
/// name, prefers the release that the repositories of apk name, asks for other advisories where a support contract or a rebuilder
/// of packages has left its mark, and takes the content sets of Red Hat from the build's own description.
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
    "usr/share/rpm/",
    "etc/apk/",
    "var/lib/ubuntu-advantage/",
    "root/buildinfo/",
    "usr/share/buildinfo/",
    "usr/share/rapidfort/",
    "aarch64-bottlerocket-linux-gnu/sys-root/usr/share/bottlerocket/",
    "x86_64-bottlerocket-linux-gnu/sys-root/usr/share/bottlerocket/",
];

/// Endings of files that bring packages of a system without a package manager; Trivy adds them to those of the package list, and
/// lets their versions decide whose advisories it asks.
const PACKAGE_BRINGERS: &[&str] = &[".spdx", ".spdx.json", ".cdx", ".cdx.json", ".rpm"];

/// Whether a file of the image says something about coverage. A link to a Java archive does not: what it leads to does.
pub fn is_telling(path: &str, is_link: bool) -> bool {
    is_lock_file(path) || is_record(path) || brings_packages(path) || (is_java_archive(path) && !is_link)
}

/// Whether a file says which system this is or which packages it has.
fn is_record(path: &str) -> bool {
    is_text(path)
        || SYSTEM_FILES.contains(&path)
        || is_release_file(path)
        || RECORD_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Any `…-release` or `…_version` where systems put theirs: scanners learn new ones with each version.
fn is_release_file(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    matches!(folder, "etc" | "usr/lib") && ["-release", "_version", "-version"].iter().any(|end| name.ends_with(end))
}

fn brings_packages(path: &str) -> bool {
    PACKAGE_BRINGERS.iter().any(|end| path.ends_with(end))
}

/// Sets a report beside the image's files, of which [`is_telling`] chose some, and the database's buckets. `image` is the image's
/// digest, which stands for a gap that has no file.
pub(crate) fn coverage<R: IoRead + Seek>(
    report: &Summary,
    seen: &Files,
    image: &Digest,
    database: &mut Bolt<R>,
) -> Result<Coverage, BoltError> {
    let Files { all: files, below, texts, .. } = seen;
    let of_packages = package_files(seen, is_list);
    let read: Vec<_> = report.results.iter().filter(|list| is_packages(list)).map(read_of).collect();
    let system = report.system.as_ref().map(|system| System {
        family: system.family.clone(),
        release: system.release.clone(),
        ended: system.ended,
    });
    let mut unread = Vec::new();
    if read.iter().all(|list| list.packages == 0 || list.lock_file) {
        unread.push(gap("nothing-recognised", "image", image, "the scanner recognised no package in the image".into()));
    }
    unread.extend(rewritten_gaps(files, below, image));
    unread.extend(brought_gaps(report, files, below, image));
    unread.extend(lock_files::gaps(report, seen));
    unread.extend(java_archives::gaps(report, seen, package_files(seen, is_list_of_system).as_ref()));
    unread.extend(list_gaps(report, files, image, system.as_ref()));
    unread.extend(system_gaps(report, system.as_ref(), files, image, database)?);
    unread.extend(system.as_ref().into_iter().flat_map(|system| contradictions(report, system, files, texts, image)));
    unread.extend(ecosystem_gaps(&read, report, image, database)?);
    let executables = executables::unexplained(report, seen, of_packages.as_ref());
    Ok(Coverage { read, unread, system, executables })
}

fn read_of(list: &PackageList) -> Read {
    Read {
        kind: list.kind.clone(),
        place: list.place.clone(),
        packages: list.packages.len() as u64,
        lock_file: list.lock_file,
    }
}

pub(crate) fn is_packages(list: &PackageList) -> bool {
    matches!(list.class.as_str(), "os-pkgs" | "lang-pkgs")
}

/// The records of a base that the layer upon it changes: a product that writes a shorter package list, or another release's name,
/// hides the base's packages from every scanner. Where the base has no records there is nothing to hide.
fn rewritten_gaps(files: &BTreeMap<String, Digest>, below: &BTreeMap<String, Digest>, image: &Digest) -> Vec<Gap> {
    if !below.keys().any(|path| is_record(path)) {
        return Vec::new();
    }
    changed(files, below, is_record)
        .map(|path| {
            let (verb, digest) = match files.get(path) {
                None => ("takes away", image),
                Some(digest) if below.contains_key(path) => ("changes", digest),
                Some(digest) => ("adds", digest),
            };
            let reason = format!("the uppermost layer {verb} {path}, a record of the base's system or packages");
            gap("records-rewritten", path, digest, reason)
        })
        .collect()
}

fn changed<'a>(
    files: &'a BTreeMap<String, Digest>,
    below: &'a BTreeMap<String, Digest>,
    counts: fn(&str) -> bool,
) -> impl Iterator<Item = &'a String> {
    let paths: BTreeSet<&String> = files.keys().chain(below.keys()).filter(|path| counts(path)).collect();
    paths.into_iter().filter(|path| files.get(*path) != below.get(*path))
}

/// Packages of the system that come from a file of the product: one whose version looks like a rebuilder's makes Trivy ask that
/// rebuilder's advisories about all packages of the base.
fn brought_gaps(
    report: &Summary,
    files: &BTreeMap<String, Digest>,
    below: &BTreeMap<String, Digest>,
    image: &Digest,
) -> Vec<Gap> {
    let brought = system_analysers(report).iter().any(|analyser| matches!(*analyser, "sbom" | "rpm-archive"));
    if !brought || !below.keys().any(|path| is_record(path)) {
        return Vec::new();
    }
    let reason = |path: &str| {
        format!(
            "the uppermost layer adds or changes {path}, and the scanner takes packages of the system from such files"
        )
    };
    changed(files, below, brings_packages)
        .map(|path| gap("records-rewritten", path, files.get(path).unwrap_or(image), reason(path)))
        .collect()
}

/// The analysers that read packages of the system.
fn system_analysers(report: &Summary) -> BTreeSet<&str> {
    let lists = report.results.iter().filter(|list| list.class == "os-pkgs");
    lists.flat_map(|list| list.packages.iter().map(|package| package.analyzed_by.as_str())).collect()
}

/// Where the reported system is not the one that the image's packages and own files speak of: advisories of another system or
/// release are asked then, and they know nothing of these packages. A system without a release is a gap of its own.
fn contradictions(
    report: &Summary,
    system: &System,
    files: &BTreeMap<String, Digest>,
    texts: &[SystemText],
    image: &Digest,
) -> Vec<Gap> {
    let (name, kind) = (name_of(system), "system-contradicted");
    let mut gaps = Vec::new();
    if let Some(fitting) = package_analysers(&system.family) {
        for analyser in system_analysers(report) {
            if analyser != "sbom" && !fitting.contains(&analyser) {
                let reason =
                    format!("the scanner reports {name}, and read packages with {analyser:?}, which it does not use");
                gaps.push(gap(kind, &name, image, reason));
            }
        }
    }
    if system.release.is_empty() {
        return gaps;
    }
    let mut agreed = false;
    let mut told = BTreeSet::new();
    for text in texts {
        let stands = files.get(&text.path) == Some(&text.digest);
        if !(stands || is_repositories(&text.path)) {
            continue;
        }
        match word_of(text, system) {
            Word::Silent => {}
            Word::Agrees => agreed |= stands && !is_repositories(&text.path),
            Word::Contradicts(what) => {
                if told.insert(text.path.as_str()) {
                    let reason = format!("the scanner reports {name}, and {} contradicts it: {what}", text.path);
                    gaps.push(gap(kind, &text.path, &text.digest, reason));
                }
            }
        }
    }
    if !agreed && told.is_empty() {
        let reason = format!("the scanner reports {name}, and no file of the image says so");
        gaps.push(gap(kind, &name, image, reason));
    }
    gaps
}

/// Which files the packages of the image brought by the lists that count; `None` where a package manager keeps its lists in a way that is
/// not read, or they are more than is read.
pub(crate) fn package_files(seen: &Files, counts: fn(&str) -> bool) -> Option<PackageFiles> {
    let is_of_others = |path: &String| analyser_of(path).is_some_and(|analyser| !matches!(analyser, "dpkg" | "apk"));
    if seen.all.keys().any(is_of_others) {
        return None;
    }
    let layer_of = |path: &str| seen.layers.get(path).copied().unwrap_or_default();
    let lists = seen.lists.as_ref()?.iter().filter(|list| counts(&list.path));
    let lists = lists.map(|list| (list.path.as_str(), layer_of(&list.path), list.bytes.as_slice()));
    PackageFiles::of(lists, seen.uppermost, &|path| seen.links.get(path).copied())
}

/// Whether the scanner read a package in the file that stands at this path, and not in one that an upper layer replaced, nor in an SBOM that
/// says so of another file.
pub(crate) fn is_of_standing_file(
    package: &ListedPackage,
    path: &str,
    report: &Summary,
    layers: &BTreeMap<String, usize>,
) -> bool {
    // By content: the same layer may lie in an image twice.
    let stands_from = layers.get(path).and_then(|layer| report.diff_ids.get(*layer));
    package.analyzed_by != BY_SBOM && stands_from.is_some() && stands_from == package.layer.as_ref()
}

/// What the scanner says of packages that an SBOM in the image names.
const BY_SBOM: &str = "sbom";

fn list_gaps(report: &Summary, files: &BTreeMap<String, Digest>, image: &Digest, system: Option<&System>) -> Vec<Gap> {
    let analysers = system_analysers(report);
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
    report: &Summary,
    system: Option<&System>,
    files: &BTreeMap<String, Digest>,
    image: &Digest,
    database: &mut Bolt<R>,
) -> Result<Option<Gap>, BoltError> {
    let Some(system) = system.filter(|system| !system.release.is_empty()) else {
        // An image of one static program has no system, and lacks nothing.
        let sign = files.iter().find(|(path, _)| SYSTEM_FILES.contains(&path.as_str()) || analyser_of(path).is_some());
        let reason = "the image has an operating system, and the scanner does not recognise which release".to_owned();
        let list = report.results.iter().find(|list| list.class == "os-pkgs" && !list.packages.is_empty());
        return Ok(match (sign, system, list) {
            (Some((path, digest)), _, _) => Some(gap("system-unknown", path, digest, reason)),
            (None, Some(system), _) => Some(gap("system-unknown", &system.family, image, reason)),
            (None, None, Some(list)) => Some(gap("system-unknown", &list.place, image, reason)),
            (None, None, None) => None,
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

/// The analyser that ought to read a package list; `None` for another file.
pub(crate) fn analyser_of(path: &str) -> Option<&'static str> {
    let single = path.strip_prefix("var/lib/dpkg/status.d/");
    if single.is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums")) {
        return Some("dpkg");
    }
    PACKAGE_LISTS.iter().find(|(list, _)| *list == path).map(|(_, analyser)| *analyser)
}

fn name_of(system: &System) -> String {
    format!("{} {}", system.family, system.release)
}

pub(crate) fn gap(kind: &str, place: &str, digest: &Digest, reason: String) -> Gap {
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
            version: String::new(),
            purl: None,
            licenses: Vec::new(),
            file: file.map(str::to_owned),
            analyzed_by: analyzed_by.into(),
            layer: Some("sha256:layer".into()),
        };
        let list = |class: &str, kind: &str, place: &str, packages| PackageList {
            class: class.into(),
            kind: kind.into(),
            place: place.into(),
            packages,
            lock_file: false,
        };
        Summary {
            version: "0.76.0".into(),
            artifact_type: "container_image".into(),
            image_id: String::new(),
            diff_ids: vec!["sha256:layer".into()],
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
            .inspect(|path| assert!(is_telling(path, false), "{path}"))
            .map(|path| (path.to_string(), Digest::of(path.as_bytes())))
            .collect()
    }

    fn texts_of(texts: &[(&str, &str)]) -> Vec<SystemText> {
        let text = |(path, content): &(&str, &str)| SystemText {
            path: (*path).into(),
            digest: Digest::of(content.as_bytes()),
            bytes: (*content).into(),
        };
        texts.iter().map(text).collect()
    }

    /// The gaps of an image with these files, each a layer of its own, of which the last `above` are not the base's.
    fn gaps_of(report: &Summary, layers: &[(&str, &str)], above: usize) -> Vec<(String, String)> {
        let mut database = Bolt::open(Cursor::new(bolt_file(&sample()))).unwrap();
        let texts = texts_of(layers);
        let tree = |texts: &[SystemText]| -> BTreeMap<String, Digest> {
            texts.iter().map(|text| (text.path.clone(), text.digest)).collect()
        };
        let (all, below) = (tree(&texts), tree(&texts[..texts.len() - above]));
        let layers = all.keys().map(|path| (path.clone(), 0)).collect();
        let lock_files = texts.iter().filter(|text| is_lock_file(&text.path)).cloned().collect();
        let files = Files { all, below, texts, layers, lock_files, ..Files::default() };
        let coverage = coverage(report, &files, &Digest::of(b"image"), &mut database).unwrap();
        coverage.unread.into_iter().map(|gap| (gap.kind, gap.place)).collect()
    }

    /// The gaps of an image whose own `etc/os-release`, if it is among the files, names the reported system.
    fn gaps(report: &Summary, paths: &[&str]) -> Vec<(String, String)> {
        let os_release = match &report.system {
            Some(system) => format!("ID={}\nVERSION_ID={}\n", system.family, system.release),
            None => String::new(),
        };
        let content = |path: &str| if path == "etc/os-release" { os_release.clone() } else { path.to_owned() };
        let layers: Vec<_> = paths
            .iter()
            .inspect(|path| assert!(is_telling(path, false), "{path}"))
            .map(|path| (*path, content(path)))
            .collect();
        gaps_of(report, &layers.iter().map(|(path, content)| (*path, content.as_str())).collect::<Vec<_>>(), 0)
    }

    const OS_RELEASE: (&str, &str) = ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    const STATUS: (&str, &str) = ("var/lib/dpkg/status", "Package: zlib1g\n");
    const DEBIAN: &[(&str, &str)] = &[OS_RELEASE, ("etc/debian_version", "12.11\n"), STATUS];

    fn reported(family: &str, release: &str) -> Summary {
        Summary {
            system: Some(ReportedSystem { family: family.into(), release: release.into(), ended: false }),
            ..report()
        }
    }

    fn is(kind: &str, place: &str) -> Vec<(String, String)> {
        vec![(kind.to_owned(), place.to_owned())]
    }

    const WHOLE: &[&str] = &["etc/os-release", "var/lib/dpkg/status"];

    #[test]
    fn an_image_that_was_read_whole_has_no_gap() {
        let mut database = Bolt::open(Cursor::new(bolt_file(&sample()))).unwrap();
        let texts = texts_of(DEBIAN);
        let all: BTreeMap<_, _> = texts.iter().map(|text| (text.path.clone(), text.digest)).collect();
        let files = Files { below: all.clone(), all, texts, ..Files::default() };
        let coverage = coverage(&report(), &files, &Digest::of(b"image"), &mut database).unwrap();
        assert_eq!(coverage.unread, vec![]);
        assert_eq!(
            coverage.read[0],
            Read { kind: "debian".into(), place: "debian 12.11".into(), packages: 1, lock_file: false }
        );
        assert_eq!(coverage.read.len(), 2);
        assert_eq!(coverage.system.unwrap().release, "12.11");
    }

    #[test]
    fn a_lock_file_counts_as_read_only_when_the_report_names_it() {
        let lock = ("srv/Cargo.lock", "[[package]]\nname = \"zlib1g\"\nversion = \"\"\n");
        let gaps = |report: &Summary| gaps_of(report, &[DEBIAN, &[lock]].concat(), 0);
        assert_eq!(gaps(&report()), is("lock-file", "srv/Cargo.lock"));
        let mut read = report();
        read.results[2].class = "lang-pkgs".into();
        read.results[2].place = "srv/Cargo.lock".into();
        assert_eq!(gaps(&read), is("lock-file", "srv/Cargo.lock"), "a list of nothing");
        read.results[2].kind = "python-pkg".into();
        read.results[2].packages = read.results[0].packages.clone();
        assert_eq!(gaps(&read), vec![]);
        assert!(
            !is_telling("srv/node_modules/x/package-lock.json", false) && is_telling("srv/package-lock.json", false)
        );
        assert!(!is_telling("usr/share/nodejs/nanoid/pnpm-lock.yaml", false));
        assert!(
            is_telling("usr/share/nanoid/pnpm-lock.yaml", false)
                && is_telling("srv/usr/share/nodejs/x/yarn.lock", false)
        );
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
        assert!(is_telling(with_sums[2], false) && analyser_of(with_sums[2]).is_none());
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
        assert_eq!(gaps(&none, &[]), is("system-unknown", "debian 12.11"), "there are packages of a system");
        let python = Summary { results: none.results[1..].to_vec(), ..none };
        assert_eq!(gaps(&python, &[]), vec![], "an image without a system lacks none");
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

    #[test]
    fn tm04_a_product_that_adds_another_systems_files_to_a_base_is_a_gap() {
        assert_eq!(gaps_of(&report(), DEBIAN, 0), vec![]);
        let own = [DEBIAN, &[("srv/app/Cargo.toml", ""), ("etc/shop.conf", "")]].concat();
        assert!(!is_telling("srv/app/Cargo.toml", false) && !is_telling("etc/shop.conf", false));
        assert_eq!(gaps_of(&report(), &own, 2), vec![]);
        for path in [
            "etc/almalinux-release",
            "etc/azurelinux-release",
            "etc/lsb-release",
            "etc/other_version",
            "usr/lib/os-release",
            "usr/lib/system-release",
            "x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/os-release",
            "etc/apk/repositories",
            "usr/share/rpm/rpmdb.sqlite",
            "var/lib/ubuntu-advantage/status.json",
            "root/buildinfo/content_manifests/ubi.json",
            "usr/share/buildinfo/x.json",
            "usr/share/rapidfort/curated.json",
        ] {
            let with = [DEBIAN, &[(path, "")]].concat();
            assert!(is_telling(path, false), "{path}");
            let found = gaps_of(&report(), &with, 1);
            assert!(found.contains(&("records-rewritten".to_owned(), path.to_owned())), "{path}: {found:?}");
            // The same file, brought by the base itself, is no rewriting.
            let base = gaps_of(&report(), &with, 0);
            assert!(base.iter().all(|(kind, _)| kind != "records-rewritten"), "{path}: {base:?}");
        }
    }

    #[test]
    fn tm04_packages_that_the_reported_system_does_not_have_are_a_gap() {
        let contradicted = |family: &str, release: &str, analyser: &str| {
            let mut report = reported(family, release);
            report.results[0].packages[0].analyzed_by = analyser.into();
            let found = gaps(&report, &["etc/os-release"]);
            found.iter().any(|(kind, place)| kind == "system-contradicted" && *place == format!("{family} {release}"))
        };
        for (family, release, right) in [
            ("debian", "12.11", "dpkg"),
            ("ubuntu", "24.04", "dpkg"),
            ("alpine", "3.22.1", "apk"),
            ("wolfi", "20230201", "apk"),
            ("alma", "9.5", "rpm"),
            ("redhat", "9.5", "rpmqa"),
        ] {
            assert!(!contradicted(family, release, right), "{family} {right}");
            for wrong in
                ["dpkg", "apk", "rpm", ""].iter().filter(|wrong| !right.starts_with(*wrong) || wrong.is_empty())
            {
                assert!(contradicted(family, release, wrong), "{family} {wrong}");
            }
        }
    }

    #[test]
    fn tm04_a_reported_system_that_the_images_own_files_deny_is_a_gap() {
        let denied = |place: &str| ("system-contradicted".to_owned(), place.to_owned());
        // All from one layer, so that nothing is rewritten.
        let masked = [DEBIAN, &[("etc/almalinux-release", "AlmaLinux release 9.5 (Teal Serval)\n")]].concat();
        assert_eq!(gaps_of(&report(), &masked, 0), vec![denied("etc/almalinux-release")]);
        let other = gaps_of(&reported("ubuntu", "24.04"), DEBIAN, 0);
        assert!(other.contains(&denied("etc/os-release")), "{other:?}");
        assert_eq!(gaps_of(&report(), &[STATUS], 0), vec![denied("debian 12.11")], "no file says debian");
        // What a lower layer said and an upper one replaced does not count.
        let upgraded = [&[("etc/debian_version", "11.3\n")], DEBIAN].concat();
        assert_eq!(gaps_of(&report(), &upgraded, 0), vec![]);
    }

    #[test]
    fn tm04_repositories_of_another_alpine_release_are_a_gap_even_below_others() {
        let mut alpine = reported("alpine", "3.22.1");
        alpine.results[0].packages[0].analyzed_by = "apk".into();
        let old = ("etc/apk/repositories", "https://dl-cdn.alpinelinux.org/alpine/v3.19/main\n");
        let own = ("etc/apk/repositories", "https://dl-cdn.alpinelinux.org/alpine/v3.22/main\n");
        let mirror = ("etc/apk/repositories", "/srv/packages\n");
        let found = |repositories: &[(&str, &str)], above| {
            let base = [("lib/apk/db/installed", "P:musl\n"), ("etc/alpine-release", "3.22.1\n")];
            let mut found = gaps_of(&alpine, &[&base, repositories].concat(), above);
            // The test's database knows no Alpine.
            found.retain(|(kind, _)| kind != "system-not-in-database");
            found
        };
        let kinds = |kinds: &[&str]| kinds.iter().flat_map(|kind| is(kind, "etc/apk/repositories")).collect::<Vec<_>>();
        assert_eq!(found(&[own], 0), vec![]);
        assert_eq!(found(&[mirror], 0), vec![]);
        assert_eq!(found(&[old], 0), kinds(&["system-contradicted"]));
        assert_eq!(found(&[old, mirror], 0), kinds(&["system-contradicted"]), "Trivy still goes by the hidden one");
        assert_eq!(found(&[own, old], 1), kinds(&["records-rewritten", "system-contradicted"]));
        assert_eq!(found(&[own, mirror], 1), kinds(&["records-rewritten"]));
    }

    #[test]
    fn tm04_a_java_archive_in_which_nothing_was_recognised_is_a_gap() {
        let mut report = report();
        report.results[1].packages.extend(["srv/app.jar", "srv/fat.jar/BOOT-INF/lib/log.jar"].map(|path| {
            ListedPackage {
                name: "org.example:thing".into(),
                version: "1".into(),
                purl: None,
                licenses: Vec::new(),
                file: Some(path.into()),
                analyzed_by: "jar".into(),
                layer: Some("sha256:layer".into()),
            }
        }));
        let with = |path: &str| gaps(&report, &[WHOLE, &[path]].concat());
        assert_eq!(with("srv/app.jar"), vec![]);
        assert_eq!(with("srv/fat.jar"), vec![], "what is in it was read");
        for unread in ["srv/fat.ja.jar", "srv/app.jar.jar", "srv/other.jar", "a.jar", "srv/X.WAR", "srv/x.hpi", "z.ear"]
        {
            assert_eq!(with(unread), is("java-archive", unread));
        }
        // What was read in another layer is of an archive that was replaced, what an SBOM names is of whatever it says.
        let changed = |edit: &dyn Fn(&mut ListedPackage)| {
            let mut changed = report.clone();
            changed.results[1].packages.iter_mut().for_each(edit);
            gaps(&changed, &[WHOLE, &["srv/app.jar"]].concat())
        };
        assert_eq!(changed(&|_| {}), vec![]);
        assert_eq!(changed(&|package| package.layer = Some("sha256:other".into())), is("java-archive", "srv/app.jar"));
        assert_eq!(changed(&|package| package.analyzed_by = "sbom".into()), is("java-archive", "srv/app.jar"));
        let twice = [DEBIAN, &[("srv/app.jar", "PK"), ("srv/copy.jar", "PK"), ("srv/other.jar", "PK 2")]].concat();
        assert_eq!(gaps_of(&report, &twice, 0), is("java-archive", "srv/other.jar"));
    }

    #[test]
    fn tm04_a_product_that_brings_packages_of_the_system_in_an_sbom_is_a_gap() {
        let sbom = "opt/shop/shop.spdx.json";
        let with = [DEBIAN, &[(sbom, "{}")]].concat();
        assert_eq!(gaps_of(&report(), &with, 1), vec![], "an SBOM of other packages");
        let mut brought = report();
        let mut package = brought.results[0].packages[0].clone();
        package.analyzed_by = "sbom".into();
        brought.results[0].packages.push(package);
        assert_eq!(gaps_of(&brought, &with, 1), is("records-rewritten", sbom));
        assert_eq!(gaps_of(&brought, &with, 0), vec![], "the base's own");
    }
}
