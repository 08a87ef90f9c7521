use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Barrier},
    thread,
};

use sluicegate_attestation::bundle::hashedrekord_body;
use sluicegate_ports::served_log::TileRow;

use super::*;
use crate::{checkpoint::Checkpoint, tiles::Writer};

const ORIGIN: &str = "log.example";

fn key() -> LogKey {
    LogKey::from_seed([7; 32])
}

fn body(number: u64) -> Vec<u8> {
    hashedrekord_body(&Digest::of(&number.to_be_bytes()), b"signature", b"key")
}

fn bodies(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(body).collect()
}

fn open(folder: &Path) -> Result<EmbeddedLog, SignError> {
    EmbeddedLog::open(folder, key(), ORIGIN)
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SignError>) -> String {
    match result {
        Err(SignError::Log { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A log with `size` entries, made by one append.
fn log_of(size: u64) -> (tempfile::TempDir, EmbeddedLog) {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::create(dir.path().join("log"), key(), ORIGIN).unwrap();
    log.append(&bodies(0..size)).unwrap();
    assert_eq!(log.tiles.state().unwrap().tree.size(), size);
    (dir, log)
}

/// What a verifier does with an entry, apart from the code under test: leaf hash, path to the root (RFC 9162 section 2.1.3.2), checkpoint.
fn verify_alone(entry: &LogEntry, expected_body: &[u8]) {
    let number = |text: &str| if text.is_empty() { 0 } else { text.parse::<u64>().unwrap() };
    let proof = &entry.inclusion_proof;
    assert_eq!(entry.log_index, proof.log_index);
    assert_eq!(STANDARD.decode(&entry.canonicalized_body).unwrap(), expected_body);
    let (mut place, mut last) = (number(&entry.log_index), number(&proof.tree_size) - 1);
    let mut hash = record_hash(expected_body);
    for sibling in &proof.hashes {
        let sibling = tlog_tiles::Hash(STANDARD.decode(sibling).unwrap().try_into().unwrap());
        if place % 2 == 1 || place == last {
            hash = tlog_tiles::node_hash(sibling, hash);
            while place % 2 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = tlog_tiles::node_hash(hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    assert_eq!(last, 0);
    assert_eq!(STANDARD.encode(hash.0), proof.root_hash);
    let public = LogPublic { origin: ORIGIN.into(), public_key: *key().public_key() };
    let checkpoint = Checkpoint::verify(&proof.checkpoint.envelope, &public).unwrap();
    assert_eq!(
        (checkpoint.size.to_string(), STANDARD.encode(checkpoint.root.0)),
        (proof.tree_size.clone(), proof.root_hash.clone())
    );
}

#[test]
fn the_body_is_canonical_json_of_the_documented_form() {
    let digest = Digest::of(b"message");
    let (signature, spki) = (vec![0xfb; 70], vec![0xff; 91]);
    let body = hashedrekord_body(&digest, &signature, &spki);
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": STANDARD.encode(digest.as_bytes())},
            "signature": {"content": STANDARD.encode(signature), "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": STANDARD.encode(spki)}}}}}})
    );
    assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), body);
    assert!(body.starts_with(BODY_START));
}

#[test]
fn the_first_entry_is_written_as_protojson_writes_it() {
    let (_dir, log) = log_of(0);
    let entries = log.append(&bodies(0..1)).unwrap();
    let json = serde_json::to_value(&entries[0]).unwrap();
    assert_eq!(json.get("logIndex"), None);
    assert_eq!(json["inclusionProof"].get("logIndex"), None);
    assert_eq!(json["inclusionProof"].get("hashes"), None);
    assert_eq!(json["inclusionProof"]["treeSize"], "1");
    assert_eq!(json["kindVersion"], serde_json::json!({"kind": "hashedrekord", "version": "0.0.2"}));
    assert_eq!(json["logId"]["keyId"], STANDARD.encode(log.public().key_id()));
    verify_alone(&entries[0], &body(0));
    let second = serde_json::to_value(&log.append(&[body(1)]).unwrap()[0]).unwrap();
    assert_eq!((&second["logIndex"], &second["inclusionProof"]["logIndex"]), (&"1".into(), &"1".into()));
}

#[test]
fn every_entry_of_every_small_tree_is_proved() {
    let (dir, log) = log_of(0);
    for size in 1..=70 {
        verify_alone(&log.append(&[body(size - 1)]).unwrap()[0], &body(size - 1));
        let all = log.append(&bodies(0..size)).unwrap();
        assert_eq!(all.len() as u64, size);
        for (entry, number) in all.iter().zip(0..) {
            assert_eq!(entry.inclusion_proof.tree_size, size.to_string());
            assert_eq!(entry.log_index, if number == 0 { String::new() } else { number.to_string() });
            verify_alone(entry, &body(number));
        }
    }
    assert_eq!(open(&dir.path().join("log")).unwrap().root().unwrap(), log.root().unwrap());
}

#[test]
fn trees_around_a_full_tile_are_proved_and_open_again() {
    let (dir, log) = log_of(254);
    let folder = dir.path().join("log");
    for size in 255..=258 {
        log.append(&[body(size - 1)]).unwrap();
        let again = open(&folder).unwrap();
        assert_eq!((again.size().unwrap(), again.root().unwrap()), (size, log.root().unwrap()));
        for (entry, number) in again.append(&bodies(0..size)).unwrap().iter().zip(0..) {
            verify_alone(entry, &body(number));
        }
    }
    let names = ["tile/0/000", "tile/entries/000", "tile/0/001.p/2", "tile/1/000.p/1"];
    assert!(names.iter().all(|name| folder.join(name).is_file()));
    assert!(!folder.join("tile/0/000.p").exists() && !folder.join("tile/entries/000.p").exists());
}

#[test]
fn one_batch_over_several_tiles_is_one_tree() {
    let (dir, log) = log_of(3);
    let entries = log.append(&bodies(3..1000)).unwrap();
    assert!(entries.iter().all(|entry| entry.inclusion_proof.tree_size == "1000"));
    entries.iter().zip(3..).for_each(|(entry, number)| verify_alone(entry, &body(number)));
    assert_eq!(open(&dir.path().join("log")).unwrap().root().unwrap(), log_of(1000).1.root().unwrap());
}

#[test]
fn a_body_that_is_there_is_not_added_again() {
    let (dir, log) = log_of(5);
    let before = fs::read(dir.path().join("log/checkpoint")).unwrap();
    assert_eq!(log.append(&[body(2)]).unwrap()[0].log_index, "2");
    assert_eq!(fs::read(dir.path().join("log/checkpoint")).unwrap(), before);
    let mixed = log.append(&[body(9), body(1), body(9)]).unwrap();
    let places: Vec<_> = mixed.iter().map(|entry| entry.log_index.as_str()).collect();
    assert_eq!((places, log.size().unwrap()), (vec!["5", "1", "5"], 6));
    let again = open(&dir.path().join("log")).unwrap();
    assert_eq!((again.append(&[body(9)]).unwrap()[0].log_index.as_str(), again.size().unwrap()), ("5", 6));
    assert_eq!((log.append(&[]).unwrap().len(), log.size().unwrap()), (0, 6));
}

#[test]
fn an_append_says_which_bodies_it_added() {
    let (_dir, log) = log_of(5);
    let placed = log.append_new(&[body(9), body(1), body(9), body(8)]).unwrap();
    let said: Vec<_> = placed.iter().map(|placed| (placed.entry.log_index.as_str(), placed.is_new)).collect();
    assert_eq!(said, [("5", true), ("1", false), ("5", false), ("6", true)]);
    assert!(log.append_new(&[body(8)]).unwrap().iter().all(|placed| !placed.is_new));
    assert_eq!((log.append_new(&[]).unwrap(), log.size().unwrap()), (Vec::new(), 7));
}

#[test]
fn what_is_published_waits_for_no_writer() {
    let (dir, log) = log_of(300);
    let folder = dir.path().join("log");
    let reader = EmbeddedLog::reader(&folder, log.public().clone());
    let held = log.tiles.write().unwrap();
    for log in [&log, &reader] {
        assert_eq!(log.checkpoint().unwrap().as_bytes(), fs::read(folder.join("checkpoint")).unwrap());
        let tile = |row, number, width| log.tile(TileName { row, number, width }).unwrap();
        let file = |name: &str| Some(fs::read(folder.join("tile").join(name)).unwrap());
        assert_eq!(tile(TileRow::Hashes(0), 0, 256), file("0/000"));
        assert_eq!(tile(TileRow::Hashes(0), 1, 44), file("0/001.p/44"));
        assert_eq!(tile(TileRow::Hashes(1), 0, 1), file("1/000.p/1"));
        assert_eq!(tile(TileRow::Entries, 1, 44), file("entries/001.p/44"));
        // Narrower ones are cut from what is there.
        assert_eq!(tile(TileRow::Hashes(0), 0, 3).unwrap(), file("0/000").unwrap()[..96]);
        assert_eq!(tile(TileRow::Entries, 1, 2).unwrap(), tiles::bundle(&bodies(256..258)).unwrap());
        for (row, number, width) in [
            (TileRow::Hashes(0), 1, 45),
            (TileRow::Hashes(0), 1, 256),
            (TileRow::Hashes(0), 2, 1),
            (TileRow::Hashes(1), 0, 2),
            (TileRow::Hashes(2), 0, 1),
            (TileRow::Hashes(8), 0, 1),
            (TileRow::Hashes(255), 0, 1),
            (TileRow::Hashes(0), u64::MAX, 1),
            (TileRow::Entries, 2, 1),
        ] {
            assert_eq!(tile(row, number, width), None, "{row:?} {number} {width}");
        }
    }
    drop(held);
    assert!(refusal(reader.append(&[body(300)])).contains("read only"));
    assert_eq!(reader.check().unwrap(), (300, log.root().unwrap()));
    fs::write(folder.join("tile/0/000"), "x").unwrap();
    assert!(refusal(reader.check()).contains("tile/0/000"));
}

#[test]
fn tiles_are_read_while_the_log_grows() {
    let (dir, log) = log_of(1);
    let reader = EmbeddedLog::reader(dir.path().join("log"), log.public().clone());
    thread::scope(|scope| {
        let writer = scope.spawn(|| (1..600).for_each(|number| drop(log.append(&[body(number)]).unwrap())));
        let mut seen = 0;
        while !writer.is_finished() {
            let size: u64 = reader.checkpoint().unwrap().lines().nth(1).unwrap().parse().unwrap();
            assert!(size >= seen);
            seen = size;
            let (number, width) = ((size - 1) / 256, u16::try_from((size - 1) % 256 + 1).unwrap());
            let entries = reader.tile(TileName { row: TileRow::Entries, number, width }).unwrap().unwrap();
            assert_eq!(entries, tiles::bundle(&bodies(number * 256..size)).unwrap());
            let hashes = reader.tile(TileName { row: TileRow::Hashes(0), number, width }).unwrap().unwrap();
            assert_eq!(hashes[hashes.len() - 32..], record_hash(&body(size - 1)).0);
        }
        writer.join().unwrap();
    });
}

#[test]
fn bodies_are_bounded_and_of_one_kind() {
    let (_dir, log) = log_of(0);
    let long = |length: usize| {
        let mut body = BODY_START.to_vec();
        body.resize(length, b' ');
        body
    };
    verify_alone(&log.append(&[long(65_535)]).unwrap()[0], &long(65_535));
    assert!(refusal(log.append(&[long(65_536)])).contains("65536 bytes"));
    assert!(refusal(log.append(&[body(1), Vec::new()])).contains("hashedrekord"));
    assert!(refusal(log.append(&[b"{\"kind\":\"dsse\"}".to_vec()])).contains("hashedrekord"));
    assert_eq!(log.size().unwrap(), 1);
}

#[test]
fn a_key_without_its_history_does_not_append() {
    let (dir, log) = log_of(5);
    let folder = dir.path().join("log");
    assert!(refusal(EmbeddedLog::create(&folder, key(), ORIGIN)).contains("log already"));
    fs::remove_file(folder.join("checkpoint")).unwrap();
    assert!(refusal(log.append(&[body(5)])).contains("second history"));
    assert!(refusal(open(&folder)).contains("second history"));
    assert!(refusal(EmbeddedLog::create(&folder, key(), ORIGIN)).contains("log already"));
    fs::remove_dir_all(&folder).unwrap();
    assert!(refusal(open(&folder)).contains("second history"));
    assert!(!folder.exists());
}

#[test]
fn another_key_or_name_does_not_open_the_log() {
    let (dir, _log) = log_of(5);
    let folder = dir.path().join("log");
    assert!(open(&folder).is_ok());
    assert!(refusal(EmbeddedLog::open(&folder, LogKey::from_seed([8; 32]), ORIGIN)).contains("no valid signature"));
    assert!(refusal(EmbeddedLog::open(&folder, key(), "other.example")).contains("of the log"));
    assert!(refusal(EmbeddedLog::open(&folder, key(), "log.example:3003")).contains("host name"));
    assert!(refusal(EmbeddedLog::create(dir.path().join("new"), key(), "a b")).contains("host name"));
}

/// Every file of the log, by its path below the folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn every_file_that_is_missing_cut_or_changed_is_noticed() {
    let (dir, log) = log_of(300);
    let folder = dir.path().join("log");
    let all = files(&folder);
    assert_eq!(all.len(), 7, "{all:?}");
    for path in all.iter().filter(|path| !path.ends_with("lock")) {
        let good = fs::read(path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [
            None,
            Some(flipped),
            Some(good[..good.len() - 1].to_vec()),
            Some([&good[..], b"x"].concat()),
            Some(Vec::new()),
        ] {
            match &bad {
                None => fs::remove_file(path).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
            }
            refusal(open(&folder));
            fs::write(path, &good).unwrap();
        }
        assert!(open(&folder).is_ok());
    }
    // A running process looks at the right edge before it signs.
    for name in ["tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"] {
        let good = fs::read(folder.join(name)).unwrap();
        fs::write(folder.join(name), &good[1..]).unwrap();
        assert!(refusal(log.append(&[body(300)])).contains(name));
        assert!(refusal(log.size()).contains(name));
        fs::write(folder.join(name), good).unwrap();
    }
    assert_eq!(log.append(&[body(300)]).unwrap()[0].log_index, "300");
}

#[test]
fn an_older_copy_of_the_log_under_a_running_process_is_refused() {
    let (dir, log) = log_of(5);
    let checkpoint = dir.path().join("log/checkpoint");
    let old = fs::read(&checkpoint).unwrap();
    log.append(&[body(5)]).unwrap();
    fs::write(&checkpoint, old).unwrap();
    assert!(refusal(log.append(&[body(6)])).contains("went back from 6 to 5"));
}

#[test]
fn another_history_of_the_same_length_is_refused() {
    let (dir, log) = log_of(5);
    let (other, _) = log_of(0);
    EmbeddedLog::open(other.path().join("log"), key(), ORIGIN).unwrap().append(&bodies(10..15)).unwrap();
    for name in ["checkpoint", "tile/0/000.p/5", "tile/entries/000.p/5"] {
        fs::copy(other.path().join("log").join(name), dir.path().join("log").join(name)).unwrap();
    }
    refusal(log.append(&[body(5)]));
    EmbeddedLog::open(other.path().join("log"), key(), ORIGIN).unwrap().append(&bodies(15..17)).unwrap();
    for name in ["checkpoint", "tile/0/000.p/7", "tile/entries/000.p/7"] {
        fs::copy(other.path().join("log").join(name), dir.path().join("log").join(name)).unwrap();
    }
    assert!(refusal(log.append(&[body(5)])).contains("tile/entries/000.p/7 is not what the log signed"));
}

/// The process dies after each of the writes of an append, the log is opened again, and other entries follow.
#[test]
fn a_crash_between_any_two_writes_leaves_a_log_that_goes_on() {
    for (old, added) in [(0, 1), (5, 3), (254, 1), (254, 2), (255, 300), (256, 1)] {
        for crash in 0.. {
            let (dir, log) = log_of(old);
            let folder = dir.path().join("log");
            let unfinished = bodies(10_000..10_000 + added);
            let (mut planned, _) = {
                let mut state = log.tiles.state().unwrap();
                unfinished.iter().for_each(|body| state.tree.push(record_hash(body)).unwrap());
                log.tiles.plan(&state.tree, old, &unfinished.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
            };
            let done = crash == planned.len();
            planned.truncate(crash);
            let known = BTreeSet::new();
            let mut writer = Writer::new(&folder, &known);
            planned.iter().for_each(|(path, bytes)| writer.write(path, bytes).unwrap());

            let again = open(&folder).unwrap();
            let size = if done { old + added } else { old };
            assert_eq!(again.size().unwrap(), size, "{old}+{added}, crash after {crash}");
            let next = again.append(&bodies(old..old + 4)).unwrap();
            next.iter().zip(old..).for_each(|(entry, number)| verify_alone(entry, &body(number)));
            let third = open(&folder).unwrap();
            assert_eq!((third.size().unwrap(), third.root().unwrap()), (size + 4, again.root().unwrap()));
            if done {
                break;
            }
        }
    }
}

#[test]
fn an_append_that_cannot_be_written_changes_nothing() {
    let (dir, log) = log_of(255);
    let folder = dir.path().join("log");
    // A folder where a tile belongs: the rename fails, also for root.
    fs::create_dir_all(folder.join("tile/0/000/x")).unwrap();
    assert!(matches!(log.append(&bodies(255..260)), Err(SignError::Io { .. })));
    assert_eq!(log.size().unwrap(), 255);
    fs::remove_dir_all(folder.join("tile/0/000")).unwrap();
    let entries = log.append(&bodies(300..310)).unwrap();
    entries.iter().zip(300..).for_each(|(entry, number)| verify_alone(entry, &body(number)));
    assert_eq!(open(&folder).unwrap().size().unwrap(), 265);
}

#[test]
fn threads_with_a_log_each_and_threads_that_share_one_keep_one_history() {
    let (dir, shared) = log_of(0);
    let (folder, shared) = (dir.path().join("log"), Arc::new(shared));
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (folder, shared, start) = (folder.clone(), Arc::clone(&shared), Arc::clone(&start));
            thread::spawn(move || {
                let own = if thread < 2 { Some(open(&folder).unwrap()) } else { None };
                start.wait();
                for number in 0..20 {
                    let number = thread * 1000 + number;
                    let entries = own.as_ref().unwrap_or(&shared).append(&[body(number), body(77_777)]).unwrap();
                    verify_alone(&entries[0], &body(number));
                    verify_alone(&entries[1], &body(77_777));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(open(&folder).unwrap().size().unwrap(), 81);
    assert_eq!(shared.root().unwrap(), open(&folder).unwrap().root().unwrap());
}

const CHILD: &str = "SLUICEGATE_TEST_LOG_CHILD";

#[test]
fn processes_keep_one_history() {
    if let Ok(task) = std::env::var(CHILD) {
        let (first, folder) = task.split_once(' ').unwrap();
        let (first, log) = (first.parse::<u64>().unwrap(), open(Path::new(folder)).unwrap());
        for number in first..first + 25 {
            verify_alone(&log.append(&[body(number)]).unwrap()[0], &body(number));
        }
        return;
    }
    let (dir, log) = log_of(250);
    let folder = dir.path().join("log");
    let children: Vec<_> = [1000, 2000]
        .map(|first| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "log::tests::processes_keep_one_history"])
                .env(CHILD, format!("{first} {}", folder.display()))
                .spawn()
                .unwrap()
        })
        .into();
    for number in 3000..3010 {
        log.append(&[body(number)]).unwrap();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!((log.size().unwrap(), open(&folder).unwrap().size().unwrap()), (310, 310));
}

#[test]
fn two_that_begin_one_log_begin_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("log");
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (folder, start) = (folder.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                EmbeddedLog::create(folder, key(), ORIGIN).is_ok()
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).filter(|made| *made).count(), 1);
    assert_eq!(open(&folder).unwrap().size().unwrap(), 0);
}

#[test]
fn what_a_killed_process_was_promised_is_kept() {
    if let Ok(task) = std::env::var(CHILD) {
        let (first, folder) = task.split_once(' ').unwrap();
        let log = open(Path::new(folder)).unwrap();
        for number in first.parse::<u64>().unwrap().. {
            let entry = log.append(&[body(number)]).unwrap().remove(0);
            // A pipe, not the macro that the test harness swallows; it breaks when the parent is gone.
            let mut pipe = std::io::stdout().lock();
            writeln!(pipe, "PROMISED {number} {}", entry.log_index).unwrap();
        }
    }
    let (dir, log) = log_of(250);
    let folder = dir.path().join("log");
    for (round, lines) in [(1_u64, 1), (2, 4), (3, 9), (4, 2)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::what_a_killed_process_was_promised_is_kept", "--nocapture"])
            .env(CHILD, format!("{} {}", round * 1000, folder.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut promised: Vec<(u64, String)> = Vec::new();
        let keep = |line: String, promised: &mut Vec<(u64, String)>| {
            // The harness may print in front of the first line.
            if let Some((_, rest)) = line.split_once("PROMISED ") {
                let (number, index) = rest.split_once(' ').unwrap();
                promised.push((number.parse().unwrap(), index.to_owned()));
            }
        };
        while promised.len() < lines {
            keep(output.next().unwrap(), &mut promised);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        output.for_each(|line| keep(line, &mut promised));
        let again = open(&folder).unwrap();
        for (number, index) in &promised {
            let entry = again.append(&[body(*number)]).unwrap().remove(0);
            verify_alone(&entry, &body(*number));
            assert_eq!(&entry.log_index, index);
        }
        assert_eq!(log.size().unwrap(), again.size().unwrap());
    }
}

#[test]
fn what_is_held_is_proved_at_once_and_written_by_one_checkpoint() {
    let (dir, log) = log_of(250);
    let folder = dir.path().join("log");
    let before = fs::read(folder.join("checkpoint")).unwrap();
    // Twice over a full tile, and once with what is there already.
    let mut entries = Vec::new();
    for number in 250..263 {
        entries.extend(log.append_held(&[body(number)]).unwrap());
    }
    let again = log.append_held(&bodies(248..252)).unwrap();
    assert_eq!(again.iter().map(|entry| entry.log_index.as_str()).collect::<Vec<_>>(), ["248", "249", "250", "251"]);
    for (number, entry) in (250..).zip(&entries) {
        verify_alone(entry, &body(number));
    }
    assert_eq!(fs::read(folder.join("checkpoint")).unwrap(), before, "nothing is in the files");
    log.make_durable().unwrap();
    log.make_durable().unwrap();
    let anew = open(&folder).unwrap();
    assert_eq!((anew.check().unwrap().0, anew.root().unwrap()), (263, log.root().unwrap()));
    let (_other, at_once) = log_of(263);
    assert_eq!(anew.root().unwrap(), at_once.root().unwrap());
}

#[test]
fn what_is_held_is_gone_if_it_was_not_made_durable_and_comes_before_any_other_question() {
    let (dir, log) = log_of(3);
    let folder = dir.path().join("log");
    log.append_held(&[body(3)]).unwrap();
    drop(log);
    let log = open(&folder).unwrap();
    assert_eq!(log.size().unwrap(), 3);
    log.append_held(&[body(4)]).unwrap();
    assert_eq!(log.size().unwrap(), 4, "the question made it durable");
    assert_eq!(open(&folder).unwrap().size().unwrap(), 4);
    log.append_held(&[body(5)]).unwrap();
    log.append(&[body(6)]).unwrap();
    assert_eq!(open(&folder).unwrap().size().unwrap(), 6);
    // What cannot be written was never appended.
    log.append_held(&[body(7)]).unwrap();
    let hidden = dir.path().join("hidden");
    fs::rename(folder.join("tile"), &hidden).unwrap();
    fs::write(folder.join("tile"), "").unwrap();
    log.make_durable().unwrap_err();
    fs::remove_file(folder.join("tile")).unwrap();
    fs::rename(&hidden, folder.join("tile")).unwrap();
    assert_eq!(log.append(&[body(8)]).unwrap()[0].log_index, "6");
    assert_eq!(open(&folder).unwrap().check().unwrap().0, 7);
    // Nor is it durable for whoever held it, if it was somebody else's question that could not write it.
    log.append_held(&[body(9)]).unwrap();
    fs::rename(folder.join("tile"), &hidden).unwrap();
    fs::write(folder.join("tile"), "").unwrap();
    log.size().unwrap_err();
    fs::remove_file(folder.join("tile")).unwrap();
    fs::rename(&hidden, folder.join("tile")).unwrap();
    log.append_held(&[body(10)]).unwrap_err();
    log.make_durable().unwrap_err();
    log.append_held(&[body(11)]).unwrap();
    log.make_durable().unwrap();
    assert_eq!(open(&folder).unwrap().check().unwrap().0, 8);
}

#[test]
fn nobody_else_appends_while_entries_are_held() {
    let (dir, log) = log_of(3);
    log.append_held(&[body(3)]).unwrap();
    let other = std::fs::File::options().read(true).write(true).open(dir.path().join("log/lock")).unwrap();
    assert!(other.try_lock().is_err());
    log.make_durable().unwrap();
    other.try_lock().unwrap();
}
