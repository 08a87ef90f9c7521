//! What the commands make, refuse and say before any engine is asked: homes, files that are no files, words.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;

use integration::{Project, ready};
use serde_json::json;

#[test]
fn who_only_reads_makes_no_home_and_no_part_of_one() {
    let mut project = Project::written();
    project.must(&["init"]);
    fs::write(project.path("predicate.json"), "{}").unwrap();
    let reading: [&[&str]; 6] = [
        &["evidence", "list"],
        &["evidence", "show", "1"],
        &["evidence", "fsck"],
        &["evidence", "replay", "1"],
        &["keys", "show", "builder"],
        &["-o", "json", "evidence", "list"],
    ];
    for command in [reading[0], reading[2], reading[4]] {
        project.must(command);
    }
    let home = project.path("home").display().to_string();
    let misspelt = project.path("hmoe");
    project.set("SLUICEGATE_HOME", misspelt.to_str().unwrap());
    let needing: [&[&str]; 3] = [
        &["run", "--no-scan"],
        &["promote", "oci:out/tiny", "--to", "production"],
        &["attest", "oci:out/tiny", "--type", "https://example.com/review/v1", "--predicate", "predicate.json"],
    ];
    project.replace("gateway.yaml", "signing: {", "signing: { manual: key:person,");
    for command in reading.iter().chain(&needing) {
        let ended = project.sluicegate(command);
        ended.assert(2, &format!("there is no home at {}", misspelt.display()));
        ended.assert(2, "sluicegate init makes one");
        assert!(!misspelt.exists(), "{command:?}");
    }
    // A folder of something else is no home either, and stays as it is.
    fs::create_dir_all(misspelt.join("log")).unwrap();
    for command in reading.iter().chain(&needing) {
        project.sluicegate(command).assert(2, "there is no home at");
        assert_eq!(fs::read_dir(&misspelt).unwrap().count(), 1, "{command:?}");
    }
    // A home that init has not finished has keys and no records.
    project.must(&["keys", "generate", "person"]);
    project.must(&["keys", "show", "person"]);
    for command in [reading[0], reading[1], reading[3]] {
        project.sluicegate(command).assert(2, "has no records");
        assert!(!misspelt.join("evidence.db").exists(), "{command:?}");
    }
    project.set("SLUICEGATE_HOME", &home);
    project.must(reading[0]);
}

/// The commands that `init` says come next, without what stands for a name.
fn next(document: &serde_json::Value) -> Vec<String> {
    let lines = document["next"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    lines.map(|line| line.split("   # ").next().unwrap().to_owned()).collect()
}

#[test]
fn what_init_says_comes_next_leads_to_a_promotion() {
    if !ready("what_init_says_comes_next_leads_to_a_promotion") {
        return;
    }
    let project = Project::empty();
    let trivy = std::env::var("SLUICEGATE_TRIVY").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    xtask::advisory_db::write(&project.path("db"), now).unwrap();
    let (code, first) = project.json(&["init"]);
    assert_eq!(code, 0);
    let steps = next(&first);
    let [sources, build, base, allow, commit, scanner, run] = steps.as_slice() else { panic!("{first:#}") };
    assert_eq!(sources, "# put what is to be built in src");
    assert_eq!((scanner.as_str(), run.as_str()), ("sluicegate init --trivy PATH --db DIR", "sluicegate run"));
    // The run that was not told of a scanner says the same.
    project.sluicegate(&["run"]).assert(2, scanner);
    fs::create_dir_all(project.path("src")).unwrap();
    fs::write(project.path("src/hello"), "hello\n").unwrap();
    let script = |line: &str| {
        let program = integration::program();
        let mut command = std::process::Command::new("sh");
        project.environment(&mut command);
        let named =
            ["AUTHOR", "COMMITTER"].map(|who| [(format!("GIT_{who}_NAME"), "n"), (format!("GIT_{who}_EMAIL"), "e")]);
        let script = format!("sluicegate() {{ {} \"$@\"; }}; set -e; {line}", program.display());
        let ended = command.envs(named.into_iter().flatten()).args(["-c", &script]).output().unwrap();
        integration::Ended::of(&[line], ended).assert(0, "");
    };
    script(build);
    script(base);
    // Only what is missing still is said.
    let (_, again) = project.json(&["init", "--allow-base", "oci:images/base"]);
    assert_eq!(again["changed"], json!(["policies/data.yaml"]));
    assert_eq!(next(&again), [commit.clone(), scanner.clone(), run.clone()]);
    script(allow);
    script(&format!("{commit} --quiet -m x"));
    let scanner = scanner.replace("PATH", &trivy).replace("DIR", "db");
    script(&scanner);
    let text = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    project.sluicegate(&["init", "--trivy", &trivy, "--db", "db"]).assert(2, "has a scanner: already");
    assert_eq!(fs::read_to_string(project.path("gateway.yaml")).unwrap(), text);
    project.sluicegate(&["init"]).assert(2, "is not overwritten");
    let (_, last) = project.json(&["init", "--allow-base", "oci:images/base"]);
    assert_eq!((&last["changed"], next(&last)), (&json!([]), vec![run.clone()]));
    script(run);
    project.sluicegate(&["promote", "oci:out/app", "--to", "production"]).assert(0, "ALLOWED");
}
