//! Each role's key on each kind of statement: what may be said is accepted, everything else is refused by name (trust model 5, 6).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::LOCAL_BUILDER,
    predicate::PredicateType,
    statement::Statement,
    summary::{LedgerHead, Promotion, VerificationSummary},
};
use sluicegate_testkit::{VirtualBuild, VirtualLog, VirtualSigner, sign_statement, today, vulns};
use sluicegate_types::{Digest, EnvironmentName, PinnedImage, Repository};
use sluicegate_verify::{Allowed, Error, Role, SignerRule, Trust, TrustRoot, VerifiedStatement, verify};

use crate::world::{GATE, LOG, about_image, image, rule, rules, sbom, trust_in};

const ROLES: [Role; 4] = [Role::Steps, Role::Decisions, Role::Records, Role::Manual];

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

fn ledger() -> LedgerHead {
    LedgerHead { origin: "ledger.example".to_owned(), size: 1, root: Digest::of(b"root") }
}

fn staging() -> EnvironmentName {
    "staging".parse().unwrap()
}

fn summary(verifier: &str, environment: &EnvironmentName, passed: bool) -> Statement {
    let summary = VerificationSummary {
        verifier_id: verifier.to_owned(),
        time_verified: today(),
        resource: PinnedImage { repository: Repository::of_environment(environment), digest: image() },
        policy: Digest::of(b"gateway"),
        inputs: vec![Digest::of(b"bundle")],
        passed,
        levels: vec!["SLSA_BUILD_LEVEL_1".to_owned()],
        environment: environment.clone(),
        expires: today().plus(60),
        authority: "self".to_owned(),
        ledger: ledger(),
    };
    about_image(PredicateType::VerificationSummary, summary.to_predicate())
}

fn promotion(environment: &EnvironmentName, decision: Option<Digest>) -> Statement {
    let promotion = Promotion {
        image: image(),
        source: "build".to_owned(),
        destination: PinnedImage { repository: Repository::of_environment(environment), digest: image() },
        timestamp: today(),
        builder_id: "https://example.com/gate".to_owned(),
        decision,
        verifier_id: GATE.to_owned(),
        gateway: Digest::of(b"gateway"),
        authority: "self".to_owned(),
        environment: environment.clone(),
        ledger: ledger(),
    };
    about_image(PredicateType::Promotion, promotion.to_predicate())
}

fn provenance(builder: &'static str) -> Statement {
    let log = VirtualLog::new("aside.example");
    let build = VirtualBuild::new("run-1", image()).sign(&log);
    let bundle = sluicegate_attestation::bundle::Bundle::parse(&build.bundles["image"]).unwrap();
    let mut statement = Statement::parse(&bundle.payload).unwrap();
    statement.predicate["runDetails"]["builder"]["id"] = json!(builder);
    statement
}

fn said(rules: Vec<SignerRule>, signer: &str, statement: &Statement) -> Result<VerifiedStatement, Error> {
    let log = VirtualLog::new(LOG);
    let bundle = sign_statement(&VirtualSigner::new(signer), &log, statement);
    verify(&bundle, &trust_in(rules, &log), today())
}

/// One key for each role, and one for each environment.
fn keys() -> Vec<SignerRule> {
    let staging = SignerRule { environments: [staging()].into_iter().collect(), ..rule("stager", &[Role::Decisions]) };
    rules().into_iter().chain([staging]).collect()
}

/// Every kind of statement, each as whoever may sign it would.
fn statements() -> Vec<(&'static str, Statement)> {
    use PredicateType::{ImageSignature, Other, RuntimeTrace, TestResult, Vex, Vulns};
    let other = |uri: &str| about_image(Other(uri.to_owned()), json!({}));
    vec![
        ("provenance", provenance(LOCAL_BUILDER)),
        ("sbom", sbom()),
        ("vulns", about_image(Vulns, scan())),
        ("test-result", about_image(TestResult, json!({"result": "PASSED"}))),
        ("runtime-trace", about_image(RuntimeTrace, json!({}))),
        ("vex", about_image(Vex, json!({"@context": "https://openvex.dev/ns/v0.2.0"}))),
        ("a review", other("https://example.com/review/v1")),
        ("a trace of another version", other("https://in-toto.io/attestation/runtime-trace/v0.2")),
        ("an older provenance", other("https://slsa.dev/provenance/v0.2")),
        ("yes for production", summary(GATE, &production(), true)),
        ("yes for staging", summary(GATE, &staging(), true)),
        ("no for production", summary(GATE, &production(), false)),
        ("gated promotion to production", promotion(&production(), Some(Digest::of(b"decision")))),
        ("gated promotion to staging", promotion(&staging(), Some(Digest::of(b"decision")))),
        ("ungated promotion to staging", promotion(&staging(), None)),
        ("signature", about_image(ImageSignature, json!({}))),
    ]
}

/// Each statement, signed by this key: accepted in its role and no other, or refused in these words.
///
/// `expected` names the statements that may be signed; `worded` those that the role may sign, and not in this way. Everything
/// else is refused by signer, type and roles.
fn says(signer: &str, role: Role, expected: &[&str], worded: &[(&str, &str)]) {
    let mut accepted = Vec::new();
    for (what, statement) in statements() {
        match said(keys(), signer, &statement) {
            Ok(verified) => {
                assert_eq!((verified.signer(), verified.endorses().len()), (signer, 0));
                let roles: Vec<Role> = ROLES.into_iter().filter(|role| verified.is_in_role(*role)).collect();
                assert_eq!(roles, [role], "{signer}: {what}");
                accepted.push(what);
            }
            Err(error) => {
                let text = match worded.iter().find(|(name, _)| *name == what) {
                    Some((_, words)) => format!("{signer} may not sign {words}"),
                    None => format!("{signer} may not sign {}: its roles are {role}", statement.predicate_type),
                };
                assert_eq!(error.to_string(), text, "{signer}: {what}");
            }
        }
    }
    assert_eq!(accepted, expected, "{signer}");
}

#[test]
fn tm06_a_steps_key_says_what_steps_did_and_nothing_else() {
    says("builder", Role::Steps, &["provenance", "sbom", "vulns", "test-result", "runtime-trace"], &[]);
}

#[test]
fn tm06_a_decisions_key_says_yes_for_its_environment_and_nothing_else() {
    let of_another = |what: &str, environment: &str| {
        format!("{what} for {environment}: its roles are decisions, and its environments don't list that")
    };
    let denied = "a denied verification-summary: its roles are decisions";
    let ungated = "an ungated promotion: its roles are decisions";
    // A signature names no environment, so any decisions key may sign one: cosign tells them apart by the key it is given.
    says(
        "decider",
        Role::Decisions,
        &["yes for production", "gated promotion to production", "signature"],
        &[
            ("yes for staging", &of_another("verification-summary", "staging")),
            ("gated promotion to staging", &of_another("promotion", "staging")),
            ("no for production", denied),
            ("ungated promotion to staging", ungated),
        ],
    );
    says(
        "stager",
        Role::Decisions,
        &["yes for staging", "gated promotion to staging", "signature"],
        &[
            ("yes for production", &of_another("verification-summary", "production")),
            ("gated promotion to production", &of_another("promotion", "production")),
            ("no for production", denied),
            // It decides for staging, and still no decision of it stands behind this.
            ("ungated promotion to staging", ungated),
        ],
    );
}

#[test]
fn tm06_a_records_key_keeps_denials_scans_and_ungated_promotions_and_nothing_else() {
    let allowed = "an allowed verification-summary: its roles are records";
    let gated = "a gated promotion: its roles are records";
    says(
        "recorder",
        Role::Records,
        &["vulns", "no for production", "ungated promotion to staging"],
        &[
            ("yes for production", allowed),
            ("yes for staging", allowed),
            ("gated promotion to production", gated),
            ("gated promotion to staging", gated),
        ],
    );
}

#[test]
fn tm06_a_manual_key_never_says_what_builds_scans_and_gates_say_in_any_version() {
    says("person", Role::Manual, &["sbom", "test-result", "vex", "a review"], &[]);
}

#[test]
fn tm06_a_foreign_build_type_verifies_by_its_builder_alone() {
    let mut foreign = provenance(LOCAL_BUILDER);
    foreign.predicate = json!({
        "buildDefinition": {"buildType": "https://example.com/workflow/v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": LOCAL_BUILDER}},
    });
    assert!(said(rules(), "builder", &foreign).unwrap().is_in_role(Role::Steps));
    foreign.predicate["runDetails"]["builder"]["id"] = json!("https://example.com/other");
    let error = said(rules(), "builder", &foreign).unwrap_err();
    assert_eq!(error.to_string(), "builder may not claim the builder \"https://example.com/other\"");
    foreign.predicate["runDetails"]["builder"] = json!({});
    let error = said(rules(), "builder", &foreign).unwrap_err();
    assert_eq!(error.to_string(), "runDetails.builder.id: the provenance names no builder");
}

#[test]
fn tm06_a_promotion_says_on_what_it_rests() {
    let mut statement = promotion(&production(), Some(Digest::of(b"decision")));
    assert!(said(rules(), "decider", &statement).is_ok());
    for basis in
        [json!(null), json!("gated"), json!({}), json!({"sha256": "00"}), json!({"sha256": 1}), json!(["ungated"])]
    {
        statement.predicate["sluicegate_basis"] = basis.clone();
        for signer in ["decider", "recorder"] {
            let error = said(rules(), signer, &statement).unwrap_err().to_string();
            let says = ["the promotion record is not of the expected form", "digest: "];
            assert!(says.iter().any(|start| error.starts_with(start)), "{basis}: {error}");
        }
    }
}

#[test]
fn tm06_a_key_that_may_claim_anything_still_has_its_role_only() {
    let any = |role| {
        vec![SignerRule {
            builder_ids: Allowed::Any,
            verifier_ids: Allowed::Any,
            environments: Allowed::Any,
            ..rule("builder", &[role])
        }]
    };
    let foreign = provenance("https://example.com/other");
    let yes = summary("https://example.com/other-gate", &staging(), true);
    assert!(said(any(Role::Steps), "builder", &foreign).is_ok());
    assert!(said(any(Role::Decisions), "builder", &yes).is_ok());
    assert!(matches!(said(any(Role::Decisions), "builder", &foreign), Err(Error::Role { .. })));
    assert!(matches!(said(any(Role::Steps), "builder", &yes), Err(Error::Role { .. })));
    let no = summary(GATE, &staging(), false);
    assert!(matches!(said(any(Role::Decisions), "builder", &no), Err(Error::Verdict { .. })));
}

fn scan() -> Value {
    vulns(b"report", Digest::of(b"database")).to_predicate(&[])
}

#[test]
fn tm06_a_listed_predicate_type_narrows_a_role_and_never_widens_it() {
    let listing = |types: &[PredicateType]| {
        let mut listed = rule("builder", &[Role::Steps]);
        listed.predicate_types = Some(types.iter().cloned().collect());
        vec![listed]
    };
    assert!(said(listing(&[PredicateType::Sbom]), "builder", &sbom()).is_ok());
    assert!(matches!(said(listing(&[PredicateType::Vulns]), "builder", &sbom()), Err(Error::Role { .. })));
    assert!(matches!(said(listing(&[]), "builder", &sbom()), Err(Error::Role { .. })));
    let error = said(vec![rule("builder", &[])], "builder", &sbom()).unwrap_err().to_string();
    assert_eq!(error, "builder may not sign sbom: its roles are none");
    let log = VirtualLog::new(LOG);
    let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
    let widened = listing(&[PredicateType::Sbom, PredicateType::ImageSignature]);
    let error = Trust::new(widened, BTreeSet::new(), vec![], root).unwrap_err().to_string();
    let says = "signers.builder.predicate_types: signature: none of its roles may sign it; its roles are steps";
    assert_eq!(error, says, "it would silently do nothing");
}

#[test]
fn tm06_provenance_counts_only_of_builders_that_the_signer_may_claim() {
    assert!(said(rules(), "builder", &provenance(LOCAL_BUILDER)).is_ok());
    let error = said(rules(), "builder", &provenance("https://example.com/other")).unwrap_err();
    assert!(matches!(error, Error::Builder { builder, .. } if builder == "https://example.com/other"));
    let mut unlisted = rule("builder", &[Role::Steps]);
    unlisted.builder_ids = Allowed::nothing();
    assert!(matches!(said(vec![unlisted], "builder", &provenance(LOCAL_BUILDER)), Err(Error::Builder { .. })));
}

#[test]
fn tm05_a_decision_counts_only_of_listed_verifiers_and_environments() {
    let refused = |signer: &str, statement: &Statement, says: &str| {
        let error = said(rules(), signer, statement).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{signer} may not sign ")) && error.contains(says), "{error}");
    };
    let other = "https://example.com/other";
    let says = format!("verification-summary as {other:?}: its roles are decisions");
    assert!(said(rules(), "decider", &summary(GATE, &production(), true)).is_ok());
    refused("decider", &summary(other, &production(), true), &says);
    refused("decider", &summary(GATE, &staging(), true), "verification-summary for staging: its roles are decisions");
    assert!(said(rules(), "recorder", &summary(GATE, &staging(), false)).is_ok());
    refused("recorder", &summary(other, &production(), false), &says.replace("decisions", "records"));
    let unlisted = SignerRule { verifier_ids: Allowed::nothing(), ..rule("decider", &[Role::Decisions]) };
    let error = said(vec![unlisted], "decider", &summary(GATE, &production(), true)).unwrap_err();
    assert!(matches!(error, Error::Verifier { .. }), "an omitted list allows nothing: {error}");
    let unlisted = SignerRule { environments: Allowed::nothing(), ..rule("decider", &[Role::Decisions]) };
    let error = said(vec![unlisted], "decider", &summary(GATE, &production(), true)).unwrap_err();
    assert!(matches!(error, Error::Environment { .. }), "an omitted list allows nothing: {error}");
    let mut odd = summary(GATE, &production(), true);
    odd.predicate["verificationResult"] = json!("passed");
    refused("decider", &odd, "a denied verification-summary");
    odd.predicate["sluicegate_environment"] = Value::Null;
    assert!(matches!(said(rules(), "decider", &odd), Err(Error::Form(_))));
}

#[test]
fn tm06_a_key_of_two_roles_speaks_in_the_one_that_may() {
    let both = vec![rule("builder", &[Role::Steps, Role::Records])];
    let scan = said(both.clone(), "builder", &about_image(PredicateType::Vulns, scan())).unwrap();
    assert!(scan.is_in_role(Role::Steps) && scan.is_in_role(Role::Records));
    let sbom = said(both, "builder", &sbom()).unwrap();
    assert!(sbom.is_in_role(Role::Steps) && !sbom.is_in_role(Role::Records));
    let both = || {
        vec![SignerRule {
            environments: [production()].into_iter().collect(),
            ..rule("builder", &[Role::Decisions, Role::Records])
        }]
    };
    let yes = said(both(), "builder", &summary(GATE, &production(), true)).unwrap();
    assert!(yes.is_in_role(Role::Decisions) && !yes.is_in_role(Role::Records));
    let no = said(both(), "builder", &summary(GATE, &production(), false)).unwrap();
    assert!(no.is_in_role(Role::Records) && !no.is_in_role(Role::Decisions));
}
