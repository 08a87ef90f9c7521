//! What a bucket holds, and what is removed there.

use std::{fmt, io, sync::Arc, thread, time::Duration};

use object_store::{
    ObjectStoreExt,
    aws::AmazonS3,
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use sluicegate_outbound::Outbound;
use sluicegate_ports::{
    prune::{AgedObject, AgedObjects},
    store::StoreError,
};
use sluicegate_types::Digest;
use ureq::http::{Method, StatusCode};
use url::Url;

use crate::{
    Bucket, SharedLimits, endpoint_of,
    http_client::ServerClient,
    listing::{self, Page},
    object,
    objects::{Fault, Objects, cut},
    patience::Patience,
    server,
};

/// How long a question for a list may be on its way.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Between two tries of one.
const PAUSE: Duration = Duration::from_millis(500);

/// Objects of a bucket that are named by digests below one name. Others are left alone, whatever the server says of them.
pub struct BucketObjects {
    server: Arc<AmazonS3>,
    client: ServerClient,
    limits: SharedLimits,
    prefix: String,
    shown: String,
    below: [&'static str; 2],
    what: &'static str,
}

impl BucketObjects {
    /// Nothing is asked yet. `shown` is what a person calls the store, `what` the objects are, in the plural. An error is about the settings
    /// of this machine or of the gateway.
    pub fn open(
        (bucket, shown): (Bucket, String),
        (below, what): ([&'static str; 2], &'static str),
        outbound: Arc<Outbound>,
        limits: SharedLimits,
    ) -> Result<Self, String> {
        let prefix = bucket.prefix.clone();
        let client = ServerClient::new(endpoint_of(&bucket)?, outbound.clone(), limits)?;
        let server = Arc::new(server(bucket, outbound, limits)?);
        Ok(Self { server, client, limits, prefix, shown, below, what })
    }

    /// For one thread: what waits for an answer keeps no other from its own.
    fn objects(&self) -> Result<Objects, Fault> {
        Objects::new(self.server.clone(), None, &self.prefix, self.limits).map_err(Fault::Store)
    }

    fn page(&self, objects: &Objects, token: Option<String>) -> Result<Page, Fault> {
        let below = objects.whole(&object(self.below, ""));
        let asked = [("list-type", "2"), ("delimiter", "/"), ("encoding-type", "url"), ("prefix", &below)];
        let mut query: Vec<(String, String)> = asked.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        query.extend(token.map(|token| ("continuation-token".to_owned(), token)));
        let options = SignedUrlOptions::new().with_query(query);
        let mut left = self.limits.tries;
        loop {
            // The empty path is the bucket's own.
            let bucket = Path::default();
            let url = objects.wait(self.server.signed_url_opts(Method::GET, &bucket, SIGNED_FOR, &options))?;
            match self.answer(&url) {
                Ok(answer) => return listing::page(&answer, &below).map_err(Fault::Wrong),
                Err((fault, true)) if left > 0 => {
                    drop(fault);
                    left -= 1;
                    thread::sleep(PAUSE);
                }
                Err((fault, _)) => return Err(fault),
            }
        }
    }

    /// What is answered, or why not and whether another try may do better.
    fn answer(&self, url: &Url) -> Result<Vec<u8>, (Fault, bool)> {
        let (status, body) = self.client.get(url).map_err(|reason| (Fault::Store(cut(&reason)), true))?;
        if status.is_success() {
            return Ok(body);
        }
        let said = String::from_utf8_lossy(&body);
        let words = match status {
            StatusCode::NOT_FOUND if said.contains("NoSuchBucket") => "there is no such bucket".to_owned(),
            StatusCode::UNAUTHORIZED => "the server does not know these credentials (401)".to_owned(),
            StatusCode::FORBIDDEN => {
                "the server refuses to list it to these credentials, or does not know them (403)".to_owned()
            }
            status => cut(&format!("the server answers {status}: {said}")),
        };
        Err((Fault::Store(words), status.is_server_error()))
    }

    fn failed(&self, action: &'static str, name: &str, fault: Fault) -> StoreError {
        let reason = match fault {
            Fault::Absent => "there is no such object".to_owned(),
            Fault::Store(reason) | Fault::Wrong(reason) => reason,
        };
        let path = format!("{}, {}", self.shown, object(self.below, name)).into();
        StoreError::Io { action, path, source: io::Error::other(reason) }
    }
}

impl AgedObjects for BucketObjects {
    fn what(&self) -> &'static str {
        self.what
    }

    fn for_some(&self, show: &mut dyn FnMut(&[AgedObject]) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let failed = |fault| self.failed("list", "", fault);
        let objects = self.objects().map_err(failed)?;
        let (mut token, mut patience): (Option<String>, _) = (None, Patience::default());
        for _ in 0..self.limits.pages {
            let began = std::time::Instant::now();
            let page = self.page(&objects, token.clone()).map_err(failed)?;
            patience.asked(began.elapsed(), page.objects.len() as u64 * self.limits.pace / OBJECTS_IN_A_SECOND);
            if patience.is_over(&self.limits) {
                return Err(failed(Fault::Store("its answers take too long".to_owned())));
            }
            let shown = page.objects.into_iter();
            let shown =
                shown.map(|found| AgedObject { name: found.name, size: found.size, put: found.put, is_draft: false });
            show(&shown.collect::<Vec<_>>())?;
            match page.more {
                None => return Ok(()),
                more if more == token => {
                    return Err(failed(Fault::Wrong("it lists the same again and again".to_owned())));
                }
                more => token = more,
            }
        }
        let answers = self.limits.pages;
        Err(failed(Fault::Wrong(format!("its list does not come to an end with {answers} answers"))))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let failed = |fault| self.failed("remove", name, fault);
        if Digest::from_hex(name).is_err() {
            return Err(failed(Fault::Wrong("that is no name of an object here".to_owned())));
        }
        let objects = self.objects().map_err(failed)?;
        let path = objects.path(&object(self.below, name)).map_err(failed)?;
        match objects.wait(self.server.delete(&path)) {
            Ok(()) | Err(Fault::Absent) => Ok(()),
            Err(fault) => Err(failed(fault)),
        }
    }
}

/// Objects that a server lists in a second, at least, after the first answers.
const OBJECTS_IN_A_SECOND: u64 = 200;

impl fmt::Debug for BucketObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketObjects").field("shown", &self.shown).field("below", &self.below).finish_non_exhaustive()
    }
}
