//! What of a folder is no source.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sluicegate_ports::trees::TreeError;

use crate::{
    plain_file,
    private_key::is_private_key,
    source_repository::{MAX_IGNORE, io},
};

/// What never reaches a step, wherever it lies and however it is called there: the home, secrets, keys.
pub(super) struct Excluded {
    paths: Vec<PathBuf>,
    /// The files among them, by device and number: they may have other names.
    files: BTreeSet<(u64, u64)>,
}

impl Excluded {
    pub(super) fn new(paths: &[PathBuf]) -> Result<Self, TreeError> {
        let mut excluded = Self { paths: Vec::new(), files: BTreeSet::new() };
        for path in paths {
            let written = std::path::absolute(path).map_err(|source| io("find", path, source))?;
            match fs::canonicalize(path) {
                Ok(real) => {
                    let metadata = fs::symlink_metadata(&real).map_err(|source| io("look at", &real, source))?;
                    if metadata.is_file() {
                        excluded.files.insert((metadata.dev(), metadata.ino()));
                    }
                    excluded.paths.push(real);
                }
                // It may come to be while files are listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(io("find", path, source)),
            }
            excluded.paths.push(written);
        }
        Ok(excluded)
    }

    /// Which of them a path is or lies in.
    pub(super) fn around(&self, path: &Path) -> Option<&Path> {
        self.paths.iter().find(|no| path.starts_with(no)).map(PathBuf::as_path)
    }

    pub(super) fn is_same_file(&self, metadata: &Metadata) -> bool {
        metadata.is_file() && self.files.contains(&(metadata.dev(), metadata.ino()))
    }

    pub(super) fn covers(&self, path: &Path, metadata: &Metadata) -> bool {
        // The folders above are no links, so only what is one itself may lead elsewhere.
        let leads_there =
            || metadata.is_symlink() && fs::canonicalize(path).is_ok_and(|real| self.around(&real).is_some());
        self.around(path).is_some()
            || self.is_same_file(metadata)
            || leads_there()
            || (metadata.is_file() && is_private_key(path))
    }
}

/// The paths that the file of ignored names lists; none where there is no such file.
pub(super) fn ignored_names(path: &Path) -> Result<BTreeSet<PathBuf>, TreeError> {
    let bytes = match plain_file::read(path, MAX_IGNORE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => return Err(io("read the list of ignored names", path, source)),
    };
    let text = String::from_utf8(bytes).map_err(|_| TreeError::Entry {
        path: path.to_owned(),
        reason: "the list of ignored names is not UTF-8; write it as UTF-8".to_owned(),
    })?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| PathBuf::from(line.trim_matches('/')))
        .collect())
}
