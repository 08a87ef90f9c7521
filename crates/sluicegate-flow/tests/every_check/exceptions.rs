//! What somebody accepts: each thing that a waiver or an accepted gap says narrows what it takes away.

use std::collections::BTreeMap;

use serde_json::json;
use sluicegate_attestation::coverage::Gap;
use sluicegate_policy::{
    exceptions::{Exceptions, Listed},
    facts::GateScan,
    judge::{Basis, Question, Target, Verdict, judge},
    rego::{EvaluationLimits, EvaluationRequest, Outcome, SourceFile, Violation, evaluate},
};
use sluicegate_testkit::today;
use sluicegate_types::{Acceptance, CoverageException, Digest, NonEmpty, Repository, UnixTime, Waiver, WaiverScope};

use crate::{
    fixture::{Said, Tried, environment, image},
    gate::{DAY, REQUIRED, answers, before, build, conditions, facts, gate_scan, judged, set_of},
};

const TERM: &str = "CVE-2026-1";
const PACKAGE: &str = "pkg:deb/debian/zlib1g@1.2.13";

fn acceptance(expires: UnixTime) -> Acceptance {
    Acceptance {
        owner: "olga".to_owned(),
        approver: "arno".to_owned(),
        reason: "for tests".to_owned(),
        ticket: None,
        expires,
    }
}

fn waiver() -> Waiver {
    Waiver {
        code: "a.rule_0".to_owned(),
        term: Some(TERM.to_owned()),
        package: Some(PACKAGE.parse().unwrap()),
        scope: WaiverScope::Image(image()),
        environment: environment("production"),
        acceptance: acceptance(today().plus(DAY)),
    }
}

fn listed<T>(what: T) -> Vec<Listed<T>> {
    vec![Listed { what, place: "waivers.yaml:2".to_owned() }]
}

fn denied() -> Outcome {
    Outcome::Deny(NonEmpty::one(Violation {
        msg: "too bad".to_owned(),
        term: Some(TERM.to_owned()),
        subject: Some(format!("{PACKAGE}?arch=amd64")),
        fields: BTreeMap::new(),
        clause: None,
    }))
}

/// A rule that denies one finding, over good facts, with the good waiver but for this change.
fn waived(change: impl FnOnce(&mut Waiver)) -> Said {
    let mut waiver = waiver();
    change(&mut waiver);
    let mut conditions = conditions(&REQUIRED);
    conditions.exceptions = Exceptions { waivers: listed(waiver), coverage: Vec::new() };
    judged(&facts(&set_of(&build()), &[], Some(gate_scan(|_| {}))), &answers(vec![denied()]), &conditions)
}

pub(crate) fn tm17_a_waiver_is_for_its_rule_only() -> Tried {
    let other = waived(|waiver| waiver.code = "a.rule_1".to_owned());
    Tried::good(waived(|_| {})).fault("another rule", "denied: too bad", other)
}

pub(crate) fn tm17_a_waiver_is_for_its_term_only() -> Tried {
    let term = |term: &str| waived(|waiver| waiver.term = Some(term.to_owned()));
    Tried::good(waived(|_| {}).and(waived(|waiver| waiver.term = None)))
        .fault("another advisory", "denied: too bad", term("CVE-2026-2"))
        .fault("other letters", "denied: too bad", term("cve-2026-1"))
        .fault("the beginning", "denied: too bad", term("CVE-2026-"))
}

pub(crate) fn tm17_a_waiver_is_for_its_package_only() -> Tried {
    let package = |text: &str| waived(|waiver| waiver.package = Some(text.parse().unwrap()));
    Tried::good(waived(|_| {}).and(waived(|waiver| waiver.package = None)))
        .fault("another package", "denied: too bad", package("pkg:deb/debian/zlib1g-dev@1.2.13"))
        .fault("another version", "denied: too bad", package("pkg:deb/debian/zlib1g@1.2.14"))
        .fault("another architecture", "denied: too bad", package("pkg:deb/debian/zlib1g@1.2.13?arch=arm64"))
}

pub(crate) fn tm17_a_waiver_is_for_its_image_or_repository_only() -> Tried {
    let scope = |scope: WaiverScope| waived(|waiver| waiver.scope = scope);
    let repository = |name: &str| scope(WaiverScope::Repository(name.to_owned()));
    Tried::good(waived(|_| {}).and(repository("oci:production")))
        .fault("another image", "denied: too bad", scope(WaiverScope::Image(Digest::of(b"another image"))))
        .fault("another repository", "denied: too bad", repository("oci:staging"))
        .fault("the beginning", "denied: too bad", repository("oci:"))
}

pub(crate) fn tm17_a_waiver_is_for_its_environment_only() -> Tried {
    let staging = waived(|waiver| waiver.environment = environment("staging"));
    Tried::good(waived(|_| {})).fault("staging", "denied: too bad", staging)
}

pub(crate) fn tm17_a_waiver_is_over_at_its_end() -> Tried {
    let until = |expires: UnixTime| waived(|waiver| waiver.acceptance.expires = expires);
    Tried::good(until(today().plus(1))).fault("now", "denied: too bad", until(today())).fault(
        "yesterday",
        "denied: too bad",
        until(before(DAY)),
    )
}

/// Rego that denies as many things as there are, of which `listed` are told, over a gate that waives each of these.
pub(crate) fn tm17_denials_that_are_not_listed_are_not_waived() -> Tried {
    let policy = r#"package a
# METADATA
# title: t
# description: d
# custom: { short_name: rule_0, solution: s, requires: [] }
pass contains "a.rule_0" if count(input.bad) == 0
deny contains {"code": "a.rule_0", "msg": "too bad", "term": term, "subject": "pkg:deb/debian/zlib1g@1.2.13"} if some term in input.bad
"#;
    let ask = |bad: &[&str]| {
        let request = EvaluationRequest {
            policies: vec![SourceFile { name: "a.rego".to_owned(), text: policy.to_owned() }],
            data: Vec::new(),
            input: serde_json::value::to_raw_value(&json!({ "bad": bad })).unwrap(),
        };
        let rules = evaluate(&request, &EvaluationLimits { answers: 2, ..EvaluationLimits::default() });
        let waiver = Waiver { term: None, ..waiver() };
        let mut conditions = conditions(&REQUIRED);
        conditions.exceptions = Exceptions { waivers: listed(waiver), coverage: Vec::new() };
        judged(&facts(&set_of(&build()), &[], Some(gate_scan(|_| {}))), &rules, &conditions)
    };
    Tried::good(ask(&["a", "b"])).fault("one more", "1 more denials are beyond", ask(&["a", "b", "c"]))
}

pub(crate) fn tm02_a_rule_that_demands_a_fact_does_not_pass_without_it() -> Tried {
    let policy = r#"package a
# METADATA
# title: t
# description: d
# custom: { short_name: one, solution: s, requires: [], requires_fields: [/list, /of~1all/0] }
deny contains {"code": "a.one", "msg": "too bad"} if "bad" in input.list
"#;
    let ask = |input: serde_json::Value| {
        let request = EvaluationRequest {
            policies: vec![SourceFile { name: "a.rego".to_owned(), text: policy.to_owned() }],
            data: Vec::new(),
            input: serde_json::value::to_raw_value(&input).unwrap(),
        };
        let rules = evaluate(&request, &EvaluationLimits::default());
        judged(&facts(&set_of(&build()), &[], Some(gate_scan(|_| {}))), &rules, &conditions(&REQUIRED))
    };
    Tried::good(ask(json!({"list": [], "of/all": [1]})))
        .fault("no list", "a.one demands facts that are not there: /list", ask(json!({"of/all": [1]})))
        .fault("null", "not there: /list", ask(json!({"list": null, "of/all": [1]})))
        .fault("an empty one", "not there: /of~1all/0", ask(json!({"list": [], "of/all": []})))
}

/// A gate whose rules pass, with a scan that has this gap, and one that is accepted.
fn covered(gap: &str, of: Digest, exception: CoverageException) -> Said {
    let mut conditions = conditions(&REQUIRED);
    conditions.exceptions = Exceptions { waivers: Vec::new(), coverage: listed(exception) };
    let scan: GateScan = gate_scan(|scan| {
        scan.coverage.unread.push(Gap {
            kind: gap.to_owned(),
            place: "app/poetry.lock".to_owned(),
            digest: of,
            reason: "nobody read it".to_owned(),
        });
    });
    judged(&facts(&set_of(&build()), &[], Some(scan)), &answers(vec![Outcome::Pass]), &conditions)
}

fn exception(digest: Digest, gap: Option<&str>) -> CoverageException {
    CoverageException { digest, gap: gap.map(str::to_owned), acceptance: acceptance(today().plus(DAY)) }
}

pub(crate) fn tm04_a_gap_is_accepted_by_its_content() -> Tried {
    let (lock, other) = (Digest::of(b"lock"), Digest::of(b"another lock"));
    let ask = |of: Digest| covered("lock-file", lock, exception(of, None));
    Tried::good(ask(lock)).fault("another file", "app/poetry.lock", ask(other)).fault(
        "the image",
        "app/poetry.lock",
        covered("lock-file", lock, exception(image(), Some("lock-file"))),
    )
}

pub(crate) fn tm04_a_gap_of_the_image_is_accepted_by_its_kind() -> Tried {
    let ask = |gap: Option<&str>| covered("system-ended", image(), exception(image(), gap));
    let lock = Digest::of(b"lock");
    Tried::good(ask(Some("system-ended")))
        .fault("no kind", "system-ended", ask(None))
        .fault("another kind", "system-ended", ask(Some("system-unknown")))
        .fault("another kind of a file", "lock-file", covered("lock-file", lock, exception(lock, Some("package-list"))))
}

pub(crate) fn tm04_an_accepted_gap_is_open_again_at_its_end() -> Tried {
    let ask = |expires: UnixTime| {
        let lock = Digest::of(b"lock");
        covered("lock-file", lock, CoverageException { acceptance: acceptance(expires), ..exception(lock, None) })
    };
    Tried::good(ask(today().plus(1))).fault("now", "app/poetry.lock", ask(today()))
}

/// Whether a decision that rests on a waiver until `end` says that it holds until `told`.
fn holds_until(end: UnixTime, told: UnixTime) -> Said {
    let mut conditions = conditions(&REQUIRED);
    let waiver = Waiver { acceptance: acceptance(end), ..waiver() };
    conditions.exceptions = Exceptions { waivers: listed(waiver), coverage: Vec::new() };
    let facts = facts(&set_of(&build()), &[], Some(gate_scan(|_| {})));
    let environment = environment("production");
    let repository = Repository::of_environment(&environment);
    let target = Target { environment, repository, tag: "current".parse().unwrap(), current: None };
    let rules = answers(vec![denied()]);
    let question = Question::Gate { rules: &rules, conditions: &conditions };
    match judge(&facts, question, target, today()).verdict {
        Verdict::Allow(permit) => match permit.spend().basis {
            Basis::Gate { expires } if expires <= told => Ok(()),
            basis => Err(format!("{basis:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

pub(crate) fn tm05_a_decision_ends_with_what_it_rests_on() -> Tried {
    let (day, month) = (today().plus(DAY), today().plus(30 * DAY));
    // What is asked for is that it ends so soon; without the check it ends with the gate's own thirty days.
    let refused = |said: Said| match said {
        Ok(()) => Err("ends with the waiver".to_owned()),
        Err(_) => Ok(()),
    };
    Tried::good(holds_until(today().plus(60 * DAY), month)).fault(
        "a day",
        "ends with the waiver",
        refused(holds_until(day, day)),
    )
}
