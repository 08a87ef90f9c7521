use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::{Arc, Barrier},
    thread,
};

use serde_json::json;

use super::*;

fn new(number: u64) -> NewRecord {
    NewRecord {
        kind: RecordKind::Decision,
        at: UnixTime::from_seconds(1_800_000_000).unwrap().plus(number),
        subject: Some(Digest::of(b"image")),
        environment: Some("production".parse().unwrap()),
        outcome: "deny".into(),
        body: json!({"number": number, "reasons": ["ä", 1.5, null]}),
    }
}

fn with_body(body: serde_json::Value) -> NewRecord {
    NewRecord { body, ..new(0) }
}

/// A store with these many records, and its file.
fn store_of(count: u64) -> (tempfile::TempDir, PathBuf, SqliteEvidence) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evidence.db");
    let store = SqliteEvidence::open(&path).unwrap();
    (0..count).for_each(|number| assert_eq!(store.append(&new(number)).unwrap().sequence, number + 1));
    (dir, path, store)
}

fn raw(path: &Path, sql: &str) -> Result<(), rusqlite::Error> {
    Connection::open(path).unwrap().execute_batch(sql)
}

/// What somebody does who owns the file: takes the guards away, edits, and puts them back.
fn tamper(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    triggers.iter().for_each(|(name, _)| connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    connection.execute_batch(sql).unwrap();
    triggers.iter().for_each(|(_, sql)| connection.execute_batch(sql).unwrap());
}

fn damaged<T: std::fmt::Debug>(result: Result<T, EvidenceError>) -> u64 {
    match result {
        Err(EvidenceError::Damaged { sequence, .. }) => sequence,
        other => panic!("{other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, EvidenceError>, word: &str) {
    match result {
        Err(EvidenceError::Io { reason, .. } | EvidenceError::Corrupt { reason, .. }) if reason.contains(word) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_are_numbered_chained_and_read_back() {
    let (_dir, path, store) = store_of(3);
    let fourth =
        store.append(&NewRecord { subject: None, environment: None, kind: RecordKind::Run, ..new(3) }).unwrap();
    for store in [&store, &SqliteEvidence::open(&path).unwrap()] {
        assert_eq!(store.check().unwrap(), 4);
        let listed = store.list(10).unwrap();
        assert_eq!(listed.iter().map(|record| record.sequence).collect::<Vec<_>>(), [4, 3, 2, 1]);
        assert_eq!(store.list(2).unwrap().len(), 2);
        assert_eq!(store.list(0).unwrap().len(), 0);
        assert_eq!((listed[3].previous, listed[0].previous), (None, Some(listed[1].digest)));
        let shown = serde_json::to_value(store.show(4).unwrap()).unwrap();
        assert_eq!(shown, serde_json::to_value(&fourth).unwrap());
        assert_eq!(shown["environment"], serde_json::Value::Null);
        assert_eq!(store.show(2).unwrap().body, new(1).body);
    }
    for none in [0, 5, u64::MAX] {
        assert!(matches!(store.show(none), Err(EvidenceError::NoRecord { sequence }) if sequence == none));
    }
}

#[test]
fn anybody_can_recompute_a_digest_from_the_printed_record() {
    let (_dir, _path, store) = store_of(2);
    let mut printed = serde_json::to_value(store.show(2).unwrap()).unwrap();
    let digest = printed.as_object_mut().unwrap().remove("digest").unwrap();
    let canonical = serde_json_canonicalizer::to_vec(&printed).unwrap();
    assert_eq!(Digest::of(&canonical).to_string(), digest.as_str().unwrap());
}

#[test]
fn the_database_itself_refuses_changes() {
    let (_dir, path, store) = store_of(3);
    for (sql, word) in [
        ("UPDATE records SET outcome = 'allow' WHERE sequence = 2", "never changed"),
        ("DELETE FROM records WHERE sequence = 3", "never removed"),
        ("INSERT OR REPLACE INTO records SELECT * FROM records WHERE sequence = 2", "follows the last one"),
        (
            "INSERT INTO records SELECT 5, digest, digest, kind, at, subject, environment, outcome, body FROM records WHERE sequence = 3",
            "follows the last one",
        ),
        (
            "INSERT INTO records SELECT 4, digest, previous, kind, at, subject, environment, outcome, body FROM records WHERE sequence = 3",
            "follows the last one",
        ),
    ] {
        let error = raw(&path, sql).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(store.check().unwrap(), 3);
}

#[test]
fn every_edited_member_of_a_record_is_found() {
    for edit in [
        "outcome = 'allow'",
        "at = at + 1",
        "at = -1",
        "kind = 'promotion'",
        "kind = 'other'",
        "subject = NULL",
        "subject = 'sha256:00'",
        "environment = 'staging'",
        "environment = NULL",
        "body = replace(body, '1.5', '1.6')",
        "body = body || ' '",
        "body = '[]'",
        "body = 'no json'",
        "digest = previous",
        "previous = digest",
        "previous = NULL",
    ] {
        let (_dir, path, store) = store_of(3);
        assert_eq!(store.check().unwrap(), 3);
        tamper(&path, &format!("UPDATE records SET {edit} WHERE sequence = 2"));
        assert_eq!(damaged(store.show(2)), 2, "{edit}");
        assert_eq!(damaged(store.check()), 2, "{edit}");
        assert_eq!(damaged(store.list(2)), 2, "{edit}");
        assert_eq!(store.list(1).unwrap().len(), 1);
        assert_eq!(damaged(SqliteEvidence::open(&path).unwrap().check()), 2, "{edit}");
    }
}

#[test]
fn an_edit_with_its_digest_mended_shows_at_the_neighbour() {
    let (_dir, path, store) = store_of(3);
    let mut forged = store.show(2).unwrap();
    forged.outcome = "allow".into();
    let digest = Chained::of(&forged).digest().unwrap();
    tamper(&path, &format!("UPDATE records SET outcome = 'allow', digest = '{digest}' WHERE sequence = 2"));
    assert_eq!(damaged(store.check()), 3);
    assert_eq!(damaged(store.list(3)), 3);
    assert_eq!(damaged(store.show(3)), 3);
}

#[test]
fn a_removed_or_exchanged_record_is_found() {
    let (_dir, path, store) = store_of(4);
    tamper(&path, "DELETE FROM records WHERE sequence = 2");
    assert_eq!(
        (damaged(store.check()), damaged(store.show(2)), damaged(store.show(3)), damaged(store.list(9))),
        (2, 2, 2, 2)
    );
    assert!(matches!(store.show(5), Err(EvidenceError::NoRecord { .. })));

    let (_dir, path, store) = store_of(4);
    tamper(&path, "DELETE FROM records WHERE sequence = 1");
    assert_eq!((damaged(store.check()), damaged(store.show(2)), damaged(store.list(9))), (1, 1, 1));

    let (_dir, path, store) = store_of(4);
    tamper(
        &path,
        "UPDATE records SET sequence = 9 WHERE sequence = 2; UPDATE records SET sequence = 2 WHERE sequence = 3; UPDATE records SET sequence = 3 WHERE sequence = 9",
    );
    assert_eq!(damaged(store.check()), 2);
}

#[test]
fn nothing_is_appended_after_a_damaged_record() {
    let (_dir, path, store) = store_of(2);
    tamper(&path, "UPDATE records SET outcome = 'allow' WHERE sequence = 2");
    assert_eq!(damaged(store.append(&new(2))), 2);
    tamper(&path, "UPDATE records SET outcome = 'deny' WHERE sequence = 2");
    assert_eq!(store.append(&new(2)).unwrap().sequence, 3);
}

#[test]
fn a_missing_guard_is_reported() {
    let (_dir, path, store) = store_of(2);
    raw(&path, "DROP TRIGGER records_are_never_changed").unwrap();
    refused(store.check(), "records_are_never_changed");
    raw(&path, "CREATE TRIGGER records_are_never_changed BEFORE UPDATE ON records BEGIN SELECT 1; END").unwrap();
    refused(store.check(), "records_are_never_changed");
    let (_dir, path, store) = store_of(2);
    raw(&path, "CREATE TRIGGER more AFTER INSERT ON records BEGIN SELECT 1; END").unwrap();
    refused(store.check(), "\"more\"");
}

/// What was not recorded must not be said to be recorded, whatever the trigger is called (trust model 16).
#[test]
fn tm16_a_trigger_that_swallows_or_rewrites_a_record_is_an_error() {
    let hidden = |name: &str, then: &str| format!("CREATE TRIGGER {name} {then}");
    for then in [
        "BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END",
        "AFTER INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END",
        "AFTER INSERT ON records BEGIN SELECT 1; END",
    ] {
        for name in ["more", "records"] {
            let (_dir, path, store) = store_of(2);
            raw(&path, &hidden(name, then)).unwrap();
            refused(store.append(&new(2)), &format!("holds the trigger {name:?}"));
            refused(store.check(), &format!("holds the trigger {name:?}"));
            refused(SqliteEvidence::open(&path).unwrap().append(&new(2)), "does not belong there");
            raw(&path, &format!("DROP TRIGGER {name}")).unwrap();
            assert_eq!(store.append(&new(2)).unwrap().sequence, 3);
            assert_eq!(store.check().unwrap(), 3);
        }
    }
}

#[test]
fn tm16_an_object_under_the_name_or_on_the_table_of_another_is_found() {
    for (change, word) in [
        ("CREATE INDEX more ON records (outcome)", "index \"more\""),
        ("CREATE VIEW more AS SELECT * FROM records", "view \"more\""),
        (
            "CREATE TABLE t (x); DROP TRIGGER records_are_never_removed; CREATE TRIGGER records_are_never_removed
BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'evidence records are never removed'); END",
            "records_are_never_removed",
        ),
    ] {
        let (_dir, path, store) = store_of(2);
        assert_eq!(store.append(&new(2)).unwrap().sequence, 3);
        raw(&path, change).unwrap();
        refused(store.append(&new(3)), word);
        refused(store.check(), word);
    }
}

#[test]
fn one_turn_at_a_time_is_given() {
    let (_dir, path, store) = store_of(1);
    let held = store.turn().unwrap();
    let lock = File::open(path.with_extension("lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    drop(held);
    drop(SqliteEvidence::open(&path).unwrap().turn().unwrap());
    lock.try_lock().unwrap();
}

#[test]
fn threads_and_connections_keep_one_gapless_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evidence.db");
    let start = Arc::new(Barrier::new(6));
    let threads: Vec<_> = (0..6)
        .map(|thread| {
            let (path, start) = (path.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let store = SqliteEvidence::open(&path).unwrap();
                (0..10).for_each(|number| drop(store.append(&new(thread * 100 + number)).unwrap()));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let store = SqliteEvidence::open(&path).unwrap();
    assert_eq!((store.check().unwrap(), store.list(100).unwrap().len()), (60, 60));
}

#[test]
fn the_files_are_for_their_owner_only() {
    let (dir, _path, store) = store_of(1);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    drop(store);
}

#[test]
fn other_files_and_newer_versions_are_refused_and_left_alone() {
    let (_dir, path, store) = store_of(1);
    drop(store);
    raw(&path, "PRAGMA user_version = 2").unwrap();
    refused(SqliteEvidence::open(&path), "version 2");
    raw(&path, "PRAGMA user_version = 1").unwrap();
    assert_eq!(SqliteEvidence::open(&path).unwrap().check().unwrap(), 1);

    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.db");
    raw(&other, "CREATE TABLE t (x)").unwrap();
    let before = fs::read(&other).unwrap();
    refused(SqliteEvidence::open(&other), "something else");
    assert_eq!(fs::read(&other).unwrap(), before);
    fs::write(
        &other,
        "not a database at all, only text that is long enough to have a header of one hundred bytes or more......",
    )
    .unwrap();
    refused(SqliteEvidence::open(&other), "not a database");
    refused(SqliteEvidence::open(&dir.path().join("no/such/folder.db")), "No such file");
    refused(SqliteEvidence::open(dir.path()), "directory");
}

#[test]
fn a_full_disk_or_a_read_only_file_is_an_error_and_loses_nothing() {
    let (_dir, _path, store) = store_of(2);
    let pragma = |text: &str| drop(store.connection.lock().unwrap().query_row(text, [], |_| Ok(())));
    let large = with_body(json!({"text": "x".repeat(1_000_000)}));
    pragma("PRAGMA max_page_count = 10");
    refused(store.append(&large), "full");
    assert_eq!(store.check().unwrap(), 2);
    pragma("PRAGMA max_page_count = 1000000");
    assert_eq!(store.append(&large).unwrap().sequence, 3);

    pragma("PRAGMA query_only = 1");
    refused(store.append(&new(3)), "readonly");
    assert_eq!(store.check().unwrap(), 3);
    pragma("PRAGMA query_only = 0");
    assert_eq!(store.append(&new(3)).unwrap().sequence, 4);
}

#[test]
fn bodies_are_objects_of_bounded_size_and_depth_with_exact_numbers() {
    let (_dir, _path, store) = store_of(0);
    let sized = |length: usize| with_body(json!({"t": "x".repeat(length - 8)}));
    assert_eq!(store.append(&sized(BODY_LIMIT)).unwrap().sequence, 1);
    refused(store.append(&sized(BODY_LIMIT + 1)), "4194305 bytes");

    let deep = |depth: usize| with_body((1..depth).fold(json!({}), |inner, _| json!({"a": inner})));
    assert_eq!(store.append(&deep(crate::DEPTH_LIMIT)).unwrap().sequence, 2);
    refused(store.append(&deep(crate::DEPTH_LIMIT + 1)), "levels deep");
    let printed = serde_json::to_string(&store.show(2).unwrap()).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&printed).is_ok());

    assert_eq!(
        store
            .append(&with_body(json!({"n": [9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64]})))
            .unwrap()
            .sequence,
        3
    );
    refused(store.append(&with_body(json!({"n": 9_007_199_254_740_992_i64}))), "9007199254740992");
    refused(store.append(&with_body(json!({"n": [-9_007_199_254_740_992_i64]}))), "-9007199254740992");
    refused(store.append(&with_body(json!([]))), "not a JSON object");
    refused(store.append(&NewRecord { outcome: String::new(), ..new(0) }), "one lower-case word");
    refused(store.append(&NewRecord { outcome: "not allowed".into(), ..new(0) }), "one lower-case word");
    assert_eq!(store.append(&with_body(json!({"n": 1.0}))).unwrap().body, json!({"n": 1}));
    assert_eq!(store.check().unwrap(), 4);
}

#[test]
fn fractions_survive_exactly() {
    let (_dir, _path, store) = store_of(0);
    // A fixed sequence of bit patterns (Knuth's MMIX constants), and the scores that vulnerability feeds are full of.
    let mut bits = 1_u64;
    let mut numbers: Vec<f64> = vec![0.1, 0.000_43, 9.8, 1e17, 1e21, 1e-7, 5e-324, f64::MAX, f64::MIN_POSITIVE];
    while numbers.len() < 20_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.extend(Some(f64::from_bits(bits)).filter(|number| number.is_finite()));
    }
    store.append(&with_body(json!({"numbers": numbers}))).unwrap();
    let read = store.show(1).unwrap().body["numbers"].as_array().unwrap().clone();
    assert!(read.iter().zip(&numbers).all(|(read, number)| read.as_f64() == Some(*number)));
}

#[test]
fn a_linked_folder_is_a_folder() {
    let (dir, path, _store) = store_of(2);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(path.parent().unwrap(), &link).unwrap();
    assert_eq!(SqliteEvidence::open(&link.join("evidence.db")).unwrap().check().unwrap(), 2);
}

#[test]
fn digests_are_given_in_order_from_any_place() {
    let (_dir, _path, store) = store_of(5);
    let mut all: Vec<Digest> = store.list(10).unwrap().iter().map(|record| record.digest).collect();
    all.reverse();
    for from in 0..=5_u64 {
        for limit in [0, 1, 2, 5, u32::MAX] {
            let wanted: Vec<Digest> = all[from as usize..].iter().take(limit as usize).copied().collect();
            assert_eq!(store.digests_after(from, limit).unwrap(), wanted, "{from} {limit}");
        }
    }
    for none in [6, u64::MAX] {
        assert_eq!(store.digests_after(none, 5).unwrap(), []);
    }
    assert_eq!(store_of(0).2.digests_after(0, 5).unwrap(), []);
}

#[test]
fn no_digest_is_given_of_a_damaged_a_missing_or_a_reordered_record() {
    let (_dir, path, store) = store_of(4);
    tamper(&path, "UPDATE records SET outcome = 'allow' WHERE sequence = 3");
    assert_eq!(store.digests_after(0, 2).unwrap().len(), 2);
    assert_eq!((damaged(store.digests_after(0, 3)), damaged(store.digests_after(2, 1))), (3, 3));
    let (_dir, path, store) = store_of(4);
    tamper(&path, "DELETE FROM records WHERE sequence = 2");
    assert_eq!((damaged(store.digests_after(0, 9)), damaged(store.digests_after(1, 9))), (2, 2));
    assert_eq!(damaged(store.digests_after(2, 9)), 2);
    let (_dir, path, store) = store_of(4);
    tamper(
        &path,
        "UPDATE records SET sequence = 9 WHERE sequence = 2; UPDATE records SET sequence = 2 WHERE sequence = 3; UPDATE records SET sequence = 3 WHERE sequence = 9",
    );
    assert_eq!((damaged(store.digests_after(0, 9)), damaged(store.digests_after(2, 9))), (2, 2));
    let (_dir, path, store) = store_of(1);
    tamper(&path, "UPDATE records SET previous = digest");
    assert_eq!(damaged(store.digests_after(0, 9)), 1);
}

/// Not every bit of an SQLite file is a record's: some are nobody's. What is asked for is that no flip changes a record unseen.
#[test]
fn no_flipped_bit_of_the_file_changes_a_record_unseen() {
    let (dir, path, store) = store_of(3);
    let good = store.list(10).unwrap().iter().map(|record| serde_json::to_value(record).unwrap()).collect::<Vec<_>>();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    assert!(!dir.path().join("evidence.db-wal").exists(), "the last one out writes everything into the file");
    let copy = dir.path().join("copy.db");
    let mut found = 0;
    // Every fifth byte that holds something: opening a file syncs it, and there are thousands.
    let held = (0..bytes.len()).filter(|place| bytes[*place] != 0).step_by(5);
    for place in held {
        let mut bad = bytes.clone();
        bad[place] ^= 1 << (place % 8);
        fs::write(&copy, &bad).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("copy.db{suffix}")));
        }
        let checked = SqliteEvidence::open(&copy).and_then(|store| {
            let count = store.check()?;
            Ok((count, store.list(10)?))
        });
        match checked {
            Err(EvidenceError::Damaged { .. } | EvidenceError::Corrupt { .. } | EvidenceError::Io { .. }) => found += 1,
            Err(error) => panic!("{place}: {error}"),
            Ok((count, list)) => {
                let list: Vec<_> = list.iter().map(|record| serde_json::to_value(record).unwrap()).collect();
                assert_eq!((count, &list), (3, &good), "the flip at byte {place} was not seen");
            }
        }
    }
    assert!(found > 200, "{found}");
}

#[test]
fn a_damaged_file_is_called_damaged() {
    let (_dir, path, store) = store_of(3);
    drop(store);
    let good = fs::read(&path).unwrap();
    let corrupt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let found = SqliteEvidence::open(&path).and_then(|store| store.check());
        assert!(matches!(found, Err(EvidenceError::Corrupt { .. })), "{found:?}");
    };
    let mut no_header = good.clone();
    no_header[3] ^= 1;
    corrupt(&no_header);
    let mut other_program = good.clone();
    other_program[68] ^= 1;
    corrupt(&other_program);
    corrupt(&good[..good.len() - 4096]);
    fs::write(&path, &good).unwrap();
    assert_eq!(SqliteEvidence::open(&path).unwrap().check().unwrap(), 3);
}
