//! `run --to`: which image goes to which environment, found out before anything is executed, and its promotion after the run.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::predicate::PredicateType;
use sluicegate_flow::{Error, run::BuiltImage};
use sluicegate_pipeline::pipeline::Pipeline;
use sluicegate_ports::execute::Stop;
use sluicegate_types::{ImageRef, OutputName, Selector};

use super::{
    pipeline::OpenedPipeline,
    promote::{Asked, OpenedGate, With, exit, gateway_flag},
};
use crate::{
    arguments::{ReleaseTo, Run},
    words::{Problem, Words, printable, shell_word},
};

/// What is to be promoted after the run, in the order in which it was asked for.
pub(crate) struct Releases {
    all: Vec<Release>,
    /// `-f` and `--gateway` as they were typed.
    flags: String,
}

struct Release {
    artifact: OutputName,
    gate: OpenedGate,
}

impl Releases {
    /// Refuses what cannot be promoted, whatever the run makes.
    pub(crate) fn open(opened: &OpenedPipeline, arguments: &Run) -> Result<Self, Problem> {
        let mut all: Vec<Release> = Vec::new();
        if let (Some(to), Some(step)) = (arguments.to.first(), arguments.steps.first()) {
            return Err(Problem::usage(
                format!("--to {}: a run of named steps makes no image, so there is nothing to promote", to.environment),
                format!("leave {step} out to run all steps, or leave --to out"),
            ));
        }
        for to in &arguments.to {
            let artifact = artifact_of(&opened.pipeline, to)?;
            let gate = OpenedGate::of(&opened.gateway, &to.environment, None)?;
            // An environment has one tag: the second image would take the place of the first.
            if let Some(other) = all.iter().find(|other| other.gate.judge.name == to.environment) {
                return Err(Problem::usage(
                    format!(
                        "--to: {} and {artifact} would both go to {}, which holds one image",
                        other.artifact, to.environment
                    ),
                    "name each environment once",
                ));
            }
            if arguments.no_scan {
                refuse_without_scan(&gate)?;
            }
            let gate = gate.with_scanner(&opened.wired, &opened.gateway, arguments.trivy.as_deref());
            all.push(Release { artifact, gate });
        }
        let file = match arguments.file.as_path() {
            usual if usual == Path::new("sluicegate.yaml") => String::new(),
            other => format!(" -f {}", shell_word(&other.display().to_string())),
        };
        let set = arguments.values.set.iter();
        let set: String =
            set.map(|(name, value)| format!(" --set {}", shell_word(&format!("{name}={value}")))).collect();
        let flags = format!("{file}{}{set}", gateway_flag(arguments.gateway.gateway.as_deref()));
        Ok(Self { all, flags })
    }

    /// Whether anything is to be promoted.
    pub(crate) fn are_asked_for(&self) -> bool {
        !self.all.is_empty()
    }

    /// What is promoted, by artifact.
    pub(crate) fn artifacts(&self) -> BTreeSet<&OutputName> {
        self.all.iter().map(|release| &release.artifact).collect()
    }

    /// Promotes each image of the run to its environment. All are judged, whatever becomes of one; the worst exit code counts. Returns it
    /// with what there is to say for programs; people are told at once.
    pub(crate) fn promote(
        &self,
        words: &Words,
        with: &With<'_>,
        (images, folder): (&[BuiltImage], &Path),
        stop: &Stop,
    ) -> (u8, Vec<Value>) {
        let (mut worst, mut documents) = (0, Vec::new());
        for Release { artifact, gate } in &self.all {
            let environment = &gate.judge.name;
            let promoted = image_of(images, artifact, folder).and_then(|image| {
                if stop.is_raised() {
                    return Err(Error::Stopped.into());
                }
                let asked =
                    Asked { image: &image, dry_run: false, effective: None, rollback: false, compat_cosign2: false };
                let answered = gate.promote(with, &asked)?;
                if words.json() {
                    documents.push(gate.document(&answered, &asked));
                } else {
                    let again = format!("sluicegate run{} --to {}", self.flags, self.typed(artifact, environment));
                    gate.print(words, &answered, &asked, with.gateway, &again);
                }
                Ok(exit(&answered.promoted))
            });
            let code = promoted.unwrap_or_else(|problem| {
                if words.json() {
                    let mut document = problem.document();
                    document["environment"] = json!(environment);
                    documents.push(document);
                } else {
                    words.line(format!("{}  {artifact} to {environment}", words.bad("NOT PROMOTED")));
                    problem.lines().iter().for_each(|line| words.line(format!("  {}", printable(line))));
                }
                problem.exit()
            });
            if let Some(document) = documents.last_mut().filter(|_| words.json()) {
                document["artifact"] = json!(artifact);
            }
            worst = worst.max(code);
        }
        (worst, documents)
    }

    /// The value of `--to` that asks for one of these again.
    fn typed(&self, artifact: &OutputName, environment: &impl std::fmt::Display) -> String {
        if self.all.len() > 1 { format!("{artifact}={environment}") } else { environment.to_string() }
    }
}

/// The artifact that is to be promoted.
fn artifact_of(pipeline: &Pipeline, to: &ReleaseTo) -> Result<OutputName, Problem> {
    let names: Vec<&str> = pipeline.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    let all = names.join(", ");
    match (&to.artifact, pipeline.artifacts.as_slice()) {
        (_, []) => Err(Problem::usage(
            format!("--to {}: the pipeline has no artifact, so there is nothing to promote", to.environment),
            "write what is to be promoted under artifacts: of the pipeline file",
        )),
        (None, [only]) => Ok(only.name.clone()),
        (None, [first, ..]) => Err(Problem::usage(
            format!("--to {0}: {0} holds one image, and the pipeline has {all}", to.environment),
            format!("say which: --to {}={}", first.name, to.environment),
        )),
        (Some(name), artifacts) if artifacts.iter().any(|artifact| artifact.name == *name) => Ok(name.clone()),
        (Some(name), _) => {
            Err(Problem::usage(format!("--to {name}={}: no artifact is called {name}", to.environment), {
                format!("the pipeline has {all}")
            }))
        }
    }
}

/// Such a gate could only be undecided.
fn refuse_without_scan(gate: &OpenedGate) -> Result<(), Problem> {
    let Some(rules) = &gate.judge.gate else { return Ok(()) };
    let scans = [PredicateType::Sbom, PredicateType::Vulns];
    if rules.conditions.require.iter().any(|kind| scans.contains(kind)) {
        return Err(Problem::usage(
            format!("--no-scan: the gate of {} requires what a scan finds, so it could allow nothing", gate.judge.name),
            "leave --no-scan out, or leave --to out",
        ));
    }
    Ok(())
}

/// The image that the run made of an artifact, by its digest, seen from here.
fn image_of(images: &[BuiltImage], artifact: &OutputName, folder: &Path) -> Result<ImageRef, Problem> {
    let image = images.iter().find(|image| image.artifact == *artifact);
    let image = image.ok_or_else(|| Error::Bug(format!("the run ended well and made no {artifact}")))?;
    Ok(ImageRef { place: image.repository.seen_from(folder), selector: Selector::Digest(image.digest) })
}
