use std::sync::Mutex;

use sluicegate_ports::evidence::{EvidenceError, EvidenceLog, NewRecord, Record};
use sluicegate_types::Digest;

/// Records in memory. Their digests chain, over a form of this crate's own.
#[derive(Default)]
pub struct MemoryEvidence(Mutex<Vec<Record>>);

impl MemoryEvidence {
    /// No record yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the records behind the back of whoever wrote them.
    pub fn tamper(&self, change: impl FnOnce(&mut Vec<Record>)) {
        change(&mut self.0.lock().unwrap());
    }

    /// Every record, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().clone()
    }
}

impl EvidenceLog for MemoryEvidence {
    fn append(&self, record: &NewRecord) -> Result<Record, EvidenceError> {
        let mut records = self.0.lock().unwrap();
        let previous = records.last().map(|last| last.digest);
        let NewRecord { kind, at, subject, environment, outcome, body } = record.clone();
        let digest = Digest::of(format!("{previous:?} {record:?}").as_bytes());
        let sequence = records.len() as u64 + 1;
        records.push(Record { sequence, digest, previous, kind, at, subject, environment, outcome, body });
        Ok(records[records.len() - 1].clone())
    }

    fn list(&self, limit: u32) -> Result<Vec<Record>, EvidenceError> {
        Ok(self.records().into_iter().rev().take(limit as usize).collect())
    }

    fn show(&self, sequence: u64) -> Result<Record, EvidenceError> {
        let found = self.records().into_iter().find(|record| record.sequence == sequence);
        found.ok_or(EvidenceError::NoRecord { sequence })
    }

    fn digests_after(&self, sequence: u64, limit: u32) -> Result<Vec<Digest>, EvidenceError> {
        let later = self.records().into_iter().filter(|record| record.sequence > sequence);
        Ok(later.take(limit as usize).map(|record| record.digest).collect())
    }

    fn check(&self) -> Result<u64, EvidenceError> {
        let records = self.records();
        for (place, record) in records.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| records[before].digest);
            if record.sequence != place as u64 + 1 || record.previous != before {
                return Err(EvidenceError::Damaged {
                    sequence: place as u64 + 1,
                    reason: "it does not follow the one before it".to_owned(),
                });
            }
        }
        Ok(records.len() as u64)
    }
}
