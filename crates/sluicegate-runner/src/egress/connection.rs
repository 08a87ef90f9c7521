//! One client of the proxy, from its first byte to its last.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Shutdown, TcpStream},
    time::{Duration, Instant},
};

use sluicegate_types::Destination;

use super::{
    body::Body,
    contacts::{Contacts, Line},
    names::Names,
    policy::{Policy, Refusal, Route, shown},
    relay::{Carried, Relay, Upward},
    request::{self, MAX_HEAD, Request},
    upstream,
    waiting::Stop,
};

/// What all connections of a step have in common.
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) contacts: Contacts,
    pub(super) limits: Limits,
    pub(super) names: Names,
    pub(super) stop: Stop,
}

/// How long and how many.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// From a connection's first moment to the end of a request's head, from a request to the end of an answer's.
    pub(super) head: Duration,
    /// For one name.
    pub(super) lookup: Duration,
    /// How long the answer to one is used again.
    pub(super) known: Duration,
    /// For one address.
    pub(super) connect: Duration,
    /// How long nothing may happen on a connection.
    pub(super) idle: Duration,
    /// Connections at a time.
    pub(super) connections: usize,
    /// Different contacts.
    pub(super) contacts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            lookup: Duration::from_secs(20),
            known: Duration::from_secs(30),
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(600),
            connections: 256,
            contacts: 10_000,
        }
    }
}

/// After an answer that ends a connection: how much of what a client still sends is read, so that it gets to see the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 1 << 20;

/// An answer of the proxy itself.
struct Answer {
    status: &'static str,
    words: String,
}

impl Shared {
    /// Serves one client; whatever goes wrong ends with its connection.
    pub(super) fn serve(&self, client: &TcpStream) {
        let served = client.set_nonblocking(true).and_then(|()| client.set_nodelay(true));
        if served.is_err() {
            return;
        }
        if let Err(Some(answer)) = self.follow(client) {
            self.answer(client, &answer);
        }
    }

    /// An error is what the client is still to be told, if it can be.
    fn follow(&self, client: &TcpStream) -> Result<(), Option<Answer>> {
        let until = Instant::now() + self.limits.head;
        let (head, rest) = match self.read_head(client, until) {
            Ok(read) => read,
            Err(error) => return Err(unreadable(&error)),
        };
        let request = request::parse(&head).map_err(|words| {
            answer("400 Bad Request", format!("sluicegate does not understand the request: {words}"))
        })?;
        let destination = match &request {
            Request::Tunnel(destination) => destination,
            Request::Message(message) => &message.destination,
        };
        let route = self.policy.route(destination).map_err(|refusal| self.refuse(destination, &refusal))?;
        let (line, server, from_server) = match route {
            Route::Straight => self.go_straight(destination)?,
            Route::Upstream => self.go_upstream(destination, matches!(request, Request::Tunnel(_)))?,
        };
        let (upward, from_client) = match &request {
            Request::Tunnel(destination) => {
                let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
                self.stop.write(client, established, Instant::now() + self.limits.head).map_err(|_| None)?;
                let name = destination.host.parse::<IpAddr>().is_err().then(|| destination.host.clone());
                (Upward::Tunnel(name), rest)
            }
            Request::Message(message) => {
                let to_proxy = self.policy.upstream().filter(|_| route == Route::Upstream);
                let head = message.head(to_proxy.map(upstream::Upstream::authorization));
                let written = self.stop.write(&server, &head, Instant::now() + self.limits.head);
                self.contacts.carried(&line, head.len() as u64, 0);
                written.map_err(|error| self.not_reached(destination, &error))?;
                (Upward::Message(Body::new(message.body)), rest)
            }
        };
        self.relay(client, &server, &line, (upward, from_client, from_server))
    }

    fn relay(
        &self,
        client: &TcpStream,
        server: &TcpStream,
        line: &Line,
        (upward, from_client, from_server): (Upward, Vec<u8>, Vec<u8>),
    ) -> Result<(), Option<Answer>> {
        let Limits { idle, head: hello, .. } = self.limits;
        let relay = Relay { client, server, stop: &self.stop, idle, hello };
        let mut carried = Carried::default();
        let done = relay.run(upward, from_client, from_server, &mut carried);
        let Err(refusal) = done else {
            self.contacts.carried(line, carried.sent, carried.received);
            return Ok(());
        };
        // The tunnel is already promised, so that nothing can be said in it that its client would read. One that has no room in the list
        // fails the step at its end.
        let refused = Line { refused: Some(refusal.reason()), ..line.clone() };
        if self.contacts.turn(line, &refused).is_ok() {
            self.contacts.carried(&refused, carried.sent, carried.received);
        }
        Ok(())
    }

    fn go_straight(&self, destination: &Destination) -> Result<(Line, TcpStream, Vec<u8>), Option<Answer>> {
        let refuse = |refusal: Refusal| self.refuse(destination, &refusal);
        let addresses = match destination.host.parse() {
            Ok(address) => vec![address],
            Err(_) => match self.look_up(&destination.host) {
                Ok(addresses) => addresses,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Err(None),
                Err(_) => return Err(refuse(Refusal::Unresolved)),
            },
        };
        let addresses = self.policy.allowed(destination, addresses).map_err(refuse)?;
        let connected = self.stop.connect(&addresses, destination.port, self.limits.connect);
        let address = connected.as_ref().map_or(addresses.first().copied(), |(address, _)| Some(*address));
        let line = self.write_down(destination, address)?;
        let (_, server) = connected.map_err(|error| self.not_reached(destination, &error))?;
        Ok((line, server, Vec::new()))
    }

    fn go_upstream(
        &self,
        destination: &Destination,
        tunnel: bool,
    ) -> Result<(Line, TcpStream, Vec<u8>), Option<Answer>> {
        let Some(upstream) = self.policy.upstream() else { return Err(None) };
        let line = self.write_down(destination, None)?;
        let (host, port) = upstream.server();
        let failed = |why: String| {
            answer(
                "502 Bad Gateway",
                format!("sluicegate cannot reach {}: the proxy of this machine {why}", shown(destination)),
            )
        };
        let addresses = self.look_up(host).map_err(|_| failed("has a name that leads to no address".to_owned()))?;
        let connected = self.stop.connect(&addresses, port, self.limits.connect);
        let (_, server) = connected.map_err(|error| failed(format!("does not answer ({})", words_of(&error))))?;
        if !tunnel {
            return Ok((line, server, Vec::new()));
        }
        let until = Instant::now() + self.limits.head;
        let asked = self.stop.write(&server, &upstream.connect(destination), until);
        let answered = asked.and_then(|()| self.read_head(&server, until));
        let (head, rest) = answered.map_err(|error| failed(format!("gives no answer ({})", words_of(&error))))?;
        match upstream::status(&head) {
            Some(200..=299) => Ok((line, server, rest)),
            Some(status) => Err(failed(format!("answers {status}"))),
            None => Err(failed("does not answer in HTTP".to_owned())),
        }
    }

    /// A head and what was read beyond it. An error of kind [`ErrorKind::InvalidData`] if it is too large.
    fn read_head(&self, stream: &TcpStream, until: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut head = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            // A client that sends a byte now and then is cut off like one that sends none.
            if Instant::now() >= until {
                return Err(ErrorKind::TimedOut.into());
            }
            let count = self.stop.read(stream, &mut buffer, until)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let from = head.len().saturating_sub(3);
            head.extend_from_slice(&buffer[..count]);
            if let Some(end) = request::end_of_head(&head[from..]) {
                let rest = head.split_off(from + end);
                if head.len() > MAX_HEAD {
                    return Err(ErrorKind::InvalidData.into());
                }
                return Ok((head, rest));
            }
            if head.len() > MAX_HEAD {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.names.look_up(name, self.limits.lookup, &self.stop)
    }

    fn write_down(&self, destination: &Destination, address: Option<IpAddr>) -> Result<Line, Option<Answer>> {
        let line = Line { destination: destination.clone(), address, refused: None };
        self.contacts.add(&line).map_err(|_| self.too_many())?;
        Ok(line)
    }

    fn refuse(&self, destination: &Destination, refusal: &Refusal) -> Option<Answer> {
        let (address, refused) = (refusal.address(), Some(refusal.reason()));
        let line = Line { destination: destination.clone(), address, refused };
        if self.contacts.add(&line).is_err() {
            return self.too_many();
        }
        let status = if *refusal == Refusal::Unresolved { "502 Bad Gateway" } else { "403 Forbidden" };
        answer(status, format!("sluicegate: {}", self.policy.words(destination, refusal)))
    }

    fn not_reached(&self, destination: &Destination, error: &io::Error) -> Option<Answer> {
        let words = format!("sluicegate cannot reach {}: {}", shown(destination), words_of(error));
        answer(if error.kind() == ErrorKind::TimedOut { "504 Gateway Timeout" } else { "502 Bad Gateway" }, words)
    }

    fn too_many(&self) -> Option<Answer> {
        let words =
            format!("sluicegate: more than {} servers were asked for, so that this step fails", self.limits.contacts);
        answer("503 Service Unavailable", words)
    }

    fn answer(&self, client: &TcpStream, answer: &Answer) {
        let Answer { status, words } = answer;
        let body = format!("{words}\n");
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let until = Instant::now() + LINGER;
        if self.stop.write(client, text.as_bytes(), until).is_err() || client.shutdown(Shutdown::Write).is_err() {
            return;
        }
        // Closing with unread bytes would throw the answer away.
        let mut buffer = [0; 8192];
        let mut read = 0;
        while read < MAX_LINGER && Instant::now() < until {
            match self.stop.read(client, &mut buffer, until) {
                Ok(count) if count > 0 => read += count,
                _ => return,
            }
        }
    }
}

fn answer(status: &'static str, words: String) -> Option<Answer> {
    Some(Answer { status, words })
}

fn unreadable(error: &io::Error) -> Option<Answer> {
    match error.kind() {
        ErrorKind::InvalidData => answer(
            "431 Request Header Fields Too Large",
            format!("sluicegate: the head of the request is larger than {MAX_HEAD} bytes"),
        ),
        ErrorKind::TimedOut => {
            answer("408 Request Timeout", "sluicegate: the request did not come to an end".to_owned())
        }
        _ => None,
    }
}

/// What happened, without the address that it happened with.
fn words_of(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        ErrorKind::InvalidData => "an answer that is too large".to_owned(),
        ErrorKind::UnexpectedEof => "it ended the connection".to_owned(),
        _ => error.to_string(),
    }
}
