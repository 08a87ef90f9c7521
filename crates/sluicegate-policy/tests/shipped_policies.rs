//! The policies we ship, under our engine and, where SLUICEGATE_OPA names the program, under OPA itself.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sluicegate_policy::{
    rego::{EvaluationLimits, EvaluationRequest, Outcome, Policies, RuleResults, SourceFile, evaluate, is_test, rules},
    rego_tests,
    shipped::SHIPPED,
};

use crate::beside_opa::{Random, opa};

const BASE: &str = "3333333333333333333333333333333333333333333333333333333333333333";

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

/// What a gate might compare with.
fn data() -> Value {
    serde_json::from_str(include_str!("facts/data.json")).unwrap()
}

/// Facts about an image of two steps that every rule passes.
fn good_facts() -> Value {
    serde_json::from_str(include_str!("facts/facts.json")).unwrap()
}

fn dependencies(facts: &mut Value, statement: usize) -> &mut Value {
    &mut facts["attestations"][statement]["predicate"]["buildDefinition"]["resolvedDependencies"]
}

fn parameters(facts: &mut Value, statement: usize) -> &mut Value {
    &mut facts["attestations"][statement]["predicate"]["buildDefinition"]["externalParameters"]
}

/// One fault for each rule.
fn bad_facts() -> Value {
    let mut facts = good_facts();
    facts["attestations"][0]["signer"]["name"] = json!("recorder");
    facts["attestations"][0]["predicate"]["runDetails"]["builder"] = json!({"id": "https://builder.example"});
    dependencies(&mut facts, 0)[0]["digest"]["sha256"] = json!("4".repeat(64));
    parameters(&mut facts, 0)["base"] = json!("elsewhere.example/debian:12");
    dependencies(&mut facts, 1)[0]["annotations"]["sluicegate.dev/repository"] = json!("https://git.example/other");
    parameters(&mut facts, 1)["network"] = json!("host");
    parameters(&mut facts, 1)["caches"] = json!({"deps": "/cache"});
    parameters(&mut facts, 2)["step"] = json!("check");
    facts["attestations"][3]["predicate"]["result"] = json!("FAILED");
    facts["attestations"][3]["predicate"]["failedTests"] = json!(["shop.adds"]);
    facts["attestations"][3]["predicate"]["sluicegate_counts"]["failed"] = json!(1);
    facts["attestations"][4]["subjects"][0]["digest"] = json!(format!("sha256:{BASE}"));
    facts["sbom"]["components"][1]["version"] = json!("");
    facts["sbom"]["components"][1]["licenseOptions"] = json!([["GPL-3.0-only"]]);
    facts["sbom"]["components"][2]["purl"] = json!("pkg:cargo/openssl@1.0.0");
    facts["sbom"]["components"][2]["supplier"] = json!("");
    facts["sbom"]["components"][0]["purl"] = json!("pkg:deb/debian/openssl@3");
    facts["vulnerabilities"][0]["published"] = json!("2026-01-01T00:00:00Z");
    facts["vulnerabilities"][1]["fixed"] = json!("1.2.14");
    facts["vulnerabilities"][2]["severity"] = json!("Serious");
    facts["attestations"][6]["signer"]["name"] = json!("recorder");
    facts["scan"]["coverage"]["system"]["ended"] = json!(true);
    facts
}

fn unverified_facts() -> Value {
    let mut facts = good_facts();
    dependencies(&mut facts, 1)[0]["annotations"] =
        json!({"sluicegate.dev/commit-unverified": "c0ffee", "sluicegate.dev/dirty": "false"});
    facts
}

/// A step that does not say what it could reach, in the provenance of no executor of ours.
fn unsaid_facts() -> Value {
    let mut facts = good_facts();
    parameters(&mut facts, 1).as_object_mut().unwrap().remove("network").unwrap();
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
            "builder.allowed",
            "builder.version",
            "end_of_life.packages",
            "end_of_life.system",
            "hermetic.caches",
            "hermetic.network",
            "provenance.builder_and_signer",
            "registry.allowed",
            "sbom.banned",
            "sbom.complete",
            "sbom.licenses",
            "sbom.ntia",
            "sbom.present",
            "source.resolved",
            "steps.none_skipped",
            "steps.required",
            "tests.enough",
            "tests.passed",
            "vulnerabilities.age",
            "vulnerabilities.grace",
            "vulnerabilities.no_fixable_critical",
            "vulnerabilities.severity",
            "vulnerabilities.triaged"
        ]
    );
    let rule = results.answers.iter().find(|answer| answer.rule.code == "vulnerabilities.no_fixable_critical").unwrap();
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
    let codes: BTreeSet<_> = denials.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes.len(), results.answers.len(), "{denials:#?}");
    let messages: Vec<_> = denials.iter().map(|(_, message)| message.as_str()).collect();
    assert!(messages.contains(&"zlib1g 1.2.13: CVE-2026-2 (CRITICAL); update to 1.2.14"), "{messages:#?}");
    let failed = format!("the step test: 1 test did not pass: shop.adds (test result sha256:{})", "e".repeat(64));
    assert!(messages.contains(&failed.as_str()), "{messages:#?}");
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

/// A fault in one statement each, of which a refusal is made.
const FAULTS: [fn(&mut Value); 10] = [
    |facts| facts["attestations"][0]["signer"]["name"] = json!("recorder"),
    |facts| facts["attestations"][2]["predicate"]["runDetails"]["builder"]["id"] = json!("https://builder.example"),
    |facts| dependencies(facts, 0)[0]["digest"]["sha256"] = json!("4".repeat(64)),
    |facts| parameters(facts, 0)["base"] = json!("elsewhere.example/debian:12"),
    |facts| dependencies(facts, 1)[0]["annotations"]["sluicegate.dev/repository"] = json!("https://git.example/other"),
    |facts| parameters(facts, 1)["network"] = json!("host"),
    |facts| parameters(facts, 2)["caches"] = json!({"deps": "/cache"}),
    |facts| facts["attestations"][3]["predicate"]["result"] = json!("FAILED"),
    |facts| facts["attestations"][3]["predicate"]["sluicegate_counts"]["passed"] = json!(1),
    |facts| facts["attestations"][6]["predicate"]["statements"][0]["status"] = json!("affected"),
];

/// What somebody may put beside an image: true statements about something else, and a second one of what is there.
fn junk() -> Vec<Value> {
    let good = good_facts();
    let elsewhere = [0, 3, 4, 6].map(|index| {
        let mut statement = good["attestations"][index].clone();
        statement["digest"] = json!(format!("sha256:{}", "9".repeat(64)));
        statement["subjects"] = json!([{"name": "other", "digest": format!("sha256:{}", "9".repeat(64))}]);
        statement["signer"]["name"] = json!("stranger");
        statement
    });
    let own = json!({"predicateType": "https://example.com/note/v1", "digest": "sha256:00", "subjects": [], "predicate": {},
        "signer": {"name": "builder"}, "log": {"index": 9, "origin": "log.example"}});
    elsewhere.into_iter().chain([own, json!(null), json!({})]).collect()
}

/// The facts with these statements alone; an SBOM that is gone lists nothing.
fn only(facts: &Value, kept: u32) -> Value {
    let mut facts = facts.clone();
    let all = facts["attestations"].as_array().unwrap().clone();
    let left = all.into_iter().enumerate().filter(|(index, _)| kept & (1 << index) != 0);
    facts["attestations"] = left.map(|(_, statement)| statement).collect();
    if kept & (1 << 4) == 0 {
        facts["sbom"] = json!({"components": [], "documents": []});
    }
    facts
}

#[test]
fn no_subset_of_the_statements_and_nothing_added_makes_an_allow_of_a_refusal() {
    let files = [SourceFile { name: "data.json".into(), text: data().to_string() }];
    let mut policies = Policies::new(&shipped(), &files, &patient()).unwrap();
    let mut allows = |facts: &Value| {
        let read = policies.facts(&serde_json::value::to_raw_value(facts).unwrap()).unwrap();
        let results = policies.ask(&read).unwrap();
        results.answers.iter().all(|answer| answer.outcome == Outcome::Pass)
    };
    let junk = junk();
    let with = |facts: &Value, more: &[Value]| {
        let mut facts = facts.clone();
        facts["attestations"].as_array_mut().unwrap().extend(more.iter().cloned());
        facts
    };
    assert!(allows(&good_facts()));
    for (number, fault) in FAULTS.iter().enumerate() {
        let mut facts = good_facts();
        fault(&mut facts);
        let count = facts["attestations"].as_array().unwrap().len();
        for kept in 0..1 << count {
            assert!(!allows(&only(&facts, kept)), "fault {number}, only statements {kept:b}");
        }
        for (index, more) in junk.iter().enumerate() {
            assert!(!allows(&with(&facts, std::slice::from_ref(more))), "fault {number}, with junk {index}");
        }
        assert!(!allows(&with(&facts, &junk)), "fault {number}, with all the junk");
    }
    // What a gate takes in is what it trusts: a statement about another image keeps nothing out but by its builder.
    assert!(allows(&with(&good_facts(), &junk[4..5])));
}

/// What is compared with OPA's answers: codes that pass, and codes and messages of denials.
type Answers = (BTreeSet<String>, BTreeSet<(String, String)>);

#[test]
fn opa_gives_the_same_answers_about_300_generated_inputs() {
    let Some(opa) = opa() else { return };
    let mut cases = vec![(data(), vec![good_facts(), bad_facts(), unverified_facts(), unsaid_facts(), json!({})])];
    let mut random = Random(0x5eed);
    for variant in 0..15 {
        let compared = if variant < 5 { data() } else { mutated(&data(), 1 + variant / 5, &mut random) };
        let facts = (0..20).map(|round| mutated(&good_facts(), 1 + round / 5, &mut random)).collect();
        cases.push((compared, facts));
    }
    let theirs = opa_answers(&opa, &cases);
    let mut ours = Vec::new();
    for (compared, inputs) in &cases {
        let files = [SourceFile { name: "data.json".into(), text: compared.to_string() }];
        let mut policies = Policies::new(&shipped(), &files, &patient()).unwrap();
        for facts in inputs {
            let read = policies.facts(&serde_json::value::to_raw_value(facts).unwrap()).unwrap();
            let results = policies.ask(&read).unwrap();
            ours.push((passed(&results), denied(&results)));
        }
    }
    assert_eq!(ours.len(), 305);
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "case {index}");
    }
    assert_eq!(ours.len(), theirs.len());
    // Were the faults too small or too large, equal answers would say nothing.
    let different: BTreeSet<_> = ours.iter().collect();
    assert!(different.len() > 150, "{} different answers", different.len());
    for rule in rules(&shipped()).unwrap() {
        let passes = ours.iter().filter(|(passed, _)| passed.contains(&rule.code)).count();
        let denials = ours.iter().filter(|(_, denied)| denied.iter().any(|(code, _)| *code == rule.code)).count();
        assert!(passes > 50 && denials > 3, "{}: {passes} passes, {denials} denials", rule.code);
    }
}

/// What OPA says about each, in one process.
fn opa_answers(opa: &Path, cases: &[(Value, Vec<Value>)]) -> Vec<Answers> {
    let cases: Vec<Value> = cases
        .iter()
        .flat_map(|(compared, inputs)| inputs.iter().map(move |input| json!({"data": compared, "input": input})))
        .collect();
    let packages: BTreeSet<_> =
        rules(&shipped()).unwrap().iter().map(|rule| rule.code.split('.').next().unwrap().to_owned()).collect();
    let answers: Vec<_> = packages.iter().map(|package| format!("data.{package}")).collect();
    let query = format!(
        "[answers | some case in input; facts := case.input; compared := object.get(case.data, \"sluicegate\", {{}}); \
         answers := [{}] with input as facts with data.sluicegate as compared]",
        answers.join(", ")
    );
    let mut child = Command::new(opa)
        .args(["eval", "--format=json", "--stdin-input", "--data"])
        .arg(folder())
        .arg(query)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let cases = serde_json::to_vec(&cases).unwrap();
    let writer = std::thread::spawn(move || input.write_all(&cases));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = said["result"][0]["expressions"][0]["value"].as_array().unwrap();
    cases
        .iter()
        .map(|packages| {
            let packages = packages.as_array().unwrap();
            let members =
                |name: &str| packages.iter().flat_map(|package| package[name].as_array().unwrap()).collect::<Vec<_>>();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                members("pass").into_iter().map(text).collect(),
                members("deny").into_iter().map(|said| (text(&said["code"]), text(&said["msg"]))).collect(),
            )
        })
        .collect()
}

/// `value` with so many faults in places of chance: something is missing, is of another kind, or is what stands elsewhere.
fn mutated(value: &Value, faults: usize, random: &mut Random) -> Value {
    let mut value = value.clone();
    for _ in 0..faults {
        let mut pointers = Vec::new();
        collect_pointers(&value, "", &mut pointers);
        let pointer = random.of(&pointers).clone();
        let elsewhere = value.pointer(random.of(&pointers).as_str()).unwrap().clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = value.pointer_mut(parent).unwrap();
        let kinds =
            [json!(null), json!([]), json!({}), json!(""), json!(0), json!(7), json!("x"), json!(true), json!([null])];
        match (random.below(4), parent) {
            (0, Value::Object(members)) => drop(members.remove(&key)),
            (0, Value::Array(elements)) => drop(elements.remove(key.parse().unwrap())),
            (1, Value::Array(elements)) => elements.push(elements[key.parse::<usize>().unwrap()].clone()),
            (1 | 2, parent) => *child(parent, &key) = random.of(&kinds).clone(),
            (_, parent) => *child(parent, &key) = elsewhere,
        }
    }
    value
}

fn child<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    match parent {
        Value::Array(elements) => &mut elements[key.parse::<usize>().unwrap()],
        parent => &mut parent[key],
    }
}

/// The JSON pointers of everything in `value`.
fn collect_pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in children {
        let pointer = format!("{at}/{key}");
        collect_pointers(value, &pointer, found);
        found.push(pointer);
    }
}
