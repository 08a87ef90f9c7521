//! What a run puts on record: itself, each image, and what a failed step left.

use std::collections::BTreeSet;

use serde_json::json;
use sluicegate_pipeline::pipeline::{Artifact, Step};
use sluicegate_ports::evidence::{NewRecord, RecordKind};
use sluicegate_types::StepName;

use crate::{Error, Ports, built::Done, evidence};

use super::{BuiltImage, RunReport, RunRequest, StepReport};

/// Puts a run on record that left no image.
pub(super) fn record_run(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    outcome: &str,
    report: &RunReport,
    error: Option<&Error>,
) -> Result<u64, Error> {
    let steps: Vec<_> = report.steps.iter().map(StepReport::to_json).collect();
    let mut body = json!({"run": request.run, "pipeline": request.pinning.pipeline.name, "steps": steps});
    if let Some(error) = error {
        body["error"] = json!(error.causes());
    }
    // What became of steps that left nothing else to report.
    if !report.failures.is_empty() {
        let failures = report.failures.iter().map(|(step, error)| json!({"step": step, "error": error}));
        body["failures"] = failures.collect();
    }
    if !report.skipped.is_empty() {
        body["skipped"] = json!(report.skipped);
    }
    let record = NewRecord {
        kind: RecordKind::Run,
        at: ports.clock.now(),
        subject: None,
        environment: None,
        outcome: outcome.to_owned(),
        body,
    };
    Ok(evidence::record(ports, &record)?.sequence)
}

/// An image is on record as soon as it can be seen, whatever becomes of the next one.
pub(super) fn record_image(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    image: &BuiltImage,
    artifact: &Artifact,
    report: &RunReport,
) -> Result<(), Error> {
    let closure: BTreeSet<&StepName> =
        request.pinning.pipeline.closure(artifact).iter().map(|step| &step.name).collect();
    let (steps, others): (Vec<_>, Vec<_>) = report.steps.iter().partition(|done| closure.contains(&done.step));
    let json = |steps: Vec<&StepReport>| steps.into_iter().map(StepReport::to_json).collect::<Vec<_>>();
    let (steps, others) = (json(steps), json(others));
    let mut body = json!({
        "run": request.run, "pipeline": request.pinning.pipeline.name, "artifact": image.artifact,
        "attestations": image.attestations, "evidence": image.evidence, "steps": steps,
    });
    if !others.is_empty() {
        // They are in no image's closure, and their logs are kept all the same.
        body["otherSteps"] = others.into();
    }
    if !image.platforms.is_empty() {
        let platforms = image.platforms.iter();
        let platforms = platforms.map(|(platform, image)| json!({"platform": platform.to_string(), "image": image}));
        body["platforms"] = platforms.collect();
    }
    let record = NewRecord {
        kind: RecordKind::Run,
        at: ports.clock.now(),
        subject: Some(image.digest),
        environment: None,
        outcome: "succeeded".to_owned(),
        body,
    };
    evidence::record(ports, &record).map(drop)
}

/// Puts on record what a failed step left: its provenance, and what it reported of its tests.
pub(super) fn record_failure(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    exit_code: i32,
    done: &Done,
) -> Result<(), Error> {
    let tested = done.tested.as_ref();
    let record = NewRecord {
        kind: RecordKind::Attestation,
        at: ports.clock.now(),
        subject: None,
        environment: None,
        outcome: "failed".to_owned(),
        body: json!({
            "run": request.run, "step": step.name, "exitCode": exit_code,
            "attestation": done.attested.statement.bundle(),
            "testResult": tested.map(|tested| tested.attested.statement.bundle()),
            "report": tested.map(|tested| tested.report.digest),
        }),
    };
    evidence::record(ports, &record)?;
    Ok(())
}
