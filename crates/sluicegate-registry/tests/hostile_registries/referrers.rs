//! Lists of referrers that are too long, junk, or no answer.

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::FaultKind;
use sluicegate_testkit::{Answer, Behaviour, Fault, Then, When, large_index};
use sluicegate_types::Digest;

use crate::{
    held_image::holding,
    support::{self, Content, World, assert_fault},
};

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
