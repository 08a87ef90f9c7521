//! in-toto Statement v1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty};

use crate::{Error, form, predicate::PredicateType, strict_json, unsupported};

const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// Subjects in one statement (DESIGN section 7).
pub const MAX_SUBJECTS: usize = 1024;

/// A claim about content. The payload it was read from is kept by whoever verified it and is never written anew.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it is about; names in it decide nothing (trust model 1).
    pub subjects: NonEmpty<Subject>,
    /// What kind of claim.
    pub predicate_type: PredicateType,
    /// The claim.
    pub predicate: Value,
}

/// One thing a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// For people.
    pub name: Option<String>,
    /// The content address.
    pub digest: Digest,
    /// What kind of content; keeps a file and a directory with one digest apart.
    pub media_type: Option<String>,
}

impl Subject {
    /// A subject that is a product of a step.
    pub fn product(name: String, content: Content) -> Self {
        Self { name: Some(name), digest: content.digest, media_type: Some(content.kind.media_type().to_owned()) }
    }

    /// Whether this is exactly `content`, kind and digest.
    pub fn is(&self, content: Content) -> bool {
        self.digest == content.digest
            && self.media_type.as_deref().and_then(ContentKind::from_media_type) == Some(content.kind)
    }
}

impl Statement {
    /// Reads the payload of an envelope. Only Statement v1; at least one subject, each with a sha256 digest, at most 1 024.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        strict_json::check(payload).map_err(form("the statement"))?;
        let wire: WireStatement = serde_json::from_slice(payload).map_err(form("the statement"))?;
        if wire.kind != STATEMENT_V1 {
            return Err(unsupported("statement type", &wire.kind));
        }
        if wire.subject.len() > MAX_SUBJECTS {
            return Err(Error::TooMany { what: "subjects", limit: MAX_SUBJECTS });
        }
        let subjects = wire.subject.into_iter().map(Subject::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            subjects: NonEmpty::try_from(subjects).map_err(|_| Error::Invalid {
                what: "subject",
                reason: "a statement about nothing is worth nothing".to_owned(),
            })?,
            predicate_type: PredicateType::from_uri(&wire.predicate_type),
            predicate: wire.predicate,
        })
    }

    /// The payload bytes to sign. Keys are sorted, so that the same claim has the same bytes.
    pub fn to_payload(&self) -> Result<Vec<u8>, Error> {
        let wire = WireStatement {
            kind: STATEMENT_V1.to_owned(),
            subject: self.subjects.iter().map(WireSubject::from).collect(),
            predicate_type: self.predicate_type.uri().to_owned(),
            predicate: self.predicate.clone(),
        };
        let value = serde_json::to_value(wire).map_err(form("the statement"))?;
        serde_json::to_vec(&value).map_err(form("the statement"))
    }

    /// Whether one of its subjects is the image manifest with this digest.
    pub fn is_about_image(&self, image: &Digest) -> bool {
        self.subjects.iter().any(|s| {
            s.digest == *image && s.media_type.as_deref().is_none_or(|m| ContentKind::from_media_type(m).is_none())
        })
    }

    /// Whether one of its subjects is this content.
    pub fn is_about(&self, content: Content) -> bool {
        self.subjects.iter().any(|subject| subject.is(content))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<WireSubject>,
    predicate_type: String,
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSubject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
}

impl From<&Subject> for WireSubject {
    fn from(subject: &Subject) -> Self {
        Self {
            name: subject.name.clone(),
            digest: BTreeMap::from([("sha256".to_owned(), subject.digest.hex())]),
            media_type: subject.media_type.clone(),
        }
    }
}

impl TryFrom<WireSubject> for Subject {
    type Error = Error;

    fn try_from(wire: WireSubject) -> Result<Self, Error> {
        Ok(Self { name: wire.name, digest: sha256_of(&wire.digest)?, media_type: wire.media_type })
    }
}

/// The sha256 of an in-toto digest set; other algorithms beside it are never matched on.
pub(crate) fn sha256_of(set: &BTreeMap<String, String>) -> Result<Digest, Error> {
    let Some(hex) = set.get("sha256") else {
        return Err(Error::Invalid { what: "digest", reason: "there is no sha256".to_owned() });
    };
    Digest::from_hex(hex).map_err(|error| Error::Invalid { what: "digest", reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(subject: &str) -> String {
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subject},"predicateType":"x:y","predicate":{{}}}}"#
        )
    }

    #[test]
    fn a_statement_needs_a_subject_with_a_sha256() {
        let hex = Digest::of(b"x").hex();
        let good = payload(&format!(r#"[{{"digest":{{"sha256":"{hex}"}}}}]"#));
        assert!(Statement::parse(good.as_bytes()).is_ok());
        assert!(Statement::parse(payload("[]").as_bytes()).is_err());
        assert!(
            Statement::parse(good.replace(r#""predicate":{}"#, r#""predicate":{"a":1,"a":2}"#).as_bytes()).is_err()
        );
        assert!(Statement::parse(payload(r#"[{"digest":{"sha1":"00"}}]"#).as_bytes()).is_err());
        assert!(Statement::parse(good.replace("Statement/v1", "Statement/v0.1").as_bytes()).is_err());
    }

    #[test]
    fn subjects_are_limited() {
        let one = format!(r#"{{"digest":{{"sha256":"{}"}}}}"#, Digest::of(b"x").hex());
        let many = |n| payload(&format!("[{}]", vec![one.as_str(); n].join(",")));
        assert!(Statement::parse(many(MAX_SUBJECTS).as_bytes()).is_ok());
        assert!(matches!(Statement::parse(many(MAX_SUBJECTS + 1).as_bytes()), Err(Error::TooMany { .. })));
    }

    #[test]
    fn a_file_and_a_directory_with_one_digest_are_two_things() {
        let digest = Digest::of(b"x");
        let file = Content { kind: ContentKind::File, digest };
        let subject = Subject::product("out".to_owned(), file);
        assert!(subject.is(file));
        assert!(!subject.is(Content { kind: ContentKind::Directory, digest }));
    }
}
