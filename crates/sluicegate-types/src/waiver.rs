use std::time::Duration;

use serde::Serialize;

use crate::{Digest, EnvironmentName, PackageUrl, UnixTime};

/// How long somebody may accept a risk (trust model 17): 90 days from when it is asked about.
pub const LONGEST_ACCEPTANCE: Duration = Duration::from_secs(90 * 86_400);

/// Who accepts a risk, why, and until when. An owner and another person who approved it, both named, and a reason in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acceptance {
    /// Who answers for it.
    pub owner: String,
    /// Who agreed; never the owner.
    pub approver: String,
    /// Why.
    pub reason: String,
    /// Where it is written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The first moment at which it is over.
    pub expires: UnixTime,
}

impl Acceptance {
    /// Whether it still holds at `now`; at its end it does not.
    pub fn holds(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// Whether it ends later than anybody may accept a risk at `now`.
    pub fn is_too_long(&self, now: UnixTime) -> bool {
        self.expires > now.plus(LONGEST_ACCEPTANCE.as_secs())
    }
}

/// A denial that somebody accepts for a while (trust model 17): one rule, one thing that it denies, one place, one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// The rule.
    pub code: String,
    /// What exactly is denied, such as an advisory's id. A waiver has this or `package`, or both.
    pub term: Option<String>,
    /// In which package, with its version.
    pub package: Option<PackageUrl>,
    /// For which images.
    pub scope: WaiverScope,
    /// On their way to where.
    pub environment: EnvironmentName,
    /// By whom, why, how long.
    pub acceptance: Acceptance,
}

/// Which images a waiver is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaiverScope {
    /// Those that go to this repository, by its whole name.
    Repository(String),
    /// This very one.
    Image(Digest),
}

/// Every kind of gap that a scan tells of, and `empty-sbom`, an image whose SBOM names nothing.
pub const GAP_KINDS: &[&str] = &[
    "ecosystem-not-in-database",
    "empty-sbom",
    "lock-file",
    "nothing-recognised",
    "package-list",
    "records-rewritten",
    "system-contradicted",
    "system-ended",
    "system-not-in-database",
    "system-unknown",
];

/// A gap of a scan that somebody accepts for a while (trust model 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoverageException {
    /// The content that the gap is about: a file of the image, or the image itself.
    pub digest: Digest,
    /// Which kind of gap. An exception that names none is for gaps of a file, never for those of an image as a whole.
    pub gap: Option<String>,
    /// By whom, why, how long.
    pub acceptance: Acceptance,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acceptance_is_over_at_its_end_and_lasts_ninety_days_at_most() {
        let now: UnixTime = "2026-11-25T00:00:00Z".parse().unwrap();
        let until = |expires: UnixTime| Acceptance {
            owner: "a".into(),
            approver: "b".into(),
            reason: "c".into(),
            ticket: None,
            expires,
        };
        assert!(until(now.plus(1)).holds(now));
        assert!(!until(now).holds(now));
        assert!(!until(now.plus(90 * 86_400)).is_too_long(now));
        assert!(until(now.plus(90 * 86_400 + 1)).is_too_long(now));
    }
}
