//! Watches one helper from start to end: its streams, its messages, the deadline, and that nothing survives.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    process::Child,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};

use sluicegate_ports::execute::StepRequest;

use crate::{
    container_process::{ASK, KILL},
    job::{Collected, Failure, Message},
};

/// From the word that asks a step to end to the one that kills.
const GRACE: Duration = Duration::from_secs(2);

/// How long it takes at most until a word from outside is heard.
const LISTENING: Duration = Duration::from_millis(100);

/// From the word that kills to the container's end: the kernel frees memory and unmounts in that time.
const KILL_GRACE: Duration = Duration::from_secs(60);

/// From the container's end to the last output packed.
const COLLECT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Bytes of messages that a helper may send.
const MAX_MESSAGES: usize = 1 << 20;

/// Why a container was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// It ran too long.
    TimedOut,
    /// Somebody outside wanted it to end.
    Stopped,
    /// It printed too much.
    TooMuchOutput,
}

/// How a helper and its container ended.
#[derive(Debug)]
pub(crate) struct Report {
    /// Exit code and processes killed for memory; `None` if the container did not come to an end.
    pub(crate) ended: Option<(i32, Option<u64>)>,
    /// Why it was killed, if it was.
    pub(crate) killed: Option<Killed>,
    /// What was kept, or what failed.
    pub(crate) result: Result<Vec<Collected>, Failure>,
}

/// Is told what comes from a container.
pub(crate) struct Listener<'a> {
    /// Gets the number of a stream and what came in it.
    pub(crate) on_output: &'a mut dyn FnMut(usize, &[u8]) -> io::Result<Output>,
    /// Gets the socket that was opened in the container's network.
    pub(crate) on_socket: &'a mut dyn FnMut(OwnedFd) -> io::Result<()>,
}

/// What ends a container before it ends by itself.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    timeout: Duration,
    stopped: Option<&'a dyn Fn() -> bool>,
    /// Whether it has a moment to end by itself.
    asks: bool,
}

impl<'a> Ending<'a> {
    /// Of a step: by its time-out and when `stopped` says so. It is asked first and has a moment to end by itself.
    pub(crate) fn of_step(request: &StepRequest, stopped: &'a dyn Fn() -> bool) -> Self {
        Self { timeout: request.limits.timeout, stopped: Some(stopped), asks: true }
    }

    /// Of anything else: by its time-out, without being asked.
    pub(crate) fn by_force(timeout: Duration) -> Self {
        Self { timeout, stopped: None, asks: false }
    }

    /// Of a tool: by its time-out and when `stopped` says so, without being asked.
    pub(crate) fn of_tool(timeout: Duration, stopped: &'a dyn Fn() -> bool) -> Self {
        Self { timeout, stopped: Some(stopped), asks: false }
    }
}

/// Whether a container may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// It may.
    Taken,
    /// It printed too much.
    Full,
}

/// Waits for the helper's end. An error of the listener kills the container and is returned. A helper that neither answers nor ends is killed, and its container dies with it.
pub(crate) fn supervise(
    mut child: Child,
    control: UnixStream,
    streams: Vec<File>,
    ending: Ending<'_>,
    listener: &mut Listener<'_>,
) -> Result<Report, String> {
    let mut watch = Watch {
        control: Some(control),
        streams: streams.into_iter().map(Some).collect(),
        phase: Phase::Running,
        until: deadline(ending.timeout),
        stopped: ending.stopped,
        asks: ending.asks,
        killed: None,
        full: false,
        messages: Messages::default(),
        failed: None,
        buffer: vec![0; 64 * 1024],
    };
    while watch.is_open() {
        if let Err(error) = watch.step(&mut child, listener) {
            watch.give_up(&mut child, error.to_string());
            break;
        }
    }
    let status = child.wait().map_err(|error| format!("wait for the helper: {error}"))?;
    if let Some(reason) = watch.failed {
        return Err(reason);
    }
    let result = watch.messages.result.ok_or_else(|| format!("the helper ended without an answer ({status})"))?;
    Ok(Report { ended: watch.messages.ended, killed: watch.killed, result })
}

struct Watch<'a> {
    control: Option<UnixStream>,
    streams: Vec<Option<File>>,
    phase: Phase,
    until: Option<Instant>,
    stopped: Option<&'a dyn Fn() -> bool>,
    asks: bool,
    killed: Option<Killed>,
    full: bool,
    messages: Messages,
    failed: Option<String>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Asked,
    Dying,
    Collecting,
    GivenUp,
}

#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    total: usize,
    sockets: Vec<OwnedFd>,
    listening: usize,
    ended: Option<(i32, Option<u64>)>,
    result: Option<Result<Vec<Collected>, Failure>>,
}

impl Watch<'_> {
    fn is_open(&self) -> bool {
        self.control.is_some() || self.streams.iter().any(Option::is_some)
    }

    fn step(&mut self, child: &mut Child, listener: &mut Listener<'_>) -> io::Result<()> {
        let (control_ready, ready) = self.wait()?;
        if let Some(index) = ready {
            self.read_stream(index, listener.on_output)?;
        }
        if control_ready {
            self.read_control(listener.on_socket)?;
        }
        if self.phase == Phase::Running && self.stopped.is_some_and(|stopped| stopped()) {
            self.ask(Killed::Stopped);
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.run_out(child);
        }
        Ok(())
    }

    /// Whether the control socket can be read, and one stream that can. Streams are read even when the container is dead, so
    /// that nothing of the log is lost.
    fn wait(&self) -> io::Result<(bool, Option<usize>)> {
        let mut watched = Vec::with_capacity(self.streams.len() + 1);
        let mut places = Vec::with_capacity(self.streams.len());
        for (index, stream) in self.streams.iter().enumerate() {
            if let Some(stream) = stream {
                watched.push(PollFd::new(stream, PollFlags::IN));
                places.push(index);
            }
        }
        if let Some(control) = &self.control {
            watched.push(PollFd::new(control, PollFlags::IN));
        }
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = match self.stopped.filter(|_| self.phase == Phase::Running) {
            Some(_) => Some(left.map_or(LISTENING, |left| left.min(LISTENING))),
            None => left,
        };
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut watched, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((false, None)),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| !watched[index].revents().is_empty();
        let control = self.control.is_some() && is_ready(watched.len() - 1);
        let stream = places.iter().enumerate().find(|(slot, _)| is_ready(*slot)).map(|(_, place)| *place);
        Ok((control, stream))
    }

    fn read_stream(
        &mut self,
        index: usize,
        on_output: &mut dyn FnMut(usize, &[u8]) -> io::Result<Output>,
    ) -> io::Result<()> {
        let Some(stream) = self.streams[index].as_mut() else { return Ok(()) };
        match stream.read(&mut self.buffer) {
            Ok(0) => self.streams[index] = None,
            // After a kill the rest is read, so that the helper is never stuck on a full pipe, and thrown away.
            Ok(_) if self.full || self.phase == Phase::GivenUp => {}
            Ok(n) => {
                if on_output(index, &self.buffer[..n])? == Output::Full {
                    self.full = true;
                    self.kill(Killed::TooMuchOutput);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            // A terminal whose other side nobody has open any more.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => self.streams[index] = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_control(&mut self, on_socket: &mut dyn FnMut(OwnedFd) -> io::Result<()>) -> io::Result<()> {
        let Some(control) = self.control.as_mut() else { return Ok(()) };
        match receive(control, &mut self.buffer, &mut self.messages.sockets) {
            Ok(0) => self.control = None,
            Ok(n) => {
                let came_to_an_end = self.messages.take(&self.buffer[..n])?;
                while self.messages.listening > 0 {
                    self.messages.listening -= 1;
                    let socket = self.messages.sockets.pop();
                    on_socket(socket.ok_or_else(|| io::Error::other("the helper names a socket that did not come"))?)?;
                }
                if came_to_an_end && self.phase != Phase::GivenUp {
                    self.phase = Phase::Collecting;
                    self.until = deadline(COLLECT_LIMIT);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A helper that was killed with unread words on its side.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.control = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn run_out(&mut self, child: &mut Child) {
        match self.phase {
            Phase::Running => self.ask(Killed::TimedOut),
            Phase::Asked => self.kill(Killed::TimedOut),
            Phase::Dying => self.give_up(child, "the container did not die when it was killed".to_owned()),
            Phase::Collecting => self.give_up(child, "packing the outputs took too long".to_owned()),
            Phase::GivenUp => {
                // Even the kernel does not let go; nothing more can come that would be believed.
                self.control = None;
                self.streams.clear();
            }
        }
    }

    /// Asks a step to end; kills what is none.
    fn ask(&mut self, why: Killed) {
        if !self.asks {
            return self.kill(why);
        }
        self.killed = Some(why);
        self.phase = Phase::Asked;
        self.until = deadline(GRACE);
        self.tell(ASK);
    }

    fn kill(&mut self, why: Killed) {
        if matches!(self.phase, Phase::Running | Phase::Asked) {
            // Why it was asked is why it ended.
            self.killed.get_or_insert(why);
            self.phase = Phase::Dying;
            self.until = deadline(KILL_GRACE);
        } else if why == Killed::TooMuchOutput && self.killed.is_none() {
            // The container was faster with its end than its output with us.
            self.killed = Some(why);
        }
        self.tell(KILL);
    }

    fn tell(&mut self, word: u8) {
        if let Some(control) = self.control.as_mut() {
            // If it is gone already, its end is what is read next.
            let _ = control.write_all(&[word]);
        }
    }

    fn give_up(&mut self, child: &mut Child, reason: String) {
        let _ = child.kill();
        self.failed.get_or_insert(reason);
        self.phase = Phase::GivenUp;
        self.until = deadline(KILL_GRACE);
    }
}

impl Messages {
    /// Takes bytes; whether the container's end was among them.
    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.total += bytes.len();
        if self.total > MAX_MESSAGES {
            return Err(io::Error::other("the helper says more than 1 MiB"));
        }
        self.bytes.extend_from_slice(bytes);
        let mut came_to_an_end = false;
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Message::Listening => self.listening += 1,
                Message::Ended { code, oom_kills } => {
                    self.ended = Some((code, oom_kills));
                    came_to_an_end = true;
                }
                Message::Collected(collected) => self.result = Some(Ok(collected)),
                Message::Failed(failure) => self.result = Some(Err(failure)),
            }
        }
        Ok(came_to_an_end)
    }
}

/// Reads words, and the descriptors that come along with them; more than one at a time are closed unseen.
fn receive(control: &UnixStream, buffer: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut words = [IoSliceMut::new(buffer)];
    let received = rustix::net::recvmsg(control, &mut words, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    Ok(received.bytes)
}

/// `None` for a moment that no clock reaches.
fn deadline(after: Duration) -> Option<Instant> {
    Instant::now().checked_add(after)
}
