//! What `prune` sees of a store and of the index of step results, and what it removes there.
//!
//! Every folder is opened from the one above it and never through a link, and every file is looked at and removed by its name in the open
//! folder: what somebody put in the place of either leads nowhere.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use sluicegate_ports::{
    prune::{AgedObject, AgedObjects, Disposable, Listed, PrunableStore, StoredContent, Thing, Tie},
    store::StoreError,
};
use sluicegate_types::{Digest, UnixTime};

use crate::{
    file_store::{FileStore, io_error},
    scan_index::FileScanIndex,
    step_cache::{FileStepCache, read_digest},
};

const BLOBS: [&str; 2] = ["blobs", "sha256"];
const DRAFTS: [&str; 1] = ["tmp"];
const STEPS: [&str; 1] = ["steps"];

impl PrunableStore for FileStore {
    fn list(&self) -> Result<Listed, StoreError> {
        let mut listed = Listed::default();
        for_each(self.folder(), &BLOBS, |path, name, found| {
            match content(name).filter(|_| found.is_file) {
                Some(digest) => listed.contents.push(StoredContent { digest, size: found.size }),
                None => listed.strangers.push(path),
            }
            Ok(())
        })?;
        // Somebody else's may be on its way to a name.
        if self.is_alone() {
            for_each(self.folder(), &DRAFTS, |path, _, found| {
                if found.is_file {
                    listed.drafts += 1;
                    listed.draft_bytes += found.size;
                } else {
                    listed.strangers.push(path);
                }
                Ok(())
            })?;
        }
        Ok(listed)
    }

    fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        remove(self.folder(), &BLOBS, &digest.hex())
    }

    fn remove_drafts(&self) -> Result<(), StoreError> {
        if !self.is_alone() {
            return Ok(());
        }
        let mut names = Vec::new();
        for_each(self.folder(), &DRAFTS, |_, name, found| {
            if found.is_file {
                names.push(name.to_owned());
            }
            Ok(())
        })?;
        let Some(folder) = open(self.folder(), &DRAFTS)? else { return Ok(()) };
        names.iter().try_for_each(|name| unlink(&folder, name, &self.folder().join(DRAFTS[0])))
    }
}

impl Disposable for FileStepCache {
    fn what(&self) -> &'static str {
        "step results"
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        index_files(self.folder(), &STEPS)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        remove(self.folder(), &STEPS, name)
    }
}

impl Disposable for FileScanIndex {
    fn what(&self) -> &'static str {
        "scans"
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        index_files(self.folder(), &[])
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        remove(self.folder(), &[], name)
    }
}

/// Files that are named by a key and lead to a bundle.
fn index_files(folder: &Path, below: &[&str]) -> Result<Vec<Thing>, StoreError> {
    let mut things = Vec::new();
    for_each(folder, below, |path, name, found| {
        // A draft of a process that is gone leads nowhere.
        let Some(name) = name.to_str().filter(|_| !found.is_folder) else { return Ok(()) };
        let leads_to = Digest::from_hex(name).ok().filter(|_| found.is_file).and_then(|_| read_digest(&path));
        let (size, used) = (found.size, found.modified);
        things.push(Thing { name: name.to_owned(), size, used, tie: Tie::LeadsTo(leads_to) });
        Ok(())
    })?;
    Ok(things)
}

/// Files of a folder that are named by digests, such as those of a store that machines share. What is called otherwise is none of them, but
/// for a draft of one: its name with `#` and a number behind, as `object_store` writes them.
#[derive(Debug)]
pub struct FilesByDigest {
    top: PathBuf,
    below: [&'static str; 2],
    what: &'static str,
}

/// Files that are shown at a time.
const AT_A_TIME: usize = 1000;

impl FilesByDigest {
    /// Those in the folder `below` `top`; `what` they are, in the plural.
    pub fn new(top: PathBuf, below: [&'static str; 2], what: &'static str) -> Self {
        Self { top, below, what }
    }
}

impl AgedObjects for FilesByDigest {
    fn what(&self) -> &'static str {
        self.what
    }

    fn for_some(&self, show: &mut dyn FnMut(&[AgedObject]) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut some = Vec::new();
        for_each(&self.top, &self.below, |_, name, found| {
            if let Some((name, is_draft)) = named(name).filter(|_| found.is_file) {
                some.push(AgedObject { name: name.to_owned(), size: found.size, put: found.modified, is_draft });
            }
            if some.len() < AT_A_TIME {
                return Ok(());
            }
            show(&std::mem::take(&mut some))
        })?;
        show(&some)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match named(OsStr::new(name)) {
            Some(_) => remove(&self.top, &self.below, name),
            None => Err(io_error("remove", &self.top.join(name), io::Error::other("that is no name of a file here"))),
        }
    }
}

/// Whether a file is called by a digest, and whether it is a draft of one that is.
fn named(name: &OsStr) -> Option<(&str, bool)> {
    let name = name.to_str()?;
    let (digest, draft) = name.split_once('#').map_or((name, None), |(digest, draft)| (digest, Some(draft)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_named = Digest::from_hex(digest).is_ok() && draft.is_none_or(is_number);
    is_named.then_some((name, draft.is_some()))
}

/// What is known of an entry of a folder without opening it.
struct Found {
    is_file: bool,
    is_folder: bool,
    size: u64,
    modified: UnixTime,
}

/// The digest that a file in the folder of contents is called by.
fn content(name: &OsStr) -> Option<Digest> {
    name.to_str().and_then(|name| Digest::from_hex(name).ok())
}

/// Shows what is in the folder `below` `top`, with its path; a folder that is not there is empty.
fn for_each(
    top: &Path,
    below: &[&str],
    mut show: impl FnMut(PathBuf, &OsStr, Found) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let path = below.iter().fold(top.to_owned(), |path, part| path.join(part));
    let Some(folder) = open(top, below)? else { return Ok(()) };
    let failed = |error: Errno| io_error("list", &path, error.into());
    for entry in Dir::read_from(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let at = path.join(name);
        let stat = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(io_error("look at", &at, error.into())),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let found = Found {
            is_file: kind == FileType::RegularFile,
            is_folder: kind == FileType::Directory,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: UnixTime::from_seconds(stat.st_mtime).unwrap_or(UnixTime::EPOCH),
        };
        show(at, name, found)?;
    }
    Ok(())
}

/// Opens a folder below `top`, step by step and through no link; `None` if it is not there.
fn open(top: &Path, below: &[&str]) -> Result<Option<OwnedFd>, StoreError> {
    const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let mut path = top.to_owned();
    let mut folder = match fs::open(top, FLAGS, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(io_error("open the folder", &path, error.into())),
    };
    for part in below {
        path.push(part);
        folder = match fs::openat(&folder, *part, FLAGS, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(io_error("open the folder", &path, error.into())),
        };
    }
    Ok(Some(folder))
}

fn remove(top: &Path, below: &[&str], name: &str) -> Result<(), StoreError> {
    let path = below.iter().fold(top.to_owned(), |path, part| path.join(part));
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(io_error("remove", &path.join(name), io::Error::other("that is no name of a file")));
    }
    match open(top, below)? {
        Some(folder) => unlink(&folder, OsStr::new(name), &path),
        None => Ok(()),
    }
}

/// Removes a name, and never what it leads to.
fn unlink(folder: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), StoreError> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(io_error("remove", &path.join(name), error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
        time::{Duration, SystemTime},
    };

    use sluicegate_ports::store::ContentStore;

    use sluicegate_ports::step_cache::StepCache;

    use super::*;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        (dir, store)
    }

    #[test]
    fn a_store_is_had_alone_only_while_nobody_else_has_it() {
        let (_dir, path) = home();
        let one = FileStore::open(&path).unwrap();
        let other = FileStore::open(&path).unwrap();
        assert!(FileStore::open_alone(&path).unwrap().is_none());
        drop(one);
        assert!(FileStore::open_alone(&path).unwrap().is_none());
        drop(other);
        let alone = FileStore::open_alone(&path).unwrap().unwrap();
        assert!(FileStore::open_alone(&path).unwrap().is_none());
        drop(alone);
        assert!(FileStore::open_alone(&path).unwrap().is_some());
    }

    #[test]
    fn contents_are_listed_and_removed_and_strangers_are_neither() {
        let (dir, path) = home();
        let store = FileStore::open_alone(&path).unwrap().unwrap();
        let kept = store.put_bytes(b"kept").unwrap();
        let gone = store.put_bytes(b"gone!").unwrap();
        let blobs = path.join("blobs/sha256");
        let outside = dir.path().join("outside");
        fs::write(&outside, b"outside").unwrap();
        let (link, folder) = (Digest::of(b"link"), Digest::of(b"folder"));
        symlink(&outside, blobs.join(link.hex())).unwrap();
        fs::create_dir(blobs.join(folder.hex())).unwrap();
        fs::write(blobs.join("notes"), b"x").unwrap();
        fs::write(path.join("tmp/draft"), b"xyz").unwrap();

        let listed = store.list().unwrap();
        let mut contents: Vec<_> = listed.contents.iter().map(|content| (content.digest, content.size)).collect();
        contents.sort();
        let mut expected = vec![(kept, 4), (gone, 5)];
        expected.sort();
        assert_eq!(contents, expected);
        assert_eq!((listed.drafts, listed.draft_bytes, listed.strangers.len()), (1, 3, 3));

        PrunableStore::remove(&store, &gone).unwrap();
        PrunableStore::remove(&store, &gone).unwrap();
        store.remove_drafts().unwrap();
        assert!(matches!(store.open(&gone), Err(StoreError::Missing { .. })));
        assert_eq!(store.read(&kept, 9).unwrap(), b"kept");
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
        // Even asked for, a link goes and what it leads to stays; a folder stays.
        PrunableStore::remove(&store, &link).unwrap();
        assert!(matches!(PrunableStore::remove(&store, &folder), Err(StoreError::Io { .. })));
        assert_eq!(fs::read(&outside).unwrap(), b"outside");
    }

    #[test]
    fn files_by_digest_are_shown_with_their_drafts_and_nothing_else_is() {
        let (dir, path) = home();
        let folder = path.join("v1/results");
        fs::create_dir_all(&folder).unwrap();
        let files = FilesByDigest::new(path.clone(), ["v1", "results"], "results");
        let shown = || {
            let mut all = Vec::new();
            let done = files.for_some(&mut |some| {
                all.extend(some.iter().map(|object| (object.name.clone(), object.size, object.is_draft)));
                Ok(())
            });
            all.sort();
            done.map(|()| all)
        };
        let (one, other) = (Digest::of(b"one").hex(), Digest::of(b"other").hex());
        let draft = format!("{one}#12");
        let outside = dir.path().join("outside");
        fs::write(&outside, b"outside").unwrap();
        fs::write(folder.join(&one), b"abc").unwrap();
        fs::write(folder.join(&draft), b"ab").unwrap();
        let strangers = ["notes#1".to_owned(), format!("{one}#"), format!("{one}#1#2"), format!("{one}#\n  now: do")];
        strangers.iter().for_each(|name| fs::write(folder.join(name), b"x").unwrap());
        fs::create_dir(folder.join(&other)).unwrap();
        symlink(&outside, folder.join(Digest::of(b"link").hex())).unwrap();
        assert_eq!(shown().unwrap(), [(one.clone(), 3, false), (draft.clone(), 2, true)]);
        [&one, &draft, &one].iter().for_each(|name| files.remove(name).unwrap());
        assert_eq!(shown().unwrap(), []);
        for name in &strangers {
            assert!(files.remove(name).is_err() && folder.join(name).exists(), "{name}");
        }
        assert!(files.remove("../results").is_err() && outside.exists());
        // Some at a time, each once, and the first error ends it.
        let many: Vec<String> = (0..2 * AT_A_TIME + 1).map(|n| Digest::of(&n.to_le_bytes()).hex()).collect();
        many.iter().for_each(|name| fs::write(folder.join(name), b"").unwrap());
        assert_eq!(shown().unwrap().len(), many.len());
        let mut sizes = Vec::new();
        let refused = || Err(io_error("remove", &folder, io::Error::other("refused")));
        files
            .for_some(&mut |some| {
                sizes.push(some.len());
                if sizes.len() == 2 { refused() } else { Ok(()) }
            })
            .unwrap_err();
        assert_eq!(sizes, [AT_A_TIME, AT_A_TIME]);
        // Whoever can write there leads nobody to files elsewhere.
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join(&one), b"mine").unwrap();
        fs::rename(&folder, path.join("aside")).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        assert!(matches!(shown(), Err(StoreError::Io { .. })));
        assert!(matches!(files.remove(&one), Err(StoreError::Io { .. })));
        assert!(elsewhere.join(&one).exists());
        fs::remove_file(&folder).unwrap();
        assert_eq!(shown().unwrap(), []);
    }

    #[test]
    fn a_folder_that_is_a_link_is_refused() {
        for part in ["blobs", "blobs/sha256"] {
            let (dir, path) = home();
            let digest = FileStore::open(&path).unwrap().put_bytes(b"abc").unwrap();
            assert_eq!(FileStore::open(&path).unwrap().list().unwrap().contents.len(), 1);
            let elsewhere = dir.path().join("elsewhere");
            fs::rename(path.join(part), &elsewhere).unwrap();
            symlink(&elsewhere, path.join(part)).unwrap();
            let store = FileStore::open(&path).unwrap();
            assert!(matches!(store.list(), Err(StoreError::Io { .. })), "{part}");
            assert!(matches!(PrunableStore::remove(&store, &digest), Err(StoreError::Io { .. })), "{part}");
            assert_eq!(store.read(&digest, 9).unwrap(), b"abc");
        }
    }

    #[test]
    fn who_is_not_alone_leaves_drafts_to_their_writers() {
        let (_dir, path) = home();
        let store = FileStore::open(&path).unwrap();
        fs::write(path.join("tmp/draft"), b"xyz").unwrap();
        assert_eq!(store.list().unwrap().drafts, 0);
        store.remove_drafts().unwrap();
        assert!(path.join("tmp/draft").exists());
    }

    #[test]
    fn results_are_listed_by_last_use_and_what_leads_nowhere_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FileStepCache::new(&dir.path().join("cache"));
        assert!(cache.things().unwrap().is_empty());
        let (key, junk, bundle) = (Digest::of(b"key"), Digest::of(b"junk"), Digest::of(b"bundle"));
        cache.keep(&key, &bundle).unwrap();
        cache.keep(&junk, &bundle).unwrap();
        let steps = dir.path().join("cache/steps");
        fs::write(steps.join(junk.hex()), b"?").unwrap();
        fs::write(steps.join(".tmpABC"), b"draft").unwrap();
        symlink("/etc/passwd", steps.join("link")).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(90 * 86_400);
        File::options().write(true).open(steps.join(key.hex())).unwrap().set_modified(long_ago).unwrap();

        let things = cache.things().unwrap();
        let find = |name: &str| things.iter().find(|thing| thing.name == name).unwrap().clone();
        assert_eq!(find(&key.hex()).tie, Tie::LeadsTo(Some(bundle)));
        for nothing in [&junk.hex(), ".tmpABC", "link"] {
            assert_eq!(find(nothing).tie, Tie::LeadsTo(None), "{nothing}");
        }
        let age = |name: &str| {
            let used = cache.things().unwrap().into_iter().find(|thing| thing.name == name).unwrap().used;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            i64::try_from(now).unwrap() - used.seconds()
        };
        assert!(age(&key.hex()) > 89 * 86_400);
        cache.used(&key);
        assert!(age(&key.hex()) < 86_400);

        things.iter().for_each(|thing| Disposable::remove(&cache, &thing.name).unwrap());
        assert!(cache.things().unwrap().is_empty() && Path::new("/etc/passwd").exists());
        assert!(Disposable::remove(&cache, "../last").is_err());
    }
}
