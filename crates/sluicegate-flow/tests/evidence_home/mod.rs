//! A home's evidence on disk: the real store and the real ledger, and what somebody does to them who owns the files.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use sluicegate_attestation::summary::LedgerHead;
use sluicegate_evidence::SqliteEvidence;
use sluicegate_flow::{
    Failure, Ports,
    evidence::{FsckReport, fsck, record},
};
use sluicegate_ports::{
    evidence::{EvidenceLog, NewRecord, RecordKind},
    ledger::Ledger,
};
use sluicegate_sigstore::{EmbeddedLedger, KeyFolder, LogPublic};
use sluicegate_testkit::{FakePacker, MemoryStore, reseal_cheaply, today};
use sluicegate_types::{Digest, Secret};

use crate::gate_world::{LEDGER, World};

pub(crate) fn new(number: u64) -> NewRecord {
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
pub(crate) struct Home {
    folder: PathBuf,
    _kept: Option<tempfile::TempDir>,
}

impl Home {
    /// With `count` records.
    pub(crate) fn of(count: u64) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let home = Self { folder: kept.path().to_owned(), _kept: Some(kept) };
        let keys = KeyFolder::open(home.path("keys"));
        let passphrase = Secret::new(b"x".to_vec());
        keys.generate_log_key("ledger", &passphrase).unwrap();
        reseal_cheaply(&home.path("keys"), b"x");
        let key = keys.open_log_key("ledger", &passphrase).unwrap();
        drop(EmbeddedLedger::create(home.path("ledger"), key, LEDGER).unwrap());
        home.with(|ports| (0..count).for_each(|number| drop(record(ports, &new(number)).unwrap())));
        home
    }

    /// One that another process made.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder, _kept: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn store(&self) -> SqliteEvidence {
        SqliteEvidence::open(&self.path("evidence.db")).unwrap()
    }

    pub(crate) fn ledger(&self) -> EmbeddedLedger {
        let key = KeyFolder::open(self.path("keys")).open_log_key("ledger", &Secret::new(b"x".to_vec())).unwrap();
        EmbeddedLedger::open(self.path("ledger"), key, LEDGER).unwrap()
    }

    /// As somebody without the passphrase sees it.
    pub(crate) fn reader(&self) -> EmbeddedLedger {
        let public_key = KeyFolder::open(self.path("keys")).log_public_key("ledger").unwrap();
        EmbeddedLedger::reader(self.path("ledger"), LogPublic { origin: LEDGER.to_owned(), public_key })
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&Ports<'_>) -> T) -> T {
        with_ports(&self.store(), &self.ledger(), act)
    }

    pub(crate) fn fsck(&self) -> FsckReport {
        fsck(&self.store(), &self.reader(), &MemoryStore::new(), None).unwrap()
    }

    pub(crate) fn head(&self) -> LedgerHead {
        self.reader().check().unwrap()
    }

    /// Nothing damaged, by the way in which a user would see it.
    pub(crate) fn assert_whole(&self, records: u64) {
        let report = self.fsck();
        assert_eq!((report.failure(), report.damage.as_slice(), report.records), (None, &[][..], Some(records)));
    }

    /// What is damaged; at least something must be.
    pub(crate) fn damage(&self) -> String {
        let report = self.fsck();
        assert_eq!(report.failure(), Some(Failure::Wrong), "{report:?}");
        report.damage.join("\n")
    }

    /// What somebody does who owns the file: takes the guards away, edits, and puts them back.
    pub(crate) fn tamper(&self, sql: &str) {
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
    pub(crate) fn backup(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&self.path("ledger"), &copy.path().join("ledger"));
        fs::copy(self.path("evidence.db"), copy.path().join("evidence.db")).unwrap();
        copy
    }

    pub(crate) fn restore(&self, copy: &tempfile::TempDir, database: bool, ledger: bool) {
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

pub(crate) fn with_ports<T>(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, act: impl FnOnce(&Ports<'_>) -> T) -> T {
    warned(evidence, ledger, act).0
}

/// The same, and what was warned of.
pub(crate) fn warned<T>(
    evidence: &dyn EvidenceLog,
    ledger: &dyn Ledger,
    act: impl FnOnce(&Ports<'_>) -> T,
) -> (T, Vec<String>) {
    let (world, _) = World::good();
    let tell = |_: &str| {};
    let warnings = RefCell::new(Vec::new());
    let warn = |line: &str| warnings.borrow_mut().push(line.to_owned());
    let done = act(&Ports {
        clock: &world.clock,
        store: &world.store,
        places: &world.places,
        packer: &FakePacker::new(&world.store),
        log: &world.log,
        evidence,
        ledger,
        tell: &tell,
        warn: &warn,
    });
    (done, warnings.take())
}
