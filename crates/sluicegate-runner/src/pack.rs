//! Deterministic tar archives: the same tree gives the same bytes on every machine, whatever its umask, zone, locale or user.
//!
//! The rules: names sorted by bytes within their folder, a folder before its content, owner and group 0, no time later than the
//! epoch asked for, `security.capability` as the only extended attribute, hard links by inode in sort order, ustar headers with
//! GNU long names. Sockets and FIFOs are not content and are left out; device nodes and names that OCI layers reserve
//! (image-spec, "whiteouts") are refused. A set-user-ID bit survives only on a file of user 0, for the owner is not kept.

mod archive_entries;
mod elf_machine;
mod layer_writer;
mod listing;
mod onto;
mod retarget;
mod walk;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fd::BorrowedFd;

pub(crate) use elf_machine::{elf_machine, list_elf_machines};
pub use layer_writer::LayerWriter;
pub(crate) use listing::list_files;
pub(crate) use onto::LayerOnto;

/// Folders below each other that an archive may have; the unpacker has the same limit.
pub const MAX_DEPTH: usize = 64;

/// Entries that an archive may have (DESIGN section 7).
pub const MAX_ENTRIES: u64 = 1_000_000;

/// The prefix of names that OCI layers use for removals.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// What holds for a whole archive.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// Seconds since 1970 (SOURCE_DATE_EPOCH).
    pub epoch: u64,
    /// Which modification times are written.
    pub mtime: Mtime,
    /// Bytes of file content; one more is an error.
    pub max_bytes: u64,
    /// Entries; one more is an error.
    pub max_entries: u64,
}

impl PackOptions {
    /// Times clamped to `epoch`, at most `max_bytes` of content and [`MAX_ENTRIES`] entries.
    pub fn clamped(epoch: u64, max_bytes: u64) -> Self {
        Self { epoch, mtime: Mtime::AtMostEpoch, max_bytes, max_entries: MAX_ENTRIES }
    }

    /// Every time is `epoch`, at most `max_bytes` of content and [`MAX_ENTRIES`] entries.
    pub fn fixed(epoch: u64, max_bytes: u64) -> Self {
        Self { mtime: Mtime::Epoch, ..Self::clamped(epoch, max_bytes) }
    }
}

/// Which modification times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// The file's own, but never later than the epoch.
    AtMostEpoch,
    /// The epoch, whatever the file says.
    Epoch,
}

/// What went into an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Sockets and FIFOs that were left out.
    pub left_out: u64,
}

/// Why an archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A name that a layer cannot hold, or a path that leaves the archive.
    #[error("{path:?} cannot be archived: {reason}")]
    Path {
        /// The path inside the archive.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A path that can't be put onto what stands below it.
    #[error("{path:?} cannot be put there: {reason}")]
    Onto {
        /// The path as it was asked for.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A path that was added before or belongs before the last one.
    #[error("{path:?} is added after {last:?}: entries come sorted, each path once")]
    Order {
        /// The path.
        path: PathBuf,
        /// The one before.
        last: PathBuf,
    },
    /// More content than allowed.
    #[error("more than the limit of {limit} bytes at {path:?}")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
        /// Where it was reached.
        path: PathBuf,
    },
    /// More entries than allowed.
    #[error("more than the limit of {limit} entries")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// An archive to be added that is broken or not one of ours.
    #[error("cannot read the archive to be added: {reason}")]
    Archive {
        /// Why.
        reason: String,
    },
    /// Reading the tree or writing the archive.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Writes the content of the folder `root` (not the folder itself) to `out`. `root` may not be a symbolic link; links below it
/// are archived as links and never followed.
pub fn pack_directory(root: &Path, out: impl Write, options: &PackOptions) -> Result<PackStats, PackError> {
    let folder = crate::in_root::open_root(root).map_err(|error| PackError::Io {
        action: "open the folder",
        path: root.to_owned(),
        source: error.into(),
    })?;
    pack_open_directory(rustix::fd::AsFd::as_fd(&folder), out, options)
}

/// As [`pack_directory`] for a folder that is open already.
pub fn pack_open_directory(
    root: BorrowedFd<'_>,
    out: impl Write,
    options: &PackOptions,
) -> Result<PackStats, PackError> {
    let mut writer = LayerWriter::new(out, options);
    walk::add_content_of(&mut writer, root)?;
    writer.finish().map(|(_, stats)| stats)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn pack(root: &Path, options: &PackOptions) -> Result<Vec<u8>, PackError> {
        let mut out = Vec::new();
        pack_directory(root, &mut out, options).map(|_| out)
    }

    fn listing(tar: &[u8]) -> Vec<String> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                format!(
                    "{} {:o} {} {}:{} {}",
                    String::from_utf8_lossy(&entry.path_bytes()),
                    header.mode().unwrap(),
                    header.mtime().unwrap(),
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default()
                )
            })
            .collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            fs::write(dir.path().join(name), name).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(dir.path().join("a")).unwrap();
        file("a/x", 0o600);
        file("a.b", 0o755);
        file("B", 0o644);
        fs::hard_link(dir.path().join("B"), dir.path().join("a/again")).unwrap();
        symlink("../outside", dir.path().join("a/link")).unwrap();
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o750)).unwrap();
        dir
    }

    #[test]
    fn a_tree_is_sorted_owned_by_nobody_and_never_younger_than_the_epoch() {
        let dir = tree();
        let expected = [
            "B 644 5 0:0 ",
            "a/ 750 5 0:0 ",
            "a/again 644 5 0:0 B",
            "a/link 777 5 0:0 ../outside",
            "a/x 600 5 0:0 ",
            "a.b 755 5 0:0 ",
        ];
        assert_eq!(listing(&pack(dir.path(), &PackOptions::clamped(5, 1000)).unwrap()), expected);
    }

    #[test]
    fn equal_trees_give_equal_bytes_and_old_times_are_kept_only_when_asked() {
        let (one, two) = (tree(), tree());
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(3);
        fs::File::options().write(true).open(two.path().join("B")).unwrap().set_modified(old).unwrap();
        let bytes = |dir: &tempfile::TempDir, options| pack(dir.path(), &options).unwrap();
        assert_eq!(bytes(&one, PackOptions::fixed(5, 1000)), bytes(&two, PackOptions::fixed(5, 1000)));
        assert_ne!(bytes(&one, PackOptions::clamped(5, 1000)), bytes(&two, PackOptions::clamped(5, 1000)));
        assert!(listing(&bytes(&two, PackOptions::clamped(5, 1000)))[0].starts_with("B 644 3 "));
    }

    #[test]
    fn limits_are_exact() {
        let dir = tree();
        let content = pack_directory(dir.path(), io::sink(), &PackOptions::clamped(5, u64::MAX)).unwrap();
        let with = |max_bytes, max_entries| {
            let options = PackOptions { max_bytes, max_entries, ..PackOptions::clamped(5, 0) };
            pack_directory(dir.path(), io::sink(), &options)
        };
        assert_eq!(with(content.bytes, content.entries).unwrap(), content);
        assert!(matches!(with(content.bytes - 1, content.entries), Err(PackError::TooLarge { .. })));
        assert!(matches!(with(content.bytes, content.entries - 1), Err(PackError::TooMany { limit: 5 })));
    }

    #[test]
    fn sockets_and_fifos_are_left_out_and_counted() {
        let dir = tree();
        let with_none = pack(dir.path(), &PackOptions::fixed(5, 1000)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let folder = crate::in_root::open_root(dir.path()).unwrap();
        rustix::fs::mknodat(&folder, "fifo", rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut out = Vec::new();
        let stats = pack_directory(dir.path(), &mut out, &PackOptions::fixed(5, 1000)).unwrap();
        assert_eq!(stats.left_out, 2);
        assert_eq!(out, with_none);
    }

    #[test]
    fn reserved_names_devices_and_bottomless_trees_are_refused() {
        let dir = tree();
        fs::write(dir.path().join(".wh"), "").unwrap();
        assert!(pack(dir.path(), &PackOptions::fixed(5, 1000)).is_ok());
        fs::write(dir.path().join("a/.wh.x"), "").unwrap();
        let error = pack(dir.path(), &PackOptions::fixed(5, 1000)).unwrap_err();
        assert!(matches!(&error, PackError::Path { path, .. } if path == Path::new("a/.wh.x")), "{error}");

        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_owned();
        for _ in 0..MAX_DEPTH {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        assert!(pack(dir.path(), &PackOptions::fixed(5, 1000)).is_ok());
        fs::create_dir(path.join("d")).unwrap();
        assert!(matches!(pack(dir.path(), &PackOptions::fixed(5, 1000)), Err(PackError::Path { .. })));

        let dir = tempfile::tempdir().unwrap();
        let folder = crate::in_root::open_root(dir.path()).unwrap();
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(&folder, "null", rustix::fs::FileType::CharacterDevice, 0o600.into(), device).unwrap();
        assert!(matches!(pack(dir.path(), &PackOptions::fixed(5, 1000)), Err(PackError::Path { .. })));
    }

    #[test]
    fn long_names_survive() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        fs::create_dir(dir.path().join("d".repeat(200))).unwrap();
        fs::write(dir.path().join(&long), "x").unwrap();
        let tar = pack(dir.path(), &PackOptions::fixed(5, 1000)).unwrap();
        assert!(listing(&tar)[1].starts_with(&long));
    }
}
