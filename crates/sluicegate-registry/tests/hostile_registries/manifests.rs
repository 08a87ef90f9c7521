//! Manifests that are not what their digest, their type or their tag says.

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaceError, ImagePlaces};
use sluicegate_testkit::{Answer, Behaviour, Fault, VirtualImage, When};
use sluicegate_types::{Digest, Place, Selector};

use crate::{
    held_image::{holding, resolve},
    support::{Content, World, assert_fault, fault, read, selector},
};

#[test]
fn neg_pinned_digest_body_mismatch() {
    let other = VirtualImage::new(b"another image");
    let bytes = &other.blobs[&other.digest()];
    let silent =
        When::read("/manifests/").change(Answer::default().header("Docker-Content-Digest", "").bytes(bytes.clone()));
    let honest = When::read("/manifests/").change(Answer::default().content(IMAGE_MANIFEST, bytes));
    for lie in [Fault::other_manifest("/manifests/", bytes), silent, honest] {
        let (world, content) = holding([lie]);
        let source = world.source();
        let pinned = source.resolve(&Selector::Digest(content.digest()));
        assert_fault(pinned, FaultKind::DigestMismatch, &[&other.digest().to_string()]);
        let opened = source.open(&content.image.descriptor).map(|_| ());
        assert_fault(opened, FaultKind::DigestMismatch, &[]);
        assert_eq!((world.count("GET", "/manifests/"), world.heard.pauses().len()), (2, 0), "asked again");
    }
}

#[test]
fn neg_docker_content_digest_that_lies() {
    let lie = Digest::of(b"a lie").to_string();
    let (world, _) = holding([Fault::other_digest("/manifests/v1", &lie)]);
    assert_fault(resolve(&world), FaultKind::DigestMismatch, &[&lie]);
    assert_eq!(world.count("GET", "/manifests/"), 1);
    // One of another algorithm says nothing.
    let (world, content) = holding([Fault::other_digest("/manifests/v1", "sha512:00")]);
    assert_eq!(resolve(&world).unwrap().digest, content.digest());
    // And one about a blob that was taken.
    let (world, content) = (World::of(""), Content::usual());
    let answer = Answer::default().header("Docker-Content-Digest", &lie);
    world.registry.behave(Behaviour::with_faults([When::put("/blobs/uploads/").change(answer)]));
    assert_fault(world.publish(&content), FaultKind::DigestMismatch, &[&lie]);
    assert!(world.registry.manifests("team/shop").is_empty());
}

#[test]
fn neg_tag_changes_between_two_requests() {
    let (one, two) = (VirtualImage::new(b"one"), VirtualImage::new(b"two"));
    let (first, second) = (&one.blobs[&one.digest()], &two.blobs[&two.digest()]);
    let faults = Fault::tag_moves("/manifests/v1", IMAGE_MANIFEST, &[first, second]);
    let world = World::new(Behaviour::with_faults(faults));
    world.registry.put_manifest("team/shop", &one.digest().to_string(), IMAGE_MANIFEST, first);
    let source = world.source();
    let found = source.resolve(&selector()).unwrap();
    assert_eq!(found.digest, one.digest());
    // What follows is asked by digest, and by nobody who was told before.
    assert_eq!(read(source.as_ref(), &found).unwrap(), *first);
    assert_eq!(read(world.stranger().source(&world.place()).unwrap().as_ref(), &found).unwrap(), *first);
    assert_eq!(world.count("GET", "/manifests/v1"), 1);
    assert_eq!(source.resolve(&selector()).unwrap().digest, two.digest());
}

#[test]
fn neg_manifest_bomb() {
    const LIMIT: u64 = 4 << 20;
    for size in [LIMIT + 1, u64::MAX] {
        for path in ["/manifests/v1", "/referrers/", "/manifests/sha256-"] {
            let (world, content) = holding([Fault::large_manifest(path, IMAGE_INDEX, size)]);
            let asked =
                if path.ends_with("v1") { resolve(&world).map(|_| ()) } else { world.referrers(&content).map(|_| ()) };
            assert_fault(asked, FaultKind::TooLarge, &["4194304"]);
            assert_eq!((world.count("GET", path), world.heard.pauses().len()), (1, 0), "{path} {size}");
        }
    }
    // As large as may be.
    let world = World::of("");
    let image = VirtualImage::new(b"x");
    let mut bytes = image.blobs[&image.digest()].clone();
    bytes.resize(LIMIT as usize, b' ');
    world.registry.put_manifest("team/shop", "v1", IMAGE_MANIFEST, &bytes);
    assert_eq!(resolve(&world).unwrap().size, LIMIT);
    bytes.push(b' ');
    world.registry.put_manifest("team/shop", "v1", IMAGE_MANIFEST, &bytes);
    assert_fault(resolve(&world), FaultKind::TooLarge, &[]);
}

#[test]
fn a_manifest_or_a_list_that_breaks_off_is_asked_for_again() {
    for path in ["/manifests/v1", "/referrers/"] {
        let (world, content) = holding([Fault::cut(When::get(path).first(2), 20)]);
        assert_eq!(resolve(&world).unwrap().digest, content.digest());
        assert_eq!(world.referrers(&content).unwrap().len(), 3);
        assert_eq!(world.heard.pauses().len(), 2);
        world.registry.behave(Behaviour::with_faults([Fault::cut(When::get(path), 20)]));
        world.registry.forget_log();
        let asked =
            if path.ends_with("v1") { resolve(&world).map(|_| ()) } else { world.referrers(&content).map(|_| ()) };
        assert_fault(asked, FaultKind::Unreachable, &["broke off"]);
        assert_eq!(world.count("GET", path), 6);
    }
}

#[test]
fn neg_media_type_body_vs_header() {
    let (world, _) = holding([Fault::other_media_type("/manifests/v1", IMAGE_INDEX)]);
    assert_fault(resolve(&world), FaultKind::OutOfForm, &[IMAGE_INDEX, IMAGE_MANIFEST]);
    // What says nothing is no contradiction.
    for says_nothing in ["application/json", "application/octet-stream", ""] {
        let (world, _) = holding([Fault::other_media_type("/manifests/v1", says_nothing)]);
        assert_eq!(resolve(&world).unwrap().media_type, IMAGE_MANIFEST);
    }
}

#[test]
fn neg_ambiguous_manifest_index() {
    let (world, content) = holding([]);
    let mut both: Value = serde_json::from_slice(&content.image.blobs[&content.digest()]).unwrap();
    let list = |value: &Value| serde_json::to_vec(value).unwrap();
    both["manifests"] = json!([]);
    for kind in [IMAGE_MANIFEST, IMAGE_INDEX] {
        for own in [json!(kind), json!(null)] {
            both["mediaType"] = own;
            world.registry.put_manifest("team/shop", "both", kind, &list(&both));
            let asked = world.source().resolve(&Selector::Tag("both".parse().unwrap()));
            assert_fault(asked, FaultKind::OutOfForm, &["as an image and as an index"]);
        }
    }
    // The name alone is too much: what a reader makes of `null` is its own affair. Something else beside it is no matter.
    (both["mediaType"], both["manifests"]) = (json!(IMAGE_MANIFEST), json!(null));
    world.registry.put_manifest("team/shop", "both", IMAGE_MANIFEST, &list(&both));
    let asked = world.source().resolve(&Selector::Tag("both".parse().unwrap()));
    assert_fault(asked, FaultKind::OutOfForm, &["as an image and as an index"]);
    both.as_object_mut().unwrap().remove("manifests");
    both["x"] = json!([]);
    world.registry.put_manifest("team/shop", "both", IMAGE_MANIFEST, &list(&both));
    world.source().resolve(&Selector::Tag("both".parse().unwrap())).unwrap();
}

#[test]
fn what_is_not_there_is_said_as_that() {
    let (world, content) = holding([]);
    let source = world.source();
    let missing = Descriptor::new("application/octet-stream", Digest::of(b"missing"), 7);
    let manifest = Descriptor::new(IMAGE_MANIFEST, Digest::of(b"missing"), 7);
    for one in [&missing, &manifest] {
        assert!(matches!(source.open(one).map(|_| ()), Err(ImagePlaceError::MissingBlob { .. })));
    }
    for selector in [Selector::Tag("none".parse().unwrap()), Selector::Digest(missing.digest), Selector::Only] {
        assert!(matches!(source.resolve(&selector), Err(ImagePlaceError::NoImage { .. })));
    }
    let nowhere = Place::Registry(world.repository("no/where"));
    let nowhere = world.places.source(&nowhere).unwrap();
    assert!(matches!(nowhere.resolve(&selector()), Err(ImagePlaceError::NoImage { .. })));
    let attached = world.target().attach(&Digest::of(b"none"), &[], &[], &world.store);
    assert!(matches!(attached, Err(ImagePlaceError::NoImage { .. })));
    // A page of somebody else's is no answer.
    let html = || Answer::status(404).header("Content-Type", "text/html").bytes("<html>");
    for path in ["/blobs/", "/manifests/"] {
        world.registry.behave(Behaviour::with_faults([When::get(path).answer(html())]));
        assert_fault(
            source.open(if path == "/blobs/" { &missing } else { &manifest }).map(|_| ()),
            FaultKind::OutOfForm,
            &["web page"],
        );
    }
    assert_eq!(fault(source.resolve(&selector())).kind, FaultKind::OutOfForm);
    world.registry.behave(Behaviour::default());
    content.assert_is_in(&world.places, &world.place());
}

#[test]
fn neg_docker_content_digest_of_a_manifest_that_was_taken() {
    let lie = Digest::of(b"a lie").to_string();
    let content = Content::usual();
    for (told, is_lie) in [(lie.as_str(), true), ("sha512:00", false), ("", false)] {
        let answer = Answer::default().header("Docker-Content-Digest", told);
        let world = World::new(Behaviour::with_faults([When::put("/manifests/").change(answer)]));
        match is_lie {
            true => assert_fault(world.publish(&content), FaultKind::DigestMismatch, &["it took", &lie]),
            false => world.publish(&content).unwrap(),
        }
        assert_eq!(world.registry.tags("team/shop").is_empty(), is_lie);
    }
}

#[test]
fn a_manifest_whose_kind_nobody_says_is_none() {
    let content = Content::usual();
    let mut manifest: Value = serde_json::from_slice(&content.image.blobs[&content.digest()]).unwrap();
    manifest.as_object_mut().unwrap().remove("mediaType");
    for (kind, is_said) in [(IMAGE_MANIFEST, true), ("application/json", false), ("", false)] {
        let answer = Answer::status(200).header("Content-Type", kind).bytes(manifest.to_string());
        let world = World::new(Behaviour::with_faults([When::get("/manifests/v1").answer(answer)]));
        match is_said {
            true => assert_eq!(resolve(&world).unwrap().media_type, kind),
            false => assert_fault(resolve(&world), FaultKind::OutOfForm, &["nobody says what kind"]),
        }
    }
}

#[test]
fn the_head_of_an_answer_has_an_end() {
    for (size, is_good) in [(32 << 10, true), (64 << 10, false)] {
        let long = Answer::default().header("X-Long", &"x".repeat(size));
        let (world, content) = holding([When::get("/manifests/v1").change(long)]);
        match is_good {
            true => assert_eq!(resolve(&world).unwrap().digest, content.digest()),
            false => drop(fault(resolve(&world))),
        }
    }
}
