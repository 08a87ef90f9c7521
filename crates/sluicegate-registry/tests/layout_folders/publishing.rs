//! What is published: read back as it was, in the form that others read, by one writer at a time.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{BUNDLE, IMAGE_INDEX};
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, Publication},
    store::StoreError,
};
use sluicegate_testkit::VirtualImage;
use sluicegate_types::{Digest, Selector};

use crate::published_layout::{Layout, bytes, places, published};

#[test]
fn what_is_published_is_read_back() {
    let (layout, image) = published();
    let source = layout.source();
    let selectors = [Selector::Only, Selector::Tag("current".parse().unwrap()), Selector::Digest(image.digest())];
    for selector in selectors {
        assert_eq!(source.resolve(&selector).unwrap().digest, image.digest(), "{selector:?}");
    }
    for (digest, content) in &image.blobs {
        let descriptor = Descriptor::new("any/thing", *digest, content.len() as u64);
        assert_eq!(bytes(source.as_ref(), &descriptor).unwrap(), *content);
    }
    let referrers = source.referrers(&image.digest()).unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some(BUNDLE));
    assert_eq!(source.referrers(&Digest::of(b"another image")).unwrap(), []);
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap().unwrap();
    assert_eq!((held.image, held.tags), (image.digest(), vec!["current".parse().unwrap()]));
}

#[test]
fn the_folder_has_the_form_that_other_tools_read() {
    let (layout, image) = published();
    assert_eq!(fs::read(layout.folder().join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&layout.index()).unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(IMAGE_INDEX)));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries[0]["digest"], json!(image.digest()));
    assert_eq!(
        entries[0]["annotations"],
        json!({"kind": "dev.cosignproject.cosign/image", "org.opencontainers.image.ref.name": "current"})
    );
    assert_eq!(entries[1].get("annotations"), None, "a referrer has no ref name");
    for path in [layout.folder().join("index.json"), layout.blob(&image.layer)] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644, "{}", path.display());
    }
    let left = fs::read_dir(layout.folder())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("tmp-"));
    assert_eq!(left.count(), 0, "no temporary file is left");
}

#[test]
fn an_image_replaces_only_the_one_that_was_expected() {
    let (one, two) = (VirtualImage::new(b"one"), VirtualImage::new(b"two"));
    let stranger = Digest::of(b"a stranger");
    for (held, expected, moves) in [
        (None, None, true),
        (None, Some(one.digest()), false),
        (Some(&one), Some(one.digest()), true),
        (Some(&one), None, false),
        (Some(&one), Some(stranger), false),
        (Some(&one), Some(two.digest()), false),
    ] {
        let layout = Layout::new();
        if let Some(held) = held {
            layout.publish(&layout.publication(held, None)).unwrap();
        }
        let before = held.map(|_| layout.index());
        match layout.publish(&layout.publication(&two, expected)) {
            Ok(()) => {
                assert!(moves, "{expected:?}");
                assert_eq!(layout.current(), Some(two.digest()));
                let tagged = layout.source().resolve(&Selector::Tag("current".parse().unwrap())).unwrap();
                assert_eq!(tagged.digest, two.digest());
            }
            Err(ImagePlaceError::Moved { .. }) => {
                assert!(!moves, "{expected:?}");
                assert_eq!(held.map(|_| layout.index()), before, "nothing that can be seen was changed");
                assert_eq!(layout.current(), held.map(VirtualImage::digest));
            }
            Err(other) => panic!("{expected:?}: {other}"),
        }
    }
}

#[test]
fn of_two_writers_who_expect_the_same_one_wins() {
    let layout = Layout::new();
    let publications: Vec<Publication> =
        (0..4_u8).map(|number| layout.publication(&VirtualImage::new(&[number]), None)).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> =
            publications.iter().map(|publication| scope.spawn(|| layout.publish(publication))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let won: Vec<usize> = (0..4).filter(|number| results[*number].is_ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(layout.current(), Some(publications[won[0]].image.digest));
    for result in results.into_iter().filter_map(Result::err) {
        assert!(matches!(result, ImagePlaceError::Moved { .. }), "{result}");
    }
}

#[test]
fn a_blob_that_the_store_holds_wrongly_or_not_at_all_is_not_published() {
    let image = VirtualImage::new(b"one");
    let layout = Layout::new();
    let publication = layout.publication(&image, None);
    for digest in [image.layer, image.digest(), publication.referrers[0].digest] {
        let layout = Layout::new();
        let publication = layout.publication(&image, None);
        layout.store.replace(digest, b"wrong");
        let error = layout.publish(&publication).unwrap_err();
        assert!(
            matches!(error, ImagePlaceError::Store(StoreError::Corrupt { digest: d, .. }) if d == digest),
            "{error}"
        );
        assert!(!layout.folder().join("index.json").exists() && !layout.blob(&digest).exists());
        layout.store.remove(&digest);
        let error = layout.publish(&publication).unwrap_err();
        assert!(matches!(error, ImagePlaceError::Store(StoreError::Missing { .. })), "{error}");
        assert_eq!(layout.current(), None);
    }
    layout.publish(&publication).unwrap();
}
