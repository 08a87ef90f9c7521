//! Recording and `fsck` with the real store and the real ledger: what is caught up, what is refused, and which damage is found
//! (trust model 16). Each kind of damage stands beside the same evidence undamaged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

#[allow(dead_code, reason = "the gate's own tests use the rest of it")]
mod gate_world;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
};

use gate_world::{GATE, LEDGER, SOURCE, TARGET, World, deny, pass};
use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{BUNDLE, IMAGE_MANIFEST},
    predicate::PredicateType,
    statement::{Statement, Subject},
    summary::{LedgerHead, Promotion, PromotionClaim, SummaryClaim, VerificationSummary},
};
use sluicegate_evidence::SqliteEvidence;
use sluicegate_flow::{
    Error, Failure, Ports,
    evidence::{Against, FsckReport, fsck, head, record},
};
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, NewRecord, RecordKind},
    ledger::{Ledger, LedgerError},
};
use sluicegate_sigstore::{EmbeddedLedger, KeyFolder, LogPublic};
use sluicegate_testkit::{FakePacker, MemoryLedger, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, NonEmpty, PinnedImage, Repository, Secret};

fn new(number: u64) -> NewRecord {
    NewRecord {
        kind: RecordKind::Decision,
        at: today().plus(number),
        subject: Some(Digest::of(b"image")),
        environment: Some("production".parse().unwrap()),
        outcome: "deny".to_owned(),
        body: json!({"number": number}),
    }
}

/// A home's evidence on disk.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// With `count` records.
    fn of(count: u64) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        let keys = KeyFolder::open(home.folder.path().join("keys"));
        let passphrase = Secret::new(b"x".to_vec());
        keys.generate_log_key("ledger", &passphrase).unwrap();
        let key = keys.open_log_key("ledger", &passphrase).unwrap();
        drop(EmbeddedLedger::create(home.path("ledger"), key, LEDGER).unwrap());
        home.with(|ports| (0..count).for_each(|number| drop(record(ports, &new(number)).unwrap())));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> SqliteEvidence {
        SqliteEvidence::open(&self.path("evidence.db")).unwrap()
    }

    fn ledger(&self) -> EmbeddedLedger {
        let key = KeyFolder::open(self.path("keys")).open_log_key("ledger", &Secret::new(b"x".to_vec())).unwrap();
        EmbeddedLedger::open(self.path("ledger"), key, LEDGER).unwrap()
    }

    /// As somebody without the passphrase sees it.
    fn reader(&self) -> EmbeddedLedger {
        let public_key = KeyFolder::open(self.path("keys")).log_public_key("ledger").unwrap();
        EmbeddedLedger::reader(self.path("ledger"), LogPublic { origin: LEDGER.to_owned(), public_key })
    }

    fn with<T>(&self, act: impl FnOnce(&Ports<'_>) -> T) -> T {
        with_ports(&self.store(), &self.ledger(), act)
    }

    fn fsck(&self) -> FsckReport {
        fsck(&self.store(), &self.reader(), None).unwrap()
    }

    /// What fsck says about these statements.
    fn against(&self, world: &World) -> FsckReport {
        fsck(&self.store(), &self.reader(), Some(&against(world))).unwrap()
    }

    fn head(&self) -> LedgerHead {
        self.reader().check().unwrap()
    }

    /// Nothing damaged, by the way in which a user would see it.
    fn assert_whole(&self, records: u64) {
        let report = self.fsck();
        assert_eq!((report.failure(), report.damage.as_slice(), report.records), (None, &[][..], Some(records)));
    }

    /// What is damaged; at least something must be.
    fn damage(&self) -> String {
        let report = self.fsck();
        assert_eq!(report.failure(), Some(Failure::Wrong), "{report:?}");
        report.damage.join("\n")
    }

    /// What somebody does who owns the file: takes the guards away, edits, and puts them back.
    fn tamper(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path("evidence.db")).unwrap();
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

    /// A copy of database and ledger, to go back to.
    fn backup(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&self.path("ledger"), &copy.path().join("ledger"));
        fs::copy(self.path("evidence.db"), copy.path().join("evidence.db")).unwrap();
        copy
    }

    fn restore(&self, copy: &tempfile::TempDir, database: bool, ledger: bool) {
        if database {
            fs::copy(copy.path().join("evidence.db"), self.path("evidence.db")).unwrap();
        }
        if ledger {
            fs::remove_dir_all(self.path("ledger")).unwrap();
            copy_all(&copy.path().join("ledger"), &self.path("ledger"));
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_all(&path, &there) } else { assert!(fs::copy(&path, &there).is_ok()) }
    }
}

fn with_ports<T>(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, act: impl FnOnce(&Ports<'_>) -> T) -> T {
    let (world, _) = World::good();
    let tell = |_: &str| {};
    act(&Ports {
        clock: &world.clock,
        store: &world.store,
        places: &world.places,
        packer: &FakePacker::new(&world.store),
        log: &world.log,
        evidence,
        ledger,
        tell: &tell,
        warn: &tell,
    })
}

fn against(world: &World) -> Against<'_> {
    static SHOP: std::sync::LazyLock<[sluicegate_types::ImageRef; 1]> =
        std::sync::LazyLock::new(|| ["oci:out/shop".parse().unwrap()]);
    Against {
        places: &world.places,
        references: SHOP.as_slice(),
        folder: Path::new("/project"),
        trust: &world.trust,
        at: today(),
    }
}

/// What a gate says about the world's image, with `head`.
fn predicate(world: &World, kind: &PredicateType, head: LedgerHead) -> Value {
    let environment: sluicegate_types::EnvironmentName = "production".parse().unwrap();
    let target = PinnedImage { repository: Repository::of_environment(&environment), digest: world.image.digest() };
    if *kind == PredicateType::Promotion {
        Promotion {
            image: target.digest,
            source: "build".to_owned(),
            destination: target,
            timestamp: today(),
            builder_id: GATE.to_owned(),
            decision: None,
            environment,
            ledger: head,
        }
        .to_predicate()
    } else {
        VerificationSummary {
            verifier_id: GATE.to_owned(),
            time_verified: today(),
            resource: target,
            policy: Digest::of(b"gateway"),
            inputs: vec![Digest::of(b"bundle")],
            passed: true,
            levels: vec!["SLSA_BUILD_LEVEL_1".to_owned()],
            environment,
            expires: today().plus(60),
            authority: "self".to_owned(),
            ledger: head,
        }
        .to_predicate()
    }
}

/// Attaches a statement of `signer` about the world's image that holds `head`.
fn attach(world: &World, signer: &str, kind: PredicateType, head: LedgerHead) {
    let predicate = predicate(world, &kind, head);
    attach_predicate(world, signer, kind, predicate);
}

fn attach_predicate(world: &World, signer: &str, kind: PredicateType, predicate: Value) {
    let subject = Subject { name: None, digest: world.image.digest(), media_type: Some(IMAGE_MANIFEST.to_owned()) };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: kind, predicate };
    let bundle = sign_statement(&VirtualSigner::new(signer), &world.log, &statement);
    world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &bundle)]);
}

/// A world whose image bears the decision that was signed when `home` was as it is now.
fn anchored(home: &Home) -> World {
    let (world, _) = World::good();
    attach(&world, "decider", PredicateType::VerificationSummary, home.head());
    world
}

#[test]
fn each_record_is_one_leaf_with_its_digest() {
    let home = Home::of(3);
    let mut digests: Vec<Digest> = home.store().list(10).unwrap().iter().map(|record| record.digest).collect();
    digests.reverse();
    assert_eq!(home.reader().leaves(0, 10).unwrap(), digests);
    home.assert_whole(3);
    let report = home.fsck();
    assert_eq!((report.pending(), report.ledger), (0, Some(home.head())));
}

#[test]
fn a_row_that_was_committed_without_its_leaf_is_caught_up() {
    let home = Home::of(2);
    // The process died in between; twice.
    home.store().append(&new(2)).unwrap();
    home.store().append(&new(3)).unwrap();
    let report = home.fsck();
    assert_eq!((report.failure(), report.records, report.pending()), (None, Some(4), 2));
    assert_eq!(home.fsck().pending(), 2, "fsck changes nothing");
    assert_eq!(home.with(|ports| record(ports, &new(4)).unwrap()).sequence, 5);
    assert_eq!((home.head().size, home.fsck().pending()), (5, 0));
    home.store().append(&new(5)).unwrap();
    assert_eq!(home.with(|ports| head(ports).unwrap()), home.head());
    assert_eq!(home.head().size, 6);
    home.assert_whole(6);
}

#[test]
fn a_store_that_was_there_before_the_ledger_is_taken_along() {
    let home = Home::of(0);
    let store = home.store();
    (0..5).for_each(|number| drop(store.append(&new(number)).unwrap()));
    assert_eq!(home.fsck().pending(), 5);
    home.with(|ports| record(ports, &new(5)).unwrap());
    home.assert_whole(6);
    assert_eq!(home.head().size, 6);
}

#[test]
fn rows_that_somebody_else_took_along_are_not_logged_twice() {
    let home = Home::of(0);
    let store = home.store();
    let first = store.append(&new(0)).unwrap().digest;
    let ledger = MemoryLedger::new(LEDGER);
    // Between the question how large the ledger is and the append, another process appends this very row.
    ledger.grows_meanwhile(&[first]);
    assert_eq!(with_ports(&store, &ledger, |ports| head(ports).unwrap()).size, 1);
    assert_eq!(ledger.all(), [first]);
}

#[test]
fn a_ledger_that_takes_nothing_leaves_the_row_pending_and_says_so() {
    let home = Home::of(0);
    let store = home.store();
    let ledger = MemoryLedger::new(LEDGER);
    ledger.breaks(true);
    let failed = with_ports(&store, &ledger, |ports| record(ports, &new(0)));
    assert!(matches!(failed, Err(Error::Ledger(LedgerError::Io { .. }))), "{failed:?}");
    assert_eq!((store.check().unwrap(), ledger.all().len()), (1, 0));
    ledger.breaks(false);
    with_ports(&store, &ledger, |ports| record(ports, &new(1))).unwrap();
    assert_eq!((store.check().unwrap(), ledger.all().len()), (2, 2));
}

#[test]
fn nothing_is_recorded_behind_a_store_that_was_cut_back_or_exchanged() {
    for (sql, word) in [
        ("DELETE FROM records WHERE sequence = 3", "it is missing"),
        ("DELETE FROM records", "it is missing"),
        ("UPDATE records SET outcome = 'allow' WHERE sequence = 3", "recorded with"),
    ] {
        let home = Home::of(3);
        home.tamper(sql);
        let failed = home.with(|ports| record(ports, &new(3)));
        let Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, reason })) = failed else { panic!("{failed:?}") };
        assert!(reason.contains(word), "{reason}");
        assert_eq!(home.head().size, 3);
    }
    // Another store with as many records.
    let (home, other) = (Home::of(3), Home::of(0));
    other.with(|ports| (5..8).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.restore(&other.backup(), true, false);
    let failed = home.with(|ports| record(ports, &new(3)));
    assert!(matches!(failed, Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, .. }))), "{failed:?}");
    let home = Home::of(3);
    assert_eq!(home.with(|ports| record(ports, &new(3)).unwrap()).sequence, 4);
}

#[test]
fn several_processes_that_record_at_once_keep_one_ledger() {
    let home = Arc::new(Home::of(0));
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (home, start) = (Arc::clone(&home), Arc::clone(&start));
            thread::spawn(move || {
                let (store, ledger) = (home.store(), home.ledger());
                start.wait();
                with_ports(&store, &ledger, |ports| {
                    (0..8).for_each(|number| drop(record(ports, &new(thread * 100 + number)).unwrap()));
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    home.assert_whole(32);
    assert_eq!((home.head().size, home.fsck().pending()), (32, 0));
}

#[test]
fn tm16_an_edited_row_is_found() {
    let home = Home::of(4);
    home.assert_whole(4);
    home.tamper("UPDATE records SET outcome = 'allow' WHERE sequence = 2");
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

#[test]
fn tm16_a_missing_row_is_found() {
    for (gone, word) in [
        (1, "evidence record 1 is damaged: it is missing"),
        (2, "evidence record 2 is damaged: it is missing"),
        (4, "evidence record 4 is missing"),
    ] {
        let home = Home::of(4);
        home.assert_whole(4);
        home.tamper(&format!("DELETE FROM records WHERE sequence = {gone}"));
        assert!(home.damage().contains(word), "{}", home.damage());
    }
    let home = Home::of(4);
    home.tamper("DELETE FROM records");
    assert!(home.damage().contains("evidence records 1 to 4 are missing"), "{}", home.damage());
}

#[test]
fn tm16_a_reordered_row_is_found() {
    let home = Home::of(4);
    home.assert_whole(4);
    home.tamper(
        "UPDATE records SET sequence = 9 WHERE sequence = 2; UPDATE records SET sequence = 2 WHERE sequence = 3; \
         UPDATE records SET sequence = 3 WHERE sequence = 9",
    );
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

/// Whoever owns the file computes every digest anew, so that the chain is whole; the ledger still holds the old ones.
#[test]
fn tm16_rows_that_were_written_anew_differ_from_their_leaves() {
    let home = Home::of(4);
    home.assert_whole(4);
    let forger = Home::of(1);
    let store = forger.store();
    for number in [7, 2, 3] {
        store.append(&new(number)).unwrap();
    }
    assert_eq!(store.check().unwrap(), 4, "a chain that is whole in itself");
    drop(store);
    home.restore(&forger.backup(), true, false);
    let damage = home.damage();
    assert!(damage.contains("evidence record 2 is damaged: it is not the record that the ledger's leaf 1"), "{damage}");
    assert!(damage.contains("2 later ones"), "{damage}");
    // Two rows exchanged and everything behind them computed anew.
    let (home, forger) = (Home::of(3), Home::of(1));
    let store = forger.store();
    [2, 1].into_iter().for_each(|number| drop(store.append(&new(number)).unwrap()));
    drop(store);
    home.restore(&forger.backup(), true, false);
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

#[test]
fn tm16_one_flipped_bit_is_found() {
    let home = Home::of(3);
    let backup = home.backup();
    home.assert_whole(3);
    for name in ["ledger/checkpoint", "ledger/tile/entries/000.p/3", "ledger/tile/0/000.p/3"] {
        let good = fs::read(home.path(name)).unwrap();
        for bit in (0..good.len() * 8).step_by(13) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(home.path(name), bad).unwrap();
            let damage = home.damage();
            assert!(damage.contains("the ledger in"), "{damage}");
        }
        fs::write(home.path(name), good).unwrap();
        home.assert_whole(3);
    }
    // In the database: every bit of the text of a record.
    let good = fs::read(home.path("evidence.db")).unwrap();
    let place = good.windows(12).position(|window| window == br#"{"number":1}"#).unwrap();
    for bit in 0..12 * 8 {
        let mut bad = good.clone();
        bad[place + bit / 8] ^= 1 << (bit % 8);
        fs::write(home.path("evidence.db"), bad).unwrap();
        assert!(home.damage().contains("evidence record 2 is damaged"));
    }
    home.restore(&backup, true, false);
    home.assert_whole(3);
}

#[test]
fn tm16_a_cut_tile_and_a_ledger_that_is_gone_are_found() {
    for name in ["ledger/tile/entries/000.p/3", "ledger/tile/0/000.p/3", "ledger/checkpoint"] {
        let home = Home::of(3);
        home.assert_whole(3);
        let good = fs::read(home.path(name)).unwrap();
        fs::write(home.path(name), &good[..good.len() - 1]).unwrap();
        let named = name.trim_start_matches("ledger/");
        assert!(home.damage().contains(named), "{}", home.damage());
        fs::remove_file(home.path(name)).unwrap();
        assert!(home.damage().contains(named), "{}", home.damage());
        fs::write(home.path(name), good).unwrap();
        home.assert_whole(3);
        fs::remove_dir_all(home.path("ledger")).unwrap();
        assert!(home.damage().contains("no checkpoint"), "{}", home.damage());
    }
}

#[test]
fn tm16_a_database_that_was_cut_back_alone_is_found_by_the_ledger() {
    let home = Home::of(3);
    let backup = home.backup();
    home.with(|ports| (3..5).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.assert_whole(5);
    home.restore(&backup, true, false);
    assert!(home.damage().contains("evidence records 4 to 5 are missing"), "{}", home.damage());
}

#[test]
fn tm16_a_row_in_a_damaged_write_ahead_log_is_missed() {
    let home = Home::of(1);
    // A reader that stays keeps what follows in the write-ahead log.
    let (store, ledger) = (home.store(), home.ledger());
    with_ports(&store, &ledger, |ports| record(ports, &new(1)).unwrap());
    let copy = home.backup();
    let wal = home.path("evidence.db-wal");
    let mut bytes = fs::read(&wal).unwrap();
    drop((store, ledger));
    home.restore(&copy, true, false);
    fs::write(&wal, &bytes).unwrap();
    home.assert_whole(2);
    home.restore(&copy, true, false);
    let place = bytes.windows(12).rposition(|window| window == br#"{"number":1}"#).unwrap();
    bytes[place + 3] ^= 1;
    fs::write(&wal, &bytes).unwrap();
    assert!(home.damage().contains("evidence record 2 is missing"), "{}", home.damage());
}

#[test]
fn tm16_database_and_ledger_cut_back_together_are_found_by_a_decision() {
    let home = Home::of(3);
    let backup = home.backup();
    home.with(|ports| (3..5).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    let world = anchored(&home);
    home.with(|ports| record(ports, &new(5)).unwrap());
    let report = home.against(&world);
    assert_eq!((report.failure(), report.records), (None, Some(6)));
    assert_eq!(report.anchor().unwrap().head.size, 5);
    assert_eq!(report.to_json()["completeSince"]["size"], 5);
    home.restore(&backup, true, true);
    home.assert_whole(3);
    let report = home.against(&world);
    assert_eq!(report.failure(), Some(Failure::Wrong));
    assert!(
        report.damage[0].contains("cut back") && report.damage[0].contains("records 4 to 5 are gone"),
        "{report:?}"
    );
    assert_eq!(report.to_json()["completeSince"], Value::Null);
    // What came after the last decision is the home's own word, and the report does not say otherwise.
    let home = Home::of(3);
    let (backup, world) = (home.backup(), anchored(&home));
    home.with(|ports| record(ports, &new(3)).unwrap());
    home.restore(&backup, true, true);
    let report = home.against(&world);
    assert_eq!((report.failure(), report.anchor().unwrap().head.size, report.records), (None, 3, Some(3)));
}

/// Whoever holds the key of the ledger cuts both back and goes on: as many records, another history.
#[test]
fn tm16_a_history_that_was_rewritten_with_the_ledgers_own_key_is_found_by_a_decision() {
    let home = Home::of(2);
    let backup = home.backup();
    home.with(|ports| record(ports, &new(2)).unwrap());
    let world = anchored(&home);
    assert_eq!(home.against(&world).failure(), None);
    home.restore(&backup, true, true);
    home.with(|ports| (7..10).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.assert_whole(5);
    let report = home.against(&world);
    assert_eq!(report.failure(), Some(Failure::Wrong));
    assert!(report.damage[0].contains("rewritten"), "{report:?}");
}

#[test]
fn tm16_a_checkpoint_that_went_back_alone_is_found_by_a_decision() {
    let home = Home::of(2);
    let backup = home.backup();
    home.with(|ports| record(ports, &new(2)).unwrap());
    let world = anchored(&home);
    home.restore(&backup, false, true);
    assert_eq!((home.fsck().failure(), home.fsck().pending()), (None, 1));
    assert!(home.against(&world).damage[0].contains("cut back"));
}

#[test]
fn an_image_that_proves_nothing_about_this_ledger_leaves_it_open() {
    let home = Home::of(2);
    let open = |world: &World, word: &str| {
        let report = home.against(world);
        assert_eq!((report.failure(), report.anchor()), (Some(Failure::Undecided), None));
        assert!(report.unanchored[0].1.contains(word), "{report:?}");
    };
    let (world, _) = World::good();
    open(&world, "holds a ledger's head");
    let summary = PredicateType::VerificationSummary;
    // A stranger, a key of another role, a decision of before there were ledgers, one about an empty one.
    attach(&world, "stranger", summary.clone(), home.head());
    attach(&world, "builder", summary.clone(), home.head());
    attach(&world, "builder", PredicateType::Promotion, home.head());
    let mut old = predicate(&world, &summary, home.head());
    old.as_object_mut().unwrap().remove("sluicegate_ledger").unwrap();
    attach_predicate(&world, "decider", summary.clone(), old);
    open(&world, "holds a ledger's head");
    let empty = LedgerHead { origin: LEDGER.to_owned(), size: 0, root: Digest::of(b"") };
    attach(&world, "decider", summary.clone(), empty);
    open(&world, "empty ledger");
    let elsewhere = LedgerHead { origin: "elsewhere.example".to_owned(), ..home.head() };
    attach(&world, "decider", summary.clone(), elsewhere);
    open(&world, "about elsewhere.example");
    // One that counts is enough, and junk beside it changes nothing.
    attach(&world, "decider", summary, home.head());
    assert_eq!(home.against(&world).failure(), None);
    for (signer, kind) in [("recorder", PredicateType::Promotion), ("decider", PredicateType::Promotion)] {
        let (world, _) = World::good();
        attach(&world, signer, kind, home.head());
        let report = home.against(&world);
        assert_eq!((report.failure(), report.anchor().unwrap().signer.as_str()), (None, signer));
    }
}

#[test]
fn damage_outweighs_an_image_that_proves_nothing() {
    let home = Home::of(2);
    let (world, _) = World::good();
    assert_eq!(home.against(&world).failure(), Some(Failure::Undecided));
    home.tamper("UPDATE records SET outcome = 'allow' WHERE sequence = 1");
    assert_eq!(home.against(&world).failure(), Some(Failure::Wrong));
}

#[test]
fn a_decision_bears_the_ledger_with_its_own_record_and_a_denial_the_one_before() {
    let (world, _) = World::good();
    world.promote(&deny()).unwrap();
    let denial: Digest = world.last_record().body["summary"].as_str().unwrap().parse().unwrap();
    let claim = SummaryClaim::parse(&world.statement(&denial).predicate).unwrap();
    assert_eq!((claim.passed, claim.ledger.unwrap().size), (false, 0));
    world.promote(&pass()).unwrap();
    let bundles = world.bundles_at_target();
    let predicate = |kind: &str| world.statement(&bundles.iter().find(|(k, _)| k == kind).unwrap().1).predicate;
    let head = LedgerHead { origin: LEDGER.to_owned(), size: 2, root: world.ledger.root_at(2).unwrap() };
    assert_eq!(SummaryClaim::parse(&predicate("verification-summary")).unwrap().ledger.as_ref(), Some(&head));
    assert_eq!(PromotionClaim::parse(&predicate("promotion")).unwrap().ledger.as_ref(), Some(&head));
    assert_eq!(world.outcomes(), ["deny", "allow", "promoted"]);
    assert_eq!(world.ledger.all().len(), 3);
    // And these two are what fsck goes by.
    let references = ["oci:environments/production:current".parse().unwrap()];
    let against = Against { references: &references, folder: Path::new("/gateway"), ..against(&world) };
    let report = fsck(&world.evidence, &world.ledger, Some(&against)).unwrap();
    let kinds: Vec<_> = report.anchors.iter().map(|anchor| anchor.kind.as_str()).collect();
    assert_eq!((report.failure(), kinds.len()), (None, 2), "{kinds:?}");
    world.evidence.tamper(|records| records.truncate(1));
    world.ledger.tamper(|leaves| leaves.truncate(1));
    assert_eq!(fsck(&world.evidence, &world.ledger, None).unwrap().failure(), None);
    assert_eq!(fsck(&world.evidence, &world.ledger, Some(&against)).unwrap().damage.len(), 2);
}

#[test]
fn nothing_is_promoted_when_the_decision_does_not_come_into_the_ledger() {
    let (world, _) = World::good();
    world.ledger.breaks(true);
    assert!(matches!(world.promote(&pass()), Err(Error::Ledger(LedgerError::Io { .. }))));
    assert_eq!((world.places.occupant(TARGET), world.places.blobs(TARGET)), (None, Vec::new()));
    world.ledger.breaks(false);
    assert!(world.promote(&pass()).is_ok());
    assert_eq!(world.ledger.all().len(), world.evidence.records().len());
}
