//! Registries that do not keep what they take, refuse it, or lose their answer.

use serde_json::Value;
use sluicegate_attestation::identifiers::IMAGE_MANIFEST;
use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaces, Publication};
use sluicegate_testkit::{Answer, Behaviour, Fault, Then, When};
use sluicegate_types::Digest;

use crate::support::{self, Content, World, assert_fault, describe, fallback, noise};

#[test]
fn what_is_taken_and_not_kept_is_noticed() {
    let content = Content::usual();
    let referrer = content.referrers[0].0.digest.to_string();
    let image = content.digest().to_string();
    for (api, path) in [
        ("", image.as_str()),
        ("", &referrer),
        ("", "/manifests/v1"),
        ("no-referrers", &referrer),
        ("no-referrers", "/manifests/sha256-"),
    ] {
        let world = World::of(api);
        let behaviour: Behaviour = api.parse().unwrap();
        world.registry.behave(Behaviour { faults: vec![Fault::manifest_not_kept(path)], ..behaviour.clone() });
        assert_fault(world.publish(&content), FaultKind::NotKept, &["team/shop"]);
        assert!(!world.registry.tags("team/shop").contains(&"v1".to_owned()), "{path}");
        world.registry.behave(behaviour);
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
    }
}

#[test]
fn a_list_that_a_registry_says_it_keeps_and_does_not_is_kept_by_the_tag() {
    let content = Content::usual();
    let world = World::of("no-referrers");
    let claims =
        When::put("/manifests/sha256:").change(Answer::default().header("OCI-Subject", &content.digest().to_string()));
    let other =
        When::put("/manifests/sha256:").change(Answer::default().header("OCI-Subject", &Digest::of(b"x").to_string()));
    let empty = Fault::referrers_are_none();
    let without = Behaviour::without_referrers();
    for faults in [vec![claims.clone()], vec![other], vec![claims, empty]] {
        world.registry.behave(Behaviour { faults, ..without.clone() });
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
        let index = world.registry.manifest("team/shop", &fallback(&content.digest())).unwrap().1;
        assert_eq!(serde_json::from_slice::<Value>(&index).unwrap()["manifests"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn tr_23_a_media_type_that_is_refused_is_said_and_nothing_is_tagged() {
    let content = Content::usual();
    for (status, api) in [(400, ""), (415, ""), (400, "no-referrers")] {
        let world = World::of(api);
        let behaviour: Behaviour = api.parse().unwrap();
        let refused = Fault::media_type_refused(IMAGE_MANIFEST, status);
        world.registry.behave(Behaviour { faults: vec![refused], ..behaviour.clone() });
        assert_fault(world.publish(&content), FaultKind::MediaTypeRefused, &["does not take", IMAGE_MANIFEST]);
        assert!(world.registry.tags("team/shop").is_empty() && world.registry.manifests("team/shop").is_empty());
        world.registry.behave(behaviour);
        world.publish(&content).unwrap();
    }
    // An older type keeps its bytes.
    let world = World::of("");
    let mut content = Content::new(&[b"docker"], &[]);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let text = String::from_utf8(content.image.blobs.remove(&content.digest()).unwrap()).unwrap();
    let bytes = text.replacen(IMAGE_MANIFEST, docker, 1).into_bytes();
    content.image.descriptor = Descriptor::new(docker, Digest::of(&bytes), bytes.len() as u64);
    content.image.blobs.insert(Digest::of(&bytes), bytes.clone());
    world.publish(&content).unwrap();
    assert_eq!(world.registry.manifest("team/shop", "v1").unwrap(), (docker.to_owned(), bytes));
    let refusing = World::new(Behaviour::with_faults([Fault::media_type_refused(docker, 400)]));
    assert_fault(refusing.publish(&content), FaultKind::MediaTypeRefused, &[docker]);
}

#[test]
fn tr_09_the_index_is_written_once_and_then_cannot_be() {
    let world = World::of("no-referrers,immutable");
    let content = Content::usual();
    world.publish(&content).unwrap();
    assert_eq!(world.count("PUT", "/manifests/sha256-"), 1);
    content.assert_is_in(&world.places, &world.place());
    // A second attestation, and a promotion that brings one.
    let more =
        Content::new(&[b"the base", b"what was built", &noise(100_000)], &["provenance", "sbom", "vulns", "decision"]);
    assert_eq!(more.digest(), content.digest());
    more.store_in(&world.store);
    let tag = fallback(&content.digest());
    let words = [tag.as_str(), "cannot be changed", "evidence:"];
    let publication = more.publication(&["production"]);
    assert_fault(world.target().publish(&publication, &world.store), FaultKind::TagImmutable, &words);
    let attached = world.target().attach(&more.digest(), &publication.referrers, &publication.evidence, &world.store);
    assert_fault(attached, FaultKind::TagImmutable, &words);
    assert_eq!(world.registry.tags("team/shop"), [tag.as_str(), "v1"]);
    content.assert_is_in(&world.places, &world.place());
    // With a repository for evidence whose tags can be changed.
    let evidence = World::of("no-referrers");
    let places = world.places.with_evidence(Some(evidence.repository("evidence")));
    places.target(&world.place()).unwrap().publish(&publication, &world.store).unwrap();
    assert_eq!(places.source(&world.place()).unwrap().referrers(&more.digest()).unwrap().len(), 4);
}

#[test]
fn an_update_of_the_fallback_tag_that_is_lost_is_written_again() {
    let content = Content::usual();
    for lost in [1, 2] {
        let world = World::of("no-referrers");
        let faults = (1..=lost).map(Fault::lost_update).collect();
        world.registry.behave(Behaviour { faults, ..Behaviour::without_referrers() });
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
        assert_eq!(world.count("PUT", "/manifests/sha256-") as u32, lost + 1);
    }
}

#[test]
fn a_request_whose_answer_is_lost_is_safe_to_send_again() {
    let large = noise(6 << 20);
    let content = Content::new(&[b"small", &large], &["provenance", "sbom"]);
    let server = |when: When, status: u16| Fault::refused(when, status, "UNKNOWN");
    for (words, fault) in [
        ("", When::put("/blobs/uploads/").first(1).then(Then::Close { done: true })),
        ("", When::put("/blobs/uploads/").first(3).then(Then::Close { done: true })),
        ("", When::put("/blobs/uploads/").first(2).then(Then::Close { done: false })),
        ("", server(When::put("/blobs/uploads/").first(2), 500)),
        ("", server(When::put("/blobs/uploads/").first(2), 503)),
        ("", When::method("POST", "/blobs/uploads/").first(2).then(Then::Close { done: true })),
        ("cap=1048576", When::method("PATCH", "/blobs/uploads/").nth(3).then(Then::Close { done: true })),
        ("cap=1048576", When::method("PATCH", "/blobs/uploads/").nth(3).then(Then::Close { done: false })),
        ("cap=1048576", server(When::method("PATCH", "/blobs/uploads/").nth(2), 502)),
        ("", When::put("/manifests/").first(2).then(Then::Close { done: true })),
        ("", When::put("/manifests/v1").first(1).then(Then::Close { done: true })),
        ("", When::put("/manifests/v1").first(1).then(Then::Close { done: false })),
        ("no-referrers", When::put("/manifests/sha256-").first(1).then(Then::Close { done: true })),
        ("no-referrers", server(When::put("/manifests/sha256-").first(2), 503)),
    ] {
        let world = World::of(words);
        world.registry.behave(Behaviour { faults: vec![fault.clone()], ..(words.parse().unwrap()) });
        if let Err(error) = world.publish(&content) {
            panic!("{words} {fault:?}: {}", describe(&error));
        }
        content.assert_is_in(&world.places, &world.place());
        world.registry.behave(words.parse().unwrap());
        content.assert_is_in(&world.places, &world.place());
    }
    // And always: it ends.
    for fault in [
        When::put("/blobs/uploads/").then(Then::Close { done: false }),
        server(When::put("/blobs/uploads/"), 500),
        When::method("POST", "/blobs/uploads/").then(Then::Close { done: false }),
        When::put("/manifests/").then(Then::Close { done: false }),
    ] {
        let world = World::new(Behaviour::with_faults([fault.clone()]));
        support::fault(world.publish(&Content::usual()));
        assert!(world.registry.log().len() <= 150, "{fault:?} {}", world.registry.log().len());
        assert!(world.registry.tags("team/shop").is_empty());
    }
}

#[test]
fn an_upload_that_takes_a_byte_at_a_time_ends() {
    let content = Content::new(&[&noise(6 << 20)], &[]);
    let answer = Answer::default().header("Range", "0-{number}");
    let parts = When::method("PATCH", "/blobs/uploads/").change(answer.clone());
    let state = When::get("/blobs/uploads/").change(answer);
    let behaviour: Behaviour = "cap=1048576".parse().unwrap();
    // Where the registry says the truth when it is asked where it is, its word counts.
    let world = World::new(Behaviour { faults: vec![parts.clone()], ..behaviour.clone() });
    world.publish(&content).unwrap();
    content.assert_is_in(&world.places, &world.place());
    let liar = World::new(Behaviour { faults: vec![parts, state], ..behaviour });
    support::fault(liar.publish(&content));
    for world in [world, liar] {
        assert!(world.count("PATCH", "/blobs/uploads/") <= 60, "{}", world.count("PATCH", "/blobs/uploads/"));
    }
}

#[test]
fn a_tag_that_goes_back_to_what_it_named_is_noticed() {
    let (old, new) = (Content::new(&[b"old"], &[]), Content::new(&[b"new"], &[]));
    let back = When::put("/manifests/v1").then(Then::TagReturns);
    for (faults, is_kept) in [(vec![back], false), (Vec::new(), true)] {
        let world = World::of("");
        world.hold(&old);
        world.registry.behave(Behaviour::with_faults(faults));
        new.store_in(&world.store);
        let publication = Publication {
            expected: Some(old.digest()),
            environment: Some("production".parse().unwrap()),
            ..new.publication(&["v1"])
        };
        let published = world.target().publish(&publication, &world.store);
        match is_kept {
            true => published.unwrap(),
            false => assert_fault(published, FaultKind::NotKept, &["the tag v1", &new.digest().to_string()]),
        }
    }
}

#[test]
fn what_the_store_holds_wrongly_is_not_passed_off_as_the_blob() {
    let content = Content::usual();
    let layer = content.layer(1);
    // Also where the registry takes whatever it gets.
    let takes = When::put("/blobs/uploads/").answer(Answer::status(201));
    for faults in [vec![takes], Vec::new()] {
        let world = World::new(Behaviour::with_faults(faults));
        content.store_in(&world.store);
        world.store.replace(layer.digest, b"WHAT WAS BUILT");
        let published = world.target().publish(&content.publication(&["v1"]), &world.store);
        assert_fault(published, FaultKind::DigestMismatch, &["what the store has for", &layer.digest.to_string()]);
        assert!(world.registry.manifests("team/shop").is_empty());
        world.registry.behave(Behaviour::default());
        world.publish(&content).unwrap();
    }
    // A registry that got something else than was sent says so.
    let other = When::put("/blobs/uploads/").answer(Answer::error(400, "DIGEST_INVALID"));
    let world = World::new(Behaviour::with_faults([other]));
    assert_fault(world.publish(&content), FaultKind::DigestMismatch, &["DIGEST_INVALID"]);
}

#[test]
fn an_upload_that_is_said_to_have_more_than_was_sent_goes_on_from_what_was() {
    let content = Content::new(&[&noise(6 << 20)], &[]);
    let more = Answer::default().header("Range", "0-999999999");
    let parts = When::method("PATCH", "/blobs/uploads/");
    let cut = parts.clone().nth(3).then(Then::Close { done: false });
    for faults in [vec![parts.change(more.clone())], vec![cut, When::get("/blobs/uploads/").change(more)]] {
        let world = World::new(Behaviour { faults, ..("cap=1048576".parse().unwrap()) });
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
    }
}

#[test]
fn an_upload_that_takes_less_than_is_sent_again_and_again_ends() {
    let content = Content::new(&[&noise(6 << 20)], &[]);
    // It takes every part, says each time that it has one byte more, and goes on where it is.
    let answer = Answer::status(202).header("Location", "{target}").header("Range", "0-{number}");
    let faults = vec![When::method("PATCH", "/blobs/uploads/").first(50).answer(answer)];
    let world = World::new(Behaviour { faults, ..("cap=1048576".parse().unwrap()) });
    assert_fault(world.publish(&content), FaultKind::OutOfForm, &["takes less than is sent"]);
    assert!(world.count("PATCH", "/blobs/uploads/") <= 10, "{}", world.count("PATCH", "/blobs/uploads/"));
    world.registry.behave("cap=1048576".parse().unwrap());
    world.publish(&content).unwrap();
}
