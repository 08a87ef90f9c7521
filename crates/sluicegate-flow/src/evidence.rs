//! Recording: a row in the evidence store and a leaf in the ledger for each record (trust model 16).

mod anchors;
mod content;
mod fsck;
mod standing;

use serde_json::json;
use sluicegate_attestation::summary::LedgerHead;
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, NewRecord, Record, RecordKind},
    ledger::{Ledger, LedgerError},
};
use sluicegate_types::{
    Digest, UnixTime,
    checks::{Check, is_on},
};

pub(crate) use self::{anchors::fits_what_is_there, content::named as named_by_records, standing::Adoptions};
pub use self::{
    anchors::{Against, Anchor},
    fsck::{FsckReport, fsck},
    standing::{Standing, list, show},
};
use crate::{Error, Ports};

/// Records whose digests are held in memory at once.
const PAGE: u32 = 4096;

/// Appends a record: the row commits first, then its leaf, in a turn that no other process has meanwhile. Rows that were committed
/// and not logged before are taken along in the open (see [`head`]). An error after the row leaves it pending: the next record or
/// question takes it along. Nothing is recorded behind a ledger or a record that is damaged, and what is given is in the ledger.
pub fn record(ports: &Ports<'_>, new: &NewRecord) -> Result<Record, Error> {
    let _turn = ports.evidence.turn()?;
    let before = caught_up(ports)?;
    let record = ports.evidence.append(new)?;
    // Whoever writes without a turn came in between.
    let last = match before.size + 1 {
        own if own < record.sequence => adopt(ports, (own, record.sequence - 1), record.sequence)?,
        _ => record.sequence,
    };
    log_up_to(ports.evidence, ports.ledger, last)?;
    match leaf_of(ports.ledger, record.sequence)? {
        Some(leaf) if leaf == record.digest => Ok(record),
        Some(_) => Err(damaged(record.sequence, other_than_its_leaf(record.sequence))),
        None => Err(damaged(record.sequence, "it was recorded and is not in the ledger".to_owned())),
    }
}

/// The ledger's head after every committed row is in it. Rows that this process did not write just now are taken along with a record
/// that says so and a warning: an interrupted command leaves one, and so does whoever can write the database and has no key.
pub fn head(ports: &Ports<'_>) -> Result<LedgerHead, Error> {
    let _turn = ports.evidence.turn()?;
    caught_up(ports)
}

/// Takes the records along that a store has before its ledger begins, and says so in one more; gives which these are. `None`, and
/// nothing is recorded, if there are none.
pub fn begin(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, at: UnixTime) -> Result<Option<(u64, u64)>, Error> {
    let _turn = evidence.turn()?;
    match newest_pending(evidence, &ledger.head()?)? {
        None => Ok(None),
        Some((from, to)) => {
            let last = adopt_all(evidence, at, (from, to), to, &|_, _, _| {})?;
            log_up_to(evidence, ledger, last)?;
            Ok(Some((from, to)))
        }
    }
}

/// In the turn of whoever asks.
fn caught_up(ports: &Ports<'_>) -> Result<LedgerHead, Error> {
    let head = ports.ledger.head()?;
    stands_on_its_record(ports.evidence, ports.ledger, &head)?;
    match newest_pending(ports.evidence, &head)? {
        None => Ok(head),
        Some((from, to)) => {
            let last = adopt(ports, (from, to), to)?;
            log_up_to(ports.evidence, ports.ledger, last)
        }
    }
}

/// The first and the last row that the ledger does not have.
fn newest_pending(evidence: &dyn EvidenceLog, head: &LedgerHead) -> Result<Option<(u64, u64)>, Error> {
    let last = evidence.list(1)?.first().map_or(0, |newest| newest.sequence);
    Ok((last > head.size).then_some((head.size + 1, last)))
}

/// Records and says that `rows` are taken along, before they are; gives the number of the last record that says so. `last` is the newest
/// record that is known.
fn adopt(ports: &Ports<'_>, rows: (u64, u64), last: u64) -> Result<u64, Error> {
    adopt_all(ports.evidence, ports.clock.now(), rows, last, &|from, to, by| {
        let rows = if from == to { format!("record {from}") } else { format!("records {from} to {to}") };
        (ports.warn)(&format!(
            "taken along into the ledger: evidence {rows}, which another process wrote and did not log; an interrupted command \
             leaves one behind, more need a reason (recorded as evidence {by})"
        ));
    })
}

/// A row that comes in while this is being recorded is one more that another process wrote: each stands in one of the records that say so,
/// or nothing is logged.
fn adopt_all(
    evidence: &dyn EvidenceLog,
    at: UnixTime,
    rows: (u64, u64),
    last: u64,
    say: &dyn Fn(u64, u64, u64),
) -> Result<u64, Error> {
    let ((mut from, mut to), mut last) = (rows, last);
    for _ in 0..ADOPTIONS {
        let said = evidence.append(&adoption(from, to, at))?.sequence;
        say(from, to, said);
        (from, to, last) = (last + 1, said.saturating_sub(1), said);
        if from > to {
            return Ok(last);
        }
    }
    Err(Error::Again("another process writes into the evidence store all the time, and logs nothing".to_owned()))
}

/// How often rows that came in meanwhile are taken along in one turn.
const ADOPTIONS: usize = 16;

fn adoption(from: u64, to: u64, at: UnixTime) -> NewRecord {
    NewRecord {
        kind: RecordKind::Ledger,
        at,
        subject: None,
        environment: None,
        outcome: ADOPTED.to_owned(),
        body: json!({"from": from, "to": to}),
    }
}

/// Logs the rows that are not logged, record `last` the last one. Rows behind it stay pending: they are nobody's in this turn.
fn log_up_to(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, last: u64) -> Result<LedgerHead, Error> {
    loop {
        let head = ledger.head()?;
        stands_on_its_record(evidence, ledger, &head)?;
        let limit = u32::try_from(last.saturating_sub(head.size)).unwrap_or(u32::MAX).min(PAGE);
        let pending = if limit == 0 { Vec::new() } else { evidence.digests_after(head.size, limit)? };
        if pending.is_empty() {
            return Ok(head);
        }
        match ledger.append(head.size, &pending) {
            // Somebody else took these rows along; what is left is looked at anew.
            Ok(_) | Err(LedgerError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The leaf that stands for a record, if the ledger has it.
fn leaf_of(ledger: &dyn Ledger, sequence: u64) -> Result<Option<Digest>, Error> {
    let Some(place) = sequence.checked_sub(1) else { return Ok(None) };
    Ok(ledger.leaves(place, 1)?.first().copied())
}

const ADOPTED: &str = "adopted";

fn damaged(sequence: u64, reason: String) -> Error {
    EvidenceError::Damaged { sequence, reason }.into()
}

fn gone(head: &LedgerHead) -> String {
    format!("it is missing: the ledger has {} leaves, one for each record", head.size)
}

/// The newest leaf and its record must be one: otherwise what follows would be logged behind a store that was cut back or exchanged.
fn stands_on_its_record(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, head: &LedgerHead) -> Result<(), Error> {
    let Some(last) = head.size.checked_sub(1).filter(|_| is_on(Check::NewestRecord)) else { return Ok(()) };
    let leaf = ledger.leaves(last, 1)?.first().copied();
    match evidence.digests_after(last, 1)?.first() {
        Some(digest) if Some(*digest) == leaf => Ok(()),
        Some(_) => Err(damaged(head.size, other_than_its_leaf(head.size))),
        None => Err(damaged(head.size, gone(head))),
    }
}

fn other_than_its_leaf(sequence: u64) -> String {
    format!("it is not the record that the ledger's leaf {} stands for", sequence - 1)
}
