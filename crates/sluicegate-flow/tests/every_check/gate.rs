//! Facts and verdict: what counts, and what a gate demands beside its rules.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use sluicegate_attestation::{
    coverage::{Executable, Executables, Gap},
    predicate::PredicateType,
    vulns::{Database, Vulns},
};
use sluicegate_flow::promote::Promoted;
use sluicegate_policy::{
    exceptions::Exceptions,
    facts::{ByHand, Facts, GateScan, Said as WordsByHand},
    judge::{AcceptedDatabase, AcceptedDatabases, Conditions, Denial, Question, Reason, Target, Verdict, judge},
    rego::{Outcome, PolicyError, RuleAnswer, RuleDeclaration, RuleResults, Violation},
};
use sluicegate_ports::store::ContentStore;
use sluicegate_testkit::{
    FakeScanner, VirtualBuild, VirtualLog, VirtualSigner, findings, sign_statement, today, vulns,
};
use sluicegate_types::{Digest, NonEmpty, Repository, UnixTime};
use sluicegate_verify::{
    VerifiedStatement,
    closed_set::{Asked, ClosedSet, follow},
    verify,
};

use crate::{
    fixture::{LOG, Said, Tried, about, environment, image, said, trust},
    gate_world::{MemoryScans, World, bans, clean_scanner, pass as gate_world_pass},
};

pub(crate) const DAY: u64 = 24 * 60 * 60;

pub(crate) fn build() -> VirtualBuild {
    VirtualBuild::new("run-1", image())
}

pub(crate) fn set_of(build: &VirtualBuild) -> ClosedSet {
    let log = VirtualLog::new(LOG);
    let (signed, trust) = (build.sign(&log), trust(&log));
    let asked = Asked { trust: &trust, repository: None, at: today() };
    follow(image(), &signed.attached(), &signed.blobs(), asked).sets.remove(0)
}

fn verified(signer: &str, about_image: Digest, kind: PredicateType, predicate: Value) -> VerifiedStatement {
    let log = VirtualLog::new(LOG);
    let bundle = sign_statement(&VirtualSigner::new(signer), &log, &about(about_image, kind, predicate));
    verify(&bundle, &trust(&log), today()).unwrap()
}

/// `signer`'s scan of `about`, taken for the gate's own of the image, with this report.
fn taken(signer: &str, about: Digest, scan: &Vulns, report: &[u8]) -> Result<GateScan, String> {
    let statement = verified(signer, about, PredicateType::Vulns, scan.to_predicate(&findings(report)));
    GateScan::new(&image(), &statement, report.to_vec()).map_err(|error| error.to_string())
}

pub(crate) fn gate_scan(edit: impl FnOnce(&mut Vulns)) -> GateScan {
    let report = FakeScanner::raw(&[]);
    let mut scan = vulns(&report, Digest::of(b"database"));
    edit(&mut scan);
    taken("recorder", image(), &scan, &report).unwrap()
}

pub(crate) fn facts(set: &ClosedSet, by_hand: &[&VerifiedStatement], scan: Option<GateScan>) -> Facts {
    let environment = environment("production");
    let repository = Repository::of_environment(&environment);
    let said = WordsByHand { alone: by_hand.to_vec(), together: &[] };
    Facts::new(set, &ByHand { image: said, index: None }, scan, &environment, &repository, today(), &|_| true).unwrap()
}

pub(crate) fn tm04_the_gates_scan_is_by_the_role_records() -> Tried {
    let report = FakeScanner::raw(&[]);
    let ask = |signer: &str| said(taken(signer, image(), &vulns(&report, Digest::of(b"database")), &report));
    Tried::good(ask("recorder")).fault("the builder's", "has not the role records", ask("builder"))
}

pub(crate) fn tm04_the_gates_scan_is_of_this_image() -> Tried {
    let report = FakeScanner::raw(&[]);
    let ask = |of: Digest| said(taken("recorder", of, &vulns(&report, Digest::of(b"database")), &report));
    Tried::good(ask(image())).fault("another image", "it is about something else", ask(Digest::of(b"another image")))
}

pub(crate) fn tm04_the_gates_scan_is_over_the_report_that_it_names() -> Tried {
    let report = FakeScanner::raw(&["CVE-2026-1"]);
    let ask = |given: &[u8]| said(taken("recorder", image(), &vulns(&report, Digest::of(b"database")), given));
    Tried::good(ask(&report)).fault("a clean one", "not the one that it names", ask(&FakeScanner::raw(&[])))
}

/// Whether the gate takes a scan for one that it made before: of `of`, by `signer`, with this database, where the index leads to it.
fn taken_for_known(signer: &str, of: Option<Digest>, database: &[u8]) -> Said {
    taken_for_known_if(signer, of, database, |_| {})
}

fn taken_for_known_if(signer: &str, of: Option<Digest>, database: &[u8], edit: impl FnOnce(&mut Vulns)) -> Said {
    let (mut world, _) = World::good();
    world.scans = Some(MemoryScans::default());
    world.dry_run.set(true);
    let scanner = clean_scanner();
    world.promote_scanned(Some(&scanner), &gate_world_pass()).unwrap();
    assert_eq!(scanner.scanned().len(), 1);
    let report = FakeScanner::raw(&[]);
    world.store.put_bytes(&report).unwrap();
    let mut scan = vulns(&report, Digest::of(database));
    scan.scanner.digest = Digest::of(b"trivy");
    edit(&mut scan);
    let of = of.unwrap_or_else(|| world.image.digest());
    let statement = about(of, PredicateType::Vulns, scan.to_predicate(&[]));
    let bundle = sign_statement(&VirtualSigner::new(signer), &world.log, &statement);
    world.scans.as_ref().unwrap().lead_to(world.store.put_bytes(&bundle).unwrap());
    world.promote_scanned(Some(&scanner), &gate_world_pass()).unwrap();
    if scanner.scanned().len() == 1 {
        Ok(())
    } else {
        Err(format!("it is scanned again, forgotten {}", world.scans.as_ref().unwrap().forgotten()))
    }
}

pub(crate) fn tm04_an_earlier_scan_is_by_the_same_scanner_with_the_same_database() -> Tried {
    let java = Database { digest: Digest::of(b"java database"), updated_at: today() };
    Tried::good(taken_for_known("recorder", None, b"database"))
        .fault("another database", "scanned again, forgotten 1", taken_for_known("recorder", None, b"another database"))
        .fault(
            "a Java database that this scanner has not",
            "scanned again, forgotten 1",
            taken_for_known_if("recorder", None, b"database", |scan| scan.scanner.java_database = Some(java)),
        )
}

pub(crate) fn tm04_an_earlier_scan_is_of_this_image() -> Tried {
    let other = Some(Digest::of(b"another image"));
    Tried::good(taken_for_known("recorder", None, b"database")).fault(
        "another image",
        "scanned again, forgotten 1",
        taken_for_known("recorder", other, b"database"),
    )
}

pub(crate) fn tm04_an_earlier_scan_is_the_gates_own() -> Tried {
    Tried::good(taken_for_known("recorder", None, b"database")).fault(
        "the builder's",
        "scanned again, forgotten 1",
        taken_for_known("builder", None, b"database"),
    )
}

pub(crate) fn tm04_the_signed_summary_agrees_with_the_raw_report() -> Tried {
    let report = FakeScanner::raw(&["CVE-2026-1"]);
    let ask = |summary: &[&str], severity: &str| {
        let mut said = findings(&FakeScanner::raw(summary));
        said.iter_mut().for_each(|finding| finding.severity = severity.to_owned());
        let scan = vulns(&report, Digest::of(b"database"));
        let statement = verified("recorder", image(), PredicateType::Vulns, scan.to_predicate(&said));
        let scan = GateScan::new(&image(), &statement, report.clone()).unwrap();
        said_of(&set_of(&build()), scan)
    };
    Tried::good(ask(&["CVE-2026-1"], "CRITICAL"))
        .fault("nothing", "says something else", ask(&[], "CRITICAL"))
        .fault("less", "says something else", ask(&["CVE-2026-1"], "LOW"))
        .fault("more", "says something else", ask(&["CVE-2026-1", "CVE-2026-2"], "CRITICAL"))
}

/// Whether facts come of this scan.
fn said_of(set: &ClosedSet, scan: GateScan) -> Said {
    let environment = environment("production");
    let repository = Repository::of_environment(&environment);
    said(Facts::new(set, &ByHand::default(), Some(scan), &environment, &repository, today(), &|_| true))
}

/// Whether the gate sees what the scan found that this build brought.
fn sees_what_was_brought(edit: impl FnOnce(VirtualBuild) -> VirtualBuild) -> Said {
    let (world, _) = World::new(|mut build| {
        build.report = FakeScanner::raw(&["CVE-2026-1"]);
        edit(build)
    });
    let ban = bans("CVE-2026-1");
    match world.promote(&ban).unwrap() {
        Promoted::Denied { .. } => Ok(()),
        Promoted::Allowed { .. } => Err("the finding lends nothing".to_owned()),
        other => Err(format!("{other:?}")),
    }
}

pub(crate) fn tm04_a_brought_scan_counts_with_the_gates_database_only() -> Tried {
    let ask = |database: &'static [u8]| {
        sees_what_was_brought(|mut build| {
            build.database = Digest::of(database);
            build
        })
    };
    Tried::good(ask(b"database")).fault("another", "lends nothing", ask(b"another database")).fault(
        "another Java database",
        "lends nothing",
        brought_with_java(b"another database", 0),
    )
}

pub(crate) fn tm04_a_brought_scan_counts_while_its_database_is_fresh() -> Tried {
    let ask = |seconds: u64| {
        sees_what_was_brought(|build| {
            build.with_predicate("vulns", move |predicate| {
                predicate["scanner"]["db"]["lastUpdate"] = json!(before(seconds));
            })
        })
    };
    let java = |seconds: u64| brought_with_java(b"java database", seconds);
    Tried::good(ask(2 * DAY).and(java(2 * DAY))).fault("a second too old", "lends nothing", ask(2 * DAY + 1)).fault(
        "its Java database a second too old",
        "lends nothing",
        java(2 * DAY + 1),
    )
}

/// What was brought was found with a Java database of this content and age.
fn brought_with_java(content: &'static [u8], seconds: u64) -> Said {
    sees_what_was_brought(|build| {
        build.with_predicate("vulns", move |predicate| {
            predicate["scanner"]["sluicegate_java_db"] =
                json!({"version": Digest::of(content), "lastUpdate": before(seconds)});
        })
    })
}

/// Whether this statement beside the set is used.
fn used_beside_the_set(said: &VerifiedStatement) -> Said {
    let facts = facts(&set_of(&build()), &[said], Some(gate_scan(|_| {})));
    let used = facts.used().contains(&said.bundle());
    if used { Ok(()) } else { Err("it counts for nothing".to_owned()) }
}

pub(crate) fn tm06_what_a_machine_says_outside_the_set_is_not_by_hand() -> Tried {
    let vex = verified("person", image(), PredicateType::Vex, json!({"statements": []}));
    let scan = vulns(&FakeScanner::raw(&[]), Digest::of(b"another database")).to_predicate(&[]);
    let scan = verified("recorder", image(), PredicateType::Vulns, scan);
    Tried::good(used_beside_the_set(&vex)).fault("a scan", "counts for nothing", used_beside_the_set(&scan))
}

pub(crate) fn tm02_an_sbom_or_a_test_result_by_hand_counts_for_nothing() -> Tried {
    let by_hand = |kind: PredicateType| used_beside_the_set(&verified("person", image(), kind, json!({})));
    Tried::good(by_hand(PredicateType::Other("https://example.com/review/v1".to_owned())))
        .fault("an SBOM", "counts for nothing", by_hand(PredicateType::Sbom))
        .fault("a test result", "counts for nothing", by_hand(PredicateType::TestResult))
}

pub(crate) fn before(seconds: u64) -> UnixTime {
    UnixTime::from_seconds(today().seconds() - i64::try_from(seconds).unwrap()).unwrap()
}

pub(crate) fn answers(outcomes: Vec<Outcome>) -> Result<RuleResults, PolicyError> {
    let answer = |(number, outcome): (usize, Outcome)| RuleAnswer {
        rule: RuleDeclaration {
            code: format!("a.rule_{number}"),
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
    };
    Ok(RuleResults { answers: outcomes.into_iter().enumerate().map(answer).collect(), warnings: Vec::new() })
}

fn violations() -> NonEmpty<Violation> {
    NonEmpty::one(Violation {
        msg: "too bad".to_owned(),
        term: None,
        subject: None,
        fields: BTreeMap::new(),
        clause: None,
    })
}

pub(crate) fn conditions(require: &[PredicateType]) -> Conditions {
    Conditions {
        require: require.to_vec().try_into().unwrap(),
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

pub(crate) fn judged(facts: &Facts, rules: &Result<RuleResults, PolicyError>, conditions: &Conditions) -> Said {
    let environment = environment("production");
    let repository = Repository::of_environment(&environment);
    let target = Target { environment, repository, tag: "current".parse().unwrap(), current: None };
    match judge(facts, Question::Gate { rules, conditions }, target, today()).verdict {
        Verdict::Allow(permit) => {
            drop(permit.spend());
            Ok(())
        }
        Verdict::Deny(denials) => {
            let messages: Vec<&str> = denials.iter().map(|Denial { violation, .. }| violation.msg.as_str()).collect();
            Err(format!("denied: {}", messages.join("; ")))
        }
        Verdict::Undecided(reasons) => Err(reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; ")),
    }
}

pub(crate) const REQUIRED: [PredicateType; 4] =
    [PredicateType::Provenance, PredicateType::Sbom, PredicateType::Vulns, PredicateType::TestResult];

fn good_facts() -> Facts {
    facts(&set_of(&build()), &[], Some(gate_scan(|_| {})))
}

/// A gate whose rules answer like this, over good facts.
fn with_answers(rules: &Result<RuleResults, PolicyError>) -> Said {
    judged(&good_facts(), rules, &conditions(&REQUIRED))
}

/// A gate whose rules pass, with this scan of its own.
fn with_scan(scan: Option<GateScan>) -> Said {
    judged(&facts(&set_of(&build()), &[], scan), &answers(vec![Outcome::Pass]), &conditions(&REQUIRED))
}

fn pass() -> Said {
    with_answers(&answers(vec![Outcome::Pass, Outcome::Pass]))
}

pub(crate) fn tm02_each_required_kind_is_there() -> Tried {
    let review = PredicateType::Other("https://example.com/review/v1".to_owned());
    let requiring = |kind: PredicateType| {
        judged(&good_facts(), &answers(vec![Outcome::Pass]), &conditions(std::slice::from_ref(&kind)))
    };
    let mut asking = answers(vec![Outcome::Pass]);
    asking.as_mut().unwrap().answers[0].rule.requires = vec!["vex".to_owned()];
    Tried::good(pass().and(requiring(PredicateType::TestResult)))
        .fault("by the gate", "required evidence is missing: https://example.com/review/v1", requiring(review))
        .fault("by a rule", "required evidence is missing: vex", with_answers(&asking))
}

pub(crate) fn tm02_an_sbom_that_names_nothing_is_none() -> Tried {
    let ask = |components: Value| {
        let mut build = build();
        build.components = components;
        let facts = facts(&set_of(&build), &[], Some(gate_scan(|_| {})));
        judged(&facts, &answers(vec![Outcome::Pass]), &conditions(&REQUIRED))
    };
    Tried::good(ask(json!([{"type": "application", "name": "server"}]))).fault(
        "empty",
        "names no component",
        ask(json!([])),
    )
}

pub(crate) fn tm04_the_gate_scans_itself() -> Tried {
    Tried::good(with_scan(Some(gate_scan(|_| {})))).fault("none", "the gate's own scan", with_scan(None))
}

fn dated(updated_at: UnixTime) -> Said {
    with_scan(Some(gate_scan(|scan| scan.scanner.database.updated_at = updated_at)))
}

pub(crate) fn tm04_the_gates_database_is_fresh() -> Tried {
    let last = dated(before(2 * DAY)).and(java_dated(before(2 * DAY)));
    Tried::good(last).fault("a second too old", "older than 48 hours", dated(before(2 * DAY + 1))).fault(
        "the Java database",
        "the Java database cannot be used",
        java_dated(before(2 * DAY + 1)),
    )
}

fn java_dated(updated_at: UnixTime) -> Said {
    let java = Database { digest: Digest::of(b"java database"), updated_at };
    with_scan(Some(gate_scan(|scan| scan.scanner.java_database = Some(java))))
}

pub(crate) fn tm04_the_gates_database_is_not_from_the_future() -> Tried {
    Tried::good(dated(today().plus(300))).fault("a second too far", "it is dated", dated(today().plus(301))).fault(
        "the Java database",
        "it is dated",
        java_dated(today().plus(301)),
    )
}

pub(crate) fn tm04_a_scan_that_read_nothing_is_none() -> Tried {
    let nothing = gate_scan(|scan| scan.coverage.read.clear());
    Tried::good(with_scan(Some(gate_scan(|_| {})))).fault("nothing", "nothing was read", with_scan(Some(nothing)))
}

pub(crate) fn tm04_a_gap_in_the_scan_leaves_it_undecided() -> Tried {
    let gap = gate_scan(|scan| {
        scan.coverage.unread.push(Gap {
            kind: "lock-file".to_owned(),
            place: "app/poetry.lock".to_owned(),
            digest: Digest::of(b"lock"),
            reason: "nobody read it".to_owned(),
        });
    });
    Tried::good(with_scan(Some(gate_scan(|_| {})))).fault("a gap", "app/poetry.lock", with_scan(Some(gap)))
}

pub(crate) fn tm04_a_strict_gate_wants_each_executable_of_the_base_in_a_package() -> Tried {
    let executable =
        |product| Executable { place: "usr/local/bin/tool".to_owned(), digest: Digest::of(b"tool"), more: 0, product };
    let ask = |executables: Option<Executables>| {
        let scan = gate_scan(|scan| scan.coverage.executables = executables);
        let strict = Conditions { strict_executables: true, ..conditions(&REQUIRED) };
        judged(&facts(&set_of(&build()), &[], Some(scan)), &answers(vec![Outcome::Pass]), &strict)
    };
    let of = |listed, beyond| ask(Some(Executables { listed, beyond, beyond_products: 9 }));
    Tried::good(of(vec![executable(true)], 0))
        .fault("one", "executable usr/local/bin/tool", of(vec![executable(true), executable(false)], 0))
        .fault("beyond the list", "7 more executables", of(vec![], 7))
        .fault("of a package manager that is not read", "executables-unknown", ask(None))
}

pub(crate) fn tm02_a_policy_that_cannot_be_asked_allows_nothing() -> Tried {
    let crashed = Err(PolicyError::Engine { reason: "it crashed".to_owned() });
    Tried::good(pass()).fault("a crash", "the policy could not be asked", with_answers(&crashed))
}

pub(crate) fn tm02_a_gate_without_rules_allows_nothing() -> Tried {
    Tried::good(pass()).fault("none", "no rule was asked", with_answers(&answers(Vec::new())))
}

pub(crate) fn tm02_one_denial_denies() -> Tried {
    let denied = answers(vec![Outcome::Pass, Outcome::Deny(violations())]);
    Tried::good(pass()).fault("one of two", "denied: too bad", with_answers(&denied))
}

pub(crate) fn tm02_a_rule_that_passes_and_denies_denies() -> Tried {
    let both = answers(vec![Outcome::Pass, Outcome::Contradiction(violations())]);
    Tried::good(pass()).fault("both", "denied: too bad", with_answers(&both))
}

pub(crate) fn tm02_a_rule_without_an_answer_allows_nothing() -> Tried {
    let silent = answers(vec![Outcome::Pass, Outcome::Silent]);
    Tried::good(pass()).fault("one of two", "the rule a.rule_1 gave no answer", with_answers(&silent))
}
