//! Whether an image may be where it is: a valid decision over a complete closed set, without asking any policy (`verify --for`).

use std::fmt;

use sluicegate_attestation::{
    predicate::PredicateType,
    summary::{Basis, PromotionClaim, SummaryClaim},
};
use sluicegate_types::{
    Digest, EnvironmentName, NonEmpty, PinnedImage, Repository, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{
    Role, Trust, VerifiedStatement,
    closed_set::{ClosedSet, Followed, Seen},
};

use crate::{gateway::Judge, verify::VerifyReport};

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

/// Why an image may not be in an environment.
#[derive(Debug)]
pub enum Refusal {
    /// There is no whole set, in words for a person.
    Set(String),
    /// It stands in another repository than the environment's.
    Repository {
        /// Where it stands.
        found: Repository,
        /// The environment's.
        asked: Repository,
    },
    /// Nothing that is attached speaks for it.
    Nothing {
        /// The environment.
        environment: EnvironmentName,
        /// Whether it has a gate.
        gated: bool,
        /// The image.
        image: Digest,
    },
    /// A decision or a promotion record comes near, and does not count.
    Statement {
        /// Its bundle.
        bundle: Digest,
        /// Who signed it.
        signer: String,
        /// Why it does not count.
        why: Near,
    },
}

/// Why a decision or a promotion record does not count.
#[derive(Debug)]
pub enum Near {
    /// It is none that this version reads, in words for a person.
    Unreadable(String),
    /// It refuses the image.
    Denial,
    /// It is for another environment, place or image, in words for a person.
    Elsewhere(String),
    /// It records what a gate let through, and there is no gate here.
    Gated,
    /// Another gate says it, or the gateway file has changed, in words for a person.
    Gateway(String),
    /// It has expired.
    Expired(UnixTime),
    /// It is dated after the moment that is asked about, in words for a person.
    Future(String),
    /// Who decided it may not.
    Authority {
        /// What it says of whoever decided.
        authority: String,
        /// The gateway that it names.
        gateway: Digest,
    },
    /// What it was decided over is not there.
    Uncovered,
    /// There is no whole set.
    NoSet,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { found, asked } => {
                write!(f, "it stands in {found}, and the environment's repository is {asked}")
            }
            Self::Set(reason) => f.write_str(reason),
            Self::Nothing { environment, gated, image } => {
                let what = if *gated { "decision" } else { "promotion record" };
                write!(f, "no {what} for {environment} is attached to {image}")
            }
            Self::Statement { bundle, signer, why } => write!(f, "{bundle} by {signer}: {why}"),
        }
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) | Self::Elsewhere(why) | Self::Gateway(why) | Self::Future(why) => f.write_str(why),
            Self::Denial => f.write_str("it is a denial"),
            Self::Gated => f.write_str("it is the record of a gated promotion, and this environment has no gate"),
            Self::Expired(at) => write!(f, "it expired at {at}"),
            Self::Authority { authority, gateway } => write!(
                f,
                "its authority is {authority:?}: the trust.yaml that is asked neither says authority_self: true nor lists the gateway \
                 {gateway} under gateways: (which only another trust.yaml than that gateway's own can, named with --trust)"
            ),
            Self::Uncovered => f.write_str("no whole closed set is there that it was decided over"),
            Self::NoSet => f.write_str("no whole closed set is there"),
        }
    }
}

/// What asks to be let in: one image, or an index with every image that it names.
#[derive(Clone, Debug)]
pub struct Presented<'a> {
    /// Its digest.
    image: Digest,
    /// What is said about it.
    said: &'a Followed,
    /// What was found about each of its images.
    images: Vec<(Option<String>, &'a Followed)>,
}

impl<'a> Presented<'a> {
    /// One image.
    pub fn image(image: Digest, said: &'a Followed) -> Self {
        Self { image, said, images: vec![(None, said)] }
    }

    /// What `verify` found.
    pub fn of(report: &'a VerifyReport) -> Self {
        let Some(index) = &report.index else { return Self::image(report.image, &report.followed) };
        let images = index.platforms.iter().map(|one| (Some(one.name()), &one.report.followed)).collect();
        Self { image: report.image, said: &report.followed, images }
    }

    /// Whether there is an image, and one whole set of each that fits.
    fn each_has(&self, fits: impl Fn(&ClosedSet) -> bool) -> bool {
        let mut sets = self.images.iter().map(|(_, followed)| &followed.sets);
        !self.images.is_empty() && sets.all(|sets| sets.iter().any(&fits))
    }
}

/// Demands, in the judge's own repository (`found_in`, where that has a name) and for its environment at this moment, an unexpired
/// allowed verification summary of its decisions key, of this gateway, for this very repository and image, over a whole closed set; where
/// the gateway says `gate: none`, a promotion record of role `records` under this gateway. Of an index the word is about the index, and
/// over a whole set of each of its images. The reasons say why each statement that comes near does not count (trust model 5 and 7).
pub fn admit(
    presented: &Presented<'_>,
    judge: &Judge,
    trust: &Trust,
    at: UnixTime,
    found_in: Option<&Repository>,
) -> Result<Admission, NonEmpty<Refusal>> {
    // A decision is about one repository: found in another one, the image has none (trust model 5). A layout has no name of its own.
    if let Some(found) = found_in.filter(|found| **found != judge.repository() && is_on(Check::AdmitRepository)) {
        let (found, asked) = (found.clone(), judge.repository());
        return Err(NonEmpty::one(Refusal::Repository { found, asked }));
    }
    let image = presented.image;
    let asked = Question { judge, trust, at, image: PinnedImage { repository: judge.repository(), digest: image } };
    let mut reasons: Vec<Refusal> = Vec::new();
    for (platform, followed) in presented.images.iter().filter(|(_, followed)| followed.sets.is_empty()) {
        let of = platform.as_ref().map(|platform| format!("{platform}: ")).unwrap_or_default();
        reasons.extend(followed.incomplete.iter().map(|reason| Refusal::Set(format!("{of}{reason}"))));
    }
    for seen in &presented.said.seen {
        let Seen::Verified(statement) = seen else { continue };
        let answer = match (&judge.gate, &statement.statement().predicate_type) {
            (Some(_), PredicateType::VerificationSummary) => asked.by_decision(statement, presented),
            (None, PredicateType::Promotion) => asked.by_record(statement, presented),
            _ => continue,
        };
        match answer {
            Ok(admission) => return Ok(admission),
            Err(why) => {
                let signer = statement.signer().to_owned();
                reasons.push(Refusal::Statement { bundle: statement.bundle(), signer, why });
            }
        }
    }
    let nothing = Refusal::Nothing { environment: judge.name.clone(), gated: judge.gate.is_some(), image };
    Err(NonEmpty::try_from(reasons).unwrap_or_else(|_| NonEmpty::one(nothing)))
}

struct Question<'a> {
    judge: &'a Judge,
    trust: &'a Trust,
    at: UnixTime,
    image: PinnedImage,
}

impl Question<'_> {
    fn by_decision(&self, statement: &VerifiedStatement, presented: &Presented<'_>) -> Result<Admission, Near> {
        let claim = SummaryClaim::parse(&statement.statement().predicate)
            .map_err(|error| Near::Unreadable(error.to_string()))?;
        let judge = self.judge;
        if is_on(Check::AdmitVerdict) && (!statement.is_in_role(Role::Decisions) || !claim.passed) {
            return Err(Near::Denial);
        }
        if is_on(Check::AdmitEnvironment) && claim.environment != judge.name {
            return Err(Near::Elsewhere(format!("it is for the environment {}", claim.environment)));
        }
        if is_on(Check::AdmitResource) && claim.resource != self.image.to_string() {
            return Err(Near::Elsewhere(format!("it is for {}, not {}", claim.resource, self.image)));
        }
        self.check_judge(&claim.verifier_id, &claim.policy)?;
        if is_on(Check::AdmitExpired) && self.at > claim.expires {
            return Err(Near::Expired(claim.expires));
        }
        if is_on(Check::AdmitFuture) && self.at.plus(CLOCK_SKEW) < claim.time_verified {
            return Err(Near::Future(format!("it was decided at {}, after {}", claim.time_verified, self.at)));
        }
        self.check_authority(&claim.authority, &claim.policy)?;
        if is_on(Check::AdmitCovers) && !presented.each_has(|set| set.is_named_by(&claim.inputs)) {
            return Err(Near::Uncovered);
        }
        Ok(self.admission(statement, Some(claim.expires)))
    }

    fn by_record(&self, statement: &VerifiedStatement, presented: &Presented<'_>) -> Result<Admission, Near> {
        let claim = PromotionClaim::parse(&statement.statement().predicate)
            .map_err(|error| Near::Unreadable(error.to_string()))?;
        let ungated = statement.is_in_role(Role::Records) && claim.basis == Basis::Ungated;
        if is_on(Check::AdmitBasis) && !ungated {
            return Err(Near::Gated);
        }
        let here = claim.environment == self.judge.name && claim.destination == self.image.to_string();
        if is_on(Check::AdmitDestination) && !here {
            return Err(Near::Elsewhere(format!("it is for {} in {}", claim.destination, claim.environment)));
        }
        self.check_judge(&claim.verifier_id, &claim.gateway)?;
        self.check_authority(&claim.authority, &claim.gateway)?;
        if is_on(Check::AdmitImage) && claim.image != self.image.digest {
            return Err(Near::Elsewhere(format!("it is for {}", claim.image)));
        }
        if is_on(Check::AdmitFuture) && self.at.plus(CLOCK_SKEW) < claim.timestamp {
            return Err(Near::Future(format!("it was recorded at {}, after {}", claim.timestamp, self.at)));
        }
        if is_on(Check::AdmitSet) && !presented.each_has(|_| true) {
            return Err(Near::NoSet);
        }
        Ok(self.admission(statement, None))
    }

    fn check_judge(&self, verifier_id: &str, gateway: &Digest) -> Result<(), Near> {
        let judge = self.judge;
        if is_on(Check::AdmitVerifier) && verifier_id != judge.verifier_id {
            return Err(Near::Gateway(format!("it is by the gate {verifier_id}, not {}", judge.verifier_id)));
        }
        if is_on(Check::AdmitGateway) && *gateway != judge.gateway {
            return Err(Near::Gateway(format!(
                "it was decided by the gateway {gateway}, and the one asked about is {}",
                judge.gateway
            )));
        }
        Ok(())
    }

    fn check_authority(&self, authority: &str, gateway: &Digest) -> Result<(), Near> {
        if is_on(Check::AdmitAuthority) && !self.trust.accepts_authority(authority, gateway) {
            return Err(Near::Authority { authority: authority.to_owned(), gateway: *gateway });
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
