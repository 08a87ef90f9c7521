//! Lists of referrers that are too long, junk, or no answer.

use std::ops::Range;

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
        (elsewhere.as_str(), FaultKind::AddressRefused, "its next page is on another server"),
        ("https://other.example/next", FaultKind::AddressRefused, "its next page is on another server"),
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

/// An index of manifests that are known by their number.
fn index_of(numbers: Range<u32>) -> Vec<u8> {
    let entry =
        |number: u32| json!({"mediaType": IMAGE_MANIFEST, "digest": Digest::of(&number.to_be_bytes()), "size": 1});
    let entries: Vec<Value> = numbers.map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).to_string().into_bytes()
}

#[test]
fn two_lists_of_an_image_have_one_limit() {
    for (end, is_good) in [(10_000, true), (10_001, false)] {
        let list = |numbers| Answer::status(200).content(IMAGE_INDEX, &index_of(numbers));
        let api = When::get("/referrers/").answer(list(0..6_000));
        let tag = When::get("/manifests/sha256-").answer(list(5_000..end));
        let (world, content) = holding([api, tag]);
        match is_good {
            true => assert_eq!(world.referrers(&content).unwrap().len(), 10_000),
            false => assert_fault(world.referrers(&content), FaultKind::TooLarge, &["manifests are listed for"]),
        }
    }
}

#[test]
fn all_pages_of_a_list_have_one_limit() {
    // The same manifests on both pages are listed twice.
    for (entries, is_good) in [(5_000, true), (5_001, false)] {
        let (world, content) = holding(pages(2, &index_of(0..entries)));
        match is_good {
            true => assert_eq!(world.referrers(&content).unwrap().len(), 5_000),
            false => assert_fault(world.referrers(&content), FaultKind::TooLarge, &["10000 manifests are listed"]),
        }
    }
    // A page has 4 MiB at most, and all of them 16.
    let mut large = index_of(0..1);
    large.resize(4 << 20, b' ');
    for (count, is_good) in [(4, true), (5, false)] {
        let (world, content) = holding(pages(count, &large));
        match is_good {
            true => assert_eq!(world.referrers(&content).unwrap().len(), 1),
            false => assert_fault(world.referrers(&content), FaultKind::TooLarge, &["bytes of referrers"]),
        }
    }
}

/// So many pages of a list, all the same.
fn pages(count: u32, page: &[u8]) -> [Fault; 2] {
    let answer = Answer::status(200).content(IMAGE_INDEX, page);
    let next = answer.clone().header("Link", r#"<?page={number}>; rel="next""#);
    [When::get("/referrers/").first(count - 1).answer(next), When::get("/referrers/").from(count).answer(answer)]
}

#[test]
fn a_fallback_tag_that_names_no_index_is_no_list() {
    for (kind, is_good) in [(IMAGE_INDEX, true), (IMAGE_MANIFEST, false)] {
        let answer = Answer::status(200).content(kind, br#"{"schemaVersion":2,"manifests":[]}"#);
        let (world, content) = holding([When::get("/manifests/sha256-").answer(answer)]);
        match is_good {
            true => assert_eq!(world.referrers(&content).unwrap().len(), 3),
            false => assert_fault(world.referrers(&content), FaultKind::OutOfForm, &["is no image index but"]),
        }
    }
}
