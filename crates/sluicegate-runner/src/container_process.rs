//! The helper: this program once more, one process with one thread that runs one container and ends.
//!
//! It gets its job as a file in the run folder and holds no key material: its environment is cleared, every descriptor but the
//! three standard ones is closed, and its own file is a sealed copy in memory that no container can write to. Standard input is
//! the control socket: the parent's word `T` asks the step to end, its death or its word `K` kills the container.
#![allow(unsafe_code)] // unshare, ioctl and close_range have no safe form; each block says why it is sound.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, IoSlice, Read, Write},
    mem::MaybeUninit,
    net::TcpListener,
    os::unix::net::UnixStream,
    path::Path,
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{Gid, Mode, Uid},
    io::Errno,
    mount::MountPropagationFlags,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
    thread::UnshareFlags,
};
use sluicegate_ports::execute::PROXY_ADDRESS;

use crate::{
    cgroup,
    collect::{self, RESULTS, with_sources},
    descriptors,
    init::{Init, READY},
    job::{Failure, HELPER_WORD, JOB_FILE, Job, Message, NetworkJob, Stage, Streams},
    mounts,
    observe::Observer,
    seccomp_profile, system_files,
};

/// The parent's word that asks a step to end.
pub(crate) const ASK: u8 = b'T';
/// The parent's word that kills a container.
pub(crate) const KILL: u8 = b'K';

/// The lock file of a run folder: whoever uses the folder holds it shared.
pub(crate) const LOCK_FILE: &str = "lock";

/// Becomes the helper and never returns if this program was started as one; else does nothing. Called first thing in `main`,
/// before any thread exists and anything of the environment is read.
pub fn enter_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(HELPER_WORD)) {
        return;
    }
    let code = match (arguments.next(), arguments.next()) {
        (Some(folder), None) => run(Path::new(&folder)),
        _ => 2,
    };
    // The helper is a program of its own here; nothing of the caller's is to be dropped.
    #[allow(clippy::exit)]
    std::process::exit(code)
}

fn run(folder: &Path) -> i32 {
    let Ok(mut control) = take_control() else { return 2 };
    // What is made in the root must not depend on who started the run.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let done = work(folder, &mut control);
    let failed = done.is_err();
    let message = match done {
        Ok(message) => message,
        Err((stage, reason)) => Message::Failed(Failure { stage, reason }),
    };
    match say(&mut control, &message) {
        Ok(()) if !failed => 0,
        _ => 1,
    }
}

fn work(folder: &Path, control: &mut UnixStream) -> Result<Message, (Stage, String)> {
    let in_job = |error: io::Error| (Stage::Job, error.to_string());
    std::env::set_current_dir(folder).map_err(in_job)?;
    let _lock = lock_shared().map_err(in_job)?;
    let job: Job = read_job().map_err(in_job)?;
    if job.streams == Streams::Passed {
        take_streams().map_err(in_job)?;
    }
    let in_namespaces = |error: io::Error| (Stage::Namespaces, error.to_string());
    leave_namespaces(job.network).map_err(in_namespaces)?;
    if job.network == NetworkJob::Proxied {
        hand_over_listener(control).map_err(in_namespaces)?;
    }
    let mut root = mounts::build_root(&job)?;
    let mut observer = Observer::receive(&job, control, root.folder.as_fd()).map_err(in_job)?;
    let in_folders = |error: io::Error| (Stage::Folders, error.to_string());
    let system_files = system_files::place(root.folder.as_fd(), &job).map_err(in_folders)?;
    // Now, as a step may leave no room for it.
    fs::create_dir(RESULTS).map_err(in_folders)?;
    let ended = run_container(folder, &job, control, observer.as_mut()).map_err(|reason| (Stage::Container, reason))?;
    // The parent bounds how long a kill may take; from here on it only waits for the packing.
    say(control, &ended).map_err(|error| (Stage::Container, error.to_string()))?;
    // Before the outputs are packed, which opens them. Without its findings the parent says that there are none.
    let _ = observer.map(Observer::end);
    if job.streams != Streams::Log {
        // Whoever talks to a step keeps nothing of it.
        return Ok(Message::Collected(Vec::new()));
    }
    system_files.take_away().map_err(in_folders)?;
    root.take_shared_away(&job.outputs)?;
    let collected =
        collect::collect(root.folder.as_fd(), &job).map_err(|(index, reason)| (Stage::Output(index), reason))?;
    Ok(Message::Collected(collected))
}

/// Takes the control socket from standard input, puts `/dev/null` there, and closes whatever else was inherited.
fn take_control() -> io::Result<UnixStream> {
    // SAFETY: this is the first thing that the process does; no descriptor above 2 has an owner yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(control))
}

/// Puts the step's streams, which the parent sends, in place of our own.
fn take_streams() -> io::Result<()> {
    let sent = descriptors::receive(rustix::stdio::stdout())?;
    let [input, output, errors] =
        <[OwnedFd; 3]>::try_from(sent).map_err(|_| io::Error::other("the parent sent no streams"))?;
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    Ok(rustix::stdio::dup2_stderr(errors)?)
}

fn say(control: &mut UnixStream, message: &Message) -> io::Result<()> {
    control.write_all(&message_line(message)?)
}

fn message_line(message: &Message) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn lock_shared() -> io::Result<File> {
    let lock = File::open(LOCK_FILE)?;
    lock.lock_shared()?;
    Ok(lock)
}

fn read_job() -> io::Result<Job> {
    let job = serde_json::from_slice(&fs::read(JOB_FILE)?)?;
    fs::remove_file(JOB_FILE)?;
    Ok(job)
}

/// A mount namespace from which nothing comes back, mostly a network namespace with nothing but a loopback, and no supplementary
/// groups: libcontainer leaves the host's in place when a step asks for none.
fn leave_namespaces(network: NetworkJob) -> io::Result<()> {
    let left = match network {
        NetworkJob::Own | NetworkJob::Proxied => UnshareFlags::NEWNS | UnshareFlags::NEWNET,
        NetworkJob::Host => UnshareFlags::NEWNS,
    };
    let step = |what: &'static str| move |error: Errno| io::Error::other(format!("{what}: {error}"));
    // SAFETY: the process has one thread and shares no file table with anybody.
    unsafe { rustix::thread::unshare_unsafe(left) }.map_err(step("unshare mount and network namespaces"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(step("make the mounts private"))?;
    rustix::thread::set_thread_groups(&[]).map_err(step("drop supplementary groups"))?;
    match network {
        NetworkJob::Own | NetworkJob::Proxied => raise_loopback(),
        NetworkJob::Host => Ok(()),
    }
}

/// Opens the socket of the proxy in the step's network namespace and gives it to the parent, who is outside of it. Nothing of it
/// stays here; clients that come before the parent listens wait in its queue.
fn hand_over_listener(control: &mut UnixStream) -> io::Result<()> {
    let listener = TcpListener::bind(PROXY_ADDRESS)?;
    let line = message_line(&Message::Listening)?;
    let passed = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&passed)) {
        return Err(io::Error::other("no room for the descriptor of the proxy's socket"));
    }
    let sent = rustix::net::sendmsg(&*control, &[IoSlice::new(&line)], &mut ancillary, SendFlags::empty())?;
    // The descriptor goes with the first byte.
    control.write_all(&line[sent..])
}

fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which zeroes are valid; `lo` fits its name with a NUL after it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open and SIOCSIFFLAGS reads one ifreq from the pointer, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("bring up the loopback: {}", io::Error::last_os_error()))),
    }
}

fn run_container(
    folder: &Path,
    job: &Job,
    control: &mut UnixStream,
    mut observer: Option<&mut Observer>,
) -> Result<Message, String> {
    let filters = seccomp_profile::compile()?;
    let (report, init_side) = io::pipe().map_err(|error| error.to_string())?;
    let init = Init::new(&job.workload, job.streams == Streams::Terminal, filters, init_side.as_fd())?;
    give_streams_to(job.owner, job.streams).map_err(|error| error.to_string())?;
    let text = |error: libcontainer::error::LibcontainerError| with_sources(&error);
    let mut container = ContainerBuilder::new(job.id.clone(), SyscallType::Linux)
        .with_root_path(folder.join("state"))
        .map_err(text)?
        .with_executor(init)
        .validate_id()
        .map_err(text)?
        .as_init(folder)
        .with_systemd(false)
        .with_detach(false)
        .build()
        .map_err(text)?;
    drop(init_side);
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw())).ok_or("the container has no process")?;
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    if let Some(observer) = observer.as_deref_mut() {
        observer.begin(pid);
    }
    let ran = container.start().map_err(text).and_then(|()| wait_or_kill(&handle, control, observer));
    if ran.is_err() {
        let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
    }
    let oom_kills = cgroup::oom_kills(&job.id);
    // What it leaves behind is swept with the run folder.
    let _ = container.delete(true);
    let (code, killed) = ran?;
    if !killed {
        check_that_it_began(report)?;
    }
    Ok(Message::Ended { code, oom_kills })
}

/// Tells a step that failed from a container that did: both end with a code.
fn check_that_it_began(mut report: io::PipeReader) -> Result<(), String> {
    let mut said = Vec::new();
    report.read_to_end(&mut said).map_err(|error| format!("read what the first process said: {error}"))?;
    match said.as_slice() {
        READY => Ok(()),
        [] => Err("the container's first process failed without a word".to_owned()),
        reason => Err(format!("the container's first process: {}", String::from_utf8_lossy(reason))),
    }
}

/// Lets a step of another user open `/dev/stdout`, which is a pipe that the parent made. A terminal is made by the step's user itself.
fn give_streams_to(owner: (u32, u32), streams: Streams) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let given = match streams {
        Streams::Log => vec![rustix::stdio::stdout(), rustix::stdio::stderr()],
        Streams::Passed => vec![rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()],
        Streams::Terminal => Vec::new(),
    };
    given.into_iter().try_for_each(|stream| rustix::fs::fchown(stream, Some(uid), Some(gid)))
}

/// Waits for pid 1 by its handle, never by a signal that could be lost, and asks it to end or kills it on the parent's word or death.
/// Returns its exit code and whether it was asked or killed here.
fn wait_or_kill(
    init: &OwnedFd,
    control: &mut UnixStream,
    mut observer: Option<&mut Observer>,
) -> Result<(i32, bool), String> {
    let (mut listening, mut asked) = (true, false);
    loop {
        let mut watched = vec![PollFd::new(init, PollFlags::IN)];
        if listening {
            watched.push(PollFd::new(&*control, PollFlags::IN));
        }
        let events = observer.as_ref().and_then(|observer| observer.events());
        watched.extend(events.map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)));
        let opened = watched.len() - 1;
        let is_watched = events.is_some();
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("poll: {error}")),
        }
        let (ended, spoken) = (!watched[0].revents().is_empty(), listening && !watched[1].revents().is_empty());
        let opened = is_watched && !watched[opened].revents().is_empty();
        if let Some(observer) = observer.as_deref_mut().filter(|_| opened) {
            observer.read();
        }
        if ended {
            break;
        }
        if spoken {
            let mut word = [0];
            let heard = control.read(&mut word).unwrap_or(0);
            let signal = match word[0] {
                _ if heard == 0 => Some(Signal::KILL),
                KILL => Some(Signal::KILL),
                ASK => Some(Signal::TERM),
                _ => None,
            };
            if let Some(signal) = signal {
                asked = true;
                listening = signal != Signal::KILL;
                match rustix::process::pidfd_send_signal(init, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(format!("kill: {error}")),
                }
            }
        }
    }
    let status = rustix::process::waitid(WaitId::PidFd(init.as_fd()), WaitIdOptions::EXITED)
        .map_err(|error| format!("wait: {error}"))?
        .ok_or("the container's process has no status")?;
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    code.map(|code| (code, asked)).ok_or_else(|| "the container's process neither ended nor was killed".to_owned())
}
