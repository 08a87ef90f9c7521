//! `verify FILE --bundle B`: whether a bundle is to be believed and is about this very file. No gate is asked.

use std::{io::Read, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::{Error as FormError, bundle, statement::Statement};
use sluicegate_types::{
    Digest, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{Trust, VerifiedStatement};

use crate::{Error, verify::verified};

/// What a bundle is asked about.
pub enum Asked<'a> {
    /// A file's bytes; hashed as they come, however many.
    Bytes(&'a mut dyn Read),
    /// The digest of a file that need not be here.
    Digest(Digest),
}

/// A bundle that was verified and is about the file.
#[derive(Debug)]
pub struct FileReport {
    /// The file's digest.
    pub file: Digest,
    /// What was said about it.
    pub statement: VerifiedStatement,
}

/// Verifies the bundle of the file `bundle_file` and finds the file among its subjects. The digest decides: names decide nothing, and
/// a subject that is an image or a directory by its media type is no file (trust model 1).
pub fn verify_file(
    asked: Asked<'_>,
    bundle_file: &Path,
    bundle_bytes: &[u8],
    trust: &Trust,
    at: UnixTime,
) -> Result<FileReport, Error> {
    bundle::check_one_document(bundle_bytes)
        .map_err(|error| Error::BundleFile { file: bundle_file.to_owned(), reason: error.to_string() })?;
    let statement = sluicegate_verify::verify(bundle_bytes, trust, at).map_err(|source| Error::Bundle {
        reason: reason_code(&source),
        bundle: Digest::of(bundle_bytes),
        source: Box::new(source),
    })?;
    // A file has no repository: like a place without a name, only a signer who speaks for everything speaks for it.
    let weak = match statement.endorses().iter().next() {
        Some(group) if is_on(Check::FileAlone) && !statement.stands_alone() => {
            Some(format!("{} says this only together with others of {group}", statement.signer()))
        }
        _ if !trust.covers(statement.signer(), None) => Some(format!(
            "{} speaks for the repositories that trust.yaml lists, and a file has none",
            statement.signer()
        )),
        _ => None,
    };
    if let Some(reason) = weak {
        return Err(Error::NobodysWord { bundle: Digest::of(bundle_bytes), reason });
    }
    let file = match asked {
        Asked::Digest(digest) => digest,
        Asked::Bytes(mut reader) => {
            Digest::of_reader(&mut reader)
                .map_err(|source| Error::Io { action: "read", path: "the file".into(), source })?
                .0
        }
    };
    if statement.statement().subject_of_file(&file).is_none() {
        return Err(Error::OtherContent { file, about: about(statement.statement(), &file) });
    }
    Ok(FileReport { file, statement })
}

impl FileReport {
    /// The file and what was said about it, as `verify -o json` writes it.
    pub fn to_json(&self) -> Value {
        json!({
            "schemaVersion": 1,
            "file": self.file,
            "verified": true,
            "statement": verified(&self.statement),
            "gateAsked": false,
        })
    }
}

/// Subjects that an error text lists.
const LISTED: usize = 4;

/// What the statement is about instead: digests first, names for people.
fn about(statement: &Statement, file: &Digest) -> String {
    if let Some(subject) = statement.subjects.iter().find(|subject| subject.digest == *file) {
        return format!("{file} as {}, which is no file", subject.media_type.as_deref().unwrap_or_default());
    }
    let count = statement.subjects.iter().count();
    let mut listed: Vec<String> = statement
        .subjects
        .iter()
        .take(LISTED)
        .map(|subject| match &subject.name {
            Some(name) => format!("{} ({})", subject.digest, name.chars().take(80).collect::<String>()),
            None => subject.digest.to_string(),
        })
        .collect();
    if count > LISTED {
        listed.push(format!("{} more", count - LISTED));
    }
    listed.join(", ")
}

/// A word for programs: why a bundle is not believed.
pub(crate) fn reason_code(error: &sluicegate_verify::Error) -> &'static str {
    use sluicegate_verify::Error as E;
    match error {
        E::Form(FormError::SubjectDigest { .. }) => "subject_digest_malformed",
        E::Form(_) => "malformed",
        E::UnknownSigner { .. } => "unknown_signer",
        E::Signature { .. } => "signature",
        E::Log { .. } => "log",
        E::Disagrees { .. } => "disagrees",
        E::LogWindow { .. } => "log_window",
        E::Untimed { .. } => "untimed",
        E::Revoked { .. } => "revoked",
        E::Role { .. } => "role",
        E::Builder { .. } => "builder",
        E::Verifier { .. } => "verifier",
        E::Verdict { .. } => "verdict",
        E::Environment { .. } => "environment",
    }
}
