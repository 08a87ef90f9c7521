//! What is attached to an image, found however it is listed.

use std::fs;

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::ImagePlaceError;
use sluicegate_types::{Digest, Selector};

use crate::published_layout::published;

#[test]
fn what_is_not_as_large_as_described_refers_to_nothing() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        let mut entry = index["manifests"][1].clone();
        entry["size"] = json!(1);
        index["manifests"].as_array_mut().unwrap().insert(1, entry);
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
    layout.edit_index(|index| drop(index["manifests"].as_array_mut().unwrap().remove(2)));
    // Where nothing is listed rightly, what lies among the blobs is found by its own subject, as large as it is.
    let [found] = layout.source().referrers(&image.digest()).unwrap().try_into().unwrap();
    assert_ne!(found.size, 1);
    fs::remove_file(layout.blob(&found.digest)).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap(), []);
}

#[test]
fn tr_17_what_is_attached_is_found_however_a_tool_lists_it() {
    let (layout, image) = published();
    let [referrer] = layout.source().referrers(&image.digest()).unwrap().try_into().unwrap();
    let entry = layout.index_json()["manifests"][1].clone();
    let list = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry, {"junk": 1}]}).to_string();
    let digest = Digest::of(list.as_bytes());
    fs::write(layout.blob(&digest), &list).unwrap();
    let listed = |annotations: Value| {
        layout.edit_index(|index| {
            let list =
                json!({"mediaType": IMAGE_INDEX, "digest": digest, "size": list.len(), "annotations": annotations});
            index["manifests"] = json!([index["manifests"][0], list]);
        });
        let source = layout.source();
        assert_eq!(source.resolve(&Selector::Only).unwrap().digest, image.digest(), "a list is no image");
        source.referrers(&image.digest()).unwrap().into_iter().map(|found| found.digest).collect::<Vec<_>>()
    };
    let name = |hex: String| json!({"org.opencontainers.image.ref.name": format!("sha256-{hex}")});
    let subject = |digest: Digest| json!({"org.opencontainers.image.referrer.subject": digest});
    assert_eq!(listed(name(image.digest().hex())), [referrer.digest]);
    assert_eq!(listed(subject(image.digest())), [referrer.digest]);
    // A list of another image lends nothing; where none is of this one, the blobs are looked through.
    assert_eq!(listed(subject(Digest::of(b"other"))), [referrer.digest]);
    fs::rename(layout.blob(&referrer.digest), layout.folder().join("away")).unwrap();
    assert_eq!(listed(subject(Digest::of(b"other"))), []);
    assert_eq!(listed(name(image.digest().hex())), [], "what is listed and not there is not there");
}

#[test]
fn a_referrer_that_is_damaged_is_an_error_and_one_that_is_missing_is_not_there() {
    let (layout, image) = published();
    let referrer = layout.source().referrers(&image.digest()).unwrap().remove(0);
    let path = layout.blob(&referrer.digest);
    let good = fs::read(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    let error = layout.source().referrers(&image.digest()).unwrap_err();
    assert!(matches!(error, ImagePlaceError::Corrupt { digest, .. } if digest == referrer.digest), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap(), []);
    fs::write(&path, good).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
    // What is no manifest, or refers to something else, is nobody's referrer.
    layout.edit_index(|index| {
        let text = b"plain text";
        fs::write(layout.blob(&Digest::of(text)), text).unwrap();
        let entry = json!({"mediaType": IMAGE_MANIFEST, "digest": Digest::of(text), "size": text.len()});
        index["manifests"].as_array_mut().unwrap().push(entry);
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
}
