//! trust.yaml with its keys, from text to whose statements count; and keys that somebody names instead of it.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{IMAGE_MANIFEST, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::{Statement, Subject},
    summary::{LedgerHead, VerificationSummary},
};
use sluicegate_flow::{
    Error,
    gateway::{GatewayFiles, judge_of, trust, trust_in_key, trust_in_keys},
};
use sluicegate_pipeline::gateway::Gateway;
use sluicegate_policy::rego::SourceFile;
use sluicegate_ports::sign::Signer;
use sluicegate_testkit::{VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, NonEmpty, PinnedImage, Repository, UnixTime};
use sluicegate_verify::{Role, Trust, VerifiedStatement, threshold::endorsed, verify};

const LOG: &str = "log.example";
const GATE: &str = "https://gate.example";

const GATEWAY: &str = r#"
version: 1
environments:
  production: { repository: oci:env/production, tag: current, gate: release }
gates:
  release: { policies: [policies], require: [provenance, sbom] }
trust: trust/trust.yaml
signing: { steps: key:builder, records: key:recorder, decisions: { production: key:production } }
verifier_id: https://gate.example
trust_root: trust/trusted_root.json
log: embedded
"#;

const TRUST: &str = r#"
version: 1
signers:
  builder: { key: builder.pub, roles: [steps], builder_ids: ["https://sluicegate.dev/builder/local@v1"], repositories: ["*"] }
  recorder: { key: recorder.pub, roles: [records], verifier_ids: ["https://gate.example"] }
  production: { key: production.pub, roles: [decisions], environments: [production], verifier_ids: ["https://gate.example"] }
  reviewer: { key: reviewer.pub, roles: [manual], predicate_types: [sbom, "https://example.com/review/v1"], repositories: ["oci:production"] }
  vexers: { threshold: 2, of: [alice, bob], roles: [manual], predicate_types: [vex], repositories: ["*"] }
  alice: { key: alice.pub, roles: [manual], repositories: ["oci:staging"] }
  bob: { key: bob.pub }
revoked: []
people: { alice: { emails: [alice@example], signer: alice }, bob: { signer: bob } }
formats: { bundles: [v0.3], statements: [v1], untimed: [log.example] }
gateways: [sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad]
levels: { builder: SLSA_BUILD_LEVEL_1 }
"#;

struct Files(BTreeMap<String, Vec<u8>>);

impl GatewayFiles for Files {
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let name = path.display().to_string();
        self.0.get(&name).cloned().ok_or_else(|| Error::Usage(format!("no file {name}")))
    }

    fn policies(&self, _: &Path) -> Result<Vec<SourceFile>, Error> {
        Ok(Vec::new())
    }
}

fn pem(signer: &str) -> Vec<u8> {
    let key = BASE64.encode(VirtualSigner::new(signer).public_key());
    format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n").into_bytes()
}

fn root() -> Vec<u8> {
    VirtualLog::new(LOG).trusted_root_json()
}

/// The trust file with this text, its keys beside it.
fn files(text: &str) -> Files {
    let mut files: BTreeMap<String, Vec<u8>> = ["builder", "recorder", "production", "reviewer", "alice", "bob"]
        .map(|name| (format!("trust/{name}.pub"), pem(name)))
        .into();
    files.insert("trust/trust.yaml".to_owned(), text.as_bytes().to_vec());
    files.insert("trust/trusted_root.json".to_owned(), root());
    Files(files)
}

/// The trust of this text.
fn trust_from(text: &str) -> Result<Trust, Error> {
    let (trust, levels) = trust(&Gateway::parse("gateway.yaml", GATEWAY).unwrap(), &files(text))?;
    assert_eq!(levels["builder"], "SLSA_BUILD_LEVEL_1");
    Ok(trust)
}

/// The trust with one place of the file changed.
fn changed(from: &str, to: &str) -> Result<Trust, Error> {
    assert!(TRUST.contains(from), "{from}");
    trust_from(&TRUST.replacen(from, to, 1))
}

fn claim(predicate_type: PredicateType, predicate: Value) -> Statement {
    let subject = Subject { name: None, digest: Digest::of(b"image"), media_type: Some(IMAGE_MANIFEST.to_owned()) };
    Statement { subjects: NonEmpty::one(subject), predicate_type, predicate }
}

fn provenance(builder: &str) -> Statement {
    claim(PredicateType::Provenance, json!({"runDetails": {"builder": {"id": builder}}}))
}

fn summary(verifier: &str, environment: &str, passed: bool) -> Statement {
    let environment = environment.parse().unwrap();
    let summary = VerificationSummary {
        verifier_id: verifier.to_owned(),
        time_verified: today(),
        resource: PinnedImage { repository: Repository::of_environment(&environment), digest: Digest::of(b"image") },
        policy: Digest::of(b"gateway"),
        inputs: Vec::new(),
        passed,
        levels: Vec::new(),
        environment,
        expires: today().plus(60),
        authority: "self".to_owned(),
        ledger: LedgerHead { origin: "ledger.example".to_owned(), size: 1, root: Digest::of(b"root") },
    };
    claim(PredicateType::VerificationSummary, summary.to_predicate())
}

/// What `signer` says, at index 5 of the log.
fn said(trust: &Trust, signer: &str, statement: &Statement) -> Result<VerifiedStatement, String> {
    said_in(&VirtualLog::new(LOG), trust, signer, statement)
}

fn said_in(log: &VirtualLog, trust: &Trust, signer: &str, statement: &Statement) -> Result<VerifiedStatement, String> {
    log.fill(5);
    let bundle = sign_statement(&VirtualSigner::new(signer), log, statement);
    verify(&bundle, trust, today()).map_err(|error| error.to_string())
}

fn sbom() -> Statement {
    claim(PredicateType::Sbom, json!({}))
}

#[test]
fn inner_servers_that_steps_may_reach_are_part_of_the_judges_digest() {
    let judge = |egress: &str| {
        let gateway = Gateway::parse("gateway.yaml", &format!("{GATEWAY}{egress}\n")).unwrap();
        judge_of(&gateway, &"production".parse().unwrap(), &files(TRUST), UnixTime::EPOCH).unwrap().gateway
    };
    let before = judge("");
    assert_eq!(judge("egress: {}"), before);
    assert_eq!(judge("egress: { private: [] }"), before);
    let one = judge("egress: { private: [nexus.example:443] }");
    let two = judge("egress: { private: [nexus.example:443, 10.0.0.1:80] }");
    assert!(one != before && two != one && two != before);
    assert_eq!(judge("egress: { private: [10.0.0.1:80, Nexus.example:443] }"), two);
}

/// The judge's digest, or why there is none, with this waiver file and these accepted gaps, at this moment.
fn judge_with(waivers: Option<&str>, coverage: &str, at: &str) -> Result<Digest, String> {
    let named = if waivers.is_some() { "waivers: waivers.yaml\n" } else { "" };
    let gateway = Gateway::parse("gateway.yaml", &format!("{GATEWAY}{named}{coverage}")).unwrap();
    let mut files = files(TRUST);
    files.0.extend(waivers.map(|text| ("waivers.yaml".to_owned(), text.as_bytes().to_vec())));
    judge_of(&gateway, &"production".parse().unwrap(), &files, at.parse().unwrap())
        .map(|judge| judge.gateway)
        .map_err(|error| error.to_string())
}

#[test]
fn tm17_what_is_accepted_is_part_of_the_judges_digest() {
    let at = "2026-11-25T00:00:00Z";
    let coverage = |gap: &str| {
        format!(
            "coverage: [{{ digest: {}, gap: {gap}, owner: olga, approver: arno, reason: it moves, expires: 2026-12-25 }}]\n",
            Digest::of(b"image")
        )
    };
    let mut all = vec![
        judge_with(None, "", at).unwrap(),
        judge_with(Some("waivers: []"), "", at).unwrap(),
        judge_with(Some("waivers: [ ]"), "", at).unwrap(),
        judge_with(None, &coverage("system-ended"), at).unwrap(),
        judge_with(None, &coverage("system-unknown"), at).unwrap(),
    ];
    assert_eq!(judge_with(None, "coverage: []", at).unwrap(), all[0]);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
}

#[test]
fn tm17_nobody_accepts_a_risk_for_longer_than_ninety_days_or_approves_his_own() {
    let waivers = |approver: &str, expires: &str| {
        format!(
            "waivers:\n  - {{ code: a.b, term: CVE-1, digest: {}, environment: production, owner: alice@example,\n      approver: {approver}, reason: it moves, expires: {expires} }}\n",
            Digest::of(b"image")
        )
    };
    let at = "2026-11-25T00:00:00Z";
    let ask = |approver: &str, expires: &str, at: &str| judge_with(Some(&waivers(approver, expires)), "", at);
    assert!(ask("arno", "2027-02-23T00:00:00Z", at).is_ok());
    let error = ask("arno", "2027-02-23T00:00:01Z", at).unwrap_err();
    assert!(error.contains("waivers.yaml: line 2") && error.contains("more than 90 days"), "{error}");
    // The same file later is one that ends soon, or has ended.
    assert!(ask("arno", "2027-02-23T00:00:01Z", "2026-11-25T00:00:01Z").is_ok());
    assert!(ask("arno", "2026-11-25T00:00:00Z", at).is_ok());
    for alice in ["alice", "Alice"] {
        let error = ask(alice, "2026-12-25T00:00:00Z", at).unwrap_err();
        assert!(error.contains("owner and approver are both alice"), "{error}");
    }
    assert!(ask("bob", "2026-12-25T00:00:00Z", at).is_ok());
    let coverage = format!(
        "coverage: [{{ digest: {}, owner: olga, approver: arno, reason: it moves, expires: 2027-02-24 }}]\n",
        Digest::of(b"lock")
    );
    let error = judge_with(None, &coverage, at).unwrap_err();
    assert!(error.contains("gateway.yaml: line") && error.contains("more than 90 days"), "{error}");
    assert!(judge_with(None, &coverage, "2026-11-26T00:00:00Z").is_ok());
}

#[test]
fn tm06_everything_in_the_file_has_its_effect() {
    let trust = trust_from(TRUST).unwrap();
    assert!(said(&trust, "builder", &provenance(LOCAL_BUILDER)).unwrap().is_in_role(Role::Steps));
    assert!(said(&trust, "production", &summary(GATE, "production", true)).unwrap().is_in_role(Role::Decisions));
    assert!(said(&trust, "recorder", &summary(GATE, "staging", false)).unwrap().is_in_role(Role::Records));
    let review = claim(PredicateType::from_uri("https://example.com/review/v1"), json!({}));
    assert!(said(&trust, "reviewer", &review).unwrap().is_in_role(Role::Manual));
    let vex = claim(PredicateType::Vex, json!({}));
    let refused = said(&trust, "reviewer", &vex).unwrap_err();
    assert_eq!(refused, "reviewer may not sign vex: its roles are manual");
    let words = ["alice", "bob"].map(|signer| said(&trust, signer, &vex).unwrap());
    let production = Repository::of_environment(&"production".parse().unwrap());
    let staging = Repository::of_environment(&"staging".parse().unwrap());
    assert_eq!(endorsed(&words, &trust, Some(&staging))[0].group(), "vexers");
    assert!(endorsed(&words, &trust, Some(&production)).is_empty(), "alice's own list leaves it out");
    assert!(trust.covers("builder", None) && trust.covers("recorder", Some(&staging)));
    assert!(trust.covers("reviewer", Some(&production)) && !trust.covers("reviewer", Some(&staging)));
    assert!(!trust.covers("alice", Some(&production)), "alice speaks for another place");
    assert!(trust.accepts_authority("self", &Digest::of(b"abc")));
    assert!(!trust.accepts_authority("self", &Digest::of(b"abd")));
    let all = changed("levels:", "authority_self: true\nlevels:").unwrap();
    assert!(all.accepts_authority("self", &Digest::of(b"abd")));
    let names: Vec<&str> = trust.people().iter().map(|person| person.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
}

#[test]
fn tm06_a_type_that_would_silently_do_nothing_is_refused_with_its_place() {
    let reviewer = "predicate_types: [sbom, \"https://example.com/review/v1\"]";
    for good in ["[vex]", "[\"https://openvex.dev/ns/v0.2.0\", test-result]", "[\"urn:review\"]", "[]"] {
        changed(reviewer, &format!("predicate_types: {good}")).unwrap();
    }
    for (types, says) in [
        ("[sbmo]", "signers.reviewer.predicate_types: no type is called \"sbmo\""),
        ("[SBOM]", "signers.reviewer.predicate_types: no type is called \"SBOM\""),
        ("[provenance]", "signers.reviewer.predicate_types: provenance: none of its roles may sign it"),
        ("[\"https://slsa.dev/provenance/v1\"]", "signers.reviewer.predicate_types: provenance: none"),
        ("[\"https://slsa.dev/provenance/v0.2\"]", "predicate_types: https://slsa.dev/provenance/v0.2: none"),
        ("[sbom, signature]", "signers.reviewer.predicate_types: signature: none of its roles may sign it"),
    ] {
        let error = changed(reviewer, &format!("predicate_types: {types}")).unwrap_err().to_string();
        assert!(error.starts_with("trust/trust.yaml: ") && error.contains(says), "{types}: {error}");
    }
    for (from, to, says) in [
        ("predicate_types: [vex]", "predicate_types: [vulns]", "signers.vexers.predicate_types: vulns: none"),
        ("predicate_types: [vex]", "predicate_types: [vexx]", "signers.vexers.predicate_types: no type is called"),
        ("alice.pub, roles: [manual]", "alice.pub, roles: [manual], predicate_types: [vex]", "towards the threshold"),
        ("roles: [records]", "roles: [records], predicate_types: [sbom]", "signers.recorder.predicate_types: sbom"),
        ("key: bob.pub", "key: alice.pub", "have the same key"),
    ] {
        let error = changed(from, to).unwrap_err().to_string();
        assert!(error.starts_with("trust/trust.yaml: ") && error.contains(says), "{to}: {error}");
    }
}

#[test]
fn tm14_a_revocation_in_the_file_spares_only_what_it_says() {
    // Everything here is the entry with index 5 of its log, and carries no time, as key-signed entries never do.
    let revoking = |lines: &str| changed("revoked: []", &format!("revoked: [{lines}]")).unwrap();
    let refused = |lines: &str| {
        let error = said(&revoking(lines), "builder", &sbom()).unwrap_err();
        assert!(error.starts_with("builder is revoked: "), "{lines}: {error}");
        assert!(said(&revoking(lines), "alice", &sbom()).is_ok(), "{lines}");
    };
    assert!(said(&revoking(""), "builder", &sbom()).is_ok());
    assert!(said(&revoking("{ signer: builder, at: { log: log.example, size: 6 } }"), "builder", &sbom()).is_ok());
    refused("{ signer: builder, at: { log: log.example, size: 5 } }");
    refused("{ signer: builder, at: { log: log.example, size: 0 } }");
    refused("{ signer: builder, at: { log: elsewhere.example, size: 6 } }");
    refused("{ signer: builder, at: { log: LOG.example, size: 6 } }");
    refused("{ signer: builder }");
    refused("{ signer: builder, from: 2020-01-01T00:00:00Z }");
    refused("{ signer: builder, from: 2999-01-01T00:00:00Z }");
    let spared = "{ signer: builder, at: { log: log.example, size: 6 } }";
    assert!(said(&revoking(&format!("{spared}, {spared}")), "builder", &sbom()).is_ok());
    refused(&format!("{spared}, {{ signer: builder, at: {{ log: log.example, size: 3 }} }}"));
    refused(&format!("{{ signer: builder, from: 2999-01-01T00:00:00Z }}, {spared}"));
}

#[test]
fn tm13_a_log_without_times_counts_only_where_the_file_lists_it() {
    assert!(said(&trust_from(TRUST).unwrap(), "builder", &sbom()).is_ok());
    for untimed in ["[]", "[elsewhere.example]"] {
        let trust = changed("untimed: [log.example]", &format!("untimed: {untimed}")).unwrap();
        let error = said(&trust, "builder", &sbom()).unwrap_err();
        assert!(error.contains("log.example gives no time"), "{untimed}: {error}");
    }
    let elsewhere = VirtualLog::new("elsewhere.example");
    let error = said_in(&elsewhere, &trust_from(TRUST).unwrap(), "builder", &sbom()).unwrap_err();
    assert!(error.contains("not one of the trusted root"), "{error}");
}

#[test]
fn tm06_a_key_that_is_named_is_trusted_for_one_role_and_all_that_it_claims() {
    let key = trust_in_key(&pem("builder"), &root()).unwrap();
    let foreign = provenance("https://example.com/other");
    let yes = summary("https://example.com/other-gate", "anywhere", true);
    let no = summary("https://example.com/other-gate", "anywhere", false);
    assert!(said(&key, "builder", &foreign).unwrap().is_in_role(Role::Steps));
    assert_eq!(
        said(&key, "builder", &yes).unwrap_err(),
        "--key may not sign verification-summary: its roles are steps"
    );
    let decisions = trust_in_keys(None, Some(&pem("production")), &root()).unwrap();
    assert!(said(&decisions, "production", &yes).unwrap().is_in_role(Role::Decisions));
    assert!(said(&decisions, "production", &no).unwrap_err().contains("may not sign a denied verification-summary"));
    assert_eq!(
        said(&decisions, "production", &foreign).unwrap_err(),
        "--decision-key may not sign provenance: its roles are decisions"
    );
    assert!(said(&decisions, "builder", &foreign).unwrap_err().contains("unknown key"));

    let both = trust_in_keys(Some(&pem("builder")), Some(&pem("production")), &root()).unwrap();
    assert!(said(&both, "builder", &foreign).is_ok() && said(&both, "production", &yes).is_ok());
    assert!(said(&both, "builder", &yes).is_err() && said(&both, "production", &foreign).is_err());
    for flag in ["--key", "--decision-key"] {
        assert!(both.covers(flag, None));
    }
    assert!(!both.accepts_authority("self", &Digest::of(b"gateway")));
}

#[test]
fn keys_that_are_named_are_one_for_each_role_and_at_least_one() {
    let fault = |steps: Option<&[u8]>, decisions: Option<&[u8]>| {
        trust_in_keys(steps, decisions, &root()).unwrap_err().to_string()
    };
    let (builder, production) = (pem("builder"), pem("production"));
    assert!(trust_in_keys(Some(&builder), Some(&production), &root()).is_ok());
    assert!(fault(Some(&builder), Some(&builder)).contains("--key and --decision-key have the same key"));
    assert!(fault(None, None).contains("no signer is trusted"));
    assert!(fault(Some(&builder), Some(b"x")).starts_with("--decision-key: a P-256 public key"));
    assert!(fault(Some(b"x"), None).starts_with("--key: a P-256 public key"));
}
