//! `verify`: follows an image to its statements and each step, offline, and says what it found.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate_ports::images::ImagePlaces;
use sluicegate_types::{Digest, ImageRef, UnixTime};
use sluicegate_verify::{
    Trust,
    closed_set::{Followed, Seen, follow},
};

use crate::{Error, Failure, error::incomplete, fetch};

/// What `verify` found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The image.
    pub image: Digest,
    /// What is attached to it and whether a whole set is among it.
    pub followed: Followed,
}

/// Verifies an image: every byte that it reaches, every statement, and whether what its provenance names is all there. No gate
/// is asked. Opens only files below the layout's folder.
pub fn verify(
    places: &dyn ImagePlaces,
    reference: &ImageRef,
    folder: &Path,
    trust: &Trust,
    at: UnixTime,
) -> Result<VerifyReport, Error> {
    let place = reference.clone().relative_to(folder);
    let source = places.source(&place.directory)?;
    let descriptor = source.resolve(&place.selector)?;
    let fetched = fetch::fetch(source.as_ref(), &descriptor, None)?;
    let followed = follow(descriptor.digest, &fetched.attached, &fetched.blobs, trust, at);
    Ok(VerifyReport { image: descriptor.digest, followed })
}

impl VerifyReport {
    /// `None` if a whole set was found, else what kind of failure it is: a bundle that the provenance names and that is false
    /// weighs more than one that is missing.
    pub fn failure(&self) -> Option<Failure> {
        if !self.followed.sets.is_empty() {
            return None;
        }
        let kinds: Vec<Failure> = self.followed.incomplete.iter().map(incomplete).collect();
        Some(if kinds.contains(&Failure::Wrong) { Failure::Wrong } else { Failure::Undecided })
    }

    /// Every statement as verified, ignored or missing, with signer and log place.
    pub fn to_json(&self) -> Value {
        let mut statements = Vec::new();
        let mut listed = std::collections::BTreeSet::new();
        for set in &self.followed.sets {
            for statement in set.statements() {
                if listed.insert(statement.bundle()) {
                    statements.push(verified(statement));
                }
            }
        }
        for seen in &self.followed.seen {
            match seen {
                Seen::Verified(statement) if listed.insert(statement.bundle()) => statements.push(verified(statement)),
                Seen::Verified(_) => {}
                Seen::Ignored { bundle, reason } => {
                    statements.push(json!({"status": "ignored", "bundle": bundle, "reason": reason}));
                }
            }
        }
        json!({
            "schemaVersion": 1,
            "image": self.image,
            "complete": !self.followed.sets.is_empty(),
            "statements": statements,
            "incomplete": self.followed.incomplete.iter().map(reason).collect::<Vec<_>>(),
            "gateAsked": false,
        })
    }
}

fn verified(statement: &sluicegate_verify::VerifiedStatement) -> Value {
    let subjects = statement.statement().subjects.iter().map(|s| json!({"name": s.name, "digest": s.digest}));
    json!({
        "status": "verified",
        "predicateType": statement.statement().predicate_type.uri(),
        "kind": statement.statement().predicate_type.short(),
        "bundle": statement.bundle(),
        "subjects": subjects.collect::<Vec<_>>(),
        "signer": statement.signer(),
        "log": {"origin": statement.log().origin, "index": statement.log().index},
        "time": {"source": "none"},
    })
}

/// The whole chain of causes in one line.
pub(crate) fn reason(error: &sluicegate_verify::closed_set::Incomplete) -> String {
    error.to_string()
}
