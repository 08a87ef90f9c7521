//! Whether a file is an encrypted signing key: such a one is in no source and is no secret of a step.

use std::{io::Read, path::Path};

use crate::plain_file;

/// Bytes at the beginning of a file that say it is a private key.
const KEY_MARKS: [&[u8]; 2] =
    [b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"];

/// Whether these bytes begin as an encrypted signing key of ours or of cosign's does.
pub fn begins_as_private_key(bytes: &[u8]) -> bool {
    KEY_MARKS.iter().any(|mark| bytes.starts_with(mark))
}

/// Whether a file begins as a private key does.
pub(crate) fn is_private_key(path: &Path) -> bool {
    let mut head = [0; 64];
    // What is no regular file, or can't be read, is refused where it is taken into the source.
    let read = plain_file::open(path).and_then(|file| {
        let mut len = 0;
        let mut file = file.take(head.len() as u64);
        loop {
            match file.read(&mut head[len..])? {
                0 => return Ok(len),
                read => len += read,
            }
        }
    });
    read.is_ok_and(|len| begins_as_private_key(&head[..len]))
}
