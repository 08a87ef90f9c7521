//! `prune`: deletes what nothing refers to, and what can be made or fetched again and nobody used for long.
//!
//! First everything is read and decided, and nothing is touched: evidence that is not whole, or anything else that can't be read, ends it
//! there. Then what leads to contents goes before any content does, so that whoever comes after a crash finds less, and nothing that dangles.

mod materials;
mod references;
pub mod shared_store;

use std::{collections::BTreeMap, time::Duration};

use sluicegate_ports::{
    evidence::EvidenceLog,
    images::Manifest,
    ledger::Ledger,
    prune::{Disposable, Listed, PrunableStore, StoredContent, Thing, Tie},
    store::ContentStore,
};
use sluicegate_types::{Digest, UnixTime};

use self::references::{Contents, References, Unread, named_in};
use crate::{
    Error,
    evidence::{FsckReport, fsck, named_by_records},
};

/// Bytes of the manifest of something that is kept in another form.
const MAX_MANIFEST: u64 = 64 * 1024;

/// What a home consists of, as far as anything of it may go or says that something must not.
pub struct Parts<'a> {
    /// The store, which nobody else has open while anything is deleted.
    pub store: &'a dyn PrunableStore,
    /// What was recorded: every content that a record names stays, with all that this names.
    pub evidence: &'a dyn EvidenceLog,
    /// What says whether all of it is there.
    pub ledger: &'a dyn Ledger,
    /// Statements that wait to be logged, and are no contents yet.
    pub waiting: &'a [Vec<u8>],
    /// What can be made or fetched again.
    pub disposable: &'a [&'a dyn Disposable],
}

/// How much of what can be made or fetched again is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// What was used within this time; `None` keeps nothing.
    pub used_within: Option<Duration>,
    /// At most so many bytes, the latest used first; `None` is no limit.
    pub bytes: Option<u64>,
    /// Which of what steps read and left.
    pub materials: Materials,
    /// Now.
    pub now: UnixTime,
}

/// Which contents are kept that steps read or left, and of which an image does not consist: outputs, sources, images that steps ran in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Materials {
    /// All that a recorded statement names.
    Named,
    /// Those of results that are kept. Statements go on naming the others, and prove what they proved.
    OfKeptResults,
}

/// A number of things and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn of(bytes: impl Iterator<Item = u64>) -> Self {
        let mut amount = Self::default();
        bytes.for_each(|bytes| amount.add(bytes));
        amount
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What is to go, of everything that is there.
#[derive(Debug)]
pub struct Plan {
    /// For each kind of [`Parts::disposable`], in that order.
    pub kinds: Vec<KindPlan>,
    /// Contents that nothing refers to.
    pub contents: Vec<StoredContent>,
    /// Contents that are kept for what was recorded.
    pub recorded: Amount,
    /// Contents that are kept for nothing but what can be made again.
    pub reusable: Amount,
    /// Files that processes began, which are gone.
    pub drafts: Amount,
    /// What is no content of the store, and is left alone.
    pub strangers: Vec<std::path::PathBuf>,
}

/// What is to go of one kind.
#[derive(Debug)]
pub struct KindPlan {
    /// The kind.
    pub what: &'static str,
    /// What goes.
    pub things: Vec<Thing>,
    /// What stays.
    pub kept: Amount,
}

impl KindPlan {
    /// How much goes.
    pub fn deleted(&self) -> Amount {
        Amount::of(self.things.iter().map(|thing| thing.size))
    }
}

impl Plan {
    /// How much content goes.
    pub fn deleted_contents(&self) -> Amount {
        Amount::of(self.contents.iter().map(|content| content.size))
    }

    /// How much goes of everything.
    pub fn deleted(&self) -> Amount {
        let mut all = self.deleted_contents();
        all += self.drafts;
        self.kinds.iter().for_each(|kind| all += kind.deleted());
        all
    }
}

/// Deleting broke off. What is left is whole, and goes the next time.
#[derive(Debug)]
pub struct BrokeOff {
    /// What was deleted before.
    pub deleted: Amount,
    /// Why it went no further.
    pub error: Box<Error>,
}

/// Decides what goes, and changes nothing. An error is that something could not be read on which this depends.
pub fn plan(parts: &Parts<'_>, keep: &Keep) -> Result<Plan, Error> {
    require_whole(&fsck(parts.evidence, parts.ledger, parts.store, None)?)?;
    let Listed { contents, drafts, draft_bytes, strangers } = parts.store.list()?;
    let sizes: BTreeMap<Digest, u64> = contents.iter().map(|content| (content.digest, content.size)).collect();
    let store: &dyn ContentStore = parts.store;
    let mut references = References::new(store, &sizes);
    let roots = roots(parts)?;
    let mut recorded = references.reach(roots.clone(), &Contents::new()).map_err(needed)?;
    if keep.materials == Materials::OfKeptResults {
        let named = named_by_records(parts.evidence, store)?;
        let mut materials = materials::of_steps(&mut references, store, &named.own).map_err(needed)?;
        // Whatever a step read or left of these, the records keep them as documents of their own.
        materials.retain(|material| !named.contents.contains_key(material));
        recorded = references.reach(roots, &materials).map_err(needed)?;
    }

    // What was recorded is kept with all that it names, unless materials are another matter.
    let goes_no_further = if keep.materials == Materials::Named { recorded.clone() } else { Contents::new() };
    let mut claims = Vec::new();
    let mut kinds = Vec::with_capacity(parts.disposable.len());
    for (kind, disposable) in parts.disposable.iter().enumerate() {
        let mut things = Vec::new();
        for thing in disposable.things()? {
            match claim(&mut references, &recorded, &goes_no_further, &thing).filter(|_| keep.is_young(thing.used)) {
                Some(contents) => claims.push(Claim { kind, thing, contents }),
                None => things.push(thing),
            }
        }
        kinds.push(KindPlan { what: disposable.what(), things, kept: Amount::default() });
    }
    if let Some(limit) = keep.bytes {
        for Claim { kind, thing, .. } in shrink(&mut claims, &sizes, limit) {
            kinds[kind].things.push(thing);
        }
    }
    let mut reusable: Contents = claims.iter().flat_map(|claim| claim.contents.iter().copied()).collect();
    reusable.extend(manifests(&mut references, store, &recorded, &claims));
    claims.iter().for_each(|claim| kinds[claim.kind].kept.add(claim.thing.size));

    let of = |set: &Contents| Amount::of(set.iter().filter_map(|digest| sizes.get(digest).copied()));
    Ok(Plan {
        recorded: of(&recorded),
        reusable: of(&reusable),
        contents: contents
            .into_iter()
            .filter(|content| !recorded.contains(&content.digest) && !reusable.contains(&content.digest))
            .collect(),
        kinds,
        drafts: Amount { count: drafts, bytes: draft_bytes },
        strangers,
    })
}

/// Deletes what was decided: what leads to contents before them. What is gone already was to be gone.
pub fn carry_out(parts: &Parts<'_>, plan: &Plan) -> Result<(), BrokeOff> {
    let mut deleted = Amount::default();
    let mut done = |removed: Result<(), sluicegate_ports::store::StoreError>, amount: Amount| match removed {
        Ok(()) => {
            deleted += amount;
            Ok(())
        }
        Err(error) => Err(BrokeOff { deleted, error: Box::new(error.into()) }),
    };
    for (disposable, kind) in parts.disposable.iter().zip(&plan.kinds) {
        for thing in &kind.things {
            done(disposable.remove(&thing.name), Amount { count: 1, bytes: thing.size })?;
        }
    }
    done(parts.store.remove_drafts(), plan.drafts)?;
    for content in &plan.contents {
        done(parts.store.remove(&content.digest), Amount { count: 1, bytes: content.size })?;
    }
    Ok(())
}

impl Keep {
    /// Whether what was used then is kept for it. What is from the future was used by a clock that is ahead.
    fn is_young(&self, used: UnixTime) -> bool {
        let age = u64::try_from(self.now.seconds().saturating_sub(used.seconds())).unwrap_or_default();
        self.used_within.is_some_and(|time| age <= time.as_secs())
    }
}

/// Records that are missing or changed, and contents of them that are, say less than what they referred to.
fn require_whole(report: &FsckReport) -> Result<(), Error> {
    match report.damage.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Err(Error::Needed(format!("{first}{more}")))
        }
    }
}

fn needed(unread: Unread) -> Error {
    match unread.error {
        error @ sluicegate_ports::store::StoreError::Io { .. } => error.into(),
        error => Error::Needed(format!("what {} refers to is not known: {error}", unread.content)),
    }
}

/// The contents that a record names, whatever for, and those that a statement names that is still to be logged.
fn roots(parts: &Parts<'_>) -> Result<Contents, Error> {
    let mut roots = Contents::new();
    parts.evidence.walk(&mut |record| {
        roots.extend(record.subject);
        // Every member: what a later version records is kept by an earlier one, too.
        named_in(record.body.to_string().as_bytes(), &mut roots);
    })?;
    parts.waiting.iter().for_each(|statement| named_in(statement, &mut roots));
    Ok(roots)
}

/// A thing that is kept, with the contents that are kept for it and not for what was recorded.
struct Claim {
    kind: usize,
    thing: Thing,
    contents: Contents,
}

/// What is kept with a thing and not for what was recorded; `None` if the thing is worth nothing.
fn claim(
    references: &mut References<'_>,
    recorded: &Contents,
    goes_no_further: &Contents,
    thing: &Thing,
) -> Option<Contents> {
    match thing.tie {
        Tie::Nothing => Some(Contents::new()),
        Tie::MadeFrom(content) => Some(Contents::from_iter(
            [content].into_iter().filter(|one| references.holds(one) && !recorded.contains(one)),
        )),
        Tie::LeadsTo(None) => None,
        Tie::LeadsTo(Some(content)) if !references.holds(&content) => None,
        // What is damaged is never taken.
        Tie::LeadsTo(Some(content)) => {
            let reached = references.reach(Contents::from([content]), goes_no_further).ok()?;
            Some(reached.difference(recorded).copied().collect())
        }
    }
}

/// Lets go of what was used longest ago until the rest, with its contents, has at most so many bytes; gives what is let go.
fn shrink(claims: &mut Vec<Claim>, sizes: &BTreeMap<Digest, u64>, limit: u64) -> Vec<Claim> {
    let size = |digest: &Digest| sizes.get(digest).copied().unwrap_or_default();
    let mut claimed: BTreeMap<Digest, u64> = BTreeMap::new();
    for digest in claims.iter().flat_map(|claim| &claim.contents) {
        *claimed.entry(*digest).or_default() += 1;
    }
    let mut total = claims.iter().map(|claim| claim.thing.size).chain(claimed.keys().map(size)).sum::<u64>();
    claims.sort_by(|a, b| (b.thing.used, a.kind, &a.thing.name).cmp(&(a.thing.used, b.kind, &b.thing.name)));
    let mut gone = Vec::new();
    while total > limit {
        let Some(last) = claims.pop() else { break };
        total = total.saturating_sub(last.thing.size);
        for digest in &last.contents {
            let claims = claimed.entry(*digest).or_default();
            *claims = claims.saturating_sub(1);
            if *claims == 0 {
                total = total.saturating_sub(size(digest));
            }
        }
        gone.push(last);
    }
    gone
}

/// The manifests of contents from which something was made that is kept: by them it is known that nothing has to be fetched.
fn manifests(
    references: &mut References<'_>,
    store: &dyn ContentStore,
    recorded: &Contents,
    claims: &[Claim],
) -> Vec<Digest> {
    let made_from = |claim: &Claim| match claim.thing.tie {
        Tie::MadeFrom(content) => Some(content),
        Tie::LeadsTo(_) | Tie::Nothing => None,
    };
    let originals: Contents = claims.iter().filter_map(made_from).collect();
    if originals.is_empty() {
        return Vec::new();
    }
    let is_manifest = |digest: &Digest| {
        let bytes = store.read(digest, MAX_MANIFEST).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        manifest.layers.iter().any(|layer| originals.contains(&layer.digest)).then_some(())
    };
    let small = references.held().filter(|(_, size)| **size <= MAX_MANIFEST).map(|(digest, _)| *digest);
    small.filter(|digest| !recorded.contains(digest) && is_manifest(digest).is_some()).collect()
}
