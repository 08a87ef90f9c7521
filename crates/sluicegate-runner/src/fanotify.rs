//! The kernel's own record of opened files: fanotify groups, marks and events.
//!
//! Only notifications are asked for, so that nothing that is watched ever waits for the watcher.
#![allow(unsafe_code)] // fanotify has no safe form here; each block says why it is sound.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::Errno,
};

/// Since Linux 6.13: an event whose file can't be opened says so, where it vanished before (`linux/fanotify.h`).
const FAN_REPORT_FD_ERROR: libc::c_uint = 0x2000;

/// Bytes of an event.
const EVENT: usize = size_of::<libc::fanotify_event_metadata>();

/// Events of one reading: each has a descriptor, and a process may have 1,024 of them.
const AT_ONCE: usize = 170;

/// A group: what it is told to watch is written down in its queue until it is read. All copies are one.
#[derive(Debug)]
pub(crate) struct Group {
    fd: OwnedFd,
    /// Whether the kernel tells which event's file it could not open.
    tells_errors: bool,
}

/// What happened once.
#[derive(Debug)]
pub(crate) struct Event {
    /// Whether the file was opened to be executed.
    pub(crate) executed: bool,
    /// Whether it was opened, in whatever way.
    pub(crate) opened: bool,
    /// The process, as the reader's namespace numbers it.
    pub(crate) process: i32,
    /// The file; `None` if it can't be opened, or if this stands for events that the queue had no room for.
    pub(crate) file: Option<OwnedFd>,
}

impl Group {
    /// A group that watches nothing yet. Its queue has no limit: the reader keeps up with it while the watched run.
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let init = |more: libc::c_uint| {
            let flags =
                libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_UNLIMITED_QUEUE | more;
            // Without waiting: a FIFO is opened like any other file.
            let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NONBLOCK;
            // SAFETY: the call takes two numbers.
            let fd = unsafe { libc::fanotify_init(flags, files.cast_unsigned()) };
            // SAFETY: a descriptor that was just made has no other owner.
            if fd < 0 { Err(last_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
        };
        match init(FAN_REPORT_FD_ERROR) {
            Ok(fd) => Ok(Self { fd, tells_errors: true }),
            Err(Errno::INVAL) => Ok(Self { fd: init(0)?, tells_errors: false }),
            Err(error) => Err(error),
        }
    }

    /// The same group as another process got it.
    pub(crate) fn from_parts(fd: OwnedFd, tells_errors: bool) -> Self {
        Self { fd, tells_errors }
    }

    /// Whether the kernel tells which event's file it could not open; for [`Group::from_parts`].
    pub(crate) fn tells_errors(&self) -> bool {
        self.tells_errors
    }

    /// Watches every file of the file system that `folder` is in, for its opening and its execution.
    pub(crate) fn watch_file_system(&self, folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, libc::FAN_OPEN | libc::FAN_OPEN_EXEC, folder)
    }

    /// Watches nothing more. `folder` may be any.
    pub(crate) fn watch_nothing(&self, folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.mark(libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM, 0, folder)
    }

    fn mark(&self, flags: libc::c_uint, mask: u64, folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let (group, folder) = (self.fd.as_raw_fd(), folder.as_raw_fd());
        // SAFETY: both descriptors are open for the call, and the path is a NUL-terminated string.
        match unsafe { libc::fanotify_mark(group, flags, mask, folder, c".".as_ptr()) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }

    /// Some of the events that wait; none if none does.
    ///
    /// A kernel that does not tell which file it could not open leaves its event out of a reading of many, so that there one event is
    /// read at a time.
    pub(crate) fn read(&self) -> rustix::io::Result<Vec<Event>> {
        let mut buffer = [0_u8; AT_ONCE * EVENT];
        let room = if self.tells_errors { buffer.len() } else { EVENT };
        let length = match rustix::io::read(&self.fd, &mut buffer[..room]) {
            Err(Errno::AGAIN) => return Ok(Vec::new()),
            Err(error @ (Errno::INTR | Errno::BADF | Errno::INVAL | Errno::FAULT | Errno::MFILE | Errno::NFILE)) => {
                return Err(error);
            }
            // One event, taken from the queue, whose file the kernel could not open.
            Err(_) if !self.tells_errors => {
                return Ok(vec![Event { executed: false, opened: true, process: 0, file: None }]);
            }
            length => length?,
        };
        let mut events = Vec::with_capacity(length / EVENT);
        let mut left = &buffer[..length];
        let mut understood = true;
        while left.len() >= EVENT {
            // SAFETY: at least as many bytes are there, the read is unaligned, and every pattern of bits is such a value.
            let event = unsafe { left.as_ptr().cast::<libc::fanotify_event_metadata>().read_unaligned() };
            // SAFETY: the kernel opened it in this process for this event, and it is taken here and nowhere else.
            let file = (event.fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(event.fd) });
            let overflow = event.mask & libc::FAN_Q_OVERFLOW != 0;
            understood &= event.vers == libc::FANOTIFY_METADATA_VERSION;
            events.push(Event {
                executed: event.mask & libc::FAN_OPEN_EXEC != 0,
                opened: overflow || event.mask & libc::FAN_OPEN != 0,
                process: event.pid,
                file,
            });
            let length = event.event_len as usize;
            if length < EVENT || length > left.len() {
                return Err(Errno::PROTO);
            }
            left = &left[length..];
        }
        if understood { Ok(events) } else { Err(Errno::PROTO) }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Event {
    /// The file's path as its mount namespace has it, not followed to anything. `None` without a file, or for a path that is longer
    /// than the kernel's limit.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        std::fs::read_link(Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())).ok()
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
