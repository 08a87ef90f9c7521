use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use sluicegate_ports::store::{ContentStore, StoreError};
use sluicegate_types::{Digest, Hasher};
use tempfile::NamedTempFile;

/// Temporary files older than this belong to a process that died; no write of one blob takes a day.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps blobs as files of mode 0600 in folders of mode 0700, whatever the umask.
///
/// A blob is written to `tmp/` in the same file system, synced, renamed to `blobs/sha256/HEX` and the folder synced: a process
/// that is killed at any moment leaves either the whole blob or none. Writers of the same content do not disturb each other. Only
/// what a [`ScratchStore`](crate::ScratchStore) holds is not synced.
///
/// Whoever has a store that lasts open holds it together with others; who prunes it has it alone ([`FileStore::open_alone`]). Both are locks
/// that die with their holder, so that no process ever misses what it found there before.
pub struct FileStore {
    folder: PathBuf,
    blobs: PathBuf,
    temporary: PathBuf,
    lasts: Lasts,
    hold: Hold,
}

/// How the folder is held, for as long as this is not dropped.
enum Hold {
    /// By nobody else in the world.
    Alone { _lock: File },
    /// With others.
    Together { _lock: File },
    /// Not at all: it is this process's own.
    Not,
}

/// How long what is stored is to last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// Beyond a crash of the machine.
    Always,
    /// As long as this process, which is all that will ever read it.
    ForThisProcess,
}

impl FileStore {
    /// Opens the store in `dir` and makes its folders if they are missing; temporary files of dead processes are removed. While somebody
    /// has it alone, this waits.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut store = Self::open_as(dir, Lasts::Always)?;
        let lock = open_folder(dir)?;
        lock.lock_shared().map_err(|source| io_error("wait for a turn to use", dir, source))?;
        store.hold = Hold::Together { _lock: lock };
        store.remove_abandoned()?;
        Ok(store)
    }

    /// The same for one who removes things from it. `None` while anybody else has it open.
    pub fn open_alone(dir: &Path) -> Result<Option<Self>, StoreError> {
        let mut store = Self::open_as(dir, Lasts::Always)?;
        let lock = open_folder(dir)?;
        match lock.try_lock() {
            Ok(()) => store.hold = Hold::Alone { _lock: lock },
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", dir, source)),
        }
        Ok(Some(store))
    }

    /// The same in a folder that is gone when this process ends: nothing is synced, as nobody reads it after a crash.
    pub(crate) fn open_scratch(dir: &Path) -> Result<Self, StoreError> {
        Self::open_as(dir, Lasts::ForThisProcess)
    }

    fn open_as(dir: &Path, lasts: Lasts) -> Result<Self, StoreError> {
        let (blobs, temporary) = (dir.join("blobs/sha256"), dir.join("tmp"));
        let store = Self { folder: dir.to_owned(), blobs, temporary, lasts, hold: Hold::Not };
        fs::create_dir_all(dir.parent().unwrap_or(Path::new(".")))
            .map_err(|source| io_error("make the folder above", dir, source))?;
        for folder in [dir, &dir.join("blobs"), &store.blobs, &store.temporary] {
            make_private(folder, lasts)?;
        }
        Ok(store)
    }

    /// The folder of the whole store.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nobody else has it open, nor can have before this is dropped.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.hold, Hold::Alone { .. })
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// A file that `make` makes under a name of its own, which goes again unless it is persisted.
    pub(crate) fn draft<T>(&self, make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<NamedTempFile<T>> {
        tempfile::Builder::new().make_in(&self.temporary, make)
    }

    fn remove_abandoned(&self) -> Result<(), StoreError> {
        let list = |source| io_error("list", &self.temporary, source);
        for entry in fs::read_dir(&self.temporary).map_err(list)? {
            let entry = entry.map_err(list)?;
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| SystemTime::now().duration_since(at));
            if matches!(age, Ok(Ok(age)) if age > ABANDONED_AFTER) {
                // Another process may be sweeping too; a file that is gone is what was wanted.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn write(&self, file: &mut NamedTempFile, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        let mut hasher = Hasher::new();
        let mut total = 0_u64;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok((hasher.finish(), total)),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error("read the content for", file.path(), error)),
            };
            total += n as u64;
            if total > limit {
                return Err(StoreError::TooLarge { limit });
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|source| io_error("write", file.path(), source))?;
        }
    }
}

/// Files that are open at a time while many are written, and threads that sync them: a disk that is told once for many is told in less time.
const OPEN_AT_A_TIME: usize = 64;
const SYNCED_AT_A_TIME: usize = 16;

impl FileStore {
    fn write_synced(&self, bytes: &[u8]) -> Result<(NamedTempFile, Digest), StoreError> {
        let mut file = tempfile::Builder::new()
            .tempfile_in(&self.temporary)
            .map_err(|source| io_error("make a temporary file in", &self.temporary, source))?;
        let (digest, _) = self.write(&mut file, &mut &bytes[..], bytes.len() as u64)?;
        self.sync(&file)?;
        Ok((file, digest))
    }

    fn sync(&self, file: &NamedTempFile) -> Result<(), StoreError> {
        let as_file = file.as_file();
        as_file
            .set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| if self.lasts == Lasts::Always { as_file.sync_all() } else { Ok(()) })
            .map_err(|source| io_error("sync", file.path(), source))
    }

    /// Replacing heals a damaged blob of that name; who has the old one open keeps reading the old one.
    fn name(&self, file: NamedTempFile, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob(digest);
        file.persist(&path).map(drop).map_err(|error| io_error("rename a temporary file to", &path, error.error))
    }
}

impl ContentStore for FileStore {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        let mut file = tempfile::Builder::new()
            .tempfile_in(&self.temporary)
            .map_err(|source| io_error("make a temporary file in", &self.temporary, source))?;
        let (digest, size) = self.write(&mut file, reader, limit)?;
        self.sync(&file)?;
        self.name(file, &digest)?;
        sync_folder(&self.blobs, self.lasts)?;
        Ok((digest, size))
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob(digest);
        open_regular(&path).map_err(|source| missing_or(digest, "open", &path, source))
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let file = self.open(digest)?;
        let failed = |source| io_error("read", &self.blob(digest), source);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(StoreError::Corrupt { digest: *digest, found }) }
    }

    fn put_all(&self, contents: &[Vec<u8>]) -> Result<(), StoreError> {
        for several in contents.chunks(OPEN_AT_A_TIME) {
            let (next, written) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
            let work = || {
                while let Some(bytes) = several.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = self.write_synced(bytes);
                    written.lock().unwrap_or_else(PoisonError::into_inner).push(done);
                }
            };
            thread::scope(|scope| {
                for _ in 1..SYNCED_AT_A_TIME.min(several.len()) {
                    // Where no more threads may be, those that there are do it all.
                    let _ = thread::Builder::new().spawn_scoped(scope, work);
                }
                work();
            });
            let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
            let written = written.into_iter().collect::<Result<Vec<_>, _>>()?;
            written.into_iter().try_for_each(|(file, digest)| self.name(file, &digest))?;
        }
        if contents.is_empty() { Ok(()) } else { sync_folder(&self.blobs, self.lasts) }
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.blob(digest);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(path),
            Ok(_) => Err(io_error("use", &path, io::Error::other("not a regular file"))),
            Err(source) => Err(missing_or(digest, "look at", &path, source)),
        }
    }
}

/// Opens a regular file for reading: a link is not followed and a pipe not waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// The folder itself, to be locked: a lock on it needs no file, so that a store that can only be read can be held, too.
fn open_folder(folder: &Path) -> Result<File, StoreError> {
    File::open(folder).map_err(|source| io_error("open", folder, source))
}

fn make_private(folder: &Path, lasts: Lasts) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            fs::set_permissions(folder, Permissions::from_mode(0o700))
                .map_err(|source| io_error("set the mode of", folder, source))?;
            sync_folder(folder.parent().unwrap_or(Path::new(".")), lasts)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(source) => Err(io_error("make the folder", folder, source)),
    }
}

fn sync_folder(folder: &Path, lasts: Lasts) -> Result<(), StoreError> {
    if lasts == Lasts::ForThisProcess {
        return Ok(());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|file| file.sync_all()).map_err(|source| io_error("sync", folder, source))
}

fn missing_or(digest: &Digest, action: &'static str, path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { digest: *digest },
        _ => io_error(action, path, source),
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    struct Breaks(u32);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the line went dead"));
            }
            self.0 -= 1;
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }

    fn store() -> (tempfile::TempDir, FileStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(&dir.path().join("home/store")).unwrap();
        (dir, store)
    }

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_was_put_is_read_back_under_its_digest() {
        let (_dir, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
        let mut text = String::new();
        ContentStore::open(&store, &digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(store.path(&digest).unwrap().ends_with(format!("blobs/sha256/{}", digest.hex())));
    }

    #[test]
    fn many_that_are_put_at_once_are_each_there() {
        let (_dir, store) = store();
        let contents: Vec<Vec<u8>> = (0..20_u8).map(|nth| vec![nth; 1000]).collect();
        store.put_all(&contents).unwrap();
        store.put_all(&[]).unwrap();
        for content in &contents {
            assert_eq!(store.read(&Digest::of(content), 1000).unwrap(), *content);
        }
        assert_eq!(files_in(&store.temporary), 0);
        fs::remove_dir(&store.temporary).unwrap();
        let error = store.put_all(&contents).unwrap_err();
        assert!(matches!(error, StoreError::Io { action: "make a temporary file in", .. }), "{error}");
    }

    #[test]
    fn a_write_that_breaks_off_leaves_nothing() {
        let (_dir, store) = store();
        let error = store.put(&mut Breaks(3), u64::MAX).unwrap_err();
        assert!(matches!(error, StoreError::Io { action: "read the content for", .. }), "{error}");
        assert_eq!((files_in(&store.blobs), files_in(&store.temporary)), (0, 0));
    }

    #[test]
    fn the_limit_is_exact_and_nothing_is_kept_beyond_it() {
        let (_dir, store) = store();
        assert!(matches!(store.put(&mut &b"12345"[..], 4), Err(StoreError::TooLarge { limit: 4 })));
        assert_eq!((files_in(&store.blobs), files_in(&store.temporary)), (0, 0));
        let (digest, size) = store.put(&mut &b"12345"[..], 5).unwrap();
        assert_eq!(size, 5);
        assert!(matches!(store.read(&digest, 4), Err(StoreError::TooLarge { limit: 4 })));
        assert_eq!(store.read(&digest, 5).unwrap(), b"12345");
    }

    #[test]
    fn a_damaged_blob_is_named_and_healed_by_the_next_put() {
        let (_dir, store) = store();
        let digest = store.put_bytes(b"right").unwrap();
        fs::write(store.path(&digest).unwrap(), b"wrong").unwrap();
        let error = store.read(&digest, 100).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { found, .. } if found == Digest::of(b"wrong")), "{error}");
        store.put_bytes(b"right").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap(), b"right");
    }

    #[test]
    fn an_absent_blob_and_a_link_in_its_place_are_told_apart() {
        let (dir, store) = store();
        let digest = Digest::of(b"abc");
        assert!(matches!(store.read(&digest, 9), Err(StoreError::Missing { .. })));
        assert!(matches!(store.path(&digest), Err(StoreError::Missing { .. })));
        let outside = dir.path().join("outside");
        fs::write(&outside, b"abc").unwrap();
        std::os::unix::fs::symlink(&outside, store.blob(&digest)).unwrap();
        assert!(matches!(ContentStore::open(&store, &digest), Err(StoreError::Io { .. })));
        assert!(matches!(store.path(&digest), Err(StoreError::Io { .. })));
    }

    #[test]
    fn writers_of_the_same_content_do_not_disturb_each_other() {
        let (_dir, store) = store();
        let bytes = vec![7; 3 << 20];
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| store.put_bytes(&bytes).unwrap())).collect();
            for writer in writers {
                assert_eq!(writer.join().unwrap(), Digest::of(&bytes));
            }
        });
        assert_eq!((files_in(&store.blobs), files_in(&store.temporary)), (1, 0));
        assert_eq!(store.read(&Digest::of(&bytes), 3 << 20).unwrap().len(), bytes.len());
    }

    #[test]
    fn files_and_folders_are_private() {
        let (dir, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        assert_eq!(fs::metadata(store.path(&digest).unwrap()).unwrap().mode() & 0o7777, 0o600);
        for folder in [&dir.path().join("home/store"), &store.blobs, &store.temporary] {
            assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn only_old_temporary_files_are_swept() {
        let (dir, store) = store();
        let (old, new) = (store.temporary.join("old"), store.temporary.join("new"));
        fs::write(&old, b"x").unwrap();
        fs::write(&new, b"x").unwrap();
        let yesterday = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        File::options().write(true).open(&old).unwrap().set_modified(yesterday).unwrap();
        FileStore::open(&dir.path().join("home/store")).unwrap();
        assert!(!old.exists() && new.exists());
    }
}
