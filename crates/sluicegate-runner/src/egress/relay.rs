//! Carries bytes between a client and a server, and looks at the first ones.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, fd::AsFd};

use super::{
    body::Body,
    client_hello::{FirstBytes, MAX_HELLO, look_at},
    policy::Refusal,
    waiting::Stop,
};

/// Bytes that wait for one side.
const BUFFER: usize = 64 * 1024;

/// A connection to a server that a client may use.
pub(super) struct Relay<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) server: &'a TcpStream,
    pub(super) stop: &'a Stop,
    /// How long nothing may happen.
    pub(super) idle: Duration,
    /// How long a ClientHello may take once it has begun.
    pub(super) hello: Duration,
}

/// What the client may send.
pub(super) enum Upward {
    /// Anything, but if it begins as TLS it asks for this name; `None` for an address, for which it asks for none.
    Tunnel(Option<String>),
    /// One body.
    Message(Body),
}

/// How many bytes went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) sent: u64,
    pub(super) received: u64,
}

#[derive(Default)]
struct Direction {
    waiting: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// And the other side knows.
    told: bool,
}

impl Relay<'_> {
    /// Carries until both sides have ended, nothing happens for too long, or the step ends. `from_client` and `from_server` were read
    /// before. An error says why a client was refused; the server got nothing of it then.
    pub(super) fn run(
        &self,
        mut upward: Upward,
        from_client: Vec<u8>,
        from_server: Vec<u8>,
        carried: &mut Carried,
    ) -> Result<(), Refusal> {
        let mut up = Direction { waiting: from_client, ..Direction::default() };
        let mut down = Direction { waiting: from_server, ..Direction::default() };
        let fresh = up.waiting.len();
        let mut held = upward.take(&mut up, fresh)?;
        let mut hello_until = None;
        loop {
            if held && !up.waiting.is_empty() {
                hello_until.get_or_insert_with(|| Instant::now() + self.hello);
            }
            let until = Instant::now() + self.idle;
            let until = hello_until.filter(|_| held).map_or(until, |hello| hello.min(until));
            let message_is_over = matches!(upward, Upward::Message(_)) && down.told;
            if message_is_over || (up.told && down.told) {
                return Ok(());
            }
            match self.carry(&mut up, &mut down, held, until, carried) {
                Ok(fresh) if fresh > 0 || up.ended => held = held_after(&mut upward, &mut up, fresh, held)?,
                Ok(_) => {}
                Err(error) if held && !up.waiting.is_empty() && error.kind() == ErrorKind::TimedOut => {
                    return Err(Refusal::UnreadableTls);
                }
                // Both sides see the end, which is all that either could be told.
                Err(_) => return Ok(()),
            }
            if matches!(upward, Upward::Message(_)) {
                // A server may take a half-closed connection for a client that left; the message's own length is its end.
                up.told = up.ended && up.waiting.is_empty();
            } else if up.ended && up.waiting.is_empty() && !up.told {
                up.told = true;
                let _ = self.server.shutdown(Shutdown::Write);
            }
            if down.ended && down.waiting.is_empty() && !down.told {
                down.told = true;
                let _ = self.client.shutdown(Shutdown::Write);
            }
        }
    }

    /// Waits, and reads and writes once each where something is ready; returns how many bytes the client sent.
    fn carry(
        &self,
        up: &mut Direction,
        down: &mut Direction,
        held: bool,
        until: Instant,
        carried: &mut Carried,
    ) -> io::Result<usize> {
        let room = if held { MAX_HELLO + BUFFER } else { BUFFER };
        let reads_client = !up.ended && up.waiting.len() < room;
        let writes_server = !held && !up.waiting.is_empty();
        let reads_server = !down.ended && down.waiting.len() < BUFFER;
        let writes_client = !down.waiting.is_empty();
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        let sides = [
            (self.client.as_fd(), flags(reads_client, writes_client)),
            (self.server.as_fd(), flags(reads_server, writes_server)),
        ];
        // A side of which nothing is wanted would wake this again and again once it has hung up.
        let watched: Vec<_> = sides.into_iter().filter(|(_, flags)| !flags.is_empty()).collect();
        self.stop.ready(&watched, until)?;
        // What is not ready says so itself. Written is first what was looked at before; what is read now is looked at first.
        if writes_server {
            carried.sent += write_from(self.server, up)?;
        }
        if writes_client {
            carried.received += write_from(self.client, down)?;
        }
        let fresh = if reads_client { read_into(self.client, up)? } else { 0 };
        if reads_server {
            read_into(self.server, down)?;
        }
        Ok(fresh)
    }
}

impl Upward {
    /// Takes the last `fresh` bytes that wait; whether they have to go on waiting.
    fn take(&mut self, up: &mut Direction, fresh: usize) -> Result<bool, Refusal> {
        match self {
            Self::Tunnel(asked) => match look_at(&up.waiting) {
                // Some servers speak first, so that nothing is waited for here.
                FirstBytes::TooFew if up.waiting.is_empty() => Ok(!up.ended),
                FirstBytes::TooFew if up.ended => Err(Refusal::UnreadableTls),
                FirstBytes::TooFew => Ok(true),
                FirstBytes::NotTls => Ok(false),
                FirstBytes::Hello(name) if name == *asked => Ok(false),
                FirstBytes::Hello(name) => Err(Refusal::OtherName(name)),
                FirstBytes::Unreadable => Err(Refusal::UnreadableTls),
            },
            Self::Message(body) => {
                let known = up.waiting.len() - fresh;
                // Chunks that cannot be followed end the body here; the server sees that it is cut.
                let taken = body.take(&up.waiting[known..]);
                up.waiting.truncate(known + taken.as_ref().map_or(0, |count| *count));
                up.ended |= body.is_done() || taken.is_err();
                Ok(false)
            }
        }
    }
}

fn held_after(upward: &mut Upward, up: &mut Direction, fresh: usize, held: bool) -> Result<bool, Refusal> {
    match upward {
        // Once looked at, whatever follows is the tunnel's own.
        Upward::Tunnel(_) if !held => Ok(false),
        _ => upward.take(up, fresh),
    }
}

fn read_into(mut stream: &TcpStream, direction: &mut Direction) -> io::Result<usize> {
    let known = direction.waiting.len();
    direction.waiting.resize(known + BUFFER, 0);
    let read = stream.read(&mut direction.waiting[known..]);
    direction.waiting.truncate(known + read.as_ref().map_or(0, |count| *count));
    match read {
        Ok(0) => {
            direction.ended = true;
            Ok(0)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

fn write_from(mut stream: &TcpStream, direction: &mut Direction) -> io::Result<u64> {
    match stream.write(&direction.waiting) {
        Ok(count) => {
            direction.waiting.drain(..count);
            Ok(count as u64)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_is_read_is_looked_at_before_it_is_written() {
        let ((mut step, client), (server, mut far)) = (pair(), pair());
        let (end, _running) = io::pipe().unwrap();
        let stop = Stop(end);
        let soon = Duration::from_secs(600);
        let relay = Relay { client: &client, server: &server, stop: &stop, idle: soon, hello: soon };
        step.write_all(b"not looked at").unwrap();
        // It is there before anything is carried.
        let mut seen = [0; 13];
        while client.peek(&mut seen).unwrap() < seen.len() {}
        client.set_nonblocking(true).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut up = Direction { waiting: b"looked at".to_vec(), ..Direction::default() };
        let (mut down, mut carried) = (Direction::default(), Carried::default());
        let fresh = relay.carry(&mut up, &mut down, false, Instant::now() + soon, &mut carried).unwrap();
        assert_eq!((fresh, up.waiting.as_slice()), (13, &b"not looked at"[..]));
        drop(server);
        let mut told = String::new();
        far.read_to_string(&mut told).unwrap();
        assert_eq!((told.as_str(), carried.sent), ("looked at", 9));
    }
}
