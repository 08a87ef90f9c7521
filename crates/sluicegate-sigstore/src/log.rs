//! The embedded transparency log: Rekor v2's entries in a tile log.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_attestation::bundle::{self, InclusionProof, KindVersion, LogEntry, LogId};
use sluicegate_ports::sign::{SignError, TransparencyLog};
use sluicegate_types::Digest;
use tlog_tiles::record_hash;

use crate::{
    keys::LogKey,
    tile_log::{Held, TileLog},
    tiles::{self, ENTRY_LIMIT},
    trust_root::LogPublic,
};

/// How every canonical `hashedrekord` 0.0.2 body begins: RFC 8785 sorts the members.
const BODY_START: &[u8] = br#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"#;

/// The transparency log in a folder (`checkpoint`, `tile/…`, `lock`): each entry a signature, none of them twice.
#[derive(Debug)]
pub struct EmbeddedLog {
    tiles: TileLog,
}

impl EmbeddedLog {
    /// Begins a log: makes the folder and signs the checkpoint of the empty tree. [`SignError::Log`] if there is one already.
    pub fn create(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, SignError> {
        Ok(Self { tiles: TileLog::create(folder.into(), key, origin)? })
    }

    /// Opens a log, reads it whole and compares it with its last checkpoint. [`SignError::Log`] if there is no checkpoint (a key
    /// without its log would begin a second history under one name), if it is another key's or another log's, or if any tile is
    /// missing or changed.
    pub fn open(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, SignError> {
        Ok(Self { tiles: TileLog::open(folder.into(), key, origin)? })
    }

    /// The public half, for trusted roots.
    pub fn public(&self) -> &LogPublic {
        self.tiles.public()
    }

    /// The entry at `index` with its proof against the log's checkpoint.
    fn entry(&self, held: &Held<'_>, index: u64, body: &[u8]) -> Result<LogEntry, SignError> {
        let proof = held.proof(index, body)?;
        // protojson leaves out a zero.
        let log_index = if index == 0 { String::new() } else { index.to_string() };
        Ok(LogEntry {
            log_index: log_index.clone(),
            log_id: LogId { key_id: STANDARD.encode(self.public().key_id()) },
            kind_version: KindVersion { kind: "hashedrekord".into(), version: "0.0.2".into() },
            integrated_time: None,
            inclusion_proof: InclusionProof {
                log_index,
                root_hash: STANDARD.encode(held.root().0),
                tree_size: held.size().to_string(),
                hashes: proof.iter().map(|hash| STANDARD.encode(hash.0)).collect(),
                checkpoint: bundle::Checkpoint { envelope: held.note().to_owned() },
            },
            canonicalized_body: STANDARD.encode(body),
        })
    }
}

impl TransparencyLog for EmbeddedLog {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        for body in bodies {
            if body.len() > ENTRY_LIMIT {
                return Err(self.tiles.refused(tiles::too_long(body.len())));
            }
            if !body.starts_with(BODY_START) {
                return Err(self.tiles.refused("what is to be appended is not a canonical hashedrekord 0.0.2 body"));
            }
        }
        if bodies.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = self.tiles.write()?;
        let mut fresh: HashMap<[u8; 32], u64> = HashMap::new();
        let mut new: Vec<&[u8]> = Vec::new();
        let mut places = Vec::new();
        for body in bodies {
            let leaf = record_hash(body);
            let next = held.size() + new.len() as u64;
            let place = held.find(&leaf).or_else(|| fresh.get(&leaf.0).copied()).unwrap_or_else(|| {
                fresh.insert(leaf.0, next);
                new.push(body);
                next
            });
            places.push(place);
        }
        if !new.is_empty() {
            held.append(&new)?;
        }
        places.iter().zip(bodies).map(|(place, body)| self.entry(&held, *place, body)).collect()
    }

    fn origin(&self) -> &str {
        &self.public().origin
    }

    fn size(&self) -> Result<u64, SignError> {
        Ok(self.tiles.read()?.size())
    }

    fn root(&self) -> Result<Digest, SignError> {
        Ok(Digest::from_bytes(self.tiles.read()?.root().0))
    }
}

#[cfg(test)]
mod tests;
