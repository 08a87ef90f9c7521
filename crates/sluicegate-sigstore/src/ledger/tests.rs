#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
};

use tlog_tiles::{EMPTY_HASH, Hash, node_hash, record_hash};

use super::*;

const ORIGIN: &str = "ledger.example";

fn key() -> LogKey {
    LogKey::from_seed([7; 32])
}

fn public() -> LogPublic {
    LogPublic { origin: ORIGIN.into(), public_key: *key().public_key() }
}

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn digests(range: std::ops::Range<u64>) -> Vec<Digest> {
    range.map(digest).collect()
}

/// A ledger with `size` leaves.
fn ledger_of(size: u64) -> (tempfile::TempDir, PathBuf, EmbeddedLedger) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ledger");
    let ledger = EmbeddedLedger::create(&folder, key(), ORIGIN).unwrap();
    assert_eq!(ledger.append(0, &digests(0..size)).unwrap().size, size);
    (dir, folder, ledger)
}

fn damage<T: std::fmt::Debug>(result: Result<T, LedgerError>) -> String {
    match result {
        Err(LedgerError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// RFC 6962 section 2.1, written down as it is read there, over what the port's documentation says a leaf is.
fn by_the_book(leaves: &[Digest]) -> Hash {
    match leaves {
        [] => EMPTY_HASH,
        [one] => record_hash(one.as_bytes()),
        many => {
            let half = 1 << (usize::BITS - 1 - (many.len() - 1).leading_zeros());
            node_hash(by_the_book(&many[..half]), by_the_book(&many[half..]))
        }
    }
}

#[test]
fn leaves_are_read_back_and_the_root_at_every_size_stays_provable() {
    let (_dir, folder, ledger) = ledger_of(250);
    for size in 250..262 {
        assert_eq!(ledger.append(size, &[digest(size)]).unwrap().size, size + 1);
    }
    for ledger in
        [ledger, EmbeddedLedger::open(&folder, key(), ORIGIN).unwrap(), EmbeddedLedger::reader(&folder, public())]
    {
        let all = digests(0..262);
        for size in 0..=262 {
            assert_eq!(ledger.root_at(size as u64).unwrap().as_bytes(), &by_the_book(&all[..size]).0, "{size}");
        }
        assert!(matches!(ledger.root_at(263), Err(LedgerError::Short { size: 262, asked: 263 })));
        for (from, count) in [(0, 0), (0, 1), (0, 262), (0, 1000), (255, 2), (256, 6), (261, 9), (262, 5), (900, 1)] {
            let to = 262.min(from + count);
            assert_eq!(ledger.leaves(from, count).unwrap(), digests(from.min(to)..to), "{from} {count}");
        }
        let head = LedgerHead { origin: ORIGIN.into(), size: 262, root: Digest::from_bytes(by_the_book(&all).0) };
        assert_eq!((ledger.head().unwrap(), ledger.check().unwrap()), (head.clone(), head));
    }
}

#[test]
fn equal_leaves_are_two_leaves() {
    let (_dir, _folder, ledger) = ledger_of(0);
    assert_eq!(ledger.append(0, &[digest(1), digest(1)]).unwrap().size, 2);
    assert_eq!(ledger.append(2, &[digest(1)]).unwrap().size, 3);
    assert_eq!(ledger.leaves(0, 9).unwrap(), [digest(1); 3]);
}

#[test]
fn leaves_for_another_place_than_the_end_are_refused() {
    let (_dir, folder, ledger) = ledger_of(5);
    for from in [0, 4, 6, u64::MAX] {
        assert!(matches!(ledger.append(from, &[digest(9)]), Err(LedgerError::Moved { size: 5 })), "{from}");
        assert!(matches!(ledger.append(from, &[]), Err(LedgerError::Moved { size: 5 })), "{from}");
    }
    let other = EmbeddedLedger::open(&folder, key(), ORIGIN).unwrap();
    assert_eq!(other.append(5, &[digest(5)]).unwrap().size, 6);
    assert!(matches!(ledger.append(5, &[digest(5)]), Err(LedgerError::Moved { size: 6 })));
    assert_eq!(ledger.append(6, &[]).unwrap().size, 6);
    assert_eq!(ledger.leaves(0, 9).unwrap(), digests(0..6));
}

#[test]
fn a_reader_needs_no_private_key_and_does_not_append() {
    let (_dir, folder, ledger) = ledger_of(3);
    let reader = EmbeddedLedger::reader(&folder, public());
    assert_eq!(reader.head().unwrap(), ledger.head().unwrap());
    assert!(damage(reader.append(3, &[digest(3)])).contains("read only"));
    assert_eq!(ledger.append(3, &[digest(3)]).unwrap(), reader.head().unwrap());
}

#[test]
fn a_key_without_its_ledger_does_not_append() {
    let (_dir, folder, ledger) = ledger_of(3);
    assert!(damage(EmbeddedLedger::create(&folder, key(), ORIGIN)).contains("already"));
    fs::remove_dir_all(&folder).unwrap();
    assert!(damage(EmbeddedLedger::open(&folder, key(), ORIGIN)).contains("second history"));
    assert!(damage(EmbeddedLedger::reader(&folder, public()).check()).contains("no checkpoint"));
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    assert!(damage(ledger.append(3, &[digest(3)])).contains("second history"));
    assert!(damage(EmbeddedLedger::open(&folder, key(), ORIGIN)).contains("second history"));
}

#[test]
fn another_key_or_name_is_not_this_ledger() {
    let (_dir, folder, _ledger) = ledger_of(3);
    assert!(EmbeddedLedger::reader(&folder, public()).check().is_ok());
    let other = LogPublic { public_key: *LogKey::from_seed([8; 32]).public_key(), ..public() };
    assert!(damage(EmbeddedLedger::reader(&folder, other).check()).contains("no valid signature"));
    let other = LogPublic { origin: "log.example".into(), ..public() };
    assert!(damage(EmbeddedLedger::reader(&folder, other).check()).contains("of the log"));
}

/// Every file of the ledger but its lock.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| !path.ends_with("lock"));
    found
}

#[test]
fn every_single_flipped_bit_of_every_file_is_found() {
    let (_dir, folder, ledger) = ledger_of(3);
    let all = files(&folder);
    assert_eq!(all.len(), 3, "{all:?}");
    for path in all {
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            damage(EmbeddedLedger::reader(&folder, public()).check());
        }
        fs::write(&path, good).unwrap();
        assert!(ledger.check().is_ok());
    }
}

#[test]
fn a_missing_cut_or_longer_tile_is_found_and_named() {
    let (_dir, folder, ledger) = ledger_of(300);
    for name in ["tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"] {
        let path = folder.join(name);
        let good = fs::read(&path).unwrap();
        for bad in [None, Some(good[..good.len() - 32].to_vec()), Some([&good[..], b"x"].concat()), Some(Vec::new())] {
            match &bad {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            // Also by a process that read it whole before.
            assert!(damage(ledger.check()).contains(name));
            assert!(damage(EmbeddedLedger::reader(&folder, public()).check()).contains(name));
        }
        fs::write(&path, good).unwrap();
        assert_eq!(ledger.check().unwrap().size, 300);
    }
}

#[test]
fn a_leaf_of_another_length_is_no_leaf() {
    let (_dir, folder, ledger) = ledger_of(1);
    ledger.tiles.write().unwrap().append(&[b"short"]).unwrap();
    let reader = EmbeddedLedger::reader(&folder, public());
    assert_eq!(reader.leaves(0, 1).unwrap(), [digest(0)]);
    assert!(damage(reader.leaves(0, 2)).contains("leaf 1 is not"));
}

#[test]
fn an_older_copy_under_a_running_process_is_refused() {
    let (_dir, folder, ledger) = ledger_of(5);
    let old = fs::read(folder.join("checkpoint")).unwrap();
    ledger.append(5, &[digest(5)]).unwrap();
    fs::write(folder.join("checkpoint"), old).unwrap();
    assert!(damage(ledger.append(5, &[digest(6)])).contains("went back"));
    assert!(damage(ledger.check()).contains("went back"));
}

#[test]
fn several_that_append_at_once_keep_one_order_without_gap_or_double() {
    let (_dir, folder, shared) = ledger_of(0);
    let (shared, start) = (Arc::new(shared), Arc::new(Barrier::new(4)));
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let (folder, shared, start) = (folder.clone(), Arc::clone(&shared), Arc::clone(&start));
            thread::spawn(move || {
                let own = (thread < 2).then(|| EmbeddedLedger::open(&folder, key(), ORIGIN).unwrap());
                let ledger = own.as_ref().unwrap_or(&shared);
                start.wait();
                for number in 0..15 {
                    let mut from = ledger.head().unwrap().size;
                    while let Err(error) = ledger.append(from, &[digest(thread * 1000 + number)]) {
                        let LedgerError::Moved { size } = error else { panic!("{error}") };
                        from = size;
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let all = EmbeddedLedger::reader(&folder, public()).leaves(0, 100).unwrap();
    assert_eq!(all.len(), 60);
    for thread in 0..4 {
        let of_thread = digests(thread * 1000..thread * 1000 + 15);
        let found: Vec<_> = all.iter().filter(|leaf| of_thread.contains(leaf)).copied().collect();
        assert_eq!(found, of_thread);
    }
}

#[test]
fn what_contradicts_is_named_with_what_it_contradicts() {
    let (_dir, folder, ledger) = ledger_of(300);
    let (entries, hashes) = (folder.join("tile/entries/001.p/44"), folder.join("tile/0/001.p/44"));
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[40] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let check = || damage(EmbeddedLedger::reader(&folder, public()).check());
    flip(&entries);
    assert!(check().contains("tile/entries/001.p/44 and tile/0/001.p/44 do not belong together"), "{}", check());
    flip(&entries);
    flip(&hashes);
    assert!(check().contains("tile/0/001.p/44 is not what the log signed"), "{}", check());
    flip(&hashes);
    assert!(ledger.check().is_ok());
}
