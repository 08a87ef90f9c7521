//! A C2SP tile log in a folder that several processes may share: what the transparency log and the ledger have in common.
//!
//! What is promised is the checkpoint. Entries and tiles are made durable first, then the checkpoint is replaced in one step; tiles beyond
//! it were never promised and are overwritten. Before anything is signed the files are read again and compared with the last checkpoint.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use sluicegate_ports::{
    served_log::{TileName, TileRow},
    sign::SignError,
};
use tlog_tiles::{EMPTY_HASH, Hash, check_record, prove_record, record_hash, tree_hash};

use crate::{
    checkpoint::{Checkpoint, NOTE_LIMIT},
    keys::LogKey,
    tiles::{self, Row, Tile, Writer},
    tree::Tree,
    trust_root::{LogPublic, check_origin},
};

const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";
/// How often a lock that another process holds is tried again.
const LOCK_TRIES: u32 = 6_000;
/// And how long it is waited for between: half a minute in all.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// How often a tile is looked for that the log's growth takes from under its reader.
const TILE_TRIES: u32 = 8;

/// A log in a folder: `checkpoint`, `tile/…` and `lock`.
///
/// Opening reads and hashes every entry once and keeps about 130 bytes of memory for each (tree hashes, and the index that finds an entry
/// again): right for up to some hundred thousand entries. An append reads the right edge of the tree only.
#[derive(Debug)]
pub(crate) struct TileLog {
    folder: PathBuf,
    public: LogPublic,
    /// `None`: it is only read.
    key: Option<LogKey>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// What was read and hashed so far.
    pub(crate) tree: Tree,
    checkpoint: Checkpoint,
    /// Folders whose names this process has made durable.
    durable: BTreeSet<PathBuf>,
    /// What was appended and is in no file yet.
    pending: Option<Pending>,
    /// Whether what was pending could not be written when somebody asked for something else; whoever makes it durable is told.
    lost: bool,
}

/// Entries that are in memory alone, under the log's lock.
#[derive(Debug)]
struct Pending {
    /// The checkpoint of the files.
    before: Checkpoint,
    bodies: Vec<Vec<u8>>,
    _lock: File,
}

impl State {
    fn new(checkpoint: Checkpoint) -> Self {
        Self { tree: Tree::default(), checkpoint, durable: BTreeSet::new(), pending: None, lost: false }
    }
}

/// A log under its lock, brought up to its files. The lock is free again when this is dropped or its process ends.
pub(crate) struct Held<'a> {
    log: &'a TileLog,
    state: MutexGuard<'a, State>,
    /// `None`: the entries that are pending hold it.
    _lock: Option<File>,
}

/// A file to write.
type Planned = (String, Vec<u8>);

impl TileLog {
    /// Begins a log: makes the folder and signs the checkpoint of the empty tree. [`SignError::Log`] if there is one already.
    pub(crate) fn create(folder: PathBuf, key: LogKey, origin: &str) -> Result<Self, SignError> {
        let refused = |reason: String| SignError::Log { folder: folder.display().to_string(), reason };
        check_origin(origin).map_err(refused)?;
        make_folder(&folder)?;
        let lock = take_lock(&folder, true)?;
        if folder.join(CHECKPOINT).symlink_metadata().is_ok() || folder.join("tile").symlink_metadata().is_ok() {
            return Err(refused("there is a log already; open it, or name an empty folder".into()));
        }
        let checkpoint = Checkpoint::sign(origin, 0, EMPTY_HASH, &key);
        put(&folder, &[(CHECKPOINT.into(), checkpoint.note.clone().into_bytes())], &mut BTreeSet::new())?;
        drop(lock);
        let public = LogPublic { origin: origin.to_owned(), public_key: *key.public_key() };
        Ok(Self { folder, public, key: Some(key), state: Mutex::new(State::new(checkpoint)) })
    }

    /// Opens a log, reads it whole and compares it with its last checkpoint. [`SignError::Log`] if there is no checkpoint (a key
    /// without its log would begin a second history under one name), if it is another key's or another log's, or if any tile is
    /// missing or changed.
    pub(crate) fn open(folder: PathBuf, key: LogKey, origin: &str) -> Result<Self, SignError> {
        let public = LogPublic { origin: origin.to_owned(), public_key: *key.public_key() };
        let log = Self { key: Some(key), ..Self::reader(folder, public) };
        check_origin(origin).map_err(|reason| log.refused(reason))?;
        log.read()?;
        Ok(log)
    }

    /// A log to read, without its private key. Nothing is read yet: the first question reads it whole.
    pub(crate) fn reader(folder: PathBuf, public: LogPublic) -> Self {
        let checkpoint = Checkpoint { size: 0, root: EMPTY_HASH, note: String::new() };
        Self { folder, public, key: None, state: Mutex::new(State::new(checkpoint)) }
    }

    /// The public half.
    pub(crate) fn public(&self) -> &LogPublic {
        &self.public
    }

    /// The log together with other readers, after the files were compared with its checkpoint.
    pub(crate) fn read(&self) -> Result<Held<'_>, SignError> {
        self.held(false)
    }

    /// The log alone, after the files were compared with its checkpoint.
    pub(crate) fn write(&self) -> Result<Held<'_>, SignError> {
        self.held(true)
    }

    /// Reads every file anew and compares all of them with the signed root, whatever this process has read before.
    pub(crate) fn check(&self) -> Result<(u64, Hash), SignError> {
        // What was read before must still be a part of what is there.
        drop(self.read()?);
        let anew = Self::reader(self.folder.clone(), self.public.clone());
        let held = anew.read()?;
        Ok((held.size(), held.root()))
    }

    /// The newest signed checkpoint, without the lock: it is replaced in one step, after all that it covers is durable.
    pub(crate) fn published(&self) -> Result<String, SignError> {
        Ok(self.read_checkpoint()?.note)
    }

    /// A tile that the newest checkpoint covers, without the lock: what is covered is never written again. Read from the widest form
    /// that is covered now, as only that is sure to be on disk, and cut to what was asked for.
    pub(crate) fn published_tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError> {
        let row = match name.row {
            TileRow::Entries => Row::Entries,
            TileRow::Hashes(level) => Row::Hashes(level.into()),
        };
        let mut left = TILE_TRIES;
        loop {
            let size = self.read_checkpoint()?.size;
            let Some(widest) = tiles::widest(row, name.number, size).filter(|tile| tile.width >= name.width.into())
            else {
                return Ok(None);
            };
            match tiles::read_prefix(&self.folder, &widest, name.width.into()) {
                Ok(bytes) => return Ok(Some(bytes)),
                // The log grew in between: its partial forms are gone once the full one is there.
                Err(_) if left > 0 && self.read_checkpoint()?.size != size => left -= 1,
                Err(reason) => return Err(self.refused(reason)),
            }
        }
    }

    pub(crate) fn refused(&self, reason: impl Into<String>) -> SignError {
        SignError::Log { folder: self.folder.display().to_string(), reason: reason.into() }
    }

    /// The log alone, to append to in memory: what was appended so before is part of it.
    pub(crate) fn write_held(&self) -> Result<Held<'_>, SignError> {
        let state = self.state()?;
        if state.lost {
            return Err(self.refused("entries that were held before these could not be written"));
        }
        if state.pending.is_some() {
            return Ok(Held { log: self, state, _lock: None });
        }
        drop(state);
        let Held { mut state, _lock: lock, .. } = self.held(true)?;
        let before = state.checkpoint.clone();
        state.pending = lock.map(|lock| Pending { before, bodies: Vec::new(), _lock: lock });
        Ok(Held { log: self, state, _lock: None })
    }

    /// Writes what is pending, in one checkpoint, and lets go of the lock. On an error none of it was appended.
    pub(crate) fn flush(&self) -> Result<(), SignError> {
        let mut state = self.state()?;
        if std::mem::take(&mut state.lost) {
            return Err(self.refused("entries that were held could not be written"));
        }
        self.write_pending(&mut state)
    }

    fn write_pending(&self, state: &mut State) -> Result<(), SignError> {
        let Some(pending) = state.pending.take() else { return Ok(()) };
        if pending.bodies.is_empty() {
            return Ok(());
        }
        let bodies: Vec<&[u8]> = pending.bodies.iter().map(Vec::as_slice).collect();
        self.publish(state, pending.before, &bodies)
    }

    fn held(&self, alone: bool) -> Result<Held<'_>, SignError> {
        let mut state = self.state()?;
        if let Err(error) = self.write_pending(&mut state) {
            state.lost = true;
            return Err(error);
        }
        if state.tree.size() == 0 {
            // Before the lock's file would be made in a folder that is not there.
            self.read_checkpoint()?;
        }
        let lock = take_lock(&self.folder, alone)?;
        self.refresh(&mut state)?;
        Ok(Held { log: self, state, _lock: Some(lock) })
    }

    /// What this process knows of the log.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, SignError> {
        self.state.lock().map_err(|_| self.refused("an earlier append of this process broke off; start it again"))
    }

    fn read_checkpoint(&self) -> Result<Checkpoint, SignError> {
        let path = self.folder.join(CHECKPOINT);
        let bytes = tiles::read_bounded(&path, NOTE_LIMIT).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                self.refused(
                    "it has no checkpoint: its key is here but its history is not, and appending would begin a second history \
                     under one name; restore the folder from a backup, or make a new log with a new key",
                )
            } else {
                SignError::Io { action: format!("read the checkpoint {}", path.display()), reason: error.to_string() }
            }
        })?;
        let note = String::from_utf8(bytes).map_err(|_| self.refused("its checkpoint is not text"))?;
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
            let signed = state.tree.root()? == found.root;
            for tile in tiles {
                if found.size == known || tile.row != Row::Entries {
                    // Entries without the signed root may be what is wrong, not the hashes that contradict them.
                    let either = |reason: String| match tile.row {
                        Row::Hashes(0) if !signed && reason == changed(&tile) => {
                            let entries = Tile { row: Row::Entries, ..tile }.path();
                            format!("{entries} and {} do not belong together", tile.path())
                        }
                        _ => reason,
                    };
                    self.compare(&state.tree, &tile).map_err(either)?;
                }
            }
            if !signed {
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
    pub(crate) fn plan(
        &self,
        tree: &Tree,
        old: u64,
        bodies: &[&[u8]],
    ) -> Result<(Vec<Planned>, Checkpoint), SignError> {
        let mut files = self.tiles(tree, old, bodies).map_err(|reason| self.refused(reason))?;
        let checkpoint = self.sign_checkpoint(tree)?;
        files.push((CHECKPOINT.into(), checkpoint.note.clone().into_bytes()));
        Ok((files, checkpoint))
    }

    fn tiles(&self, tree: &Tree, old: u64, bodies: &[&[u8]]) -> Result<Vec<Planned>, String> {
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
        Ok(files)
    }

    fn sign_checkpoint(&self, tree: &Tree) -> Result<Checkpoint, SignError> {
        let key = self.key.as_ref().ok_or_else(|| self.refused("it was opened without its key, to be read only"))?;
        let root = tree.root().map_err(|reason| self.refused(reason))?;
        let checkpoint = Checkpoint::sign(&self.public.origin, tree.size(), root, key);
        // What others would not believe is not written.
        Checkpoint::verify(&checkpoint.note, &self.public).map_err(|reason| self.refused(reason))?;
        Ok(checkpoint)
    }

    /// Appends what is new in memory, under a checkpoint of its own. On an error the state is what it was.
    fn commit_held(&self, state: &mut State, bodies: &[&[u8]]) -> Result<(), SignError> {
        let old = state.tree.size();
        let signed = self.grow(&mut state.tree, bodies).and_then(|()| self.sign_checkpoint(&state.tree));
        match (signed, &mut state.pending) {
            (Ok(checkpoint), Some(pending)) => {
                pending.bodies.extend(bodies.iter().map(|body| body.to_vec()));
                state.checkpoint = checkpoint;
                Ok(())
            }
            (signed, _) => {
                state.tree.truncate(old);
                signed.and_then(|_| Err(self.refused("nothing is held")))
            }
        }
    }

    /// Appends what is new, in one checkpoint. On an error the state is what it was.
    fn commit(&self, state: &mut State, bodies: &[&[u8]]) -> Result<(), SignError> {
        let before = state.checkpoint.clone();
        if let Err(error) = self.grow(&mut state.tree, bodies) {
            state.tree.truncate(before.size);
            return Err(error);
        }
        self.publish(state, before, bodies)
    }

    fn grow(&self, tree: &mut Tree, bodies: &[&[u8]]) -> Result<(), SignError> {
        bodies.iter().try_for_each(|body| tree.push(record_hash(body))).map_err(|reason| self.refused(reason))
    }

    /// Writes what the tree has beyond the checkpoint `before`, which are `bodies`. On an error the state is that of `before`.
    fn publish(&self, state: &mut State, before: Checkpoint, bodies: &[&[u8]]) -> Result<(), SignError> {
        let old = before.size;
        let written = self.plan(&state.tree, old, bodies).and_then(|(files, checkpoint)| {
            put(&self.folder, &files, &mut state.durable)?;
            Ok(checkpoint)
        });
        match written {
            Ok(checkpoint) => {
                state.checkpoint = checkpoint;
                self.drop_partials(old, state);
                Ok(())
            }
            Err(error) => {
                state.tree.truncate(old);
                state.checkpoint = before;
                Err(error)
            }
        }
    }

    /// Partial tiles of tiles that are full now: tlog-tiles lets them go once the checkpoint covers the full ones. One that stays
    /// is never read again.
    fn drop_partials(&self, old: u64, state: &mut State) {
        for tile in tiles::grown(old, state.tree.size()).iter().filter(|tile| tile.width == tiles::WIDTH) {
            let partials = self.folder.join(tile.partials());
            let _ = fs::remove_dir_all(&partials);
            state.durable.remove(&partials);
        }
    }
}

impl Held<'_> {
    /// Entries.
    pub(crate) fn size(&self) -> u64 {
        self.state.checkpoint.size
    }

    /// The root over all entries.
    pub(crate) fn root(&self) -> Hash {
        self.state.checkpoint.root
    }

    /// The last signed checkpoint.
    pub(crate) fn note(&self) -> &str {
        &self.state.checkpoint.note
    }

    /// The root over the first `size` entries; an error if there are fewer.
    pub(crate) fn root_at(&self, size: u64) -> Result<Hash, SignError> {
        match size {
            0 => Ok(EMPTY_HASH),
            _ if size > self.size() => Err(self.log.refused(format!("it has {} entries, not {size}", self.size()))),
            _ => tree_hash(size, &self.state.tree).map_err(|error| self.log.refused(error.to_string())),
        }
    }

    /// Where the entry with this leaf hash stands first.
    pub(crate) fn find(&self, leaf: &Hash) -> Option<u64> {
        self.state.tree.find(leaf)
    }

    /// The entries from `from` on, at most `count` and as many as there are, each compared with the tree.
    pub(crate) fn entries(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, SignError> {
        let to = self.size().min(from.saturating_add(count));
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let read = |tile: &Tile| {
            let entries = tiles::read_entries(&self.log.folder, tile)?;
            let leaves: Vec<_> = entries.iter().map(|entry| record_hash(entry)).collect();
            if leaves == self.state.tree.tile(tile)? { Ok(entries) } else { Err(changed(tile)) }
        };
        for number in from / tiles::WIDTH..to.div_ceil(tiles::WIDTH) {
            let first = number * tiles::WIDTH;
            let tile = Tile { row: Row::Entries, number, width: tiles::WIDTH.min(self.size() - first) };
            let entries = read(&tile).map_err(|reason| self.log.refused(reason))?;
            let wanted = (first..).zip(entries).filter(|(place, _)| (from..to).contains(place));
            found.extend(wanted.map(|(_, entry)| entry));
        }
        Ok(found)
    }

    /// Appends these entries in one checkpoint; all of it is durable when this returns, unless the log is held open for more. On an error
    /// nothing has changed.
    pub(crate) fn append(&mut self, entries: &[&[u8]]) -> Result<(), SignError> {
        if self.state.pending.is_some() {
            self.log.commit_held(&mut self.state, entries)
        } else {
            self.log.commit(&mut self.state, entries)
        }
    }

    /// The proof that `entry` stands at `index`, against the last checkpoint, recomputed before it is given away.
    pub(crate) fn proof(&self, index: u64, entry: &[u8]) -> Result<Vec<Hash>, SignError> {
        let (size, root) = (self.size(), self.root());
        prove_record(size, index, &self.state.tree)
            .and_then(|proof| check_record(&proof, size, root, index, record_hash(entry)).map(|()| proof))
            .map_err(|error| self.log.refused(format!("entry {index} is not proved by its own checkpoint: {error}")))
    }
}

fn changed(tile: &Tile) -> String {
    format!("{} is not what the log signed", tile.path())
}

/// Makes every file durable in order; the last one, the checkpoint, only after all names of the others are.
fn put(folder: &Path, files: &[Planned], durable: &mut BTreeSet<PathBuf>) -> Result<(), SignError> {
    let failed = |path: &str, error: io::Error| SignError::Io {
        action: format!("write {}", folder.join(path).display()),
        reason: error.to_string(),
    };
    let Some((checkpoint, tiles)) = files.split_last() else {
        return Ok(());
    };
    for together in [tiles, std::slice::from_ref(checkpoint)] {
        let mut writer = Writer::new(folder, durable);
        for (path, bytes) in together {
            writer.write(path, bytes).map_err(|error| failed(path, error))?;
        }
        let name = together.last().map_or("tile", |(path, _)| path);
        let synced = writer.sync().map_err(|error| failed(name, error))?;
        durable.extend(synced);
    }
    Ok(())
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
    take_lock_within(folder, alone, LOCK_TRIES)
}

fn take_lock_within(folder: &Path, alone: bool, tries: u32) -> Result<File, SignError> {
    let path = folder.join(LOCK);
    let failed = |reason: String| SignError::Io { action: format!("lock {}", path.display()), reason };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|error| failed(error.to_string()))?;
    let mut left = tries;
    loop {
        match if alone { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => return Ok(file),
            // Whoever may open the file may hold it, for ever: nobody waits longer than this.
            Err(TryLockError::WouldBlock) if left == 0 => {
                return Err(failed("another process holds it; nothing was changed, try again".to_owned()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
        left = left.saturating_sub(1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_somebody_keeps_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let held = take_lock(folder.path(), true).unwrap();
        for alone in [true, false] {
            let error = take_lock_within(folder.path(), alone, 1).unwrap_err().to_string();
            assert!(error.contains("another process holds it"), "{error}");
        }
        drop(held);
        let shared = take_lock_within(folder.path(), false, 0).unwrap();
        take_lock_within(folder.path(), false, 0).unwrap();
        assert!(take_lock_within(folder.path(), true, 0).is_err());
        drop(shared);
    }
}
