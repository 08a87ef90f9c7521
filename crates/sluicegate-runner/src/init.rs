//! The first process of a container: confines itself, starts the step's program, reaps what it leaves and ends with its status.
//!
//! It runs in a copy of the helper's memory and never executes anything itself, so that it is not dumpable: the step can neither
//! read `/proc/1/exe` nor trace it. The kernel kills every other process of the container when it ends.
#![allow(unsafe_code)] // fork, execve, signal dispositions and _exit have no safe form; each block says why it is sound.

use std::{collections::HashMap, ffi::CString, os::unix::ffi::OsStrExt, path::Path, ptr};

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    fs::{Mode, OFlags},
    io::Errno,
    process::{DumpableBehavior, Signal, WaitOptions},
    pty::OpenptFlags,
};
use seccompiler::BpfProgram;

use crate::{descriptors, job::Workload};

/// What a shell answers for a program that is not there (POSIX, "Exit status for commands").
const NOT_FOUND: i32 = 127;
/// What a shell answers for a program that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// The self-test found a confinement missing.
pub(crate) const NOT_CONFINED: i32 = 3;

/// Runs the workload as pid 1; everything that allocates is done before the container exists.
#[derive(Clone)]
pub(crate) struct Init {
    filters: Vec<BpfProgram>,
    program: Option<Program>,
    /// Whether the program gets a terminal of its own.
    terminal: bool,
    /// The writing end of the helper's pipe, by number: this process is a copy of the helper that owns it.
    report: RawFd,
}

/// What is said in the pipe when the step's own program is about to be executed; anything else is why it came to nothing, and
/// silence means that this process failed without a word.
pub(crate) const READY: &[u8] = b"ready";

#[derive(Clone)]
struct Program {
    name: String,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Init {
    /// Prepares the workload under these filters. The text of an error says what cannot be given to a program.
    pub(crate) fn new(
        workload: &Workload,
        terminal: bool,
        filters: Vec<BpfProgram>,
        report: BorrowedFd<'_>,
    ) -> Result<Self, String> {
        let report = report.as_raw_fd();
        let Workload::Program { argv, env } = workload else {
            return Ok(Self { filters, program: None, terminal, report });
        };
        let text = |text: String| CString::new(text).map_err(|_| "a NUL in an argument or the environment".to_owned());
        let name = argv.first().cloned().ok_or("no program to execute")?;
        let path = env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str());
        let program = Program {
            candidates: candidates(&name, path).into_iter().map(text).collect::<Result<_, _>>()?,
            argv: argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
            env: env.iter().map(|(key, value)| text(format!("{key}={value}"))).collect::<Result<_, _>>()?,
            name,
        };
        Ok(Self { filters, program: Some(program), terminal, report })
    }

    fn run(&self) -> Result<i32, String> {
        keep_only(self.report)?;
        let text = |error: Errno| error.to_string();
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(text)?;
        rustix::thread::set_name(c"init").map_err(text)?;
        if self.terminal {
            open_terminal().map_err(|error| format!("open a terminal: {error}"))?;
        }
        for filter in &self.filters {
            seccompiler::apply_filter(filter).map_err(|error| error.to_string())?;
        }
        let Some(program) = &self.program else {
            say(READY);
            return Ok(self_test());
        };
        pass_on_requests_to_end()?;
        // SAFETY: this process has one thread (the helper started none, and libcontainer clones from it), so that the child's
        // memory is consistent and it may allocate.
        match unsafe { libc::fork() } {
            -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
            0 => {
                say(READY);
                exit_now(program.execute())
            }
            child => reap_until(child),
        }
    }
}

impl Executor for Init {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        match self.run() {
            Ok(code) => exit_now(code),
            Err(reason) => {
                say(reason.as_bytes());
                exit_now(NOT_CONFINED)
            }
        }
    }

    /// Runs before the container waits for its start. The death signal is set here and not earlier, for a change of user or
    /// capabilities clears it; should the helper be dead already, the next message to it fails and ends this process.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))
    }

    /// The environment is given to `execve`, exactly as the step names it; libcontainer would add HOME.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

impl Program {
    /// Executes the first candidate that can be; returns the exit code if none can.
    fn execute(&self) -> i32 {
        default_signals();
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
        };
        let (argv, env) = (pointers(&self.argv), pointers(&self.env));
        let mut worst = Errno::NOENT;
        for candidate in &self.candidates {
            // SAFETY: all pointers are to NUL-terminated strings that `self` owns, both arrays end with a null pointer.
            unsafe { libc::execve(candidate.as_ptr(), argv.as_ptr(), env.as_ptr()) };
            let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
            if !matches!(error, Errno::NOENT | Errno::NOTDIR) {
                worst = error;
            }
        }
        let text = format!("cannot execute {:?}: {worst}\n", self.name);
        // The exit code says the same to whoever does not read this.
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
        if worst == Errno::NOENT { NOT_FOUND } else { NOT_EXECUTABLE }
    }
}

/// Where `name` may be: itself if it has a slash, else in the folders of `path`.
fn candidates(name: &str, path: Option<&str>) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let folders = path.into_iter().flat_map(|path| path.split(':'));
    folders
        .map(|folder| if folder.is_empty() { "." } else { folder })
        .map(|folder| String::from_utf8_lossy(Path::new(folder).join(name).as_os_str().as_bytes()).into_owned())
        .collect()
}

fn reap_until(child: libc::pid_t) -> Result<i32, String> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child => {
                if let Some(code) = status.exit_status() {
                    return Ok(code);
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(128 + signal);
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

/// Makes a terminal in the container's own `/dev/pts`, as the step's user, who is its owner therefore, and gives its other side away
/// through the socket that stands in place of standard output.
fn open_terminal() -> std::io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let other_side = rustix::fs::open(c"/dev/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&other_side)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&other_side, flags)?;
    // This process leads a session without a terminal: libcontainer began it.
    rustix::process::ioctl_tiocsctty(&terminal)?;
    descriptors::send(rustix::stdio::stdout(), &[other_side.as_fd()])?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    Ok(rustix::stdio::dup2_stderr(&terminal)?)
}

/// From here on, a request of the helper to end goes to every other process of the container.
fn pass_on_requests_to_end() -> Result<(), String> {
    extern "C" fn pass_on(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo, and a signal that a process sent has a sender in it.
        let sender = unsafe { (*info).si_pid() };
        // The helper, which has no number in here. The step's own processes can speak to each other by themselves.
        if sender == 0 {
            // SAFETY: kill is safe in a handler; -1 is every process of this namespace but the first, which is this one.
            unsafe { libc::kill(-1, libc::SIGTERM) };
        }
    }
    // SAFETY: zeroes are a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = pass_on;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the C library reads one sigaction, whose handler is a function of this program that does nothing but system calls.
    match unsafe { libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(format!("wait for requests to end: {}", std::io::Error::last_os_error())),
    }
}

/// Whether the kernel says that this process is confined.
fn self_test() -> i32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let has = |key: &str, value: &str| {
        status.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim() == value))
    };
    let none = "0000000000000000";
    let confined = has("Seccomp:", "2")
        && has("NoNewPrivs:", "1")
        && ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].into_iter().all(|set| has(set, none));
    if confined { 0 } else { NOT_CONFINED }
}

/// The pipe to the helper, once [`keep_only`] has run.
const REPORT: RawFd = 3;

/// Keeps standard input, output and error and moves the pipe to [`REPORT`]. pid 1 never executes, so that close-on-exec would
/// leave the helper's descriptors open in it.
fn keep_only(report: RawFd) -> Result<(), String> {
    // SAFETY: nothing that owns one of these descriptors is used or dropped any more: this process only forks, waits and ends
    // by _exit. The pipe is closed when the program is executed.
    let moved = unsafe {
        match report {
            REPORT => libc::fcntl(REPORT, libc::F_SETFD, libc::FD_CLOEXEC),
            _ => libc::dup3(report, REPORT, libc::O_CLOEXEC),
        }
    };
    if moved < 0 {
        return Err(format!("keep the pipe to the helper: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(format!("close descriptors: {}", std::io::Error::last_os_error())),
    }
}

/// Tells the helper; if it is gone, so will this process be.
fn say(bytes: &[u8]) {
    // SAFETY: the pipe is open under this number until the program is executed, and nothing else owns it in this process.
    let report = unsafe { BorrowedFd::borrow_raw(REPORT) };
    let _ = rustix::io::write(report, bytes);
}

/// Rust ignores SIGPIPE, whoever started this program may ignore more, and ignored signals survive `execve`: `yes | head -1` in
/// a step would not end.
fn default_signals() {
    // struct sigaction as the kernel reads it: handler, flags, restorer, mask. Zeroes mean SIG_DFL. The C library's own function
    // refuses the two signals that it keeps for itself.
    let action = [0_u64; 4];
    let no_signals = 0_u64;
    for signal in 1..=64 {
        // SAFETY: the kernel reads 32 bytes of `action` and 8 bytes of mask size; SIGKILL and SIGSTOP fail without effect.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), ptr::null::<u64>(), 8_usize) };
    }
    // SAFETY: the kernel reads one 8-byte set, which outlives the call.
    unsafe {
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const no_signals, ptr::null::<u64>(), 8_usize);
    }
}

fn exit_now(code: i32) -> ! {
    // SAFETY: _exit ends the process at once; destructors of the helper's copy must not run here.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_steps_path_only() {
        assert_eq!(candidates("sh", Some("/usr/bin:/bin")), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(candidates("sh", Some("/bin:")), ["/bin/sh", "./sh"]);
        assert_eq!(candidates("./sh", Some("/bin")), ["./sh"]);
        assert!(candidates("sh", None).is_empty());
    }

    #[test]
    fn what_no_program_can_take_is_refused() {
        let workload = |argument: &str| Workload::Program { argv: vec!["a".into(), argument.into()], env: vec![] };
        let new = |workload: &Workload| Init::new(workload, false, vec![], rustix::stdio::stderr()).map(drop);
        assert!(new(&workload("b")).is_ok());
        assert!(new(&workload("b\0")).is_err());
        assert!(new(&Workload::Program { argv: vec![], env: vec![] }).is_err());
    }
}
