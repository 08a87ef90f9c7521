use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

/// Links that one path may lead through, as many as the kernel follows.
const MAX_LINKS: usize = 40;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Unpacked layers as one tree, the way overlayfs shows them: the upper one wins, folders are merged, removals hide what lies below.
pub(super) struct Merged<'a> {
    /// Their roots, the upper one first.
    pub(super) layers: Vec<BorrowedFd<'a>>,
}

/// What stands at a path.
pub(super) struct Found {
    /// The folder of the layer that it is in.
    pub(super) folder: OwnedFd,
    /// What the file system says of it.
    pub(super) stat: Stat,
}

impl Found {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Merged<'_> {
    /// What stands at `path`, which has no link on its way; `None` if nothing does.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        let mut visible = Vec::new();
        for layer in &self.layers {
            let root = fs::openat(layer, ".", FOLDER, Mode::empty())?;
            let is_opaque = is_opaque(root.as_fd());
            visible.push(root);
            if is_opaque {
                break;
            }
        }
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            let mut next = Vec::new();
            for folder in visible {
                let stat = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    result => result?,
                };
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::CharacterDevice {
                    // The removals of overlayfs are devices; others are never unpacked.
                    break;
                }
                if names.peek().is_none() {
                    return Ok(Some(Found { folder, stat }));
                }
                if kind != FileType::Directory {
                    break;
                }
                let inner = fs::openat(&folder, name, FOLDER, Mode::empty())?;
                let is_opaque = is_opaque(inner.as_fd());
                next.push(inner);
                if is_opaque {
                    break;
                }
            }
            visible = next;
        }
        Ok(None)
    }

    /// `path` without links: those on its way are followed inside the root. What is missing of it stays as it is written.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut left: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.look(&next)? {
                Some(found) if found.kind() == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = fs::readlinkat(&found.folder, &name, Vec::new())?;
                    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                    for component in target.components().rev() {
                        match component {
                            Component::Normal(name) => left.push_front(name.to_owned()),
                            Component::ParentDir => left.push_front("..".into()),
                            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                        }
                    }
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                }
                _ => at = next,
            }
        }
        Ok(at)
    }
}

/// Whether what lies below this folder of a layer is hidden.
pub(crate) fn is_opaque(folder: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
}
