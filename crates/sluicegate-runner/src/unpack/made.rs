//! Whether what is in a folder is what was made there: every name and no other, each kind, mode, owner, link target, attribute, and every
//! byte of every file, read back once.
//!
//! What was made is kept by inode and not by path, as many paths of an archive lead through its own links.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use sluicegate_types::{Digest, Hasher};

use super::content::CAPABILITY;
use crate::in_root;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Bytes that the names of one file's attributes may have, the kernel's limit.
const MAX_ATTRIBUTES: usize = 64 * 1024;

/// Everything that was made below a root.
#[derive(Debug)]
pub(crate) struct Made {
    root: u64,
    device: u64,
    /// What is in each folder, by name.
    folders: HashMap<u64, BTreeMap<OsString, u64>>,
    things: HashMap<u64, Thing>,
}

/// One thing that was made.
#[derive(Debug)]
pub(crate) struct Thing {
    what: What,
    mode: u32,
    owner: (u32, u32),
    /// As the file system took it; `None` where nobody set it.
    mtime: Option<(i64, i64)>,
    attributes: Vec<(&'static str, Vec<u8>)>,
}

/// What a thing is.
#[derive(Debug)]
pub(crate) enum What {
    Folder,
    File {
        size: u64,
        digest: Digest,
    },
    Link(Vec<u8>),
    Fifo,
    /// Of overlayfs; it has no mode and no owner that anybody sees.
    Removal,
}

impl Made {
    /// Nothing yet, in a folder that is as its maker wants it.
    pub(crate) fn in_folder(root: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let stat = fs::fstat(root)?;
        let folder = Thing::new(What::Folder, stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid));
        Ok(Self {
            root: stat.st_ino,
            device: stat.st_dev,
            folders: HashMap::from([(stat.st_ino, BTreeMap::new())]),
            things: HashMap::from([(stat.st_ino, folder)]),
        })
    }

    /// Notes that `thing`, of which the file system says `stat`, stands at `name` now, whatever stood there before.
    pub(crate) fn put(
        &mut self,
        folder: impl AsFd,
        name: &OsStr,
        stat: &Stat,
        mut thing: Thing,
    ) -> rustix::io::Result<()> {
        match thing.what {
            // Numbers are given again: what one of this number held is gone.
            What::Folder => drop(self.folders.insert(stat.st_ino, BTreeMap::new())),
            _ => thing.mtime = Some((stat.st_mtime, stat.st_mtime_nsec.cast_signed())),
        }
        self.things.insert(stat.st_ino, thing);
        self.name(folder, name, stat.st_ino)
    }

    /// Notes that what has this number has this name too.
    pub(crate) fn name(&mut self, folder: impl AsFd, name: &OsStr, inode: u64) -> rustix::io::Result<()> {
        let names = self.folders.entry(fs::fstat(folder)?.st_ino).or_default();
        names.insert(name.to_owned(), inode);
        Ok(())
    }

    /// Notes whose a folder is.
    pub(crate) fn own(&mut self, folder: impl AsFd, owner: (u32, u32)) -> rustix::io::Result<()> {
        self.change(folder, |thing, _| thing.owner = owner)
    }

    /// Notes that a folder has this mode, and its time, for good.
    pub(crate) fn complete(&mut self, folder: impl AsFd, mode: u32) -> rustix::io::Result<()> {
        self.change(folder, |thing, stat| {
            thing.mode = mode;
            thing.mtime = Some((stat.st_mtime, stat.st_mtime_nsec.cast_signed()));
        })
    }

    /// Notes an attribute of a folder.
    pub(crate) fn attribute(&mut self, folder: impl AsFd, name: &'static str) -> rustix::io::Result<()> {
        self.change(folder, |thing, _| {
            thing.attributes.retain(|(known, _)| *known != name);
            thing.attributes.push((name, b"y".to_vec()));
        })
    }

    fn change(&mut self, folder: impl AsFd, change: impl FnOnce(&mut Thing, &Stat)) -> rustix::io::Result<()> {
        let stat = fs::fstat(folder)?;
        // One that nobody made here has no entry, and is found by that.
        if let Some(thing) = self.things.get_mut(&stat.st_ino) {
            change(thing, &stat);
        }
        Ok(())
    }

    /// The first path found in the folder at which something else is than what was made; `None` if there is none.
    pub(crate) fn difference(&self, folder: &Path) -> io::Result<Option<PathBuf>> {
        let root = in_root::open_root(folder)?;
        let stat = fs::fstat(&root)?;
        if stat.st_ino != self.root || !self.is_as_made(&stat) {
            return Ok(Some(PathBuf::new()));
        }
        let mut check = Check { buffer: vec![0; 128 * 1024], read: HashSet::new() };
        let mut waiting = vec![(PathBuf::new(), self.root)];
        while let Some((path, inode)) = waiting.pop() {
            let folder = in_root::open_folder(root.as_fd(), &path, INSIDE)?;
            let (Some(expected), Some(thing)) = (self.folders.get(&inode), self.things.get(&inode)) else {
                return Ok(Some(path));
            };
            if fs::fstat(&folder)?.st_ino != inode || !check.has_attributes(folder.as_fd(), &thing.attributes)? {
                return Ok(Some(path));
            }
            let mut seen = 0;
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                seen += 1;
                let at = path.join(name);
                let stat = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let thing = self.things.get(&stat.st_ino).filter(|_| expected.get(name) == Some(&stat.st_ino));
                let Some(thing) = thing.filter(|_| self.is_as_made(&stat)) else { return Ok(Some(at)) };
                let is_same = match &thing.what {
                    What::Folder => {
                        waiting.push((at.clone(), stat.st_ino));
                        true
                    }
                    What::File { size, digest } => check.is_file(folder.as_fd(), name, thing, (*size, digest))?,
                    What::Link(target) => fs::readlinkat(&folder, name, Vec::new())?.as_bytes() == target,
                    What::Fifo | What::Removal => true,
                };
                if !is_same {
                    return Ok(Some(at));
                }
            }
            if seen != expected.len() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn is_as_made(&self, stat: &Stat) -> bool {
        let Some(thing) = self.things.get(&stat.st_ino) else { return false };
        let (kind, with_mode) = match thing.what {
            What::Folder => (FileType::Directory, true),
            What::File { .. } => (FileType::RegularFile, true),
            What::Link(_) => (FileType::Symlink, false),
            What::Fifo => (FileType::Fifo, true),
            What::Removal => return stat.st_rdev == 0 && is_kind(stat, FileType::CharacterDevice),
        };
        let mtime = (stat.st_mtime, stat.st_mtime_nsec.cast_signed());
        stat.st_dev == self.device
            && is_kind(stat, kind)
            && (!with_mode || stat.st_mode & 0o7777 == thing.mode)
            && (stat.st_uid, stat.st_gid) == thing.owner
            && thing.mtime.is_none_or(|made| made == mtime)
    }
}

impl Thing {
    pub(crate) fn new(what: What, mode: u32, owner: (u32, u32)) -> Self {
        Self { what, mode: mode & 0o7777, owner, mtime: None, attributes: Vec::new() }
    }

    pub(crate) fn with_capability(mut self, capability: Option<&[u8]>) -> Self {
        self.attributes.extend(capability.map(|value| (CAPABILITY, value.to_vec())));
        self
    }
}

/// Reads what is to be compared.
struct Check {
    buffer: Vec<u8>,
    /// Files that were read under another name.
    read: HashSet<u64>,
}

impl Check {
    fn is_file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        thing: &Thing,
        (size, digest): (u64, &Digest),
    ) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(folder, name, flags, Mode::empty())?);
        let stat = fs::fstat(&file)?;
        if !is_kind(&stat, FileType::RegularFile) || u64::try_from(stat.st_size) != Ok(size) {
            return Ok(false);
        }
        if !self.read.insert(stat.st_ino) {
            return Ok(true);
        }
        if !self.has_attributes(file.as_fd(), &thing.attributes)? {
            return Ok(false);
        }
        let mut hasher = Hasher::new();
        let mut left = size;
        while left > 0 {
            let n = file.read(&mut self.buffer)?;
            if n == 0 || n as u64 > left {
                return Ok(false);
            }
            hasher.update(&self.buffer[..n]);
            left -= n as u64;
        }
        Ok(hasher.finish() == *digest)
    }

    /// Whether it has these attributes and no other of `user.`, `trusted.` and capabilities, which a container or this program would see a
    /// meaning in. Lists of access (`system.posix_acl_*`) are not looked at.
    fn has_attributes(&mut self, file: BorrowedFd<'_>, expected: &[(&'static str, Vec<u8>)]) -> io::Result<bool> {
        for (name, value) in expected {
            let found = match fs::fgetxattr(file, *name, &mut self.buffer[..]) {
                Ok(length) => &self.buffer[..length],
                Err(Errno::NODATA) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if found != value && (*name != CAPABILITY || of_the_first_user(found) != of_the_first_user(value)) {
                return Ok(false);
            }
        }
        let length = match fs::flistxattr(file, &mut self.buffer[..MAX_ATTRIBUTES]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut names = self.buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.all(|name| {
            let has_meaning =
                name == CAPABILITY.as_bytes() || name.starts_with(b"trusted.") || name.starts_with(b"user.");
            !has_meaning || expected.iter().any(|(known, _)| known.as_bytes() == name)
        }))
    }
}

/// Capabilities that hold for the machine's first user namespace, in the one form in which the kernel gives them back.
fn of_the_first_user(capability: &[u8]) -> Vec<u8> {
    match capability {
        [a, b, c, 3, rest @ .., 0, 0, 0, 0] => [&[*a, *b, *c, 2], rest].concat(),
        other => other.to_vec(),
    }
}

fn is_kind(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}
