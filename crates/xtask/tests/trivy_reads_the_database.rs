//! The real Trivy reads the database that this crate writes and finds what is in it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::json::Json;

/// Trivy, or nothing where none is named and nobody demands it. One that is named has to be there.
fn trivy() -> Option<PathBuf> {
    let Some(named) = std::env::var_os("SLUICEGATE_TRIVY").map(PathBuf::from) else {
        let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
        assert!(!demanded, "Trivy is missing: cargo xtask setup installs it");
        eprintln!("skipped: SLUICEGATE_TRIVY names no Trivy; cargo xtask test sets it");
        return None;
    };
    assert!(named.is_file(), "SLUICEGATE_TRIVY names {}, which is no file", named.display());
    Some(named)
}

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What Trivy finds in a small Debian 12 root folder that holds h11 in the given version: (id, package, severity, status, fixed version).
fn findings(trivy: &Path, folder: &Path, h11: &str) -> Vec<[String; 5]> {
    xtask::advisory_db::write(&folder.join("cache/db"), 1_800_000_000).unwrap();
    let root = folder.join("root");
    put(
        &root,
        "etc/os-release",
        "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
    );
    put(&root, "etc/debian_version", "12.11\n");
    let status = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\n\n\
                  Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: 3.0.16-1~deb12u1\n\n";
    put(&root, "var/lib/dpkg/status", status);
    let metadata = format!("Metadata-Version: 2.1\nName: h11\nVersion: {h11}\nLicense: MIT\n");
    put(&root, &format!("opt/shop/site-packages/h11-{h11}.dist-info/METADATA"), &metadata);
    let report = folder.join("report.json");
    let status = Command::new(trivy)
        .args(["rootfs", "--scanners", "vuln", "--skip-db-update", "--offline-scan", "--skip-version-check", "--quiet"])
        .args(["--format", "json", "--cache-backend", "memory", "--output"])
        .arg(&report)
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .arg(&root)
        .status()
        .unwrap();
    assert!(status.success());
    let report = Json::parse(&fs::read_to_string(report).unwrap()).unwrap();
    let text = |finding: &Json, key: &str| finding.get(key).as_text().unwrap_or_default().to_owned();
    let mut found: Vec<_> = report
        .get("Results")
        .list()
        .iter()
        .flat_map(|result| result.get("Vulnerabilities").list())
        .map(|finding| {
            ["VulnerabilityID", "PkgName", "Severity", "Status", "FixedVersion"].map(|key| text(finding, key))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn trivy_finds_the_vulnerable_library_and_not_the_fixed_one() {
    let Some(trivy) = trivy() else { return };
    let folder = std::env::temp_dir().join(format!("xtask-trivy-{}", std::process::id()));
    let owned = |finding: [&str; 5]| finding.map(str::to_owned);
    let system = [
        owned(["CVE-2023-45853", "zlib1g", "CRITICAL", "will_not_fix", ""]),
        owned(["CVE-2025-9230", "libssl3", "MEDIUM", "fixed", "3.0.17-1~deb12u3"]),
    ];
    let h11 = owned(["CVE-2025-43859", "h11", "CRITICAL", "fixed", "0.16.0"]);

    let vulnerable = findings(&trivy, &folder.join("vulnerable"), "0.14.0");
    let fixed = findings(&trivy, &folder.join("fixed"), "0.16.0");

    assert_eq!(vulnerable, [system[0].clone(), h11, system[1].clone()]);
    assert_eq!(fixed, system);
    fs::remove_dir_all(&folder).unwrap();
}
