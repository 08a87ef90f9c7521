use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
};

use super::{
    LayerWriter, MAX_DEPTH, PackError,
    layer_writer::{Attributes, Body},
};

/// Adds everything in `root`, in order, following no link.
pub(super) fn add_content_of<W: std::io::Write>(
    writer: &mut LayerWriter<W>,
    root: BorrowedFd<'_>,
) -> Result<(), PackError> {
    Walk { writer, seen: HashMap::new() }.folder(root, Path::new(""), 0)
}

/// The longest value of `security.capability` that the kernel defines (version 3) has 24 bytes.
const CAPABILITY_BYTES: usize = 64;

struct Walk<'w, W: std::io::Write> {
    writer: &'w mut LayerWriter<W>,
    /// The first path of each file that has several. The size is part of the key so that inode numbers which a stacked file
    /// system makes up can never join two different files.
    seen: HashMap<(u64, u64, i64), PathBuf>,
}

impl<W: std::io::Write> Walk<'_, W> {
    fn folder(&mut self, folder: BorrowedFd<'_>, at: &Path, depth: usize) -> Result<(), PackError> {
        for name in self.names(folder, at)? {
            let name = OsStr::from_bytes(&name);
            let path = at.join(name);
            let stat = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| io_error("look at", &path, error))?;
            self.entry(folder, name, path, &stat, depth)?;
        }
        Ok(())
    }

    fn names(&self, folder: BorrowedFd<'_>, at: &Path) -> Result<Vec<Vec<u8>>, PackError> {
        let failed = |error| io_error("list", at, error);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
                self.writer.check_room(names.len() as u64)?;
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: PathBuf,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), PackError> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if depth == MAX_DEPTH {
                    return Err(PackError::Path { path, reason: "more than 64 folders below each other" });
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = fs::openat(folder, name, flags, Mode::empty())
                    .map_err(|error| io_error("open the folder", &path, error))?;
                self.writer.add(&path, &attributes(stat), Body::Directory)?;
                self.folder(inner.as_fd(), &path, depth + 1)
            }
            FileType::RegularFile => self.file(folder, name, path, stat),
            FileType::Symlink => {
                let target = fs::readlinkat(folder, name, Vec::new())
                    .map_err(|error| io_error("read the link", &path, error))?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                self.writer.add(&path, &attributes(stat), Body::Symlink(target))
            }
            FileType::Fifo | FileType::Socket => {
                self.writer.count_left_out();
                Ok(())
            }
            _ => Err(PackError::Path { path, reason: "a device node is not content" }),
        }
    }

    fn file(&mut self, folder: BorrowedFd<'_>, name: &OsStr, path: PathBuf, stat: &Stat) -> Result<(), PackError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino, stat.st_size);
            if let Some(first) = self.seen.get(&key) {
                let first = first.clone();
                return self.writer.add(&path, &attributes(stat), Body::HardLink(&first));
            }
            self.seen.insert(key, path.clone());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(folder, name, flags, Mode::empty()).map_err(|error| io_error("open", &path, error))?;
        let stat = fs::fstat(&file).map_err(|error| io_error("look at", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(PackError::Path { path, reason: "the file was exchanged while it was read" });
        }
        let mut attributes = attributes(&stat);
        let mut capability = [0; CAPABILITY_BYTES];
        if let Ok(n) = fs::fgetxattr(&file, "security.capability", &mut capability[..]) {
            attributes.capability = Some(capability[..n].to_vec());
        }
        let size = stat.st_size.cast_unsigned();
        self.writer.add(&path, &attributes, Body::File { reader: &mut File::from(file), size })
    }
}

fn attributes(stat: &Stat) -> Attributes {
    let foreign_owner = if stat.st_uid == 0 { 0 } else { 0o4000 };
    let foreign_group = if stat.st_gid == 0 { 0 } else { 0o2000 };
    Attributes {
        mode: stat.st_mode & 0o7777 & !foreign_owner & !foreign_group,
        mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        capability: None,
    }
}

fn io_error(action: &'static str, path: &Path, error: rustix::io::Errno) -> PackError {
    PackError::Io { action, path: path.to_owned(), source: error.into() }
}
