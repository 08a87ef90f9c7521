//! A log elsewhere, written to in the API of Rekor v2. Nothing that it answers is believed before it is proved, and what is sent is kept
//! until it is logged and stored.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use sluicegate_attestation::bundle::LogEntry;
use sluicegate_outbound::Outbound;
use sluicegate_ports::sign::{Envelope, SignError, TransparencyLog};
use sluicegate_types::{Digest, LogUrl};

use crate::{
    log_answer::{self, ANSWER_LIMIT},
    log_http::{Answer, Failed, LogHttp, RemoteLimits},
    outbox::Outbox,
    remote_log::RemoteLog,
    tiles::{self, ENTRY_LIMIT},
    trust_root::LogPublic,
};

/// Where a log is, and where what is sent to it is kept.
#[derive(Clone, Debug)]
pub struct RekorSettings {
    /// Where entries are sent.
    pub url: LogUrl,
    /// Where checkpoint and tiles are read, if another server has them.
    pub read: Option<LogUrl>,
    /// The folder of what is not known to be logged.
    pub outbox: PathBuf,
    /// The way to both.
    pub outbound: Arc<Outbound>,
    /// How long it is waited for.
    pub limits: RemoteLimits,
}

/// A transparency log elsewhere.
#[derive(Debug)]
pub struct RekorLog {
    url: LogUrl,
    http: Arc<LogHttp>,
    read: RemoteLog,
    outbox: Outbox,
    public: LogPublic,
}

/// A statement that waited, and is logged now.
#[derive(Debug)]
pub struct Settled {
    /// The canonical body.
    pub body: Vec<u8>,
    /// The statement; empty if whoever signed it did not leave it.
    pub payload: Vec<u8>,
    /// Where it stands, proved.
    pub entry: LogEntry,
}

/// What came of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// How many waited and are logged now.
    pub logged: usize,
    /// How many wait for another log.
    pub elsewhere: usize,
}

impl RekorLog {
    /// Finds out which of `logs` is there: by its checkpoint, and where none is served, by its host, or because there is only one.
    /// [`SignError::Stranger`] if it is none of them. Nothing is sent to be logged.
    pub fn open(settings: RekorSettings, logs: &[LogPublic]) -> Result<Self, SignError> {
        let RekorSettings { url, read, outbox, outbound, limits } = settings;
        let outbox = Outbox::open(outbox)?;
        let reader = RemoteLog::new(read.clone().unwrap_or_else(|| url.clone()), outbound.clone(), limits)?;
        let http = match read {
            None => reader.http.clone(),
            Some(_) => Arc::new(LogHttp::new(&url, outbound, limits)?),
        };
        let public = which(&url, read.is_some(), &reader, logs).map_err(|error| waiting(&outbox, error))?;
        Ok(Self { url, http, read: reader, outbox, public })
    }

    /// How many statements wait in this folder, whichever log they are for.
    pub fn waiting_in(outbox: &Path) -> usize {
        if outbox.is_dir() { Outbox::open(outbox.to_owned()).map_or(0, |outbox| outbox.count()) } else { 0 }
    }

    /// The statements that wait in this outbox, for whichever log. One that can't be read is an error.
    pub fn statements_in(outbox: &Path) -> Result<Vec<Vec<u8>>, SignError> {
        if outbox.symlink_metadata().is_err() {
            return Ok(Vec::new());
        }
        let outbox = Outbox::open(outbox.to_owned())?;
        let mut statements = Vec::new();
        for path in outbox.names()? {
            statements.extend(outbox.statement(&path)?);
        }
        Ok(statements)
    }

    /// The log's name and key.
    pub fn public(&self) -> &LogPublic {
        &self.public
    }

    /// Sends again what waits, the same bytes, and gives each entry to `keep` before it is forgotten. What another process is about to log
    /// is left to it.
    pub fn settle<E: From<SignError>>(&self, keep: impl Fn(&Settled) -> Result<(), E>) -> Result<Settlement, E> {
        let mut done = Settlement::default();
        for path in self.outbox.names()? {
            let Some(kept) = self.outbox.take(&path)? else { continue };
            if kept.log != self.public.origin {
                done.elsewhere += 1;
                continue;
            }
            let entry = self.place(&kept.body).map_err(|error| match waiting(&self.outbox, error) {
                SignError::Unproved { url, reason } => {
                    let reason = format!("{reason}; what was sent again is {}", path.display());
                    SignError::Unproved { url, reason }
                }
                other => other,
            })?;
            keep(&Settled { body: kept.body.clone(), payload: kept.payload.clone(), entry })?;
            kept.remove()?;
            done.logged += 1;
        }
        Ok(done)
    }

    /// The proved place of a body: the one that it is given now, or the one that it has.
    fn place(&self, body: &[u8]) -> Result<LogEntry, SignError> {
        let remote = |reason: String| SignError::Remote { url: self.url.to_string(), reason };
        let url = self.url.join("/api/v2/log/entries");
        let request =
            log_answer::request(body).ok_or_else(|| remote("what is to be logged is no hashedrekord".into()))?;
        let said = self.http.post(&url, &request, ANSWER_LIMIT, |answer| said(&url, answer));
        match said.map_err(|failed| remote(failed.reason))? {
            Said::Entry(claimed) => claimed.proved(body, &self.public).map_err(|reason| self.unproved(reason)),
            Said::Already(index) => self.already(index, body),
        }
    }

    /// The entry that is said to be at `index` already: believed when what stands there is this body, and is proved.
    fn already(&self, index: u64, body: &[u8]) -> Result<LogEntry, SignError> {
        let (found, hashes, checkpoint) = self.read.entry(index, &self.public)?;
        if found != body {
            return Err(
                self.unproved(format!("it says that this entry is at {index} already, and another one is there"))
            );
        }
        log_answer::proved(index, body, &hashes, &checkpoint, &self.public).map_err(|reason| self.read.unproved(reason))
    }

    fn unproved(&self, reason: impl Into<String>) -> SignError {
        SignError::Unproved { url: self.url.to_string(), reason: reason.into() }
    }
}

/// What a server answered to an entry; nothing in it is proved.
enum Said {
    Entry(log_answer::Claimed),
    Already(u64),
}

/// Reads an answer. One that is no answer of a log may be of something in between, and is asked for again.
fn said(url: &str, answer: Answer) -> Result<Said, Failed> {
    let what = |words: &str| format!("POST {url}: {words}");
    match answer.status {
        201 => log_answer::read(&answer.body)
            .map(Said::Entry)
            .map_err(|why| Failed::for_now(what(&format!("201, and what came with it is no log entry: {why}")))),
        409 => match (log_answer::read(&answer.body), answer.log_index.as_deref()) {
            (Ok(claimed), _) => Ok(Said::Entry(claimed)),
            (Err(_), Some(index)) if !index.is_empty() => {
                let index = log_answer::number(index).map(Said::Already);
                index.ok_or_else(|| Failed::for_good(what("409, and its X-Log-Index is no number")))
            }
            _ => Err(Failed::for_good(what("409, without an entry and without X-Log-Index"))),
        },
        200 => Err(Failed::for_good(what("200, where a log answers 201 to what it has logged: is this a log?"))),
        300..=399 => Err(Failed::for_good(what(&format!("{}: redirects are not followed", answer.status)))),
        _ => Err(Failed::for_good(what(&answer.said()))),
    }
}

fn which(url: &LogUrl, has_read: bool, reader: &RemoteLog, logs: &[LogPublic]) -> Result<LogPublic, SignError> {
    let stranger = |reason: &str| SignError::Stranger { url: url.to_string(), reason: reason.to_owned() };
    if logs.is_empty() {
        return Err(stranger("the trusted root has no log with an Ed25519 key, and others are not in this version"));
    }
    if let Some((log, _)) = reader.checkpoint_if_any(logs)? {
        return Ok(log.clone());
    }
    if has_read {
        return Err(reader.remote("it has no checkpoint at /api/v2/checkpoint"));
    }
    // The real server only writes; then its host says which log it is.
    let host = url.host().rsplit_once(':').map_or(url.host(), |(host, _)| host);
    match (logs.iter().find(|log| log.origin == host), logs) {
        (Some(log), _) | (None, [log]) => Ok(log.clone()),
        _ => Err(stranger(
            "it serves no checkpoint, so which of the trusted root's logs it is is not known; name the server of its checkpoint and \
             tiles with read:",
        )),
    }
}

/// Says of what did not work for now how much waits for it.
fn waiting(outbox: &Outbox, error: SignError) -> SignError {
    match (error, outbox.count()) {
        (SignError::Remote { url, reason }, waiting @ 1..) => {
            SignError::Waiting { url, waiting, outbox: outbox.folder().display().to_string(), reason }
        }
        (error, _) => error,
    }
}

impl TransparencyLog for RekorLog {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        if let Some(body) = bodies.iter().find(|body| body.len() > ENTRY_LIMIT) {
            return Err(SignError::Remote { url: self.url.to_string(), reason: tiles::too_long(body.len()) });
        }
        // Whoever calls this: nothing is sent that is not kept.
        let bare: Vec<_> = bodies.iter().map(|body| Envelope { payload: &[], body }).collect();
        self.outbox.keep(&self.public.origin, &bare)?;
        // One request for each body, however often it is asked for.
        let mut different: Vec<&Vec<u8>> = Vec::new();
        for body in bodies {
            if !different.contains(&body) {
                different.push(body);
            }
        }
        let todo = Mutex::new(different.iter().enumerate());
        let workers = different.len().min(self.http.limits.at_a_time.max(1));
        let mut placed = Vec::new();
        let broke_off = thread::scope(|scope| {
            let work = || {
                let mut done = Vec::new();
                loop {
                    let next = todo.lock().map(|mut todo| todo.next());
                    let Ok(Some((number, body))) = next else { return done };
                    done.push((number, self.place(body)));
                }
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().any(|thread| thread.join().map(|done| placed.extend(done)).is_err())
        });
        if broke_off {
            return Err(SignError::Remote { url: self.url.to_string(), reason: "sending to it broke off".to_owned() });
        }
        placed.sort_by_key(|(number, _)| *number);
        let mut entries = Vec::new();
        let mut passing = None;
        for (_, entry) in placed {
            match entry {
                Ok(entry) => entries.push(entry),
                // What is wrong weighs more than what is away.
                Err(wrong @ SignError::Unproved { .. }) => return Err(wrong),
                Err(error) => passing = passing.or(Some(error)),
            }
        }
        if let Some(error) = passing {
            return Err(waiting(&self.outbox, error));
        }
        let place =
            |body: &Vec<u8>| different.iter().position(|other| *other == body).and_then(|at| entries.get(at)).cloned();
        bodies
            .iter()
            .map(place)
            .collect::<Option<_>>()
            .ok_or_else(|| SignError::Remote { url: self.url.to_string(), reason: "an entry has no place".to_owned() })
    }

    fn about_to_append(&self, envelopes: &[Envelope<'_>]) -> Result<(), SignError> {
        self.outbox.keep(&self.public.origin, envelopes)
    }

    fn settled(&self, bodies: &[Vec<u8>]) -> Result<(), SignError> {
        bodies.iter().try_for_each(|body| self.outbox.forget(body))
    }

    fn origin(&self) -> &str {
        &self.public.origin
    }

    fn size(&self) -> Result<u64, SignError> {
        Ok(self.read.checkpoint_of(std::slice::from_ref(&self.public))?.1.size)
    }

    fn root(&self) -> Result<Digest, SignError> {
        let (_, checkpoint) = self.read.checkpoint_of(std::slice::from_ref(&self.public))?;
        Ok(Digest::from_bytes(checkpoint.root.0))
    }
}

#[cfg(test)]
mod tests;
