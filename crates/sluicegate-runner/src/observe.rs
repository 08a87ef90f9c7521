//! What a step opens and executes, as the kernel says it.
//!
//! The parent makes a fanotify group and hands it to the helper, which marks the step's own file systems before the container is made:
//! the root, and each input that is an overlay of its own. Events are read while the step runs and until nothing is left of it. The
//! parent only keeps its copy, for the last close of a group takes the kernel some 15 ms, and lets go of it in a thread of its own.
//!
//! In the list is every file that a process of the step opened by a path, for whatever purpose, from the moment that the container's
//! first process is told to start: programs, the interpreters and loaders that the kernel opens for them, libraries, data. What the
//! engine and the first process open themselves is not in it. A program counts as executed once the kernel opened it for that,
//! even if it then was of no form that can be executed. Not in the list: folders; devices and named pipes; files that are only
//! looked at (stat, readlink, O_PATH); what is passed on as an open descriptor; everything in the places that are listed as blind, among
//! which are anonymous files: a program may write another one into memory and execute it there. A file has the name that it has when the
//! event is read, so that a step that renames it, or a folder above it, at once after it was opened decides what it is called here.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, net::UnixStream},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{OFlags, Stat},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
    process::Pid,
};
use serde::{Deserialize, Serialize};
use sluicegate_ports::execute::{Observation, Trace};

use crate::{
    fanotify::{Event, Group},
    in_root::{self, IN_ROOT},
    job::{Job, MountKind},
    mounts::new_result,
};

/// The helper's findings in the run folder.
const FINDINGS: &str = "trace.json";

/// Different paths that are kept.
const MAX_PATHS: usize = 200_000;

/// Bytes of both lists as JSON: what a statement of them needs must fit into a bundle of 16 MiB in base64.
const MAX_BYTES: usize = 10 << 20;

/// Bytes of JSON around one path, in a statement's list of opened files and in that of executed ones.
const AROUND_OPENED: usize = 20;
const AROUND_EXECUTED: usize = 44;

/// Bytes of the findings as a file.
const MAX_FINDINGS: u64 = 32 << 20;

/// Bytes of a process' list of mounts.
const MAX_MOUNTS: u64 = 4 << 20;

/// Events that are read after the step's end.
const MAX_AFTERWARDS: usize = 20_000_000;

/// As the kernel names files in memory that are in no folder (memfd_create): of no file system of the step, and not seen.
const ANONYMOUS: &str = "/memfd:";

/// What the kernel adds to the name of a file that is gone.
const GONE: &[u8] = b" (deleted)";

/// The parent's part: it holds the group until the helper is gone.
pub(crate) struct Watch(Result<Group, String>);

impl Watch {
    /// Asks the kernel for a group. That it refuses is kept as the reason.
    pub(crate) fn begin() -> Self {
        Self(Group::new().map_err(|error| refused("make a fanotify group", error)))
    }

    /// Whether there is something to hand over.
    pub(crate) fn is_possible(&self) -> bool {
        self.0.is_ok()
    }

    /// Gives the helper its copy; the first thing on the control socket.
    pub(crate) fn hand_over(&self, control: &UnixStream) -> io::Result<()> {
        let Ok(group) = &self.0 else { return Ok(()) };
        let word = [u8::from(group.tells_errors())];
        let files = [group.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        if !along.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let sent = sendmsg(control, &[IoSlice::new(&word)], &mut along, SendFlags::NOSIGNAL)?;
        if sent == word.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// What the helper left in the run folder, once it is gone.
    pub(crate) fn end(self, run_folder: &Path) -> Observation {
        let group = match self.0 {
            Ok(group) => group,
            Err(reason) => return Observation::Unavailable(reason),
        };
        // Without a thread it is closed here, which only takes longer.
        let _ = std::thread::Builder::new().name("trace-close".to_owned()).spawn(move || drop(group));
        match read_findings(&run_folder.join(FINDINGS)) {
            Ok(Findings::Seen { opened, executed, blind, lost }) => {
                Observation::Seen(Trace { opened, executed, blind, lost })
            }
            Ok(Findings::Unavailable(reason)) => Observation::Unavailable(reason),
            Err(error) => Observation::Unavailable(format!("read what the helper observed: {error}")),
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Findings {
    Unavailable(String),
    Seen { opened: Vec<String>, executed: Vec<String>, blind: Vec<String>, lost: u64 },
}

fn read_findings(path: &Path) -> io::Result<Findings> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FINDINGS + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FINDINGS {
        return Err(io::Error::other(format!("more than {MAX_FINDINGS} bytes")));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// The helper's part. Once something went wrong it reads no more, and says so instead of a list that would look whole.
pub(crate) struct Observer {
    group: Group,
    root: OwnedFd,
    marked: Vec<u64>,
    init: Option<Pid>,
    /// Keeps the step's mounts in place after its end, so that paths of files that were not yet asked for are still whole.
    namespace: Option<OwnedFd>,
    blind: Vec<String>,
    seen: Seen,
    failed: Option<String>,
}

impl Observer {
    /// Takes the group from the parent and marks the step's file systems, if the job says so.
    pub(crate) fn receive(job: &Job, control: &UnixStream, root: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !job.observe {
            return Ok(None);
        }
        let mut observer = Self {
            group: receive_group(control)?,
            root: root.try_clone_to_owned()?,
            marked: Vec::new(),
            init: None,
            namespace: None,
            blind: Vec::new(),
            seen: Seen::default(),
            failed: None,
        };
        let marks = observer.mark(root);
        observer.keep(marks.map_err(|error| refused("watch the step's root", error)));
        for (index, mount) in job.mounts.iter().enumerate() {
            let folder = match &mount.what {
                MountKind::Folder(_) => in_root::open_folder(root, &mount.at, IN_ROOT),
                MountKind::File(..) if mount.read_only => in_root::open_root(Path::new(&format!("aside{index}"))),
                // The first is a copy in the root; the others belong to the machine, where others open files too.
                MountKind::File(..) | MountKind::Host(_) | MountKind::Shared { .. } => continue,
            };
            // What can't be marked is listed as blind.
            let _ = folder.and_then(|folder| observer.mark(folder.as_fd()));
        }
        Ok(Some(observer))
    }

    fn mark(&mut self, folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.group.watch_file_system(folder)?;
        self.marked.push(rustix::fs::fstat(folder)?.st_dev);
        Ok(())
    }

    /// Begins to record: the container is made, and its first process waits. What was opened to make it is forgotten.
    pub(crate) fn begin(&mut self, init: Pid) {
        let begun = self.look_at(init);
        self.keep(begun);
        while self.is_watching() && self.take_with(|_, _, _| {}) {}
    }

    fn look_at(&mut self, init: Pid) -> Result<(), String> {
        let text = |error: io::Error| format!("read the step's mounts: {error}");
        let process = PathBuf::from(format!("/proc/{}", init.as_raw_nonzero()));
        let mut mounts = Vec::new();
        let file = File::open(process.join("mountinfo")).map_err(text)?;
        file.take(MAX_MOUNTS + 1).read_to_end(&mut mounts).map_err(text)?;
        if mounts.len() as u64 > MAX_MOUNTS {
            return Err(format!("read the step's mounts: more than {MAX_MOUNTS} bytes"));
        }
        self.blind = blind_places(&mounts, &self.marked)?;
        self.blind.push(ANONYMOUS.to_owned());
        self.blind.sort();
        self.namespace = Some(File::open(process.join("ns/mnt")).map_err(text)?.into());
        self.init = Some(init);
        Ok(())
    }

    /// What to wait for; `None` if nothing more is read.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.is_watching().then(|| self.group.as_fd())
    }

    /// Reads some of what waits.
    pub(crate) fn read(&mut self) {
        let init = self.init;
        self.take_with(|seen, event, root| seen.take(event, init, root));
    }

    /// Reads the rest, watches no more, and leaves the findings in the run folder, which is the current folder. Nothing is left of the
    /// step by now.
    pub(crate) fn end(mut self) -> io::Result<()> {
        let mut left = MAX_AFTERWARDS;
        while self.is_watching() && self.is_waiting() {
            if left == 0 {
                self.keep(Err(format!("more than {MAX_AFTERWARDS} files were opened faster than they could be noted")));
            }
            left = left.saturating_sub(1);
            self.read();
        }
        // What the packing of outputs opens is nobody's concern.
        let stopped = self.group.watch_nothing(self.root.as_fd());
        self.keep(stopped.map_err(|error| refused("end the watch", error)));
        let findings = match self.failed {
            Some(reason) => Findings::Unavailable(reason),
            None => self.seen.findings(self.blind),
        };
        new_result(Path::new(FINDINGS))?.write_all(&serde_json::to_vec(&findings)?)
    }

    fn is_watching(&self) -> bool {
        self.failed.is_none()
    }

    fn is_waiting(&self) -> bool {
        let mut watched = [rustix::event::PollFd::new(&self.group, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // What can't be asked is tried.
        rustix::event::poll(&mut watched, Some(&now)).map_or(true, |ready| ready > 0)
    }

    /// Takes the events of one reading; whether there were any.
    fn take_with(&mut self, mut each: impl FnMut(&mut Seen, &Event, BorrowedFd<'_>)) -> bool {
        match self.group.read() {
            Ok(events) => {
                events.iter().for_each(|event| each(&mut self.seen, event, self.root.as_fd()));
                !events.is_empty()
            }
            Err(Errno::INTR) => true,
            Err(error) => {
                self.keep(Err(refused("read what the step opened", error)));
                false
            }
        }
    }

    fn keep(&mut self, done: Result<(), String>) {
        if let Err(reason) = done {
            self.failed.get_or_insert(reason);
        }
    }
}

/// Paths with what happened to them, as many as have room.
#[derive(Default)]
struct Seen {
    paths: BTreeMap<String, Access>,
    bytes: usize,
    lost: u64,
}

#[derive(Clone, Copy, Default)]
struct Access {
    opened: bool,
    executed: bool,
}

impl Seen {
    fn take(&mut self, event: &Event, init: Option<Pid>, root: BorrowedFd<'_>) {
        let is_init = init.is_some_and(|init| init.as_raw_nonzero().get() == event.process);
        if is_init && event.file.is_some() {
            return;
        }
        match name_of(event, root) {
            Some(path) => self.note(path, Access { opened: event.opened, executed: event.executed }),
            None => self.lose(),
        }
    }

    fn note(&mut self, path: String, access: Access) {
        let known = self.paths.get(&path).copied();
        let before = known.unwrap_or_default();
        let length = written_length(&path);
        let in_list = |is_new: bool, around: usize| if is_new { length + around } else { 0 };
        let bytes = self.bytes
            + in_list(access.opened && !before.opened, AROUND_OPENED)
            + in_list(access.executed && !before.executed, AROUND_EXECUTED);
        if bytes > MAX_BYTES || (known.is_none() && self.paths.len() >= MAX_PATHS) {
            return self.lose();
        }
        self.bytes = bytes;
        let opened = before.opened || access.opened;
        self.paths.insert(path, Access { opened, executed: before.executed || access.executed });
    }

    fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    fn findings(self, blind: Vec<String>) -> Findings {
        let of = |which: fn(&Access) -> bool| {
            self.paths.iter().filter(|(_, access)| which(access)).map(|(path, _)| path.clone()).collect()
        };
        let (opened, executed) = (of(|access| access.opened), of(|access| access.executed));
        Findings::Seen { opened, executed, blind, lost: self.lost }
    }
}

/// The path of an event's file. One that is not UTF-8 has no name that a statement could say.
fn name_of(event: &Event, root: BorrowedFd<'_>) -> Option<String> {
    let mut path = event.path()?.into_os_string().into_vec();
    if !path.starts_with(b"/") {
        return None;
    }
    if path.ends_with(GONE) && !is_named_so(event, root, &path) {
        path.truncate(path.len() - GONE.len());
    }
    String::from_utf8(path).ok()
}

/// Whether a file whose name ends like that of one that is gone is really called so.
fn is_named_so(event: &Event, root: BorrowedFd<'_>, path: &[u8]) -> bool {
    let place =
        in_root::open(root, Path::new(std::ffi::OsStr::from_bytes(path)), OFlags::PATH | OFlags::NOFOLLOW, IN_ROOT);
    let same = |one: Stat, other: Stat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
    match (place.and_then(rustix::fs::fstat), event.file.as_ref().map(rustix::fs::fstat)) {
        (Ok(named), Some(Ok(opened))) => same(named, opened),
        _ => false,
    }
}

/// Bytes that a path takes in a statement at most, in JSON or percent-encoded.
fn written_length(path: &str) -> usize {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~+,=:@".contains(&byte);
    path.bytes().map(|byte| if is_plain(byte) { 1 } else { 6 }).sum()
}

/// The mount points of a process' `mountinfo` whose file systems are not among `marked`, without those below one of them.
fn blind_places(mounts: &[u8], marked: &[u64]) -> Result<Vec<String>, String> {
    let mut places = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (Some(device), Some(place)) = (fields.next().and_then(device), fields.nth(1)) else {
            return Err("read the step's mounts: a line without a device and a place".to_owned());
        };
        if !marked.contains(&device) {
            places.push(String::from_utf8_lossy(&unescaped(place)).into_owned());
        }
    }
    places.sort();
    places.dedup();
    let mut outer: Vec<String> = Vec::new();
    for place in places {
        if !outer.iter().any(|outer| Path::new(&place).starts_with(outer)) {
            outer.push(place);
        }
    }
    Ok(outer)
}

fn device(text: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// White space and backslashes stand as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut left = text;
    while let [first, rest @ ..] = left {
        let code = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                left = &rest[3..];
            }
            _ => {
                plain.push(*first);
                left = rest;
            }
        }
    }
    plain
}

fn receive_group(control: &UnixStream) -> io::Result<Group> {
    let mut word = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(control, &mut [IoSliceMut::new(&mut word)], &mut along, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = along.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    match files.next() {
        Some(group) if received.bytes == word.len() => Ok(Group::from_parts(group, word[0] == 1)),
        _ => Err(io::Error::other("the parent handed nothing over to observe with")),
    }
}

fn refused(what: &str, error: Errno) -> String {
    let why = match error {
        Errno::PERM => " (it needs CAP_SYS_ADMIN outside of any user namespace)",
        Errno::NOSYS => " (this kernel has no fanotify)",
        Errno::MFILE => " (too many groups: fs.fanotify.max_user_groups)",
        _ => "",
    };
    format!("cannot {what}: {error}{why}")
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    const OPENED: Access = Access { opened: true, executed: false };
    const EXECUTED: Access = Access { opened: true, executed: true };

    #[test]
    fn without_the_right_it_says_why_and_not_that_nothing_was_opened() {
        let refused = std::thread::spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::SYS_ADMIN);
            set_capabilities(None, sets).unwrap();
            Watch::begin()
        });
        let watch = refused.join().unwrap();
        assert!(!watch.is_possible());
        let Observation::Unavailable(reason) = watch.end(Path::new("/nowhere")) else { panic!() };
        assert!(reason.contains("CAP_SYS_ADMIN"), "{reason}");
    }

    #[test]
    fn a_helper_that_left_nothing_is_no_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::begin();
        assert!(watch.is_possible());
        assert!(matches!(watch.end(folder.path()), Observation::Unavailable(_)));
        let findings = |findings: &Findings| {
            std::fs::write(folder.path().join(FINDINGS), serde_json::to_vec(findings).unwrap()).unwrap();
            Watch::begin().end(folder.path())
        };
        let mut seen = Seen::default();
        seen.note("/b".to_owned(), OPENED);
        seen.note("/a".to_owned(), EXECUTED);
        seen.lose();
        let trace = Trace {
            opened: vec!["/a".to_owned(), "/b".to_owned()],
            executed: vec!["/a".to_owned()],
            blind: vec!["/dev".to_owned()],
            lost: 1,
        };
        assert_eq!(findings(&seen.findings(vec!["/dev".to_owned()])), Observation::Seen(trace));
        let failed = Observation::Unavailable("why".to_owned());
        assert_eq!(findings(&Findings::Unavailable("why".to_owned())), failed);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut many = Seen::default();
        for index in 0..=MAX_PATHS {
            many.note(format!("/{index}"), OPENED);
        }
        assert_eq!((many.paths.len(), many.lost), (MAX_PATHS, 1));
        many.note("/0".to_owned(), OPENED);
        assert_eq!(many.lost, 1, "a known path takes no room");

        let path = format!("/{}", "a".repeat((MAX_BYTES / 2 - AROUND_OPENED - AROUND_EXECUTED) / 2 - 1));
        let mut large = Seen::default();
        for first in ["a", "b"] {
            large.note(format!("{first}{}", &path[1..]), EXECUTED);
        }
        assert_eq!((large.paths.len(), large.bytes, large.lost), (2, MAX_BYTES, 0));
        large.note("/c".to_owned(), OPENED);
        assert_eq!((large.paths.len(), large.lost), (2, 1));
    }

    #[test]
    fn mounts_of_other_file_systems_are_blind_and_what_is_below_them_goes_without_saying() {
        let mounts = b"1 0 0:50 / / rw - overlay overlay rw\n\
            2 1 0:51 / /dev rw - tmpfs tmpfs rw\n\
            3 2 0:52 / /dev/shm rw - tmpfs shm rw\n\
            4 1 0:53 / /src rw - overlay overlay rw\n\
            5 1 8:1 /x /a\\040b ro - ext4 /dev/sda1 rw\n\
            6 1 0:54 / /device rw - tmpfs t rw\n";
        let device = |minor| rustix::fs::makedev(0, minor);
        let blind = blind_places(mounts, &[device(50), device(53)]).unwrap();
        assert_eq!(blind, ["/a b", "/dev", "/device"]);
        assert_eq!(blind_places(mounts, &[device(53)]).unwrap(), ["/"]);
        assert!(blind_places(b"1 0\n", &[]).is_err());
        assert_eq!(unescaped(b"\\134\\"), b"\\\\");
    }

    #[test]
    fn a_path_takes_no_more_in_a_statement_than_is_counted() {
        for path in ["/usr/lib/a-b_c.so.1", "/\u{e4}\"\\\n\u{1}"] {
            assert!(written_length(path) + 2 >= serde_json::to_string(path).unwrap().len(), "{path:?}");
            assert!(written_length(path) >= path.len(), "{path:?}");
        }
        assert_eq!(written_length("/bin/cat"), 8);
    }
}
