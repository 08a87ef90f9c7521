//! Runs the steps of a pipeline, as many at a time as the machine holds: one thread decides, takes earlier results and proves; the others
//! only execute.

mod outcome;
mod schedule;
mod voice;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sluicegate_pipeline::pipeline::Step;
use sluicegate_ports::{
    execute::{Contact, Ended, ExecuteError, Observation, Product, StepExecutor, StepOutcome, Stop},
    step_cache::StepCache,
};
use sluicegate_types::{Digest, OutputName, RunId, StepName, UnixTime};

pub use self::schedule::Capacity;
use self::{
    outcome::{check_outcome, refusals, together},
    schedule::Schedule,
    voice::{Message, execute},
};
use crate::{
    Error, Failure, Workbench,
    prepare::{Prepared, REPORT, Surroundings, prepare},
    reuse::{self, Judged, Looked, Reused},
    shared_caches,
};

/// What is run, and how.
pub(crate) struct StepsRequest<'a> {
    /// The steps, each after those that it depends on.
    pub(crate) steps: Vec<&'a Step>,
    /// What steps before them left.
    pub(crate) known: BTreeMap<StepName, BTreeMap<OutputName, Product>>,
    /// Those of them that are never executed: an earlier result is there, or the run fails.
    pub(crate) only_taken: BTreeSet<StepName>,
    pub(crate) around: &'a Surroundings<'a>,
    pub(crate) executor: &'a dyn StepExecutor,
    pub(crate) capacity: Capacity,
    pub(crate) keep_going: bool,
    /// Where earlier results are; `None` takes none.
    pub(crate) cache: Option<(&'a dyn StepCache, Judged<'a>)>,
    pub(crate) stop: &'a Stop,
    pub(crate) on_event: &'a dyn Fn(&StepEvent<'_>),
}

/// What happens to steps, and to the images that are made of them, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub enum StepEvent<'a> {
    /// These will run or be taken, in this order.
    Planned(&'a [&'a StepName]),
    /// It is executed, for the nth time.
    Started(&'a StepName, u32),
    /// It printed something.
    Output(&'a StepName, &'a [u8]),
    /// It ended, well or badly, or was taken, and this is its whole log; what it left is checked and proved next.
    Logged(&'a StepName, Digest),
    /// The result of an earlier run was taken.
    Taken(&'a StepName, TakenFrom<'a>),
    /// It passed.
    Passed(&'a StepName),
    /// It failed, with the reason; whether it is tried once more.
    Failed(&'a StepName, &'a str, bool),
    /// It did not run, as something that it needs failed or the run was stopped.
    Skipped(&'a StepName),
    /// An image came so far.
    Image(&'a OutputName, ImageStage),
}

/// Who did the work that was taken.
#[derive(Clone, Copy, Debug)]
pub struct TakenFrom<'a> {
    /// The statement that says so.
    pub bundle: Digest,
    /// The run that executed the step.
    pub run: &'a RunId,
    /// When that ended.
    pub finished_on: UnixTime,
}

/// How far an image is: what is done with it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStage {
    /// Its layers are put together.
    Assembled,
    /// It, the images of its steps and what they left are scanned.
    Scanned,
    /// It and what it is made of are described, signed and logged.
    Proved,
    /// It is written to its place with its evidence.
    Published,
    /// Nothing: it is there.
    Written,
}

/// What became of a step.
pub(crate) struct Left {
    pub(crate) started_on: UnixTime,
    pub(crate) finished_on: UnixTime,
    pub(crate) ended: Ended,
    pub(crate) exit_code: i32,
    pub(crate) products: BTreeMap<OutputName, Product>,
    pub(crate) report: Option<Product>,
    pub(crate) log: Digest,
    pub(crate) attempts: u32,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) observed: Observation,
    /// Where it was taken from.
    pub(crate) reused: Option<Box<Reused>>,
    /// Why it does not count.
    pub(crate) failure: Option<Error>,
}

/// A step by its name with what it was asked and what became of it.
pub(crate) type Finished<'a> = (&'a Step, &'a Prepared, &'a mut Left);

/// Runs the steps. `finished` gets each one that was executed or taken, failed ones too, before anything that depends on it is executed; an
/// error of it fails the step. Steps that were taken come to it several at a time, and `settled` is called after them: between the two
/// nothing is waited for, whatever looking for an earlier result takes. An error of `settled` ends the run. The first failure is returned
/// after everything that runs has ended; with `keep_going`, after everything that does not depend on a failure.
pub(crate) fn run_steps(
    bench: &Workbench<'_>,
    request: &StepsRequest<'_>,
    mut finished: impl FnMut(Finished<'_>) -> Result<(), Error>,
    settled: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let names: Vec<&StepName> = request.steps.iter().map(|step| &step.name).collect();
    (request.on_event)(&StepEvent::Planned(&names));
    let mut schedule = Schedule::new(&request.steps, request.known.clone(), request.capacity);
    let mut first: Option<Error> = None;
    let (say, hear) = mpsc::sync_channel(256);
    thread::scope(|scope| {
        // Gone with whoever decides, so that nobody waits for what is never heard.
        let hear = hear;
        let mut at_work: BTreeMap<&StepName, AtWork<'_>> = BTreeMap::new();
        let mut taken = TakenSteps::default();
        loop {
            while !request.stop.is_raised()
                && goes_on(request, first.as_ref())
                && let Some(step) = schedule.next()
            {
                let known = |from: &StepName, output: &OutputName| schedule.product(from, output);
                let begun = begin(bench, request, step, known);
                match begun {
                    Ok(Begun::Taken(one)) => {
                        let (prepared, left) = *one;
                        schedule.ended(step, Some(left.products.clone()));
                        taken.add((step, prepared, left));
                        if taken.are_due() {
                            taken.finish(request, &mut schedule, &mut first, &mut finished, &settled);
                        }
                    }
                    Ok(Begun::Execute(prepared)) => {
                        taken.finish(request, &mut schedule, &mut first, &mut finished, &settled);
                        if !schedule.is_ready(step) || !goes_on(request, first.as_ref()) {
                            schedule.takes_back(step);
                            continue;
                        }
                        if let Err(error) = request.executor.probe() {
                            settle(request, &mut schedule, &mut first, step, Err(error.into()), BTreeMap::new());
                            break;
                        }
                        schedule.starts(step);
                        let work = AtWork {
                            step,
                            prepared: *prepared,
                            attempt: 1,
                            started_on: bench.clock.now(),
                            contacts: Vec::new(),
                        };
                        (request.on_event)(&StepEvent::Started(&step.name, 1));
                        match execute(scope, request.executor, work.prepared.request.clone(), &say) {
                            Ok(()) => drop(at_work.insert(&step.name, work)),
                            Err(source) => {
                                let error = no_thread(step, &source);
                                settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new());
                            }
                        }
                    }
                    Ok(Begun::Stopped) => schedule.takes_back(step),
                    Err(error) => {
                        // What was taken before it is proved, whatever ends the run.
                        taken.finish(request, &mut schedule, &mut first, &mut finished, &settled);
                        settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new());
                    }
                }
            }
            taken.finish(request, &mut schedule, &mut first, &mut finished, &settled);
            if at_work.is_empty() {
                break;
            }
            let Ok(message) = hear.recv() else { break };
            let (name, outcome) = match message {
                Message::Output(name, bytes) => {
                    (request.on_event)(&StepEvent::Output(&name, &bytes));
                    continue;
                }
                Message::Ended(name, outcome) => (name, outcome),
            };
            let Some(mut work) = at_work.remove(&name) else { continue };
            let step = work.step;
            let became = became(bench, &work, *outcome);
            if let Ok(left) = &became {
                (request.on_event)(&StepEvent::Logged(&step.name, left.log));
            }
            match became {
                Ok(left) if left.failure.is_some() && work.attempt <= step.retry && !request.stop.is_raised() => {
                    let reason = left.failure.as_ref().map(ToString::to_string).unwrap_or_default();
                    (request.on_event)(&StepEvent::Failed(&step.name, &reason, true));
                    work.attempt += 1;
                    work.contacts = left.contacts;
                    (request.on_event)(&StepEvent::Started(&step.name, work.attempt));
                    match execute(scope, request.executor, work.prepared.request.clone(), &say) {
                        Ok(()) => drop(at_work.insert(&step.name, work)),
                        Err(source) => {
                            let error = no_thread(step, &source);
                            settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new());
                        }
                    }
                }
                Ok(mut left) => {
                    // What nobody can prove any more is not tried to be proved, but is on record. That another step could not be
                    // executed here keeps nobody from proving this one.
                    let unproved =
                        first.as_ref().filter(|error| !is_of_a_step(error) && !matches!(error, Error::Execute(_)));
                    if let Some(error) = unproved.filter(|_| left.failure.is_none()) {
                        let reason = format!("the step {} ended well and was not proved, as {error}", step.name);
                        left.failure = Some(Error::Again(reason));
                    }
                    let proved = finished((step, &work.prepared, &mut left));
                    let done = left.failure.take().map_or(proved, Err);
                    let done = done.map(|()| (request.on_event)(&StepEvent::Passed(&step.name)));
                    settle(request, &mut schedule, &mut first, step, done, left.products);
                }
                Err(error) => settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new()),
            }
        }
    });
    let mut waits = false;
    for step in schedule.waiting() {
        waits = true;
        (request.on_event)(&StepEvent::Skipped(&step.name));
    }
    let was_to_go_on = goes_on(request, first.as_ref()) && (first.is_none() || schedule.next().is_some());
    match first {
        // Whatever had failed before, that is what ended it.
        _ if request.stop.is_raised() && was_to_go_on && waits => Err(Error::Stopped),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Whether further steps may begin. With `keep_going` the failure of a step ends only what depends on it; anything else ends the run.
fn goes_on(request: &StepsRequest<'_>, first: Option<&Error>) -> bool {
    first.is_none_or(|error| request.keep_going && is_of_a_step(error))
}

fn is_of_a_step(error: &Error) -> bool {
    error.failure() == Failure::Step
}

/// Why nothing is known of the files of a step that was taken.
const TAKEN: &str = "its result was taken from an earlier run (run --no-cache executes it)";

/// Steps whose earlier results are taken and that nobody has proved yet.
#[derive(Default)]
struct TakenSteps<'a> {
    steps: Vec<(&'a Step, Prepared, Left)>,
    since: Option<Instant>,
}

/// After how long those that were taken are proved, however many there are: whoever watches sees them, and a crash loses no more.
const PROVED_AFTER: Duration = Duration::from_secs(1);

impl<'a> TakenSteps<'a> {
    fn add(&mut self, taken: (&'a Step, Prepared, Left)) {
        self.since.get_or_insert_with(Instant::now);
        self.steps.push(taken);
    }

    fn are_due(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= PROVED_AFTER)
    }

    /// Proves them, in their order. What depends on one that cannot be proved was not taken either.
    fn finish(
        &mut self,
        request: &StepsRequest<'_>,
        schedule: &mut Schedule<'a>,
        first: &mut Option<Error>,
        finished: &mut impl FnMut(Finished<'_>) -> Result<(), Error>,
        settled: &impl Fn() -> Result<(), Error>,
    ) {
        self.since = None;
        if self.steps.is_empty() {
            return;
        }
        let mut proved = Vec::new();
        for (step, prepared, mut left) in self.steps.drain(..) {
            if !schedule.is_ready(step) || !goes_on(request, first.as_ref()) {
                schedule.takes_back(step);
                continue;
            }
            match finished((step, &prepared, &mut left)) {
                Ok(()) => proved.push((step, left)),
                Err(error) => settle(request, schedule, first, step, Err(error), BTreeMap::new()),
            }
        }
        if let Err(error) = settled() {
            // It weighs more than what a step did.
            let reason =
                format!("its result was taken, and what proves that could not be kept: {}", error.causes().join(": "));
            let before = first.take().filter(|first| !is_of_a_step(first));
            *first = Some(before.unwrap_or(error));
            for (step, _) in proved {
                let lost = Err(Error::Again(reason.clone()));
                settle(request, schedule, first, step, lost, BTreeMap::new());
            }
            return;
        }
        for (step, left) in proved {
            (request.on_event)(&StepEvent::Logged(&step.name, left.log));
            if let Some(reused) = &left.reused {
                (request.on_event)(&StepEvent::Taken(&step.name, reused.taken_from()));
            }
        }
    }
}

/// A step that is executed.
struct AtWork<'a> {
    step: &'a Step,
    prepared: Prepared,
    attempt: u32,
    started_on: UnixTime,
    /// Whom earlier attempts contacted.
    contacts: Vec<Contact>,
}

enum Begun {
    Taken(Box<(Prepared, Left)>),
    Execute(Box<Prepared>),
    /// The run was stopped before that was known.
    Stopped,
}

fn settle(
    request: &StepsRequest<'_>,
    schedule: &mut Schedule<'_>,
    first: &mut Option<Error>,
    step: &Step,
    done: Result<(), Error>,
    products: BTreeMap<OutputName, Product>,
) {
    schedule.ended(step, done.is_ok().then_some(products));
    if let Err(error) = done {
        (request.on_event)(&StepEvent::Failed(&step.name, &error.causes().join(": "), false));
        let ends_all = error.failure() == Failure::Stopped && first.as_ref().is_some_and(is_of_a_step);
        if ends_all || first.is_none() {
            *first = Some(error);
        }
    }
}

fn begin(
    bench: &Workbench<'_>,
    request: &StepsRequest<'_>,
    step: &Step,
    known: impl Fn(&StepName, &OutputName) -> Option<Product>,
) -> Result<Begun, Error> {
    let prepared = prepare(bench, request.around, step, known)?;
    let prepared = prepared.ok_or_else(|| Error::Bug(format!("the step {} came too early", step.name)))?;
    let missed = match &request.cache {
        None => "earlier results are not looked at".to_owned(),
        Some((cache, judged)) => match reuse::look(judged, *cache, step, &prepared) {
            Looked::Hit(reused) => {
                cache.used(&prepared.key);
                let now = bench.clock.now();
                let left = Left {
                    started_on: now,
                    finished_on: now,
                    ended: Ended::Exit(reused.exit_code),
                    exit_code: reused.exit_code,
                    products: reused.products.clone(),
                    report: reused.report.clone(),
                    log: reused.log,
                    attempts: 1,
                    contacts: Vec::new(),
                    observed: if request.around.observe {
                        Observation::Unavailable(TAKEN.to_owned())
                    } else {
                        Observation::NotAsked
                    },
                    reused: Some(reused),
                    failure: None,
                };
                return Ok(Begun::Taken(Box::new((prepared, left))));
            }
            Looked::Miss(reason) => reason,
        },
    };
    // What was being fetched meanwhile is not there because of that.
    if request.stop.is_raised() {
        return Ok(Begun::Stopped);
    }
    if request.only_taken.contains(&step.name) {
        return Err(Error::Usage(format!(
            "the step {} is not to be executed (--only), and no earlier result of it can be taken: {missed}",
            step.name
        )));
    }
    Ok(Begun::Execute(Box::new(prepared)))
}

fn no_thread(step: &Step, source: &io::Error) -> Error {
    Error::Execute(ExecuteError::Engine {
        step: step.name.to_string(),
        action: "start a thread for it",
        reason: source.to_string(),
    })
}

fn became(bench: &Workbench<'_>, work: &AtWork<'_>, outcome: Result<StepOutcome, ExecuteError>) -> Result<Left, Error> {
    let step = work.step;
    let outcome = outcome?;
    for remark in shared_caches::remarks(&step.name, &outcome) {
        (bench.tell)(&remark);
    }
    for line in refusals(&step.name, &outcome.contacts) {
        (bench.tell)(&line);
    }
    let failure = check_outcome(step, &outcome).err();
    for _ in &outcome.leaking {
        (bench.tell)(&format!("the report of step {} holds one of its secrets and is not kept", step.name));
    }
    let exit_code = match outcome.ended {
        Ended::Exit(code) => code,
        Ended::TimedOut | Ended::LogFull | Ended::Stopped => 137,
    };
    let mut products: BTreeMap<OutputName, Product> =
        outcome.outputs.into_iter().map(|product| (product.name.clone(), product)).collect();
    let report = products.keys().find(|name| step.junit.is_some() && name.as_str() == REPORT).cloned();
    let report = report.and_then(|name| products.remove(&name));
    Ok(Left {
        started_on: work.started_on,
        finished_on: bench.clock.now(),
        ended: outcome.ended,
        exit_code,
        products,
        report,
        log: outcome.log,
        attempts: work.attempt,
        contacts: together(work.contacts.clone(), outcome.contacts),
        observed: outcome.observed,
        reused: None,
        failure,
    })
}

#[cfg(test)]
mod tests {
    /// A step that reports tests, and an image of what it makes.
    pub(super) const PIPELINE: &str = r#"
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
}
