use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};

use crate::unpack::FolderMeta;

use super::{Mtime, PackError, PackOptions, PackStats, WHITEOUT_PREFIX, retarget};

/// Writes a deterministic archive entry by entry: the layers of images and the trees of sources.
///
/// Paths are relative, without `.` or `..`, and come in the order of [`Path`]'s comparison, each once: `a`, `a/b`, `a.b`. The
/// caller adds the folders above an entry. Explicit entries have the epoch as their time and owner and group 0.
pub struct LayerWriter<W: Write> {
    tar: Builder<W>,
    options: PackOptions,
    stats: PackStats,
    last: Option<PathBuf>,
    is_ordered: bool,
}

/// What an entry carries beside its content.
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) mtime: u64,
    pub(super) capability: Option<Vec<u8>>,
}

/// What an entry is.
pub(super) enum Body<'a> {
    Directory,
    File { reader: &'a mut dyn Read, size: u64 },
    Symlink(&'a Path),
    HardLink(&'a Path),
}

impl<W: Write> LayerWriter<W> {
    /// An archive without entries, to be written to `out`.
    pub fn new(out: W, options: &PackOptions) -> Self {
        Self { tar: Builder::new(out), options: *options, stats: PackStats::default(), last: None, is_ordered: true }
    }

    /// The same, and the caller sees to the order and that no path comes twice.
    pub(super) fn in_any_order(out: W, options: &PackOptions) -> Self {
        Self { is_ordered: false, ..Self::new(out, options) }
    }

    /// Adds a folder as it is in a layer below.
    pub(super) fn add_folder_of(&mut self, path: &Path, meta: FolderMeta) -> Result<(), PackError> {
        self.check_room(1)?;
        let mut header = self.header(&self.explicit(meta.mode));
        header.set_uid(meta.owner.0);
        header.set_gid(meta.owner.1);
        header.set_mtime(u64::try_from(meta.mtime).unwrap_or(0));
        self.append_folder(path, &mut header)?;
        self.stats.entries += 1;
        Ok(())
    }

    /// Adds a folder with the permissions `mode`.
    pub fn add_directory(&mut self, path: &Path, mode: u32) -> Result<(), PackError> {
        self.add(path, &self.explicit(mode), Body::Directory)
    }

    /// Adds a file with the permissions `mode` and the content of the file `source` on disk, which may not be a link.
    pub fn add_file(&mut self, path: &Path, source: &Path, mode: u32) -> Result<(), PackError> {
        let failed = |source_error| PackError::Io { action: "open", path: source.to_owned(), source: source_error };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(flags).open(source).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        self.add(path, &self.explicit(mode), Body::File { reader: &mut file, size: meta.len() })
    }

    /// Adds a file with the permissions `mode` whose content is the `size` bytes that `reader` gives; fewer or more are an error.
    pub fn add_reader(&mut self, path: &Path, reader: &mut dyn Read, size: u64, mode: u32) -> Result<(), PackError> {
        self.add(path, &self.explicit(mode), Body::File { reader, size })
    }

    /// Adds a file with the permissions `mode` and these bytes.
    pub fn add_bytes(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), PackError> {
        self.add_reader(path, &mut &bytes[..], bytes.len() as u64, mode)
    }

    /// Adds a symbolic link with this text; the text is not judged, whoever unpacks resolves it inside the root.
    pub fn add_symlink(&mut self, path: &Path, target: &Path) -> Result<(), PackError> {
        self.add(path, &self.explicit(0o777), Body::Symlink(target))
    }

    /// Adds every entry of the archive that `reader` gives (one that this module wrote: a directory product) below the folder
    /// `prefix`, which is added before. Paths and the targets of hard links move under `prefix`, texts of symbolic links stay;
    /// paths with `..`, device nodes and owners are not taken over. The reader is read to its end.
    pub fn add_tar(&mut self, prefix: &Path, reader: impl Read) -> Result<(), PackError> {
        retarget::add_tar(self, prefix, reader, &mut retarget::AsAsked)
    }

    /// Writes the end of the archive and returns the output with what went into it.
    pub fn finish(self) -> Result<(W, PackStats), PackError> {
        let stats = self.stats;
        let mut out = self.tar.into_inner().map_err(|source| write_error(Path::new(""), source))?;
        out.flush().map_err(|source| write_error(Path::new(""), source))?;
        Ok((out, stats))
    }

    /// Decides on one entry and writes it: name, order and limits first, then its headers, then its content.
    pub(super) fn add(&mut self, path: &Path, attributes: &Attributes, body: Body<'_>) -> Result<(), PackError> {
        check_path(path)?;
        if let Some(last) = self.last.as_ref().filter(|_| self.is_ordered)
            && path <= last.as_path()
        {
            return Err(PackError::Order { path: path.to_owned(), last: last.clone() });
        }
        self.check_room(1)?;
        self.write(path, attributes, body)?;
        self.stats.entries += 1;
        self.last = Some(path.to_owned());
        Ok(())
    }

    /// Refuses `more` entries beyond the limit.
    pub(super) fn check_room(&self, more: u64) -> Result<(), PackError> {
        let limit = self.options.max_entries;
        if self.stats.entries.saturating_add(more) > limit { Err(PackError::TooMany { limit }) } else { Ok(()) }
    }

    /// Counts something that is not content.
    pub(super) fn count_left_out(&mut self) {
        self.stats.left_out += 1;
    }

    fn explicit(&self, mode: u32) -> Attributes {
        Attributes { mode, mtime: self.options.epoch, capability: None }
    }

    fn write(&mut self, path: &Path, attributes: &Attributes, body: Body<'_>) -> Result<(), PackError> {
        let failed = |source| write_error(path, source);
        if let Some(capability) = &attributes.capability {
            let record = [("SCHILY.xattr.security.capability", capability.as_slice())];
            self.tar.append_pax_extensions(record).map_err(failed)?;
        }
        let mut header = self.header(attributes);
        match body {
            Body::Directory => self.append_folder(path, &mut header),
            Body::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                if target.as_os_str().is_empty() {
                    return Err(PackError::Path { path: path.to_owned(), reason: "a link without a target" });
                }
                self.tar.append_link(&mut header, path, target).map_err(failed)
            }
            Body::HardLink(target) => {
                header.set_entry_type(EntryType::Link);
                self.tar.append_link(&mut header, path, target).map_err(failed)
            }
            Body::File { reader, size } => {
                header.set_entry_type(EntryType::Regular);
                let total = self.stats.bytes.saturating_add(size);
                if total > self.options.max_bytes {
                    return Err(PackError::TooLarge { limit: self.options.max_bytes, path: path.to_owned() });
                }
                header.set_size(size);
                self.tar.append_data(&mut header, path, Exactly { reader, left: size }).map_err(failed)?;
                self.stats.bytes = total;
                Ok(())
            }
        }
    }

    fn append_folder(&mut self, path: &Path, header: &mut Header) -> Result<(), PackError> {
        header.set_entry_type(EntryType::Directory);
        let mut name = path.as_os_str().to_owned();
        name.push("/");
        self.tar.append_data(header, Path::new(&name), io::empty()).map_err(|source| write_error(path, source))
    }

    fn header(&self, attributes: &Attributes) -> Header {
        let mut header = Header::new_ustar();
        header.set_mode(attributes.mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(match self.options.mtime {
            Mtime::Epoch => self.options.epoch,
            Mtime::AtMostEpoch => attributes.mtime.min(self.options.epoch),
        });
        header
    }
}

fn write_error(path: &Path, source: io::Error) -> PackError {
    PackError::Io { action: "archive", path: path.to_owned(), source }
}

fn check_path(path: &Path) -> Result<(), PackError> {
    let refuse = |reason| Err(PackError::Path { path: path.to_owned(), reason });
    if path.as_os_str().is_empty() {
        return refuse("an entry needs a name");
    }
    for component in path.components() {
        match component {
            Component::Normal(name) if starts_like_a_whiteout(name) => {
                return refuse("names that begin with .wh. mean removals in a layer");
            }
            Component::Normal(_) => {}
            _ => return refuse("a path inside an archive is relative, without . and .."),
        }
    }
    Ok(())
}

fn starts_like_a_whiteout(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT_PREFIX)
}

/// Gives exactly the announced bytes or fails, for the tar builder trusts the header and would write a broken archive.
struct Exactly<'a> {
    reader: &'a mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return match self.reader.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other("the file grew while it was read")),
            };
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.reader.read(&mut buffer[..room])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was read")),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn writer() -> LayerWriter<Vec<u8>> {
        LayerWriter::new(Vec::new(), &PackOptions::fixed(7, 1000))
    }

    #[test]
    fn entries_come_in_order_and_once() {
        let mut layer = writer();
        for path in ["a", "a/b", "a.b"] {
            layer.add_directory(Path::new(path), 0o755).unwrap();
        }
        for path in ["a.b", "a/b"] {
            assert!(matches!(layer.add_directory(Path::new(path), 0o755), Err(PackError::Order { .. })), "{path}");
        }
        assert_eq!(layer.finish().unwrap().1.entries, 3);
    }

    #[test]
    fn only_paths_inside_the_archive_are_taken() {
        for bad in ["", "/a", "../a", "a/../b", "./a", ".wh.a", "a/.wh..wh..opq"] {
            let error = writer().add_bytes(Path::new(bad), b"x", 0o644).unwrap_err();
            assert!(matches!(error, PackError::Path { .. }), "{bad}: {error}");
        }
        writer().add_bytes(Path::new("a/b"), b"x", 0o644).unwrap();
    }

    #[test]
    fn content_shorter_or_longer_than_announced_is_an_error() {
        let add = |size| writer().add_reader(Path::new("a"), &mut &b"123"[..], size, 0o644);
        assert!(add(3).is_ok());
        assert!(matches!(add(2), Err(PackError::Io { .. })));
        assert!(matches!(add(4), Err(PackError::Io { .. })));
    }

    #[test]
    fn a_source_that_is_a_link_or_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let add = |name: &str| writer().add_file(Path::new("a"), &dir.path().join(name), 0o644);
        assert!(add("file").is_ok());
        assert!(add("link").is_err());
        assert!(add(".").is_err());
    }
}
