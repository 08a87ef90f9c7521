//! A real registry that is killed in the middle of what it is sent, and comes back.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use integration::{
    Ended, Layout, Project, peer,
    registry::{Kind, RealRegistry},
};
use serde_json::json;
use sluicegate_types::Digest;

/// Bytes of the layer: so many that nobody has sent them before the first of them are seen to arrive.
const LAYER: usize = 192 * 1024 * 1024;
/// How long anything may take here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A layout `big` with an image of one large layer; its digest.
fn big_image(project: &Project) -> String {
    let layout = Layout::at(project.path("big"));
    fs::create_dir_all(project.path("big/blobs/sha256")).unwrap();
    fs::write(project.path("big/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let (layer, layer_size) = layout.put(&vec![7; LAYER]);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]}});
    let (config, config_size) = layout.put(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
    });
    let (digest, size) = layout.put(manifest.to_string().as_bytes());
    layout.write_index(&json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
    }]}));
    digest
}

#[test]
fn a_registry_that_dies_in_the_middle_of_a_push_has_no_tag_and_takes_it_when_it_is_back() {
    let test = "a_registry_that_dies_in_the_middle_of_a_push_has_no_tag_and_takes_it_when_it_is_back";
    let Some(crane) = peer("SLUICEGATE_CRANE", test) else { return };
    let project = Project::empty();
    let digest = big_image(&project);
    for kind in [Kind::Distribution, Kind::Docker] {
        let Some(mut registry) = RealRegistry::start(kind, test) else { return };
        let there = format!("{}:v1", registry.repository("mirror/big"));
        let arguments = ["copy", "oci:big", &there];
        let mut command = project.command(&arguments);
        let mut copying = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while registry.arriving("mirror/big") == 0 {
            assert!(copying.try_wait().unwrap().is_none(), "it ended before anything arrived");
            assert!(started.elapsed() < PATIENCE, "nothing arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        registry.stop();
        let ended = Ended::of(&arguments, copying.wait_with_output().unwrap());
        ended.assert(5, registry.host());
        assert!(ended.stderr.contains("now: "), "{ended:?}");

        registry.begin_again();
        let tag = |registry: &RealRegistry| registry.client(&crane, &project, &["digest", &there]);
        assert_ne!(tag(&registry).code, 0, "there is a tag");
        project.must(&arguments).assert(0, &digest);
        tag(&registry).assert(0, &digest);
        let layer = Digest::of(&vec![7; LAYER]);
        let arrived =
            registry.client(&crane, &project, &["blob", &format!("{}@{layer}", registry.repository("mirror/big"))]);
        assert_eq!(arrived.stdout.len(), LAYER);
    }
}
