//! What records keep in the content store beside themselves: documents, facts, bundles and everything that a decision can be made again
//! from. A record whose content is gone or changed proves less than it says (trust model 16).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluicegate_ports::{
    evidence::{EvidenceLog, Record, RecordKind},
    store::{ContentStore, StoreError},
};
use sluicegate_types::{
    Digest,
    checks::{Check, is_on},
};

use crate::{
    Error,
    replay::{self, MAX_INPUT},
};

/// Faults that are told one by one.
const MAX_TOLD: usize = 20;

/// What hashing all of it found.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// How many contents there are, each counted once.
    pub(crate) count: u64,
    /// What is not there, or has other bytes, by the first record that names it.
    pub(crate) damage: Vec<String>,
}

/// Hashes every content that a record names, and what is named by the list of inputs of a decision. It changes nothing.
pub(crate) fn check(evidence: &dyn EvidenceLog, store: &dyn ContentStore) -> Result<Contents, Error> {
    let Named { contents: named, mut faults, .. } = named(evidence, store)?;
    let mut contents = Contents { count: named.len() as u64, damage: Vec::new() };
    for (digest, (sequence, what)) in named {
        if let Some(fault) = whole(store, &digest)? {
            faults.push((sequence, format!("evidence record {sequence}: {what} {digest} {fault}")));
        }
    }
    if !is_on(Check::EvidenceContent) {
        faults.clear();
    }
    faults.sort();
    let more = faults.len().saturating_sub(MAX_TOLD);
    contents.damage = faults.into_iter().take(MAX_TOLD).map(|(_, fault)| fault).collect();
    if more > 0 {
        contents.damage.push(format!("and so with {more} more contents of records"));
    }
    Ok(contents)
}

/// The contents that records keep.
pub(crate) struct Named {
    /// Each with the first record that names it, and what it is there.
    pub(crate) contents: BTreeMap<Digest, (u64, String)>,
    /// Those that this program wrote: whatever a log or a report says is the step's that left it.
    pub(crate) own: BTreeSet<Digest>,
    /// Lists that say nothing of sense, by their records.
    faults: Vec<(u64, String)>,
}

/// Every content that a record keeps, and what is named by the list of inputs of a decision.
pub(crate) fn named(evidence: &dyn EvidenceLog, store: &dyn ContentStore) -> Result<Named, Error> {
    let mut named: BTreeMap<Digest, (u64, String)> = BTreeMap::new();
    let (mut lists, mut own) = (Vec::new(), BTreeSet::new());
    evidence.walk(&mut |record| {
        for (what, digest) in content_of(record) {
            if ![LOG, REPORT, FAILED_REPORT].contains(&what) {
                own.insert(digest);
            }
            if what == REPLAY && !named.contains_key(&digest) {
                lists.push((record.sequence, digest));
            }
            named.entry(digest).or_insert_with(|| (record.sequence, what.to_owned()));
        }
    })?;
    let mut faults: Vec<(u64, String)> = Vec::new();
    for (sequence, list) in lists {
        // A list that is not there or damaged is told below; one that says nothing of sense is told here.
        let Ok(bytes) = store.read(&list, MAX_INPUT) else { continue };
        match replay::inputs_in(&bytes) {
            Ok(inputs) => {
                for (what, digest) in inputs {
                    named.entry(digest).or_insert((sequence, what));
                }
            }
            Err(reason) => {
                let fault = format!("evidence record {sequence}: {REPLAY} {list} says nothing of sense: {reason}");
                faults.push((sequence, fault));
            }
        }
    }
    Ok(Named { contents: named, own, faults })
}

/// `None` if the bytes are those of the digest.
fn whole(store: &dyn ContentStore, digest: &Digest) -> Result<Option<String>, Error> {
    let mut file = match store.open(digest) {
        Err(StoreError::Missing { .. }) => return Ok(Some("is not in the store any more".to_owned())),
        opened => opened?,
    };
    let io = |source| Error::Io { action: "read", path: digest.to_string().into(), source };
    let (found, _) = Digest::of_reader(&mut file).map_err(io)?;
    Ok((found != *digest).then(|| format!("is damaged: its bytes have the digest {found}")))
}

const REPLAY: &str = "the list of its inputs";
const LOG: &str = "a step's log";
const REPORT: &str = "a step's report";
const FAILED_REPORT: &str = "the report of a failed step";

/// The contents that a record's body names, each with what it is.
fn content_of(record: &Record) -> Vec<(&'static str, Digest)> {
    let body = &record.body;
    let mut found = Vec::new();
    let mut take = |what: &'static str, value: &Value| {
        found.extend(value.as_str().and_then(|text| text.parse().ok()).map(|digest: Digest| (what, digest)));
    };
    match record.kind {
        RecordKind::Decision => {
            take("its document", &body["document"]);
            take("its facts", &body["facts"]);
            take(REPLAY, &body["replay"]);
        }
        RecordKind::Denial => {
            take("its summary", &body["summary"]);
            take("the manifest of its denial", &body["denial"]);
        }
        RecordKind::Promotion => {
            let statements = body["statements"].as_array().into_iter().flatten();
            statements.for_each(|statement| take("its statement", statement));
        }
        RecordKind::Attestation => {
            take("its bundle", &body["bundle"]);
            take("its manifest", &body["referrer"]);
            take("the provenance of a failed step", &body["attestation"]);
            take("the test result of a failed step", &body["testResult"]);
            take(FAILED_REPORT, &body["report"]);
        }
        RecordKind::Run => {
            let evidence = body["evidence"].as_array().into_iter().flatten();
            evidence.for_each(|part| take("a bundle or report of its evidence", part));
            let steps = ["steps", "otherSteps"].into_iter().filter_map(|part| body[part].as_array());
            for step in steps.flatten() {
                take("a step's provenance", &step["attestation"]);
                take("a step's test result", &step["testResult"]);
                take(LOG, &step["log"]);
                take(REPORT, &step["report"]);
                take("the statement that a step's result was taken from", &step["origin"]);
            }
        }
        RecordKind::Ledger => {}
    }
    found
}
