//! Earlier results: what is taken, what is not, and that nothing that was tampered with is ever signed anew.

use std::{fs, path::PathBuf};

use integration::{Project, can_run_steps};
use serde_json::Value;

const RUN: [&str; 4] = ["run", "--no-scan", "-o", "json"];

fn json(project: &Project, arguments: &[&str]) -> Value {
    let ended = project.must(arguments);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Step by step how it ended: `passed`, `taken` or `failed`.
fn fates(run: &Value) -> Vec<(String, String)> {
    let step = |step: &Value| (step["step"].as_str().unwrap().to_owned(), step["status"].as_str().unwrap().to_owned());
    let mut fates: Vec<_> = run["steps"].as_array().unwrap().iter().map(step).collect();
    fates.sort();
    fates
}

fn all_are(run: &Value, status: &str) -> bool {
    fates(run).iter().all(|(_, found)| found == status)
}

fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    run["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

fn blob(project: &Project, digest: &Value) -> PathBuf {
    project.path("home").join("store/blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

fn entry(project: &Project, step: &Value) -> PathBuf {
    project
        .path("home")
        .join("cache/step-results/steps")
        .join(step["key"].as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn a_second_run_takes_every_result_gives_the_same_image_and_names_the_first_origin() {
    if !can_run_steps("a_second_run_takes_every_result_gives_the_same_image_and_names_the_first_origin") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    assert!(all_are(&first, "passed"), "{first}");
    let second = json(&project, &RUN);
    assert!(all_are(&second, "taken"), "{second}");
    assert_eq!(first["images"][0]["digest"], second["images"][0]["digest"]);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    // A hit of a hit names the run that did the work.
    let third = json(&project, &RUN);
    for name in ["build", "test"] {
        assert_eq!(step(&second, name)["origin"], step(&first, name)["attestation"]);
        assert_eq!(step(&third, name)["origin"], step(&first, name)["attestation"]);
        assert_eq!(step(&second, name)["key"], step(&first, name)["key"]);
    }
    // Whoever asks for it executes all the same.
    assert!(all_are(&json(&project, &["run", "--no-scan", "--no-cache", "-o", "json"]), "passed"));
    project.must(&["logs", "LAST", "build"]);
    project.sluicegate(&["explain", "build"]).assert(0, "TAKEN");
    project.sluicegate(&["plan"]).assert(0, "3 taken");
}

#[test]
fn what_was_tampered_with_is_made_again_and_never_signed() {
    if !can_run_steps("what_was_tampered_with_is_made_again_and_never_signed") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    let (build, test) = (step(&first, "build").clone(), step(&first, "test").clone());
    type Tampering<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let output = blob(&project, &build["outputs"].as_object().unwrap().values().next().unwrap().clone());
    let whole = fs::read(&output).unwrap();
    let tamperings: Vec<Tampering<'_>> = vec![
        ("an output is cut", Box::new(|| fs::write(&output, &whole[..whole.len() - 1]).unwrap())),
        ("an output is another one", Box::new(|| fs::write(&output, b"something else").unwrap())),
        ("an output is gone", Box::new(|| fs::remove_file(&output).unwrap())),
        ("the log is another one", Box::new(|| fs::write(blob(&project, &build["log"]), b"all good").unwrap())),
        (
            "the record leads to another step",
            Box::new(|| {
                fs::write(entry(&project, &build), test["attestation"].as_str().unwrap()).unwrap();
            }),
        ),
        (
            "the record leads to the image's provenance",
            Box::new(|| fs::write(entry(&project, &build), first["images"][0]["digest"].as_str().unwrap()).unwrap()),
        ),
        (
            "the statement is changed",
            Box::new(|| {
                let bundle =
                    blob(&project, &Value::String(fs::read_to_string(entry(&project, &build)).unwrap().trim().into()));
                let text = fs::read_to_string(&bundle).unwrap();
                fs::write(&bundle, text.replacen("mediaType", "mediatype", 1)).unwrap();
            }),
        ),
    ];
    for (what, tamper) in tamperings {
        tamper();
        let run = json(&project, &RUN);
        assert_eq!(step(&run, "build")["status"], "passed", "{what}: {run}");
        assert_eq!(step(&run, "build")["outputs"], build["outputs"], "{what}");
        assert_eq!(run["images"][0]["digest"], first["images"][0]["digest"], "{what}");
        project.must(&["verify", "--offline", "oci:out/tiny"]);
        assert!(all_are(&json(&project, &RUN), "taken"), "{what}: it is kept anew");
    }
}

#[test]
fn a_result_of_another_trust_domain_is_not_taken() {
    if !can_run_steps("a_result_of_another_trust_domain_is_not_taken") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let other = gateway.replace("https://sluicegate.dev/gate/local", "https://sluicegate.dev/gate/other");
    assert_ne!(gateway, other);
    fs::write(project.path("gateway.yaml"), other).unwrap();
    let second = json(&project, &RUN);
    assert!(all_are(&second, "passed"), "{second}");
    // Even an index that says so leads to nothing: the statement has the other key.
    fs::copy(entry(&project, step(&first, "build")), entry(&project, step(&second, "build"))).unwrap();
    assert_eq!(step(&json(&project, &RUN), "build")["status"], "passed");
}
