//! Properties over the whole gate: removing any part of what a build left, and adding anything that anyone may attach, never turns
//! a refusal into an allow; and what anyone may attach never keeps an allowed image out (trust model 2, 3, 12).
//!
//! Every single removal and every pair is tried, and a sample of all other subsets that is the same in each run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body, key_hint},
    dsse,
    identifiers::{
        BUNDLE, DENIAL_ARTIFACT, EVIDENCE_ARTIFACT, GATE_SCAN_ARTIFACT, IMAGE_MANIFEST, JUNIT_REPORT, LOCAL_BUILDER,
        TRIVY_REPORT,
    },
    predicate::PredicateType,
    statement::{Statement, Subject},
    summary::{Promotion, VerificationSummary},
};
use sluicegate_flow::{
    Error, Failure,
    admit::{Presented, admit},
    promote::Promoted,
    verify::verify,
};
use sluicegate_policy::rego::Outcome;
use sluicegate_ports::{
    sign::{Signer, TransparencyLog},
    store::ContentStore,
};
use sluicegate_testkit::{
    FakeScanner, MemoryEvidence, MemoryLedger, MemoryPlaces, SignedBuild, VirtualBuild, VirtualLog, VirtualSigner,
    sign_statement, today, vulns,
};
use sluicegate_types::{
    Digest, NonEmpty, PinnedImage, Repository, RepositoryPattern,
    checks::{Check, without},
};
use sluicegate_verify::{
    Role, SignerRule, Trust, TrustRoot, TrustRules,
    closed_set::{MAX_BEYOND_THE_SET, Seen},
};

use crate::gate_world::{GATE, LEDGER, Rules, SOURCE, TARGET, World, denial, environment, summary};

const LOG: &str = "log.example";
/// Every sample is drawn from it, so that each run tries the same.
const SEED: u64 = 0x51_01ce_6a7e;
/// Subsets that are tried beside the singles and the pairs.
const SAMPLE: usize = 400;
const FINDING: &str = "CVE-2026-1";

/// Something that lies beside the image: a manifest of this type with these parts.
#[derive(Clone)]
struct Thing {
    name: String,
    artifact_type: &'static str,
    parts: Vec<(&'static str, Vec<u8>)>,
}

fn bundle(name: impl Into<String>, bytes: Vec<u8>) -> Thing {
    Thing { name: name.into(), artifact_type: BUNDLE, parts: vec![(BUNDLE, bytes)] }
}

/// Everything that a build left, each thing by itself: what the evidence manifest carries lies in one manifest for each.
fn left_by(build: &SignedBuild) -> Vec<Thing> {
    let names: BTreeMap<Digest, String> =
        build.bundles.iter().map(|(part, bytes)| (Digest::of(bytes), (*part).to_owned())).collect();
    let attached = build.attached().into_iter().map(|(digest, bytes)| bundle(names[&digest].clone(), bytes));
    let carried = build.blobs().into_iter().map(|(digest, bytes)| {
        let is_junit = bytes.starts_with(b"<");
        let media_type = match names.contains_key(&digest) {
            true => BUNDLE,
            false if is_junit => JUNIT_REPORT,
            false => TRIVY_REPORT,
        };
        let name = names.get(&digest).cloned().unwrap_or_else(|| format!("{media_type} {digest}"));
        Thing { name, artifact_type: EVIDENCE_ARTIFACT, parts: vec![(media_type, bytes)] }
    });
    attached.chain(carried).collect()
}

/// How a promotion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Allowed,
    Denied,
    Undecided,
    /// A bundle that the provenance names is false.
    Wrong,
}

fn ended(promoted: &Result<Promoted, Error>) -> Ended {
    match promoted {
        Ok(Promoted::Allowed { .. } | Promoted::WouldAllow { .. }) => Ended::Allowed,
        Ok(Promoted::Denied { .. }) => Ended::Denied,
        Ok(Promoted::Undecided { .. }) => Ended::Undecided,
        Err(error) if error.failure() == Failure::Undecided => Ended::Undecided,
        Err(error) if error.failure() == Failure::Wrong => Ended::Wrong,
        Err(error) => panic!("{error:?}"),
    }
}

/// A world, what its image has beside it, and a rule.
struct Case {
    world: World,
    things: Vec<Thing>,
    denies: fn(&str) -> bool,
}

impl Case {
    fn new(denies: fn(&str) -> bool, builds: &[fn(VirtualBuild) -> VirtualBuild]) -> Self {
        let (mut world, _) = World::good();
        world.trust = trust(&world.log);
        let mut things = Vec::new();
        for (number, edit) in builds.iter().enumerate() {
            let build = edit(VirtualBuild::new(&format!("run-{}", number + 1), world.image.digest()));
            things.extend(left_by(&build.sign(&world.log)));
        }
        Self { world, things, denies }
    }

    /// A build as it should be, and rules that pass.
    fn good() -> Self {
        Self::new(|_| false, &[|build| build])
    }

    /// The same, and rules that deny whatever they see.
    fn denied() -> Self {
        Self::new(|_| true, &[|build| build])
    }

    /// A build whose own scan found something that the rules ban and that the gate's scan does not find.
    fn found() -> Self {
        Self::new(bans_the_finding, &[with_finding])
    }

    /// A build whose test failed, and a rule that wants it to pass.
    fn failed() -> Self {
        Self::new(bans_failed_tests, &[with_failing_test])
    }

    /// Two runs, each refused for a reason that the other does not have.
    fn both() -> Self {
        Self::new(|facts| bans_the_finding(facts) || bans_failed_tests(facts), &[with_finding, with_failing_test])
    }

    /// Promotes with only these things beside the image. What is `unread` is named there, and its bytes are gone.
    fn promote<'a>(&mut self, things: impl Iterator<Item = (&'a Thing, bool)>) -> Ended {
        let world = &mut self.world;
        world.places = MemoryPlaces::new();
        world.evidence = MemoryEvidence::new();
        world.ledger = MemoryLedger::new(LEDGER);
        world.places.put_image(SOURCE, &world.image, None);
        let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (thing, unread) in things {
            let parts: Vec<_> = thing.parts.iter().map(|(kind, bytes)| (*kind, bytes.as_slice())).collect();
            world.places.attach(SOURCE, &world.image, thing.artifact_type, &parts);
            let digests = parts.iter().map(|(_, bytes)| Digest::of(bytes));
            if unread { gone.extend(digests) } else { there.extend(digests) }
        }
        gone.difference(&there).for_each(|blob| world.places.drop_blob(SOURCE, blob));
        let denies = self.denies;
        let rules = Rules(move |facts: &str| if denies(facts) { denial() } else { Outcome::Pass });
        let promoted = world.promote(&rules);
        let ended = ended(&promoted);
        assert_eq!(world.places.occupant(crate::gate_world::TARGET).is_some(), ended == Ended::Allowed, "{promoted:?}");
        ended
    }

    fn whole(&mut self) -> Ended {
        let things = self.things.clone();
        self.promote(things.iter().map(|thing| (thing, false)))
    }

    fn with(&mut self, junk: &[Thing]) -> Ended {
        let things = self.things.clone();
        self.promote(things.iter().chain(junk).map(|thing| (thing, false)))
    }
}

fn with_finding(mut build: VirtualBuild) -> VirtualBuild {
    build.report = FakeScanner::raw(&[FINDING]);
    build
}

fn with_failing_test(mut build: VirtualBuild) -> VirtualBuild {
    build.junit =
        br#"<testsuite name="shop" tests="1"><testcase name="opens"><failure/></testcase></testsuite>"#.to_vec();
    build
}

fn bans_the_finding(facts: &str) -> bool {
    let facts: Value = serde_json::from_str(facts).unwrap();
    facts["vulnerabilities"].as_array().unwrap().iter().any(|finding| finding["id"] == FINDING)
}

fn bans_failed_tests(facts: &str) -> bool {
    let facts: Value = serde_json::from_str(facts).unwrap();
    let kind = PredicateType::TestResult;
    let all = facts["attestations"].as_array().unwrap();
    let mut tests = all.iter().filter(|said| said["predicateType"] == kind.uri());
    !tests.all(|test| test["predicate"]["result"] == "PASSED")
}

/// Each role's key, as far as it could go: for two environments, and `person` by hand.
fn trust(log: &VirtualLog) -> Trust {
    let rule = |name: &str, role: Role| SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: BTreeSet::from([role]),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: [GATE.to_owned()].into_iter().collect(),
        environments: ["production", "staging"].map(environment).into_iter().collect(),
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    let rules = TrustRules {
        signers: vec![
            rule("builder", Role::Steps),
            rule("recorder", Role::Records),
            rule("decider", Role::Decisions),
            rule("person", Role::Manual),
        ],
        untimed: BTreeSet::from([LOG.to_owned()]),
        authority_self: true,
        ..TrustRules::default()
    };
    Trust::from_rules(rules, TrustRoot::parse(&log.trusted_root_json()).unwrap()).unwrap()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A set of `count` members as bits, few of them or many.
    fn subset(&mut self, count: usize) -> u64 {
        let mask = (1 << count) - 1;
        match self.next() % 3 {
            0 => self.next() & self.next() & self.next() & mask,
            1 => self.next() & mask,
            _ => (self.next() | self.next()) & mask,
        }
    }
}

/// Every single one of `count`, every pair where there are few, and the sample.
fn subsets(count: usize, random: &mut Random) -> Vec<u64> {
    assert!(count < 64);
    let mut subsets: Vec<u64> = (0..count).map(|one| 1 << one).collect();
    let few = count < 20;
    if few {
        subsets.extend((0..count).flat_map(|one| (0..one).map(move |other| 1 << one | 1 << other)));
    }
    let sample = if few { SAMPLE } else { SAMPLE / 2 };
    subsets.extend((0..sample).map(|_| random.subset(count)).filter(|subset| *subset != 0));
    subsets
}

fn names(things: &[Thing], subset: u64) -> Vec<&str> {
    things.iter().enumerate().filter(|(n, _)| subset & 1 << n != 0).map(|(_, thing)| thing.name.as_str()).collect()
}

/// Takes every subset away, and some of each only in part: what is named and can't be read. The first that does harm.
fn harmful_subset(mut case: Case, whole: Ended) -> Option<String> {
    assert_eq!(case.whole(), whole);
    let mut random = Random(SEED);
    let things = case.things.clone();
    subsets(things.len(), &mut random).into_iter().find_map(|removed| {
        let unread = removed & random.next();
        let kept = things.iter().enumerate().filter(|(n, _)| removed & 1 << n == 0 || unread & 1 << n != 0);
        let ended = case.promote(kept.map(|(n, thing)| (thing, unread & 1 << n != 0)));
        // What is gone is not false either.
        let harm = matches!(ended, Ended::Allowed | Ended::Wrong);
        harm.then(|| format!("seed {SEED:#x}: {ended:?} without {:?}", names(&things, removed)))
    })
}

fn without_any_subset(case: Case, whole: Ended) {
    assert_eq!(harmful_subset(case, whole), None);
}

#[test]
fn the_properties_have_teeth() {
    // With what is named allowed to be missing, and nothing required, taking the scan away hides the finding.
    let off = [Check::NamedIsThere, Check::RequiredKind];
    let harm = without(&off, || harmful_subset(Case::found(), Ended::Denied)).unwrap();
    assert!(harm.contains("vulns"), "{harm}");
    // With what is named allowed to be missing, and a test result by hand taken for a machine's, it stands in for a failed one.
    let mut case = Case::failed();
    let kinds = junk(&case.world);
    let by_hand = &kinds.iter().find(|(name, _)| *name == "by hand").unwrap().1;
    let part = |thing: &Thing| thing.name != "test-result" && thing.name != "test";
    assert_eq!(case.with(by_hand), Ended::Denied);
    case.things.retain(part);
    assert_eq!(case.with(by_hand), Ended::Undecided);
    let off = [Check::NamedIsThere, Check::ByHandType, Check::Needs];
    assert_eq!(without(&off, || case.with(by_hand)), Ended::Allowed);
}

#[test]
fn tm02_removing_any_subset_of_a_good_builds_evidence_leaves_it_undecided() {
    without_any_subset(Case::good(), Ended::Allowed);
}

#[test]
fn tm02_removing_any_subset_never_lifts_a_denial() {
    without_any_subset(Case::denied(), Ended::Denied);
}

#[test]
fn tm02_removing_any_subset_never_hides_a_finding() {
    without_any_subset(Case::found(), Ended::Denied);
}

#[test]
fn tm02_removing_any_subset_never_hides_a_failed_test() {
    without_any_subset(Case::failed(), Ended::Denied);
}

#[test]
fn tm03_removing_any_subset_of_two_refused_runs_never_makes_an_allowed_one_of_them() {
    without_any_subset(Case::both(), Ended::Denied);
}

fn about(image: Digest, predicate_type: PredicateType, predicate: Value) -> Statement {
    let subject = Subject { name: Some("shop".to_owned()), digest: image, media_type: Some(IMAGE_MANIFEST.to_owned()) };
    Statement { subjects: NonEmpty::one(subject), predicate_type, predicate }
}

fn decision(image: Digest, name: &str, passed: bool, inputs: Vec<Digest>) -> Statement {
    let environment = environment(name);
    let resource = PinnedImage { repository: Repository::of_environment(&environment), digest: image };
    let summary = VerificationSummary { resource, environment, passed, inputs, ..summary(image) };
    about(image, PredicateType::VerificationSummary, summary.to_predicate())
}

fn promotion(image: Digest, name: &str, decision: Option<Digest>) -> Statement {
    let environment = environment(name);
    let destination = PinnedImage { repository: Repository::of_environment(&environment), digest: image };
    let promotion = Promotion { destination, environment, ..crate::gate_world::promotion(image, decision) };
    about(image, PredicateType::Promotion, promotion.to_predicate())
}

/// A clean scan of `image`, one for each night.
fn nightly(image: Digest, night: u64) -> Statement {
    let mut scan = vulns(&FakeScanner::raw(&[]), Digest::of(b"database"));
    scan.started_on = today().plus(night);
    about(image, PredicateType::Vulns, scan.to_predicate(&[]))
}

/// Many statements of one signer, logged together.
fn sign_all(signer: &str, log: &VirtualLog, statements: &[Statement]) -> Vec<Vec<u8>> {
    let signer = VirtualSigner::new(signer);
    let payloads: Vec<Vec<u8>> = statements.iter().map(|statement| statement.to_payload().unwrap()).collect();
    let paes: Vec<Vec<u8>> = payloads.iter().map(|payload| dsse::pae(dsse::IN_TOTO, payload)).collect();
    let signatures: Vec<Vec<u8>> = paes.iter().map(|pae| signer.sign(pae).unwrap()).collect();
    let bodies = paes.iter().zip(&signatures);
    let bodies: Vec<Vec<u8>> =
        bodies.map(|(pae, signature)| hashedrekord_body(&Digest::of(pae), signature, signer.public_key())).collect();
    let entries = log.append(&bodies).unwrap().into_iter();
    payloads
        .iter()
        .zip(&signatures)
        .zip(entries)
        .map(|((payload, signature), entry)| Bundle::assemble(payload, signature, signer.public_key(), entry).unwrap())
        .collect()
}

fn changed(bundle: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bundle).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

/// What anyone may attach, some of it by keys that are trusted for something else; each kind as one thing or several.
fn junk(world: &World) -> Vec<(&'static str, Vec<Thing>)> {
    let (log, image) = (&world.log, world.image.digest());
    let signed = |name: &str, signer: &str, statement: &Statement| {
        bundle(name, sign_statement(&VirtualSigner::new(signer), log, statement))
    };
    let sbom = |name: &str| {
        let components = json!([{"type": "library", "name": name, "version": "1"}]);
        json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components})
    };
    let every_part = |build: SignedBuild, except: &[&str]| -> Vec<Thing> {
        let bundles = build.bundles.iter().filter(|(part, _)| !except.contains(part));
        let attached = bundles.clone().map(|(part, bytes)| bundle(format!("{part} of another"), bytes.clone()));
        let parts = bundles.map(|(_, bytes)| (BUNDLE, bytes.clone())).collect();
        let evidence = Thing { name: "evidence of another".to_owned(), artifact_type: EVIDENCE_ARTIFACT, parts };
        attached.chain([evidence]).collect()
    };
    let good = VirtualBuild::new("run-1", image).sign(log);
    let stranger = |hint: &str| {
        let hint = key_hint(VirtualSigner::new(hint).public_key());
        let bytes =
            VirtualBuild::new("run-7", image).with_signer("image", "stranger").sign(log).bundles["image"].clone();
        changed(&bytes, |value| value["verificationMaterial"]["publicKey"]["hint"] = json!(hint))
    };
    let flipped = changed(&good.bundles["image"], |value| {
        let mut signature = BASE64.decode(value["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        *signature.last_mut().unwrap() ^= 1;
        value["dsseEnvelope"]["signatures"][0]["sig"] = json!(BASE64.encode(signature));
    });
    let evidence = |name: &str, parts: Vec<(&'static str, Vec<u8>)>| Thing {
        name: name.to_owned(),
        artifact_type: EVIDENCE_ARTIFACT,
        parts,
    };
    let clean = FakeScanner::raw(&[]);
    let hand = |kind: PredicateType, predicate: Value| signed("by hand", "person", &about(image, kind, predicate));
    let passed = json!({"result": "PASSED", "configuration": []});
    vec![
        ("random bytes", vec![bundle("random bytes", b"\x00\xff\x13\x37 random".repeat(50))]),
        ("nothing", vec![bundle("nothing", Vec::new()), bundle("an empty object", b"{}".to_vec())]),
        ("a stranger", every_part(VirtualBuild::new("run-2", image).with_signer("image", "stranger").sign(log), &[])),
        (
            "forged hints",
            vec![bundle("as the builder", stranger("builder")), bundle("as the gate", stranger("decider"))],
        ),
        ("a flipped signature", vec![bundle("flipped", flipped)]),
        ("another image", every_part(VirtualBuild::new("run-1", Digest::of(b"another image")).sign(log), &[])),
        ("another run", every_part(VirtualBuild::new("run-3", image).sign(log), &["image"])),
        ("another log", every_part(VirtualBuild::new("run-4", image).sign(&VirtualLog::new("elsewhere.example")), &[])),
        (
            "provenance by other roles",
            ["recorder", "decider", "person"]
                .map(|role| {
                    let build = VirtualBuild::new("run-5", image).with_signer("image", role).sign(log);
                    bundle(role, build.bundles["image"].clone())
                })
                .into(),
        ),
        (
            "by hand",
            vec![
                hand(PredicateType::Sbom, sbom("by hand")),
                hand(PredicateType::TestResult, passed.clone()),
                hand(PredicateType::Vex, json!({"statements": []})),
                hand(PredicateType::Other("https://example.com/review/v1".to_owned()), json!({"good": true})),
                signed("a scan by hand", "person", &nightly(image, 1)),
            ],
        ),
        (
            "machines beside the set",
            vec![
                signed("an SBOM", "builder", &about(image, PredicateType::Sbom, sbom("beside"))),
                signed("a clean scan", "builder", &nightly(image, 2)),
                signed("a test result", "builder", &about(image, PredicateType::TestResult, passed)),
            ],
        ),
        (
            "a gate's scan",
            vec![
                signed("attached", "recorder", &nightly(image, 3)),
                Thing {
                    artifact_type: GATE_SCAN_ARTIFACT,
                    parts: vec![
                        (BUNDLE, sign_statement(&VirtualSigner::new("recorder"), log, &nightly(image, 0))),
                        (TRIVY_REPORT, clean.clone()),
                    ],
                    name: "as the gate lays it".to_owned(),
                },
            ],
        ),
        (
            "denials",
            vec![
                signed("of production", "recorder", &decision(image, "production", false, Vec::new())),
                signed("forged", "decider", &decision(image, "production", false, Vec::new())),
                signed("a stranger's", "stranger", &decision(image, "production", false, Vec::new())),
                Thing {
                    artifact_type: DENIAL_ARTIFACT,
                    ..signed("x", "recorder", &decision(image, "staging", false, vec![]))
                },
            ],
        ),
        (
            "decisions and records",
            vec![
                signed("for staging", "decider", &decision(image, "staging", true, Vec::new())),
                signed("for production", "decider", &decision(image, "production", true, Vec::new())),
                signed("a signature", "decider", &about(image, PredicateType::ImageSignature, json!({}))),
                signed("gated", "decider", &promotion(image, "staging", Some(Digest::of(b"decision")))),
                signed("ungated", "recorder", &promotion(image, "staging", None)),
            ],
        ),
        (
            "evidence manifests",
            vec![
                evidence("no parts", Vec::new()),
                evidence("wrong blobs", vec![(BUNDLE, b"no bundle".to_vec()), (TRIVY_REPORT, b"no report".to_vec())]),
                evidence("another clean report", vec![(TRIVY_REPORT, clean), (JUNIT_REPORT, b"<testsuite/>".to_vec())]),
                evidence("parts of other kinds", vec![("text/plain", good.bundles["image"].clone())]),
                Thing { artifact_type: "text/plain", ..evidence("notes", vec![("text/plain", b"notes".to_vec())]) },
            ],
        ),
    ]
}

/// What is added: each kind, each pair of kinds if asked for, and all together.
fn mixes(kinds: &[(&'static str, Vec<Thing>)], pairs: bool) -> Vec<(String, Vec<Thing>)> {
    let mut mixes: Vec<(String, Vec<Thing>)> =
        vec![("everything".to_owned(), kinds.iter().flat_map(|(_, things)| things.clone()).collect())];
    for (number, (one, things)) in kinds.iter().enumerate() {
        mixes.push(((*one).to_owned(), things.clone()));
        for (other, more) in kinds[..number].iter().filter(|_| pairs) {
            mixes.push((format!("{one} and {other}"), [things.as_slice(), more].concat()));
        }
    }
    mixes
}

fn unchanged_by_junk(mut case: Case, whole: Ended, pairs: bool) {
    assert_eq!(case.whole(), whole);
    let kinds = junk(&case.world);
    for (what, things) in mixes(&kinds, pairs) {
        assert_eq!(case.with(&things), whole, "with {what}");
    }
}

#[test]
fn tm12_junk_keeps_no_allowed_image_out() {
    unchanged_by_junk(Case::good(), Ended::Allowed, true);
}

#[test]
fn tm02_junk_lifts_no_denial() {
    unchanged_by_junk(Case::denied(), Ended::Denied, false);
}

#[test]
fn tm04_junk_outvotes_no_finding() {
    unchanged_by_junk(Case::found(), Ended::Denied, true);
}

#[test]
fn tm03_junk_replaces_no_failed_test_and_mixes_no_runs() {
    unchanged_by_junk(Case::failed(), Ended::Denied, false);
    unchanged_by_junk(Case::both(), Ended::Denied, false);
}

#[test]
fn tm03_junk_stands_in_for_nothing_that_is_gone() {
    let mut case = Case::good();
    let kinds = junk(&case.world);
    let things = case.things.clone();
    let try_one = |case: &mut Case, removed: u64, added: u64| {
        let kept = things.iter().enumerate().filter(|(n, _)| removed & 1 << n == 0).map(|(_, thing)| thing);
        let extra = kinds.iter().enumerate().filter(|(n, _)| added & 1 << n != 0).flat_map(|(_, (_, things))| things);
        let ended = case.promote(kept.chain(extra).map(|thing| (thing, false)));
        let added: Vec<&str> =
            kinds.iter().enumerate().filter(|(n, _)| added & 1 << n != 0).map(|(_, (name, _))| *name).collect();
        // A forged hint and the like are not what the provenance names, so that nothing of it is false.
        assert_eq!(ended, Ended::Undecided, "seed {SEED:#x}: without {:?}, with {added:?}", names(&things, removed));
    };
    let all = (1 << kinds.len()) - 1;
    // A report that is gone may come back in any manifest: the digest decides, not where it lies.
    let brought: BTreeSet<Digest> = kinds
        .iter()
        .flat_map(|(_, things)| things)
        .flat_map(|thing| &thing.parts)
        .map(|part| Digest::of(&part.1))
        .collect();
    let lasting: u64 = things
        .iter()
        .enumerate()
        .filter(|(_, thing)| !brought.contains(&Digest::of(&thing.parts[0].1)))
        .map(|(n, _)| 1 << n)
        .sum();
    assert!(lasting.count_ones() >= 10, "{:?}", names(&things, !lasting));
    for one in 0..things.len() {
        if lasting & 1 << one != 0 {
            try_one(&mut case, 1 << one, all);
        }
    }
    let mut random = Random(SEED);
    for _ in 0..SAMPLE / 4 {
        let (removed, added) = (random.subset(things.len()), random.next() & all);
        if removed & lasting != 0 {
            try_one(&mut case, removed, added);
        }
    }
}

#[test]
fn tm02_removing_any_subset_and_adding_any_junk_never_turns_a_refusal_into_an_allow() {
    let refused =
        [("denied", Case::denied()), ("found", Case::found()), ("failed", Case::failed()), ("both", Case::both())];
    let mut random = Random(SEED);
    for (name, mut case) in refused {
        assert_eq!(case.whole(), Ended::Denied);
        let (kinds, things) = (junk(&case.world), case.things.clone());
        for _ in 0..SAMPLE / 4 {
            let (removed, added) = (random.subset(things.len()), random.subset(kinds.len()));
            let kept = things.iter().enumerate().filter(|(n, _)| removed & 1 << n == 0).map(|(_, thing)| thing);
            let extra = kinds.iter().enumerate().filter(|(n, _)| added & 1 << n != 0);
            let extra = extra.flat_map(|(_, (_, things))| things);
            let ended = case.promote(kept.chain(extra).map(|thing| (thing, false)));
            let without = names(&things, removed);
            assert_ne!(ended, Ended::Allowed, "seed {SEED:#x}: {name} without {without:?}, with kinds {added:#b}");
        }
    }
}

#[test]
fn tm12_a_year_of_nightly_scans_locks_nobody_out_and_outvotes_nothing() {
    for (mut case, whole) in [(Case::good(), Ended::Allowed), (Case::found(), Ended::Denied)] {
        let image = case.world.image.digest();
        let nights: Vec<Statement> = (1..=300).map(|night| nightly(image, night)).collect();
        let scans = sign_all("recorder", &case.world.log, &nights);
        let scans: Vec<Thing> = scans.into_iter().map(|bytes| bundle("a nightly scan", bytes)).collect();
        assert_eq!(case.with(&scans), whole);
    }
}

#[test]
fn tm12_decisions_are_looked_at_before_the_rest_and_what_was_not_looked_at_is_counted() {
    let mut case = Case::good();
    let image = case.world.image.digest();
    let inputs = case.things.iter().flat_map(|thing| &thing.parts).map(|part| Digest::of(&part.1)).collect();
    // The decision is logged before every scan: it is first for being a decision, not for being new.
    let decided = decision(image, "production", true, inputs);
    let decided = sign_statement(&VirtualSigner::new("decider"), &case.world.log, &decided);
    let nights: Vec<Statement> = (1..=MAX_BEYOND_THE_SET as u64).map(|night| nightly(image, night)).collect();
    let scans = sign_all("recorder", &case.world.log, &nights);
    let strangers: Vec<Thing> = sign_all("stranger", &case.world.log, &nights[..20])
        .into_iter()
        .map(|bytes| bundle("a stranger's", bytes))
        .collect();
    for (count, unlooked) in [(MAX_BEYOND_THE_SET - 1, 0), (MAX_BEYOND_THE_SET, 1)] {
        let mut extra: Vec<Thing> =
            scans[..count].iter().map(|bytes| bundle("a nightly scan", bytes.clone())).collect();
        extra.extend(strangers.clone());
        extra.push(bundle("the decision", decided.clone()));
        assert_eq!(case.with(&extra), Ended::Allowed);
        let World { places, trust, judge, .. } = &case.world;
        let reference = "oci:out/shop".parse().unwrap();
        let report = verify(places, &reference, Path::new("/project"), trust, None, today()).unwrap();
        assert_eq!((report.failure(), report.followed.unlooked), (None, unlooked), "{count} scans and a decision");
        assert_eq!(report.to_json()["unlooked"], json!(unlooked));
        let verified = |digest: Digest| {
            report.followed.seen.iter().any(|seen| matches!(seen, Seen::Verified(said) if said.bundle() == digest))
        };
        assert!(verified(Digest::of(&decided)));
        // The oldest scan is what waits.
        assert_eq!(verified(Digest::of(&scans[0])), unlooked == 0);
        assert!(verified(Digest::of(&scans[count - 1])));
        // What strangers signed costs nobody a place.
        let strange = report.followed.seen.iter().filter(|seen| matches!(seen, Seen::Ignored { .. })).count();
        assert_eq!(strange, strangers.len());
        admit(&Presented::image(image, &report.followed), judge, trust, today(), None).unwrap();
    }
}

#[test]
fn tm12_copies_of_what_others_signed_lock_nobody_out() {
    let (mut world, _) = World::good();
    world.trust = trust(&world.log);
    let World { places, trust, judge, .. } = &world;
    let promoted = world.promote(&crate::gate_world::pass()).unwrap();
    assert!(matches!(promoted, Promoted::Allowed { .. }), "{promoted:?}");
    let ask = || {
        let reference = "oci:environments/production:current".parse().unwrap();
        let report = verify(places, &reference, Path::new("/gateway"), trust, None, today()).unwrap();
        admit(&Presented::of(&report), judge, trust, today(), None).map_err(NonEmpty::into_vec)
    };
    let statement = ask().unwrap().statement;
    let bundles = world.bundles_at_target();
    // White space behind a bundle is under no signature.
    for (kind, copies) in [("provenance", 20), ("signature", 300), ("promotion", 300), ("vulns", 300)] {
        let digest = bundles.iter().find(|(found, _)| found == kind).unwrap().1;
        let bundle = world.store.read(&digest, 1 << 20).unwrap();
        for count in 1..=copies {
            let copy = [&bundle[..], " ".repeat(count).as_bytes()].concat();
            places.attach(TARGET, &world.image, BUNDLE, &[(BUNDLE, &copy)]);
        }
        assert_eq!(ask().unwrap().statement, statement, "{copies} copies of its {kind}");
    }
}
