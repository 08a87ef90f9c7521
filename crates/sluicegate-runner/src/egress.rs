//! The proxy of a step that may reach listed servers and nothing else.
//!
//! Its socket was opened inside the step's network namespace, where there is only a loopback; whatever connects to it is answered here,
//! outside of it. So a step has no way out but by words that are judged: a program that ignores the proxy reaches nothing. What is
//! judged stands in [`policy`] and [`address`], which open nothing.

mod address;
mod body;
mod client_hello;
mod connection;
mod contacts;
mod names;
mod policy;
mod relay;
mod request;
mod upstream;
mod waiting;

use std::{
    io::{self, PipeWriter},
    net::TcpListener,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, fd::AsFd};
use sluicegate_ports::execute::Contact;

pub(crate) use self::address::{Inside, inside, is_number_in_disguise};
pub(crate) use self::policy::{Policy, inside_name};
pub(crate) use self::upstream::Upstream;
pub use self::upstream::UpstreamProxy;
use self::{
    connection::{Limits, Shared},
    contacts::Contacts,
    names::{Lookup, Names, system_lookup},
    waiting::Stop,
};

/// A connection needs no more: its buffers are on the heap.
const STACK: usize = 256 * 1024;

/// How long a full house waits before it looks whether the step has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// A moment that no step lives to see.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Answers the clients of one step until it is dropped or asked for what it saw.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Serves what connects to the listener.
    pub(crate) fn start(listener: TcpListener, policy: Policy) -> io::Result<Self> {
        Self::start_with(listener, policy, Limits::default(), system_lookup())
    }

    fn start_with(listener: TcpListener, policy: Policy, limits: Limits, lookup: Lookup) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (reader, stop) = io::pipe()?;
        let contacts = Contacts::new(limits.contacts);
        let shared =
            Arc::new(Shared { policy, contacts, limits, names: Names::new(lookup, limits.known), stop: Stop(reader) });
        let served = shared.clone();
        let thread = thread::Builder::new().name("egress".to_owned()).spawn(move || accept(&listener, &served))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Ends every connection and says what was asked for. An error if that was more than the list holds, or if a thread broke off.
    pub(crate) fn finish(mut self) -> Result<Vec<Contact>, String> {
        if !self.end() {
            return Err("the proxy of its list of servers broke off".to_owned());
        }
        self.shared.contacts.list().map_err(|contacts::Full| {
            format!(
                "it asked for more than {} servers, which is more than is written down",
                self.shared.limits.contacts
            )
        })
    }

    fn end(&mut self) -> bool {
        self.stop = None;
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many connections there are.
#[derive(Default)]
struct Guests {
    count: Mutex<usize>,
    left: Condvar,
}

/// One of them; it leaves when this is dropped.
struct Guest<'a>(&'a Guests);

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

impl Guests {
    /// Waits for room; `None` when the step has ended.
    fn let_in(&self, shared: &Shared) -> Option<Guest<'_>> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count >= shared.limits.connections {
            if shared.stop.is_raised() {
                return None;
            }
            (count, _) = self.left.wait_timeout(count, GLANCE).unwrap_or_else(PoisonError::into_inner);
        }
        *count += 1;
        Some(Guest(self))
    }
}

/// Accepts until the step ends; then every connection has ended too.
fn accept(listener: &TcpListener, shared: &Shared) {
    let guests = Guests::default();
    thread::scope(|scope| {
        while let Some(guest) = guests.let_in(shared) {
            let client = loop {
                match listener.accept() {
                    Ok((client, _)) => break client,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let until = Instant::now() + FOR_EVER;
                        if shared.stop.ready(&[(listener.as_fd(), PollFlags::IN)], until).is_err() {
                            return;
                        }
                    }
                    // Clients that left again, and descriptors that ran out for a moment.
                    Err(_) => {
                        let pause = Instant::now() + GLANCE;
                        if matches!(shared.stop.ready(&[], pause), Err(error) if error.kind() != io::ErrorKind::TimedOut)
                        {
                            return;
                        }
                    }
                }
            };
            // A thread that cannot be had ends this connection, which its client sees.
            let _ = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                let _guest = guest;
                shared.serve(&client);
            });
        }
    });
}

#[cfg(test)]
mod tests;
