//! Shared caches of steps: what the next run finds, who does not, what is on record about them, and what a gate says.

use std::fs;

use integration::{
    Layout, PROMOTE, Project, can_run_steps, ready,
    repository::{commit, git},
};
use serde_json::{Value, json};

const RUN: [&str; 2] = ["run", "--no-scan"];

/// The step `build` with a cache in which it counts its runs.
fn counting(project: &Project) {
    project.replace(
        "sluicegate.yaml",
        "    inputs: { /src: src }\n    outputs: { app: /out/app }\n",
        "    inputs: { /src: src }\n    outputs: { app: /out/app }\n    caches: { seen: /var/seen }\n",
    );
    project.replace(
        "sluicegate.yaml",
        "run: mkdir -p /out/app &&",
        "run: echo run >> /var/seen/runs && cat /var/seen/runs && mkdir -p /out/app &&",
    );
}

/// Runs, and says how many runs the step has seen, its own among them.
fn seen(project: &Project, arguments: &[&str]) -> usize {
    project.must(arguments);
    project.log("build").lines().filter(|line| *line == "run").count()
}

fn cache_of(predicate: &Value) -> Value {
    let all = predicate["buildDefinition"]["resolvedDependencies"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["name"] == "cache:seen").unwrap()
}

#[test]
fn tm09_a_run_finds_what_the_one_before_left_on_its_own_branch_and_nobody_else_does() {
    if !can_run_steps("tm09_a_run_finds_what_the_one_before_left_on_its_own_branch_and_nobody_else_does") {
        return;
    }
    let project = Project::prepared();
    counting(&project);
    // Not in git.
    assert_eq!(seen(&project, &RUN), 1);
    let first = cache_of(&project.provenance("build"));
    assert_eq!(first["annotations"]["sluicegate.dev/unverified"], "true");
    assert_eq!(first["annotations"]["sluicegate.dev/checkout"], "nothing");
    assert_eq!(first.get("digest"), None, "nobody knows what was in it");
    assert_eq!(
        project.provenance("build")["buildDefinition"]["externalParameters"]["caches"],
        json!({"seen": "/var/seen"})
    );
    // Executed again, though nothing has changed, and the cache is there.
    assert_eq!(seen(&project, &RUN), 2);
    assert_eq!(cache_of(&project.provenance("build")), first);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    project.sluicegate(&["plan"]).assert(0, "it has a shared cache");
    // Whoever tries a step begins with nothing and leaves nothing.
    assert_eq!(project.must(&["try", "build"]).stderr.matches("build | run").count(), 1);
    assert_eq!(seen(&project, &RUN), 3);
    commit(&project.path("."), &["src", "sluicegate.yaml"]);
    assert_eq!((seen(&project, &RUN), seen(&project, &RUN)), (1, 2));
    let of_main = cache_of(&project.provenance("build"));
    assert_eq!(of_main["annotations"]["sluicegate.dev/checkout"], "branch refs/heads/main");
    assert_ne!(of_main["uri"], first["uri"]);
    git(&project.path("."), &["checkout", "--quiet", "-b", "other"]);
    assert_eq!(seen(&project, &RUN), 1);
    git(&project.path("."), &["checkout", "--quiet", "--detach"]);
    assert_eq!((seen(&project, &RUN), seen(&project, &RUN)), (1, 2));
    git(&project.path("."), &["checkout", "--quiet", "main"]);
    assert_eq!(seen(&project, &RUN), 3);
    // Another project under the same name, in the same home, with the same judge.
    let elsewhere = project.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["src", "images", "sluicegate.yaml"] {
        project.keep(name, &format!("elsewhere/{name}"));
    }
    git(&project.path("."), &["init", "--quiet", "--initial-branch", "main", "elsewhere"]);
    let there = ["run", "--no-scan", "-f", "elsewhere/sluicegate.yaml", "--gateway", "gateway.yaml"];
    assert_eq!((seen(&project, &there), seen(&project, &there)), (1, 2));
    assert_eq!(seen(&project, &RUN), 4);
    // Another step, and another cache of the same step.
    project.replace("sluicegate.yaml", "caches: { seen: /var/seen }", "caches: { other: /var/seen }");
    assert_eq!(seen(&project, &RUN), 1);
}

#[test]
fn tm09_what_was_made_with_a_shared_cache_is_taken_only_where_the_file_says_so_and_never_for_a_release() {
    let test = "tm09_what_was_made_with_a_shared_cache_is_taken_only_where_the_file_says_so_and_never_for_a_release";
    if !can_run_steps(test) {
        return;
    }
    let project = Project::prepared();
    counting(&project);
    project.replace(
        "sluicegate.yaml",
        "caches: { seen: /var/seen }\n",
        "caches: { seen: /var/seen }\n    workdir: /src\n    reuse: { key: [hello.txt] }\n",
    );
    let fate = |arguments: &[&str]| {
        let (code, run) = project.json(arguments);
        assert_eq!(code, 0, "{run:#}");
        let build = run["steps"].as_array().unwrap().iter().find(|step| step["step"] == "build").unwrap().clone();
        build["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(fate(&RUN), "passed");
    assert_eq!(fate(&RUN), "taken");
    // Whose result was taken has the cache of the run that did the work.
    assert_eq!(cache_of(&project.provenance("build"))["annotations"]["sluicegate.dev/unverified"], "true");
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!(fate(&["run", "--no-scan", "--to", "staging"]), "passed");
    // What is in it is no part of the key; its path is.
    let cache = fs::read_dir(project.path("home/cache/shared")).unwrap().next().unwrap().unwrap().path();
    fs::write(cache.join("content/more"), "more").unwrap();
    assert_eq!(fate(&RUN), "taken");
    project.replace("sluicegate.yaml", "/var/seen }", "/var/seen2 }");
    project.replace("sluicegate.yaml", ">> /var/seen/runs && cat /var/seen/runs", "> /var/seen2/runs");
    assert_eq!(fate(&RUN), "passed");
}

#[test]
fn tm08_the_shipped_gate_denies_a_shared_cache_and_the_machines_own_network() {
    if !ready("tm08_the_shipped_gate_denies_a_shared_cache_and_the_machines_own_network") {
        return;
    }
    let project = Project::prepared();
    counting(&project);
    project.must(&["run"]);
    let denied = project.sluicegate(&PROMOTE);
    denied.assert(1, "hermetic.caches");
    denied.assert(1, "the step build shared the cache seen with other runs");
    assert!(!project.path("env/production/index.json").exists());
    project.replace("policies/data.yaml", "accept_shared_caches: false", "accept_shared_caches: true");
    project.must(&PROMOTE);
    let held = Layout::at(project.path("env/production")).image();
    // Any step of the closed set, of which the image itself holds nothing.
    project.replace("policies/data.yaml", "accept_shared_caches: true", "accept_shared_caches: false");
    project.replace("sluicegate.yaml", "    caches: { seen: /var/seen }\n", "");
    project.replace("sluicegate.yaml", "echo run >> /var/seen/runs && cat /var/seen/runs && ", "");
    project.replace(
        "sluicegate.yaml",
        "    reports: { junit: /out/junit.xml }\n",
        "    reports: { junit: /out/junit.xml }\n    network: host\n",
    );
    fs::write(project.path("src/hello.txt"), "hello from another\n").unwrap();
    project.must(&["run"]);
    let denied = project.sluicegate(&PROMOTE);
    denied.assert(1, "hermetic.network");
    denied.assert(1, "the step test ran with the machine's own network");
    project.sluicegate(&["run", "--to", "production"]).assert(1, "hermetic.network");
    assert_eq!(Layout::at(project.path("env/production")).image(), held);
    project.replace("sluicegate.yaml", "    network: host\n", "");
    project.sluicegate(&["run", "--to", "production"]).assert(0, "ALLOWED");
    assert_ne!(Layout::at(project.path("env/production")).image(), held);
}
