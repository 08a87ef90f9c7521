//! The evidence store and its ledger under somebody who may write every file of the home (trust model 16).

use std::{fs, path::PathBuf, process::Command};

use integration::{Layout, PROMOTE, Project, ready};
use serde_json::json;

const FSCK: [&str; 2] = ["evidence", "fsck"];
const AGAINST: [&str; 4] = ["evidence", "fsck", "--against", "oci:env/production"];

/// Changes the database as somebody would who may write the file: the triggers are taken away and put back as they were.
fn edit(project: &Project, sql: &str) {
    let script = "\
import sqlite3, sys
db = sqlite3.connect('home/evidence.db')
kept = [row[0] for row in db.execute(\"select sql from sqlite_schema where type = 'trigger'\")]
assert len(kept) >= 3, kept
for (name,) in list(db.execute(\"select name from sqlite_schema where type = 'trigger'\")):
    db.execute(f'drop trigger {name}')
before = db.total_changes
db.executescript(sys.argv[1])
assert db.total_changes > before, 'nothing was changed'
for sql in kept:
    db.execute(sql)
db.commit()
db.execute('pragma wal_checkpoint(truncate)')
";
    let mut command = Command::new("/usr/bin/env");
    project.environment(&mut command);
    let done = command.args(["python3", "-c", script, sql]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Runs SQL on the database, guards and all.
fn sql(project: &Project, sql: &str) {
    let script = "import sqlite3, sys; sqlite3.connect('home/evidence.db').executescript(sys.argv[1])";
    let mut command = Command::new("/usr/bin/env");
    project.environment(&mut command);
    assert!(command.args(["python3", "-c", script, sql]).status().unwrap().success());
}

/// Appends a record that says that an image was promoted, chained and digested as the real ones are.
fn forge(project: &Project) {
    let script = "\
import hashlib, json, sqlite3
db = sqlite3.connect('home/evidence.db')
last = db.execute('select sequence, digest from records order by sequence desc limit 1').fetchone()
record = {'sequence': last[0] + 1, 'previous': last[1], 'kind': 'promotion', 'at': '2026-01-01T00:00:00Z',
          'subject': None, 'environment': 'production', 'outcome': 'promoted', 'body': {}}
digest = 'sha256:' + hashlib.sha256(json.dumps(record, sort_keys=True, separators=(',', ':')).encode()).hexdigest()
db.execute('insert into records values (?, ?, ?, ?, 1767225600, null, ?, ?, ?)',
           (record['sequence'], digest, last[1], 'promotion', 'production', 'promoted', '{}'))
db.commit()
";
    let mut command = Command::new("/usr/bin/env");
    project.environment(&mut command);
    assert!(command.args(["python3", "-c", script]).status().unwrap().success());
}

/// Brings everything that SQLite keeps beside the file into it.
fn settle(project: &Project) {
    let script = "import sqlite3; sqlite3.connect('home/evidence.db').execute('pragma wal_checkpoint(truncate)')";
    let mut command = Command::new("/usr/bin/env");
    project.environment(&mut command);
    assert!(command.args(["python3", "-c", script]).status().unwrap().success());
}

/// Takes database and ledger aside.
fn keep(project: &Project, name: &str) {
    settle(project);
    fs::create_dir(project.path(name)).unwrap();
    for part in ["evidence.db", "ledger"] {
        project.keep(&format!("home/{part}"), &format!("{name}/{part}"));
    }
}

/// Puts them back, with nothing left of what was there meanwhile.
fn put_back(project: &Project, name: &str) {
    for beside in ["home/evidence.db-wal", "home/evidence.db-shm"] {
        let _ = fs::remove_file(project.path(beside));
    }
    for part in ["evidence.db", "ledger"] {
        project.restore(&format!("{name}/{part}"), &format!("home/{part}"));
    }
}

/// The newest tile of the ledger: of hashes or of entries.
fn newest(project: &Project, kind: &str) -> PathBuf {
    let folder = project.path("home/ledger/tile").join(kind).join("000.p");
    let mut tiles: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    tiles.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap());
    tiles.pop().unwrap()
}

/// Changes bytes of a file, which stays writable for its owner alone.
fn change(path: &PathBuf, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    let before = bytes.clone();
    how(&mut bytes);
    assert_ne!(before, bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn tm16_a_run_and_a_promotion_leave_a_whole_store_and_any_change_of_it_is_found() {
    if !ready("tm16_a_run_and_a_promotion_leave_a_whole_store_and_any_change_of_it_is_found") {
        return;
    }
    let project = Project::promoted();
    keep(&project, "good");
    let whole = || {
        let plain = project.sluicegate(&FSCK);
        plain.assert(0, "WHOLE  3 records, 3 leaves");
        plain.assert(0, "self-asserted: only this home vouches for it");
        let against = project.sluicegate(&AGAINST);
        against.assert(0, "complete since checkpoint 2, anchored by the ");
        against.assert(0, "1 record after it: self-asserted");
    };
    whole();
    // Asking changes nothing: the same files, byte for byte, as a second answer to the same question shows.
    whole();
    let found = |what: &str| {
        for question in [&FSCK[..], &AGAINST[..]] {
            let ended = project.sluicegate(question);
            assert_eq!(ended.code, 4, "{what}: {ended:?}");
            ended.assert(4, "DAMAGED");
        }
        // Nothing is decided and nothing recorded behind damage that a new record would stand on.
        if ["promoted{", "0", "the checkpoint's root", "delete from records where sequence = 3;"].contains(&what) {
            let promoted = project.sluicegate(&PROMOTE);
            assert!(promoted.code == 4 || promoted.code == 5, "{what}: {promoted:?}");
        }
        put_back(&project, "good");
    };
    let at = |bytes: &[u8], text: &str| {
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        found.unwrap_or_else(|| panic!("no {text:?}"))
    };
    // The outcome's first letter in the newest row, "promoted", and a byte of a body.
    for text in ["promoted{", "\"decision\":"] {
        change(&project.path("home/evidence.db"), |bytes| {
            let place = at(bytes, text);
            bytes[place + 1] ^= 1;
        });
        found(text);
    }
    for kind in ["0", "entries"] {
        change(&newest(&project, kind), |bytes| *bytes.last_mut().unwrap() ^= 1);
        found(kind);
        change(&newest(&project, kind), |bytes| bytes.truncate(bytes.len() - 1));
        found("a cut tile");
        fs::remove_file(newest(&project, kind)).unwrap();
        found("a tile that is gone");
    }
    change(&project.path("home/ledger/checkpoint"), |bytes| {
        let root = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
        bytes[root] = if bytes[root] == b'A' { b'B' } else { b'A' };
    });
    found("the checkpoint's root");
    change(&project.path("home/ledger/checkpoint"), |bytes| {
        let end = bytes.len() - 6;
        bytes[end] = if bytes[end] == b'A' { b'B' } else { b'A' };
    });
    found("the checkpoint's signature");
    for sql in [
        "delete from records where sequence = 3;",
        "delete from records where sequence = 1;",
        "update records set outcome = 'deny' where sequence = 2;",
        "update records set body = replace(body, 'oci:out/tiny', 'oci:out/tina') where sequence = 3;",
        "update records set sequence = -2 where sequence = 2; update records set sequence = 2 where sequence = 3; \
         update records set sequence = 3 where sequence = -2;",
    ] {
        // A check of the table's own would refuse the last one on its way.
        edit(&project, &format!("pragma ignore_check_constraints = on; {sql}"));
        found(sql);
    }
    whole();
    project.must(&PROMOTE);
}

#[test]
fn tm16_database_and_ledger_cut_back_together_are_found_by_what_was_decided_meanwhile() {
    if !ready("tm16_database_and_ledger_cut_back_together_are_found_by_what_was_decided_meanwhile") {
        return;
    }
    let project = Project::built();
    let against_built = ["evidence", "fsck", "--against", "oci:out/tiny"];
    // An image that nobody decided about proves nothing, and that is said.
    project.sluicegate(&against_built).assert(3, "NOT ANCHORED");
    keep(&project, "begun");
    project.replace("policies/data.yaml", "signer: builder", "signer: somebody");
    project.sluicegate(&PROMOTE).assert(1, "DENIED");
    project.replace("policies/data.yaml", "signer: somebody", "signer: builder");
    // The denial lies beside the image and vouches for its own record.
    project.sluicegate(&against_built).assert(0, "complete since checkpoint 2");
    keep(&project, "now");
    project.must(&PROMOTE);
    keep(&project, "later");
    // The promotion never was, as far as the home can tell; and then not even the denial.
    put_back(&project, "now");
    project.sluicegate(&FSCK).assert(0, "WHOLE  3 records");
    let cut = project.sluicegate(&AGAINST);
    cut.assert(4, "the evidence was cut back");
    cut.assert(4, "record 4 is gone");
    let (code, report) = project.json(&AGAINST);
    assert_eq!((code, &report["whole"], &report["completeSince"]), (4, &false.into(), &serde_json::Value::Null));
    put_back(&project, "begun");
    project.sluicegate(&FSCK).assert(0, "WHOLE  1 record,");
    project.sluicegate(&against_built).assert(4, "record 2 is gone");
    put_back(&project, "later");
    project.sluicegate(&AGAINST).assert(0, "complete since checkpoint 4");
    // Written anew from the same point, the history is as long and another one.
    put_back(&project, "now");
    project.must(&["promote", "oci:out/tiny", "--to", "staging"]);
    project.sluicegate(&FSCK).assert(0, "WHOLE  5 records");
    project.sluicegate(&AGAINST).assert(4, "the evidence was rewritten");
}

#[test]
fn a_home_that_lost_its_ledger_or_never_had_one_says_what_to_do() {
    if !ready("a_home_that_lost_its_ledger_or_never_had_one_says_what_to_do") {
        return;
    }
    let project = Project::built();
    keep(&project, "good");
    fs::remove_dir_all(project.path("home/ledger")).unwrap();
    // The key is there and the tiles are not: a second history under one name would begin.
    let lost = project.sluicegate(&PROMOTE);
    assert!(lost.code == 4 || lost.code == 5, "{lost:?}");
    assert_eq!(project.sluicegate(&FSCK).code, 4);
    assert!(!project.path("env/production/index.json").exists());
    // A home from before there were ledgers has neither.
    for half in ["key", "pub"] {
        fs::remove_file(project.path(&format!("home/keys/ledger.{half}"))).unwrap();
    }
    for question in [&PROMOTE[..], &FSCK[..]] {
        let ended = project.sluicegate(question);
        ended.assert(2, "has no ledger");
        ended.assert(2, "sluicegate init makes it and takes the records along");
    }
    let (code, document) = project.copy().json(&["init"]);
    assert!(code == 0 && document["ledger"].as_str().unwrap().starts_with("ledger-"), "{document:#}");
    project.sluicegate(&["init"]).assert(0, "the home has the ledger");
    project.sluicegate(&["init"]).assert(2, "is not overwritten");
    // The record of the run, and the one that says that it was taken along.
    project.sluicegate(&FSCK).assert(0, "WHOLE  2 records, 2 leaves");
    project.must(&PROMOTE);
    project.sluicegate(&FSCK).assert(0, "WHOLE  4 records, 4 leaves");
}

#[test]
fn tm16_a_promotion_whose_record_is_swallowed_does_not_happen() {
    if !ready("tm16_a_promotion_whose_record_is_swallowed_does_not_happen") {
        return;
    }
    let project = Project::built();
    sql(&project, "create trigger records before insert on records begin select raise(ignore); end");
    project.sluicegate(&PROMOTE).assert(4, "the trigger \"records\"");
    assert!(!project.path("env/production/index.json").exists());
    project.sluicegate(&FSCK).assert(4, "the trigger \"records\"");
    sql(&project, "drop trigger records");
    project.must(&PROMOTE);
    project.sluicegate(&FSCK).assert(0, "WHOLE");
}

#[test]
fn tm16_a_record_that_was_written_past_the_program_is_told_apart() {
    if !ready("tm16_a_record_that_was_written_past_the_program_is_told_apart") {
        return;
    }
    let project = Project::built();
    let list = || project.sluicegate(&["evidence", "list"]);
    let (code, document) = project.json(&["evidence", "list"]);
    assert_eq!((code, &document["pending"], &document["damaged"]), (0, &json!([]), &json!([])));
    forge(&project);
    list().assert(0, "not in the ledger yet");
    let shown = project.sluicegate(&["evidence", "show", "2"]);
    shown.assert(0, "\"pending\": true");
    project.sluicegate(&FSCK).assert(3, "1 record pending");
    let promoted = project.sluicegate(&PROMOTE);
    promoted.assert(0, "");
    assert!(promoted.stderr.contains("taken along into the ledger: evidence record 2,"), "{promoted:?}");
    project.sluicegate(&FSCK).assert(0, "WHOLE  5 records, 5 leaves");
    let (_, said) = project.json(&["evidence", "show", "3"]);
    assert_eq!((&said["kind"], &said["outcome"]), (&json!("ledger"), &json!("adopted")));
    assert_eq!(said["body"], json!({"from": 2, "to": 2}));
    list().assert(0, "taken along into the ledger, see 3");
    assert!(!list().stdout.contains("not in the ledger yet"));
    project.sluicegate(&["evidence", "show", "2"]).assert(0, "\"adoptedBy\": 3");
    project.sluicegate(&["evidence", "replay", "2"]).assert(3, "proves no decision");
    // The last one goes, and another one comes in its place.
    edit(&project, "delete from records where sequence = 5");
    assert_eq!((list().code, project.sluicegate(&["evidence", "show", "5"]).code), (4, 4));
    forge(&project);
    list().assert(4, "damaged: the ledger has another record here");
    project.sluicegate(&["evidence", "show", "5"]).assert(4, "is damaged");
    project.sluicegate(&["evidence", "show", "4"]).assert(0, "\"decision\"");
    let (code, document) = project.json(&["evidence", "list"]);
    assert_eq!((code, &document["damaged"]), (4, &json!([5])));
}

#[test]
fn tm16_a_runs_evidence_that_is_gone_from_the_store_is_found() {
    if !ready("tm16_a_runs_evidence_that_is_gone_from_the_store_is_found") {
        return;
    }
    let project = Project::built();
    let (layout, store) = (Layout::at(project.path("out/tiny")), Layout::at(project.path("home/store")));
    let carried: Vec<String> = layout
        .referrers()
        .iter()
        .flat_map(|(_, manifest)| manifest["layers"].as_array().unwrap().clone())
        .map(|part| part["digest"].as_str().unwrap().to_owned())
        .collect();
    assert!(carried.len() >= 12, "{carried:?}");
    project.sluicegate(&FSCK).assert(0, "WHOLE");
    for digest in carried {
        let good = fs::read(store.blob(&digest)).unwrap();
        fs::remove_file(store.blob(&digest)).unwrap();
        let ended = project.sluicegate(&FSCK);
        ended.assert(4, &format!("{digest} is not in the store any more"));
        fs::write(store.blob(&digest), good).unwrap();
    }
    project.sluicegate(&FSCK).assert(0, "WHOLE");
}

#[test]
fn tm16_no_second_history_begins_under_a_key_that_has_one() {
    if !ready("tm16_no_second_history_begins_under_a_key_that_has_one") {
        return;
    }
    let project = Project::promoted();
    let new = project.path("another");
    let init = || project.sluicegate(&["init", new.to_str().unwrap()]);
    let remove = |part: &str| {
        let path = project.path("home").join(part);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    };
    project.keep("home", "good");
    for gone in [
        &["ledger", "evidence.db", "trust/trusted_root.json"][..],
        &["ledger", "trust/trusted_root.json"],
        &["ledger"],
        &["ledger", "keys/ledger.key"],
        &["keys/ledger.key", "keys/ledger.pub"],
        &["log", "trust/trusted_root.json"],
        &["log"],
        &["log", "keys/log.key"],
        &["keys/log.key", "keys/log.pub"],
        &["trust/trusted_root.json"],
    ] {
        gone.iter().copied().for_each(remove);
        let database = project.path("home/evidence.db").exists();
        let ended = init();
        assert_eq!(ended.code, 5, "{gone:?}: {ended:?}");
        assert!(!new.exists(), "{gone:?}");
        assert_eq!(project.path("home/evidence.db").exists(), database, "{gone:?}: nothing is made");
        assert!(!project.path("home/ledger/checkpoint").exists() || !gone.contains(&"ledger"), "{gone:?}");
        fs::remove_dir_all(project.path("home")).unwrap();
        project.keep("good", "home");
    }
    init().assert(0, "READY");
    // Whoever takes every trace of a ledger away, but for what the records say of it.
    fs::remove_dir_all(&new).unwrap();
    forge(&project);
    project.sluicegate(&["promote", "oci:out/tiny", "--to", "production"]);
    ["ledger", "keys/ledger.key", "keys/ledger.pub"].into_iter().for_each(remove);
    init().assert(5, "is about this home's ledger");
}
