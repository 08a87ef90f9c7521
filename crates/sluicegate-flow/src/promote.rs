//! `promote`: resolves to a digest, verifies, asks the gate, and only with its permit signs, copies and moves the tag.

mod candidate;
mod occupant;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    path::Path,
};

use candidate::{Candidate, FollowedSubject, Judged, Kept, Permitted, PromotedIndex, Refusal, Subject};
use occupant::Deployed;
use serde_json::{Value, json};
use sluicegate_policy::{
    exceptions::{ExceptionUse, Waived},
    judge::{Basis, Denial, Grant, Permit, Reason, judge_index},
};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    images::{Descriptor, ImagePlaceError, ImageSource},
    scan::{ScanIndex, Scanner},
    sign::Signer,
};
use sluicegate_types::{
    Digest, EnvironmentName, ImageRef, NonEmpty, PinnedImage, Place, Repository, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{
    Trust,
    closed_set::{Asked, ClosedSet, Followed, Incomplete},
};

use crate::{
    Error, Failure, Ports,
    attest::Attested,
    compat,
    error::incomplete,
    evidence,
    folders::{EnvironmentPlaces, is_same},
    gate::{self, PlatformDecision, RuleEvaluator},
    gateway::{Judge, JudgeRecord},
    push, sign,
};

/// Everything a promotion needs beside the shared ports.
pub struct PromoteRequest<'a> {
    /// What to promote.
    pub reference: &'a ImageRef,
    /// The folder that the reference is relative to.
    pub folder: &'a Path,
    /// The folder that the environment's repository is relative to: the gateway file's.
    pub gateway_folder: &'a Path,
    /// The places of all environments of the gateway.
    pub environments: &'a EnvironmentPlaces,
    /// The judge.
    pub judge: &'a Judge,
    /// The files that the judge was made of, kept so that the decision can be made again.
    pub files: &'a dyn JudgeRecord,
    /// Whom it believes.
    pub trust: &'a Trust,
    /// The SLSA level a signer's builds have earned, from trust.yaml.
    pub levels: &'a std::collections::BTreeMap<String, String>,
    /// The gate's scanner, or why there is none: then nothing that requires `vulns` is decided.
    pub scanner: Result<&'a dyn Scanner, String>,
    /// Earlier scans of this gate; `None` takes none and keeps none.
    pub scans: Option<&'a dyn ScanIndex>,
    /// Asks Rego.
    pub evaluator: &'a dyn RuleEvaluator,
    /// The key of role `records`.
    pub records: &'a dyn Signer,
    /// Opens the environment's decisions key, which is asked for only when a gate allowed something.
    pub decisions: &'a dyn Fn() -> Result<Box<dyn Signer>, Error>,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Judge and record; the gate's scan is signed and logged as ever, and the permit is thrown away.
    pub dry_run: bool,
    /// Judge as it was, or will be, at this moment. It replays and explains; it never makes a permit (trust model 7).
    pub effective: Option<UnixTime>,
    /// Go back to an image that the environment held before.
    pub rollback: bool,
    /// Also write what cosign 2 looks for, [`compat::cosign2`].
    pub compat_cosign2: bool,
}

/// How a promotion ended, and what somebody accepts that it rests on or that it met.
#[derive(Debug)]
pub struct Answered {
    /// How it ended.
    pub promoted: Promoted,
    /// What became of each waiver and each accepted gap, for each image.
    pub exceptions: Vec<OfPlatform<ExceptionUse>>,
    /// What was denied and is waived.
    pub waived: Vec<OfPlatform<Waived>>,
}

/// How a promotion ended. Every one of these is recorded.
#[derive(Debug)]
pub enum Promoted {
    /// The image is there now.
    Allowed {
        /// The image, by the target's name.
        image: PinnedImage,
        /// The evidence record of the decision.
        record: u64,
        /// What the decision rests on.
        basis: Basis,
    },
    /// The image would be there now, if this had not been a dry run: the permit was thrown away.
    WouldAllow {
        /// The image, by the target's name.
        image: PinnedImage,
        /// The evidence record of the decision.
        record: u64,
        /// What the decision would rest on.
        basis: Basis,
    },
    /// A rule denied it.
    Denied {
        /// The image.
        image: Digest,
        /// Why.
        denials: NonEmpty<OfPlatform<Denial>>,
        /// The evidence record of the decision.
        record: u64,
    },
    /// Nothing could be decided.
    Undecided {
        /// The image.
        image: Digest,
        /// Why not.
        reasons: NonEmpty<OfPlatform<OpenReason>>,
        /// The evidence record of the decision.
        record: u64,
    },
}

/// What is said about the image that is promoted, or about one that it names.
#[derive(Debug)]
pub struct OfPlatform<T> {
    /// What the index says that one is for; `None` if it is no index, or for all of it.
    pub platform: Option<String>,
    /// What is said.
    pub said: T,
}

impl<T> std::ops::Deref for OfPlatform<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.said
    }
}

impl<T: fmt::Display> fmt::Display for OfPlatform<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.platform.as_ref().map_or(Ok(()), |platform| write!(f, "{platform}: "))?;
        self.said.fmt(f)
    }
}

/// Why a promotion is left open. Its words are the beginning of what there is to say, if that is long.
#[derive(Debug)]
pub enum OpenReason {
    /// There is no whole set to judge.
    Set(Incomplete),
    /// The gate was asked.
    Gate(Reason),
    /// The gate could not make its own scan, in words for a person.
    Scan(String),
}

impl fmt::Display for OpenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Set(reason) => reason.to_string(),
            Self::Gate(reason) => reason.to_string(),
            Self::Scan(reason) => reason.clone(),
        };
        f.write_str(&gate::reason(&words))
    }
}

/// Seconds after which a permit is not used any more: a decision is about what is true now.
const PERMIT_LIFE: u64 = 600;

/// A promotion that broke off.
#[derive(Debug)]
pub struct FailedPromotion {
    /// Why.
    pub error: Box<Error>,
    /// The evidence record that says so; `None` if nothing was asked of a gate yet, nothing may be recorded, or it could not be, which was
    /// warned about.
    pub record: Option<u64>,
}

impl From<Error> for FailedPromotion {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), record: None }
    }
}

/// Promotes an image to the judge's environment.
pub fn promote(ports: &Ports<'_>, request: &PromoteRequest<'_>) -> Result<Answered, FailedPromotion> {
    let image = request.reference.relative_to(request.folder);
    let source = ports.places.source(&image.place).map_err(Error::from)?;
    let descriptor = source.resolve(&image.selector).map_err(Error::from)?;
    (ports.tell)(&format!("{} is {}", request.reference, descriptor.digest));
    if request.compat_cosign2 && (place_of(request).folder().is_some() || request.judge.gate.is_none()) {
        return Err(Error::Usage(format!(
            "--compat cosign2 is for an environment with a gate and a repository of a registry: {} has {}",
            request.judge.name,
            if request.judge.gate.is_none() {
                "no gate, so that nobody signs"
            } else {
                "a layout, which has no such tags"
            }
        ))
        .into());
    }
    let promotion = Promotion {
        ports,
        request,
        image: &descriptor,
        place: &image.place,
        target: place_of(request),
        allowed: Cell::new(false),
        other_ledgers: RefCell::default(),
        exceptions: RefCell::default(),
        waived: RefCell::default(),
    };
    let promoted = promotion.judged(source.as_ref()).map_err(|error| {
        if matches!(error, Error::CutBack(_)) {
            return error.into();
        }
        // What could not be decided is on record like what was, and so is what was allowed and could not be done, and what may not be
        // asked for, such as a tag that goes back.
        let (outcome, kind) = match error.failure() {
            _ if promotion.allowed.get() => ("failed", RecordKind::Promotion),
            Failure::Usage => ("refused", RecordKind::Decision),
            _ => ("undecided", RecordKind::Decision),
        };
        let body = json!({"image": descriptor.digest, "gateway": request.judge.gateway, "reasons": causes(&error)});
        let record = promotion.record(outcome, kind, body).map_err(|unrecorded| {
            (ports.warn)(&format!("this could not be recorded: {unrecorded}"));
        });
        FailedPromotion { error: Box::new(error), record: record.ok() }
    })?;
    let (exceptions, waived) = (promotion.exceptions.into_inner(), promotion.waived.into_inner());
    Ok(Answered { promoted, exceptions, waived })
}

/// The environment's place.
fn place_of(request: &PromoteRequest<'_>) -> Place {
    request.judge.environment.repository.relative_to(request.gateway_folder)
}

/// One promotion on its way.
struct Promotion<'a> {
    ports: &'a Ports<'a>,
    request: &'a PromoteRequest<'a>,
    image: &'a Descriptor,
    /// Where it is.
    place: &'a Place,
    /// Where it is to go.
    target: Place,
    /// Whether a permit was spent.
    allowed: Cell<bool>,
    /// Ledgers of others that what the environment holds was decided under.
    other_ledgers: RefCell<BTreeSet<String>>,
    /// What became of what somebody accepts, and what it took away.
    exceptions: RefCell<Vec<OfPlatform<ExceptionUse>>>,
    waived: RefCell<Vec<OfPlatform<Waived>>>,
}

/// An image that is allowed.
struct Granted<'a> {
    image: &'a Candidate,
    set: &'a ClosedSet,
    followed: &'a Followed,
}

/// Why an image has no whole set.
struct Lacking {
    image: Digest,
    why: OfPlatform<Incomplete>,
}

/// Why images without a whole set have none.
fn lacking(subject: &Subject, followed: FollowedSubject) -> Vec<Lacking> {
    let mut lacking = Vec::new();
    for (image, followed) in subject.images.iter().zip(followed.images).filter(|(_, followed)| followed.sets.is_empty())
    {
        let whys = followed.incomplete.into_iter();
        lacking.extend(
            whys.map(|said| Lacking {
                image: image.digest(),
                why: OfPlatform { platform: image.platform.clone(), said },
            }),
        );
    }
    lacking
}

/// What the gate left open about an image, and why it could not scan it.
fn open_reasons(image: &Candidate, reasons: NonEmpty<Reason>) -> NonEmpty<OfPlatform<OpenReason>> {
    let mut reasons = reasons.map(OpenReason::Gate);
    reasons.extend(image.scanned.failure.clone().map(OpenReason::Scan));
    reasons.map(|said| OfPlatform { platform: image.platform.clone(), said })
}

impl Promotion<'_> {
    fn judged(&self, source: &dyn ImageSource) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        // First of all: nothing is recorded behind a ledger that was cut back, not even that the rest could not be decided.
        let tag = &request.judge.environment.tag;
        let current = ports.places.target(&self.target)?.current(Some(tag))?.map(|occupant| occupant.image);
        let held = self.compare_ledgers(current)?;
        let repository = request.judge.repository();
        let asked = |at: UnixTime| Asked { trust: request.trust, repository: Some(&repository), at };
        let mut subject = Subject::read(source, self.image, asked(self.moment()))?;
        let followed = subject.follow(asked(self.moment()));
        for unlooked in followed.all().map(|followed| followed.unlooked).filter(|unlooked| *unlooked > 0) {
            (ports.tell)(&format!("{unlooked} statements of known signers were not looked at"));
        }
        if followed.lacks_a_set() {
            return self.without_set(lacking(&subject, followed));
        }
        if is_on(Check::OwnPlace) && is_same(self.place, &self.target) {
            return Err(Error::Usage(format!(
                "{} is the place of {} itself: an environment has a place of its own, where nothing is built",
                self.target, request.judge.name
            )));
        }
        // What the decision can be made again from; of an image that proves nothing, nothing.
        subject.keep_evidence(ports)?;
        self.refuse_backwards(&subject.deployed(), current, held.as_ref())?;
        // Only what proves something gets room in the store.
        subject.keep_content(source, ports)?;
        if request.judge.gate.is_some() {
            subject.images.iter_mut().try_for_each(|image| image.scan(ports, request))?;
        }
        // A scan takes its time: what is judged is what is true after it, and all of it at one moment.
        let now = self.moment();
        let followed = subject.follow(asked(now));
        if followed.lacks_a_set() {
            return self.without_set(lacking(&subject, followed));
        }
        let index = subject.index.as_ref().zip(followed.index.as_ref());
        let of_index = index.map(|(index, followed)| (&index.fetched, followed));
        let mut judged = Vec::new();
        for (image, followed) in subject.images.iter().zip(&followed.images) {
            let mut one = image.judge(ports, request, followed, of_index, (current, now))?;
            self.take_along(image, &mut one);
            judged.push((image, followed, one));
        }
        match index {
            Some(index) => self.end_of_index(index, judged, now),
            None => match judged.pop() {
                Some((image, followed, judged)) => self.end_of_image(image, followed, judged, now),
                None => self.without_set(Vec::new()),
            },
        }
    }

    /// The moment that is judged at.
    fn moment(&self) -> UnixTime {
        self.request.effective.unwrap_or_else(|| self.ports.clock.now())
    }

    /// Whether a permit is thrown away.
    fn is_dry(&self) -> bool {
        let Self { request, .. } = self;
        (request.dry_run && is_on(Check::DryRun)) || (request.effective.is_some() && is_on(Check::EffectiveTime))
    }

    /// Notes what was accepted for an image, and warns of what a person should know; what is said of every set is said once.
    fn take_along(&self, image: &Candidate, judged: &mut Judged<'_>) {
        let of = |what: &str| image.platform.as_ref().map_or_else(|| what.to_owned(), |of| format!("{of}: {what}"));
        for warning in std::mem::take(&mut judged.warnings) {
            (self.ports.warn)(&gate::reason(&of(&warning)));
        }
        let platform = || image.platform.clone();
        let exceptions = std::mem::take(&mut judged.exceptions).into_iter();
        self.exceptions.borrow_mut().extend(exceptions.map(|said| OfPlatform { platform: platform(), said }));
        let waived = std::mem::take(&mut judged.waived).into_iter();
        self.waived.borrow_mut().extend(waived.map(|said| OfPlatform { platform: platform(), said }));
    }

    /// If no set is allowed, a denial weighs more than an open question. Each that is not allowed is on record.
    fn end_of_image(
        &self,
        image: &Candidate,
        followed: &Followed,
        judged: Judged<'_>,
        now: UnixTime,
    ) -> Result<Promoted, Error> {
        let Judged { permitted, refused, .. } = judged;
        if let Some(Permitted { set, permit, kept: Kept { body, .. } }) = permitted {
            for (refusal, kept) in refused {
                self.record(refusal.outcome(), RecordKind::Decision, kept.body)?;
            }
            if self.is_dry() {
                return self.would_allow(permit, body);
            }
            return self.allowed(&[Granted { image, set, followed }], None, permit, body);
        }
        // The last one is what is told: denials after what was left open.
        let mut told = None;
        for (refusal, Kept { body, .. }) in refused {
            told = Some(match refusal {
                Refusal::Denied { denials, used } => {
                    let record = self.denied(&used, body, now)?;
                    let denials = denials.map(|said| OfPlatform { platform: None, said });
                    Promoted::Denied { image: self.image.digest, denials, record }
                }
                Refusal::Open(reasons) => self.undecided(open_reasons(image, reasons), body)?,
            });
        }
        match told {
            Some(told) => Ok(told),
            None => self.without_set(Vec::new()),
        }
    }

    /// An index is promoted if each of its images is allowed. The decision about each is on record, then the one that is made of them.
    fn end_of_index(
        &self,
        (index, said): (&PromotedIndex, &Followed),
        judged: Vec<(&Candidate, &Followed, Judged<'_>)>,
        now: UnixTime,
    ) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        let (mut platforms, mut granted, mut permits) = (Vec::new(), Vec::new(), Vec::new());
        let (mut denials, mut reasons, mut looked_at) = (Vec::new(), Vec::new(), Vec::new());
        for (image, followed, Judged { permitted, mut refused, .. }) in judged {
            let counts = if permitted.is_some() { None } else { refused.pop() };
            for (refusal, kept) in refused {
                self.record_platform(image, refusal.outcome(), kept.body)?;
            }
            let name = image.platform.clone().unwrap_or_default();
            let (outcome, Kept { document, body }) = match (permitted, counts) {
                (Some(Permitted { set, permit, kept }), _) => {
                    let outcome = gate::outcome_of(permit.basis());
                    permits.push(permit);
                    granted.push(Granted { image, set, followed });
                    (if self.is_dry() { "would-allow" } else { outcome }, kept)
                }
                (None, Some((refusal, mut kept))) => {
                    let outcome = refusal.outcome();
                    match refusal {
                        Refusal::Denied { denials: why, used } => {
                            looked_at.extend(used);
                            denials
                                .extend(why.map(|said| OfPlatform { platform: Some(name.clone()), said }).into_vec());
                        }
                        Refusal::Open(why) => {
                            let why = open_reasons(image, why);
                            kept.body["reasons"] = why.iter().map(|why| json!(why.said.to_string())).collect();
                            reasons.extend(why.into_vec());
                        }
                    }
                    (outcome, kept)
                }
                (None, None) => return self.without_set(Vec::new()),
            };
            let record = self.record_platform(image, outcome, body)?;
            platforms.push(PlatformDecision { platform: name, record, document });
        }
        let document = gate::index_document(&self.image.digest, &index.named.unsigned, &platforms);
        let mut body = gate::keep_document(ports, &document)?;
        body["rollback"] = json!(request.rollback);
        if let Ok(denials) = NonEmpty::try_from(denials) {
            let record = self.denied(&looked_at, body, now)?;
            return Ok(Promoted::Denied { image: self.image.digest, denials, record });
        }
        if let Ok(reasons) = NonEmpty::try_from(reasons) {
            return self.undecided(reasons, body);
        }
        let images = index.named.images.iter().map(|image| image.descriptor.digest).collect();
        let permit = judge_index(self.image.digest, &images, permits)
            .map_err(|error| Error::Bug(format!("images were allowed and their index is not: {error}")))?;
        if self.is_dry() {
            return self.would_allow(permit, body);
        }
        self.allowed(&granted, Some((index, said)), permit, body)
    }

    /// Without a whole set there is nothing to judge; a named bundle that is false is an error of its own kind.
    fn without_set(&self, lacking: Vec<Lacking>) -> Result<Promoted, Error> {
        let (wrong, open): (Vec<_>, Vec<_>) =
            lacking.into_iter().partition(|lacking| incomplete(&lacking.why.said) == Failure::Wrong);
        if let Some(Lacking { image, why }) = wrong.into_iter().next() {
            return Err(Error::Incomplete { image, source: Box::new(why.said) });
        }
        let image = self.image.digest;
        let nothing = || OfPlatform {
            platform: None,
            said: OpenReason::Set(Incomplete::NoProvenance { image, ignored: Vec::new() }),
        };
        let open = open.into_iter().map(|Lacking { why: OfPlatform { platform, said }, .. }| OfPlatform {
            platform,
            said: OpenReason::Set(said),
        });
        let body = json!({"image": image, "gateway": self.request.judge.gateway});
        let reasons = NonEmpty::try_from(open.collect::<Vec<_>>()).unwrap_or_else(|_| NonEmpty::one(nothing()));
        self.undecided(reasons, body)
    }

    /// A denial is signed by role `records`, never by the decisions key; it is kept in the evidence store and laid beside the image
    /// as an artifact of its own type, which nobody takes for a signature (trust model 5).
    fn denied(&self, used: &[Digest], body: Value, now: UnixTime) -> Result<u64, Error> {
        let Self { ports, request, .. } = *self;
        // On record before it is signed, so that what is signed vouches for its own record; and before anything is asked of the
        // image's place, which belongs to somebody else.
        let decision = self.record("deny", RecordKind::Decision, body)?;
        if request.dry_run || request.effective.is_some() {
            return Ok(decision);
        }
        // A denial that can't be signed is still a denial: it is never lost for the sake of its signature.
        match sign::denial(ports, request, self.image, used, now) {
            Ok(denial) => {
                let body = json!({
                    "decision": decision, "summary": denial.bundle, "denial": denial.manifest.digest,
                });
                self.record("signed", RecordKind::Denial, body)?;
                self.lay_beside(&denial);
            }
            Err(error) => {
                (ports.warn)(&format!("the denial could not be signed: {error}"));
                self.record("unsigned", RecordKind::Denial, json!({"decision": decision, "reasons": causes(&error)}))?;
            }
        }
        Ok(decision)
    }

    /// Where the image was built, a denial lies beside it. An environment's place is written to by its own promotions alone.
    fn lay_beside(&self, denial: &sign::Denial) {
        let Self { ports, request, .. } = *self;
        let marked = || Ok(ports.places.target(self.place)?.current(None)?.and_then(|held| held.environment));
        let environment = request.environments.at(self.place).map(ToString::to_string);
        match environment.map_or_else(marked, |environment| Ok(Some(environment))) {
            Ok(Some(environment)) => (ports.tell)(&format!(
                "the signed denial {} stays in the store: {} is the place of {environment}",
                denial.bundle, self.place
            )),
            // Whose place it is can't be said: writing there would say the same once more.
            Ok::<_, ImagePlaceError>(None) | Err(_) => {
                push::lay_beside(ports, self.place, &self.image.digest, &denial.manifest, &[denial.bundle]);
            }
        }
    }

    fn undecided(&self, reasons: NonEmpty<OfPlatform<OpenReason>>, mut body: Value) -> Result<Promoted, Error> {
        body["reasons"] = reasons.iter().map(|reason| json!(gate::reason(&reason.to_string()))).collect();
        let record = self.record("undecided", RecordKind::Decision, body)?;
        Ok(Promoted::Undecided { image: self.image.digest, reasons, record })
    }

    /// A dry run throws its permit away.
    fn would_allow(&self, permit: Permit, body: Value) -> Result<Promoted, Error> {
        let grant = permit.spend();
        let record = self.record("would-allow", RecordKind::Decision, body)?;
        Ok(Promoted::WouldAllow { image: grant.image, record, basis: grant.basis })
    }

    fn allowed(
        &self,
        granted: &[Granted<'_>],
        index: Option<(&PromotedIndex, &Followed)>,
        permit: Permit,
        body: Value,
    ) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        let grant = permit.spend();
        let now = ports.clock.now();
        // The decision is on record before its key is opened and before anything can be seen at the target.
        let record = self.record(gate::outcome_of(grant.basis), RecordKind::Decision, body)?;
        self.allowed.set(true);
        let in_time = grant.decided_at <= now && now <= grant.decided_at.plus(PERMIT_LIFE);
        if is_on(Check::PermitAge) && !in_time {
            return Err(Error::Again(format!("the permit of {} is too old at {now}; ask again", grant.decided_at)));
        }
        if grant.image.digest != self.image.digest || grant.environment != request.judge.name {
            return Err(Error::Bug("the permit is for another image or environment".to_owned()));
        }
        let decider = match grant.basis {
            Basis::Gate { .. } => Some((request.decisions)()?),
            Basis::Ungated => None,
        };
        let from = self.source_name();
        let sign = |image: &Descriptor, sets: &[&ClosedSet], grant: &Grant| {
            let copied = sign::Copied { media_type: &image.media_type, from: &from, now };
            match (&decider, grant.basis) {
                (Some(decider), Basis::Gate { expires }) => {
                    sign::decision(ports, request, decider.as_ref(), sets, grant, expires, copied)
                }
                _ => sign::ungated(ports, request, grant, copied),
            }
        };
        let grants = if index.is_some() { grant.platforms.as_slice() } else { std::slice::from_ref(&grant) };
        let mut images = Vec::new();
        for own in grants {
            let of_image = granted.iter().find(|granted| granted.image.digest() == own.image.digest);
            let Granted { image, set, followed } =
                of_image.ok_or_else(|| Error::Bug(format!("{} was granted and not asked for", own.image)))?;
            images.push(push::Decided {
                fetched: &image.fetched,
                set,
                said: followed.verified().collect(),
                gate_scan: &image.scanned.parts,
                grant: own,
                decisions: sign(&image.fetched.descriptor, &[*set], own)?,
            });
        }
        let of_index = match index {
            Some(_) => sign(self.image, &images.iter().map(|image| image.set).collect::<Vec<_>>(), &grant)?,
            None => Vec::new(),
        };
        let mut publication = match (index, images.as_slice()) {
            (Some((index, said)), images) => {
                let (tree, fetched, said) = (&index.named.tree, &index.fetched, said.verified().collect());
                let index = push::DecidedIndex { tree, fetched, said, grant: &grant, decisions: &of_index };
                push::index_publication(ports, self.place, &index, images, now)?
            }
            (None, [image]) => push::publication(ports, self.place, image, now)?,
            (None, _) => return Err(Error::Bug("one image was granted, and not one was asked for".to_owned())),
        };
        if let Some(decider) = decider.as_ref().filter(|_| request.compat_cosign2) {
            let of_index = index.map(|_| &grant);
            for grant in grants.iter().chain(of_index) {
                compat::cosign2(ports, &mut publication, decider.as_ref(), grant)?;
            }
        }
        push::push(ports, &self.target, &publication)?;
        let bundles = |decisions: &[Attested]| -> Vec<Digest> {
            decisions.iter().map(|attested| attested.statement.bundle()).collect()
        };
        // About what was asked for first; of an index, then about its images.
        let mut statements = bundles(&of_index);
        statements.extend(images.iter().flat_map(|image| bundles(&image.decisions)));
        let mut moved = json!({
            "decision": record, "from": grant.previous, "to": grant.image.digest, "tag": grant.tag,
            "basis": gate::outcome_of(grant.basis), "rollback": request.rollback, "source": request.reference.to_string(),
            "summary": decider.is_some().then(|| statements.first()).flatten(),
            "statements": statements,
            "beside": publication.beside.iter().map(|one| one.manifest.digest).collect::<Vec<_>>(),
        });
        if index.is_some() {
            let of_image = |image: &Granted<'_>| Deployed::of(image.image.digest(), &image.image.platforms);
            moved["platforms"] = granted.iter().map(of_image).fold(Deployed::default(), Deployed::and).to_json();
        }
        self.record("promoted", RecordKind::Promotion, moved)?;
        Ok(Promoted::Allowed { image: grant.image, record, basis: grant.basis })
    }

    /// Where the image comes from, by name: a repository, the environment whose folder the gateway says it is, or `build`. What a
    /// layout says of itself is nobody's word.
    fn source_name(&self) -> String {
        let environment = self.request.environments.at(self.place);
        let name = |name: &EnvironmentName| Repository::of(self.place, name).to_string();
        let unnamed =
            || Repository::of_registry(self.place).map_or_else(|| "build".to_owned(), |name| name.to_string());
        environment.map_or_else(unnamed, name)
    }

    fn record(&self, outcome: &str, kind: RecordKind, body: Value) -> Result<u64, Error> {
        self.record_about(self.image.digest, outcome, kind, body)
    }

    /// Records the decision about one image of the index.
    fn record_platform(&self, image: &Candidate, outcome: &str, body: Value) -> Result<u64, Error> {
        self.record_about(image.digest(), outcome, RecordKind::Decision, body)
    }

    fn record_about(&self, image: Digest, outcome: &str, kind: RecordKind, mut body: Value) -> Result<u64, Error> {
        if self.request.dry_run || self.request.effective.is_some() {
            body["dryRun"] = json!(true);
        }
        if let Some(moment) = self.request.effective {
            body["effectiveTime"] = json!(moment);
        }
        let others = self.other_ledgers.borrow();
        if kind == RecordKind::Decision && !others.is_empty() {
            body["otherLedgers"] = json!(*others);
        }
        gate::shorten_lists(&mut body);
        let record = NewRecord {
            kind,
            at: self.ports.clock.now(),
            subject: Some(image),
            environment: Some(self.request.judge.name.clone()),
            outcome: outcome.to_owned(),
            body,
        };
        Ok(evidence::record(self.ports, &record)?.sequence)
    }
}

fn causes(error: &Error) -> Vec<String> {
    error.causes().iter().map(|cause| gate::reason(cause)).collect()
}
