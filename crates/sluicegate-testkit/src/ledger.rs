use std::sync::{Mutex, MutexGuard};

use sluicegate_attestation::summary::LedgerHead;
use sluicegate_ports::ledger::{Ledger, LedgerError};
use sluicegate_types::Digest;

use crate::merkle;

/// A ledger in memory. Knobs break it, and change it behind the back of whoever wrote it.
pub struct MemoryLedger {
    origin: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leaves: Vec<Digest>,
    broken: bool,
    meanwhile: Vec<Digest>,
}

impl MemoryLedger {
    /// An empty ledger called `origin`.
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), state: Mutex::default() }
    }

    /// Every leaf.
    pub fn all(&self) -> Vec<Digest> {
        self.state().leaves.clone()
    }

    /// Changes the leaves behind the back of whoever wrote them.
    pub fn tamper(&self, change: impl FnOnce(&mut Vec<Digest>)) {
        change(&mut self.state().leaves);
    }

    /// From now on nothing is appended and every attempt is an error; or everything is well again.
    pub fn breaks(&self, broken: bool) {
        self.state().broken = broken;
    }

    /// Somebody else appends these just before the next append.
    pub fn grows_meanwhile(&self, leaves: &[Digest]) {
        self.state().meanwhile = leaves.to_vec();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn head_of(&self, leaves: &[Digest]) -> LedgerHead {
        LedgerHead { origin: self.origin.clone(), size: leaves.len() as u64, root: root(leaves) }
    }
}

impl Ledger for MemoryLedger {
    fn append(&self, from: u64, leaves: &[Digest]) -> Result<LedgerHead, LedgerError> {
        let mut state = self.state();
        if state.broken {
            return Err(LedgerError::Io { action: "append to the ledger".to_owned(), reason: "it broke".to_owned() });
        }
        let meanwhile = std::mem::take(&mut state.meanwhile);
        state.leaves.extend(meanwhile);
        if state.leaves.len() as u64 != from {
            return Err(LedgerError::Moved { size: state.leaves.len() as u64 });
        }
        state.leaves.extend(leaves);
        Ok(self.head_of(&state.leaves))
    }

    fn head(&self) -> Result<LedgerHead, LedgerError> {
        Ok(self.head_of(&self.state().leaves))
    }

    fn leaves(&self, from: u64, count: u64) -> Result<Vec<Digest>, LedgerError> {
        Ok(self.all().into_iter().skip(from as usize).take(count as usize).collect())
    }

    fn root_at(&self, size: u64) -> Result<Digest, LedgerError> {
        let leaves = self.all();
        match leaves.get(..size as usize) {
            Some(first) => Ok(root(first)),
            None => Err(LedgerError::Short { size: leaves.len() as u64, asked: size }),
        }
    }

    fn check(&self) -> Result<LedgerHead, LedgerError> {
        self.head()
    }
}

fn root(leaves: &[Digest]) -> Digest {
    merkle::root(&leaves.iter().map(|leaf| merkle::leaf(leaf.as_bytes())).collect::<Vec<_>>())
}
