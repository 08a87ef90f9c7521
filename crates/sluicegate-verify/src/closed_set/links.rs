//! Whether what a set holds belongs together: products to the steps that made them, steps to what they read and needed,
//! descriptions to what they describe.

use std::collections::BTreeSet;

use sluicegate_attestation::provenance::{Build, Dependency, Provenance, StepParameters};
use sluicegate_types::{
    Content, StepName,
    checks::{Check, is_on},
};

use super::{ClosedSet, Incomplete};
use crate::VerifiedStatement;

/// Every product of the image is one that a step of the set made, and every step that it needs is there.
pub(super) fn check_image(set: &ClosedSet) -> Result<(), Incomplete> {
    let provenance = &set.provenance.1;
    let Build::Image(image) = &provenance.build else {
        return Err(set.unlinked("the provenance is not of an image"));
    };
    for product in image.files.values() {
        let found = provenance.dependencies.iter().find(|d| d.name == *product && d.as_content().is_some());
        let Some(dependency) = found else {
            if !is_on(Check::ProductIsNamed) {
                continue;
            }
            return Err(set.unlinked(&format!("its provenance does not name the product {product}")));
        };
        set.check_product(dependency)?;
    }
    for step in &image.needs {
        if is_on(Check::Needs) && !set.steps.contains_key(step) {
            return Err(
                set.unlinked(&format!("its provenance names no attestation of the step {step}, which it needs"))
            );
        }
    }
    Ok(())
}

/// Everything a step read that another step made must be in the set too, made by the step that it names; so must what it needs.
pub(super) fn check_step(statement: &VerifiedStatement, step: &Provenance, set: &ClosedSet) -> Result<(), Incomplete> {
    let Build::Step(StepParameters { step: name, inputs, needs, .. }) = &step.build else { return Ok(()) };
    let unlinked = |reason: String| Incomplete::Unlinked {
        name: format!("the provenance of the step {name}"),
        digest: statement.bundle(),
        reason,
    };
    for input in inputs.values() {
        let made = input.contains('.');
        let named = if made { input.clone() } else { format!("source:{input}") };
        let found = step.dependencies.iter().find(|d| d.name == named && d.as_content().is_some());
        let Some(dependency) = found else {
            if !is_on(Check::ProductIsNamed) {
                continue;
            }
            return Err(unlinked(format!("it does not name its input {input}")));
        };
        if made {
            set.check_product(dependency)?;
        }
    }
    for need in needs {
        if is_on(Check::Needs) && !set.steps.contains_key(need) {
            return Err(unlinked(format!("no attestation of the step {need}, which it needs, is in the set")));
        }
    }
    Ok(())
}

/// A step that took its result from another run names the statement of that run, and it is in the set: of the same builder, no taker itself,
/// and about this very work, read and left alike (trust model 9).
pub(super) fn check_origin(
    statement: &VerifiedStatement,
    step: &Provenance,
    set: &ClosedSet,
) -> Result<(), Incomplete> {
    let (Some(named), Build::Step(asked)) = (step.cache_origin(), &step.build) else { return Ok(()) };
    let unlinked = |reason: String| Incomplete::Unlinked {
        name: format!("the provenance of the step {}", asked.step),
        digest: statement.bundle(),
        reason,
    };
    let Some((origin, did)) = set.origins.get(&named) else {
        if !is_on(Check::OriginIsThere) {
            return Ok(());
        }
        return Err(unlinked(format!("it took its result from {named}, which the image's provenance does not name")));
    };
    let Build::Step(done) = &did.build else {
        return Err(unlinked(format!("it took its result from {named}, which is not about a step")));
    };
    let same_subjects = origin.statement().subjects.as_slice() == statement.statement().subjects.as_slice();
    let left = |provenance: &Provenance| {
        (
            provenance.byproducts.clone(),
            provenance.internal.executables.clone(),
            provenance.step_images().collect::<Vec<_>>(),
        )
    };
    let faults = [
        (Check::OriginIsFirst, did.cache_origin().is_some(), "itself took its result from another run"),
        (Check::OriginBuilder, did.builder_id != step.builder_id, "was made by another builder"),
        (
            Check::OriginKey,
            step.internal.cache_key.is_none() || did.internal.cache_key != step.internal.cache_key,
            "has another cache key",
        ),
        (Check::OriginWork, done.work() != asked.work(), "did other work"),
        (
            Check::OriginInputs,
            did.inputs().is_none() || did.inputs() != step.inputs() || did.caches != step.caches,
            "read something else",
        ),
        (Check::OriginOutputs, !same_subjects || left(did) != left(step), "left something else"),
    ];
    match faults.into_iter().find(|(check, is_so, _)| *is_so && is_on(*check)) {
        Some((_, _, how)) => Err(unlinked(format!("it took its result from {named}, which {how}"))),
        None => Ok(()),
    }
}

/// What the image was made of: its products, and all that the steps read which made them.
pub(super) fn material(set: &ClosedSet) -> BTreeSet<Content> {
    let mut material = BTreeSet::new();
    let mut seen: BTreeSet<&StepName> = BTreeSet::new();
    let mut waiting: Vec<&Provenance> = vec![&set.provenance.1];
    while let Some(provenance) = waiting.pop() {
        for dependency in &provenance.dependencies {
            let Some(content) = dependency.as_content() else { continue };
            material.insert(content);
            let step = dependency.name.split_once('.').map(|(step, _)| step);
            let Some((name, (_, made_by))) = set.steps.iter().find(|(name, _)| Some(name.as_str()) == step) else {
                continue;
            };
            if seen.insert(name) {
                waiting.push(made_by);
            }
        }
    }
    material
}

/// Whether this is about something that a step of the set left.
pub(super) fn is_about_an_output(statement: &VerifiedStatement, set: &ClosedSet) -> bool {
    statement.statement().subjects.iter().any(|subject| {
        set.steps.values().any(|(step, _)| step.statement().subjects.iter().any(|product| is_same(subject, product)))
    })
}

/// Whether two statements have the same subjects, in whatever order.
pub(super) fn is_about_the_same(one: &VerifiedStatement, other: &VerifiedStatement) -> bool {
    let within = |some: &VerifiedStatement, all: &VerifiedStatement| {
        some.statement()
            .subjects
            .iter()
            .all(|subject| all.statement().subjects.iter().any(|same| is_same(subject, same)))
    };
    within(one, other) && within(other, one)
}

fn is_same(
    one: &sluicegate_attestation::statement::Subject,
    other: &sluicegate_attestation::statement::Subject,
) -> bool {
    one.digest == other.digest && one.media_type == other.media_type
}

/// A step that reported its tests has a statement about them, and a run that scanned its image described all else too: a gap in
/// it would look like something that nobody asked about.
pub(super) fn check_descriptions(set: &ClosedSet) -> Result<(), Incomplete> {
    for (statement, provenance) in set.steps.values() {
        let Build::Step(step) = &provenance.build else { continue };
        let unlinked = |reason: String| Incomplete::Unlinked {
            name: format!("the provenance of the step {}", step.step),
            digest: statement.bundle(),
            reason,
        };
        if is_on(Check::TestResultIsThere)
            && step.reports.contains_key("junit")
            && !set.tests.iter().any(|test| test.result.step == step.step)
        {
            return Err(unlinked("it reported its tests, and no test result of it is in the set".to_owned()));
        }
        if set.scans.is_empty() {
            continue;
        }
        for image in provenance.step_images() {
            let described = set.step_images.get(&image);
            let described = described.is_some_and(|image| !image.sboms.is_empty() && !image.scans.is_empty());
            if is_on(Check::StepImageIsDescribed) && !described {
                return Err(unlinked(format!("its image {image} is not described: SBOM or scan are not in the set")));
            }
        }
        for product in statement.statement().subjects.iter() {
            let is_output =
                step.outputs.keys().any(|output| product.name.as_deref() == Some(&format!("{}.{output}", step.step)));
            let described = set
                .outputs
                .iter()
                .any(|sbom| sbom.statement().subjects.iter().any(|subject| is_same(subject, product)));
            if is_on(Check::OutputIsDescribed) && is_output && !described {
                return Err(unlinked(format!("no SBOM of its output {} is in the set", product.digest)));
            }
        }
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
        if !is_on(Check::ProductIsAttested) {
            return Ok(());
        }
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
            Some(content) if statement.statement().is_about(content) || !is_on(Check::ProductIsSubject) => Ok(()),
            _ => Err(unlinked(format!("the attestation of the step {step} is not about it"))),
        }
    }
}
