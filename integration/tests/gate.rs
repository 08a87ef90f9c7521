//! `promote` end to end: allowed, denied, undecided; what is recorded, what becomes visible.

use std::fs;

use integration::{
    FROM_HOST, Layout, PROMOTE, Project, WITHOUT_COMMIT_ACCEPTED, WITHOUT_COMMIT_DENIED, ready,
    repository::{commit, git},
};

/// Nothing is allowed, nothing is visible, and the decision is on record with this outcome.
#[track_caller]
fn refused(project: &Project, code: i32, says: &str, outcome: &str) {
    let ended = project.sluicegate(&PROMOTE);
    ended.assert(code, says);
    ended.assert(code, "to fix: ");
    ended.assert(code, "next: fix that, then sluicegate promote oci:out/tiny --to production");
    assert!(!project.path("env/production/index.json").exists(), "something was promoted");
    assert_eq!(project.last_record("decision")["outcome"], outcome);
}

#[test]
fn an_allowed_image_is_signed_copied_tagged_and_recorded() {
    if !ready("an_allowed_image_is_signed_copied_tagged_and_recorded") {
        return;
    }
    let project = Project::built();
    let image = Layout::at(project.path("out/tiny")).image();
    let (code, document) = project.json(&PROMOTE);
    assert_eq!((code, &document["verdict"], &document["image"]), (0, &"allow".into(), &image.clone().into()));
    let target = Layout::at(project.path("env/production"));
    assert_eq!(target.image(), image);
    assert_eq!(target.index()["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "current");
    let (_, list) = project.json(&["evidence", "list"]);
    let kinds: Vec<String> = list["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| format!("{} {}", r["kind"].as_str().unwrap(), r["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, ["promotion promoted", "decision allow", "run succeeded"]);
    // The same image again is a decision of its own and moves nothing.
    project.must(&PROMOTE);
    assert_eq!(target.image(), image);
}

#[test]
fn tm02_an_empty_policy_folder_is_undecided() {
    if !ready("tm02_an_empty_policy_folder_is_undecided") {
        return;
    }
    let project = Project::built();
    project.keep("policies", "kept");
    for entry in fs::read_dir(project.path("policies")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rego") {
            fs::remove_file(path).unwrap();
        }
    }
    refused(&project, 3, "declare no codes", "undecided");
    project.restore("kept", "policies");
    project.must(&PROMOTE);
}

#[test]
fn a_rule_that_does_not_answer_is_undecided_and_one_that_is_broken_too() {
    if !ready("a_rule_that_does_not_answer_is_undecided_and_one_that_is_broken_too") {
        return;
    }
    let rule = |body: &str| {
        format!(
            "package own\n\n# METADATA\n# title: Own\n# description: A rule of a test.\n# custom:\n#   short_name: rule\n#   solution: None.\n#   requires: []\n{body}\n"
        )
    };
    let project = Project::built();
    fs::write(project.path("policies/own.rego"), rule("pass contains \"own.rule\" if input.nothing.like.this"))
        .unwrap();
    refused(&project, 3, "own.rule gave no answer", "undecided");
    fs::write(project.path("policies/own.rego"), rule("pass contains \"own.rule\" if time.now_ns() > 0")).unwrap();
    refused(&project, 3, "time.now_ns", "undecided");
    fs::write(project.path("policies/own.rego"), "package own\n\npass contains {\n").unwrap();
    refused(&project, 3, "policies/own.rego", "undecided");
    let forever = "slow if { some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == -1 }\n";
    fs::write(project.path("policies/own.rego"), rule("pass contains \"own.rule\" if slow") + forever).unwrap();
    refused(&project, 3, "the policy could not be asked", "undecided");
    fs::write(project.path("policies/own.rego"), rule("pass contains \"own.rule\" if input.subject.digest")).unwrap();
    project.must(&PROMOTE);
}

#[test]
fn a_denial_says_what_where_and_how_and_is_kept() {
    if !ready("a_denial_says_what_where_and_how_and_is_kept") {
        return;
    }
    let project = Project::built();
    let allowed = fs::read_to_string(project.path("policies/data.yaml")).unwrap();
    let digest =
        allowed.lines().find_map(|l| l.trim().strip_prefix("- sha256:")).unwrap().split(' ').next().unwrap().to_owned();
    project.replace("policies/data.yaml", &digest, &"0".repeat(64));
    refused(&project, 1, "base_image.allowed", "deny");
    let ended = project.sluicegate(&PROMOTE);
    ended.assert(1, "to fix:");
    ended.assert(1, "policies/base_image.rego:");
    ended.assert(1, &digest);
    project.replace("policies/data.yaml", &"0".repeat(64), &digest);
    project.must(&PROMOTE);
}

#[test]
fn a_builder_or_signer_that_is_not_allowed_is_denied() {
    if !ready("a_builder_or_signer_that_is_not_allowed_is_denied") {
        return;
    }
    let project = Project::built();
    project.replace("policies/data.yaml", "signer: builder", "signer: somebody");
    refused(&project, 1, "provenance.builder_and_signer", "deny");
    project.replace("policies/data.yaml", "signer: somebody", "signer: builder");
    project.must(&PROMOTE);
}

#[test]
fn tm02_an_image_that_was_not_scanned_is_undecided() {
    if !ready("tm02_an_image_that_was_not_scanned_is_undecided") {
        return;
    }
    let project = Project::prepared();
    project.must(&["run", "--no-scan"]);
    refused(&project, 3, "required evidence is missing: vulns", "undecided");
    let (_, document) = project.json(&PROMOTE);
    assert!(document["solutions"][0].as_str().unwrap().ends_with("without --no-scan"), "{document:#}");
    project.must(&["run"]);
    // Without a scanner in the gateway it says how to get one.
    let text = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    fs::write(project.path("gateway.yaml"), text.split("scanner:").next().unwrap()).unwrap();
    refused(&project, 3, "to fix: sluicegate init --trivy PATH --db DIR adds a scanner", "undecided");
    let trivy = std::env::var("SLUICEGATE_TRIVY").unwrap();
    project.must(&["init", "--trivy", &trivy, "--db", "db"]);
    project.must(&PROMOTE);
}

#[test]
fn an_old_database_and_another_one_than_pinned_are_undecided() {
    if !ready("an_old_database_and_another_one_than_pinned_are_undecided") {
        return;
    }
    let project = Project::built();
    let metadata = project.path("db/metadata.json");
    let good = fs::read_to_string(&metadata).unwrap();
    let updated = good.split("\"UpdatedAt\":\"").nth(1).unwrap().split('"').next().unwrap();
    fs::write(&metadata, good.replace(updated, "2026-01-01T00:00:00Z")).unwrap();
    // The home keeps a copy by digest, so what happens to the folder meanwhile changes nothing; without it there is no database.
    fs::remove_dir_all(project.path("home/cache/scanner")).unwrap();
    refused(&project, 3, "could not scan", "undecided");
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let pinned = gateway.split("digest: sha256:").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let stale = xtask::advisory_db::digest(&project.path("db")).unwrap();
    project.replace("gateway.yaml", &format!("sha256:{pinned}"), &stale);
    refused(&project, 3, "older than 24 hours", "undecided");
    fs::write(&metadata, good).unwrap();
    project.replace("gateway.yaml", &stale, &format!("sha256:{pinned}"));
    project.must(&PROMOTE);
}

#[test]
fn a_lock_file_that_no_analyser_read_is_a_gap() {
    if !ready("a_lock_file_that_no_analyser_read_is_a_gap") {
        return;
    }
    let project = Project::prepared();
    fs::write(project.path("src/yarn.lock"), "# yarn lockfile v1\n").unwrap();
    project.replace("sluicegate.yaml", "cp /src/hello.txt /out/app/", "cp /src/* /out/app/");
    project.must(&["run"]);
    refused(&project, 3, "yarn.lock", "undecided");
    fs::remove_file(project.path("src/yarn.lock")).unwrap();
    project.must(&["run"]);
    project.must(&PROMOTE);
}

/// What a product's lock file pins is looked up by the gate, though nothing of it is installed in the image.
#[test]
fn tm04_what_a_lock_file_pins_is_judged() {
    if !ready("tm04_what_a_lock_file_pins_is_judged") {
        return;
    }
    let project = Project::prepared();
    project.replace("sluicegate.yaml", "cp /src/hello.txt /out/app/", "cp /src/* /out/app/");
    fs::write(project.path("src/requirements.txt"), "h11==0.14.0\n").unwrap();
    project.must(&["run"]);
    refused(&project, 1, "CVE-2025-43859", "deny");
    refused(&project, 1, "requirements.txt", "deny");
    let record = project.last_record("decision")["sequence"].to_string();
    let (_, facts) = project.json(&["policy", "eval", "--record", &record, "--facts"]);
    let finding = &facts["vulnerabilities"][0];
    assert_eq!((&finding["lockFile"], &finding["package"]), (&true.into(), &"h11".into()), "{facts:#}");
    fs::write(project.path("src/requirements.txt"), "h11==0.16.0\nflask\n").unwrap();
    project.must(&["run"]);
    refused(&project, 3, "requirements of which not each is pinned", "undecided");
    fs::write(project.path("src/requirements.txt"), "h11==0.16.0\n").unwrap();
    project.must(&["run"]);
    project.must(&PROMOTE);
    // The two reports of the gate's scan are one document, which `verify` and the evidence check take as they are.
    project.must(&["evidence", "fsck"]);
    project.must(&["verify", "--offline", "oci:env/production"]);
}

#[test]
fn tm04_a_strict_gate_wants_what_the_base_executes_in_a_package() {
    if !ready("tm04_a_strict_gate_wants_what_the_base_executes_in_a_package") {
        return;
    }
    let project = Project::prepared();
    // What products bring is explained by their provenance.
    project.replace("sluicegate.yaml", "cp /src/hello.txt /out/app/", "cp /src/hello.txt /bin/sh /out/app/");
    project.replace("gateway.yaml", "policies: [", "executables: strict, policies: [");
    let tool = project.path("tool");
    fs::copy("/bin/true", &tool).unwrap();
    fs::remove_dir_all(project.path("images/base")).unwrap();
    let tool = tool.to_str().unwrap();
    project.must(&[&FROM_HOST[..], &["--binary", tool, "--allow-unowned"]].concat());
    project.must(&["init", "--allow-base", "oci:images/base"]);
    project.must(&["run"]);
    let digest = sluicegate_types::Digest::of(&fs::read(tool).unwrap());
    let gap = format!(
        "executable {} ({digest}): an executable of the base that is in no package",
        tool.trim_start_matches('/')
    );
    refused(&project, 3, &gap, "undecided");
    // Others are told, and let through.
    project.replace("gateway.yaml", "executables: strict", "executables: report");
    project.must(&PROMOTE);
    let record = project.last_record("decision")["sequence"].to_string();
    let (_, facts) = project.json(&["policy", "eval", "--record", &record, "--facts"]);
    let listed = facts["scan"]["coverage"]["executables"]["listed"].as_array().unwrap();
    let told: Vec<_> = listed.iter().map(|one| (&one["digest"], &one["product"])).collect();
    assert!(told.contains(&(&serde_json::json!(digest), &serde_json::json!(false))), "{listed:#?}");
    assert_eq!(told.len(), 2, "that one, and the product's: {listed:#?}");
    project.replace("gateway.yaml", "executables: report", "executables: strict");
    project.sluicegate(&PROMOTE).assert(3, &gap);
    fs::remove_dir_all(project.path("images/base")).unwrap();
    project.must(&FROM_HOST);
    project.must(&["run"]);
    project.must(&PROMOTE);
}

#[test]
fn a_scanner_that_is_not_listed_is_not_run() {
    if !ready("a_scanner_that_is_not_listed_is_not_run") {
        return;
    }
    let project = Project::built();
    let fake = project.path("trivy");
    fs::write(&fake, "#!/bin/sh\ntouch ran\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let fake = fake.to_str().unwrap();
    project.sluicegate(&[&PROMOTE[..], &["--trivy", fake]].concat()).assert(3, "does not list");
    assert!(!project.path("ran").exists());
    project.must(&PROMOTE);
}

#[test]
fn a_bundle_that_was_changed_is_wrong_and_one_that_is_missing_is_undecided() {
    if !ready("a_bundle_that_was_changed_is_wrong_and_one_that_is_missing_is_undecided") {
        return;
    }
    let project = Project::built();
    let layout = Layout::at(project.path("out/tiny"));
    let (_, evidence) = layout.evidence();
    let bundle = evidence["layers"][0]["digest"].as_str().unwrap().to_owned();
    let good = fs::read(layout.blob(&bundle)).unwrap();
    layout.flip(&bundle);
    project.sluicegate(&PROMOTE).assert(4, &bundle);
    assert!(!project.path("env/production/index.json").exists());
    fs::remove_file(layout.blob(&bundle)).unwrap();
    refused(&project, 3, &bundle, "undecided");
    fs::write(layout.blob(&bundle), good).unwrap();
    project.must(&PROMOTE);
}

#[test]
fn a_pipe_in_a_rules_place_and_a_rule_that_nobody_would_ask_are_refused() {
    if !ready("a_pipe_in_a_rules_place_and_a_rule_that_nobody_would_ask_are_refused") {
        return;
    }
    let project = Project::built();
    let pipe = project.path("policies/pipe.rego");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    project.sluicegate(&PROMOTE).assert(2, "not a regular file");
    fs::remove_file(pipe).unwrap();
    fs::rename(project.path("policies/vulnerabilities.rego"), project.path("policies/vulnerabilities.REGO")).unwrap();
    project.sluicegate(&PROMOTE).assert(2, "would not be asked");
    fs::rename(project.path("policies/vulnerabilities.REGO"), project.path("policies/vulnerabilities.rego")).unwrap();
    project.must(&PROMOTE);
}

#[test]
fn a_product_that_rewrites_the_records_of_its_base_is_a_gap() {
    if !ready("a_product_that_rewrites_the_records_of_its_base_is_a_gap") {
        return;
    }
    let project = Project::prepared();
    project.replace("sluicegate.yaml", "/opt/one: package.one", "/var/lib/dpkg/status: package.one");
    project.must(&["run"]);
    refused(&project, 3, "records-rewritten var/lib/dpkg/status", "undecided");
    project.replace("sluicegate.yaml", "/var/lib/dpkg/status: package.one", "/opt/one: package.one");
    project.must(&["run"]);
    project.must(&PROMOTE);
}

#[test]
fn nothing_but_a_promotion_writes_to_an_environments_place() {
    if !ready("nothing_but_a_promotion_writes_to_an_environments_place") {
        return;
    }
    let project = Project::built();
    std::os::unix::fs::symlink("env", project.path("link")).unwrap();
    for place in ["oci:env/production", "oci:link/production", "oci:./env/production"] {
        project.replace("sluicegate.yaml", "oci:out/tiny", place);
        project.sluicegate(&["run", "--no-scan"]).assert(2, "the place of an environment");
        assert!(!project.path("env/production/index.json").exists());
        project.replace("sluicegate.yaml", place, "oci:out/tiny");
    }
    project.must(&PROMOTE);
    // The mark holds against a run under another gateway, which knows nothing of this environment.
    let image = Layout::at(project.path("env/production")).image();
    project.replace("sluicegate.yaml", "oci:out/tiny", "oci:env/production");
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    fs::write(project.path("other.yaml"), gateway.replace("oci:env/production", "oci:env/elsewhere")).unwrap();
    project
        .sluicegate(&["run", "--no-scan", "--gateway", "other.yaml"])
        .assert(2, "only a promotion to it writes there");
    assert_eq!(Layout::at(project.path("env/production")).image(), image);
    project.sluicegate(&["promote", "oci:env/production", "--to", "production"]).assert(2, "a place of its own");
}

#[test]
fn a_lost_evidence_store_and_a_home_that_is_open_to_others_are_refused() {
    if !ready("a_lost_evidence_store_and_a_home_that_is_open_to_others_are_refused") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let project = Project::built();
    for part in ["home", "home/keys", "home/store", "home/log", "home/ledger"] {
        fs::set_permissions(project.path(part), fs::Permissions::from_mode(0o777)).unwrap();
        project.sluicegate(&PROMOTE).assert(2, "is open to others");
        fs::set_permissions(project.path(part), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let key = project.path("home/keys/production.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    project.sluicegate(&PROMOTE).assert(2, "is open to others");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let database = project.path("home/evidence.db");
    let kept = fs::read(&database).unwrap();
    fs::remove_file(&database).unwrap();
    project.sluicegate(&["evidence", "list"]).assert(5, "restore it from a backup");
    project.sluicegate(&PROMOTE).assert(5, "restore it from a backup");
    fs::write(&database, kept).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
    project.must(&PROMOTE);
}

#[test]
fn what_the_contract_names_and_this_version_has_not_is_refused_by_name() {
    let project = Project::empty();
    for arguments in [
        &["serve"][..],
        &["trust", "show"],
        &["trust", "update"],
        &["doctor"],
        &["verify", "oci:x", "--policy", "policies"],
        &["verify", "oci:x", "--certificate-identity", "a@example.org"],
        &["evidence", "export"],
        &["evidence", "verify"],
        &["run", "--engine", "docker"],
        &["evidence", "report"],
        &["-o", "json", "serve"],
    ] {
        project.sluicegate(arguments).assert(2, "not in this version");
    }
}

#[test]
fn tm11_a_source_in_no_commit_and_one_whose_change_the_index_hides_are_denied() {
    if !ready("tm11_a_source_in_no_commit_and_one_whose_change_the_index_hides_are_denied") {
        return;
    }
    let project = Project::built();
    project.replace("policies/data.yaml", WITHOUT_COMMIT_ACCEPTED, WITHOUT_COMMIT_DENIED);
    refused(&project, 1, "names no commit", "deny");
    commit(&project.path("."), &["src"]);
    git(&project.path("."), &["update-index", "--assume-unchanged", "src/hello.txt"]);
    fs::write(project.path("src/hello.txt"), "hello, in no commit\n").unwrap();
    project.must(&["run"]);
    refused(&project, 1, "has changes that are not in a commit", "deny");
    fs::write(project.path("src/hello.txt"), "hello\n").unwrap();
    project.must(&["run"]);
    project.must(&PROMOTE);
}
