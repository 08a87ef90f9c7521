//! Which steps may begin, and how many of them beside each other.

use std::collections::BTreeMap;

use sluicegate_pipeline::pipeline::{InputSource, Step};
use sluicegate_ports::execute::Product;
use sluicegate_types::{OutputName, StepName};

/// How much may run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of processors; a step without a limit counts as one processor.
    pub cpu_millis: u64,
    /// Bytes of memory; a step without a limit counts as none.
    pub memory: u64,
}

/// Which steps may begin.
pub(super) struct Schedule<'a> {
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
    pub(super) fn new(
        steps: &[&'a Step],
        known: BTreeMap<StepName, BTreeMap<OutputName, Product>>,
        capacity: Capacity,
    ) -> Self {
        Self {
            waiting: steps.to_vec(),
            running: BTreeMap::new(),
            passed: known,
            all: steps.iter().enumerate().map(|(place, step)| (&step.name, place)).collect(),
            capacity,
        }
    }

    /// Takes out the first step for which everything is there and which fits beside those that run; one fits always.
    pub(super) fn next(&mut self) -> Option<&'a Step> {
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
    pub(super) fn is_ready(&self, step: &Step) -> bool {
        before(step).all(|name| self.passed.contains_key(name) || !self.all.contains_key(name))
    }

    /// A step that was taken out did not begin after all.
    pub(super) fn takes_back(&mut self, step: &'a Step) {
        self.passed.remove(&step.name);
        self.waiting.push(step);
        self.waiting.sort_by_key(|step| self.all.get(&step.name));
    }

    pub(super) fn starts(&mut self, step: &'a Step) {
        self.running.insert(&step.name, cost(step));
    }

    /// A step ended: with what it left, or badly.
    pub(super) fn ended(&mut self, step: &Step, left: Option<BTreeMap<OutputName, Product>>) {
        self.running.remove(&step.name);
        match left {
            Some(products) => drop(self.passed.insert(step.name.clone(), products)),
            None => drop(self.passed.remove(&step.name)),
        }
    }

    pub(super) fn product(&self, step: &StepName, output: &OutputName) -> Option<Product> {
        self.passed.get(step)?.get(output).cloned()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &'a Step> {
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

#[cfg(test)]
mod tests {
    use sluicegate_pipeline::pipeline::Pipeline;

    use super::*;
    use crate::steps::tests::PIPELINE;

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
}
