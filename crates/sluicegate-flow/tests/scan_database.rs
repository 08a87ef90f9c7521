//! The scanner's database from a registry: pinned by digest, brought once, and nothing but what it should be.

use std::path::Path;

use serde_json::json;
use sluicegate_attestation::identifiers::IMAGE_MANIFEST;
use sluicegate_flow::{Error, Failure, scan_database::bring};
use sluicegate_ports::store::ContentStore;
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Answer, Behaviour, MemoryStore, TestRegistry, When};
use sluicegate_types::Digest;

const LAYER: &str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip";

/// An artifact with one layer of this type, by its digest.
fn artifact(registry: &TestRegistry, media_type: &str) -> Digest {
    let (config, layer) = (registry.put_blob("db", b"{}"), registry.put_blob("db", b"an archive"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": media_type, "digest": layer, "size": 10}],
    });
    registry.put_manifest("db", "2", IMAGE_MANIFEST, manifest.to_string().as_bytes())
}

fn brought(registry: &TestRegistry, digest: &Digest, store: &MemoryStore) -> Result<Digest, Error> {
    let reference = format!("{}/db@{digest}", registry.host()).parse().unwrap();
    bring(&Places::new(RegistrySettings::default()), &reference, Path::new("."), LAYER, store)
}

#[test]
fn a_database_by_digest_is_brought_once_and_then_nobody_is_asked() {
    let (registry, store) = (TestRegistry::start(Behaviour::default()), MemoryStore::new());
    let digest = artifact(&registry, LAYER);
    let layer = brought(&registry, &digest, &store).unwrap();
    assert_eq!(store.read(&layer, 100).unwrap(), b"an archive");
    registry.forget_log();
    assert_eq!(brought(&registry, &digest, &store).unwrap(), layer);
    assert!(registry.log().is_empty(), "{:?}", registry.log());
}

#[test]
fn what_is_no_database_or_has_other_bytes_is_refused() {
    let registry = TestRegistry::start(Behaviour::default());
    let other = artifact(&registry, "application/vnd.oci.image.layer.v1.tar+gzip");
    let error = brought(&registry, &other, &MemoryStore::new()).unwrap_err();
    assert!(error.failure() == Failure::Usage && error.to_string().contains("no database of the scanner"), "{error}");
    let lie = Answer::status(200).content("application/octet-stream", b"an ARCHIVE");
    let layer = format!("/v2/db/blobs/{}", Digest::of(b"an archive"));
    let registry = TestRegistry::start(Behaviour::with_faults([When::get(&layer).answer(lie)]));
    let digest = artifact(&registry, LAYER);
    let store = MemoryStore::new();
    assert_eq!(brought(&registry, &digest, &store).unwrap_err().failure(), Failure::Wrong);
    // Nothing of it is taken for the database afterwards.
    assert_eq!(brought(&registry, &digest, &store).unwrap_err().failure(), Failure::Wrong);
}
