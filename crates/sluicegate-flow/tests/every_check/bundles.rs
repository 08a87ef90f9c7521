//! One bundle: signature, log entry, what nobody authenticates, who may say what.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body},
    dsse,
    predicate::PredicateType,
    statement::Statement,
};
use sluicegate_ports::sign::{Signer, TransparencyLog};
use sluicegate_testkit::{VirtualBuild, VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{
    Digest, Repository, RepositoryPattern, UnixTime,
    checks::{Check, without},
};
use sluicegate_verify::{
    GroupRule, Person, Revocation, Role, SignerRule, Trust, TrustRoot, TrustRules, threshold::endorsed, verify,
};

use crate::fixture::{
    GATE, LOG, Said, Tried, about, changed, environment, image, part, promotion, rule, rules, said, summary, trust,
    trust_in, trust_of,
};

const ENTRY: &str = "/verificationMaterial/tlogEntries/0";
const PROOF: &str = "/verificationMaterial/tlogEntries/0/inclusionProof";

fn sbom() -> Statement {
    about(image(), PredicateType::Sbom, json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}))
}

/// A bundle of `builder` with entries on both sides of its own.
fn good() -> (VirtualLog, Vec<u8>) {
    let log = VirtualLog::new(LOG);
    log.fill(5);
    sign_statement(&VirtualSigner::new("builder"), &log, &sbom());
    log.fill(7);
    let bundle = sign_statement(&VirtualSigner::new("builder"), &log, &sbom());
    (log, bundle)
}

/// The good bundle beside the same with this change.
fn changed_bundle(what: &'static str, words: &'static str, change: impl Fn(&mut Value)) -> Tried {
    let (log, bundle) = good();
    let trust = trust(&log);
    let ask = |bundle: &[u8]| said(verify(bundle, &trust, today()));
    Tried::good(ask(&bundle)).fault(what, words, ask(&changed(&bundle, change)))
}

fn set(pointer: &'static str, key: &'static str, new: impl Into<Value>) -> impl Fn(&mut Value) {
    let new = new.into();
    move |value| value.pointer_mut(pointer).unwrap()[key] = new.clone()
}

pub(crate) fn tm06_a_signature_is_the_signers_over_these_bytes() -> Tried {
    let words = "the signature is not builder's";
    let other = BASE64.encode(VirtualSigner::new("builder").sign(b"something else").unwrap());
    let one = changed_bundle("of something else", words, set("/dsseEnvelope/signatures/0", "sig", other));
    let payload = String::from_utf8(sbom().to_payload().unwrap()).unwrap().replace("shop", "mall");
    let (log, bundle) = good();
    let mall = changed(&bundle, set("/dsseEnvelope", "payload", BASE64.encode(payload)));
    one.fault("another payload", words, said(verify(&mall, &trust(&log), today())))
}

pub(crate) fn tm13_an_entry_is_proved_by_its_log() -> Tried {
    let words = "the log entry is not proved";
    let moved = changed_bundle("at another place", words, |value| {
        value.pointer_mut(ENTRY).unwrap()["logIndex"] = json!("4");
        value.pointer_mut(PROOF).unwrap()["logIndex"] = json!("4");
    });
    let (log, bundle) = good();
    let ask = |change: &dyn Fn(&mut Value)| said(verify(&changed(&bundle, change), &trust(&log), today()));
    let unproved = ask(&|value| value.pointer_mut(PROOF).unwrap()["hashes"] = json!([]));
    let unsigned = ask(&|value| {
        let note = value.pointer_mut(PROOF).unwrap()["checkpoint"]["envelope"].take();
        let text = note.as_str().unwrap().split("\n\n").next().unwrap().to_owned();
        value.pointer_mut(PROOF).unwrap()["checkpoint"]["envelope"] = json!(text + "\n\n");
    });
    moved.fault("no hashes", words, unproved).fault("an unsigned checkpoint", words, unsigned)
}

pub(crate) fn tm13_a_checkpoint_carries_the_name_that_the_trusted_root_has_for_its_log() -> Tried {
    let (log, bundle) = good();
    let ask = |name: &str| {
        let root =
            changed(&log.trusted_root_json(), |root| root["tlogs"][0]["baseUrl"] = json!(format!("https://{name}")));
        let untimed = BTreeSet::from([LOG.to_owned(), "renamed.example".to_owned()]);
        let trust = Trust::new(rules(), untimed, vec![], TrustRoot::parse(&root).unwrap()).unwrap();
        said(verify(&bundle, &trust, today()))
    };
    Tried::good(ask(LOG)).fault("another name", "checkpoint origin disagrees", ask("renamed.example"))
}

pub(crate) fn tm13_the_tree_size_is_the_checkpoints() -> Tried {
    changed_bundle("one more", "treeSize disagrees", set(PROOF, "treeSize", "9"))
}

pub(crate) fn tm13_the_root_hash_is_the_checkpoints() -> Tried {
    let other = BASE64.encode(Digest::of(b"another root").as_bytes());
    changed_bundle("another root", "rootHash disagrees", set(PROOF, "rootHash", other))
}

pub(crate) fn tm13_both_log_indexes_are_one() -> Tried {
    changed_bundle("two places", "inclusionProof.logIndex disagrees", set(PROOF, "logIndex", "4"))
}

pub(crate) fn tm13_an_entry_is_of_the_one_kind_that_is_read() -> Tried {
    // The library refuses what it does not know before this check is asked: what it would let through is looked at without it.
    without(&[Check::LogEntry], || {
        changed_bundle("another version", "kindVersion disagrees", |value| {
            value.pointer_mut(ENTRY).unwrap()["kindVersion"]["version"] = json!("0.0.3");
        })
    })
}

pub(crate) fn tm14_a_time_that_nobody_signed_is_refused() -> Tried {
    changed_bundle("a time", "integratedTime disagrees", set(ENTRY, "integratedTime", "1767312000"))
}

pub(crate) fn tm13_the_logged_body_is_the_one_of_this_signature() -> Tried {
    let (log, bundle) = good();
    let trust = trust(&log);
    let parsed = Bundle::parse(&bundle).unwrap();
    let builder = VirtualSigner::new("builder");
    let pae = Digest::of(&dsse::pae(dsse::IN_TOTO, &parsed.payload));
    let body = hashedrekord_body(&pae, &parsed.signature, builder.public_key());
    let logged = |body: Vec<u8>| {
        let entry = log.append(&[body]).unwrap().remove(0);
        let bytes = Bundle::assemble(&parsed.payload, &parsed.signature, builder.public_key(), entry).unwrap();
        // The library compares what the body says, and not its bytes: this is about what it would let through.
        said(without(&[Check::LogEntry], || verify(&bytes, &trust, today())))
    };
    let spaced = String::from_utf8(body.clone()).unwrap().replace("\"kind\":", "\"kind\": ").into_bytes();
    Tried::good(logged(body)).fault("other bytes", "canonicalizedBody disagrees", logged(spaced))
}

pub(crate) fn tm14_a_logs_key_counts_within_its_window() -> Tried {
    let (log, bundle) = good();
    let second = |seconds: i64| UnixTime::from_seconds(seconds).unwrap();
    let trust = trust_of(rules(), vec![], &log.trusted_root_json_within(second(1000), Some(second(2000))));
    let ask = |moment: i64| said(verify(&bundle, &trust, second(moment)));
    Tried::good(ask(1000).and(ask(2000))).fault("a second early", "is not trusted at", ask(999)).fault(
        "a second late",
        "is not trusted at",
        ask(2001),
    )
}

pub(crate) fn tm13_a_log_without_time_counts_only_where_it_is_listed() -> Tried {
    let (log, bundle) = good();
    let ask = |listed: &[&str]| {
        let untimed = listed.iter().map(|name| (*name).to_owned()).collect();
        let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
        said(verify(&bundle, &Trust::new(rules(), untimed, vec![], root).unwrap(), today()))
    };
    Tried::good(ask(&[LOG])).fault("none listed", "formats.untimed", ask(&[])).fault(
        "another listed",
        "formats.untimed",
        ask(&["elsewhere.example"]),
    )
}

pub(crate) fn tm14_a_revoked_signer_is_not_believed() -> Tried {
    let (log, bundle) = good();
    // Its entry has index 5.
    let ask = |signer: &str, before: Option<u64>| {
        let before = before.map(|size| (LOG.to_owned(), size));
        let revoked = vec![Revocation { signer: signer.to_owned(), before }];
        said(verify(&bundle, &trust_of(rules(), revoked, &log.trusted_root_json()), today()))
    };
    Tried::good(ask("builder", Some(6)).and(ask("person", None)))
        .fault("beyond the size", "builder is revoked", ask("builder", Some(5)))
        .fault("for good", "builder is revoked", ask("builder", None))
}

/// What `signer` says, with these rules.
fn says(rules: Vec<SignerRule>, signer: &str, statement: &Statement) -> Said {
    let log = VirtualLog::new(LOG);
    let bundle = sign_statement(&VirtualSigner::new(signer), &log, statement);
    said(verify(&bundle, &trust_in(rules, &log), today()))
}

pub(crate) fn tm06_a_key_says_only_what_its_roles_say() -> Tried {
    let ask = |signer: &str| says(rules(), signer, &sbom());
    Tried::good(ask("builder")).fault("by the recorder", "recorder may not sign sbom", ask("recorder")).fault(
        "by the decider",
        "decider may not sign sbom",
        ask("decider"),
    )
}

pub(crate) fn tm06_a_key_claims_only_its_builders() -> Tried {
    let statement = part(&VirtualBuild::new("run-1", image()), "image");
    let mut foreign = statement.clone();
    foreign.predicate["runDetails"]["builder"]["id"] = json!("https://example.com/other");
    Tried::good(says(rules(), "builder", &statement)).fault(
        "another builder",
        "may not claim the builder",
        says(rules(), "builder", &foreign),
    )
}

fn decision(edit: impl FnOnce(&mut sluicegate_attestation::summary::VerificationSummary)) -> Statement {
    let mut summary = summary(image());
    edit(&mut summary);
    about(image(), PredicateType::VerificationSummary, summary.to_predicate())
}

fn record(edit: impl FnOnce(&mut sluicegate_attestation::summary::Promotion)) -> Statement {
    let mut promotion = promotion(image(), Some(Digest::of(b"decision")));
    edit(&mut promotion);
    about(image(), PredicateType::Promotion, promotion.to_predicate())
}

pub(crate) fn tm05_a_key_decides_only_as_its_verifiers() -> Tried {
    let ask = |verifier: &str| says(rules(), "decider", &decision(|it| it.verifier_id = verifier.to_owned()));
    Tried::good(ask(GATE)).fault("another", "its verifier_ids don't list that", ask("https://example.com/stranger"))
}

pub(crate) fn tm05_a_key_decides_only_for_its_environments() -> Tried {
    let ask = |name: &str| says(rules(), "decider", &decision(|it| it.environment = environment(name)));
    Tried::good(ask("production")).fault("another", "verification-summary for canary", ask("canary"))
}

pub(crate) fn tm05_a_key_promotes_only_to_its_environments() -> Tried {
    let ask = |name: &str| says(rules(), "decider", &record(|it| it.environment = environment(name)));
    Tried::good(ask("production")).fault("another", "promotion for canary", ask("canary"))
}

pub(crate) fn tm05_a_decisions_key_says_yes_and_a_records_key_everything_else() -> Tried {
    let (yes, no) = (decision(|_| {}), decision(|it| it.passed = false));
    let (gated, ungated) = (record(|_| {}), record(|it| it.decision = None));
    let ask = |signer: &str, statement: &Statement| says(rules(), signer, statement);
    let decider = ask("decider", &yes).and(ask("decider", &gated));
    Tried::good(decider.and(ask("recorder", &no)).and(ask("recorder", &ungated)))
        .fault("no by the decider", "a denied verification-summary", ask("decider", &no))
        .fault("ungated by the decider", "an ungated promotion", ask("decider", &ungated))
        .fault("yes by the recorder", "an allowed verification-summary", ask("recorder", &yes))
        .fault("gated by the recorder", "a gated promotion", ask("recorder", &gated))
}

pub(crate) fn tm06_every_signer_has_a_key_of_its_own() -> Tried {
    let ask = |key: &str| {
        let mut rules = rules();
        rules.push(SignerRule {
            public_key: VirtualSigner::new(key).public_key().to_vec(),
            ..rule("twin", &[Role::Decisions])
        });
        let root = TrustRoot::parse(&VirtualLog::new(LOG).trusted_root_json()).unwrap();
        said(Trust::new(rules, BTreeSet::new(), vec![], root))
    };
    Tried::good(ask("twin")).fault("the builder's", "have the same key", ask("builder"))
}

/// Whether these signers' common word about production is that of a group of two.
fn endorses(people: &[Person], by: &[&str]) -> Said {
    endorses_where(people, by, "*")
}

/// The same, where a list of alice's own says for which repositories she speaks.
fn endorses_where(people: &[Person], by: &[&str], alice: &str) -> Said {
    let log = VirtualLog::new(LOG);
    let vexers = GroupRule {
        name: "vexers".to_owned(),
        threshold: 2,
        of: ["alice", "bob", "anna"].map(str::to_owned).into(),
        roles: BTreeSet::from([Role::Manual]),
        predicate_types: None,
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    let repositories = |name: &str| Some(vec![if name == "alice" { alice } else { "*" }.parse().unwrap()]);
    let signer = |name: &str| SignerRule { repositories: repositories(name), ..rule(name, &[Role::Manual]) };
    let rules = TrustRules {
        signers: ["alice", "bob", "anna"].map(signer).into(),
        groups: vec![vexers],
        people: people.to_vec(),
        untimed: BTreeSet::from([LOG.to_owned()]),
        ..TrustRules::default()
    };
    let trust = Trust::from_rules(rules, TrustRoot::parse(&log.trusted_root_json()).unwrap()).unwrap();
    let vex = about(image(), PredicateType::Vex, json!({"statements": []}));
    let said =
        |signer: &&str| verify(&sign_statement(&VirtualSigner::new(signer), &log, &vex), &trust, today()).unwrap();
    let words = endorsed(
        &by.iter().map(said).collect::<Vec<_>>(),
        &trust,
        Some(&Repository::of_environment(&environment("production"))),
    );
    if words.is_empty() { Err("it is nobody's word".to_owned()) } else { Ok(()) }
}

pub(crate) fn tm06_two_keys_of_one_person_are_one_voice() -> Tried {
    let signers = ["alice", "anna"].map(str::to_owned).into();
    let one = [Person { name: "alice".to_owned(), emails: BTreeSet::new(), signers }];
    Tried::good(endorses(&one, &["alice", "bob"]).and(endorses(&[], &["alice", "anna"]))).fault(
        "one person",
        "nobody's word",
        endorses(&one, &["alice", "anna"]),
    )
}

pub(crate) fn tm06_a_group_speaks_with_as_many_voices_as_it_says() -> Tried {
    Tried::good(endorses(&[], &["alice", "bob"])).fault("one voice", "nobody's word", endorses(&[], &["alice"]))
}

pub(crate) fn tm06_a_voice_counts_only_where_its_own_list_lets_it() -> Tried {
    let ask = |alice: &str| endorses_where(&[], &["alice", "bob"], alice);
    Tried::good(ask("oci:production")).fault("elsewhere", "nobody's word", ask("oci:staging"))
}
