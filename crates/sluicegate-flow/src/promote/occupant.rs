//! What the environment holds and held: whether the ledger fits the decisions on it, and whether a tag would move back.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_ports::{
    evidence::{Record, RecordKind},
    images::{Descriptor, ImageSource},
};
use sluicegate_types::{
    Digest, Platform, Selector,
    checks::{Check, is_on},
};
use sluicegate_verify::closed_set::Asked;

use super::Promotion;
use crate::{
    Error,
    evidence::{self, Adoptions},
    fetch,
    image_tree::{self, is_index},
};

/// Images with the machines that run them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deployed(BTreeSet<(Option<String>, Digest)>);

impl Deployed {
    /// One image; where no platform is named, whatever machine asks gets it.
    pub(super) fn of(image: Digest, platforms: &[Platform]) -> Self {
        if platforms.is_empty() {
            return Self(BTreeSet::from([(None, image)]));
        }
        Self(platforms.iter().map(|platform| (Some(platform.to_string()), image)).collect())
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// As a record has it.
    pub(super) fn to_json(&self) -> Value {
        self.0.iter().map(|(platform, image)| json!({"platform": platform, "image": image})).collect()
    }

    /// What a record says that an environment got.
    fn of_record(record: &Record) -> Self {
        let images = record.body["platforms"].as_array();
        let listed = images.into_iter().flatten().filter_map(|one| {
            let image = one["image"].as_str()?.parse().ok()?;
            Some((one["platform"].as_str().map(str::to_owned), image))
        });
        match images {
            Some(_) => Self(listed.collect()),
            None => Self(record.subject.iter().map(|image| (None, *image)).collect()),
        }
    }

    /// What a place holds: the image, or an index with its images.
    fn in_place(source: &dyn ImageSource, held: &Descriptor) -> Result<Self, Error> {
        if !is_index(&held.media_type) {
            return Ok(Self::of(held.digest, &[]));
        }
        let tree = image_tree::read(source, held)?;
        let images = tree.below.iter().filter(|node| node.manifest.is_some());
        let named = images.flat_map(|node| {
            let image = node.descriptor.digest;
            node.platforms.iter().map(move |platform| (platform.as_ref().map(ToString::to_string), image))
        });
        Ok(Self(named.collect()))
    }

    fn has_image(&self, image: &Digest) -> bool {
        self.0.iter().any(|(_, held)| held == image)
    }

    /// Whether machines of this kind, or all of them, get this image.
    fn runs(&self, (platform, image): &(Option<String>, Digest)) -> bool {
        self.0.contains(&(platform.clone(), *image)) || self.0.contains(&(None, *image))
    }
}

impl Promotion<'_> {
    /// What the environment holds was decided about, and the decision says what the ledger was then. A ledger that was cut back or
    /// rewritten since is not added to; that another home decided is told and recorded. Gives what is there, if it can be read.
    pub(super) fn compare_ledgers(&self, current: Option<Digest>) -> Result<Option<Deployed>, Error> {
        let Self { ports, request, .. } = *self;
        let Some(current) = current else { return Ok(None) };
        let repository = request.judge.repository();
        let asked = Asked { trust: request.trust, repository: Some(&repository), at: ports.clock.now() };
        let name = format!("{} ({current})", request.judge.name);
        let unreadable = |error: &Error| {
            (ports.warn)(&format!("what {name} holds can't be compared with the ledger: {error}"));
        };
        let read = || {
            let source = ports.places.source(&self.target)?;
            let held = source.resolve(&Selector::Digest(current))?;
            let fetched = fetch::fetch_evidence_of_any(source.as_ref(), &held, asked)?;
            Ok::<_, Error>((source, held, fetched))
        };
        // What lies there may be damaged; what comes in its place is not.
        let (source, held, fetched) = match read() {
            Ok(read) => read,
            Err(error) => {
                unreadable(&error);
                return Ok(None);
            }
        };
        let others = evidence::fits_what_is_there(ports, &fetched, &name, request.trust)?;
        for origin in &others {
            (ports.warn)(&format!("what {name} holds was decided under another ledger, {origin}"));
        }
        self.other_ledgers.replace(others);
        // An image that is gone takes nothing from what the index's own decision says.
        match Deployed::in_place(source.as_ref(), &held) {
            Ok(deployed) => Ok(Some(deployed)),
            Err(error) => {
                (ports.warn)(&format!("what {name} holds is not whole: {error}"));
                Ok(None)
            }
        }
    }

    /// A tag never moves back to an image that it named before, unless that is what was asked for: an old image with an old hole
    /// would pass for the newest one (trust model 10). An index moves back if one of its images does: a machine would get one that was
    /// there before and that it does not get now. What the environment holds, can be read and no record knows is recorded as found. A
    /// record that its writer did not log says nothing.
    pub(super) fn refuse_backwards(
        &self,
        asked: &Deployed,
        current: Option<Digest>,
        held: Option<&Deployed>,
    ) -> Result<(), Error> {
        let Self { ports, request, .. } = *self;
        let (image, environment) = (self.image.digest, &request.judge.name);
        let (mut earlier, mut last, mut knows_current) = (None, None, false);
        // Images that were there before, each with the newest record that knows them, and those of the newest record of all.
        let (mut images_earlier, mut images_last) = (BTreeSet::new(), Deployed::default());
        let adoptions = Adoptions::of_all(ports.evidence, ports.ledger)?;
        ports.evidence.walk(&mut |record| {
            let was_there =
                record.kind == RecordKind::Promotion && ["promoted", "found"].contains(&record.outcome.as_str());
            if was_there && adoptions.vouch_for(record.sequence) && record.environment.as_ref() == Some(environment) {
                knows_current |= record.subject == current;
                last = record.subject;
                if record.subject == Some(image) {
                    earlier = Some(record.sequence);
                }
                images_last = Deployed::of_record(record);
                let known = asked.0.iter().filter(|(_, image)| images_last.has_image(image));
                images_earlier.extend(known.map(|(_, image)| (record.sequence, *image)));
            }
        })?;
        // A promotion whose record was lost, by a crash after the tag moved or in another home, is known from now on.
        if let Some((there, held)) = current.zip(held).filter(|_| !knows_current) {
            let mut body = json!({"to": there, "tag": request.judge.environment.tag});
            if *held != Deployed::of(there, &[]) {
                body["platforms"] = held.to_json();
            }
            self.record_about(there, "found", RecordKind::Promotion, body)?;
        }
        // Where the place was emptied, the records still know what it held last.
        let is_there = current.or(last) == Some(image);
        let there_now = held.unwrap_or(&images_last);
        let new: BTreeSet<Digest> =
            asked.0.iter().filter(|one| !there_now.runs(one)).map(|(_, image)| *image).collect();
        let goes_back = images_earlier.iter().rev().find(|(_, image)| new.contains(image));
        match (earlier, goes_back) {
            (Some(record), _) if is_on(Check::Backwards) && !is_there && !request.rollback => {
                Err(Error::Usage(format!(
                    "{image} was promoted to {environment} before (evidence {record}) and something newer was since: moving a tag \
                     backwards needs --rollback"
                )))
            }
            (None, Some((record, old))) if is_on(Check::PlatformBackwards) && !is_there && !request.rollback => {
                Err(Error::Usage(format!(
                    "{old} was promoted to {environment} before (evidence {record}), and now machines get it that get something else: \
                     going back to it, in an index or out of one, needs --rollback"
                )))
            }
            (Some(_), _) | (_, Some(_)) if !is_there => Ok(()),
            _ if request.rollback && is_on(Check::NothingToRollBack) => Err(Error::Usage(format!(
                "--rollback goes back to an image that {environment} held before; {image} {}",
                if is_there { "is what it holds now" } else { "was never promoted there from this home" }
            ))),
            _ => Ok(()),
        }
    }
}
