//! The policies we ship, under our engine and, where SLUICEGATE_OPA names the program, under OPA itself.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sluicegate_policy::{
    rego::{EvaluationLimits, EvaluationRequest, Outcome, RuleResults, SourceFile, evaluate, is_test, rules},
    rego_tests,
    shipped::SHIPPED,
};

const IMAGE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const BASE: &str = "3333333333333333333333333333333333333333333333333333333333333333";
const REPOSITORY: &str = "https://git.example/shop";
const BUILDER: &str = "https://sluicegate.dev/builder/local@v1";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn shipped() -> Vec<SourceFile> {
    SHIPPED
        .iter()
        .filter(|file| file.name.ends_with(".rego"))
        .map(|file| SourceFile { name: format!("policies/{}", file.name), text: file.text.to_owned() })
        .collect()
}

/// Slow machines test debug builds: what is measured here is the answer, not the time.
fn patient() -> EvaluationLimits {
    EvaluationLimits { milliseconds: 60_000, ..EvaluationLimits::default() }
}

fn data() -> Value {
    json!({"sluicegate": {
        "allowed_builders": [{"builder_id": BUILDER, "signer": "builder"}],
        "allowed_base_images": [format!("sha256:{BASE}")],
        "source": {"repositories": [REPOSITORY], "refs": ["refs/heads/main"]},
    }})
}

fn good_facts() -> Value {
    json!({
        "subject": {"name": "shop", "digest": IMAGE},
        "target": {"environment": "production", "repository": "registry.example/prod/shop"},
        "now": "2026-11-25T00:00:00Z",
        "attestations": [{
            "predicateType": "https://slsa.dev/provenance/v1",
            "digest": "sha256:aaaa",
            "subjects": [{"name": "shop", "digest": IMAGE}],
            "predicate": {
                "buildDefinition": {
                    "externalParameters": {"base": "debian:12"},
                    "resolvedDependencies": [{"name": "base", "digest": {"sha256": BASE}}],
                },
                "runDetails": {"builder": {"id": BUILDER}},
            },
            "signer": {"kind": "key", "keyId": "sha256:bbbb", "name": "builder"},
            "log": {"index": 0, "origin": "log.example"},
        }, {
            "predicateType": "https://slsa.dev/provenance/v1",
            "digest": "sha256:cccc",
            "subjects": [{"name": "build.shop", "digest": format!("sha256:{BASE}")}],
            "predicate": {
                "buildDefinition": {
                    "buildType": "https://sluicegate.dev/step/v1",
                    "externalParameters": {"step": "build", "network": "none"},
                    "resolvedDependencies": [{
                        "name": "source:shop",
                        "digest": {"sha256": BASE},
                        "annotations": {
                            "sluicegate.dev/commit": "c0ffee",
                            "sluicegate.dev/repository": REPOSITORY,
                            "sluicegate.dev/ref": "refs/heads/main",
                        },
                    }],
                },
                "runDetails": {"builder": {"id": BUILDER}},
            },
            "signer": {"kind": "key", "keyId": "sha256:bbbb", "name": "builder"},
            "log": {"index": 1, "origin": "log.example"},
        }, {
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "digest": "sha256:dddd",
            "subjects": [{"name": "source:shop", "digest": format!("sha256:{BASE}")}],
            "predicate": {
                "result": "PASSED",
                "passedTests": ["shop.adds"],
                "failedTests": [],
                "sluicegate_counts": {"passed": 1, "failed": 0, "errors": 0, "skipped": 0},
                "sluicegate_step": "test",
                "sluicegate_exit_code": 0,
            },
            "signer": {"kind": "key", "keyId": "sha256:bbbb", "name": "builder"},
            "log": {"index": 2, "origin": "log.example"},
        }],
        "sbom": {"components": []},
        "vulnerabilities": [
            {"id": "CVE-1", "severity": "HIGH", "package": "a", "installed": "1", "fixed": "2"},
            {"id": "CVE-2", "severity": "CRITICAL", "package": "a", "installed": "1"},
        ],
        "scan": {"tool": "trivy", "version": "0.76.0", "databases": [], "coverage": {"read": [], "unread": []}},
    })
}

fn bad_facts() -> Value {
    let mut facts = good_facts();
    facts["attestations"][0]["signer"]["name"] = json!("recorder");
    facts["attestations"][0]["predicate"]["buildDefinition"]["resolvedDependencies"] = json!([]);
    facts["attestations"][1]["predicate"]["buildDefinition"]["resolvedDependencies"][0]["annotations"]["sluicegate.dev/repository"] =
        json!("https://git.example/other");
    facts["attestations"][1]["predicate"]["buildDefinition"]["externalParameters"] =
        json!({"step": "build", "network": "host", "caches": {"deps": "/cache"}});
    facts["attestations"][2]["predicate"]["result"] = json!("FAILED");
    facts["attestations"][2]["predicate"]["failedTests"] = json!(["shop.adds"]);
    facts["attestations"][2]["predicate"]["sluicegate_counts"]["failed"] = json!(1);
    facts["vulnerabilities"][1]["fixed"] = json!("2");
    facts["vulnerabilities"][0]["severity"] = json!("Serious");
    facts
}

fn unverified_facts() -> Value {
    let mut facts = good_facts();
    facts["attestations"][1]["predicate"]["buildDefinition"]["resolvedDependencies"][0]["annotations"] =
        json!({"sluicegate.dev/commit-unverified": "c0ffee", "sluicegate.dev/dirty": "false"});
    facts
}

/// A step that does not say what it could reach, in the provenance of no executor of ours.
fn unsaid_facts() -> Value {
    let mut facts = good_facts();
    facts["attestations"][1]["predicate"]["buildDefinition"]["externalParameters"] = json!({"step": "build"});
    facts
}

fn ask(facts: &Value) -> RuleResults {
    let request = EvaluationRequest {
        policies: shipped(),
        data: vec![SourceFile { name: "data.json".into(), text: data().to_string() }],
        input: serde_json::value::to_raw_value(facts).unwrap(),
    };
    evaluate(&request, &patient()).unwrap()
}

fn passed(results: &RuleResults) -> BTreeSet<String> {
    results
        .answers
        .iter()
        .filter(|answer| answer.outcome == Outcome::Pass)
        .map(|answer| answer.rule.code.clone())
        .collect()
}

/// Code and message of every denial.
fn denied(results: &RuleResults) -> BTreeSet<(String, String)> {
    results
        .answers
        .iter()
        .filter_map(|answer| match &answer.outcome {
            Outcome::Deny(violations) => Some((answer, violations)),
            _ => None,
        })
        .flat_map(|(answer, violations)| violations.iter().map(|v| (answer.rule.code.clone(), v.msg.clone())))
        .collect()
}

fn run_tests(files: &[SourceFile]) -> Result<Vec<rego_tests::RegoTest>, sluicegate_policy::rego::PolicyError> {
    let request = rego_tests::TestRequest { files: files.to_vec(), ..Default::default() };
    rego_tests::run(&request, &patient()).map(|results| results.tests)
}

#[test]
fn every_file_of_the_folder_is_shipped() {
    let mut found: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let names: Vec<_> = SHIPPED.iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(found, names);
}

#[test]
fn every_policy_has_tests_beside_it_and_all_are_true() {
    let files = shipped();
    let names: BTreeSet<_> = files.iter().map(|file| file.name.as_str()).collect();
    for name in names.iter().filter(|name| !is_test(name)) {
        let test = name.replace(".rego", "_test.rego");
        assert!(names.contains(test.as_str()), "{name} has no {test}");
    }
    let tests = run_tests(&files).unwrap();
    let failed: Vec<_> = tests.iter().filter(|test| test.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(tests.len() >= 53, "{}", tests.len());
}

#[test]
fn the_page_names_every_code() {
    let page = SHIPPED.iter().find(|file| file.name == "README.md").unwrap().text;
    for rule in rules(&shipped()).unwrap() {
        assert!(page.contains(&format!("`{}`", rule.code)), "{}", rule.code);
    }
}

#[test]
fn the_example_of_the_page_is_a_rule_that_answers() {
    let page = SHIPPED.iter().find(|file| file.name == "README.md").unwrap().text;
    let example = page.split("```rego\n").nth(1).unwrap().split("```").next().unwrap();
    for (licence, passes) in [("MIT", true), ("Other", false)] {
        let component = json!({"name": "a", "purl": "pkg:generic/a@1", "licenses": [licence]});
        let request = EvaluationRequest {
            policies: vec![SourceFile { name: "licences.rego".into(), text: example.to_owned() }],
            data: vec![SourceFile { name: "data.yaml".into(), text: "licences_allowed: [MIT]".into() }],
            input: serde_json::value::to_raw_value(&json!({"sbom": {"components": [component]}})).unwrap(),
        };
        let results = evaluate(&request, &patient()).unwrap();
        assert_eq!(results.answers[0].rule.code, "licences.allowed");
        assert_eq!(results.answers[0].outcome == Outcome::Pass, passes);
        assert_eq!(matches!(results.answers[0].outcome, Outcome::Deny(_)), !passes);
    }
}

#[test]
fn good_facts_pass_every_rule() {
    let results = ask(&good_facts());
    assert_eq!(
        passed(&results).into_iter().collect::<Vec<_>>(),
        [
            "base_image.allowed",
            "hermetic.caches",
            "hermetic.network",
            "provenance.builder_and_signer",
            "source.resolved",
            "tests.passed",
            "vulnerabilities.no_fixable_critical"
        ]
    );
    let rule = &results.answers[6];
    assert_eq!(rule.rule.title, "No critical vulnerability that has a fix");
    assert_eq!(rule.rule.requires, ["https://in-toto.io/attestation/vulns/v0.2"]);
    assert_eq!(rule.rule.file, "policies/vulnerabilities.rego");
    let line = SHIPPED.iter().find(|file| file.name == "vulnerabilities.rego").unwrap().text;
    assert_eq!(line.lines().nth(rule.rule.line as usize - 1).unwrap(), "pass contains code if {");
}

#[test]
fn bad_facts_are_denied_with_what_where_and_how() {
    let results = ask(&bad_facts());
    assert_eq!(passed(&results), BTreeSet::new());
    let denials = denied(&results);
    assert_eq!(denials.len(), 8, "{denials:#?}");
    let messages: Vec<_> = denials.iter().map(|(_, message)| message.as_str()).collect();
    assert!(messages.contains(&"a 1: CVE-2 (CRITICAL); update to 2"), "{messages:#?}");
    let failed = "the step test: 1 test did not pass: shop.adds (test result sha256:dddd)";
    assert!(messages.contains(&failed), "{messages:#?}");
    assert!(messages.iter().any(|message| message.contains("https://git.example/other")), "{messages:#?}");
    assert!(messages.iter().any(|message| message.contains("was signed by \"recorder\"")), "{messages:#?}");
    for violation in results.answers.iter().flat_map(|answer| match &answer.outcome {
        Outcome::Deny(violations) => violations.as_slice(),
        _ => &[],
    }) {
        let (file, line) = violation.clause.as_deref().unwrap().rsplit_once(':').unwrap();
        let file = SHIPPED.iter().find(|shipped| file.ends_with(shipped.name)).unwrap();
        let clause: Vec<&str> = file.text.lines().skip(line.parse::<usize>().unwrap() - 1).take(20).collect();
        assert!(clause[0].starts_with("deny contains "), "{clause:?}");
        // The clause's own words are those of the denial, unless it writes all of them anew.
        if violation.msg.contains("CVE-") {
            continue;
        }
        let words: Vec<&str> = violation.msg.split(' ').filter(|word| word.len() > 3).collect();
        assert!(
            words.iter().any(|word| clause.iter().any(|line| line.contains(word))),
            "{}: {clause:?}",
            violation.msg
        );
    }
}

#[test]
fn a_commit_that_nobody_verified_leaves_the_source_rule_and_only_that_one_without_an_answer() {
    let results = ask(&unverified_facts());
    let silent: Vec<_> =
        results.answers.iter().filter(|a| a.outcome == Outcome::Silent).map(|a| a.rule.code.as_str()).collect();
    assert_eq!(silent, ["source.resolved"]);
    assert_eq!(passed(&results).len(), results.answers.len() - 1);
}

#[test]
fn tm08_a_network_that_nobody_named_leaves_its_rule_and_only_that_one_without_an_answer() {
    let results = ask(&unsaid_facts());
    let silent: Vec<_> =
        results.answers.iter().filter(|a| a.outcome == Outcome::Silent).map(|a| a.rule.code.as_str()).collect();
    assert_eq!(silent, ["hermetic.network"]);
    assert_eq!(passed(&results).len(), results.answers.len() - 1);
}

#[test]
fn no_facts_at_all_are_denied_by_every_rule() {
    for data in [json!({}), json!({"sluicegate": null}), json!({"sluicegate": {"allowed_builders": "*"}})] {
        let request = EvaluationRequest {
            policies: shipped(),
            data: vec![SourceFile { name: "data.json".into(), text: data.to_string() }],
            input: serde_json::value::to_raw_value(&json!({})).unwrap(),
        };
        let results = evaluate(&request, &patient()).unwrap();
        assert!(results.answers.iter().all(|answer| matches!(answer.outcome, Outcome::Deny(_))), "{results:#?}");
    }
}

#[test]
fn opa_runs_the_tests_with_the_same_result() {
    let Some(opa) = opa() else { return };
    let output = Command::new(opa).args(["test", "--format=json"]).arg(folder()).stdin(Stdio::null()).output().unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let theirs: BTreeSet<_> = found
        .iter()
        .map(|test| {
            let package = test["package"].as_str().unwrap().trim_start_matches("data.");
            (format!("{package}.{}", test["name"].as_str().unwrap()), test["fail"] != true && test["error"].is_null())
        })
        .collect();
    let ours: BTreeSet<_> =
        run_tests(&shipped()).unwrap().into_iter().map(|test| (test.name, test.failure.is_none())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn opa_gives_the_same_answers() {
    let Some(opa) = opa() else { return };
    for facts in [good_facts(), bad_facts(), unverified_facts(), unsaid_facts(), json!({})] {
        let query = format!(
            "answers := [data.base_image, data.hermetic, data.provenance, data.source, data.tests, data.vulnerabilities] with data.sluicegate as {}",
            data()["sluicegate"]
        );
        let mut child = Command::new(&opa)
            .args(["eval", "--format=json", "--stdin-input", "--data"])
            .arg(folder())
            .arg(query)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(facts.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = said["result"][0]["bindings"]["answers"].as_array().unwrap();
        let members =
            |name: &str| packages.iter().flat_map(|package| package[name].as_array().unwrap()).collect::<Vec<_>>();
        let their_passed = members("pass").iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        let their_denied = members("deny")
            .iter()
            .map(|v| (v["code"].as_str().unwrap().to_owned(), v["msg"].as_str().unwrap().to_owned()))
            .collect();
        let ours = ask(&facts);
        assert_eq!(passed(&ours), their_passed);
        assert_eq!(denied(&ours), their_denied);
    }
}

/// OPA itself, where the environment names it.
fn opa() -> Option<PathBuf> {
    let found = env::var_os("SLUICEGATE_OPA").map(PathBuf::from);
    if found.is_none() {
        assert!(
            env::var_os("SLUICEGATE_REQUIRE_PEERS").is_none(),
            "SLUICEGATE_OPA names no opa, and peers are demanded"
        );
        // Straight to standard error, because the harness hides what a passing test prints.
        let line = "skipped: SLUICEGATE_OPA does not name an opa program, so nothing was compared with it\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}
