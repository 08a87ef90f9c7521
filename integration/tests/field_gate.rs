//! Field cases about the gate that others reported (`shared/field/gate.md`): Rego, data, scans, waivers. What each is expected to end with
//! stands in the inputs' own `expect.json`.

use std::{fs, path::PathBuf, process::Command};

use integration::{Ended, Layout, Project, ready, shared};
use serde_json::{Value, json};
use sluicegate_testkit::{Behaviour, TestRegistry, VirtualLog};

use crate::another_builder::{OTHER_LOG, project_of_another_builder, publish_proved, publish_proved_as};

/// The unpacked inputs.
struct Inputs {
    folder: tempfile::TempDir,
    expect: Value,
}

impl Inputs {
    /// `None` with a visible line, or a failure where peers are demanded.
    fn open(test: &str) -> Option<Self> {
        let archive = shared("field/gate.tar.gz", test)?;
        let folder = tempfile::tempdir().unwrap();
        let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status();
        assert!(unpacked.is_ok_and(|status| status.success()), "tar -xzf {}", archive.display());
        let expect = fs::read(folder.path().join("gate/expect.json")).unwrap();
        Some(Self { folder, expect: serde_json::from_slice(&expect).unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("gate").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn now(&self) -> String {
        self.expect["now"].as_str().unwrap().to_owned()
    }

    /// The lines of one id; at least one, so that a case that is gone is no success.
    fn of(&self, id: &str) -> Vec<Value> {
        let cases = self.expect["cases"].as_array().unwrap().iter();
        let of_id: Vec<Value> = cases.filter(|case| case["id"] == id).cloned().collect();
        assert!(!of_id.is_empty(), "no case {id}");
        of_id
    }
}

/// Holds what ended against a line of `expect.json`.
#[track_caller]
fn assert_expected(case: &Value, ended: &Ended) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    let allowed: Vec<i64> = case["exit"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    let code = i64::from(ended.code);
    assert!(allowed.is_empty() || allowed.contains(&code), "{case}\nended with {code}:\n{said}");
    for never in case["never_exit"].as_array().into_iter().flatten() {
        assert_ne!(Some(code), never.as_i64(), "{case}\n{said}");
    }
    for word in case["says"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(said.contains(word), "{case}\ndoes not say {word:?}:\n{said}");
    }
    assert!(code != 70 && code < 128, "{case}\n{said}");
}

/// `policy eval` of a case that names a policy, perhaps data, and facts.
fn evaluated(inputs: &Inputs, project: &Project, case: &Value) -> Ended {
    let mut arguments = vec!["policy".to_owned(), "eval".to_owned(), inputs.text(case["policy"].as_str().unwrap())];
    let data = match &case["data"] {
        Value::Array(several) => several.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    for file in data {
        arguments.extend(["--data".to_owned(), inputs.text(file.as_str().unwrap())]);
    }
    arguments.extend(["--input".to_owned(), inputs.text(case["input"].as_str().unwrap())]);
    project.sluicegate(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A gate over images that another builder proved: the field's one rule, its scanner database, its moment.
struct Gate {
    project: Project,
    log: VirtualLog,
    registry: TestRegistry,
}

impl Gate {
    fn new(inputs: &Inputs, database: &str) -> Self {
        let log = VirtualLog::new(OTHER_LOG);
        let project = project_of_another_builder(&log);
        fs::remove_file(project.path("policies/own.rego")).unwrap();
        fs::copy(inputs.path("rego/ground/release.rego"), project.path("policies/release.rego")).unwrap();
        let gate = Self { project, log, registry: TestRegistry::start(Behaviour::default()) };
        gate.use_database(&inputs.text(&format!("db/{database}")));
        gate
    }

    fn use_database(&self, folder: &str) {
        let text = fs::read_to_string(self.project.path("gateway.yaml")).unwrap();
        let (before, rest) = text.split_once("    db:").unwrap();
        let (_, after) = rest.split_once('}').unwrap();
        let db = format!("    db: {}", pinned(folder, "trivy.db"));
        fs::write(self.project.path("gateway.yaml"), format!("{before}{db}{after}")).unwrap();
    }

    /// The second database: in this folder, or none.
    fn use_java_database(&self, folder: Option<&str>) {
        let text = fs::read_to_string(self.project.path("gateway.yaml")).unwrap();
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.starts_with("    java_db:")).map(str::to_owned).collect();
        if let Some(folder) = folder {
            let at = lines.iter().position(|line| line.starts_with("    db:")).unwrap();
            lines.insert(at + 1, format!("    java_db: {}", pinned(folder, "trivy-java.db")));
        }
        fs::write(self.project.path("gateway.yaml"), lines.join("\n") + "\n").unwrap();
    }

    /// Proves the image of a layout and asks the gate about it.
    fn ask(&self, inputs: &Inputs, image: &str, at: &str) -> Ended {
        let reference = self.prove(inputs, image);
        self.project.sluicegate(&["promote", &reference, "--to", "production", "--effective-time", at])
    }

    fn prove(&self, inputs: &Inputs, image: &str) -> String {
        let digest = inputs.expect["digests"][image]["digest"].as_str().unwrap().to_owned();
        let layout = Layout::at(inputs.path("images").join(image));
        let bytes = fs::read(layout.blob(&digest)).unwrap();
        let read: Value = serde_json::from_slice(&bytes).unwrap();
        let media_type = read["mediaType"].as_str().unwrap().to_owned();
        match read["manifests"].as_array() {
            None => drop(publish_proved(&layout, (&media_type, bytes), &self.log, &self.registry)),
            Some(manifests) => {
                for child in manifests {
                    let child_type = child["mediaType"].as_str().unwrap();
                    let bytes = fs::read(layout.blob(child["digest"].as_str().unwrap())).unwrap();
                    publish_proved(&layout, (child_type, bytes), &self.log, &self.registry);
                }
                self.registry.put_manifest("build/tiny", "index", &media_type, &bytes);
            }
        }
        format!("{}/build/tiny@{digest}", self.registry.host())
    }
}

#[test]
fn ga_03_recognised_in_part() {
    let Some(inputs) = Inputs::open("ga_03_recognised_in_part") else { return };
    if !ready("ga_03_recognised_in_part") {
        return;
    }
    let gate = Gate::new(&inputs, "fresh");
    gate.ask(&inputs, "clean", &inputs.now()).assert(0, "WOULD BE ALLOWED");
    gate.ask(&inputs, "vulnerable", &inputs.now()).assert(1, "CVE-2099-0001");
    let mut reasons = Vec::new();
    for case in inputs.of("GA-03") {
        let image = case["image"].as_str().unwrap();
        let ended = gate.ask(&inputs, image, &inputs.now());
        assert_expected(&case, &ended);
        let said = ended.stdout;
        let says = match image {
            "no-os-mark" => "var/lib/dpkg/status",
            "no-package-db" => "debian",
            "end-of-life" => "support has ended",
            _ => "debian",
        };
        assert!(said.contains(says), "{image}: {said}");
        let told = said.lines().filter(|line| line.contains("not whole")).map(str::to_owned);
        reasons.push(told.collect::<Vec<_>>());
    }
    for (nth, reason) in reasons.iter().enumerate() {
        assert!(!reason.is_empty() && reasons.iter().skip(nth + 1).all(|other| other != reason), "{reasons:#?}");
    }
}

#[test]
fn ga_05_the_deny_that_is_a_map() {
    let Some(inputs) = Inputs::open("ga_05_the_deny_that_is_a_map") else { return };
    let project = Project::empty();
    for case in inputs.of("GA-05") {
        let ended = evaluated(&inputs, &project, &case);
        assert_expected(&case, &ended);
        assert!(ended.stdout.contains("release.rego:1"), "no line: {}", ended.stdout);
        let checked = project.sluicegate(&["policy", "check", &inputs.text(case["policy"].as_str().unwrap())]);
        checked.assert(1, "contains");
        // In part it is never read: with one of the findings waived it is as undecided as without.
        let waived = format!(
            "waivers:\n  - {{ code: gate.release.no_critical, term: CVE-2099-0001, digest: \"sha256:{}\", environment: production, owner: a, approver: b, reason: test, expires: 2026-12-01 }}\n",
            "1".repeat(64)
        );
        fs::write(project.path("waivers.yaml"), waived).unwrap();
        let (policy, input) =
            (inputs.text(case["policy"].as_str().unwrap()), inputs.text(case["input"].as_str().unwrap()));
        project
            .sluicegate(&["policy", "eval", &policy, "--input", &input, "--waivers", "waivers.yaml"])
            .assert(3, "UNDECIDED");
    }
    // The ground under it: the same waiver for one of three real findings leaves two.
    let (policy, input) = (inputs.text("rego/ground"), inputs.text("input/three-critical.json"));
    let left = project.sluicegate(&["policy", "eval", &policy, "--input", &input, "--waivers", "waivers.yaml"]);
    left.assert(1, "waived by waivers.yaml:2");
    assert_eq!(left.stdout.matches("gate.release.no_critical: critical (").count(), 2, "{}", left.stdout);
    // Elements that are no objects of known keys.
    for (name, deny) in [
        ("number", "deny contains n if some n in [1]"),
        (
            "object-in-it",
            "deny contains {\"code\": \"gate.release.no_critical\", \"msg\": \"m\", \"more\": {\"x\": 1}} if input.vulnerabilities",
        ),
        ("no-code", "deny contains {\"msg\": \"m\"} if input.vulnerabilities"),
    ] {
        let ground = fs::read_to_string(inputs.path("rego/ground/release.rego")).unwrap();
        fs::write(project.path("odd.rego"), format!("{ground}\n{deny}\n")).unwrap();
        let ended = project.sluicegate(&["policy", "eval", "odd.rego", "--input", &input]);
        assert_eq!(ended.code, 3, "{name}: {}", ended.stdout);
    }
}

#[test]
fn ga_06_switched_off_with_no() {
    let Some(inputs) = Inputs::open("ga_06_switched_off_with_no") else { return };
    let project = Project::empty();
    for case in inputs.of("GA-06") {
        if let Some(policy) = case["check"].as_str() {
            let data = inputs.text(case["data"].as_str().unwrap());
            let ended = project.sluicegate(&["policy", "check", &inputs.text(policy), "--data", &data]);
            assert_expected(&case, &ended);
            assert!(ended.stdout.contains("switch-quoted.yaml:2"), "{}", ended.stdout);
            continue;
        }
        assert_expected(&case, &evaluated(&inputs, &project, &case));
        if let Some(files) = case["data"].as_array() {
            let mut turned = case.clone();
            turned["data"] = files.iter().rev().cloned().collect();
            assert_expected(&case, &evaluated(&inputs, &project, &turned));
        }
    }
    // The same words in METADATA, and in every file of a gateway.
    let ground = fs::read_to_string(inputs.path("rego/ground/release.rego")).unwrap();
    fs::write(project.path("odd.rego"), ground.replace("# title: no critical vulnerability", "# title: no")).unwrap();
    let input = inputs.text("input/ground.json");
    project.sluicegate(&["policy", "eval", "odd.rego", "--input", &input]).assert(2, "odd.rego:");
}

#[test]
fn ga_13_the_other_platform_was_scanned() {
    let Some(inputs) = Inputs::open("ga_13_the_other_platform_was_scanned") else { return };
    if !ready("ga_13_the_other_platform_was_scanned") {
        return;
    }
    let gate = Gate::new(&inputs, "fresh");
    for case in inputs.of("GA-13") {
        assert_expected(&case, &gate.ask(&inputs, case["image"].as_str().unwrap(), &inputs.now()));
    }
    // Each child has a scan of its own, of its own digest.
    let records = gate.project.json(&["evidence", "list"]).1;
    let of_images = records["records"].as_array().unwrap().iter().filter(|record| !record["body"]["index"].is_null());
    let images: Vec<&str> = of_images.filter_map(|record| record["subject"].as_str()).collect();
    let digests = &inputs.expect["digests"]["two-platforms"];
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(images.contains(&digests[platform].as_str().unwrap()), "{platform}: {images:?}");
    }
}

#[test]
fn ga_14_two_databases_three_dates() {
    let Some(inputs) = Inputs::open("ga_14_two_databases_three_dates") else { return };
    if !ready("ga_14_two_databases_three_dates") {
        return;
    }
    let gate = Gate::new(&inputs, "fresh");
    for case in inputs.of("GA-14") {
        gate.use_database(&inputs.text(&format!("db/{}", case["db"].as_str().unwrap())));
        let java = case["java_db"].as_str();
        gate.use_java_database(java.map(|name| inputs.text(&format!("java-db/{name}"))).as_deref());
        let ended = gate.ask(&inputs, case["image"].as_str().unwrap(), &inputs.now());
        assert_expected(&case, &ended);
        if case["image"] == "anonymous-jar" {
            let why = match java {
                None => {
                    "the image has a Java archive, app/lib/thing.jar, for which the scanner needs its Java database"
                }
                Some("stale") => "the Java database cannot be used: it is of 2026-11-17T00:00:00Z, older than 24 hours",
                Some(_) => "thing.jar",
            };
            assert!(ended.stdout.contains(why) || ended.stderr.contains(why), "{}{}", ended.stdout, ended.stderr);
        }
        if java == Some("fresh") {
            let record = gate.project.last_record("decision")["sequence"].to_string();
            let (_, facts) = gate.project.json(&["policy", "eval", "--record", &record, "--facts"]);
            let databases = facts["scan"]["databases"].as_array().unwrap();
            let named: Vec<_> = databases.iter().map(|database| (&database["name"], &database["updatedAt"])).collect();
            let (first, second) = (json!("trivy-db"), json!("trivy-java-db"));
            assert_eq!(named[1], (&second, &json!("2026-11-24T22:00:00Z")), "{facts:#}");
            assert_eq!((named.len(), named[0].0), (2, &first));
        }
    }
}

/// How a gateway file names the database in this folder.
fn pinned(folder: &str, file: &str) -> String {
    let script = format!("cd \"$1\" && sha256sum metadata.json {file} | sha256sum");
    let sums = Command::new("sh").args(["-c", &script, "sh", folder]).output();
    let sum = String::from_utf8(sums.unwrap().stdout).unwrap();
    let digest = sum.split(' ').next().unwrap();
    format!("{{ from: {folder}, digest: \"sha256:{digest}\", max_age: 24h }}")
}

/// A rule that bans a package, nested or not.
const BAN: &str = r#"package gate.release

bad contains component if {
	some component in input.sbom.components
	startswith(component.purl, "@BANNED@@")
}

# METADATA
# title: No banned package
# description: No component is one of the banned packages.
# custom:
#   short_name: banned
#   solution: Take it out.
#   requires: ["https://cyclonedx.org/bom"]
pass contains "gate.release.banned" if {
	count(input.sbom.components) > 0
	count(bad) == 0
}

deny contains {
	"code": "gate.release.banned",
	"msg": sprintf("%v is inside %v", [component.name, concat("/", component.path)]),
	"term": "banned",
	"subject": component.purl,
	"attestation": component.attestation,
} if some component in bad
"#;

#[test]
fn ga_16_the_banned_package_is_inside_another() {
    let Some(inputs) = Inputs::open("ga_16_the_banned_package_is_inside_another") else { return };
    if !ready("ga_16_the_banned_package_is_inside_another") {
        return;
    }
    let gate = Gate::new(&inputs, "fresh");
    fs::remove_file(gate.project.path("policies/release.rego")).unwrap();
    for case in inputs.of("GA-16") {
        let name = case["sbom"].as_str().unwrap();
        let policy = BAN.replace("@BANNED@", case["banned"].as_str().unwrap());
        fs::write(gate.project.path("policies/ban.rego"), policy).unwrap();
        let sbom: Value = serde_json::from_slice(&fs::read(inputs.path(name)).unwrap()).unwrap_or(Value::Null);
        let digest = inputs.expect["digests"]["clean"]["digest"].as_str().unwrap();
        let layout = Layout::at(inputs.path("images/clean"));
        let manifest = ("application/vnd.oci.image.manifest.v1+json", fs::read(layout.blob(digest)).unwrap());
        // One registry for each: what several runs left is judged run by run, and one that is allowed suffices.
        let registry = TestRegistry::start(Behaviour::default());
        publish_proved_as(&layout, manifest, &gate.log, &registry, |build| {
            build.with_predicate("sbom", move |predicate| predicate.clone_from(&sbom))
        });
        let reference = format!("{}/build/tiny@{digest}", registry.host());
        let ended =
            gate.project.sluicegate(&["promote", &reference, "--to", "production", "--effective-time", &inputs.now()]);
        let mut expected = case.clone();
        if ended.code == 3 {
            // Refused as no document of CycloneDX, or too deep: what it holds is then not known.
            expected["says"] = Value::Null;
        }
        assert_expected(&expected, &ended);
        if ended.code == 1 && name.contains("nested-1") {
            let record = gate.project.last_record("decision")["sequence"].to_string();
            let facts = gate.project.json(&["policy", "eval", "--record", &record, "--facts"]).1;
            let components = facts["sbom"]["components"].as_array().unwrap().iter();
            let banned: Vec<&Value> = components.filter(|component| component["name"] == "evil-inside").collect();
            assert_eq!(banned.len(), 1, "{facts:#}");
            assert_eq!(banned[0]["path"], json!(["a"]));
            assert!(banned[0]["attestation"].as_str().unwrap().starts_with("sha256:"));
        }
    }
}

#[test]
fn ga_19_waivers_as_people_write_them() {
    let Some(inputs) = Inputs::open("ga_19_waivers_as_people_write_them") else { return };
    if !ready("ga_19_waivers_as_people_write_them") {
        return;
    }
    let mut gate = Gate::new(&inputs, "fresh");
    let gateway = fs::read_to_string(gate.project.path("gateway.yaml")).unwrap();
    fs::write(gate.project.path("gateway.yaml"), gateway + "waivers: waivers.yaml\n").unwrap();
    let digest = inputs.expect["digests"]["vulnerable"]["digest"].as_str().unwrap().to_owned();
    let reference = gate.prove(&inputs, "vulnerable");
    let cases = inputs.of("GA-19");
    assert_eq!(cases.len(), 22);
    for case in cases {
        let name = case["waivers"].as_str().unwrap();
        let text = fs::read_to_string(inputs.path(name)).unwrap();
        let text = text.replace(&format!("sha256:{}", "1".repeat(64)), &digest);
        fs::write(gate.project.path("waivers.yaml"), text).unwrap();
        let mut documents = Vec::new();
        for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            gate.project.set("TZ", zone);
            let arguments =
                ["promote", &reference, "--to", "production", "--effective-time", &inputs.now(), "-o", "json"];
            let ended = gate.project.sluicegate(&arguments);
            assert_expected(&case, &ended);
            if ended.code != 2 {
                documents.push(gate.project.last_record("decision")["body"]["document"].clone());
            }
        }
        assert!(documents.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {documents:?}");
        let ended =
            gate.project.sluicegate(&["promote", &reference, "--to", "production", "--effective-time", &inputs.now()]);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let says: &[&str] = match name.trim_start_matches("waivers/").trim_end_matches(".yaml") {
            "good" => &["owner@example.invalid", "approver@example.invalid", "freeze", "2026-12-25T00:00:00Z"],
            "date-only" => &["2026-11-26T00:00:00Z"],
            "expires-this-second" | "date-only-today" | "date-only-unquoted" | "offset" => &["ended at 2026-11-2"],
            "unknown-code" => &["did you mean gate.release.no_critical?"],
            "unused" => &["CVE-2099-7777", "is not used"],
            "other-environment" => &["nearest:", "is for staging, not for production"],
            "lower-case-id" => &["in other letters"],
            "misspelt-key" => &["expire", "did you mean expires?"],
            _ if ended.code == 2 => &["waivers.yaml: line "],
            _ => &[],
        };
        for word in says {
            assert!(said.contains(word), "{name} does not say {word:?}:\n{said}");
        }
    }
}

#[test]
fn ga_25_one_advisory_two_packages_two_ratings() {
    let Some(inputs) = Inputs::open("ga_25_one_advisory_two_packages_two_ratings") else { return };
    if !ready("ga_25_one_advisory_two_packages_two_ratings") {
        return;
    }
    let gate = Gate::new(&inputs, "fresh");
    // The field's rule denies without saying in what; the gate's own one says it.
    let rule = fs::read_to_string(gate.project.path("policies/release.rego")).unwrap();
    let rule = rule.replace("\"term\": v.id, \"msg\": \"critical\"}", "\"term\": v.id, \"subject\": v.purl, \"msg\": sprintf(\"%s, beside %v\", [v.package, [w.package | some w in input.vulnerabilities]])}");
    fs::write(gate.project.path("policies/release.rego"), rule).unwrap();
    let reference = gate.prove(&inputs, "two-severities");
    let ask =
        || gate.project.sluicegate(&["promote", &reference, "--to", "production", "--effective-time", &inputs.now()]);
    for case in inputs.of("GA-25") {
        assert_expected(&case, &ask());
    }
    let record = gate.project.last_record("decision")["sequence"].to_string();
    let facts = gate.project.json(&["policy", "eval", "--record", &record, "--facts"]).1;
    let findings = facts["vulnerabilities"].as_array().unwrap();
    assert_eq!(findings.iter().filter(|finding| finding["id"] == "CVE-2099-0030").count(), 2, "{facts:#}");
    let purl_of = |package: &str| {
        findings.iter().find(|finding| finding["package"] == package).unwrap()["purl"].as_str().unwrap().to_owned()
    };
    // A waiver for the one that is not denied reaches the other one never, and one for the other does.
    let gateway = fs::read_to_string(gate.project.path("gateway.yaml")).unwrap();
    fs::write(gate.project.path("gateway.yaml"), gateway + "waivers: waivers.yaml\n").unwrap();
    let digest = inputs.expect["digests"]["two-severities"]["digest"].as_str().unwrap();
    for (package, code) in [("tool-a", 1), ("tool-b", 0)] {
        let waiver = format!(
            "waivers:\n  - {{ code: gate.release.no_critical, term: CVE-2099-0030, package: \"{}\", digest: \"{digest}\", environment: production, owner: a, approver: b, reason: test, expires: 2026-12-01 }}\n",
            purl_of(package)
        );
        fs::write(gate.project.path("waivers.yaml"), waiver).unwrap();
        let ended = ask();
        assert_eq!(ended.code, code, "{package}: {}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn ga_27_sixteen_bits_a_letter() {
    let Some(inputs) = Inputs::open("ga_27_sixteen_bits_a_letter") else { return };
    if !ready("ga_27_sixteen_bits_a_letter") {
        return;
    }
    let project = Project::built();
    project.add_person();
    let size = || project.json(&["log", "checkpoint"]).1["size"].clone();
    let before = size();
    for case in inputs.of("GA-27") {
        let file = inputs.text(case["attest"].as_str().unwrap());
        let ended = project.sluicegate(&["attest", "oci:out/tiny", "--type", "sbom", "--predicate", &file]);
        assert_expected(&case, &ended);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("UTF-"), "{}", ended.stderr);
        // The same bytes as data of policies.
        let (policy, input) = (inputs.text("rego/ground"), inputs.text("input/ground.json"));
        let ended = project.sluicegate(&["policy", "eval", &policy, "--input", &input, "--data", &file]);
        ended.assert(2, "");
        assert!(ended.stderr.contains("UTF-"), "{}", ended.stderr);
    }
    assert_eq!(size(), before, "something was logged");
    // And as the report of a step: a failure of the step that names the encoding.
    fs::copy(inputs.path("sbom/utf16le.cdx.json"), project.path("src/report.xml")).unwrap();
    project.write_test_step("    run: mkdir -p /out && cp /src/report.xml /out/report.xml\n    inputs: { /src: src }\n    reports: { junit: /out/report.xml }\n");
    let ended = project.sluicegate(&["run"]);
    assert!(ended.code == 6 && ended.stderr.contains("UTF-16"), "{}: {}", ended.code, ended.stderr);
}

#[test]
fn ga_28_every_review_of_none_approves() {
    let Some(inputs) = Inputs::open("ga_28_every_review_of_none_approves") else { return };
    let project = Project::empty();
    for case in inputs.of("GA-28") {
        let ended = evaluated(&inputs, &project, &case);
        assert_expected(&case, &ended);
        assert!(ended.stdout.contains("no accepted statement of this type"), "{}", ended.stdout);
    }
    let text = fs::read_to_string(inputs.path("rego/every-of-none/release.rego")).unwrap();
    let kind = "https://example.invalid/review/v1";
    let input = inputs.text("input/ground.json");
    fs::write(project.path("without.rego"), text.replacen(&format!("requires: [\"{kind}\"]"), "requires: []", 1))
        .unwrap();
    project.sluicegate(&["policy", "check", "without.rego"]).assert(0, "without.rego:14");
    project.sluicegate(&["policy", "eval", "without.rego", "--input", &input]).assert(0, "WOULD BE ALLOWED");
    fs::write(project.path("misspelt.rego"), text.replace(kind, "https://slsa.dev/provenence/v1")).unwrap();
    let ended = project.sluicegate(&["policy", "eval", "misspelt.rego", "--input", &input]);
    ended.assert(3, "did you mean https://slsa.dev/provenance/v1?");
}
