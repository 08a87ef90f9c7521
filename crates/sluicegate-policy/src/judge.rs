//! The verdict: a pure function of facts, rule results, target and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use sluicegate_attestation::{
    coverage::{Coverage, Executable, Executables, Gap},
    predicate::PredicateType,
    vulns::{Database, Scanner},
};
use sluicegate_types::{
    Digest, EnvironmentName, NonEmpty, PinnedImage, Repository, TagName, UnixTime,
    checks::{Check, is_on},
};

use crate::{
    exceptions::{self, EMPTY_SBOM, ExceptionUse, Exceptions, Waived},
    facts::{Facts, ForeignTest},
    rego::{PolicyError, RuleAnswer, RuleResults, Says, Violation},
};

/// What a gate says. Nothing passes by being empty: no rule, no evidence, a silent rule are all [`Verdict::Undecided`].
#[derive(Debug)]
#[must_use = "a verdict that nobody looks at lets nothing through"]
pub enum Verdict {
    /// The image may go to the target, once.
    Allow(Permit),
    /// A rule denied it.
    Deny(NonEmpty<Denial>),
    /// The policy could not be asked or did not answer.
    Undecided(NonEmpty<Reason>),
}

/// A verdict, and what somebody accepts that it rests on.
#[derive(Debug)]
#[must_use = "a verdict that nobody looks at lets nothing through"]
pub struct Judgement {
    /// What the gate says.
    pub verdict: Verdict,
    /// What became of each waiver and each accepted gap.
    pub exceptions: Vec<ExceptionUse>,
    /// What was denied and is waived.
    pub waived: Vec<Waived>,
    /// What a person should know, and decides nothing: rules that do not decide yet, and what is accepted and ends.
    pub warnings: Vec<String>,
}

/// Leave to promote exactly this image to exactly this place under exactly this gateway. Spent once: it is not `Clone`.
///
/// Only [`judge`] makes one, and [`judge_index`] one of those of all images of an index:
///
/// ```compile_fail
/// let forged = sluicegate_policy::judge::Permit { ..todo!() };
/// ```
///
/// and nobody spends it twice:
///
/// ```compile_fail
/// fn twice(permit: sluicegate_policy::judge::Permit) {
///     drop(permit.spend());
///     drop(permit.spend());
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    grant: Box<Grant>,
}

/// What a permit granted, after it was spent.
#[derive(Debug)]
pub struct Grant {
    /// The image, by the target's name.
    pub image: PinnedImage,
    /// The environment.
    pub environment: EnvironmentName,
    /// The tag that may move.
    pub tag: TagName,
    /// What the place held when it was decided; the tag moves only from there.
    pub previous: Option<Digest>,
    /// The digest of the environment's whole resolved gateway.
    pub gateway: Digest,
    /// The digest of the facts.
    pub facts: Digest,
    /// When it was decided.
    pub decided_at: UnixTime,
    /// Every attestation that was used.
    pub used: Vec<Digest>,
    /// What the leave rests on.
    pub basis: Basis,
    /// If the image is an index: what was granted for each image that it names, each once.
    pub platforms: Vec<Self>,
}

/// What a permit rests on. Every record of what was done with it says this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A gate was asked, and each of its rules passed.
    Gate {
        /// The last second at which the decision is worth something.
        expires: UnixTime,
    },
    /// The gateway says `gate: none`: nothing was asked beyond the closed set, and nothing is vouched for.
    Ungated,
}

impl Permit {
    /// What it rests on.
    pub fn basis(&self) -> Basis {
        self.grant.basis
    }

    /// Gives up the permit for what it granted.
    pub fn spend(self) -> Grant {
        *self.grant
    }
}

/// Judges an index by the permits of the images that it names: leave for exactly `images`, each judged by itself for the same place as it
/// was at the same moment under the same gateway. Nobody vouches for an index longer than for the first of them, and an index of no image
/// has no permit.
pub fn judge_index(index: Digest, images: &BTreeSet<Digest>, permits: Vec<Permit>) -> Result<Permit, NoIndexPermit> {
    let platforms: Vec<Grant> = permits.into_iter().map(Permit::spend).collect();
    let first = platforms.first().ok_or(NoIndexPermit::Empty)?;
    let granted: BTreeSet<Digest> = platforms.iter().map(|grant| grant.image.digest).collect();
    if is_on(Check::PermitOfEach) && (granted != *images || granted.len() != platforms.len()) {
        let not = images.symmetric_difference(&granted).next().copied();
        return Err(NoIndexPermit::Images(not.unwrap_or(index)));
    }
    let place = |grant: &Grant| {
        (grant.image.repository.clone(), grant.environment.clone(), grant.tag.clone(), grant.previous, grant.gateway)
    };
    let (here, moment, ungated) = (place(first), first.decided_at, first.basis == Basis::Ungated);
    let is_alike = |grant: &Grant| {
        place(grant) == here && grant.decided_at == moment && ungated == (grant.basis == Basis::Ungated)
    };
    if let Some(other) = platforms.iter().find(|grant| is_on(Check::PermitsAlike) && !is_alike(grant)) {
        return Err(NoIndexPermit::Differs(other.image.digest));
    }
    let expiries = platforms.iter().filter_map(|grant| match grant.basis {
        Basis::Gate { expires } => Some(expires),
        Basis::Ungated => None,
    });
    let basis = expiries.min().map_or(Basis::Ungated, |expires| Basis::Gate { expires });
    let mut seen = BTreeSet::new();
    let used = platforms.iter().flat_map(|grant| &grant.used).copied().filter(|used| seen.insert(*used)).collect();
    let facts: String = platforms.iter().map(|grant| format!("{}\n", grant.facts)).collect();
    let grant = Grant {
        image: PinnedImage { repository: first.image.repository.clone(), digest: index },
        environment: first.environment.clone(),
        tag: first.tag.clone(),
        previous: first.previous,
        gateway: first.gateway,
        facts: Digest::of(facts.as_bytes()),
        decided_at: moment,
        used,
        basis,
        platforms,
    };
    Ok(Permit { grant: Box::new(grant) })
}

/// Why permits of images are none of the index that names them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIndexPermit {
    /// There is none.
    #[error("the index names no image")]
    Empty,
    /// An image of the index has none, or one that the index does not name has.
    #[error("the permits are not those of the images of the index: {0}")]
    Images(Digest),
    /// One is for another place, moment or gateway than the others.
    #[error("the permit of {0} is not for the same place, moment and gateway as the others")]
    Differs(Digest),
}

/// Why an image is denied: a rule's violation with what the rule says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// The rule's code.
    pub code: String,
    /// What it demands.
    pub title: String,
    /// What to do.
    pub solution: String,
    /// Where the rule stands: file and line.
    pub rule: String,
    /// What was found.
    pub violation: Violation,
    /// What came nearest to letting it through: a waiver that is for something else.
    pub near: Option<String>,
    /// Where the finding is that it is about, if it names one: package, version and place, for a person.
    pub found: Vec<String>,
}

/// Why nothing could be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Required evidence is not there.
    MissingKind(String),
    /// The image's tests are required, and there are only such of something that it is not made of.
    ForeignTests(Vec<ForeignTest>),
    /// The gate has no scan of its own.
    NoScan,
    /// A database of the gate's scan is too old, or from the future.
    Database(String),
    /// The scan did not read everything.
    Coverage(String),
    /// The SBOM names nothing.
    EmptySbom,
    /// The policy could not be evaluated.
    Policy(String),
    /// A rule gave no answer.
    Silent(String),
    /// A rule demands facts that are not there.
    Lacking {
        /// The rule.
        code: String,
        /// JSON pointers that lead nowhere.
        fields: Vec<String>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingKind(kind) => {
                write!(f, "required evidence is missing: {kind} (no accepted statement of this type")?;
                match PredicateType::meant_by(kind) {
                    Some(meant) => write!(f, "; did you mean {meant}?)"),
                    None => f.write_str(")"),
                }
            }
            Self::ForeignTests(tests) => {
                let tests: Vec<String> = tests.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "required evidence is missing: test-result ({}, of which the image is not made)",
                    tests.join("; ")
                )
            }
            Self::NoScan => write!(f, "required evidence is missing: the gate's own scan"),
            Self::Database(why) => f.write_str(why),
            Self::Coverage(gap) => write!(f, "the scan is not whole: {gap}"),
            Self::EmptySbom => write!(f, "the image's SBOM names no component"),
            Self::Policy(why) => write!(f, "the policy could not be asked: {why}"),
            Self::Silent(code) => write!(f, "the rule {code} gave no answer"),
            Self::Lacking { code, fields } => {
                write!(f, "the rule {code} demands facts that are not there: {}", fields.join(", "))
            }
        }
    }
}

/// What a gate demands beside its rules.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Kinds of evidence that must be there.
    pub require: NonEmpty<PredicateType>,
    /// Which databases may have been asked.
    pub databases: AcceptedDatabases,
    /// Whether each executable of the base has to be in a package.
    pub strict_executables: bool,
    /// How long a decision is worth something.
    pub valid_for: Duration,
    /// The digest of the environment's whole resolved gateway.
    pub gateway: Digest,
    /// What is accepted for a while.
    pub exceptions: Exceptions,
}

/// The databases that a gate believes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptedDatabases {
    /// The one of vulnerabilities.
    pub vulnerabilities: Option<AcceptedDatabase>,
    /// The one of Java archives, which only a scan of an image with such archives asks.
    pub java: Option<AcceptedDatabase>,
}

/// A database that a gate believes, up to an age.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedDatabase {
    /// Its digest.
    pub digest: Digest,
    /// How old it may be.
    pub max_age: Duration,
}

impl AcceptedDatabases {
    /// Whether the findings of a scan by `scanner`, one that the gate did not make, count: if each database that it asked is the gate's,
    /// and not too old.
    pub fn accept(&self, scanner: &Scanner, now: UnixTime) -> bool {
        let accepted = |accepted: Option<AcceptedDatabase>, asked: &Database| {
            let last = asked.updated_at.plus(accepted.map(|accepted| accepted.max_age).unwrap_or_default().as_secs());
            (accepted.is_some_and(|accepted| accepted.digest == asked.digest) || !is_on(Check::AcceptedDatabase))
                && (now <= last || !is_on(Check::AcceptedDatabaseAge))
        };
        accepted(self.vulnerabilities, &scanner.database)
            && scanner.java_database.iter().all(|java| accepted(self.java, java))
    }

    /// Why the databases that the gate's own scan asked can't be used: too old, or from the future.
    fn faults(&self, scanner: &Scanner, now: UnixTime) -> Vec<String> {
        let asked = std::iter::once(("vulnerability", self.vulnerabilities, &scanner.database))
            .chain(scanner.java_database.iter().map(|java| ("Java", self.java, java)));
        let fault = |(name, accepted, asked): (&str, Option<AcceptedDatabase>, &Database)| {
            let updated = asked.updated_at;
            let most = accepted.map(|accepted| accepted.max_age).unwrap_or_default();
            let why = if is_on(Check::DatabaseFuture) && updated > now.plus(CLOCK_SKEW) {
                format!("it is dated {updated}, after {now}")
            } else if is_on(Check::DatabaseAge) && now > updated.plus(most.as_secs()) {
                format!("it is of {updated}, older than {} hours at {now}", most.as_secs() / 3600)
            } else {
                return None;
            };
            Some(format!("the {name} database cannot be used: {why}"))
        };
        asked.filter_map(fault).collect()
    }
}

/// Where the image is to go, as it is now.
#[derive(Clone, Debug)]
pub struct Target {
    /// The environment.
    pub environment: EnvironmentName,
    /// Its repository.
    pub repository: Repository,
    /// Its tag.
    pub tag: TagName,
    /// What it holds now.
    pub current: Option<Digest>,
}

/// What an environment asks before an image may go there.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// A gate: its conditions, and what its rules answered.
    Gate {
        /// The answers.
        rules: &'a Result<RuleResults, PolicyError>,
        /// What is demanded beside them.
        conditions: &'a Conditions,
    },
    /// `gate: none` in a gateway with this digest.
    Ungated {
        /// The digest of the environment's whole resolved gateway.
        gateway: Digest,
    },
}

/// Judges. Without a gate, a whole closed set is all that is asked for. With one, conditions come first and no waiver reaches them: kinds
/// present, database fresh, coverage whole but for gaps that are accepted, SBOM not empty. Then a denial of any rule denies, unless each of
/// its violations is waived; then a rule without an answer leaves it undecided; only then is there a permit, and it holds no longer than
/// what it rests on. A rule that does not decide yet informs.
pub fn judge(facts: &Facts, question: Question<'_>, target: Target, now: UnixTime) -> Judgement {
    match question {
        Question::Ungated { gateway } => Judgement {
            verdict: Verdict::Allow(permit(facts, target, gateway, Basis::Ungated, now)),
            exceptions: Vec::new(),
            waived: Vec::new(),
            warnings: Vec::new(),
        },
        Question::Gate { rules, conditions } => judge_by_gate(facts, rules, conditions, target, now),
    }
}

fn judge_by_gate(
    facts: &Facts,
    rules: &Result<RuleResults, PolicyError>,
    conditions: &Conditions,
    target: Target,
    now: UnixTime,
) -> Judgement {
    let case = exceptions::Case {
        image: facts.image(),
        environment: target.environment.as_str(),
        repository: target.repository.as_str(),
        findings: facts.findings(),
    };
    let all = rules.as_ref().map_or(&[] as &[RuleAnswer], |results| &results.answers);
    let codes = all.iter().map(|answer| answer.rule.code.as_str()).collect();
    let mut asked = exceptions::Asked::new(&conditions.exceptions, case, now, codes);
    let answers: Vec<_> = all.iter().filter(|answer| answer.rule.is_effective(now)).collect();
    let reasons = unmet(facts, &answers, conditions, &mut asked, now);
    let Weighed { word, exceptions, waived, warnings, until } = weigh(rules, reasons, asked, now);
    let verdict = match word {
        Word::Undecided(reasons) => Verdict::Undecided(reasons),
        Word::Deny(denials) => Verdict::Deny(denials),
        Word::Allow => {
            let longest = now.plus(conditions.valid_for.as_secs());
            let until = until.filter(|_| is_on(Check::AcceptedUntil));
            let basis = Basis::Gate { expires: until.map_or(longest, |until| until.min(longest)) };
            Verdict::Allow(permit(facts, target, conditions.gateway, basis, now))
        }
    };
    Judgement { verdict, exceptions, waived, warnings }
}

/// What rules say about facts that nobody verified, as their author tries them out. No permit comes of it.
#[derive(Debug)]
pub struct Rehearsal {
    /// What they say.
    pub word: Word,
    /// What became of each waiver.
    pub exceptions: Vec<ExceptionUse>,
    /// What was denied and is waived.
    pub waived: Vec<Waived>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A verdict without leave.
#[derive(Debug, PartialEq)]
pub enum Word {
    /// Every rule passes.
    Allow,
    /// A rule denies.
    Deny(NonEmpty<Denial>),
    /// The policy could not be asked or did not answer.
    Undecided(NonEmpty<Reason>),
}

impl Word {
    /// As decisions write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Undecided(_) => "undecided",
        }
    }
}

/// Weighs the answers of rules about `case`, of which these kinds of evidence are there, as a gate would that demands nothing beside what
/// its rules require.
pub fn rehearse(
    rules: &Result<RuleResults, PolicyError>,
    kinds: &BTreeSet<PredicateType>,
    exceptions: &Exceptions,
    case: exceptions::Case<'_>,
    now: UnixTime,
) -> Rehearsal {
    let all = rules.as_ref().map_or(&[] as &[RuleAnswer], |results| &results.answers);
    let codes = all.iter().map(|answer| answer.rule.code.as_str()).collect();
    let asked = exceptions::Asked::new(exceptions, case, now, codes);
    let answers: Vec<_> = all.iter().filter(|answer| answer.rule.is_effective(now)).collect();
    let required = required_by(&answers);
    let missing = required.difference(kinds).map(|kind| Reason::MissingKind(kind.short().to_owned()));
    let missing = missing.filter(|_| is_on(Check::RequiredKind)).collect();
    let Weighed { word, exceptions, waived, warnings, .. } = weigh(rules, missing, asked, now);
    Rehearsal { word, exceptions, waived, warnings }
}

/// The kinds of evidence that rules demand.
fn required_by(answers: &[&RuleAnswer]) -> BTreeSet<PredicateType> {
    let kinds = answers.iter().flat_map(|answer| &answer.rule.requires);
    kinds.map(|kind| PredicateType::from_short(kind).unwrap_or_else(|| PredicateType::from_uri(kind))).collect()
}

/// What answers come to.
struct Weighed {
    word: Word,
    exceptions: Vec<ExceptionUse>,
    waived: Vec<Waived>,
    warnings: Vec<String>,
    /// Until when what is accepted holds.
    until: Option<UnixTime>,
}

/// Weighs what rules answered, with the reasons for which nothing is decided anyway.
fn weigh(
    rules: &Result<RuleResults, PolicyError>,
    mut reasons: Vec<Reason>,
    mut asked: exceptions::Asked<'_>,
    now: UnixTime,
) -> Weighed {
    let all = rules.as_ref().map_or(&[] as &[RuleAnswer], |results| &results.answers);
    let (answers, later): (Vec<_>, Vec<_>) = all.iter().partition(|answer| answer.rule.is_effective(now));
    let mut warnings: Vec<String> = later.iter().filter_map(|answer| what_will_be(answer)).collect();
    match rules {
        Err(error) if is_on(Check::PolicyError) => reasons.push(Reason::Policy(error.to_string())),
        Ok(_) if is_on(Check::NoRule) && answers.is_empty() => {
            reasons.push(Reason::Policy("no rule was asked".to_owned()))
        }
        _ => {}
    }
    let (mut denials, mut waived) = (Vec::new(), Vec::new());
    for answer in &answers {
        let (violations, may_be_waived) = match answer.says() {
            Says::Deny { violations, unlisted } if is_on(Check::Deny) => {
                if unlisted > 0 {
                    denials.push(denial(answer, &beyond(unlisted)));
                }
                (violations, true)
            }
            // What a rule cannot make up its mind about is a fault of the rule, and nobody accepts that.
            Says::Contradiction(violations) if is_on(Check::Contradiction) => (violations.as_slice(), false),
            _ => continue,
        };
        for violation in violations {
            let by = if may_be_waived { asked.waived_by(&answer.rule.code, violation) } else { None };
            let mut denial = denial(answer, violation);
            match by {
                Some(by) => waived.push(Waived { denial, by }),
                None => {
                    denial.near = asked.nearest_miss(&answer.rule.code, violation);
                    denial.found = asked.places(violation);
                    denials.push(denial);
                }
            }
        }
    }
    let (until, exceptions) = (asked.until(), asked.uses());
    warnings.extend(exceptions.iter().filter_map(exceptions::warning));
    let word = if let Ok(reasons) = NonEmpty::try_from(reasons) {
        Word::Undecided(reasons)
    } else if let Ok(denials) = NonEmpty::try_from(denials) {
        Word::Deny(denials)
    } else {
        let open = answers.iter().filter_map(|answer| match answer.says() {
            Says::Pass => None,
            Says::Deny { .. } if is_on(Check::Deny) => None,
            Says::Lacking(fields) => Some(Reason::Lacking { code: answer.rule.code.clone(), fields: fields.to_vec() }),
            _ => Some(Reason::Silent(answer.rule.code.clone())),
        });
        let open = open.filter(|_| is_on(Check::Silent)).collect::<Vec<_>>();
        NonEmpty::try_from(open).map_or(Word::Allow, Word::Undecided)
    };
    Weighed { word, exceptions, waived, warnings, until }
}

/// What a rule that does not decide yet would do.
fn what_will_be(answer: &RuleAnswer) -> Option<String> {
    let (code, from) = (&answer.rule.code, answer.rule.effective_on?);
    let violations = match answer.says() {
        Says::Pass => return None,
        Says::Silent | Says::Lacking(_) => return Some(format!("{code} leaves this undecided from {from} on")),
        Says::Deny { violations, .. } => violations,
        Says::Contradiction(violations) => violations.as_slice(),
    };
    let what = violations.first().map_or("more than can be listed", |violation| violation.msg.as_str());
    Some(format!("{code} denies this from {from} on: {what}"))
}

/// Makes the permit of one image; beside [`judge_index`], which needs one of each of its images, the one place where a permit is made.
fn permit(facts: &Facts, target: Target, gateway: Digest, basis: Basis, now: UnixTime) -> Permit {
    Permit {
        grant: Box::new(Grant {
            image: PinnedImage { repository: target.repository, digest: facts.image() },
            environment: target.environment,
            tag: target.tag,
            previous: target.current,
            gateway,
            facts: facts.digest(),
            decided_at: now,
            used: facts.used().to_vec(),
            basis,
            platforms: Vec::new(),
        }),
    }
}

/// Seconds by which a database may be dated after the gate's clock: two machines rarely agree to the second.
const CLOCK_SKEW: u64 = 300;

fn unmet(
    facts: &Facts,
    answers: &[&RuleAnswer],
    conditions: &Conditions,
    asked: &mut exceptions::Asked<'_>,
    now: UnixTime,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut required: BTreeSet<PredicateType> = conditions.require.iter().cloned().collect();
    required.extend(required_by(answers));
    for kind in required.difference(facts.kinds()).filter(|_| is_on(Check::RequiredKind)) {
        let foreign = facts.foreign_tests();
        reasons.push(match kind {
            PredicateType::TestResult if !foreign.is_empty() => Reason::ForeignTests(foreign.to_vec()),
            kind => Reason::MissingKind(kind.short().to_owned()),
        });
    }
    if is_on(Check::EmptySbom)
        && required.contains(&PredicateType::Sbom)
        && facts.kinds().contains(&PredicateType::Sbom)
        && facts.components() == 0
    {
        let gap = Gap {
            kind: EMPTY_SBOM.to_owned(),
            place: "the image's SBOM".to_owned(),
            digest: facts.image(),
            reason: "it names no component".to_owned(),
        };
        if !asked.covers(&gap) {
            reasons.push(Reason::EmptySbom);
        }
    }
    if required.contains(&PredicateType::Vulns) {
        match facts.scan() {
            None if !is_on(Check::GateScan) => {}
            None => reasons.push(Reason::NoScan),
            Some(scan) => {
                reasons.extend(conditions.databases.faults(scan.scanner(), now).into_iter().map(Reason::Database));
                let coverage = scan.coverage();
                if is_on(Check::NothingRead) && coverage.read.is_empty() && coverage.unread.is_empty() {
                    reasons.push(Reason::Coverage("nothing was read".to_owned()));
                }
                let mut gaps: Vec<Gap> = Vec::new();
                if is_on(Check::CoverageGap) {
                    gaps.extend(coverage.unread.iter().cloned());
                }
                if conditions.strict_executables && is_on(Check::StrictExecutables) {
                    gaps.extend(unexplained(coverage, facts));
                }
                for gap in gaps {
                    if !asked.covers(&gap) {
                        let Gap { kind, place, digest, reason } = gap;
                        reasons.push(Reason::Coverage(format!("{kind} {place} ({digest}): {reason}")));
                    }
                }
            }
        }
    }
    reasons
}

/// The executables of the base that are in no package, as gaps of the scan.
fn unexplained(coverage: &Coverage, facts: &Facts) -> Vec<Gap> {
    let image = facts.image();
    let gap = |kind: &str, place: &str, digest, reason: String| Gap {
        kind: kind.to_owned(),
        place: place.to_owned(),
        digest,
        reason,
    };
    let Some(Executables { listed, beyond, beyond_products }) = &coverage.executables else {
        let reason = "nobody can say which executables are in no package: its package manager's lists are not read";
        return vec![gap("executables-unknown", "image", image, reason.to_owned())];
    };
    // A product of the closed set is explained by its provenance. Only this builder is known to put its products, and nothing else, into one
    // layer of their own.
    let explained = |executable: &&Executable| executable.product && facts.is_assembled_here();
    let of_base = listed.iter().filter(|executable| !explained(executable));
    let mut gaps: Vec<Gap> = of_base
        .map(|Executable { place, digest, more, .. }| {
            let more = if *more == 0 { String::new() } else { format!(", at {more} more places") };
            gap("executable", place, *digest, format!("an executable of the base that is in no package{more}"))
        })
        .collect();
    let beyond = if facts.is_assembled_here() { *beyond } else { beyond.saturating_add(*beyond_products) };
    if beyond > 0 {
        gaps.push(gap(
            "executable",
            "image",
            image,
            format!("{beyond} more executables of the base are in no package"),
        ));
    }
    gaps
}

/// What stands for the denials that are not listed: nothing that a waiver could name.
fn beyond(unlisted: u64) -> Violation {
    let msg = format!("{unlisted} more denials are beyond the limit of those that are listed");
    Violation { msg, term: None, subject: None, fields: BTreeMap::new(), clause: None }
}

fn denial(answer: &RuleAnswer, violation: &Violation) -> Denial {
    Denial {
        code: answer.rule.code.clone(),
        title: answer.rule.title.clone(),
        solution: answer.rule.solution.clone(),
        rule: answer.rule.place(),
        violation: violation.clone(),
        near: None,
        found: Vec::new(),
    }
}
