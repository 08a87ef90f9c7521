//! Folders that belong to one run and are gone after it, even if the process that made them was killed.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fd::AsFd;

use crate::{cgroup, container_process::LOCK_FILE, in_root};

/// Held while a folder is made with its lock and while abandoned ones are looked for.
const GATE_FILE: &str = ".gate";

/// A private folder with a name that no other run has, locked by its users; removed on drop.
pub(crate) struct RunFolder {
    parent: PathBuf,
    id: String,
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes a folder below `parent`, which exists.
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        let id = random_id()?;
        let path = parent.join(&id);
        let _gate = gate(parent)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        let lock = File::create_new(path.join(LOCK_FILE))?;
        lock.lock_shared()?;
        Ok(Self { parent: parent.to_owned(), id, path, _lock: lock })
    }

    /// The name, unlike any other's.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes parts of it before all of it goes.
    pub(crate) fn forget(&self, names: &[&str]) {
        let Ok(folder) = in_root::open_root(&self.path) else { return };
        for name in names {
            // What cannot be removed now goes with the rest.
            let _ = in_root::remove(folder.as_fd(), OsStr::new(name));
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What cannot be removed now has lost its user and is swept the next time.
        let _ = discard(&self.parent, OsStr::new(&self.id));
    }
}

/// Makes a folder that only its owner reads, and those above it.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
    }
}

/// Removes every folder below `parent` that nobody holds, with the processes and control groups of its container.
pub(crate) fn sweep(parent: &Path) -> io::Result<()> {
    let mut abandoned = Vec::new();
    {
        let _gate = gate(parent)?;
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            match File::open(entry.path().join(LOCK_FILE)) {
                Ok(lock) => match lock.try_lock() {
                    Ok(()) => abandoned.push((entry.file_name(), Some(lock))),
                    Err(fs::TryLockError::WouldBlock) => {}
                    Err(fs::TryLockError::Error(error)) => return Err(error),
                },
                // A folder gets its lock under the gate: one without is the rest of a removal.
                Err(error) if error.kind() == io::ErrorKind::NotFound => abandoned.push((entry.file_name(), None)),
                Err(error) => return Err(error),
            }
        }
    }
    abandoned.into_iter().try_for_each(|(name, _lock)| discard(parent, &name))
}

fn discard(parent: &Path, name: &OsStr) -> io::Result<()> {
    if let Some(id) = name.to_str().filter(|name| is_id(name)) {
        cgroup::remove(id);
    }
    in_root::remove(in_root::open_root(parent)?.as_fd(), name)
}

fn gate(parent: &Path) -> io::Result<File> {
    let gate = File::options().create(true).truncate(false).write(true).open(parent.join(GATE_FILE))?;
    gate.lock()?;
    Ok(gate)
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("run-{:016x}", u64::from_ne_bytes(bytes)))
}

fn is_id(name: &str) -> bool {
    name.strip_prefix("run-").is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner_and_what_a_dead_process_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let mine = RunFolder::new(dir.path()).unwrap();
        let path = mine.path().to_owned();
        assert!(is_id(mine.id()));
        fs::create_dir_all(path.join("work/work")).unwrap();

        let dead = dir.path().join("run-0123456789abcdef");
        fs::create_dir_all(dead.join("upper/x")).unwrap();
        fs::write(dead.join(LOCK_FILE), "").unwrap();
        let half_removed = dir.path().join("run-0123456789abcdee");
        fs::create_dir(&half_removed).unwrap();
        sweep(dir.path()).unwrap();
        assert!(path.join("work/work").exists());
        assert!(!dead.exists() && !half_removed.exists());

        drop(mine);
        assert!(!path.exists());
    }
}
