use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use tar::{Entry, EntryType};

use super::{Kind, UnpackError, UnpackLimits, stream::Tally};
use crate::{
    in_root::{self, IN_ROOT},
    pack::WHITEOUT_PREFIX,
};

/// Nothing is mounted below a folder that is being filled.
const RESOLVE: ResolveFlags = IN_ROOT.union(ResolveFlags::NO_XDEV);

/// Ids from here on are refused: 2^32 - 1 means "no change" to the kernel, and no image needs the upper half.
pub(crate) const FIRST_REFUSED_ID: u64 = 1 << 31;

/// What was counted while unpacking.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) devices: u64,
    pub(super) attributes: u64,
}

/// Writes entries below one root.
pub(super) struct Writer<'a> {
    root: BorrowedFd<'a>,
    kind: Kind,
    limits: &'a UnpackLimits,
    tally: &'a Tally,
    counts: Counts,
    /// The folder of the last entry, for most entries share it with the one before.
    last: Option<(PathBuf, OwnedFd)>,
    /// Whether the entry at hand took the place of an earlier one.
    replaced: bool,
    /// Modes and times of folders, set when nothing will be written into them any more.
    folders: Vec<(PathBuf, Meta)>,
    buffer: Vec<u8>,
}

#[derive(Clone)]
struct Meta {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    capability: Option<Vec<u8>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, kind: Kind, limits: &'a UnpackLimits, tally: &'a Tally) -> Self {
        let buffer = vec![0; 128 * 1024];
        Self {
            root,
            kind,
            limits,
            tally,
            counts: Counts::default(),
            last: None,
            replaced: false,
            folders: Vec::new(),
            buffer,
        }
    }

    /// Writes one entry or says why not.
    pub(super) fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        self.counts.entries += 1;
        if self.counts.entries > self.limits.max_entries {
            return Err(UnpackError::Limit { what: "entries", limit: self.limits.max_entries });
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = self.inside(&entry.path_bytes())?;
        let meta = self.meta(&path, entry)?;
        let (Some(name), Some(parent)) = (path.file_name().map(OsStr::to_owned), path.parent()) else {
            // The root itself: its mode and owner are the runner's to decide.
            return if kind == EntryType::Directory { Ok(()) } else { refuse(&path, "the root is not a folder") };
        };
        let folder = self.folder(parent)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            let hidden = OsStr::from_bytes(hidden).to_owned();
            self.whiteout(&folder, &hidden, &path)?;
        } else {
            self.write(&folder, &name, &path, &meta, kind, entry)?;
        }
        // What was replaced may have been a link on the way to this very folder.
        if !std::mem::take(&mut self.replaced) {
            self.last = Some((parent.to_owned(), folder));
        }
        Ok(())
    }

    /// Sets what could only be set at the end.
    pub(super) fn finish(self) -> Result<Counts, UnpackError> {
        for (path, meta) in self.folders.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A later entry may have put something else in its place.
            let Ok(folder) = in_root::open(self.root, path, flags, RESOLVE | ResolveFlags::NO_SYMLINKS) else {
                continue;
            };
            let set = || -> rustix::io::Result<()> {
                fs::fchmod(&folder, Mode::from_raw_mode(meta.mode))?;
                fs::futimens(&folder, &times(meta.mtime))
            };
            set().map_err(|error| io_error("set the mode of", path, error))?;
        }
        Ok(self.counts)
    }

    fn folder(&mut self, parent: &Path) -> Result<OwnedFd, UnpackError> {
        if let Some((path, folder)) = self.last.take()
            && path == parent
        {
            return Ok(folder);
        }
        let owner = match self.kind {
            Kind::Layer => (0, 0),
            Kind::Tree { owner, .. } => owner,
        };
        in_root::make_folders(self.root, parent, owner, RESOLVE).map_err(|source| UnpackError::Io {
            action: "make the folder",
            path: parent.to_owned(),
            source,
        })
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

    fn meta<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> Result<Meta, UnpackError> {
        let header = entry.header().clone();
        let mut ids = (header.uid().ok(), header.gid().ok());
        let mut capability = None;
        if let Some(records) = entry.pax_extensions().map_err(UnpackError::Archive)? {
            for record in records {
                let record = record.map_err(UnpackError::Archive)?;
                match record.key_bytes() {
                    b"uid" => ids.0 = record.value().ok().and_then(|value| value.parse().ok()),
                    b"gid" => ids.1 = record.value().ok().and_then(|value| value.parse().ok()),
                    b"SCHILY.xattr.security.capability" => capability = Some(record.value_bytes().to_vec()),
                    key if key.starts_with(b"SCHILY.xattr.") => self.counts.attributes += 1,
                    _ => {}
                }
            }
        }
        let id = |value: Option<u64>| match value.filter(|id| *id < FIRST_REFUSED_ID).map(u32::try_from) {
            Some(Ok(id)) => Ok(id),
            _ => refuse(path, "user and group are numbers below 2147483648"),
        };
        let (owner, mtime) = match self.kind {
            Kind::Layer => ((id(ids.0)?, id(ids.1)?), header.mtime().unwrap_or(0)),
            Kind::Tree { owner, mtime } => (owner, mtime),
        };
        let mode = header.mode().map_err(UnpackError::Archive)? & 0o7777;
        Ok(Meta { mode, owner, mtime: i64::try_from(mtime).unwrap_or(i64::MAX), capability })
    }

    fn whiteout(&mut self, folder: &OwnedFd, hidden: &OsStr, path: &Path) -> Result<(), UnpackError> {
        if self.kind != Kind::Layer {
            return refuse(path, "names that begin with .wh. mean removals in a layer");
        }
        match hidden.as_bytes() {
            // overlayfs hides nothing below an opaque root, so the step would see what the image says is gone.
            b".wh..opq" if path.components().count() == 1 => refuse(path, "a root that hides all layers below it"),
            b".wh..opq" => fs::fsetxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(|error| io_error("mark as opaque the folder of", path, error)),
            // Bookkeeping of aufs; other tools ignore it as well.
            bytes if bytes.starts_with(WHITEOUT_PREFIX) => Ok(()),
            b"" | b"." | b".." => refuse(path, "a removal without a name"),
            _ => match fs::mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
                // The same layer adds it: the addition wins.
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(io_error("make the removal", path, error)),
            },
        }
    }

    fn write<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        meta: &Meta,
        kind: EntryType,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        match kind {
            EntryType::Directory => self.directory(folder, name, path, meta),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(folder, name, path, meta, entry)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
                if target.is_empty() || target.len() >= 4096 || target.contains(&0) {
                    return refuse(path, "a link without a usable target");
                }
                self.replacing(folder, name, || fs::symlinkat(OsStr::from_bytes(&target), folder, name))
                    .and_then(|()| Ok(own_and_date(folder, name, meta)?))
                    .map_err(|source| UnpackError::Io { action: "make the link", path: path.to_owned(), source })
            }
            EntryType::Link => self.hard_link(folder, name, path, entry),
            EntryType::Fifo if self.kind == Kind::Layer => self
                .replacing(folder, name, || {
                    fs::mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(meta.mode & 0o777), 0)
                })
                .and_then(|()| Ok(own_and_date(folder, name, meta)?))
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
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let existing = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            if !matches!(existing, Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
                self.replacing(folder, name, || fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)))?;
            }
            let made = fs::openat(folder, name, flags, Mode::empty())?;
            fs::fchown(&made, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
            Ok(())
        };
        make().map_err(|source| UnpackError::Io { action: "make the folder", path: path.to_owned(), source })?;
        self.folders.push((path.to_owned(), meta.clone()));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        meta: &Meta,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Io { action: "write", path: path.to_owned(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.replacing(folder, name, || {
            made = Some(fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
            Ok(())
        })
        .map_err(failed)?;
        let Some(made) = made else { return Err(failed(io::Error::other("no file was made"))) };
        let mut file = File::from(made);
        loop {
            let n = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Err(UnpackError::Archive(error)),
            };
            self.counts.bytes += n as u64;
            if self.counts.bytes > self.limits.max_bytes {
                return Err(UnpackError::Limit { what: "bytes", limit: self.limits.max_bytes });
            }
            // A sparse file grows here and not in the archive.
            if self.tally.is_a_bomb(self.counts.bytes) {
                return refuse(path, "the archive unpacks to more than 200 times its size");
            }
            file.write_all(&self.buffer[..n]).map_err(failed)?;
        }
        let set = || -> rustix::io::Result<()> {
            fs::fchown(&file, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)))?;
            // After the owner: a change of owner clears set-user-ID and capabilities.
            fs::fchmod(&file, Mode::from_raw_mode(meta.mode))?;
            if let Some(capability) = &meta.capability {
                fs::fsetxattr(&file, "security.capability", capability, XattrFlags::empty())?;
            }
            fs::futimens(&file, &times(meta.mtime))
        };
        set().map_err(|error| failed(error.into()))
    }

    fn hard_link<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        let target = self.inside(&entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default())?;
        let (Some(target_name), Some(target_folder)) = (target.file_name().map(OsString::from), target.parent()) else {
            return refuse(path, "a hard link to the root");
        };
        if target == path {
            return Ok(());
        }
        let failed = |error: Errno| io_error("find the target of the hard link", path, error);
        let target_folder = in_root::open_folder(self.root, target_folder, RESOLVE).map_err(failed)?;
        let stat = fs::statat(&target_folder, &target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink) {
            return refuse(path, "a hard link to something else than a file");
        }
        self.replacing(folder, name, || fs::linkat(&target_folder, &target_name, folder, name, AtFlags::empty()))
            .map_err(|source| UnpackError::Io { action: "make the hard link", path: path.to_owned(), source })
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

fn own_and_date(folder: &OwnedFd, name: &OsStr, meta: &Meta) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
    fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::utimensat(folder, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(seconds: i64) -> Timestamps {
    let moment = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

fn refuse<T>(path: &Path, reason: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Refused { path: path.to_owned(), reason: reason.into() })
}

fn io_error(action: &'static str, path: &Path, error: Errno) -> UnpackError {
    UnpackError::Io { action, path: path.to_owned(), source: error.into() }
}
