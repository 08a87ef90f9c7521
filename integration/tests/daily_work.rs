//! A day's work with a pipeline: values and secrets, what is tried again, what is tried without keys, and what is broken off.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use integration::{
    Project, can_run_steps,
    repository::{commit, commit_at},
};
use serde_json::json;

const RUN: [&str; 2] = ["run", "--no-scan"];

fn pipeline(project: &Project, steps: &str) {
    let text = format!(
        "version: 1\nname: day\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\n{steps}"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
}

#[test]
fn parameters_reach_steps_as_variables_and_nothing_else() {
    if !can_run_steps("parameters_reach_steps_as_variables_and_nothing_else") {
        return;
    }
    let project = Project::prepared();
    pipeline(
        &project,
        "params: { version: { type: string, pattern: 'v[0-9.]+' }, mode: { default: fast } }\nsteps:\n  say:\n    \
         run: 'echo \"$PARAM_VERSION $PARAM_MODE {version}\"'\n",
    );
    project.sluicegate(&RUN).assert(2, "version");
    project.sluicegate(&["run", "--no-scan", "--set", "version=1.2"]).assert(2, "version");
    project.sluicegate(&["run", "--no-scan", "--set", "version=v1.2", "--set", "verison=v1"]).assert(2, "version");
    project.must(&["run", "--no-scan", "--set", "version=v1.2"]);
    assert_eq!(project.log("say"), "v1.2 fast {version}\n");
    // Another value is another key.
    let (_, run) = project.json(&["run", "--no-scan", "--set", "version=v1.3"]);
    assert_eq!(run["steps"][0]["status"], "passed");
    let (_, run) = project.json(&["run", "--no-scan", "--set", "version=v1.2"]);
    assert_eq!(run["steps"][0]["status"], "taken");
}

#[test]
fn a_secret_is_in_no_log_no_statement_and_nowhere_in_the_home() {
    if !can_run_steps("a_secret_is_in_no_log_no_statement_and_nowhere_in_the_home") {
        return;
    }
    let mut project = Project::prepared();
    pipeline(
        &project,
        "steps:\n  use:\n    run: 'echo \"it is $TOKEN\"; printf %s \"$TOKEN\" | base64; [ ${#OTHER} = 11 ] && echo same'\n    \
         secrets: { TOKEN: { env: CI_TOKEN }, OTHER: { file: src/other.secret } }\n    inputs: { /src: src }\n",
    );
    fs::write(project.path("src/other.secret"), "from-a-file\n").unwrap();
    project.sluicegate(&RUN).assert(2, "CI_TOKEN is not set");
    // One that can't be masked is found before anything runs.
    let records = project.must(&["evidence", "list"]).stdout;
    project.set("CI_TOKEN", "abc");
    for command in [&RUN[..], &["try", "use"]] {
        let ended = project.sluicegate(command);
        ended.assert(2, "steps.use.secrets.TOKEN has less than 4 bytes");
        assert!(!ended.stderr.contains("step use"), "{ended:?}");
    }
    assert_eq!(project.must(&["evidence", "list"]).stdout, records);
    project.set("CI_TOKEN", "hunter2-and-more");
    let ended = project.must(&RUN);
    assert_eq!(project.log("use"), "it is ***\n***\nsame\n");
    for word in ["hunter2", "aHVudGVyMi", "from-a-file"] {
        assert!(!ended.stderr.contains(word) && !ended.stdout.contains(word), "{word}");
        let found = Command::new("grep").args(["-rl", word]).arg(project.path("home")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{word}");
    }
    assert_eq!(
        project.provenance("use")["buildDefinition"]["externalParameters"]["secrets"],
        json!(["OTHER", "TOKEN"])
    );
    // What came by a secret is made anew.
    let (_, run) = project.json(&RUN);
    assert_eq!(run["steps"][0]["status"], "passed");
}

#[test]
fn a_step_is_tried_again_and_passes_with_a_code_that_is_accepted() {
    if !can_run_steps("a_step_is_tried_again_and_passes_with_a_code_that_is_accepted") {
        return;
    }
    let project = Project::prepared();
    pipeline(
        &project,
        "steps:\n  never:\n    run: exit 3\n    retry: 2\n  found:\n    run: exit 1\n    accept_exit: [1]\n",
    );
    let failed = project.sluicegate(&["run", "--no-scan", "--keep-going"]);
    failed.assert(6, "step never ended with code 3");
    assert_eq!(failed.stderr.matches("it is tried again").count(), 2, "{failed:?}");
    let parameters = project.provenance("found")["buildDefinition"]["externalParameters"].clone();
    assert_eq!((&parameters["exitCode"], &parameters["acceptExit"]), (&json!(1), &json!([1])));
    project.replace("sluicegate.yaml", "accept_exit: [1]", "accept_exit: [2]");
    project.sluicegate(&["run", "--no-scan", "found"]).assert(6, "step found ended with code 1");
}

#[test]
fn a_step_that_passes_when_it_is_tried_again_passes_and_how_often_it_was_tried_is_signed() {
    if !can_run_steps("a_step_that_passes_when_it_is_tried_again_passes_and_how_often_it_was_tried_is_signed") {
        return;
    }
    let project = Project::prepared();
    // What an attempt leaves in its container is gone in the next one; a cache stays.
    let flaky = "test -e /var/seen/once || { echo first; touch /var/seen/once; exit 1; }; echo second";
    pipeline(
        &project,
        &format!(
            "steps:\n  once:\n    run: echo once\n    retry: 2\n  flaky:\n    run: '{flaky}'\n    caches: {{ seen: /var/seen }}\n    \
             retry: 2\n"
        ),
    );
    let (code, run) = project.json(&RUN);
    assert_eq!((code, &run["steps"][1]["status"]), (0, &json!("passed")), "{run:#}");
    let attempts = |step: &str| project.provenance(step)["buildDefinition"]["internalParameters"]["attempts"].clone();
    assert_eq!((attempts("flaky"), attempts("once")), (json!(2), json!(null)));
    // Without another try the same step fails.
    project.replace("sluicegate.yaml", "/once", "/another");
    project.replace("sluicegate.yaml", "seen }\n    retry: 2", "seen }\n    retry: 0");
    project.sluicegate(&RUN).assert(6, "step flaky ended with code 1");
}

#[test]
fn a_step_that_takes_longer_than_its_limit_fails_with_6() {
    if !can_run_steps("a_step_that_takes_longer_than_its_limit_fails_with_6") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, "steps:\n  slow:\n    run: sleep 1000\n    limits: { timeout: 1s }\n");
    let ended = project.sluicegate(&RUN);
    ended.assert(6, "step slow was killed after 1 s (limits.timeout)");
    ended.assert(6, "give it more under limits:");
    assert_eq!(project.last_record("run")["outcome"], "failed");
    // Whoever looks into it takes the time that it takes.
    project.sluicegate(&["shell", "slow", "--", "sh", "-c", "sleep 2 && echo still here"]).assert(0, "still here");
    project.replace("sluicegate.yaml", "sleep 1000", "'true'");
    project.must(&RUN);
}

#[test]
fn what_to_do_next_is_the_command_as_it_was_typed() {
    if !can_run_steps("what_to_do_next_is_the_command_as_it_was_typed") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, "params: { word: {} }\nsteps:\n  never:\n    run: exit 3\n");
    fs::rename(project.path("sluicegate.yaml"), project.path("t.yaml")).unwrap();
    project
        .sluicegate(&["run", "-f", "t.yaml", "--no-scan", "--set", "word=two words"])
        .assert(6, "; then sluicegate run -f t.yaml --no-scan --set 'word=two words'\n");
    project
        .sluicegate(&["try", "never", "-f", "t.yaml", "--set", "word=x"])
        .assert(6, "; then sluicegate try never -f t.yaml --set word=x\n");
}

#[test]
fn only_named_steps_run_and_with_only_nothing_else_is_executed() {
    if !can_run_steps("only_named_steps_run_and_with_only_nothing_else_is_executed") {
        return;
    }
    let project = Project::prepared();
    project.sluicegate(&["run", "--only", "test"]).assert(2, "the step build is not to be executed");
    let (_, run) = project.json(&["run", "test"]);
    let names: Vec<&str> = run["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!((names, &run["images"]), (vec!["build", "test"], &json!([])));
    project.must(&["run", "--only", "test"]);
}

#[test]
fn a_step_that_is_not_there_is_refused_before_anything_is_opened_or_recorded() {
    if !can_run_steps("a_step_that_is_not_there_is_refused_before_anything_is_opened_or_recorded") {
        return;
    }
    let project = Project::prepared();
    let records = || project.must(&["evidence", "list"]).stdout;
    let before = records();
    for arguments in [
        &["run", "--no-scan", "tset"][..],
        &["run", "--no-scan", "--only", "tset"],
        &["run", "--no-scan", "tset", "--export", "kept"],
        &["plan", "tset"],
        &["explain", "tset"],
        &["try", "tset"],
        &["shell", "tset"],
        &["shell", "tset", "--on-failure"],
    ] {
        let ended = project.keyless(arguments);
        ended.assert(2, "no step is called tset; did you mean test?");
        assert!(!ended.stderr.contains("passphrase") && !ended.stderr.contains("in the container"), "{ended:?}");
    }
    assert!(!project.path("kept").exists());
    assert_eq!(records(), before, "nothing is recorded");
    // With the name right the passphrase is asked for.
    project.keyless(&["run", "--no-scan", "test"]).assert(2, "COSIGN_PASSWORD");
    project.must(&["run", "--no-scan", "test"]);
    project
        .sluicegate(&["logs", "LAST", "tset"])
        .assert(2, "has no step tset that was executed or taken; did you mean test?");
    // A run that broke off before its first step is not the last one that has a log.
    project.keep("images/base", "images/kept");
    fs::write(project.path("images/base/index.json"), "{}").unwrap();
    project.sluicegate(&["run", "--no-scan", "test"]).assert(2, "recorded: ");
    project.restore("images/kept", "images/base");
    assert_eq!(project.json(&["logs", "LAST", "test"]).0, 0);
}

#[test]
fn a_folder_that_is_not_there_is_told_with_the_line_that_names_it() {
    if !can_run_steps("a_folder_that_is_not_there_is_told_with_the_line_that_names_it") {
        return;
    }
    let project = Project::prepared();
    for (from, to, says) in [
        ("path: src", "path: srcs", "line 4, column 25: sources.src.path: there is no folder srcs; did you mean src?"),
        (
            "defaults: { image: oci:images/base",
            "defaults: { image: oci:images/bsae",
            "line 5, column 20: defaults.image: there is no folder images/bsae; did you mean images/base?",
        ),
    ] {
        project.replace("sluicegate.yaml", from, to);
        for arguments in [&["plan"][..], &["run", "--no-scan"], &["try", "test"]] {
            project.sluicegate(arguments).assert(2, says);
        }
        project.replace("sluicegate.yaml", to, from);
    }
    project.must(&["plan"]);
}

#[test]
fn a_plan_refuses_what_a_run_refuses_before_its_first_step() {
    if !can_run_steps("a_plan_refuses_what_a_run_refuses_before_its_first_step") {
        return;
    }
    let project = Project::prepared();
    project.must(&["plan"]);
    for (to, says) in [
        ("repository: oci:env/production", "is the place of an environment, where only promote writes"),
        ("repository: oci:out/tiny\n    tags: [\"git-{commit}\"]", "the tag git-{commit} needs the one commit"),
    ] {
        project.replace("sluicegate.yaml", "repository: oci:out/tiny", to);
        for arguments in [&["run", "--no-scan"][..], &["plan"]] {
            project.sluicegate(arguments).assert(2, says);
        }
        // Of steps alone no image is made.
        project.must(&["plan", "test"]);
        project.replace("sluicegate.yaml", to, "repository: oci:out/tiny");
    }
    project.must(&["plan"]);
}

#[test]
fn a_step_is_tried_and_looked_into_without_any_key() {
    if !can_run_steps("a_step_is_tried_and_looked_into_without_any_key") {
        return;
    }
    let project = Project::prepared();
    let records = || project.must(&["evidence", "list"]).stdout;
    let before = records();
    project.keyless(&["try", "test"]).assert(0, "PASSED");
    project.replace("sluicegate.yaml", "grep -q hello", "grep -q goodbye");
    project.keyless(&["try", "test"]).assert(6, "step test ended with code 1");
    assert_eq!(records(), before, "nothing is recorded");
    let mut command = project.command(&["shell", "test", "--on-failure"]);
    command.env_remove("COSIGN_PASSWORD").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"cat /app/hello.txt; exit 3\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stdout).trim()), (Some(3), "hello"));
}

#[test]
fn an_interrupt_ends_a_run_with_130_and_it_is_on_record() {
    if !can_run_steps("an_interrupt_ends_a_run_with_130_and_it_is_on_record") {
        return;
    }
    let project = Project::prepared();
    pipeline(
        &project,
        "steps:\n  first:\n    run: echo done\n  long:\n    needs: [first]\n    run: echo waiting; sleep 1000\n",
    );
    let mut child = project.command(&RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("long | waiting") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it was interrupted");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    let record = project.last_record("run");
    assert_eq!(record["outcome"], "aborted");
    let status = |name: &str| {
        record["body"]["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()["status"].clone()
    };
    assert_eq!((status("first"), status("long")), (json!("passed"), json!("failed")));
    assert_eq!(project.log("long"), "waiting\n");
}

#[test]
fn a_source_that_is_fetched_is_of_a_commit_that_is_known() {
    if !can_run_steps("a_source_that_is_fetched_is_of_a_commit_that_is_known") {
        return;
    }
    let project = Project::prepared();
    fs::create_dir(project.path("mirror")).unwrap();
    fs::write(project.path("mirror/file"), "as committed").unwrap();
    let commit = commit(&project.path("mirror"), &["file"]);
    // What is only in the work tree is not fetched.
    fs::write(project.path("mirror/file"), "changed since").unwrap();
    let text = format!(
        "version: 1\nname: day\nsources: {{ far: {{ git: \"file://{}\", ref: main }} }}\ndefaults: {{ image: oci:images/base }}\nsteps:\n  \
         show:\n    run: [cat, /src/file]\n    inputs: {{ /src: far }}\n    outputs: {{}}\n",
        project.path("mirror").display()
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    project.must(&RUN);
    assert_eq!(project.log("show"), "as committed");
    let dependencies = project.provenance("show")["buildDefinition"]["resolvedDependencies"].clone();
    let source = dependencies.as_array().unwrap().iter().find(|one| one["name"] == "source:far").unwrap();
    assert_eq!(source["annotations"]["sluicegate.dev/commit"], json!(commit));
    assert_eq!(source["annotations"]["sluicegate.dev/ref"], "refs/heads/main");
    project.replace("sluicegate.yaml", "ref: main", "ref: mian");
    for arguments in [&["plan"][..], &RUN] {
        let ended = project.sluicegate(arguments);
        ended.assert(2, "sluicegate.yaml: line 3, column ");
        ended.assert(2, ": sources.far.ref: the git source file://");
        ended.assert(2, "there is no refs/heads/mian and no refs/tags/mian");
        ended.assert(2, "; branches are main");
    }
}

#[test]
fn a_step_whose_report_cannot_be_read_is_on_record_as_failed() {
    if !can_run_steps("a_step_whose_report_cannot_be_read_is_on_record_as_failed") {
        return;
    }
    let project = Project::prepared();
    let status = |text: &str| {
        pipeline(
            &project,
            &format!(
                "steps:\n  test:\n    run: \"mkdir -p /out && printf '{text}' > /out/junit.xml\"\n    inputs: {{ /src: src }}\n    \
                 reports: {{ junit: /out/junit.xml }}\n"
            ),
        );
        let ended = project.sluicegate(&RUN);
        (ended.code, project.last_record("run")["body"]["steps"][0]["status"].clone())
    };
    assert_eq!(status("no report").1, json!("failed"));
    assert_eq!(status("<testsuite/>"), (0, json!("passed")));
}

#[test]
fn a_commit_that_changes_nothing_of_a_step_leaves_its_result_and_the_image_as_they_were() {
    if !can_run_steps("a_commit_that_changes_nothing_of_a_step_leaves_its_result_and_the_image_as_they_were") {
        return;
    }
    let project = Project::prepared();
    fs::create_dir(project.path("other")).unwrap();
    fs::write(project.path("other/file"), "one").unwrap();
    let commit = |seconds: u64| commit_at(seconds, &project.path("."), &["src", "other"]);
    let show = |from: &str, then: &str| {
        format!("run: 'echo $SOURCE_DATE_EPOCH; stat -c %Y {then}; cp {then} /out'\n    inputs: {{ /src: {from} }}")
    };
    let text = format!(
        "version: 1\nname: day\nsources: {{ src: {{ path: src }}, other: {{ path: other }} }}\ndefaults: {{ image: oci:images/base }}\n\
         steps:\n  of-src:\n    {}\n    outputs: {{ it: /out }}\n  of-other:\n    {}\n    outputs: {{ it: /out }}\n  \
         after:\n    {}\n    outputs: {{ it: /out }}\n\
         artifacts:\n  it:\n    base: scratch\n    files: {{ /it: after.it }}\n    repository: oci:out/it\n",
        show("src", "/src/hello.txt"),
        show("other", "/src/file"),
        show("of-src.it", "/src"),
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    commit(1_000_000_000);
    let (code, first) = project.json(&["run", "--no-scan"]);
    assert_eq!(code, 0, "{first}");
    for step in ["of-src", "of-other", "after"] {
        assert_eq!(project.log(step), "1000000000\n1000000000\n", "{step}");
    }
    fs::write(project.path("other/file"), "two").unwrap();
    commit(1_100_000_000);
    let (_, second) = project.json(&["run", "--no-scan"]);
    let fate = |step: &str| {
        let found = second["steps"].as_array().unwrap().iter().find(|one| one["step"] == step).unwrap();
        found["status"].clone()
    };
    assert_eq!((fate("of-src"), fate("after"), fate("of-other")), (json!("taken"), json!("taken"), json!("passed")));
    assert_eq!(project.log("of-other"), "1100000000\n1100000000\n");
    assert_eq!(first["images"][0]["digest"], second["images"][0]["digest"]);
    // What is asked for counts for all.
    let ended = project.command(&["run", "--no-scan"]).env("SOURCE_DATE_EPOCH", "5").output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(project.log("of-src"), "5\n5\n");
}

#[test]
fn one_step_is_one_and_what_was_taken_did_not_run() {
    if !can_run_steps("one_step_is_one_and_what_was_taken_did_not_run") {
        return;
    }
    let project = Project::prepared();
    let run = |first: &str, second: &str| {
        pipeline(&project, &format!("steps:\n  one:\n    run: {first}\n  two:\n    run: {second}\n"));
        project.must(&RUN).stdout
    };
    let said = run("echo 1", "echo 2");
    assert!(said.starts_with("RAN  2 steps of run ") && !said.contains("taken"), "{said}");
    let said = run("echo 1", "echo 3");
    assert!(
        said.starts_with("1 of 2 steps taken from earlier runs") && said.contains("\nRAN  2 steps of run "),
        "{said}"
    );
    let said = run("echo 1", "echo 3");
    assert!(said.starts_with("2 of 2 steps taken") && said.contains("\nTAKEN  2 steps of run "), "{said}");
    pipeline(&project, "steps:\n  one:\n    run: echo 4\n");
    project.sluicegate(&["plan"]).assert(0, "\n1 step: 0 taken");
    let said = project.must(&RUN).stdout;
    assert!(said.starts_with("RAN  1 step of run "), "{said}");
    project.sluicegate(&["plan"]).assert(0, "\n1 step: 1 taken");
    let said = project.must(&RUN).stdout;
    assert!(said.starts_with("1 of 1 step taken") && said.contains("\nTAKEN  1 step of run "), "{said}");
}
