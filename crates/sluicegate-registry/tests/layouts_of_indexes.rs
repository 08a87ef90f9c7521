//! A layout whose image is an index: what it names is found by digest.

use std::{fs, path::Path};

use serde_json::json;
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImagePlaces};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_types::{Digest, Selector};

/// Writes a blob, and says what it is.
fn blob(folder: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(bytes);
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    Descriptor::new(media_type, digest, bytes.len() as u64)
}

fn index_of(folder: &Path, entries: &[&Descriptor]) -> Descriptor {
    let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries});
    blob(folder, IMAGE_INDEX, index.to_string().as_bytes())
}

fn layout_of(folder: &Path, image: &Descriptor) {
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [image]}).to_string()).unwrap();
}

fn resolve(folder: &Path, digest: Digest) -> Result<Descriptor, ImagePlaceError> {
    let place = folder.to_owned().into();
    Places::new(RegistrySettings::default()).source(&place).unwrap().resolve(&Selector::Digest(digest))
}

#[test]
fn what_an_index_names_is_found_by_its_digest_however_deep() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let child = blob(folder, IMAGE_MANIFEST, b"{}");
    let inner = index_of(folder, &[&child]);
    let outer = index_of(folder, &[&inner]);
    layout_of(folder, &outer);
    for descriptor in [&outer, &inner, &child] {
        assert_eq!(resolve(folder, descriptor.digest).unwrap(), *descriptor);
    }
    assert!(matches!(resolve(folder, Digest::of(b"another")), Err(ImagePlaceError::NoImage { .. })));
}

#[test]
fn nothing_is_found_below_what_is_no_index_or_damaged_or_too_deep() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let child = blob(folder, IMAGE_MANIFEST, b"{}");
    let index = index_of(folder, &[&child]);
    let none = |digest| matches!(resolve(folder, digest), Err(ImagePlaceError::NoImage { .. }));
    // What it is said to be decides.
    layout_of(folder, &Descriptor { media_type: IMAGE_MANIFEST.to_owned(), ..index.clone() });
    assert!(none(child.digest));
    layout_of(folder, &index);
    assert!(!none(child.digest));
    fs::write(folder.join("blobs/sha256").join(index.digest.hex()), b"{\"manifests\": []}").unwrap();
    assert!(none(child.digest));
    // An index in an index, more often than is followed.
    let deep = |levels: usize| (0..levels).fold(child.clone(), |below, _| index_of(folder, &[&below]));
    layout_of(folder, &deep(4));
    assert!(!none(child.digest));
    layout_of(folder, &deep(5));
    assert!(none(child.digest));
}

#[test]
fn what_an_index_names_is_there_to_be_attached_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let child = blob(folder, IMAGE_MANIFEST, b"{}");
    layout_of(folder, &index_of(folder, &[&child]));
    let target = Places::new(RegistrySettings::default()).target(&folder.to_owned().into()).unwrap();
    let attach = |image: &Digest| target.attach(image, &[], &[], &sluicegate_testkit::MemoryStore::new());
    attach(&child.digest).unwrap();
    assert!(matches!(attach(&Digest::of(b"another")), Err(ImagePlaceError::NoImage { .. })));
}
