//! Starts the helper from a copy of its program that nothing can write to.

use std::{
    fs::File,
    io::{self, PipeWriter},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{MemfdFlags, SealFlags},
};

use crate::job::HELPER_WORD;

/// A program in sealed memory. A container that reached its helper's `/proc/PID/exe` could overwrite the program of every later
/// step otherwise (CVE-2019-5736).
pub(crate) struct SealedProgram(OwnedFd);

impl SealedProgram {
    /// Copies the program at `path`.
    pub(crate) fn copy_of(path: &Path) -> io::Result<Self> {
        let mut source = File::open(path)?;
        let memory = rustix::fs::memfd_create("sluicegate-helper", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut memory = File::from(memory);
        io::copy(&mut source, &mut memory)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Self(memory.into()))
    }

    /// Starts the helper on the job in `run_folder`; its standard input is the other end of the returned control socket.
    ///
    /// Nothing of the environment goes along. Descriptors that this process inherited without close-on-exec would; the helper
    /// closes everything above standard error before it does anything else.
    pub(crate) fn start(
        &self,
        run_folder: &Path,
        stdout: PipeWriter,
        stderr: PipeWriter,
    ) -> io::Result<(Child, UnixStream)> {
        let (mine, theirs) = UnixStream::pair()?;
        // By our own number and not `self`, which would be the child.
        let program = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let child = Command::new(program)
            .arg(HELPER_WORD)
            .arg(run_folder)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(stderr)
            .spawn()?;
        Ok((child, mine))
    }
}
