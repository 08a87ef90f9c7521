//! Attaching to an image that is there, beside all that is there.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::BUNDLE;
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces},
    store::{ContentStore, StoreError},
};
use sluicegate_testkit::VirtualImage;
use sluicegate_types::Digest;

use crate::published_layout::{Layout, bytes, places, published};

/// A referrer that carries these bytes, in the layout's store.
fn referrer(layout: &Layout, image: &VirtualImage, bytes: &[u8]) -> (Descriptor, Vec<Digest>) {
    let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, bytes)]);
    for bytes in blobs.values() {
        layout.store.put_bytes(bytes).unwrap();
    }
    let blobs = blobs.into_keys().filter(|digest| *digest != referrer.digest).collect();
    (referrer, blobs)
}

fn attach(layout: &Layout, image: &VirtualImage, bytes: &[u8]) -> Result<Descriptor, ImagePlaceError> {
    let (referrer, blobs) = referrer(layout, image, bytes);
    let target = places().target(&layout.folder().into()).unwrap();
    target.attach(&image.digest(), std::slice::from_ref(&referrer), &blobs, &layout.store)?;
    Ok(referrer)
}

#[test]
fn what_is_attached_is_read_back_beside_everything_that_was_there() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        index["annotations"] = json!({"sluicegate.dev/environment": "production", "by": "another tool"});
        index["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    });
    let before: Value = serde_json::from_slice(&layout.index()).unwrap();
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap();
    assert_eq!(held.as_ref().unwrap().environment.as_deref(), Some("production"));
    let referrer = attach(&layout, &image, b"by hand").unwrap();
    assert_eq!(places().target(&layout.folder().into()).unwrap().current(None).unwrap(), held);
    let referrers = layout.source().referrers(&image.digest()).unwrap();
    assert_eq!(referrers.len(), 2);
    assert_eq!(referrers[1], referrer);
    assert_eq!(
        bytes(layout.source().as_ref(), &Descriptor::new(BUNDLE, Digest::of(b"by hand"), 7)).unwrap(),
        b"by hand"
    );
    let mut after: Value = serde_json::from_slice(&layout.index()).unwrap();
    assert!(after["manifests"].as_array_mut().unwrap().pop().is_some());
    assert_eq!(after, before, "nothing else changed");
    let once = layout.index();
    attach(&layout, &image, b"by hand").unwrap();
    assert_eq!(layout.index(), once, "the same referrer twice is there once");
}

#[test]
fn thirty_two_attachers_at_once_lose_nothing() {
    let (layout, image) = published();
    std::thread::scope(|scope| {
        for number in 0..32_u8 {
            let (layout, image) = (&layout, &image);
            scope.spawn(move || attach(layout, image, &[number]).unwrap());
        }
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 33);
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap().unwrap();
    assert_eq!((held.image, held.tags), (image.digest(), vec!["current".parse().unwrap()]));
}

#[test]
fn nothing_is_attached_to_an_image_that_is_not_there_and_nothing_is_made() {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    assert!(matches!(attach(&layout, &image, b"x"), Err(ImagePlaceError::NoImage { .. })));
    assert!(!layout.folder().exists());
    layout.publish(&layout.publication(&image, None)).unwrap();
    let before = layout.index();
    let other = VirtualImage::new(b"another");
    assert!(matches!(attach(&layout, &other, b"x"), Err(ImagePlaceError::NoImage { .. })));
    assert_eq!(layout.index(), before);
    assert!(!layout.blob(&Digest::of(b"x")).exists());
    attach(&layout, &image, b"x").unwrap();
}

#[test]
fn a_referrer_that_the_store_holds_wrongly_or_not_at_all_is_not_attached() {
    let (layout, image) = published();
    let before = layout.index();
    let (missing, _) = image.referrer(BUNDLE, &[(BUNDLE, b"never stored")]);
    let target = places().target(&layout.folder().into()).unwrap();
    let attached = target.attach(&image.digest(), &[missing], &[], &layout.store);
    assert!(matches!(attached, Err(ImagePlaceError::Store(StoreError::Missing { .. }))));
    assert_eq!(layout.index(), before);
}

#[test]
fn an_index_that_is_full_takes_no_more_referrers() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        let entries = index["manifests"].as_array_mut().unwrap();
        let filler = json!({"mediaType": "text/plain", "digest": Digest::of(b"filler"), "size": 6});
        entries.resize(1023, filler);
    });
    attach(&layout, &image, b"the last one").unwrap();
    let before = layout.index();
    let refused = attach(&layout, &image, b"one too many");
    assert!(matches!(refused, Err(ImagePlaceError::NotALayout { .. })), "{refused:?}");
    assert_eq!(layout.index(), before);
}

#[test]
fn what_is_attached_never_leads_out_of_the_folder() {
    let (layout, image) = published();
    let outside = layout.root.path().join("outside");
    fs::rename(layout.folder().join("blobs/sha256"), &outside).unwrap();
    symlink(&outside, layout.folder().join("blobs/sha256")).unwrap();
    let before = fs::read_dir(&outside).unwrap().count();
    assert!(matches!(attach(&layout, &image, b"x"), Err(ImagePlaceError::NotALayout { .. })));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), before);
    fs::remove_file(layout.folder().join("blobs/sha256")).unwrap();
    fs::rename(&outside, layout.folder().join("blobs/sha256")).unwrap();
    attach(&layout, &image, b"x").unwrap();
}
