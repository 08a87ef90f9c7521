//! A lock of a file that is gone with its holder, and not a moment later.
//!
//! A lock of `flock(2)` is that of an open file, and a process that is just being started has all open files of its parent until it executes
//! its program. Closed only, a file would stay locked for that while, and whoever asks then is told that it is in use.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Deref,
};

/// A file that is locked as long as this is.
#[derive(Debug)]
pub(crate) struct HeldLock(File);

impl HeldLock {
    /// Locks a file, without waiting; `None` if somebody else has it.
    pub(crate) fn try_on(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for HeldLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // What can't be unlocked is when it is closed.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_is_free_though_a_process_that_is_being_started_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::create(folder.path().join("lock")).unwrap();
        let held = HeldLock::try_on(open()).unwrap().unwrap();
        let copied = held.try_clone().unwrap();
        assert!(HeldLock::try_on(open()).unwrap().is_none());
        drop(held);
        assert!(HeldLock::try_on(open()).unwrap().is_some());
        drop(copied);
    }
}
