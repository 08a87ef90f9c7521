//! Follows an image to everything its provenance names, and decides whether that is all there (trust model 2, 3 and 12).

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{
    predicate::PredicateType,
    provenance::{Build, Dependency, Provenance, StepParameters},
    vulns::Vulns,
};
use sluicegate_types::{Digest, StepName, UnixTime};

use crate::{Error, Role, Trust, VerifiedStatement, verify};

/// Everything an image's provenance names, present, verified and linked. Only [`follow`] makes one.
#[derive(Debug)]
pub struct ClosedSet {
    image: Digest,
    provenance: (VerifiedStatement, Provenance),
    steps: BTreeMap<StepName, (VerifiedStatement, Provenance)>,
    sboms: Vec<VerifiedStatement>,
    scans: Vec<Scan>,
    /// Bytes that are no attestation and are named by digest, re-hashed: raw reports.
    others: BTreeMap<Digest, Vec<u8>>,
}

/// A verified scan of the image.
#[derive(Debug)]
pub struct Scan {
    /// What was signed.
    pub statement: VerifiedStatement,
    /// Its predicate.
    pub vulns: Vulns,
    /// The scanner's own report: the bytes that the statement names.
    pub report: Vec<u8>,
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

    /// The image's own SBOMs.
    pub fn sboms(&self) -> &[VerifiedStatement] {
        &self.sboms
    }

    /// The image's own scans.
    pub fn scans(&self) -> &[Scan] {
        &self.scans
    }

    /// Every attestation of the set.
    pub fn statements(&self) -> impl Iterator<Item = &VerifiedStatement> {
        std::iter::once(&self.provenance.0)
            .chain(self.steps.values().map(|(statement, _)| statement))
            .chain(&self.sboms)
            .chain(self.scans.iter().map(|scan| &scan.statement))
    }

    /// The digests of everything else that the set names: raw reports.
    pub fn other_digests(&self) -> impl Iterator<Item = &Digest> {
        self.others.keys()
    }

    /// The kinds of evidence that are present.
    pub fn kinds(&self) -> BTreeSet<PredicateType> {
        self.statements().map(|statement| statement.statement().predicate_type.clone()).collect()
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

fn hint(ignored: &[String]) -> String {
    if ignored.is_empty() { String::new() } else { format!(" (ignored: {})", ignored.join("; ")) }
}

/// What was found, statement by statement, and whether a whole set is among it.
#[derive(Debug)]
pub struct Followed {
    /// Every attestation about the image.
    pub seen: Vec<Seen>,
    /// The sets that are whole, one for each provenance; they are judged singly, never mixed.
    pub sets: Vec<ClosedSet>,
    /// Why the others are not; at least one if `sets` is empty.
    pub incomplete: Vec<Incomplete>,
}

/// Follows `image` to its closed sets.
///
/// `attached` are the bundles that are attached to the image; `blobs` everything else that may be named, by digest (bundles of
/// steps, raw reports), both already re-hashed. Extra ones are ignored.
pub fn follow(
    image: Digest,
    attached: &BTreeMap<Digest, Vec<u8>>,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    trust: &Trust,
    at: UnixTime,
) -> Followed {
    let mut followed = Followed { seen: Vec::new(), sets: Vec::new(), incomplete: Vec::new() };
    let mut ignored = Vec::new();
    for (digest, bytes) in attached {
        let seen = match verify(bytes, trust, at) {
            Ok(statement) if statement.statement().is_about_image(&image) => Seen::Verified(statement),
            Ok(_) => Seen::Ignored { bundle: *digest, reason: "it is about something else".to_owned() },
            Err(error) => Seen::Ignored { bundle: *digest, reason: error.to_string() },
        };
        if let Seen::Ignored { bundle, reason } = &seen {
            ignored.push(format!("{bundle}: {reason}"));
        }
        followed.seen.push(seen);
    }
    for seen in &followed.seen {
        let Seen::Verified(statement) = seen else { continue };
        if statement.statement().predicate_type != PredicateType::Provenance || !statement.is_in_role(Role::Steps) {
            continue;
        }
        // Verified provenance has been parsed once already; only ours is accepted there.
        let Ok(provenance) = Provenance::parse(&statement.statement().predicate) else { continue };
        if !matches!(provenance.build, Build::Image(_)) {
            continue;
        }
        let lookup = Lookup { image, attached, blobs, trust, at };
        match lookup.complete(statement.clone(), provenance) {
            Ok(set) => followed.sets.push(set),
            Err(reason) => followed.incomplete.push(reason),
        }
    }
    if followed.sets.is_empty() && followed.incomplete.is_empty() {
        followed.incomplete.push(Incomplete::NoProvenance { image, ignored });
    }
    followed
}

struct Lookup<'a> {
    image: Digest,
    attached: &'a BTreeMap<Digest, Vec<u8>>,
    blobs: &'a BTreeMap<Digest, Vec<u8>>,
    trust: &'a Trust,
    at: UnixTime,
}

impl Lookup<'_> {
    fn bytes(&self, dependency: &Dependency) -> Result<&Vec<u8>, Incomplete> {
        self.attached
            .get(&dependency.digest)
            .or_else(|| self.blobs.get(&dependency.digest))
            .ok_or_else(|| Incomplete::Missing { name: dependency.name.clone(), digest: dependency.digest })
    }

    fn complete(&self, statement: VerifiedStatement, provenance: Provenance) -> Result<ClosedSet, Incomplete> {
        let mut set = ClosedSet {
            image: self.image,
            provenance: (statement, provenance),
            steps: BTreeMap::new(),
            sboms: Vec::new(),
            scans: Vec::new(),
            others: BTreeMap::new(),
        };
        let provenance = set.provenance.1.clone();
        for dependency in &provenance.dependencies {
            if dependency.is_attestation() {
                self.take_attestation(dependency, &provenance, &mut set)?;
            } else if dependency.media_type == sluicegate_attestation::identifiers::TRIVY_REPORT {
                set.others.insert(dependency.digest, self.bytes(dependency)?.clone());
            }
        }
        for scan in &mut set.scans {
            let digest = scan.vulns.report;
            scan.report = set
                .others
                .get(&digest)
                .cloned()
                .ok_or_else(|| Incomplete::Missing { name: "the raw report of the scan".to_owned(), digest })?;
        }
        self.check_image_links(&provenance, &set)?;
        for (statement, step) in set.steps.values() {
            check_step_links(statement, step, &set)?;
        }
        Ok(set)
    }

    fn take_attestation(
        &self,
        dependency: &Dependency,
        image_provenance: &Provenance,
        set: &mut ClosedSet,
    ) -> Result<(), Incomplete> {
        let bytes = self.bytes(dependency)?;
        let statement = verify(bytes, self.trust, self.at).map_err(|reason| Incomplete::Broken {
            name: dependency.name.clone(),
            digest: dependency.digest,
            reason: Box::new(reason),
        })?;
        let unlinked = |reason: &str| Incomplete::Unlinked {
            name: dependency.name.clone(),
            digest: dependency.digest,
            reason: reason.to_owned(),
        };
        if !statement.is_in_role(Role::Steps) {
            return Err(unlinked("its signer has not the role steps"));
        }
        let about_image = statement.statement().is_about_image(&self.image);
        let predicate = &statement.statement().predicate;
        match &statement.statement().predicate_type {
            PredicateType::Sbom if about_image => set.sboms.push(statement),
            PredicateType::Vulns if about_image => {
                let vulns = Vulns::parse(predicate).map_err(|error| unlinked(&error.to_string()))?;
                set.scans.push(Scan { statement, vulns, report: Vec::new() });
            }
            PredicateType::Provenance => {
                let provenance = Provenance::parse(predicate).map_err(|error| unlinked(&error.to_string()))?;
                let Build::Step(parameters) = &provenance.build else {
                    return Err(unlinked("it is the provenance of an image, not of a step"));
                };
                if provenance.run != image_provenance.run {
                    return Err(unlinked(&format!("it is from run {}, not {}", provenance.run, image_provenance.run)));
                }
                if parameters.exit_code != 0 {
                    return Err(unlinked(&format!("the step ended with code {}", parameters.exit_code)));
                }
                if set.steps.insert(parameters.step.clone(), (statement, provenance)).is_some() {
                    return Err(unlinked("a second provenance of one step"));
                }
            }
            _ => return Err(unlinked("it is about something else")),
        }
        Ok(())
    }

    fn check_image_links(&self, provenance: &Provenance, set: &ClosedSet) -> Result<(), Incomplete> {
        let Build::Image(image) = &provenance.build else {
            return Err(set.unlinked("the provenance is not of an image"));
        };
        for product in image.files.values() {
            let found = provenance.dependencies.iter().find(|d| d.name == *product && d.as_content().is_some());
            let Some(dependency) = found else {
                return Err(set.unlinked(&format!("its provenance does not name the product {product}")));
            };
            set.check_product(dependency)?;
        }
        for step in &image.needs {
            if !set.steps.contains_key(step) {
                return Err(
                    set.unlinked(&format!("its provenance names no attestation of the step {step}, which it needs"))
                );
            }
        }
        Ok(())
    }
}

/// Everything a step read that another step made must be in the set too, made by the step that it names.
fn check_step_links(statement: &VerifiedStatement, step: &Provenance, set: &ClosedSet) -> Result<(), Incomplete> {
    let Build::Step(StepParameters { inputs, .. }) = &step.build else { return Ok(()) };
    for input in inputs.values().filter(|input| input.contains('.')) {
        let found = step.dependencies.iter().find(|d| d.name == *input && d.as_content().is_some());
        let Some(dependency) = found else {
            return Err(Incomplete::Unlinked {
                name: "the provenance of a step".to_owned(),
                digest: statement.bundle(),
                reason: format!("it does not name its input {input}"),
            });
        };
        set.check_product(dependency)?;
    }
    Ok(())
}

impl ClosedSet {
    fn unlinked(&self, reason: &str) -> Incomplete {
        Incomplete::Unlinked {
            name: "the image's provenance".to_owned(),
            digest: self.provenance.0.bundle(),
            reason: reason.to_owned(),
        }
    }

    /// `dependency` is called `STEP.OUTPUT`, says which bundle attests it, and that bundle is in the set, is of that step and
    /// has this very content among its subjects.
    fn check_product(&self, dependency: &Dependency) -> Result<(), Incomplete> {
        let unlinked =
            |reason: String| Incomplete::Unlinked { name: dependency.name.clone(), digest: dependency.digest, reason };
        let attestation = dependency
            .attested_by()
            .map_err(|error| unlinked(error.to_string()))?
            .ok_or_else(|| unlinked("no attestation is named for it".to_owned()))?;
        let step = dependency.name.split('.').next().unwrap_or_default();
        let Some((_, (statement, _))) = self.steps.iter().find(|(name, _)| name.as_str() == step) else {
            return Err(unlinked(format!("no attestation of the step {step} is in the set")));
        };
        if statement.bundle() != attestation {
            return Err(unlinked(format!("it is attested by {attestation}, which is not in the set")));
        }
        match dependency.as_content() {
            Some(content) if statement.statement().is_about(content) => Ok(()),
            _ => Err(unlinked(format!("the attestation of the step {step} is not about it"))),
        }
    }
}
