//! Makes a small vulnerability database of real advisories, in the form in which Trivy reads one: `trivy.db` and `metadata.json`.
//!
//! Bucket names and values are those of Trivy's database schema, version 2.

use std::fs;
use std::io;
use std::path::Path;

use crate::advisories::{self, Advisory, Affected};
use crate::bolt_file::{BoltError, Bucket};
use crate::calendar;
use crate::checksum;
use crate::json::Json;

const ADVISORIES: &str = include_str!("../../../fixtures/advisories/advisories.txt");
const SCHEMA: &str = "2";
const DAY: u64 = 86_400;
/// Trivy's number for "will not be fixed", used only where no fixed version stands.
const WILL_NOT_FIX: &str = "5";

/// Writes `trivy.db` and `metadata.json` into `dir`, which is made if it is missing. `updated_at`, in Unix seconds, is the moment that the
/// database says its makers updated it; the same moment gives the same bytes.
pub fn write(dir: &Path, updated_at: u64) -> io::Result<()> {
    let advisories = advisories::parse(ADVISORIES).map_err(io::Error::other)?;
    let database = tree(&advisories).and_then(|root| root.file_bytes()).map_err(io::Error::other)?;
    let moment = |seconds| Json::text(calendar::to_rfc3339(seconds));
    let metadata = Json::object([
        ("Version", Json::Number(SCHEMA.to_owned())),
        ("NextUpdate", moment(updated_at.saturating_add(DAY))),
        ("UpdatedAt", moment(updated_at)),
        ("DownloadedAt", moment(updated_at)),
    ]);
    fs::create_dir_all(dir)?;
    fs::write(dir.join("trivy.db"), database)?;
    fs::write(dir.join("metadata.json"), metadata.to_string())
}

/// The digest of a database as the gateway file pins it, `sha256:` and 64 hexadecimal digits: SHA-256 over what
/// `sha256sum metadata.json trivy.db` prints in `dir`.
pub fn digest(dir: &Path) -> io::Result<String> {
    let lines = format!(
        "{}  metadata.json\n{}  trivy.db\n",
        checksum::sha256_of_file(&dir.join("metadata.json"))?,
        checksum::sha256_of_file(&dir.join("trivy.db"))?
    );
    Ok(format!("sha256:{}", checksum::sha256_of_bytes(lines.as_bytes())?))
}

fn tree(advisories: &[Advisory]) -> Result<Bucket, BoltError> {
    let mut root = Bucket::default();
    for advisory in advisories {
        root.bucket("vulnerability")?.put(&advisory.id, details(advisory).to_string())?;
        for affected in &advisory.affects {
            let (bucket, package, source, entry) = place(advisory, affected);
            root.bucket("data-source")?.put(&bucket, source.to_string())?;
            root.bucket(&bucket)?.bucket(package)?.put(&advisory.id, entry.to_string())?;
        }
    }
    Ok(root)
}

/// Bucket, package, the bucket's data source and the entry.
fn place<'a>(advisory: &Advisory, affected: &'a Affected) -> (String, &'a str, Json, Json) {
    match affected {
        Affected::Library { ecosystem, package, ranges, fixed } => {
            let name = format!("GitHub Security Advisory {ecosystem}");
            let source = Json::object([
                ("ID", Json::text("ghsa")),
                ("Name", Json::text(&name)),
                (
                    "URL",
                    Json::text(format!("https://github.com/advisories?query=type%3Areviewed+ecosystem%3A{ecosystem}")),
                ),
            ]);
            // Trivy's own separator between the conditions of one range is a comma.
            let ranges = ranges.iter().map(|range| Json::text(range.split_whitespace().collect::<Vec<_>>().join(", ")));
            let entry = Json::object([
                ("VendorIDs", Json::List(advisory.also.iter().map(Json::text).collect())),
                ("PatchedVersions", Json::List(fixed.iter().map(Json::text).collect())),
                ("VulnerableVersions", Json::List(ranges.collect())),
            ]);
            (format!("{ecosystem}::{name}"), package, source, entry)
        }
        Affected::Distribution { release, package, fixed, notice } => {
            let (id, name, url) = if release.starts_with("ubuntu") {
                ("ubuntu", "Ubuntu CVE Tracker", "https://git.launchpad.net/ubuntu-cve-tracker")
            } else {
                let tracker = "https://salsa.debian.org/security-tracker-team/security-tracker";
                ("debian", "Debian Security Tracker", tracker)
            };
            let source = Json::object([("ID", Json::text(id)), ("Name", Json::text(name)), ("URL", Json::text(url))]);
            let entry = match fixed {
                Some(version) => Json::object([
                    ("VendorIDs", Json::List(notice.iter().map(Json::text).collect())),
                    ("FixedVersion", Json::text(version)),
                ]),
                None => Json::object([("Status", Json::Number(WILL_NOT_FIX.to_owned()))]),
            };
            (release.clone(), package, source, entry)
        }
    }
}

fn details(advisory: &Advisory) -> Json {
    let vendor = if advisory.also.is_some() { "ghsa" } else { "nvd" };
    let mut fields = vec![
        ("Title".to_owned(), Json::text(&advisory.title)),
        ("Severity".to_owned(), Json::text(advisory.severity.word())),
        ("VendorSeverity".to_owned(), Json::object([(vendor, Json::Number(advisory.severity.number().to_string()))])),
        (
            "References".to_owned(),
            Json::List(advisory.source.split("; ").filter(|s| s.starts_with("https://")).map(first_word).collect()),
        ),
        ("PublishedDate".to_owned(), Json::text(&advisory.published)),
    ];
    if let Some((score, vector)) = &advisory.cvss {
        let scored = Json::object([("V3Vector", Json::text(vector)), ("V3Score", Json::Number(score.clone()))]);
        fields.push(("CVSS".to_owned(), Json::object([(vendor, scored)])));
    }
    Json::Object(fields)
}

fn first_word(text: &str) -> Json {
    Json::text(text.split(' ').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_advisories_cover_what_the_demo_needs() {
        let advisories = advisories::parse(ADVISORIES).unwrap();
        let releases: std::collections::BTreeSet<_> =
            advisories.iter().flat_map(|a| a.affects.iter().map(|affected| place(a, affected).0)).collect();
        assert_eq!(
            releases.iter().map(String::as_str).collect::<Vec<_>>(),
            [
                "debian 11",
                "debian 12",
                "debian 13",
                "npm::GitHub Security Advisory npm",
                "pip::GitHub Security Advisory pip",
                "ubuntu 22.04",
                "ubuntu 24.04"
            ]
        );
        // The demo's gate denies what is critical and has a fix; of these advisories that is h11 alone.
        let blocking: Vec<_> = advisories
            .iter()
            .filter(|a| a.severity == advisories::Severity::Critical)
            .flat_map(|a| &a.affects)
            .filter(|affected| !matches!(affected, Affected::Distribution { fixed: None, .. }))
            .collect();
        assert!(matches!(blocking[..], [Affected::Library { package, .. }] if package == "h11"), "{blocking:?}");
    }

    #[test]
    fn the_same_moment_gives_the_same_digest_and_another_moment_another() {
        let dir = std::env::temp_dir().join(format!("xtask-advisory-db-{}", std::process::id()));
        let digest_at = |updated_at| {
            write(&dir, updated_at).unwrap();
            digest(&dir).unwrap()
        };
        let first = digest_at(1_800_000_000);
        assert_eq!(first, digest_at(1_800_000_000));
        assert_ne!(first, digest_at(1_800_000_001));
        assert_eq!(first.len(), "sha256:".len() + 64);
        let metadata = fs::read_to_string(dir.join("metadata.json")).unwrap();
        let metadata = Json::parse(&metadata).unwrap();
        assert_eq!(metadata.get("UpdatedAt").as_text(), Some("2027-01-15T08:00:01Z"));
        assert_eq!(metadata.get("NextUpdate").as_text(), Some("2027-01-16T08:00:01Z"));
        fs::remove_dir_all(&dir).unwrap();
        assert!(digest(&dir).is_err());
    }
}
