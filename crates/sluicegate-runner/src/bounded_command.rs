//! A program whose words are read within limits of bytes and time; at either of them, and when it is to stop, it is killed.
//!
//! A program that starts others runs in a process group below a shell that guards it: the shell holds the reading end of a pipe whose
//! other end only this process has, and kills the group when that is closed. So nothing of it outlives this process, however that ends:
//! the kernel closes the pipe of one that was killed, too. (The signal that the kernel sends for a parent's death would reach the first
//! program alone, not what that started.)

use std::{
    io::{self, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use sluicegate_ports::execute::Stop;

/// Bytes of a program's complaints that are kept; the rest is read and thrown away.
const MAX_COMPLAINT: usize = 4096;

/// How long it takes at most until a word from outside is heard.
pub(crate) const LISTENING: Duration = Duration::from_millis(100);

/// Runs its arguments as a program, and kills its process group, itself included, when its standard input comes to its end. The program
/// has neither of the two ends of that pipe, and what waits for the end holds none of the program's streams.
const GUARD: &str = r#"exec 3<&0 </dev/null
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
"$@" &
wait $!"#;

/// How much a program may say and how long that may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of its output and its complaints together.
    pub(crate) bytes: usize,
    /// From its start to its end.
    pub(crate) time: Duration,
}

/// What a program left when it ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// The beginning of its complaints.
    pub(crate) stderr: Vec<u8>,
}

/// Why a program was stopped, or never ran.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("it could not be started: {0}")]
    Start(io::Error),
    #[error("it could not be watched: {0}")]
    Watch(io::Error),
    #[error("it was stopped because it said more than {0} bytes")]
    TooMuch(usize),
    #[error("it was stopped because it took longer than {} seconds", .0.as_secs())]
    TooLong(Duration),
    #[error("it was stopped from outside")]
    Stopped,
}

/// Runs a program without input to its end.
pub(crate) fn output(command: &mut Command, limits: Limits, stop: &Stop) -> Result<Ended, CommandError> {
    run(command.stdin(Stdio::null()), limits, stop, None)
}

/// The same for a program that starts others: where it is stopped, so are they, and they die with this process. What is not set of the
/// command's environment is not there.
pub(crate) fn output_of_group(command: &Command, limits: Limits, stop: &Stop) -> Result<Ended, CommandError> {
    let (guarded, held) = io::pipe().map_err(CommandError::Start)?;
    run(guard_of(command).process_group(0).stdin(guarded), limits, stop, Some(held))
}

/// The same program below its guard.
fn guard_of(command: &Command) -> Command {
    let mut guard = Command::new("/bin/sh");
    guard.args(["-c", GUARD, "sh"]).arg(command.get_program()).args(command.get_args()).env_clear();
    guard.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        guard.current_dir(folder);
    }
    guard
}

fn run(
    command: &mut Command,
    limits: Limits,
    stop: &Stop,
    held: Option<io::PipeWriter>,
) -> Result<Ended, CommandError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut patience = Patience::new(limits.time).until(stop);
    let child = command.spawn().map_err(CommandError::Start)?;
    let mut run = KilledWhenDropped { child, group: held.is_some(), waited_for: false, _held: held };
    let (mut stdout, mut stderr) = (run.child.stdout.take(), run.child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let mut left = limits.bytes;
    let mut buffer = vec![0; 64 * 1024];
    while stdout.is_some() || stderr.is_some() {
        let [out, err] = patience.ready([stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)])?;
        if out {
            let bytes = next(&mut stdout, &mut buffer)?;
            left = left.checked_sub(bytes.len()).ok_or(CommandError::TooMuch(limits.bytes))?;
            said.extend_from_slice(bytes);
        }
        if err {
            let bytes = next(&mut stderr, &mut buffer)?;
            left = left.checked_sub(bytes.len()).ok_or(CommandError::TooMuch(limits.bytes))?;
            let kept = bytes.len().min(MAX_COMPLAINT - complained.len());
            complained.extend_from_slice(&bytes[..kept]);
        }
    }
    // It may close its streams and stay.
    let process = pidfd_open(Pid::from_child(&run.child), PidfdFlags::empty());
    let process = process.map_err(|error| CommandError::Watch(error.into()))?;
    while !patience.ready([Some(process.as_fd())])?[0] {}
    let status = run.child.wait().map_err(CommandError::Watch)?;
    run.waited_for = true;
    Ok(Ended { status, stdout: said, stderr: complained })
}

/// What a stream has to say now. At its end it is closed.
fn next<'a>(stream: &mut Option<impl Read>, buffer: &'a mut [u8]) -> Result<&'a [u8], CommandError> {
    let Some(open) = stream else { return Ok(&[]) };
    match open.read(buffer) {
        Ok(0) => {
            *stream = None;
            Ok(&[])
        }
        Ok(read) => Ok(&buffer[..read]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
        Err(error) => Err(CommandError::Watch(error)),
    }
}

/// The time that is left to wait for a program; only waiting uses it up.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    whole: Duration,
    left: Duration,
    stop: Option<Stop>,
}

impl Patience {
    pub(crate) fn new(time: Duration) -> Self {
        Self { whole: time, left: time, stop: None }
    }

    /// The same, which ends when it is to stop.
    pub(crate) fn until(self, stop: &Stop) -> Self {
        Self { stop: Some(stop.clone()), ..self }
    }

    /// Waits until at least one of these can be read without waiting, or has come to its end, or something came in between.
    pub(crate) fn ready<const N: usize>(
        &mut self,
        streams: [Option<std::os::fd::BorrowedFd<'_>>; N],
    ) -> Result<[bool; N], CommandError> {
        if self.stop.as_ref().is_some_and(Stop::is_raised) {
            return Err(CommandError::Stopped);
        }
        if self.left.is_zero() {
            return Err(CommandError::TooLong(self.whole));
        }
        let wait = if self.stop.is_some() { self.left.min(LISTENING) } else { self.left };
        let mut watched: Vec<PollFd<'_>> =
            streams.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let began = Instant::now();
        // A time that the system can't count is as good as none.
        let count = poll(&mut watched, Timespec::try_from(wait).ok().as_ref());
        self.left = self.left.saturating_sub(began.elapsed());
        match count {
            Ok(0) if self.left.is_zero() => return Err(CommandError::TooLong(self.whole)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(CommandError::Watch(error.into())),
        }
        let mut events = watched.iter().map(|watched| !watched.revents().is_empty());
        Ok(streams.map(|stream| stream.is_some() && events.next().unwrap_or(false)))
    }
}

/// What a program says, waited for with patience. What it says is limited by whoever reads.
#[derive(Debug)]
pub(crate) struct Patiently<R> {
    stream: R,
    patience: Patience,
}

impl<R> Patiently<R> {
    pub(crate) fn new(stream: R, time: Duration, stop: &Stop) -> Self {
        Self { stream, patience: Patience::new(time).until(stop) }
    }
}

impl<R: Read + AsFd> Read for Patiently<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.patience.ready([Some(self.stream.as_fd())]).map_err(io::Error::other)?[0] {}
        self.stream.read(buffer)
    }
}

/// A program that does not outlive the reason to run it.
struct KilledWhenDropped {
    child: Child,
    /// Whether it leads a group of its own, which goes with it.
    group: bool,
    /// Whether its number may be somebody else's by now.
    waited_for: bool,
    /// While this is open, the guard of the group lets it live.
    _held: Option<io::PipeWriter>,
}

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        if self.waited_for {
            return;
        }
        // All of these fail only where it has ended already.
        if self.group {
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).unwrap_or_default();
        }
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::{AsRawFd, OwnedFd},
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn shell(script: &str, bytes: usize, time: Duration) -> Result<Ended, CommandError> {
        output(Command::new("sh").args(["-c", script]), Limits { bytes, time }, &Stop::default())
    }

    #[test]
    fn a_program_is_heard_to_its_end() {
        let ended = shell("echo out; echo err >&2; exit 3", 100, LONG).unwrap();
        assert_eq!((ended.status.code(), &*ended.stdout, &*ended.stderr), (Some(3), &b"out\n"[..], &b"err\n"[..]));
        let many = shell("head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2", 200_000, LONG).unwrap();
        assert_eq!((many.stdout.len(), many.stderr.len(), many.status.success()), (100_000, MAX_COMPLAINT, true));
        assert!(matches!(
            output(&mut Command::new("/nowhere/program"), Limits { bytes: 1, time: LONG }, &Stop::default()),
            Err(CommandError::Start(_))
        ));
    }

    #[test]
    fn a_program_that_says_too_much_is_stopped() {
        assert_eq!(shell("printf 12345", 5, LONG).unwrap().stdout, b"12345");
        let error = shell("printf 12345", 4, LONG).unwrap_err().to_string();
        assert!(error.contains("more than 4 bytes"), "{error}");
        // One that would never stop by itself.
        for script in ["exec cat /dev/zero", "exec cat /dev/zero >&2"] {
            assert!(matches!(shell(script, 1_000_000, LONG), Err(CommandError::TooMuch(_))));
        }
    }

    #[test]
    fn a_program_that_takes_too_long_is_stopped() {
        // No time at all is over before a program that waits forever has begun, so that the test does not wait either.
        for script in ["exec cat /dev/zero", "exec sleep 1000000", "exec sleep 1000000 >&- 2>&-"] {
            let error = shell(script, 100, Duration::ZERO).unwrap_err().to_string();
            assert!(error.contains("took longer than 0 seconds"), "{error}");
        }
        assert!(shell("exit 0", 100, LONG).is_ok());
    }

    #[test]
    fn what_a_stopped_program_started_is_stopped_with_it() {
        // The inner program holds the pipe: it ends for the reader once everything that could write to it is gone.
        let (mut reader, writer) = io::pipe().unwrap();
        let inherited = OwnedFd::from(writer);
        let limits = Limits { bytes: 5, time: LONG };
        let script = format!(
            "exec 3>/proc/{}/fd/{}; exec sh -c 'sleep 1000000 & head -c 10 /dev/zero; wait'",
            std::process::id(),
            inherited.as_raw_fd()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        assert!(matches!(output_of_group(&command, limits, &Stop::default()), Err(CommandError::TooMuch(5))));
        drop(inherited);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    /// A program that says `up` through the pipe, whose writing end it and what it starts then hold for as long as they live.
    fn lasting(writer: &impl AsRawFd) -> Command {
        let script =
            format!("exec 3>/proc/{}/fd/{}; echo up >&3; sleep 1000000 & wait", std::process::id(), writer.as_raw_fd());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    }

    #[test]
    fn a_program_is_stopped_from_outside_and_what_it_started_with_it() {
        let limits = Limits { bytes: 100, time: LONG };
        let raised = Stop::default();
        raised.raise();
        let alone = output(Command::new("sleep").arg("1000000"), limits, &raised);
        assert!(matches!(alone, Err(CommandError::Stopped)));

        let (mut reader, writer) = io::pipe().unwrap();
        let (command, stop) = (lasting(&writer), Stop::default());
        thread::scope(|scope| {
            let run = scope.spawn(|| output_of_group(&command, limits, &stop));
            reader.read_exact(&mut [0; 3]).unwrap();
            stop.raise();
            assert!(matches!(run.join().unwrap(), Err(CommandError::Stopped)));
        });
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_group_dies_with_whoever_holds_it_without_being_told() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lasting = lasting(&writer);
        let (guarded, held) = io::pipe().unwrap();
        let mut guard = guard_of(&lasting);
        let mut guard = guard.process_group(0).stdin(guarded).spawn().unwrap();
        reader.read_exact(&mut [0; 3]).unwrap();
        drop(writer);
        assert!(guard.try_wait().unwrap().is_none());
        // What the kernel does for a process that was killed.
        drop(held);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        assert!(!guard.wait().unwrap().success());
    }

    #[test]
    fn a_group_is_what_its_program_is() {
        let limits = Limits { bytes: 100, time: LONG };
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo \"$1 $SAID\" $PWD; echo err >&2; exit 3", "sh", "a b"]);
        command.env("SAID", "said").current_dir("/");
        let ended = output_of_group(&command, limits, &Stop::default()).unwrap();
        assert_eq!(
            (ended.status.code(), &*ended.stdout, &*ended.stderr),
            (Some(3), &b"a b said /\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn a_stream_is_waited_for_as_long_as_there_is_patience() {
        let (reader, mut writer) = io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"12345").unwrap();
        let mut read = [0; 8];
        assert_eq!(Patiently::new(&reader, LONG, &Stop::default()).read(&mut read).unwrap(), 5);
        let error = Patiently::new(&reader, Duration::ZERO, &Stop::default()).read(&mut read).unwrap_err().to_string();
        assert!(error.contains("took longer"), "{error}");
        drop(writer);
        assert_eq!(Patiently::new(&reader, LONG, &Stop::default()).read(&mut read).unwrap(), 0);
    }
}
