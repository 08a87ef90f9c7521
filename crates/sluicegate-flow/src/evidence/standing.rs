//! How records stand to the ledger: logged by whoever wrote them, taken along by another process, not logged yet, or others than it has.

use sluicegate_attestation::summary::LedgerHead;
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, Record, RecordKind},
    ledger::Ledger,
};

use super::{ADOPTED, damaged, gone, other_than_its_leaf};
use crate::Error;

/// How a record that was read stands to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its leaf is its digest, logged by whoever wrote the record.
    Logged,
    /// Its leaf is its digest, and another process took it along: by the record that says so. Whoever writes the database can lay such
    /// a record there without a key.
    Adopted {
        /// The number of that record.
        by: u64,
    },
    /// It is not in the ledger yet.
    Pending,
    /// The ledger has another record in its place.
    Differs,
}

/// How each record stands to the ledger, as far as these records say it: those that were taken along are followed by the one that says
/// so. `head` was asked for before the records were read, so that what is added meanwhile is more,
/// never less.
fn standings(ledger: &dyn Ledger, head: &LedgerHead, records: &[Record]) -> Result<Vec<Standing>, Error> {
    let sequences = || records.iter().map(|record| record.sequence);
    let (Some(first), Some(last)) = (sequences().min(), sequences().max()) else { return Ok(Vec::new()) };
    let leaves = match last.min(head.size).checked_sub(first.max(1) - 1) {
        None | Some(0) => Vec::new(),
        Some(count) => ledger.leaves(first.max(1) - 1, count)?,
    };
    let adoptions = Adoptions::among(records.iter(), head.size);
    let adopted =
        |record: &Record| adoptions.of(record.sequence).map_or(Standing::Logged, |by| Standing::Adopted { by });
    let standing = |record: &Record| {
        let place = record.sequence.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| leaves.get(place)) {
            Some(leaf) if *leaf == record.digest => adopted(record),
            None if record.sequence > head.size => Standing::Pending,
            _ => Standing::Differs,
        }
    };
    Ok(records.iter().map(standing).collect())
}

/// Which records were taken along. A record that says so and was itself taken along says nothing: whoever forges one can't make others
/// look forged.
pub(crate) struct Adoptions {
    /// The first and the last record of each, and the one that says so.
    said: Vec<(u64, u64, u64)>,
    /// Records that the ledger has.
    size: u64,
}

impl Adoptions {
    /// As those of these records say it that the ledger has.
    fn among<'a>(records: impl Iterator<Item = &'a Record>, size: u64) -> Self {
        let mut said: Vec<_> = records.filter(|record| record.sequence <= size).filter_map(adopted).collect();
        said.sort_by_key(|(_, _, by)| std::cmp::Reverse(*by));
        let mut believed = Self { said: Vec::new(), size };
        for (from, to, by) in said {
            if from <= to && to < by && believed.of(by).is_none() {
                believed.said.push((from, to, by));
            }
        }
        believed
    }

    /// As all records say it.
    pub(crate) fn of_all(evidence: &dyn EvidenceLog, ledger: &dyn Ledger) -> Result<Self, Error> {
        let size = ledger.head()?.size;
        let mut said = Vec::new();
        evidence.walk(&mut |record| said.extend(adopted(record).is_some().then(|| record.clone())))?;
        Ok(Self::among(said.iter(), size))
    }

    /// Whether whoever wrote this record logged it.
    pub(crate) fn vouch_for(&self, sequence: u64) -> bool {
        sequence <= self.size && self.of(sequence).is_none()
    }

    /// The record that says that this one was taken along.
    fn of(&self, sequence: u64) -> Option<u64> {
        self.said.iter().find(|(from, to, _)| (*from..=*to).contains(&sequence)).map(|(_, _, by)| *by)
    }
}

/// The first and the last record that this one says were taken along, and its own number.
fn adopted(record: &Record) -> Option<(u64, u64, u64)> {
    let is_adoption = record.kind == RecordKind::Ledger && record.outcome == ADOPTED;
    let number = |name: &str| record.body[name].as_u64();
    is_adoption.then(|| number("from").zip(number("to")).map(|(from, to)| (from, to, record.sequence))).flatten()
}

/// A record, and whether the ledger has it. One that the ledger has otherwise, or that it has and the store does not, is damaged.
pub fn show(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, sequence: u64) -> Result<(Record, Standing), Error> {
    let head = ledger.head()?;
    let record = match evidence.show(sequence) {
        Err(EvidenceError::NoRecord { .. }) if (1..=head.size).contains(&sequence) => {
            return Err(damaged(sequence, gone(&head)));
        }
        other => other?,
    };
    match standings(ledger, &head, std::slice::from_ref(&record))?.first() {
        Some(Standing::Differs) | None => Err(damaged(sequence, other_than_its_leaf(sequence))),
        Some(Standing::Logged) => {
            let by = Adoptions::of_all(evidence, ledger)?.of(sequence);
            Ok((record, by.map_or(Standing::Logged, |by| Standing::Adopted { by })))
        }
        Some(standing) => Ok((record, *standing)),
    }
}

/// The newest records, newest first, each with how it stands to the ledger. An error if the ledger has records that the store lacks.
pub fn list(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, limit: u32) -> Result<Vec<(Record, Standing)>, Error> {
    let head = ledger.head()?;
    let records = evidence.list(limit.max(1))?;
    let newest = records.first().map_or(0, |record| record.sequence);
    if newest < head.size {
        return Err(damaged(newest + 1, gone(&head)));
    }
    let standings = standings(ledger, &head, &records)?;
    Ok(records.into_iter().zip(standings).take(limit as usize).collect())
}
