//! Proves what a step read, did and left: its provenance, and the result of the tests that it reports.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{
    identifiers::{JUNIT_REPORT, LOCAL_BUILDER},
    junit::JUnit,
    predicate::PredicateType,
    provenance::{Build, CACHE_ORIGIN, Contacted, Dependency, Internals, Provenance},
    runtime_trace::{self, Files, RuntimeTrace},
    statement::{Statement, Subject},
    test_result::TestResult,
};
use sluicegate_pipeline::pipeline::{InputSource, Network, Step};
use sluicegate_ports::{
    execute::{Contact, Observation, Product},
    images::Descriptor,
};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, OutputName, StepName};

use crate::{
    Error, Ports, StepFault,
    attest::{Attested, attest},
    built::{Built, Done, Origin, Tested},
    pin::{PinnedImages, PinnedSource},
    prepare::Prepared,
    run::{RunRequest, builder_version},
    steps::Left,
};

/// Bytes of a report of tests.
pub(crate) const MAX_REPORT: u64 = 16 * 1024 * 1024;

/// Proves a step that was executed or whose earlier result was taken. One that failed proves nothing for an image; what it reported of
/// its tests is kept all the same, as a failure is evidence too.
pub(crate) fn step(
    ports: &Ports<'_>,
    request: &RunRequest<'_>,
    (step, prepared): (&Step, &Prepared),
    (images, sources): (&PinnedImages, &BTreeMap<OutputName, PinnedSource>),
    built: &Built,
    left: &Left,
) -> Result<Done, Error> {
    let mut dependencies = images.of_step(step)?.dependencies("image");
    let mut attestations: Vec<Dependency> = Vec::new();
    for (at, (source, content)) in &prepared.inputs {
        match source {
            InputSource::Source(name) => {
                let source = sources.get(name).ok_or_else(|| Error::Bug(format!("no source {name}")))?;
                // What was taken from another run was made of what that one read.
                let read = left.reused.as_ref().and_then(|reused| reused.inputs.get(&at.display().to_string()));
                let dependency = source_dependency(name, source, *read.unwrap_or(content));
                if !dependencies.contains(&dependency) {
                    dependencies.push(dependency);
                }
            }
            InputSource::Output(from, output) => {
                let (_, attestation) = built.product(from, output)?;
                let dependency = Dependency::content(format!("{from}.{output}"), *content, Some(attestation));
                let entry = Dependency::attestation(format!("attestation:{from}"), attestation);
                if !dependencies.contains(&dependency) {
                    dependencies.push(dependency);
                }
                if !attestations.contains(&entry) {
                    attestations.push(entry);
                }
            }
        }
    }
    dependencies.extend(attestations);
    let reused = left.reused.as_ref();
    dependencies.extend(reused.map(|reused| Dependency::attestation(CACHE_ORIGIN.to_owned(), reused.origin.bundle())));
    let mut byproducts = vec![Dependency::other("log", left.log, "text/plain")];
    byproducts.extend(
        left.report.iter().map(|report| Dependency::other("report:junit", report.content.digest, JUNIT_REPORT)),
    );
    let tested: Vec<Subject> = tested_subjects(&dependencies);
    let provenance = Provenance {
        build: Build::Step(prepared.parameters(&request.pinning.pipeline.name, step, left.exit_code)),
        dependencies,
        caches: prepared.caches.clone(),
        builder_id: LOCAL_BUILDER.to_owned(),
        builder_version: builder_version(request.pinning.executor),
        run: request.run.clone(),
        started_on: left.started_on,
        finished_on: left.finished_on,
        byproducts,
        internal: Internals {
            cache_key: Some(prepared.key),
            executables: executables(&left.products),
            attempts: (left.attempts > 1).then_some(left.attempts),
            // What is taken came over the network when it was made.
            contacts: match reused {
                Some(reused) => reused.contacts.clone(),
                None => left.contacts.iter().map(contacted).collect(),
            },
        },
    };
    let statement = Statement {
        subjects: step_subjects(&step.name, &left.products, left.log),
        predicate_type: PredicateType::Provenance,
        predicate: provenance.to_predicate()?,
    };
    let trace = trace(request, step, left, &statement.subjects)?;
    let statements: Vec<Statement> = std::iter::once(statement).chain(trace).collect();
    let mut attested = attest(ports, request.signer, request.trust, &statements, ports.clock.now())?.into_iter();
    let (attested, trace) = (attested.next(), attested.next());
    let attested = attested.ok_or_else(|| Error::Bug("nothing was attested".to_owned()))?;
    (ports.tell)(&format!(
        "step {} is proved: {} at {} of {}",
        step.name,
        attested.statement.bundle(),
        attested.statement.log().index,
        attested.statement.log().origin
    ));
    let report = left.report.as_ref();
    let tested =
        report.map(|report| prove_tests(ports, request, step, report, tested, &attested, left.exit_code)).transpose();
    let tested = match (tested, &left.failure) {
        // A report that can't be read is no second fault of a step that failed anyway.
        (Err(_), Some(_)) => None,
        (tested, _) => tested?,
    };
    let origin = reused.map(|reused| Origin { bundle: reused.origin.bundle(), size: reused.size });
    Ok(Done { attested, products: left.products.clone(), tested, origin, trace })
}

/// What was seen of the step, or why nothing was; nothing if nobody asked.
fn trace(
    request: &RunRequest<'_>,
    step: &Step,
    left: &Left,
    subjects: &NonEmpty<Subject>,
) -> Result<Option<Statement>, Error> {
    let files = match &left.observed {
        Observation::NotAsked => return Ok(None),
        Observation::Unavailable(reason) => Files::Unavailable(reason.clone()),
        Observation::Seen(trace) => Files::Seen {
            opened: trace.opened.clone(),
            executed: trace.executed.clone(),
            blind: trace.blind.clone(),
            lost: trace.lost,
        },
    };
    // Whom a step contacted whose result is taken was seen when it was made; now nobody looked.
    let watched = matches!(step.network, Network::Allow(_)) && left.reused.is_none();
    let contacts = watched.then(|| left.contacts.iter().map(seen_contact).collect());
    let trace = RuntimeTrace {
        step: step.name.clone(),
        run: request.run.clone(),
        builder_id: LOCAL_BUILDER.to_owned(),
        started_on: left.started_on,
        finished_on: left.finished_on,
        files,
        contacts,
    };
    Ok(Some(Statement {
        subjects: subjects.clone(),
        predicate_type: PredicateType::RuntimeTrace,
        predicate: trace.to_predicate()?,
    }))
}

fn seen_contact(contact: &Contact) -> runtime_trace::Contact {
    runtime_trace::Contact {
        host: contact.destination.host.clone(),
        port: contact.destination.port,
        address: contact.address,
        refused: contact.refused.clone(),
        connections: contact.connections,
        sent: contact.sent,
        received: contact.received,
    }
}

fn executables(products: &BTreeMap<OutputName, Product>) -> BTreeSet<String> {
    products.values().filter(|product| product.executable).map(|product| product.name.to_string()).collect()
}

fn contacted(contact: &Contact) -> Contacted {
    let Contact { destination, address, refused, connections, sent, received } = contact;
    Contacted {
        destination: destination.to_string(),
        address: address.map(|address| address.to_string()),
        refused: refused.clone(),
        connections: *connections,
        sent: *sent,
        received: *received,
    }
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

fn source_dependency(name: &OutputName, source: &PinnedSource, content: Content) -> Dependency {
    let mut dependency = Dependency::content(format!("source:{name}"), content, None);
    if let Some(commit) = source.commit.as_ref().filter(|_| content == source.content) {
        let mut say =
            |name: &str, value: &str| dependency.annotations.insert(format!("sluicegate.dev/{name}"), value.to_owned());
        match &source.fetched {
            Some((repository, reference)) => {
                say("commit", commit);
                say("repository", repository);
                say("ref", reference);
            }
            // The commit is what the work tree says, not one that this builder fetched: it must not count as resolved.
            None => {
                say("commit-unverified", commit);
                say("dirty", &source.dirty.to_string());
            }
        }
    }
    for (folder, commit) in source.submodules.iter().filter(|_| content == source.content) {
        let name = format!("sluicegate.dev/submodule-unverified:{}", folder.display());
        dependency.annotations.insert(name, commit.clone());
    }
    dependency
}

/// A step's outputs; of a step without outputs, its log.
pub(crate) fn step_subjects(
    step: &StepName,
    products: &BTreeMap<OutputName, Product>,
    log: Digest,
) -> NonEmpty<Subject> {
    let outputs: Vec<Subject> =
        products.iter().map(|(name, product)| Subject::product(format!("{step}.{name}"), product.content)).collect();
    NonEmpty::try_from(outputs).unwrap_or_else(|_| {
        NonEmpty::one(Subject::product(format!("{step}:log"), Content { kind: ContentKind::File, digest: log }))
    })
}

#[cfg(test)]
mod tests {
    use sluicegate_types::Destination;

    use super::*;

    #[test]
    fn a_contact_is_signed_as_the_pipeline_file_writes_its_server() {
        let destination = |host: &str| {
            let destination = Destination { host: host.to_owned(), port: 443 };
            contacted(&Contact { destination, address: None, refused: None, connections: 1, sent: 0, received: 0 })
                .destination
        };
        for server in ["[::1]:443", "a.example:443", "127.0.0.1:443"] {
            let written: Destination = server.parse().unwrap();
            assert_eq!(destination(&written.host), server);
            assert_eq!(written.to_string(), server);
        }
    }
}
