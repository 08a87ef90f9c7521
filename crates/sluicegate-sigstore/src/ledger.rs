//! The embedded ledger: the digests of the evidence records in a tile log.

use std::path::PathBuf;

use sluicegate_attestation::summary::LedgerHead;
use sluicegate_ports::{
    ledger::{Ledger, LedgerError},
    sign::SignError,
};
use sluicegate_types::Digest;

use crate::{
    keys::LogKey,
    tile_log::{Held, TileLog},
    trust_root::LogPublic,
};

/// The ledger in a folder (`checkpoint`, `tile/…`, `lock`): an entry is the 32 bytes of a record's digest, and may be there twice.
#[derive(Debug)]
pub struct EmbeddedLedger {
    tiles: TileLog,
}

impl EmbeddedLedger {
    /// Begins a ledger: makes the folder and signs the checkpoint of the empty tree. [`LedgerError::Damaged`] if there is one already.
    pub fn create(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, LedgerError> {
        Ok(Self { tiles: TileLog::create(folder.into(), key, origin).map_err(of_ledger)? })
    }

    /// Opens a ledger, reads it whole and compares it with its last checkpoint. [`LedgerError::Damaged`] if there is no checkpoint (a
    /// key without its ledger would begin a second history under one name), if it is another key's, or if any tile is missing or changed.
    pub fn open(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, LedgerError> {
        Ok(Self { tiles: TileLog::open(folder.into(), key, origin).map_err(of_ledger)? })
    }

    /// A ledger to read, without its private key: it refuses to append. Nothing is read yet; the first question reads it whole.
    pub fn reader(folder: impl Into<PathBuf>, public: LogPublic) -> Self {
        Self { tiles: TileLog::reader(folder.into(), public) }
    }

    /// The public half.
    pub fn public(&self) -> &LogPublic {
        self.tiles.public()
    }

    fn head_of(&self, size: u64, root: [u8; 32]) -> LedgerHead {
        LedgerHead { origin: self.public().origin.clone(), size, root: Digest::from_bytes(root) }
    }

    fn read(&self) -> Result<Held<'_>, LedgerError> {
        self.tiles.read().map_err(of_ledger)
    }
}

impl Ledger for EmbeddedLedger {
    fn append(&self, from: u64, leaves: &[Digest]) -> Result<LedgerHead, LedgerError> {
        let mut held = self.tiles.write().map_err(of_ledger)?;
        if held.size() != from {
            return Err(LedgerError::Moved { size: held.size() });
        }
        if !leaves.is_empty() {
            let entries: Vec<&[u8]> = leaves.iter().map(|leaf| leaf.as_bytes().as_slice()).collect();
            held.append(&entries).map_err(of_ledger)?;
        }
        Ok(self.head_of(held.size(), held.root().0))
    }

    fn head(&self) -> Result<LedgerHead, LedgerError> {
        let held = self.read()?;
        Ok(self.head_of(held.size(), held.root().0))
    }

    fn leaves(&self, from: u64, count: u64) -> Result<Vec<Digest>, LedgerError> {
        let entries = self.read()?.entries(from, count).map_err(of_ledger)?;
        let leaf = |(place, entry): (u64, Vec<u8>)| {
            let bytes = entry.try_into().map_err(|_| {
                of_ledger(self.tiles.refused(format!("leaf {place} is not the 32 bytes of a record's digest")))
            })?;
            Ok(Digest::from_bytes(bytes))
        };
        (from..).zip(entries).map(leaf).collect()
    }

    fn root_at(&self, size: u64) -> Result<Digest, LedgerError> {
        let held = self.read()?;
        if size > held.size() {
            return Err(LedgerError::Short { size: held.size(), asked: size });
        }
        Ok(Digest::from_bytes(held.root_at(size).map_err(of_ledger)?.0))
    }

    fn check(&self) -> Result<LedgerHead, LedgerError> {
        let (size, root) = self.tiles.check().map_err(of_ledger)?;
        Ok(self.head_of(size, root.0))
    }
}

fn of_ledger(error: SignError) -> LedgerError {
    match error {
        SignError::Log { folder, reason } => LedgerError::Damaged { folder, reason },
        SignError::Io { action, reason } => LedgerError::Io { action, reason },
        other => LedgerError::Io { action: "use the ledger".into(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
