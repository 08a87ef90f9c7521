//! Copies files into the private folder while hashing them, so that what is used later is what was hashed.
//!
//! Only the private folder itself keeps others out. What stands in it anybody may read, so that the sandbox can run the scanner
//! as a user who owns nothing.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use sluicegate_types::{Digest, Hasher};

/// Copies the regular file `from` to the new file `to` with these permission bits; more than `limit` bytes are an error.
pub(crate) fn copy(from: &Path, to: &Path, mode: u32, limit: u64) -> io::Result<Digest> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    let digest = each_block(from, limit, &mut |block| target.write_all(block))?;
    target.sync_all()?;
    readable(to, mode)?;
    Ok(digest)
}

/// Sets these permission bits, whatever the umask took away when the path was made.
pub(crate) fn readable(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The digest of the regular file `path`; more than `limit` bytes are an error.
pub(crate) fn digest(path: &Path, limit: u64) -> io::Result<Digest> {
    each_block(path, limit, &mut |_| Ok(()))
}

fn each_block(path: &Path, limit: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Digest> {
    // Asked before opening, for opening a pipe waits.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0_u64;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        total += n as u64;
        if total > limit {
            return Err(io::Error::other(format!("larger than {limit} bytes")));
        }
        hasher.update(&buffer[..n]);
        take(&buffer[..n])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_limited_hashed_and_new() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"12345").unwrap();
        assert!(copy(&from, &to, 0o555, 4).is_err());
        std::fs::remove_file(&to).unwrap();
        assert_eq!(copy(&from, &to, 0o555, 5).unwrap(), Digest::of(b"12345"));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o555);
        assert!(copy(&from, &to, 0o555, 5).is_err(), "an existing file is never written over");
        assert!(digest(folder.path(), 5).is_err());
    }
}
