//! `attest` and `keys` end to end: a key of a person, a statement by hand, who may say what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;

use integration::{Layout, Project, can_run_steps, peer};

fn ready(test: &str) -> bool {
    can_run_steps(test) && peer("SLUICEGATE_TRIVY", test).is_some()
}

const REVIEW: &str = "https://example.com/review/v1";
const ATTEST: [&str; 6] = ["attest", "oci:out/tiny", "--type", REVIEW, "--predicate", "review.json"];

fn replace(project: &Project, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(project.path(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}:\n{text}");
    fs::write(project.path(file), text.replace(from, to)).unwrap();
}

/// Follows the remedy that `attest` prints.
fn with_a_person(project: &Project) {
    let made = project.must(&["keys", "generate", "person"]);
    fs::copy(made.stdout.trim(), project.path("trust/person.pub")).unwrap();
    replace(project, "trust/trust.yaml", "signers:\n", "signers:\n  person: { key: person.pub, roles: [manual] }\n");
    replace(project, "gateway.yaml", "signing: {", "signing: { manual: key:person,");
}

#[test]
fn a_key_is_made_once_shown_and_never_named_like_the_homes_own() {
    let project = Project::written();
    project.must(&["init"]);
    let made = project.must(&["keys", "generate", "person"]);
    let pem = fs::read_to_string(made.stdout.trim()).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
    assert_eq!(project.must(&["keys", "show", "person"]).stdout, pem);
    project.sluicegate(&["keys", "generate", "person"]).assert(2, "exists already");
    project.sluicegate(&["keys", "generate", "builder"]).assert(2, "exists already");
    for reserved in ["log", "ledger"] {
        project.sluicegate(&["keys", "generate", reserved]).assert(2, "the home makes itself");
    }
    project.sluicegate(&["keys", "generate", "../outside"]).assert(2, "a key's name");
    project.sluicegate(&["keys", "show", "nobody"]).assert(2, "sluicegate keys generate nobody");
    let mut wrong = project.copy();
    wrong.set("COSIGN_PASSWORD", "another");
    wrong.sluicegate(&["keys", "generate", "second"]).assert(2, "wrong passphrase");
    assert!(!wrong.path("home/keys/second.pub").exists());
    project.must(&["keys", "generate", "second"]);
}

#[test]
fn tm06_attest_by_hand_refuses_what_only_machines_say_and_says_how_to_get_a_key() {
    let test = "tm06_attest_by_hand_refuses_what_only_machines_say_and_says_how_to_get_a_key";
    if !ready(test) {
        return;
    }
    let mut project = Project::built();
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    project.sluicegate(&ATTEST).assert(2, "sluicegate keys generate NAME");
    with_a_person(&project);
    let layout = Layout::at(project.path("out/tiny"));
    let before = layout.index();
    // No passphrase is asked for: what is refused here is refused before any key is opened.
    project.set("COSIGN_PASSWORD", "wrong");
    for kind in ["provenance", "vulns", "verification-summary", "promotion", "signature"] {
        let arguments = ["attest", "oci:out/tiny", "--type", kind, "--predicate", "review.json"];
        project.sluicegate(&arguments).assert(2, "cannot be attested by hand");
    }
    for key in ["builder", "recorder", "production"] {
        project.sluicegate(&[&ATTEST[..], &["--signer", key]].concat()).assert(2, "has another role");
    }
    project.sluicegate(&[&ATTEST[..], &["--signer", "nobody"]].concat()).assert(2, "keys generate nobody");
    replace(&project, "trust/trust.yaml", "roles: [manual]", "roles: [manual, steps]");
    let sbom = ["attest", "oci:out/tiny", "--type", "sbom", "--predicate", "review.json"];
    project.sluicegate(&sbom).assert(2, "only role is manual");
    replace(&project, "trust/trust.yaml", "roles: [manual, steps]", "roles: [manual]");
    fs::write(project.path("review.json"), r#"{"a": 1, "a": 2}"#).unwrap();
    project.sluicegate(&ATTEST).assert(2, "stands twice");
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    project.sluicegate(&ATTEST).assert(2, "wrong passphrase");
    assert_eq!(layout.index(), before);
    project.set("COSIGN_PASSWORD", integration::PASSPHRASE);
    project.must(&ATTEST);
    assert_ne!(layout.index(), before);
}

#[test]
fn what_is_said_by_hand_is_verified_recorded_and_travels_with_nothing_else() {
    let test = "what_is_said_by_hand_is_verified_recorded_and_travels_with_nothing_else";
    if !ready(test) {
        return;
    }
    let project = Project::built();
    with_a_person(&project);
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    let layout = Layout::at(project.path("out/tiny"));
    let (before, image) = (layout.referrers().len(), layout.image());
    let (code, document) = project.json(&ATTEST);
    assert_eq!((code, &document["image"], &document["signer"]), (0, &image.as_str().into(), &"person".into()));
    assert_eq!((layout.referrers().len(), layout.image()), (before + 1, image.clone()));
    let record = document["record"].to_string();
    let (_, record) = project.json(&["evidence", "show", &record]);
    assert_eq!((&record["kind"], &record["outcome"]), (&"attestation".into(), &"attested".into()));
    let (code, report) = project.json(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!(code, 0, "{report:#}");
    let statements = report["statements"].as_array().unwrap();
    let own: Vec<_> = statements.iter().filter(|s| s["bundle"] == document["bundle"]).collect();
    assert_eq!((own.len(), &own[0]["status"], &own[0]["predicateType"]), (1, &"verified".into(), &REVIEW.into()));
    let promoted = project.sluicegate(&["promote", "oci:out/tiny", "--to", "production"]);
    promoted.assert(0, "ALLOWED");
    let there = Layout::at(project.path("env/production"));
    assert!(!there.blob(document["bundle"].as_str().unwrap()).exists(), "a promotion takes what the decision names");
    let at_production = ["attest", "oci:env/production", "--type", REVIEW, "--predicate", "review.json"];
    project.sluicegate(&at_production).assert(2, "production");
    assert_eq!(there.image(), image);
}
