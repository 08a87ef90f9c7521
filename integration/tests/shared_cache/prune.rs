//! What is deleted of a store that machines share: by age alone, what leads to contents first.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use integration::{Project, can_run_steps};
use serde_json::Value;

use super::{Shared, add, all_are, over_a_folder, over_a_server, run, step};

const DAY: u64 = 24 * 60 * 60;

/// Makes files as old as this, as far as anybody can see.
fn age(folder: &Path, days: u64) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * DAY + 60);
    for entry in fs::read_dir(folder).unwrap() {
        fs::File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(then).unwrap();
    }
}

/// How many files are called by a digest.
fn count(folder: &Path) -> usize {
    let is_one = |entry: &fs::DirEntry| entry.path().is_file() && entry.file_name().len() == 64;
    fs::read_dir(folder).map_or(0, |entries| entries.filter(|entry| is_one(entry.as_ref().unwrap())).count())
}

fn pruned(project: &Project, flags: &[&str]) -> (u64, u64) {
    let ended = project.must(&[&["prune", "--shared", "-o", "json"], flags].concat());
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    let of = |kind: usize| document["kinds"][kind]["deleted"]["count"].as_u64().unwrap();
    assert_eq!(document["deleted"]["count"], of(0) + of(1), "{document}");
    (of(0), of(1))
}

fn what_is_old_goes(first: &Project, second: &Project, shared: &Shared) {
    let (made, _) = run(first);
    let (results, contents) = (shared.folder.join("v1/results"), shared.folder.join("v1/sha256"));
    let all = (count(&results) as u64, count(&contents) as u64);
    assert!(all.0 == 3 && all.1 > 3, "{all:?}");
    let whole = |project: &Project| {
        let _ = fs::remove_dir_all(project.path("home/cache/step-results"));
        all_are(&run(project).0, "taken")
    };
    // What is not ours stays, whatever is done.
    let notes = [results.join("notes"), shared.folder.join("v1/notes")];
    notes.iter().for_each(|notes| fs::write(notes, "mine").unwrap());
    assert_eq!(pruned(first, &[]), (0, 0));
    assert_eq!(pruned(first, &["--all", "--dry-run"]), all);
    assert_eq!((count(&results) as u64, count(&contents) as u64), all);
    assert!(whole(second));
    // Thirty days are over, and a day more is not: nothing leads anywhere, and what it led to is there yet.
    age(&results, 30);
    age(&contents, 30);
    assert_eq!(pruned(first, &["--dry-run"]), (3, 0));
    assert_eq!(pruned(first, &[]), (3, 0));
    assert_eq!((count(&results), count(&contents) as u64), (0, all.1));
    // A result that is put again is young with all that it leads to.
    let _ = fs::remove_dir_all(first.path("home/cache/step-results"));
    age(&contents, 31);
    let (again, _) = run(first);
    assert!(all_are(&again, "passed"), "{again}");
    assert_eq!(count(&results), 3);
    let (gone_results, gone) = pruned(first, &[]);
    assert_eq!(gone_results, 0);
    // The statements of the first time.
    assert_eq!(gone, 3);
    assert!(!shared.blob(&step(&made, "build")["attestation"]).exists());
    assert!(whole(second));
    assert_eq!(pruned(first, &["--keep-duration", "1h"]), (0, 0));
    let told = first.must(&["prune", "--shared", "--all"]).stdout;
    assert!(told.starts_with("DELETED") && told.contains("step results in the shared store"), "{told}");
    assert_eq!((count(&results), count(&contents)), (0, 0));
    assert!(notes.iter().all(|notes| notes.exists()));
    assert_eq!(pruned(first, &["--all"]), (0, 0));
    // What machines have is theirs, and without the store they make it.
    assert!(all_are(&run(second).0, "taken"));
    let _ = fs::remove_dir_all(second.path("home/cache/step-results"));
    assert!(all_are(&run(second).0, "passed"));
}

#[test]
fn what_is_old_goes_of_a_folder() {
    let Some((first, second, shared)) = over_a_folder("what_is_old_goes_of_a_folder") else { return };
    what_is_old_goes(&first, &second, &shared);
}

#[test]
fn what_is_old_goes_of_a_bucket_on_a_real_server() {
    let Some((_server, mut first, second, shared)) = over_a_server("what_is_old_goes_of_a_bucket_on_a_real_server")
    else {
        return;
    };
    what_is_old_goes(&first, &second, &shared);
    // An object whose name nobody can read hides no other.
    fs::write(shared.folder.join("v1/results/a\tb"), "").unwrap();
    assert_eq!(pruned(&first, &["--all", "--dry-run"]).0, 3);
    // Nor do more than one answer lists, where the next one is asked for by a name that XML writes otherwise.
    (0..1001).for_each(|n| fs::write(shared.folder.join(format!("v1/results/&<{n:04}")), "").unwrap());
    assert_eq!(pruned(&first, &["--all", "--dry-run"]).0, 3);
    first.keep("gateway.yaml", "as-it-was.yaml");
    first.replace("gateway.yaml", "ci-cache", "no-such-bucket");
    first.sluicegate(&["prune", "--shared"]).assert(5, "there is no such bucket");
    first.restore("as-it-was.yaml", "gateway.yaml");
    // Credentials that it does not know delete nothing, and say so.
    assert_eq!(count(&shared.folder.join("v1/results")), 3);
    first.set("AWS_SECRET_ACCESS_KEY", "another-secret-of-a-test");
    let ended = first.sluicegate(&["prune", "--shared", "--all"]);
    ended.assert(5, "403");
    assert!(!ended.stderr.contains("another-secret"), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing was deleted before; see that"), "{}", ended.stderr);
    assert_eq!(count(&shared.folder.join("v1/results")), 3);
}

/// A machine that puts something is not disturbed, and what is dated wrong is told.
#[test]
fn what_is_on_its_way_there_stays_and_what_is_dated_later_is_told() {
    let project = Project::prepared();
    let shared = Shared::folder(&project);
    add(&project, &shared.cache);
    let contents = shared.folder.join("v1/sha256");
    fs::create_dir_all(&contents).unwrap();
    let (content, draft) = (contents.join("a".repeat(64)), contents.join(format!("{}#1", "b".repeat(64))));
    [&content, &draft].iter().for_each(|file| fs::write(file, "x").unwrap());
    project.must(&["prune", "--shared", "--all"]);
    assert!(!content.exists() && draft.exists());
    age(&contents, 2);
    fs::write(&content, "x").unwrap();
    let in_a_week = std::time::SystemTime::now() + std::time::Duration::from_secs(7 * DAY);
    fs::File::options().write(true).open(&content).unwrap().set_modified(in_a_week).unwrap();
    let told = project.must(&["prune", "--shared"]).stdout;
    assert!(told.contains("1 (1 B) put more than a day from now"), "{told}");
    assert!(content.exists() && draft.exists());
    project.must(&["prune", "--shared", "--all"]);
    assert!(!content.exists() && !draft.exists());
}

#[test]
fn whoever_can_write_to_the_folder_makes_prune_delete_nothing_elsewhere() {
    if !can_run_steps("whoever_can_write_to_the_folder_makes_prune_delete_nothing_elsewhere") {
        return;
    }
    let project = Project::prepared();
    let shared = Shared::folder(&project);
    add(&project, &shared.cache);
    run(&project);
    let contents = shared.folder.join("v1/sha256");
    fs::rename(&contents, shared.folder.join("aside")).unwrap();
    // All of these are called as contents are.
    let own = project.path("home/store/blobs/sha256");
    let before = count(&own);
    symlink(&own, &contents).unwrap();
    let ended = project.sluicegate(&["prune", "--shared", "--all"]);
    ended.assert(5, "cannot open the folder");
    assert_eq!(count(&own), before);
    fs::remove_file(&contents).unwrap();
    fs::rename(shared.folder.join("aside"), &contents).unwrap();
    project.must(&["prune", "--shared", "--all"]);
    assert_eq!((count(&contents), count(&own)), (0, before));
}

#[test]
fn prune_of_a_shared_store_is_refused_where_nothing_is_written_or_named() {
    let project = Project::prepared();
    let prune = ["prune", "--shared", "--all"];
    project.sluicegate(&prune).assert(2, "names no store that machines share");
    add(&project, "{ store: \"file:missing\", push: true }");
    project.sluicegate(&prune).assert(2, "it may not be mounted");
    fs::write(project.path("missing"), "").unwrap();
    project.sluicegate(&prune).assert(2, "it may not be mounted");
    fs::remove_file(project.path("missing")).unwrap();
    fs::create_dir(project.path("missing")).unwrap();
    // An empty folder is no error, and nothing is made in it.
    project.must(&prune);
    assert_eq!(fs::read_dir(project.path("missing")).unwrap().count(), 0);
    project.replace("gateway.yaml", ", push: true }", " }");
    project.sluicegate(&prune).assert(2, "nothing is written to the shared store");
    for flags in [&["prune", "--shared", "--materials"][..], &["prune", "--shared", "--keep-storage", "1GiB"]] {
        project.sluicegate(flags).assert(2, "cannot be used with");
    }
    project.sluicegate(&["prune", "--gateway", "gateway.yaml"]).assert(2, "--shared");
    project.replace("gateway.yaml", "\"file:missing\" }", "s3://bucket, push: true }");
    let ended = project.sluicegate(&prune);
    ended.assert(2, "AWS_ACCESS_KEY_ID is not set");
    assert!(!ended.stderr.contains("--no-cache"), "{ended:?}");
    project.replace("gateway.yaml", "s3://bucket, push: true }", "\"file:missing\" }");
    // Whoever cleans up needs no home.
    project.replace("gateway.yaml", "\"file:missing\" }", "\"file:missing\", push: true }");
    let mut command = Command::new(integration::program());
    project.environment(&mut command);
    let away = project.path("no-home-here");
    let ended = command.args(prune).env("SLUICEGATE_HOME", &away).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(!away.exists());
}
