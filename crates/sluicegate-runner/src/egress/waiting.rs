//! Waits for sockets, never beyond a moment and never beyond the step's end.

use std::{
    io::{self, ErrorKind, PipeReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt::socket_error},
};

/// The step's end, as something that can be polled: the other end of this pipe is dropped.
pub(super) struct Stop(pub(super) PipeReader);

impl Stop {
    /// What of `watched` is ready. An error of kind [`ErrorKind::TimedOut`] at the moment `until`, of [`ErrorKind::ConnectionAborted`]
    /// when the step ends.
    pub(super) fn ready(&self, watched: &[(BorrowedFd<'_>, PollFlags)], until: Instant) -> io::Result<Vec<PollFlags>> {
        let mut polled: Vec<PollFd<'_>> =
            watched.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        polled.push(PollFd::new(&self.0, PollFlags::IN));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
            match poll(&mut polled, Some(&left)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if polled.pop().is_some_and(|stop| !stop.revents().is_empty()) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            return Ok(polled.iter().map(PollFd::revents).collect());
        }
    }

    /// Whether the step has ended.
    pub(super) fn is_raised(&self) -> bool {
        matches!(self.ready(&[], Instant::now()), Err(error) if error.kind() == ErrorKind::ConnectionAborted)
    }

    /// Reads what there is; nothing means the other side's end.
    pub(super) fn read(&self, mut stream: &TcpStream, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        loop {
            match stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready(&[(stream.as_fd(), PollFlags::IN)], until)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes all of it.
    pub(super) fn write(&self, mut stream: &TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready(&[(stream.as_fd(), PollFlags::OUT)], until)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Connects to the first of these very addresses that answers.
    pub(super) fn connect(&self, addresses: &[IpAddr], port: u16, limit: Duration) -> io::Result<(IpAddr, TcpStream)> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            match self.connect_to(SocketAddr::new(*address, port), limit) {
                Ok(stream) => return Ok((*address, stream)),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted && self.is_raised() => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_to(&self, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS | Errno::INTR) => {
                self.ready(&[(socket.as_fd(), PollFlags::OUT)], Instant::now() + limit)?;
                socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        // Small messages go at once, as they came.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
