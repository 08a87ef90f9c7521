//! `try` and `shell`: a step as a run would execute it, with what earlier runs left, and without any key: nothing is proved, logged, kept
//! for later runs or pushed.

use std::{collections::BTreeMap, time::Duration};

use sluicegate_pipeline::pipeline::{SecretSource, Step};
use sluicegate_ports::execute::{Ended, Product, Stop, Terminal};
use sluicegate_types::{Digest, OutputName, Secret, StepName};

use crate::{
    Error, Workbench,
    plan::PlanRequest,
    prepare::{Surroundings, prepare},
    reuse::{ContentThere, Elsewhere, Judged},
    run::{PinRequest, PinnedRun, Selection, builder_version, pin_alone},
    shared,
    steps::{Capacity, Left, StepEvent, StepsRequest, run_steps},
};

/// What a try needs beside what a plan needs.
pub struct TryRequest<'a> {
    /// The pipeline, its sources, and who judges earlier results.
    pub plan: PlanRequest<'a>,
    /// The step; what it reads is taken from earlier runs, or made and thrown away.
    pub step: &'a StepName,
    /// Values of secrets, by where they come from.
    pub secrets: &'a BTreeMap<SecretSource, Secret>,
    /// How much may run at a time.
    pub capacity: Capacity,
    /// Ends it from outside.
    pub stop: Stop,
    /// Gets what happens to steps as it happens.
    pub on_event: &'a dyn Fn(&StepEvent<'_>),
}

/// What a step left that was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The step.
    pub step: StepName,
    /// The code that it ended with.
    pub exit_code: i32,
    /// Whether the result of an earlier run was taken.
    pub taken: bool,
    /// What it left; nothing says that it is kept.
    pub outputs: BTreeMap<OutputName, Product>,
    /// Its raw report of tests.
    pub report: Option<Product>,
    /// Its log.
    pub log: Digest,
}

impl Tried {
    fn of(step: &StepName, left: &Left) -> Self {
        Self {
            step: step.clone(),
            exit_code: left.exit_code,
            taken: left.reused.is_some(),
            outputs: left.products.clone(),
            report: left.report.clone(),
            log: left.log,
        }
    }
}

/// Executes a step. What it reads is taken from earlier runs where that may be; the step itself is executed in any case. A step that fails
/// is an error; what was tried until then comes with it.
pub fn try_step(bench: &Workbench<'_>, request: &TryRequest<'_>) -> (Vec<Tried>, Result<(), Error>) {
    let mut tried = Vec::new();
    let done = with_surroundings(bench, request, |around, pinned_steps| {
        let (before, own): (Vec<_>, Vec<_>) = pinned_steps.into_iter().partition(|step| step.name != *request.step);
        let mut left = BTreeMap::new();
        let mut take = |step: &StepName, became: &Left| {
            left.insert(step.clone(), became.products.clone());
            tried.push(Tried::of(step, became));
        };
        run(bench, request, around, before, BTreeMap::new(), true, &mut take)?;
        let known = left.clone();
        run(bench, request, around, own, known, false, &mut |step, became| tried.push(Tried::of(step, became)))
    });
    (tried, done)
}

/// Runs `argv` where the step would run, with everything that the step would find there, and with somebody at `terminal`. The step's limits
/// hold but that of time.
pub fn shell(
    bench: &Workbench<'_>,
    request: &TryRequest<'_>,
    argv: &[String],
    terminal: Terminal,
) -> Result<Ended, Error> {
    with_surroundings(bench, request, |around, steps| {
        let (before, own): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.name != *request.step);
        let mut left: BTreeMap<StepName, BTreeMap<OutputName, Product>> = BTreeMap::new();
        run(bench, request, around, before, BTreeMap::new(), true, &mut |step, became| {
            left.insert(step.clone(), became.products.clone());
        })?;
        let step = own.first().ok_or_else(|| Error::Bug(format!("the step {} is gone", request.step)))?;
        let product = |from: &StepName, output: &OutputName| left.get(from)?.get(output).cloned();
        let prepared = prepare(bench, around, step, product)?;
        let prepared = prepared.ok_or_else(|| Error::Bug(format!("the step {} came too early", step.name)))?;
        let mut asked = prepared.request;
        asked.argv = argv.to_vec();
        asked.outputs.clear();
        asked.observe = false;
        // Whoever sits there ends it.
        asked.limits.timeout = Duration::MAX;
        (bench.tell)(&format!("{} in the container of {}: what is changed there vanishes", argv.join(" "), step.name));
        Ok(request.plan.pinning.executor.shell(&asked, terminal)?)
    })
}

/// Pins everything that the step stands on, and gives the steps in their order, it last.
fn with_surroundings<T>(
    bench: &Workbench<'_>,
    request: &TryRequest<'_>,
    work: impl FnOnce(&Surroundings<'_>, Vec<&Step>) -> Result<T, Error>,
) -> Result<T, Error> {
    let plan = &request.plan;
    let PinRequest { pipeline, executor, .. } = plan.pinning;
    executor.probe()?;
    let selection = Selection { steps: std::iter::once(request.step.clone()).collect(), only: false };
    let pinning = PinRequest { selection: Some(&selection), stop: &request.stop, ..plan.pinning };
    let PinnedRun { steps, pinned, .. } = pin_alone(bench, &pinning)?;
    let around = Surroundings {
        images: &pinned.images,
        sources: &pinned.sources,
        epochs: &pinned.epochs,
        arguments: plan.arguments,
        secrets: request.secrets,
        private: plan.private,
        executor,
        domain: plan.domain,
        pipeline: &pipeline.name,
        cache_place: pinned.cache_place.as_ref(),
        // What nobody proves reaches no run.
        keeps_caches: false,
        observe: false,
        stop: request.stop.clone(),
    };
    work(&around, steps)
}

fn run(
    bench: &Workbench<'_>,
    request: &TryRequest<'_>,
    around: &Surroundings<'_>,
    steps: Vec<&Step>,
    known: BTreeMap<StepName, BTreeMap<OutputName, Product>>,
    from_earlier: bool,
    took: &mut dyn FnMut(&StepName, &Left),
) -> Result<(), Error> {
    let PinRequest { pipeline, executor, .. } = request.plan.pinning;
    let builder_version = builder_version(executor);
    let judged = Judged {
        store: bench.store,
        trust: request.plan.trust,
        clock: bench.clock,
        pipeline: &pipeline.name,
        builder_version: &builder_version,
        release: false,
        after_secrets: shared::after_secrets(&pipeline.steps),
        shared: request.plan.shared.map(|store| Elsewhere { store, content: ContentThere::Brought }),
        exact: Default::default(),
    };
    let steps_request = StepsRequest {
        steps,
        known,
        only_taken: Default::default(),
        around,
        executor,
        capacity: request.capacity,
        keep_going: false,
        cache: (request.plan.reuses && from_earlier).then_some((request.plan.cache, judged)),
        stop: &request.stop,
        on_event: request.on_event,
    };
    run_steps(
        bench,
        &steps_request,
        |(step, _, left)| {
            took(&step.name, left);
            Ok(())
        },
        || Ok(()),
    )
}
