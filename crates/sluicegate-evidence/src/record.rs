//! What a record's digest is over, and what a record may hold.

use serde::Serialize;
use serde_json::Value;
use sluicegate_ports::evidence::{BODY_LIMIT, NewRecord, Record, RecordKind};
use sluicegate_types::{Digest, EnvironmentName, UnixTime};

/// Objects and arrays inside each other in a body: what JSON readers with the usual limit of 128 still take inside a record.
pub const DEPTH_LIMIT: usize = 126;
const OUTCOME_LIMIT: usize = 64;
/// The largest whole number that RFC 8785 carries exactly, 2^53 - 1.
const EXACT: u64 = (1 << 53) - 1;

/// A record without its own digest: the digest is SHA-256 over the canonical JSON (RFC 8785) of exactly these members, `null` where
/// there is nothing. So whoever has a record as JSON takes `digest` out, canonicalises the rest, and compares.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chained<'a> {
    pub(crate) sequence: u64,
    pub(crate) previous: Option<Digest>,
    pub(crate) kind: RecordKind,
    pub(crate) at: UnixTime,
    pub(crate) subject: Option<Digest>,
    pub(crate) environment: Option<&'a EnvironmentName>,
    pub(crate) outcome: &'a str,
    pub(crate) body: &'a Value,
}

impl<'a> Chained<'a> {
    /// The members of a record that exists.
    pub(crate) fn of(record: &'a Record) -> Self {
        Self {
            sequence: record.sequence,
            previous: record.previous,
            kind: record.kind,
            at: record.at,
            subject: record.subject,
            environment: record.environment.as_ref(),
            outcome: &record.outcome,
            body: &record.body,
        }
    }

    /// The record's digest.
    pub(crate) fn digest(&self) -> Result<Digest, String> {
        serde_json_canonicalizer::to_vec(self)
            .map(|bytes| Digest::of(&bytes))
            .map_err(|error| format!("it has no canonical JSON: {error}"))
    }
}

/// The body as it will be stored and as it will be read again. Refused: what is not an object, is too deep or too large, or holds a number
/// that canonical JSON would silently change; and an outcome that is not one word.
pub(crate) fn canonical_body(record: &NewRecord) -> Result<(String, Value), String> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if record.outcome.is_empty() || record.outcome.len() > OUTCOME_LIMIT || !record.outcome.bytes().all(word) {
        return Err(format!("an outcome is one lower-case word of at most {OUTCOME_LIMIT} characters"));
    }
    if !record.body.is_object() {
        return Err("the body is not a JSON object".into());
    }
    storable(&record.body, 0)?;
    let text = serde_json_canonicalizer::to_string(&record.body).map_err(|error| format!("the body: {error}"))?;
    if text.len() > BODY_LIMIT {
        return Err(format!("the body has {} bytes; at most {BODY_LIMIT} are kept", text.len()));
    }
    let body = parse_body(&text).map_err(|reason| format!("the body cannot be read again: {reason}"))?;
    Ok((text, body))
}

/// The stored body, if it is the canonical text of an object.
pub(crate) fn parse_body(text: &str) -> Result<Value, String> {
    let body: Value = serde_json::from_str(text).map_err(|error| format!("its body is not JSON: {error}"))?;
    match serde_json_canonicalizer::to_string(&body) {
        Ok(canonical) if canonical == text && body.is_object() => Ok(body),
        _ => Err("its body is not canonical JSON of an object".into()),
    }
}

fn storable(value: &Value, depth: usize) -> Result<(), String> {
    let inside = depth + 1;
    match value {
        Value::Array(_) | Value::Object(_) if inside > DEPTH_LIMIT => {
            Err(format!("the body is more than {DEPTH_LIMIT} levels deep"))
        }
        Value::Array(items) => items.iter().try_for_each(|item| storable(item, inside)),
        Value::Object(members) => members.values().try_for_each(|member| storable(member, inside)),
        Value::Number(number) => match number.as_u64().or(number.as_i64().map(i64::unsigned_abs)) {
            Some(whole) if whole > EXACT => {
                Err(format!("the body holds the number {number}, which canonical JSON rounds; write it as a string"))
            }
            _ => Ok(()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
