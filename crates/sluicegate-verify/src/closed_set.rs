//! Follows an image to everything its provenance names, and decides whether that is all there (trust model 2, 3 and 12).

mod attached;
mod links;

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{
    identifiers::{JUNIT_REPORT, TRIVY_REPORT},
    predicate::PredicateType,
    provenance::{Build, Dependency, Provenance},
    runtime_trace::RuntimeTrace,
    statement::Subject,
    test_result::TestResult,
    vulns::Vulns,
};
use sluicegate_types::{
    Content, Digest, Repository, StepName, UnixTime,
    checks::{Check, is_on},
};

pub use attached::{MAX_BEYOND_THE_SET, MAX_SETS};

use crate::{
    Error, Role, Trust, VerifiedStatement,
    threshold::{self, Endorsed},
    verify,
};

/// Everything an image's provenance names, present, verified and linked. Only [`follow`] makes one.
#[derive(Debug)]
pub struct ClosedSet {
    image: Digest,
    provenance: (VerifiedStatement, Provenance),
    /// Every bundle that says what the provenance says.
    provenance_bundles: BTreeSet<Digest>,
    steps: BTreeMap<StepName, (VerifiedStatement, Provenance)>,
    /// By bundle, the statements of other runs whose results steps of this one took.
    origins: BTreeMap<Digest, (VerifiedStatement, Provenance)>,
    sboms: Vec<VerifiedStatement>,
    scans: Vec<Scan>,
    tests: Vec<Test>,
    step_images: BTreeMap<Digest, StepImage>,
    outputs: Vec<VerifiedStatement>,
    output_scans: Vec<Scan>,
    traces: Vec<Traced>,
    /// Bytes that are no attestation and are named by digest, re-hashed: raw reports, with their media types.
    reports: BTreeMap<Digest, (String, Vec<u8>)>,
}

/// A verified scan of the image, of a step's image or of an output.
#[derive(Debug)]
pub struct Scan {
    /// What was signed.
    pub statement: VerifiedStatement,
    /// Its predicate.
    pub vulns: Vulns,
    /// The scanner's own report: the bytes that the statement names.
    pub report: Vec<u8>,
}

/// What is known about an image that steps ran in.
#[derive(Debug, Default)]
pub struct StepImage {
    /// What is in it.
    pub sboms: Vec<VerifiedStatement>,
    /// What is wrong with it.
    pub scans: Vec<Scan>,
}

/// A verified trace of a step of the set. It is evidence of no kind: that somebody watched says nothing about what the image holds.
#[derive(Debug)]
pub struct Traced {
    /// What was signed.
    pub statement: VerifiedStatement,
    /// Its predicate.
    pub trace: RuntimeTrace,
}

/// A verified test run: our own reading of the report that its statement names, in the words of the step that wrote it.
#[derive(Debug)]
pub struct Test {
    /// What was signed.
    pub statement: VerifiedStatement,
    /// What the raw report says, with the step's exit code.
    pub result: TestResult,
    /// What it tested beside material of the image; only where that is nothing it counts as the image's test (DESIGN section 5).
    pub foreign: Vec<Subject>,
}

impl ClosedSet {
    /// The image.
    pub fn image(&self) -> Digest {
        self.image
    }

    /// The image's provenance.
    pub fn provenance(&self) -> (&VerifiedStatement, &Provenance) {
        (&self.provenance.0, &self.provenance.1)
    }

    /// Every step, by name.
    pub fn steps(&self) -> impl Iterator<Item = (&VerifiedStatement, &Provenance)> {
        self.steps.values().map(|(statement, provenance)| (statement, provenance))
    }

    /// The statements of the runs that did the work of steps whose result was taken.
    pub fn origins(&self) -> impl Iterator<Item = (&VerifiedStatement, &Provenance)> {
        self.origins.values().map(|(statement, provenance)| (statement, provenance))
    }

    /// The image's own SBOMs.
    pub fn sboms(&self) -> &[VerifiedStatement] {
        &self.sboms
    }

    /// The image's own scans.
    pub fn scans(&self) -> &[Scan] {
        &self.scans
    }

    /// Test runs of its steps.
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// The images that its steps ran in, as far as they are described.
    pub fn step_images(&self) -> &BTreeMap<Digest, StepImage> {
        &self.step_images
    }

    /// SBOMs of what steps left.
    pub fn outputs(&self) -> &[VerifiedStatement] {
        &self.outputs
    }

    /// What its steps opened, executed and contacted, as far as that was watched.
    pub fn traces(&self) -> &[Traced] {
        &self.traces
    }

    /// Every attestation of the set.
    pub fn statements(&self) -> impl Iterator<Item = &VerifiedStatement> {
        let of_images = self.step_images.values();
        std::iter::once(&self.provenance.0)
            .chain(self.steps.values().map(|(statement, _)| statement))
            .chain(self.origins.values().map(|(statement, _)| statement))
            .chain(&self.sboms)
            .chain(self.scans.iter().map(|scan| &scan.statement))
            .chain(self.tests.iter().map(|test| &test.statement))
            .chain(of_images.flat_map(|image| image.sboms.iter().chain(image.scans.iter().map(|scan| &scan.statement))))
            .chain(&self.outputs)
            .chain(self.output_scans.iter().map(|scan| &scan.statement))
            .chain(self.traces.iter().map(|traced| &traced.statement))
    }

    /// Whether a list of bundles names every attestation of the set. Of the provenance, which nothing names by its digest, any bundle
    /// that says the same will do: anyone can lay a copy beside it.
    pub fn is_named_by(&self, bundles: &[Digest]) -> bool {
        let provenance = self.provenance.0.bundle();
        self.provenance_bundles.iter().any(|bundle| bundles.contains(bundle))
            && self
                .statements()
                .map(VerifiedStatement::bundle)
                .filter(|bundle| *bundle != provenance)
                .all(|bundle| bundles.contains(&bundle))
    }

    /// Everything else that the set names: raw reports, each with its media type.
    pub fn reports(&self) -> impl Iterator<Item = (&Digest, &str)> {
        self.reports.iter().map(|(digest, (media_type, _))| (digest, media_type.as_str()))
    }

    /// The kinds of evidence about the image itself. A test run counts only if all that it tested is material of the image;
    /// what is known about the images that steps ran in, and about single outputs and steps, is never taken for the image's own.
    pub fn kinds(&self) -> BTreeSet<PredicateType> {
        let mut kinds = BTreeSet::from([PredicateType::Provenance]);
        kinds.extend((!self.sboms.is_empty()).then_some(PredicateType::Sbom));
        kinds.extend((!self.scans.is_empty()).then_some(PredicateType::Vulns));
        kinds.extend(self.tests.iter().any(|test| test.foreign.is_empty()).then_some(PredicateType::TestResult));
        kinds
    }
}

/// What became of one statement, for `verify` to list.
#[derive(Debug)]
pub enum Seen {
    /// Verified and used, or verified and of no use here.
    Verified(VerifiedStatement),
    /// Not believed, with the reason; ignored, as anyone may attach anything.
    Ignored {
        /// The bundle.
        bundle: Digest,
        /// Why.
        reason: String,
    },
}

/// Why a provenance's set is not whole.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// No provenance of a known builder is attached to the image.
    #[error("no provenance of a trusted builder is attached to {image}{}", hint(.ignored))]
    NoProvenance {
        /// The image.
        image: Digest,
        /// Why those that are attached don't count.
        ignored: Vec<String>,
    },
    /// Something the provenance names is not there.
    #[error("{name} is missing: the provenance names {digest}")]
    Missing {
        /// What it is to the build.
        name: String,
        /// Its digest.
        digest: Digest,
    },
    /// Something the provenance names is there and not to be believed. This is the attestation's fault, not its absence.
    #[error("{name} ({digest}) is not to be believed: {reason}")]
    Broken {
        /// What it is to the build.
        name: String,
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        reason: Box<Error>,
    },
    /// Something the provenance names is about something else, or belongs to another run.
    #[error("{name} ({digest}) does not belong to this image: {reason}")]
    Unlinked {
        /// What it is to the build.
        name: String,
        /// Its digest.
        digest: Digest,
        /// In what way.
        reason: String,
    },
}

/// Reasons that one line repeats.
const MAX_HINTS: usize = 8;

fn hint(ignored: &[String]) -> String {
    match ignored.len() {
        0 => " (none is attached)".to_owned(),
        many => {
            let rest = if many > MAX_HINTS { format!("; and {} more", many - MAX_HINTS) } else { String::new() };
            let first: Vec<&str> = ignored.iter().take(MAX_HINTS).map(String::as_str).collect();
            format!(" ({many} attached, none usable: {}{rest})", first.join("; "))
        }
    }
}

/// What was found, statement by statement, and whether a whole set is among it.
#[derive(Debug)]
pub struct Followed {
    /// Every attestation about the image that was looked at: image provenance and what it names, then decisions, then the rest.
    pub seen: Vec<Seen>,
    /// Attached bundles of known signers that were not looked at, because there are more than [`MAX_BEYOND_THE_SET`] of them.
    pub unlooked: usize,
    /// What groups say about the image: the same words of enough of their members.
    pub endorsed: Vec<Endorsed>,
    /// The sets that are whole, one for each provenance; they are judged singly, never mixed.
    pub sets: Vec<ClosedSet>,
    /// Why the others are not; at least one if `sets` is empty.
    pub incomplete: Vec<Incomplete>,
}

impl Followed {
    /// Every statement about the image that was verified, in the order in which it was looked at.
    pub fn verified(&self) -> impl Iterator<Item = &VerifiedStatement> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Verified(statement) => Some(statement),
            Seen::Ignored { .. } => None,
        })
    }

    /// What was said by hand about the image: verified, and outside every closed set.
    pub fn by_hand(&self) -> Vec<&VerifiedStatement> {
        self.verified().filter(|statement| statement.is_in_role(Role::Manual)).collect()
    }
}

/// Where an image is, as far as trust.yaml's `repositories` asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whom to believe.
    pub trust: &'a Trust,
    /// The repository that the image is in or is to go to; `None` for a place without a name, such as a layout's folder.
    pub repository: Option<&'a Repository>,
    /// The moment that counts.
    pub at: UnixTime,
}

/// What believed provenances among the bundles that are attached to `image` name: what has to be read first where not everything can
/// be.
pub fn named(image: Digest, attached: &BTreeMap<Digest, Vec<u8>>, asked: Asked<'_>) -> BTreeSet<Digest> {
    let provenances = attached::Looked::at_provenance(image, attached, asked).provenances();
    provenances.into_iter().flat_map(|begun| begun.provenance.dependencies).map(|named| named.digest).collect()
}

/// Follows `image` to its closed sets.
///
/// `attached` are the bundles that are attached to the image; `blobs` everything else that may be named, by digest (bundles of
/// steps, raw reports), both already re-hashed. Extra ones are ignored.
pub fn follow(
    image: Digest,
    attached: &BTreeMap<Digest, Vec<u8>>,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    asked: Asked<'_>,
) -> Followed {
    let mut looked = attached::Looked::at_provenance(image, attached, asked);
    let lookup = Lookup { image, attached, blobs, asked };
    let (mut sets, mut incomplete) = (Vec::new(), Vec::new());
    for begun in looked.provenances() {
        if sets.len() >= MAX_SETS {
            looked.unlooked += 1;
            continue;
        }
        match lookup.complete(begun) {
            Ok(set) => sets.push(set),
            Err(reason) => incomplete.push(reason),
        }
    }
    let named = sets.iter().flat_map(ClosedSet::statements);
    looked.take_named(named);
    looked.at_the_rest();
    let attached::Looked { seen, unlooked, .. } = looked;
    if sets.is_empty() && incomplete.is_empty() {
        let ignored = seen.iter().filter_map(|seen| match seen {
            Seen::Ignored { bundle, reason } => Some(format!("{bundle}: {reason}")),
            Seen::Verified(_) => None,
        });
        incomplete.push(Incomplete::NoProvenance { image, ignored: ignored.collect() });
    }
    let verified: Vec<VerifiedStatement> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Verified(statement) if !statement.endorses().is_empty() => Some(statement.clone()),
            _ => None,
        })
        .collect();
    let endorsed = threshold::endorsed(&verified, asked.trust, asked.repository);
    Followed { seen, unlooked, endorsed, sets, incomplete }
}

/// The same of an index, by what is attached to it: it has no set of its own, and what counts of it is what was said by hand.
pub fn follow_index(index: &Digest, attached: &BTreeMap<Digest, Vec<u8>>, asked: Asked<'_>) -> Followed {
    Followed { sets: Vec::new(), ..follow(*index, attached, &BTreeMap::new(), asked) }
}

struct Lookup<'a> {
    image: Digest,
    attached: &'a BTreeMap<Digest, Vec<u8>>,
    blobs: &'a BTreeMap<Digest, Vec<u8>>,
    asked: Asked<'a>,
}

/// An attestation that was taken before everything that it refers to was there.
struct Taken {
    name: String,
    statement: VerifiedStatement,
}

impl Lookup<'_> {
    fn bytes(&self, dependency: &Dependency) -> Result<&Vec<u8>, Incomplete> {
        self.attached
            .get(&dependency.digest)
            .or_else(|| self.blobs.get(&dependency.digest))
            .ok_or_else(|| Incomplete::Missing { name: dependency.name.clone(), digest: dependency.digest })
    }

    fn complete(&self, begun: attached::Begun) -> Result<ClosedSet, Incomplete> {
        let mut set = ClosedSet {
            image: self.image,
            provenance: (begun.statement, begun.provenance),
            provenance_bundles: begun.bundles,
            steps: BTreeMap::new(),
            origins: BTreeMap::new(),
            sboms: Vec::new(),
            scans: Vec::new(),
            tests: Vec::new(),
            step_images: BTreeMap::new(),
            outputs: Vec::new(),
            output_scans: Vec::new(),
            traces: Vec::new(),
            reports: BTreeMap::new(),
        };
        let (mut described, mut provenances) = (Vec::new(), Vec::new());
        let dependencies = set.provenance.1.dependencies.clone();
        for dependency in &dependencies {
            if !is_on(Check::NamedIsThere) && self.bytes(dependency).is_err() {
                continue;
            }
            if dependency.is_attestation() {
                let taken = match self.verified(dependency) {
                    Err(Incomplete::Broken { .. }) if !is_on(Check::NamedIsBelieved) => continue,
                    taken => taken?,
                };
                match taken.statement.statement().predicate_type {
                    PredicateType::Provenance => provenances.push(TakenProvenance::of(taken)?),
                    _ => described.push(taken),
                }
            } else if [TRIVY_REPORT, JUNIT_REPORT].contains(&dependency.media_type.as_str()) {
                let report = (dependency.media_type.clone(), self.bytes(dependency)?.clone());
                set.reports.insert(dependency.digest, report);
            }
        }
        // What a step of the set names as its origin is no step of the set.
        let origins: BTreeSet<Digest> = provenances.iter().filter_map(|one| one.provenance.cache_origin()).collect();
        for one in provenances {
            if origins.contains(&one.taken.statement.bundle()) {
                set.origins.insert(one.taken.statement.bundle(), (one.taken.statement, one.provenance));
            } else {
                set.take_step(one)?;
            }
        }
        links::check_image(&set)?;
        for (statement, step) in set.steps.values() {
            links::check_step(statement, step, &set)?;
            links::check_origin(statement, step, &set)?;
        }
        let material = links::material(&set);
        for taken in described {
            set.take_description(taken, &material)?;
        }
        links::check_descriptions(&set)?;
        Ok(set)
    }

    fn verified(&self, dependency: &Dependency) -> Result<Taken, Incomplete> {
        let bytes = self.bytes(dependency)?;
        let statement = verify(bytes, self.asked.trust, self.asked.at).map_err(|reason| Incomplete::Broken {
            name: dependency.name.clone(),
            digest: dependency.digest,
            reason: Box::new(reason),
        })?;
        let taken = Taken { name: dependency.name.clone(), statement };
        if is_on(Check::StepsRole) && !taken.statement.is_in_role(Role::Steps) {
            return Err(taken.unlinked("its signer has not the role steps"));
        }
        if !self.asked.trust.covers(taken.statement.signer(), self.asked.repository) {
            return Err(taken.unlinked(&not_covered(&taken.statement, self.asked.repository)));
        }
        Ok(taken)
    }
}

fn not_covered(statement: &VerifiedStatement, repository: Option<&Repository>) -> String {
    let place = repository.map_or("a place without a repository name", Repository::as_str);
    format!("its signer {} does not speak for {place} (repositories: in trust.yaml)", statement.signer())
}

impl Taken {
    fn unlinked(&self, reason: &str) -> Incomplete {
        Incomplete::Unlinked { name: self.name.clone(), digest: self.statement.bundle(), reason: reason.to_owned() }
    }
}

/// A provenance of the set, not yet known to be a step's or the origin of one.
struct TakenProvenance {
    taken: Taken,
    provenance: Provenance,
}

impl TakenProvenance {
    fn of(taken: Taken) -> Result<Self, Incomplete> {
        let predicate = &taken.statement.statement().predicate;
        let provenance = Provenance::parse(predicate).map_err(|error| taken.unlinked(&error.to_string()))?;
        Ok(Self { taken, provenance })
    }
}

impl ClosedSet {
    fn take_step(&mut self, one: TakenProvenance) -> Result<(), Incomplete> {
        let TakenProvenance { taken, provenance } = one;
        let Build::Step(parameters) = &provenance.build else {
            return Err(taken.unlinked("it is the provenance of an image, not of a step"));
        };
        let run = &self.provenance.1.run;
        if is_on(Check::SameRun) && provenance.run != *run {
            return Err(taken.unlinked(&format!("it is from run {}, not {run}", provenance.run)));
        }
        if is_on(Check::StepExitCode) && !parameters.passed() {
            return Err(taken.unlinked(&format!("the step ended with code {}", parameters.exit_code)));
        }
        if is_on(Check::OneProvenance) && self.steps.contains_key(&parameters.step) {
            return Err(taken.unlinked("a second provenance of one step"));
        }
        self.steps.insert(parameters.step.clone(), (taken.statement, provenance));
        Ok(())
    }

    /// Takes what describes the image, an image that a step ran in, an output of a step, a step, or a test run; nothing else belongs here.
    fn take_description(&mut self, taken: Taken, material: &BTreeSet<Content>) -> Result<(), Incomplete> {
        let statement = taken.statement.statement();
        let about_image = statement.is_about_image(&self.image);
        let step_image = self.step_images_named().find(|image| statement.is_about_image(image));
        match &statement.predicate_type {
            PredicateType::Sbom if about_image => self.sboms.push(taken.statement),
            PredicateType::Vulns if about_image => {
                let scan = self.scan(taken)?;
                self.scans.push(scan);
            }
            PredicateType::Sbom if let Some(image) = step_image => {
                self.step_images.entry(image).or_default().sboms.push(taken.statement);
            }
            PredicateType::Vulns if let Some(image) = step_image => {
                let scan = self.scan(taken)?;
                self.step_images.entry(image).or_default().scans.push(scan);
            }
            PredicateType::Sbom if links::is_about_an_output(&taken.statement, self) => {
                self.outputs.push(taken.statement);
            }
            PredicateType::Vulns if links::is_about_an_output(&taken.statement, self) => {
                let scan = self.scan(taken)?;
                self.output_scans.push(scan);
            }
            PredicateType::TestResult => {
                let test = self.test(taken, material)?;
                self.tests.push(test);
            }
            PredicateType::RuntimeTrace => {
                let traced = self.traced(taken)?;
                self.traces.push(traced);
            }
            _ if is_on(Check::Describes) => return Err(taken.unlinked("it is about something else")),
            _ => {}
        }
        Ok(())
    }

    /// The images that the set's steps say they ran in.
    fn step_images_named(&self) -> impl Iterator<Item = Digest> {
        self.steps.values().flat_map(|(_, step)| step.step_images())
    }

    fn report(&self, name: &str, digest: Digest, media_type: &str) -> Result<&Vec<u8>, Incomplete> {
        let named = self.reports.get(&digest).filter(|(found, _)| found == media_type);
        named.map(|(_, bytes)| bytes).ok_or_else(|| Incomplete::Missing { name: name.to_owned(), digest })
    }

    fn scan(&self, taken: Taken) -> Result<Scan, Incomplete> {
        let predicate = &taken.statement.statement().predicate;
        let vulns = Vulns::parse(predicate).map_err(|error| taken.unlinked(&error.to_string()))?;
        let report = match self.report("the raw report of the scan", vulns.report, TRIVY_REPORT) {
            Err(_) if !is_on(Check::ScanReport) => Vec::new(),
            report => report?.clone(),
        };
        Ok(Scan { statement: taken.statement, vulns, report })
    }

    /// A trace belongs to the step that it names: it is of this run, of a step of the set, and about what that step left, all of it.
    fn traced(&self, taken: Taken) -> Result<Traced, Incomplete> {
        let unlinked = |reason: String| taken.unlinked(&reason);
        let statement = taken.statement.statement();
        let trace = RuntimeTrace::parse(&statement.predicate).map_err(|error| unlinked(error.to_string()))?;
        if !is_on(Check::Describes) {
            return Ok(Traced { statement: taken.statement, trace });
        }
        let (attestation, step) = self
            .steps
            .get(&trace.step)
            .ok_or_else(|| unlinked(format!("no attestation of the step {} is in the set", trace.step)))?;
        if trace.run != step.run || trace.builder_id != step.builder_id {
            return Err(unlinked(format!(
                "it is of run {} by {}, not the run of the step {} in this set",
                trace.run, trace.builder_id, trace.step
            )));
        }
        if !links::is_about_the_same(&taken.statement, attestation) {
            return Err(unlinked(format!("it is about something else than what the step {} left", trace.step)));
        }
        if self.traces.iter().any(|known| known.trace.step == trace.step) {
            return Err(unlinked(format!("a second trace of the step {}", trace.step)));
        }
        Ok(Traced { statement: taken.statement, trace })
    }

    /// A test run belongs to the step that wrote its report, and says what that report says.
    fn test(&self, taken: Taken, material: &BTreeSet<Content>) -> Result<Test, Incomplete> {
        let unlinked = |reason: String| taken.unlinked(&reason);
        let statement = taken.statement.statement();
        let claim = TestResult::parse(&statement.predicate).map_err(|error| unlinked(error.to_string()))?;
        let (attestation, step) = self
            .steps
            .get(&claim.step)
            .ok_or_else(|| unlinked(format!("no attestation of the step {} is in the set", claim.step)))?;
        if is_on(Check::TestRun) && (claim.attestation != attestation.bundle() || claim.run != step.run) {
            return Err(unlinked(format!(
                "it is about {} of run {}, not the run of the step {} in this set",
                claim.attestation, claim.run, claim.step
            )));
        }
        if let Build::Step(parameters) = &step.build
            && parameters.exit_code != claim.exit_code
            && is_on(Check::TestExitCode)
        {
            return Err(unlinked(format!(
                "it says that the step ended with code {}, and the step's provenance says {}",
                claim.exit_code, parameters.exit_code
            )));
        }
        let written = step.byproducts.iter().any(|by| by.media_type == JUNIT_REPORT && by.digest == claim.report);
        if is_on(Check::TestReport) && !written {
            return Err(unlinked(format!("the step {} did not write the report {}", claim.step, claim.report)));
        }
        for subject in statement.subjects.iter() {
            let read = step.dependencies.iter().any(|d| d.as_content().is_some_and(|content| subject.is(content)));
            if is_on(Check::TestSubjects) && !read {
                return Err(unlinked(format!(
                    "the step {} did not read {}, which it says was tested",
                    claim.step, subject.digest
                )));
            }
        }
        let raw = self.report("the raw report of the tests", claim.report, JUNIT_REPORT)?;
        let result = claim.check(raw).map_err(|error| unlinked(error.to_string()))?;
        let is_material = |subject: &Subject| material.iter().any(|content| subject.is(*content));
        let foreign = statement.subjects.iter().filter(|subject| is_on(Check::TestMaterial) && !is_material(subject));
        let foreign = foreign.cloned().collect();
        Ok(Test { statement: taken.statement, result, foreign })
    }
}
