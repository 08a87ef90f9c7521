use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use sluicegate_ports::store::{ContentStore, StoreError};
use sluicegate_types::Digest;

use crate::file_store::{FileStore, open_regular};

/// Content on its way through one process, in a private folder that is gone when that ends. It is not synced, and need not be copied on
/// its way in and out: its files may get a name in a layout, and a layout's files one here.
///
/// That is for nobody's evidence, which would change with whatever file shares its bytes; so a [`FileStore`] can do neither.
pub struct ScratchStore {
    /// What was written here.
    own: FileStore,
    /// Files of others, by their digests when they were read. Apart from the rest, as none of them is given away.
    borrowed: FileStore,
}

impl ScratchStore {
    /// Opens the store in `dir` and makes its folders if they are missing.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let own = FileStore::open_scratch(dir)?;
        Ok(Self { own, borrowed: FileStore::open_scratch(&dir.join("borrowed"))? })
    }

    /// What `ask` gives of the blob that was written here, or else of the one that is borrowed.
    fn either<T>(&self, ask: impl Fn(&FileStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match ask(&self.own) {
            Err(StoreError::Missing { .. }) => ask(&self.borrowed),
            asked => asked,
        }
    }
}

impl ContentStore for ScratchStore {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        self.own.put(reader, limit)
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        self.either(|store| store.open(digest))
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.either(|store| store.read(digest, limit))
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.either(|store| store.path(digest))
    }

    fn give(&self, digest: &Digest, to: &Path) -> Option<File> {
        let file = self.own.open(digest).ok()?;
        fs::hard_link(self.own.blob(digest), to).ok()?;
        Some(file)
    }

    fn borrow(&self, file: &Path, limit: u64) -> Option<(Digest, u64)> {
        // The name comes first, in a folder where nobody else changes what it is a name of: a link or a pipe in the file's place is
        // found out when that is opened.
        let named = self.borrowed.draft(|draft| fs::hard_link(file, draft)).ok()?;
        let opened = open_regular(named.path()).ok()?;
        let (digest, size) = Digest::of_reader(&mut opened.take(limit.saturating_add(1))).ok()?;
        if size > limit {
            return None;
        }
        named.persist(self.borrowed.blob(&digest)).ok()?;
        Some((digest, size))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn store() -> (tempfile::TempDir, ScratchStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ScratchStore::open(&dir.path().join("scratch")).unwrap();
        (dir, store)
    }

    fn inode(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().ino()
    }

    fn drafts(store: &ScratchStore) -> usize {
        fs::read_dir(store.borrowed.blob(&Digest::of(b"")).ancestors().nth(3).unwrap().join("tmp")).unwrap().count()
    }

    #[test]
    fn what_was_put_is_read_back_and_given_away() {
        let (dir, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        assert!(matches!(store.put(&mut &b"abcd"[..], 3), Err(StoreError::TooLarge { limit: 3 })));
        assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
        let to = dir.path().join("given");
        let file = store.give(&digest, &to).unwrap();
        assert_eq!((inode(&to), inode(&store.path(&digest).unwrap())), (file.metadata().unwrap().ino(), inode(&to)));
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        // Not over what is there, and not what is not here.
        assert!(store.give(&digest, &to).is_none());
        assert!(store.give(&Digest::of(b"other"), &dir.path().join("other")).is_none());
        assert!(!dir.path().join("other").exists());
    }

    #[test]
    fn a_file_is_borrowed_under_the_digest_of_its_bytes_and_stays_as_it_is() {
        let (dir, store) = store();
        let file = dir.path().join("file");
        fs::write(&file, b"abc").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(store.borrow(&file, 3), Some((Digest::of(b"abc"), 3)));
        let digest = Digest::of(b"abc");
        assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
        assert_eq!(inode(&store.path(&digest).unwrap()), inode(&file));
        // Once more is no harm; and what is another's is not given away.
        assert_eq!(store.borrow(&file, 3), Some((digest, 3)));
        assert!(store.give(&digest, &dir.path().join("given")).is_none());
        // What was hashed and is another by now is known when it is read.
        fs::write(&file, b"abd").unwrap();
        assert!(matches!(store.read(&digest, 3), Err(StoreError::Corrupt { .. })));
        // What is written here comes before it, and into no file of somebody else's.
        store.put_bytes(b"abc").unwrap();
        assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
        assert!(store.give(&digest, &dir.path().join("given")).is_some());
        assert_eq!(fs::read(&file).unwrap(), b"abd");
        let (path, parts) = (dir.path().to_owned(), store);
        drop(parts);
        fs::remove_dir_all(path.join("scratch")).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink(), fs::read(&file).unwrap()), (0o640, 1, b"abd".to_vec()));
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_not_borrowed() {
        let (dir, store) = store();
        let file = dir.path().join("file");
        fs::write(&file, b"abc").unwrap();
        assert_eq!(store.borrow(&file, 2), None);
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(store.borrow(&link, 3), None);
        assert_eq!(store.borrow(dir.path(), 3), None);
        assert_eq!(store.borrow(&dir.path().join("none"), 3), None);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(store.borrow(&dir.path().join("pipe"), 3), None);
        assert_eq!(drafts(&store), 0);
        assert!(matches!(store.open(&Digest::of(b"abc")), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn another_file_system_is_copied_to_and_from() {
        let (dir, store) = store();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(elsewhere.path()) == device(dir.path()) {
            return;
        }
        let file = elsewhere.path().join("file");
        fs::write(&file, b"abc").unwrap();
        assert_eq!(store.borrow(&file, 3), None);
        let digest = store.put_bytes(b"abc").unwrap();
        assert!(store.give(&digest, &elsewhere.path().join("given")).is_none());
        assert!(!elsewhere.path().join("given").exists());
    }

    #[test]
    fn a_store_that_lasts_shares_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(&dir.path().join("store")).unwrap();
        let digest = store.put_bytes(b"abc").unwrap();
        let file = dir.path().join("file");
        assert!(store.give(&digest, &file).is_none() && !file.exists());
        fs::write(&file, b"abd").unwrap();
        assert!(store.borrow(&file, 3).is_none());
        assert_eq!(fs::metadata(store.path(&digest).unwrap()).unwrap().nlink(), 1);
    }
}
