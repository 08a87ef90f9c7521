//! Whether an image may be where it is: a valid decision over a complete closed set, without asking any policy (`verify --for`).

use sluicegate_attestation::{
    predicate::PredicateType,
    summary::{Basis, PromotionClaim, SummaryClaim},
};
use sluicegate_types::{
    Digest, NonEmpty, PinnedImage, Repository, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{
    Role, Trust, VerifiedStatement,
    closed_set::{ClosedSet, Followed, Seen},
};

use crate::gateway::Judge;

/// Why an image may be in an environment.
#[derive(Debug)]
pub struct Admission {
    /// The image, by the environment's name.
    pub image: PinnedImage,
    /// The statement that says so.
    pub statement: Digest,
    /// Who signed it.
    pub signer: String,
    /// The last second at which it is worth something; `None` where there is no gate, and nothing is vouched for.
    pub expires: Option<UnixTime>,
}

/// Demands, for the judge's environment at this moment, an unexpired allowed verification summary of its decisions key, of this
/// gateway, for this very repository and image, over a whole closed set; where the gateway says `gate: none`, a promotion record of
/// role `records` under this gateway. The reasons say why each statement that comes near does not count (trust model 5 and 7).
pub fn admit(
    image: Digest,
    followed: &Followed,
    judge: &Judge,
    trust: &Trust,
    at: UnixTime,
) -> Result<Admission, NonEmpty<String>> {
    let asked = Question {
        judge,
        trust,
        at,
        image: PinnedImage { repository: Repository::of_environment(&judge.name), digest: image },
    };
    let mut reasons: Vec<String> = Vec::new();
    if followed.sets.is_empty() {
        reasons.extend(followed.incomplete.iter().map(ToString::to_string));
    }
    for seen in &followed.seen {
        let Seen::Verified(statement) = seen else { continue };
        let answer = match (&judge.gate, &statement.statement().predicate_type) {
            (Some(_), PredicateType::VerificationSummary) => asked.by_decision(statement, &followed.sets),
            (None, PredicateType::Promotion) => asked.by_record(statement, &followed.sets),
            _ => continue,
        };
        match answer {
            Ok(admission) => return Ok(admission),
            Err(reason) => reasons.push(format!("{} by {}: {reason}", statement.bundle(), statement.signer())),
        }
    }
    if reasons.is_empty() {
        let what = if judge.gate.is_some() { "decision" } else { "promotion record" };
        reasons.push(format!("no {what} for {} is attached to {image}", judge.name));
    }
    Err(NonEmpty::try_from(reasons).unwrap_or_else(|_| NonEmpty::one("nothing speaks for it".to_owned())))
}

struct Question<'a> {
    judge: &'a Judge,
    trust: &'a Trust,
    at: UnixTime,
    image: PinnedImage,
}

impl Question<'_> {
    fn by_decision(&self, statement: &VerifiedStatement, sets: &[ClosedSet]) -> Result<Admission, String> {
        let claim = SummaryClaim::parse(&statement.statement().predicate).map_err(|error| error.to_string())?;
        let judge = self.judge;
        if is_on(Check::AdmitVerdict) && (!statement.is_in_role(Role::Decisions) || !claim.passed) {
            return Err("it is a denial".to_owned());
        }
        if is_on(Check::AdmitEnvironment) && claim.environment != judge.name {
            return Err(format!("it is for the environment {}", claim.environment));
        }
        if is_on(Check::AdmitResource) && claim.resource != self.image.to_string() {
            return Err(format!("it is for {}, not {}", claim.resource, self.image));
        }
        self.check_judge(&claim.verifier_id, &claim.policy)?;
        if is_on(Check::AdmitExpired) && self.at > claim.expires {
            return Err(format!("it expired at {}", claim.expires));
        }
        if is_on(Check::AdmitFuture) && self.at.plus(CLOCK_SKEW) < claim.time_verified {
            return Err(format!("it was decided at {}, after {}", claim.time_verified, self.at));
        }
        self.check_authority(&claim.authority, &claim.policy)?;
        if is_on(Check::AdmitCovers) && !sets.iter().any(|set| set.is_named_by(&claim.inputs)) {
            return Err("no whole closed set is there that it was decided over".to_owned());
        }
        Ok(self.admission(statement, Some(claim.expires)))
    }

    fn by_record(&self, statement: &VerifiedStatement, sets: &[ClosedSet]) -> Result<Admission, String> {
        let claim = PromotionClaim::parse(&statement.statement().predicate).map_err(|error| error.to_string())?;
        let ungated = statement.is_in_role(Role::Records) && claim.basis == Basis::Ungated;
        if is_on(Check::AdmitBasis) && !ungated {
            return Err("it is the record of a gated promotion, and this environment has no gate".to_owned());
        }
        let here = claim.environment == self.judge.name && claim.destination == self.image.to_string();
        if is_on(Check::AdmitDestination) && !here {
            return Err(format!("it is for {} in {}", claim.destination, claim.environment));
        }
        self.check_judge(&claim.verifier_id, &claim.gateway)?;
        self.check_authority(&claim.authority, &claim.gateway)?;
        if is_on(Check::AdmitImage) && claim.image != self.image.digest {
            return Err(format!("it is for {}", claim.image));
        }
        if is_on(Check::AdmitFuture) && self.at.plus(CLOCK_SKEW) < claim.timestamp {
            return Err(format!("it was recorded at {}, after {}", claim.timestamp, self.at));
        }
        if is_on(Check::AdmitSet) && sets.is_empty() {
            return Err("no whole closed set is there".to_owned());
        }
        Ok(self.admission(statement, None))
    }

    fn check_judge(&self, verifier_id: &str, gateway: &Digest) -> Result<(), String> {
        let judge = self.judge;
        if is_on(Check::AdmitVerifier) && verifier_id != judge.verifier_id {
            return Err(format!("it is by the gate {verifier_id}, not {}", judge.verifier_id));
        }
        if is_on(Check::AdmitGateway) && *gateway != judge.gateway {
            return Err(format!(
                "it was decided by the gateway {gateway}, and the one asked about is {}",
                judge.gateway
            ));
        }
        Ok(())
    }

    fn check_authority(&self, authority: &str, gateway: &Digest) -> Result<(), String> {
        if is_on(Check::AdmitAuthority) && !self.trust.accepts_authority(authority, gateway) {
            return Err(format!(
                "its authority is {authority:?}: the trust.yaml that is asked neither says authority_self: true nor lists the gateway \
                 {gateway} under gateways: (which only another trust.yaml than that gateway's own can, named with --trust)"
            ));
        }
        Ok(())
    }

    fn admission(&self, statement: &VerifiedStatement, expires: Option<UnixTime>) -> Admission {
        Admission {
            image: self.image.clone(),
            statement: statement.bundle(),
            signer: statement.signer().to_owned(),
            expires,
        }
    }
}

/// Seconds by which a decision may be dated after the asker's clock: two machines rarely agree to the second.
const CLOCK_SKEW: u64 = 300;
