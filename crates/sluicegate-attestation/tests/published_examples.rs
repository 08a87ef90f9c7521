//! The examples of the folder `attestations` are what the code reads and writes today: each valid one is read, and each invalid one
//! that the code must refuse is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{fs, path::PathBuf};

use serde_json::Value;
use sluicegate_attestation::{
    cyclonedx,
    output_sbom::{FileEntry, ITSELF, Inventory, KnownPackage, output_sbom},
    provenance::Provenance,
    runtime_trace::RuntimeTrace,
    summary::{Basis, PromotionClaim, SummaryClaim},
    test_result::TestResult,
    vulns::Vulns,
};
use sluicegate_types::{Content, ContentKind, Digest};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../attestations").join(name)
}

/// The examples of a folder by name, with the predicate of each: some hold a whole statement.
fn examples(name: &str) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let predicate = if document["predicateType"].is_string() { document["predicate"].clone() } else { document };
        out.push((path.file_name().unwrap().to_string_lossy().into_owned(), predicate));
    }
    assert!(!out.is_empty(), "{name} holds no example");
    out
}

fn reads(kind: &str, predicate: &Value) -> Result<(), String> {
    match kind {
        "provenance" => Provenance::parse(predicate).map(drop).map_err(|e| e.to_string()),
        "vulns" => Vulns::parse(predicate).map(drop).map_err(|e| e.to_string()),
        "test-result" => bears_out(predicate),
        "runtime-trace" => RuntimeTrace::parse(predicate).map(drop).map_err(|e| e.to_string()),
        "verification-summary" => SummaryClaim::parse(predicate).map(drop).map_err(|e| e.to_string()),
        "promotion" => PromotionClaim::parse(predicate).map(drop).map_err(|e| e.to_string()),
        "sbom" => cyclonedx::components(predicate.to_string().as_bytes()).map(drop).map_err(|e| e.to_string()),
        other => panic!("no reader for {other}"),
    }
}

/// A test result is read together with the report that it names by digest, one of the folder `reports`.
fn bears_out(predicate: &Value) -> Result<(), String> {
    let claim = TestResult::parse(predicate).map_err(|e| e.to_string())?;
    let mut reports =
        fs::read_dir(folder("test-result/reports")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
    let report = reports.find(|bytes| Digest::of(bytes) == claim.report).unwrap();
    claim.check(&report).map(drop).map_err(|e| e.to_string())
}

#[test]
fn every_valid_example_is_read() {
    for kind in ["provenance", "vulns", "test-result", "runtime-trace", "verification-summary", "promotion", "sbom"] {
        for (name, predicate) in examples(&format!("{kind}/valid")) {
            reads(kind, &predicate).unwrap_or_else(|error| panic!("{kind}/valid/{name}: {error}"));
        }
    }
}

#[test]
fn what_the_code_must_not_read_is_refused() {
    for (kind, name) in [
        ("provenance", "foreign-build-type.json"),
        ("provenance", "dependency-without-sha256.json"),
        ("provenance", "cache-with-a-digest.json"),
        ("provenance", "cache-left-out.json"),
        ("provenance", "image-without-files.json"),
        ("provenance", "unknown-parameter.json"),
        ("provenance", "time-without-zone.json"),
        ("vulns", "database-by-name.json"),
        ("vulns", "unknown-coverage-field.json"),
        ("vulns", "foreign-report.json"),
        ("vulns", "scanner-without-digest.json"),
        ("vulns", "without-report.json"),
        ("vulns", "without-coverage.json"),
        ("test-result", "passed-in-spite-of-failures.json"),
        ("test-result", "passed-without-an-executed-test.json"),
        ("test-result", "passed-although-the-step-failed.json"),
        ("test-result", "failures-left-out.json"),
        ("test-result", "other-names.json"),
        ("test-result", "without-report.json"),
        ("test-result", "without-attestation.json"),
        ("test-result", "attestation-of-another-step.json"),
        ("test-result", "report-by-name.json"),
        ("test-result", "foreign-report.json"),
        ("test-result", "warned.json"),
        ("test-result", "without-counts.json"),
        ("test-result", "unknown-field.json"),
        ("runtime-trace", "event-of-another-step.json"),
        ("runtime-trace", "foreign-monitor.json"),
        ("runtime-trace", "neither-seen-nor-unavailable.json"),
        ("runtime-trace", "not-sorted.json"),
        ("runtime-trace", "only-processes.json"),
        ("runtime-trace", "path-by-name.json"),
        ("runtime-trace", "port-zero.json"),
        ("runtime-trace", "relative-path.json"),
        ("runtime-trace", "unavailable-with-a-list.json"),
        ("runtime-trace", "unknown-field.json"),
        ("runtime-trace", "without-blind.json"),
        ("runtime-trace", "without-lost.json"),
        ("verification-summary", "without-expiry.json"),
        ("verification-summary", "ledger-without-root.json"),
        ("verification-summary", "ledger-size-as-text.json"),
        ("promotion", "without-basis.json"),
        ("promotion", "digest-with-algorithm.json"),
        ("promotion", "ledger-without-root.json"),
        ("promotion", "ledger-size-as-text.json"),
        ("sbom", "not-cyclonedx.json"),
    ] {
        let all = examples(&format!("{kind}/invalid"));
        let (_, predicate) =
            all.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {kind}/invalid/{name}"));
        assert!(reads(kind, predicate).is_err(), "{kind}/invalid/{name} was read");
    }
}

#[test]
fn the_sbom_of_an_output_is_the_published_one() {
    let file = |path: &str, bytes: &str| FileEntry {
        path: path.to_owned(),
        digest: Digest::of(bytes.as_bytes()),
        size: bytes.len() as u64,
        executable: false,
    };
    let directory = Content { kind: ContentKind::Directory, digest: Digest::of(b"the tar of build.site") };
    let libraries = Content { digest: Digest::of(b"the tar of build.libs"), ..directory };
    let executable = Content { kind: ContentKind::File, digest: Digest::of(b"an executable") };
    let files = [file("static/shop.css", "p {}"), file("index.html", "<p>shop</p>")];
    let metadata = "h11-0.16.0.dist-info/METADATA";
    let installed = [file(metadata, "Name: h11"), file("h11/__init__.py", "import h11")];
    let h11 = KnownPackage {
        name: "h11".to_owned(),
        version: "0.16.0".to_owned(),
        purl: Some("pkg:pypi/h11@0.16.0".to_owned()),
        licenses: ["MIT".to_owned()].into(),
        places: [metadata.to_owned()].into(),
    };
    let inventory = Inventory {
        scanner: "trivy".to_owned(),
        version: "0.76.0".to_owned(),
        digest: Digest::of(b"the executable of trivy"),
        packages: [h11].into(),
        left_out: 3,
    };
    for (example, written) in [
        ("directory-output.json", output_sbom("build.site", directory, None, &files)),
        ("file-output.json", output_sbom("build.shop", executable, None, &[file(ITSELF, "an executable")])),
        ("output-with-package.json", output_sbom("build.libs", libraries, Some(&inventory), &installed)),
    ] {
        let all = examples("sbom/valid");
        assert_eq!(all.iter().find(|(name, _)| name == example).unwrap().1, written);
    }
}

/// What fsck and whoever demands a promotion go by is in every example, and reads as it is written.
#[test]
fn the_examples_say_how_far_the_ledger_was() {
    for (name, predicate) in examples("verification-summary/valid") {
        let head = SummaryClaim::parse(&predicate).unwrap().ledger.unwrap_or_else(|| panic!("{name} has no ledger"));
        assert_eq!(predicate["sluicegate_ledger"]["size"], head.size);
        assert_eq!(predicate["sluicegate_ledger"]["root"]["sha256"], head.root.hex());
    }
    for (name, predicate) in examples("promotion/valid") {
        let claim = PromotionClaim::parse(&predicate).unwrap();
        let head = claim.ledger.unwrap_or_else(|| panic!("{name} has no ledger"));
        assert_eq!(predicate["sluicegate_ledger"]["origin"], head.origin);
        if let Basis::Decision(decision) = claim.basis {
            assert_eq!(predicate["sluicegate_basis"]["sha256"], decision.hex());
        }
    }
}
