//! A step that somebody talks to: the caller's terminal or streams on one side, the container's on the other.

use std::{
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};
use sluicegate_ports::execute::{Ended, ExecuteError, StepRequest, Terminal};

use crate::{
    descriptors,
    executor::{EmbeddedExecutor, Launch, ended_of, engine, failure_of, start_proxy},
    job::Streams,
    masking::{Forms, Masker},
    run_folder::RunFolder,
    supervise::{self, Ending, Listener, Output, Report},
};

/// How often the size of the caller's window is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// From the helper's start to the container's terminal.
const TERMINAL_LIMIT: Duration = Duration::from_secs(60);

/// Takes the socket that a helper opened.
type OnSocket<'a> = dyn FnMut(OwnedFd) -> io::Result<()> + 'a;

/// Runs the step between the two sides until it ends.
pub(crate) fn hold(
    executor: &EmbeddedExecutor,
    (request, forms): (&StepRequest, &Forms),
    run: &RunFolder,
    launch: Launch<'_>,
    terminal: Terminal,
) -> Result<Ended, ExecuteError> {
    let mut policy = executor.policy(request)?;
    // Whatever was contacted is nobody's to write down: nothing of a conversation is proved.
    let mut proxy = None;
    let mut on_socket = |socket| start_proxy(socket, &mut policy, &mut proxy);
    let report = match terminal {
        Terminal::Tty(tty) => at_terminal(executor, request, run, launch, &tty, &mut on_socket),
        Terminal::Streams { input, output, errors } => {
            through_streams(executor, (request, forms), run, launch, (&input, [output, errors]), &mut on_socket)
        }
    }?;
    match report.result {
        Err(failure) => Err(failure_of(request, &failure)),
        Ok(_) => ended_of(request.step.as_str(), report.killed, report.ended).map(|(ended, _)| ended),
    }
}

fn through_streams(
    executor: &EmbeddedExecutor,
    (request, forms): (&StepRequest, &Forms),
    run: &RunFolder,
    launch: Launch<'_>,
    (input, mut outputs): (&File, [File; 2]),
    on_socket: &mut OnSocket<'_>,
) -> Result<Report, ExecuteError> {
    let (step, ending) = (request.step.as_str(), launch.ending);
    EmbeddedExecutor::write_job(run, Launch { streams: Streams::Passed, ..launch })
        .map_err(engine(step, "write the helper's job"))?;
    let helper = executor.helper()?;
    let start = || -> io::Result<_> {
        let ((stdin, to_step), (out, stdout), (err, stderr)) = (io::pipe()?, io::pipe()?, io::pipe()?);
        let (wire, theirs) = UnixStream::pair()?;
        let (child, control) = helper.start(run.path(), OwnedFd::from(theirs), stderr.try_clone()?)?;
        // A helper that is gone already is noticed where it is watched.
        let _ = descriptors::send(&wire, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        Ok((child, control, to_step, [out, err]))
    };
    let (child, control, to_step, streams) = start().map_err(engine(step, "start the helper"))?;
    let mut maskers: [Masker; 2] = [forms.stream(), forms.stream()];
    let mut text = Vec::new();
    let report = with_input(input, to_step.into(), None, &AtomicBool::new(false), || {
        let streams = streams.map(|stream| File::from(OwnedFd::from(stream))).into();
        let mut on_output = |stream: usize, bytes: &[u8]| {
            text.clear();
            maskers[stream].push(bytes, &mut text);
            outputs[stream].write_all(&text)?;
            Ok(Output::Taken)
        };
        let mut listener = Listener { on_output: &mut on_output, on_socket };
        supervise::supervise(child, control, streams, ending, &mut listener)
    })
    .map_err(engine(step, "talk to the step"))?
    .map_err(|reason| ExecuteError::Engine { step: step.to_owned(), action: "run the container", reason })?;
    for (masker, output) in maskers.iter_mut().zip(&mut outputs) {
        text.clear();
        masker.finish(&mut text);
        output.write_all(&text).map_err(engine(step, "write what the step printed"))?;
    }
    Ok(report)
}

fn at_terminal(
    executor: &EmbeddedExecutor,
    request: &StepRequest,
    run: &RunFolder,
    launch: Launch<'_>,
    tty: &File,
    on_socket: &mut OnSocket<'_>,
) -> Result<Report, ExecuteError> {
    let (step, ending) = (request.step.as_str(), launch.ending);
    EmbeddedExecutor::write_job(run, Launch { streams: Streams::Terminal, ..launch })
        .map_err(engine(step, "write the helper's job"))?;
    let helper = executor.helper()?;
    let start = || -> io::Result<_> {
        let (wire, theirs) = UnixStream::pair()?;
        let null = File::options().write(true).open("/dev/null")?;
        let (child, control) = helper.start(run.path(), OwnedFd::from(theirs), null)?;
        Ok((child, control, wire))
    };
    let (mut child, control, wire) = start().map_err(engine(step, "start the helper"))?;
    // None if the helper failed: it says why where it is watched.
    let prepare = || -> io::Result<_> {
        let Some(master) = receive_terminal(&wire)? else { return Ok(None) };
        rustix::io::ioctl_fionbio(&master, true)?;
        let to_step = master.try_clone()?;
        Ok(Some((master, to_step, RawMode::on(tty)?)))
    };
    let prepared = prepare();
    drop(wire);
    let watched = match prepared {
        Err(error) => {
            // Nothing is owed to it yet; its container dies with it.
            let _ = child.kill();
            let _ = child.wait();
            return Err(engine(step, "open the step's terminal")(error));
        }
        Ok(None) => {
            let mut listener = Listener { on_output: &mut |_, _| Ok(Output::Taken), on_socket };
            supervise::supervise(child, control, Vec::new(), ending, &mut listener)
        }
        Ok(Some((master, to_step, _raw))) => {
            let gone = AtomicBool::new(false);
            with_input(tty, to_step, Some(tty), &gone, || {
                // A caller whose terminal is gone can't want anything any more.
                let stopped = || request.stop.is_raised() || gone.load(Ordering::SeqCst);
                let ending = Ending::of_step(request, &stopped);
                let mut on_output = |_: usize, bytes: &[u8]| {
                    let mut out = tty;
                    out.write_all(bytes)?;
                    Ok(Output::Taken)
                };
                let mut listener = Listener { on_output: &mut on_output, on_socket };
                supervise::supervise(child, control, vec![File::from(master)], ending, &mut listener)
            })
            .map_err(engine(step, "talk to the step"))?
        }
    };
    watched.map_err(|reason| ExecuteError::Engine { step: step.to_owned(), action: "run the container", reason })
}

fn receive_terminal(wire: &UnixStream) -> io::Result<Option<OwnedFd>> {
    wire.set_read_timeout(Some(TERMINAL_LIMIT))?;
    Ok(descriptors::receive(wire)?.into_iter().next())
}

/// The caller's terminal without any meaning of its own for what is typed; as it was before when this is dropped.
struct RawMode<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> RawMode<'a> {
    fn on(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut raw = before.clone();
        raw.make_raw();
        // From here on it is given back, even if only half of the change was made.
        let mode = Self { tty, before };
        tcsetattr(tty, OptionalActions::Now, &raw)?;
        Ok(mode)
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // What was printed last is shown first. A terminal that is gone needs nothing.
        let _ = tcsetattr(self.tty, OptionalActions::Drain, &self.before);
    }
}

/// Does `work` while another thread hands over what the caller types; that thread ends with it.
fn with_input<T>(
    input: &File,
    to_step: OwnedFd,
    window: Option<&File>,
    gone: &AtomicBool,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    let (over, alive) = io::pipe()?;
    rustix::io::ioctl_fionbio(&to_step, true)?;
    let hand_over = HandOver { input, to_step, window, over };
    Ok(thread::scope(|scope| {
        scope.spawn(move || {
            // What cannot be read any more has come to its end.
            let _ = hand_over.all();
            gone.store(true, Ordering::SeqCst);
        });
        let done = work();
        drop(alive);
        done
    }))
}

struct HandOver<'a> {
    input: &'a File,
    to_step: OwnedFd,
    /// The terminal whose size the step's follows.
    window: Option<&'a File>,
    /// Ends when the step has ended.
    over: PipeReader,
}

impl HandOver<'_> {
    /// Until the input ends, the step reads no more, or all is over. The step's end of input is the end of `self`.
    fn all(self) -> io::Result<()> {
        let mut size = None;
        let mut buffer = [0; 4096];
        let mut input = self.input;
        loop {
            self.follow_window(&mut size);
            if !self.wait(self.input.as_fd(), PollFlags::IN)? {
                continue;
            }
            let count = match input.read(&mut buffer) {
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    continue;
                }
                result => result?,
            };
            let mut rest = &buffer[..count];
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                self.follow_window(&mut size);
                if self.wait(self.to_step.as_fd(), PollFlags::OUT)? {
                    match rustix::io::write(&self.to_step, rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::AGAIN | Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Whether the file is ready; an error once all is over.
    fn wait(&self, file: BorrowedFd<'_>, flags: PollFlags) -> io::Result<bool> {
        let mut watched =
            [PollFd::from_borrowed_fd(self.over.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(file, flags)];
        match poll(&mut watched, self.window.map(|_| &LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !watched[0].revents().is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(!watched[1].revents().is_empty())
    }

    fn follow_window(&self, size: &mut Option<Winsize>) {
        let Some(now) = self.window.and_then(|window| tcgetwinsize(window).ok()) else { return };
        let fields = |size: &Winsize| (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
        if size.as_ref().map(fields) != Some(fields(&now)) {
            // A step without the right size still runs.
            let _ = tcsetwinsize(&self.to_step, now);
            *size = Some(now);
        }
    }
}
