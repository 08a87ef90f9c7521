//! The embedded transparency log: Rekor v2's entries in a C2SP tile log in a folder that several processes may share.
//!
//! What is promised is the checkpoint. Entries and tiles are made durable first, then the checkpoint is replaced in one step; tiles beyond
//! it were never promised and are overwritten. Before anything is signed the files are read again and compared with the last checkpoint.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_attestation::bundle::{self, InclusionProof, KindVersion, LogEntry, LogId};
use sluicegate_ports::sign::{SignError, TransparencyLog};
use sluicegate_types::Digest;
use tlog_tiles::{EMPTY_HASH, check_record, prove_record, record_hash};

use crate::{
    checkpoint::{Checkpoint, NOTE_LIMIT},
    keys::LogKey,
    tiles::{self, ENTRY_LIMIT, Row, Tile, Writer},
    tree::Tree,
    trust_root::{LogPublic, check_origin},
};

const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";
/// How every canonical `hashedrekord` 0.0.2 body begins: RFC 8785 sorts the members.
const BODY_START: &[u8] = br#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"#;

/// A log in a folder: `checkpoint`, `tile/…` and `lock`.
///
/// Opening reads and hashes every entry once and keeps about 130 bytes of memory for each (tree hashes, and the index that finds a body
/// again): right for up to some hundred thousand entries. An append reads the right edge of the tree only.
#[derive(Debug)]
pub struct EmbeddedLog {
    folder: PathBuf,
    public: LogPublic,
    key: LogKey,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    checkpoint: Checkpoint,
}

/// A file to write.
type Planned = (String, Vec<u8>);

impl EmbeddedLog {
    /// Begins a log: makes the folder and signs the checkpoint of the empty tree. [`SignError::Log`] if there is one already.
    pub fn create(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, SignError> {
        let folder = folder.into();
        let refused = |reason: String| SignError::Log { folder: folder.display().to_string(), reason };
        check_origin(origin).map_err(refused)?;
        make_folder(&folder)?;
        let lock = take_lock(&folder, true)?;
        if folder.join(CHECKPOINT).symlink_metadata().is_ok() || folder.join("tile").symlink_metadata().is_ok() {
            return Err(refused("there is a log already; open it, or name an empty folder".into()));
        }
        let checkpoint = Checkpoint::sign(origin, 0, EMPTY_HASH, &key);
        put(&folder, &[(CHECKPOINT.into(), checkpoint.note.clone().into_bytes())])?;
        drop(lock);
        let public = LogPublic { origin: origin.to_owned(), public_key: *key.public_key() };
        Ok(Self { folder, public, key, state: Mutex::new(State { tree: Tree::default(), checkpoint }) })
    }

    /// Opens a log, reads it whole and compares it with its last checkpoint. [`SignError::Log`] if there is no checkpoint (a key
    /// without its log would begin a second history under one name), if it is another key's or another log's, or if any tile is
    /// missing or changed.
    pub fn open(folder: impl Into<PathBuf>, key: LogKey, origin: &str) -> Result<Self, SignError> {
        let public = LogPublic { origin: origin.to_owned(), public_key: *key.public_key() };
        let checkpoint = Checkpoint { size: 0, root: EMPTY_HASH, note: String::new() };
        let state = Mutex::new(State { tree: Tree::default(), checkpoint });
        let log = Self { folder: folder.into(), public, key, state };
        check_origin(origin).map_err(|reason| log.refused(reason))?;
        log.read_checkpoint()?;
        let lock = take_lock(&log.folder, false)?;
        log.refresh(&mut *log.state()?)?;
        drop(lock);
        Ok(log)
    }

    /// The public half, for trusted roots.
    pub fn public(&self) -> &LogPublic {
        &self.public
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, SignError> {
        self.state
            .lock()
            .map_err(|_| self.refused("an earlier append of this process broke off; start it again".into()))
    }

    fn refused(&self, reason: String) -> SignError {
        SignError::Log { folder: self.folder.display().to_string(), reason }
    }

    fn read_checkpoint(&self) -> Result<Checkpoint, SignError> {
        let path = self.folder.join(CHECKPOINT);
        let bytes = tiles::read_bounded(&path, NOTE_LIMIT).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                self.refused(
                    "it has no checkpoint: its key is here but its history is not, and appending would begin a second history \
                     under one name; restore the folder from a backup, or make a new log with a new key"
                        .into(),
                )
            } else {
                SignError::Io { action: format!("read the checkpoint {}", path.display()), reason: error.to_string() }
            }
        })?;
        let note = String::from_utf8(bytes).map_err(|_| self.refused("its checkpoint is not text".into()))?;
        Checkpoint::verify(&note, &self.public).map_err(|reason| self.refused(reason))
    }

    /// Brings the state up to the files, under the lock: what other processes appended is read and hashed, and what is there is compared
    /// with the signed root.
    fn refresh(&self, state: &mut State) -> Result<(), SignError> {
        let found = self.read_checkpoint()?;
        let known = state.tree.size();
        if found.size < known {
            return Err(self.refused(format!(
                "its checkpoint went back from {known} to {} entries; restore the newer files",
                found.size
            )));
        }
        let checked = self.read_entries(&mut state.tree, found.size).and_then(|()| {
            let tiles = if found.size == known { tiles::right_edge(known) } else { tiles::grown(known, found.size) };
            for tile in tiles {
                if found.size == known || tile.row != Row::Entries {
                    self.compare(&state.tree, &tile)?;
                }
            }
            if state.tree.root()? != found.root {
                return Err(format!("its {} entries do not have the root that its checkpoint signs", found.size));
            }
            Ok(())
        });
        if let Err(reason) = checked {
            state.tree.truncate(known);
            return Err(self.refused(format!("{reason}; restore the folder from a backup")));
        }
        state.checkpoint = found;
        Ok(())
    }

    /// Takes the entries up to `size` into the tree; those that it has already must be the same.
    fn read_entries(&self, tree: &mut Tree, size: u64) -> Result<(), String> {
        for tile in tiles::grown(tree.size(), size).iter().filter(|tile| tile.row == Row::Entries) {
            let leaves: Vec<_> =
                tiles::read_entries(&self.folder, tile)?.iter().map(|entry| record_hash(entry)).collect();
            let kept = Tile { width: tree.size().saturating_sub(tile.first()), ..*tile };
            let known = tree.tile(&kept)?;
            if !leaves.starts_with(&known) {
                return Err(changed(tile));
            }
            leaves[known.len()..].iter().try_for_each(|leaf| tree.push(*leaf))?;
        }
        Ok(())
    }

    /// Whether the tile on disk holds what the tree has in its place.
    fn compare(&self, tree: &Tree, tile: &Tile) -> Result<(), String> {
        let found = match tile.row {
            Row::Entries => tiles::read_entries(&self.folder, tile)?.iter().map(|entry| record_hash(entry)).collect(),
            Row::Hashes(_) => tiles::read_hashes(&self.folder, tile)?,
        };
        if found == tree.tile(tile)? { Ok(()) } else { Err(changed(tile)) }
    }

    /// The files of a tree that grew from `old` entries by `bodies`: tiles first, the checkpoint last.
    fn plan(&self, tree: &Tree, old: u64, bodies: &[&[u8]]) -> Result<(Vec<Planned>, Checkpoint), String> {
        let mut files = Vec::new();
        for tile in tiles::grown(old, tree.size()) {
            let bytes = match tile.row {
                Row::Hashes(_) => tree.tile(&tile)?.iter().flat_map(|hash| hash.0).collect(),
                Row::Entries => {
                    let kept = old.saturating_sub(tile.first());
                    let mut entries = if kept == 0 {
                        Vec::new()
                    } else {
                        tiles::read_entries(&self.folder, &Tile { width: kept, ..tile })?
                    };
                    let from = usize::try_from(tile.first() + kept - old).map_err(|error| error.to_string())?;
                    let count = usize::try_from(tile.width - kept).map_err(|error| error.to_string())?;
                    entries.extend(bodies.iter().skip(from).take(count).map(|body| body.to_vec()));
                    tiles::bundle(&entries)?
                }
            };
            files.push((tile.path(), bytes));
        }
        let checkpoint = Checkpoint::sign(&self.public.origin, tree.size(), tree.root()?, &self.key);
        files.push((CHECKPOINT.into(), checkpoint.note.clone().into_bytes()));
        Ok((files, checkpoint))
    }

    /// Appends what is new, in one checkpoint. On an error the state is what it was.
    fn commit(&self, state: &mut State, bodies: &[&[u8]]) -> Result<(), SignError> {
        let old = state.tree.size();
        let mut write = || {
            for body in bodies {
                state.tree.push(record_hash(body)).map_err(|reason| self.refused(reason))?;
            }
            let (files, checkpoint) = self.plan(&state.tree, old, bodies).map_err(|reason| self.refused(reason))?;
            put(&self.folder, &files)?;
            Ok(checkpoint)
        };
        match write() {
            Ok(checkpoint) => {
                state.checkpoint = checkpoint;
                self.drop_partials(old, state.tree.size());
                Ok(())
            }
            Err(error) => {
                state.tree.truncate(old);
                Err(error)
            }
        }
    }

    /// Partial tiles of tiles that are full now: tlog-tiles lets them go once the checkpoint covers the full ones. One that stays
    /// is never read again.
    fn drop_partials(&self, old: u64, new: u64) {
        for tile in tiles::grown(old, new).iter().filter(|tile| tile.width == tiles::WIDTH) {
            let _ = fs::remove_dir_all(self.folder.join(tile.partials()));
        }
    }

    /// The entry at `index` with its proof against the state's checkpoint, recomputed before it is given away.
    fn entry(&self, state: &State, index: u64, body: &[u8]) -> Result<LogEntry, SignError> {
        let Checkpoint { size, root, note } = &state.checkpoint;
        let proof = prove_record(*size, index, &state.tree)
            .and_then(|proof| check_record(&proof, *size, *root, index, record_hash(body)).map(|()| proof))
            .map_err(|error| self.refused(format!("entry {index} is not proved by its own checkpoint: {error}")))?;
        // protojson leaves out a zero.
        let log_index = if index == 0 { String::new() } else { index.to_string() };
        Ok(LogEntry {
            log_index: log_index.clone(),
            log_id: LogId { key_id: STANDARD.encode(self.public.key_id()) },
            kind_version: KindVersion { kind: "hashedrekord".into(), version: "0.0.2".into() },
            integrated_time: None,
            inclusion_proof: InclusionProof {
                log_index,
                root_hash: STANDARD.encode(root.0),
                tree_size: size.to_string(),
                hashes: proof.iter().map(|hash| STANDARD.encode(hash.0)).collect(),
                checkpoint: bundle::Checkpoint { envelope: note.clone() },
            },
            canonicalized_body: STANDARD.encode(body),
        })
    }

    /// Size and root of the last checkpoint, after the files were compared with it.
    fn head(&self) -> Result<(u64, Digest), SignError> {
        let mut state = self.state()?;
        let _lock = take_lock(&self.folder, false)?;
        self.refresh(&mut state)?;
        Ok((state.checkpoint.size, state.checkpoint.root_digest()))
    }
}

impl TransparencyLog for EmbeddedLog {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        for body in bodies {
            if body.len() > ENTRY_LIMIT {
                return Err(self.refused(tiles::too_long(body.len())));
            }
            if !body.starts_with(BODY_START) {
                return Err(self.refused("what is to be appended is not a canonical hashedrekord 0.0.2 body".into()));
            }
        }
        if bodies.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state()?;
        let _lock = take_lock(&self.folder, true)?;
        self.refresh(&mut state)?;
        let mut fresh: HashMap<[u8; 32], u64> = HashMap::new();
        let mut new: Vec<&[u8]> = Vec::new();
        let mut places = Vec::new();
        for body in bodies {
            let leaf = record_hash(body);
            let next = state.tree.size() + new.len() as u64;
            let place = state.tree.find(&leaf).or_else(|| fresh.get(&leaf.0).copied()).unwrap_or_else(|| {
                fresh.insert(leaf.0, next);
                new.push(body);
                next
            });
            places.push(place);
        }
        if !new.is_empty() {
            self.commit(&mut state, &new)?;
        }
        Checkpoint::verify(&state.checkpoint.note, &self.public).map_err(|reason| self.refused(reason))?;
        places.iter().zip(bodies).map(|(place, body)| self.entry(&state, *place, body)).collect()
    }

    fn origin(&self) -> &str {
        &self.public.origin
    }

    fn size(&self) -> Result<u64, SignError> {
        self.head().map(|(size, _)| size)
    }

    fn root(&self) -> Result<Digest, SignError> {
        self.head().map(|(_, root)| root)
    }
}

fn changed(tile: &Tile) -> String {
    format!("{} is not what the log signed", tile.path())
}

/// Makes every file durable in order; the last one, the checkpoint, only after all names of the others are.
fn put(folder: &Path, files: &[Planned]) -> Result<(), SignError> {
    let failed = |path: &str, error: io::Error| SignError::Io {
        action: format!("write {}", folder.join(path).display()),
        reason: error.to_string(),
    };
    let Some(((last, note), tiles)) = files.split_last() else {
        return Ok(());
    };
    let mut writer = Writer::new(folder);
    for (path, bytes) in tiles {
        writer.write(path, bytes).map_err(|error| failed(path, error))?;
    }
    writer.sync().map_err(|error| failed("tile", error))?;
    let mut writer = Writer::new(folder);
    writer.write(last, note).map_err(|error| failed(last, error))?;
    writer.sync().map_err(|error| failed(last, error))
}

fn make_folder(folder: &Path) -> Result<(), SignError> {
    let failed = |error: io::Error| SignError::Io {
        action: format!("make the folder {}", folder.display()),
        reason: error.to_string(),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Waits for the log's lock: alone for a writer, together with others for a reader. It is free again when the file is dropped.
fn take_lock(folder: &Path, alone: bool) -> Result<File, SignError> {
    let path = folder.join(LOCK);
    let failed =
        |error: io::Error| SignError::Io { action: format!("lock {}", path.display()), reason: error.to_string() };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    loop {
        match if alone { file.lock() } else { file.lock_shared() } {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests;
