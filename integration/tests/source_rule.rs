//! The shipped rule about sources, end to end: what the executor fetched is a fact, what a work tree says of itself is none.

use std::fs;

use integration::{
    PROMOTE, Project, WITHOUT_COMMIT_ACCEPTED, WITHOUT_COMMIT_DENIED, ready,
    repository::{commit, git, git_at},
};
use serde_json::json;

const UNVERIFIED_ACCEPTED: &str = "accept_unverified_commits: true";
const UNVERIFIED_DENIED: &str = "accept_unverified_commits: false";

/// Promotes, and says with which code and, if it was denied or left open, by the words of which rule.
#[track_caller]
fn gate(project: &Project, code: i32, says: &str) {
    let ended = project.sluicegate(&PROMOTE);
    ended.assert(code, says);
    if code != 0 {
        ended.assert(code, "source.resolved");
    }
}

/// A project whose gate takes nobody's word for a commit.
fn strict() -> Project {
    let project = Project::prepared();
    project.replace("policies/data.yaml", WITHOUT_COMMIT_ACCEPTED, WITHOUT_COMMIT_DENIED);
    project.replace("policies/data.yaml", UNVERIFIED_ACCEPTED, UNVERIFIED_DENIED);
    project
}

/// A repository with the file of the pipeline's source, and its address.
fn published(project: &Project) -> String {
    fs::create_dir(project.path("published")).unwrap();
    fs::copy(project.path("src/hello.txt"), project.path("published/hello.txt")).unwrap();
    commit(&project.path("published"), &["hello.txt"]);
    format!("file://{}", project.path("published").display())
}

#[test]
fn tm11_a_commit_that_was_fetched_from_an_allowed_repository_passes_and_no_other() {
    if !ready("tm11_a_commit_that_was_fetched_from_an_allowed_repository_passes_and_no_other") {
        return;
    }
    let project = strict();
    let url = published(&project);
    let commit = git(&project.path("published"), &["rev-parse", "HEAD"]);
    project.replace(
        "sluicegate.yaml",
        "{ src: { path: src } }",
        &format!("{{ src: {{ git: \"{url}\", ref: main }} }}"),
    );
    project.must(&["run"]);
    // Nobody allowed this repository.
    gate(&project, 1, &format!("source:src came from {url}, which is not in data.sluicegate.source.repositories"));
    let (_, document) = project.json(&PROMOTE);
    assert_eq!(document["denials"][0]["term"], json!(url));
    project.replace("policies/data.yaml", "repositories: []", "repositories: [\"https://git.example/other\"]");
    gate(&project, 1, "which is not in data.sluicegate.source.repositories");
    project.replace("policies/data.yaml", "https://git.example/other", &url);
    gate(&project, 0, "ALLOWED");
    // What somebody changed in that work tree since is in no commit, and in no image.
    fs::write(project.path("published/hello.txt"), "hello, in no commit\n").unwrap();
    let (code, run) = project.json(&["run", "--to", "production"]);
    assert_eq!((code, &run["promotions"][0]["verdict"]), (0, &json!("allow")));
    assert!(run["steps"].as_array().unwrap().iter().all(|step| step["status"] == "taken"), "{run:#}");
    // Anyone may have made a commit that is named by itself, or under another reference.
    for reference in [commit.as_str(), "refs/pull/7/head"] {
        git(&project.path("published"), &["update-ref", "refs/pull/7/head", &commit]);
        project.replace("sluicegate.yaml", "ref: main", &format!("ref: \"{reference}\""));
        let says = format!("source:src was fetched as {reference}, which data.sluicegate.source.refs does not name");
        project.sluicegate(&["run", "--to", "production"]).assert(1, &says);
        project.replace("policies/data.yaml", "refs: [refs/heads/main]", "refs: [\"*\"]");
        project.sluicegate(&["run", "--to", "production"]).assert(0, "ALLOWED");
        project.replace("policies/data.yaml", "refs: [\"*\"]", "refs: [refs/heads/main]");
        project.replace("sluicegate.yaml", &format!("ref: \"{reference}\""), "ref: main");
    }
    // One source that was fetched does not vouch for another one.
    project.replace("sluicegate.yaml", " } }\ndefaults", " }, own: { path: src } }\ndefaults");
    project.replace("sluicegate.yaml", "inputs: { /src: src }", "inputs: { /src: src, /own: own }");
    project.must(&["run"]);
    gate(&project, 3, "source.resolved gave no answer");
}

#[test]
fn tm11_a_commit_that_nobody_fetched_leaves_the_gate_undecided_however_clean_it_looks() {
    if !ready("tm11_a_commit_that_nobody_fetched_leaves_the_gate_undecided_however_clean_it_looks") {
        return;
    }
    let project = strict();
    let says = "source.resolved gave no answer";
    // In no commit.
    project.must(&["run"]);
    gate(&project, 3, says);
    commit(&project.path("."), &["src"]);
    // A repository that is allowed is nothing that a work tree could claim.
    project.replace("policies/data.yaml", "repositories: []", "repositories: [\"https://git.example/shop\"]");
    git(&project.path("."), &["remote", "add", "origin", "https://git.example/shop"]);
    project.must(&["run"]);
    gate(&project, 3, says);
    fs::write(project.path("src/hello.txt"), "hello, changed\n").unwrap();
    project.must(&["run"]);
    gate(&project, 3, says);
    // Where the gate's owners accept such commits, changes are denied and a clean tree passes.
    project.replace("policies/data.yaml", UNVERIFIED_DENIED, UNVERIFIED_ACCEPTED);
    gate(&project, 1, "has changes that are not in a commit");
    // Later than the one before: of the same moment it would be the same image, which stands on the run with the changes, too.
    git_at(1_767_398_400, &project.path("."), &["commit", "--quiet", "--all", "--message", "changed"]);
    project.must(&["run"]);
    gate(&project, 0, "ALLOWED");
}
