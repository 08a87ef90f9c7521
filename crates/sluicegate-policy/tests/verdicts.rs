//! What a gate says about facts: each condition beside the same facts without the fault, and what only a permit may carry.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    coverage::{Executable, Executables, Gap},
    identifiers::{IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::{Statement, Subject},
    vulns::Database,
    vulns::Vulns,
};
use sluicegate_policy::{
    exceptions::Exceptions,
    facts::{ByHand, Facts, FactsError, GateScan, Said},
    judge::{
        AcceptedDatabase, AcceptedDatabases, Basis, Conditions, Denial, Grant, Question, Reason, Target, Verdict, judge,
    },
    rego::{Outcome, PolicyError, RuleAnswer, RuleDeclaration, RuleResults, Violation},
};
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{
    FakeScanner, PARTS, VirtualBuild, VirtualLog, VirtualSigner, findings, sign_statement, today, vulns,
};
use sluicegate_types::{Digest, NonEmpty, Repository, RepositoryPattern, UnixTime};
use sluicegate_verify::{
    Allowed, Role, SignerRule, Trust, TrustRoot, VerifiedStatement,
    closed_set::{Asked, ClosedSet, follow},
    verify,
};

const LOG: &str = "log.example";
const DAY: u64 = 24 * 60 * 60;

/// A builder that is believed, and is not this program's.
const OTHER_BUILDER: &str = "https://builder.example/v1";

fn trust(log: &VirtualLog) -> Trust {
    let rule = |name: &str, role: Role| SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: BTreeSet::from([role]),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned(), OTHER_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: Allowed::nothing(),
        environments: Allowed::nothing(),
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    let rules = vec![rule("builder", Role::Steps), rule("recorder", Role::Records), rule("person", Role::Manual)];
    let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
    Trust::new(rules, BTreeSet::from([LOG.to_owned()]), vec![], root).unwrap()
}

fn image() -> Digest {
    Digest::of(b"image")
}

/// A whole set of the image.
fn closed_set(build: &VirtualBuild) -> ClosedSet {
    let log = VirtualLog::new(LOG);
    let signed = build.sign(&log);
    let mut followed = {
        let trust = trust(&log);
        let asked = Asked { trust: &trust, repository: None, at: today() };
        follow(image(), &signed.attached(), &signed.blobs(), asked)
    };
    assert!(followed.incomplete.is_empty(), "{:?}", followed.incomplete);
    followed.sets.remove(0)
}

fn build() -> VirtualBuild {
    VirtualBuild::new("run-1", image())
}

/// What `signer` says of a scan of `subject`, taken for the gate's scan of the image with this report.
fn taken(signer: &str, subject: Digest, predicate: Value, report: &[u8]) -> Result<GateScan, FactsError> {
    let log = VirtualLog::new(LOG);
    let subject = Subject { name: None, digest: subject, media_type: Some(IMAGE_MANIFEST.to_owned()) };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: PredicateType::Vulns, predicate };
    let bundle = sign_statement(&VirtualSigner::new(signer), &log, &statement);
    let verified = verify(&bundle, &trust(&log), today()).unwrap();
    GateScan::new(&image(), &verified, report.to_vec())
}

/// The gate's own scan, changed by `edit` before it is signed.
fn gate_scan(report: &[u8], edit: impl FnOnce(&mut Vulns)) -> GateScan {
    let mut scan = vulns(report, Digest::of(b"gate's database"));
    edit(&mut scan);
    taken("recorder", image(), scan.to_predicate(&findings(report)), report).unwrap()
}

fn clean() -> GateScan {
    gate_scan(&FakeScanner::raw(&[]), |_| {})
}

fn facts_of(set: &ClosedSet, scan: Option<GateScan>, accepts: bool) -> Facts {
    let environment = "production".parse().unwrap();
    let repository = Repository::of_environment(&environment);
    Facts::new(set, &ByHand::default(), scan, &environment, &repository, today(), &|_| accepts).unwrap()
}

fn facts(scan: Option<GateScan>) -> Facts {
    facts_of(&closed_set(&build()), scan, true)
}

fn conditions() -> Conditions {
    let require = vec![PredicateType::Provenance, PredicateType::Sbom, PredicateType::Vulns];
    Conditions {
        require: require.try_into().unwrap(),
        strict_executables: false,
        databases: AcceptedDatabases {
            vulnerabilities: Some(AcceptedDatabase {
                digest: Digest::of(b"database"),
                max_age: Duration::from_secs(2 * DAY),
            }),
            java: Some(AcceptedDatabase {
                digest: Digest::of(b"java database"),
                max_age: Duration::from_secs(2 * DAY),
            }),
        },
        valid_for: Duration::from_secs(30 * DAY),
        gateway: Digest::of(b"gateway"),
        exceptions: Exceptions::default(),
    }
}

fn target() -> Target {
    let environment = "production".parse().unwrap();
    let repository = Repository::of_environment(&environment);
    Target { environment, repository, tag: "current".parse().unwrap(), current: Some(Digest::of(b"before")) }
}

fn violation(msg: &str) -> Violation {
    Violation {
        msg: msg.to_owned(),
        term: Some("CVE-1".to_owned()),
        subject: None,
        fields: BTreeMap::new(),
        clause: None,
    }
}

fn answer(code: &str, outcome: Outcome) -> RuleAnswer {
    RuleAnswer {
        rule: RuleDeclaration {
            code: code.to_owned(),
            title: "a rule".to_owned(),
            description: "for tests".to_owned(),
            solution: "do better".to_owned(),
            requires: Vec::new(),
            requires_fields: Vec::new(),
            effective_on: None,
            controls: BTreeMap::new(),
            file: "policies/a.rego".to_owned(),
            line: 7,
        },
        outcome,
        lacking: Vec::new(),
        unlisted: 0,
    }
}

fn said(answers: Vec<RuleAnswer>) -> Result<RuleResults, PolicyError> {
    Ok(RuleResults { answers, warnings: Vec::new() })
}

fn pass() -> Result<RuleResults, PolicyError> {
    said(vec![answer("a.one", Outcome::Pass), answer("a.two", Outcome::Pass)])
}

fn judged(facts: &Facts, rules: &Result<RuleResults, PolicyError>) -> Verdict {
    judge(facts, Question::Gate { rules, conditions: &conditions() }, target(), today()).verdict
}

fn allowed(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Allow(permit) => permit.spend(),
        other => panic!("{other:?}"),
    }
}

fn undecided(verdict: Verdict) -> Vec<Reason> {
    match verdict {
        Verdict::Undecided(reasons) => reasons.into_vec(),
        other => panic!("{other:?}"),
    }
}

fn denied(verdict: Verdict) -> Vec<Denial> {
    match verdict {
        Verdict::Deny(denials) => denials.into_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_is_allowed_only_when_everything_holds_and_the_permit_says_for_what() {
    let facts = facts(Some(clean()));
    let grant = allowed(judged(&facts, &pass()));
    assert_eq!(grant.image.to_string(), format!("oci:production@{}", image()));
    assert_eq!((grant.environment.as_str(), grant.tag.as_str()), ("production", "current"));
    assert_eq!(grant.previous, Some(Digest::of(b"before")));
    assert_eq!((grant.gateway, grant.facts), (Digest::of(b"gateway"), facts.digest()));
    assert_eq!((grant.decided_at, grant.basis), (today(), Basis::Gate { expires: today().plus(30 * DAY) }));
    assert_eq!(grant.used, facts.used());
    assert_eq!(grant.used.len(), PARTS.len() + 1, "the whole set, and the gate's own scan");
    let mut empty = target();
    empty.current = None;
    assert_eq!(
        allowed(judge(&facts, Question::Gate { rules: &pass(), conditions: &conditions() }, empty, today()).verdict)
            .previous,
        None
    );
}

#[test]
fn a_decision_expires_as_long_after_it_as_the_gate_says() {
    let facts = facts(Some(clean()));
    for seconds in [0, 1, DAY] {
        let conditions = Conditions { valid_for: Duration::from_secs(seconds), ..conditions() };
        let grant = allowed(
            judge(&facts, Question::Gate { rules: &pass(), conditions: &conditions }, target(), today()).verdict,
        );
        let Basis::Gate { expires } = grant.basis else { panic!("{:?}", grant.basis) };
        assert_eq!(expires.seconds() - grant.decided_at.seconds(), i64::try_from(seconds).unwrap());
    }
}

#[test]
fn each_kind_that_is_required_must_be_there() {
    let facts = facts(Some(clean()));
    let requiring = |kind: PredicateType| {
        let conditions = Conditions { require: NonEmpty::one(kind), ..conditions() };
        judge(&facts, Question::Gate { rules: &pass(), conditions: &conditions }, target(), today()).verdict
    };
    for kind in [PredicateType::Provenance, PredicateType::Sbom, PredicateType::Vulns, PredicateType::TestResult] {
        allowed(requiring(kind));
    }
    let unknown = PredicateType::Other("https://example.com/review/v1".to_owned());
    for (kind, name) in [(PredicateType::Vex, "vex"), (unknown.clone(), unknown.uri())] {
        assert_eq!(undecided(requiring(kind)), [Reason::MissingKind(name.to_owned())]);
    }
}

#[test]
fn a_rule_adds_what_it_requires() {
    let facts = facts(Some(clean()));
    let requiring = |kinds: &[&str]| {
        let requires = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        {
            let mut asking = answer("a.one", Outcome::Pass);
            asking.rule.requires = requires;
            said(vec![asking])
        }
    };
    allowed(judged(&facts, &requiring(&["sbom", "https://slsa.dev/provenance/v1"])));
    for kind in ["vex", "https://openvex.dev/ns/v0.2.0"] {
        let reasons = undecided(judged(&facts, &requiring(&[kind])));
        assert_eq!(reasons, [Reason::MissingKind("vex".to_owned())], "{kind}");
    }
    // A kind that a rule alone asks for brings its conditions with it.
    let unscanned = facts_of(&closed_set(&build()), None, true);
    let only_provenance = Conditions { require: NonEmpty::one(PredicateType::Provenance), ..conditions() };
    let judged = |rules| {
        judge(&unscanned, Question::Gate { rules: &rules, conditions: &only_provenance }, target(), today()).verdict
    };
    allowed(judged(pass()));
    assert_eq!(undecided(judged(requiring(&["vulns"]))), [Reason::NoScan]);
}

#[test]
fn an_attached_scan_is_not_the_gates_own() {
    allowed(judged(&facts(Some(clean())), &pass()));
    let reasons = undecided(judged(&facts(None), &pass()));
    assert_eq!(reasons, [Reason::NoScan]);
}

#[test]
fn the_database_is_fresh_to_the_second() {
    let dated = |updated_at: UnixTime| {
        let scan = gate_scan(&FakeScanner::raw(&[]), |scan| scan.scanner.database.updated_at = updated_at);
        judged(&facts(Some(scan)), &pass())
    };
    let before = |seconds: u64| UnixTime::from_seconds(today().seconds() - i64::try_from(seconds).unwrap()).unwrap();
    allowed(dated(before(2 * DAY)));
    let stale = undecided(dated(before(2 * DAY + 1)));
    assert!(matches!(stale.as_slice(), [Reason::Database(why)] if why.contains("older than 48 hours")), "{stale:?}");
    // The second database has a date of its own.
    let dated = |updated_at: UnixTime| {
        let java = Database { digest: Digest::of(b"java database"), updated_at };
        let scan = gate_scan(&FakeScanner::raw(&[]), |scan| scan.scanner.java_database = Some(java));
        judged(&facts(Some(scan)), &pass())
    };
    allowed(dated(before(2 * DAY)));
    let stale = undecided(dated(before(2 * DAY + 1)));
    assert!(matches!(stale.as_slice(), [Reason::Database(why)] if why.contains("the Java database")), "{stale:?}");
    // Clocks differ by a little, databases from the future are none.
    allowed(dated(today().plus(300)));
    let future = undecided(dated(today().plus(301)));
    assert!(matches!(future.as_slice(), [Reason::Database(why)] if why.contains("after")), "{future:?}");
}

#[test]
fn a_gap_in_the_scan_leaves_it_undecided() {
    let scanned = |edit: fn(&mut Vulns)| judged(&facts(Some(gate_scan(&FakeScanner::raw(&[]), edit))), &pass());
    allowed(scanned(|_| {}));
    let reasons = undecided(scanned(|scan| {
        for place in ["app/poetry.lock", "app/yarn.lock"] {
            scan.coverage.unread.push(Gap {
                kind: "lock-file".to_owned(),
                place: place.to_owned(),
                digest: Digest::of(b"lock"),
                reason: "nobody read it".to_owned(),
            });
        }
    }));
    assert_eq!(reasons.len(), 2, "each gap is named: {reasons:?}");
    assert!(reasons[1].to_string().contains("app/yarn.lock"));
    let nothing = undecided(scanned(|scan| scan.coverage.read.clear()));
    assert_eq!(nothing, [Reason::Coverage("nothing was read".to_owned())]);
}

#[test]
fn an_sbom_that_names_nothing_is_no_sbom() {
    let with = |components: Value| {
        let mut build = build();
        build.components = components;
        judged(&facts_of(&closed_set(&build), Some(clean()), true), &pass())
    };
    allowed(with(json!([{"type": "application", "name": "server"}])));
    assert_eq!(undecided(with(json!([]))), [Reason::EmptySbom]);
}

#[test]
fn an_sbom_or_report_that_cannot_be_read_gives_no_facts() {
    let environment = "production".parse().unwrap();
    let repository = Repository::of_environment(&environment);
    let facts = |build: &VirtualBuild, scan| {
        Facts::new(&closed_set(build), &ByHand::default(), scan, &environment, &repository, today(), &|_| true)
            .map(|_| ())
    };
    assert!(facts(&build(), Some(clean())).is_ok());
    let odd = build().with_predicate("sbom", |predicate| predicate["specVersion"] = json!("9.9"));
    assert!(matches!(facts(&odd, Some(clean())), Err(FactsError::Sbom { .. })));
    let mut odd = build();
    odd.report = b"no report".to_vec();
    assert!(matches!(facts(&odd, Some(clean())), Err(FactsError::Report { .. })));
    assert!(matches!(facts(&build(), Some(gate_scan(b"no report", |_| {}))), Err(FactsError::Report { .. })));
    let hidden = br#"{"SchemaVersion":2,"Results":[{"Target":"x","ExperimentalModifiedFindings":[{}]}]}"#;
    assert!(matches!(facts(&build(), Some(gate_scan(hidden, |_| {}))), Err(FactsError::Report { .. })));
}

#[test]
fn a_policy_that_cannot_be_asked_or_says_nothing_decides_nothing() {
    let facts = facts(Some(clean()));
    allowed(judged(&facts, &pass()));
    let crashed = undecided(judged(&facts, &Err(PolicyError::Engine { reason: "it crashed".to_owned() })));
    assert!(matches!(crashed.as_slice(), [Reason::Policy(why)] if why.contains("it crashed")), "{crashed:?}");
    let none = undecided(judged(&facts, &said(vec![])));
    assert!(matches!(none.as_slice(), [Reason::Policy(why)] if why.contains("no rule")), "{none:?}");
    let silent = said(vec![answer("a.one", Outcome::Pass), answer("a.two", Outcome::Silent)]);
    assert_eq!(undecided(judged(&facts, &silent)), [Reason::Silent("a.two".to_owned())]);
}

#[test]
fn one_denial_denies_whatever_the_others_say() {
    let facts = facts(Some(clean()));
    let deny = || Outcome::Deny(NonEmpty::one(violation("too bad")));
    let with = |first, second| said(vec![answer("a.one", first), answer("a.two", second)]);
    allowed(judged(&facts, &with(Outcome::Pass, Outcome::Pass)));
    for (first, second) in [(deny(), Outcome::Pass), (Outcome::Pass, deny()), (Outcome::Silent, deny())] {
        let denials = denied(judged(&facts, &with(first, second)));
        assert_eq!(denials.len(), 1);
        assert_eq!(denials[0].violation.msg, "too bad");
        assert_eq!((denials[0].rule.as_str(), denials[0].solution.as_str()), ("policies/a.rego:7", "do better"));
    }
    let contradiction = Outcome::Contradiction(NonEmpty::one(violation("both")));
    assert_eq!(denied(judged(&facts, &with(contradiction, Outcome::Pass)))[0].code, "a.one");
    let two = Outcome::Deny(vec![violation("one"), violation("two")].try_into().unwrap());
    assert_eq!(denied(judged(&facts, &with(two, deny()))).len(), 3, "every reason is given");
}

#[test]
fn conditions_come_before_rules() {
    let deny = || said(vec![answer("a.one", Outcome::Deny(NonEmpty::one(violation("too bad"))))]);
    denied(judged(&facts(Some(clean())), &deny()));
    undecided(judged(&facts(None), &deny()));
    let facts = facts(None);
    let reasons = undecided(judged(&facts, &Err(PolicyError::NoCodes)));
    assert_eq!(reasons.len(), 2, "everything that is unmet is said at once: {reasons:?}");
}

/// Only this program's builder is known to put products, and nothing else, into the uppermost layer.
#[test]
fn tm04_the_uppermost_layer_of_another_builders_image_explains_nothing() {
    let product = Executable { place: "server".to_owned(), digest: Digest::of(b"x"), more: 0, product: true };
    let ask = |builder: &'static str| {
        let build = build().edited(move |_, statement| {
            let text = statement.predicate.to_string().replace(LOCAL_BUILDER, builder);
            statement.predicate = serde_json::from_str(&text).unwrap();
        });
        let listed = vec![product.clone()];
        let scan = gate_scan(&FakeScanner::raw(&[]), move |scan| {
            scan.coverage.executables = Some(Executables { listed: listed.clone(), beyond: 0, beyond_products: 9 });
        });
        let facts = facts_of(&closed_set(&build), Some(scan), true);
        let strict = Conditions { strict_executables: true, ..conditions() };
        let rules = pass();
        judge(&facts, Question::Gate { rules: &rules, conditions: &strict }, target(), today()).verdict
    };
    allowed(ask(LOCAL_BUILDER));
    let reasons = undecided(ask(OTHER_BUILDER));
    let [Reason::Coverage(one), Reason::Coverage(beyond)] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert!(one.contains("executable server") && beyond.contains("9 more executables"), "{reasons:?}");
}

/// What a person handed in makes no SBOM of the image present, longer or complete, and what cannot be read is not passed over.
#[test]
fn tm02_an_sbom_in_spdx_by_hand_is_a_fact_in_a_place_of_its_own() {
    let log = VirtualLog::new(LOG);
    let said = |version: &str| {
        let subject = Subject { name: None, digest: image(), media_type: Some(IMAGE_MANIFEST.to_owned()) };
        let predicate = json!({
            "spdxVersion": version, "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0", "name": "vendor",
            "creationInfo": {"created": "2026-11-25T00:00:00Z", "creators": ["Tool: by-hand"]},
            "packages": [{"SPDXID": "SPDXRef-a", "name": "thing", "versionInfo": "1", "downloadLocation": "NONE"}],
        });
        let predicate_type = PredicateType::Spdx;
        let bundle = sign_statement(
            &VirtualSigner::new("person"),
            &log,
            &Statement { subjects: NonEmpty::one(subject), predicate_type, predicate },
        );
        verify(&bundle, &trust(&log), today()).unwrap()
    };
    let set = closed_set(&build());
    let environment = "production".parse().unwrap();
    let repository = Repository::of_environment(&environment);
    let ask = |alone: Vec<&VerifiedStatement>| {
        let image = Said { alone, together: &[] };
        let by_hand = ByHand { image, index: None };
        Facts::new(&set, &by_hand, Some(clean()), &environment, &repository, today(), &|_| true)
    };
    let input = |facts: &Facts| -> Value { serde_json::from_str(facts.input().get()).unwrap() };
    let (without, good) = (ask(vec![]).unwrap(), said("SPDX-2.3"));
    let with = ask(vec![&good]).unwrap();
    let (before, mut after) = (input(&without), input(&with));
    let handed_in = after["sbom"].as_object_mut().unwrap().remove("byHand").unwrap();
    assert_eq!(
        (&handed_in["components"][0]["name"], &handed_in["documents"][0]["format"]),
        (&json!("thing"), &json!("SPDX"))
    );
    assert_eq!(handed_in["components"][0]["attestation"], json!(good.bundle()));
    assert_eq!((before["sbom"].clone(), without.components()), (after["sbom"].clone(), with.components()));
    let refused = ask(vec![&said("SPDX-2.2")]).unwrap_err().to_string();
    assert!(refused.contains("SPDX-2.2"), "{refused}");
}

#[test]
fn the_gates_scan_is_one_that_the_gate_signed_about_this_image_with_this_report() {
    let report = FakeScanner::raw(&[]);
    let predicate = || vulns(&report, Digest::of(b"database")).to_predicate(&findings(&report));
    let scan = taken("recorder", image(), predicate(), &report).unwrap();
    assert_eq!(scan.scanner().database.updated_at, today());
    let refused = |result: Result<GateScan, FactsError>, word: &str| {
        let error = result.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(taken("builder", image(), predicate(), &report), "role records");
    refused(taken("recorder", Digest::of(b"another image"), predicate(), &report), "something else");
    refused(taken("recorder", image(), predicate(), &FakeScanner::raw(&["CVE-1"])), "not the one that it names");
    refused(taken("recorder", image(), predicate(), b""), "not the one that it names");
    refused(taken("recorder", image(), json!({}), &report), "not of the expected form");
}

/// The ids of the findings that the rules see, each with the bundle it is from.
fn seen(facts: &Facts) -> BTreeSet<(String, String)> {
    let input: Value = serde_json::from_str(facts.input().get()).unwrap();
    let listed = input["vulnerabilities"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed.iter().map(|finding| (text(&finding["id"]), text(&finding["attestation"]))).collect()
}

fn ids(facts: &Facts) -> Vec<String> {
    seen(facts).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn findings_of_both_scans_are_united_so_that_a_clean_one_never_outvotes() {
    let scan = |ids: &[&str]| Some(gate_scan(&FakeScanner::raw(ids), |_| {}));
    let brought = |ids: &[&str]| {
        let mut build = build();
        build.report = FakeScanner::raw(ids);
        closed_set(&build)
    };
    assert_eq!(ids(&facts_of(&brought(&[]), scan(&[]), true)), Vec::<String>::new());
    assert_eq!(ids(&facts_of(&brought(&["CVE-1"]), scan(&[]), true)), ["CVE-1"]);
    assert_eq!(ids(&facts_of(&brought(&[]), scan(&["CVE-2"]), true)), ["CVE-2"]);
    assert_eq!(
        ids(&facts_of(&brought(&["CVE-1", "CVE-2"]), scan(&["CVE-2", "CVE-3"]), true)),
        ["CVE-1", "CVE-2", "CVE-3"]
    );
    // A database that the gate does not believe lends nothing, neither health nor findings.
    assert_eq!(ids(&facts_of(&brought(&["CVE-1"]), scan(&["CVE-2"]), false)), ["CVE-2"]);
    assert_eq!(ids(&facts_of(&brought(&[]), scan(&["CVE-2"]), false)), ["CVE-2"]);
    let set = brought(&["CVE-1"]);
    let from = seen(&facts_of(&set, scan(&["CVE-2"]), true));
    let bundle = set.scans()[0].statement.bundle().to_string();
    assert!(from.contains(&("CVE-1".to_owned(), bundle)), "each says which scan it is from: {from:?}");
}

#[test]
fn whether_a_brought_database_counts_is_asked_about_that_database() {
    let mut build = build();
    build.report = FakeScanner::raw(&["CVE-1"]);
    build.database = Digest::of(b"old database");
    let set = closed_set(&build);
    let environment = "production".parse().unwrap();
    let repository = Repository::of_environment(&environment);
    let with = |accepted: Digest| {
        let accepts = |scan: &Vulns| scan.scanner.database.digest == accepted;
        ids(&Facts::new(&set, &ByHand::default(), Some(clean()), &environment, &repository, today(), &accepts).unwrap())
    };
    assert_eq!(with(Digest::of(b"old database")), ["CVE-1"]);
    assert_eq!(with(Digest::of(b"gate's database")), Vec::<String>::new());
}

#[test]
fn what_rules_see_is_what_was_verified_and_its_digest_covers_all_of_it() {
    let set = closed_set(&build());
    let facts = facts_of(&set, Some(clean()), true);
    let input: Value = serde_json::from_str(facts.input().get()).unwrap();
    assert_eq!(facts.digest(), Digest::of(facts.input().get().as_bytes()));
    assert_eq!(input["subject"], json!({"name": "oci:production", "digest": image()}));
    assert_eq!(input["target"], json!({"environment": "production", "repository": "oci:production"}));
    assert_eq!(input["now"], json!(today()));
    assert_eq!(input["attestations"].as_array().unwrap().len(), PARTS.len());
    assert_eq!(input["attestations"][0]["signer"]["name"], "builder");
    assert_eq!(input["attestations"][0]["log"]["origin"], LOG);
    assert_eq!(input["sbom"]["components"][0]["name"], "server");
    assert_eq!(input["scan"]["databases"][0]["digest"], json!(Digest::of(b"gate's database")));
    let again = facts_of(&closed_set(&build()), Some(clean()), true);
    assert_eq!(again.digest(), facts.digest(), "the same world gives the same facts");
    let unscanned: Value = serde_json::from_str(facts_of(&set, None, true).input().get()).unwrap();
    assert_eq!(unscanned.get("scan"), None);
}

#[test]
fn facts_are_what_their_published_schema_says() {
    let schema = include_str!("../../../attestations/input.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let mut build = build();
    build.report = FakeScanner::raw(&["CVE-2026-1"]);
    build.components = json!([{"type": "library", "name": "a", "licenses": [{"license": {"id": "MIT"}}],
        "components": [{"type": "library", "name": "b", "licenses": [{"expression": "MIT OR"}]}]}]);
    let facts = facts_of(&closed_set(&build), Some(gate_scan(&FakeScanner::raw(&["CVE-2026-1"]), |_| {})), true);
    let facts: Value = serde_json::from_str(facts.input().get()).unwrap();
    assert!(facts["vulnerabilities"].as_array().is_some_and(|list| !list.is_empty()), "{facts:#}");
    assert_eq!(facts["sbom"]["components"].as_array().map(Vec::len), Some(2));
    let wrong: Vec<String> =
        validator.iter_errors(&facts).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(wrong, [] as [&str; 0]);
    let mut odd = facts;
    odd["sbom"]["components"][0]["more"] = json!(1);
    assert!(!validator.is_valid(&odd));
}
