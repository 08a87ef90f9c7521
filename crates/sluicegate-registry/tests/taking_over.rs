//! What a registry has, or gets from its own repositories, without a byte of it coming through here.

use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaces};
use sluicegate_testkit::{Answer, Behaviour, MemoryStore, When};
use sluicegate_types::Place;

use crate::support::{Content, World, assert_fault};

fn layers(content: &Content) -> Vec<Descriptor> {
    (0..content.layers.len()).map(|number| content.layer(number)).collect()
}

#[test]
fn what_is_taken_over_is_published_without_its_bytes() {
    let (world, content) = (World::of("auth"), Content::usual());
    world.publish(&content).unwrap();
    let other = Place::Registry(world.repository("team/mirror"));
    let target = world.places.target(&other).unwrap();
    assert_eq!(target.take_over(&layers(&content), &world.place()).unwrap(), layers(&content));
    let store = MemoryStore::new();
    content.store_in(&store);
    content.layers.iter().for_each(|layer| store.remove(layer));
    target.publish(&content.publication(&["v1"]), &store).unwrap();
    content.assert_is_in(&world.places, &other);
    // A target that was not asked needs all of it.
    let third = Place::Registry(world.repository("team/third"));
    world.places.target(&third).unwrap().publish(&content.publication(&["v1"]), &store).unwrap_err();
    assert!(world.registry.tags("team/third").is_empty());
}

#[test]
fn an_upload_that_a_registry_begins_instead_is_given_up() {
    let (world, content) = (World::of(""), Content::usual());
    world.hold(&content);
    let target = world.places.target(&Place::Registry(world.repository("team/mirror"))).unwrap();
    // There is no such repository to take anything from.
    let from = Place::Registry(world.repository("team/none"));
    assert!(target.take_over(&layers(&content), &from).unwrap().is_empty());
    assert_eq!(world.count("DELETE", "/blobs/uploads/"), content.layers.len());
    assert_eq!(world.registry.open_uploads(), 0);
    // What was refused is sent, and not asked for once more.
    let mut publication = content.publication(&["v1"]);
    publication.source = Some(from);
    content.store_in(&world.store);
    target.publish(&publication, &world.store).unwrap();
    let asked = world.asked("POST", "mount=");
    assert!(
        content
            .layers
            .iter()
            .all(|layer| { asked.iter().filter(|one| one.path_and_query.contains(&layer.to_string())).count() == 1 })
    );
}

#[test]
fn only_what_is_as_large_as_described_is_taken_over() {
    let content = Content::usual();
    let layer = content.layer(1);
    let take = |behaviour: Behaviour, layer: &Descriptor| {
        let world = World::new(behaviour);
        world.hold(&content);
        !world.target().take_over(std::slice::from_ref(layer), &world.place()).unwrap().is_empty()
    };
    assert!(take(Behaviour::default(), &layer));
    assert!(!take(Behaviour::default(), &Descriptor { size: layer.size + 1, ..layer.clone() }));
    let head = When::method("HEAD", "/blobs/");
    let other = Answer::default().header("Docker-Content-Digest", &content.layers[0].to_string());
    assert!(!take(Behaviour::with_faults([head.clone().change(other)]), &layer));
    assert!(!take(Behaviour::with_faults([head.answer(Answer::status(403))]), &layer));
}

#[test]
fn what_was_there_and_is_gone_again_gets_no_tag() {
    let content = Content::usual();
    let layer = content.layer(2);
    let bytes = content.image.blobs[&layer.digest].clone();
    let lie =
        When::method("HEAD", &format!("/blobs/{}", layer.digest)).first(1).answer(Answer::status(200).bytes(bytes));
    let world = World::new(Behaviour { sparse: true, ..Behaviour::with_faults([lie]) });
    content.store_in(&world.store);
    let target = world.target();
    assert_eq!(target.take_over(std::slice::from_ref(&layer), &world.place()).unwrap(), [layer]);
    let published = target.publish(&content.publication(&["v1"]), &world.store);
    assert_fault(published, FaultKind::NotKept, &["looked for 4 times"]);
    assert!(world.registry.tags("team/shop").is_empty());
}
