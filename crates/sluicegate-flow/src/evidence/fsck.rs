//! `fsck`: whether the evidence store, the ledger, what records keep and what signed statements say fit each other.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::summary::LedgerHead;
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog},
    ledger::{Ledger, LedgerError},
    store::ContentStore,
};
use sluicegate_types::checks::{Check, is_on};

use super::{
    PAGE,
    anchors::{Against, Anchor, anchors, judge_anchors},
    content, other_than_its_leaf,
};
use crate::{Error, Failure};

/// What `fsck` found.
#[derive(Debug, Default)]
pub struct FsckReport {
    /// How many records there are; `None` if the walk came upon a damaged one.
    pub records: Option<u64>,
    /// What the ledger is; `None` if it is damaged.
    pub ledger: Option<LedgerHead>,
    /// How many contents of the store the records name; each was hashed.
    pub contents: u64,
    /// Everything that is not as it was written, in words that name the record or the file.
    pub damage: Vec<String>,
    /// The statements that agree with the ledger, the one with the largest ledger last.
    pub anchors: Vec<Anchor>,
    /// The images that prove nothing about this ledger, with the reason.
    pub unanchored: Vec<(String, String)>,
    /// Other ledgers that believed statements are about: of another home, or of this one before its ledger was exchanged.
    pub other_ledgers: BTreeSet<String>,
}

impl FsckReport {
    /// Rows that are not in the ledger yet.
    pub fn pending(&self) -> u64 {
        match (&self.ledger, self.records) {
            (Some(head), Some(records)) => records.saturating_sub(head.size),
            _ => 0,
        }
    }

    /// The statement that vouches for the most records.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchors.last()
    }

    /// `None` if everything is whole and in the ledger, and every image that was named vouches for it.
    pub fn failure(&self) -> Option<Failure> {
        if !self.damage.is_empty() {
            Some(Failure::Wrong)
        } else if !self.unanchored.is_empty() || self.pending() > 0 {
            Some(Failure::Undecided)
        } else {
            None
        }
    }

    /// Everything, for machines.
    pub fn to_json(&self) -> Value {
        let anchors = self.anchors.iter().map(|anchor| {
            json!({
                "reference": anchor.reference, "image": anchor.image, "bundle": anchor.bundle, "kind": anchor.kind,
                "signer": anchor.signer, "environment": anchor.environment, "ledger": anchor.head,
            })
        });
        json!({
            "schemaVersion": 1,
            "whole": self.damage.is_empty(),
            "records": self.records,
            "ledger": self.ledger,
            "contents": self.contents,
            "pending": self.pending(),
            "damage": self.damage,
            "otherLedgers": self.other_ledgers,
            "anchors": anchors.collect::<Vec<_>>(),
            "completeSince": self.anchor().filter(|_| self.damage.is_empty()).map(|anchor| &anchor.head),
            "unanchored": self.unanchored.iter().map(|(reference, reason)| json!({"reference": reference, "reason": reason}))
                .collect::<Vec<_>>(),
        })
    }
}

/// Checks the evidence store, the ledger and each against the other, what the records keep in the content store, and the ledger
/// against what signed statements say it was. It changes nothing: rows that are not in the ledger yet are counted and stay pending.
///
/// Damage is in the report; an error is what could not be looked at.
pub fn fsck(
    evidence: &dyn EvidenceLog,
    ledger: &dyn Ledger,
    store: &dyn ContentStore,
    against: Option<&Against<'_>>,
) -> Result<FsckReport, Error> {
    let mut report = FsckReport::default();
    // Statements before the ledger, and the ledger before the rows: what others add meanwhile is then more, never less.
    let mut heads = Vec::new();
    for reference in against.iter().flat_map(|against| against.references) {
        match against.map(|against| anchors(against, reference)).transpose()?.unwrap_or_default() {
            found if found.is_empty() => {
                let reason = "nothing that a trusted decisions or records key signed about it holds a ledger's head";
                report.unanchored.push((reference.to_string(), reason.to_owned()));
            }
            found => heads.push((reference.to_string(), found)),
        }
    }
    report.ledger = match ledger.check() {
        Ok(head) => Some(head),
        Err(error @ LedgerError::Damaged { .. }) => {
            report.damage.push(error.to_string());
            None
        }
        Err(error) => return Err(error.into()),
    };
    report.records = match evidence.check() {
        Ok(records) => Some(records),
        Err(error @ (EvidenceError::Damaged { .. } | EvidenceError::Corrupt { .. })) => {
            report.damage.push(error.to_string());
            None
        }
        Err(error) => return Err(error.into()),
    };
    if let (Some(head), Some(records)) = (report.ledger.clone(), report.records) {
        if let Some(words) = compare(evidence, ledger, head.size.min(records))? {
            report.damage.push(words);
        }
        if is_on(Check::RecordsMissing) && head.size > records {
            report.damage.push(format!(
                "the ledger has {} leaves and the store {records} records: evidence {} missing",
                head.size,
                span(records + 1, head.size)
            ));
        }
    }
    if report.records.is_some() {
        let contents = content::check(evidence, store)?;
        report.contents = contents.count;
        report.damage.extend(contents.damage);
    }
    if let Some(head) = report.ledger.clone() {
        for (reference, found) in heads {
            judge_anchors(ledger, &head, &reference, found, &mut report)?;
        }
    }
    report.anchors.sort_by_key(|anchor| anchor.head.size);
    Ok(report)
}

pub(super) fn span(first: u64, last: u64) -> String {
    if first == last { format!("record {first} is") } else { format!("records {first} to {last} are") }
}

/// Each of the first `count` records against its leaf; the words for the first that differs.
fn compare(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, count: u64) -> Result<Option<String>, Error> {
    let (mut place, mut first, mut others) = (0, None, 0);
    while place < count {
        let page = u64::from(PAGE).min(count - place);
        let leaves = ledger.leaves(place, page)?;
        let digests = evidence.digests_after(place, PAGE)?;
        if (leaves.len() as u64) < page || (digests.len() as u64) < page {
            return Err(Error::Again("the evidence store or the ledger changed under the check; ask again".to_owned()));
        }
        for (leaf, digest) in leaves.iter().zip(digests) {
            place += 1;
            match first {
                _ if *leaf == digest || !is_on(Check::RecordIsLeaf) => {}
                None => first = Some(place),
                Some(_) => others += 1,
            }
        }
    }
    Ok(first.map(|sequence| {
        let reason = other_than_its_leaf(sequence);
        let others = if others == 0 { String::new() } else { format!(", and so with {others} later ones") };
        format!("{}{others}", EvidenceError::Damaged { sequence, reason })
    }))
}
