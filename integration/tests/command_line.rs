//! What the commands make, refuse and say before any engine is asked: homes, files that are no files, words.

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
fn where_a_pipeline_file_is_missing_what_run_says_to_do_can_be_done() {
    let project = Project::empty();
    project.sluicegate(&["run"]).assert(2, "now: sluicegate init writes one; -f names another");
    project.must(&["init"]);
    fs::remove_file(project.path("sluicegate.yaml")).unwrap();
    project.sluicegate(&["init"]).assert(2, "gateway.yaml exists and is not overwritten");
    project.sluicegate(&["run"]).assert(2, "sluicegate init NEW writes one into the folder NEW");
    project.must(&["init", "NEW"]);
    fs::copy(project.path("NEW/sluicegate.yaml"), project.path("sluicegate.yaml")).unwrap();
    let ended = project.sluicegate(&["run", "--no-scan"]);
    assert!(!ended.stderr.contains("read the pipeline file"), "{ended:?}");
    project.sluicegate(&["run", "-f", "ohter.yaml"]).assert(2, "now: name one that is there with -f");
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

#[test]
fn a_named_file_that_is_none_is_a_mistake_in_the_command_everywhere() {
    let mut project = Project::written();
    project.must(&["init"]);
    fs::write(project.path("review.json"), "{}").unwrap();
    fs::create_dir(project.path("folder")).unwrap();
    fs::create_dir(project.path("db")).unwrap();
    for file in ["metadata.json", "trivy.db"] {
        fs::write(project.path("db").join(file), "{}").unwrap();
    }
    std::os::unix::fs::symlink("loop", project.path("loop")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(project.path("pipe")).status().unwrap().success());
    let root = ["--trust-root", "trust/trusted_root.json"];
    let key = ["verify", "oci:out/tiny", "--key"];
    let attest = ["attest", "oci:out/tiny", "--type", "https://example.com/review/v1", "--predicate"];
    let with = |parts: &[&[&'static str]]| parts.concat();
    let commands: [(&str, Vec<&str>); 15] = [
        ("sluicegate.yaml", with(&[&["run", "--no-scan", "-f", "?"]])),
        ("gateway.yaml", with(&[&["run", "--no-scan", "--gateway", "?"]])),
        ("gateway.yaml", with(&[&["promote", "oci:out/tiny", "--to", "staging", "--gateway", "?"]])),
        ("gateway.yaml", with(&[&["verify", "oci:out/tiny", "--gateway", "?"]])),
        ("gateway.yaml", with(&[&["verify", "oci:out/tiny", "--for", "staging", "--gateway", "?"]])),
        ("gateway.yaml", with(&[&["evidence", "fsck", "--against", "oci:out/tiny", "--gateway", "?"]])),
        ("gateway.yaml", with(&[&attest, &["review.json", "--gateway", "?"]])),
        ("review.json", with(&[&attest, &["?"]])),
        ("trust/builder.pub", with(&[&key, &["?"], &root])),
        ("trust/production.pub", with(&[&["verify", "oci:out/tiny", "--decision-key", "?"], &root])),
        ("trust/trusted_root.json", with(&[&key, &["trust/builder.pub", "--trust-root", "?"]])),
        ("trust/trust.yaml", with(&[&["verify", "oci:out/tiny", "--for", "staging", "--trust", "?"]])),
        ("review.json", with(&[&["verify", "review.json", "--bundle", "?"]])),
        ("review.json", with(&[&["verify", "?", "--bundle", "review.json"]])),
        ("sluicegate.yaml", with(&[&["init", "--db", "db", "--trivy", "?"]])),
    ];
    let ask = |command: &[&str], file: &str| {
        let words: Vec<&str> = command.iter().map(|word| if *word == "?" { file } else { word }).collect();
        project.sluicegate(&words)
    };
    for (good, command) in &commands {
        for (bad, says) in [
            ("missing", "No such file"),
            ("folder", "not a regular file"),
            ("pipe", "not a regular file"),
            ("loop", "symbolic links"),
            ("review.json/below", "Not a directory"),
        ] {
            let ended = ask(command, bad);
            let says = if command[0] == "init" { "" } else { says };
            ended.assert(2, says);
            assert!(ended.stderr.contains(bad) && ended.stderr.contains("  now: "), "{ended:?}");
        }
        // The same with a file in its place gets on to what is in it, or to the image that is not there.
        let ended = ask(command, good);
        let reading = ["cannot read", "regular file", "No such file"].iter().any(|word| ended.stderr.contains(word));
        assert!(!reading || ended.stderr.contains("out/tiny"), "{command:?} {good}: {ended:?}");
    }
    project.sluicegate(&["init", "--db", "missing", "--trivy", "review.json"]).assert(2, "missing");
    project.set("SLUICEGATE_GATEWAY", "folder");
    project.sluicegate(&["verify", "oci:out/tiny"]).assert(2, "not a regular file");
}

#[test]
fn a_reader_that_went_away_changes_no_exit_code_and_a_full_disk_does() {
    let project = Project::written();
    project.must(&["init"]);
    let commands: [(&[&str], i32); 8] = [
        (&["--help"], 0),
        (&["evidence", "list"], 0),
        (&["-o", "json", "evidence", "fsck"], 0),
        (&["keys", "show", "builder"], 0),
        (&["-o", "json", "keys", "show", "nobody"], 2),
        (&["verify", "oci:out/tiny"], 2),
        (&["init"], 2),
        (&["--nonsense"], 2),
    ];
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for (command, code) in commands {
        let whole = project.sluicegate(command);
        assert_eq!(whole.code, code, "{whole:?}");
        let ended = project.command(command).stdout(closed()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), said), (Some(code), whole.stderr), "{command:?}");
        let silent = project.command(command).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(silent.code(), Some(code), "{command:?}");
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let full = project.command(command).stdout(full).output().unwrap().status.code();
        assert_eq!(full, Some(if whole.stdout.is_empty() { code } else { 5 }), "{command:?}");
    }
}

#[test]
fn a_folder_in_an_images_place_is_told_what_it_lacks() {
    let project = Project::written();
    project.must(&["init"]);
    fs::create_dir_all(project.path("out/tiny")).unwrap();
    for image in ["out/tiny", "./out/tiny", "out/tiny:v1", project.path("out/tiny").to_str().unwrap()] {
        let meant = format!("did you mean oci:{image}?");
        let commands: [&[&str]; 6] = [
            &["verify", image],
            &["promote", image, "--to", "production"],
            &["attest", image, "--type", "vex", "--predicate", "sluicegate.yaml"],
            &["evidence", "fsck", "--against", image],
            &["init", "--allow-base", image],
            &["image", "from-host", "--package", "dash", "--output", image],
        ];
        for command in commands {
            project.sluicegate(command).assert(2, &meant);
        }
        // With it, the folder is looked into.
        let with = format!("oci:{image}");
        project.sluicegate(&["verify", &with]).assert(2, "is not an OCI layout");
        project.sluicegate(&["verify", &with]).assert(2, "sluicegate image from-host --output oci:DIR");
    }
    // What is no folder may well be meant for a registry.
    project.sluicegate(&["verify", "out/other"]).assert(2, "begins with its host");
    project.sluicegate(&["promote", "out/other", "--to", "production"]).assert(2, "begins with its host");
    project.sluicegate(&["verify", "registry.example/other", "--offline"]).assert(2, "--offline asks nobody");
}

#[test]
fn mistyped_arguments_are_a_json_document_too() {
    let project = Project::written();
    let members = ["causes", "error", "exit", "hint", "reason", "record", "schemaVersion"];
    for json in [&["-o", "json"][..], &["-ojson"], &["-o=json"], &["--format=json"]] {
        for wrong in [&["verify"][..], &["verify", "--nonsense"], &["verify", "oci:nowhere"]] {
            let ended = project.sluicegate(&[json, wrong].concat());
            let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
            let mut found: Vec<_> = document.as_object().unwrap().keys().collect();
            found.sort();
            assert_eq!(found, members, "{ended:?}");
            let error = document["error"].as_str().unwrap();
            assert!(ended.code == 2 && !error.starts_with("error") && !error.contains("For more"), "{ended:?}");
        }
    }
}

#[test]
fn a_gateway_that_is_there_and_wrong_is_not_told_to_be_named() {
    let project = Project::written();
    project.must(&["init"]);
    let commands: [(&[&str], &str); 3] = [
        (&["verify", "oci:out/tiny"], "a key with --key and --trust-root"),
        (&["verify", "oci:out/tiny", "--for", "production"], "--gateway names another"),
        (&["evidence", "fsck", "--against", "oci:out/tiny"], "whom to believe about --against"),
    ];
    let good = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    for (command, missing) in commands {
        for (from, to) in [("gate: release", "gate: relase"), ("valid_for: 30d", "valid_for: 30")] {
            project.replace("gateway.yaml", from, to);
            let ended = project.sluicegate(command);
            ended.assert(2, to.rsplit(' ').next().unwrap());
            assert!(!ended.stderr.contains("--gateway"), "{ended:?}");
            fs::write(project.path("gateway.yaml"), &good).unwrap();
        }
        // The same file as it was: only the image is missing.
        project.sluicegate(command).assert(2, "out/tiny");
        fs::remove_file(project.path("gateway.yaml")).unwrap();
        project.sluicegate(command).assert(2, missing);
        fs::write(project.path("gateway.yaml"), &good).unwrap();
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_same_command_line() {
    let project = Project::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = project.must(&["completion", shell]).stdout;
        assert!(script.contains("explain") && script.contains("keep-going"), "{shell}");
    }
    project.must(&["completion", "--man", "man"]);
    let page = std::fs::read_to_string(project.path("man/sluicegate-run.1")).unwrap();
    assert!(page.contains("keep") && project.path("man/sluicegate-evidence-fsck.1").exists());
    project.sluicegate(&["completion"]).assert(2, "");
    project.sluicegate(&["completion", "tcsh"]).assert(2, "tcsh");
}
