//! An image of three steps with everything its provenance names, and beside it the same with one thing missing, exchanged or false.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sluicegate_attestation::{predicate::PredicateType, statement::Subject};
use sluicegate_testkit::{PARTS, SignedBuild, VirtualBuild, VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{Content, ContentKind, Digest};
use sluicegate_verify::{
    Error, Role, Trust,
    closed_set::{Asked, Followed, Incomplete, MAX_SETS, Seen, follow},
};

use crate::world::{LOG, about_image, image, rule, rules, sbom, trust_in};

type Blobs = BTreeMap<Digest, Vec<u8>>;

fn build(run: &str) -> VirtualBuild {
    VirtualBuild::new(run, image())
}

fn signed(build: &VirtualBuild) -> (VirtualLog, SignedBuild) {
    let log = VirtualLog::new(LOG);
    let signed = build.sign(&log);
    (log, signed)
}

fn asked(trust: &Trust) -> Asked<'_> {
    Asked { trust, repository: None, at: today() }
}

fn followed(log: &VirtualLog, attached: &Blobs, blobs: &Blobs) -> Followed {
    follow(image(), attached, blobs, asked(&trust_in(rules(), log)))
}

fn follow_build(build: &VirtualBuild) -> (SignedBuild, Followed) {
    let (log, signed) = signed(build);
    let followed = followed(&log, &signed.attached(), &signed.blobs());
    (signed, followed)
}

/// The one reason why there is no set.
fn reason(followed: Followed) -> Incomplete {
    assert!(followed.sets.is_empty(), "a set was found");
    let [reason] = <[Incomplete; 1]>::try_from(followed.incomplete).unwrap();
    reason
}

fn refused(build: &VirtualBuild) -> Incomplete {
    reason(follow_build(build).1)
}

#[test]
fn everything_that_the_provenance_names_is_in_the_set() {
    let (build, followed) = follow_build(&build("run-1"));
    assert!(followed.incomplete.is_empty());
    let [set] = followed.sets.as_slice() else { panic!("{:?}", followed.incomplete) };
    assert_eq!(set.image(), image());
    assert_eq!(set.provenance().0.bundle(), build.digest("image"));
    assert_eq!(set.steps().count(), 3);
    assert_eq!((set.sboms().len(), set.scans().len()), (1, 1));
    assert_eq!(set.scans()[0].report, build.report);
    let reports: BTreeSet<Digest> = set.reports().map(|(digest, _)| *digest).collect();
    assert_eq!(reports, build.reports.iter().map(|report| Digest::of(report)).collect());
    assert_eq!((set.tests().len(), set.outputs().len(), set.step_images().len()), (1, 2, 1));
    let [traced] = set.traces() else { panic!("{:?}", set.traces()) };
    assert_eq!((traced.statement.bundle(), traced.trace.step.as_str()), (build.digest("build-trace"), "build"));
    let mut bundles: Vec<Digest> = set.statements().map(|statement| statement.bundle()).collect();
    let mut expected: Vec<Digest> = PARTS.iter().map(|part| build.digest(part)).collect();
    bundles.sort();
    expected.sort();
    assert_eq!(bundles, expected);
    let kinds = [PredicateType::Provenance, PredicateType::Sbom, PredicateType::Vulns, PredicateType::TestResult];
    assert_eq!(set.kinds().into_iter().collect::<Vec<_>>(), kinds);
}

#[test]
fn a_trace_is_of_a_step_of_the_set_and_about_what_that_left() {
    let whole = |build: VirtualBuild| assert_eq!(follow_build(&build).1.sets.len(), 1);
    whole(build("run-1"));
    let unavailable = |predicate: &mut Value| {
        predicate["monitorLog"] = json!({});
        predicate["sluicegate_unavailable"] = json!("no right");
        for field in ["sluicegate_lost", "sluicegate_blind"] {
            predicate.as_object_mut().unwrap().remove(field);
        }
    };
    whole(build("run-1").with_predicate("build-trace", unavailable));
    let with = |edit: fn(&mut Value)| build("run-1").with_predicate("build-trace", edit);
    let other = |digest: &'static [u8]| {
        build("run-1").edited(move |part, statement| {
            if part == "build-trace" {
                let content = Content { kind: ContentKind::File, digest: Digest::of(digest) };
                statement.subjects = sluicegate_types::NonEmpty::one(Subject::product("x".to_owned(), content));
            }
        })
    };
    whole(other(b"built"));
    for (fault, words) in [
        (with(|predicate| predicate["monitorLog"] = json!({})), "says why not"),
        (
            with(|predicate| {
                predicate["sluicegate_run"] = json!("run-2");
                predicate["monitoredProcess"]["event"] = json!("run-2/build");
            }),
            "it is of run run-2",
        ),
        (with(|predicate| predicate["monitoredProcess"]["hostID"] = json!("urn:other")), "by urn:other"),
        (
            with(|predicate| {
                predicate["sluicegate_step"] = json!("deploy");
                predicate["monitoredProcess"]["event"] = json!("run-1/deploy");
            }),
            "no attestation of the step deploy",
        ),
        (
            with(|predicate| {
                predicate["sluicegate_step"] = json!("package");
                predicate["monitoredProcess"]["event"] = json!("run-1/package");
            }),
            "something else than what the step package left",
        ),
        (other(b"server"), "something else than what the step build left"),
    ] {
        let found = refused(&fault);
        assert!(matches!(&found, Incomplete::Unlinked { .. }) && found.to_string().contains(words), "{found}");
    }
}

#[test]
fn nothing_attached_is_nothing_proved() {
    let log = VirtualLog::new(LOG);
    let none = reason(followed(&log, &Blobs::new(), &Blobs::new()));
    assert!(
        matches!(none, Incomplete::NoProvenance { image: found, ignored } if found == image() && ignored.is_empty())
    );
}

#[test]
fn without_its_provenance_the_rest_proves_nothing() {
    let (log, build) = signed(&build("run-1"));
    let mut attached = build.attached();
    attached.remove(&build.digest("image"));
    let found = followed(&log, &attached, &build.blobs());
    assert_eq!(found.seen.len(), 2, "what is about the image is seen all the same");
    assert!(matches!(reason(found), Incomplete::NoProvenance { .. }));
}

#[test]
fn each_thing_that_is_named_is_missed_by_its_name() {
    let (log, build) = signed(&build("run-1"));
    let mut named: Vec<(String, Digest)> = PARTS
        .iter()
        .filter(|part| **part != "image")
        .map(|part| (format!("attestation:{part}"), build.digest(part)))
        .collect();
    named.push(("report:trivy".to_owned(), Digest::of(&build.report)));
    for (name, digest) in named {
        let (mut attached, mut blobs) = (build.attached(), build.blobs());
        assert!(attached.remove(&digest).or_else(|| blobs.remove(&digest)).is_some());
        let found = reason(followed(&log, &attached, &blobs));
        assert!(
            matches!(&found, Incomplete::Missing { name: n, digest: d } if *n == name && *d == digest),
            "{name}: {found}"
        );
        assert!(found.to_string().contains(&name));
    }
}

#[test]
fn no_subset_that_lacks_something_is_a_set_and_junk_changes_nothing() {
    let (log, build) = signed(&build("run-1"));
    let everything: Vec<(Digest, Vec<u8>, bool)> = build
        .attached()
        .into_iter()
        .map(|(digest, bytes)| (digest, bytes, true))
        .chain(build.blobs().into_iter().map(|(digest, bytes)| (digest, bytes, false)))
        .collect();
    let trust = trust_in(rules(), &log);
    let all = 1_u32 << everything.len();
    // Nothing, each one, each pair, and a spread of larger subsets; the numbers are the same in every run.
    let singles = (0..everything.len()).map(|one| 1_u32 << one);
    let pairs = singles.clone().flat_map(|one| singles.clone().map(move |other| one | other));
    let spread = (1..300_u32).map(|step| step.wrapping_mul(2_654_435_761) % all);
    for removed in std::iter::once(0).chain(pairs).chain(spread).collect::<BTreeSet<_>>() {
        let (mut attached, mut blobs) = (Blobs::new(), Blobs::new());
        for (number, (digest, bytes, is_attached)) in everything.iter().enumerate() {
            if removed & (1 << number) == 0 {
                if *is_attached { &mut attached } else { &mut blobs }.insert(*digest, bytes.clone());
            }
        }
        let followed = follow(image(), &attached, &blobs, asked(&trust));
        assert_eq!(followed.sets.len(), usize::from(removed == 0), "{removed:b}");
        assert_eq!(followed.incomplete.is_empty(), removed == 0, "{removed:b}");
    }
}

/// Things that anyone may attach.
fn junk(log: &VirtualLog) -> Vec<Vec<u8>> {
    let builder = VirtualSigner::new("builder");
    let foreign = VirtualBuild::new("run-9", Digest::of(b"another image")).sign(log);
    let strangers = build("run-8").sign(&VirtualLog::new("elsewhere.example"));
    let unsigned = crate::world::changed(&foreign.bundles["image"], |value| {
        value["dsseEnvelope"]["signatures"] = json!([]);
    });
    let forged =
        crate::world::changed(&build("run-7").with_signer("image", "stranger").sign(log).bundles["image"], |_| {});
    let mut junk = vec![b"\x00\xff random".to_vec(), Vec::new(), b"{}".to_vec(), unsigned, forged];
    junk.extend(foreign.bundles.into_values());
    junk.extend(strangers.bundles.into_values());
    // A second SBOM that a trusted key signed and that this run does not name.
    junk.push(sign_statement(&builder, log, &sbom()));
    junk.push(sign_statement(&VirtualSigner::new("person"), log, &sbom()));
    junk
}

#[test]
fn what_anyone_attaches_neither_helps_nor_hurts() {
    let (log, build) = signed(&build("run-1"));
    let junk = junk(&log);
    let expect = |attached: &Blobs, blobs: &Blobs, whole: bool, what: &str| {
        let found = followed(&log, attached, blobs);
        assert_eq!(found.sets.len(), usize::from(whole), "{what}: {:?}", found.incomplete);
        let Some(set) = found.sets.first() else { return };
        assert_eq!(set.statements().count(), PARTS.len(), "{what}");
        assert!(set.statements().all(|s| PARTS.iter().any(|part| build.digest(part) == s.bundle())), "{what}");
    };
    for (number, extra) in junk.iter().enumerate() {
        for lacking in [None, Some("test"), Some("sbom"), Some("image")] {
            let (mut attached, mut blobs) = (build.attached(), build.blobs());
            if let Some(part) = lacking {
                attached.remove(&build.digest(part));
                blobs.remove(&build.digest(part));
            }
            let whole = lacking.is_none();
            let what = format!("junk {number}, without {lacking:?}");
            blobs.insert(Digest::of(extra), extra.clone());
            expect(&attached, &blobs, whole, &what);
            attached.insert(Digest::of(extra), extra.clone());
            expect(&attached, &blobs, whole, &what);
        }
    }
    let (mut attached, mut blobs) = (build.attached(), build.blobs());
    for extra in &junk {
        attached.insert(Digest::of(extra), extra.clone());
        blobs.insert(Digest::of(extra), extra.clone());
    }
    expect(&attached, &blobs, true, "all junk together");
}

#[test]
fn what_does_not_count_is_listed_with_its_reason() {
    let (log, build) = signed(&build("run-1"));
    let mut attached = build.attached();
    let nonsense = b"nonsense".to_vec();
    attached.insert(Digest::of(&nonsense), nonsense.clone());
    let foreign = VirtualBuild::new("run-9", Digest::of(b"another image")).sign(&log);
    attached.insert(foreign.digest("image"), foreign.bundles["image"].clone());
    let found = followed(&log, &attached, &build.blobs());
    let reason_of = |digest: Digest| {
        found.seen.iter().find_map(|seen| match seen {
            Seen::Ignored { bundle, reason } if *bundle == digest => Some(reason.clone()),
            _ => None,
        })
    };
    assert!(reason_of(Digest::of(&nonsense)).unwrap().contains("not of the expected form"));
    assert!(reason_of(foreign.digest("image")).unwrap().contains("something else"));
    assert_eq!(reason_of(build.digest("image")), None);
    let none = reason(followed(&log, &BTreeMap::from([(Digest::of(&nonsense), nonsense)]), &Blobs::new()));
    assert!(none.to_string().contains("1 attached, none usable: sha256:"), "{none}");
}

#[test]
fn a_bundle_of_another_run_does_not_stand_in_for_the_one_that_is_named() {
    let log = VirtualLog::new(LOG);
    let (one, two) = (build("run-1").sign(&log), build("run-2").sign(&log));
    for part in &PARTS[..3] {
        let mut blobs = one.blobs();
        blobs.remove(&one.digest(part));
        blobs.insert(two.digest(part), two.bundles[part].clone());
        let found = reason(followed(&log, &one.attached(), &blobs));
        assert!(matches!(&found, Incomplete::Missing { digest, .. } if *digest == one.digest(part)), "{part}: {found}");
    }
}

#[test]
fn a_provenance_that_names_a_step_of_another_run_is_refused() {
    for part in ["build", "test", "package"] {
        let found = refused(&build("run-1").with_predicate(part, |predicate| {
            predicate["runDetails"]["metadata"]["invocationId"] = json!("run-2");
        }));
        assert!(
            matches!(&found, Incomplete::Unlinked { name, reason, .. }
            if *name == format!("attestation:{part}") && reason.contains("run-2")),
            "{found}"
        );
    }
}

#[test]
fn a_named_bundle_of_a_stranger_is_broken_not_missing() {
    for part in &PARTS[..5] {
        let (signed, found) = follow_build(&build("run-1").with_signer(part, "stranger"));
        let found = reason(found);
        let Incomplete::Broken { digest, reason, .. } = &found else { panic!("{part}: {found}") };
        assert_eq!(*digest, signed.digest(part));
        assert!(matches!(**reason, Error::UnknownSigner { .. }), "{part}: {reason}");
    }
}

#[test]
fn a_named_bundle_with_one_bit_flipped_is_broken() {
    // The caller re-hashes blobs; bytes that are named by their own digest and hold a bad signature reach this code.
    let log = VirtualLog::new(LOG);
    let good = build("run-1").sign(&log);
    let bad = crate::world::changed(&good.bundles["test"], |value| {
        let payload = value["dsseEnvelope"]["payload"].as_str().unwrap().to_owned();
        value["dsseEnvelope"]["payload"] = json!(crate::world::flipped(&payload));
    });
    let digest = Digest::of(&bad);
    let naming = build("run-1").with_predicate("image", move |predicate| {
        name(predicate, "attestation:test")["digest"]["sha256"] = json!(digest.hex());
    });
    let naming = naming.sign(&log);
    let mut blobs = naming.blobs();
    blobs.insert(digest, bad);
    let found = reason(followed(&log, &naming.attached(), &blobs));
    assert!(matches!(&found, Incomplete::Broken { digest: d, .. } if *d == digest), "{found}");
}

/// The resolved dependency called `name`.
fn name<'a>(predicate: &'a mut Value, name: &str) -> &'a mut Value {
    let all = predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
    all.iter_mut().find(|dependency| dependency["name"] == name).unwrap()
}

fn forget(predicate: &mut Value, name: &str) {
    let all = predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
    all.retain(|dependency| dependency["name"] != name);
}

#[test]
fn evidence_counts_only_from_keys_of_the_role_steps() {
    // The person may sign an SBOM, by hand; the recorder a scan, as the gate's own. Neither is what a build names.
    for (part, signer) in [("sbom", "person"), ("vulns", "recorder")] {
        let found = refused(&build("run-1").with_signer(part, signer));
        assert!(
            matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("role steps")),
            "{part}: {found}"
        );
    }
    for signer in ["person", "recorder", "decider"] {
        let found = refused(&build("run-1").with_signer("test", signer));
        assert!(
            matches!(&found, Incomplete::Broken { reason, .. } if matches!(**reason, Error::Role { .. })),
            "{found}"
        );
        let found = refused(&build("run-1").with_signer("image", signer));
        assert!(matches!(&found, Incomplete::NoProvenance { .. }), "{found}");
    }
    let two_roles = vec![rule("builder", &[Role::Steps, Role::Records])];
    let (log, signed) = signed(&build("run-1"));
    let found = follow(image(), &signed.attached(), &signed.blobs(), asked(&trust_in(two_roles, &log)));
    assert_eq!(found.sets.len(), 1);
}

#[test]
fn a_product_must_be_among_the_subjects_of_the_step_that_is_named_for_it() {
    let subject = |edit: fn(&mut Subject)| {
        build("run-1").edited(move |part, statement| {
            if part == "package" {
                let mut subjects = statement.subjects.clone().into_vec();
                edit(&mut subjects[0]);
                statement.subjects = subjects.try_into().unwrap();
            }
        })
    };
    assert_eq!(follow_build(&subject(|_| {})).1.sets.len(), 1);
    let edits: [fn(&mut Subject); 3] = [
        |subject| subject.digest = Digest::of(b"another server"),
        |subject| subject.media_type = Some(ContentKind::Directory.media_type().to_owned()),
        |subject| subject.media_type = None,
    ];
    for (what, edit) in ["another digest", "a directory", "no kind"].into_iter().zip(edits) {
        let found = refused(&subject(edit));
        assert!(
            matches!(&found, Incomplete::Unlinked { name, reason, .. }
            if name == "package.server" && reason.contains("not about it")),
            "{what}: {found}"
        );
    }
    // A name is not what counts.
    assert_eq!(follow_build(&subject(|subject| subject.name = Some("anything".to_owned()))).1.sets.len(), 1);
    let exchanged = build("run-1").with_predicate("image", |predicate| {
        name(predicate, "package.server")["mediaType"] = json!(ContentKind::Directory.media_type());
    });
    assert!(matches!(refused(&exchanged), Incomplete::Unlinked { .. }), "the image's side of the kind counts too");
}

#[test]
fn what_a_step_read_of_another_must_be_what_that_other_made() {
    let subject = |edit: fn(&mut Content)| {
        build("run-1").edited(move |part, statement| {
            if part == "build" {
                let mut content = Content { kind: ContentKind::File, digest: Digest::of(b"built") };
                edit(&mut content);
                let subject = Subject::product("build.server".to_owned(), content);
                statement.subjects = vec![subject].try_into().unwrap();
            }
        })
    };
    assert_eq!(follow_build(&subject(|_| {})).1.sets.len(), 1);
    let edits: [fn(&mut Content); 2] =
        [|content| content.digest = Digest::of(b"else"), |content| content.kind = ContentKind::Directory];
    for edit in edits {
        let found = refused(&subject(edit));
        assert!(matches!(&found, Incomplete::Unlinked { name, .. } if name == "build.server"), "{found}");
    }
    let unnamed = build("run-1").with_predicate("package", |predicate| forget(predicate, "build.server"));
    let found = refused(&unnamed);
    assert!(
        matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("its input build.server")),
        "{found}"
    );
    let unattested = build("run-1").with_predicate("package", |predicate| {
        name(predicate, "build.server").as_object_mut().unwrap().remove("annotations");
    });
    let found = refused(&unattested);
    assert!(
        matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("no attestation is named")),
        "{found}"
    );
}

#[test]
fn a_step_that_failed_proves_nothing() {
    for (part, code) in [("test", 1), ("build", -1), ("package", 137)] {
        let found = refused(&build("run-1").with_predicate(part, move |predicate| {
            predicate["buildDefinition"]["externalParameters"]["exitCode"] = json!(code);
        }));
        assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains(&code.to_string())), "{found}");
    }
}

#[test]
fn steps_that_the_image_needs_must_be_named() {
    let unneeded = build("run-1").with_predicate("image", |predicate| {
        forget(predicate, "attestation:test");
        forget(predicate, "attestation:test-result");
        predicate["buildDefinition"]["externalParameters"]["needs"] = json!([]);
    });
    assert_eq!(follow_build(&unneeded).1.sets.len(), 1);
    let needed = build("run-1").with_predicate("image", |predicate| forget(predicate, "attestation:test"));
    let found = refused(&needed);
    assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("step test")), "{found}");
    for part in ["build", "package"] {
        let found = refused(&build("run-1").with_predicate("image", move |predicate| {
            forget(predicate, &format!("attestation:{part}"));
        }));
        assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains(part)), "{found}");
    }
}

#[test]
fn a_product_that_the_provenance_does_not_resolve_is_refused() {
    let found = refused(&build("run-1").with_predicate("image", |predicate| forget(predicate, "package.server")));
    assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("package.server")), "{found}");
    let found = refused(&build("run-1").with_predicate("image", |predicate| {
        name(predicate, "package.server")["annotations"]["sluicegate.dev/attestation"] = json!("sha256:short");
    }));
    assert!(matches!(&found, Incomplete::Unlinked { name, .. } if name == "package.server"), "{found}");
    let elsewhere = Digest::of(b"a bundle that is not in the set");
    let found = refused(&build("run-1").with_predicate("image", move |predicate| {
        name(predicate, "package.server")["annotations"]["sluicegate.dev/attestation"] = json!(elsewhere);
    }));
    assert!(
        matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains(&elsewhere.to_string())),
        "{found}"
    );
}

#[test]
fn a_scan_whose_report_is_not_named_is_not_whole() {
    let found = refused(&build("run-1").with_predicate("image", |predicate| forget(predicate, "report:trivy")));
    assert!(matches!(&found, Incomplete::Missing { name, .. } if name.contains("raw report")), "{found}");
    let found = refused(&build("run-1").with_predicate("vulns", |predicate| {
        predicate["sluicegate_report"]["digest"]["sha256"] = json!(Digest::of(b"another report").hex());
    }));
    assert!(
        matches!(&found, Incomplete::Missing { digest, .. } if *digest == Digest::of(b"another report")),
        "{found}"
    );
}

#[test]
fn named_evidence_about_another_image_is_refused() {
    for part in ["sbom", "vulns"] {
        let found = refused(&build("run-1").edited(move |name, statement| {
            if name == part {
                let mut subjects = statement.subjects.clone().into_vec();
                subjects[0].digest = Digest::of(b"another image");
                statement.subjects = subjects.try_into().unwrap();
            }
        }));
        assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("something else")), "{found}");
    }
    let log = VirtualLog::new(LOG);
    let statement = about_image(PredicateType::TestResult, json!({"result": "PASSED"}));
    let bundle = sign_statement(&VirtualSigner::new("builder"), &log, &statement);
    let digest = Digest::of(&bundle);
    let naming = build("run-1").with_predicate("image", move |predicate| {
        name(predicate, "attestation:test")["digest"]["sha256"] = json!(digest.hex());
    });
    let naming = naming.sign(&log);
    let mut blobs = naming.blobs();
    blobs.insert(digest, bundle);
    assert!(matches!(reason(followed(&log, &naming.attached(), &blobs)), Incomplete::Unlinked { .. }));
}

#[test]
fn tm09_a_shared_cache_that_a_step_asked_for_is_listed_or_there_is_no_set() {
    let log = VirtualLog::new(LOG);
    let with = |is_listed: bool| {
        build("run-1").with_predicate("test", move |predicate| {
            predicate["buildDefinition"]["externalParameters"]["caches"] = json!({"deps": "/cache"});
            let cache = json!({
                "name": "cache:deps", "uri": format!("urn:sluicegate:cache:{}", Digest::of(b"scope")),
                "annotations": {"sluicegate.dev/unverified": "true", "sluicegate.dev/checkout": "nothing"},
            });
            let all = predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
            all.extend(is_listed.then_some(cache));
        })
    };
    let listed = with(true).sign(&log);
    let followed_set = followed(&log, &listed.attached(), &listed.blobs());
    let caches = followed_set.sets[0].steps().flat_map(|(_, step)| step.caches.iter().map(|cache| cache.name.clone()));
    assert_eq!(caches.collect::<Vec<_>>(), ["deps"]);
    let found = refused(&with(false));
    assert!(
        matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("the caches deps were asked for, and none are listed")),
        "{found}"
    );
}

#[test]
fn two_provenances_of_one_step_in_one_set_are_refused() {
    let log = VirtualLog::new(LOG);
    let other = build("run-1").with_predicate("test", |predicate| {
        predicate["buildDefinition"]["externalParameters"]["workdir"] = json!("/elsewhere");
    });
    let other = other.sign(&log);
    let second = other.digest("test");
    let naming = build("run-1").with_predicate("image", move |predicate| {
        let mut again = name(predicate, "attestation:test").clone();
        again["digest"]["sha256"] = json!(second.hex());
        predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap().push(again);
    });
    let naming = naming.sign(&log);
    let mut blobs = naming.blobs();
    blobs.extend(other.blobs());
    let found = reason(followed(&log, &naming.attached(), &blobs));
    assert!(matches!(&found, Incomplete::Unlinked { reason, .. } if reason.contains("second provenance")), "{found}");
}

#[test]
fn two_provenances_are_two_sets_that_are_never_mixed() {
    let log = VirtualLog::new(LOG);
    let (one, two) = (build("run-1").sign(&log), build("run-2").sign(&log));
    let (mut attached, mut blobs) = (one.attached(), one.blobs());
    attached.extend(two.attached());
    blobs.extend(two.blobs());
    let both = followed(&log, &attached, &blobs);
    assert_eq!((both.sets.len(), both.incomplete.len()), (2, 0));
    for set in &both.sets {
        let run = set.provenance().1.run.clone();
        assert!(set.steps().all(|(_, step)| step.run == run));
        assert_eq!(set.statements().count(), PARTS.len());
    }
    blobs.remove(&two.digest("test"));
    let half = followed(&log, &attached, &blobs);
    assert_eq!((half.sets.len(), half.incomplete.len()), (1, 1));
    assert_eq!(half.sets[0].provenance().0.bundle(), one.digest("image"));
}

#[test]
fn tm12_provenances_of_earlier_runs_without_what_they_name_hide_no_set() {
    let log = VirtualLog::new(LOG);
    let older: Vec<SignedBuild> = (0..100).map(|run| build(&format!("run-{run}")).sign(&log)).collect();
    let newest = build("run-newest").sign(&log);
    let mut attached = newest.attached();
    attached.extend(older.iter().map(|older| (older.digest("image"), older.bundles["image"].clone())));
    let found = followed(&log, &attached, &newest.blobs());
    assert_eq!((found.sets.len(), found.incomplete.len(), found.unlooked), (1, 100, 0));
    assert_eq!(found.sets[0].provenance().0.bundle(), newest.digest("image"));
    // Whole ones are followed newest first, so many and no more, and the rest is counted.
    let (mut attached, mut blobs) = (newest.attached(), newest.blobs());
    for older in &older {
        attached.extend(older.attached());
        blobs.extend(older.blobs());
    }
    let found = followed(&log, &attached, &blobs);
    assert_eq!((found.sets.len(), found.incomplete.len(), found.unlooked), (MAX_SETS, 0, 101 - MAX_SETS));
    assert_eq!(found.sets[0].provenance().0.bundle(), newest.digest("image"));
    assert_eq!(found.sets[1].provenance().0.bundle(), older[99].digest("image"));
}

#[test]
fn a_provenance_of_a_step_is_no_provenance_of_an_image() {
    let (log, build) = signed(&build("run-1").edited(|part, statement| {
        if part == "test" {
            // Its subject is the image itself, by digest.
            statement.subjects = about_image(PredicateType::Sbom, json!({})).subjects;
        }
    }));
    let attached = Blobs::from([(build.digest("test"), build.bundles["test"].clone())]);
    assert!(matches!(reason(followed(&log, &attached, &build.blobs())), Incomplete::NoProvenance { .. }));
}
