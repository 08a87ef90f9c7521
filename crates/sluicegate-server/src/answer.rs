//! Answers as the real server writes them: protojson with unset fields, errors in the form of its HTTP gateway.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sluicegate_attestation::bundle::{Checkpoint, KindVersion, LogEntry, LogId};

/// The header that says where an entry stands already.
const LOG_INDEX: HeaderName = HeaderName::from_static("x-log-index");

/// A gRPC status code, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// 201 and the entry.
pub(crate) fn created(entry: &LogEntry) -> Response {
    json(StatusCode::CREATED, &WireEntry::of(entry))
}

/// 409: the entry is there already.
pub(crate) fn duplicate(entry: &LogEntry) -> Response {
    let index = number(&entry.log_index);
    let message = format!("an equivalent entry already exists in the transparency log with index {index}");
    let mut answer = error(StatusCode::CONFLICT, Code::AlreadyExists, &message);
    if let Ok(index) = HeaderValue::from_str(index) {
        answer.headers_mut().insert(LOG_INDEX, index);
    }
    answer
}

/// An error.
pub(crate) fn error(status: StatusCode, code: Code, message: &str) -> Response {
    json(status, &WireError { code: code as u32, message, details: [] })
}

fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// In a [`LogEntry`] a zero is left out; here it is written.
fn number(text: &str) -> &str {
    if text.is_empty() { "0" } else { text }
}

#[derive(Serialize)]
struct WireError<'a> {
    code: u32,
    message: &'a str,
    details: [(); 0],
}

/// `dev.sigstore.rekor.v1.TransparencyLogEntry` in the order of its fields, unset ones included.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry<'a> {
    log_index: &'a str,
    log_id: &'a LogId,
    kind_version: &'a KindVersion,
    integrated_time: &'a str,
    inclusion_promise: (),
    inclusion_proof: WireProof<'a>,
    canonicalized_body: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireProof<'a> {
    log_index: &'a str,
    root_hash: &'a str,
    tree_size: &'a str,
    hashes: &'a [String],
    checkpoint: &'a Checkpoint,
}

impl<'a> WireEntry<'a> {
    fn of(entry: &'a LogEntry) -> Self {
        let proof = &entry.inclusion_proof;
        Self {
            log_index: number(&entry.log_index),
            log_id: &entry.log_id,
            kind_version: &entry.kind_version,
            integrated_time: "0",
            inclusion_promise: (),
            inclusion_proof: WireProof {
                log_index: number(&proof.log_index),
                root_hash: &proof.root_hash,
                tree_size: &proof.tree_size,
                hashes: &proof.hashes,
                checkpoint: &proof.checkpoint,
            },
            canonicalized_body: &entry.canonicalized_body,
        }
    }
}
