//! What a request sends: bytes, or a part of a file that is hashed on its way.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
};

use sluicegate_types::{Digest, Hasher};

/// What may be sent again: bytes, or a part of a file.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// `length` bytes of a file from `from` on, which are hashed in `sent` on their way.
    File {
        file: &'a File,
        from: u64,
        length: u64,
        sent: &'a Mutex<Hashed>,
    },
}

/// What was read of a file to be sent, from its beginning on: in one piece or several, some of them perhaps more than once.
pub(crate) struct Hashed {
    hasher: Hasher,
    to: u64,
}

impl Hashed {
    pub(crate) fn new() -> Self {
        Self { hasher: Hasher::new(), to: 0 }
    }

    /// The digest of the file's bytes, if all `size` of them were read.
    pub(crate) fn finish(self, size: u64) -> Option<Digest> {
        (self.to == size).then(|| self.hasher.finish())
    }

    /// Bytes that lie at `at` in the file: each is hashed when it comes for the first time.
    fn update(&mut self, at: u64, bytes: &[u8]) {
        let new = self.to.checked_sub(at).and_then(|known| bytes.get(usize::try_from(known).ok()?..));
        if let Some(new) = new {
            self.hasher.update(new);
            self.to += new.len() as u64;
        }
    }
}

/// A part of a file, read without moving a place that others share.
pub(super) struct Part<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
    pub(super) left: u64,
    pub(super) sent: &'a Mutex<Hashed>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = if most == 0 { 0 } else { self.file.read_at(&mut buffer[..most], self.at)? };
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).update(self.at, &buffer[..n]);
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_becomes_shorter_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, b"abc").unwrap();
        let file = File::open(path).unwrap();
        let read = |from: u64, length: u64| {
            let sent = Mutex::new(Hashed::new());
            let mut part = Part { file: &file, at: from, left: length, sent: &sent };
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(1, 2).unwrap(), b"bc".to_vec());
        assert_eq!(read(1, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn each_byte_of_a_file_is_hashed_once_however_it_is_read() {
        let digest = Some(Digest::of(b"abcdef"));
        let hashed = |pieces: &[(u64, &str)]| {
            let mut hashed = Hashed::new();
            pieces.iter().for_each(|(at, bytes)| hashed.update(*at, bytes.as_bytes()));
            hashed.finish(6)
        };
        assert_eq!(hashed(&[(0, "abcdef")]), digest);
        assert_eq!(hashed(&[(0, "abc"), (1, "bc"), (0, "a"), (1, "bcde"), (5, "f"), (6, "")]), digest);
        assert_eq!(hashed(&[(0, "abc"), (4, "ef")]), None);
        assert_eq!(hashed(&[(0, "abc")]), None);
        assert_ne!(hashed(&[(0, "abc"), (3, "xef")]), digest);
    }
}
