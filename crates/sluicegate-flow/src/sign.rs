//! What is signed about a decision, and by which key: a decisions key signs what a gate allowed and nothing else, the key of role
//! `records` everything else (trust model 5).

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{AUTHORITY_SELF, BUNDLE, DENIAL_ARTIFACT, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::Statement,
    summary::{Promotion, VerificationSummary},
};
use sluicegate_policy::judge::Grant;
use sluicegate_ports::{images::Descriptor, sign::Signer};
use sluicegate_types::{Digest, PinnedImage, UnixTime};
use sluicegate_verify::closed_set::ClosedSet;

use crate::{
    Error, Ports, assemble,
    attest::{Attested, attest},
    evidence,
    promote::PromoteRequest,
    scan,
};

/// What is said of a copy beside what the permit granted.
#[derive(Clone, Copy)]
pub struct Copied<'a> {
    /// The media type of the image or index of images that the permit is for.
    pub media_type: &'a str,
    /// Where the image comes from, by name.
    pub from: &'a str,
    /// When it is copied.
    pub now: UnixTime,
}

/// The three things a decisions key signs, and nothing else: the summary, the promotion and the image's signature. Of an index, `sets` are
/// those of its images.
pub fn decision(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    signer: &dyn Signer,
    sets: &[&ClosedSet],
    grant: &Grant,
    expires: UnixTime,
    copied: Copied<'_>,
) -> Result<Vec<Attested>, Error> {
    let level_of = |set: &&ClosedSet| request.levels.get(set.provenance().0.signer());
    let first = sets.first().and_then(level_of);
    // Images of several levels are of none that could be named.
    let level = first.filter(|first| sets.iter().all(|set| level_of(set) == Some(first)));
    let level = level.cloned().unwrap_or_else(|| "SLSA_BUILD_LEVEL_UNEVALUATED".to_owned());
    let summary = VerificationSummary {
        verifier_id: request.judge.verifier_id.clone(),
        time_verified: grant.decided_at,
        resource: grant.image.clone(),
        policy: grant.gateway,
        inputs: grant.used.clone(),
        passed: true,
        levels: vec![level],
        environment: grant.environment.clone(),
        expires,
        authority: AUTHORITY_SELF.to_owned(),
        ledger: evidence::head(ports)?,
    };
    let statement = about(copied, grant, PredicateType::VerificationSummary, summary.to_predicate());
    let mut attested = attest(ports, signer, request.trust, &[statement], copied.now)?;
    let decided = attested.first().map(|a| a.statement.bundle());
    let promotion = promotion(ports, request, copied, grant, decided)?;
    let rest = [
        about(copied, grant, PredicateType::Promotion, promotion.to_predicate()),
        about(copied, grant, PredicateType::ImageSignature, json!({})),
    ];
    attested.extend(attest(ports, signer, request.trust, &rest, copied.now)?);
    Ok(attested)
}

/// Without a gate nobody vouches: only that it was copied is kept, by role `records`. No summary, no signature.
pub fn ungated(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    grant: &Grant,
    copied: Copied<'_>,
) -> Result<Vec<Attested>, Error> {
    let promotion = promotion(ports, request, copied, grant, None)?;
    let statement = about(copied, grant, PredicateType::Promotion, promotion.to_predicate());
    attest(ports, request.records, request.trust, &[statement], copied.now)
}

/// A statement about what was granted and nothing else.
fn about(copied: Copied<'_>, grant: &Grant, kind: PredicateType, predicate: Value) -> Statement {
    scan::about((copied.media_type, grant.image.digest), grant.image.repository.as_str(), kind, predicate)
}

fn promotion(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    copied: Copied<'_>,
    grant: &Grant,
    decision: Option<Digest>,
) -> Result<Promotion, Error> {
    Ok(Promotion {
        image: grant.image.digest,
        source: copied.from.to_owned(),
        destination: grant.image.clone(),
        timestamp: copied.now,
        builder_id: LOCAL_BUILDER.to_owned(),
        decision,
        verifier_id: request.judge.verifier_id.clone(),
        gateway: grant.gateway,
        authority: AUTHORITY_SELF.to_owned(),
        environment: grant.environment.clone(),
        ledger: evidence::head(ports)?,
    })
}

/// A signed denial.
pub struct Denial {
    /// Its bundle.
    pub bundle: Digest,
    /// The manifest that carries it, of a type that nobody reads as a signature.
    pub manifest: Descriptor,
}

/// Signs what the gate refused at `now`, having looked at what was `used`.
pub fn denial(
    ports: &Ports<'_>,
    request: &PromoteRequest<'_>,
    image: &Descriptor,
    used: &[Digest],
    now: UnixTime,
) -> Result<Denial, Error> {
    let name = request.judge.repository();
    let summary = VerificationSummary {
        verifier_id: request.judge.verifier_id.clone(),
        time_verified: now,
        resource: PinnedImage { repository: name.clone(), digest: image.digest },
        policy: request.judge.gateway,
        inputs: used.to_vec(),
        passed: false,
        levels: vec!["FAILED".to_owned()],
        environment: request.judge.name.clone(),
        expires: now.plus(request.judge.gate.as_ref().map_or(0, |gate| gate.conditions.valid_for.as_secs())),
        authority: AUTHORITY_SELF.to_owned(),
        ledger: evidence::head(ports)?,
    };
    let about = (image.media_type.as_str(), image.digest);
    let statement = scan::about(about, name.as_str(), PredicateType::VerificationSummary, summary.to_predicate());
    let mut attested = attest(ports, request.records, request.trust, &[statement], now)?;
    let attested = attested.pop().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))?;
    let bundle = attested.statement.bundle();
    let part = Descriptor::new(BUNDLE, bundle, attested.size);
    let manifest = assemble::referrer(ports, image, DENIAL_ARTIFACT, vec![part], Default::default())?;
    Ok(Denial { bundle, manifest })
}
