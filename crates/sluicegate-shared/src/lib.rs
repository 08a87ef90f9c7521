#![forbid(unsafe_code)]
//! A store that machines share: results of steps in a folder, or in a bucket of a server that speaks S3.
//!
//! Nothing that it says is believed. A record is a name of a bundle and no more; content is hashed on its way into the content store, and
//! what differs never gets there; whether the bundle proves anything is judged by whoever asked, as for a bundle of this machine. So what
//! goes wrong here costs time: a store that can't be used is not asked again, with one line to a person.
//!
//! `object_store` is asynchronous. What is asked here is asked by one thread and waited for, so each thread has a runtime of its own, which
//! drives nothing else.

mod http_client;
mod listing;
mod objects;
mod patience;
mod pruning;
mod sending;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use object_store::{
    BackoffConfig, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
};
use sluicegate_outbound::{Outbound, Warn};
use sluicegate_ports::{
    execute::Stop,
    shared_cache::{Said, SharedCache, SharedResult},
    store::ContentStore,
};
use sluicegate_types::{Digest, Secret, StepName};
use url::Url;

pub use self::pruning::BucketObjects;
use crate::{
    http_client::ServerClient,
    objects::{Fault, Objects},
    patience::Patience,
    sending::Sending,
};

/// Bytes of a record: a digest and a line break.
const MAX_RECORD: u64 = 128;

/// Where a shared store is.
#[derive(Clone, Debug)]
pub enum SharedPlace {
    /// A folder, which is there already.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

/// A bucket of a server that speaks S3.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What stands before the name of each object; may be empty.
    pub prefix: String,
    /// The server; Amazon's own if it is left out.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Who asks.
    pub credentials: Credentials,
}

/// Who asks a server, and how it knows.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The key's name.
    pub key_id: String,
    /// The key.
    pub secret: Secret,
    /// Of credentials that were lent: the word that goes with them.
    pub session: Option<Secret>,
}

/// How to use it.
pub struct SharedSettings {
    /// Where it is.
    pub place: SharedPlace,
    /// What a person calls it.
    pub shown: String,
    /// Whether results are put there.
    pub push: bool,
    /// The way to its server.
    pub outbound: Arc<Outbound>,
    /// How long it is waited for.
    pub limits: SharedLimits,
    /// Ends what is being put there or brought here.
    pub stop: Stop,
    /// Is told what a person should know.
    pub warn: Warn,
}

/// How long a shared store is waited for, and what is read at a time.
#[derive(Clone, Copy, Debug)]
pub struct SharedLimits {
    /// Until there is a connection.
    pub connect: Duration,
    /// For one request and its answer.
    pub request: Duration,
    /// For each of many questions, on the average and beyond `request`.
    pub question: Duration,
    /// Further tries of a request that may do better.
    pub tries: u32,
    /// Bytes of one request.
    pub piece: usize,
    /// Bytes in a second that content has to come or go with, after `request` has gone by.
    pub pace: u64,
    /// Answers that list objects of one kind: a server may go on without end.
    pub pages: usize,
}

impl Default for SharedLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            question: Duration::from_secs(1),
            tries: 2,
            // S3 takes parts of at least 5 MiB, and 10 000 of them.
            piece: 8 * 1024 * 1024,
            pace: 512 * 1024,
            pages: 20_000,
        }
    }
}

impl SharedLimits {
    /// How long content may take until so many bytes of it are there.
    fn patience(&self, bytes: u64) -> Duration {
        self.request + Duration::from_secs(bytes / self.pace.max(1))
    }
}

/// A shared store.
pub struct SharedStore {
    shown: String,
    /// `None` if it can't be asked at all.
    objects: Option<Objects>,
    content: Arc<dyn ContentStore>,
    warn: Warn,
    /// Ends what is being brought here.
    stop: Stop,
    /// It failed, and a person knows.
    is_down: AtomicBool,
    patience: Mutex<Patience>,
    /// `None` where nothing is put.
    sending: Option<Mutex<Sending>>,
}

impl SharedStore {
    /// Nothing is asked yet. An error is about the settings of this machine or of the gateway.
    pub fn open(settings: SharedSettings, content: Arc<dyn ContentStore>) -> Result<Self, String> {
        let SharedSettings { place, shown, push, outbound, limits, stop, warn } = settings;
        let (store, root, prefix): (Arc<dyn ObjectStore>, _, _) = match place {
            SharedPlace::Folder(folder) => match LocalFileSystem::new_with_prefix(&folder) {
                Ok(store) if folder.is_dir() => (Arc::new(store), Some(folder), String::new()),
                // It may be a share that is not mounted: made here, it would hide that.
                _ => {
                    warn(&format!("the shared store {shown} is not used: there is no folder {}", folder.display()));
                    return Ok(Self::closed(shown, content, warn, stop));
                }
            },
            SharedPlace::Bucket(bucket) => {
                let prefix = bucket.prefix.clone();
                (Arc::new(server(bucket, outbound, limits)?), None, prefix)
            }
        };
        let objects = Objects::new(store.clone(), root.clone(), &prefix, limits)?;
        let sending = match push {
            false => None,
            true => {
                let objects = Objects::new(store, root, &prefix, limits)?;
                Some(Mutex::new(Sending::new(objects, content.clone(), shown.clone(), warn.clone(), stop.clone())))
            }
        };
        let (is_down, patience) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { shown, objects: Some(objects), content, warn, stop, is_down, patience, sending })
    }

    fn closed(shown: String, content: Arc<dyn ContentStore>, warn: Warn, stop: Stop) -> Self {
        let (is_down, patience) = (AtomicBool::new(true), Mutex::default());
        Self { shown, objects: None, content, warn, stop, is_down, patience, sending: None }
    }

    fn objects(&self) -> Result<&Objects, Fault> {
        let objects = self.objects.as_ref().ok_or_else(|| Fault::Store("it is not there".to_owned()))?;
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(Fault::Store("it is not asked any more".to_owned())),
            false => Ok(objects),
        }
    }

    /// Asks one question, which gives so many bytes, within the patience for all of them.
    fn ask<T>(&self, question: impl FnOnce(&Objects) -> (Result<T, Fault>, u64)) -> Result<T, Fault> {
        let objects = self.objects()?;
        let patience = || self.patience.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if patience().is_over(&objects.limits()) {
            return Err(Fault::Store("its answers take too long".to_owned()));
        }
        let began = Instant::now();
        let (answer, bytes) = question(objects);
        patience().asked(began.elapsed(), bytes);
        answer
    }

    /// What went wrong, for whoever asked. A person is told once that it can't be used.
    fn failed(&self, fault: Fault) -> String {
        match fault {
            Fault::Absent => "the shared store has not got it".to_owned(),
            Fault::Wrong(reason) => reason,
            Fault::Store(reason) => {
                if !self.is_down.swap(true, Ordering::SeqCst) {
                    (self.warn)(&format!("the shared store {} is not asked any more: {reason}", self.shown));
                }
                format!("the shared store can't be used: {reason}")
            }
        }
    }
}

impl SharedCache for SharedStore {
    fn origin(&self, key: &Digest) -> Said {
        let bytes = match self.ask(|objects| (objects.small(&record(key), MAX_RECORD), MAX_RECORD)) {
            Ok(bytes) => bytes,
            Err(Fault::Absent) => return Said::Nothing,
            Err(fault @ Fault::Store(_)) => return Said::Unknown(self.failed(fault)),
            Err(Fault::Wrong(reason)) => return Said::Nonsense(reason),
        };
        let digest = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
        digest.map_or_else(|| Said::Nonsense("its record there is no digest".to_owned()), Said::Bundle)
    }

    fn bring(&self, content: &Digest, limit: u64) -> Result<(), String> {
        if *content == Digest::of(b"") {
            return self.content.put_bytes(b"").map(drop).map_err(|error| error.to_string());
        }
        let brought = self.ask(|objects| {
            let mut incoming = objects.content(blob(content), *content, limit, &self.stop);
            let put = self.content.put(&mut incoming, limit);
            // What this machine has against it is nothing about the store.
            let put = put.map_err(|error| incoming.fault.take().unwrap_or_else(|| Fault::Wrong(error.to_string())));
            (put.map(drop), incoming.read)
        });
        brought.map_err(|fault| self.failed(fault))
    }

    fn size(&self, content: &Digest) -> Result<u64, String> {
        if *content == Digest::of(b"") {
            return Ok(0);
        }
        self.ask(|objects| (objects.size(&blob(content)), 1)).map_err(|fault| self.failed(fault))
    }

    fn refused(&self, step: &StepName, reason: &str) {
        if !self.is_down.load(Ordering::SeqCst) && !self.stop.is_raised() {
            (self.warn)(&format!(
                "what the shared store {} has for the step {step} is not taken: {reason}",
                self.shown
            ));
        }
    }

    fn offer(&self, result: SharedResult) {
        if let Some(sending) = &self.sending {
            sending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).send(result);
        }
    }

    fn settle(&self) {
        if let Some(sending) = &self.sending {
            sending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).settle();
        }
    }
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// Where it is named which bundle proves the work of a key.
pub const RESULTS: [&str; 2] = ["v1", "results"];

/// Where contents are.
pub const CONTENTS: [&str; 2] = ["v1", "sha256"];

/// Where the bundle of a key is named.
fn record(key: &Digest) -> String {
    object(RESULTS, &key.hex())
}

/// Where content is.
fn blob(content: &Digest) -> String {
    object(CONTENTS, &content.hex())
}

fn object([version, kind]: [&str; 2], name: &str) -> String {
    format!("{version}/{kind}/{name}")
}

/// A server, which is asked only with the credentials that are given here: nothing is looked for in files or at metadata addresses.
fn server(bucket: Bucket, outbound: Arc<Outbound>, limits: SharedLimits) -> Result<AmazonS3, String> {
    let (endpoint, url) = (endpoint_text(&bucket), endpoint_of(&bucket)?);
    let text = |secret: &Secret| {
        String::from_utf8(secret.expose().to_vec()).map_err(|_| "the credentials are no text".to_owned())
    };
    let mut builder = AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_allow_http(endpoint.starts_with("http://"))
        .with_region(bucket.region)
        .with_bucket_name(bucket.name)
        .with_access_key_id(bucket.credentials.key_id)
        // Not every server deletes many at once.
        .with_disable_bulk_delete(true)
        .with_secret_access_key(text(&bucket.credentials.secret)?)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: limits.tries as usize,
            retry_timeout: limits.request,
        })
        .with_http_connector(ServerClient::new(url, outbound, limits)?);
    if let Some(session) = &bucket.credentials.session {
        builder = builder.with_token(text(session)?);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The server of a bucket.
fn endpoint_of(bucket: &Bucket) -> Result<Url, String> {
    let endpoint = endpoint_text(bucket);
    endpoint.parse().map_err(|error| format!("{endpoint} is no URL: {error}"))
}

fn endpoint_text(bucket: &Bucket) -> String {
    bucket.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", bucket.region))
}

#[cfg(test)]
mod tests;
