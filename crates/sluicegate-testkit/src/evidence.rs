use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use sluicegate_ports::evidence::{BODY_LIMIT, EvidenceError, EvidenceLog, NewRecord, Record};
use sluicegate_types::Digest;

/// Records in memory. Their digests chain, over a form of this crate's own. Knobs do what somebody does who writes the database.
#[derive(Default)]
pub struct MemoryEvidence {
    records: Mutex<Vec<Record>>,
    meanwhile: Mutex<Option<NewRecord>>,
    swallows: AtomicBool,
}

impl MemoryEvidence {
    /// No record yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the records behind the back of whoever wrote them.
    pub fn tamper(&self, change: impl FnOnce(&mut Vec<Record>)) {
        change(&mut self.records.lock().unwrap());
    }

    /// Somebody else appends this just before the next append.
    pub fn append_meanwhile(&self, record: &NewRecord) {
        *self.meanwhile.lock().unwrap() = Some(record.clone());
    }

    /// From now on nothing is kept of what is appended, and every append is said to be good; or everything is well again.
    pub fn swallows(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::Relaxed);
    }

    /// Every record, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}

impl EvidenceLog for MemoryEvidence {
    fn turn(&self) -> Result<Box<dyn Send>, EvidenceError> {
        Ok(Box::new(()))
    }

    fn append(&self, record: &NewRecord) -> Result<Record, EvidenceError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            self.append(&meanwhile)?;
        }
        assert!(record.body.to_string().len() <= BODY_LIMIT, "the body is beyond what a store keeps");
        let mut records = self.records.lock().unwrap();
        let previous = records.last().map(|last| last.digest);
        let NewRecord { kind, at, subject, environment, outcome, body } = record.clone();
        let digest = Digest::of(format!("{previous:?} {record:?}").as_bytes());
        let sequence = records.len() as u64 + 1;
        let made = Record { sequence, digest, previous, kind, at, subject, environment, outcome, body };
        if !self.swallows.load(Ordering::Relaxed) {
            records.push(made.clone());
        }
        Ok(made)
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
        self.walk(&mut |_| {})
    }

    fn walk(&self, show: &mut dyn FnMut(&Record)) -> Result<u64, EvidenceError> {
        let records = self.records();
        for (place, record) in records.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| records[before].digest);
            if record.sequence != place as u64 + 1 || record.previous != before {
                return Err(EvidenceError::Damaged {
                    sequence: place as u64 + 1,
                    reason: "it does not follow the one before it".to_owned(),
                });
            }
            show(record);
        }
        Ok(records.len() as u64)
    }
}
