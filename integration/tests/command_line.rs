//! What the commands make, refuse and say before any engine is asked: homes, files that are no files, words.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;

use integration::Project;

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
        ended.assert(2, "sluicegate init makes one, or set SLUICEGATE_HOME");
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
