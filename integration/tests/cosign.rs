//! An unmodified cosign is the judge: what it accepts, what it refuses, offline and with our exported root.

use std::{path::PathBuf, process::Command};

use integration::{BUNDLE, Ended, Layout, PROMOTE, Project, can_run_steps, peer};

const ROOT: [&str; 2] = ["--trusted-root", "trust/trusted_root.json"];

fn ready(test: &str) -> Option<PathBuf> {
    if !can_run_steps(test) {
        return None;
    }
    peer("SLUICEGATE_TRIVY", test)?;
    peer("SLUICEGATE_COSIGN", test)
}

/// cosign in a network namespace of its own, so that nothing it says rests on a server.
fn cosign(cosign: &PathBuf, project: &Project, arguments: &[&str]) -> Ended {
    let mut command = Command::new("unshare");
    project.environment(&mut command);
    command.args(["--net", "--"]).arg(cosign).args(arguments).args(ROOT).env("HOME", project.path("."));
    Ended::of(arguments, command.output().unwrap())
}

#[test]
fn cosign_verifies_a_step_statement_by_digest() {
    let Some(program) = ready("cosign_verifies_a_step_statement_by_digest") else { return };
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let (_, evidence) = layout.evidence();
    let bundle = evidence["layers"].as_array().unwrap().iter().find_map(|part| {
        let bundle = layout.json(part["digest"].as_str().unwrap());
        let payload = bundle["dsseEnvelope"]["payload"].as_str()?;
        let statement = integration::decode(payload);
        (statement["subject"][0]["name"] == "build.app")
            .then(|| (part["digest"].clone(), statement["subject"][0]["digest"]["sha256"].clone()))
    });
    let (bundle, digest) = bundle.unwrap();
    let (file, digest) = (layout.blob(bundle.as_str().unwrap()), digest.as_str().unwrap().to_owned());
    let verify = |key: &str, kind: &str, digest: &str| {
        cosign(
            &program,
            &project,
            &[
                "verify-blob-attestation",
                "--key",
                key,
                "--bundle",
                file.to_str().unwrap(),
                "--type",
                kind,
                "--digest",
                digest,
                "--digestAlg",
                "sha256",
            ],
        )
    };
    verify("trust/builder.pub", "slsaprovenance1", &digest).assert(0, "Verified OK");
    verify("trust/production.pub", "slsaprovenance1", &digest).assert(1, "");
    verify("trust/builder.pub", "cyclonedx", &digest).assert(1, "invalid predicate type");
    verify("trust/builder.pub", "slsaprovenance1", &"0".repeat(64)).assert(1, "does not match");
}

#[test]
fn cosign_verifies_image_statements_and_the_signature() {
    let Some(program) = ready("cosign_verifies_image_statements_and_the_signature") else { return };
    let project = Project::promoted();
    let attestation = |key: &str, kind: &str| {
        cosign(
            &program,
            &project,
            &["verify-attestation", "--key", key, "--type", kind, "--local-image", "env/production"],
        )
    };
    attestation("trust/builder.pub", "slsaprovenance1").assert(0, "");
    attestation("trust/builder.pub", "cyclonedx").assert(0, "");
    attestation("trust/production.pub", "https://slsa.dev/verification_summary/v1").assert(0, "");
    attestation("trust/production.pub", "slsaprovenance1").assert(1, "none of the attestations matched");
    attestation("trust/builder.pub", "spdx").assert(1, "none of the attestations matched");
    let signature =
        |key: &str| cosign(&program, &project, &["verify", "--key", key, "--local-image", "env/production"]);
    signature("trust/production.pub").assert(0, "");
    let stranger = Project::stranger();
    let key = stranger.path("trust/production.pub");
    let ended = signature(key.to_str().unwrap());
    assert!(ended.code != 0 && ended.stderr.contains("log inclusion"), "{ended:?}");
    // Another image with the same statements attached: they are not about it.
    let layout = Layout::at(project.path("env/production"));
    let mut manifest = layout.json(&layout.image());
    manifest["annotations"] = serde_json::json!({"other": "image"});
    let (digest, size) = layout.put(manifest.to_string().as_bytes());
    let subject =
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size});
    for (at, mut referrer) in layout.referrers() {
        referrer["subject"] = subject.clone();
        layout.replace(at, &referrer);
    }
    layout.replace(0, &manifest);
    assert_ne!(signature("trust/production.pub").code, 0);
    assert_ne!(attestation("trust/builder.pub", "slsaprovenance1").code, 0);
}

#[test]
fn tm05_cosign_takes_the_production_key_for_what_was_promoted_to_production_and_for_nothing_else() {
    let test = "tm05_cosign_takes_the_production_key_for_what_was_promoted_to_production_and_for_nothing_else";
    let Some(program) = ready(test) else { return };
    let project = Project::built();
    let verify =
        |key: &str, folder: &str| cosign(&program, &project, &["verify", "--key", key, "--local-image", folder]);
    let production = |folder: &str| verify("trust/production.pub", folder);
    let refused = |folder: &str| {
        let ended = production(folder);
        assert!(ended.code != 0 && !ended.stdout.contains("\"critical\""), "{ended:?}");
    };
    refused("out/tiny");
    // Only promoted to where there is no gate.
    project.sluicegate(&["promote", "oci:out/tiny", "--to", "staging"]).assert(0, "UNGATED");
    refused("env/staging");
    // Denied: what is laid beside the image is no signature of anybody's.
    let layout = Layout::at(project.path("out/tiny"));
    project.replace("policies/data.yaml", "signer: builder", "signer: somebody");
    project.sluicegate(&PROMOTE).assert(1, "DENIED");
    project.replace("policies/data.yaml", "signer: somebody", "signer: builder");
    refused("out/tiny");
    let denial = layout.referrers().into_iter().map(|(_, manifest)| manifest);
    let denial: Vec<_> = denial.filter(|m| m["artifactType"] == "application/vnd.sluicegate.denial.v1+json").collect();
    assert_eq!(denial.len(), 1, "the denial lies beside the image");
    let bundle = denial[0]["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(layout.statement(bundle)["predicate"]["verificationResult"], "FAILED");
    // In a layout cosign goes by the layer's media type, not by the manifest's: it reads the denial, and takes whoever signed it for a
    // signer of the image. So what keeps a denial from being a signature is its key, in every wrapping.
    verify("trust/recorder.pub", "out/tiny").assert(0, "");
    for kind in ["https://slsa.dev/verification_summary/v1", "https://sigstore.dev/cosign/sign/v1"] {
        let mut wrapped = denial[0].clone();
        wrapped["artifactType"] = BUNDLE.into();
        wrapped["annotations"] = serde_json::json!({
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": kind,
            "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        });
        layout.add(&wrapped);
        refused("out/tiny");
    }
    // Whoever demands the decision itself does not take the denial for one either.
    let decision = |key: &str, folder: &str| {
        let kind = "https://slsa.dev/verification_summary/v1";
        cosign(&program, &project, &["verify-attestation", "--key", key, "--type", kind, "--local-image", folder])
    };
    assert_ne!(decision("trust/production.pub", "out/tiny").code, 0);
    project.must(&PROMOTE);
    production("env/production").assert(0, "");
    decision("trust/production.pub", "env/production").assert(0, "");
    assert_ne!(decision("trust/recorder.pub", "env/production").code, 0);
    // Nothing is signed where it was built.
    refused("out/tiny");
}
