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
}
