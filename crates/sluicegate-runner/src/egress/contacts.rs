//! What was asked for and what came of it, counted.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluicegate_ports::execute::Contact;
use sluicegate_types::Destination;

/// All contacts of a step; more different ones than the limit are an error and never forgotten.
pub(crate) struct Contacts {
    limit: usize,
    seen: Mutex<Seen>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    /// What was asked for.
    pub(crate) destination: Destination,
    /// Where it led to.
    pub(crate) address: Option<IpAddr>,
    /// Why it was refused.
    pub(crate) refused: Option<String>,
}

/// There were more than the list holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
struct Seen {
    lines: BTreeMap<Line, Counts>,
    overflowed: bool,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    connections: u64,
    sent: u64,
    received: u64,
}

impl Contacts {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, seen: Mutex::default() }
    }

    /// Writes down one more connection, before anything is done for it.
    pub(crate) fn add(&self, line: &Line) -> Result<(), Full> {
        let mut seen = self.lock();
        if !seen.lines.contains_key(line) && seen.lines.len() >= self.limit {
            seen.overflowed = true;
            return Err(Full);
        }
        seen.lines.entry(line.clone()).or_default().connections += 1;
        Ok(())
    }

    /// What a connection that was written down has carried.
    pub(crate) fn carried(&self, line: &Line, sent: u64, received: u64) {
        if let Some(counts) = self.lock().lines.get_mut(line) {
            counts.sent = counts.sent.saturating_add(sent);
            counts.received = counts.received.saturating_add(received);
        }
    }

    /// A connection that was written down turned out to be another one.
    pub(crate) fn turn(&self, line: &Line, into: &Line) -> Result<(), Full> {
        {
            let mut seen = self.lock();
            if let Some(counts) = seen.lines.get_mut(line) {
                counts.connections = counts.connections.saturating_sub(1);
                if counts.connections == 0 {
                    seen.lines.remove(line);
                }
            }
        }
        self.add(into)
    }

    /// The list, sorted; an error if there was more.
    pub(crate) fn list(&self) -> Result<Vec<Contact>, Full> {
        let seen = self.lock();
        if seen.overflowed {
            return Err(Full);
        }
        let contact = |(line, counts): (&Line, &Counts)| Contact {
            destination: line.destination.clone(),
            address: line.address,
            refused: line.refused.clone(),
            connections: counts.connections,
            sent: counts.sent,
            received: counts.received,
        };
        Ok(seen.lines.iter().map(contact).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A thread that broke off between two additions left whole numbers behind.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(host: &str, refused: Option<&str>) -> Line {
        let destination = Destination { host: host.to_owned(), port: 443 };
        Line { destination, address: None, refused: refused.map(str::to_owned) }
    }

    #[test]
    fn many_connections_to_one_place_are_one_contact() {
        let contacts = Contacts::new(2);
        let (a, b) = (line("a", None), line("b", Some("no")));
        contacts.add(&b).unwrap();
        for _ in 0..3 {
            contacts.add(&a).unwrap();
            contacts.carried(&a, 1, 2);
        }
        let list = contacts.list().unwrap();
        let counts: Vec<_> =
            list.iter().map(|c| (c.destination.host.as_str(), c.connections, c.sent, c.received)).collect();
        assert_eq!(counts, [("a", 3, 3, 6), ("b", 1, 0, 0)]);
        contacts.turn(&a, &b).unwrap();
        assert_eq!(contacts.list().unwrap()[1].connections, 2);
    }

    #[test]
    fn one_more_than_the_list_holds_is_an_error_for_good() {
        let contacts = Contacts::new(1);
        contacts.add(&line("a", None)).unwrap();
        contacts.add(&line("a", None)).unwrap();
        assert!(contacts.list().is_ok());
        assert_eq!(contacts.add(&line("b", None)), Err(Full));
        contacts.add(&line("a", None)).unwrap();
        assert_eq!(contacts.list(), Err(Full));
    }
}
