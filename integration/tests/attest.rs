//! `attest` and `keys` end to end: a key of a person, a statement by hand, who may say what.

use std::{fs, process::Command};

use integration::{BUNDLE, Ended, Layout, Project, peer, ready};
use serde_json::json;
use sluicegate_types::Digest;

const REVIEW: &str = "https://example.com/review/v1";
const ATTEST: [&str; 6] = ["attest", "oci:out/tiny", "--type", REVIEW, "--predicate", "review.json"];

#[test]
fn a_key_is_made_once_shown_and_never_named_like_the_homes_own() {
    let project = Project::written();
    project.must(&["init"]);
    let made = project.must(&["keys", "generate", "person"]);
    let pem = fs::read_to_string(made.stdout.trim()).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
    assert_eq!(project.must(&["keys", "show", "person"]).stdout, pem);
    project.sluicegate(&["keys", "generate", "person"]).assert(2, "exists already");
    project.sluicegate(&["keys", "generate", "person"]).assert(2, "sluicegate keys show person");
    project.sluicegate(&["keys", "generate", "builder"]).assert(2, "exists already");
    // A gateway that names a key which this home has not.
    project.replace("gateway.yaml", "records: key:recorder", "records: key:recoder");
    project.sluicegate(&integration::PROMOTE).assert(2, "keys generate recoder");
    project.replace("gateway.yaml", "records: key:recoder", "records: key:recorder");
    project.sluicegate(&integration::PROMOTE).assert(2, "is not an OCI layout");
    for reserved in ["log", "ledger"] {
        project.sluicegate(&["keys", "generate", reserved]).assert(2, "the home makes itself");
    }
    project.sluicegate(&["keys", "generate", "../outside"]).assert(2, "a key's name");
    let unknown = project.sluicegate(&["keys", "show", "nobody"]);
    unknown.assert(
        2,
        "there are builder, ledger, log, person, production, recorder; sluicegate keys generate nobody makes it",
    );
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
    project.add_person();
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
    project.replace("trust/trust.yaml", "[manual], repositories: [\"*\"]", "[manual]");
    project.sluicegate(&ATTEST).assert(2, "write repositories: [\"*\"]");
    project.replace("trust/trust.yaml", "[manual]", "[manual], repositories: [\"registry.example/shop\"]");
    project.sluicegate(&ATTEST).assert(2, "has no repository name");
    project.replace("trust/trust.yaml", "[\"registry.example/shop\"]", "[\"*\"]");
    project.replace("trust/trust.yaml", "roles: [manual]", "roles: [manual, steps]");
    let sbom = ["attest", "oci:out/tiny", "--type", "sbom", "--predicate", "review.json"];
    project.sluicegate(&sbom).assert(2, "not a CycloneDX document");
    fs::write(project.path("review.json"), r#"{"bomFormat": "CycloneDX", "specVersion": "1.6"}"#).unwrap();
    project.sluicegate(&sbom).assert(2, "only role is manual");
    project.replace("trust/trust.yaml", "roles: [manual, steps]", "roles: [manual]");
    fs::write(project.path("review.json"), r#"{"a": 1, "a": 2}"#).unwrap();
    project.sluicegate(&ATTEST).assert(2, "stands twice");
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    project.sluicegate(&ATTEST).assert(2, "wrong passphrase");
    assert_eq!(layout.index(), before);
    project.set("COSIGN_PASSWORD", integration::PASSPHRASE);
    project.must(&ATTEST);
    assert_ne!(layout.index(), before);
    // A gateway that names no key does not hinder one that is named and believed.
    project.replace("gateway.yaml", " manual: key:person,", "");
    project.sluicegate(&ATTEST).assert(2, "names no key");
    project.must(&[&ATTEST[..], &["--signer", "person"]].concat());
}

#[test]
fn what_is_said_by_hand_is_verified_recorded_and_goes_along_with_what_it_was_counted_for() {
    let test = "what_is_said_by_hand_is_verified_recorded_and_goes_along_with_what_it_was_counted_for";
    if !ready(test) {
        return;
    }
    let project = Project::built();
    project.add_person();
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
    assert!(there.blob(document["bundle"].as_str().unwrap()).exists(), "a promotion takes what the decision names");
    let at_production = ["attest", "oci:env/production", "--type", REVIEW, "--predicate", "review.json"];
    project.sluicegate(&at_production).assert(2, "production");
    assert_eq!(there.image(), image);
}

/// SBOMs as other tools write them: SPDX of the real Trivy is a fact in a place of its own, CycloneDX XML is signed as JSON.
#[test]
fn an_sbom_in_spdx_or_xml_is_handed_in_by_hand() {
    let test = "an_sbom_in_spdx_or_xml_is_handed_in_by_hand";
    if !ready(test) {
        return;
    }
    let Some(trivy) = peer("SLUICEGATE_TRIVY", test) else { return };
    let project = Project::built();
    project.add_person();
    let vendor = project.path("vendor/node_modules/left-pad");
    fs::create_dir_all(&vendor).unwrap();
    fs::write(vendor.join("package.json"), r#"{"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}"#).unwrap();
    let written = Command::new(&trivy)
        .args([
            "rootfs",
            "--offline-scan",
            "--skip-version-check",
            "--disable-telemetry",
            "--quiet",
            "--cache-dir",
            "cache",
        ])
        .args(["--format", "spdx-json", "--output", "vendor.spdx.json", "vendor"])
        .current_dir(project.path("."))
        .status();
    assert!(written.unwrap().success());
    let attest =
        |kind: &str, file: &str| project.sluicegate(&["attest", "oci:out/tiny", "--type", kind, "--predicate", file]);
    attest("sbom", "vendor.spdx.json").assert(2, "attest it with --type spdx");
    attest("spdx", "vendor.spdx.json").assert(0, "");
    let xml = r#"<bom xmlns="http://cyclonedx.org/schema/bom/1.5"><components><component type="library"><name>x</name></component></components></bom>"#;
    fs::write(project.path("vendor.xml"), xml).unwrap();
    attest("sbom", "vendor.xml").assert(0, "");
    fs::write(project.path("vendor.xml"), xml.replace("1.5", "1.7")).unwrap();
    attest("sbom", "vendor.xml").assert(2, "of newer ones it reads JSON");
    project.must(&integration::PROMOTE);
    let record = project.last_record("decision")["sequence"].to_string();
    let (_, facts) = project.json(&["policy", "eval", "--record", &record, "--facts"]);
    let handed_in = &facts["sbom"]["byHand"];
    assert_eq!(
        (&handed_in["documents"][0]["format"], &handed_in["documents"][0]["version"]),
        (&json!("SPDX"), &json!("2.3"))
    );
    let named = |list: &serde_json::Value, name: &str| {
        let components = list.as_array().unwrap().iter();
        components.filter(|component| component["name"] == name).cloned().collect::<Vec<_>>()
    };
    let there = named(&handed_in["components"], "left-pad");
    assert_eq!((there.len(), &there[0]["purl"]), (1, &json!("pkg:npm/left-pad@1.3.0")), "{handed_in:#}");
    assert_eq!(there[0]["licenses"], json!(["WTFPL"]));
    // Neither is among what the image's own SBOM says.
    for name in ["left-pad", "x"] {
        assert_eq!(named(&facts["sbom"]["components"], name), [] as [serde_json::Value; 0]);
    }
}

#[test]
fn what_others_said_outlives_a_new_run_and_what_the_run_says_gives_way() {
    if !ready("what_others_said_outlives_a_new_run_and_what_the_run_says_gives_way") {
        return;
    }
    let project = Project::built();
    project.add_person();
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    fs::write(project.path("sbom.json"), r#"{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}"#)
        .unwrap();
    let layout = Layout::at(project.path("out/tiny"));
    let (before, image) = (layout.referrers().len(), layout.image());
    let sbom = ["attest", "oci:out/tiny", "--type", "sbom", "--predicate", "sbom.json"];
    let said =
        [project.json(&ATTEST), project.json(&sbom)].map(|(_, said)| said["bundle"].as_str().unwrap().to_owned());
    // Junk of denials, each smaller than what the person said, takes no room from it.
    let (_, reviewed) = layout.referrers().into_iter().find(|(_, m)| m["layers"][0]["digest"] == said[0]).unwrap();
    let (junk, size) = layout.put(b"junk");
    let mut index = layout.index();
    for number in 0..260 {
        let manifest = json!({
            "schemaVersion": 2, "artifactType": "application/vnd.sluicegate.denial.v1+json", "config": reviewed["config"],
            "layers": [{"mediaType": "a/b", "digest": junk, "size": size}], "subject": reviewed["subject"], "annotations": {"n": number.to_string()},
        });
        let (digest, size) = layout.put(manifest.to_string().as_bytes());
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size});
        index["manifests"].as_array_mut().unwrap().push(entry);
    }
    layout.write_index(&index);
    let ended = project.must(&["run"]);
    assert!(ended.stderr.contains("manifests of others"), "{ended:?}");
    assert_eq!(layout.image(), image);
    let carried = |digest: &str| layout.referrers().iter().filter(|(_, m)| m["layers"][0]["digest"] == digest).count();
    assert_eq!(said.map(|bundle| carried(&bundle)), [1, 1]);
    assert_eq!(layout.referrers().len(), before + 256, "the first run's evidence is not kept beside the second's");
}

#[test]
fn cosign_verifies_what_was_said_by_hand_with_the_persons_key_and_with_no_other() {
    let test = "cosign_verifies_what_was_said_by_hand_with_the_persons_key_and_with_no_other";
    if !ready(test) {
        return;
    }
    let Some(cosign) = peer("SLUICEGATE_COSIGN", test) else { return };
    let project = Project::built();
    project.add_person();
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    let verify = |key: &str| {
        let arguments = ["verify-attestation", "--key", key, "--type", REVIEW, "--local-image", "out/tiny"];
        let root = ["--trusted-root", "trust/trusted_root.json"];
        // In a network namespace of its own, so that nothing it says rests on a server.
        let mut command = Command::new("unshare");
        project.environment(&mut command);
        command.args(["--net", "--"]).arg(&cosign).args(arguments).args(root).env("HOME", project.path("."));
        Ended::of(&arguments, command.output().unwrap())
    };
    assert_ne!(verify("trust/person.pub").code, 0);
    project.must(&ATTEST);
    verify("trust/person.pub").assert(0, "");
    assert_ne!(verify("trust/builder.pub").code, 0);
    assert_ne!(verify("trust/production.pub").code, 0);
}

#[test]
fn tm01_a_product_of_a_step_verifies_with_the_bundle_of_its_step_and_a_directory_is_no_file() {
    let test = "tm01_a_product_of_a_step_verifies_with_the_bundle_of_its_step_and_a_directory_is_no_file";
    if !ready(test) {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let (_, evidence) = layout.evidence();
    let bundle_of = |product: &str| {
        evidence["layers"].as_array().unwrap().iter().filter(|part| part["mediaType"] == BUNDLE).find_map(|part| {
            let digest = part["digest"].as_str().unwrap();
            let statement = integration::decode(layout.json(digest)["dsseEnvelope"]["payload"].as_str()?);
            let subject = statement["subject"].as_array()?.iter().find(|subject| subject["name"] == product)?.clone();
            Some((layout.blob(digest).display().to_string(), subject["digest"]["sha256"].as_str()?.to_owned()))
        })
    };
    let content = |hex: &str| project.path("home/store/blobs/sha256").join(hex).display().to_string();
    let (bundle, file) = bundle_of("package.one").unwrap();
    project.sluicegate(&["verify", &content(&file), "--bundle", &bundle]).assert(0, "VERIFIED");
    project.sluicegate(&["verify", &format!("sha256:{file}"), "--bundle", &bundle]).assert(0, "by builder");
    let key = ["--key", "trust/builder.pub", "--trust-root", "trust/trusted_root.json"];
    project.sluicegate(&[&["verify", &content(&file), "--bundle", &bundle][..], &key].concat()).assert(0, "VERIFIED");
    let key = ["--key", "trust/production.pub", "--trust-root", "trust/trusted_root.json"];
    let other = project.sluicegate(&[&["verify", &content(&file), "--bundle", &bundle][..], &key].concat());
    other.assert(4, "unknown key");
    let (same, directory) = bundle_of("package.pack").unwrap();
    assert_eq!(same, bundle);
    project.sluicegate(&["verify", &content(&directory), "--bundle", &bundle]).assert(4, "which is no file");
    fs::write(project.path("other"), "other").unwrap();
    let refused = project.sluicegate(&["verify", "other", "--bundle", &bundle]);
    refused.assert(4, &Digest::of(b"other").to_string());
    refused.assert(4, &file);
}
