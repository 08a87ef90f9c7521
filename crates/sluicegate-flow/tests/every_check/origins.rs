//! Results that were taken from another run: the statement of the run that did the work is there, and about this very work (trust model 9).

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{BUNDLE, LOCAL_BUILDER},
    statement::{Statement, Subject},
};
use sluicegate_testkit::{VirtualBuild, VirtualLog, today};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty};
use sluicegate_verify::closed_set::{Asked, follow};

use crate::fixture::{LOG, Said, Tried, image, rules, trust_in};

const OTHER_BUILDER: &str = "https://example.com/other-builder";

/// Run 1 takes the result of the step `package` from run 0, whose statement is changed; `named` says whether the image's provenance names
/// that statement.
fn taken(named: bool, change: impl Fn(&mut Statement) + 'static) -> Said {
    let log = VirtualLog::new(LOG);
    let origin = VirtualBuild::new("run-0", image()).edited(move |part, statement| {
        if part == "package" {
            set_key(&mut statement.predicate, b"key");
            change(statement);
        }
    });
    let origin = origin.sign(&log);
    let bundle = origin.digest("package");
    let hit = VirtualBuild::new("run-1", image()).edited(move |part, statement| {
        if part == "package" {
            set_key(&mut statement.predicate, b"key");
            name(&mut statement.predicate, "cache-origin", bundle);
        }
        if part == "image" && named {
            name(&mut statement.predicate, "attestation:package:origin", bundle);
        }
    });
    let mut signers = rules();
    let builder = signers.iter_mut().find(|rule| rule.name == "builder").unwrap();
    builder.builder_ids = [LOCAL_BUILDER, OTHER_BUILDER].map(str::to_owned).into_iter().collect();
    let signed = hit.sign(&log);
    let mut blobs = signed.blobs();
    blobs.extend(origin.blobs());
    let trust = trust_in(signers, &log);
    let found = follow(image(), &signed.attached(), &blobs, Asked { trust: &trust, repository: None, at: today() });
    let reasons: Vec<String> = found.incomplete.iter().map(ToString::to_string).collect();
    if found.sets.is_empty() { Err(reasons.join("; ")) } else { Ok(()) }
}

fn tried(what: &'static str, words: &'static str, change: impl Fn(&mut Statement) + 'static) -> Tried {
    Tried::good(taken(true, |_| {})).fault(what, words, taken(true, change))
}

fn set_key(predicate: &mut Value, key: &[u8]) {
    predicate["buildDefinition"]["internalParameters"]["cacheKey"] = json!(Digest::of(key));
}

fn name(predicate: &mut Value, what: &str, bundle: Digest) {
    let dependencies = predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
    dependencies.push(json!({"name": what, "digest": {"sha256": bundle.hex()}, "mediaType": BUNDLE}));
}

pub(crate) fn tm09_the_origin_of_a_result_is_in_the_set() -> Tried {
    let said = taken(false, |_| {});
    Tried::good(taken(true, |_| {})).fault("not named", "which the image's provenance does not name", said)
}

pub(crate) fn tm09_a_hit_names_no_other_hit() -> Tried {
    tried("a hit of a hit", "itself took its result", |statement| {
        name(&mut statement.predicate, "cache-origin", Digest::of(b"yet another run"));
    })
}

pub(crate) fn tm09_a_result_is_of_the_same_builder() -> Tried {
    tried("another builder", "made by another builder", |statement| {
        assert_eq!(statement.predicate["runDetails"]["builder"]["id"], LOCAL_BUILDER);
        statement.predicate["runDetails"]["builder"]["id"] = json!(OTHER_BUILDER);
    })
}

pub(crate) fn tm09_both_keys_agree() -> Tried {
    tried("another key", "has another cache key", |statement| set_key(&mut statement.predicate, b"other"))
}

pub(crate) fn tm09_a_result_is_of_the_same_work() -> Tried {
    tried("another command", "did other work", |statement| {
        statement.predicate["buildDefinition"]["externalParameters"]["run"] = json!(["make", "else"]);
    })
}

pub(crate) fn tm09_a_result_is_of_the_same_inputs() -> Tried {
    tried("another input", "read something else", |statement| {
        let dependencies = statement.predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
        let input = dependencies.iter_mut().find(|one| one["name"] == "build.server").unwrap();
        input["digest"]["sha256"] = json!(Digest::of(b"another server").hex());
    })
}

pub(crate) fn tm09_a_result_is_what_the_origin_left() -> Tried {
    tried("another output", "left something else", |statement| {
        let content = Content { kind: ContentKind::File, digest: Digest::of(b"something else") };
        statement.subjects = NonEmpty::one(Subject::product("package.server".to_owned(), content));
    })
}
