//! What is only planned or tried, with a store that machines share.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use integration::{Project, can_run_steps, program};
use serde_json::Value;

use super::{
    Shared, add, all_are, copy, hex, over_a_folder, over_a_server, run, serving::Serving, step, two_machines,
    with_a_secret, write,
};

/// What a plan says of each step.
fn fates(project: &Project) -> (Value, String) {
    let ended = project.must(&["plan", "-o", "json"]);
    (serde_json::from_str(&ended.stdout).unwrap(), ended.stderr)
}

fn contents(project: &Project) -> BTreeSet<String> {
    let names = fs::read_dir(project.path("home/store/blobs/sha256")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn has_results(project: &Project) -> bool {
    fs::read_dir(project.path("home/cache/step-results/steps")).is_ok_and(|mut steps| steps.next().is_some())
}

/// A plan says of each step what a run does then, and fetches the statements alone; a try fetches what it needs and executes the rest.
fn plans_say_what_runs_do(first: &Project, second: &Project, shared: &Shared) {
    let (made, _) = run(first);
    let (planned, said) = fates(second);
    assert!(!said.contains("shared store"), "{said}");
    let names = ["build", "test", "package"];
    let brought = contents(second);
    let (mut to_fetch, mut seen) = (0, BTreeSet::new());
    for name in names {
        let (plan, ran) = (step(&planned, name), step(&made, name));
        assert_eq!((&plan["fate"], &plan["origin"]), (&"taken".into(), &ran["attestation"]), "{planned}");
        assert_eq!(plan["key"], ran["key"]);
        let outputs = ran["outputs"].as_object().unwrap().values().chain([&ran["log"]]);
        let outputs: Vec<&Value> = outputs.chain(Some(&ran["report"]).filter(|report| report.is_string())).collect();
        let there = |digest: &&Value| fs::metadata(shared.blob(digest)).map_or(0, |found| found.len());
        // What two steps left is fetched once.
        let new = outputs.iter().filter(|digest| seen.insert(hex(digest).to_owned()));
        assert_eq!(plan["toFetch"], new.map(there).sum::<u64>(), "{name}: {planned}");
        to_fetch += plan["toFetch"].as_u64().unwrap();
        // Of all that, nothing is here but what says so.
        assert!(brought.contains(hex(&ran["attestation"])));
        let empty = |digest: &Value| there(&digest) == 0;
        assert!(outputs.iter().all(|digest| empty(digest) || !brought.contains(hex(digest))), "{name}");
    }
    assert!(to_fetch > 0 && !has_results(second));
    let said = second.must(&["plan"]).stdout;
    assert_eq!(said.matches("in the shared store, ").count(), 3, "{said}");
    assert!(said.contains("3 taken from earlier runs"), "{said}");
    let explained = second.must(&["explain", "test"]).stdout;
    assert!(explained.contains("TAKEN") && explained.contains("to fetch"), "{explained}");
    let without = second.must(&["plan", "--no-cache"]).stdout;
    assert!(without.contains("0 taken") && without.contains("earlier results are not looked at"), "{without}");
    // What it reads comes from there, and it is executed all the same.
    let tried: Value = serde_json::from_str(&second.must(&["try", "test", "-o", "json"]).stdout).unwrap();
    assert_eq!((&step(&tried, "build")["taken"], &step(&tried, "test")["taken"]), (&true.into(), &false.into()));
    let build = step(&made, "build");
    assert!(contents(second).contains(hex(build["outputs"].as_object().unwrap().values().next().unwrap())));
    // Its content is here, and no run of this machine has left it.
    assert!(!has_results(second));
    let (planned, _) = fates(second);
    assert_eq!((&step(&planned, "build")["fate"], &step(&planned, "build")["toFetch"]), (&"taken".into(), &0.into()));
    let tried: Value = serde_json::from_str(&second.must(&["try", "test", "--no-cache", "-o", "json"]).stdout).unwrap();
    assert_eq!(step(&tried, "build")["taken"], false);
    assert!(all_are(&run(second).0, "taken"));
    // That step is this machine's own now.
    let (planned, _) = fates(second);
    assert_eq!(
        (&step(&planned, "build")["fate"], &step(&planned, "build")["toFetch"]),
        (&"taken".into(), &Value::Null)
    );
}

#[test]
fn plans_say_what_runs_take_from_a_folder_and_fetch_only_statements() {
    let Some((first, second, shared)) =
        over_a_folder("plans_say_what_runs_take_from_a_folder_and_fetch_only_statements")
    else {
        return;
    };
    plans_say_what_runs_do(&first, &second, &shared);
}

#[test]
fn plans_say_what_runs_take_from_a_real_server_and_fetch_only_statements() {
    let Some((_server, first, second, shared)) =
        over_a_server("plans_say_what_runs_take_from_a_real_server_and_fetch_only_statements")
    else {
        return;
    };
    plans_say_what_runs_do(&first, &second, &shared);
}

/// What a plan can find out without fetching content it says; what it can not, the run finds out.
#[test]
fn a_plan_takes_nothing_that_is_not_proved_and_a_run_nothing_that_the_store_only_says() {
    let Some((first, second, shared)) =
        over_a_folder("a_plan_takes_nothing_that_is_not_proved_and_a_run_nothing_that_the_store_only_says")
    else {
        return;
    };
    let (made, _) = run(&first);
    let build = step(&made, "build");
    let output = shared.blob(build["outputs"].as_object().unwrap().values().next().unwrap());
    copy(&shared.folder, &second.path("pristine"));
    second.keep("home", "home-that-was-empty");
    let again = |tamper: &dyn Fn()| {
        second.restore("home-that-was-empty", "home");
        copy(&second.path("pristine"), &shared.folder);
        tamper();
        let (planned, said) = fates(&second);
        (step(&planned, "build").clone(), step(&planned, "test").clone(), said)
    };
    let stranger = Project::stranger();
    let theirs = Shared::folder(&stranger);
    add(&stranger, &theirs.cache);
    let foreign = step(&run(&stranger).0, "build").clone();
    type Tampering<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);
    let tamperings: [Tampering<'_>; 5] = [
        ("the output is empty", "empty there", Box::new(|| write(&output, b""))),
        ("the output is gone", "has not got it", Box::new(|| fs::remove_file(&output).unwrap())),
        (
            "the output is larger than any",
            "larger there than the limit",
            Box::new(|| fs::File::options().write(true).open(&output).unwrap().set_len(1 << 40).unwrap()),
        ),
        (
            "the record leads to another step",
            "another key",
            Box::new(|| write(&shared.record(build), shared.bundle(step(&made, "test")).as_str().unwrap().as_bytes())),
        ),
        (
            "the statement is a stranger's",
            "",
            Box::new(|| {
                fs::copy(theirs.blob(&foreign["attestation"]), shared.blob(&foreign["attestation"])).unwrap();
                write(&shared.record(build), foreign["attestation"].as_str().unwrap().as_bytes());
            }),
        ),
    ];
    for (what, says, tamper) in tamperings {
        let (build, test, said) = again(&tamper);
        assert_eq!((&build["fate"], &test["fate"]), (&"executed".into(), &"open".into()), "{what}: {build}");
        assert!(build["reason"].as_str().unwrap().contains(says), "{what}: {build}");
        assert!(said.contains("is not taken"), "{what}: {said}");
    }
    // Nothing wrong.
    let (build_now, test, said) = again(&|| {});
    assert_eq!((&build_now["fate"], &test["fate"]), (&"taken".into(), &"taken".into()));
    assert!(!said.contains("is not taken"), "{said}");
    // The store says that it has the output, and has something else of its name.
    let (build_now, ..) = again(&|| write(&output, b"something else"));
    assert_eq!(build_now["fate"], "taken");
    let (ran, said) = run(&second);
    assert_eq!((&step(&ran, "build")["status"], &step(&ran, "test")["status"]), (&"passed".into(), &"taken".into()));
    assert!(said.contains("has the digest"), "{said}");
    // As a try finds it out.
    again(&|| write(&output, b"something else"));
    let tried: Value = serde_json::from_str(&second.must(&["try", "test", "-o", "json"]).stdout).unwrap();
    assert_eq!(step(&tried, "build")["taken"], false);
}

#[test]
fn a_plan_and_a_try_ask_nothing_about_what_came_by_secrets() {
    if !can_run_steps("a_plan_and_a_try_ask_nothing_about_what_came_by_secrets") {
        return;
    }
    let (mut first, mut second) = two_machines();
    for project in [&mut first, &mut second] {
        with_a_secret(project);
        project.set("AWS_ACCESS_KEY_ID", "id");
        project.set("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-store");
    }
    let shared = Shared::folder(&first);
    add(&first, &shared.cache);
    let (made, _) = run(&first);
    // Somebody puts it there all the same, with all that is asked for.
    let build = step(&made, "build");
    shared.put_all_the_same(&first, build);
    let serving = Serving::start(&shared.folder, None);
    add(&second, &format!("{{ store: s3://bucket, endpoint: \"{}\" }}", serving.url));
    let (planned, _) = fates(&second);
    let planned = step(&planned, "build");
    assert_eq!((&planned["fate"], &planned["key"]), (&"executed".into(), &build["key"]), "{planned}");
    assert_eq!(planned["reason"], "nothing with this key");
    let tried: Value = serde_json::from_str(&second.must(&["try", "test", "-o", "json"]).stdout).unwrap();
    assert_eq!(step(&tried, "build")["taken"], false);
    // Only about the other step, and as whoever fetches it asks.
    let asked = serving.asked();
    let alone = step(&made, "alone");
    assert!(asked.iter().any(|asked| asked.contains(hex(&alone["key"]))), "{asked:?}");
    for of_it in [&build["key"], &build["attestation"], &step(&made, "test")["key"]] {
        assert!(!asked.iter().any(|asked| asked.contains(hex(of_it))), "{asked:?}");
    }
    assert!(asked.iter().all(|asked| asked.starts_with("GET ")), "{asked:?}");
    // On the machine that made it, it is taken.
    assert_eq!(step(&fates(&first).0, "build")["fate"], "taken");
}

#[test]
fn an_interrupt_while_a_result_is_fetched_stops_a_run_and_a_try() {
    if !can_run_steps("an_interrupt_while_a_result_is_fetched_stops_a_run_and_a_try") {
        return;
    }
    let (first, mut second) = two_machines();
    second.set("AWS_ACCESS_KEY_ID", "id");
    second.set("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-store");
    for project in [&first, &second] {
        // More than two pieces.
        project.replace(
            "sluicegate.yaml",
            "printf 'built\\n'",
            "head -c 20000000 /dev/zero > /out/app/large && printf 'built\\n'",
        );
    }
    let shared = Shared::folder(&first);
    add(&first, &shared.cache);
    let (made, _) = run(&first);
    let output = shared.blob(step(&made, "build")["outputs"].as_object().unwrap().values().next().unwrap());
    second.keep("home", "home-that-was-empty");
    let gateway = fs::read_to_string(second.path("gateway.yaml")).unwrap();
    let interrupted = |arguments: &[&str]| {
        second.restore("home-that-was-empty", "home");
        let serving = Serving::start(&shared.folder, Some(&output));
        let store = format!("cache: {{ store: s3://bucket, endpoint: \"{}\" }}\n", serving.url);
        fs::write(second.path("gateway.yaml"), format!("{gateway}{store}")).unwrap();
        let mut command = Command::new(program());
        second.environment(&mut command);
        let piped = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().unwrap();
        serving.until_somebody_waits();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        serving.go_on();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(130), "{arguments:?}: {said}");
        assert!(!said.contains("is not taken") && !said.contains("step build runs"), "{said}");
        assert_eq!(said.contains("what was proved stays in the log"), arguments[0] == "run", "{said}");
        if arguments[0] == "run" {
            assert_eq!(second.last_record("run")["outcome"], "aborted", "{said}");
        }
        serving
    };
    for arguments in [&["run", "test", "--only", "--no-scan"][..], &["run", "--no-scan"], &["try", "test"]] {
        let _serving = interrupted(arguments);
        // Not interrupted, it is taken.
        second.must(arguments);
    }
    // That another step failed meanwhile did not end the run.
    second.replace("sluicegate.yaml", "steps:\n", "steps:\n  bad: { run: exit 3 }\n");
    interrupted(&["run", "-k", "--no-scan"]);
    let failed = second.last_record("run");
    assert_eq!(failed["body"]["failures"][0]["step"], "bad", "{failed}");
}
