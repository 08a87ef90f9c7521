//! Trivy's own JSON report (schema version 2): bytes to the facts of DESIGN section 5. Nothing is verified here.
//!
//! Reading is strict where silence would look like health: another schema version, a report that hides findings and a finding
//! without an id are errors. Unknown keys are left alone, for Trivy adds some with every release.

use serde::{Deserialize, Serialize};
use sluicegate_types::UnixTime;

/// How deep a document may be nested (DESIGN section 7).
const DEPTH: usize = 128;
/// How many findings one report may hold.
const FINDINGS: usize = 200_000;
/// How many results (package lists) one report may hold.
const RESULTS: usize = 100_000;

/// What Trivy calls a folder that it looked at.
const FOLDER: &str = "filesystem";
/// The key of the report about lock files.
const LOCK_FILES: &str = "SluicegateLockFiles";

/// One vulnerability in one package at one place; keyed by `id`, `purl` and `place` (trust model 17).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// The advisory's name, such as `CVE-2026-0001`.
    pub id: String,
    /// The same advisory under the names of others (`GHSA-…`, `DSA-…`), sorted, without `id`.
    pub aliases: Vec<String>,
    /// `UNKNOWN`, `LOW`, `MEDIUM`, `HIGH` or `CRITICAL`, in capitals as the scanner rates it; `UNKNOWN` where it does not.
    pub severity: String,
    /// The package's name.
    pub package: String,
    /// The package URL; where the scanner gives none, `pkg:generic/NAME@VERSION`, so that the key is never empty.
    pub purl: String,
    /// The file inside the image that shows the package, or the package list's name; never a path of the scanning machine.
    pub place: String,
    /// The installed version.
    pub installed: String,
    /// The versions that fix it, as the scanner writes them; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// When the advisory was published (RFC 3339), as the scanner's database says; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// `affected`, `fixed`, `will_not_fix`, …; `unknown` where the scanner says nothing.
    pub status: String,
    /// The highest CVSS base score (version 4 or 3, else 2) that any source gives, 0 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Whether a lock file names the package: then it may be installed, and nothing says that it is. Written where it is so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lock_file: bool,
}

/// What a report is about and which package lists it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The version Trivy says it has.
    pub version: String,
    /// What was scanned: `container_image` for an image.
    pub artifact_type: String,
    /// The image's id: the digest of its configuration. Empty for anything but an image.
    pub image_id: String,
    /// The digests of the image's uncompressed layers, lowest first.
    pub diff_ids: Vec<String>,
    /// The operating system, if Trivy recognised one; its word `none` is no system.
    pub system: Option<ReportedSystem>,
    /// The package lists, in Trivy's order.
    pub results: Vec<PackageList>,
}

/// An operating system as Trivy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedSystem {
    /// Its family: `debian`.
    pub family: String,
    /// Its release: `12.11`; empty where Trivy could not tell.
    pub release: String,
    /// Whether its support has ended by the scanner's own table and clock.
    pub ended: bool,
}

/// A package list that Trivy read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageList {
    /// `os-pkgs` or `lang-pkgs`.
    pub class: String,
    /// `debian`, `python-pkg`, `cargo`, …
    pub kind: String,
    /// Its name or its path in the image; never a path of the scanning machine.
    pub place: String,
    /// Its packages.
    pub packages: Vec<ListedPackage>,
    /// Whether it is a lock file, which says what may be installed.
    pub lock_file: bool,
}

/// A package of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPackage {
    /// Its name.
    pub name: String,
    /// Its whole version, `[epoch:]version[-release]`; empty where the scanner gives none.
    pub version: String,
    /// Its package URL, if the scanner gives one.
    pub purl: Option<String>,
    /// Names of licences, as the scanner writes them; whole texts of licences are left out.
    pub licenses: Vec<String>,
    /// The file that shows it, where each package has one of its own.
    pub file: Option<String>,
    /// The analyser that read it: `dpkg`, `apk`, `rpm`, …; empty where Trivy does not say.
    pub analyzed_by: String,
    /// The digest of the uncompressed layer that it was read in, if Trivy says one.
    pub layer: Option<String>,
}

/// Why bytes are not a report this version can read.
#[derive(Debug, thiserror::Error)]
pub enum TrivyReportError {
    /// Not JSON, or JSON of another shape.
    #[error("not a Trivy JSON report: {0}")]
    Syntax(String),
    /// Nested too deep.
    #[error("not a Trivy JSON report: nested deeper than {DEPTH}")]
    Depth,
    /// Another schema.
    #[error("Trivy report of schema version {found}: this version reads schema version 2")]
    Schema {
        /// What it says.
        found: u64,
    },
    /// The report was made with `--vex` or an ignore file; facts are taken only from raw findings.
    #[error("Trivy left findings out of {target} (a VEX file or an ignore list was used): scan again without one")]
    Suppressed {
        /// Of which package list.
        target: String,
    },
    /// More than this version takes.
    #[error("Trivy report with more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A finding that names nothing.
    #[error("Trivy report: a finding in {target} has no {field}")]
    Missing {
        /// In which package list.
        target: String,
        /// What it lacks.
        field: &'static str,
    },
}

/// The findings of a report, sorted by id, purl and place; the same report always gives the same list. An empty list means that
/// Trivy named none, which says nothing about what it could read: [`summary`] does.
pub fn findings(raw: &[u8]) -> Result<Vec<Finding>, TrivyReportError> {
    findings_up_to(raw, FINDINGS)
}

/// A report about an image with the one about its lock files inside, as the last key of the document: each is there byte for byte as
/// Trivy wrote it, and whoever reads the first still can. The second is of what `trivy fs` says of a folder with nothing else in it.
pub fn with_lock_files(raw: &[u8], lock_files: &[u8]) -> Result<Vec<u8>, TrivyReportError> {
    let (image, locks) = (parse(raw)?, parse(lock_files)?);
    if image.lock_files.is_some() || locks.lock_files.is_some() {
        return Err(TrivyReportError::Syntax("a report in a report already".to_owned()));
    }
    if locks.artifact_type != FOLDER || locks.trivy.version != image.trivy.version {
        return Err(TrivyReportError::Syntax("the report about lock files is not one by the same Trivy".to_owned()));
    }
    let end = raw.trim_ascii_end().strip_suffix(b"}").unwrap_or_default();
    let whole = [end, b",\"", LOCK_FILES.as_bytes(), b"\":", lock_files.trim_ascii(), b"}\n"].concat();
    parse(&whole)?;
    Ok(whole)
}

/// What a report is about and which package lists it rests on; those of its lock files come last.
pub fn summary(raw: &[u8]) -> Result<Summary, TrivyReportError> {
    let mut report = parse(raw)?;
    let of_lock_files = report.lock_files.take();
    let name = report.artifact_name;
    let metadata = report.metadata.unwrap_or_default();
    let system = metadata.os.filter(|os| !os.family.is_empty() && os.family != "none").map(|os| ReportedSystem {
        family: os.family,
        release: os.name,
        ended: os.eosl,
    });
    let list = |result: RawResult, lock_file| PackageList {
        place: place_of(&result.target, &name),
        class: result.class,
        kind: result.kind,
        packages: result.packages.unwrap_or_default().into_iter().map(ListedPackage::from).collect(),
        lock_file,
    };
    let results = report.results.unwrap_or_default().into_iter().map(|result| list(result, false));
    let of_lock_files = of_lock_files.into_iter().flat_map(|report| report.results.unwrap_or_default());
    let results = results.chain(of_lock_files.map(|result| list(result, true)));
    Ok(Summary {
        version: report.trivy.version,
        artifact_type: report.artifact_type,
        image_id: metadata.image_id,
        diff_ids: metadata.diff_ids.unwrap_or_default(),
        system,
        results: results.collect(),
    })
}

/// Whether JSON text is nested at most `limit` deep; counts brackets outside strings, so it needs no stack of its own.
pub(crate) fn within_depth(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

fn findings_up_to(raw: &[u8], limit: usize) -> Result<Vec<Finding>, TrivyReportError> {
    let mut report = parse(raw)?;
    let of_lock_files = report.lock_files.take();
    let reports = std::iter::once((report, false)).chain(of_lock_files.map(|report| (*report, true)));
    let mut out = Vec::new();
    for (report, lock_file) in reports {
        for result in report.results.unwrap_or_default() {
            let place = place_of(&result.target, &report.artifact_name);
            for vulnerability in result.vulnerabilities.unwrap_or_default() {
                if out.len() == limit {
                    return Err(TrivyReportError::TooMany { what: "findings", limit });
                }
                out.push(Finding { lock_file, ..finding(vulnerability, &place)? });
            }
        }
    }
    out.sort_by(|a, b| (&a.id, &a.purl, &a.place, &a.package).cmp(&(&b.id, &b.purl, &b.place, &b.package)));
    Ok(out)
}

fn parse(raw: &[u8]) -> Result<RawReport, TrivyReportError> {
    if !within_depth(raw, DEPTH) {
        return Err(TrivyReportError::Depth);
    }
    let report: RawReport = serde_json::from_slice(raw).map_err(|error| TrivyReportError::Syntax(error.to_string()))?;
    if report.lock_files.as_ref().is_some_and(|inner| inner.lock_files.is_some()) {
        return Err(TrivyReportError::Syntax("a report about lock files with another one inside".to_owned()));
    }
    report.lock_files.as_deref().map_or(Ok(()), check)?;
    check(&report)?;
    Ok(report)
}

fn check(report: &RawReport) -> Result<(), TrivyReportError> {
    if report.schema_version != 2 {
        return Err(TrivyReportError::Schema { found: report.schema_version });
    }
    let results = report.results.as_deref().unwrap_or_default();
    if results.len() > RESULTS {
        return Err(TrivyReportError::TooMany { what: "results", limit: RESULTS });
    }
    match results.iter().find(|result| result.modified.as_ref().is_some_and(|hidden| !hidden.is_empty())) {
        Some(result) => Err(TrivyReportError::Suppressed { target: result.target.clone() }),
        None => Ok(()),
    }
}

fn finding(raw: RawVulnerability, place: &str) -> Result<Finding, TrivyReportError> {
    for (value, field) in [(&raw.id, "VulnerabilityID"), (&raw.package, "PkgName")] {
        if value.is_empty() {
            return Err(TrivyReportError::Missing { target: place.to_owned(), field });
        }
    }
    let purl = raw.identifier.and_then(|identifier| identifier.purl).filter(|purl| !purl.is_empty());
    let mut aliases = raw.vendor_ids.unwrap_or_default();
    aliases.retain(|alias| !alias.is_empty() && *alias != raw.id);
    aliases.sort_unstable();
    aliases.dedup();
    Ok(Finding {
        aliases,
        severity: non_empty(raw.severity.to_uppercase()).unwrap_or_else(|| "UNKNOWN".to_owned()),
        purl: purl.unwrap_or_else(|| format!("pkg:generic/{}@{}", escaped(&raw.package), escaped(&raw.installed))),
        place: non_empty(raw.path).unwrap_or_else(|| place.to_owned()),
        fixed: non_empty(raw.fixed),
        published: raw.published.and_then(|text| text.parse().ok()).map(|moment: UnixTime| moment.to_string()),
        status: non_empty(raw.status).unwrap_or_else(|| "unknown".to_owned()),
        score: highest_score(raw.cvss.unwrap_or_default().into_values()),
        id: raw.id,
        package: raw.package,
        installed: raw.installed,
        lock_file: false,
    })
}

/// Trivy writes an operating system's list as `WHERE (debian 12.11)`, where WHERE is a path of the scanning machine; the same
/// list scanned elsewhere must have the same name.
fn place_of(target: &str, artifact: &str) -> String {
    let inner =
        target.strip_prefix(artifact).and_then(|rest| rest.strip_prefix(" (")).and_then(|rest| rest.strip_suffix(')'));
    inner.unwrap_or(target).to_owned()
}

/// The newer scales come before version 2, which rates the same flaw otherwise; of several sources the highest counts.
fn highest_score(scores: impl Iterator<Item = RawCvss>) -> Option<f64> {
    let (mut modern, mut old) = (None::<f64>, None::<f64>);
    let higher =
        |best: Option<f64>, score: Option<f64>| match (best, score.filter(|score| (0.0..=10.0).contains(score))) {
            (Some(best), Some(score)) => Some(best.max(score)),
            (best, score) => best.or(score),
        };
    for cvss in scores {
        modern = higher(higher(modern, cvss.v3), cvss.v40);
        old = higher(old, cvss.v2);
    }
    modern.or(old)
}

/// Trivy splits the versions of a system's packages (Debian policy 5.6.12; RPM likewise).
fn whole_version(epoch: i64, version: String, release: &str) -> String {
    let epoch = if epoch == 0 { String::new() } else { format!("{epoch}:") };
    let release = if release.is_empty() { String::new() } else { format!("-{release}") };
    epoch + &version + &release
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Percent-encoding of a package URL's parts (purl specification, "character encoding").
fn escaped(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl From<RawPackage> for ListedPackage {
    fn from(raw: RawPackage) -> Self {
        let mut licenses = raw.licenses.unwrap_or_default();
        licenses.retain(|license| !license.is_empty() && !license.starts_with("text://"));
        Self {
            name: raw.name,
            version: whole_version(raw.epoch, raw.version, &raw.release),
            purl: raw.identifier.and_then(|identifier| identifier.purl).and_then(non_empty),
            licenses,
            file: non_empty(raw.file_path),
            analyzed_by: raw.analyzed_by,
            layer: raw.layer.and_then(|layer| non_empty(layer.diff_id)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawReport {
    schema_version: u64,
    #[serde(default)]
    trivy: RawTool,
    #[serde(default)]
    artifact_name: String,
    #[serde(default)]
    artifact_type: String,
    metadata: Option<RawMetadata>,
    results: Option<Vec<RawResult>>,
    #[serde(rename = "SluicegateLockFiles")]
    lock_files: Option<Box<Self>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawTool {
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawMetadata {
    #[serde(rename = "OS")]
    os: Option<RawSystem>,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(rename = "DiffIDs")]
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawSystem {
    #[serde(default)]
    family: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "EOSL")]
    eosl: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawResult {
    #[serde(default)]
    target: String,
    #[serde(default)]
    class: String,
    #[serde(default, rename = "Type")]
    kind: String,
    packages: Option<Vec<RawPackage>>,
    vulnerabilities: Option<Vec<RawVulnerability>>,
    #[serde(rename = "ExperimentalModifiedFindings")]
    modified: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawPackage {
    name: String,
    /// RPM writes any 32 bits here, negative numbers, too.
    epoch: i64,
    version: String,
    release: String,
    identifier: Option<RawIdentifier>,
    licenses: Option<Vec<String>>,
    file_path: String,
    analyzed_by: String,
    layer: Option<RawLayer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawLayer {
    #[serde(rename = "DiffID")]
    diff_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawVulnerability {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(rename = "VendorIDs")]
    vendor_ids: Option<Vec<String>>,
    #[serde(rename = "PkgName")]
    package: String,
    #[serde(rename = "PkgPath")]
    path: String,
    #[serde(rename = "PkgIdentifier")]
    identifier: Option<RawIdentifier>,
    #[serde(rename = "InstalledVersion")]
    installed: String,
    #[serde(rename = "FixedVersion")]
    fixed: String,
    #[serde(rename = "PublishedDate")]
    published: Option<String>,
    status: String,
    severity: String,
    #[serde(rename = "CVSS")]
    cvss: Option<std::collections::BTreeMap<String, RawCvss>>,
}

#[derive(Deserialize)]
struct RawIdentifier {
    #[serde(rename = "PURL")]
    purl: Option<String>,
}

#[derive(Deserialize)]
struct RawCvss {
    #[serde(rename = "V2Score")]
    v2: Option<f64>,
    #[serde(rename = "V3Score")]
    v3: Option<f64>,
    #[serde(rename = "V40Score")]
    v40: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
      "SchemaVersion": 2, "Trivy": {"Version": "0.76.0"}, "ArtifactName": "/image@sha256:00", "ArtifactType": "container_image",
      "Metadata": {"OS": {"Family": "debian", "Name": "12.11"}, "ImageID": "sha256:aa", "DiffIDs": ["sha256:bb"]},
      "Results": [
        {"Target": "/image@sha256:00 (debian 12.11)", "Class": "os-pkgs", "Type": "debian",
         "Packages": [{"Name": "zlib1g", "Epoch": 1, "Version": "1.2.13.dfsg", "Release": "1", "AnalyzedBy": "dpkg"}, {"Name": "bare"}, {"Name": "odd", "Epoch": -1, "Version": "2"}],
         "Vulnerabilities": [{"VulnerabilityID": "CVE-2099-0001", "PublishedDate": "2026-01-02T03:04:05.678Z", "PkgName": "zlib1g", "VendorIDs": ["DSA-9-1", "DSA-9-1", "CVE-2099-0001"],
           "PkgIdentifier": {"PURL": "pkg:deb/debian/zlib1g@1"}, "InstalledVersion": "1", "FixedVersion": "2", "Status": "fixed",
           "Severity": "critical", "CVSS": {"nvd": {"V2Score": 10, "V3Score": 7.5}, "ghsa": {"V40Score": 9.1}}}]},
        {"Target": "Python", "Class": "lang-pkgs", "Type": "python-pkg",
         "Packages": [{"Name": "h11", "Version": "0.14.0", "Identifier": {"PURL": "pkg:pypi/h11@0.14.0", "UID": "1"},
           "Licenses": ["MIT", "text://all of it"], "FilePath": "srv/h11.dist-info/METADATA"}],
         "Vulnerabilities": [{"VulnerabilityID": "CVE-2025-43859", "PkgName": "h 11", "PkgPath": "srv/h11.dist-info/METADATA",
           "InstalledVersion": "0.14.0+x"}]}
      ]}"#;

    #[test]
    fn findings_carry_every_fact_a_policy_reads() {
        let found = findings(REPORT.as_bytes()).unwrap();
        assert_eq!(
            found[1],
            Finding {
                id: "CVE-2099-0001".into(),
                aliases: vec!["DSA-9-1".into()],
                severity: "CRITICAL".into(),
                package: "zlib1g".into(),
                purl: "pkg:deb/debian/zlib1g@1".into(),
                place: "debian 12.11".into(),
                installed: "1".into(),
                fixed: Some("2".into()),
                published: Some("2026-01-02T03:04:05Z".into()),
                status: "fixed".into(),
                score: Some(9.1),
                lock_file: false,
            }
        );
        assert_eq!(found[0].purl, "pkg:generic/h%2011@0.14.0%2Bx");
        assert_eq!(found[0].place, "srv/h11.dist-info/METADATA");
        assert_eq!(
            (found[0].severity.as_str(), found[0].status.as_str(), found[0].score),
            ("UNKNOWN", "unknown", None)
        );
        let written = serde_json::to_string(&found[0]).unwrap();
        assert!(!written.contains("fixed\":"), "{written}");
        assert_eq!(serde_json::from_str::<Finding>(&written).unwrap(), found[0]);
    }

    #[test]
    fn the_same_list_scanned_elsewhere_has_the_same_place() {
        let elsewhere = REPORT.replace("/image@sha256:00", "/other/folder");
        assert_eq!(findings(elsewhere.as_bytes()).unwrap(), findings(REPORT.as_bytes()).unwrap());
    }

    #[test]
    fn the_summary_says_what_was_read() {
        let summary = summary(REPORT.as_bytes()).unwrap();
        assert_eq!((summary.version.as_str(), summary.image_id.as_str()), ("0.76.0", "sha256:aa"));
        assert_eq!(
            summary.system,
            Some(ReportedSystem { family: "debian".into(), release: "12.11".into(), ended: false })
        );
        assert_eq!(summary.results[0].place, "debian 12.11");
        let h11 = ListedPackage {
            name: "h11".into(),
            version: "0.14.0".into(),
            purl: Some("pkg:pypi/h11@0.14.0".into()),
            licenses: vec!["MIT".into()],
            file: Some("srv/h11.dist-info/METADATA".into()),
            analyzed_by: String::new(),
            layer: None,
        };
        assert_eq!(summary.results[1].packages, [h11]);
        assert_eq!(summary.results[0].packages[0].version, "1:1.2.13.dfsg-1");
        assert_eq!(summary.results[0].packages[2].version, "-1:2");
        let bare = &summary.results[0].packages[1];
        assert_eq!((bare.version.as_str(), &bare.purl, bare.licenses.len()), ("", &None, 0));
        let none = REPORT.replace("debian\", \"Name\": \"12.11", "none\", \"Name\": \"");
        assert_eq!(super::summary(none.as_bytes()).unwrap().system, None);
    }

    /// What `trivy fs` says of a folder with one lock file.
    const LOCKS: &str = r#"{"SchemaVersion": 2, "Trivy": {"Version": "VERSION"}, "ArtifactName": "/locks", "ArtifactType": "filesystem",
      "Results": [{"Target": "srv/package-lock.json", "Class": "lang-pkgs", "Type": "npm",
        "Packages": [{"Name": "lodash", "Version": "4.17.20", "AnalyzedBy": "npm"}],
        "Vulnerabilities": [{"VulnerabilityID": "CVE-2021-23337", "PkgName": "lodash", "InstalledVersion": "4.17.20", "Severity": "HIGH"}]}]}"#;

    #[test]
    fn a_report_about_lock_files_stands_inside_the_other_and_is_told_apart() {
        let version = summary(REPORT.as_bytes()).unwrap().version;
        let locks = LOCKS.replace("VERSION", &version);
        let whole = with_lock_files(REPORT.as_bytes(), locks.as_bytes()).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        assert!(text.starts_with(REPORT.trim_end().strip_suffix('}').unwrap()) && text.contains(locks.trim()));
        let found = findings(&whole).unwrap();
        assert_eq!(found.len(), findings(REPORT.as_bytes()).unwrap().len() + 1);
        let of_locks: Vec<_> = found.iter().filter(|finding| finding.lock_file).collect();
        assert_eq!((of_locks.len(), of_locks[0].place.as_str()), (1, "srv/package-lock.json"));
        let both = summary(&whole).unwrap();
        assert_eq!(both.image_id, summary(REPORT.as_bytes()).unwrap().image_id);
        let lists: Vec<_> = both.results.iter().map(|list| (list.place.as_str(), list.lock_file)).collect();
        assert_eq!(lists.last(), Some(&("srv/package-lock.json", true)));
        assert_eq!(lists.iter().filter(|(_, lock_file)| *lock_file).count(), 1);
    }

    #[test]
    fn a_report_inside_another_is_held_to_the_same_rules() {
        let version = summary(REPORT.as_bytes()).unwrap().version;
        let locks = LOCKS.replace("VERSION", &version);
        let whole = with_lock_files(REPORT.as_bytes(), locks.as_bytes()).unwrap();
        for (from, to) in [
            ("filesystem", "container_image"),
            (version.as_str(), "0.0.1"),
            ("\"SchemaVersion\": 2", "\"SchemaVersion\": 3"),
            ("\"Class\"", "\"ExperimentalModifiedFindings\": [{}], \"Class\""),
            ("\"Results\"", "\"SluicegateLockFiles\": {\"SchemaVersion\": 2}, \"Results\""),
        ] {
            assert!(locks.contains(from), "{from}");
            let bad = locks.replace(from, to);
            assert!(with_lock_files(REPORT.as_bytes(), bad.as_bytes()).is_err(), "{to}");
        }
        assert!(with_lock_files(&whole, locks.as_bytes()).is_err(), "there is one already");
        let hidden = String::from_utf8(whole).unwrap().replacen(
            "\"Class\": \"lang-pkgs\", \"Type\": \"npm\"",
            "\"ExperimentalModifiedFindings\": [{}]",
            1,
        );
        assert!(matches!(findings(hidden.as_bytes()), Err(TrivyReportError::Suppressed { .. })));
    }

    #[test]
    fn what_is_not_a_plain_report_is_refused() {
        assert!(matches!(findings(b""), Err(TrivyReportError::Syntax(_))));
        assert!(matches!(findings(b"[]"), Err(TrivyReportError::Syntax(_))));
        assert!(matches!(findings(&REPORT.as_bytes()[..900]), Err(TrivyReportError::Syntax(_))));
        let other = REPORT.replace("\"SchemaVersion\": 2", "\"SchemaVersion\": 3");
        assert!(matches!(findings(other.as_bytes()), Err(TrivyReportError::Schema { found: 3 })));
        let hidden = REPORT.replace("\"Class\": \"lang-pkgs\"", "\"ExperimentalModifiedFindings\": [{}]");
        assert!(
            matches!(findings(hidden.as_bytes()), Err(TrivyReportError::Suppressed { target }) if target == "Python")
        );
        let nameless = REPORT.replace("CVE-2025-43859", "");
        assert!(matches!(
            findings(nameless.as_bytes()),
            Err(TrivyReportError::Missing { field: "VulnerabilityID", .. })
        ));
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        assert_eq!(findings_up_to(REPORT.as_bytes(), 2).unwrap().len(), 2);
        assert!(matches!(findings_up_to(REPORT.as_bytes(), 1), Err(TrivyReportError::TooMany { limit: 1, .. })));
        let nested = |n: usize| format!("{{\"SchemaVersion\":2,\"X\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(findings(nested(127).as_bytes()).unwrap(), vec![]);
        assert!(matches!(findings(nested(128).as_bytes()), Err(TrivyReportError::Depth)));
        assert!(within_depth(br#"{"a\"[[[[":"[[[["}"#, 1));
    }
}
