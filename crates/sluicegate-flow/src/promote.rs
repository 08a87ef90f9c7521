//! `promote`: resolves to a digest, verifies, asks the gate, and only with its permit signs, copies and moves the tag.

use std::{cell::Cell, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{BUNDLE, GATE_SCAN_ARTIFACT, LOCAL_BUILDER},
    predicate::PredicateType,
    summary::{Promotion, VerificationSummary},
};
use sluicegate_policy::{
    facts::GateScan,
    judge::{Denial, Grant, Permit, Reason, Verdict},
};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::ExecuteError,
    images::{Descriptor, ImageSource, Publication},
    scan::{ScanError, Scanner},
    sign::Signer,
};
use sluicegate_types::{Digest, ImageRef, NonEmpty, PinnedImage, Repository, UnixTime};
use sluicegate_verify::{
    Trust,
    closed_set::{ClosedSet, follow},
};

use crate::{
    Error, Ports, assemble,
    attest::{Attested, attest},
    error::incomplete,
    evidence,
    fetch::{self, Fetched},
    folders::where_it_leads,
    gate::{self, RuleEvaluator},
    gateway::Judge,
    scan,
};

/// Everything a promotion needs beside the shared ports.
pub struct PromoteRequest<'a> {
    /// What to promote.
    pub reference: &'a ImageRef,
    /// The folder that the reference is relative to.
    pub folder: &'a Path,
    /// The folder that the environment's repository is relative to: the gateway file's.
    pub gateway_folder: &'a Path,
    /// The judge.
    pub judge: &'a Judge,
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
    /// Opens the environment's decisions key, which is asked for only when something was allowed.
    pub decisions: &'a dyn Fn() -> Result<Box<dyn Signer>, Error>,
    /// A folder for scratch files.
    pub scratch: &'a Path,
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
        /// The last second at which the decision is worth something.
        expires: UnixTime,
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
        reasons: NonEmpty<String>,
        /// The evidence record of the decision.
        record: u64,
    },
}

/// Seconds after which a permit is not used any more: a decision is about what is true now.
const PERMIT_LIFE: u64 = 600;

/// Promotes an image to the judge's environment.
pub fn promote(ports: &Ports<'_>, request: &PromoteRequest<'_>) -> Result<Promoted, Error> {
    let place = request.reference.clone().relative_to(request.folder);
    let source = ports.places.source(&place.directory)?;
    let descriptor = source.resolve(&place.selector)?;
    (ports.tell)(&format!("{} is {}", request.reference, descriptor.digest));
    let allowed = Cell::new(false);
    judged(ports, request, source.as_ref(), &descriptor, &place.directory, &allowed).inspect_err(|error| {
        // What could not be decided is on record like what was, and so is what was allowed and could not be done.
        let (outcome, kind) =
            if allowed.get() { ("failed", RecordKind::Promotion) } else { ("undecided", RecordKind::Decision) };
        let words = error.causes();
        let body = json!({"image": descriptor.digest, "gateway": request.judge.conditions.gateway, "reasons": words});
        let recorded = record(ports, request, &descriptor.digest, outcome, kind, body);
        if let Err(unrecorded) = recorded {
            (ports.warn)(&format!("this could not be recorded: {unrecorded}"));
        }
    })
}

fn judged(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    folder: &Path,
    is_allowed: &Cell<bool>,
) -> Result<Promoted, Error> {
    let fetched = fetch::fetch(source, descriptor, Some(ports.store))?;
    for bytes in fetched.attached.values().chain(fetched.blobs.values()) {
        ports.store.put_bytes(bytes)?;
    }
    let now = ports.clock.now();
    let followed = follow(descriptor.digest, &fetched.attached, &fetched.blobs, request.trust, now);
    if followed.sets.is_empty() {
        return without_set(ports, request, &descriptor.digest, followed.incomplete);
    }
    let target = request.gateway_folder.join(&request.judge.environment.repository);
    if where_it_leads(folder) == where_it_leads(&target) {
        return Err(Error::Usage(format!(
            "{} is the place of {} itself: an environment has a folder of its own, where nothing is built",
            target.display(),
            request.judge.name
        )));
    }
    let current = ports.places.target(&target)?.current()?.map(|occupant| occupant.image);
    refuse_backwards(ports, request, &descriptor.digest, current)?;
    let (scan, parts) = match gate_scan(ports, request, descriptor, &fetched)? {
        Ok((scan, parts)) => (Ok(scan), parts),
        Err(reason) => (Err(reason), Vec::new()),
    };
    // Sets are judged singly, never mixed; one that is allowed suffices, and each that is not is on record all the same.
    let mut last = None;
    for set in &followed.sets {
        let scan = scan.clone();
        let decision =
            gate::decide(ports, request.judge, set, scan.clone().ok(), request.evaluator, current, ports.clock.now())?;
        match decision.verdict {
            Verdict::Allow(permit) => {
                return allowed(ports, request, &fetched, set, permit, decision.body, parts, &target, is_allowed);
            }
            verdict => last = Some(refused(ports, request, &descriptor.digest, verdict, decision.body, scan.err())?),
        }
    }
    match last {
        Some(refused) => Ok(refused),
        None => {
            let nothing = NonEmpty::one("no evidence was judged".to_owned());
            undecided(ports, request, &descriptor.digest, nothing, json!({}))
        }
    }
}

/// Records that are looked through for earlier promotions.
const MAX_RECORDS: u32 = 100_000;

/// A tag never moves back to an image that it named before: an old image with an old hole would pass for the newest one.
fn refuse_backwards(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Digest,
    current: Option<Digest>,
) -> Result<(), Error> {
    if current.is_none() || current == Some(*image) {
        return Ok(());
    }
    let earlier = ports.evidence.list(MAX_RECORDS)?.into_iter().find(|record| {
        record.kind == RecordKind::Promotion
            && record.outcome == "promoted"
            && record.subject == Some(*image)
            && record.environment.as_ref() == Some(&request.judge.name)
    });
    match earlier {
        None => Ok(()),
        Some(record) => Err(Error::Usage(format!(
            "{image} was promoted to {} before (evidence {}) and something newer is there now: moving a tag backwards needs \
             --rollback, which is not in this version",
            request.judge.name, record.sequence
        ))),
    }
}

/// Without a whole set there is nothing to judge; a named bundle that is false is an error of its own kind.
fn without_set(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Digest,
    reasons: Vec<sluicegate_verify::closed_set::Incomplete>,
) -> Result<Promoted, Error> {
    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    if let Some(reason) = reasons.into_iter().find(|reason| incomplete(reason) == crate::Failure::Wrong) {
        return Err(Error::Incomplete { image: *image, source: Box::new(reason) });
    }
    let body = json!({"image": image, "gateway": request.judge.conditions.gateway, "reasons": words});
    let words = NonEmpty::try_from(words).unwrap_or_else(|_| NonEmpty::one("the evidence is not whole".to_owned()));
    undecided(ports, request, image, words, body)
}

/// The gate scans the image itself, with its own database; a scan that somebody attached is never taken for it (trust model 4).
/// The inner error says why it could not: that leaves the question open and must not look like an answer.
fn gate_scan(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Descriptor,
    fetched: &Fetched,
) -> Result<Result<(GateScan, Vec<Descriptor>), String>, Error> {
    let not = |reason: String| Ok(Err(reason));
    let scanner = match &request.scanner {
        Ok(scanner) => *scanner,
        Err(reason) => return not(reason.clone()),
    };
    let blobs: Vec<Digest> =
        fetched.manifest.layers.iter().map(|layer| layer.digest).chain([fetched.manifest.config.digest]).collect();
    let name = request.judge.name.to_string();
    let scanned = match scan::scan(ports, scanner, image, &blobs, &name, request.scratch) {
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
        Ok(scan) => Ok(Ok((scan, vec![bundle, scanned.report]))),
        Err(error) => not(error.to_string()),
    }
}

fn refused(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Digest,
    verdict: Verdict,
    mut body: Value,
    scan_failure: Option<String>,
) -> Result<Promoted, Error> {
    match verdict {
        Verdict::Deny(denials) => {
            let record = denied(ports, request, image, body)?;
            Ok(Promoted::Denied { image: *image, denials, record })
        }
        Verdict::Undecided(reasons) => {
            let mut words: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            words.extend(scan_failure);
            body["reasons"] = json!(words);
            let words = NonEmpty::try_from(words).unwrap_or_else(|_| NonEmpty::one("no reason was given".to_owned()));
            undecided(ports, request, image, words, body)
        }
        Verdict::Allow(_) => Err(Error::Bug("an allowed image can't be refused".to_owned())),
    }
}

/// A denial is signed by role `records`, never by the decisions key, and kept in the evidence store (trust model 5).
fn denied(ports: &Ports<'_>, request: &PromoteRequest<'_>, image: &Digest, mut body: Value) -> Result<u64, Error> {
    let now = ports.clock.now();
    let summary = VerificationSummary {
        verifier_id: request.judge.verifier_id.clone(),
        time_verified: now,
        resource: target_image(request, *image),
        policy: request.judge.conditions.gateway,
        inputs: digests(&body["used"]),
        passed: false,
        levels: vec!["FAILED".to_owned()],
        environment: request.judge.name.clone(),
        expires: now.plus(request.judge.conditions.valid_for.as_secs()),
        authority: "self".to_owned(),
        ledger: evidence::head(ports)?,
    };
    let name = Repository::of_environment(&request.judge.name);
    let statement =
        scan::about_image(*image, name.as_str(), PredicateType::VerificationSummary, summary.to_predicate());
    // A denial that can't be signed is still a denial: it is never lost for the sake of its signature.
    match attest(ports, request.records, request.trust, &[statement], now) {
        Ok(attested) => body["summary"] = json!(attested.first().map(|a| a.statement.bundle())),
        Err(error) => {
            (ports.warn)(&format!("the denial could not be signed: {error}"));
            body["unsigned"] = json!(error.causes());
        }
    }
    record(ports, request, image, "deny", RecordKind::Decision, body)
}

fn undecided(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Digest,
    reasons: NonEmpty<String>,
    body: Value,
) -> Result<Promoted, Error> {
    let record = record(ports, request, image, "undecided", RecordKind::Decision, body)?;
    Ok(Promoted::Undecided { image: *image, reasons, record })
}

#[allow(
    clippy::too_many_arguments,
    reason = "the permit is spent in exactly one place, which needs all that it was given for"
)]
fn allowed(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    fetched: &Fetched,
    set: &ClosedSet,
    permit: Permit,
    body: Value,
    gate_scan: Vec<Descriptor>,
    target: &Path,
    is_allowed: &Cell<bool>,
) -> Result<Promoted, Error> {
    let grant = permit.spend();
    let now = ports.clock.now();
    if now > grant.decided_at.plus(PERMIT_LIFE) || now < grant.decided_at {
        return Err(Error::Again(format!("the permit of {} is too old at {now}; ask again", grant.decided_at)));
    }
    if grant.image.digest != fetched.descriptor.digest || grant.environment != request.judge.name {
        return Err(Error::Bug("the permit is for another image or environment".to_owned()));
    }
    let signer = (request.decisions)()?;
    // The decision is on record before its key signs anything and before anything can be seen at the target.
    let record_number = record(ports, request, &grant.image.digest, "allow", RecordKind::Decision, body)?;
    is_allowed.set(true);
    let decisions = sign_decision(ports, request, signer.as_ref(), set, &grant, now)?;
    let publication = publication(ports, fetched, set, &grant, &decisions, gate_scan, now)?;
    let place = ports.places.target(target)?;
    place.publish(&publication, ports.store)?;
    let held = place.current()?;
    if !held.is_some_and(|held| held.image == grant.image.digest && held.tags == [grant.tag.clone()]) {
        return Err(Error::Again(format!("{} does not hold what was just written to it", target.display())));
    }
    let moved = json!({
        "decision": record_number, "from": grant.previous, "to": grant.image.digest, "tag": grant.tag,
        "source": request.reference.to_string(), "summary": decisions.first().map(|a| a.statement.bundle()),
    });
    record(ports, request, &grant.image.digest, "promoted", RecordKind::Promotion, moved)?;
    Ok(Promoted::Allowed { image: grant.image, record: record_number, expires: grant.expires })
}

/// The three things a decisions key signs, and nothing else: the summary, the promotion and the image's signature.
fn sign_decision(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    signer: &dyn Signer,
    set: &ClosedSet,
    grant: &Grant,
    now: UnixTime,
) -> Result<Vec<Attested>, Error> {
    let builder = set.provenance().0.signer();
    let level = request.levels.get(builder).cloned().unwrap_or_else(|| "SLSA_BUILD_LEVEL_UNEVALUATED".to_owned());
    let summary = VerificationSummary {
        verifier_id: request.judge.verifier_id.clone(),
        time_verified: grant.decided_at,
        resource: grant.image.clone(),
        policy: grant.gateway,
        inputs: grant.used.clone(),
        passed: true,
        levels: vec![level],
        environment: grant.environment.clone(),
        expires: grant.expires,
        authority: "self".to_owned(),
        ledger: evidence::head(ports)?,
    };
    let name = grant.image.repository.as_str();
    let about = |kind: PredicateType, predicate: Value| scan::about_image(grant.image.digest, name, kind, predicate);
    let statement = about(PredicateType::VerificationSummary, summary.to_predicate());
    let mut attested = attest(ports, signer, request.trust, &[statement], now)?;
    let promotion = Promotion {
        image: grant.image.digest,
        source: "build".to_owned(),
        destination: grant.image.clone(),
        timestamp: now,
        builder_id: LOCAL_BUILDER.to_owned(),
        decision: attested.first().map(|a| a.statement.bundle()),
        environment: grant.environment.clone(),
        ledger: summary.ledger,
    };
    let rest =
        [about(PredicateType::Promotion, promotion.to_predicate()), about(PredicateType::ImageSignature, json!({}))];
    attested.extend(attest(ports, signer, request.trust, &rest, now)?);
    Ok(attested)
}

/// Exactly what the decision names: the image, its closed set, the gate's scan and the decision itself. What else was attached
/// at the source stays there (trust model 10).
fn publication(
    ports: &Ports<'_>,
    fetched: &Fetched,
    set: &ClosedSet,
    grant: &Grant,
    decisions: &[Attested],
    gate_scan: Vec<Descriptor>,
    now: UnixTime,
) -> Result<Publication, Error> {
    let image = Descriptor::new(&fetched.descriptor.media_type, fetched.descriptor.digest, fetched.descriptor.size);
    let mut blobs: Vec<Digest> = fetched.manifest.layers.iter().map(|layer| layer.digest).collect();
    blobs.extend([fetched.manifest.config.digest, assemble::empty_config()]);
    let mut parts = Vec::new();
    let mut referrers = Vec::new();
    for statement in set.statements() {
        let digest = statement.bundle();
        blobs.push(digest);
        let bytes = fetched.attached.get(&digest).or_else(|| fetched.blobs.get(&digest));
        let size = bytes.map_or(0, |bytes| bytes.len() as u64);
        if statement.statement().is_about_image(&image.digest) {
            let kind = &statement.statement().predicate_type;
            referrers.push(assemble::bundle_referrer(ports, &image, digest, size, kind, now)?);
        } else {
            parts.push(Descriptor::new(BUNDLE, digest, size));
        }
    }
    for digest in set.other_digests() {
        blobs.push(*digest);
        let bytes = fetched.attached.get(digest).or_else(|| fetched.blobs.get(digest));
        let size = bytes.map_or(0, |bytes| bytes.len() as u64);
        parts.push(Descriptor::new(sluicegate_attestation::identifiers::TRIVY_REPORT, *digest, size));
    }
    referrers.insert(0, assemble::evidence_manifest(ports, &image, parts)?);
    if !gate_scan.is_empty() {
        blobs.extend(gate_scan.iter().map(|part| part.digest));
        referrers.push(assemble::referrer(ports, &image, GATE_SCAN_ARTIFACT, gate_scan, Default::default())?);
    }
    for attested in decisions {
        let kind = &attested.statement.statement().predicate_type;
        let bundle = attested.statement.bundle();
        blobs.push(bundle);
        referrers.push(assemble::bundle_referrer(ports, &image, bundle, attested.size, kind, now)?);
    }
    Ok(Publication {
        image,
        tags: vec![grant.tag.clone()],
        referrers,
        blobs,
        expected: grant.previous,
        environment: Some(grant.environment.clone()),
    })
}

fn record(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Digest,
    outcome: &str,
    kind: RecordKind,
    body: Value,
) -> Result<u64, Error> {
    let record = NewRecord {
        kind,
        at: ports.clock.now(),
        subject: Some(*image),
        environment: Some(request.judge.name.clone()),
        outcome: outcome.to_owned(),
        body,
    };
    Ok(evidence::record(ports, &record)?.sequence)
}

fn target_image(request: &PromoteRequest<'_>, digest: Digest) -> PinnedImage {
    PinnedImage { repository: Repository::of_environment(&request.judge.name), digest }
}

fn digests(value: &Value) -> Vec<Digest> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str()?.parse().ok()).collect()
}
