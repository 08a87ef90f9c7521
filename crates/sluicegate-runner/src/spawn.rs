//! Starts the helper from a copy of its program that nothing can write to.

use std::{
    fs::File,
    io,
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{MemfdFlags, SealFlags},
    io::Errno,
};

use crate::job::HELPER_WORD;

/// A program in sealed memory. A container that reached its helper's `/proc/PID/exe` could overwrite the program of every later
/// step otherwise (CVE-2019-5736).
pub(crate) struct SealedProgram(OwnedFd);

/// How often, and after which pause each, the seals are tried.
const SEAL_TRIES: u32 = 100;
const SEAL_PAUSE: Duration = Duration::from_millis(50);

impl SealedProgram {
    /// Copies the program at `path`.
    pub(crate) fn copy_of(path: &Path) -> io::Result<Self> {
        let mut source = File::open(path)?;
        let memory = rustix::fs::memfd_create("sluicegate-helper", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut memory = File::from(memory);
        io::copy(&mut source, &mut memory)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        for _ in 0..SEAL_TRIES {
            match rustix::fs::fcntl_add_seals(&memory, seals) {
                // A page that the system has in hand, under load for instance, delays the seal; nobody else can have the file.
                Err(Errno::BUSY) => std::thread::sleep(SEAL_PAUSE),
                other => {
                    other?;
                    return Ok(Self(memory.into()));
                }
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Starts the helper on the job in `run_folder`; its standard input is the other end of the returned control socket.
    ///
    /// Nothing of the environment goes along. Descriptors that this process inherited without close-on-exec would; the helper
    /// closes everything above standard error before it does anything else.
    pub(crate) fn start(
        &self,
        run_folder: &Path,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
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
            // An interrupt at the terminal goes to a whole group; it is for who started this one, who then says what is to be done with it.
            .process_group(0)
            .spawn()?;
        Ok((child, mine))
    }
}
