//! Runs one step in its container and proves what it read, did and left.

use std::collections::BTreeMap;

use serde_json::json;
use sluicegate_attestation::{
    identifiers::{JUNIT_REPORT, LOCAL_BUILDER},
    junit::JUnit,
    predicate::PredicateType,
    provenance::{Build, Dependency, Provenance, StepParameters},
    statement::{Statement, Subject},
    test_result::TestResult,
};
use sluicegate_pipeline::pipeline::{InputSource, Step};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    execute::{Ended, Input, InputAccess, Limits, Network, OutputRequest, Product, StepOutcome, StepRequest},
    images::Descriptor,
};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, OutputName, StepName};

use crate::{
    Error, Ports, StepFault,
    attest::{Attested, attest},
    built::{Built, Done, Tested},
    evidence,
    pin::{PinnedBase, PinnedSource},
    run::{RunRequest, builder_version},
};

/// Bytes of one step's log.
const LOG_LIMIT: u64 = 256 * 1024 * 1024;
/// Bytes of one step's outputs together.
const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of a report of tests.
const MAX_REPORT: u64 = 16 * 1024 * 1024;
/// What the executor calls a step's report among the outputs; the pipeline file refuses an output of this name beside it.
const REPORT: &str = "junit";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs one step and proves it: its provenance, and the result of its tests if it reports any.
pub(crate) fn step(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    image: &PinnedBase,
    sources: &BTreeMap<OutputName, PinnedSource>,
    built: &Built,
    epoch: u64,
) -> Result<Done, Error> {
    let mut inputs = Vec::new();
    let mut dependencies = image.dependencies("image");
    for (mount_point, source) in &step.inputs {
        let (content, executable, dependency) = match source {
            InputSource::Source(name) => {
                let source = sources.get(name).ok_or_else(|| Error::Bug(format!("no source {name}")))?;
                (source.content, false, source_dependency(name, source))
            }
            InputSource::Output(from, output) => {
                let (product, attestation) = built.product(from, output)?;
                let dependency = Dependency::content(format!("{from}.{output}"), product.content, Some(attestation));
                (product.content, product.executable, dependency)
            }
        };
        dependencies.push(dependency);
        inputs.push(Input { mount_point: mount_point.clone(), content, executable, access: InputAccess::CopyOnWrite });
    }
    let mut attestations: Vec<Dependency> = Vec::new();
    for dependency in &dependencies {
        if let Some(bundle) = dependency.attested_by()? {
            let step = dependency.name.split('.').next().unwrap_or_default();
            let entry = Dependency::attestation(format!("attestation:{step}"), bundle);
            if !attestations.contains(&entry) {
                attestations.push(entry);
            }
        }
    }
    dependencies.extend(attestations);
    let env = environment(step, image, epoch);
    let limits = Limits {
        timeout: step.timeout,
        memory: step.memory,
        pids: step.pids,
        cpu_millis: step.cpu_millis,
        log_bytes: LOG_LIMIT,
        output_bytes: OUTPUT_LIMIT,
    };
    let report: OutputName = REPORT.parse().map_err(|error| Error::Bug(format!("{error}")))?;
    let outputs = step.outputs.iter().map(|(name, path)| OutputRequest { name: name.clone(), path: path.clone() });
    let reports = step.junit.iter().map(|path| OutputRequest { name: report.clone(), path: path.clone() });
    let execution = StepRequest {
        step: step.name.clone(),
        layers: image.layers.clone(),
        argv: step.argv.clone(),
        env: env.clone(),
        workdir: step.workdir.clone(),
        user: image.user().to_owned(),
        inputs,
        outputs: outputs.chain(reports).collect(),
        limits: limits.clone(),
        epoch,
        network: Network::None,
        masked: Vec::new(),
        observe: false,
        stop: request.stop.clone(),
    };
    (ports.tell)(&format!("step {} runs", step.name));
    let started_on = ports.clock.now();
    let outcome = request.executor.run_step(&execution, &mut |bytes| (request.on_output)(&step.name, bytes))?;
    let finished_on = ports.clock.now();
    // A step that failed proves nothing for an image. What it reported of its tests is kept all the same: a failure is evidence too.
    let failure = check_outcome(step, &outcome);
    let exit_code = match (&failure, outcome.ended) {
        (Ok(()), _) => 0,
        (Err(_), Ended::Exit(code)) if code != 0 && step.junit.is_some() => code,
        _ => return Err(failure.err().unwrap_or_else(|| Error::Bug("a step neither passed nor failed".to_owned()))),
    };
    let mut products: BTreeMap<OutputName, Product> =
        outcome.outputs.iter().map(|p| (p.name.clone(), p.clone())).collect();
    let report = step.junit.as_ref().and_then(|_| products.remove(&report));
    let mut byproducts = vec![Dependency::other("log", outcome.log, "text/plain")];
    byproducts
        .extend(report.iter().map(|report| Dependency::other("report:junit", report.content.digest, JUNIT_REPORT)));
    let tested: Vec<Subject> = tested_subjects(&dependencies);
    let provenance = Provenance {
        build: Build::Step(StepParameters {
            pipeline: request.pipeline.name.clone(),
            step: step.name.clone(),
            run: step.argv.clone(),
            env: env.into_iter().collect(),
            workdir: step.workdir.display().to_string(),
            inputs: step.inputs.iter().map(|(at, what)| (at.display().to_string(), what.to_string())).collect(),
            outputs: step.outputs.iter().map(|(name, at)| (name.to_string(), at.display().to_string())).collect(),
            reports: step.junit.iter().map(|at| (REPORT.to_owned(), at.display().to_string())).collect(),
            needs: step.needs.clone(),
            limits: limit_parameters(&limits),
            network: "none".to_owned(),
            platform: "linux/amd64".to_owned(),
            exit_code,
        }),
        dependencies,
        builder_id: LOCAL_BUILDER.to_owned(),
        builder_version: builder_version(request),
        run: request.run.clone(),
        started_on,
        finished_on,
        byproducts,
    };
    let statement = Statement {
        subjects: step_subjects(&step.name, &products, outcome.log),
        predicate_type: PredicateType::Provenance,
        predicate: provenance.to_predicate()?,
    };
    let mut attested = attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?;
    let attested = attested.pop().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))?;
    (ports.tell)(&format!(
        "step {} is proved: {} at {} of {}",
        step.name,
        attested.statement.bundle(),
        attested.statement.log().index,
        attested.statement.log().origin
    ));
    let tested =
        report.map(|report| prove_tests(ports, request, step, &report, tested, &attested, exit_code)).transpose();
    if let Err(failure) = failure {
        record_failure(ports, request, step, exit_code, &attested, tested.ok().flatten().as_ref())?;
        return Err(failure);
    }
    let tested = tested?;
    Ok(Done { attested, products, log: outcome.log, tested })
}

/// Puts on record what a failed step left: its provenance, and what it reported of its tests.
fn record_failure(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    exit_code: i32,
    attested: &Attested,
    tested: Option<&Tested>,
) -> Result<(), Error> {
    let record = NewRecord {
        kind: RecordKind::Attestation,
        at: ports.clock.now(),
        subject: None,
        environment: None,
        outcome: "failed".to_owned(),
        body: json!({
            "run": request.run, "step": step.name, "exitCode": exit_code,
            "attestation": attested.statement.bundle(),
            "testResult": tested.map(|tested| tested.attested.statement.bundle()),
            "report": tested.map(|tested| tested.report.digest),
        }),
    };
    evidence::record(ports, &record)?;
    Ok(())
}

/// What a step's tests are about: the source snapshots and step outputs among its inputs, never its image (DESIGN section 5).
fn tested_subjects(dependencies: &[Dependency]) -> Vec<Subject> {
    let contents = dependencies.iter().filter_map(|d| Some(Subject::product(d.name.clone(), d.as_content()?)));
    contents.collect()
}

/// Reads the report that a step left and attests what it says about the step's inputs.
fn prove_tests(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    step: &Step,
    report: &Product,
    subjects: Vec<Subject>,
    attested: &Attested,
    exit_code: i32,
) -> Result<Tested, Error> {
    let failed = |how: String| Error::StepFailed { step: step.name.to_string(), how, fault: StepFault::Report };
    if report.content.kind != ContentKind::File {
        return Err(failed("left a folder where its report should be (reports.junit)".to_owned()));
    }
    if report.size > MAX_REPORT {
        return Err(failed(format!("left a report of {} bytes; the limit is {MAX_REPORT}", report.size)));
    }
    let raw = ports.store.read(&report.content.digest, report.size)?;
    let junit = JUnit::read(&raw)
        .map_err(|error| failed(format!("left a report that can't be read (reports.junit): {error}")))?;
    let result = TestResult {
        step: step.name.clone(),
        run: request.run.clone(),
        exit_code,
        report: report.content.digest,
        attestation: attested.statement.bundle(),
        junit,
    };
    let subjects =
        NonEmpty::try_from(subjects).map_err(|_| failed("reported tests of nothing: it has no input".to_owned()))?;
    let statement = Statement { subjects, predicate_type: PredicateType::TestResult, predicate: result.to_predicate() };
    let mut attested = attest(ports, request.signer, request.trust, &[statement], ports.clock.now())?;
    let attested = attested.pop().ok_or_else(|| Error::Bug("nothing was attested".to_owned()))?;
    let word = if result.passed() { "passed" } else { "did not pass" };
    (ports.tell)(&format!(
        "step {} reported tests: {word} ({} passed, {} failed, {} errors, {} skipped)",
        step.name,
        result.junit.passed.len(),
        result.junit.failed.len(),
        result.junit.errors.len(),
        result.junit.skipped.len()
    ));
    let report = Descriptor::new(JUNIT_REPORT, report.content.digest, report.size);
    Ok(Tested { attested, report, result })
}

fn source_dependency(name: &OutputName, source: &PinnedSource) -> Dependency {
    let mut dependency = Dependency::content(format!("source:{name}"), source.content, None);
    if let Some(commit) = &source.commit {
        // The commit is what the work tree says, not one that this builder fetched: it must not count as resolved.
        dependency.annotations.insert("sluicegate.dev/commit-unverified".to_owned(), commit.clone());
        dependency.annotations.insert("sluicegate.dev/dirty".to_owned(), source.dirty.to_string());
    }
    dependency
}

fn environment(step: &Step, image: &PinnedBase, epoch: u64) -> Vec<(String, String)> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), image.variable("PATH").unwrap_or(DEFAULT_PATH).to_owned()),
        ("HOME".to_owned(), image.variable("HOME").unwrap_or("/").to_owned()),
        ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string()),
    ]);
    env.extend(step.env.clone());
    env.into_iter().collect()
}

fn limit_parameters(limits: &Limits) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::from([("timeoutSeconds".to_owned(), limits.timeout.as_secs())]);
    let optional =
        [("memoryBytes", limits.memory), ("pids", limits.pids), ("cpuMillis", limits.cpu_millis.map(u64::from))];
    out.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    out
}

fn check_outcome(step: &Step, outcome: &StepOutcome) -> Result<(), Error> {
    let failed = |fault: StepFault, how: String| Err(Error::StepFailed { step: step.name.to_string(), how, fault });
    match outcome.ended {
        Ended::Exit(0) => {}
        Ended::Exit(code) => {
            let oom = outcome.oom_kills.filter(|kills| *kills > 0);
            let (fault, hint) = match (code, oom) {
                (_, Some(kills)) => {
                    (StepFault::Limit, format!("; the memory limit killed {kills} of its processes (limits.memory)"))
                }
                (127, _) => (StepFault::Program, "; the program was not found in the step's image".to_owned()),
                (126, _) => (StepFault::Program, "; the program could not be executed".to_owned()),
                _ => (StepFault::Work, String::new()),
            };
            return failed(fault, format!("ended with code {code}{hint}"));
        }
        Ended::TimedOut => {
            return failed(StepFault::Limit, format!("was killed after {} s (limits.timeout)", step.timeout.as_secs()));
        }
        Ended::Stopped => return failed(StepFault::Stopped, "was stopped".to_owned()),
        Ended::LogFull => {
            return failed(StepFault::Work, format!("was killed: it printed more than {LOG_LIMIT} bytes"));
        }
    }
    if let Some(kills) = outcome.oom_kills.filter(|kills| *kills > 0) {
        let how = format!("ended with code 0, but the memory limit killed {kills} of its processes (limits.memory)");
        return failed(StepFault::Limit, how);
    }
    if let Some(output) = outcome.missing.first() {
        let (fault, how) = match (step.outputs.get(output), &step.junit) {
            (Some(path), _) => (StepFault::Output, format!("did not leave its output {output} at {}", path.display())),
            (None, Some(path)) => {
                (StepFault::Report, format!("did not leave its report at {} (reports.junit)", path.display()))
            }
            (None, None) => (StepFault::Output, format!("did not leave {output}")),
        };
        return failed(fault, how);
    }
    Ok(())
}

/// A step's outputs; of a step without outputs, its log.
fn step_subjects(step: &StepName, products: &BTreeMap<OutputName, Product>, log: Digest) -> NonEmpty<Subject> {
    let outputs: Vec<Subject> =
        products.iter().map(|(name, product)| Subject::product(format!("{step}.{name}"), product.content)).collect();
    NonEmpty::try_from(outputs).unwrap_or_else(|_| {
        NonEmpty::one(Subject::product(format!("{step}:log"), Content { kind: ContentKind::File, digest: log }))
    })
}

#[cfg(test)]
mod tests {
    use sluicegate_pipeline::pipeline::Pipeline;
    use sluicegate_ports::execute::Observation;

    use super::*;

    const PIPELINE: &str = r#"
version: 1
name: p
sources: { src: { path: src } }
defaults: { image: oci:images/base }
steps:
  build:
    run: make
    inputs: { /src: src }
    outputs: { app: /out/app }
    reports: { junit: /out/junit.xml }
artifacts:
  app: { base: oci:images/base, files: { /app: build.app }, repository: oci:out/app }
"#;

    #[test]
    fn every_way_in_which_a_step_ends_badly_says_how_and_what_is_to_be_mended() {
        let pipeline = Pipeline::parse("p.yaml", PIPELINE).unwrap();
        let step = &pipeline.steps[0];
        let outcome = |ended, oom_kills, missing: &[&str]| StepOutcome {
            ended,
            log: Digest::of(b""),
            outputs: Vec::new(),
            missing: missing.iter().map(|name| name.parse().unwrap()).collect(),
            oom_kills,
            contacts: Vec::new(),
            observed: Observation::NotAsked,
        };
        assert!(check_outcome(step, &outcome(Ended::Exit(0), Some(0), &[])).is_ok());
        for (outcome, says, mend) in [
            (outcome(Ended::Exit(1), None, &[]), "ended with code 1", StepFault::Work),
            (outcome(Ended::Exit(127), None, &[]), "was not found", StepFault::Program),
            (outcome(Ended::Exit(126), None, &[]), "could not be executed", StepFault::Program),
            (outcome(Ended::Exit(137), Some(1), &[]), "limits.memory", StepFault::Limit),
            (outcome(Ended::Exit(0), Some(1), &[]), "limits.memory", StepFault::Limit),
            (outcome(Ended::TimedOut, None, &[]), "limits.timeout", StepFault::Limit),
            (outcome(Ended::LogFull, None, &[]), "it printed more than", StepFault::Work),
            (outcome(Ended::Exit(0), None, &["app"]), "its output app at /out/app", StepFault::Output),
            (outcome(Ended::Exit(0), None, &[REPORT]), "its report at /out/junit.xml", StepFault::Report),
        ] {
            match check_outcome(step, &outcome).unwrap_err() {
                Error::StepFailed { how, fault, .. } => {
                    assert!(how.contains(says) && fault == mend, "{how}: {fault:?}")
                }
                other => panic!("{other}"),
            }
        }
    }
}
