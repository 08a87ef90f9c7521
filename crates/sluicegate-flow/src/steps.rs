//! Runs the steps of a pipeline, as many at a time as the machine holds: one thread decides, takes earlier results and proves; the others
//! only execute.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::mpsc::{self, SyncSender, TrySendError},
    thread,
    time::{Duration, Instant},
};

use sluicegate_pipeline::pipeline::{InputSource, Step};
use sluicegate_ports::{
    execute::{Contact, Ended, ExecuteError, Observation, Product, StepExecutor, StepOutcome, StepRequest, Stop},
    step_cache::StepCache,
};
use sluicegate_types::{Digest, OutputName, RunId, StepName, UnixTime};

use crate::{
    Error, Failure, StepFault, Workbench,
    prepare::{LOG_LIMIT, Prepared, REPORT, Surroundings, prepare},
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

/// How much may run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of processors; a step without a limit counts as one processor.
    pub cpu_millis: u64,
    /// Bytes of memory; a step without a limit counts as none.
    pub memory: u64,
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
                        match execute(scope, request.executor, &work, &say) {
                            Ok(()) => drop(at_work.insert(&step.name, work)),
                            Err(source) => {
                                let error = no_thread(step, &source);
                                settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new());
                            }
                        }
                    }
                    Err(error) => settle(request, &mut schedule, &mut first, step, Err(error), BTreeMap::new()),
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
                    match execute(scope, request.executor, &work, &say) {
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
    for step in schedule.waiting() {
        (request.on_event)(&StepEvent::Skipped(&step.name));
    }
    match first {
        Some(error) => Err(error),
        None if request.stop.is_raised() && schedule.waiting().next().is_some() => Err(Error::Stopped),
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
            let before = first.take().filter(|first| !is_of_a_step(first));
            *first = Some(before.unwrap_or(error));
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
}

/// What executing threads say.
enum Message {
    Output(StepName, Vec<u8>),
    Ended(StepName, Box<Result<StepOutcome, ExecuteError>>),
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
        first.get_or_insert(error);
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

fn execute<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    executor: &'env dyn StepExecutor,
    work: &AtWork<'_>,
    say: &SyncSender<Message>,
) -> io::Result<()> {
    let request: StepRequest = work.prepared.request.clone();
    let mut voice = Voice { step: request.step.clone(), say: say.clone(), outcome: None, unheard: 0, offers: OFFERS };
    let name = format!("step {}", request.step);
    thread::Builder::new().name(name).spawn_scoped(scope, move || {
        let outcome = executor.run_step(&request, &mut |bytes| voice.pass_on(bytes));
        voice.end(outcome);
    })?;
    Ok(())
}

/// What an executing thread says. However it ends, it says so.
struct Voice {
    step: StepName,
    say: SyncSender<Message>,
    outcome: Option<Result<StepOutcome, ExecuteError>>,
    /// Bytes that nobody took.
    unheard: usize,
    /// How often output is offered.
    offers: u32,
}

/// How often output is offered that nobody takes, and how long between: a second in all.
const OFFERS: u32 = 200;
const BETWEEN_OFFERS: Duration = Duration::from_millis(5);

impl Voice {
    fn end(mut self, outcome: Result<StepOutcome, ExecuteError>) {
        self.outcome = Some(outcome);
    }

    /// Passes on what the step printed. Whoever shows it may be slow, or blocked by a terminal that nobody reads; the step's limits don't
    /// wait for that. What is not shown stands in the log all the same.
    fn pass_on(&mut self, bytes: &[u8]) {
        let mut message = if self.unheard == 0 {
            Message::Output(self.step.clone(), bytes.to_vec())
        } else {
            let missing = format!("\n[{} bytes are not shown; they are in the log]\n", self.unheard);
            Message::Output(self.step.clone(), [missing.as_bytes(), bytes].concat())
        };
        let offers = if self.unheard == 0 { self.offers } else { 1 };
        for offer in 1..=offers {
            match self.say.try_send(message) {
                Ok(()) => {
                    self.unheard = 0;
                    return;
                }
                // Nobody hears it only after the run was given up.
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => message = back,
            }
            if offer < offers {
                thread::sleep(BETWEEN_OFFERS);
            }
        }
        self.unheard += bytes.len();
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        let broke_off = || {
            Err(ExecuteError::Engine {
                step: self.step.to_string(),
                action: "run it",
                reason: "its thread broke off".to_owned(),
            })
        };
        let outcome = self.outcome.take().unwrap_or_else(broke_off);
        let _ = self.say.send(Message::Ended(self.step.clone(), Box::new(outcome)));
    }
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

/// What several attempts of a step did, to each place and address once.
fn together(before: Vec<Contact>, now: Vec<Contact>) -> Vec<Contact> {
    let mut all = before;
    for one in now {
        let is_same = |other: &&mut Contact| {
            other.destination == one.destination && other.address == one.address && other.refused == one.refused
        };
        match all.iter_mut().find(is_same) {
            Some(known) => {
                known.connections = known.connections.saturating_add(one.connections);
                known.sent = known.sent.saturating_add(one.sent);
                known.received = known.received.saturating_add(one.received);
            }
            None => all.push(one),
        }
    }
    all
}

/// What a step was refused by the proxy of its list of servers: few clients show what a proxy answers them.
fn refusals(step: &StepName, contacts: &[Contact]) -> Vec<String> {
    let lines = contacts.iter().filter_map(|contact| {
        let (server, reason) = (&contact.destination, contact.refused.as_ref()?);
        Some(format!(
            "step {step} was refused {server}: {reason}. What it may reach stands under steps.{step}.network.allow of the pipeline \
             file, and for inner addresses under egress.private of the gateway file, too"
        ))
    });
    lines.collect()
}

/// Which steps may begin.
struct Schedule<'a> {
    /// Not begun, in the order of the pipeline.
    waiting: Vec<&'a Step>,
    running: BTreeMap<&'a StepName, Capacity>,
    /// What those left that passed.
    passed: BTreeMap<StepName, BTreeMap<OutputName, Product>>,
    /// Steps of this run, passed or not, and their place in the pipeline.
    all: BTreeMap<&'a StepName, usize>,
    capacity: Capacity,
}

impl<'a> Schedule<'a> {
    fn new(steps: &[&'a Step], known: BTreeMap<StepName, BTreeMap<OutputName, Product>>, capacity: Capacity) -> Self {
        Self {
            waiting: steps.to_vec(),
            running: BTreeMap::new(),
            passed: known,
            all: steps.iter().enumerate().map(|(place, step)| (&step.name, place)).collect(),
            capacity,
        }
    }

    /// Takes out the first step for which everything is there and which fits beside those that run; one fits always.
    fn next(&mut self) -> Option<&'a Step> {
        let used = self.running.values().fold((0_u64, 0_u64), |(cpu, memory), cost| {
            (cpu.saturating_add(cost.cpu_millis), memory.saturating_add(cost.memory))
        });
        let at = self.waiting.iter().position(|step| {
            let cost = cost(step);
            let fits = self.running.is_empty()
                || (used.0.saturating_add(cost.cpu_millis) <= self.capacity.cpu_millis
                    && used.1.saturating_add(cost.memory) <= self.capacity.memory);
            fits && self.is_ready(step)
        })?;
        Some(self.waiting.remove(at))
    }

    /// Whether everything that it needs has passed.
    fn is_ready(&self, step: &Step) -> bool {
        before(step).all(|name| self.passed.contains_key(name) || !self.all.contains_key(name))
    }

    /// A step that was taken out did not begin after all.
    fn takes_back(&mut self, step: &'a Step) {
        self.passed.remove(&step.name);
        self.waiting.push(step);
        self.waiting.sort_by_key(|step| self.all.get(&step.name));
    }

    fn starts(&mut self, step: &'a Step) {
        self.running.insert(&step.name, cost(step));
    }

    /// A step ended: with what it left, or badly.
    fn ended(&mut self, step: &Step, left: Option<BTreeMap<OutputName, Product>>) {
        self.running.remove(&step.name);
        match left {
            Some(products) => drop(self.passed.insert(step.name.clone(), products)),
            None => drop(self.passed.remove(&step.name)),
        }
    }

    fn product(&self, step: &StepName, output: &OutputName) -> Option<Product> {
        self.passed.get(step)?.get(output).cloned()
    }

    fn waiting(&self) -> impl Iterator<Item = &'a Step> {
        self.waiting.iter().copied()
    }
}

/// What has to pass before a step.
fn before(step: &Step) -> impl Iterator<Item = &StepName> {
    step.needs.iter().chain(step.inputs.values().filter_map(InputSource::step))
}

fn cost(step: &Step) -> Capacity {
    Capacity { cpu_millis: step.cpu_millis.map_or(1000, u64::from), memory: step.memory.unwrap_or_default() }
}

fn check_outcome(step: &Step, outcome: &StepOutcome) -> Result<(), Error> {
    let failed = |fault: StepFault, how: String| Err(Error::StepFailed { step: step.name.to_string(), how, fault });
    match outcome.ended {
        Ended::Exit(code) if code == 0 || step.accept_exit.contains(&code) => {}
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
            if let Some(fault) = &outcome.fault {
                return failed(StepFault::Work, fault.clone());
            }
            return failed(StepFault::Work, format!("was killed: it printed more than {LOG_LIMIT} bytes"));
        }
    }
    if let Some(kills) = outcome.oom_kills.filter(|kills| *kills > 0) {
        let how = format!("ended with code 0, but the memory limit killed {kills} of its processes (limits.memory)");
        return failed(StepFault::Limit, how);
    }
    if !outcome.leaking.is_empty() {
        let how = "wrote one of its secrets into its report (reports.junit), which was not kept".to_owned();
        return failed(StepFault::Leak, how);
    }
    if let Some(fault) = &outcome.fault {
        return failed(StepFault::Output, fault.clone());
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

#[cfg(test)]
mod tests {
    use sluicegate_pipeline::pipeline::Pipeline;
    use sluicegate_ports::execute::Destination;

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

    fn begin_all<'a>(schedule: &mut Schedule<'a>) -> Vec<&'a str> {
        let mut begun = Vec::new();
        while let Some(step) = schedule.next() {
            schedule.starts(step);
            begun.push(step.name.as_str());
        }
        begun
    }

    #[test]
    fn steps_begin_in_order_as_many_as_fit_and_never_before_what_they_need() {
        let text = PIPELINE.replace(
            "artifacts:",
            "  big: { run: a, limits: { cpus: 3, memory: 8GiB } }\n  small: { run: a }\n  memory: { run: a, limits: { memory: 2GiB } }\n  \
             last: { run: a, needs: [build, small] }\nartifacts:",
        );
        let pipeline = Pipeline::parse("p.yaml", &text).unwrap();
        let steps: Vec<&Step> = pipeline.steps.iter().collect();
        let step = |name: &str| *steps.iter().find(|step| step.name.as_str() == name).unwrap();
        let mut schedule = Schedule::new(&steps, BTreeMap::new(), Capacity { cpu_millis: 2000, memory: 1 << 30 });
        // The one that is larger than the machine waits until it can have it alone.
        assert_eq!(begin_all(&mut schedule), ["build", "small"]);
        schedule.ended(step("build"), Some(BTreeMap::new()));
        assert_eq!(begin_all(&mut schedule), [""; 0]);
        schedule.ended(step("small"), Some(BTreeMap::new()));
        assert_eq!(begin_all(&mut schedule), ["big"]);
        schedule.ended(step("big"), None);
        assert_eq!(begin_all(&mut schedule), ["memory"]);
        schedule.ended(step("memory"), None);
        assert_eq!(begin_all(&mut schedule), ["last"]);
        // What needs a step that failed never begins.
        let mut schedule = Schedule::new(&steps, BTreeMap::new(), Capacity { cpu_millis: 64_000, memory: u64::MAX });
        assert_eq!(begin_all(&mut schedule), ["build", "big", "small", "memory"]);
        schedule.ended(step("build"), None);
        schedule.ended(step("small"), Some(BTreeMap::new()));
        assert_eq!(begin_all(&mut schedule), [""; 0]);
        assert_eq!(schedule.waiting().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["last"]);
    }

    #[test]
    fn a_step_is_not_kept_waiting_by_who_shows_it_and_says_what_was_not_shown() {
        let (say, hear) = mpsc::sync_channel(1);
        let name: StepName = "build".parse().unwrap();
        let mut voice = Voice { step: name, say, outcome: None, unheard: 0, offers: 1 };
        voice.pass_on(b"one");
        voice.pass_on(b"two");
        voice.pass_on(b"three");
        let heard = |message| match message {
            Message::Output(_, bytes) => String::from_utf8(bytes).unwrap(),
            Message::Ended(_, outcome) => outcome.map(drop).unwrap_err().to_string(),
        };
        assert_eq!(heard(hear.recv().unwrap()), "one");
        voice.pass_on(b"four");
        assert_eq!(heard(hear.recv().unwrap()), "\n[8 bytes are not shown; they are in the log]\nfour");
        // However its thread ends, the run is told.
        drop(voice);
        assert!(heard(hear.recv().unwrap()).contains("its thread broke off"));
    }

    #[test]
    fn what_several_attempts_contacted_is_all_there() {
        let contact = |host: &str, sent| Contact {
            destination: Destination { host: host.to_owned(), port: 443 },
            address: None,
            refused: None,
            connections: 1,
            sent,
            received: 0,
        };
        let all = together(vec![contact("a.example", 1)], vec![contact("b.example", 2), contact("a.example", 3)]);
        let found: Vec<_> = all.iter().map(|one| (one.destination.host.as_str(), one.connections, one.sent)).collect();
        assert_eq!(found, [("a.example", 2, 4), ("b.example", 1, 2)]);
    }

    #[test]
    fn every_way_in_which_a_step_ends_badly_says_how_and_what_is_to_be_mended() {
        let pipeline = Pipeline::parse("p.yaml", PIPELINE).unwrap();
        let step = &pipeline.steps[0];
        let outcome = |ended, oom_kills, missing: &[&str]| StepOutcome {
            ended,
            log: Digest::of(b""),
            outputs: Vec::new(),
            missing: missing.iter().map(|name| name.parse().unwrap()).collect(),
            leaking: Vec::new(),
            fault: None,
            oom_kills,
            contacts: Vec::new(),
            observed: Observation::NotAsked,
            caches: Vec::new(),
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
            (
                StepOutcome { leaking: vec![REPORT.parse().unwrap()], ..outcome(Ended::Exit(0), None, &[]) },
                "one of its secrets",
                StepFault::Leak,
            ),
        ] {
            match check_outcome(step, &outcome).unwrap_err() {
                Error::StepFailed { how, fault, .. } => {
                    assert!(how.contains(says) && fault == mend, "{how}: {fault:?}")
                }
                other => panic!("{other}"),
            }
        }
        // Something that can't be kept fails a step that ended well, and only then says why it failed.
        let unkept = |ended| StepOutcome { fault: Some("left a pipe".to_owned()), ..outcome(ended, None, &["app"]) };
        for (ended, says, mend) in [
            (Ended::Exit(0), "step build left a pipe", StepFault::Output),
            (Ended::LogFull, "step build left a pipe", StepFault::Work),
            (Ended::Exit(9), "step build ended with code 9", StepFault::Work),
        ] {
            let error = check_outcome(step, &unkept(ended)).unwrap_err();
            assert_eq!(error.to_string(), says);
            assert!(matches!(error, Error::StepFailed { fault, .. } if fault == mend), "{ended:?}");
        }
    }

    #[test]
    fn what_a_step_was_refused_is_told_with_the_keys_that_would_allow_it() {
        let contact = |host: &str, refused: Option<&str>| Contact {
            destination: Destination { host: host.to_owned(), port: 443 },
            address: None,
            refused: refused.map(str::to_owned),
            connections: 1,
            sent: 0,
            received: 0,
        };
        let contacts = [
            contact("a.example", None),
            contact("b.example", Some("it is nowhere")),
            contact("::1", Some("it is here")),
        ];
        let told = refusals(&"install".parse().unwrap(), &contacts);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("step install was refused b.example:443: it is nowhere. "), "{told:?}");
        assert!(told[0].contains("steps.install.network.allow") && told[0].contains("egress.private"), "{told:?}");
        assert!(told[1].starts_with("step install was refused [::1]:443: it is here. "), "{told:?}");
    }
}
