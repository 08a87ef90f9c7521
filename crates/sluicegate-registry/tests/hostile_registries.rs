//! Registries that lie, break off, lead astray or never end: each refusal stands beside the same request without the fault.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod support;

use std::{io::Read, time::Duration};

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::{Descriptor, FaultKind, ImagePlaceError, ImagePlaces};
use sluicegate_registry::Places;
use sluicegate_testkit::{Answer, Behaviour, Fault, Payload, Then, VirtualImage, When, http_date, large_index};
use sluicegate_types::{Digest, Place, Selector};
use support::{Content, World, assert_fault, credentials, describe, fallback, fault, noise, read, selector};

/// A registry that holds the usual image, with the fault; reading it whole works once the fault is gone.
fn holding(faults: impl IntoIterator<Item = Fault>) -> (World, Content) {
    let (world, content) = (World::of(""), Content::usual());
    world.hold(&content);
    content.assert_is_in(&world.stranger(), &world.place());
    world.registry.forget_log();
    world.registry.behave(Behaviour::with_faults(faults));
    (world, content)
}

fn resolve(world: &World) -> Result<Descriptor, ImagePlaceError> {
    world.source().resolve(&selector())
}

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
        assert_fault(world.publish(&content), FaultKind::AddressRefused, &["upload"]);
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
    for faults in [Fault::redirect_to_itself("/blobs/"), Fault::redirect_without_end("/blobs/")] {
        let (world, content) = holding([faults]);
        assert_fault(world.source().open(&content.layer(0)).map(|_| ()), FaultKind::Redirects, &[]);
        assert!(world.count("GET", "/blobs/") <= 6);
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
fn neg_index_100k_entries() {
    for (entries, is_good) in [(10_000, true), (10_001, false), (100_000, false)] {
        let (world, content) = holding([]);
        let index = When::get("/referrers/").answer(Answer::status(200).content(IMAGE_INDEX, &large_index(entries)));
        world.registry.behave(Behaviour::with_faults([index]));
        let by_tag =
            When::get("/manifests/sha256-").answer(Answer::status(200).content(IMAGE_INDEX, &large_index(entries)));
        let without = World::new(Behaviour { referrers: false, ..Behaviour::with_faults([by_tag]) });
        for asked in [world.referrers(&content), without.referrers(&content)] {
            match is_good {
                true => assert_eq!(asked.unwrap().len(), entries),
                false => assert_fault(asked, FaultKind::TooLarge, &[]),
            }
        }
    }
}

#[test]
fn neg_digest_strings_of_a_list_that_are_none_are_never_asked_for() {
    let good = Digest::of(b"good");
    let entry = |digest: &str| json!({"mediaType": IMAGE_MANIFEST, "digest": digest, "size": 3});
    let hex = good.hex();
    let mut entries: Vec<Value> =
        ["sha256:../../../../etc/passwd", "../../x", "sha256:00", &format!("sha256:{hex}0"), "v1", ""]
            .map(entry)
            .to_vec();
    entries.extend([
        json!(null),
        json!({"digest": good.to_string()}),
        json!({"mediaType": 1, "digest": 2, "size": -1}),
    ]);
    entries.push(entry(&good.to_string()));
    let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).to_string();
    let (world, content) = holding([Fault::referrers_are(IMAGE_INDEX, &index)]);
    let found = world.referrers(&content).unwrap();
    assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), [good]);
    found.iter().for_each(|one| drop(world.source().open(one).map(|_| ())));
    assert!(
        world
            .registry
            .log()
            .iter()
            .all(|one| !one.path_and_query.contains("..") && !one.path_and_query.contains("sha256:00"))
    );
}

#[test]
fn pages_of_referrers_end_and_stay_at_home() {
    let other = World::of("");
    let elsewhere = format!("http://{}/v2/team/shop/referrers/x", other.registry.host());
    for (link, kind, words) in [
        ("{target}", FaultKind::Redirects, "was read before"),
        ("?page={number}", FaultKind::TooLarge, "pages of referrers"),
        (elsewhere.as_str(), FaultKind::AddressRefused, "another server"),
        ("https://other.example/next", FaultKind::AddressRefused, "another server"),
        ("ftp://other.example/next", FaultKind::AddressRefused, "next page"),
    ] {
        let (world, content) = holding([Fault::next_page(link)]);
        assert_fault(world.referrers(&content), kind, &[words]);
        assert!(world.count("GET", "/referrers/") <= 1_000, "{link}");
    }
    assert!(other.registry.log().is_empty());
    for header in ["garbage", "<no-end; rel=next"] {
        let (world, content) = holding([When::get("/referrers/").change(Answer::default().header("Link", header))]);
        assert_fault(world.referrers(&content), FaultKind::OutOfForm, &["link"]);
    }
    // A second page whose address has a comma in it.
    let (world, content) = holding([When::get("/referrers/").first(1).answer(
        Answer::status(200)
            .header("Link", r#"<?last=a,b>; title="one, two"; rel="next""#)
            .content(IMAGE_INDEX, br#"{"schemaVersion":2,"manifests":[]}"#),
    )]);
    assert_eq!(world.referrers(&content).unwrap().len(), 3);
    assert_eq!(world.count("GET", "?last=a,b"), 1);
}

#[test]
fn that_nothing_is_attached_is_said_only_after_two_answers_in_form() {
    let html = || Answer::status(404).header("Content-Type", "text/html; charset=utf-8").bytes("<!DOCTYPE html>");
    let tag = "/manifests/sha256-";
    let api = "/referrers/";
    let cases = [
        (Fault::referrers_are_html(), FaultKind::OutOfForm),
        (Fault::referrers_are("application/json", ""), FaultKind::OutOfForm),
        (Fault::referrers_are(IMAGE_INDEX, "{}"), FaultKind::OutOfForm),
        (Fault::refused(When::get(api), 500, "UNKNOWN"), FaultKind::Status),
        (Fault::refused(When::get(api), 403, "DENIED"), FaultKind::Unauthorized),
        (Fault::refused(When::get(api), 400, "UNSUPPORTED"), FaultKind::Status),
        (Fault::redirect(api, "/elsewhere"), FaultKind::Status),
        (When::get(api).answer(html()), FaultKind::OutOfForm),
        (Fault::too_many_requests(When::get(api), "1"), FaultKind::Status),
        (Fault::too_many_requests(When::get(api), "3600"), FaultKind::Deadline),
        (Fault::too_many_requests(When::get(api), "18446744073709551615"), FaultKind::Deadline),
        (When::get(api).then(Then::Close { done: false }), FaultKind::Unreachable),
        (When::get(tag).answer(html()), FaultKind::OutOfForm),
        (Fault::refused(When::get(tag), 500, "UNKNOWN"), FaultKind::Status),
        (Fault::refused(When::get(tag), 403, "DENIED"), FaultKind::Unauthorized),
        (When::get(tag).answer(Answer::status(200).bytes("")), FaultKind::OutOfForm),
        (When::get(tag).answer(Answer::status(200).content(IMAGE_MANIFEST, b"{}")), FaultKind::OutOfForm),
    ];
    let image = Content::new(&[b"alone"], &[]);
    for (fault, kind) in cases {
        let world = World::of("");
        world.hold(&image);
        assert!(world.referrers(&image).unwrap().is_empty());
        world.registry.behave(Behaviour::with_faults([fault.clone()]));
        world.registry.forget_log();
        let error = support::fault(world.referrers(&image));
        assert_eq!(error.kind, kind, "{fault:?}: {}", error.reason);
        assert!(world.registry.log().len() <= 7, "{fault:?}: {}", world.registry.log().len());
    }
    // No API and no tag, in the words that registries have for it, are answers.
    for (status, kind) in
        [(404, "application/json"), (404, "text/plain"), (405, "application/json"), (501, "text/plain")]
    {
        let none =
            When::get(api).answer(Answer::status(status).header("Content-Type", kind).bytes("404 page not found"));
        let world = World::new(Behaviour::with_faults([none]));
        world.hold(&image);
        assert!(world.referrers(&image).unwrap().is_empty());
    }
}

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
