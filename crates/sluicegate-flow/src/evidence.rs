//! Recording, and checking what was recorded: a row in the evidence store and a leaf in the ledger for each record (trust model 16).

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::{
    predicate::PredicateType,
    summary::{LedgerHead, PromotionClaim, SummaryClaim},
};
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, NewRecord, Record, RecordKind},
    images::ImagePlaces,
    ledger::{Ledger, LedgerError},
    store::ContentStore,
};
use sluicegate_types::{
    Digest, EnvironmentName, ImageRef, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{Role, Trust, closed_set::Asked, verify};

use crate::{
    Error, Failure, Ports, evidence_content,
    fetch::{self, Fetched},
};

/// Records whose digests are held in memory at once.
const PAGE: u32 = 4096;

/// Appends a record: the row commits first, then its leaf, in a turn that no other process has meanwhile. Rows that were committed
/// and not logged before are taken along in the open (see [`head`]). An error after the row leaves it pending: the next record or
/// question takes it along. Nothing is recorded behind a ledger or a record that is damaged, and what is given is in the ledger.
pub fn record(ports: &Ports<'_>, new: &NewRecord) -> Result<Record, Error> {
    let _turn = ports.evidence.turn()?;
    let before = caught_up(ports)?;
    let record = ports.evidence.append(new)?;
    // Whoever writes without a turn came in between.
    let last = match before.size + 1 {
        own if own < record.sequence => adopt(ports, (own, record.sequence - 1), record.sequence)?,
        _ => record.sequence,
    };
    log_up_to(ports.evidence, ports.ledger, last)?;
    match leaf_of(ports.ledger, record.sequence)? {
        Some(leaf) if leaf == record.digest => Ok(record),
        Some(_) => Err(damaged(record.sequence, other_than_its_leaf(record.sequence))),
        None => Err(damaged(record.sequence, "it was recorded and is not in the ledger".to_owned())),
    }
}

/// The ledger's head after every committed row is in it. Rows that this process did not write just now are taken along with a record
/// that says so and a warning: an interrupted command leaves one, and so does whoever can write the database and has no key.
pub fn head(ports: &Ports<'_>) -> Result<LedgerHead, Error> {
    let _turn = ports.evidence.turn()?;
    caught_up(ports)
}

/// Takes the records along that a store has before its ledger begins, and says so in one more; gives which these are. `None`, and
/// nothing is recorded, if there are none.
pub fn begin(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, at: UnixTime) -> Result<Option<(u64, u64)>, Error> {
    let _turn = evidence.turn()?;
    match newest_pending(evidence, &ledger.head()?)? {
        None => Ok(None),
        Some((from, to)) => {
            let last = adopt_all(evidence, at, (from, to), to, &|_, _, _| {})?;
            log_up_to(evidence, ledger, last)?;
            Ok(Some((from, to)))
        }
    }
}

/// In the turn of whoever asks.
fn caught_up(ports: &Ports<'_>) -> Result<LedgerHead, Error> {
    let head = ports.ledger.head()?;
    stands_on_its_record(ports.evidence, ports.ledger, &head)?;
    match newest_pending(ports.evidence, &head)? {
        None => Ok(head),
        Some((from, to)) => {
            let last = adopt(ports, (from, to), to)?;
            log_up_to(ports.evidence, ports.ledger, last)
        }
    }
}

/// The first and the last row that the ledger does not have.
fn newest_pending(evidence: &dyn EvidenceLog, head: &LedgerHead) -> Result<Option<(u64, u64)>, Error> {
    let last = evidence.list(1)?.first().map_or(0, |newest| newest.sequence);
    Ok((last > head.size).then_some((head.size + 1, last)))
}

/// Records and says that `rows` are taken along, before they are; gives the number of the last record that says so. `last` is the newest
/// record that is known.
fn adopt(ports: &Ports<'_>, rows: (u64, u64), last: u64) -> Result<u64, Error> {
    adopt_all(ports.evidence, ports.clock.now(), rows, last, &|from, to, by| {
        let rows = if from == to { format!("record {from}") } else { format!("records {from} to {to}") };
        (ports.warn)(&format!(
            "taken along into the ledger: evidence {rows}, which another process wrote and did not log; an interrupted command \
             leaves one behind, more need a reason (recorded as evidence {by})"
        ));
    })
}

/// A row that comes in while this is being recorded is one more that another process wrote: each stands in one of the records that say so,
/// or nothing is logged.
fn adopt_all(
    evidence: &dyn EvidenceLog,
    at: UnixTime,
    rows: (u64, u64),
    last: u64,
    say: &dyn Fn(u64, u64, u64),
) -> Result<u64, Error> {
    let ((mut from, mut to), mut last) = (rows, last);
    for _ in 0..ADOPTIONS {
        let said = evidence.append(&adoption(from, to, at))?.sequence;
        say(from, to, said);
        (from, to, last) = (last + 1, said.saturating_sub(1), said);
        if from > to {
            return Ok(last);
        }
    }
    Err(Error::Again("another process writes into the evidence store all the time, and logs nothing".to_owned()))
}

/// How often rows that came in meanwhile are taken along in one turn.
const ADOPTIONS: usize = 16;

fn adoption(from: u64, to: u64, at: UnixTime) -> NewRecord {
    NewRecord {
        kind: RecordKind::Ledger,
        at,
        subject: None,
        environment: None,
        outcome: ADOPTED.to_owned(),
        body: json!({"from": from, "to": to}),
    }
}

/// Logs the rows that are not logged, record `last` the last one. Rows behind it stay pending: they are nobody's in this turn.
fn log_up_to(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, last: u64) -> Result<LedgerHead, Error> {
    loop {
        let head = ledger.head()?;
        stands_on_its_record(evidence, ledger, &head)?;
        let limit = u32::try_from(last.saturating_sub(head.size)).unwrap_or(u32::MAX).min(PAGE);
        let pending = if limit == 0 { Vec::new() } else { evidence.digests_after(head.size, limit)? };
        if pending.is_empty() {
            return Ok(head);
        }
        match ledger.append(head.size, &pending) {
            // Somebody else took these rows along; what is left is looked at anew.
            Ok(_) | Err(LedgerError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The leaf that stands for a record, if the ledger has it.
fn leaf_of(ledger: &dyn Ledger, sequence: u64) -> Result<Option<Digest>, Error> {
    let Some(place) = sequence.checked_sub(1) else { return Ok(None) };
    Ok(ledger.leaves(place, 1)?.first().copied())
}

/// How a record that was read stands to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its leaf is its digest, logged by whoever wrote the record.
    Logged,
    /// Its leaf is its digest, and another process took it along: by the record that says so. Whoever writes the database can lay such
    /// a record there without a key.
    Adopted {
        /// The number of that record.
        by: u64,
    },
    /// It is not in the ledger yet.
    Pending,
    /// The ledger has another record in its place.
    Differs,
}

/// How each record stands to the ledger, as far as these records say it: those that were taken along are followed by the one that says
/// so. `head` was asked for before the records were read, so that what is added meanwhile is more,
/// never less.
pub fn standings(ledger: &dyn Ledger, head: &LedgerHead, records: &[Record]) -> Result<Vec<Standing>, Error> {
    let sequences = || records.iter().map(|record| record.sequence);
    let (Some(first), Some(last)) = (sequences().min(), sequences().max()) else { return Ok(Vec::new()) };
    let leaves = match last.min(head.size).checked_sub(first.max(1) - 1) {
        None | Some(0) => Vec::new(),
        Some(count) => ledger.leaves(first.max(1) - 1, count)?,
    };
    let adoptions = Adoptions::among(records.iter(), head.size);
    let adopted =
        |record: &Record| adoptions.of(record.sequence).map_or(Standing::Logged, |by| Standing::Adopted { by });
    let standing = |record: &Record| {
        let place = record.sequence.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| leaves.get(place)) {
            Some(leaf) if *leaf == record.digest => adopted(record),
            None if record.sequence > head.size => Standing::Pending,
            _ => Standing::Differs,
        }
    };
    Ok(records.iter().map(standing).collect())
}

/// Which records were taken along. A record that says so and was itself taken along says nothing: whoever forges one can't make others
/// look forged.
pub(crate) struct Adoptions {
    /// The first and the last record of each, and the one that says so.
    said: Vec<(u64, u64, u64)>,
    /// Records that the ledger has.
    size: u64,
}

impl Adoptions {
    /// As those of these records say it that the ledger has.
    fn among<'a>(records: impl Iterator<Item = &'a Record>, size: u64) -> Self {
        let mut said: Vec<_> = records.filter(|record| record.sequence <= size).filter_map(adopted).collect();
        said.sort_by_key(|(_, _, by)| std::cmp::Reverse(*by));
        let mut believed = Self { said: Vec::new(), size };
        for (from, to, by) in said {
            if from <= to && to < by && believed.of(by).is_none() {
                believed.said.push((from, to, by));
            }
        }
        believed
    }

    /// As all records say it.
    pub(crate) fn of_all(evidence: &dyn EvidenceLog, ledger: &dyn Ledger) -> Result<Self, Error> {
        let size = ledger.head()?.size;
        let mut said = Vec::new();
        evidence.walk(&mut |record| said.extend(adopted(record).is_some().then(|| record.clone())))?;
        Ok(Self::among(said.iter(), size))
    }

    /// Whether whoever wrote this record logged it.
    pub(crate) fn vouch_for(&self, sequence: u64) -> bool {
        sequence <= self.size && self.of(sequence).is_none()
    }

    /// The record that says that this one was taken along.
    fn of(&self, sequence: u64) -> Option<u64> {
        self.said.iter().find(|(from, to, _)| (*from..=*to).contains(&sequence)).map(|(_, _, by)| *by)
    }
}

/// The first and the last record that this one says were taken along, and its own number.
fn adopted(record: &Record) -> Option<(u64, u64, u64)> {
    let is_adoption = record.kind == RecordKind::Ledger && record.outcome == ADOPTED;
    let number = |name: &str| record.body[name].as_u64();
    is_adoption.then(|| number("from").zip(number("to")).map(|(from, to)| (from, to, record.sequence))).flatten()
}

const ADOPTED: &str = "adopted";

/// A record, and whether the ledger has it. One that the ledger has otherwise, or that it has and the store does not, is damaged.
pub fn show(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, sequence: u64) -> Result<(Record, Standing), Error> {
    let head = ledger.head()?;
    let record = match evidence.show(sequence) {
        Err(EvidenceError::NoRecord { .. }) if (1..=head.size).contains(&sequence) => {
            return Err(damaged(sequence, gone(&head)));
        }
        other => other?,
    };
    match standings(ledger, &head, std::slice::from_ref(&record))?.first() {
        Some(Standing::Differs) | None => Err(damaged(sequence, other_than_its_leaf(sequence))),
        Some(Standing::Logged) => {
            let by = Adoptions::of_all(evidence, ledger)?.of(sequence);
            Ok((record, by.map_or(Standing::Logged, |by| Standing::Adopted { by })))
        }
        Some(standing) => Ok((record, *standing)),
    }
}

/// The newest records, newest first, each with how it stands to the ledger. An error if the ledger has records that the store lacks.
pub fn list(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, limit: u32) -> Result<Vec<(Record, Standing)>, Error> {
    let head = ledger.head()?;
    let records = evidence.list(limit.max(1))?;
    let newest = records.first().map_or(0, |record| record.sequence);
    if newest < head.size {
        return Err(damaged(newest + 1, gone(&head)));
    }
    let standings = standings(ledger, &head, &records)?;
    Ok(records.into_iter().zip(standings).take(limit as usize).collect())
}

fn damaged(sequence: u64, reason: String) -> Error {
    EvidenceError::Damaged { sequence, reason }.into()
}

fn gone(head: &LedgerHead) -> String {
    format!("it is missing: the ledger has {} leaves, one for each record", head.size)
}

/// The newest leaf and its record must be one: otherwise what follows would be logged behind a store that was cut back or exchanged.
fn stands_on_its_record(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, head: &LedgerHead) -> Result<(), Error> {
    let Some(last) = head.size.checked_sub(1).filter(|_| is_on(Check::NewestRecord)) else { return Ok(()) };
    let leaf = ledger.leaves(last, 1)?.first().copied();
    match evidence.digests_after(last, 1)?.first() {
        Some(digest) if Some(*digest) == leaf => Ok(()),
        Some(_) => Err(damaged(head.size, other_than_its_leaf(head.size))),
        None => Err(damaged(head.size, gone(head))),
    }
}

fn other_than_its_leaf(sequence: u64) -> String {
    format!("it is not the record that the ledger's leaf {} stands for", sequence - 1)
}

/// Statements that were signed outside the home's reach and hold what the ledger was then.
pub struct Against<'a> {
    /// Opens the images' places.
    pub places: &'a dyn ImagePlaces,
    /// The images that these statements are attached to.
    pub references: &'a [ImageRef],
    /// The folder that the references are relative to.
    pub folder: &'a Path,
    /// Who is believed.
    pub trust: &'a Trust,
    /// The moment at which.
    pub at: UnixTime,
}

/// A verified statement that holds a head of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The image it is attached to, as it was asked for.
    pub reference: String,
    /// The image.
    pub image: Digest,
    /// Its bundle.
    pub bundle: Digest,
    /// `verification-summary` or `promotion`.
    pub kind: String,
    /// Who signed it.
    pub signer: String,
    /// The environment that it is about.
    pub environment: EnvironmentName,
    /// What it says the ledger was.
    pub head: LedgerHead,
}

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
        let contents = evidence_content::check(evidence, store)?;
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

fn span(first: u64, last: u64) -> String {
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

/// Every verified statement about the image that holds a head: decisions and promotions that are attached to it, and denials, which lie
/// beside it as artifacts of their own type.
fn anchors(against: &Against<'_>, reference: &ImageRef) -> Result<Vec<Anchor>, Error> {
    let place = reference.clone().relative_to(against.folder);
    let source = against.places.source(&place.directory)?;
    let descriptor = source.resolve(&place.selector)?;
    let asked = Asked { trust: against.trust, repository: None, at: against.at };
    let fetched = fetch::fetch(source.as_ref(), &descriptor, asked)?;
    Ok(anchors_in(&fetched, &reference.to_string(), against.trust, against.at))
}

fn anchors_in(fetched: &Fetched, reference: &str, trust: &Trust, at: UnixTime) -> Vec<Anchor> {
    let image = fetched.descriptor.digest;
    let mut found = Vec::new();
    for bytes in fetched.attached.values().chain(fetched.blobs.values()) {
        // What is attached and not to be believed is junk, and anyone may attach junk (trust model 12).
        let Ok(verified) = verify(bytes, trust, at) else { continue };
        let statement = verified.statement();
        let believed = [Role::Decisions, Role::Records].into_iter().any(|role| verified.is_in_role(role));
        if !believed || !statement.is_about_image(&image) {
            continue;
        }
        let claim = match statement.predicate_type {
            PredicateType::VerificationSummary => {
                SummaryClaim::parse(&statement.predicate).map(|claim| (claim.environment, claim.ledger))
            }
            PredicateType::Promotion => {
                PromotionClaim::parse(&statement.predicate).map(|claim| (claim.environment, claim.ledger))
            }
            _ => continue,
        };
        let Ok((environment, Some(head))) = claim else { continue };
        found.push(Anchor {
            reference: reference.to_owned(),
            image,
            bundle: verified.bundle(),
            kind: statement.predicate_type.short().to_owned(),
            signer: verified.signer().to_owned(),
            environment,
            head,
        });
    }
    found
}

/// Compares the ledger with what the decisions on an image say it was, which is what a place holds before something else comes there:
/// an error if it was cut back or rewritten since. Gives the other ledgers that they are about.
pub(crate) fn fits_what_is_there(
    ports: &Ports<'_>,
    fetched: &Fetched,
    reference: &str,
    trust: &Trust,
) -> Result<BTreeSet<String>, Error> {
    let found = anchors_in(fetched, reference, trust, ports.clock.now());
    let mut report = FsckReport::default();
    judge_anchors(ports.ledger, &head(ports)?, reference, found, &mut report)?;
    match report.damage.into_iter().next() {
        Some(damage) if is_on(Check::OccupantLedger) => Err(Error::CutBack(damage)),
        _ => Ok(report.other_ledgers),
    }
}

/// What one image's statements prove about a ledger that is `head` now.
fn judge_anchors(
    ledger: &dyn Ledger,
    head: &LedgerHead,
    reference: &str,
    found: Vec<Anchor>,
    report: &mut FsckReport,
) -> Result<(), Error> {
    let mut others = BTreeSet::new();
    let (mut used, mut empty) = (false, false);
    for anchor in found {
        let then = &anchor.head;
        if then.origin != head.origin {
            others.insert(then.origin.clone());
            continue;
        }
        if then.size == 0 {
            empty = true;
            continue;
        }
        used = true;
        let said = format!(
            "{} {} of {reference}, signed by {}, says that the ledger had {} leaves",
            anchor.kind, anchor.bundle, anchor.signer, then.size
        );
        if is_on(Check::CutBack) && then.size > head.size {
            report.damage.push(format!(
                "the evidence was cut back: {said}; it has {}, so {} gone",
                head.size,
                span(head.size + 1, then.size)
            ));
        } else if is_on(Check::Rewritten) && ledger.root_at(then.size)? != then.root {
            report
                .damage
                .push(format!("the evidence was rewritten: {said} with the root {}; they have another", then.root));
        } else {
            report.anchors.push(anchor);
        }
    }
    report.other_ledgers.extend(others.iter().cloned());
    if !used {
        let mut reasons = Vec::new();
        if !others.is_empty() {
            reasons.push(format!(
                "its statements are about {}, and this home's ledger is {}: another home decided, or this ledger was exchanged",
                others.into_iter().collect::<Vec<_>>().join(", "),
                head.origin
            ));
        }
        if empty {
            reasons.push("its statements were signed over an empty ledger, which proves nothing".to_owned());
        }
        report.unanchored.push((reference.to_owned(), reasons.join("; ")));
    }
    Ok(())
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
