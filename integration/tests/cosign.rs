//! An unmodified cosign is the judge: what it accepts, what it refuses, offline and with our exported root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{path::PathBuf, process::Command};

use integration::{Ended, Layout, Project, can_run_steps, peer};

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
    let stranger = Project::prepared();
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
fn cosign_refuses_a_denied_image_with_the_production_key() {
    let Some(program) = ready("cosign_refuses_a_denied_image_with_the_production_key") else { return };
    let project = Project::built();
    let verify = |folder: &str| {
        cosign(&program, &project, &["verify", "--key", "trust/production.pub", "--local-image", folder])
    };
    let data = project.path("policies/data.yaml");
    let allowed = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, allowed.replace("signer: builder", "signer: somebody")).unwrap();
    project.sluicegate(&["promote", "oci:out/tiny", "--to", "production"]).assert(1, "DENIED");
    assert_ne!(verify("out/tiny").code, 0);
    std::fs::write(&data, allowed).unwrap();
    project.must(&["promote", "oci:out/tiny", "--to", "production"]);
    verify("env/production").assert(0, "");
    // The place that it was built in still carries no signature.
    assert_ne!(verify("out/tiny").code, 0);
}
