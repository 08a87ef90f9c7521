//! Folders that runs of one step share (`caches:`). What is in them is whatever earlier runs left: it is given to steps of the same scope
//! alone, never taken for anything that somebody vouches for, and may be deleted whenever its lock is free.
//!
//! A scope has a folder named by its digest, with a lock, the content, and a mark while a step has it. Steps write into the content and
//! never above it. One step at a time holds a scope; another one gets an empty folder of its own instead of waiting, as a cache only saves
//! time. A folder whose mark is left over was in use when its run was killed, and begins anew.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
};
use sluicegate_ports::execute::{CacheBegan, CacheUse, SharedCache};

use crate::{held_lock::HeldLock, in_root, job::MountKind, run_folder};

/// How much one shared cache may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheLimits {
    /// Bytes on the disk.
    pub(crate) bytes: u64,
    /// Files and folders.
    pub(crate) entries: u64,
    /// Folders in each other.
    pub(crate) depth: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 1_000_000, depth: 128 }
    }
}

/// Locked by whoever has a scope or removes it; its time is when a step had it last.
pub(crate) const LOCK: &str = "lock";
const CONTENT: &str = "content";
const IN_USE: &str = "in-use";

/// All shared caches of a home.
pub(crate) struct SharedCaches {
    root: PathBuf,
    limits: CacheLimits,
}

/// A folder that one step has.
#[derive(Debug)]
pub(crate) struct Held {
    cache: SharedCache,
    began: CacheBegan,
    /// The folder above the content, which no step reaches.
    above: PathBuf,
    content: String,
    /// Held as long as this is; without one the folder goes with its run.
    lock: Option<HeldLock>,
    limits: CacheLimits,
}

impl SharedCaches {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, limits: CacheLimits::default() }
    }

    /// Gives the step its folder: number `index` of a run, for a step of this user and group.
    pub(crate) fn hold(&self, run: &Path, index: usize, cache: &SharedCache, owner: (u32, u32)) -> io::Result<Held> {
        let own = |began| -> io::Result<Held> {
            let content = format!("shared{index}");
            make_content(&run.join(&content), owner)?;
            Ok(Held { cache: cache.clone(), began, above: run.to_owned(), content, lock: None, limits: self.limits })
        };
        let Some(scope) = &cache.scope else { return own(CacheBegan::Empty) };
        let above = self.root.join(scope.hex());
        run_folder::make_private(&self.root)?;
        run_folder::make_private(&above)?;
        let Some(lock) = lock(&above)? else { return own(CacheBegan::Busy) };
        // For whoever decides what is kept: what can't be noted is only let go sooner.
        let _ = lock.set_modified(SystemTime::now());
        let content = above.join(CONTENT);
        let was_killed = fs::symlink_metadata(above.join(IN_USE)).is_ok();
        let is_mine = match fs::symlink_metadata(&content) {
            Ok(found) => found.is_dir() && (found.uid(), found.gid()) == owner && !was_killed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_mine {
            empty(&above)?;
            make_content(&content, owner)?;
        }
        let began = if is_mine { CacheBegan::Continued } else { CacheBegan::Empty };
        let above = fs::canonicalize(above)?;
        let content = CONTENT.to_owned();
        Ok(Held { cache: cache.clone(), began, above, content, lock: Some(lock), limits: self.limits })
    }
}

impl Held {
    /// What is mounted, and where.
    pub(crate) fn mount(&self) -> (PathBuf, MountKind) {
        let what = MountKind::Shared { root: self.above.clone(), folder: PathBuf::from(&self.content) };
        (self.cache.mount_point.clone(), what)
    }

    /// Marks it: whatever happens from here to [`Self::end`], what is in it is not believed to be whole unless that is reached.
    pub(crate) fn begin(&self) -> io::Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        File::options().write(true).create(true).truncate(true).mode(0o600).open(self.above.join(IN_USE)).map(drop)
    }

    /// Nothing of the step is left: keeps what it left, if it ended by itself and that is not too much.
    pub(crate) fn end(self, was_killed: bool) -> io::Result<CacheUse> {
        let Self { cache, began, above, content, lock, limits } = self;
        let mut thrown_away = None;
        if lock.is_some() {
            thrown_away = match was_killed {
                true => Some("the step was killed, and what it left may be half written".to_owned()),
                false => too_much(&above.join(content), limits)?,
            };
            if thrown_away.is_some() {
                empty(&above)?;
            }
            fs::remove_file(above.join(IN_USE))?;
        }
        Ok(CacheUse { name: cache.name, began, thrown_away })
    }
}

/// The lock of a scope's folder; `None` if somebody else has it.
fn lock(above: &Path) -> io::Result<Option<HeldLock>> {
    let path = above.join(LOCK);
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(&path)?;
    let Some(file) = HeldLock::try_on(file)? else { return Ok(None) };
    // Whoever deletes a scope holds its lock while doing so: one that was deleted meanwhile locks nothing.
    let is_there = fs::symlink_metadata(&path)
        .and_then(|there| Ok((there.dev(), there.ino()) == file.metadata().map(|own| (own.dev(), own.ino()))?));
    match is_there {
        Ok(true) => Ok(Some(file)),
        Ok(false) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_content(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    chown(path, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Takes away the content.
fn empty(above: &Path) -> io::Result<()> {
    in_root::remove(in_root::open_root(above)?.as_fd(), OsStr::new(CONTENT))
}

/// Why a folder holds too much, if it does. Links are counted and never followed.
fn too_much(folder: &Path, limits: CacheLimits) -> io::Result<Option<String>> {
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    let mut open: Vec<Dir> = vec![Dir::new(in_root::open_root(folder)?)?];
    loop {
        let depth = open.len();
        let Some(dir) = open.last_mut() else { return Ok(None) };
        let Some(entry) = dir.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
        entries += 1;
        bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512));
        if bytes > limits.bytes {
            return Ok(Some(format!("it holds more than the limit of {} bytes", limits.bytes)));
        }
        if entries > limits.entries {
            return Ok(Some(format!("it holds more than the limit of {} files and folders", limits.entries)));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if depth >= limits.depth {
                return Ok(Some(format!("more than the limit of {} folders lie in each other", limits.depth)));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below: OwnedFd = rustix::fs::openat(dir.fd()?, name, flags, Mode::empty())?;
            open.push(Dir::new(below)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_ports::prune::Disposable;
    use sluicegate_types::Digest;

    use super::*;
    use crate::DisposableFolder;

    /// Whoever runs this may give a folder only to themselves.
    fn owner() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    struct Home {
        folder: tempfile::TempDir,
        caches: SharedCaches,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let caches = SharedCaches::new(folder.path().join("shared"));
            Self { folder, caches }
        }

        fn hold(&self, scope: Option<&str>) -> Held {
            let run = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
            let cache = SharedCache {
                name: "deps".parse().unwrap(),
                mount_point: "/cache".into(),
                scope: scope.map(|scope| Digest::of(scope.as_bytes())),
            };
            let held = self.caches.hold(&run, 0, &cache, owner()).unwrap();
            held.begin().unwrap();
            held
        }
    }

    fn content(held: &Held) -> PathBuf {
        held.above.join(&held.content)
    }

    fn names(held: &Held) -> usize {
        fs::read_dir(content(held)).unwrap().count()
    }

    #[test]
    fn what_one_left_the_next_of_its_scope_finds_and_no_other() {
        let home = Home::new();
        let first = home.hold(Some("main"));
        assert_eq!((first.began, names(&first)), (CacheBegan::Empty, 0));
        fs::write(content(&first).join("a"), "a").unwrap();
        let other = home.hold(Some("branch"));
        assert_eq!((other.began, names(&other)), (CacheBegan::Empty, 0));
        // Held by the first: an empty one, of which nothing is kept.
        let second = home.hold(Some("main"));
        assert_eq!((second.began, names(&second)), (CacheBegan::Busy, 0));
        fs::write(content(&second).join("b"), "b").unwrap();
        assert_eq!(second.end(false).unwrap().thrown_away, None);
        assert_eq!(first.end(false).unwrap().thrown_away, None);
        let third = home.hold(Some("main"));
        assert_eq!((third.began, names(&third)), (CacheBegan::Continued, 1));
        assert!(content(&third).join("a").exists());
        let without = home.hold(None);
        assert_eq!((without.began, names(&without)), (CacheBegan::Empty, 0));
    }

    #[test]
    fn what_a_killed_run_left_and_what_another_user_left_begins_anew() {
        let home = Home::new();
        let killed = home.hold(Some("main"));
        fs::write(content(&killed).join("half"), "").unwrap();
        drop(killed);
        let next = home.hold(Some("main"));
        assert_eq!((next.began, names(&next)), (CacheBegan::Empty, 0));
        fs::write(content(&next).join("whole"), "").unwrap();
        let place = content(&next);
        next.end(false).unwrap();
        assert_eq!(home.hold(Some("main")).end(false).unwrap().began, CacheBegan::Continued);
        if rustix::process::geteuid().is_root() {
            chown(&place, Some(1234), Some(1234)).unwrap();
            let of_another = home.hold(Some("main"));
            assert_eq!((of_another.began, names(&of_another)), (CacheBegan::Empty, 0));
            of_another.end(false).unwrap();
        }
        // The same where the step alone was killed.
        let held = home.hold(Some("main"));
        fs::write(content(&held).join("half"), "").unwrap();
        assert!(held.end(true).unwrap().thrown_away.unwrap().contains("was killed"));
        let next = home.hold(Some("main"));
        assert_eq!((next.began, names(&next)), (CacheBegan::Empty, 0));
    }

    #[test]
    fn a_scope_is_as_old_as_its_last_use_and_one_that_a_step_has_is_not_removed() {
        let home = Home::new();
        let disposable = DisposableFolder::of_shared_caches(home.folder.path().join("shared"));
        assert!(disposable.things().unwrap().is_empty());
        let held = home.hold(Some("main"));
        fs::write(content(&held).join("large"), vec![1; 1 << 20]).unwrap();
        let other = home.hold(Some("branch"));
        let (above, name) = (held.above.clone(), held.above.file_name().unwrap().to_str().unwrap().to_owned());
        other.end(false).unwrap();
        assert_eq!(disposable.things().unwrap().len(), 1, "the other one");
        assert!(disposable.remove(&name).unwrap_err().to_string().contains("remove"));
        assert!(content(&held).join("large").exists());
        held.end(false).unwrap();

        let age = || {
            let thing = disposable.things().unwrap().into_iter().find(|thing| thing.name == name).unwrap();
            assert!(thing.size >= 1 << 20);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            i64::try_from(now).unwrap() - thing.used.seconds()
        };
        assert!(age() < 86_400);
        let in_1980 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(315_532_800);
        File::options().write(true).open(above.join(LOCK)).unwrap().set_modified(in_1980).unwrap();
        assert!(age() > 86_400);
        home.hold(Some("main")).end(false).unwrap();
        assert!(age() < 86_400);

        disposable.remove(&name).unwrap();
        assert!(!above.exists());
        assert_eq!(disposable.things().unwrap().len(), 1);
        assert_eq!(home.hold(Some("main")).end(false).unwrap().began, CacheBegan::Empty);
        assert_eq!(home.hold(Some("branch")).end(false).unwrap().began, CacheBegan::Continued);
    }

    #[test]
    fn what_holds_too_much_is_thrown_away_and_links_are_not_followed() {
        let mut home = Home::new();
        home.caches.limits = CacheLimits { bytes: 1 << 20, entries: 20, depth: 4 };
        type Fill = fn(&Path);
        let fill: [(&str, Fill); 3] = [
            ("bytes", |at| fs::write(at.join("large"), vec![1; 2 << 20]).unwrap()),
            ("files and folders", |at| (0..30).for_each(|n| fs::write(at.join(n.to_string()), "").unwrap())),
            ("in each other", |at| fs::create_dir_all(at.join("a/b/c/d/e")).unwrap()),
        ];
        for (says, fill) in fill {
            let held = home.hold(Some("main"));
            fs::write(content(&held).join("kept"), "").unwrap();
            fill(&content(&held));
            let said = held.end(false).unwrap().thrown_away.unwrap();
            assert!(said.contains(says), "{said}");
            let next = home.hold(Some("main"));
            assert_eq!((next.began, names(&next)), (CacheBegan::Empty, 0), "{says}");
            // A link to something large weighs nothing.
            std::os::unix::fs::symlink("/", content(&next).join("root")).unwrap();
            assert_eq!(next.end(false).unwrap().thrown_away, None);
        }
    }
}
