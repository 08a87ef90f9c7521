//! What statements that were signed outside the home's reach say the ledger was, beside what it is.

use std::{collections::BTreeSet, path::Path};

use sluicegate_attestation::{
    predicate::PredicateType,
    summary::{LedgerHead, PromotionClaim, SummaryClaim},
};
use sluicegate_ports::{images::ImagePlaces, ledger::Ledger};
use sluicegate_types::{
    Digest, EnvironmentName, ImageRef, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{Role, Trust, closed_set::Asked, verify};

use super::{
    fsck::{FsckReport, span},
    head,
};
use crate::{
    Error, Ports,
    fetch::{self, Fetched},
    image_tree::is_index,
};

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

/// Every verified statement about the image that holds a head: decisions and promotions that are attached to it, and denials, which lie
/// beside it as artifacts of their own type.
pub(super) fn anchors(against: &Against<'_>, reference: &ImageRef) -> Result<Vec<Anchor>, Error> {
    let image = reference.relative_to(against.folder);
    let source = against.places.source(&image.place)?;
    let descriptor = source.resolve(&image.selector)?;
    let asked = Asked { trust: against.trust, repository: None, at: against.at };
    let fetched = if is_index(&descriptor.media_type) {
        fetch::fetch_attached(source.as_ref(), &descriptor, asked)?
    } else {
        fetch::fetch(source.as_ref(), &descriptor, asked)?
    };
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
pub(super) fn judge_anchors(
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
