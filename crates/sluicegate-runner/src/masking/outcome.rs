//! Masks what a step decided and the runner tells: names of servers, paths, reasons.
//!
//! An outcome and an error are taken apart without a rest, so that a field that is added has to be thought of here.

use sluicegate_ports::execute::{Contact, ExecuteError, Observation, StepOutcome, Trace};
use sluicegate_types::Destination;

use super::Forms;

impl Forms {
    /// The outcome without secrets. Outputs are content and stay as they are.
    pub(crate) fn outcome(&self, outcome: StepOutcome) -> StepOutcome {
        let StepOutcome { ended, log, outputs, missing, leaking, fault, oom_kills, contacts, observed, caches } =
            outcome;
        let (contacts, observed) = (self.contacts(contacts), self.observed(observed));
        let fault = fault.map(|fault| self.text(fault));
        // What is told of shared caches are names and numbers of the pipeline's own.
        StepOutcome { ended, log, outputs, missing, leaking, fault, oom_kills, contacts, observed, caches }
    }

    /// The error without secrets.
    pub(crate) fn error(&self, error: ExecuteError) -> ExecuteError {
        match error {
            ExecuteError::NotHere { reason, remedy } => ExecuteError::NotHere { reason: self.text(reason), remedy },
            ExecuteError::Refused { step, reason } => ExecuteError::Refused { step, reason: self.text(reason) },
            ExecuteError::Content { step, digest, reason } => {
                ExecuteError::Content { step, digest, reason: self.text(reason) }
            }
            ExecuteError::Output { step, output, reason } => {
                ExecuteError::Output { step, output, reason: self.text(reason) }
            }
            ExecuteError::Engine { step, action, reason } => {
                ExecuteError::Engine { step, action, reason: self.text(reason) }
            }
            // It speaks of digests and of places of this machine.
            ExecuteError::Store(error) => ExecuteError::Store(error),
            ExecuteError::Stopped { step } => ExecuteError::Stopped { step },
        }
    }

    /// A text of its own without secrets.
    fn text(&self, text: String) -> String {
        if self.is_empty() {
            return text;
        }
        let (mut masker, mut out) = (self.stream(), Vec::with_capacity(text.len()));
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Servers whose names can't be told apart any more become one, as many requests for one server are one contact.
    fn contacts(&self, contacts: Vec<Contact>) -> Vec<Contact> {
        if self.is_empty() {
            return contacts;
        }
        let mut masked: Vec<Contact> = Vec::with_capacity(contacts.len());
        for contact in contacts {
            let Contact { destination: Destination { host, port }, address, refused, connections, sent, received } =
                contact;
            let destination = Destination { host: self.text(host), port };
            let refused = refused.map(|reason| self.text(reason));
            masked.push(Contact { destination, address, refused, connections, sent, received });
        }
        masked.sort();
        masked.dedup_by(|next, kept| {
            let same = |one: &Contact, other: &Contact| {
                (&one.destination, one.address, &one.refused) == (&other.destination, other.address, &other.refused)
            };
            if !same(next, kept) {
                return false;
            }
            kept.connections = kept.connections.saturating_add(next.connections);
            kept.sent = kept.sent.saturating_add(next.sent);
            kept.received = kept.received.saturating_add(next.received);
            true
        });
        masked
    }

    fn observed(&self, observed: Observation) -> Observation {
        match observed {
            Observation::NotAsked => Observation::NotAsked,
            Observation::Unavailable(reason) => Observation::Unavailable(self.text(reason)),
            Observation::Seen(Trace { opened, executed, blind, lost }) => Observation::Seen(Trace {
                opened: self.paths(opened),
                executed: self.paths(executed),
                blind: self.paths(blind),
                lost,
            }),
        }
    }

    fn paths(&self, paths: Vec<String>) -> Vec<String> {
        if self.is_empty() {
            return paths;
        }
        let mut masked: Vec<String> = paths.into_iter().map(|path| self.text(path)).collect();
        masked.sort();
        masked.dedup();
        masked
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_ports::execute::Ended;
    use sluicegate_types::{Digest, Secret};

    use super::*;

    fn forms() -> Forms {
        Forms::of(&[Secret::new(b"Hunter2-and-more".to_vec())]).unwrap()
    }

    fn contact(host: &str, refused: Option<&str>, connections: u64) -> Contact {
        let destination = Destination { host: host.to_owned(), port: 80 };
        let refused = refused.map(str::to_owned);
        Contact { destination, address: None, refused, connections, sent: 10, received: 1 }
    }

    fn outcome(contacts: Vec<Contact>, observed: Observation) -> StepOutcome {
        StepOutcome {
            ended: Ended::Exit(0),
            log: Digest::of(b""),
            outputs: Vec::new(),
            missing: Vec::new(),
            leaking: Vec::new(),
            fault: None,
            caches: Vec::new(),
            oom_kills: None,
            contacts,
            observed,
        }
    }

    #[test]
    fn servers_are_masked_and_those_that_are_alike_then_are_one() {
        let listed = "hunter2-and-more.a.example:80 is not on the list";
        // A name comes in lower case.
        let asked = vec![
            contact("a.example", None, 1),
            contact("hunter2-and-more.a.example", Some(listed), 2),
            contact("hunter2-and-morehunter2-and-more.a.example", Some(listed), 3),
        ];
        let told = forms().outcome(outcome(asked.clone(), Observation::NotAsked)).contacts;
        let mut both = contact("***.a.example", Some("***.a.example:80 is not on the list"), 5);
        (both.sent, both.received) = (20, 2);
        assert_eq!(told, [both, contact("a.example", None, 1)]);
        let without = Forms::of(&[]).unwrap();
        assert_eq!(without.outcome(outcome(asked.clone(), Observation::NotAsked)).contacts, asked);
    }

    #[test]
    fn paths_and_reasons_of_an_observation_are_masked() {
        let paths = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let seen = Trace {
            opened: paths(&["/bin/sh", "/tmp/48756e746572322d616e642d6d6f7265", "/tmp/Hunter2-and-more"]),
            executed: paths(&["/bin/sh", "/opt/Hunter2-and-more/run"]),
            blind: paths(&["/dev"]),
            lost: 1,
        };
        let told = forms().outcome(outcome(Vec::new(), Observation::Seen(seen))).observed;
        let expected = Trace {
            opened: paths(&["/bin/sh", "/tmp/***"]),
            executed: paths(&["/bin/sh", "/opt/***/run"]),
            blind: paths(&["/dev"]),
            lost: 1,
        };
        assert_eq!(told, Observation::Seen(expected));
        let why = Observation::Unavailable("open /tmp/Hunter2-and-more".to_owned());
        let told = forms().outcome(outcome(Vec::new(), why)).observed;
        assert_eq!(told, Observation::Unavailable("open /tmp/***".to_owned()));
    }

    #[test]
    fn every_reason_of_an_error_is_masked() {
        let (step, reason) = (|| "build".to_owned(), || "the name Hunter2-and-more is too long".to_owned());
        for error in [
            ExecuteError::NotHere { reason: reason(), remedy: "x".to_owned() },
            ExecuteError::Refused { step: step(), reason: reason() },
            ExecuteError::Content { step: step(), digest: Digest::of(b""), reason: reason() },
            ExecuteError::Output { step: step(), output: "app".to_owned(), reason: reason() },
            ExecuteError::Engine { step: step(), action: "run", reason: reason() },
        ] {
            let text = forms().error(error).to_string();
            assert!(text.ends_with("the name *** is too long"), "{text}");
        }
    }
}
