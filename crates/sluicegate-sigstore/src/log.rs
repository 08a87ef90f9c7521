//! The embedded transparency log: Rekor v2's entries in a tile log.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_attestation::bundle::{self, InclusionProof, KindVersion, LogEntry, LogId};
use sluicegate_ports::{
    served_log::{Placed, ServedLog, TileName},
    sign::{SignError, TransparencyLog},
};
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

    /// A log to read, without its private key: it refuses to append. Nothing is read yet; the first question about its size or root
    /// reads it whole.
    pub fn reader(folder: impl Into<PathBuf>, public: LogPublic) -> Self {
        Self { tiles: TileLog::reader(folder.into(), public) }
    }

    /// Reads every file anew, compares all of them with the checkpoint, and returns its size and root.
    pub fn check(&self) -> Result<(u64, Digest), SignError> {
        let (size, root) = self.tiles.check()?;
        Ok((size, Digest::from_bytes(root.0)))
    }

    /// The public half, for trusted roots.
    pub fn public(&self) -> &LogPublic {
        self.tiles.public()
    }

    /// Appends what is not there yet to the log that `open` gives.
    fn append_to<'a>(
        &'a self,
        open: impl Fn(&'a TileLog) -> Result<Held<'a>, SignError>,
        bodies: &[Vec<u8>],
    ) -> Result<Vec<Placed>, SignError> {
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
        let mut held = open(&self.tiles)?;
        let mut fresh: HashMap<[u8; 32], u64> = HashMap::new();
        let mut new: Vec<&[u8]> = Vec::new();
        let mut places = Vec::new();
        for body in bodies {
            let leaf = record_hash(body);
            let next = held.size() + new.len() as u64;
            match held.find(&leaf).or_else(|| fresh.get(&leaf.0).copied()) {
                Some(place) => places.push((place, false)),
                None => {
                    fresh.insert(leaf.0, next);
                    new.push(body);
                    places.push((next, true));
                }
            }
        }
        if !new.is_empty() {
            held.append(&new)?;
        }
        let placed = |((place, is_new), body): ((u64, bool), &Vec<u8>)| {
            Ok(Placed { entry: self.entry(&held, place, body)?, is_new })
        };
        places.into_iter().zip(bodies).map(placed).collect()
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
        Ok(self.append_new(bodies)?.into_iter().map(|placed| placed.entry).collect())
    }

    fn append_held(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        Ok(self.append_to(TileLog::write_held, bodies)?.into_iter().map(|placed| placed.entry).collect())
    }

    fn make_durable(&self) -> Result<(), SignError> {
        self.tiles.flush()
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

impl ServedLog for EmbeddedLog {
    fn append_new(&self, bodies: &[Vec<u8>]) -> Result<Vec<Placed>, SignError> {
        self.append_to(TileLog::write, bodies)
    }

    fn checkpoint(&self) -> Result<String, SignError> {
        self.tiles.published()
    }

    fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError> {
        self.tiles.published_tile(name)
    }
}

#[cfg(test)]
mod tests;
