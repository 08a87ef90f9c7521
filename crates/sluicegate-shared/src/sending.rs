//! Puts results into a shared store beside the run that makes them: content first, then the bundle, then the record that leads to it.

use std::{
    io::Read,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use sluicegate_outbound::Warn;
use sluicegate_ports::{execute::Stop, shared_cache::SharedResult, store::ContentStore};
use sluicegate_types::{Digest, Hasher};

use crate::{
    blob,
    objects::{Fault, Objects},
    record,
};

/// A thread that puts one result after the other, begun with the first one.
pub(crate) struct Sending {
    state: State,
    shown: String,
    warn: Warn,
}

enum State {
    /// Nothing was handed over yet.
    Idle(Box<Worker>),
    Busy(Sender<SharedResult>, JoinHandle<()>),
    Ended,
}

/// What the thread needs.
struct Worker {
    objects: Objects,
    content: Arc<dyn ContentStore>,
    shown: String,
    warn: Warn,
    stop: Stop,
}

/// Why a result was not put.
enum NotPut {
    /// The store can't be used.
    Store(String),
    /// This machine's own content is not what it was.
    Content(String),
    /// The run was stopped.
    Stopped,
}

impl Sending {
    pub(crate) fn new(objects: Objects, content: Arc<dyn ContentStore>, shown: String, warn: Warn, stop: Stop) -> Self {
        let worker = Worker { objects, content, shown: shown.clone(), warn: warn.clone(), stop };
        Self { state: State::Idle(Box::new(worker)), shown, warn }
    }

    pub(crate) fn send(&mut self, result: SharedResult) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Idle(worker) => {
                let (say, hear) = mpsc::channel();
                State::Busy(say, thread::spawn(move || worker.put_all(&hear)))
            }
            state => state,
        };
        if let State::Busy(say, _) = &self.state {
            // A thread that ended badly says so when it is joined.
            let _ = say.send(result);
        }
    }

    pub(crate) fn settle(&mut self) {
        if let State::Busy(say, thread) = std::mem::replace(&mut self.state, State::Ended) {
            drop(say);
            if thread.join().is_err() {
                (self.warn)(&format!("results were not put into the shared store {}: putting broke off", self.shown));
            }
        }
    }
}

impl Worker {
    fn put_all(&self, results: &Receiver<SharedResult>) {
        let mut gave_up = false;
        for result in results {
            if gave_up {
                continue;
            }
            let step = &result.step;
            match self.put(&result) {
                Ok(()) => {}
                Err(NotPut::Content(reason)) => (self.warn)(&format!(
                    "the result of the step {step} is not put into the shared store {}: {reason}",
                    self.shown
                )),
                Err(NotPut::Store(reason)) => {
                    gave_up = true;
                    (self.warn)(&format!(
                        "the result of the step {step} and later ones are not put into the shared store {}: {reason}",
                        self.shown
                    ));
                }
                Err(NotPut::Stopped) => {
                    gave_up = true;
                    (self.warn)(&format!(
                        "the result of the step {step} and later ones are not put into the shared store {}: the run was stopped",
                        self.shown
                    ));
                }
            }
        }
    }

    fn put(&self, result: &SharedResult) -> Result<(), NotPut> {
        for content in result.content.iter().chain([&result.bundle]) {
            self.put_content(content)?;
        }
        let record_text = format!("{}\n", result.bundle);
        self.objects.put(&record(&result.key), record_text.into_bytes()).map_err(store)
    }

    /// What is there already is replaced: it may be something else.
    fn put_content(&self, content: &Digest) -> Result<(), NotPut> {
        if *content == Digest::of(b"") {
            return Ok(());
        }
        let limits = self.objects.limits();
        let mut file = self.content.open(content).map_err(|error| NotPut::Content(error.to_string()))?;
        let mut next = || -> Result<Vec<u8>, NotPut> {
            if self.stop.is_raised() {
                return Err(NotPut::Stopped);
            }
            let mut piece = Vec::new();
            let read = (&mut file).take(limits.piece as u64).read_to_end(&mut piece);
            read.map_err(|error| NotPut::Content(format!("cannot read {content}: {error}")))?;
            Ok(piece)
        };
        let damaged =
            |found: Digest| NotPut::Content(format!("{content} is damaged: its bytes have the digest {found}"));
        let first = next()?;
        let name = blob(content);
        if first.len() < limits.piece {
            let found = Digest::of(&first);
            return if found == *content { self.objects.put(&name, first).map_err(store) } else { Err(damaged(found)) };
        }
        let (mut hasher, mut sent, started) = (Hasher::new(), 0_u64, Instant::now());
        let mut upload = self.objects.begin(&name).map_err(store)?;
        let all = || -> Result<(), NotPut> {
            let mut piece = first;
            while !piece.is_empty() {
                if started.elapsed() > limits.patience(sent) {
                    return Err(NotPut::Store(format!("it takes less than {} bytes in a second", limits.pace)));
                }
                hasher.update(&piece);
                sent += piece.len() as u64;
                self.objects.part(upload.as_mut(), piece).map_err(store)?;
                piece = next()?;
            }
            let found = hasher.clone().finish();
            if found == *content { Ok(()) } else { Err(damaged(found)) }
        };
        let sent = all();
        let done = sent.and_then(|()| self.objects.complete(upload.as_mut()).map_err(store));
        if done.is_err() {
            self.objects.abort(upload.as_mut());
        }
        done
    }
}

fn store(fault: Fault) -> NotPut {
    NotPut::Store(match fault {
        Fault::Absent => "there is no such bucket or folder".to_owned(),
        Fault::Store(reason) | Fault::Wrong(reason) => reason,
    })
}
