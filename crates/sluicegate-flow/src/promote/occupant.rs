//! What the environment holds and held: whether the ledger fits the decisions on it, and whether a tag would move back.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_ports::evidence::{Record, RecordKind};
use sluicegate_types::{
    Digest, Selector,
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

impl Promotion<'_> {
    /// What the environment holds was decided about, and the decision says what the ledger was then. A ledger that was cut back or
    /// rewritten since is not added to; that another home decided is told and recorded. Gives what is there, if it can be read: the image,
    /// or an index with its images.
    pub(super) fn compare_ledgers(&self, current: Option<Digest>) -> Result<Option<BTreeSet<Digest>>, Error> {
        let Self { ports, request, .. } = *self;
        let Some(current) = current else { return Ok(None) };
        let repository = request.judge.repository();
        let asked = Asked { trust: request.trust, repository: Some(&repository), at: ports.clock.now() };
        let read = || {
            let source = ports.places.source(&self.target)?;
            let held = source.resolve(&Selector::Digest(current))?;
            let mut digests = BTreeSet::from([current]);
            if is_index(&held.media_type) {
                let tree = image_tree::read(source.as_ref(), &held)?;
                digests.extend(tree.images().map(|(descriptor, _)| descriptor.digest));
            }
            Ok((fetch::fetch_evidence_of_any(source.as_ref(), &held, asked)?, digests))
        };
        let name = format!("{} ({current})", request.judge.name);
        match read() {
            Ok((held, digests)) => {
                let others = evidence::fits_what_is_there(ports, &held, &name, request.trust)?;
                for origin in &others {
                    (ports.warn)(&format!("what {name} holds was decided under another ledger, {origin}"));
                }
                self.other_ledgers.replace(others);
                Ok(Some(digests))
            }
            // What lies there may be damaged; what comes in its place is not.
            Err::<_, Error>(error) => {
                (ports.warn)(&format!("what {name} holds can't be compared with the ledger: {error}"));
                Ok(None)
            }
        }
    }

    /// A tag never moves back to an image that it named before, unless that is what was asked for: an old image with an old hole
    /// would pass for the newest one (trust model 10). An index moves back if one of its images does. What the environment holds, can be
    /// read and no record knows is recorded as found. A record that its writer did not log says nothing.
    pub(super) fn refuse_backwards(
        &self,
        digests: &BTreeSet<Digest>,
        current: Option<Digest>,
        held: Option<&BTreeSet<Digest>>,
    ) -> Result<(), Error> {
        let Self { ports, request, .. } = *self;
        let (image, environment) = (self.image.digest, &request.judge.name);
        let (mut earlier, mut last, mut knows_current) = (None, None, false);
        // Images that were there before, each with the newest record that knows them, and those of the newest record of all.
        let (mut images_earlier, mut images_last) = (Vec::new(), BTreeSet::new());
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
                images_last = images_of(record);
                images_earlier.extend(images_last.intersection(digests).map(|digest| (*digest, record.sequence)));
            }
        })?;
        // A promotion whose record was lost, by a crash after the tag moved or in another home, is known from now on.
        if let Some((there, held)) = current.zip(held).filter(|_| !knows_current) {
            let mut body = json!({"to": there, "tag": request.judge.environment.tag});
            let platforms: Vec<&Digest> = held.iter().filter(|digest| **digest != there).collect();
            if !platforms.is_empty() {
                body["platforms"] = json!(platforms);
            }
            self.record_about(there, "found", RecordKind::Promotion, body)?;
        }
        // Where the place was emptied, the records still know what it held last.
        let is_there = current.or(last) == Some(image);
        let there_now = held.unwrap_or(&images_last);
        let goes_back = images_earlier.iter().rev().find(|(digest, _)| !there_now.contains(digest));
        match (earlier, goes_back) {
            (Some(record), _) if is_on(Check::Backwards) && !is_there && !request.rollback => {
                Err(Error::Usage(format!(
                    "{image} was promoted to {environment} before (evidence {record}) and something newer was since: moving a tag \
                     backwards needs --rollback"
                )))
            }
            (None, Some((old, record))) if is_on(Check::PlatformBackwards) && !is_there && !request.rollback => {
                Err(Error::Usage(format!(
                    "{old} of {image} was promoted to {environment} before (evidence {record}) and something newer was since: going \
                     back to it, in an index too, needs --rollback"
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

/// What a promotion put into an environment: the image, or an index with its images.
fn images_of(record: &Record) -> BTreeSet<Digest> {
    let platforms = record.body["platforms"].as_array().into_iter().flatten().filter_map(Value::as_str);
    platforms.filter_map(|text| text.parse().ok()).chain(record.subject).collect()
}
