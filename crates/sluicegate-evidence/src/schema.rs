//! The table, and the triggers that keep it append-only.

use rusqlite::{Connection, TransactionBehavior};

/// Written in the file's header, so that another program's database is not taken for ours: `SLUI`.
const APPLICATION: i32 = 0x534c_5549;
const VERSION: i32 = 1;

/// The one table, which everything belongs to.
const TABLE: &str = "records";

/// Type, name and text.
const OBJECTS: [(&str, &str, &str); 4] = [
    (
        "table",
        "records",
        "CREATE TABLE records (
  sequence INTEGER PRIMARY KEY NOT NULL CHECK (sequence > 0),
  digest TEXT NOT NULL,
  previous TEXT,
  kind TEXT NOT NULL,
  at INTEGER NOT NULL,
  subject TEXT,
  environment TEXT,
  outcome TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT",
    ),
    (
        "trigger",
        "records_are_never_changed",
        "CREATE TRIGGER records_are_never_changed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'evidence records are never changed'); END",
    ),
    (
        "trigger",
        "records_are_never_removed",
        "CREATE TRIGGER records_are_never_removed BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'evidence records are never removed'); END",
    ),
    // INSERT OR REPLACE removes without the trigger above; this one refuses every number but the next, and every other neighbour.
    (
        "trigger",
        "records_follow_each_other",
        "CREATE TRIGGER records_follow_each_other BEFORE INSERT ON records
WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM records)
  OR NEW.previous IS NOT (SELECT digest FROM records ORDER BY sequence DESC LIMIT 1)
BEGIN SELECT RAISE(ABORT, 'an evidence record follows the last one'); END",
    ),
];

/// Why a file is not a store of ours.
pub(crate) enum Unfit {
    /// Another program's, or one whose header was changed.
    Foreign,
    /// Of a newer version, in words.
    Newer(String),
    /// SQLite.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Makes the table in an empty file, or takes a file of this version. A newer version, or a file with anything else in it, is refused.
pub(crate) fn prepare(connection: &mut Connection) -> Result<(), Unfit> {
    if header(connection)? == (APPLICATION, VERSION) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match header(&transaction)? {
        (APPLICATION, VERSION) => return Ok(()),
        (0, 0) if objects(&transaction)?.is_empty() => {}
        (APPLICATION, newer) if newer > VERSION => {
            return Err(Unfit::Newer(format!(
                "its schema has version {newer}, this program knows {VERSION}; use the program that wrote it, or a newer one"
            )));
        }
        _ => return Err(Unfit::Foreign),
    }
    for (_, _, sql) in OBJECTS {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Whether the schema is what [`prepare`] makes and nothing else: each row of type, name, table and text, as often as there. A second
/// object under a known name, of another type, is as foreign as any. An error says which is not.
pub(crate) fn unchanged(connection: &Connection) -> Result<(), Unlike> {
    let mut found = objects(connection)?;
    for (kind, name, sql) in OBJECTS {
        let wanted = [kind, name, TABLE, sql];
        let Some(place) = found.iter().position(|object| object.iter().eq(wanted.iter())) else {
            return Err(Unlike::Changed(format!(
                "its {name} is missing or was changed, so records could be changed too"
            )));
        };
        found.swap_remove(place);
    }
    match found.first() {
        Some([kind, name, ..]) => {
            Err(Unlike::Changed(format!("it holds the {kind} {name:?}, which does not belong there")))
        }
        None => Ok(()),
    }
}

/// Why a schema was not found to be ours.
pub(crate) enum Unlike {
    /// In words.
    Changed(String),
    /// SQLite.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Unlike {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn header(connection: &Connection) -> Result<(i32, i32), rusqlite::Error> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    Ok((read("application_id")?, read("user_version")?))
}

/// Type, name, table and text of each. What SQLite makes by itself for a constraint has no text; this table has none of these.
fn objects(connection: &Connection) -> Result<Vec<[String; 4]>, rusqlite::Error> {
    connection
        .prepare("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema")?
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?
        .collect()
}
