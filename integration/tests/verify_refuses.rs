//! `verify` on a layout that somebody changed: each fault has its own exit code and words, beside the same layout without it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;

use integration::{Layout, Project, can_run_steps, peer};

fn ready(test: &str) -> bool {
    can_run_steps(test) && peer("SLUICEGATE_TRIVY", test).is_some()
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

#[test]
fn an_untouched_image_verifies_and_lists_every_statement() {
    if !ready("an_untouched_image_verifies_and_lists_every_statement") {
        return;
    }
    let project = Project::promoted();
    let (code, document) = project.json(&["verify", "--offline", "oci:env/production"]);
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["complete"], true);
    let statements = document["statements"].as_array().unwrap();
    let count = |kind: &str| statements.iter().filter(|s| s["kind"] == kind && s["status"] == "verified").count();
    assert_eq!(
        [
            count("provenance"),
            count("sbom"),
            count("vulns"),
            count("verification-summary"),
            count("promotion"),
            count("signature")
        ],
        [4, 1, 1, 1, 1, 1],
        "{document:#}"
    );
    assert_eq!(document["gateAsked"], false);
}

#[test]
fn one_flipped_bit_in_any_reachable_blob_is_refused() {
    if !ready("one_flipped_bit_in_any_reachable_blob_is_refused") {
        return;
    }
    let project = Project::promoted();
    let layout = Layout::at(project.path("env/production"));
    let reference = format!("oci:env/production@{}", layout.image());
    let blobs = layout.reachable();
    assert!(blobs.len() >= 15, "{blobs:?}");
    for blob in blobs {
        let good = fs::read(layout.blob(&blob)).unwrap();
        project.must(&["verify", "--offline", &reference]);
        layout.flip(&blob);
        let ended = project.sluicegate(&["verify", "--offline", &reference]);
        ended.assert(4, &blob);
        fs::write(layout.blob(&blob), good).unwrap();
    }
}

#[test]
fn a_missing_blob_leaves_the_question_open() {
    if !ready("a_missing_blob_leaves_the_question_open") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let reference = format!("oci:out/tiny@{}", layout.image());
    let (_, evidence) = layout.evidence();
    for part in evidence["layers"].as_array().unwrap() {
        let digest = part["digest"].as_str().unwrap();
        let good = fs::read(layout.blob(digest)).unwrap();
        project.must(&["verify", "--offline", &reference]);
        fs::remove_file(layout.blob(digest)).unwrap();
        project.sluicegate(&["verify", "--offline", &reference]).assert(3, digest);
        fs::write(layout.blob(digest), good).unwrap();
    }
}

#[test]
fn a_bundle_taken_out_of_the_evidence_manifest_is_missed() {
    if !ready("a_bundle_taken_out_of_the_evidence_manifest_is_missed") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let (at, evidence) = layout.evidence();
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    for part in 0..evidence["layers"].as_array().unwrap().len() {
        let mut changed = evidence.clone();
        let taken = changed["layers"].as_array_mut().unwrap().remove(part);
        layout.replace(at, &changed);
        let ended = project.sluicegate(&["verify", "--offline", "oci:out/tiny"]);
        ended.assert(3, taken["digest"].as_str().unwrap());
        assert!(ended.stdout.contains("is missing"), "{}", ended.stdout);
    }
    layout.replace(at, &evidence);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
}

#[test]
fn an_image_without_attestations_is_undecided() {
    if !ready("an_image_without_attestations_is_undecided") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    layout.remove(layout.referrer_of(PROVENANCE));
    project.sluicegate(&["verify", "--offline", "oci:out/tiny"]).assert(3, "no provenance of a trusted builder");
    let mut index = layout.index();
    index["manifests"].as_array_mut().unwrap().truncate(1);
    layout.write_index(&index);
    let ended = project.sluicegate(&["verify", "--offline", "oci:out/tiny"]);
    ended.assert(3, "no provenance of a trusted builder");
    // A base image never had any.
    project.sluicegate(&["verify", "--offline", "oci:images/base"]).assert(3, "no provenance of a trusted builder");
}

#[test]
fn a_foreign_key_proves_nothing() {
    if !ready("a_foreign_key_proves_nothing") {
        return;
    }
    let project = Project::built();
    let root = "trust/trusted_root.json";
    project.must(&["verify", "--offline", "oci:out/tiny", "--key", "trust/builder.pub", "--trust-root", root]);
    for key in ["trust/recorder.pub", "trust/production.pub"] {
        let ended = project.sluicegate(&["verify", "--offline", "oci:out/tiny", "--key", key, "--trust-root", root]);
        ended.assert(3, "unknown key");
    }
    // Another home's key and log, with everything else the same.
    let stranger = Project::prepared();
    let (key, root) = (stranger.path("trust/builder.pub"), stranger.path(root));
    let (key, root) = (key.to_str().unwrap(), root.to_str().unwrap());
    project
        .sluicegate(&["verify", "--offline", "oci:out/tiny", "--key", key, "--trust-root", root])
        .assert(3, "unknown key");
    let ended = project.sluicegate(&[
        "verify",
        "--offline",
        "oci:out/tiny",
        "--key",
        "trust/builder.pub",
        "--trust-root",
        root,
    ]);
    ended.assert(3, "the log is not one of the trusted root");
}

#[test]
fn a_bundle_of_another_run_does_not_stand_in() {
    if !ready("a_bundle_of_another_run_does_not_stand_in") {
        return;
    }
    let project = Project::built();
    let first = Layout::at(project.path("out/tiny"));
    let (_, evidence) = first.evidence();
    let old = evidence["layers"][0].clone();
    let bytes = fs::read(first.blob(old["digest"].as_str().unwrap())).unwrap();
    project.must(&["run"]);
    let layout = Layout::at(project.path("out/tiny"));
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    let (at, mut changed) = layout.evidence();
    layout.put(&bytes);
    changed["layers"][0] = old;
    layout.replace(at, &changed);
    project.sluicegate(&["verify", "--offline", "oci:out/tiny"]).assert(3, "is missing");
}

#[test]
fn junk_that_anyone_attaches_changes_nothing() {
    if !ready("junk_that_anyone_attaches_changes_nothing") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let (_, mut junk) = layout.referrers().into_iter().find(|(_, m)| m["annotations"].is_object()).unwrap();
    let (digest, size) = layout.put(b"{\"not\": \"a bundle\"}");
    junk["layers"][0]["digest"] = digest.into();
    junk["layers"][0]["size"] = size.into();
    let (digest, size) = layout.put(junk.to_string().as_bytes());
    let mut index = layout.index();
    let entry =
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size});
    index["manifests"].as_array_mut().unwrap().push(entry);
    layout.write_index(&index);
    let (code, document) = project.json(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!(code, 0, "{document:#}");
    assert!(document["statements"].as_array().unwrap().iter().any(|s| s["status"] == "ignored"));
}

#[test]
fn a_layout_that_is_none_and_a_reference_that_fits_nothing_are_usage_errors() {
    if !ready("a_layout_that_is_none_and_a_reference_that_fits_nothing_are_usage_errors") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    project.must(&["verify", &format!("oci:out/tiny@{}", layout.image())]);
    let other = format!("oci:out/tiny@sha256:{}", "0".repeat(64));
    project.sluicegate(&["verify", &other]).assert(2, "it holds");
    project.sluicegate(&["verify", "oci:nowhere"]).assert(2, "not an OCI layout");
    project.sluicegate(&["verify", "oci:out/tiny:nothing"]).assert(2, "no image tagged nothing");
    project.sluicegate(&["verify", "registry.example/tiny:1"]).assert(2, "not in this version");
    project.sluicegate(&["verify", "oci:out/tiny", "--for", "production"]).assert(2, "not in this version");
    project.sluicegate(&["verify", "oci:out/tiny", "--policy", "policies"]).assert(2, "not in this version");
}
