//! The scan itself: the pinned Trivy over one image and the pinned database, in the sandbox, and what of its answer is believed.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sluicegate_attestation::{
    output_sbom::known_packages,
    trivy_report::{Summary, TrivyReportError, summary, with_lock_files},
};
use sluicegate_ports::{
    execute::{Ended, Stop, ToolRequest, ToolSandbox},
    scan::{Database, Inventory, OutputReport, Scan, ScanError, ScanReport, Scanner, ScannerIdentity, Tool},
};
use sluicegate_types::{Digest, NonEmpty, UnixTime};

use crate::{
    bolt::Bolt,
    coverage,
    database::{Kind, PinnedDatabase},
    image_files::{Files, Image},
    java_archives::needs_java_database,
    lock_files,
    pinned_copy::{self, readable},
    sbom,
};

/// Trivy's cache folder in the sandbox.
const CACHE: &str = "/cache";
/// Bytes of the scanner's executable.
const EXECUTABLE: u64 = 1024 * 1024 * 1024;

/// Which scanner, which database, and where they may be kept.
#[derive(Clone)]
pub struct Config {
    /// The Trivy executable.
    pub trivy: PathBuf,
    /// The digests that the gateway file allows (`scanner.trivy.digests`).
    pub allowed: NonEmpty<Digest>,
    /// The database of vulnerabilities.
    pub database: NamedDatabase,
    /// The database of Java archives, if the gateway file names one; asked for only where an image has such archives.
    pub java_database: Option<NamedDatabase>,
    /// A private folder in the home for the copies that are used; made with mode 0700 if missing.
    pub work: PathBuf,
    /// Where Trivy runs: without network, over untrusted input.
    pub sandbox: Arc<dyn ToolSandbox>,
    /// The last part of the image's repository, in lower case, for the SBOM's subject.
    pub name: String,
    /// SOURCE_DATE_EPOCH for the SBOM; without it the SBOM carries no time.
    pub epoch: Option<UnixTime>,
    /// How much of everything.
    pub limits: ScanLimits,
}

/// A database as the gateway file names it.
#[derive(Clone)]
pub struct NamedDatabase {
    /// Finds the folder with its two files, or brings them there.
    pub folder: Arc<dyn Fn() -> Result<PathBuf, ScanError> + Send + Sync>,
    /// The digest by which it is pinned ([`crate::database::digest_of`]).
    pub digest: Digest,
}

impl NamedDatabase {
    /// The database in this folder.
    pub fn in_folder(folder: PathBuf, digest: Digest) -> Self {
        Self { folder: Arc::new(move || Ok(folder.clone())), digest }
    }
}

/// How much a scan may use.
#[derive(Clone, Debug)]
pub struct ScanLimits {
    /// Wall time of one run of Trivy; a scan runs it twice, once for an output, and once more where there are lock files.
    pub timeout: Duration,
    /// Bytes of memory of one run.
    pub memory: Option<u64>,
    /// Bytes of one report.
    pub report: u64,
}

impl Default for ScanLimits {
    /// 10 minutes, 2 GiB, 128 MiB.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600), memory: Some(2 << 30), report: 128 << 20 }
    }
}

/// Scans images with the Trivy that the gateway file allows and the database that it pins.
pub struct TrivyScanner {
    config: Config,
    stop: Stop,
    ready: Mutex<Option<Ready>>,
    java: Mutex<Option<PinnedDatabase>>,
}

/// The private copies, hashed by this process.
#[derive(Clone)]
struct Ready {
    program: PathBuf,
    digest: Digest,
    database: PinnedDatabase,
}

impl TrivyScanner {
    /// A scanner of this configuration; nothing is read before the first scan.
    pub fn new(mut config: Config) -> Self {
        if let Ok(absolute) = std::path::absolute(&config.work) {
            config.work = absolute;
        }
        Self { config, stop: Stop::default(), ready: Mutex::new(None), java: Mutex::new(None) }
    }

    /// The same, whose scans end when `stop` is raised.
    pub fn stopped_by(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    fn ready(&self) -> Result<Ready, ScanError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = &*ready {
            return Ok(ready.clone());
        }
        let work = &self.config.work;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(work).map_err(|error| ScanError::Io {
            action: format!("make the folder {}", work.display()),
            reason: error.to_string(),
        })?;
        let (program, digest) = pinned_program(&self.config)?;
        let NamedDatabase { folder, digest: pin } = &self.config.database;
        let database = PinnedDatabase::take(Kind::Vulnerabilities, folder.as_ref(), pin, work)?;
        Ok(ready.insert(Ready { program, digest, database }).clone())
    }

    /// The database of Java archives, for an image that has this one.
    fn java(&self, archive: &str) -> Result<PinnedDatabase, ScanError> {
        let mut java = self.java.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(java) = &*java {
            return Ok(java.clone());
        }
        let named = self.config.java_database.as_ref();
        let NamedDatabase { folder, digest } =
            named.ok_or_else(|| ScanError::NoJavaDatabase { archive: printable(archive) })?;
        Ok(java.insert(PinnedDatabase::take(Kind::Java, folder.as_ref(), digest, &self.config.work)?).clone())
    }

    fn run(&self, ready: &Ready, args: &[&str], folders: &[(&Path, &str)]) -> Result<Vec<u8>, ScanError> {
        if self.stop.is_raised() {
            return Err(ScanError::Stopped);
        }
        let limits = &self.config.limits;
        let outcome = self.config.sandbox.run_tool(&ToolRequest {
            program: ready.program.clone(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: [("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("TZ", "UTC")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .to_vec(),
            folders: folders.iter().map(|(host, inside)| ((*host).to_owned(), PathBuf::from(inside))).collect(),
            timeout: limits.timeout,
            memory: limits.memory,
            stdout_bytes: limits.report,
            stop: self.stop.clone(),
        })?;
        match outcome.ended {
            Ended::Exit(0) if outcome.stdout.is_empty() => {
                Err(failed(format!("it printed no report; {}", last_words(&outcome.stderr))))
            }
            Ended::Exit(0) => Ok(outcome.stdout),
            Ended::Exit(code) => Err(failed(format!("it ended with code {code}; {}", last_words(&outcome.stderr)))),
            Ended::TimedOut => Err(failed(format!("it ran longer than {} s", limits.timeout.as_secs()))),
            Ended::Stopped => Err(ScanError::Stopped),
            Ended::LogFull => Err(failed(format!("its report is larger than {} bytes", limits.report))),
        }
    }
}

impl Scanner for TrivyScanner {
    fn identity(&self) -> Result<Option<ScannerIdentity>, ScanError> {
        let ready = self.ready()?;
        let Config { name, epoch, java_database, .. } = &self.config;
        let rules = format!("{name} {}", epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
        Ok(Some(ScannerIdentity {
            tool: ready.digest,
            database: ready.database.database.digest,
            java_database: java_database.as_ref().map(|named| named.digest),
            rules,
        }))
    }

    /// Runs Trivy over the image for its JSON report, over that report for the SBOM, so that both say the same, and over the lock files, if
    /// there are any.
    fn scan(&self, layout: &Path, image: &Digest) -> Result<ScanReport, ScanError> {
        let ready = self.ready()?;
        let opened = Image::open(layout, image)?;
        let files = opened.files(&coverage::is_telling)?;
        // In whatever layer it stands, hidden or not: Trivy opens each of them.
        let archive = files.anywhere.iter().find(|path| needs_java_database(path));
        let java = archive.map(|archive| self.java(archive)).transpose()?;
        let scanned = self.report(&ready, java.as_ref(), layout, &opened, "vuln")?;
        let sbom = self.sbom(&ready, &scanned.raw, image)?;
        let scanned = self.lock_files(&ready, &files, scanned, "vuln")?;
        let java = java.map(|java| java.database);
        Ok(ScanReport { scan: self.judged(&ready, scanned, &files, image, java)?, sbom })
    }

    /// Java archives without a database of them are hashes alone: an output need not be scanned, and the image that it gets into is.
    fn output(&self, layout: &Path, image: &Digest) -> Result<OutputReport, ScanError> {
        let ready = self.ready()?;
        let opened = Image::open(layout, image)?;
        let files = opened.files(&coverage::is_telling)?;
        let archive = files.anywhere.iter().find(|path| needs_java_database(path));
        let (java, scanners) = match archive {
            Some(_) if self.config.java_database.is_none() => (None, ""),
            Some(archive) => (Some(self.java(archive)?), "vuln"),
            None => (None, "vuln"),
        };
        let scanned = self.report(&ready, java.as_ref(), layout, &opened, scanners)?;
        let scanned = self.lock_files(&ready, &files, scanned, scanners)?;
        let (packages, left_out) = known_packages(scanned.report.results.clone());
        let version = scanned.report.version.clone();
        let inventory = Inventory { scanner: "trivy".to_owned(), version, digest: ready.digest, packages, left_out };
        let java = java.map(|java| java.database);
        let scan = (!scanners.is_empty()).then(|| self.judged(&ready, scanned, &files, image, java)).transpose()?;
        // What stands for the whole image stands for nothing here: an output need not be a system.
        let scan = scan.map(|mut scan| {
            scan.coverage.unread.retain(|gap| gap.digest != *image);
            scan
        });
        Ok(OutputReport { inventory, scan })
    }
}

/// A report that is about the image that was asked about.
struct Scanned {
    raw: Vec<u8>,
    report: Summary,
    /// How the scanner failed when it was asked about lock files alone.
    over_locks: Option<String>,
}

impl TrivyScanner {
    /// The report with what it rests on.
    fn judged(
        &self,
        ready: &Ready,
        scanned: Scanned,
        files: &Files,
        image: &Digest,
        java_database: Option<Database>,
    ) -> Result<Scan, ScanError> {
        let damaged = |error: &dyn std::fmt::Display| ScanError::Database {
            path: ready.database.files.clone(),
            reason: format!("trivy.db: {error}"),
        };
        let file = fs::File::open(ready.database.file()).map_err(|error| damaged(&error))?;
        let mut database = Bolt::open(file).map_err(|error| damaged(&error))?;
        let Scanned { raw, report, over_locks } = scanned;
        let mut coverage = coverage::coverage(&report, files, image, &mut database).map_err(|error| damaged(&error))?;
        for gap in coverage.unread.iter_mut().filter(|gap| gap.kind == lock_files::GAP) {
            over_locks.iter().for_each(|why| gap.reason.push_str(&format!("; asked about lock files alone: {why}")));
        }
        Ok(Scan {
            raw,
            tool: Tool { name: "trivy".to_owned(), version: report.version, digest: ready.digest },
            database: ready.database.database,
            java_database,
            coverage,
        })
    }

    fn report(
        &self,
        ready: &Ready,
        java: Option<&PinnedDatabase>,
        layout: &Path,
        image: &Image,
        scanners: &str,
    ) -> Result<Scanned, ScanError> {
        // The sandbox mounts it from a process of its own, whose working folder is another.
        let layout = &std::path::absolute(layout).map_err(|error| ScanError::Io {
            action: format!("find the folder {}", layout.display()),
            reason: error.to_string(),
        })?;
        let input = format!("/image@{}", image.digest);
        let databases = std::iter::once(&ready.database).chain(java);
        let databases = databases.map(|database| (database.files.as_path(), database.place_in(CACHE)));
        let databases: Vec<(&Path, String)> = databases.collect();
        let folders: Vec<(&Path, &str)> = std::iter::once((layout.as_path(), "/image"))
            .chain(databases.iter().map(|(files, place)| (*files, place.as_str())))
            .collect();
        let timeout = trivys_timeout(self.config.limits.timeout);
        let raw = self.run(ready, &scan_args(&["image", "--input", &input], scanners, &timeout), &folders)?;
        let report = summary(&raw).map_err(|error| ScanError::Report { reason: error.to_string() })?;
        check_subject(&report, image)?;
        Ok(Scanned { raw, report, over_locks: None })
    }

    /// The same with what Trivy says of the lock files that it passed over in the image.
    fn lock_files(&self, ready: &Ready, files: &Files, scanned: Scanned, scanners: &str) -> Result<Scanned, ScanError> {
        let io = |error: std::io::Error| ScanError::Io {
            action: format!("lay the image's lock files into {}", self.config.work.display()),
            reason: error.to_string(),
        };
        let folder = tempfile::Builder::new().prefix("locks-").tempdir_in(&self.config.work).map_err(io)?;
        if !lock_files::lay_out(&scanned.report, files, folder.path()).map_err(io)? {
            return Ok(scanned);
        }
        readable(folder.path(), 0o755).map_err(io)?;
        let database = ready.database.place_in(CACHE);
        let folders = [(folder.path(), "/locks"), (ready.database.files.as_path(), database.as_str())];
        let timeout = trivys_timeout(self.config.limits.timeout);
        let what = ["filesystem", "--include-dev-deps", "/locks"];
        let of_locks = self.run(ready, &scan_args(&what, scanners, &timeout), &folders);
        match of_locks.and_then(|of_locks| self.joined(&scanned.raw, &of_locks)) {
            Ok(joined) => Ok(joined),
            // What brings the scanner down leaves all of them unread, which is a gap for each and no fault of the image's own scan.
            Err(error @ (ScanError::Failed { .. } | ScanError::Report { .. })) => {
                Ok(Scanned { over_locks: Some(error.to_string()), ..scanned })
            }
            Err(error) => Err(error),
        }
    }

    /// Both reports as one.
    fn joined(&self, raw: &[u8], of_locks: &[u8]) -> Result<Scanned, ScanError> {
        let refused = |error: TrivyReportError| ScanError::Report { reason: error.to_string() };
        let raw = with_lock_files(raw, of_locks).map_err(refused)?;
        if raw.len() as u64 > self.config.limits.report {
            return Err(failed(format!("its reports are larger than {} bytes", self.config.limits.report)));
        }
        let report = summary(&raw).map_err(refused)?;
        Ok(Scanned { raw, report, over_locks: None })
    }

    fn sbom(&self, ready: &Ready, raw: &[u8], image: &Digest) -> Result<Vec<u8>, ScanError> {
        let io = |error: std::io::Error| ScanError::Io {
            action: format!("write the report into {}", self.config.work.display()),
            reason: error.to_string(),
        };
        let folder = tempfile::Builder::new().prefix("report-").tempdir_in(&self.config.work).map_err(io)?;
        let report = folder.path().join("report.json");
        fs::write(&report, raw).map_err(io)?;
        readable(folder.path(), 0o755).and_then(|()| readable(&report, 0o444)).map_err(io)?;
        let args = ["--config", "", "convert", "--quiet", "--format", "cyclonedx", "/report/report.json"];
        let bytes = self.run(ready, &args, &[(folder.path(), "/report")])?;
        sbom::reproducible(&bytes, &self.config.name, image, self.config.epoch)
    }
}

/// Trivy gives up after five minutes unless told otherwise; here the sandbox's limit is the one that ends it.
fn trivys_timeout(limit: Duration) -> String {
    format!("{}s", limit.as_secs().saturating_add(60))
}

/// The arguments of the scan. Empty file names keep Trivy from looking for its settings in the working folder; all that would
/// reach for the network is switched off by name, though the sandbox has none. `what` is a command and what it looks at; `scanners` is `vuln`, or empty for packages alone.
fn scan_args<'a>(what: &[&'a str], scanners: &'a str, timeout: &'a str) -> Vec<&'a str> {
    let settings = ["--config", "", "--cache-dir", CACHE, "--timeout", timeout];
    let how = [
        "--cache-backend",
        "memory",
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-version-check",
        "--skip-vex-repo-update",
        "--disable-telemetry",
        "--offline-scan",
        "--no-progress",
        "--quiet",
        "--scanners",
        scanners,
        "--ignorefile",
        "",
        "--format",
        "json",
        "--list-all-pkgs",
        "--detection-priority=precise",
    ];
    [&settings[..], what, &how[..]].concat()
}

/// The allowed executable in the private folder, copied there unless the copy is still whole.
fn pinned_program(config: &Config) -> Result<(PathBuf, Digest), ScanError> {
    let io = |action: &str, path: &Path, error: std::io::Error| ScanError::Io {
        action: format!("{action} {}", path.display()),
        reason: error.to_string(),
    };
    if !config.trivy.exists() {
        return Err(ScanError::NoScanner { looked: format!("there is no file {}", config.trivy.display()) });
    }
    let found =
        pinned_copy::digest(&config.trivy, EXECUTABLE).map_err(|error| io("read the scanner", &config.trivy, error))?;
    let refuse_unlisted = |found: Digest| {
        let listed = config.allowed.iter().any(|allowed| *allowed == found);
        if listed { Ok(()) } else { Err(ScanError::Scanner { path: config.trivy.clone(), found }) }
    };
    refuse_unlisted(found)?;
    let program = config.work.join(format!("trivy-{}", found.hex()));
    if pinned_copy::digest(&program, EXECUTABLE).is_ok_and(|copy| copy == found) {
        return Ok((program, found));
    }
    let folder = tempfile::Builder::new()
        .prefix("trivy-")
        .tempdir_in(&config.work)
        .map_err(|error| io("make a folder in", &config.work, error))?;
    let fresh = folder.path().join("trivy");
    let copied = pinned_copy::copy(&config.trivy, &fresh, 0o555, EXECUTABLE)
        .map_err(|error| io("copy the scanner", &config.trivy, error))?;
    // The file may have changed since it was hashed: what was copied decides.
    refuse_unlisted(copied)?;
    let program = config.work.join(format!("trivy-{}", copied.hex()));
    fs::rename(&fresh, &program).map_err(|error| io("move the scanner's copy to", &program, error))?;
    Ok((program, copied))
}

/// A report counts only for the image that was asked about: Trivy finds it by names in the layout's index, we by digest.
fn check_subject(report: &Summary, image: &Image) -> Result<(), ScanError> {
    let refused = |reason: String| Err(ScanError::Report { reason });
    if report.artifact_type != "container_image" {
        return refused(format!("it is about a {:?}, not about an image", report.artifact_type));
    }
    if report.image_id != image.config.to_string() {
        return refused(format!(
            "it is about the image with the configuration {}, not {}",
            report.image_id, image.config
        ));
    }
    if !report.diff_ids.iter().map(String::as_str).eq(image
        .diff_ids
        .iter()
        .map(Digest::to_string)
        .collect::<Vec<_>>()
        .iter()
        .map(String::as_str))
    {
        return refused("it is about other layers than the image has".to_owned());
    }
    if report.version.is_empty() {
        return refused("it does not say which version of Trivy made it".to_owned());
    }
    Ok(())
}

/// What Trivy said last, for a person: at most 600 characters, control characters as spaces.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let plain: Vec<char> = printable(text.trim()).chars().collect();
    let tail: String = plain[plain.len().saturating_sub(600)..].iter().collect();
    if tail.is_empty() { "it said nothing".to_owned() } else { format!("it said: {tail}") }
}

/// Control characters as spaces.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn failed(reason: String) -> ScanError {
    ScanError::Failed { reason }
}

#[cfg(test)]
mod tests;
