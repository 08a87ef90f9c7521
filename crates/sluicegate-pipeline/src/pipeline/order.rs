//! Steps in an order in which each comes after those it reads from or needs.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_types::{OutputName, StepName};

use super::{InputSource, Step};
use crate::{Error, In};

/// Sorts so that each step comes after those it reads from or needs; between equals the file's order holds.
pub(super) fn in_order(at: &In<'_>, steps: Vec<Step>) -> Result<Vec<Step>, Error> {
    let outputs: BTreeMap<StepName, BTreeSet<OutputName>> =
        steps.iter().map(|step| (step.name.clone(), step.outputs.keys().cloned().collect())).collect();
    let mut waiting: Vec<(Step, BTreeSet<StepName>)> = Vec::new();
    for step in steps {
        let place = format!("steps.{}", step.name);
        let mut before = BTreeSet::new();
        for (nth, need) in step.needs.iter().enumerate() {
            if !outputs.contains_key(need) {
                let known = outputs.keys().filter(|other| **other != step.name).map(StepName::as_str);
                return Err(at.unknown(format!("{place}.needs[{nth}]"), "step", need.as_str(), known));
            }
            before.insert(need.clone());
        }
        for (mount, source) in &step.inputs {
            let place = format!("{place}.inputs.{}", mount.display());
            let InputSource::Output(from, output) = source else { continue };
            match outputs.get(from) {
                None => {
                    let known = outputs.keys().filter(|other| **other != step.name).map(StepName::as_str);
                    return Err(at.unknown(place, "step", from.as_str(), known));
                }
                Some(names) if !names.contains(output) => {
                    return Err(at.no_output(place, (from, output), names));
                }
                Some(_) => before.insert(from.clone()),
            };
        }
        waiting.push((step, before));
    }
    let mut done: BTreeSet<StepName> = BTreeSet::new();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let Some(next) = waiting.iter().position(|(_, before)| before.is_subset(&done)) else {
            return Err(at.cycle(cycle(&waiting, &done)));
        };
        let (step, _) = waiting.remove(next);
        done.insert(step.name.clone());
        ordered.push(step);
    }
    Ok(ordered)
}

/// A way along which each step waits for the next one, and the last for the first.
fn cycle(waiting: &[(Step, BTreeSet<StepName>)], done: &BTreeSet<StepName>) -> Vec<StepName> {
    let mut way: Vec<StepName> = Vec::new();
    let mut next = waiting.first().map(|(step, _)| step.name.clone());
    while let Some(step) = next {
        if let Some(begin) = way.iter().position(|before| *before == step) {
            return way.split_off(begin);
        }
        let before = waiting.iter().find(|(other, _)| other.name == step).map(|(_, before)| before);
        next = before.and_then(|before| before.iter().find(|name| !done.contains(*name)).cloned());
        way.push(step);
    }
    way
}
