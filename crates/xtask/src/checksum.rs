//! SHA-256, computed by the system's `sha256sum`: this program has no dependencies and writes no cryptography of its own.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The SHA-256 of a file's bytes, as 64 hexadecimal digits.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    // By standard input, so that no file name needs quoting.
    let file = std::fs::File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))?;
    digits(&Command::new("sha256sum").stdin(file).output().map_err(no_sha256sum)?)
}

/// The SHA-256 of `bytes`, as 64 hexadecimal digits.
pub fn sha256_of_bytes(bytes: &[u8]) -> io::Result<String> {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(no_sha256sum)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes)?;
    }
    digits(&child.wait_with_output()?)
}

fn digits(output: &std::process::Output) -> io::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let digits = text.split_whitespace().next().unwrap_or_default();
    if output.status.success() && digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits.to_owned())
    } else {
        Err(io::Error::other("sha256sum gave no checksum"))
    }
}

fn no_sha256sum(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start sha256sum (package coreutils): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_standard_hold() {
        assert_eq!(sha256_of_bytes(b"").unwrap(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            sha256_of_bytes(b"abc").unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_missing_file_has_no_checksum() {
        assert!(sha256_of_file(Path::new("/nonexistent/file")).is_err());
    }
}
