//! One writer for all requests: whatever waits is appended together, under one checkpoint.

use std::sync::Arc;

use sluicegate_ports::{
    served_log::{Placed, ServedLog},
    sign::SignError,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
};

/// Where requests leave their entries. The writer ends when the last of these is gone and all that was left is appended.
#[derive(Clone)]
pub(crate) struct Queue {
    waiting: mpsc::Sender<Waiting>,
}

/// Why an entry has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotAppended {
    /// Too many wait already.
    Full,
    /// The log refused, or nobody writes to it any more. Why was reported.
    Failed,
}

struct Waiting {
    body: Vec<u8>,
    answer: oneshot::Sender<Option<Placed>>,
}

/// What is told to whoever runs the server.
pub(crate) type Report = Arc<dyn Fn(&str) + Send + Sync>;

impl Queue {
    /// A queue of `length` entries, and its writer, which appends up to `group` at a time.
    pub(crate) fn begin(
        log: Arc<dyn ServedLog>,
        length: usize,
        group: usize,
        report: Report,
    ) -> (Self, JoinHandle<()>) {
        let (waiting, queue) = mpsc::channel(length.max(1));
        (Self { waiting }, spawn_blocking(move || write(&*log, queue, group.max(1), &report)))
    }

    /// Leaves an entry and waits for its place.
    pub(crate) async fn append(&self, body: Vec<u8>) -> Result<Placed, NotAppended> {
        let (answer, place) = oneshot::channel();
        self.waiting.try_send(Waiting { body, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotAppended::Full,
            mpsc::error::TrySendError::Closed(_) => NotAppended::Failed,
        })?;
        place.await.ok().flatten().ok_or(NotAppended::Failed)
    }

    /// Waits until nobody writes any more, which happens only if the writer broke off.
    pub(crate) async fn broken(&self) {
        self.waiting.closed().await;
    }
}

fn write(log: &dyn ServedLog, mut queue: mpsc::Receiver<Waiting>, group: usize, report: &Report) {
    while let Some(first) = queue.blocking_recv() {
        let mut bodies = vec![first.body];
        let mut answers = vec![first.answer];
        while bodies.len() < group
            && let Ok(next) = queue.try_recv()
        {
            bodies.push(next.body);
            answers.push(next.answer);
        }
        let places = log.append_new(&bodies).and_then(|places| whole(places, bodies.len()));
        if let Err(error) = &places {
            report(&format!("{} entries were not logged: {error}", bodies.len()));
        }
        let mut places = places.unwrap_or_default().into_iter();
        for answer in answers {
            // Whoever does not wait any more has no use for it.
            let _ = answer.send(places.next());
        }
    }
}

/// One place for each body, or an error: nobody gets the place of another's.
fn whole(places: Vec<Placed>, count: usize) -> Result<Vec<Placed>, SignError> {
    if places.len() == count {
        return Ok(places);
    }
    Err(SignError::Io {
        action: format!("log {count} entries"),
        reason: format!("the log gave {} places", places.len()),
    })
}
