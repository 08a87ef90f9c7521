//! In which order attached bundles are looked at, and how many: what the closed set needs first, then decisions, then the rest of
//! known signers up to a limit, so that neither junk nor a year of nightly scans locks anybody out (trust model 12).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use sluicegate_attestation::{
    bundle::Bundle,
    predicate::PredicateType,
    provenance::{Build, Provenance},
    statement::Statement,
};
use sluicegate_types::{
    Digest,
    checks::{Check, is_on},
};

use super::{Asked, Seen, not_covered};
use crate::{Role, VerifiedStatement, verify};

/// Statements of known signers that are verified for one image beyond what its closed sets name (DESIGN section 7).
pub const MAX_BEYOND_THE_SET: usize = 256;

/// Whole sets of one image, the newest first. What is not whole is none of them: an image that is built alike again has provenances of
/// every run, which anyone can lay beside it without what they name.
pub const MAX_SETS: usize = 64;

/// What was looked at so far, and what waits.
pub(super) struct Looked<'a> {
    pub(super) seen: Vec<Seen>,
    pub(super) unlooked: usize,
    image: Digest,
    attached: &'a BTreeMap<Digest, Vec<u8>>,
    asked: Asked<'a>,
    provenances: Vec<Begun>,
    waiting: Vec<Waiting>,
    /// What was verified, with the bundle that it was first found in.
    known: BTreeMap<Said, Digest>,
}

/// A statement apart from the form of its bundle: white space around and in a bundle is under no signature, so anyone can make any
/// number of bundles of one that somebody signed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    signer: String,
    payload: Digest,
    origin: String,
    index: u64,
}

impl Said {
    fn of(statement: &VerifiedStatement) -> Self {
        let log = statement.log();
        Self {
            signer: statement.signer().to_owned(),
            payload: statement.payload(),
            origin: log.origin.clone(),
            index: log.index,
        }
    }
}

/// Where a set begins.
pub(super) struct Begun {
    pub(super) statement: VerifiedStatement,
    pub(super) provenance: Provenance,
    /// Every bundle that says this, its own too.
    pub(super) bundles: BTreeSet<Digest>,
}

/// A bundle whose claims are read and not yet believed; they decide only when it is looked at.
struct Waiting {
    bundle: Digest,
    is_decision: bool,
    log_index: u64,
    hint: String,
}

impl<'a> Looked<'a> {
    /// Reads what every attached bundle claims to be and verifies those that claim to be provenance: a set begins there. An
    /// unknown key costs no signature check.
    pub(super) fn at_provenance(image: Digest, attached: &'a BTreeMap<Digest, Vec<u8>>, asked: Asked<'a>) -> Self {
        let mut looked = Self {
            seen: Vec::new(),
            unlooked: 0,
            image,
            attached,
            asked,
            provenances: Vec::new(),
            waiting: Vec::new(),
            known: BTreeMap::new(),
        };
        for (digest, bytes) in attached {
            let claimed = Bundle::parse(bytes).and_then(|bundle| Ok((Statement::parse(&bundle.payload)?, bundle)));
            let (statement, bundle) = match claimed {
                Ok(claimed) => claimed,
                Err(error) => {
                    looked.seen.push(Seen::Ignored { bundle: *digest, reason: error.to_string() });
                    continue;
                }
            };
            match statement.predicate_type {
                PredicateType::Provenance => looked.look(*digest),
                kind => looked.waiting.push(Waiting {
                    bundle: *digest,
                    is_decision: matches!(
                        kind,
                        PredicateType::VerificationSummary | PredicateType::Promotion | PredicateType::ImageSignature
                    ),
                    log_index: bundle.log_entry.log_index.parse().unwrap_or_default(),
                    hint: bundle.key_hint,
                }),
            }
        }
        looked
    }

    /// Every provenance of the image by a builder that may speak for it, the newest first.
    pub(super) fn provenances(&mut self) -> Vec<Begun> {
        let mut provenances = std::mem::take(&mut self.provenances);
        provenances.sort_by_key(|begun| (Reverse(begun.statement.log().index), begun.statement.bundle()));
        provenances
    }

    /// What a set names has been verified with it.
    pub(super) fn take_named<'s>(&mut self, named: impl Iterator<Item = &'s VerifiedStatement>) {
        let mut taken = BTreeSet::new();
        for statement in named {
            let bundle = statement.bundle();
            if self.waiting.iter().any(|waiting| waiting.bundle == bundle) && taken.insert(bundle) {
                self.known.insert(Said::of(statement), bundle);
                self.seen.push(Seen::Verified(statement.clone()));
            }
        }
        self.waiting.retain(|waiting| !taken.contains(&waiting.bundle));
    }

    /// The rest: decisions first, newer ones before older ones.
    pub(super) fn at_the_rest(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|waiting| (!waiting.is_decision, Reverse(waiting.log_index), waiting.bundle));
        let mut verified = 0;
        for waiting in waiting {
            if verified >= MAX_BEYOND_THE_SET && self.asked.trust.knows(&waiting.hint) {
                self.unlooked += 1;
                continue;
            }
            self.look(waiting.bundle);
            verified += usize::from(matches!(self.seen.last(), Some(Seen::Verified(_))));
        }
    }

    fn look(&mut self, digest: Digest) {
        let Some(bytes) = self.attached.get(&digest) else { return };
        let seen = match verify(bytes, self.asked.trust, self.asked.at) {
            Ok(statement) if is_on(Check::AboutTheImage) && !statement.statement().is_about_image(&self.image) => {
                Seen::Ignored { bundle: digest, reason: "it is about something else".to_owned() }
            }
            Ok(statement)
                if statement.stands_alone() && !self.asked.trust.covers(statement.signer(), self.asked.repository) =>
            {
                Seen::Ignored { bundle: digest, reason: not_covered(&statement, self.asked.repository) }
            }
            Ok(statement) => {
                self.take_provenance(&statement);
                let first = *self.known.entry(Said::of(&statement)).or_insert(digest);
                if is_on(Check::Copies) && first != digest {
                    Seen::Ignored { bundle: digest, reason: format!("it is a copy of {first}") }
                } else {
                    Seen::Verified(statement)
                }
            }
            Err(error) => Seen::Ignored { bundle: digest, reason: error.to_string() },
        };
        self.seen.push(seen);
    }

    fn take_provenance(&mut self, statement: &VerifiedStatement) {
        let by_steps = statement.is_in_role(Role::Steps) || !is_on(Check::StepsRole);
        if statement.statement().predicate_type != PredicateType::Provenance || !by_steps {
            return;
        }
        // Only our own form begins a set; what a foreign builder says of the image is verified and listed.
        let Ok(provenance) = Provenance::parse(&statement.statement().predicate) else { return };
        if !matches!(provenance.build, Build::Image(_)) {
            return;
        }
        // The same words of the same signer are one provenance, in however many bundles they come.
        let is_known = |known: &&mut Begun| {
            known.statement.payload() == statement.payload() && known.statement.signer() == statement.signer()
        };
        match self.provenances.iter_mut().find(is_known) {
            Some(known) => drop(known.bundles.insert(statement.bundle())),
            None => self.provenances.push(Begun {
                statement: statement.clone(),
                provenance,
                bundles: BTreeSet::from([statement.bundle()]),
            }),
        }
    }
}
