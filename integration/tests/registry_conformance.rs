//! The conformance suite of the OCI distribution specification is the judge of the testkit's registry: what other tests say about a push
//! or a pull is worth as much as the registry that they met.

use std::{fs, path::Path, process::Command};

use integration::peer;
use sluicegate_testkit::{Behaviour, TestRegistry};

/// What the suite leaves out unless it is told, with values that let it ask for them.
const OPTIONAL: [&str; 5] = [
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_DATA_SPARSE",
];

#[test]
fn the_honest_registry_conforms() {
    let Some(suite) = peer("SLUICEGATE_OCI_CONFORMANCE", "the_honest_registry_conforms") else { return };
    let counts = judge(&suite, Behaviour::default(), &[]);
    assert!(counts.passed >= 850 && counts.listed >= 690 && counts.skipped == 0, "{counts:?}");
}

#[test]
fn the_registry_conforms_in_all_that_is_optional() {
    let Some(suite) = peer("SLUICEGATE_OCI_CONFORMANCE", "the_registry_conforms_in_all_that_is_optional") else {
        return;
    };
    let counts = judge(&suite, Behaviour { sparse: true, ..Behaviour::default() }, &OPTIONAL);
    assert!(counts.passed >= 1020 && counts.skipped == 0, "{counts:?}");
}

#[test]
fn the_registry_conforms_where_behaviours_are_only_other_ways_to_conform() {
    let test = "the_registry_conforms_where_behaviours_are_only_other_ways_to_conform";
    let Some(suite) = peer("SLUICEGATE_OCI_CONFORMANCE", test) else { return };
    for words in ["absolute,nodigest,immutable", "basic,user=user:word", "auth,user=user:word,access-only,uses=3"] {
        let counts = judge(&suite, words.parse().unwrap(), &[]);
        assert!(counts.passed >= 840, "{words}: {counts:?}");
    }
}

#[derive(Debug)]
struct Counts {
    passed: usize,
    listed: usize,
    skipped: usize,
}

/// What the suite says about a registry; that it finds a fault is a failure.
fn judge(suite: &Path, behaviour: Behaviour, switches: &[&str]) -> Counts {
    let words = format!("{behaviour:?}");
    let registry = TestRegistry::start(behaviour);
    let folder = tempfile::tempdir().unwrap();
    // It reads a file of the current folder, and variables.
    let output = Command::new(suite)
        .current_dir(&folder)
        .env_clear()
        .envs([("OCI_REGISTRY", registry.host().as_str()), ("OCI_TLS", "disabled"), ("OCI_VERSION", "1.1")])
        .envs([("OCI_REPO1", "conformance/repo1"), ("OCI_REPO2", "conformance/repo2")])
        .envs([("OCI_USERNAME", "user"), ("OCI_PASSWORD", "word"), ("OCI_RESULTS_DIR", "results")])
        .envs(switches.iter().map(|switch| (switch, "true")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let faults: Vec<_> = said.lines().filter(|line| line.contains("FAIL") || line.contains("Error")).collect();
    assert_eq!(output.status.code(), Some(0), "{words}: {faults:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read_to_string(folder.path().join("results/junit.xml")).unwrap();
    let cases = |status: &str| report.matches(&format!(r#" status="{status}""#)).count();
    assert_eq!((cases("failure"), cases("error")), (0, 0), "{words}: {faults:#?}");
    // The sums count more than the cases that are listed: one case can be about an interface and about data.
    let sums = report.lines().find(|line| line.starts_with("<testsuites ")).unwrap();
    let sum = |name: &str| {
        let value = sums.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next());
        value.map_or(0, |value| value.parse::<usize>().unwrap())
    };
    assert_eq!((sum("failures"), sum("errors")), (0, 0), "{words}: {sums}");
    Counts { passed: sum("tests") - sum("skipped") - sum("disabled"), listed: cases("passed"), skipped: sum("skipped") }
}
