//! Blobs of other bytes, of another length, and such that break off.

use std::io::Read;

use sluicegate_ports::images::{FaultKind, ImagePlaceError, ImagePlaces, Publication};
use sluicegate_testkit::{Answer, Behaviour, Fault, Payload, When};
use sluicegate_types::{Digest, Place};

use crate::{
    held_image::holding,
    support::{Content, World, assert_fault, noise, read},
};

#[test]
fn blobs_of_another_length_never_read_as_what_they_should_be() {
    let (world, content) = holding([]);
    let layer = content.layer(2);
    let half = content.image.blobs[&layer.digest][..50_000].to_vec();
    for fault in [
        Fault::longer("/blobs/", 1),
        Fault::longer("/blobs/", u64::from(u32::MAX)),
        When::get("/blobs/").change(Answer::default().bytes(half)),
        When::get("/blobs/").change(Answer::default().body(Payload::Spaces(u64::MAX))),
        When::get("/blobs/").change(Answer::default().bytes(noise(100_000).into_iter().rev().collect::<Vec<_>>())),
    ] {
        world.registry.behave(Behaviour::with_faults([fault.clone()]));
        assert!(read(world.source().as_ref(), &layer).is_err(), "{fault:?}");
        // Even whoever reads to the end comes to one.
        let mut bytes = Vec::new();
        let _ = world.source().open(&layer).unwrap().read_to_end(&mut bytes);
        assert!(bytes.len() as u64 <= layer.size + 1, "{} {fault:?}", bytes.len());
    }
    world.registry.behave(Behaviour::default());
    read(world.source().as_ref(), &layer).unwrap();
}

#[test]
fn a_blob_that_breaks_off_is_gone_on_with() {
    let (world, content) = holding([]);
    let layer = content.layer(2);
    let path = format!("/blobs/{}", layer.digest);
    let expected = &content.image.blobs[&layer.digest];
    // Whether the registry knows parts or begins anew.
    let without_parts = When::get(&path).from(2).answer(Answer::status(200).bytes(expected.clone()));
    for more in [None, Some(without_parts)] {
        let cut = Fault::cut(When::get(&path).first(1), 40_000);
        world.registry.behave(Behaviour::with_faults([cut].into_iter().chain(more.clone())));
        world.registry.forget_log();
        assert_eq!(read(world.source().as_ref(), &layer).unwrap(), *expected);
        let statuses: Vec<u16> = world.asked("GET", &path).iter().map(|one| one.status).collect();
        assert_eq!(statuses, [200, if more.is_some() { 200 } else { 206 }]);
    }
    // A part that ends before the rest does.
    let short =
        Answer::status(206).header("Content-Range", "bytes 30000-49999/100000").bytes(&expected[30_000..50_000]);
    let cut = Fault::cut(When::get(&path).first(1), 40_000);
    world.registry.behave(Behaviour::with_faults([cut, When::get(&path).nth(2).answer(short)]));
    assert_eq!(read(world.source().as_ref(), &layer).unwrap(), *expected);
    // Twice, and then a claim of more than there is.
    world.registry.behave(Behaviour::with_faults([Fault::cut(When::get(&path).first(2), 30_000)]));
    assert_eq!(read(world.source().as_ref(), &layer).unwrap(), *expected);
    for always in
        [Fault::cut(When::get(&path), 10_000), Fault::cut(When::get(&path), 0), Fault::claimed_length(&path, 200_000)]
    {
        world.registry.behave(Behaviour::with_faults([always]));
        world.registry.forget_log();
        assert!(read(world.source().as_ref(), &layer).is_err());
        assert!(world.count("GET", &path) <= 12, "{}", world.count("GET", &path));
    }
    // Parts that are not those that were asked for.
    for (range, kind) in
        [("bytes 90000-99999/100000", "leaves some out"), ("", "without its range"), ("x", "without its range")]
    {
        let cut = Fault::cut(When::get(&path).first(1), 40_000);
        let part = When::get(&path).from(2).change(Answer::default().header("Content-Range", range));
        world.registry.behave(Behaviour::with_faults([cut, part]));
        let error = read(world.source().as_ref(), &layer).unwrap_err();
        assert!(error.contains(kind), "{error}");
    }
}

#[test]
fn a_head_that_lies_is_found_out_by_the_manifest_or_by_whoever_reads() {
    let content = Content::usual();
    let layer = content.layer(1);
    let lie = When::method("HEAD", &layer.digest.to_string())
        .answer(Answer { claimed_length: Some(layer.size), ..Answer::status(200) });
    // A registry that looks refuses the manifest.
    let world = World::new(Behaviour::with_faults([lie.clone()]));
    assert_fault(world.publish(&content), FaultKind::Status, &["MANIFEST_BLOB_UNKNOWN", &layer.digest.to_string()]);
    assert!(world.registry.tags("team/shop").is_empty());
    // One that does not look has an image that nobody can read.
    let world = World::new(Behaviour { sparse: true, ..Behaviour::with_faults([lie]) });
    world.publish(&content).unwrap();
    assert!(matches!(world.source().open(&layer).map(|_| ()), Err(ImagePlaceError::MissingBlob { .. })));
    // One of another length is sent.
    let shorter = When::method("HEAD", "/blobs/").answer(Answer { claimed_length: Some(1), ..Answer::status(200) });
    let world = World::new(Behaviour::with_faults([shorter]));
    world.publish(&content).unwrap();
    content.assert_is_in(&world.places, &world.place());
}

#[test]
fn what_is_said_of_another_blob_is_no_blob() {
    let content = Content::usual();
    let layer = content.layer(1);
    let another = Digest::of(b"another").to_string();
    let there =
        Answer { claimed_length: Some(layer.size), ..Answer::status(200) }.header("Docker-Content-Digest", &another);
    let world = World::new(Behaviour::with_faults([When::method("HEAD", &layer.digest.to_string()).answer(there)]));
    world.publish(&content).unwrap();
    content.assert_is_in(&world.places, &world.place());
    // The same of a mount.
    let mounted = When::method("POST", "mount=").answer(Answer::status(201).header("Docker-Content-Digest", &another));
    for (faults, is_sent) in [(vec![mounted], true), (Vec::new(), false)] {
        world.registry.behave(Behaviour::with_faults(faults));
        world.registry.forget_log();
        let place = Place::Registry(world.repository(if is_sent { "team/sent" } else { "team/mounted" }));
        let publication = Publication { source: Some(world.place()), ..content.publication(&["v1"]) };
        world.places.target(&place).unwrap().publish(&publication, &world.store).unwrap();
        content.assert_is_in(&world.places, &place);
        assert_eq!(world.count("PUT", "/blobs/uploads/") > 0, is_sent);
        assert!(world.count("POST", "mount=") > 0);
    }
    // What is elsewhere is not asked for here by the name that it has there.
    let elsewhere = World::of("");
    let place = Place::Registry(elsewhere.repository("team/other"));
    let publication = Publication { source: Some(world.place()), ..content.publication(&["v1"]) };
    elsewhere.places.target(&place).unwrap().publish(&publication, &world.store).unwrap();
    content.assert_is_in(&elsewhere.places, &place);
    assert_eq!(elsewhere.count("POST", "mount="), 0);
}

#[test]
fn a_first_byte_of_something_else_is_no_blob() {
    let content = Content::usual();
    let lead = When::method("HEAD", "/blobs/").answer(Answer::status(307).header("Location", "/elsewhere"));
    for answer in [
        Answer::status(206).header("Content-Range", "bytes 0-0/1").bytes("x"),
        Answer::status(206).bytes("x"),
        Answer::status(200).bytes("x"),
    ] {
        let first = When::get("/blobs/").with_header("range", "bytes=0-0").answer(answer);
        let world = World::new(Behaviour::with_faults([lead.clone(), first]));
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
        // The first byte of what it should be, of as many as it should have.
        world.registry.behave(Behaviour::with_faults([lead.clone()]));
        world.registry.forget_log();
        world.publish(&content).unwrap();
        assert_eq!(world.count("PUT", "/blobs/uploads/"), 0);
    }
}
