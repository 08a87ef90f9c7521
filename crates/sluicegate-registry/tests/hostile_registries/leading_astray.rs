//! Registries that lead to another server, or on and on, or say back what they were asked with: no name and no password goes along.

use serde_json::json;
use sluicegate_ports::images::FaultKind;
use sluicegate_testkit::{Answer, Behaviour, Fault, When};
use sluicegate_types::Selector;

use crate::{
    held_image::{holding, resolve},
    support::{Content, World, assert_fault, credentials, fault, read},
};

#[test]
fn neg_realm_other_host_gets_no_credentials() {
    let other = World::of("");
    let folder = tempfile::tempdir().unwrap();
    let world = World::with("auth,user=me:word".parse().unwrap(), |host, settings| {
        let json = format!(r#"{{"auths":{{"{host}":{{"username":"me","password":"word"}}}}}}"#);
        settings.credentials = credentials(folder.path(), &json);
    });
    let content = Content::usual();
    let realm = format!("http://{}/token", other.registry.host());
    world.registry.behave(Behaviour::with_faults([Fault::realm_at(&realm)]));
    let words = [other.registry.host(), "SLUICEGATE_TOKEN_SERVICES".to_owned()];
    let words = words.each_ref().map(String::as_str);
    assert_fault(world.publish(&content), FaultKind::TokenServiceElsewhere, &words);
    assert_fault(resolve(&world), FaultKind::TokenServiceElsewhere, &words);
    assert!(other.registry.log().is_empty());
    assert!(world.registry.log().iter().all(|one| !one.had_authorization));
    world.registry.behave("auth,user=me:word".parse().unwrap());
    world.publish(&content).unwrap();
    content.assert_is_in(&world.places, &world.place());
}

#[test]
fn neg_upload_location_other_host() {
    let (other, world) = (World::of(""), World::of("auth"));
    let content = Content::usual();
    let behaviour: Behaviour = "auth".parse().unwrap();
    for location in [format!("http://{}", other.registry.host()), "https://upload.example".to_owned()] {
        world.registry.behave(Behaviour { faults: vec![Fault::upload_at(&location)], ..behaviour.clone() });
        assert_fault(
            world.publish(&content),
            FaultKind::AddressRefused,
            &["wants an upload sent to", "another server"],
        );
    }
    assert!(other.registry.log().is_empty() && world.registry.manifests("team/shop").is_empty());
    world.registry.behave(behaviour);
    world.publish(&content).unwrap();
}

#[test]
fn neg_redirect_strips_authorization_also_on_the_way_back() {
    let (other, world) = (World::of(""), World::of("auth"));
    let content = Content::usual();
    world.publish(&content).unwrap();
    let layer = content.layer(0);
    let away = Fault::redirect(&format!("{}$", layer.digest), &format!("http://{}{{target}}", other.registry.host()));
    let back = Fault::redirect("/blobs/", &format!("http://{}{{target}}?back", world.registry.host()));
    world.registry.behave(Behaviour { faults: vec![away], ..("auth".parse().unwrap()) });
    other.registry.behave(Behaviour::with_faults([back]));
    world.registry.forget_log();
    assert_fault(world.source().open(&layer).map(|_| ()), FaultKind::Unauthorized, &[]);
    assert_eq!(other.registry.log().len(), 1);
    assert!(!other.registry.log()[0].had_authorization);
    let back = world.asked("GET", "?back");
    assert!(back.len() == 1 && !back[0].had_authorization, "{back:?}");
    // Whoever leads to where it is gets followed.
    other.registry.behave(Behaviour::default());
    other.hold(&content);
    assert_eq!(read(world.source().as_ref(), &layer).unwrap(), content.image.blobs[&layer.digest]);
}

#[test]
fn redirects_end() {
    // Who goes round is noticed at once, who goes on after five.
    for (faults, asked) in [(Fault::redirect_to_itself("/blobs/"), 1), (Fault::redirect_without_end("/blobs/"), 6)] {
        let (world, content) = holding([faults]);
        assert_fault(world.source().open(&content.layer(0)).map(|_| ()), FaultKind::Redirects, &[]);
        assert_eq!(world.count("GET", "/blobs/"), asked);
        assert!(world.heard.pauses().is_empty());
    }
    let (world, content) = holding([Fault::redirect("/blobs/", "")]);
    assert_fault(world.source().open(&content.layer(0)).map(|_| ()), FaultKind::OutOfForm, &["without an address"]);
    for bad in ["http://registry.example/x", "ftp://127.0.0.1/x", "http://a:b@127.0.0.1/x", "https://169.254.169.254/x"]
    {
        let (world, content) = holding([Fault::redirect("/blobs/", bad)]);
        assert_fault(world.source().open(&content.layer(0)).map(|_| ()), FaultKind::AddressRefused, &[]);
        assert_eq!(world.count("GET", "/blobs/"), 1, "{bad}");
    }
}

#[test]
fn what_a_registry_says_back_of_a_password_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "me:quite-secret");
    let message = format!("you sent {pair}, that is quite-secret");
    let body = json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
    let echo = When::any("/manifests/v1").answer(Answer::status(403).bytes(body.clone()));
    let token = When::any("/token").answer(Answer::status(403).bytes(body));
    for (words, fault_here) in [("basic,user=me:quite-secret", echo), ("auth,user=me:quite-secret", token)] {
        let world =
            World::with(Behaviour { faults: vec![fault_here], ..(words.parse().unwrap()) }, |host, settings| {
                let json = format!(r#"{{"auths":{{"{host}":{{"auth":"{pair}"}}}}}}"#);
                settings.credentials = credentials(folder.path(), &json);
            });
        let fault = fault(world.source().resolve(&Selector::Tag("v1".parse().unwrap())));
        assert!(fault.reason.contains("you sent ***") && !fault.reason.contains("quite-secret"), "{}", fault.reason);
        assert!(!fault.reason.contains(&pair), "{}", fault.reason);
    }
}

#[test]
fn an_upload_without_an_address_is_none() {
    let content = Content::usual();
    let nowhere = When::method("POST", "/blobs/uploads/").change(Answer::default().header("Location", ""));
    let world = World::new(Behaviour::with_faults([nowhere]));
    assert_fault(world.publish(&content), FaultKind::OutOfForm, &["an upload without an address"]);
    world.registry.behave(Behaviour::default());
    world.publish(&content).unwrap();
}
