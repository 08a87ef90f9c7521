//! Whether an unpacked layer or input is still what it was when its bytes were compared with their digest.
//!
//! Hashing all of it once more costs what its bytes cost, whenever it is used. A seal costs what its entries cost, some microseconds each: a
//! digest over all that the file system says of them. Among this is the moment of each one's last change, which no program sets: whoever
//! writes to a file, exchanges, adds or removes one, or brings the whole folder from elsewhere, leaves another one behind. What does not show
//! is damage below the file system, and what somebody does who turns back the machine's clock or writes to the disk past it.
//!
//! Seals lie apart from what they are about, so that a cache of somebody else's in the place of ours has none. What has no seal, or another
//! one, is unpacked anew from the store, every byte of it hashed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, ResolveFlags, Stat},
    io::Errno,
};
use sluicegate_types::{Digest, Hasher};

use crate::{in_root, run_folder, unpack::is_opaque};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// How long a tick of a file system's clock is waited for; it has ten milliseconds at most.
const MAX_TICK_MILLIS: usize = 1000;

/// The seals of one cache.
pub(crate) struct Seals {
    folder: PathBuf,
    /// What this process has found whole, or made, and need not look at again before it is used.
    whole: Mutex<BTreeMap<PathBuf, Seal>>,
}

/// How a folder was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    folder: Inode,
    fingerprint: Digest,
}

/// Which folder it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    pub(crate) number: u64,
}

/// What is at the path of something that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Whole(Seal),
    /// Changed, brought from elsewhere, or no folder.
    Broken(Inode),
}

impl Seals {
    /// The seals in this folder, which is made if it is missing.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        run_folder::make_private(folder)?;
        Ok(Self { folder: folder.to_owned(), whole: Mutex::default() })
    }

    /// Keeps the seal of what will be at `path`: before it gets that name, so that what has the name has its seal.
    pub(crate) fn put(&self, seal: &Seal, path: &Path) {
        // One that can't be kept is known to this process alone, and the next one unpacks anew.
        let _ = tempfile::NamedTempFile::new_in(&self.folder).and_then(|mut draft| {
            draft.write_all(seal.fingerprint.to_string().as_bytes())?;
            draft.persist(self.place(path, seal.folder)).map_err(|error| error.error)
        });
    }

    /// What is at `path`. A folder that this process knows already is not looked through again.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Found> {
        let inode = match Inode::at(path) {
            Ok(inode) => inode,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let known = self.whole.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if let Some(known) = known.filter(|known| known.folder == inode) {
            return Ok(Found::Whole(known));
        }
        let Ok(kept) = fs::read(self.place(path, inode)) else { return Ok(Found::Broken(inode)) };
        match Seal::of(path) {
            Ok(seal) if seal.folder == inode && seal.fingerprint.to_string().as_bytes() == kept => {
                self.believe(path, seal);
                Ok(Found::Whole(seal))
            }
            _ => Ok(Found::Broken(inode)),
        }
    }

    /// From now on this process takes what is at `path` for whole as long as it is the same folder.
    pub(crate) fn believe(&self, path: &Path, seal: Seal) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), seal);
    }

    /// What is at `path` is looked through before it is used again.
    pub(crate) fn doubt(&self, path: &Path) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Lets go of the seal of a folder that is not at `path` any more.
    pub(crate) fn forget(&self, path: &Path, inode: Inode) {
        // One that stays is the seal of nothing.
        let _ = fs::remove_file(self.place(path, inode));
    }

    fn place(&self, path: &Path, inode: Inode) -> PathBuf {
        let name = |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_owned();
        self.folder.join(file_name(&name(path.parent()), &name(Some(path)), inode.number))
    }
}

impl Seal {
    /// Looks through a whole folder: some microseconds for each of its entries.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let root = in_root::open_root(folder)?;
        let stat = rustix::fs::fstat(&root)?;
        let fingerprint = fingerprint(&root, &stat)?;
        Ok(Self { folder: Inode { device: stat.st_dev, number: stat.st_ino }, fingerprint })
    }

    /// Whether the folder that was sealed is at `path` and still as it was. It is looked through once more; an error is that this could not
    /// be found out.
    pub(crate) fn holds(&self, path: &Path) -> io::Result<bool> {
        match Self::of(path) {
            Ok(now) => Ok(now == *self),
            Err(error) => match Errno::from_io_error(&error) {
                // Something is gone, or has another thing in its place.
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(false),
                _ => Err(error),
            },
        }
    }
}

impl Inode {
    /// What is at `path`, which may be a link.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { device: found.dev(), number: found.ino() })
    }
}

/// Returns when the clock by which the file system dates changes has moved on: whatever is changed from now on has a later date than what
/// was changed before. It goes in ticks of some milliseconds; a file of `folder`, which is the caller's own, shows them.
pub(crate) fn wait_for_the_next_tick(folder: &Path) -> io::Result<()> {
    let probe = tempfile::tempfile_in(folder)?;
    let touch = || -> io::Result<_> {
        rustix::fs::fchmod(&probe, Mode::from_raw_mode(0o600))?;
        let stat = rustix::fs::fstat(&probe)?;
        Ok((stat.st_ctime, stat.st_ctime_nsec))
    };
    let before = touch()?;
    for _ in 0..MAX_TICK_MILLIS {
        if touch()? != before {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("the clock of its file system stands still"))
}

/// The name of the seal of a folder with this number: two processes that make the same content at a time make two seals.
pub(crate) fn file_name(kind: &OsStr, name: &OsStr, inode: u64) -> OsString {
    let mut file = kind.to_owned();
    file.push("-");
    file.push(name);
    file.push(format!("-{inode:x}"));
    file
}

/// A digest over what the file system says of every entry, by path.
fn fingerprint(root: &OwnedFd, stat: &Stat) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.update(&[u8::from(is_opaque(root.as_fd()))]);
    // The root's own last change is when it got its name. Everything that is in it has its own.
    add(&mut hasher, Path::new(""), stat, false);
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let folder = in_root::open_folder(root.as_fd(), &path, INSIDE)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = path.join(name);
            add(&mut hasher, &path, &stat, true);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                waiting.push(path);
            }
        }
    }
    Ok(hasher.finish())
}

fn add(hasher: &mut Hasher, path: &Path, stat: &Stat, with_change: bool) {
    let path = path.as_os_str().as_bytes();
    hasher.update(&(path.len() as u64).to_le_bytes());
    hasher.update(path);
    // Not the device: it may have another number after the next start of the machine.
    let (changed, nanoseconds) = if with_change { (stat.st_ctime, stat.st_ctime_nsec) } else { (0, 0) };
    hasher.update(
        format!(
            "{:o} {} {} {} {} {}.{} {changed}.{nanoseconds} {}\0",
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
            stat.st_ino,
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_rdev
        )
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Made {
        dir: tempfile::TempDir,
        path: PathBuf,
    }

    /// A layer that is sealed and has its name.
    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let draft = dir.path().join("draft");
        fs::create_dir_all(draft.join("bin/deep")).unwrap();
        fs::write(draft.join("bin/sh"), "a shell").unwrap();
        fs::write(draft.join("bin/deep/file"), "x").unwrap();
        symlink("sh", draft.join("bin/link")).unwrap();
        fs::create_dir(dir.path().join("alone")).unwrap();
        let path = dir.path().join("alone/layer");
        seals(&dir).put(&Seal::of(&draft).unwrap(), &path);
        fs::rename(&draft, &path).unwrap();
        Made { dir, path }
    }

    /// As another process has them.
    fn seals(dir: &tempfile::TempDir) -> Seals {
        Seals::open(&dir.path().join("seals")).unwrap()
    }

    fn is_whole(seals: &Seals, path: &Path) -> bool {
        matches!(seals.find(path).unwrap(), Found::Whole(_))
    }

    #[test]
    fn a_change_of_anything_breaks_the_seal() {
        let made_one = made();
        assert!(is_whole(&seals(&made_one.dir), &made_one.path));
        // Read, it is as it was.
        assert_eq!(fs::read(made_one.path.join("bin/sh")).unwrap(), b"a shell");
        assert!(is_whole(&seals(&made_one.dir), &made_one.path));
        type Change = (&'static str, fn(&Path));
        let changes: [Change; 9] = [
            ("the same length, and the time set back", |layer| {
                let file = layer.join("bin/sh");
                let modified = fs::metadata(&file).unwrap().modified().unwrap();
                fs::write(&file, "a xhell").unwrap();
                fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
            }),
            ("one more in the uppermost folder, and its time set back", |layer| {
                let modified = fs::metadata(layer).unwrap().modified().unwrap();
                fs::write(layer.join("more"), "").unwrap();
                fs::File::open(layer).unwrap().set_modified(modified).unwrap();
            }),
            ("one more far below", |layer| fs::write(layer.join("bin/deep/more"), "").unwrap()),
            ("one less", |layer| fs::remove_file(layer.join("bin/deep/file")).unwrap()),
            ("another mode", |layer| {
                fs::set_permissions(layer.join("bin/sh"), fs::Permissions::from_mode(0o4755)).unwrap();
            }),
            ("another mode of the uppermost folder", |layer| {
                fs::set_permissions(layer, fs::Permissions::from_mode(0o700)).unwrap();
            }),
            ("another file of the same content", |layer| {
                fs::copy(layer.join("bin/sh"), layer.join("bin/copy")).unwrap();
                fs::rename(layer.join("bin/copy"), layer.join("bin/sh")).unwrap();
            }),
            ("another link", |layer| {
                fs::remove_file(layer.join("bin/link")).unwrap();
                symlink("no", layer.join("bin/link")).unwrap();
            }),
            ("a link in its place", |layer| {
                let aside = layer.with_extension("aside");
                fs::rename(layer, &aside).unwrap();
                symlink(&aside, layer).unwrap();
            }),
        ];
        for (what, change) in changes {
            let made = made();
            let Found::Whole(seal) = seals(&made.dir).find(&made.path).unwrap() else { panic!("{what}") };
            assert!(seal.holds(&made.path).unwrap(), "{what}");
            change(&made.path);
            assert!(!seal.holds(&made.path).unwrap(), "{what}");
            assert!(!is_whole(&seals(&made.dir), &made.path), "{what}");
        }
    }

    #[test]
    fn what_cannot_be_looked_through_is_no_change_and_not_whole_either() {
        let made = made();
        let Found::Whole(seal) = seals(&made.dir).find(&made.path).unwrap() else { panic!() };
        assert!(!seal.holds(&made.dir.path().join("nothing")).unwrap());
        let beyond = made.dir.path().join("x/".repeat(4096));
        assert_eq!(Errno::from_io_error(&seal.holds(&beyond).unwrap_err()), Some(Errno::NAMETOOLONG));
        assert!(seal.holds(&made.path).unwrap());
    }

    #[test]
    fn what_has_no_seal_is_not_believed() {
        let made = made();
        assert!(is_whole(&seals(&made.dir), &made.path));
        let elsewhere = Seals::open(&made.dir.path().join("other seals")).unwrap();
        assert!(matches!(elsewhere.find(&made.path).unwrap(), Found::Broken(_)));
        assert_eq!(elsewhere.find(&made.dir.path().join("alone/none")).unwrap(), Found::Nothing);
    }
}
