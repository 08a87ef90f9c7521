//! `promote`: resolves to a digest, verifies, asks the gate, and only with its permit signs, copies and moves the tag.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    path::Path,
};

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::BUNDLE;
use sluicegate_policy::{
    facts::{ByHand, GateScan},
    judge::{Basis, Denial, Permit, Reason, Verdict},
};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::ExecuteError,
    images::{Descriptor, ImagePlaceError, ImageSource},
    scan::{ScanError, Scanner},
    sign::Signer,
};
use sluicegate_types::{
    Digest, EnvironmentName, ImageRef, NonEmpty, PinnedImage, Place, Repository, Selector, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{
    Trust, VerifiedStatement,
    closed_set::{Asked, ClosedSet, Followed, Incomplete, follow},
};

use crate::{
    Error, Failure, Ports,
    attest::attest,
    compat,
    error::incomplete,
    evidence::{self, Adoptions},
    fetch::{self, Fetched},
    folders::{EnvironmentPlaces, is_same},
    gate::{self, Case, RuleEvaluator},
    gateway::{Judge, JudgeRecord},
    push, replay,
    scan::Scanning,
    sign,
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
    /// Go back to an image that the environment held before.
    pub rollback: bool,
    /// Also write what cosign 2 looks for, [`compat::cosign2`].
    pub compat_cosign2: bool,
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
        denials: NonEmpty<Denial>,
        /// The evidence record of the decision.
        record: u64,
    },
    /// Nothing could be decided.
    Undecided {
        /// The image.
        image: Digest,
        /// Why not.
        reasons: NonEmpty<OpenReason>,
        /// The evidence record of the decision.
        record: u64,
    },
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

/// Promotes an image to the judge's environment.
pub fn promote(ports: &Ports<'_>, request: &PromoteRequest<'_>) -> Result<Promoted, Error> {
    let image = request.reference.relative_to(request.folder);
    let source = ports.places.source(&image.place)?;
    let descriptor = source.resolve(&image.selector)?;
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
        )));
    }
    let promotion = Promotion {
        ports,
        request,
        image: &descriptor,
        place: &image.place,
        target: place_of(request),
        allowed: Cell::new(false),
        other_ledgers: RefCell::default(),
    };
    promotion.judged(source.as_ref()).inspect_err(|error| {
        if matches!(error, Error::CutBack(_)) {
            return;
        }
        // What could not be decided is on record like what was, and so is what was allowed and could not be done, and what may not be
        // asked for, such as a tag that goes back.
        let (outcome, kind) = match error.failure() {
            _ if promotion.allowed.get() => ("failed", RecordKind::Promotion),
            Failure::Usage => ("refused", RecordKind::Decision),
            _ => ("undecided", RecordKind::Decision),
        };
        let body = json!({"image": descriptor.digest, "gateway": request.judge.gateway, "reasons": causes(error)});
        if let Err(unrecorded) = promotion.record(outcome, kind, body) {
            (ports.warn)(&format!("this could not be recorded: {unrecorded}"));
        }
    })
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
}

/// The gate's own scan.
#[derive(Default)]
struct Scanned {
    scan: Option<GateScan>,
    /// What carries it: its bundle and the raw report.
    parts: Vec<Descriptor>,
    /// Why there is none, where a gate wanted one.
    failure: Option<String>,
}

/// A verdict that is no leave.
enum Refusal {
    Denied {
        denials: NonEmpty<Denial>,
        /// Every attestation that was looked at for it.
        used: Vec<Digest>,
    },
    Open(NonEmpty<Reason>),
}

impl Refusal {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "deny",
            Self::Open(_) => "undecided",
        }
    }
}

impl Promotion<'_> {
    fn judged(&self, source: &dyn ImageSource) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        // First of all: nothing is recorded behind a ledger that was cut back, not even that the rest could not be decided.
        let tag = &request.judge.environment.tag;
        let current = ports.places.target(&self.target)?.current(Some(tag))?.map(|occupant| occupant.image);
        let is_readable = self.compare_ledgers(current)?;
        let repository = request.judge.repository();
        let asked = |at: UnixTime| Asked { trust: request.trust, repository: Some(&repository), at };
        let fetched = fetch::fetch_evidence(source, self.image, asked(ports.clock.now()))?;
        let follow_at = |at: UnixTime| follow(self.image.digest, &fetched.attached, &fetched.blobs, asked(at));
        let followed = follow_at(ports.clock.now());
        if followed.unlooked > 0 {
            (ports.tell)(&format!("{} statements of known signers were not looked at", followed.unlooked));
        }
        if followed.sets.is_empty() {
            return self.without_set(followed.incomplete);
        }
        if is_on(Check::OwnPlace) && is_same(self.place, &self.target) {
            return Err(Error::Usage(format!(
                "{} is the place of {} itself: an environment has a place of its own, where nothing is built",
                self.target, request.judge.name
            )));
        }
        // What the decision can be made again from; of an image that proves nothing, nothing.
        for bytes in fetched.attached.values().chain(fetched.blobs.values()) {
            ports.store.put_bytes(bytes)?;
        }
        self.refuse_backwards(current, is_readable)?;
        // Only an image that proves something gets room in the store.
        fetch::fetch_image(source, self.image, Some(ports.store))?;
        let scanned = match &request.judge.gate {
            Some(_) => self.gate_scan(&fetched)?,
            None => Scanned::default(),
        };
        // A scan takes its time: what is judged is what is true after it, and all of it at one moment.
        let now = ports.clock.now();
        let followed = follow_at(now);
        if followed.sets.is_empty() {
            return self.without_set(followed.incomplete);
        }
        self.judge_sets(&fetched, &followed, current, scanned, now)
    }

    /// Sets are judged singly, never mixed; one that is allowed suffices, and each that is not is on record all the same. If none is
    /// allowed, a denial weighs more than an open question.
    fn judge_sets(
        &self,
        fetched: &Fetched,
        followed: &Followed,
        current: Option<Digest>,
        scanned: Scanned,
        now: UnixTime,
    ) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        let by_hand = followed.by_hand();
        let mut refused = Vec::new();
        let mut permitted = None;
        for set in &followed.sets {
            let case = Case {
                judge: request.judge,
                set,
                by_hand: ByHand { alone: &by_hand, together: &followed.endorsed },
                scan: scanned.scan.clone(),
                current,
                now,
            };
            let decision = gate::decide(&case, request.evaluator);
            let used = decision.used.clone();
            let mut body = decision.keep(ports)?;
            body["rollback"] = json!(request.rollback);
            if decision.replayable {
                body["replay"] = json!(replay::keep_inputs(ports, request.files, fetched, case.scan.as_ref())?);
            }
            match decision.verdict {
                Verdict::Allow(permit) => {
                    permitted = Some((set, permit, body));
                    break;
                }
                Verdict::Deny(denials) => refused.push((Refusal::Denied { denials, used }, body)),
                Verdict::Undecided(reasons) => refused.push((Refusal::Open(reasons), body)),
            }
        }
        if let Some((set, permit, body)) = permitted {
            for (refusal, body) in refused {
                self.record(refusal.outcome(), RecordKind::Decision, body)?;
            }
            if request.dry_run && is_on(Check::DryRun) {
                return self.would_allow(permit, body);
            }
            let said: Vec<&VerifiedStatement> = followed.verified().collect();
            return self.allowed(fetched, set, &said, permit, body, scanned.parts);
        }
        // The last one is what is told: denials after what was left open.
        refused.sort_by_key(|(refusal, _)| matches!(refusal, Refusal::Denied { .. }));
        let mut told = None;
        for (refusal, body) in refused {
            told = Some(self.refused(refusal, body, scanned.failure.as_ref(), now)?);
        }
        match told {
            Some(told) => Ok(told),
            None => self.without_set(Vec::new()),
        }
    }

    /// What the environment holds was decided about, and the decision says what the ledger was then. A ledger that was cut back or
    /// rewritten since is not added to; that another home decided is told and recorded. Gives whether what is there can be read.
    fn compare_ledgers(&self, current: Option<Digest>) -> Result<bool, Error> {
        let Self { ports, request, .. } = *self;
        let Some(current) = current else { return Ok(false) };
        let repository = request.judge.repository();
        let asked = Asked { trust: request.trust, repository: Some(&repository), at: ports.clock.now() };
        let read = || {
            let source = ports.places.source(&self.target)?;
            let held = source.resolve(&Selector::Digest(current))?;
            fetch::fetch_evidence(source.as_ref(), &held, asked)
        };
        let name = format!("{} ({current})", request.judge.name);
        match read() {
            Ok(held) => {
                let others = evidence::fits_what_is_there(ports, &held, &name, request.trust)?;
                for origin in &others {
                    (ports.warn)(&format!("what {name} holds was decided under another ledger, {origin}"));
                }
                self.other_ledgers.replace(others);
                Ok(true)
            }
            // What lies there may be damaged; what comes in its place is not.
            Err(error) => {
                (ports.warn)(&format!("what {name} holds can't be compared with the ledger: {error}"));
                Ok(false)
            }
        }
    }

    /// A tag never moves back to an image that it named before, unless that is what was asked for: an old image with an old hole
    /// would pass for the newest one (trust model 10). What the environment holds, can be read and no record knows is recorded as found.
    /// A record that its writer did not log says nothing.
    fn refuse_backwards(&self, current: Option<Digest>, is_readable: bool) -> Result<(), Error> {
        let Self { ports, request, .. } = *self;
        let (image, environment) = (self.image.digest, &request.judge.name);
        let (mut earlier, mut last, mut knows_current) = (None, None, false);
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
            }
        })?;
        // A promotion whose record was lost, by a crash after the tag moved or in another home, is known from now on.
        if let Some(there) = current.filter(|_| is_readable && !knows_current) {
            let body = json!({"to": there, "tag": request.judge.environment.tag});
            self.record_about(there, "found", RecordKind::Promotion, body)?;
        }
        // Where the place was emptied, the records still know what it held last.
        let is_there = current.or(last) == Some(image);
        match earlier {
            Some(record) if is_on(Check::Backwards) && !is_there && !request.rollback => Err(Error::Usage(format!(
                "{image} was promoted to {environment} before (evidence {record}) and something newer was since: moving a tag \
                 backwards needs --rollback"
            ))),
            Some(_) if !is_there => Ok(()),
            _ if request.rollback && is_on(Check::NothingToRollBack) => Err(Error::Usage(format!(
                "--rollback goes back to an image that {environment} held before; {image} {}",
                if is_there { "is what it holds now" } else { "was never promoted there from this home" }
            ))),
            _ => Ok(()),
        }
    }

    /// Without a whole set there is nothing to judge; a named bundle that is false is an error of its own kind.
    fn without_set(&self, reasons: Vec<Incomplete>) -> Result<Promoted, Error> {
        let image = self.image.digest;
        let (wrong, open): (Vec<_>, Vec<_>) =
            reasons.into_iter().partition(|reason| incomplete(reason) == Failure::Wrong);
        if let Some(reason) = wrong.into_iter().next() {
            return Err(Error::Incomplete { image, source: Box::new(reason) });
        }
        let nothing = || NonEmpty::one(OpenReason::Set(Incomplete::NoProvenance { image, ignored: Vec::new() }));
        let reasons: Vec<_> = open.into_iter().map(OpenReason::Set).collect();
        let body = json!({"image": image, "gateway": self.request.judge.gateway});
        self.undecided(NonEmpty::try_from(reasons).unwrap_or_else(|_| nothing()), body)
    }

    /// The gate scans the image itself, with its own database; a scan that somebody attached is never taken for it (trust model 4).
    /// Why it could not is kept: that leaves the question open and must not look like an answer.
    fn gate_scan(&self, fetched: &Fetched) -> Result<Scanned, Error> {
        let Self { ports, request, image, .. } = *self;
        let not = |reason: String| Ok(Scanned { failure: Some(reason), ..Scanned::default() });
        let scanner = match &request.scanner {
            Ok(scanner) => *scanner,
            Err(reason) => return not(reason.clone()),
        };
        let blobs: Vec<Digest> =
            fetched.manifest.layers.iter().map(|layer| layer.digest).chain([fetched.manifest.config.digest]).collect();
        let name = request.judge.name.to_string();
        let scanned = match Scanning::new(ports, scanner, request.scratch).image(image, &blobs, &name) {
            Ok(scanned) => scanned,
            Err(Error::Scan(error)) => {
                let remedy = match &error {
                    ScanError::Sandbox(ExecuteError::NotHere { remedy, .. }) => format!("; {remedy}"),
                    _ => String::new(),
                };
                return not(format!("the gate could not scan the image: {error}{remedy}"));
            }
            Err(error) => return Err(error),
        };
        let mut attested = attest(ports, request.records, request.trust, &[scanned.vulns], ports.clock.now())?;
        let Some(attested) = attested.pop() else { return not("the scan was not attested".to_owned()) };
        let report = ports.store.read(&scanned.report.digest, scanned.report.size)?;
        let bundle = Descriptor::new(BUNDLE, attested.statement.bundle(), attested.size);
        match GateScan::new(&image.digest, &attested.statement, report) {
            Ok(scan) => Ok(Scanned { scan: Some(scan), parts: vec![bundle, scanned.report], failure: None }),
            Err(error) => not(error.to_string()),
        }
    }

    fn refused(
        &self,
        refusal: Refusal,
        body: Value,
        scan_failure: Option<&String>,
        now: UnixTime,
    ) -> Result<Promoted, Error> {
        match refusal {
            Refusal::Denied { denials, used } => {
                let record = self.denied(&used, body, now)?;
                Ok(Promoted::Denied { image: self.image.digest, denials, record })
            }
            Refusal::Open(reasons) => {
                let mut reasons = reasons.map(OpenReason::Gate);
                reasons.extend(scan_failure.cloned().map(OpenReason::Scan));
                self.undecided(reasons, body)
            }
        }
    }

    /// A denial is signed by role `records`, never by the decisions key; it is kept in the evidence store and laid beside the image
    /// as an artifact of its own type, which nobody takes for a signature (trust model 5).
    fn denied(&self, used: &[Digest], body: Value, now: UnixTime) -> Result<u64, Error> {
        let Self { ports, request, .. } = *self;
        // On record before it is signed, so that what is signed vouches for its own record; and before anything is asked of the
        // image's place, which belongs to somebody else.
        let decision = self.record("deny", RecordKind::Decision, body)?;
        if request.dry_run {
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

    fn undecided(&self, reasons: NonEmpty<OpenReason>, mut body: Value) -> Result<Promoted, Error> {
        body["reasons"] = reasons.iter().map(|reason| json!(reason.to_string())).collect();
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
        fetched: &Fetched,
        set: &ClosedSet,
        said: &[&VerifiedStatement],
        permit: Permit,
        body: Value,
        gate_scan: Vec<Descriptor>,
    ) -> Result<Promoted, Error> {
        let Self { ports, request, .. } = *self;
        let grant = permit.spend();
        let now = ports.clock.now();
        // The decision is on record before its key is opened and before anything can be seen at the target.
        let record = self.record(gate::outcome_of(&grant), RecordKind::Decision, body)?;
        self.allowed.set(true);
        let in_time = grant.decided_at <= now && now <= grant.decided_at.plus(PERMIT_LIFE);
        if is_on(Check::PermitAge) && !in_time {
            return Err(Error::Again(format!("the permit of {} is too old at {now}; ask again", grant.decided_at)));
        }
        if grant.image.digest != fetched.descriptor.digest || grant.environment != request.judge.name {
            return Err(Error::Bug("the permit is for another image or environment".to_owned()));
        }
        let decider = match grant.basis {
            Basis::Gate { .. } => Some((request.decisions)()?),
            Basis::Ungated => None,
        };
        let from = self.source_name();
        let copied = sign::Copied { from: &from, now };
        let decisions = match (&decider, grant.basis) {
            (Some(decider), Basis::Gate { expires }) => {
                sign::decision(ports, request, decider.as_ref(), set, &grant, expires, copied)?
            }
            _ => sign::ungated(ports, request, &grant, copied)?,
        };
        let named = push::Named { set, said, gate_scan };
        let mut publication = push::publication(ports, (fetched, self.place), &named, &grant, &decisions, now)?;
        if let Some(decider) = decider.as_ref().filter(|_| request.compat_cosign2) {
            compat::cosign2(ports, &mut publication, decider.as_ref(), &grant)?;
        }
        push::push(ports, &self.target, &publication)?;
        let moved = json!({
            "decision": record, "from": grant.previous, "to": grant.image.digest, "tag": grant.tag,
            "basis": gate::outcome_of(&grant), "rollback": request.rollback, "source": request.reference.to_string(),
            "summary": decider.is_some().then(|| decisions.first().map(|attested| attested.statement.bundle())).flatten(),
            "statements": decisions.iter().map(|attested| attested.statement.bundle()).collect::<Vec<_>>(),
            "beside": publication.beside.iter().map(|one| one.manifest.digest).collect::<Vec<_>>(),
        });
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

    fn record_about(&self, image: Digest, outcome: &str, kind: RecordKind, mut body: Value) -> Result<u64, Error> {
        if self.request.dry_run {
            body["dryRun"] = json!(true);
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
