//! The API of Rekor v2: one way to write, and the checkpoint and tiles to read.

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use sluicegate_ports::{served_log::ServedLog, sign::SignError};
use tokio::{net::TcpListener, select, sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{
    Error, Limits,
    answer::{self, Code},
    connections, entry_request,
    group_commit::{NotAppended, Queue, Report},
    tile_path,
};

const TILES: &str = "/api/v2/tile/";
/// What only browsers send.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A full tile never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A checkpoint is old when the next entry comes.
const NOW: HeaderValue = HeaderValue::from_static("no-cache");

/// Serves a log to whoever connects, until `shutdown` comes: from then on nothing new is taken, and what waits is finished first.
///
/// What goes wrong inside is told to `report`, and to clients only that it did. There is no TLS and nobody is asked who they are: whoever
/// can connect can append what carries its own valid signature.
pub async fn serve_log(
    listener: std::net::TcpListener,
    log: Arc<dyn ServedLog>,
    limits: Limits,
    report: Report,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    listener.set_nonblocking(true).map_err(Error::Listen)?;
    let listener = TcpListener::from_std(listener).map_err(Error::Listen)?;
    let (queue, writer) = Queue::begin(log.clone(), limits.queue, limits.group, report.clone());
    let writing = queue.clone();
    // A server that can append nothing any more ends, so that whoever watches it begins another one.
    let end = async move {
        select! {
            () = shutdown => {}
            () = writing.broken() => {}
        }
    };
    let face = Face { log, queue, limits, reads: Arc::new(Semaphore::new(limits.tile_reads.max(1))), report };
    connections::serve(listener, router(face), limits, end).await;
    // The last connection took the last way to the queue with it.
    writer.await.map_err(|_| Error::Appender)
}

#[derive(Clone)]
struct Face {
    log: Arc<dyn ServedLog>,
    queue: Queue,
    limits: Limits,
    reads: Arc<Semaphore>,
    report: Report,
}

fn router(face: Face) -> Router {
    Router::new()
        .route("/api/v2/log/entries", post(add_entry))
        .route("/api/v2/checkpoint", get(checkpoint))
        .route("/api/v2/tile/{*path}", get(tile))
        .route("/healthz", get(healthz))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(face)
}

async fn add_entry(State(face): State<Face>, request: Request) -> Response {
    // A page that somebody on this machine looks at can reach loopback; a browser says where it comes from.
    if [header::ORIGIN, SEC_FETCH_SITE].iter().any(|name| request.headers().contains_key(name)) {
        return answer::error(StatusCode::FORBIDDEN, Code::PermissionDenied, "a web page appends nothing here");
    }
    let too_large =
        || answer::error(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument, "http: request body too large");
    // One that says so itself is not waited for.
    if request.body().size_hint().lower() > face.limits.body as u64 {
        return too_large();
    }
    let bytes = match timeout(face.limits.body_read, to_bytes(request.into_body(), face.limits.body)).await {
        Ok(Ok(bytes)) => bytes,
        // Or it broke off, and then nobody reads this.
        Ok(Err(_)) => return too_large(),
        Err(_) => {
            return answer::error(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, "the request took too long");
        }
    };
    let body = match entry_request::verified_body(&bytes) {
        Ok(body) => body,
        Err(message) => return answer::error(StatusCode::BAD_REQUEST, Code::InvalidArgument, &message),
    };
    match timeout(face.limits.append, face.queue.append(body)).await {
        Ok(Ok(placed)) if placed.is_new => answer::created(&placed.entry),
        Ok(Ok(placed)) => answer::duplicate(&placed.entry),
        Ok(Err(NotAppended::Full)) => later("too many entries wait; try again"),
        Ok(Err(NotAppended::Failed)) => {
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "failed to integrate entry")
        }
        Err(_) => answer::error(
            StatusCode::GATEWAY_TIMEOUT,
            Code::DeadlineExceeded,
            "the entry has no checkpoint yet; it may get one all the same, and the same request then says where it is",
        ),
    }
}

async fn checkpoint(State(face): State<Face>) -> Response {
    match face.read(|log| log.checkpoint()).await {
        Ok(note) => file("text/plain; charset=utf-8", NOW, note),
        Err(answer) => answer,
    }
}

/// The path is taken as it was sent: what would have to be decoded is no tile.
async fn tile(State(face): State<Face>, uri: Uri) -> Response {
    let Some(name) = uri.path().strip_prefix(TILES).and_then(tile_path::parse) else {
        return not_found().await;
    };
    match face.read(move |log| log.tile(name)).await {
        Ok(Some(bytes)) => file("application/octet-stream", FOREVER, bytes),
        Ok(None) => not_found().await,
        Err(answer) => answer,
    }
}

async fn healthz() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], "{\"status\":\"SERVING\"}\n").into_response()
}

async fn not_found() -> Response {
    answer::error(StatusCode::NOT_FOUND, Code::NotFound, "Not Found")
}

async fn method_not_allowed() -> Response {
    answer::error(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, "Method Not Allowed")
}

fn later(message: &str) -> Response {
    let mut answer = answer::error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn file(kind: &'static str, cache: HeaderValue, content: impl Into<Body>) -> Response {
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], content.into()).into_response()
}

impl Face {
    /// Asks the log for a file, apart from the threads that answer; an error is the answer.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn ServedLog) -> Result<T, SignError> + Send + 'static,
    ) -> Result<T, Response> {
        let failed = |reason: String| {
            (self.report)(&format!("a question was not answered: {reason}"));
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "the log cannot be read")
        };
        let permit = self.reads.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let log = self.log.clone();
        let asked = spawn_blocking(move || {
            let found = question(&*log);
            drop(permit);
            found
        });
        match asked.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
