//! What was signed and is not known to be logged: one file each, durable before anything is sent (trust model 15).
//!
//! Whoever sends an entry holds the lock of its file, so that a command of the same home leaves alone what another one is about to log, and
//! finds what one left that has ended.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sluicegate_ports::sign::{Envelope, SignError};
use sluicegate_types::Digest;

const VERSION: u32 = 1;
/// Bytes of a file: a statement of 16 MiB in base64, and its signature.
const FILE_LIMIT: u64 = 24 * 1024 * 1024;
/// Files that are looked at.
const FILES_LIMIT: usize = 10_000;
const NEW: &str = ".new-";
const YOUNG: Duration = Duration::from_secs(3600);

/// A folder of what waits.
#[derive(Debug)]
pub(crate) struct Outbox {
    folder: PathBuf,
    /// The locked files of what this process is about to log.
    held: Mutex<BTreeMap<Digest, File>>,
}

/// What waited, locked.
pub(crate) struct Kept {
    /// The log it is for.
    pub(crate) log: String,
    /// The canonical body.
    pub(crate) body: Vec<u8>,
    /// The statement; nothing if whoever signed it did not say.
    pub(crate) payload: Vec<u8>,
    path: PathBuf,
    _lock: File,
}

/// What a file holds.
struct Waiting {
    log: String,
    body: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireKept {
    schema_version: u32,
    log: String,
    body: String,
    payload: String,
}

impl Outbox {
    /// The outbox in this folder, which is made if it is missing.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, SignError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failed("make the outbox", &folder, &error))?;
        Ok(Self { folder, held: Mutex::default() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps what is about to be sent; it is durable when this returns.
    pub(crate) fn keep(&self, log: &str, envelopes: &[Envelope<'_>]) -> Result<(), SignError> {
        let mut is_new = false;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for envelope in envelopes {
            let digest = Digest::of(envelope.body);
            if envelope.payload.is_empty() && held.contains_key(&digest) {
                continue;
            }
            let kept = WireKept {
                schema_version: VERSION,
                log: log.to_owned(),
                body: STANDARD.encode(envelope.body),
                payload: STANDARD.encode(envelope.payload),
            };
            let path = self.folder.join(digest.hex());
            let file = self.write(&path, &kept).map_err(|error| failed("keep what was signed in", &path, &error))?;
            held.insert(digest, file);
            is_new = true;
        }
        if !is_new {
            return Ok(());
        }
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("make durable the outbox", &self.folder, &error))
    }

    fn write(&self, path: &Path, kept: &WireKept) -> io::Result<File> {
        let builder = |mode: u32| Permissions::from_mode(mode);
        let mut file = tempfile::Builder::new().prefix(NEW).permissions(builder(0o600)).tempfile_in(&self.folder)?;
        // Nobody else knows this file yet.
        file.as_file().lock()?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)
    }

    /// Forgets what is logged and stored. Should that itself be forgotten in a crash, the log says again where the entry is.
    pub(crate) fn forget(&self, body: &[u8]) -> Result<(), SignError> {
        let digest = Digest::of(body);
        let lock = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let path = self.folder.join(digest.hex());
        remove(&path)?;
        drop(lock);
        Ok(())
    }

    /// How many wait, whoever sends them.
    pub(crate) fn count(&self) -> usize {
        self.names().map_or(0, |names| names.len())
    }

    /// The files of what waits, oldest name first.
    pub(crate) fn names(&self) -> Result<Vec<PathBuf>, SignError> {
        let list = |error: io::Error| failed("list the outbox", &self.folder, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(list)? {
            let path = entry.map_err(list)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(NEW) {
                sweep(&path);
            } else if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                names.push(path);
            }
            if names.len() > FILES_LIMIT {
                return Err(self.damaged(&format!("more than {FILES_LIMIT} statements wait")));
            }
        }
        names.sort();
        Ok(names)
    }

    /// What waits in this file; `None` if somebody is about to log it, or has.
    pub(crate) fn take(&self, path: &Path) -> Result<Option<Kept>, SignError> {
        let unreadable = |error: io::Error| failed("read", path, &error);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let same = |metadata: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == metadata.ino());
        if !fs::symlink_metadata(path).is_ok_and(same) {
            return Ok(None);
        }
        let Waiting { log, body, payload } = self.read(path, &file)?;
        Ok(Some(Kept { log, body, payload, path: path.to_owned(), _lock: file }))
    }

    /// The statement in this file, whoever is about to log it; `None` if somebody has.
    pub(crate) fn statement(&self, path: &Path) -> Result<Option<Vec<u8>>, SignError> {
        match File::open(path) {
            Ok(file) => self.read(path, &file).map(|kept| Some(kept.payload)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path, &error)),
        }
    }

    fn read(&self, path: &Path, file: &File) -> Result<Waiting, SignError> {
        let unreadable = |error: io::Error| failed("read", path, &error);
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let wrong =
            |why: &str| self.damaged(&format!("{} {why}; move it away to give that statement up", path.display()));
        if bytes.len() as u64 > FILE_LIMIT {
            return Err(wrong(&format!("is larger than {FILE_LIMIT} bytes")));
        }
        let kept: WireKept = serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("is damaged: {error}")))?;
        let (body, payload) = (STANDARD.decode(&kept.body), STANDARD.decode(&kept.payload));
        let (Ok(body), Ok(payload), VERSION) = (body, payload, kept.schema_version) else {
            return Err(wrong("is not of the form of this version"));
        };
        if path.file_name().and_then(|name| name.to_str()) != Some(&Digest::of(&body).hex()) {
            return Err(wrong("does not hold what its name says"));
        }
        Ok(Waiting { log: kept.log, body, payload })
    }

    fn damaged(&self, reason: &str) -> SignError {
        SignError::Io { action: format!("use the outbox {}", self.folder.display()), reason: reason.to_owned() }
    }
}

impl Kept {
    /// Forgets it.
    pub(crate) fn remove(self) -> Result<(), SignError> {
        remove(&self.path)
    }
}

/// Removes what a process left that ended before its file had a name. A young one may be without its lock for a moment.
fn sweep(path: &Path) {
    let is_old = |file: &File| {
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
        modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG)
    };
    if File::open(path).is_ok_and(|file| is_old(&file) && file.try_lock().is_ok()) {
        let _ = fs::remove_file(path);
    }
}

fn remove(path: &Path) -> Result<(), SignError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> SignError {
    SignError::Io { action: format!("{action} {}", path.display()), reason: error.to_string() }
}
