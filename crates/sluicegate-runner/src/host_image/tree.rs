//! The image's tree as it grows: each path of the host is followed one component at a time, and every link on the way is kept.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use super::{HostEntryKind, HostImageError};

/// Links followed on the way to one file (Linux gives up at 40).
const LINKS: usize = 40;

pub(super) struct Tree {
    root: PathBuf,
    pub(super) entries: BTreeMap<PathBuf, HostEntryKind>,
}

/// Where a path ends.
pub(super) struct Found {
    /// Relative to the root, without a link in it.
    pub(super) path: PathBuf,
    /// On the host.
    pub(super) source: PathBuf,
    /// A regular file.
    pub(super) is_file: bool,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), entries: BTreeMap::new() }
    }

    /// Follows `path` (with or without a slash in front) and adds every folder and link on the way and the file at its end.
    pub(super) fn add(&mut self, path: &Path) -> Result<Found, HostImageError> {
        let (found, passed) = self.follow(path)?;
        self.entries.extend(passed);
        Ok(found)
    }

    /// Follows `path` and adds nothing; `None` where it leads to no regular file.
    pub(super) fn find(&self, path: &Path) -> Option<Found> {
        self.follow(path).ok().map(|(found, _)| found).filter(|found| found.is_file)
    }

    /// Adds something made here, unless the host's own stands there.
    pub(super) fn make(&mut self, path: &str, kind: HostEntryKind) {
        self.entries.entry(path.into()).or_insert(kind);
    }

    fn follow(&self, path: &Path) -> Result<(Found, Vec<(PathBuf, HostEntryKind)>), HostImageError> {
        let read = |source: &Path, error: &std::io::Error| HostImageError::read(source, error);
        let mut open: VecDeque<OsString> = parts(path);
        let mut done = PathBuf::new();
        let mut passed = Vec::new();
        let mut links = 0;
        let mut is_file = false;
        while let Some(part) = open.pop_front() {
            if is_file {
                return Err(HostImageError::Missing { path: Path::new("/").join(path) });
            }
            if part == ".." {
                done.pop();
                continue;
            }
            let here = done.join(&part);
            let source = self.root.join(&here);
            let metadata = match fs::symlink_metadata(&source) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(HostImageError::Missing { path: Path::new("/").join(path) });
                }
                Err(error) => return Err(read(&source, &error)),
            };
            let kind = metadata.file_type();
            if kind.is_symlink() {
                links += 1;
                if links > LINKS {
                    return Err(HostImageError::Links { path: Path::new("/").join(path) });
                }
                let target = fs::read_link(&source).map_err(|error| read(&source, &error))?;
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                for part in parts(&target).into_iter().rev() {
                    open.push_front(part);
                }
                passed.push((here, HostEntryKind::Symlink { target }));
            } else if kind.is_dir() {
                passed.push((here.clone(), HostEntryKind::Directory { mode: metadata.permissions().mode() & 0o1777 }));
                done = here;
            } else if kind.is_file() {
                // Set-user-id and set-group-id bits are of no use to a step and stay behind.
                let mode = metadata.permissions().mode() & 0o777;
                passed.push((here.clone(), HostEntryKind::File { source, mode, size: metadata.size() }));
                is_file = true;
                done = here;
            } else {
                return Err(HostImageError::Special { path: Path::new("/").join(here) });
            }
        }
        let source = self.root.join(&done);
        Ok((Found { path: done, source, is_file }, passed))
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
