//! What a test step reports: without it nothing is decided, and what it says is judged (trust model 2).

use integration::{Layout, PROMOTE, Project, TEST_WITHOUT_REPORT, can_run_steps, ready};

/// The step `test`, which writes this report and ends well.
fn reporting(report: &str) -> String {
    format!(
        "    run: mkdir -p /out && printf '%s' '{report}' > /out/junit.xml\n    inputs: {{ /app: build.app }}\n    \
         reports: {{ junit: /out/junit.xml }}\n"
    )
}

/// A folded block, so that the quotes of the XML are the shell's.
fn write(project: &Project, report: &str) {
    project.write_test_step(&reporting(report).replace("run: ", "run: >-\n      "));
}

const PASSES: &str = r#"<testsuite name="tiny" tests="1"><testcase classname="tiny" name="works"/></testsuite>"#;
const FAILS: &str = r#"<testsuite name="tiny" tests="2" failures="1"><testcase classname="tiny" name="works"/><testcase classname="tiny" name="is kind"><failure message="it was not"/></testcase></testsuite>"#;
const EMPTY: &str = r#"<testsuite name="tiny" tests="0"></testsuite>"#;

#[test]
fn tm02_without_a_test_result_nothing_is_decided_and_with_a_failing_one_it_is_denied() {
    if !ready("tm02_without_a_test_result_nothing_is_decided_and_with_a_failing_one_it_is_denied") {
        return;
    }
    let project = Project::prepared();
    let promote = |code: i32, says: &str| {
        project.must(&["run"]);
        let ended = project.sluicegate(&PROMOTE);
        ended.assert(code, says);
        assert_eq!(project.path("env/production/index.json").exists(), code == 0);
        ended
    };
    // The step still runs, and fails the run if its command fails; nobody attests what its tests came to.
    project.write_test_step(TEST_WITHOUT_REPORT);
    promote(3, "required evidence is missing: test-result");
    assert_eq!(project.last_record("decision")["outcome"], "undecided");
    // A test of something else is none of this image, and is told.
    std::fs::create_dir(project.path("other")).unwrap();
    std::fs::write(project.path("other/file"), "of no image").unwrap();
    let before = std::fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    write(&project, PASSES);
    project.replace("sluicegate.yaml", "{ src: { path: src } }", "{ src: { path: src }, other: { path: other } }");
    let passes = std::fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    project.replace(
        "sluicegate.yaml",
        "{ /app: build.app }\n    reports",
        "{ /app: build.app, /other: other }\n    reports",
    );
    assert_ne!(std::fs::read_to_string(project.path("sluicegate.yaml")).unwrap(), passes);
    promote(3, "missing: test-result (step test also tested source:other, of which the image is not made)")
        .assert(3, "reads only sources and outputs from which the image is made");
    std::fs::write(project.path("sluicegate.yaml"), before).unwrap();
    // The step ends with 0: its report says otherwise, and the report counts.
    write(&project, FAILS);
    promote(1, "tests.passed").assert(1, "is kind");
    write(&project, EMPTY);
    promote(1, "tests.passed").assert(1, "no test was executed");
    write(&project, PASSES);
    promote(0, "ALLOWED");
    let layout = Layout::at(project.path("env/production"));
    let (_, evidence) = layout.evidence();
    let kept = evidence["layers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["mediaType"] == "application/vnd.sluicegate.junit.v1+xml");
    let report = std::fs::read_to_string(layout.blob(kept.unwrap()["digest"].as_str().unwrap())).unwrap();
    assert_eq!(report, PASSES, "the report travels as it was written");
}

#[test]
fn tm02_a_report_that_is_missing_or_no_junit_fails_the_run() {
    if !ready("tm02_a_report_that_is_missing_or_no_junit_fails_the_run") {
        return;
    }
    let project = Project::prepared();
    let run = |says: &str| {
        project.sluicegate(&["run", "--no-scan"]).assert(6, says);
        assert!(!project.path("out/tiny/index.json").exists());
    };
    project
        .write_test_step("    run: 'true'\n    inputs: { /app: build.app }\n    reports: { junit: /out/junit.xml }\n");
    run("/out/junit.xml");
    for junk in ["", "not XML", "<testsuite><testcase name=\"a\"></testsuite>"] {
        write(&project, junk);
        run("junit");
    }
    write(&project, PASSES);
    project.must(&["run", "--no-scan"]);
    // Nobody looked at what is in the image: the tests alone allow nothing.
    project.sluicegate(&PROMOTE).assert(3, "required evidence is missing: vulns");
}

#[test]
fn each_image_lists_the_tests_of_the_steps_that_it_stands_on() {
    if !can_run_steps("each_image_lists_the_tests_of_the_steps_that_it_stands_on") {
        return;
    }
    let project = Project::prepared();
    let report = r#"<testsuite name="t" tests="1"><testcase classname="t" name="works"/></testsuite>"#;
    let more = ["second", "unused"]
        .map(|step| format!("  {step}:\n{}", reporting(report).replace("run: ", "run: >-\n      ")));
    project.replace("sluicegate.yaml", "artifacts:\n", &format!("{}artifacts:\n", more.concat()));
    let text = std::fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    let second = "  other:\n    base: oci:images/base\n    files: { /opt/other: build.app }\n    needs: [second]\n    repository: oci:out/other\n";
    std::fs::write(project.path("sluicegate.yaml"), text + second).unwrap();
    let said = project.must(&["run", "--no-scan"]).stdout;
    let (before, rest) = said.split_once("  other  sha256:").unwrap();
    let (other, after) = rest.split_once("tests of unused, on which no image stands: passed").unwrap();
    assert!(before.contains("tests of test: passed") && !before.contains("tests of second"), "{said}");
    assert!(other.contains("tests of second: passed") && !other.contains("tests of test:"), "{said}");
    assert!(!after.contains("tests of") && said.matches("tests of").count() == 3, "{said}");
}

#[test]
fn a_step_that_failed_beside_an_accepted_code_is_proved_as_no_success() {
    if !can_run_steps("a_step_that_failed_beside_an_accepted_code_is_proved_as_no_success") {
        return;
    }
    let project = Project::prepared();
    let step = |leaves: &str| {
        let text = format!(
            "version: 1\nname: tiny\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\nsteps:\n  test:\n    \
             run: >-\n      {leaves} mkdir -p /r && printf '%s' '{PASSES}' > /r/junit.xml; exit 1\n    inputs: {{ /src: src }}\n    \
             accept_exit: [1]\n    outputs: {{ o: /o }}\n    reports: {{ junit: /r/junit.xml }}\n"
        );
        std::fs::write(project.path("sluicegate.yaml"), text).unwrap();
        let ended = project.sluicegate(&["run", "--no-scan"]);
        (ended, project.last_record("run")["body"]["steps"][0].clone())
    };
    let (ended, failed) = step("");
    ended.assert(6, "did not leave its output o");
    assert_eq!((failed["status"].as_str(), failed["attestation"].as_str()), (Some("failed"), None), "{failed:#}");
    let (ended, passed) = step("echo > /o;");
    ended.assert(0, "");
    assert!(passed["status"] == "passed" && passed["attestation"].is_string(), "{passed:#}");
}
