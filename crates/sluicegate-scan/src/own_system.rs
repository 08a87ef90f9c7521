//! Which system an image is by its own files, to set beside what the scanner says.
//!
//! Trivy runs an analyser for each file of `TEXTS` and merges their answers over all layers in an order of its own: a file of
//! one system can win over those of another, and even over files that an upper layer took away. So each file is asked here by
//! itself, and one that says something else than the report is a reason not to believe the report. File names and formats are
//! those of Trivy 0.76 (`pkg/fanal/analyzer/os`, `…/repo`) and of os-release(5).

use sluicegate_ports::scan::System;
use sluicegate_types::Digest;

/// Bytes of one text; a longer one is not read, and says nothing that could be believed.
pub(crate) const TEXT_BYTES: u64 = 64 * 1024;

/// The package repositories of Alpine, whose release Trivy prefers to the system's own.
const REPOSITORIES: &str = "etc/apk/repositories";

/// The files by which Trivy recognises a system and its release.
const TEXTS: &[&str] = &[
    "etc/os-release",
    "usr/lib/os-release",
    "aarch64-bottlerocket-linux-gnu/sys-root/usr/lib/os-release",
    "x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/os-release",
    "etc/debian_version",
    "etc/lsb-release",
    "etc/alpine-release",
    "etc/redhat-release",
    "etc/almalinux-release",
    "etc/centos-release",
    "etc/fedora-release",
    "usr/lib/fedora-release",
    "etc/oracle-release",
    "etc/rocky-release",
    "etc/system-release",
    "usr/lib/system-release",
    REPOSITORIES,
];

/// A file of an image that says which system this is. Links are none: Trivy does not read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemText {
    /// Its path, such as `etc/os-release`.
    pub path: String,
    /// The digest of all of it.
    pub digest: Digest,
    /// Its bytes, or the first 64 KiB and one more of a longer file.
    pub bytes: Vec<u8>,
}

/// What a file says about the system that the scanner reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It says the same.
    Agrees,
    /// It says nothing of a family and release.
    Silent,
    /// It says something else: what, for a person.
    Contradicts(String),
}

/// Whether the content of a file is wanted.
pub(crate) fn is_text(path: &str) -> bool {
    TEXTS.contains(&path)
}

/// Whether a file names package repositories. Trivy keeps the newest version that names a release, though an upper layer hides it.
pub(crate) fn is_repositories(path: &str) -> bool {
    path == REPOSITORIES
}

/// What one file says about the reported system.
pub(crate) fn word_of(text: &SystemText, system: &System) -> Word {
    if text.bytes.len() as u64 > TEXT_BYTES {
        return Word::Contradicts(format!("it is longer than {TEXT_BYTES} bytes and is not read"));
    }
    let content = String::from_utf8_lossy(&text.bytes);
    let family = usual_name(&system.family);
    match text.path.as_str() {
        REPOSITORIES => repositories(&content, family, &system.release),
        "etc/debian_version" => match family {
            "debian" => compare(("debian", first_line(&content)), family, &system.release),
            // These are built from Debian and keep its file.
            "ubuntu" | "echo" => Word::Silent,
            _ => Word::Contradicts(says("debian", first_line(&content))),
        },
        "etc/alpine-release" => compare(("alpine", first_line(&content)), family, &system.release),
        "etc/lsb-release" => match value_of(&content, "DISTRIB_ID") {
            Some("Ubuntu") => {
                let release = value_of(&content, "DISTRIB_RELEASE").unwrap_or_default();
                compare(("ubuntu", release), family, &system.release)
            }
            _ => Word::Silent,
        },
        path if path.ends_with("/os-release") => os_release(&content, family, &system.release),
        path => named_release(path, &content, family, &system.release),
    }
}

/// The analysers that read the packages of a family; `None` for a family that this version does not know.
pub(crate) fn package_analysers(family: &str) -> Option<&'static [&'static str]> {
    Some(match usual_name(family) {
        "debian" | "ubuntu" | "echo" => &["dpkg"],
        "alpine" | "wolfi" | "chainguard" | "minimos" => &["apk"],
        "alma"
        | "amazon"
        | "azurelinux"
        | "cbl-mariner"
        | "centos"
        | "centos-stream"
        | "coreos"
        | "fedora"
        | "opensuse"
        | "opensuse-leap"
        | "opensuse-tumbleweed"
        | "oracle"
        | "photon"
        | "redhat"
        | "rocky"
        | "slem"
        | "sles" => &["rpm", "rpmqa", "rpm-archive"],
        "bottlerocket" => &["bottlerocket-inventory"],
        _ => return None,
    })
}

fn os_release(content: &str, family: &str, release: &str) -> Word {
    let Some(id) = value_of(content, "ID").filter(|id| !id.is_empty()) else {
        return Word::Silent;
    };
    let said = match id {
        "rhel" => "redhat",
        "almalinux" => "alma",
        "ol" => "oracle",
        "amzn" => "amazon",
        "mariner" => "cbl-mariner",
        "opensuse" => "opensuse-leap",
        "sle-micro" | "sl-micro" | "sle-micro-rancher" => "slem",
        "centos" if value_of(content, "NAME") == Some("CentOS Stream") => "centos-stream",
        other => other,
    };
    match value_of(content, "VERSION_ID").unwrap_or_default() {
        // Debian's testing release has no number, and another file says its name.
        "" if said == family => Word::Silent,
        version => compare((said, version), family, release),
    }
}

/// A file like `AlmaLinux release 9.5 (Teal Serval)`.
fn named_release(path: &str, content: &str, family: &str, release: &str) -> Word {
    let line = first_line(content);
    if line.starts_with("Amazon Linux") {
        let number = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        return compare(("amazon", number.unwrap_or_default()), family, release);
    }
    let Some((name, number)) = line.rsplit_once(" release ").filter(|(_, number)| number.starts_with(is_digit)) else {
        return Word::Silent;
    };
    let name = name.to_lowercase();
    let said = match name.as_str() {
        _ if path == "etc/oracle-release" => "oracle",
        "alma" | "almalinux" | "alma linux" => "alma",
        "centos" | "centos linux" => "centos",
        "centos stream" => "centos-stream",
        "fedora" | "fedora linux" => "fedora",
        "oracle" | "oracle linux" | "oracle linux server" => "oracle",
        "rocky" | "rocky linux" => "rocky",
        // Oracle Linux keeps Red Hat's file as it is.
        name if name.starts_with("red hat") && family == "oracle" && path == "etc/redhat-release" => {
            return Word::Silent;
        }
        name if name.starts_with("red hat") => "redhat",
        other => other,
    };
    compare((said, number), family, release)
}

/// Each address of Alpine's repositories must name the reported release: Trivy takes the newest of them, or `edge`.
fn repositories(content: &str, family: &str, release: &str) -> Word {
    if family != "alpine" {
        return Word::Silent;
    }
    let mut word = Word::Silent;
    for address in content.lines().flat_map(|line| line.split("://").skip(1)) {
        let mut parts = address.split('/').skip(1);
        let (Some("alpine"), Some(branch), Some(_)) = (parts.next(), parts.next(), parts.next()) else { continue };
        match compare(("alpine", branch), family, release) {
            Word::Agrees => word = Word::Agrees,
            other => return other,
        }
    }
    word
}

fn compare((said, said_release): (&str, &str), family: &str, release: &str) -> Word {
    if said == family && same_release(family, said_release, release) {
        return Word::Agrees;
    }
    Word::Contradicts(says(said, said_release))
}

fn says(family: &str, release: &str) -> String {
    let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect::<String>();
    format!("it says {:?}", format!("{} {}", plain(family), plain(release)))
}

/// Whether two releases have the same advisories: by as many of their numbers as the family has releases by.
fn same_release(family: &str, one: &str, other: &str) -> bool {
    let numbers = match family {
        "wolfi" | "chainguard" | "minimos" | "echo" | "opensuse-tumbleweed" => return true,
        "alpine" | "ubuntu" | "azurelinux" | "cbl-mariner" | "photon" | "opensuse-leap" | "sles" | "slem"
        | "bottlerocket" => 2,
        _ => 1,
    };
    let parts = |release: &str| -> Vec<String> {
        let word = release.split_whitespace().next().unwrap_or_default();
        word.trim_start_matches('v').split('.').take(numbers).map(str::to_owned).collect()
    };
    !one.trim().is_empty() && parts(one) == parts(other)
}

/// The old names that Trivy still takes.
fn usual_name(family: &str) -> &str {
    match family {
        "opensuse.leap" => "opensuse-leap",
        "opensuse.tumbleweed" => "opensuse-tumbleweed",
        "suse linux enterprise micro" => "slem",
        "suse linux enterprise server" => "sles",
        "amazon linux" => "amazon",
        "debian gnu/linux" => "debian",
        other => other,
    }
}

/// The last value of a key, without its quotes.
fn value_of<'a>(content: &'a str, key: &str) -> Option<&'a str> {
    let mut values = content.lines().filter_map(|line| line.split_once('='));
    let value = values.rfind(|(name, _)| name.trim() == key);
    value.map(|(_, value)| value.trim().trim_matches(['"', '\'', '`']))
}

fn first_line(content: &str) -> &str {
    content.lines().next().unwrap_or_default().trim()
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advisory_buckets::of_system;

    fn word(path: &str, content: &str, family: &str, release: &str) -> Word {
        assert!(is_text(path), "{path}");
        let text = SystemText { path: path.into(), digest: Digest::of(b""), bytes: content.into() };
        word_of(&text, &System { family: family.into(), release: release.into(), ended: false })
    }

    #[test]
    fn files_of_real_systems_agree_with_what_trivy_calls_them() {
        for (path, content, family, release) in [
            ("etc/debian_version", "12.11\n", "debian", "12.11"),
            ("etc/os-release", "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n", "debian", "12.11"),
            ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\n", "ubuntu", "24.04"),
            ("usr/lib/os-release", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", "ubuntu", "24.04"),
            ("etc/alpine-release", "3.22.1\n", "alpine", "3.22.1"),
            ("etc/apk/repositories", "https://dl-cdn.alpinelinux.org/alpine/v3.22/main\n", "alpine", "3.22.1"),
            ("etc/os-release", "ID=wolfi\nVERSION_ID=20230201\n", "wolfi", "20230201"),
            ("etc/almalinux-release", "AlmaLinux release 9.5 (Teal Serval)\n", "alma", "9.5"),
            ("etc/redhat-release", "Rocky Linux release 9.4 (Blue Onyx)\n", "rocky", "9.4"),
            ("etc/oracle-release", "Oracle Linux Server release 9.4\n", "oracle", "9.4"),
            ("etc/redhat-release", "Red Hat Enterprise Linux release 9.4 (Plow)\n", "redhat", "9.4"),
            ("etc/redhat-release", "Red Hat Enterprise Linux Server release 7.9 (Maipo)\n", "redhat", "7.9"),
            ("etc/os-release", "ID=\"rhel\"\nVERSION_ID=\"9.4\"\n", "redhat", "9.4"),
            ("etc/os-release", "ID=\"centos\"\nVERSION_ID=\"7\"\n", "centos", "7.9.2009"),
            ("etc/os-release", "NAME=\"CentOS Stream\"\nID=\"centos\"\nVERSION_ID=\"9\"\n", "centos-stream", "9"),
            ("etc/system-release", "Amazon Linux release 2 (Karoo)\n", "amazon", "2 (Karoo)"),
            ("etc/os-release", "ID=\"amzn\"\nVERSION_ID=\"2023\"\n", "amazon", "2023.5.20240701 (Amazon Linux)"),
            ("etc/os-release", "ID=\"sles\"\nVERSION_ID=\"15.5\"\n", "suse linux enterprise server", "15.5"),
            ("etc/os-release", "ID=mariner\nVERSION_ID=\"2.0\"\n", "cbl-mariner", "2.0.20240101"),
        ] {
            assert_eq!(word(path, content, family, release), Word::Agrees, "{path} {content}");
        }
        for (path, content, family, release) in [
            ("etc/debian_version", "trixie/sid\n", "ubuntu", "24.04"),
            ("etc/redhat-release", "Red Hat Enterprise Linux release 9.4 (Plow)\n", "oracle", "9.4"),
            ("etc/os-release", "ID=debian\n", "debian", "trixie/sid"),
            ("etc/os-release", "PRETTY_NAME=x\n", "debian", "12"),
            ("etc/lsb-release", "DISTRIB_ID=\"VMware Photon OS\"\nDISTRIB_RELEASE=5.0\n", "photon", "5.0"),
            ("etc/apk/repositories", "https://packages.wolfi.dev/os\n", "wolfi", "20230201"),
        ] {
            assert_eq!(word(path, content, family, release), Word::Silent, "{path} {content}");
        }
    }

    #[test]
    fn tm04_a_file_of_another_system_or_release_contradicts_the_report() {
        for (path, content, family, release) in [
            ("etc/almalinux-release", "AlmaLinux release 9.5 (Teal Serval)\n", "debian", "12.11"),
            ("etc/debian_version", "12.11\n", "alma", "9.5"),
            ("etc/debian_version", "11.3\n", "debian", "12.11"),
            ("etc/debian_version", "", "debian", "12.11"),
            ("etc/os-release", "ID=debian\nVERSION_ID=12\n", "ubuntu", "24.04"),
            ("etc/os-release", "ID=debian\n", "alma", "9.5"),
            ("etc/os-release", "ID=debian\nVERSION_ID=13\n", "debian", "12.11"),
            ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\n", "debian", "12.11"),
            ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\n", "ubuntu", "24.10"),
            ("etc/alpine-release", "3.22.1\n", "alpine", "3.19.1"),
            ("etc/redhat-release", "Red Hat Enterprise Linux release 9.4 (Plow)\n", "rocky", "9.4"),
            ("etc/redhat-release", "Some Linux release 9.4\n", "redhat", "9.4"),
            ("etc/apk/repositories", "https://dl-cdn.alpinelinux.org/alpine/v3.19/main\n", "alpine", "3.22.1"),
            ("etc/apk/repositories", "@edge http://a/alpine/edge/testing\n", "alpine", "3.22.1"),
            ("etc/apk/repositories", "http://a/alpine/v3.22/main\n#http://b/alpine/v3.23/main", "alpine", "3.22.1"),
        ] {
            assert!(matches!(word(path, content, family, release), Word::Contradicts(_)), "{path} {content}");
        }
        let long = format!("12.11\n{}", " ".repeat(TEXT_BYTES as usize));
        assert!(matches!(word("etc/debian_version", &long, "debian", "12.11"), Word::Contradicts(_)));
    }

    #[test]
    fn each_family_that_the_database_names_has_an_analyser_of_its_packages() {
        for family in [
            "debian",
            "ubuntu",
            "alpine",
            "alma",
            "rocky",
            "oracle",
            "amazon",
            "photon",
            "azurelinux",
            "cbl-mariner",
            "opensuse-leap",
            "opensuse.leap",
            "opensuse-tumbleweed",
            "opensuse.tumbleweed",
            "sles",
            "suse linux enterprise server",
            "redhat",
            "centos",
            "wolfi",
            "chainguard",
        ] {
            assert!(of_system(&System { family: family.into(), release: "1.2".into(), ended: false }).is_some());
            assert!(package_analysers(family).is_some(), "{family}");
        }
        assert_eq!(package_analysers("haiku"), None);
    }
}
