//! Takes a step's declared outputs out of its root, after the container is dead and before its mounts are gone.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::FileType,
};

use crate::{
    job::{Collected, Job},
    mounts::{new_result, open_output},
    pack::{PackError, PackOptions, pack_open_directory},
};

/// The folder of results in the run folder; output number N is `out/N`.
pub(crate) const RESULTS: &str = "out";

/// Copies files and packs folders into `out/`; an error names the output by its number.
pub(crate) fn collect(root: BorrowedFd<'_>, job: &Job) -> Result<Vec<Collected>, (usize, String)> {
    let mut left = job.output_bytes;
    let mut collected = Vec::with_capacity(job.outputs.len());
    for (index, path) in job.outputs.iter().enumerate() {
        let result = Path::new(RESULTS).join(index.to_string());
        let output = Output { root, path, result, limit: job.output_bytes, left, epoch: job.epoch };
        let (what, size) = output.keep().map_err(|reason| (index, reason))?;
        left = left.saturating_sub(size);
        collected.push(what);
    }
    Ok(collected)
}

struct Output<'a> {
    root: BorrowedFd<'a>,
    path: &'a Path,
    result: PathBuf,
    limit: u64,
    left: u64,
    epoch: u64,
}

impl Output<'_> {
    fn keep(&self) -> Result<(Collected, u64), String> {
        let text = |error: io::Error| error.to_string();
        match open_output(self.root, self.path).map_err(text)? {
            None => Ok((Collected::Missing, 0)),
            Some((file, FileType::RegularFile)) => self.file(file.into()),
            Some((folder, FileType::Directory)) => {
                let mut out = BufWriter::with_capacity(
                    256 * 1024,
                    Bounded { inner: new_result(&self.result).map_err(text)?, left: self.left, written: 0 },
                );
                let packed =
                    pack_open_directory(folder.as_fd(), &mut out, &PackOptions::clamped(self.epoch, self.left));
                match packed {
                    Ok(_) => Ok((Collected::Directory, out.get_ref().written)),
                    Err(PackError::TooLarge { .. }) => Err(self.too_large()),
                    Err(PackError::Io { source, .. }) if source.kind() == io::ErrorKind::FileTooLarge => {
                        Err(self.too_large())
                    }
                    Err(error) => Err(with_sources(&error)),
                }
            }
            Some((_, kind)) => Err(format!("it is neither a file nor a folder but {kind:?}")),
        }
    }

    fn file(&self, file: File) -> Result<(Collected, u64), String> {
        let meta = file.metadata().map_err(|error| error.to_string())?;
        if meta.len() > self.left {
            return Err(self.too_large());
        }
        let mut out = new_result(&self.result).map_err(|error| error.to_string())?;
        let copied = io::copy(&mut file.take(self.left), &mut out).map_err(|error| error.to_string())?;
        let executable = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
        Ok((Collected::File { executable }, copied))
    }

    fn too_large(&self) -> String {
        format!("all outputs together are larger than the limit of {} bytes", self.limit)
    }
}

/// The text of an error with those that caused it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

struct Bounded<W> {
    inner: W,
    left: u64,
    written: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.inner.write(buffer)?;
        self.left -= n as u64;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
