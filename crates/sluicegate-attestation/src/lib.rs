#![forbid(unsafe_code)]
//! Statements, predicates, envelopes and bundles: bytes to types and back.
//!
//! in-toto Statement v1 in DSSE in Sigstore bundle v0.3 (DESIGN section 5). Nothing is verified here: what comes out of this
//! crate has the right shape and is still only claimed. The bytes that arrive are kept, and are what is hashed and verified.

pub mod bundle;
pub mod coverage;
pub mod cyclonedx;
pub mod cyclonedx_schema;
pub mod cyclonedx_xml;
pub mod dsse;
pub mod identifiers;
pub mod junit;
pub mod licences;
pub mod one_reading;
pub mod output_sbom;
pub mod predicate;
pub mod provenance;
pub mod runtime_trace;
pub mod sbom;
pub mod spdx_document;
pub mod spdx_schema;
pub mod statement;
mod strict_json;
pub mod summary;
pub mod test_result;
pub mod trivy_report;
pub mod vulns;
mod xml_rules;

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, too deep, a key twice, an unknown or a missing key.
    #[error("{what} is not of the expected form: {reason}")]
    Form {
        /// What was read.
        what: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// More bytes than allowed.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// More items than allowed.
    #[error("{what}: more than {limit}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A form that exists in the field and that this version does not take.
    #[error("{what} {value:?}: not in this version")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its value, cut at 120 characters.
        value: String,
    },
    /// A subject whose digest is none: the statement is about nothing that could be looked at, not about something else.
    #[error("subject digest malformed: {subject}: {reason}")]
    SubjectDigest {
        /// Which subject, by its place from 1 and its name.
        subject: String,
        /// What is malformed.
        reason: String,
    },
    /// A file that holds something else than exactly one bundle.
    #[error("{reason}")]
    NotOneBundle {
        /// What it holds instead.
        reason: String,
    },
    /// A value that contradicts the rules of its format.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

pub(crate) fn unsupported(what: &'static str, value: &str) -> Error {
    Error::Unsupported { what, value: value.chars().take(120).collect() }
}

pub(crate) fn form(what: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |error| Error::Form { what, reason: error.to_string() }
}
