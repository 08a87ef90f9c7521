//! An index that is none, or is too large to be read.

use std::fs;

use serde_json::json;
use sluicegate_ports::images::{ImagePlaceError, ImagePlaces};
use sluicegate_testkit::VirtualImage;
use sluicegate_types::{Digest, Selector};

use crate::published_layout::{Layout, places, published};

#[test]
fn an_index_has_at_most_1024_entries_and_4_mebibytes() {
    let (layout, image) = published();
    let entries = |count: usize| {
        layout.edit_index(|index| {
            let entry = json!({"mediaType": "text/plain", "digest": Digest::of(b"x"), "size": 1});
            let list = index["manifests"].as_array_mut().unwrap();
            list.truncate(1);
            list.resize(count, entry);
        });
        places().source(&layout.folder().into()).map(|source| source.resolve(&Selector::Only).unwrap().digest)
    };
    assert_eq!(entries(1024).unwrap(), image.digest());
    let error = entries(1025).unwrap_err().to_string();
    assert!(error.contains("more than 1024"), "{error}");
    entries(2).unwrap();
    let index = layout.index();
    let sized = |size: usize| {
        fs::write(layout.folder().join("index.json"), [index.clone(), vec![b' '; size - index.len()]].concat())
            .unwrap();
        places().source(&layout.folder().into()).map(|_| ())
    };
    assert!(sized(4 << 20).is_ok());
    assert!(matches!(sized((4 << 20) + 1), Err(ImagePlaceError::NotALayout { .. })));
}

#[test]
fn an_index_that_would_not_be_read_again_is_not_written() {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    let mut publication = layout.publication(&image, None);
    let referrer = publication.referrers[0].clone();
    publication.referrers = vec![referrer.clone(); 1024];
    assert!(matches!(layout.publish(&publication), Err(ImagePlaceError::NotALayout { .. })));
    assert_eq!(layout.current(), None);
    publication.referrers = vec![referrer; 1023];
    layout.publish(&publication).unwrap();
    assert_eq!(layout.current(), Some(image.digest()));
}

#[test]
fn an_index_that_is_not_one_is_refused() {
    let (layout, _) = published();
    let good = layout.index();
    let refused = |text: &[u8]| {
        fs::write(layout.folder().join("index.json"), text).unwrap();
        assert!(matches!(places().source(&layout.folder().into()), Err(ImagePlaceError::NotALayout { .. })));
        assert!(matches!(
            places().target(&layout.folder().into()).unwrap().current(None),
            Err(ImagePlaceError::NotALayout { .. })
        ));
    };
    let good_text = String::from_utf8(good.clone()).unwrap();
    refused(b"");
    refused(b"{}");
    refused(good_text.replace("\"schemaVersion\":2", "\"schemaVersion\":1").as_bytes());
    refused(good_text.replace("sha256:", "sha512:").as_bytes());
    refused("[".repeat(100_000).as_bytes());
    fs::write(layout.folder().join("index.json"), good).unwrap();
    assert!(places().source(&layout.folder().into()).is_ok());
    let nothing = places().source(&"/nonexistent/layout".into()).map(|_| ()).unwrap_err();
    assert!(nothing.to_string().contains("no index.json"), "{nothing}");
}
