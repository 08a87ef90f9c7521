//! `prune` on real homes: everything that can be asked about what was recorded is answered afterwards as before, and what it can't be sure
//! of it leaves alone.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use integration::{Ended, PROMOTE, Project, can_run_steps, ready};
use serde_json::Value;
use sluicegate_types::Digest;

const RUN: [&str; 2] = ["run", "--no-scan"];

fn blobs(project: &Project) -> PathBuf {
    project.path("home/store/blobs/sha256")
}

/// Puts a content into the store that nothing refers to.
fn junk(project: &Project, text: &str) -> PathBuf {
    let path = blobs(project).join(Digest::of(text.as_bytes()).hex());
    fs::write(&path, text).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Every file of the home with its size, but for what SQLite keeps beside its database while that is open.
fn home(project: &Project) -> BTreeMap<PathBuf, u64> {
    let (mut files, mut waiting) = (BTreeMap::new(), vec![project.path("home")]);
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            if found.is_dir() {
                waiting.push(path.clone());
            }
            if !path.to_string_lossy().contains("evidence.db-") {
                files.insert(path, if found.is_dir() { 0 } else { found.len() });
            }
        }
    }
    files
}

/// How each step ended.
fn fates(project: &Project) -> BTreeMap<String, String> {
    fates_of(project, &RUN)
}

fn fates_of(project: &Project, run: &[&str]) -> BTreeMap<String, String> {
    let (code, run) = project.json(run);
    assert_eq!(code, 0, "{run}");
    let text = |step: &Value, member: &str| step[member].as_str().unwrap().to_owned();
    run["steps"].as_array().unwrap().iter().map(|step| (text(step, "step"), text(step, "status"))).collect()
}

fn all(fate: &str) -> BTreeMap<String, String> {
    ["build", "package", "test"].map(|step| (step.to_owned(), fate.to_owned())).into()
}

fn amount(document: &Value, what: &str, which: &str) -> u64 {
    let kind = document["kinds"].as_array().unwrap().iter().find(|kind| kind["what"] == what);
    kind.unwrap_or_else(|| panic!("no {what}: {document}"))[which]["count"].as_u64().unwrap()
}

/// All that can be asked about what was recorded.
fn answers(project: &Project) -> Vec<String> {
    let decision = project.last_record("decision")["sequence"].to_string();
    let questions: [&[&str]; 9] = [
        &["evidence", "fsck"],
        &["evidence", "list"],
        &["evidence", "show", &decision],
        &["evidence", "replay", &decision],
        &["verify", "--offline", "oci:out/tiny"],
        &["verify", "--offline", "oci:env/production"],
        &["logs", "LAST", "build"],
        &["logs", "LAST", "test", "--report"],
        &["log", "verify"],
    ];
    questions.iter().map(|question| format!("{question:?}: {}", project.must(question).stdout)).collect()
}

#[test]
fn what_was_recorded_is_answered_for_as_before_and_what_runs_next_is_taken() {
    if !ready("what_was_recorded_is_answered_for_as_before_and_what_runs_next_is_taken") {
        return;
    }
    let project = Project::promoted();
    let junk = junk(&project, "nobody's");
    fs::write(project.path("home/store/tmp/draft"), "begun").unwrap();
    let before = answers(&project);

    let everything = home(&project);
    let (code, dry) = project.json(&["prune", "--dry-run"]);
    assert_eq!((code, &dry["dryRun"]), (0, &Value::Bool(true)));
    assert!(amount(&dry, "contents that nothing refers to", "deleted") > 0);
    project.sluicegate(&["prune", "--dry-run"]).assert(0, "nothing was deleted");
    assert_eq!(home(&project), everything, "a dry run changes nothing");

    let (code, done) = project.json(&["prune"]);
    assert_eq!((code, &done["dryRun"], &done["schemaVersion"]), (0, &Value::Bool(false), &Value::from(1)));
    assert!(!junk.exists() && names(&project.path("home/store/tmp")).is_empty());
    assert_eq!(amount(&done, "unfinished files", "deleted"), 1);
    assert_eq!(amount(&done, "step results", "kept"), 3);
    assert_eq!(answers(&project), before);
    assert_eq!(fates_of(&project, &["run"]), all("taken"));
    project.must(&PROMOTE);

    // Without anything that can be made again the same still holds, and the next run makes it.
    let before = answers(&project);
    let (_, done) = project.json(&["prune", "--all"]);
    assert_eq!((amount(&done, "step results", "deleted"), amount(&done, "step results", "kept")), (3, 0));
    assert_eq!(names(&project.path("home/cache/layers/alone")), [""; 0]);
    assert_eq!(answers(&project), before);
    project.must(&PROMOTE);
    assert_eq!(fates_of(&project, &["run"]), all("passed"));
    assert_eq!(fates_of(&project, &["run"]), all("taken"));
    project.must(&["verify", "--offline", "oci:out/tiny"]);

    // Nor does what steps read and left matter to anything but steps.
    let sizes =
        |project: &Project| home(project).into_iter().filter(|(path, _)| path.starts_with(blobs(project))).count();
    project.must(&PROMOTE);
    let (before, held) = (answers(&project), sizes(&project));
    project.must(&["prune", "--all", "--materials"]);
    assert!(sizes(&project) < held);
    assert_eq!(answers(&project), before);
    project.must(&PROMOTE);
    assert_eq!(fates_of(&project, &["run"]), all("passed"));
    project.must(&["evidence", "fsck"]);
}

#[test]
fn results_and_layers_go_by_their_last_use() {
    if !can_run_steps("results_and_layers_go_by_their_last_use") {
        return;
    }
    let project = Project::prepared();
    let (_, run) = project.json(&RUN);
    let key = |name: &str| {
        let steps = run["steps"].as_array().unwrap();
        let key = steps.iter().find(|step| step["step"] == name).unwrap()["key"].as_str().unwrap().to_owned();
        project.path("home/cache/step-results/steps").join(key.trim_start_matches("sha256:"))
    };
    let age = |path: &Path, days: u64| {
        let then = SystemTime::now() - Duration::from_secs(days * 86_400);
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    };
    let used = project.path("home/cache/layers/used");
    let marks = names(&used);
    assert!(marks.iter().any(|mark| mark.starts_with("alone-")) && marks.iter().any(|mark| mark.starts_with("tree-")));
    // 720 hours are thirty days. What was not used within them goes; all else is left.
    age(&key("build"), 31);
    age(&key("test"), 29);
    let old = marks.iter().find(|mark| mark.starts_with("tree-")).unwrap();
    age(&used.join(old), 31);
    let (_, pruned) = project.json(&["prune"]);
    assert_eq!((amount(&pruned, "step results", "deleted"), amount(&pruned, "step results", "kept")), (1, 2));
    assert_eq!(amount(&pruned, "unpacked layers and inputs", "deleted"), 1);
    assert!(!used.join(old).exists() && !key("build").exists() && key("test").exists());
    let expected = [("build", "passed"), ("package", "taken"), ("test", "taken")];
    assert_eq!(fates(&project), expected.map(|(step, fate)| (step.to_owned(), fate.to_owned())).into());
    // What was taken was used.
    project.must(&["prune", "--keep-duration", "28d"]);
    assert_eq!(fates(&project), all("taken"));
    // The one used last is kept where there is not room for all.
    age(&key("build"), 3);
    age(&key("test"), 2);
    age(&key("package"), 1);
    let (_, layers) = project.json(&["prune", "--dry-run", "--keep-storage", "100"]);
    assert_eq!(amount(&layers, "step results", "kept"), 0, "layers were used later");
    fs::remove_dir_all(project.path("home/cache/layers")).unwrap();
    project.must(&["prune", "--keep-storage", "100"]);
    assert_eq!((key("build").exists(), key("test").exists(), key("package").exists()), (false, false, true));
    for wrong in [
        &["prune", "--keep-storage", "much"][..],
        &["prune", "--keep-duration", "1y"],
        &["prune", "-a", "--keep-storage", "1GiB"],
    ] {
        project.sluicegate(wrong).assert(2, "");
    }
}

/// A run that is in the middle of a step, after another one that left something.
fn in_the_middle(project: &Project) -> Child {
    let text = "version: 1\nname: slow\nsources: { src: { path: src } }\ndefaults: { image: oci:images/base }\nsteps:\n  first:\n    \
                run: cp /src/hello.txt /out\n    inputs: { /src: src }\n    outputs: { copy: /out }\n  long:\n    run: cat /in; echo waiting; \
                sleep 1000\n    inputs: { /in: first.copy }\n";
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    let mut child = project.command(&RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("long | waiting") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended too early");
    }
    child.stderr = Some(errors.into_inner());
    child
}

#[test]
fn a_run_in_the_middle_loses_nothing_and_one_that_was_killed_holds_nothing() {
    if !can_run_steps("a_run_in_the_middle_loses_nothing_and_one_that_was_killed_holds_nothing") {
        return;
    }
    let project = Project::prepared();
    let junk = junk(&project, "nobody's");
    let mut run = in_the_middle(&project);
    // What the container's own program notes while it runs is nobody's but its own.
    let kept = |project: &Project| {
        let mut all = home(project);
        all.retain(|path, _| !path.starts_with(project.path("home/run")));
        all
    };
    let before = kept(&project);
    for prune in [&["prune"][..], &["prune", "--all"], &["prune", "--all", "--materials"]] {
        let refused = project.sluicegate(prune);
        refused.assert(5, "another sluicegate uses the home");
        refused.assert(5, "nothing was deleted");
    }
    // Saying what would go needs nobody to wait.
    project.sluicegate(&["prune", "--all", "--dry-run"]).assert(0, "nothing was deleted");
    assert_eq!(kept(&project), before);

    run.kill().unwrap();
    run.wait().unwrap();
    // What it left that no record names goes, and what it proved and logged is still found.
    project.must(&["prune"]);
    assert!(!junk.exists());
    project.must(&["evidence", "fsck"]);
    project.must(&["log", "verify"]);
    project.replace("sluicegate.yaml", "sleep 1000", "true");
    let (code, run) = project.json(&RUN);
    assert_eq!(code, 0, "{run}");
    assert_eq!(run["steps"][0]["status"], "taken", "its result was kept: {run}");
}

#[test]
fn a_break_in_the_middle_is_told_and_the_next_prune_does_the_rest() {
    if !can_run_steps("a_break_in_the_middle_is_told_and_the_next_prune_does_the_rest") {
        return;
    }
    let project = Project::prepared();
    project.must(&RUN);
    let junk: Vec<PathBuf> = (0..20).map(|number| junk(&project, &format!("nobody's {number}"))).collect();
    let mut last = junk.clone();
    last.sort();
    let last = last.last().unwrap();
    // One of them is held in its place, as it were by a disk that takes nothing any more.
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(project.path("sluicegate.yaml")).arg(last);
    command.arg(integration::program()).args(["prune", "--all"]);
    project.environment(&mut command);
    let broken = Ended::of(&["prune", "--all"], command.output().unwrap());
    broken.assert(5, "cannot remove");
    broken.assert(5, "prune again");
    assert!(last.exists());
    project.must(&["evidence", "fsck"]);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!(fates(&project), all("passed"));
    project.must(&["prune"]);
    assert!(junk.iter().all(|junk| !junk.exists()));
    assert_eq!(fates(&project), all("taken"));
}

#[test]
fn nothing_goes_where_the_evidence_cannot_be_read() {
    if !can_run_steps("nothing_goes_where_the_evidence_cannot_be_read") {
        return;
    }
    let whole = Project::prepared();
    whole.must(&RUN);
    let document = whole.last_record("run")["body"]["steps"][0]["attestation"].as_str().unwrap().to_owned();
    let document = document.trim_start_matches("sha256:");
    type Damage<'a> = (&'a str, i32, &'a dyn Fn(&Project));
    let damages: [Damage<'_>; 9] = [
        ("the database is gone", 5, &|project| fs::remove_file(project.path("home/evidence.db")).unwrap()),
        ("the database is empty", 5, &|project| fs::write(project.path("home/evidence.db"), "").unwrap()),
        ("the database is cut", 4, &|project| {
            let file = File::options().write(true).open(project.path("home/evidence.db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("the database is something else", 4, &|project| {
            fs::write(project.path("home/evidence.db"), vec![b'x'; 20_000]).unwrap();
        }),
        ("the ledger has lost its checkpoint", 4, &|project| {
            fs::remove_file(project.path("home/ledger/checkpoint")).unwrap();
        }),
        ("the ledger's key is gone", 5, &|project| fs::remove_file(project.path("home/keys/ledger.pub")).unwrap()),
        ("a content of a record is gone", 4, &|project| fs::remove_file(blobs(project).join(document)).unwrap()),
        ("a content of a record is another one", 4, &|project| fs::write(blobs(project).join(document), "{}").unwrap()),
        ("what waits for a log is damaged", 5, &|project| {
            fs::write(project.path("home/outbox").join(document), "{").unwrap();
        }),
    ];
    for (what, code, damage) in damages {
        let project = whole.copy();
        let junk = junk(&project, "nobody's");
        for file in ["evidence.db-wal", "evidence.db-shm"] {
            let _ = fs::remove_file(project.path("home").join(file));
        }
        damage(&project);
        let before = home(&project);
        for prune in [&["prune"][..], &["prune", "--all", "--materials"], &["prune", "--dry-run"]] {
            let ended = project.sluicegate(prune);
            assert_eq!(ended.code, code, "{what}: {ended:?}");
            assert!(ended.stdout.is_empty(), "{what}: {ended:?}");
        }
        assert_eq!(home(&project).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{what}");
        assert!(junk.exists(), "{what}");
    }
    let junk = junk(&whole, "nobody's");
    whole.must(&["prune"]);
    assert!(!junk.exists());
    // There is no home to prune where there is none.
    Project::empty().sluicegate(&["prune"]).assert(2, "there is no home");
}

#[test]
fn a_shared_cache_goes_by_its_last_use_and_not_while_a_step_has_it() {
    if !can_run_steps("a_shared_cache_goes_by_its_last_use_and_not_while_a_step_has_it") {
        return;
    }
    let project = Project::prepared();
    let scope = |name: &str, days: u64| {
        let path = project.path("home/cache/shared").join(Digest::of(name.as_bytes()).hex());
        fs::create_dir_all(path.join("content")).unwrap();
        fs::write(path.join("content/file"), name).unwrap();
        let then = SystemTime::now() - Duration::from_secs(days * 86_400);
        File::create(path.join("lock")).unwrap().set_modified(then).unwrap();
        path
    };
    let (old, new, busy) = (scope("old", 31), scope("new", 29), scope("busy", 31));
    let lock = File::open(busy.join("lock")).unwrap();
    lock.lock().unwrap();
    let counts = |arguments: &[&str]| {
        let (code, pruned) = project.json(arguments);
        assert_eq!(code, 0, "{pruned}");
        let of = |which| amount(&pruned, "shared caches of steps", which);
        (of("deleted"), of("kept"))
    };
    assert_eq!(counts(&["prune", "--dry-run"]), (1, 1));
    assert!(old.exists());
    assert_eq!(counts(&["prune"]), (1, 1));
    assert!(!old.exists() && new.join("content/file").exists() && busy.join("content/file").exists());
    assert_eq!(counts(&["prune", "--all"]), (1, 0));
    assert!(!new.exists() && busy.join("content/file").exists());
    drop(lock);
    assert_eq!(counts(&["prune", "--all"]), (1, 0));
    assert!(!busy.exists());
}

#[test]
fn a_link_in_the_home_leads_no_deletion_out_of_it() {
    if !can_run_steps("a_link_in_the_home_leads_no_deletion_out_of_it") {
        return;
    }
    let whole = Project::prepared();
    whole.must(&RUN);
    let precious = |project: &Project| {
        let outside = project.path("outside");
        let hex = Digest::of(b"precious").hex();
        for folder in ["", "blobs/sha256", "sha256", "alone", "steps", "step-results/steps", "layers/alone", "tmp"] {
            fs::create_dir_all(outside.join(folder)).unwrap();
            fs::write(outside.join(folder).join(&hex), "precious").unwrap();
        }
        outside
    };
    let count = |outside: &Path| {
        let script = "find . -type f | wc -l";
        let found = Command::new("sh").args(["-c", script]).current_dir(outside).output().unwrap();
        String::from_utf8(found.stdout).unwrap().trim().parse::<usize>().unwrap()
    };
    // In the place of a whole folder: nothing goes at all.
    for (place, to) in [
        ("home/store", ""),
        ("home/store/blobs", ""),
        ("home/store/blobs/sha256", ""),
        ("home/store/tmp", "tmp"),
        ("home/cache", ""),
        ("home/cache/layers", ""),
        ("home/cache/layers/alone", "alone"),
        ("home/cache/layers/tree", "alone"),
        ("home/cache/step-results", ""),
        ("home/cache/step-results/steps", "steps"),
        ("home/cache/git", ""),
        ("home/cache/trivy-db", ""),
        ("home/cache/scanner", ""),
        ("home/cache/shared", ""),
    ] {
        let project = whole.copy();
        let junk = junk(&project, "nobody's");
        let outside = precious(&project);
        let _ = fs::remove_dir_all(project.path("aside"));
        let there = project.path(place).exists();
        if there {
            fs::rename(project.path(place), project.path("aside")).unwrap();
        }
        symlink(outside.join(to), project.path(place)).unwrap();
        let ended = project.sluicegate(&["prune", "--all", "--materials"]);
        assert!([2, 4, 5].contains(&ended.code), "{place}: {ended:?}");
        assert_eq!(count(&outside), 8, "{place}");
        fs::remove_file(project.path(place)).unwrap();
        if there {
            fs::rename(project.path("aside"), project.path(place)).unwrap();
        }
        assert!(junk.exists(), "{place}");
        project.must(&["prune", "--all", "--materials"]);
        assert!(!junk.exists(), "{place}");
    }
    // Among the things themselves: the link may go, what it leads to stays.
    let project = whole.copy();
    let outside = precious(&project);
    let stranger = blobs(&project).join(Digest::of(b"stranger").hex());
    symlink(outside.join("alone"), &stranger).unwrap();
    symlink(&outside, project.path("home/cache/layers/alone/link")).unwrap();
    symlink(&outside, project.path("home/cache/step-results/steps/link")).unwrap();
    let layer = names(&project.path("home/cache/layers/alone")).into_iter().find(|name| name != "link").unwrap();
    symlink(&outside, project.path("home/cache/layers/alone").join(layer).join("link")).unwrap();
    let said = project.must(&["prune", "--all"]);
    said.assert(0, "left alone");
    assert_eq!(count(&outside), 8);
    assert!(stranger.is_symlink());
    assert!(names(&project.path("home/cache/layers/alone")).is_empty());
    assert!(names(&project.path("home/cache/step-results/steps")).is_empty());
}
