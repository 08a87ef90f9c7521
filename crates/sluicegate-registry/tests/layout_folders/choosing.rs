//! Which of the entries of an index is the image.

use std::fs;

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{BUNDLE, IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::{Descriptor, ImagePlaces};
use sluicegate_testkit::VirtualImage;
use sluicegate_types::{Digest, Selector};

use crate::published_layout::{places, published};

#[test]
fn an_image_that_is_not_there_is_answered_with_what_is() {
    let (layout, image) = published();
    let refused = |selector: Selector| layout.source().resolve(&selector).unwrap_err().to_string();
    let error = refused(Selector::Tag("other".parse().unwrap()));
    assert!(error.contains("tagged other") && error.contains(&format!("{} (current)", image.digest())), "{error}");
    let error = refused(Selector::Digest(Digest::of(b"another")));
    assert!(error.contains(&image.digest().to_string()), "{error}");
    layout.edit_index(|index| index["manifests"] = json!([]));
    assert!(refused(Selector::Only).contains("it holds none"));
    layout.edit_index(|index| {
        index["manifests"] = json!([{"mediaType": IMAGE_INDEX, "digest": Digest::of(b"i"), "size": 1}]);
    });
    // An index is an image, too; what it is good for is for whoever reads it.
    assert_eq!(layout.source().resolve(&Selector::Only).unwrap().media_type, IMAGE_INDEX);
}

#[test]
fn of_several_images_none_is_guessed() {
    let (layout, one) = published();
    let two = VirtualImage::new(b"two");
    for (digest, content) in &two.blobs {
        fs::write(layout.blob(digest), content).unwrap();
    }
    layout.edit_index(|index| {
        let mut entry = json!(two.descriptor);
        entry["annotations"] =
            json!({"kind": "dev.cosignproject.cosign/image", "org.opencontainers.image.ref.name": "next"});
        index["manifests"].as_array_mut().unwrap().push(entry);
    });
    let source = layout.source();
    let error = source.resolve(&Selector::Only).unwrap_err().to_string();
    assert!(error.contains("several fit"), "{error}");
    for digest in [one.digest(), two.digest()] {
        assert!(error.contains(&digest.to_string()), "{error}");
        assert_eq!(source.resolve(&Selector::Digest(digest)).unwrap().digest, digest);
    }
    assert_eq!(source.resolve(&Selector::Tag("next".parse().unwrap())).unwrap().digest, two.digest());
    let error = places().target(&layout.folder().into()).unwrap().current(None).unwrap_err().to_string();
    assert!(error.contains("several images"), "{error}");
    let before = layout.index();
    assert!(layout.publish(&layout.publication(&one, Some(one.digest()))).is_err());
    assert_eq!(layout.index(), before);
}

#[test]
fn an_image_of_another_tool_is_found_without_our_annotation() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        index["manifests"][0].as_object_mut().unwrap().remove("annotations");
        // Without its artifact type only the referrer's manifest says that it refers to something.
        index["manifests"][1].as_object_mut().unwrap().remove("artifactType");
    });
    assert_eq!(layout.source().resolve(&Selector::Only).unwrap().digest, image.digest());
    assert_eq!(layout.current(), Some(image.digest()));
}

#[test]
fn an_entry_that_cannot_be_read_is_nothing_unless_it_may_be_the_image() {
    let odd = |more: Value| {
        let mut entry =
            json!({"mediaType": IMAGE_MANIFEST, "digest": format!("sha512:{}", "0".repeat(128)), "size": -1});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let with = |entry: Value, marked: bool| {
        let (layout, image) = published();
        layout.edit_index(|index| {
            if !marked {
                index["manifests"][0].as_object_mut().unwrap().remove("annotations");
            }
            index["manifests"].as_array_mut().unwrap().push(entry);
        });
        let source = places().source(&layout.folder().into()).map_err(|error| error.to_string())?;
        let found = source.resolve(&Selector::Only).map_err(|error| error.to_string())?;
        assert_eq!(found.digest, image.digest());
        assert_eq!(source.referrers(&image.digest()).unwrap().len(), 1);
        Ok::<_, String>(())
    };
    let (untyped, typed) = (odd(json!({})), odd(json!({"artifactType": BUNDLE})));
    let named = odd(json!({"artifactType": BUNDLE, "annotations": {"org.opencontainers.image.ref.name": "current"}}));
    let noted = odd(json!({"annotations": {"kind": "note", "org.opencontainers.image.ref.name": ""}}));
    for (entry, marked) in [(&noted, true), (&untyped, true), (&typed, true), (&typed, false), (&json!("text"), true)] {
        with(entry.clone(), marked).unwrap();
    }
    assert!(with(untyped, false).unwrap_err().contains("entries that this version can't read"));
    assert!(with(named, true).unwrap_err().contains("an entry with a name"));
}

#[test]
fn an_image_that_an_entry_describes_falsely_is_still_the_image() {
    for edit in
        [|entry: &mut Value| entry["size"] = json!(1), |entry: &mut Value| entry["mediaType"] = json!("text/plain")]
    {
        for at in [0, 1] {
            let (layout, image) = published();
            layout.edit_index(|index| {
                let mut entry = index["manifests"][0].clone();
                edit(&mut entry);
                index["manifests"].as_array_mut().unwrap().insert(at, entry);
            });
            for selector in [Selector::Only, Selector::Digest(image.digest())] {
                assert_eq!(layout.source().resolve(&selector).unwrap(), named(&image), "{at} {selector:?}");
            }
        }
    }
}

/// The image as the layout's index describes it.
fn named(image: &VirtualImage) -> Descriptor {
    let annotations = [("kind", "dev.cosignproject.cosign/image"), ("org.opencontainers.image.ref.name", "current")];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Descriptor { annotations, ..image.descriptor.clone() }
}
