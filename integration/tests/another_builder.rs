//! Images that another builder has proved, whatever they are.

use std::fs;

use integration::{Layout, Project};
use serde_json::Value;
use sluicegate_testkit::{TestRegistry, VirtualBuild, VirtualImage, VirtualLog, VirtualSigner};

/// A project whose gate asks one rule of its own, and which believes a builder and a log that are not its home's.
pub(crate) fn project_of_another_builder(log: &VirtualLog) -> Project {
    let project = Project::built();
    fs::remove_dir_all(project.path("policies")).unwrap();
    fs::create_dir(project.path("policies")).unwrap();
    let rule = "package own\n\n# METADATA\n# title: Own\n# description: A rule of a test.\n# custom:\n#   short_name: rule\n#   solution: None.\n#   requires: []\npass contains \"own.rule\" if input.subject.digest\n";
    fs::write(project.path("policies/own.rego"), rule).unwrap();
    fs::write(project.path("policies/data.yaml"), "sluicegate: {}\n").unwrap();
    fs::write(project.path("trust/builder.pub"), VirtualSigner::new("builder").public_key_pem()).unwrap();
    project.replace("trust/trust.yaml", "untimed: [", &format!("untimed: [\"{OTHER_LOG}\", "));
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    let file = project.path("trust/trusted_root.json");
    let mut root: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let theirs: Value = serde_json::from_slice(&log.trusted_root_json()).unwrap();
    root["tlogs"].as_array_mut().unwrap().push(theirs["tlogs"][0].clone());
    fs::write(&file, root.to_string()).unwrap();
    project
}

/// The log of that builder.
pub(crate) const OTHER_LOG: &str = "log.example";

/// Publishes an image as `build/tiny:v1`, by these bytes of its manifest, with the evidence of a run. The layout has its configuration and its
/// layers.
pub(crate) fn publish_proved(
    layout: &Layout,
    manifest: (&str, Vec<u8>),
    log: &VirtualLog,
    registry: &TestRegistry,
) -> VirtualImage {
    publish_proved_as(layout, manifest, log, registry, |build| build)
}

/// The same, with what the run left changed.
pub(crate) fn publish_proved_as(
    layout: &Layout,
    (media_type, manifest): (&str, Vec<u8>),
    log: &VirtualLog,
    registry: &TestRegistry,
    change: impl FnOnce(VirtualBuild) -> VirtualBuild,
) -> VirtualImage {
    let read: Value = serde_json::from_slice(&manifest).unwrap();
    for part in read["layers"].as_array().unwrap().iter().chain([&read["config"]]) {
        registry.put_blob("build/tiny", &fs::read(layout.blob(part["digest"].as_str().unwrap())).unwrap());
    }
    registry.put_manifest("build/tiny", "v1", media_type, &manifest);
    let image = VirtualImage::of_manifest(media_type, manifest);
    let build = change(VirtualBuild::new("run-1", image.digest())).sign(log);
    for (descriptor, blobs) in build.referrers(&image) {
        let manifest = &blobs[&descriptor.digest];
        for bytes in blobs.values() {
            registry.put_blob("build/tiny", bytes);
        }
        registry.put_manifest("build/tiny", &descriptor.digest.to_string(), &descriptor.media_type, manifest);
    }
    image
}
