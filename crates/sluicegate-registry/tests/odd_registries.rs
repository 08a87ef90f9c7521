//! Registries that do what the specification leaves open, each in its own way: what is pushed is there whole and reads back whole.

use sluicegate_ports::images::{FaultKind, ImagePlaces};
use sluicegate_testkit::{Behaviour, Fault, When};
use sluicegate_types::Place;

use crate::support::{Content, World, assert_fault, credentials, noise};

/// Publishes, reads back with the same client and with one that knows nothing yet, publishes again.
fn push_and_pull(words: &str, content: &Content, known: Option<&str>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let behaviour: Behaviour = words.parse().unwrap();
    let mut files = Vec::new();
    let world = World::with(behaviour, |host, settings| {
        if let Some(entry) = known {
            files = credentials(folder.path(), &format!(r#"{{"auths": {{"{host}": {entry}}}}}"#));
            settings.credentials = files.clone();
        }
    });
    world.publish(content).unwrap();
    content.assert_is_in(&world.places, &world.place());
    world.publish(content).unwrap();
    let stranger = sluicegate_registry::Places::new(sluicegate_registry::RegistrySettings {
        credentials: files,
        ..world.heard.settings()
    });
    content.assert_is_in(&stranger, &world.place());
    let all = world.registry.log().len();
    assert!(world.token_requests() * 2 <= all, "{words}: {} of {all} requests were for tokens", world.token_requests());
    assert_eq!(world.heard.warned(), "", "{words}");
    world
}

#[test]
fn whatever_the_specification_leaves_open() {
    for words in [
        "",
        "no-referrers",
        "absolute",
        "absolute,no-referrers",
        "head405",
        "nodigest",
        "nodigest,head405,no-referrers",
        "pages=1",
        "pages=2,link-query",
        "pages=2,link-absolute",
        "chunk-min=1048576",
        "sparse",
        "immutable",
        "immutable,no-referrers",
    ] {
        let world = push_and_pull(words, &Content::usual(), None);
        let fallback = world.registry.tags("team/shop").iter().any(|tag| tag.starts_with("sha256-"));
        assert_eq!(fallback, words.contains("no-referrers"), "{words}");
        assert_eq!(world.registry.open_uploads(), 0, "{words}");
    }
}

#[test]
fn ex_15_tokens_of_real_registries() {
    for api in ["", ",no-referrers"] {
        for words in [
            "auth",
            "auth,access-only",
            "auth,uses=4",
            "auth,uses=4,refuse=403",
            "auth,uses=1",
            "auth,uses=1,refuse=403",
        ] {
            push_and_pull(&format!("{words}{api}"), &Content::usual(), None);
        }
    }
}

#[test]
fn ex_15_a_token_that_is_never_good_ends_soon() {
    for (words, api) in [("auth,uses=0", ""), ("auth,uses=0,refuse=403", ""), ("auth,uses=0", ",no-referrers")] {
        let world = World::of(&format!("{words}{api}"));
        let content = Content::usual();
        assert_fault(world.publish(&content), FaultKind::Unauthorized, &[&world.registry.host(), "just given"]);
        assert_fault(world.referrers(&content), FaultKind::Unauthorized, &[&world.registry.host(), "just given"]);
        assert!(world.token_requests() <= 20, "{words}: {}", world.token_requests());
        assert!(world.heard.pauses().is_empty(), "{words}");
        // The same once tokens are good.
        world.registry.behave("auth".parse().unwrap());
        world.publish(&content).unwrap();
        content.assert_is_in(&world.places, &world.place());
    }
}

#[test]
fn names_and_passwords_and_identity_tokens() {
    for (words, entry) in [
        ("basic,user=me:word", r#"{"username":"me","password":"word"}"#),
        ("basic,user=me:word,no-referrers", r#"{"auth":"bWU6d29yZA=="}"#),
        ("auth,user=me:word", r#"{"auth":"bWU6d29yZA=="}"#),
        ("auth,user=me:word,uses=4", r#"{"auth":"bWU6d29yZA=="}"#),
        ("auth,identity=refresh-me,access-only", r#"{"identitytoken":"refresh-me"}"#),
    ] {
        push_and_pull(words, &Content::usual(), Some(entry));
    }
}

#[test]
fn ex_28_a_cap_on_bodies_means_smaller_parts() {
    let large = noise(6 << 20);
    let content = Content::new(&[b"small", &large], &["provenance"]);
    for words in ["cap=4194304", "cap=4194304,absolute,auth,uses=4", "cap=1048576,no-referrers", "cap=300000"] {
        let world = push_and_pull(words, &content, None);
        assert!(world.count("PATCH", "/blobs/uploads/") > 1, "{words}");
    }
    // Nothing is small enough for this one.
    let world = World::of("cap=1000");
    let content = Content::new(&[&large], &[]);
    assert_fault(world.publish(&content), FaultKind::Status, &["416", "1000"]);
    assert!(world.registry.tags("team/shop").is_empty());
}

#[test]
fn ex_28_addresses_that_are_good_for_get_only_get_no_authorization() {
    for words in ["signedget", "signedget,auth,uses=4", "signedget,absolute,no-referrers"] {
        let content = Content::usual();
        let world = push_and_pull(words, &content, None);
        let behind = world.asked("", "/signed/");
        assert!(!behind.is_empty() && behind.iter().all(|one| one.method == "GET"), "{words}");
        // The second push sends no blob again.
        let before = world.count("PUT", "/blobs/uploads/");
        world.publish(&content).unwrap();
        assert_eq!(world.count("PUT", "/blobs/uploads/"), before, "{words}");
    }
    // On another host, where such addresses usually are.
    let storage = World::of("");
    let world = World::of("auth");
    let content = Content::usual();
    world.publish(&content).unwrap();
    storage.hold(&content);
    let elsewhere = format!("http://{}{{target}}", storage.registry.host());
    let mut behaviour: Behaviour = "auth".parse().unwrap();
    behaviour.faults = vec![Fault::redirect("/blobs/sha256", &elsewhere)];
    world.registry.behave(behaviour);
    content.assert_is_in(&world.places, &world.place());
    assert!(storage.registry.log().len() >= content.layers.len());
    assert!(storage.registry.log().iter().all(|one| !one.had_authorization));
}

#[test]
fn ex_28_a_mount_that_is_refused_is_an_upload() {
    for (words, mounted) in
        [("", true), ("auth", true), ("mount401", false), ("mount401,auth", false), ("auth,uses=4", true)]
    {
        let content = Content::usual();
        let world = World::of(words);
        world.publish(&content).unwrap();
        world.registry.forget_log();
        let other = Place::Registry(world.repository("production/shop"));
        let mut publication = content.publication(&["v1"]);
        publication.source = Some(world.place());
        world.places.target(&other).unwrap().publish(&publication, &world.store).unwrap();
        content.assert_is_in(&world.places, &other);
        let sent = world.asked("PUT", "/blobs/uploads/").iter().map(|one| one.body_bytes).sum::<u64>();
        assert_eq!(sent == 0, mounted, "{words}: {sent} bytes");
        assert!(world.token_requests() * 2 <= world.registry.log().len(), "{words}");
    }
}

#[test]
fn a_registry_that_leads_elsewhere_for_what_it_has_not_gets_it_sent() {
    // Every HEAD of a blob is answered with an address, there or not.
    let address = "{origin}/signed/team/shop/nothing?signature=none";
    let lead =
        When::method("HEAD", "/blobs/").answer(sluicegate_testkit::Answer::status(307).header("Location", address));
    let content = Content::usual();
    for behaviour in
        [Behaviour::with_faults([lead.clone()]), Behaviour { sparse: true, ..Behaviour::with_faults([lead]) }]
    {
        let world = World::new(behaviour);
        world.publish(&content).unwrap();
        world.registry.behave(Behaviour::default());
        content.assert_is_in(&world.places, &world.place());
    }
}
