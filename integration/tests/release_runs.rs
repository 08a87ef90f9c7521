//! `run --to`: what a run made is promoted as `promote` does it, or not at all, and what has no chance is refused before any step.

use std::fs;

use integration::{Layout, Project, TEST_WITHOUT_REPORT, can_run_steps, ready};
use serde_json::{Value, json};

const RELEASE: [&str; 3] = ["run", "--to", "production"];

/// The image that an environment holds.
fn held(project: &Project) -> String {
    Layout::at(project.path("env/production")).image()
}

fn outcomes(project: &Project) -> Vec<String> {
    let (_, list) = project.json(&["evidence", "list"]);
    let word = |record: &Value| format!("{} {}", record["kind"].as_str().unwrap(), record["outcome"].as_str().unwrap());
    list["records"].as_array().unwrap().iter().map(word).collect()
}

#[test]
fn a_run_that_promotes_moves_the_tag_only_where_the_gate_allows_it() {
    if !ready("a_run_that_promotes_moves_the_tag_only_where_the_gate_allows_it") {
        return;
    }
    let project = Project::prepared();
    let released = project.sluicegate(&RELEASE);
    released.assert(0, "BUILT  tiny");
    released.assert(0, "ALLOWED");
    // What to type next is about what was promoted, not about what was built.
    assert!(!released.stdout.contains("next: sluicegate promote"), "{released:?}");
    let first = Layout::at(project.path("out/tiny")).image();
    assert_eq!(held(&project), first);
    assert_eq!(outcomes(&project), ["promotion promoted", "decision allow", "run succeeded"]);
    // Denied: the image is built and stays where it was built.
    let allowed = fs::read_to_string(project.path("policies/data.yaml")).unwrap();
    let digest = allowed.lines().find_map(|line| line.trim().strip_prefix("- sha256:")).unwrap();
    let digest = digest.split(' ').next().unwrap();
    project.replace("policies/data.yaml", digest, &"0".repeat(64));
    fs::write(project.path("src/hello.txt"), "hello again\n").unwrap();
    let (code, document) = project.json(&RELEASE);
    let promotion = &document["promotions"][0];
    assert_eq!((code, &promotion["verdict"], &promotion["artifact"]), (1, &json!("deny"), &json!("tiny")));
    assert_eq!(promotion["denials"][0]["code"], "base_image.allowed");
    assert_eq!(promotion["image"], document["images"][0]["digest"]);
    assert_ne!(document["images"][0]["digest"], json!(first));
    assert_eq!(held(&project), first);
    let denied = project.sluicegate(&RELEASE);
    denied.assert(1, "DENIED");
    denied.assert(1, "next: fix that, then sluicegate run --to production");
    assert_eq!(held(&project), first);
    project.replace("policies/data.yaml", &"0".repeat(64), digest);
    // Undecided: nobody says what the tests came to.
    project.write_test_step(TEST_WITHOUT_REPORT);
    project.sluicegate(&RELEASE).assert(3, "required evidence is missing: test-result");
    assert_eq!(held(&project), first);
    // A failed step: nothing is asked, nothing is promoted.
    let decisions = |project: &Project| outcomes(project).iter().filter(|one| one.starts_with("decision")).count();
    let before = decisions(&project);
    project.write_test_step("    run: exit 3\n    inputs: { /app: build.app }\n");
    project.sluicegate(&RELEASE).assert(6, "step test ended with code 3");
    project.sluicegate(&["run", "-k", "--to", "production"]).assert(6, "step test ended with code 3");
    assert_eq!((decisions(&project), held(&project)), (before, first));
}

#[test]
fn the_last_event_of_a_run_that_promotes_tells_what_the_process_ends_with() {
    if !ready("the_last_event_of_a_run_that_promotes_tells_what_the_process_ends_with") {
        return;
    }
    let project = Project::prepared();
    let ends = |code: i32, outcome: &str| {
        for format in ["json", "table"] {
            let ended = project.sluicegate(&[&RELEASE[..], &["--progress", "json", "-o", format]].concat());
            assert_eq!(ended.code, code, "{ended:?}");
            let events: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let last = events.last().unwrap();
            assert_eq!((&last["event"], &last["exit"]), (&json!("run-finished"), &json!(code)), "{ended:?}");
            assert_eq!((&last["outcome"], &last["error"]), (&json!(outcome), &Value::Null), "{ended:?}");
        }
    };
    ends(0, "succeeded");
    let allowed = fs::read_to_string(project.path("policies/data.yaml")).unwrap();
    let digest = allowed.lines().find_map(|line| line.trim().strip_prefix("- sha256:")).unwrap();
    let digest = digest.split(' ').next().unwrap();
    project.replace("policies/data.yaml", digest, &"0".repeat(64));
    ends(1, "denied");
    project.replace("policies/data.yaml", &"0".repeat(64), digest);
    project.write_test_step(TEST_WITHOUT_REPORT);
    ends(3, "undecided");
}

#[test]
fn several_images_are_all_judged_and_the_worst_exit_code_counts() {
    if !ready("several_images_are_all_judged_and_the_worst_exit_code_counts") {
        return;
    }
    let project = Project::prepared();
    project.write_other_artifact();
    let both = ["run", "--to", "other=production", "--to", "tiny=staging"];
    let (code, document) = project.json(&both);
    let said = |at: usize| (&document["promotions"][at]["artifact"], &document["promotions"][at]["verdict"]);
    assert_eq!(code, 3, "{document:#}");
    assert_eq!(said(0), (&json!("other"), &json!("undecided")));
    assert_eq!(said(1), (&json!("tiny"), &json!("ungated")));
    assert!(!project.path("env/production/index.json").exists() && project.path("env/staging/index.json").exists());
    project.sluicegate(&["run", "--to", "tiny=production"]).assert(0, "ALLOWED");
    for (arguments, says) in [
        (&["run", "--to", "production"][..], "say which: --to tiny=production"),
        (&["run", "--to", "third=production"], "no artifact is called third"),
        (&["run", "--to", "tiny=production", "--to", "other=production"], "which holds one image"),
        (&["run", "--to", "tiny="], "environment"),
    ] {
        project.sluicegate(arguments).assert(2, says);
    }
}

#[test]
fn what_cannot_be_promoted_is_refused_before_any_step() {
    if !can_run_steps("what_cannot_be_promoted_is_refused_before_any_step") {
        return;
    }
    let project = Project::prepared();
    for (arguments, says) in [
        (&["run", "--no-scan", "--to", "prod"][..], "no environment prod; it has production, staging"),
        (&["run", "--no-scan", "--to", "production"], "requires what a scan finds"),
        (&["run", "--no-scan", "--to", "staging", "test"], "a run of named steps makes no image"),
        (&["run", "--no-scan", "--to", "staging", "--only", "test"], "a run of named steps makes no image"),
        (&["run", "--no-scan", "--to", "Staging"], "environment"),
    ] {
        project.sluicegate(arguments).assert(2, says);
    }
    let whole = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    fs::write(project.path("sluicegate.yaml"), whole.split("artifacts:").next().unwrap()).unwrap();
    project.sluicegate(&["run", "--no-scan", "--to", "staging"]).assert(2, "the pipeline has no artifact");
    fs::write(project.path("sluicegate.yaml"), whole).unwrap();
    assert_eq!(outcomes(&project), [""; 0]);
    assert!(!project.path("out/tiny").exists());
    // Where no gate asks for a scan, none is needed.
    project.sluicegate(&["run", "--no-scan", "--to", "staging"]).assert(0, "UNGATED");
}

#[test]
fn tm09_a_run_that_promotes_does_again_what_came_over_a_network_or_by_secrets() {
    if !can_run_steps("tm09_a_run_that_promotes_does_again_what_came_over_a_network_or_by_secrets") {
        return;
    }
    let mut project = Project::prepared();
    project.set("TOKEN", "a-token-of-the-test");
    project.replace(
        "sluicegate.yaml",
        "  test:\n",
        "  net:\n    run: mkdir -p /out && echo net > /out/net\n    inputs: { /src: src }\n    workdir: /src\n    \
         network: { allow: [\"nothing.example:443\"] }\n    reuse: { key: [hello.txt] }\n    outputs: { net: /out/net }\n  \
         hidden:\n    run: mkdir -p /out && echo hidden > /out/hidden\n    inputs: { /src: src }\n    workdir: /src\n    \
         secrets: { TOKEN: { env: TOKEN } }\n    reuse: { key: [hello.txt] }\n    outputs: { hidden: /out/hidden }\n  test:\n",
    );
    project.replace("sluicegate.yaml", "/opt/one: package.one", "/opt/one: package.one, /opt/net: net.net");
    let fates = |arguments: &[&str]| {
        let (code, run) = project.json(arguments);
        assert_eq!(code, 0, "{run:#}");
        let step = |name: &str| {
            let steps = run["steps"].as_array().unwrap();
            steps.iter().find(|step| step["step"] == name).unwrap()["status"].as_str().unwrap().to_owned()
        };
        ["net", "hidden", "build"].map(step)
    };
    assert_eq!(fates(&["run", "--no-scan"]), ["passed", "passed", "passed"]);
    assert_eq!(fates(&["run", "--no-scan"]), ["taken", "taken", "taken"]);
    assert_eq!(fates(&["run", "--no-scan", "--to", "staging"]), ["passed", "passed", "taken"]);
    // What such a run made may be taken by one that promotes nothing.
    assert_eq!(fates(&["run", "--no-scan"]), ["taken", "taken", "taken"]);
    project.must(&["verify", "--offline", "oci:env/staging"]);
}
