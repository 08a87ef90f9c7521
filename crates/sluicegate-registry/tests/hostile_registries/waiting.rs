//! Registries that want to be waited for, never answer, or let nobody in.

use std::time::Duration;

use sluicegate_ports::images::{FaultKind, ImagePlaces};
use sluicegate_registry::Places;
use sluicegate_testkit::{Answer, Behaviour, Fault, When, http_date};

use crate::{
    held_image::{holding, resolve},
    support::{self, Content, World, assert_fault, selector},
};

#[test]
fn what_a_registry_asks_for_is_waited_for() {
    let at = std::time::SystemTime::now() + Duration::from_secs(60);
    for (retry_after, least, most) in
        [("7", 7, 9), (http_date(at).as_str(), 55, 62), ("0", 0, 2), ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 2)]
    {
        let (world, content) = holding([Fault::too_many_requests(When::get("/referrers/").first(1), retry_after)]);
        assert_eq!(world.referrers(&content).unwrap().len(), 3);
        let pauses = world.heard.pauses();
        let whole = Duration::from_secs(least)..Duration::from_secs(most);
        assert!(pauses.len() == 1 && whole.contains(&pauses[0]), "{retry_after}: {pauses:?}");
    }
    // Also before a tag is written, which is looked at again after it.
    for (path, status) in [("/manifests/v1", 429), ("/manifests/sha256-", 503)] {
        let later = When::put(path).first(1).answer(Answer::error(status, "LATER").header("Retry-After", "7"));
        let world = World::new(Behaviour { faults: vec![later], ..Behaviour::without_referrers() });
        world.publish(&Content::usual()).unwrap();
        assert!(world.heard.pauses().iter().any(|pause| *pause >= Duration::from_secs(7)), "{path}");
        Content::usual().assert_is_in(&world.places, &world.place());
    }
    let (world, content) = holding([Fault::unavailable("/v2/", 2)]);
    assert_eq!(resolve(&world).unwrap().digest, content.digest());
    assert!(
        world.heard.pauses().len() <= 2 && world.heard.pauses().windows(2).all(|two| two[1] < Duration::from_secs(1))
    );
    let (world, _) = holding([Fault::unavailable("/v2/", u32::MAX)]);
    assert_fault(resolve(&world), FaultKind::Status, &["503"]);
    assert!(world.registry.log().len() <= 7 && world.heard.pauses().len() == 5);
}

#[test]
fn who_never_answers_is_given_up() {
    for path in ["/v2/", "/manifests/v1"] {
        let heard = support::Heard::default();
        let (world, _) = holding([Fault::no_answer(path)]);
        let settings =
            sluicegate_registry::RegistrySettings { patience: Duration::from_millis(1_200), ..heard.settings() };
        let begun = std::time::Instant::now();
        let asked = Places::new(settings).source(&world.place()).unwrap().resolve(&selector());
        assert_fault(asked, FaultKind::Deadline, &["took too long"]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        world.registry.behave(Behaviour::default());
        resolve(&world).unwrap();
    }
}

#[test]
fn a_401_for_every_token_ends() {
    let content = Content::usual();
    for fault in
        [Fault::always_unauthorized(), When::any("/v2/").before_auth().answer(Answer::error(401, "UNAUTHORIZED"))]
    {
        let world = World::of("auth");
        world.publish(&content).unwrap();
        world.registry.behave(Behaviour { faults: vec![fault], ..("auth".parse().unwrap()) });
        world.registry.forget_log();
        for places in [&world.places, &world.stranger()] {
            assert_fault(places.source(&world.place()).unwrap().resolve(&selector()), FaultKind::Unauthorized, &[]);
        }
        assert!(world.token_requests() <= 4 && world.registry.log().len() <= 12, "{}", world.registry.log().len());
        world.registry.behave("auth".parse().unwrap());
        content.assert_is_in(&world.places, &world.place());
    }
}

#[test]
fn a_pause_of_more_than_two_minutes_is_not_waited_for() {
    for (retry_after, is_good) in [("119", true), ("121", false)] {
        let (world, content) = holding([Fault::too_many_requests(When::get("/referrers/").first(1), retry_after)]);
        let asked = world.referrers(&content);
        match is_good {
            true => assert_eq!(asked.unwrap().len(), 3),
            false => assert_fault(asked, FaultKind::Deadline, &["121 s", "not waited for"]),
        }
        assert_eq!(world.heard.pauses().len(), usize::from(is_good));
    }
}

#[test]
fn a_pause_beyond_the_deadline_is_not_waited_for() {
    for (patience, is_good) in [(120, true), (30, false)] {
        let (world, content) = holding([Fault::too_many_requests(When::get("/referrers/").first(1), "60")]);
        let patience = Duration::from_secs(patience);
        let settings = sluicegate_registry::RegistrySettings { patience, ..world.heard.settings() };
        let asked = Places::new(settings).source(&world.place()).unwrap().referrers(&content.digest());
        match is_good {
            true => assert_eq!(asked.unwrap().len(), 3),
            false => assert_fault(asked, FaultKind::Deadline, &["60 s", "not waited for"]),
        }
        assert_eq!(world.heard.pauses().len(), usize::from(is_good));
    }
}
