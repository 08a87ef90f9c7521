//! Appending, reading back and walking the records.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as WordError};
use sluicegate_ports::evidence::{BODY_LIMIT, EvidenceError, EvidenceLog, NewRecord, Record, RecordKind};
use sluicegate_types::{Digest, UnixTime};

use crate::{
    record::{Chained, canonical_body, parse_body},
    schema,
};

/// How long another process may hold the file before an append gives up.
const BUSY: Duration = Duration::from_secs(30);
/// How long until a turn that was not free is asked for again.
const AGAIN: Duration = Duration::from_millis(5);
const COLUMNS: &str = "sequence, digest, previous, kind, at, subject, environment, outcome, body";

/// Evidence in one SQLite file (mode 0600, write-ahead log, every append synced), shared by threads and processes.
///
/// Each record holds the digest of the one before. That shows an edit, a gap or an exchange; that the newest records were cut off or
/// the whole file was replaced by an older copy shows only beside the ledger (`sluicegate_ports::ledger`).
#[derive(Debug)]
pub struct SqliteEvidence {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteEvidence {
    /// Opens the store, or makes an empty one if there is no file or an empty one. A file of a newer version or of another program is
    /// refused.
    pub fn open(path: &Path) -> Result<Self, EvidenceError> {
        let failed = |reason: String| EvidenceError::Io { action: "open", path: path.display().to_string(), reason };
        let corrupt = |reason: String| EvidenceError::Corrupt { path: path.display().to_string(), reason };
        let sqlite = |error: rusqlite::Error| {
            if is_damage(&error) { corrupt(error.to_string()) } else { failed(error.to_string()) }
        };
        // SQLite gives its -wal and -shm files the mode of this one.
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(error.to_string()))?;
        let configured = || {
            let connection =
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "trusted_schema", false)?;
            Ok(connection)
        };
        let mut connection = configured().map_err(sqlite)?;
        let is_locked = |unfit: &schema::Unfit| matches!(unfit, schema::Unfit::Sqlite(error) if is_busy(error));
        patiently(is_locked, || schema::prepare(&mut connection)).map_err(|unfit| match unfit {
            schema::Unfit::Foreign => corrupt("it is a database of something else".into()),
            schema::Unfit::Newer(reason) => failed(reason),
            schema::Unfit::Sqlite(error) => sqlite(error),
        })?;
        // Only now is it known to be ours: changing the journal mode writes to the file.
        let to_wal = || connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        let mode: String = patiently(is_busy, to_wal).map_err(sqlite)?;
        if mode != "wal" {
            return Err(failed(format!("this file system gives it no write-ahead log (journal mode {mode})")));
        }
        // The file's own name must be as durable as what is in it.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(error.to_string()))?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// All records in order: numbers without a gap from 1, each digest recomputed, each `previous` the digest of the record before.
    fn walked(
        &self,
        action: &'static str,
        connection: &Connection,
        show: &mut dyn FnMut(&Record),
    ) -> Result<u64, EvidenceError> {
        let failed = |error| self.failed(action, &error);
        let mut statement =
            connection.prepare(&format!("SELECT {COLUMNS} FROM records ORDER BY sequence")).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let (mut count, mut last) = (0, None);
        while let Some(row) = rows.next().map_err(failed)? {
            let record = read(row)?;
            let expected = count + 1;
            if record.sequence != expected {
                return Err(missing(expected));
            }
            follows(&record, last)?;
            show(&record);
            (count, last) = (expected, Some(record.digest));
        }
        Ok(count)
    }

    fn unchanged(&self, action: &'static str, connection: &Connection) -> Result<(), EvidenceError> {
        schema::unchanged(connection).map_err(|unlike| match unlike {
            schema::Unlike::Changed(reason) => self.corrupt(reason),
            schema::Unlike::Sqlite(error) => self.failed(action, &error),
        })
    }

    fn corrupt(&self, reason: impl Into<String>) -> EvidenceError {
        EvidenceError::Corrupt { path: self.path.display().to_string(), reason: reason.into() }
    }

    fn connection(&self, action: &'static str) -> Result<MutexGuard<'_, Connection>, EvidenceError> {
        self.connection.lock().map_err(|_| self.io(action, "an earlier call of this process broke off; start it again"))
    }

    fn io(&self, action: &'static str, reason: impl Into<String>) -> EvidenceError {
        EvidenceError::Io { action, path: self.path.display().to_string(), reason: reason.into() }
    }

    fn failed(&self, action: &'static str, error: &rusqlite::Error) -> EvidenceError {
        if is_damage(error) { self.corrupt(error.to_string()) } else { self.io(action, error.to_string()) }
    }
}

impl EvidenceLog for SqliteEvidence {
    fn turn(&self) -> Result<Box<dyn Send>, EvidenceError> {
        const ACTION: &str = "wait for a turn to append to";
        // A file of its own: closing the database's would let go of SQLite's locks on it.
        let lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path.with_extension("lock"))
            .map_err(|error| self.io(ACTION, error.to_string()))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Box::new(lock)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < BUSY => thread::sleep(AGAIN),
                Err(TryLockError::WouldBlock) => {
                    return Err(self.io(ACTION, format!("another process has held it for {} seconds", BUSY.as_secs())));
                }
                Err(TryLockError::Error(error)) => return Err(self.io(ACTION, error.to_string())),
            }
        }
    }

    fn append(&self, record: &NewRecord) -> Result<Record, EvidenceError> {
        const ACTION: &str = "append to";
        let (text, body) = canonical_body(record).map_err(|reason| self.io(ACTION, reason))?;
        let failed = |error| self.failed(ACTION, &error);
        let mut connection = self.connection(ACTION)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // A trigger of somebody else's could swallow the row, or write another.
        self.unchanged(ACTION, &transaction)?;
        // The new record vouches for the last one, so that one must be whole.
        let last = newest(&transaction, 1).map_err(failed)?.pop().transpose()?;
        let (sequence, previous) = match &last {
            Some(last) => (last.sequence + 1, Some(last.digest)),
            None => (1, None),
        };
        let mut made = Record {
            sequence,
            digest: Digest::of(&[]),
            previous,
            kind: record.kind,
            at: record.at,
            subject: record.subject,
            environment: record.environment.clone(),
            outcome: record.outcome.clone(),
            body,
        };
        made.digest = Chained::of(&made).digest().map_err(|reason| self.io(ACTION, reason))?;
        let kind = kind_word(made.kind).map_err(|reason| self.io(ACTION, reason))?;
        let number = i64::try_from(sequence).map_err(|error| self.io(ACTION, error.to_string()))?;
        let changed = transaction
            .execute(
                &format!("INSERT INTO records ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
                params![
                    number,
                    made.digest.to_string(),
                    made.previous.map(|digest| digest.to_string()),
                    kind,
                    made.at.seconds(),
                    made.subject.map(|digest| digest.to_string()),
                    made.environment.as_ref().map(|name| name.as_str()),
                    made.outcome,
                    text,
                ],
            )
            .map_err(failed)?;
        let unwritten = || EvidenceError::Damaged { sequence, reason: "it was not kept as it was written".into() };
        if changed != 1 {
            return Err(unwritten());
        }
        let there = newest(&transaction, 1).map_err(failed)?.pop().transpose()?;
        if there.is_none_or(|there| there.sequence != sequence || there.digest != made.digest) {
            return Err(unwritten());
        }
        transaction.commit().map_err(failed)?;
        Ok(made)
    }

    fn list(&self, limit: u32) -> Result<Vec<Record>, EvidenceError> {
        let connection = self.connection("read")?;
        let records: Vec<Record> = newest(&connection, limit)
            .map_err(|error| self.failed("read", &error))?
            .into_iter()
            .collect::<Result<_, _>>()?;
        for pair in records.windows(2) {
            if pair[0].sequence != pair[1].sequence + 1 {
                return Err(missing(pair[1].sequence + 1));
            }
            follows(&pair[0], Some(pair[1].digest))?;
        }
        if let Some(oldest) = records.last().filter(|_| records.len() < limit as usize) {
            // The list reaches the beginning.
            if oldest.sequence != 1 {
                return Err(missing(oldest.sequence - 1));
            }
            follows(oldest, None)?;
        }
        Ok(records)
    }

    fn show(&self, sequence: u64) -> Result<Record, EvidenceError> {
        let connection = self.connection("read")?;
        let failed = |error| self.failed("read", &error);
        let Some(number) = i64::try_from(sequence).ok().filter(|number| *number > 0) else {
            return Err(EvidenceError::NoRecord { sequence });
        };
        let found = connection
            .query_row(&format!("SELECT {COLUMNS} FROM records WHERE sequence = ?1"), [number], |row| Ok(read(row)))
            .optional()
            .map_err(failed)?;
        let Some(record) = found.transpose()? else {
            let last: Option<i64> =
                connection.query_row("SELECT max(sequence) FROM records", [], |row| row.get(0)).map_err(failed)?;
            return Err(if last.is_some_and(|last| last > number) {
                missing(sequence)
            } else {
                EvidenceError::NoRecord { sequence }
            });
        };
        let before: Option<String> = connection
            .query_row("SELECT digest FROM records WHERE sequence = ?1 - 1", [number], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        match (before, sequence) {
            (None, 1) => follows(&record, None)?,
            (None, _) => return Err(missing(sequence - 1)),
            (Some(digest), _) => follows(&record, Some(digest.parse().map_err(|_| other_neighbour(sequence))?))?,
        }
        Ok(record)
    }

    fn digests_after(&self, sequence: u64, limit: u32) -> Result<Vec<Digest>, EvidenceError> {
        let connection = self.connection("read")?;
        let failed = |error| self.failed("read", &error);
        // The one before comes along, for the first to be compared with.
        let from = sequence.max(1);
        let Ok(first) = i64::try_from(from) else { return Ok(Vec::new()) };
        let mut statement = connection
            .prepare(&format!("SELECT {COLUMNS} FROM records WHERE sequence >= ?1 ORDER BY sequence"))
            .map_err(failed)?;
        let mut rows = statement.query([first]).map_err(failed)?;
        let (mut found, mut last, mut expected) = (Vec::new(), None, from);
        while found.len() < limit as usize {
            let Some(row) = rows.next().map_err(failed)? else { break };
            let record = read(row)?;
            if record.sequence != expected {
                return Err(missing(expected));
            }
            if last.is_some() || expected == 1 {
                follows(&record, last)?;
            }
            last = Some(record.digest);
            if expected > sequence {
                found.push(record.digest);
            }
            expected += 1;
        }
        Ok(found)
    }

    fn walk(&self, show: &mut dyn FnMut(&Record)) -> Result<u64, EvidenceError> {
        let connection = self.connection("read")?;
        self.unchanged("read", &connection)?;
        self.walked("read", &connection, show)
    }

    fn check(&self) -> Result<u64, EvidenceError> {
        let connection = self.connection("check")?;
        let failed = |error| self.failed("check", &error);
        let unchanged = self.unchanged("check", &connection);
        let count = match self.walked("check", &connection, &mut |_| {}) {
            // A schema that was changed breaks the walk off in SQLite's words, which say less.
            Err(EvidenceError::Io { .. } | EvidenceError::Corrupt { .. }) if let Err(changed) = unchanged => {
                return Err(changed);
            }
            walked => walked?,
        };
        // What no record shows: pages and cells that SQLite itself would stumble over later.
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(self.corrupt(verdict));
        }
        unchanged?;
        Ok(count)
    }
}

/// Tries again while another process holds the file: SQLite itself does not wait where two open a new file and both change its
/// journal mode.
fn patiently<T, E>(is_busy: impl Fn(&E) -> bool, mut act: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match act() {
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY => thread::sleep(AGAIN),
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether SQLite says that the file's bytes are not what it wrote, and not that it could not get at them. Our questions never change,
/// so that one which SQLite does not understand (its code 1) is put to another schema than ours.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
}

/// The newest `limit` rows, newest first, each read and checked on its own.
fn newest(connection: &Connection, limit: u32) -> Result<Vec<Result<Record, EvidenceError>>, rusqlite::Error> {
    connection
        .prepare(&format!("SELECT {COLUMNS} FROM records ORDER BY sequence DESC LIMIT ?1"))?
        .query_map([limit], |row| Ok(read(row)))?
        .collect()
}

/// A row as a record whose digest was recomputed.
fn read(row: &Row<'_>) -> Result<Record, EvidenceError> {
    let sequence = row.get::<_, i64>(0).ok().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let damaged = |reason: String| EvidenceError::Damaged { sequence, reason };
    let column = |name: &str| damaged(format!("its {name} has another type"));
    let text =
        |place: usize, name: &str, limit: usize| match row.get_ref(place).ok().map(|value| value.as_str_or_null()) {
            Some(Ok(Some(text))) if text.len() > limit => {
                Err(damaged(format!("its {name} is larger than {limit} bytes")))
            }
            Some(Ok(text)) => Ok(text),
            _ => Err(column(name)),
        };
    let some = |place, name, limit| text(place, name, limit)?.ok_or_else(|| column(name));
    let digest =
        |text: &str, name: &str| text.parse::<Digest>().map_err(|error| damaged(format!("its {name}: {error}")));
    let record = Record {
        sequence,
        digest: digest(some(1, "digest", 128)?, "digest")?,
        previous: text(2, "previous", 128)?.map(|text| digest(text, "previous")).transpose()?,
        kind: word(some(3, "kind", 64)?).map_err(|error| damaged(format!("its kind: {error}")))?,
        at: row
            .get::<_, i64>(4)
            .ok()
            .and_then(|seconds| UnixTime::from_seconds(seconds).ok())
            .ok_or_else(|| damaged("its time is not one".into()))?,
        subject: text(5, "subject", 128)?.map(|text| digest(text, "subject")).transpose()?,
        environment: text(6, "environment", 64)?
            .map(|text| text.parse().map_err(|error| damaged(format!("its environment: {error}"))))
            .transpose()?,
        outcome: some(7, "outcome", 64)?.to_owned(),
        body: parse_body(some(8, "body", BODY_LIMIT)?).map_err(damaged)?,
    };
    let found = Chained::of(&record).digest().map_err(damaged)?;
    if found != record.digest {
        return Err(damaged(format!("it has the digest {found}, but was recorded with {}", record.digest)));
    }
    Ok(record)
}

fn follows(record: &Record, before: Option<Digest>) -> Result<(), EvidenceError> {
    if record.previous == before { Ok(()) } else { Err(other_neighbour(record.sequence)) }
}

fn other_neighbour(sequence: u64) -> EvidenceError {
    EvidenceError::Damaged {
        sequence,
        reason: "it was recorded after another record than the one before it now".into(),
    }
}

fn missing(sequence: u64) -> EvidenceError {
    EvidenceError::Damaged { sequence, reason: "it is missing, though later ones are there".into() }
}

fn kind_word(kind: RecordKind) -> Result<String, String> {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(format!("the kind is not a word: {other:?}")),
    }
}

fn word<T: DeserializeOwned>(text: &str) -> Result<T, WordError> {
    T::deserialize(text.into_deserializer())
}

#[cfg(test)]
mod tests;
