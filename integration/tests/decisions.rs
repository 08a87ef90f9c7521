//! What a decision is worth, and for whom: dry runs, going back, `verify --for`, making a decision again, and two promotions at once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use integration::{BUNDLE, Ended, Layout, PROMOTE, Project, ready};
use serde_json::json;
use sluicegate_types::Digest;

const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";
const PRODUCTION: [&str; 4] = ["verify", "--for", "production", "oci:env/production"];
const AUTHORITY: &str = "its authority is \"self\"";

/// Every file below a folder with the digest of its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut out = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let digest = Digest::of(&fs::read(&path).unwrap());
                out.insert(path, digest);
            }
        }
    }
    out
}

/// Another image of the same pipeline.
fn another_image(project: &Project) {
    fs::write(project.path("src/hello.txt"), "hello again\n").unwrap();
    project.must(&["run"]);
}

#[test]
fn tm07_a_decision_of_the_judged_ones_own_judge_says_so_and_counts_only_for_who_takes_it() {
    if !ready("tm07_a_decision_of_the_judged_ones_own_judge_says_so_and_counts_only_for_who_takes_it") {
        return;
    }
    let project = Project::promoted();
    let summary = Layout::at(project.path("env/production")).attached(SUMMARY);
    assert_eq!(summary["predicate"]["sluicegate_authority"], "self", "{summary:#}");
    assert_eq!(project.last_record("decision")["body"]["authority"], "self");
    let refused = project.sluicegate(&PRODUCTION);
    refused.assert(3, "NOT ADMITTED");
    refused.assert(3, "  (the gate's own scan)\n");
    refused.assert(3, AUTHORITY);
    refused.assert(3, "    to fix: if whoever decides there may be believed about themselves, say authority_self: true in trust/trust.yaml");
    refused.assert(3, "with --trust");
    let (code, document) = project.json(&PRODUCTION);
    assert_eq!((code, &document["for"]["admitted"]), (3, &false.into()), "{document:#}");
    assert!(document["for"]["reasons"][0].as_str().unwrap().contains(AUTHORITY), "{document:#}");
    assert!(document["for"]["solutions"][0].as_str().unwrap().contains("authority_self: true"), "{document:#}");
    Project::admitted().sluicegate(&PRODUCTION).assert(0, "ADMITTED");
    // A verifier with a trust file of their own, which lists the gateway, takes it; one that lists another does not.
    let gateway = document["for"]["gateway"].as_str().unwrap();
    let theirs = |listed: &str| {
        let done =
            Command::new("cp").arg("-rT").arg(project.path("trust")).arg(project.path("theirs")).status().unwrap();
        assert!(done.success());
        let text = fs::read_to_string(project.path("trust/trust.yaml")).unwrap();
        fs::write(project.path("theirs/trust.yaml"), format!("{text}gateways: [{listed}]\n")).unwrap();
        project.sluicegate(&[&PRODUCTION[..], &["--trust", "theirs/trust.yaml"]].concat())
    };
    theirs(gateway).assert(0, "ADMITTED");
    let refused = theirs(&format!("sha256:{}", "0".repeat(64)));
    refused.assert(3, AUTHORITY);
    refused.assert(3, "say authority_self: true in theirs/trust.yaml\n");
}

#[test]
fn tm06_a_key_by_flag_is_believed_in_its_one_role() {
    if !ready("tm06_a_key_by_flag_is_believed_in_its_one_role") {
        return;
    }
    let project = Project::promoted();
    let verified_by = |flags: &[&str]| {
        let flags = [&["verify", "oci:env/production", "--trust-root", "trust/trusted_root.json"], flags].concat();
        let (_, document) = project.json(&flags);
        let statements = document["statements"].as_array().unwrap_or_else(|| panic!("{document:#}"));
        let verified = statements.iter().filter(|statement| statement["status"] == "verified");
        verified.map(|statement| (statement["kind"].to_string(), statement["signer"].to_string())).collect::<Vec<_>>()
    };
    let summary = ("\"verification-summary\"".to_owned(), "\"--decision-key\"".to_owned());
    let provenance = ("\"provenance\"".to_owned(), "\"--key\"".to_owned());
    let both = verified_by(&["--key", "trust/builder.pub", "--decision-key", "trust/production.pub"]);
    assert!(both.contains(&summary) && both.contains(&provenance), "{both:?}");
    // Exchanged, each key says what its role may not.
    let exchanged = verified_by(&["--key", "trust/production.pub", "--decision-key", "trust/builder.pub"]);
    assert!(exchanged.is_empty(), "{exchanged:?}");
}

#[test]
fn tm05_a_decision_admits_to_its_own_environment_under_its_own_gateway_and_to_nothing_else() {
    if !ready("tm05_a_decision_admits_to_its_own_environment_under_its_own_gateway_and_to_nothing_else") {
        return;
    }
    let project = Project::admitted();
    let (code, document) = project.json(&PRODUCTION);
    assert_eq!((code, &document["for"]["basis"]), (0, &"decision".into()), "{document:#}");
    assert!(document["for"]["expires"].is_string() && document["for"]["signer"] == "production", "{document:#}");
    // Where it was built nobody decided anything.
    let undecided = project.sluicegate(&["verify", "--for", "production", "oci:out/tiny"]);
    undecided.assert(3, "no decision for production");
    undecided.assert(3, "    to fix: ask about oci:env/production, or promote it: sluicegate promote PLACE@sha256:");
    for (file, from, to) in [
        ("policies/tests.rego", "count(results) > 0", "count(results) > 1"),
        ("policies/data.yaml", "accept_uncommitted_changes: false", "accept_uncommitted_changes: true"),
        ("gateway.yaml", "valid_for: 30d", "valid_for: 29d"),
        ("trust/trust.yaml", "SLSA_BUILD_LEVEL_1", "SLSA_BUILD_LEVEL_0"),
    ] {
        let good = fs::read_to_string(project.path(file)).unwrap();
        project.replace(file, from, to);
        let other = project.sluicegate(&PRODUCTION);
        other.assert(3, "it was decided by the gateway");
        other.assert(3, "    to fix: promote again under this gateway: sluicegate promote PLACE@sha256:");
        fs::write(project.path(file), good).unwrap();
    }
    project.sluicegate(&PRODUCTION).assert(0, "ADMITTED");
    // The evidence that it was decided over has to be there too.
    let layout = Layout::at(project.path("env/production"));
    let (at, evidence) = layout.evidence();
    let mut changed = evidence.clone();
    let gone = changed["layers"].as_array_mut().unwrap().remove(0);
    layout.replace(at, &changed);
    project.sluicegate(&PRODUCTION).assert(3, gone["digest"].as_str().unwrap());
    layout.replace(at, &evidence);
    project.sluicegate(&PRODUCTION).assert(0, "ADMITTED");
}

#[test]
fn tm05_a_decision_for_another_environment_and_a_promotion_without_a_gate_are_worth_nothing_elsewhere() {
    let test = "tm05_a_decision_for_another_environment_and_a_promotion_without_a_gate_are_worth_nothing_elsewhere";
    if !ready(test) {
        return;
    }
    let project = Project::built();
    let made = project.must(&["keys", "generate", "canary"]);
    fs::copy(made.stdout.trim(), project.path("trust/canary.pub")).unwrap();
    let trust = fs::read_to_string(project.path("trust/trust.yaml")).unwrap();
    let production = trust.lines().find(|line| line.trim_start().starts_with("production:")).unwrap();
    let canary = production.replace("production", "canary");
    project.replace("trust/trust.yaml", production, &format!("{production}\n{canary}"));
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    project.replace(
        "gateway.yaml",
        "  production: { repository",
        "  canary: { repository: oci:env/canary, tag: current, gate: release }\n  production: { repository",
    );
    project.replace(
        "gateway.yaml",
        "{ production: key:production }",
        "{ production: key:production, canary: key:canary }",
    );
    project.must(&["promote", "oci:out/tiny", "--to", "canary"]);
    project.sluicegate(&["verify", "--for", "canary", "oci:env/canary"]).assert(0, "ADMITTED");
    let other = project.sluicegate(&["verify", "--for", "production", "oci:env/canary"]);
    other.assert(3, "it is for the environment canary");
    // What has no gate vouches for nothing but that it was copied there.
    let staging = ["verify", "--for", "staging", "oci:env/staging"];
    project.sluicegate(&["verify", "--for", "staging", "oci:out/tiny"]).assert(3, "no promotion record for staging");
    project.sluicegate(&["promote", "oci:out/tiny", "--to", "staging"]).assert(0, "UNGATED");
    project.sluicegate(&staging).assert(0, "UNGATED");
    let (code, document) = project.json(&staging);
    assert_eq!((code, &document["for"]["basis"]), (0, &"ungated".into()), "{document:#}");
    assert_eq!(project.last_record("promotion")["body"]["basis"], "ungated");
    let there = Layout::at(project.path("env/staging"));
    let kinds: Vec<_> = there
        .referrers()
        .into_iter()
        .map(|(_, m)| m["annotations"]["dev.sigstore.bundle.predicateType"].clone())
        .collect();
    assert!(!kinds.iter().any(|kind| kind == SUMMARY || kind == "https://sigstore.dev/cosign/sign/v1"), "{kinds:?}");
    project.sluicegate(&["verify", "--for", "production", "oci:env/staging"]).assert(3, "no decision for production");
    project.sluicegate(&["verify", "--for", "staging", "oci:env/canary"]).assert(3, "the record of a gated promotion");
}

#[test]
fn tm10_a_dry_run_judges_and_records_and_writes_nothing_else() {
    if !ready("tm10_a_dry_run_judges_and_records_and_writes_nothing_else") {
        return;
    }
    let project = Project::built();
    let dry = [&PROMOTE[..], &["--dry-run"]].concat();
    let built = files(&project.path("out"));
    let (code, document) = project.json(&dry);
    assert_eq!((code, &document["verdict"], &document["dryRun"]), (0, &"allow".into(), &true.into()), "{document:#}");
    let record = project.last_record("decision");
    assert_eq!((&record["outcome"], &record["body"]["dryRun"]), (&"would-allow".into(), &true.into()));
    project.replace("policies/data.yaml", "signer: builder", "signer: somebody");
    project.sluicegate(&dry).assert(1, "DENIED");
    project.replace("policies/data.yaml", "signer: somebody", "signer: builder");
    assert!(!project.path("env").exists(), "something was written to an environment");
    assert_eq!(files(&project.path("out")), built, "a denial of a dry run is laid beside nothing");
    let signed = || {
        let blobs = files(&project.path("home/store/blobs"));
        let bundles = blobs.keys().filter_map(|path| {
            let bundle: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).ok()?;
            let statement = integration::decode(bundle["dsseEnvelope"]["payload"].as_str()?);
            Some(statement["predicateType"].as_str()?.to_owned())
        });
        bundles.filter(|kind| [SUMMARY, "https://sigstore.dev/cosign/sign/v1"].contains(&kind.as_str())).count()
    };
    assert_eq!(signed(), 0, "a dry run signs no decision");
    project.sluicegate(&["promote", "oci:out/tiny", "--to", "staging", "--dry-run"]).assert(0, "WOULD BE ALLOWED");
    assert!(!project.path("env").exists());
    // The same without --dry-run leaves all that.
    project.must(&PROMOTE);
    assert_eq!((signed(), project.path("env/production/index.json").exists()), (2, true));
}

#[test]
fn tm10_a_tag_goes_back_only_with_rollback_and_only_to_what_it_named_before() {
    if !ready("tm10_a_tag_goes_back_only_with_rollback_and_only_to_what_it_named_before") {
        return;
    }
    let project = Project::promoted();
    let there = Layout::at(project.path("env/production"));
    let first = there.image();
    project.keep("out/tiny", "old");
    another_image(&project);
    let rollback = |from: &'static str| ["promote", from, "--to", "production", "--rollback"];
    project.sluicegate(&rollback("oci:out/tiny")).assert(2, "was never promoted there from this home");
    project.must(&PROMOTE);
    let second = there.image();
    assert_ne!(first, second);
    project.sluicegate(&rollback("oci:out/tiny")).assert(2, "is what it holds now");
    let refused = project.sluicegate(&["promote", "oci:old", "--to", "production"]);
    refused.assert(2, "moving a tag backwards needs --rollback");
    assert_eq!(there.image(), second);
    project.sluicegate(&rollback("oci:old")).assert(0, "ALLOWED");
    assert_eq!(there.image(), first);
    let moved = project.last_record("promotion")["body"].clone();
    assert_eq!(
        (&moved["rollback"], &moved["from"], &moved["to"]),
        (&true.into(), &second.as_str().into(), &first.as_str().into())
    );
    assert_eq!(project.last_record("decision")["body"]["rollback"], true);
    project.must(&["verify", "--offline", "oci:env/production"]);
}

#[test]
fn tm10_of_two_promotions_at_once_none_is_lost_unsaid_and_no_tag_is_without_evidence() {
    if !ready("tm10_of_two_promotions_at_once_none_is_lost_unsaid_and_no_tag_is_without_evidence") {
        return;
    }
    let project = Project::built();
    project.keep("out/tiny", "old");
    another_image(&project);
    let references = ["oci:old", "oci:out/tiny"];
    let images = ["old", "out/tiny"].map(|folder| Layout::at(project.path(folder)).image());
    assert_ne!(images[0], images[1]);
    let started = references.map(|reference| {
        let arguments = ["promote", reference, "--to", "production"];
        project.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let ended = started.map(|child| Ended::of(&["promote"], child.wait_with_output().unwrap()));
    let there = Layout::at(project.path("env/production"));
    let held = there.image();
    match [ended[0].code, ended[1].code] {
        // Both in order: the second was decided over what the first left, and says so.
        [0, 0] => {
            let (first, second) = if held == images[1] { (&images[0], &images[1]) } else { (&images[1], &images[0]) };
            assert_eq!(&held, second);
            let records = project.json(&["evidence", "list"]).1;
            let promoted: Vec<_> =
                records["records"].as_array().unwrap().iter().filter(|r| r["outcome"] == "promoted").collect();
            assert_eq!(promoted.len(), 2, "{records:#}");
            for (record, from, to) in [(promoted[0], json!(first), second), (promoted[1], json!(null), first)] {
                let (_, shown) = project.json(&["evidence", "show", &record["sequence"].to_string()]);
                assert_eq!((&shown["body"]["from"], &shown["body"]["to"]), (&from, &json!(to)), "{shown:#}");
            }
        }
        [0, 5] | [5, 0] => {
            let (winner, loser) = if ended[0].code == 0 { (0, 1) } else { (1, 0) };
            assert_eq!(held, images[winner]);
            ended[loser].assert(5, &images[winner]);
            let record = project.json(&["evidence", "list"]).1;
            let failed = |r: &serde_json::Value| r["outcome"] == "failed" && r["subject"] == images[loser].as_str();
            assert!(record["records"].as_array().unwrap().iter().any(failed), "{record:#}");
            // The one that came too late is asked again, and wins.
            project.must(&["promote", references[loser], "--to", "production"]);
            assert_eq!(there.image(), images[loser]);
        }
        _ => panic!("{ended:#?}"),
    }
    project.must(&["verify", "--offline", "oci:env/production"]);
    assert_eq!(there.attached(SUMMARY)["subject"][0]["digest"]["sha256"], there.image().trim_start_matches("sha256:"));
    project.sluicegate(&["evidence", "fsck", "--against", "oci:env/production"]).assert(0, "WHOLE");
}

#[test]
fn tm10_what_is_promoted_is_what_was_built_byte_for_byte_and_nothing_rides_along() {
    if !ready("tm10_what_is_promoted_is_what_was_built_byte_for_byte_and_nothing_rides_along") {
        return;
    }
    let project = Project::built();
    let (from, to) = (Layout::at(project.path("out/tiny")), Layout::at(project.path("env/production")));
    let (image, clean) = (from.image(), from.index());
    let subject = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image,
        "size": fs::read(from.blob(&image)).unwrap().len(),
    });
    let mut junk = Vec::new();
    for (media_type, bytes) in [
        (BUNDLE, &b"{\"not\": \"a bundle\"}"[..]),
        ("application/vnd.sluicegate.evidence.v1+json", b"a stranger's evidence"),
        ("application/octet-stream", b"a payload"),
    ] {
        let (digest, size) = from.put(bytes);
        let empty = from.put(b"{}");
        from.add(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": media_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.0, "size": empty.1},
            "layers": [{"mediaType": media_type, "digest": digest, "size": size}], "subject": subject,
        }));
        junk.push(digest);
    }
    let attached = from.index()["manifests"].as_array().unwrap().len() - clean["manifests"].as_array().unwrap().len();
    assert_eq!(attached, 3);
    let names_junk = |digest: &String| {
        let text = fs::read_to_string(from.blob(digest)).unwrap_or_default();
        junk.iter().any(|junk| text.contains(junk.as_str()))
    };
    let manifests: Vec<String> = from.reachable().into_iter().filter(names_junk).collect();
    junk.extend(manifests);
    assert!(junk.len() >= 6, "{junk:?}");
    project.must(&PROMOTE);
    assert_eq!(to.image(), image);
    let mut there = 0;
    for (path, digest) in files(&project.path("env/production/blobs")) {
        assert_eq!(digest.hex().to_string(), path.file_name().unwrap().to_str().unwrap());
        there += 1;
    }
    let mut reachable = to.reachable();
    reachable.sort();
    assert_eq!(there, reachable.len(), "a blob that nothing names rode along");
    for digest in &junk {
        assert!(!to.blob(digest).exists(), "{digest} rode along");
    }
    let manifest = from.json(&image);
    for part in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let digest = part["digest"].as_str().unwrap();
        assert_eq!(fs::read(to.blob(digest)).unwrap(), fs::read(from.blob(digest)).unwrap());
    }
}

#[test]
fn a_decision_of_each_kind_is_made_again_to_the_same_bytes_and_changed_inputs_are_refused() {
    if !ready("a_decision_of_each_kind_is_made_again_to_the_same_bytes_and_changed_inputs_are_refused") {
        return;
    }
    let project = Project::built();
    let rule = "package own\n\n# METADATA\n# title: Own\n# description: A rule of a test.\n# custom:\n#   short_name: rule\n\
                #   solution: None.\n#   requires: []\npass contains \"own.rule\" if input.nothing.like.this\n";
    let replay = |number: &str| project.sluicegate(&["evidence", "replay", number]);
    let decide = |code: i32| {
        assert_eq!(project.sluicegate(&PROMOTE).code, code);
        project.last_record("decision")["sequence"].to_string()
    };
    project.replace("policies/data.yaml", "signer: builder", "signer: somebody");
    let denied = decide(1);
    project.replace("policies/data.yaml", "signer: somebody", "signer: builder");
    fs::write(project.path("policies/own.rego"), rule).unwrap();
    let undecided = decide(3);
    fs::remove_file(project.path("policies/own.rego")).unwrap();
    let allowed = decide(0);
    // Whatever the project's files say by now.
    fs::remove_dir_all(project.path("policies")).unwrap();
    fs::remove_dir_all(project.path("out")).unwrap();
    fs::remove_file(project.path("gateway.yaml")).unwrap();
    for (number, verdict) in [(&denied, "deny"), (&undecided, "undecided"), (&allowed, "allow")] {
        replay(number).assert(0, "SAME BYTES");
        let (code, document) = project.json(&["evidence", "replay", number]);
        assert_eq!((code, &document["same"], &document["recorded"]), (0, &true.into(), &document["replayed"]));
        assert_eq!(document["decision"]["verdict"], verdict, "{document:#}");
    }
    let (_, record) = project.json(&["evidence", "show", &allowed]);
    let store = Layout::at(project.path("home/store"));
    let inputs = store.json(record["body"]["replay"].as_str().unwrap());
    let policy = inputs["files"]["policies/tests.rego"].as_str().unwrap();
    for digest in [record["body"]["document"].as_str().unwrap(), policy, inputs["gateway"].as_str().unwrap()] {
        let good = fs::read(store.blob(digest)).unwrap();
        store.flip(digest);
        let ended = replay(&allowed);
        ended.assert(4, digest);
        assert!(!ended.stdout.contains("SAME BYTES"), "{ended:?}");
        fs::write(store.blob(digest), good).unwrap();
    }
    replay(&allowed).assert(0, "SAME BYTES");
    replay("1").assert(2, "it records no decision");
    replay("999").assert(2, "no evidence record 999");
}

#[test]
fn a_wrong_passphrase_and_an_unknown_environment_are_said_and_change_nothing() {
    if !ready("a_wrong_passphrase_and_an_unknown_environment_are_said_and_change_nothing") {
        return;
    }
    let mut project = Project::built();
    let unknown = project.sluicegate(&["promote", "oci:out/tiny", "--to", "prod"]);
    unknown.assert(2, "no environment prod; it has production, staging");
    project.sluicegate(&["verify", "oci:out/tiny", "--for", "prod"]).assert(2, "it has production, staging");
    let log = files(&project.path("home/log"));
    project.set("COSIGN_PASSWORD", "another");
    let wrong = project.sluicegate(&PROMOTE);
    wrong.assert(2, "wrong passphrase");
    wrong.assert(2, "COSIGN_PASSWORD");
    assert!(!project.path("env/production/index.json").exists());
    assert_eq!(files(&project.path("home/log")), log, "something was signed");
    project.set("COSIGN_PASSWORD", integration::PASSPHRASE);
    project.must(&PROMOTE);
}
