//! Each role's key on each kind of statement: what may be said is accepted, everything else is refused by name (trust model 5, 6).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod world;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::{
    predicate::PredicateType,
    statement::Statement,
    summary::{Promotion, VerificationSummary},
};
use sluicegate_testkit::{VirtualBuild, VirtualLog, VirtualSigner, sign_statement, today, vulns};
use sluicegate_types::{Digest, EnvironmentName, PinnedImage, Repository};
use sluicegate_verify::{Error, Role, SignerRule, VerifiedStatement, verify};
use world::{GATE, LOG, about_image, image, rule, rules, sbom, trust_in};

const ROLES: [(Role, &str); 4] =
    [(Role::Steps, "builder"), (Role::Decisions, "decider"), (Role::Records, "recorder"), (Role::Manual, "person")];

fn production() -> EnvironmentName {
    "production".parse().unwrap()
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
    };
    about_image(PredicateType::VerificationSummary, summary.to_predicate())
}

fn promotion(environment: &EnvironmentName) -> Statement {
    let promotion = Promotion {
        image: image(),
        source: "build".to_owned(),
        destination: PinnedImage { repository: Repository::of_environment(environment), digest: image() },
        timestamp: today(),
        builder_id: "https://example.com/gate".to_owned(),
        decision: None,
        environment: environment.clone(),
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

#[test]
fn each_role_says_what_it_may_and_nothing_else() {
    use Role::{Decisions, Manual, Records, Steps};
    let other = PredicateType::Other("https://example.com/review/v1".to_owned());
    let local = sluicegate_attestation::identifiers::LOCAL_BUILDER;
    let claims: [(&str, Statement, &[Role]); 9] = [
        ("provenance", provenance(local), &[Steps]),
        ("sbom", sbom(), &[Steps, Manual]),
        ("vulns", about_image(PredicateType::Vulns, scan()), &[Steps, Records]),
        ("test-result", about_image(PredicateType::TestResult, json!({"result": "PASSED"})), &[Steps, Manual]),
        ("a yes", summary(GATE, &production(), true), &[Decisions]),
        ("a no", summary(GATE, &production(), false), &[Records]),
        ("promotion", promotion(&production()), &[Decisions, Records]),
        ("signature", about_image(PredicateType::ImageSignature, json!({})), &[Decisions]),
        ("other", about_image(other, json!({"reviewed": true})), &[Manual]),
    ];
    for (what, statement, may) in claims {
        for (role, signer) in ROLES {
            match said(rules(), signer, &statement) {
                Ok(verified) => {
                    assert!(may.contains(&role), "{role} said {what}");
                    assert_eq!(verified.signer(), signer);
                    let in_roles: Vec<Role> =
                        ROLES.into_iter().map(|(role, _)| role).filter(|role| verified.is_in_role(*role)).collect();
                    assert_eq!(in_roles, [role], "{what}");
                }
                // A summary is something both may sign; only what it says is not theirs.
                Err(Error::Verifier { signer: named, .. }) => {
                    assert!(!may.contains(&role) && named == signer, "{role}: {what}");
                    assert!(
                        ["a yes", "a no"].contains(&what) && [Decisions, Records].contains(&role),
                        "{role}: {what}"
                    );
                }
                Err(Error::Role { signer: named, predicate, roles }) => {
                    assert!(!may.contains(&role) && named == signer, "{role} could not say {what}");
                    assert_eq!((&predicate, roles.as_str()), (&statement.predicate_type, role.name()));
                }
                Err(error) => panic!("{role}: {what}: {error}"),
            }
        }
    }
}

fn scan() -> Value {
    vulns(b"report", Digest::of(b"database")).to_predicate(&[])
}

#[test]
fn a_listed_predicate_type_narrows_a_role_and_never_widens_it() {
    let listing = |types: &[PredicateType]| {
        let mut listed = rule("builder", &[Role::Steps]);
        listed.predicate_types = Some(types.iter().cloned().collect());
        vec![listed]
    };
    assert!(said(listing(&[PredicateType::Sbom]), "builder", &sbom()).is_ok());
    assert!(matches!(said(listing(&[PredicateType::Vulns]), "builder", &sbom()), Err(Error::Role { .. })));
    assert!(matches!(said(listing(&[]), "builder", &sbom()), Err(Error::Role { .. })));
    let signature = about_image(PredicateType::ImageSignature, json!({}));
    let widened = listing(&[PredicateType::ImageSignature]);
    assert!(matches!(said(widened, "builder", &signature), Err(Error::Role { .. })));
    assert!(matches!(said(vec![rule("builder", &[])], "builder", &sbom()), Err(Error::Role { .. })));
}

#[test]
fn provenance_counts_only_of_builders_that_the_signer_may_claim() {
    let local = sluicegate_attestation::identifiers::LOCAL_BUILDER;
    assert!(said(rules(), "builder", &provenance(local)).is_ok());
    let error = said(rules(), "builder", &provenance("https://example.com/other")).unwrap_err();
    assert!(matches!(error, Error::Builder { builder, .. } if builder == "https://example.com/other"));
    let mut unlisted = rule("builder", &[Role::Steps]);
    unlisted.builder_ids.clear();
    assert!(matches!(said(vec![unlisted], "builder", &provenance(local)), Err(Error::Builder { .. })));
}

#[test]
fn a_decision_counts_only_of_listed_verifiers_and_environments() {
    let staging: EnvironmentName = "staging".parse().unwrap();
    let refused = |statement: &Statement| {
        let error = said(rules(), "decider", statement).unwrap_err();
        assert!(matches!(error, Error::Verifier { .. }), "{error}");
    };
    assert!(said(rules(), "decider", &summary(GATE, &production(), true)).is_ok());
    refused(&summary("https://example.com/other", &production(), true));
    refused(&summary(GATE, &staging, true));
    for empty in [
        SignerRule { verifier_ids: BTreeSet::new(), ..rule("decider", &[Role::Decisions]) },
        SignerRule { environments: BTreeSet::new(), ..rule("decider", &[Role::Decisions]) },
    ] {
        let error = said(vec![empty], "decider", &summary(GATE, &production(), true)).unwrap_err();
        assert!(matches!(error, Error::Verifier { .. }), "an omitted list allows nothing: {error}");
    }
    let mut odd = summary(GATE, &production(), true);
    odd.predicate["verificationResult"] = json!("passed");
    refused(&odd);
    odd.predicate["sluicegate_environment"] = Value::Null;
    assert!(matches!(said(rules(), "decider", &odd), Err(Error::Form(_))));
}

#[test]
fn a_promotion_counts_only_of_the_environments_own_key_or_of_the_records() {
    let staging: EnvironmentName = "staging".parse().unwrap();
    assert!(said(rules(), "decider", &promotion(&production())).is_ok());
    let error = said(rules(), "decider", &promotion(&staging)).unwrap_err();
    assert!(matches!(error, Error::Verifier { environment, .. } if environment == "staging"));
    assert!(said(rules(), "recorder", &promotion(&staging)).is_ok());
}

#[test]
fn a_key_of_two_roles_speaks_in_the_one_that_may() {
    let both = vec![rule("builder", &[Role::Steps, Role::Records])];
    let scan = said(both.clone(), "builder", &about_image(PredicateType::Vulns, scan())).unwrap();
    assert!(scan.is_in_role(Role::Steps) && scan.is_in_role(Role::Records));
    let sbom = said(both, "builder", &sbom()).unwrap();
    assert!(sbom.is_in_role(Role::Steps) && !sbom.is_in_role(Role::Records));
}
