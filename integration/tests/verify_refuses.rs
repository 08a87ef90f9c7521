//! `verify` on a layout that somebody changed: each fault has its own exit code and words, beside the same layout without it.

use std::fs;

use integration::{Layout, PROMOTE, PROVENANCE, Project, ready};

#[test]
fn an_untouched_image_verifies_and_lists_every_statement_once() {
    if !ready("an_untouched_image_verifies_and_lists_every_statement_once") {
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
            count("test-result"),
            count("verification-summary"),
            count("promotion"),
            count("signature")
        ],
        // The image and three steps; the image, the step image and two outputs; the image, the step image, two outputs, and the gate's own scan.
        [4, 4, 5, 1, 1, 1, 1],
        "{document:#}"
    );
    assert_eq!(document["gateAsked"], false);
    let mut bundles: Vec<&str> = statements.iter().map(|s| s["bundle"].as_str().unwrap()).collect();
    let listed = bundles.len();
    bundles.sort_unstable();
    bundles.dedup();
    assert_eq!((bundles.len(), listed), (17, 17), "{document:#}");
    let mut places = Vec::new();
    for statement in statements {
        let origin = statement["log"]["origin"].as_str().unwrap();
        assert!(origin.starts_with("log-") && origin.ends_with(".sluicegate.internal"), "{statement:#}");
        places.push(statement["log"]["index"].as_u64().unwrap());
        let signers = ["builder", "production", "recorder"];
        assert!(signers.contains(&statement["signer"].as_str().unwrap()), "{statement:#}");
        // An entry of our own log has no time of its own, and that is said.
        assert_eq!(statement["time"]["source"], "none", "{statement:#}");
        assert!(!statement["subjects"].as_array().unwrap().is_empty(), "{statement:#}");
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 17, "{document:#}");
    // One that is gone is listed with its digest, and still once.
    let layout = Layout::at(project.path("env/production"));
    let (at, mut evidence) = layout.evidence();
    let taken = evidence["layers"].as_array_mut().unwrap().remove(0)["digest"].clone();
    layout.replace(at, &evidence);
    let (code, document) = project.json(&["verify", "--offline", "oci:env/production"]);
    let about: Vec<_> = document["statements"].as_array().unwrap().iter().filter(|s| s["bundle"] == taken).collect();
    assert_eq!((code, about.len(), &about[0]["status"]), (3, 1, &"missing".into()), "{document:#}");
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
fn tm03_each_named_bundle_and_report_that_is_gone_leaves_verify_and_promote_undecided() {
    if !ready("tm03_each_named_bundle_and_report_that_is_gone_leaves_verify_and_promote_undecided") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let both = |says: &str| {
        let ended = project.sluicegate(&["verify", "--offline", "oci:out/tiny"]);
        ended.assert(3, says);
        assert!(ended.stdout.contains("is missing"), "{}", ended.stdout);
        project.sluicegate(&PROMOTE).assert(3, says);
        assert!(!project.path("env/production/index.json").exists(), "something was promoted");
    };
    let (at, evidence) = layout.evidence();
    let parts = evidence["layers"].as_array().unwrap();
    // Steps, the test's result and its report, the step image's SBOM, scan and raw report, the SBOMs of outputs.
    assert!(parts.len() >= 8, "{evidence:#}");
    for part in 0..parts.len() {
        let mut changed = evidence.clone();
        let taken = changed["layers"].as_array_mut().unwrap().remove(part);
        layout.replace(at, &changed);
        both(taken["digest"].as_str().unwrap());
    }
    layout.replace(at, &evidence);
    let index = layout.index();
    for kind in ["https://cyclonedx.org/bom", "https://in-toto.io/attestation/vulns/v0.2"] {
        let at = layout.referrer_of(kind);
        let manifest = layout.referrers().into_iter().find(|(place, _)| *place == at).unwrap().1;
        layout.remove(at);
        both(manifest["layers"][0]["digest"].as_str().unwrap());
        layout.write_index(&index);
    }
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    project.must(&PROMOTE);
}

#[test]
fn an_image_without_attestations_is_undecided() {
    if !ready("an_image_without_attestations_is_undecided") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    let at = layout.referrer_of(PROVENANCE);
    let provenance = layout.index()["manifests"][at]["digest"].clone();
    layout.remove(at);
    project.sluicegate(&["verify", "--offline", "oci:out/tiny"]).assert(3, "no provenance of a trusted builder");
    // What no list names is found among the blobs, as long as it is there.
    let mut index = layout.index();
    let attached = index["manifests"].as_array_mut().unwrap().split_off(1);
    layout.write_index(&index);
    fs::remove_file(layout.blob(provenance.as_str().unwrap())).unwrap();
    for manifest in attached {
        fs::remove_file(layout.blob(manifest["digest"].as_str().unwrap())).unwrap();
    }
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
    let stranger = Project::stranger();
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
fn tm03_a_bundle_of_another_run_does_not_stand_in_and_an_extra_one_is_ignored() {
    if !ready("tm03_a_bundle_of_another_run_does_not_stand_in_and_an_extra_one_is_ignored") {
        return;
    }
    let project = Project::built();
    let first = Layout::at(project.path("out/tiny"));
    let (_, evidence) = first.evidence();
    let old = evidence["layers"][0].clone();
    let old_digest = old["digest"].as_str().unwrap();
    let bytes = fs::read(first.blob(old_digest)).unwrap();
    project.must(&["run", "--no-cache"]);
    let layout = Layout::at(project.path("out/tiny"));
    let (at, evidence) = layout.evidence();
    layout.put(&bytes);
    let mut changed = evidence.clone();
    let new = changed["layers"][0]["digest"].as_str().unwrap().to_owned();
    changed["layers"][0] = old.clone();
    layout.replace(at, &changed);
    project.sluicegate(&["verify", "--offline", "oci:out/tiny"]).assert(3, &new);
    project.sluicegate(&PROMOTE).assert(3, &new);
    assert!(!project.path("env/production/index.json").exists());
    // Beside the new one the old one is nobody's business, and it stays behind.
    let mut changed = evidence;
    changed["layers"].as_array_mut().unwrap().push(old.clone());
    layout.replace(at, &changed);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    project.must(&PROMOTE);
    let there = Layout::at(project.path("env/production"));
    assert!(there.blob(&new).exists() && !there.blob(old_digest).exists());
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
    let ignored = document["statements"].as_array().unwrap().iter().filter(|s| s["status"] == "ignored").count();
    assert!(ignored > 0, "{document:#}");
    // What is counted is what is listed.
    let said = project.must(&["verify", "--offline", "oci:out/tiny"]).stdout;
    assert_eq!(said.lines().filter(|line| line.starts_with("  ignored ")).count(), ignored, "{said}");
    assert!(said.contains(&format!("  {ignored} attached and ignored\n")), "{said}");
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
    project.sluicegate(&["verify", "registry/tiny:1"]).assert(2, "begins with its host");
    project.sluicegate(&["verify", "oci:out/tiny", "--for", "nowhere"]).assert(2, "nowhere");
    project.sluicegate(&["verify", "oci:out/tiny", "--policy", "policies"]).assert(2, "not in this version");
}
