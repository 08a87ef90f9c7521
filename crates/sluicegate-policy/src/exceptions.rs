//! What somebody accepts in spite of a rule or a gap (trust model 4 and 17): which waivers and exceptions apply to a case, which came near,
//! and until when what rests on them holds. They take away violations and gaps of a scan, never a silence, a missing fact or a contradiction.

use std::collections::BTreeMap;

use serde::Serialize;
use sluicegate_attestation::coverage::Gap;
use sluicegate_types::{
    Acceptance, CoverageException, Digest, PackageUrl, UnixTime, Waiver, WaiverScope,
    checks::{Check, is_on},
    nearest::nearest,
};

use crate::{judge::Denial, rego::Violation};

/// The kind of the gap that an SBOM which names nothing is.
pub(crate) const EMPTY_SBOM: &str = "empty-sbom";

/// An entry of a list that people keep, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entry.
    pub what: T,
    /// File and line.
    pub place: String,
}

/// Everything that is accepted under a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Denials.
    pub waivers: Vec<Listed<Waiver>>,
    /// Gaps of scans.
    pub coverage: Vec<Listed<CoverageException>>,
}

/// What became of one entry in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExceptionUse {
    /// File and line.
    pub place: String,
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// By whom, why, how long.
    #[serde(flatten)]
    pub acceptance: Acceptance,
    /// What became of it.
    pub status: Status,
    /// How many denials or gaps it took away.
    pub applied: u64,
    /// The code that is probably meant, where nothing has the one that is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meant: Option<String>,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum About {
    /// A denial.
    Waiver {
        /// The rule.
        code: String,
        /// What is denied.
        #[serde(skip_serializing_if = "Option::is_none")]
        term: Option<String>,
        /// In which package.
        #[serde(skip_serializing_if = "Option::is_none")]
        package: Option<String>,
        /// For images that go to this repository.
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
        /// For this image.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
        /// On their way to where.
        environment: String,
    },
    /// A gap of a scan.
    Coverage {
        /// The content.
        digest: Digest,
        /// The kind of gap.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<String>,
    },
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Something was taken away by it.
    Applied,
    /// It would have applied, and there was nothing to take away.
    Unused,
    /// It is over.
    Expired,
    /// It is for another environment.
    OtherEnvironment,
    /// It is for another image or repository.
    OtherImage,
    /// No rule of the gate has its code.
    UnknownCode,
}

/// A violation that somebody accepts, and by which entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Waived {
    /// What was denied.
    pub denial: Denial,
    /// File and line of the waiver.
    pub by: String,
}

/// What a person should know about an entry: that it ends soon, is over, applies to nothing, or names a rule that there is not.
pub(crate) fn warning(of: &ExceptionUse) -> Option<String> {
    let ExceptionUse { place, acceptance: Acceptance { owner, expires, .. }, .. } = of;
    let what = match &of.about {
        About::Waiver { code, term, package, .. } => {
            let of: Vec<&str> = term.iter().chain(package).map(String::as_str).collect();
            format!("the waiver of {owner} for {code}, {} ({place})", of.join(" in "))
        }
        About::Coverage { digest, .. } => format!("the gap that {owner} accepts for {digest} ({place})"),
    };
    match of.status {
        Status::Applied => None,
        Status::Unused => Some(format!("{what} is not used: take it away")),
        Status::Expired => Some(format!("{what} ended at {expires}: take it away, or have it approved anew")),
        Status::OtherEnvironment | Status::OtherImage => None,
        Status::UnknownCode => {
            let meant = of.meant.as_ref().map(|code| format!("; did you mean {code}?")).unwrap_or_default();
            Some(format!("{what} names no rule of this gate{meant}"))
        }
    }
}

/// What is judged, as far as what somebody accepts depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The image.
    pub image: Digest,
    /// The environment that it goes to.
    pub environment: &'a str,
    /// Its repository.
    pub repository: &'a str,
    /// What was found in it.
    pub findings: &'a Findings,
}

/// The findings that a case is about, by their advisories' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(BTreeMap<String, Vec<KnownFinding>>);

/// A finding, as far as a denial or a waiver can be about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFinding {
    /// The package's URL.
    pub purl: String,
    /// Other names of the advisory.
    pub aliases: Vec<String>,
    /// Package, version and the file or list that shows it, for a person.
    pub place: String,
}

/// How many places of a finding a denial names.
const PLACES: usize = 3;

impl Findings {
    /// Notes a finding of the advisory `id`.
    pub fn note(&mut self, id: &str, finding: KnownFinding) {
        self.0.entry(id.to_owned()).or_default().push(finding);
    }

    /// Whether the finding `id`, in `package` if one is named, is also called `name`. Names are those of this very finding: an advisory
    /// that several findings share makes them no one thing.
    fn has(&self, id: &str, package: Option<&str>, name: &str) -> bool {
        self.of(id, package).any(|finding| finding.aliases.iter().any(|alias| alias == name))
    }

    /// Where the finding is that a violation is about: the first places, and how many more there are.
    pub(crate) fn places(&self, violation: &Violation) -> Vec<String> {
        let Some(term) = violation.term.as_deref() else { return Vec::new() };
        let mut places: Vec<String> =
            self.of(term, violation.subject.as_deref()).map(|finding| finding.place.clone()).collect();
        let more = places.len().saturating_sub(PLACES);
        places.truncate(PLACES);
        if more > 0 {
            places.push(format!("{more} more"));
        }
        places
    }

    fn of<'a>(&'a self, id: &str, package: Option<&'a str>) -> impl Iterator<Item = &'a KnownFinding> {
        let named = self.0.get(id).into_iter().flatten();
        named.filter(move |finding| package.is_none_or(|package| package == finding.purl))
    }
}

/// Asks the lists about one case, and remembers what was used.
pub(crate) struct Asked<'a> {
    exceptions: &'a Exceptions,
    case: Case<'a>,
    now: UnixTime,
    codes: Vec<&'a str>,
    waivers: Vec<u64>,
    coverage: Vec<u64>,
}

/// Why a waiver is none of a violation.
enum Miss {
    Code,
    Term,
    Package,
    Scope,
    Environment,
    Over,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(exceptions: &'a Exceptions, case: Case<'a>, now: UnixTime, codes: Vec<&'a str>) -> Self {
        let (waivers, coverage) = (vec![0; exceptions.waivers.len()], vec![0; exceptions.coverage.len()]);
        Self { exceptions, case, now, codes, waivers, coverage }
    }

    /// The place of the first waiver that takes this violation away; each that does counts as used.
    pub(crate) fn waived_by(&mut self, code: &str, violation: &Violation) -> Option<String> {
        let mut first = None;
        for (nth, waiver) in self.exceptions.waivers.iter().enumerate() {
            if self.misses(&waiver.what, code, violation).is_empty() {
                self.waivers[nth] += 1;
                first.get_or_insert_with(|| waiver.place.clone());
            }
        }
        first
    }

    /// Whether a gap of the scan is accepted.
    pub(crate) fn covers(&mut self, gap: &Gap) -> bool {
        let mut is_covered = false;
        for (nth, exception) in self.exceptions.coverage.iter().enumerate() {
            let what = &exception.what;
            // The image's own digest stands for whatever has no file: who accepts one of these gaps does not accept the others.
            let names_it = match &what.gap {
                Some(kind) => *kind == gap.kind,
                None => gap.digest != self.case.image,
            };
            let applies = (what.digest == gap.digest || !is_on(Check::CoverageDigest))
                && (names_it || !is_on(Check::CoverageKind))
                && (what.acceptance.holds(self.now) || !is_on(Check::CoverageExpiry));
            if applies {
                self.coverage[nth] += 1;
                is_covered = true;
            }
        }
        is_covered
    }

    /// Until when what rests on the used entries holds: the end of the first.
    pub(crate) fn until(&self) -> Option<UnixTime> {
        let waivers = self.exceptions.waivers.iter().zip(&self.waivers).filter(|(_, used)| **used > 0);
        let coverage = self.exceptions.coverage.iter().zip(&self.coverage).filter(|(_, used)| **used > 0);
        let ends = waivers.map(|(waiver, _)| waiver.what.acceptance.expires);
        ends.chain(coverage.map(|(exception, _)| exception.what.acceptance.expires)).min()
    }

    /// What came nearest to taking the violation away: a waiver with one thing in it that is not so.
    pub(crate) fn nearest_miss(&self, code: &str, violation: &Violation) -> Option<String> {
        self.exceptions.waivers.iter().find_map(|Listed { what: waiver, place }| {
            let misses = self.misses(waiver, code, violation);
            let [miss] = misses.as_slice() else { return None };
            let why = match miss {
                Miss::Code => {
                    nearest(&waiver.code, [code])?;
                    format!("is for the code {}", waiver.code)
                }
                Miss::Term => {
                    let (term, denied) = (waiver.term.as_deref()?, violation.term.as_deref()?);
                    if !term.eq_ignore_ascii_case(denied) {
                        return None;
                    }
                    format!("writes {term} in other letters")
                }
                Miss::Package => format!("is for {}", waiver.package.as_ref()?),
                Miss::Scope => match &waiver.scope {
                    WaiverScope::Repository(name) => format!("is for the repository {name}"),
                    WaiverScope::Image(image) => format!("is for the image {image}"),
                },
                Miss::Environment => format!("is for {}, not for {}", waiver.environment, self.case.environment),
                Miss::Over => format!("ended at {}", waiver.acceptance.expires),
            };
            Some(format!("the waiver of {} ({place}) {why}", waiver.acceptance.owner))
        })
    }

    /// What became of each entry, in the order of the files.
    pub(crate) fn uses(&self) -> Vec<ExceptionUse> {
        let waivers =
            self.exceptions.waivers.iter().zip(&self.waivers).map(|(waiver, used)| self.use_of(waiver, *used));
        let coverage = self.exceptions.coverage.iter().zip(&self.coverage).map(|(exception, used)| {
            let Listed { what: CoverageException { digest, gap, acceptance }, place } = exception;
            let status = match used {
                1.. => Status::Applied,
                0 if !acceptance.holds(self.now) => Status::Expired,
                0 => Status::Unused,
            };
            ExceptionUse {
                place: place.clone(),
                about: About::Coverage { digest: *digest, gap: gap.clone() },
                acceptance: acceptance.clone(),
                status,
                applied: *used,
                meant: None,
            }
        });
        waivers.chain(coverage).collect()
    }

    fn use_of(&self, Listed { what: waiver, place }: &Listed<Waiver>, used: u64) -> ExceptionUse {
        let is_known = self.codes.contains(&waiver.code.as_str());
        let status = match used {
            1.. => Status::Applied,
            0 if waiver.environment.as_str() != self.case.environment => Status::OtherEnvironment,
            0 if !self.is_for_the_image(&waiver.scope) => Status::OtherImage,
            0 if !is_known => Status::UnknownCode,
            0 if !waiver.acceptance.holds(self.now) => Status::Expired,
            0 => Status::Unused,
        };
        let (repository, digest) = match &waiver.scope {
            WaiverScope::Repository(name) => (Some(name.clone()), None),
            WaiverScope::Image(image) => (None, Some(*image)),
        };
        let meant = if is_known { None } else { nearest(&waiver.code, self.codes.iter().copied()) };
        ExceptionUse {
            place: place.clone(),
            about: About::Waiver {
                code: waiver.code.clone(),
                term: waiver.term.clone(),
                package: waiver.package.as_ref().map(ToString::to_string),
                repository,
                digest,
                environment: waiver.environment.to_string(),
            },
            acceptance: waiver.acceptance.clone(),
            status,
            applied: used,
            meant: meant.map(str::to_owned),
        }
    }

    fn is_for_the_image(&self, scope: &WaiverScope) -> bool {
        match scope {
            WaiverScope::Repository(name) => name == self.case.repository,
            WaiverScope::Image(image) => *image == self.case.image,
        }
    }

    fn misses(&self, waiver: &Waiver, code: &str, violation: &Violation) -> Vec<Miss> {
        let term = waiver.term.as_deref().is_none_or(|term| self.is_denied_as(term, violation));
        let package = waiver.package.as_ref().is_none_or(|package| is_in(package, violation));
        let conditions = [
            (waiver.code == code, Check::WaiverCode, Miss::Code),
            (term, Check::WaiverTerm, Miss::Term),
            (package, Check::WaiverPackage, Miss::Package),
            (self.is_for_the_image(&waiver.scope), Check::WaiverScope, Miss::Scope),
            (waiver.environment.as_str() == self.case.environment, Check::WaiverEnvironment, Miss::Environment),
            (waiver.acceptance.holds(self.now), Check::WaiverExpiry, Miss::Over),
        ];
        conditions.into_iter().filter(|(holds, check, _)| !holds && is_on(*check)).map(|(_, _, miss)| miss).collect()
    }

    /// Where the finding is that a violation is about.
    pub(crate) fn places(&self, violation: &Violation) -> Vec<String> {
        self.case.findings.places(violation)
    }

    /// Whether the violation is about `term`, by this name or another one of the same finding.
    fn is_denied_as(&self, term: &str, violation: &Violation) -> bool {
        let Some(denied) = violation.term.as_deref() else { return false };
        denied == term || self.case.findings.has(denied, violation.subject.as_deref(), term)
    }
}

/// Whether the violation was found in this package.
fn is_in(package: &PackageUrl, violation: &Violation) -> bool {
    let purl = violation.fields.get("purl").and_then(serde_json::Value::as_str);
    let subject = violation.subject.as_deref().or(purl);
    subject.and_then(|subject| subject.parse::<PackageUrl>().ok()).is_some_and(|found| package.names(&found))
}
