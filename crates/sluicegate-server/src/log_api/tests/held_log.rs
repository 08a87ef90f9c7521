//! A log that appends when the test lets it, or refuses; and how a test waits for a sign.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sluicegate_ports::{
    served_log::{Placed, ServedLog, TileName},
    sign::SignError,
};
use sluicegate_sigstore::EmbeddedLog;

/// A log that appends only when it is let, or that refuses.
pub(super) struct Held {
    log: EmbeddedLog,
    open: Mutex<bool>,
    opened: Condvar,
    broken: bool,
    pub(super) calls: AtomicUsize,
}

impl Held {
    pub(super) fn new(log: EmbeddedLog, broken: bool) -> Arc<Self> {
        Arc::new(Self { log, open: Mutex::new(broken), opened: Condvar::new(), broken, calls: AtomicUsize::new(0) })
    }

    pub(super) fn let_go(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl ServedLog for Held {
    fn append_new(&self, bodies: &[Vec<u8>]) -> Result<Vec<Placed>, SignError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        if self.broken {
            return Err(SignError::Log { folder: "/secret/place".into(), reason: "it is damaged".into() });
        }
        self.log.append_new(bodies)
    }

    fn checkpoint(&self) -> Result<String, SignError> {
        self.log.checkpoint()
    }

    fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError> {
        self.log.tile(name)
    }
}

pub(super) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
