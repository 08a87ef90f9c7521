//! `verify`: follows an image to its statements and each step, offline, and says what it found.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    bundle::{Bundle, key_hint},
    predicate::PredicateType,
    provenance::{Dependency, Provenance},
    statement::Statement,
};
use sluicegate_ports::images::{Descriptor, ImagePlaces, ImageSource};
use sluicegate_types::{Digest, ImageRef, Repository, UnixTime};
use sluicegate_verify::{
    Role, Trust, VerifiedStatement,
    closed_set::{Asked, Followed, Incomplete, Seen, follow},
};

use crate::{
    Error, Failure,
    error::incomplete,
    fetch::{self, Fetched},
    image_tree::is_index,
    verify_index::{IndexReport, verify_index},
};

/// What `verify` found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The image.
    pub image: Digest,
    /// What is attached to it and whether a whole set is among it.
    pub followed: Followed,
    /// What is attached to the image or named by its provenance, each once.
    statements: Vec<Value>,
    /// Why other sets are not whole, or none is: a word for programs and the text, in the order of `followed.incomplete`.
    reasons: Vec<(&'static str, String)>,
    /// What it names, if it is an index: then that is what has to be proved, and what is attached to the index itself is only listed.
    pub index: Option<IndexReport>,
}

/// Verifies an image: every byte that it reaches, every statement, and whether what its provenance names is all there. No gate
/// is asked. Of a layout it opens only files below the folder. `repository` is the environment's that is asked about, if there is one;
/// else a registry's repository goes by its own name, and a layout's folder has none.
pub fn verify(
    places: &dyn ImagePlaces,
    reference: &ImageRef,
    folder: &Path,
    trust: &Trust,
    repository: Option<&Repository>,
    at: UnixTime,
) -> Result<VerifyReport, Error> {
    let image = reference.relative_to(folder);
    let source = places.source(&image.place)?;
    let descriptor = source.resolve(&image.selector)?;
    // A registry's repository has a name of its own.
    let own = Repository::of_registry(&image.place);
    let repository = repository.or(own.as_ref());
    let asked = Asked { trust, repository, at };
    if !is_index(&descriptor.media_type) {
        return verify_image(source.as_ref(), &descriptor, asked);
    }
    let index = verify_index(source.as_ref(), &descriptor, asked)?;
    let fetched = fetch::fetch_attached(source.as_ref(), &descriptor, asked)?;
    Ok(VerifyReport { index: Some(index), ..report(&descriptor, &fetched, asked) })
}

/// Verifies one image that is no index. Its layers are hashed if its evidence is whole: what proves nothing may be as large as it likes, and
/// is refused either way.
pub(crate) fn verify_image(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    asked: Asked<'_>,
) -> Result<VerifyReport, Error> {
    let fetched = fetch::fetch_evidence(source, descriptor, asked)?;
    let report = report(descriptor, &fetched, asked);
    if !report.followed.sets.is_empty() {
        fetch::read_layers(source, &fetched.manifest, None)?;
    }
    Ok(report)
}

fn report(descriptor: &Descriptor, fetched: &Fetched, asked: Asked<'_>) -> VerifyReport {
    let followed = follow(descriptor.digest, &fetched.attached, &fetched.blobs, asked);
    let look = Look { image: descriptor.digest, fetched, trust: asked.trust, at: asked.at };
    let statements = look.statements(&followed);
    let reasons = look.reasons(&followed);
    VerifyReport { image: descriptor.digest, followed, statements, reasons, index: None }
}

impl VerifyReport {
    /// `None` if a whole set was found, else what kind of failure it is: a bundle that the provenance names and that is false
    /// weighs more than one that is missing.
    pub fn failure(&self) -> Option<Failure> {
        if let Some(index) = &self.index {
            return index.failure();
        }
        if !self.followed.sets.is_empty() {
            return None;
        }
        let kinds: Vec<Failure> = self.followed.incomplete.iter().map(incomplete).collect();
        Some(if kinds.contains(&Failure::Wrong) { Failure::Wrong } else { Failure::Undecided })
    }

    /// Every statement that is attached to the image, carried by what is attached to it (such as the gate's scan and denials) or named by
    /// its provenance, exactly once: `verified`, `ignored` or `broken` with the reason, or `missing`. What is not verified has what its
    /// bundle claims, apart.
    pub fn statements(&self) -> &[Value] {
        &self.statements
    }

    /// Why a set is not whole, or there is none: a word for programs and the text for people, in the order of `followed.incomplete`.
    pub fn reasons(&self) -> &[(&'static str, String)] {
        &self.reasons
    }

    /// The whole report as `verify -o json` writes it.
    pub fn to_json(&self) -> Value {
        let mut document = self.own_json();
        if let Some(index) = &self.index {
            document["platforms"] = index
                .platforms
                .iter()
                .map(|platform| {
                    let mut one = platform.report.own_json();
                    one["platform"] = json!(platform.name());
                    one
                })
                .collect();
            document["unsigned"] = json!(index.unsigned);
        }
        document
    }

    fn own_json(&self) -> Value {
        json!({
            "schemaVersion": 1,
            "image": self.image,
            "complete": self.failure().is_none(),
            "statements": self.statements,
            "incomplete": self.followed.incomplete.iter().map(reason).collect::<Vec<_>>(),
            "reasons": self.reasons.iter().map(|(code, text)| json!({"code": code, "text": text})).collect::<Vec<_>>(),
            "unlooked": self.followed.unlooked,
            "gateAsked": false,
        })
    }
}

struct Look<'a> {
    image: Digest,
    fetched: &'a Fetched,
    trust: &'a Trust,
    at: UnixTime,
}

impl Look<'_> {
    fn statements(&self, followed: &Followed) -> Vec<Value> {
        let mut listed = Listed::default();
        for set in &followed.sets {
            set.statements().for_each(|statement| listed.add(statement.bundle(), || verified(statement)));
        }
        // What a provenance names counts as named even where the set is not whole.
        for seen in &followed.seen {
            let Seen::Verified(statement) = seen else { continue };
            listed.add(statement.bundle(), || verified(statement));
            if statement.statement().predicate_type == PredicateType::Provenance
                && let Ok(provenance) = Provenance::parse(&statement.statement().predicate)
            {
                let named = provenance.dependencies.iter().filter(|dependency| dependency.is_attestation());
                named.for_each(|dependency| listed.add(dependency.digest, || self.named(dependency)));
            }
        }
        for reason in &followed.incomplete {
            match reason {
                Incomplete::Missing { name, digest } => listed.add(*digest, || missing(name, digest)),
                Incomplete::Unlinked { digest, reason, .. } => listed.unlink(digest, reason),
                Incomplete::NoProvenance { .. } | Incomplete::Broken { .. } => {}
            }
        }
        for seen in &followed.seen {
            if let Seen::Ignored { bundle, reason } = seen {
                listed.add(*bundle, || self.ignored(bundle, reason));
            }
        }
        for (digest, bytes) in &self.fetched.blobs {
            // Raw reports are no statements.
            if Bundle::parse(bytes).is_ok() {
                listed.add(*digest, || match sluicegate_verify::verify(bytes, self.trust, self.at) {
                    Ok(statement) => {
                        let mut entry = verified(&statement);
                        entry["beside"] = json!("it came with what is attached, and no provenance names it");
                        if statement.is_in_role(Role::Records)
                            && statement.statement().predicate_type == PredicateType::Vulns
                        {
                            entry["gateScan"] = json!(true);
                        }
                        entry
                    }
                    Err(error) => self.ignored(digest, &error.to_string()),
                });
            }
        }
        for (bundle, reason) in &self.fetched.unread {
            listed.add(*bundle, || json!({"status": "ignored", "bundle": bundle, "reason": reason}));
        }
        listed.entries
    }

    /// A statement that a provenance names.
    fn named(&self, dependency: &Dependency) -> Value {
        let digest = dependency.digest;
        let Some(bytes) = self.fetched.attached.get(&digest).or_else(|| self.fetched.blobs.get(&digest)) else {
            return missing(&dependency.name, &digest);
        };
        match sluicegate_verify::verify(bytes, self.trust, self.at) {
            Ok(statement) => verified(&statement),
            Err(error) => json!({
                "status": "broken", "name": dependency.name, "bundle": digest, "reason": error.to_string(),
                "claims": self.claims(bytes),
            }),
        }
    }

    fn ignored(&self, digest: &Digest, reason: &str) -> Value {
        let bytes = self.fetched.attached.get(digest).or_else(|| self.fetched.blobs.get(digest));
        json!({
            "status": "ignored", "bundle": digest, "reason": reason, "claims": bytes.and_then(|bytes| self.claims(bytes)),
        })
    }

    /// What a bundle says of itself, none of it checked: anyone can write it.
    fn claims(&self, bytes: &[u8]) -> Option<Value> {
        let bundle = Bundle::parse(bytes).ok()?;
        let kind = Statement::parse(&bundle.payload).ok().map(|statement| beginning(statement.predicate_type.uri()));
        let signer = self.trust.signers().find(|signer| key_hint(&signer.public_key) == bundle.key_hint);
        // A number, as in what is verified, of which zero may be left out; what is none is a claim all the same.
        let number = |text: &str| match text {
            "" => json!(0),
            text => text.parse::<u64>().map_or_else(|_| json!(beginning(text)), |number| json!(number)),
        };
        let entry = &bundle.log_entry;
        let time = match &entry.integrated_time {
            Some(time) if time != "0" => {
                json!({"source": "integratedTime", "seconds": number(time)})
            }
            _ => json!({"source": "none"}),
        };
        Some(json!({
            "predicateType": kind, "keyId": beginning(&bundle.key_hint), "signer": signer.map(|signer| &signer.name),
            "log": {"index": number(&entry.log_index)}, "time": time,
        }))
    }

    fn reasons(&self, followed: &Followed) -> Vec<(&'static str, String)> {
        followed.incomplete.iter().map(|incomplete| self.reason(incomplete, followed)).collect()
    }

    fn reason(&self, incomplete: &Incomplete, followed: &Followed) -> (&'static str, String) {
        let code = match incomplete {
            Incomplete::Missing { .. } => "missing",
            Incomplete::Broken { .. } => "broken",
            Incomplete::Unlinked { .. } => "unlinked",
            Incomplete::NoProvenance { .. } => return self.no_provenance(followed),
        };
        (code, reason(incomplete))
    }

    /// Nothing attached, nothing of it usable, and usable things without a provenance are three different answers.
    fn no_provenance(&self, followed: &Followed) -> (&'static str, String) {
        let head = format!("no provenance of a trusted builder is attached to {}", self.image);
        let unread = self.fetched.unread.keys().filter(|digest| !self.fetched.attached.contains_key(digest)).count();
        let attached = followed.seen.len() + unread;
        let usable = followed.seen.iter().filter(|seen| matches!(seen, Seen::Verified(_))).count();
        if attached == 0 {
            return ("none_attached", format!("{head}: nothing is attached to it"));
        }
        if usable > 0 {
            return (
                "no_provenance",
                format!("{head}: {attached} attached, {usable} verified, none of them a provenance of it"),
            );
        }
        let signers: BTreeSet<String> = followed
            .seen
            .iter()
            .filter_map(|seen| match seen {
                Seen::Ignored { bundle, .. } => self.fetched.attached.get(bundle),
                Seen::Verified(_) => None,
            })
            .map(|bytes| {
                Bundle::parse(bytes).map_or_else(|_| "nobody (no bundle)".to_owned(), |b| self.key(&b.key_hint))
            })
            .collect();
        let signers = if signers.is_empty() { "nobody (not read)".to_owned() } else { short_list(signers) };
        let expected = self.trust.signers().filter(|signer| signer.roles.contains(&Role::Steps));
        let expected = short_list(expected.map(|signer| self.key(&key_hint(&signer.public_key))));
        let text = format!("{head}: {attached} attached, 0 usable: signed by {signers}; expected {expected}");
        ("none_usable", text)
    }

    /// A key by its hint, with the name that trust.yaml gives it.
    fn key(&self, hint: &str) -> String {
        match self.trust.signers().find(|signer| key_hint(&signer.public_key) == hint) {
            Some(signer) => format!("{} (key {hint})", signer.name),
            None => format!("key {hint}"),
        }
    }
}

/// As much of what somebody says of a bundle as is said again.
fn beginning(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Names that a reason lists.
const LISTED: usize = 5;

fn short_list(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(LISTED);
    let mut out: Vec<String> = names.into_iter().take(LISTED).collect();
    if more > 0 {
        out.push(format!("{more} more"));
    }
    if out.is_empty() { "nobody".to_owned() } else { out.join(", ") }
}

/// Entries by digest, each once; the first that is said about a digest stays.
#[derive(Default)]
struct Listed {
    digests: BTreeMap<Digest, usize>,
    entries: Vec<Value>,
}

impl Listed {
    fn add(&mut self, digest: Digest, entry: impl FnOnce() -> Value) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.digests.entry(digest) {
            vacant.insert(self.entries.len());
            self.entries.push(entry());
        }
    }

    /// What is verified and belongs elsewhere stays verified and says so.
    fn unlink(&mut self, digest: &Digest, reason: &str) {
        if let Some(entry) = self.digests.get(digest).and_then(|at| self.entries.get_mut(*at)) {
            entry["unlinked"] = json!(reason);
        }
    }
}

fn missing(name: &str, digest: &Digest) -> Value {
    json!({"status": "missing", "name": name, "bundle": digest})
}

pub(crate) fn verified(statement: &VerifiedStatement) -> Value {
    let subjects = statement.statement().subjects.iter().map(|s| json!({"name": s.name, "digest": s.digest}));
    json!({
        "status": "verified",
        "predicateType": statement.statement().predicate_type.uri(),
        "kind": statement.statement().predicate_type.short(),
        "bundle": statement.bundle(),
        "subjects": subjects.collect::<Vec<_>>(),
        "signer": statement.signer(),
        "keyId": statement.key_id(),
        "log": {"origin": statement.log().origin, "index": statement.log().index},
        "time": {"source": "none"},
    })
}

/// The whole chain of causes in one line.
pub(crate) fn reason(error: &Incomplete) -> String {
    error.to_string()
}
