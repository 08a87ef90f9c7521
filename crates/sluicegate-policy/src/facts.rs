//! Verified facts: what Rego sees, made from verified bytes only (DESIGN section 5, "Rego input").

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use sluicegate_attestation::{
    coverage::Coverage,
    cyclonedx,
    identifiers::LOCAL_BUILDER,
    predicate::PredicateType,
    spdx_document,
    statement::Subject,
    trivy_report,
    trivy_report::Finding,
    vulns::{Scanner, Vulns},
};
use sluicegate_types::{
    Digest, EnvironmentName, Repository, StepName, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{
    Role, VerifiedStatement,
    closed_set::{ClosedSet, Followed},
    threshold::Endorsed,
};

use crate::exceptions::{Findings, KnownFinding};

/// Everything a gate decides on about one image. Made from a [`ClosedSet`], which only verification makes.
#[derive(Debug)]
pub struct Facts {
    image: Digest,
    input: Box<RawValue>,
    digest: Digest,
    kinds: BTreeSet<PredicateType>,
    foreign_tests: Vec<ForeignTest>,
    used: Vec<Digest>,
    components: usize,
    scan: Option<GateScan>,
    known: Findings,
    assembled_here: bool,
}

/// A test of something that the image is not made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTest {
    /// The step that tested.
    pub step: StepName,
    /// What of it is not material of the image: the name that the step has for it, else its digest.
    pub tested: Vec<String>,
}

impl fmt::Display for ForeignTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} also tested {}", self.step, self.tested.join(", "))
    }
}

/// The gate's own scan of the image (trust model 4): read back, verified in the role `records`, its report re-hashed.
#[derive(Clone, Debug)]
pub struct GateScan {
    bundle: Digest,
    vulns: Vulns,
    predicate: Value,
    report: Vec<u8>,
}

impl GateScan {
    /// Takes a verified scan of `image` and the report that it names.
    pub fn new(image: &Digest, statement: &VerifiedStatement, report: Vec<u8>) -> Result<Self, FactsError> {
        let fault = |reason: &str| FactsError::Scan { reason: reason.to_owned() };
        if is_on(Check::GateScanRole) && !statement.is_in_role(Role::Records) {
            return Err(fault("its signer has not the role records"));
        }
        let about = statement.statement().is_about_image(image) || !is_on(Check::GateScanSubject);
        if statement.statement().predicate_type != PredicateType::Vulns || !about {
            return Err(fault("it is about something else"));
        }
        let vulns = Vulns::parse(&statement.statement().predicate).map_err(|error| fault(&error.to_string()))?;
        if is_on(Check::GateScanReport) && vulns.report != Digest::of(&report) {
            return Err(fault("the report is not the one that it names"));
        }
        let predicate = statement.statement().predicate.clone();
        Ok(Self { bundle: statement.bundle(), vulns, predicate, report })
    }

    /// The scanner, and which databases it asked.
    pub fn scanner(&self) -> &Scanner {
        &self.vulns.scanner
    }

    /// What was read and what was not.
    pub fn coverage(&self) -> &Coverage {
        &self.vulns.coverage
    }

    /// The digest of its raw report.
    pub fn report(&self) -> Digest {
        self.vulns.report
    }

    /// The scan's attestation.
    pub fn bundle(&self) -> Digest {
        self.bundle
    }
}

impl Facts {
    /// Makes the facts about the image of `set` for one target at one moment. `accepts_database` says whether the gate still
    /// believes the database of a scan that the closed set brought; the findings of those that it believes are united with
    /// the gate's own, so that an old clean scan never outvotes. Of what was said `by_hand` about the image, or about the index that it
    /// is one of, only types that no machine of the closed set says can be facts: an SBOM or a test result by hand counts for nothing.
    pub fn new(
        set: &ClosedSet,
        by_hand: &ByHand<'_>,
        scan: Option<GateScan>,
        environment: &EnvironmentName,
        repository: &Repository,
        now: UnixTime,
        accepts_database: &dyn Fn(&Vulns) -> bool,
    ) -> Result<Self, FactsError> {
        let mut components = Vec::new();
        let mut documents = Vec::new();
        for sbom in set.sboms() {
            let read = cyclonedx::read(&sbom.statement().predicate)
                .map_err(|error| FactsError::Sbom { bundle: sbom.bundle(), reason: error.to_string() })?;
            documents.push(tagged(&read.about, sbom.bundle())?);
            for component in read.components {
                components.push(tagged(&component, sbom.bundle())?);
            }
        }
        let mut findings: Vec<(Finding, Digest)> = Vec::new();
        let mut known = BTreeSet::new();
        let gate = scan.iter().map(|scan| (scan.bundle, &scan.predicate, &scan.report));
        let brought = set.scans().iter().filter(|s| accepts_database(&s.vulns));
        let brought = brought.map(|s| (s.statement.bundle(), &s.statement.statement().predicate, &s.report));
        for (bundle, predicate, report) in gate.chain(brought) {
            let listed = trivy_report::findings(report)
                .map_err(|error| FactsError::Report { bundle, reason: error.to_string() })?;
            if is_on(Check::SummaryAgrees) && !Vulns::sums_up(predicate, &listed) {
                let reason = "the signed summary of its findings says something else".to_owned();
                return Err(FactsError::Report { bundle, reason });
            }
            for finding in listed {
                let text = serde_json::to_string(&finding).map_err(|e| FactsError::Input { reason: e.to_string() })?;
                if known.insert(text) {
                    findings.push((finding, bundle));
                }
            }
        }
        let (mut alone, mut together) = by_hand.image.that_counts(&set.image());
        if let Some((index, said)) = &by_hand.index {
            let (of_index, of_index_together) = said.that_counts(index);
            // What is about both stands in both places and is one word.
            let known: BTreeSet<Digest> = alone.iter().map(|said| said.bundle()).collect();
            alone.extend(of_index.into_iter().filter(|said| !known.contains(&said.bundle())));
            let known: BTreeSet<&[Digest]> = together.iter().map(|said| said.bundles()).collect();
            let of_index = of_index_together.into_iter().filter(|said| !known.contains(said.bundles()));
            let of_index: Vec<&Endorsed> = of_index.collect();
            together.extend(of_index);
        }
        let mut attestations: Vec<Value> = set.statements().chain(alone.iter().copied()).map(attestation).collect();
        attestations.extend(together.iter().copied().map(endorsement));
        let mut known = Findings::default();
        for (finding, _) in &findings {
            let Finding { purl, aliases, package, installed, place, .. } = finding;
            known.note(
                &finding.id,
                KnownFinding {
                    purl: purl.clone(),
                    aliases: aliases.clone(),
                    place: format!("{package} {installed} in {place}"),
                },
            );
        }
        let vulnerabilities = findings.iter().map(|(f, bundle)| tagged(f, *bundle)).collect::<Result<Vec<_>, _>>()?;
        let by_hand_too = alone.iter().copied().chain(together.iter().map(|said| said.statement()));
        let handed_in = sboms_by_hand(by_hand_too)?;
        let mut input = json!({
            "subject": {"name": repository.as_str(), "digest": set.image()},
            "target": {"environment": environment, "repository": repository.as_str()},
            "now": now,
            "attestations": attestations,
            "sbom": {"components": components, "documents": documents},
            "vulnerabilities": vulnerabilities,
        });
        if let Some(handed_in) = handed_in {
            input["sbom"]["byHand"] = handed_in;
        }
        if let Some((index, _)) = &by_hand.index {
            input["subject"]["index"] = json!(index);
        }
        if let Some(scan) = &scan {
            let scanner = &scan.vulns.scanner;
            input["scan"] = json!({
                "tool": scanner.name,
                "version": scanner.version,
                "databases": scanner.databases().map(|(name, database)| json!({
                    "name": name,
                    "digest": database.digest,
                    "updatedAt": database.updated_at,
                })).collect::<Vec<_>>(),
                "coverage": scan.vulns.coverage,
            });
        }
        let text = serde_json::to_string(&input).map_err(|error| FactsError::Input { reason: error.to_string() })?;
        let mut used: Vec<Digest> = set.statements().map(VerifiedStatement::bundle).collect();
        used.extend(alone.iter().map(|said| said.bundle()));
        used.extend(together.iter().flat_map(|said| said.bundles()));
        used.extend(scan.iter().map(GateScan::bundle));
        let mut kinds = set.kinds();
        let by_hand = alone.iter().copied().chain(together.iter().map(|said| said.statement()));
        kinds.extend(by_hand.map(|said| said.statement().predicate_type.clone()));
        Ok(Self {
            image: set.image(),
            digest: Digest::of(text.as_bytes()),
            input: RawValue::from_string(text).map_err(|error| FactsError::Input { reason: error.to_string() })?,
            kinds,
            foreign_tests: foreign_tests(set),
            used,
            components: components.len(),
            scan,
            known,
            assembled_here: is_assembled_here(set),
        })
    }

    /// What a promotion without a gate rests on: the set alone. No SBOM and no scan is read, as nobody is asked about them.
    pub fn of_set(
        set: &ClosedSet,
        environment: &EnvironmentName,
        repository: &Repository,
        now: UnixTime,
    ) -> Result<Self, FactsError> {
        let input = json!({
            "subject": {"name": repository.as_str(), "digest": set.image()},
            "target": {"environment": environment, "repository": repository.as_str()},
            "now": now,
            "attestations": set.statements().map(attestation).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string(&input).map_err(|error| FactsError::Input { reason: error.to_string() })?;
        Ok(Self {
            image: set.image(),
            digest: Digest::of(text.as_bytes()),
            input: RawValue::from_string(text).map_err(|error| FactsError::Input { reason: error.to_string() })?,
            kinds: set.kinds(),
            foreign_tests: foreign_tests(set),
            used: set.statements().map(VerifiedStatement::bundle).collect(),
            components: 0,
            scan: None,
            known: Findings::default(),
            assembled_here: is_assembled_here(set),
        })
    }

    /// The image.
    pub fn image(&self) -> Digest {
        self.image
    }

    /// What Rego sees, as JSON.
    pub fn input(&self) -> &RawValue {
        &self.input
    }

    /// SHA-256 over the input's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The kinds of evidence that are present.
    pub fn kinds(&self) -> &BTreeSet<PredicateType> {
        &self.kinds
    }

    /// Tests that do not count as tests of the image.
    pub fn foreign_tests(&self) -> &[ForeignTest] {
        &self.foreign_tests
    }

    /// Every attestation that was used.
    pub fn used(&self) -> &[Digest] {
        &self.used
    }

    /// Components of the image's SBOMs.
    pub fn components(&self) -> usize {
        self.components
    }

    /// Whether this program's own builder assembled the image, so that its uppermost layer is its products and nothing else.
    pub fn is_assembled_here(&self) -> bool {
        self.assembled_here
    }

    /// Its findings by name.
    pub fn findings(&self) -> &Findings {
        &self.known
    }

    /// The gate's own scan.
    pub fn scan(&self) -> Option<&GateScan> {
        self.scan.as_ref()
    }
}

/// What was said by hand, outside every closed set.
#[derive(Debug, Default)]
pub struct ByHand<'a> {
    /// About the image.
    pub image: Said<'a>,
    /// About the index with which it is promoted, if there is one: who vouches for an index vouches for each image that it names.
    pub index: Option<(Digest, Said<'a>)>,
}

/// What was said by hand about one image or index.
#[derive(Debug, Default)]
pub struct Said<'a> {
    /// By signers of role `manual`.
    pub alone: Vec<&'a VerifiedStatement>,
    /// By enough members of a group.
    pub together: &'a [Endorsed],
}

impl<'a> From<&'a Followed> for Said<'a> {
    fn from(followed: &'a Followed) -> Self {
        Self { alone: followed.by_hand(), together: &followed.endorsed }
    }
}

impl<'a> Said<'a> {
    /// What of it can be a fact of whoever asks about `subject`.
    fn that_counts(&self, subject: &Digest) -> (Vec<&'a VerifiedStatement>, Vec<&'a Endorsed>) {
        let in_role = |is_manual: bool| is_manual || !is_on(Check::ByHandRole);
        let alone = self.alone.iter().copied().filter(|said| in_role(said.is_in_role(Role::Manual)));
        let together = self.together.iter().filter(|said| in_role(said.is_in_role(Role::Manual)));
        (
            alone.filter(|said| counts_by_hand(subject, said)).collect(),
            together.filter(|said| counts_by_hand(subject, said.statement())).collect(),
        )
    }
}

/// SBOMs that people handed in, in SPDX, in a place of their own: what they list is for rules that ask for it, and makes no SBOM present,
/// complete or longer.
fn sboms_by_hand<'a>(said: impl Iterator<Item = &'a VerifiedStatement>) -> Result<Option<Value>, FactsError> {
    let (mut components, mut documents) = (Vec::new(), Vec::new());
    for said in said.filter(|said| said.statement().predicate_type == PredicateType::Spdx) {
        let bundle = said.bundle();
        let read = spdx_document::read(&said.statement().predicate)
            .map_err(|error| FactsError::Sbom { bundle, reason: error.to_string() })?;
        documents.push(tagged(&read.about, bundle)?);
        for component in read.components {
            components.push(tagged(&component, bundle)?);
        }
    }
    Ok((!documents.is_empty()).then(|| json!({"components": components, "documents": documents})))
}

fn is_assembled_here(set: &ClosedSet) -> bool {
    set.provenance().1.builder_id == LOCAL_BUILDER
}

fn foreign_tests(set: &ClosedSet) -> Vec<ForeignTest> {
    let called = |subject: &Subject| subject.name.clone().unwrap_or_else(|| subject.digest.to_string());
    let tests = set.tests().iter().filter(|test| !test.foreign.is_empty());
    let told = tests.map(|test| {
        let tested = test.foreign.iter().map(called).collect();
        ForeignTest { step: test.result.step.clone(), tested }
    });
    told.collect()
}

fn counts_by_hand(image: &Digest, said: &VerifiedStatement) -> bool {
    let statement = said.statement();
    statement.is_about_image(image)
        && !(is_on(Check::ByHandType)
            && matches!(statement.predicate_type, PredicateType::Sbom | PredicateType::TestResult))
}

fn tagged(item: &impl Serialize, bundle: Digest) -> Result<Value, FactsError> {
    let mut value = serde_json::to_value(item).map_err(|error| FactsError::Input { reason: error.to_string() })?;
    value["attestation"] = json!(bundle);
    Ok(value)
}

fn attestation(statement: &VerifiedStatement) -> Value {
    let subjects = statement.statement().subjects.iter().map(|s| json!({"name": s.name, "digest": s.digest}));
    json!({
        "predicateType": statement.statement().predicate_type.uri(),
        "predicate": statement.statement().predicate,
        "subjects": subjects.collect::<Vec<_>>(),
        "digest": statement.bundle(),
        "signer": {"kind": "key", "keyId": statement.key_id(), "name": statement.signer()},
        "log": {"index": statement.log().index, "origin": statement.log().origin},
    })
}

/// What a group says: its members are the signer.
fn endorsement(said: &Endorsed) -> Value {
    let mut entry = attestation(said.statement());
    entry["signer"] = json!({"kind": "threshold", "name": said.group(), "by": said.by()});
    entry
}

/// Why verified statements give no facts.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The gate's own scan.
    #[error("the gate's scan cannot be used: {reason}")]
    Scan {
        /// Why not.
        reason: String,
    },
    /// An SBOM.
    #[error("the SBOM {bundle} cannot be read: {reason}")]
    Sbom {
        /// The attestation.
        bundle: Digest,
        /// Why not.
        reason: String,
    },
    /// A raw report.
    #[error("the report of the scan {bundle} cannot be used: {reason}")]
    Report {
        /// The attestation.
        bundle: Digest,
        /// Why not.
        reason: String,
    },
    /// The input document.
    #[error("the facts cannot be written as JSON: {reason}")]
    Input {
        /// Why not.
        reason: String,
    },
}
