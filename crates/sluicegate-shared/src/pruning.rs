//! What a bucket holds, and what is removed there.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use object_store::{
    ObjectStoreExt,
    aws::{AmazonS3, AwsAuthorizer},
    client::{HttpRequest, HttpRequestBody},
};
use sluicegate_outbound::Outbound;
use sluicegate_ports::{
    prune::{AgedObject, AgedObjects},
    store::StoreError,
};
use sluicegate_types::Digest;
use ureq::http::{Request, StatusCode};
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

/// Objects that a server lists in a second, beside the time that each answer may take.
const OBJECTS_IN_A_SECOND: u64 = 1000;
/// Between two tries of one.
const PAUSE: Duration = Duration::from_millis(500);

/// Objects of a bucket that are named by digests below one name. Others are left alone, whatever the server says of them.
pub struct BucketObjects {
    server: Arc<AmazonS3>,
    client: ServerClient,
    /// The bucket's own address.
    address: Url,
    region: String,
    limits: SharedLimits,
    /// With all that is asked here.
    patience: Mutex<Patience>,
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
        let endpoint = endpoint_of(&bucket)?;
        let address = format!("{}/{}", endpoint.as_str().trim_end_matches('/'), bucket.name);
        let address = address.parse().map_err(|error| format!("{address} is no URL: {error}"))?;
        let client = ServerClient::new(endpoint, outbound.clone(), limits)?;
        let region = bucket.region.clone();
        let server = Arc::new(server(bucket, outbound, limits)?);
        Ok(Self { server, client, address, region, limits, patience: Mutex::default(), prefix, shown, below, what })
    }

    /// For one thread: what waits for an answer keeps no other from its own.
    fn objects(&self) -> Result<Objects, Fault> {
        Objects::new(self.server.clone(), None, &self.prefix, self.limits).map_err(Fault::Store)
    }

    fn page(&self, objects: &Objects, token: Option<&str>) -> Result<Page, Fault> {
        let below = objects.whole(&object(self.below, ""));
        let mut address = self.address.clone();
        let asked = [("list-type", "2"), ("delimiter", "/"), ("encoding-type", "url"), ("prefix", &below)];
        address.query_pairs_mut().extend_pairs(asked).extend_pairs(token.map(|token| ("continuation-token", token)));
        let mut left = self.limits.tries;
        loop {
            match self.answer(self.signed(objects, &address)?) {
                Ok(answer) => return listing::page(&answer, &below).map_err(Fault::Wrong),
                Err((_, true)) if left > 0 => {
                    left -= 1;
                    thread::sleep(PAUSE);
                }
                Err((fault, _)) => return Err(fault),
            }
        }
    }

    /// A question that is signed in its headers, as every other one: an address is written into logs.
    fn signed(&self, objects: &Objects, address: &Url) -> Result<HttpRequest, Fault> {
        let credential = objects.wait(self.server.credentials().get_credential())?;
        let request = Request::get(address.as_str()).body(HttpRequestBody::empty());
        let mut request = request.map_err(|error| Fault::Store(format!("{address} is no address: {error}")))?;
        let signed = AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None);
        signed.map(|()| request).map_err(|error| Fault::Store(cut(&error.to_string())))
    }

    /// Notes what an answer took, and ends where all of them take too long.
    fn waited(&self, began: Instant, bytes: u64) -> Result<(), Fault> {
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        patience.asked(began.elapsed(), bytes);
        if patience.is_over(&self.limits) { Err(Fault::Store("its answers take too long".to_owned())) } else { Ok(()) }
    }

    /// What is answered, or why not and whether another try may do better.
    fn answer(&self, request: HttpRequest) -> Result<Vec<u8>, (Fault, bool)> {
        let (status, body) = self.client.get(request).map_err(|reason| (Fault::Store(cut(&reason)), true))?;
        if status.is_success() {
            return Ok(body);
        }
        let said = String::from_utf8_lossy(&body);
        let words = match status {
            StatusCode::NOT_FOUND if said.contains("NoSuchBucket") => "there is no such bucket".to_owned(),
            StatusCode::UNAUTHORIZED => "the server does not know these credentials (401)".to_owned(),
            StatusCode::FORBIDDEN => {
                let code = error_code(&said);
                format!("the server refuses to list it to these credentials, or does not know them (403{code})")
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
        let (mut token, mut seen) = (None, BTreeSet::new());
        for _ in 0..self.limits.pages {
            let began = Instant::now();
            let page = self.page(&objects, token.as_deref()).map_err(failed)?;
            let bytes = page.objects.len() as u64 * self.limits.pace / OBJECTS_IN_A_SECOND;
            self.waited(began, bytes).map_err(failed)?;
            let shown = page.objects.into_iter();
            let shown =
                shown.map(|found| AgedObject { name: found.name, size: found.size, put: found.put, is_draft: false });
            show(&shown.collect::<Vec<_>>())?;
            let Some(more) = page.more else { return Ok(()) };
            if !seen.insert(Digest::of(more.as_bytes())) {
                return Err(failed(Fault::Wrong("it lists the same again and again".to_owned())));
            }
            token = Some(more);
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
        let began = Instant::now();
        match objects.wait(self.server.delete(&path)) {
            Ok(()) | Err(Fault::Absent) => self.waited(began, 0).map_err(failed),
            Err(fault) => Err(failed(fault)),
        }
    }
}

/// The word for an error in an answer of the S3 API, after a blank; nothing if there is none.
fn error_code(said: &str) -> String {
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let is_word = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    code.filter(is_word).map(|code| format!(" {code}")).unwrap_or_default()
}

impl fmt::Debug for BucketObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketObjects").field("shown", &self.shown).field("below", &self.below).finish_non_exhaustive()
    }
}
