//! in-toto Statement v1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_types::{
    Content, ContentKind, Digest, NonEmpty,
    checks::{Check, is_on},
};

use crate::{
    Error, form,
    predicate::{self, PredicateType},
    strict_json, unsupported,
};

const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// Media types of images: what carries one is a manifest or an index, and no file.
const IMAGE_TYPES: [&str; 3] =
    ["application/vnd.oci.image.", "application/vnd.docker.distribution.manifest.", "application/vnd.docker.image."];
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
            && (self.media_type.as_deref().and_then(ContentKind::from_media_type) == Some(content.kind)
                || !is_on(Check::ContentKind))
    }

    /// Whether this may be a file by its kind: no media type, or one that is neither an image's nor a directory's.
    pub fn may_be_file(&self) -> bool {
        self.media_type.as_deref().is_none_or(|kind| {
            ContentKind::from_media_type(kind) != Some(ContentKind::Directory)
                && !IMAGE_TYPES.iter().any(|image| kind.to_ascii_lowercase().starts_with(image))
        })
    }
}

impl Statement {
    /// Reads the payload of an envelope. Only Statement v1; at least one subject, each with a sha256 digest, at most 1 024. One
    /// malformed digest makes the whole statement malformed ([`Error::SubjectDigest`]): nothing is normalised until it fits. A predicate
    /// that is nested deeper than [`predicate::MAX_PREDICATE_DEPTH`] is refused, whoever says it.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        strict_json::check(payload).map_err(form("the statement"))?;
        let wire: WireStatement = serde_json::from_slice(payload).map_err(form("the statement"))?;
        if wire.kind != STATEMENT_V1 {
            return Err(unsupported("statement type", &wire.kind));
        }
        if wire.subject.len() > MAX_SUBJECTS {
            return Err(Error::TooMany { what: "subjects", limit: MAX_SUBJECTS });
        }
        predicate::check_depth(&wire.predicate)?;
        let subjects = wire.subject.into_iter().enumerate().map(|(at, subject)| subject_of(at, subject));
        let subjects = subjects.collect::<Result<Vec<_>, _>>()?;
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
        // Before a key is used: [`Statement::parse`] would not read it.
        predicate::check_depth(&self.predicate)?;
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

    /// The subject that is the file with this digest. Its name decides nothing.
    pub fn subject_of_file(&self, file: &Digest) -> Option<&Subject> {
        self.subjects.iter().find(|subject| {
            (subject.digest == *file || !is_on(Check::FileSubject))
                && (subject.may_be_file() || !is_on(Check::FileKind))
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
    #[serde(default)]
    digest: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
}

impl From<&Subject> for WireSubject {
    fn from(subject: &Subject) -> Self {
        Self {
            name: subject.name.clone(),
            digest: json!({"sha256": subject.digest.hex()}),
            media_type: subject.media_type.clone(),
        }
    }
}

/// The subject at this place, from 0.
fn subject_of(at: usize, wire: WireSubject) -> Result<Subject, Error> {
    let digest = subject_digest(&wire.digest).map_err(|reason| {
        let name = wire.name.as_deref().map(|name| format!(" ({:?})", cut(name))).unwrap_or_default();
        Error::SubjectDigest { subject: format!("subject {}{name}", at + 1), reason }
    })?;
    Ok(Subject { name: wire.name, digest, media_type: wire.media_type })
}

/// The sha256 of a subject's digest set, exactly as written; the error says what is malformed about it.
fn subject_digest(set: &Value) -> Result<Digest, String> {
    let set = match set {
        Value::Object(set) => set,
        Value::Null => return Err("there is no digest".to_owned()),
        other => return Err(format!("the digest set is {}, not an object", kind_of(other))),
    };
    if set.is_empty() {
        return Err("the digest set is empty".to_owned());
    }
    // A reader that folds case would take the other one.
    if let Some(odd) = set.keys().find(|key| *key != "sha256" && key.eq_ignore_ascii_case("sha256")) {
        return Err(format!("the algorithm is called {odd:?}, not \"sha256\""));
    }
    if let Some((algorithm, value)) = set.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("{:?} is {}, not a string", cut(algorithm), kind_of(value)));
    }
    let Some(text) = set.get("sha256").and_then(Value::as_str) else {
        let found: Vec<String> = set.keys().take(5).map(|key| cut(key)).collect();
        return Err(format!("there is no \"sha256\" among {}", found.join(", ")));
    };
    Digest::from_hex(text).map_err(|error| match text {
        text if text.to_ascii_lowercase().starts_with("sha256:") => {
            format!("{:?} has a prefix; the digits stand alone", cut(text))
        }
        text => format!("{:?}: {error}", cut(text)),
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
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
    fn tr_28_a_malformed_subject_digest_is_said_to_be_malformed() {
        let hex = Digest::of(b"x").hex();
        let subject = |digest: &str| payload(&format!(r#"[{{"name":"shop","digest":{digest}}}]"#));
        assert!(Statement::parse(subject(&format!(r#"{{"sha256":"{hex}"}}"#)).as_bytes()).is_ok());
        assert!(Statement::parse(subject(&format!(r#"{{"sha1":"00","sha256":"{hex}"}}"#)).as_bytes()).is_ok());
        for (digest, says) in [
            (format!(r#"{{"sha256":"sha256:{hex}"}}"#), "has a prefix"),
            (format!(r#"{{"sha256":"sha256::{hex}"}}"#), "has a prefix"),
            (format!(r#"{{"sha256":"SHA256:{hex}"}}"#), "has a prefix"),
            (format!(r#"{{"sha256":" {hex}"}}"#), "has 65"),
            (format!(r#"{{"sha256":"{hex}\n"}}"#), "has 65"),
            (format!(r#"{{"sha256":"{} "}}"#, &hex[1..]), "only the digits"),
            (format!(r#"{{"sha256":"{}"}}"#, &hex[1..]), "has 63"),
            (format!(r#"{{"sha256":"{hex}0"}}"#), "has 65"),
            (format!(r#"{{"sha256":"{}"}}"#, hex.to_uppercase()), "only the digits"),
            (format!(r#"{{"sha256":"0x{hex}"}}"#), "has 66"),
            (r#"{"sha256":""}"#.to_owned(), "has 0"),
            (r#"{"sha256":"fje79phET+O0TbXdigNozMSmE+QKMAig6R7mYmwADUc="}"#.to_owned(), "has 44"),
            (r#"{"sha256":7}"#.to_owned(), "is a number"),
            (r#"{"sha256":null}"#.to_owned(), "is null"),
            (r#"{"sha256":true}"#.to_owned(), "is a boolean"),
            (format!(r#"{{"sha256":["{hex}"]}}"#), "is an array"),
            (format!(r#"{{"sha256":{{"hex":"{hex}"}}}}"#), "is an object"),
            (format!(r#"{{"sha256":"{hex}","sha1":1}}"#), "\"sha1\" is a number"),
            (format!(r#"{{"SHA256":"{hex}"}}"#), "called \"SHA256\""),
            (format!(r#"{{"sha256":"{hex}","Sha256":"{hex}"}}"#), "called \"Sha256\""),
            (format!(r#"{{"sha512":"{hex}{hex}"}}"#), "no \"sha256\" among sha512"),
            (format!(r#"{{"sha256 ":"{hex}"}}"#), "no \"sha256\""),
            ("{}".to_owned(), "is empty"),
            ("null".to_owned(), "no digest"),
            (format!(r#"["{hex}"]"#), "is an array"),
            (format!(r#""{hex}""#), "is a string"),
            (format!(r#""sha256:{hex}""#), "is a string"),
        ] {
            let error = Statement::parse(subject(&digest).as_bytes()).unwrap_err();
            assert!(matches!(error, Error::SubjectDigest { .. }), "{digest}: {error}");
            let text = error.to_string();
            assert!(text.starts_with("subject digest malformed: subject 1 (\"shop\")"), "{text}");
            assert!(text.contains(says), "{digest}: {text}");
        }
        let twice = subject(&format!(r#"{{"sha256":"{hex}","sha256":"{hex}"}}"#));
        assert!(Statement::parse(twice.as_bytes()).unwrap_err().to_string().contains("stands twice"));
        let without = payload(r#"[{"name":"shop"}]"#);
        assert!(matches!(Statement::parse(without.as_bytes()), Err(Error::SubjectDigest { .. })));
    }

    #[test]
    fn tr_28_one_malformed_subject_makes_the_whole_statement_malformed() {
        let hex = Digest::of(b"x").hex();
        let two = |second: &str| {
            payload(&format!(r#"[{{"digest":{{"sha256":"{hex}"}}}},{{"digest":{{"sha256":"{second}"}}}}]"#))
        };
        assert!(Statement::parse(two(&hex).as_bytes()).is_ok());
        let error = Statement::parse(two("sha256:00").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("subject digest malformed: subject 2:"), "{error}");
    }

    #[test]
    fn tm01_a_file_is_found_by_its_digest_among_what_may_be_files() {
        let file = Digest::of(b"x");
        let subjects = |kind: &str| {
            let other = Digest::of(b"y").hex();
            let own = file.hex();
            let text = payload(&format!(
                r#"[{{"name":"x","digest":{{"sha256":"{other}"}}}},{{"name":"y","digest":{{"sha256":"{own}"}}{kind}}}]"#
            ));
            Statement::parse(text.as_bytes()).unwrap()
        };
        for fits in ["", r#","mediaType":"application/octet-stream""#, r#","mediaType":"application/zip""#] {
            let statement = subjects(fits);
            assert_eq!(statement.subject_of_file(&file).unwrap().name.as_deref(), Some("y"), "{fits}");
            assert!(statement.subject_of_file(&Digest::of(b"z")).is_none());
        }
        for other in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.OCI.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ] {
            assert!(subjects(&format!(r#","mediaType":"{other}""#)).subject_of_file(&file).is_none(), "{other}");
        }
    }

    #[test]
    fn subjects_are_limited() {
        let one = format!(r#"{{"digest":{{"sha256":"{}"}}}}"#, Digest::of(b"x").hex());
        let many = |n| payload(&format!("[{}]", vec![one.as_str(); n].join(",")));
        assert!(Statement::parse(many(MAX_SUBJECTS).as_bytes()).is_ok());
        assert!(matches!(Statement::parse(many(MAX_SUBJECTS + 1).as_bytes()), Err(Error::TooMany { .. })));
    }

    #[test]
    fn a_predicate_is_nested_no_deeper_than_documents_around_it_can_be_read() {
        use crate::predicate::MAX_PREDICATE_DEPTH;
        let subject = format!(r#"[{{"digest":{{"sha256":"{}"}}}}]"#, Digest::of(b"x").hex());
        let nested = |depth: usize| {
            let predicate = format!(r#""predicate":{}{}"#, "[".repeat(depth), "]".repeat(depth));
            payload(&subject).replace(r#""predicate":{}"#, &predicate)
        };
        let mut statement = Statement::parse(nested(MAX_PREDICATE_DEPTH).as_bytes()).unwrap();
        assert!(statement.to_payload().is_ok());
        let error = Statement::parse(nested(MAX_PREDICATE_DEPTH + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("nested deeper than 100"), "{error}");
        statement.predicate = Value::Array(vec![statement.predicate]);
        assert!(statement.to_payload().is_err());
        // The deepest one can stand deep in another document.
        let around = MAX_PREDICATE_DEPTH + 20;
        let document = format!("{}{}", "[".repeat(around), "]".repeat(around));
        assert!(serde_json::from_str::<Value>(&document).is_ok());
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
