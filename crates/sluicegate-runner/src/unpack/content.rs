use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use sluicegate_types::Hasher;
use tar::{Entry, EntryType};

use super::{
    Kind, UnpackError, UnpackLimits, Whereabouts,
    made::{Made, Thing, What},
    merged::{Found, Merged},
    said::{Globals, Said},
    sparse::Sparse,
    stream::Tally,
};
use crate::{
    in_root::{self, IN_ROOT},
    pack::WHITEOUT_PREFIX,
};

/// Nothing is mounted below a folder that is being filled.
const RESOLVE: ResolveFlags = IN_ROOT.union(ResolveFlags::NO_XDEV);

/// A folder and no link to one.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The attribute by which overlayfs knows folders that hide what lies below.
const OPAQUE: &str = "trusted.overlay.opaque";

/// The attribute with the capabilities of a program, and how many bytes the kernel lets it have.
pub(super) const CAPABILITY: &str = "security.capability";
const MAX_CAPABILITY: usize = 64;

/// The attribute of the root of a layer that says itself whose and how its root is.
pub(crate) const SAYS_ROOT: &str = "trusted.sluicegate.root";

/// Ids from here on are refused: 2^32 - 1 means "no change" to the kernel, and no image needs the upper half.
pub(crate) const FIRST_REFUSED_ID: u64 = 1 << 31;

/// What was counted while unpacking.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Those of them that are copies of what the layers below have, and no part of the archive.
    pub(super) from_below: u64,
    pub(super) devices: u64,
    pub(super) attributes: u64,
    /// Whether what was made depends on the layers below.
    pub(super) asked_below: bool,
}

/// Writes entries below one root.
pub(super) struct Writer<'a> {
    root: BorrowedFd<'a>,
    /// The layers below, the upper one first.
    below: Vec<BorrowedFd<'a>>,
    kind: Kind,
    limits: &'a UnpackLimits,
    tally: &'a Tally,
    counts: Counts,
    made: Made,
    /// The folder of the last entry, for most entries share it with the one before.
    last: Option<(PathBuf, OwnedFd)>,
    /// Whether the entry at hand took the place of an earlier one.
    replaced: bool,
    /// Modes and times of folders, set when nothing will be written into them any more; the root's, if the archive has it.
    folders: BTreeMap<PathBuf, Meta>,
    globals: Globals,
    buffer: Vec<u8>,
}

#[derive(Clone)]
struct Meta {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    capability: Option<Vec<u8>>,
}

impl Meta {
    fn of_a_new_folder() -> Self {
        Self { mode: 0o755, owner: (0, 0), mtime: (0, 0), capability: None }
    }

    fn of(stat: &fs::Stat) -> Self {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (stat.st_mtime, nanos),
            capability: None,
        }
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        below: Vec<BorrowedFd<'a>>,
        kind: Kind,
        limits: &'a UnpackLimits,
        tally: &'a Tally,
    ) -> Result<Self, UnpackError> {
        let buffer = vec![0; 128 * 1024];
        let made = Made::in_folder(root).map_err(|error| io_error("look at", Path::new(""), error))?;
        Ok(Self {
            root,
            below,
            kind,
            limits,
            tally,
            counts: Counts::default(),
            made,
            last: None,
            replaced: false,
            folders: BTreeMap::new(),
            globals: Globals::default(),
            buffer,
        })
    }

    /// Writes one entry or says why not.
    pub(super) fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        self.counts.entries += 1;
        if self.counts.entries > self.limits.max_entries {
            return Err(UnpackError::Limit { what: "entries", limit: self.limits.max_entries });
        }
        let Some(said) = self.globals.read(entry).map_err(UnpackError::Archive)? else { return Ok(()) };
        let path = self.inside(&said.path)?;
        let meta = self.meta(&path, &said)?;
        let (Some(name), Some(parent)) = (path.file_name().map(OsStr::to_owned), path.parent()) else {
            if said.kind != EntryType::Directory {
                return refuse(&path, "the root is not a folder");
            }
            // The root of an input is whoever mounts it to decide.
            if self.kind == Kind::Layer {
                self.folders.insert(path, meta);
            }
            return Ok(());
        };
        let hidden = name.as_bytes().strip_prefix(WHITEOUT_PREFIX).map(|hidden| OsStr::from_bytes(hidden).to_owned());
        if let Some(hidden) = &hidden {
            self.check_removal(hidden, &path)?;
            // What is nowhere needs no removal.
            if !self.is_folder(parent)? {
                return Ok(());
            }
        }
        let folder = self.folder(parent)?;
        if let Some(hidden) = hidden {
            self.remove(&folder, &hidden, &path)?;
        } else {
            self.write(&folder, &name, &path, &meta, said, entry)?;
        }
        // What was replaced may have been a link on the way to this very folder.
        if !std::mem::take(&mut self.replaced) {
            self.last = Some((parent.to_owned(), folder));
        }
        Ok(())
    }

    /// Sets what could only be set at the end.
    pub(super) fn finish(self) -> Result<(Counts, Made), UnpackError> {
        let mut made = self.made;
        for (path, meta) in self.folders.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A later entry may have put something else in its place.
            let Ok(folder) = in_root::open(self.root, path, flags, RESOLVE | ResolveFlags::NO_SYMLINKS) else {
                continue;
            };
            let mut set = || -> rustix::io::Result<()> {
                if path.as_os_str().is_empty() {
                    fs::fchown(&folder, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
                    fs::fsetxattr(&folder, SAYS_ROOT, b"y", XattrFlags::empty())?;
                    made.own(&folder, meta.owner)?;
                    made.attribute(&folder, SAYS_ROOT)?;
                }
                fs::fchmod(&folder, Mode::from_raw_mode(meta.mode))?;
                fs::futimens(&folder, &times(meta.mtime))?;
                made.complete(&folder, meta.mode)
            };
            set().map_err(|error| io_error("set the mode of", path, error))?;
        }
        Ok((self.counts, made))
    }

    fn folder(&mut self, parent: &Path) -> Result<OwnedFd, UnpackError> {
        if let Some((path, folder)) = self.last.take()
            && path == parent
        {
            return Ok(folder);
        }
        let made = match self.kind {
            Kind::Tree { owner, .. } => {
                in_root::make_folders_telling(self.root, parent, owner, RESOLVE, |folder, name, made| {
                    self.made.put(folder, name, &fs::fstat(made)?, Thing::new(What::Folder, 0o755, owner))
                })
            }
            Kind::Layer => match in_root::open_folder(self.root, parent, RESOLVE) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.missing_folders(parent),
                result => result.map_err(io::Error::from),
            },
        };
        made.map_err(|source| UnpackError::Io { action: "make the folder", path: parent.to_owned(), source })
    }

    /// Whether there is such a folder, here or below.
    fn is_folder(&mut self, path: &Path) -> Result<bool, UnpackError> {
        if in_root::open_folder(self.root, path, RESOLVE).is_ok() {
            return Ok(true);
        }
        self.counts.asked_below = true;
        let merged = self.merged();
        let found = merged.resolve(path).and_then(|path| merged.look(&path));
        let found = found.map_err(|source| UnpackError::Io { action: "look for", path: path.to_owned(), source })?;
        Ok(found.is_some_and(|found| found.kind() == FileType::Directory))
    }

    fn merged(&self) -> Merged<'a> {
        Merged { layers: std::iter::once(self.root).chain(self.below.iter().copied()).collect() }
    }

    /// Makes what is missing of a folder that the layer does not name itself: as it is below, links followed; what is new is 0755.
    fn missing_folders(&mut self, path: &Path) -> io::Result<OwnedFd> {
        self.counts.asked_below = true;
        let merged = self.merged();
        let path = merged.resolve(path)?;
        let mut folder = in_root::open_folder(self.root, Path::new(""), RESOLVE)?;
        let mut at = PathBuf::new();
        for name in &path {
            at.push(name);
            let is_there = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            };
            if is_there != Some(FileType::Directory) {
                let below = merged.look(&at)?.filter(|found| found.kind() == FileType::Directory);
                let meta = below.map_or_else(Meta::of_a_new_folder, |found| Meta::of(&found.stat));
                // A removal that the same layer put there: only what comes now is seen.
                let replaces_removal = is_there == Some(FileType::CharacterDevice);
                if replaces_removal {
                    fs::unlinkat(&folder, name, AtFlags::empty())?;
                }
                fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
                let made = fs::openat(&folder, name, FOLDER, Mode::empty())?;
                fs::fchown(&made, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
                self.made.put(&folder, name, &fs::fstat(&made)?, Thing::new(What::Folder, 0o700, meta.owner))?;
                if replaces_removal {
                    self.hide_below(&made)?;
                }
                self.folders.insert(at.clone(), meta);
            }
            folder = fs::openat(&folder, name, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    fn inside(&self, raw: &[u8]) -> Result<PathBuf, UnpackError> {
        let path = Path::new(OsStr::from_bytes(raw));
        if raw.contains(&0) || raw.len() >= 4096 {
            return refuse(path, "a path has no NUL and fewer than 4096 bytes");
        }
        let mut inside = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) if name.len() > 255 => return refuse(path, "a name has at most 255 bytes"),
                Component::Normal(name) => inside.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return refuse(path, "'..' in a path"),
            }
        }
        let depth = inside.components().count().saturating_sub(1);
        if depth > self.limits.max_depth {
            return Err(UnpackError::Limit { what: "folders below each other", limit: self.limits.max_depth as u64 });
        }
        let is_whiteout = |name: &OsStr| name.as_bytes().starts_with(WHITEOUT_PREFIX);
        if inside.parent().is_some_and(|parent| parent.iter().any(is_whiteout)) {
            return refuse(path, "a folder whose name means a removal");
        }
        Ok(inside)
    }

    fn meta(&mut self, path: &Path, said: &Said) -> Result<Meta, UnpackError> {
        self.counts.attributes += said.attributes;
        let id = |value: Option<u64>| match value.filter(|id| *id < FIRST_REFUSED_ID).map(u32::try_from) {
            Some(Ok(id)) => Ok(id),
            _ => {
                let written = value.map_or_else(|| "no number".to_owned(), |id| id.to_string());
                refuse(path, format!("user and group are numbers below 2147483648, and one is {written}"))
            }
        };
        let capability = said.capability.clone();
        let (owner, mtime) = match self.kind {
            Kind::Layer => ((id(said.ids.0)?, id(said.ids.1)?), said.mtime),
            Kind::Tree { owner, mtime, .. } => (owner, (i64::try_from(mtime).unwrap_or(i64::MAX), 0)),
        };
        Ok(match self.kind {
            Kind::Tree { whereabouts: Whereabouts::Machine, .. } => {
                Meta { mode: said.mode & 0o777, owner, mtime, capability: None }
            }
            _ => Meta { mode: said.mode, owner, mtime, capability },
        })
    }

    fn check_removal(&self, hidden: &OsStr, path: &Path) -> Result<(), UnpackError> {
        match hidden.as_bytes() {
            _ if self.kind != Kind::Layer => refuse(path, "names that begin with .wh. mean removals in a layer"),
            b"" | b"." | b".." => refuse(path, "a removal without a name"),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, folder: &OwnedFd, hidden: &OsStr, path: &Path) -> Result<(), UnpackError> {
        match hidden.as_bytes() {
            // overlayfs hides nothing below an opaque root: whoever stacks the layers stops there.
            b".wh..opq" => {
                self.hide_below(folder).map_err(|error| io_error("mark as opaque the folder of", path, error))
            }
            // Bookkeeping of aufs; other tools ignore it as well.
            bytes if bytes.starts_with(WHITEOUT_PREFIX) => Ok(()),
            _ => match fs::mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
                Ok(()) => fs::statat(folder, hidden, AtFlags::SYMLINK_NOFOLLOW)
                    .and_then(|stat| self.made.put(folder, hidden, &stat, Thing::new(What::Removal, 0, (0, 0))))
                    .map_err(|error| io_error("look at the removal", path, error)),
                // The same layer adds it: the addition wins, and of a folder only what the layer adds to it.
                Err(Errno::EXIST) => match fs::openat(folder, hidden, FOLDER, Mode::empty()) {
                    Ok(added) => self.hide_below(&added).map_err(|error| io_error("mark as opaque", path, error)),
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(error) => Err(io_error("look at what is added and removed", path, error)),
                },
                Err(error) => Err(io_error("make the removal", path, error)),
            },
        }
    }

    /// Marks a folder: what the layers below have in it is not seen.
    fn hide_below(&mut self, folder: &OwnedFd) -> rustix::io::Result<()> {
        fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())?;
        self.made.attribute(folder, OPAQUE)
    }

    fn write<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        meta: &Meta,
        said: Said,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        let Said { kind, link: target, sparse, .. } = said;
        match kind {
            EntryType::Directory => self.directory(folder, name, path, meta),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(folder, name, path, meta, sparse, entry)
            }
            EntryType::Symlink => {
                if target.is_empty() || target.len() >= 4096 || target.contains(&0) {
                    return refuse(path, "a link without a usable target");
                }
                self.link(folder, name, &target, meta).map_err(|source| UnpackError::Io {
                    action: "make the link",
                    path: path.to_owned(),
                    source,
                })
            }
            EntryType::Link => self.hard_link(folder, name, path, &target),
            EntryType::Fifo if self.kind == Kind::Layer => self
                .replacing(folder, name, || {
                    fs::mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(meta.mode & 0o777), 0)
                })
                .and_then(|()| {
                    let stat = own_and_date(folder, name, meta)?;
                    // The umask has its say.
                    Ok(self.made.put(folder, name, &stat, Thing::new(What::Fifo, stat.st_mode, meta.owner))?)
                })
                .map_err(|source| UnpackError::Io { action: "make the FIFO", path: path.to_owned(), source }),
            EntryType::Block | EntryType::Char if self.kind == Kind::Layer => {
                self.counts.devices += 1;
                Ok(())
            }
            _ => refuse(path, format!("an entry of type {kind:?} is not taken")),
        }
    }

    fn directory(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, meta: &Meta) -> Result<(), UnpackError> {
        let mut make = || -> io::Result<()> {
            let existing = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let existing = existing.ok().map(|stat| FileType::from_raw_mode(stat.st_mode));
            if existing != Some(FileType::Directory) {
                self.replacing(folder, name, || fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)))?;
            }
            let made = fs::openat(folder, name, FOLDER, Mode::empty())?;
            if existing != Some(FileType::Directory) {
                self.made.put(folder, name, &fs::fstat(&made)?, Thing::new(What::Folder, 0o700, meta.owner))?;
            }
            // A removal, and the folder anew: what lies below stays removed.
            if existing == Some(FileType::CharacterDevice) {
                self.hide_below(&made)?;
            }
            fs::fchown(&made, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
            Ok(self.made.own(&made, meta.owner)?)
        };
        make().map_err(|source| UnpackError::Io { action: "make the folder", path: path.to_owned(), source })?;
        self.folders.insert(path.to_owned(), meta.clone());
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        meta: &Meta,
        sparse: Option<Sparse>,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Io { action: "write", path: path.to_owned(), source };
        let mut file = self.new_file(folder, name).map_err(failed)?;
        let mut hasher = Hasher::new();
        let size = match sparse {
            None => self.copy(path, entry, &mut file, &mut hasher)?,
            Some(sparse) => {
                let size = sparse.size;
                let mut end = 0;
                for (at, length) in sparse.pieces(entry).map_err(UnpackError::Archive)? {
                    file.seek(SeekFrom::Start(at)).map_err(failed)?;
                    self.hash_hole(path, at - end, &mut hasher)?;
                    if self.copy(path, &mut entry.take(length), &mut file, &mut hasher)? != length {
                        return refuse(path, "a sparse file is shorter than its pieces");
                    }
                    end = at + length;
                }
                if entry.read(&mut [0]).map_err(UnpackError::Archive)? != 0 {
                    return refuse(path, "a sparse file is longer than its pieces");
                }
                self.hash_hole(path, size - end, &mut hasher)?;
                file.set_len(size).map_err(failed)?;
                size
            }
        };
        let content = What::File { size, digest: hasher.finish() };
        self.complete((folder, name), &file, meta, content).map_err(|error| failed(error.into()))
    }

    /// What is not written of a file counts as what is.
    fn hash_hole(&mut self, path: &Path, length: u64, hasher: &mut Hasher) -> Result<(), UnpackError> {
        self.count(path, length)?;
        let zeros = [0; 16 * 1024];
        let mut left = length;
        while left > 0 {
            let n = left.min(zeros.len() as u64);
            hasher.update(&zeros[..usize::try_from(n).unwrap_or(zeros.len())]);
            left -= n;
        }
        Ok(())
    }

    fn new_file(&mut self, folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.replacing(folder, name, || {
            made = Some(fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
            Ok(())
        })?;
        made.map(File::from).ok_or_else(|| io::Error::other("no file was made"))
    }

    /// Sets what a file has beside its content.
    fn complete(
        &mut self,
        (folder, name): (&OwnedFd, &OsStr),
        file: &File,
        meta: &Meta,
        content: What,
    ) -> rustix::io::Result<()> {
        fs::fchown(file, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
        // After the owner: a change of owner clears set-user-ID and capabilities.
        fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
        if let Some(capability) = &meta.capability {
            fs::fsetxattr(file, CAPABILITY, capability, XattrFlags::empty())?;
        }
        fs::futimens(file, &times(meta.mtime))?;
        let thing = Thing::new(content, meta.mode, meta.owner).with_capability(meta.capability.as_deref());
        self.made.put(folder, name, &fs::fstat(file)?, thing)
    }

    /// Copies what is left of `reader` and says how much that was.
    fn copy(
        &mut self,
        path: &Path,
        reader: &mut impl Read,
        file: &mut File,
        hasher: &mut Hasher,
    ) -> Result<u64, UnpackError> {
        let mut copied = 0;
        loop {
            let n = match reader.read(&mut self.buffer) {
                Ok(0) => return Ok(copied),
                Ok(n) => n,
                Err(error) => return Err(UnpackError::Archive(error)),
            };
            copied += n as u64;
            self.count(path, n as u64)?;
            let failed = |source| UnpackError::Io { action: "write", path: path.to_owned(), source };
            file.write_all(&self.buffer[..n]).map_err(failed)?;
            hasher.update(&self.buffer[..n]);
        }
    }

    fn count(&mut self, path: &Path, bytes: u64) -> Result<(), UnpackError> {
        self.counts.bytes = self.counts.bytes.saturating_add(bytes);
        if self.counts.bytes > self.limits.max_bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.max_bytes });
        }
        // A sparse file grows here and not in the archive.
        if self.tally.is_a_bomb(self.counts.bytes.saturating_sub(self.counts.from_below)) {
            return refuse(path, "the archive unpacks to more than 200 times its size");
        }
        Ok(())
    }

    fn hard_link(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, target: &[u8]) -> Result<(), UnpackError> {
        let target = self.inside(target)?;
        let (Some(target_name), Some(target_folder)) = (target.file_name().map(OsString::from), target.parent()) else {
            return refuse(path, "a hard link to the root");
        };
        if target == path {
            return Ok(());
        }
        let failed = |error: Errno| io_error("find the target of the hard link", path, error);
        let own = in_root::open_folder(self.root, target_folder, RESOLVE);
        let own = own.and_then(|own| Ok((fs::statat(&own, &target_name, AtFlags::SYMLINK_NOFOLLOW)?, own)));
        let (target_folder, stat) = match own {
            Ok((stat, own)) => (own, stat),
            Err(Errno::NOENT) if self.kind == Kind::Layer => {
                self.counts.asked_below = true;
                let merged = self.merged();
                let found = merged.resolve(target_folder).and_then(|folder| merged.look(&folder.join(&target_name)));
                let found = found.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
                let Some(found) = found else { return Err(failed(Errno::NOENT)) };
                return self.copy_of_below((folder, name, path), &found, &target_name);
            }
            Err(error) => return Err(failed(error)),
        };
        if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink) {
            return refuse(path, "a hard link to something else than a file");
        }
        self.replacing(folder, name, || fs::linkat(&target_folder, &target_name, folder, name, AtFlags::empty()))
            .and_then(|()| Ok(self.made.name(folder, name, stat.st_ino)?))
            .map_err(|source| UnpackError::Io { action: "make the hard link", path: path.to_owned(), source })
    }

    /// A layer may link to a file of one below. It gets one of its own: another name would be a change of the file below, which others read.
    fn copy_of_below(
        &mut self,
        (folder, name, path): (&OwnedFd, &OsStr, &Path),
        found: &Found,
        target: &OsStr,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Io { action: "copy what is below to", path: path.to_owned(), source };
        let mut meta = Meta::of(&found.stat);
        match found.kind() {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let below = fs::openat(&found.folder, target, flags, Mode::empty());
                let mut below = File::from(below.map_err(|error| failed(error.into()))?);
                let mut capability = [0; MAX_CAPABILITY];
                if let Ok(length) = fs::fgetxattr(&below, CAPABILITY, &mut capability[..]) {
                    meta.capability = Some(capability[..length].to_vec());
                }
                let mut file = self.new_file(folder, name).map_err(failed)?;
                let mut hasher = Hasher::new();
                let size = u64::try_from(found.stat.st_size).unwrap_or_default();
                self.counts.from_below = self.counts.from_below.saturating_add(size);
                let size = self.copy(path, &mut below, &mut file, &mut hasher)?;
                let content = What::File { size, digest: hasher.finish() };
                self.complete((folder, name), &file, &meta, content).map_err(|error| failed(error.into()))
            }
            FileType::Symlink => {
                let text = fs::readlinkat(&found.folder, target, Vec::new()).map_err(|error| failed(error.into()))?;
                self.link(folder, name, text.as_bytes(), &meta).map_err(failed)
            }
            _ => refuse(path, "a hard link to something else than a file"),
        }
    }

    fn link(&mut self, folder: &OwnedFd, name: &OsStr, target: &[u8], meta: &Meta) -> io::Result<()> {
        self.replacing(folder, name, || fs::symlinkat(OsStr::from_bytes(target), folder, name))?;
        let stat = own_and_date(folder, name, meta)?;
        let link = Thing::new(What::Link(target.to_owned()), 0o777, meta.owner);
        Ok(self.made.put(folder, name, &stat, link)?)
    }

    /// Makes something; what stood there before goes first, as the later entry of a layer wins.
    fn replacing(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        mut make: impl FnMut() -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        match make() {
            Err(Errno::EXIST) => {
                in_root::remove(folder.as_fd(), name)?;
                self.replaced = true;
                Ok(make()?)
            }
            result => Ok(result?),
        }
    }
}

fn own_and_date(folder: &OwnedFd, name: &OsStr, meta: &Meta) -> rustix::io::Result<fs::Stat> {
    let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
    fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::utimensat(folder, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let moment = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: moment, last_modification: moment }
}

fn refuse<T>(path: &Path, reason: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Refused { path: path.to_owned(), reason: reason.into() })
}

fn io_error(action: &'static str, path: &Path, error: Errno) -> UnpackError {
    UnpackError::Io { action, path: path.to_owned(), source: error.into() }
}
