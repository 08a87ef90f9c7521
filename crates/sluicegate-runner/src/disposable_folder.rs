//! Folders of things that can be made or fetched again, as `prune` sees them: unpacked layers and inputs, fetched sources, what the scanner
//! works with, shared caches of steps.
//!
//! A thing gets another name before anything of it goes: whoever finds it by its own name finds all of it, even after a crash. Nothing here
//! follows a link.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, Stat},
    io::Errno,
};
use sluicegate_ports::{
    prune::{Disposable, Thing, Tie},
    store::StoreError,
};
use sluicegate_types::{Digest, UnixTime};

use crate::{executor::SEALS, held_lock::HeldLock, in_root, seal, shared_cache::LOCK};

/// The name of a thing that is going begins with this; it is removed by `prune` alone, as somebody may still read it.
pub(crate) const GOING: &str = ".going-";
/// Where a [`crate::cache::Cache`] notes when a thing was last used, one empty file each.
pub(crate) const MARKS: &str = "used";
/// The folders of such a cache.
pub(crate) const KINDS: [&str; 4] = ["alone", "chain", "tree", "file"];

/// A folder whose entries, or those of some folders in it, are one thing each.
#[derive(Clone, Debug)]
pub struct DisposableFolder {
    what: &'static str,
    folder: PathBuf,
    /// Folders in it with the things; none if these are its own entries.
    kinds: &'static [&'static str],
    used: LastUse,
    /// Where the seal of each thing is, if they have any.
    seals: Option<PathBuf>,
    /// The file in each that whoever uses it holds locked, if there is one.
    lock: Option<&'static str>,
    /// Whether each is named after the content that it was made from.
    named_by_content: bool,
}

/// Where it is seen when a thing was last used.
#[derive(Clone, Copy, Debug)]
enum LastUse {
    /// In the time of a file beside it: its own times are somebody's content.
    Mark,
    /// In the time of a file in it.
    Inside(&'static str),
    /// In its own time, which is when it was made.
    Own,
}

impl DisposableFolder {
    /// The unpacked layers and inputs of an executor, by the two folders of its configuration.
    pub fn of_layers(state_dir: &Path, layer_cache: PathBuf) -> Self {
        let seals = Some(state_dir.join(SEALS));
        Self { kinds: &KINDS, used: LastUse::Mark, seals, ..Self::of("unpacked layers and inputs", layer_cache) }
    }

    /// The repositories of sources that were fetched.
    pub fn of_sources(cache: PathBuf) -> Self {
        Self { used: LastUse::Inside("lock"), ..Self::of("fetched sources", cache) }
    }

    /// The scopes of caches that steps share. One that a step has is not there for anybody who removes.
    pub fn of_shared_caches(folder: PathBuf) -> Self {
        Self { used: LastUse::Inside(LOCK), lock: Some(LOCK), ..Self::of("shared caches of steps", folder) }
    }

    /// Things of another kind, of which nothing is known but when they were made.
    pub fn of(what: &'static str, folder: PathBuf) -> Self {
        Self { what, folder, kinds: &[], used: LastUse::Own, seals: None, lock: None, named_by_content: false }
    }

    /// The same whose names are the digests of the contents that they were made from.
    pub fn named_by_content(self) -> Self {
        Self { named_by_content: true, ..self }
    }

    fn things_in(&self, kind: &str, found: &mut Vec<Thing>) -> Result<(), StoreError> {
        let path = self.folder.join(kind);
        let Some(folder) = self.open(kind)? else { return Ok(()) };
        let failed = |error: Errno| store_error("list", &path, error);
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = OsStr::from_bytes(entry.file_name().to_bytes()).to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let own = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(own) => own,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(store_error("look at", &path.join(name), error)),
            };
            if let Err(error) = self.lock(&folder, name) {
                if error.kind() == ErrorKind::WouldBlock {
                    continue;
                }
                return Err(StoreError::Io { action: "lock", path: path.join(name), source: error });
            }
            // What is going already was used by nobody since.
            let used = if name.starts_with(GOING) { UnixTime::EPOCH } else { self.used(&folder, kind, name, &own) };
            let content = Digest::from_hex(name).ok().filter(|_| self.named_by_content);
            found.push(Thing {
                name: if kind.is_empty() { name.to_owned() } else { format!("{kind}/{name}") },
                size: size(&path.join(name)),
                used,
                tie: content.map_or(Tie::Nothing, Tie::MadeFrom),
            });
        }
        Ok(())
    }

    fn used(&self, folder: &OwnedFd, kind: &str, name: &str, own: &Stat) -> UnixTime {
        let time = |seconds: i64| UnixTime::from_seconds(seconds).unwrap_or(UnixTime::EPOCH);
        let look = |root: &OwnedFd, path: &str| rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).ok();
        let noted = match self.used {
            LastUse::Mark => {
                let marks = self.open(MARKS).ok().flatten();
                marks.and_then(|marks| look(&marks, &mark(kind, name))).map(|mark| time(mark.st_mtime))
            }
            LastUse::Inside(file) => {
                let inner = in_root::open_folder(folder.as_fd(), Path::new(name), INSIDE).ok();
                inner.and_then(|inner| look(&inner, file)).map(|file| time(file.st_mtime))
            }
            LastUse::Own => Some(time(own.st_mtime)),
        };
        // When it got its name.
        noted.unwrap_or_else(|| time(own.st_ctime))
    }

    /// The lock of a thing, if it has one; whoever uses the thing has it otherwise.
    fn lock(&self, folder: &OwnedFd, name: &str) -> io::Result<Option<HeldLock>> {
        let Some(file) = self.lock else { return Ok(None) };
        // What is no folder, or has no lock, is used by nobody.
        let Ok(inner) = in_root::open_folder(folder.as_fd(), Path::new(name), INSIDE) else { return Ok(None) };
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&inner, file, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(None),
            opened => fs::File::from(opened?),
        };
        match HeldLock::try_on(file)? {
            None => Err(io::Error::new(ErrorKind::WouldBlock, "it is in use")),
            held => Ok(held),
        }
    }

    /// A folder in this one, through no link; `None` if it is not there.
    fn open(&self, below: &str) -> Result<Option<OwnedFd>, StoreError> {
        let opened = in_root::open_root(&self.folder).and_then(|root| {
            if below.is_empty() { Ok(root) } else { in_root::open_folder(root.as_fd(), Path::new(below), INSIDE) }
        });
        match opened {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(store_error("open the folder", &self.folder.join(below), error)),
        }
    }
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

impl Disposable for DisposableFolder {
    fn what(&self) -> &'static str {
        self.what
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        let mut found = Vec::new();
        if self.kinds.is_empty() {
            self.things_in("", &mut found)?;
        }
        self.kinds.iter().try_for_each(|kind| self.things_in(kind, &mut found))?;
        Ok(found)
    }

    fn remove(&self, thing: &str) -> Result<(), StoreError> {
        let (kind, name) = thing.split_once('/').unwrap_or(("", thing));
        let known = if self.kinds.is_empty() { kind.is_empty() } else { self.kinds.contains(&kind) };
        let path = self.folder.join(thing);
        if !known || matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(StoreError::Io {
                action: "remove",
                path,
                source: io::Error::other("that is no name of a thing here"),
            });
        }
        let Some(folder) = self.open(kind)? else { return Ok(()) };
        let failed = |error: Errno| store_error("remove", &path, error);
        // Held until it is gone: whoever waits for it finds another one or none.
        let _lock = self.lock(&folder, name).map_err(|source| StoreError::Io {
            action: "remove",
            path: path.clone(),
            source,
        })?;
        let inode = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| found.st_ino);
        let going = if name.starts_with(GOING) { name.to_owned() } else { format!("{GOING}{name}") };
        if going != name {
            match rustix::fs::renameat_with(&folder, name, &folder, &going, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(()),
                // The rest of an earlier one of this name.
                Err(Errno::EXIST) => {
                    in_root::remove(folder.as_fd(), OsStr::new(&going))
                        .and_then(|()| Ok(rustix::fs::renameat(&folder, name, &folder, &going)?))
                        .map_err(|source| StoreError::Io { action: "remove", path: path.clone(), source })?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        in_root::remove(folder.as_fd(), OsStr::new(&going)).map_err(|source| StoreError::Io {
            action: "remove",
            path: path.clone(),
            source,
        })?;
        if let (Some(seals), Ok(inode)) = (&self.seals, inode)
            && let Ok(seals) = in_root::open_root(seals)
        {
            // One that stays is the seal of nothing.
            let _ =
                rustix::fs::unlinkat(&seals, seal::file_name(kind.as_ref(), name.as_ref(), inode), AtFlags::empty());
        }
        if let LastUse::Mark = self.used
            && let Ok(Some(marks)) = self.open(MARKS)
        {
            // One that stays is taken for the mark of whatever gets that name next, and is renewed then.
            let _ = rustix::fs::unlinkat(&marks, mark(kind, name), AtFlags::empty());
        }
        Ok(())
    }
}

/// Notes that the thing of this name is used now. What can't be noted is only let go sooner.
pub(crate) fn note_use(folder: &Path, kind: &str, name: &str) {
    let path = folder.join(MARKS).join(mark(kind, name));
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = fs::File::options().create(true).append(true).mode(0o600).custom_flags(flags).open(path);
    if let Ok(file) = file {
        let _ = file.set_modified(SystemTime::now());
    }
}

fn mark(kind: &str, name: &str) -> String {
    format!("{kind}-{name}")
}

/// Bytes on the disk, each file once whatever its names; what can't be looked at counts nothing.
fn size(path: &Path) -> u64 {
    let (mut total, mut waiting, mut linked) = (0, vec![path.to_owned()], BTreeSet::new());
    while let Some(path) = waiting.pop() {
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.nlink() < 2 || found.is_dir() || linked.insert((found.dev(), found.ino())) {
            total += found.blocks() * 512;
        }
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

fn store_error(action: &'static str, path: &Path, error: Errno) -> StoreError {
    let source = match error {
        Errno::LOOP | Errno::XDEV => io::Error::new(ErrorKind::NotADirectory, "it is, or leads over, a link"),
        error => error.into(),
    };
    StoreError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;

    fn layers() -> (tempfile::TempDir, DisposableFolder) {
        let dir = tempfile::tempdir().unwrap();
        for folder in KINDS.iter().chain([&MARKS, &"tmp"]) {
            fs::create_dir_all(dir.path().join("layers").join(folder)).unwrap();
        }
        let folder = DisposableFolder::of_layers(dir.path(), dir.path().join("layers"));
        (dir, folder)
    }

    fn names(folder: &DisposableFolder) -> Vec<String> {
        let mut names: Vec<_> = folder.things().unwrap().into_iter().map(|thing| thing.name).collect();
        names.sort();
        names
    }

    fn age(folder: &DisposableFolder, name: &str) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let thing = folder.things().unwrap().into_iter().find(|thing| thing.name == name).unwrap();
        i64::try_from(now).unwrap() - thing.used.seconds()
    }

    #[test]
    fn a_layer_is_as_old_as_its_last_use_and_not_as_what_it_holds() {
        let (dir, folder) = layers();
        let layer = dir.path().join("layers/alone/abc");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("file"), vec![7; 100_000]).unwrap();
        let in_1980 = SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800);
        fs::File::open(&layer).unwrap().set_modified(in_1980).unwrap();
        assert!(age(&folder, "alone/abc") < 86_400);
        note_use(&dir.path().join("layers"), "alone", "abc");
        let mark = dir.path().join("layers/used/alone-abc");
        fs::File::options().write(true).open(&mark).unwrap().set_modified(in_1980).unwrap();
        assert!(age(&folder, "alone/abc") > 86_400);
        note_use(&dir.path().join("layers"), "alone", "abc");
        assert!(age(&folder, "alone/abc") < 86_400);
        assert!(folder.things().unwrap()[0].size >= 100_000);

        folder.remove("alone/abc").unwrap();
        folder.remove("alone/abc").unwrap();
        assert!(!layer.exists() && !mark.exists() && names(&folder).is_empty());
    }

    #[test]
    fn what_was_begun_to_be_removed_has_no_name_of_its_own_and_goes_next() {
        let (dir, folder) = layers();
        let alone = dir.path().join("layers/alone");
        fs::create_dir_all(alone.join(".going-abc/rest")).unwrap();
        fs::create_dir_all(alone.join("abc/new")).unwrap();
        assert_eq!(names(&folder), ["alone/.going-abc", "alone/abc"]);
        folder.remove("alone/abc").unwrap();
        assert!(names(&folder).is_empty());
        fs::create_dir_all(alone.join(".going-abc/rest")).unwrap();
        folder.remove("alone/.going-abc").unwrap();
        assert_eq!(fs::read_dir(&alone).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_never_followed() {
        let (dir, folder) = layers();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), b"x").unwrap();
        let alone = dir.path().join("layers/alone");
        symlink(&outside, alone.join("link")).unwrap();
        fs::create_dir(alone.join("layer")).unwrap();
        symlink(&outside, alone.join("layer/link")).unwrap();
        assert_eq!(names(&folder), ["alone/layer", "alone/link"]);
        folder.remove("alone/link").unwrap();
        folder.remove("alone/layer").unwrap();
        assert!(names(&folder).is_empty() && outside.join("precious").exists());
        for name in ["../outside", "alone/../../outside", "alone/..", "outside", "tmp/x", "alone/"] {
            assert!(folder.remove(name).is_err(), "{name}");
        }
        // In the place of a whole folder a link stops everything.
        fs::remove_dir(&alone).unwrap();
        symlink(&outside, &alone).unwrap();
        assert!(folder.things().is_err() && folder.remove("alone/precious").is_err());
        assert!(outside.join("precious").exists());
    }

    #[test]
    fn things_of_other_kinds_are_as_old_as_they_are_and_may_be_named_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let hex = Digest::of(b"archive").hex();
        let databases = DisposableFolder::of("databases", dir.path().join("db")).named_by_content();
        assert!(databases.things().unwrap().is_empty());
        fs::create_dir_all(dir.path().join("db").join(&hex)).unwrap();
        fs::create_dir_all(dir.path().join("db/other")).unwrap();
        let ties: BTreeSet<_> =
            databases.things().unwrap().into_iter().map(|thing| (thing.name, format!("{:?}", thing.tie))).collect();
        let made_from = format!("{:?}", Tie::MadeFrom(Digest::of(b"archive")));
        assert_eq!(ties, BTreeSet::from([(hex, made_from), ("other".to_owned(), "Nothing".to_owned())]));

        let sources = DisposableFolder::of_sources(dir.path().join("git"));
        fs::create_dir_all(dir.path().join("git/one")).unwrap();
        let lock = dir.path().join("git/one/lock");
        let in_1980 = SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800);
        fs::File::create(&lock).unwrap().set_modified(in_1980).unwrap();
        assert!(age(&sources, "one") > 86_400);
        sources.remove("one").unwrap();
        assert!(names(&sources).is_empty());
    }
}
