use std::{process::Command, sync::atomic::AtomicUsize, sync::atomic::Ordering};

use sluicegate_attestation::{
    cyclonedx,
    identifiers::{LAYER_TAR, LAYER_TAR_ZSTD},
    trivy_report,
};
use sluicegate_ports::execute::{ExecuteError, ToolOutcome};

use super::*;
use crate::{
    database::digest_of,
    test_database::{bolt_file, sample},
    test_image::{TestEntry, TestImage, file, link, tar_of, zstd},
};

const METADATA: &str = r#"{"Version":2,"NextUpdate":"2036-01-01T00:00:00Z","UpdatedAt":"2026-11-23T00:00:00Z"}"#;
const STATUS: &[u8] =
    b"Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\n\n";
const SBOM: &str =
    r#"{"bomFormat":"CycloneDX","specVersion":"1.7","metadata":{"component":{"bom-ref":"r"}},"components":[]}"#;

/// Answers the first run with a report and the second with an SBOM, and remembers nothing else.
struct Canned {
    report: String,
    ended: Ended,
    runs: AtomicUsize,
}

impl ToolSandbox for Canned {
    fn run_tool(&self, request: &ToolRequest) -> Result<ToolOutcome, ExecuteError> {
        assert!(request.program.starts_with(request.program.parent().unwrap()) && request.program.is_file());
        let first = self.runs.fetch_add(1, Ordering::Relaxed) == 0;
        let stdout = if first { self.report.clone().into_bytes() } else { SBOM.as_bytes().to_vec() };
        Ok(ToolOutcome { ended: self.ended, stdout, stderr: b"FATAL\tno\n".to_vec() })
    }
}

/// Runs the program on this machine, with the folders' own paths put for those inside.
struct Direct;

impl ToolSandbox for Direct {
    fn run_tool(&self, request: &ToolRequest) -> Result<ToolOutcome, ExecuteError> {
        let empty = tempfile::tempdir().unwrap();
        // Trivy's cache folder is no folder of this machine, but the ones in it are.
        let cache = empty.path().join("cache");
        fs::create_dir(&cache).unwrap();
        for (host, inside) in &request.folders {
            if let Ok(name) = inside.strip_prefix("/cache") {
                std::os::unix::fs::symlink(host, cache.join(name)).unwrap();
            }
        }
        let outside = |arg: &String| {
            if arg == "/cache" {
                return cache.display().to_string();
            }
            let mapped = request.folders.iter().find_map(|(host, inside)| {
                arg.strip_prefix(inside.to_str()?).map(|rest| format!("{}{rest}", host.display()))
            });
            mapped.unwrap_or_else(|| arg.clone())
        };
        let output = Command::new(&request.program)
            .args(request.args.iter().map(outside))
            .env_clear()
            .envs(request.env.iter().cloned())
            .env("HOME", empty.path())
            .env("TMPDIR", empty.path())
            .current_dir(empty.path())
            .output()
            .unwrap();
        Ok(ToolOutcome {
            ended: Ended::Exit(output.status.code().unwrap()),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

struct World {
    home: tempfile::TempDir,
    image: TestImage,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("trivy"), "#!/bin/true\n").unwrap();
        let database = home.path().join("database");
        fs::create_dir(&database).unwrap();
        fs::write(database.join("metadata.json"), METADATA).unwrap();
        fs::write(database.join("trivy.db"), bolt_file(&sample())).unwrap();
        let os = b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n";
        let image = TestImage::new(&[vec![
            file("etc/os-release", os),
            file("etc/debian_version", b"12.11\n"),
            file("var/lib/dpkg/status", STATUS),
        ]]);
        Self { home, image }
    }

    fn config(&self, sandbox: Arc<dyn ToolSandbox>) -> Config {
        let trivy = self.home.path().join("trivy");
        let database = self.home.path().join("database");
        Config {
            allowed: NonEmpty::one(Digest::of(&fs::read(&trivy).unwrap())),
            trivy,
            database: NamedDatabase::in_folder(database.clone(), digest_of(Kind::Vulnerabilities, &database).unwrap()),
            java_database: None,
            work: self.home.path().join("work"),
            sandbox,
            name: "shop".to_owned(),
            epoch: None,
            limits: ScanLimits::default(),
        }
    }

    /// With the real Trivy, where the variable SLUICEGATE_TRIVY names one; nothing, said aloud, where none is named and none demanded.
    fn with_real_trivy(&self) -> Option<Config> {
        let Some(trivy) = std::env::var_os("SLUICEGATE_TRIVY").map(PathBuf::from) else {
            use std::io::Write;
            let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
            assert!(!demanded, "SLUICEGATE_TRIVY names no Trivy, and peers are demanded");
            writeln!(std::io::stderr(), "skipped: SLUICEGATE_TRIVY names no Trivy").unwrap();
            return None;
        };
        let allowed = NonEmpty::one(Digest::of(&fs::read(&trivy).unwrap()));
        Some(Config { trivy, allowed, ..self.config(Arc::new(Direct)) })
    }

    fn report(&self) -> String {
        let diff_ids: Vec<String> = self.image.diff_ids.iter().map(Digest::to_string).collect();
        serde_json::json!({
            "SchemaVersion": 2, "Trivy": {"Version": "0.76.0"}, "ArtifactName": "/image", "ArtifactType": "container_image",
            "Metadata": {"OS": {"Family": "debian", "Name": "12.11"}, "ImageID": self.image.config.to_string(), "DiffIDs": diff_ids},
            "Results": [{
                "Target": "/image (debian 12.11)", "Class": "os-pkgs", "Type": "debian",
                "Packages": [{"Name": "zlib1g", "AnalyzedBy": "dpkg"}],
            }],
        })
        .to_string()
    }

    fn canned(&self, report: String, ended: Ended) -> Result<ScanReport, ScanError> {
        let sandbox = Canned { report, ended, runs: AtomicUsize::new(0) };
        TrivyScanner::new(self.config(Arc::new(sandbox))).scan(self.image.path(), &self.image.digest)
    }

    fn output(&self, report: String, ended: Ended) -> Result<OutputReport, ScanError> {
        let sandbox = Canned { report, ended, runs: AtomicUsize::new(0) };
        TrivyScanner::new(self.config(Arc::new(sandbox))).output(self.image.path(), &self.image.digest)
    }
}

#[test]
fn a_scan_names_its_tool_its_database_and_its_coverage() {
    let world = World::new();
    let scan = world.canned(world.report(), Ended::Exit(0)).unwrap();
    assert_eq!((scan.scan.tool.name.as_str(), scan.scan.tool.version.as_str()), ("trivy", "0.76.0"));
    assert_eq!(scan.scan.tool.digest, Digest::of(b"#!/bin/true\n"));
    assert_eq!(scan.scan.database.updated_at.to_string(), "2026-11-23T00:00:00Z");
    assert_eq!(scan.scan.coverage.unread, vec![]);
    assert_eq!(scan.scan.coverage.read[0].packages, 1);
    assert_eq!(scan.scan.raw, world.report().into_bytes(), "the report is kept as it was printed");
}

#[test]
fn an_executable_that_is_not_allowed_is_refused() {
    let world = World::new();
    let mut config = world.config(Arc::new(Direct));
    config.allowed = NonEmpty::one(Digest::of(b"another"));
    let refused = TrivyScanner::new(config.clone()).scan(world.image.path(), &world.image.digest).unwrap_err();
    assert!(matches!(refused, ScanError::Scanner { found, .. } if found == Digest::of(b"#!/bin/true\n")));
    config.trivy = world.home.path().join("missing");
    let missing = TrivyScanner::new(config).scan(world.image.path(), &world.image.digest).unwrap_err();
    assert!(matches!(missing, ScanError::NoScanner { .. }));
}

#[test]
fn a_copy_that_was_changed_is_not_run() {
    let world = World::new();
    world.canned(world.report(), Ended::Exit(0)).unwrap();
    let copy = world.home.path().join("work").join(format!("trivy-{}", Digest::of(b"#!/bin/true\n").hex()));
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "changed").unwrap();
    world.canned(world.report(), Ended::Exit(0)).unwrap();
    assert_eq!(fs::read(&copy).unwrap(), b"#!/bin/true\n");
}

#[test]
fn a_run_that_fails_prints_nothing_or_something_else_is_no_scan() {
    let world = World::new();
    let words = |report: String, ended| world.canned(report, ended).unwrap_err().to_string();
    assert!(words(world.report(), Ended::Exit(2)).contains("code 2; it said: FATAL no"));
    assert!(words(world.report(), Ended::TimedOut).contains("longer than 600 s"));
    assert!(words(String::new(), Ended::Exit(0)).contains("no report"));
    assert!(words("INFO nothing to do".to_owned(), Ended::Exit(0)).contains("not a Trivy JSON report"));
    assert!(world.canned(world.report(), Ended::Exit(0)).is_ok());
}

#[test]
fn a_report_about_something_else_is_no_scan() {
    let world = World::new();
    let other = Digest::of(b"other").to_string();
    let config = world.image.config.to_string();
    let layer = world.image.diff_ids[0].to_string();
    for (from, to) in
        [(config.as_str(), other.as_str()), (&layer, &other), ("container_image", "filesystem"), ("0.76.0", "")]
    {
        let refused = world.canned(world.report().replace(from, to), Ended::Exit(0)).unwrap_err();
        assert!(matches!(refused, ScanError::Report { .. }), "{to}: {refused}");
    }
}

#[test]
fn an_inventory_names_packages_and_its_tool_and_is_about_what_was_asked() {
    let world = World::new();
    let OutputReport { inventory: found, scan } = world.output(world.report(), Ended::Exit(0)).unwrap();
    assert_eq!(scan.unwrap().coverage.read.len(), 1);
    assert_eq!((found.scanner.as_str(), found.version.as_str()), ("trivy", "0.76.0"));
    assert_eq!(found.digest, Digest::of(b"#!/bin/true\n"));
    assert_eq!(found.packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["zlib1g"]);
    let other = world.report().replace(&world.image.diff_ids[0].to_string(), &Digest::of(b"other").to_string());
    for (report, ended) in [(world.report(), Ended::Exit(1)), (String::new(), Ended::Exit(0)), (other, Ended::Exit(0))]
    {
        let refused = world.output(report, ended).unwrap_err();
        assert!(matches!(refused, ScanError::Failed { .. } | ScanError::Report { .. }), "{refused}");
    }
}

/// Trivy asks its Java database wherever it sees such an archive, in a layer that another one hides, too.
#[test]
fn tm04_an_image_with_java_archives_is_scanned_with_a_java_database_or_not_at_all() {
    let mut world = World::new();
    let debian = || {
        vec![
            file("etc/os-release", b"PRETTY_NAME=x\nID=debian\nVERSION_ID=\"12\"\n"),
            file("etc/debian_version", b"12.11\n"),
            file("var/lib/dpkg/status", STATUS),
        ]
    };
    let java = world.home.path().join("java");
    fs::create_dir(&java).unwrap();
    fs::write(java.join("metadata.json"), METADATA.replace("\"Version\":2", "\"Version\":1")).unwrap();
    fs::write(java.join("trivy-java.db"), "pages").unwrap();
    let digest = digest_of(Kind::Java, &java).unwrap();
    let scan = |world: &World, named: Option<NamedDatabase>| {
        let sandbox = Canned { report: world.report(), ended: Ended::Exit(0), runs: AtomicUsize::new(0) };
        let config = Config { java_database: named, ..world.config(Arc::new(sandbox)) };
        TrivyScanner::new(config).scan(world.image.path(), &world.image.digest)
    };
    let nowhere = || Some(NamedDatabase::in_folder("/nonexistent".into(), digest));
    assert_eq!(scan(&world, nowhere()).unwrap().scan.java_database, None, "nobody asks for one that nothing needs");
    let archive = || vec![file("srv/Shop.WAR", b"PK")];
    for layers in [vec![debian(), archive()], vec![debian(), archive(), vec![file("srv/.wh.Shop.WAR", b"")]]] {
        world.image = TestImage::new(&layers);
        let missing = scan(&world, None).unwrap_err();
        assert!(matches!(&missing, ScanError::NoJavaDatabase { archive } if archive == "srv/Shop.WAR"), "{missing}");
        assert!(matches!(scan(&world, nowhere()).unwrap_err(), ScanError::Database { .. }));
        let whole = scan(&world, Some(NamedDatabase::in_folder(java.clone(), digest))).unwrap();
        assert_eq!(whole.scan.java_database.unwrap().digest, digest);
        assert_eq!(whole.scan.java_database.unwrap().updated_at.to_string(), "2026-11-23T00:00:00Z");
        let other = NamedDatabase::in_folder(java.clone(), Digest::of(b"other"));
        assert!(matches!(scan(&world, Some(other)).unwrap_err(), ScanError::Database { .. }));
        fs::remove_dir_all(world.home.path().join("work")).unwrap();
    }
}

/// Answers like [`Canned`], and fails in this way when it is asked about lock files alone.
struct FailsOverLocks(Canned, Failure);

/// How a tool ends.
type Failure = fn() -> ToolOutcome;

impl ToolSandbox for FailsOverLocks {
    fn run_tool(&self, request: &ToolRequest) -> Result<ToolOutcome, ExecuteError> {
        if request.args.iter().any(|arg| arg == "filesystem") { Ok(self.1()) } else { self.0.run_tool(request) }
    }
}

/// A lock file that brings the scanner down stays one that nobody read; what is wrong with the image is still found.
#[test]
fn tm04_a_lock_file_that_brings_the_scanner_down_is_a_gap() {
    let mut world = World::new();
    world.image = TestImage::new(&[vec![
        file("etc/os-release", b"PRETTY_NAME=x\nID=debian\nVERSION_ID=\"12\"\n"),
        file("etc/debian_version", b"12.11\n"),
        file("var/lib/dpkg/status", STATUS),
        file("srv/yarn.lock", b"a@1:\n"),
    ]]);
    let failures: [(Failure, &str); 3] = [
        (|| ToolOutcome { ended: Ended::Exit(2), stdout: Vec::new(), stderr: b"too deep".to_vec() }, "too deep"),
        (|| ToolOutcome { ended: Ended::TimedOut, stdout: Vec::new(), stderr: Vec::new() }, "longer than 600 s"),
        (
            || ToolOutcome { ended: Ended::Exit(0), stdout: b"{".to_vec(), stderr: Vec::new() },
            "not a Trivy JSON report",
        ),
    ];
    for (failure, says) in failures {
        let canned = Canned { report: world.report(), ended: Ended::Exit(0), runs: AtomicUsize::new(0) };
        let scanner = TrivyScanner::new(world.config(Arc::new(FailsOverLocks(canned, failure))));
        let Scan { raw, coverage, .. } = scanner.scan(world.image.path(), &world.image.digest).unwrap().scan;
        assert_eq!(raw, world.report().into_bytes(), "what it said of the image stands");
        let gaps: Vec<_> = coverage.unread.iter().map(|gap| (gap.kind.as_str(), gap.place.as_str())).collect();
        assert_eq!(gaps, [("lock-file", "srv/yarn.lock")]);
        assert!(coverage.unread[0].reason.contains(says), "{}", coverage.unread[0].reason);
    }
}

#[test]
fn a_database_that_is_damaged_inside_is_no_scan() {
    let world = World::new();
    fs::write(world.home.path().join("database/trivy.db"), "not bbolt").unwrap();
    let refused = world.canned(world.report(), Ended::Exit(0)).unwrap_err();
    assert!(matches!(refused, ScanError::Database { .. }), "{refused}");
}

#[test]
fn the_real_trivy_finds_what_the_database_says_and_writes_one_sbom() {
    let world = World::new();
    let Some(config) = world.with_real_trivy() else { return };
    let one = TrivyScanner::new(config.clone()).scan(world.image.path(), &world.image.digest).unwrap();
    let two = TrivyScanner::new(config.clone()).scan(world.image.path(), &world.image.digest).unwrap();
    assert_eq!(String::from_utf8(one.sbom.clone()).unwrap(), String::from_utf8(two.sbom).unwrap());
    assert_eq!(one.scan.coverage.unread, vec![]);
    assert_eq!(one.scan.coverage.system.unwrap().release, "12.11");
    let components = cyclonedx::components(&one.sbom).unwrap();
    assert!(components.iter().any(|component| component.name == "zlib1g"));
    assert!(!String::from_utf8(one.sbom).unwrap().contains(world.image.path().to_str().unwrap()));
    let findings = trivy_report::findings(&one.scan.raw).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.id.as_str()).collect::<Vec<_>>(), [] as [&str; 0]);

    let missing = TestImage::new(&[vec![
        file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
        file("var/lib/dpkg/status", STATUS),
    ]]);
    let partial = TrivyScanner::new(config).scan(missing.path(), &missing.digest).unwrap();
    let kinds: Vec<_> = partial.scan.coverage.unread.iter().map(|gap| gap.kind.as_str()).collect();
    assert_eq!(kinds, ["nothing-recognised", "package-list", "system-unknown"]);
}

/// With the real Trivy: what an image's lock files pin is looked up, too, and told apart from what is installed.
#[test]
fn tm04_the_real_trivy_reads_lock_files_that_it_passes_over_in_images() {
    let mut world = World::new();
    let lock = br#"{"name": "a", "lockfileVersion": 3, "packages": {"node_modules/lodash": {"version": "4.17.20"}}}"#;
    let debian = vec![
        file("etc/os-release", b"PRETTY_NAME=x\nID=debian\nVERSION_ID=\"12\"\n"),
        file("etc/debian_version", b"12.11\n"),
        file("var/lib/dpkg/status", STATUS),
    ];
    let product = vec![
        file("srv/package-lock.json", lock),
        file("srv/requirements.txt", b"h11==0.9\n"),
        file("srv/node_modules/x/package-lock.json", lock),
        file("open/requirements.txt", b"h11==0.9\nflask\n"),
        file("empty/yarn.lock", b""),
        link("linked/yarn.lock", "../srv/package-lock.json"),
        file("hidden/package-lock.json", lock),
    ];
    world.image = TestImage::new(&[debian, product, vec![file("hidden/.wh.package-lock.json", b"")]]);
    let Some(config) = world.with_real_trivy() else { return };
    let scanner = TrivyScanner::new(config);
    let scan = scanner.scan(world.image.path(), &world.image.digest).unwrap();
    let of_locks: Vec<_> = scan
        .scan
        .coverage
        .read
        .iter()
        .filter(|list| list.lock_file)
        .map(|list| (list.place.as_str(), list.packages))
        .collect();
    assert_eq!(of_locks, [("open/requirements.txt", 1), ("srv/package-lock.json", 1), ("srv/requirements.txt", 1)]);
    let gaps: Vec<_> = scan.scan.coverage.unread.iter().map(|gap| format!("{} {}", gap.kind, gap.place)).collect();
    let lock_files: Vec<_> = gaps.iter().filter(|gap| gap.starts_with("lock-file")).collect();
    assert_eq!(
        lock_files,
        ["lock-file empty/yarn.lock", "lock-file linked/yarn.lock", "lock-file open/requirements.txt"]
    );
    assert!(gaps.iter().any(|gap| gap == "ecosystem-not-in-database npm"), "{gaps:?}");
    let inventory = scanner.output(world.image.path(), &world.image.digest).unwrap().inventory;
    let lodash = inventory.packages.iter().find(|package| package.name == "lodash").unwrap();
    assert_eq!(lodash.places.iter().collect::<Vec<_>>(), ["srv/package-lock.json"]);
}

/// With the real Trivy: a layer is the same tar to it and to us, however it is compressed.
#[test]
fn the_real_trivy_reads_zstd_layers() {
    let world = World::new();
    let Some(config) = world.with_real_trivy() else { return };
    let scanner = TrivyScanner::new(config);
    let tar = tar_of(&[
        file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
        file("etc/debian_version", b"12.11\n"),
        file("var/lib/dpkg/status", STATUS),
    ]);
    let (head, tail) = tar.split_at(700);
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x'];
    let frames = [&zstd(head), skipped.as_slice(), &zstd(tail), &skipped].concat();
    for (media_type, bytes) in [(LAYER_TAR, tar.clone()), (LAYER_TAR_ZSTD, zstd(&tar)), (LAYER_TAR_ZSTD, frames)] {
        let image = TestImage::of_blobs(vec![(media_type, bytes, Digest::of(&tar))]);
        let scan = scanner.scan(image.path(), &image.digest).unwrap();
        assert_eq!(scan.scan.coverage.unread, vec![]);
        assert_eq!(scan.scan.coverage.read[0].packages, 1);
    }
}

/// With the real Trivy: files of a product that turn its eyes from the packages of a Debian or Alpine base.
#[test]
fn tm04_the_real_trivy_is_not_believed_when_a_product_masks_the_system_of_its_base() {
    let world = World::new();
    let Some(config) = world.with_real_trivy() else { return };
    let scanner = TrivyScanner::new(config);
    let scan = |layers: &[Vec<TestEntry>]| {
        let image = TestImage::new(layers);
        let coverage = scanner.scan(image.path(), &image.digest).unwrap().scan.coverage;
        // The test's database knows Debian alone.
        let gaps = coverage.unread.into_iter().filter(|gap| gap.kind != "system-not-in-database");
        let system = coverage.system.map(|system| format!("{} {}", system.family, system.release));
        (system.unwrap_or_default(), gaps.map(|gap| format!("{} {}", gap.kind, gap.place)).collect::<Vec<_>>())
    };
    let debian = || {
        vec![
            file("usr/lib/os-release", b"PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n"),
            link("etc/os-release", "../usr/lib/os-release"),
            file("etc/debian_version", b"12.11\n"),
            file("var/lib/dpkg/status", STATUS),
        ]
    };
    let product = |path: &str, content: &[u8]| vec![file("srv/shop/main.py", b""), file(path, content)];
    assert_eq!(scan(&[debian(), product("srv/shop/x", b"")]), ("debian 12.11".to_owned(), vec![]));

    let alma = b"AlmaLinux release 9.5 (Teal Serval)\n";
    let (system, gaps) = scan(&[debian(), product("etc/almalinux-release", alma)]);
    assert_eq!(system, "alma 9.5", "Trivy lets the upper layer's file win");
    assert_eq!(
        gaps,
        [
            "records-rewritten etc/almalinux-release",
            "system-contradicted alma 9.5",
            "system-contradicted usr/lib/os-release",
            "system-contradicted etc/debian_version",
        ]
    );
    let (_, gaps) = scan(&[debian(), product("usr/share/rapidfort/curated.json", b"{}")]);
    assert_eq!(gaps, ["records-rewritten usr/share/rapidfort/curated.json"]);
    // A package that looks like a rebuilder's makes Trivy ask that rebuilder about the whole base.
    let sbom = br#"{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"metadata":{"component":{"bom-ref":"r","type":"container","name":"x"}},
        "components":[{"bom-ref":"o","type":"operating-system","name":"debian","version":"12.11"},
        {"bom-ref":"p","type":"library","name":"bash","version":"5.root.io.1","purl":"pkg:deb/debian/bash@5.root.io.1?distro=debian-12.11"}],
        "dependencies":[{"ref":"o","dependsOn":["p"]}]}"#;
    let (_, gaps) = scan(&[debian(), product("srv/shop/x.cdx.json", sbom)]);
    assert_eq!(gaps, ["records-rewritten srv/shop/x.cdx.json"]);

    let alpine = || {
        vec![
            file("etc/os-release", b"NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\n"),
            file("etc/alpine-release", b"3.22.1\n"),
            file("etc/apk/repositories", b"https://dl-cdn.alpinelinux.org/alpine/v3.22/main\n"),
            file("lib/apk/db/installed", b"P:musl\nV:1.2.5-r9\nA:x86_64\no:musl\n\n"),
        ]
    };
    assert_eq!(scan(&[alpine(), product("srv/shop/x", b"")]), ("alpine 3.22.1".to_owned(), vec![]));
    let other = b"https://dl-cdn.alpinelinux.org/alpine/v3.19/main\n";
    let (_, gaps) = scan(&[alpine(), product("etc/apk/repositories", other)]);
    assert_eq!(gaps, ["records-rewritten etc/apk/repositories", "system-contradicted etc/apk/repositories"]);
}

#[test]
fn tm04_a_masked_system_is_a_gap_in_the_scan() {
    let mut world = World::new();
    let honest = world.image;
    let base = || {
        vec![
            file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
            file("./etc/debian_version", b"12.11\n"),
            file("var/lib/dpkg/status", STATUS),
        ]
    };
    let alma = || file("./etc/almalinux-release", b"AlmaLinux release 9.5 (Teal Serval)\n");
    world.image = TestImage::new(&[base(), vec![file("srv/shop/x", b"")]]);
    assert_eq!(world.canned(world.report(), Ended::Exit(0)).unwrap().scan.coverage.unread, vec![]);
    world.image = TestImage::new(&[base(), vec![alma()]]);
    let masked = world.report().replace("\"debian\"", "\"alma\"").replace("12.11", "9.5");
    let unread = world.canned(masked, Ended::Exit(0)).unwrap().scan.coverage.unread;
    let rewritten = unread.iter().find(|gap| gap.kind == "records-rewritten").unwrap();
    assert_eq!(rewritten.place, "etc/almalinux-release");
    assert!(rewritten.reason.contains("adds etc/almalinux-release"), "{}", rewritten.reason);
    let contradicted: Vec<_> =
        unread.iter().filter(|gap| gap.kind == "system-contradicted").map(|gap| gap.place.as_str()).collect();
    assert_eq!(contradicted, ["alma 9.5", "etc/os-release", "etc/debian_version"]);
    // A product may not take a record away either, nor may a report name the right system while a file of another stands there.
    world.image = TestImage::new(&[base(), vec![file("etc/.wh.debian_version", b"")]]);
    let gone = world.canned(world.report(), Ended::Exit(0)).unwrap().scan.coverage.unread;
    assert!(gone.iter().any(|gap| gap.reason.contains("takes away etc/debian_version")), "{gone:?}");
    world.image = TestImage::new(&[[base(), vec![alma()]].into_iter().flatten().collect()]);
    let both = world.canned(world.report(), Ended::Exit(0)).unwrap().scan.coverage.unread;
    assert_eq!(both.iter().map(|gap| gap.place.as_str()).collect::<Vec<_>>(), ["etc/almalinux-release"]);
    world.image = honest;
    assert_eq!(world.canned(world.report(), Ended::Exit(0)).unwrap().scan.coverage.unread, vec![]);
}

/// With the real Trivy: it needs nothing of the database to know packages, and its own settings in an output are no settings.
#[test]
fn the_real_trivy_knows_the_packages_of_an_output() {
    let world = World::new();
    let Some(config) = world.with_real_trivy() else { return };
    let scanner = TrivyScanner::new(config);
    let names = |entries: Vec<TestEntry>| {
        let has_archive = entries.iter().any(|entry| entry.path().ends_with(".jar"));
        let image = TestImage::new(&[entries]);
        let OutputReport { inventory: found, scan } = scanner.output(image.path(), &image.digest).unwrap();
        assert_eq!(scan.is_none(), has_archive, "without a database of archives there is no scan of one");
        found.packages.into_iter().map(|package| package.name).collect::<Vec<_>>()
    };
    let h11 = || file("site/h11-0.16.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: h11\nVersion: 0.16.0\n\n");
    assert_eq!(names(vec![h11()]), ["h11"]);
    assert_eq!(
        names(vec![h11(), file(".trivyignore", b"*\n"), file("trivy.yaml", b"scan: {skip-files: ['**']}\n")]),
        ["h11"]
    );
    assert_eq!(names(vec![h11(), file("app.jar", b"PK no archive")]), ["h11"], "Java archives are not opened");
    assert_eq!(names(vec![file("shop", b"\x7fELF no more of it")]), [] as [&str; 0]);
    assert_eq!(names(Vec::new()), [] as [&str; 0]);
}

#[test]
fn a_scan_that_is_stopped_says_so_and_begins_nothing_more() {
    let world = World::new();
    let stopped = world.canned(world.report(), Ended::Stopped).unwrap_err();
    assert!(matches!(stopped, ScanError::Stopped), "{stopped}");
    let sandbox = Arc::new(Canned { report: world.report(), ended: Ended::Exit(0), runs: AtomicUsize::new(0) });
    for raised in [true, false] {
        let stop = Stop::default();
        if raised {
            stop.raise();
        }
        let scanner = TrivyScanner::new(world.config(sandbox.clone())).stopped_by(stop);
        let scan = scanner.scan(world.image.path(), &world.image.digest);
        assert_eq!(matches!(scan, Err(ScanError::Stopped)), raised);
        assert_eq!(sandbox.runs.load(Ordering::Relaxed) == 0, raised);
    }
}
