//! Regular files of a tree that somebody else may write to: opened without following a link and without waiting, looked at only once they
//! are open, and read up to a limit. What was looked at before it was opened could have been exchanged in between.

use std::{
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, Read, Result},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

/// Opens a regular file. A link is not followed, and a pipe is not waited for: both are errors that say so.
pub(crate) fn open(path: &Path) -> Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => Error::new(ErrorKind::InvalidInput, "it is a link; put a regular file there"),
        // A socket.
        Some(Errno::NXIO) => not_regular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// The bytes of a regular file that has at most `limit` of them.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Not by the size that the file says it has: it may grow while it is read.
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

fn not_regular() -> Error {
    Error::new(ErrorKind::InvalidInput, "it is not a regular file; put one there")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
    };

    use super::*;

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        assert_eq!(read(&at("file"), 100).unwrap(), b"12345");
        symlink("file", at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for (name, says) in [
            ("link", "a link"),
            ("pipe", "not a regular file"),
            ("socket", "not a regular file"),
            (".", "not a regular file"),
        ] {
            let error = read(&at(name), 100).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert_eq!(read(&at("nothing"), 100).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_at_its_limit_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err().to_string();
        assert!(error.contains("limit of 4 bytes"), "{error}");
    }
}
