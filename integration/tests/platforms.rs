//! One artifact for two kinds of machines: built, judged, promoted and admitted as an index and as each of its images.

use std::{collections::BTreeSet, fs};

use integration::{
    Layout, Project, can_run_steps, peer, ready,
    registry::{Kind, RealRegistry},
};
use serde_json::{Value, json};

const REVIEW: &str = "https://example.com/review/v1";
/// A rule that wants a word about the image, or about the index with which it is promoted.
const REVIEWED: &str = r#"package review

# METADATA
# title: Reviewed
# description: A rule of a test.
# custom:
#   short_name: done
#   solution: Review it.
#   requires: ["https://example.com/review/v1"]
pass contains "review.done" if {
	some statement in input.attestations
	statement.predicateType == "https://example.com/review/v1"
	statement.predicate.reviewed
	some subject in statement.subjects
	subject.digest in {input.subject.digest, input.subject.index}
}
"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A project whose base is an index for two kinds of machines: this one's image, and the same files said to be for the other.
fn project() -> Project {
    let project = Project::prepared();
    project.keep("images/base", "images/both");
    let layout = Layout::at(project.path("images/both"));
    let own = layout.index()["manifests"][0].clone();
    let mut manifest = layout.json(&layout.image());
    let mut config = layout.json(manifest["config"]["digest"].as_str().unwrap());
    config["architecture"] = json!("arm64");
    let (digest, size) = layout.put(config.to_string().as_bytes());
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (other, length) = layout.put(manifest.to_string().as_bytes());
    let entry = |digest: &Value, size: &Value, architecture: &str| {
        json!({
            "mediaType": own["mediaType"], "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let entries = [entry(&own["digest"], &own["size"], "amd64"), entry(&json!(other), &json!(length), "arm64")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let (digest, size) = layout.put(index.to_string().as_bytes());
    layout.write_index(&json!({
        "schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": digest, "size": size}],
    }));
    let base = "base: oci:images/base";
    project.replace("sluicegate.yaml", base, "base: oci:images/both\n    platforms: [linux/amd64, linux/arm64]");
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    project
}

/// Builds, and gives the digest of the index and of its images.
fn run(project: &Project) -> (String, Vec<String>) {
    let (code, document) = project.json(&["run"]);
    assert_eq!(code, 0, "{document:#}");
    let image = &document["images"][0];
    let platforms = image["platforms"].as_array().unwrap();
    let names: Vec<&Value> = platforms.iter().map(|one| &one["platform"]).collect();
    assert_eq!(names, ["linux/amd64", "linux/arm64"]);
    let of = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    (of(image), platforms.iter().map(of).collect())
}

#[test]
fn an_artifact_of_two_platforms_goes_the_whole_way() {
    let test = "an_artifact_of_two_platforms_goes_the_whole_way";
    if !ready(test) {
        return;
    }
    let project = project();
    // What an image stands on is the base's image for its platform.
    project.must(&["init", "--allow-base", "oci:images/both"]);
    let (index, images) = run(&project);
    let built = Layout::at(project.path("out/tiny"));
    assert_eq!(built.image(), index);
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        let manifest = built.json(image);
        let config = built.json(manifest["config"]["digest"].as_str().unwrap());
        assert_eq!((&config["architecture"], &config["os"]), (&json!(architecture), &json!("linux")));
    }
    let (code, verified) = project.json(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!((code, &verified["complete"]), (0, &json!(true)), "{verified:#}");
    let shown = project.must(&["verify", "--offline", &format!("oci:out/tiny@{}", images[1])]);
    shown.assert(0, &images[1]);
    // The same again is the same.
    assert_eq!(run(&project), (index.clone(), images.clone()));

    let promoted = project.must(&["promote", "oci:out/tiny", "--to", "production"]);
    promoted.assert(0, "ALLOWED");
    let ask = |reference: &str| project.sluicegate(&["verify", "--offline", "--for", "production", reference]);
    ask("oci:env/production").assert(0, "ADMITTED");
    for image in &images {
        ask(&format!("oci:env/production@{image}")).assert(0, "ADMITTED");
        ask(&format!("oci:out/tiny@{image}")).assert(3, "no decision for production is attached");
    }
    ask("oci:out/tiny").assert(3, "no decision for production is attached");

    // The decision is made again from those of its images.
    let (_, list) = project.json(&["evidence", "list"]);
    let decisions = list["records"].as_array().unwrap().iter().filter(|record| record["kind"] == "decision");
    let numbers: Vec<String> = decisions.map(|record| record["sequence"].to_string()).collect();
    assert_eq!(numbers.len(), 3, "{list:#}");
    for number in &numbers {
        project.must(&["evidence", "replay", number]).assert(0, "");
    }
    project.must(&["evidence", "fsck", "--against", "oci:env/production"]).assert(0, "");

    // Without the evidence of one image the index is not let in, and not promoted.
    let held = Layout::at(project.path("env/production"));
    let before = held.index();
    let gone = held.referrers().into_iter().find(|(_, manifest)| {
        manifest["subject"]["digest"] == json!(images[1]) && manifest["artifactType"].to_string().contains("evidence")
    });
    held.remove(gone.unwrap().0);
    ask("oci:env/production").assert(3, "linux/arm64");
    ask(&format!("oci:env/production@{}", images[0])).assert(0, "ADMITTED");
    held.write_index(&before);
    ask("oci:env/production").assert(0, "ADMITTED");
}

#[test]
fn what_a_person_says_about_an_index_counts_for_its_images_wherever_it_is() {
    let test = "what_a_person_says_about_an_index_counts_for_its_images_wherever_it_is";
    let (Some(cosign), Some(registry)) =
        (peer("SLUICEGATE_COSIGN", test), RealRegistry::start(Kind::Distribution, test))
    else {
        return;
    };
    if !ready(test) {
        return;
    }
    let mut project = project();
    registry.introduce(&mut project);
    project.must(&["init", "--allow-base", "oci:images/both"]);
    project.add_person();
    fs::write(project.path("policies/review.rego"), REVIEWED).unwrap();
    fs::write(project.path("review.json"), r#"{"reviewed": true}"#).unwrap();
    let (index, images) = run(&project);
    let production = registry.repository("prod/tiny");
    project.replace("gateway.yaml", "oci:env/production", &production);
    // Of a layout and of a registry.
    let built = registry.repository("build/tiny:v1");
    project.must(&["copy", "oci:out/tiny", &built]);
    for from in ["oci:out/tiny", &built] {
        let promote = ["promote", from, "--to", "production"];
        let open = project.sluicegate(&promote);
        for platform in ["linux/amd64", "linux/arm64"] {
            open.assert(3, &format!("{platform}: required evidence is missing: {REVIEW}"));
        }
        let (code, said) = project.json(&["attest", from, "--type", REVIEW, "--predicate", "review.json"]);
        assert_eq!((code, &said["image"]), (0, &json!(index)), "{said:#}");
        let (code, listed) = project.json(&["verify", from]);
        assert_eq!((code, &listed["image"]), (0, &json!(index)), "{listed:#}");
        let own = listed["statements"].as_array().unwrap().iter().find(|one| one["bundle"] == said["bundle"]);
        assert_eq!(own.unwrap()["status"], "verified");
        let (code, promoted) = project.json(&promote);
        assert_eq!(code, 0, "{promoted:#}");
        let (_, list) = project.json(&["evidence", "list"]);
        let decisions = list["records"].as_array().unwrap().iter().filter(|record| record["kind"] == "decision");
        let made: Vec<String> = decisions.take(3).map(|record| record["sequence"].to_string()).collect();
        for number in &made {
            project.must(&["evidence", "replay", number]);
        }
        // A person's word about the index stands beside it.
        let arguments = ["verify-attestation", "--key", "trust/person.pub", "--type", REVIEW];
        let image = format!("{production}@{index}");
        let arguments = [&arguments[..], &["--trusted-root", "trust/trusted_root.json", &image]].concat();
        registry.client(&cosign, &project, &arguments).assert(0, "");
        for image in images.iter().chain([&index]) {
            project.must(&["verify", "--for", "production", &format!("{production}@{image}")]).assert(0, "ADMITTED");
        }
    }
    project.must(&["evidence", "fsck", "--against", &format!("{production}:current")]);
}

#[test]
fn one_platform_on_a_base_that_is_not_allowed_denies_the_index() {
    let test = "one_platform_on_a_base_that_is_not_allowed_denies_the_index";
    if !ready(test) {
        return;
    }
    let project = project();
    // Only this machine's image of the base is on the list.
    let (index, images) = run(&project);
    let (code, document) = project.json(&["promote", "oci:out/tiny", "--to", "production"]);
    assert_eq!((code, &document["verdict"], &document["image"]), (1, &json!("deny"), &json!(index)), "{document:#}");
    let platforms: BTreeSet<String> =
        document["denials"].as_array().unwrap().iter().map(|denial| denial["platform"].to_string()).collect();
    assert_eq!(platforms, BTreeSet::from(["\"linux/arm64\"".to_owned()]));
    assert!(!project.path("env/production/index.json").exists());
    let (code, shown) = project.json(&["evidence", "show", &document["record"].to_string()]);
    assert_eq!(code, 0);
    let decided = shown["body"]["platforms"].as_array().unwrap_or_else(|| panic!("{shown:#}")).clone();
    let verdicts: Vec<(&Value, &Value)> = decided.iter().map(|one| (&one["image"], &one["verdict"])).collect();
    assert_eq!(verdicts, [(&json!(images[0]), &json!("allow")), (&json!(images[1]), &json!("deny"))]);
    for one in &decided {
        project.must(&["evidence", "replay", &one["record"].to_string()]).assert(0, "");
    }
    project.must(&["evidence", "replay", &document["record"].to_string()]).assert(0, "");
    let ended = project.sluicegate(&["promote", "oci:out/tiny", "--to", "production"]);
    ended.assert(1, "linux/arm64: ");
}

#[test]
fn a_program_for_another_machine_is_not_put_into_an_image() {
    if !can_run_steps("a_program_for_another_machine_is_not_put_into_an_image") {
        return;
    }
    let project = project();
    project.replace(
        "sluicegate.yaml",
        "cat /app/hello.txt > /out/one",
        "cp /bin/cat /out/pack/tool && cat /app/hello.txt > /out/one",
    );
    let ended = project.sluicegate(&["run", "--no-scan"]);
    ended.assert(2, "/opt/tiny/tool is no program for linux/arm64");
    assert!(!project.path("out/tiny/index.json").exists());
    // For this machine alone it is.
    project.replace("sluicegate.yaml", "[linux/amd64, linux/arm64]", "[linux/amd64]");
    project.must(&["run", "--no-scan"]);
    assert_ne!(Layout::at(project.path("out/tiny")).index()["manifests"][0]["mediaType"], INDEX);
}

#[test]
fn cosign_and_crane_take_a_promoted_index_and_each_of_its_images() {
    let test = "cosign_and_crane_take_a_promoted_index_and_each_of_its_images";
    let (Some(cosign), Some(crane)) = (peer("SLUICEGATE_COSIGN", test), peer("SLUICEGATE_CRANE", test)) else { return };
    if !ready(test) {
        return;
    }
    for kind in [Kind::Distribution, Kind::Refreg] {
        let Some(registry) = RealRegistry::start(kind, test) else { return };
        let mut project = project();
        registry.introduce(&mut project);
        let host = registry.host();
        project.replace(
            "sluicegate.yaml",
            "repository: oci:out/tiny",
            &format!("repository: {host}/build/tiny\n    tags: [v1]"),
        );
        project.replace("gateway.yaml", "oci:env/production", &format!("{host}/prod/tiny"));
        project.must(&["init", "--allow-base", "oci:images/both"]);
        let (index, images) = run(&project);
        let built = format!("{host}/build/tiny@{index}");
        project.must(&["promote", &built, "--to", "production", "--compat", "cosign2"]).assert(0, "ALLOWED");
        let held = registry.client(&crane, &project, &["digest", &format!("{host}/prod/tiny:current")]);
        held.assert(0, &index);
        let by_platform = registry.client(
            &crane,
            &project,
            &["digest", "--platform", "linux/arm64", &format!("{host}/prod/tiny:current")],
        );
        by_platform.assert(0, &images[1]);
        for digest in images.iter().chain([&index]) {
            let image = format!("{host}/prod/tiny@{digest}");
            let root = ["--trusted-root", "trust/trusted_root.json"];
            let signature = [&["verify", "--key", "trust/production.pub"][..], &root, &[&image]].concat();
            registry.client(&cosign, &project, &signature).assert(0, "\"critical\"");
            let built = format!("{host}/build/tiny@{digest}");
            let signature = [&["verify", "--key", "trust/production.pub"][..], &root, &[&built]].concat();
            assert_ne!(registry.client(&cosign, &project, &signature).code, 0);
            project.must(&["verify", "--for", "production", &image]).assert(0, "ADMITTED");
        }
        let child = format!("{host}/prod/tiny@{}", images[1]);
        let provenance = ["verify-attestation", "--key", "trust/builder.pub", "--type", "slsaprovenance1"];
        let provenance = [&provenance[..], &["--trusted-root", "trust/trusted_root.json", &child]].concat();
        registry.client(&cosign, &project, &provenance).assert(0, "");
        // A copy takes all of it along.
        project.must(&["copy", &format!("{host}/prod/tiny:current"), "oci:mirror"]);
        assert_eq!(Layout::at(project.path("mirror")).image(), index);
        project.must(&["verify", "--offline", "oci:mirror"]);
        assert!(fs::read_dir(project.path("mirror/blobs/sha256")).unwrap().count() > 20);
    }
}
