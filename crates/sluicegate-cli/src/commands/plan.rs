use std::{collections::BTreeSet, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_flow::{
    plan::{self as flow, Fate, PlannedStep},
    run::Selection,
};
use sluicegate_pipeline::cache_key::Difference;
use sluicegate_ports::execute::Stop;
use sluicegate_types::StepName;

use super::pipeline::OpenedPipeline;
use crate::{
    amounts::{bytes, steps},
    arguments::{Explain, Plan},
    words::{Problem, Words, printable},
};

/// `plan`.
pub(crate) fn plan(words: &Words, arguments: &Plan) -> Result<ExitCode, Problem> {
    let from = &arguments.pipeline;
    let opened = OpenedPipeline::open(&from.file, &from.gateway, &from.values)?;
    let names: BTreeSet<StepName> = arguments.steps.iter().cloned().collect();
    let selection = (!names.is_empty()).then_some(Selection { steps: names, only: false });
    let plan = make(words, &opened, selection.as_ref(), !from.no_cache)?;
    if arguments.dot {
        words.line(dot(&opened, &plan));
        return Ok(ExitCode::SUCCESS);
    }
    if words.json() {
        words.document(&document(&plan, arguments.diff.is_some()));
        return Ok(ExitCode::SUCCESS);
    }
    for image in &plan.images {
        words.line(format!("image   {} for {}  {}", printable(&image.name), image.platform, image.digest));
    }
    for source in &plan.sources {
        words.line(format!("source  {}  {}{}", source.name, source.digest, state(source)));
    }
    for step in &plan.steps {
        let key = step.key.map_or_else(|| "not known yet".to_owned(), |key| key.to_string());
        words.line(format!("step    {}  {}  key {key}", step.step, fate(words, &step.fate)));
        if arguments.diff.is_some() {
            print_changes(words, step);
        }
    }
    let taken = plan.steps.iter().filter(|step| matches!(step.fate, Fate::Taken { .. })).count();
    words.line(format!("{}: {taken} taken from earlier runs; nothing was executed", steps(plan.steps.len())));
    Ok(ExitCode::SUCCESS)
}

/// `explain`.
pub(crate) fn explain(words: &Words, arguments: &Explain) -> Result<ExitCode, Problem> {
    let from = &arguments.pipeline;
    let opened = OpenedPipeline::open(&from.file, &from.gateway, &from.values)?;
    let selection = Selection { steps: BTreeSet::from([arguments.step.clone()]), only: false };
    let plan = make(words, &opened, Some(&selection), !from.no_cache)?;
    let step = plan.steps.iter().find(|step| step.step == arguments.step);
    let step = step.ok_or_else(|| Problem::bug("the step was not planned".to_owned(), "explain"))?;
    if words.json() {
        let mut document = step_document(step, true);
        document["schemaVersion"] = json!(1);
        words.document(&document);
        return Ok(ExitCode::SUCCESS);
    }
    words.line(format!("{}  {}", step.step, fate(words, &step.fate)));
    if let Some(key) = step.key {
        words.line(format!("  key {key}"));
    }
    print_changes(words, step);
    if let Fate::Open(waits) = &step.fate {
        for name in waits {
            let other = plan.steps.iter().find(|step| step.step == *name);
            if let Some(other) = other {
                words.line(format!("  {name}: {}", fate(words, &other.fate)));
                print_changes(words, other);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn make(
    words: &Words,
    opened: &OpenedPipeline,
    selection: Option<&Selection>,
    reuses: bool,
) -> Result<flow::Plan, Problem> {
    let tell = |line: &str| words.tell(line);
    let stop = Stop::default();
    let shared = opened.shared_store(reuses, &stop)?;
    let request = opened.plan_request(selection, &stop, (reuses, shared.as_ref()));
    Ok(flow::plan(&opened.wired.workbench(&tell), &request)?)
}

fn state(source: &flow::PlannedSource) -> &'static str {
    match (&source.commit, source.dirty) {
        (None, _) => "  in no commit",
        (Some(_), true) => "  uncommitted changes",
        (Some(_), false) => "",
    }
}

fn fate(words: &Words, fate: &Fate) -> String {
    match fate {
        Fate::Taken { origin, to_fetch: None } => format!("{} from {origin}", words.good("TAKEN")),
        Fate::Taken { origin, to_fetch: Some(there) } => {
            let there = bytes(*there);
            format!("{} from {origin} in the shared store, {there} to fetch", words.good("TAKEN"))
        }
        Fate::Executed(reason) => format!("{}: {}", words.open("RUNS"), printable(reason)),
        Fate::Open(waits) => format!("{} {}", words.open("OPEN"), after(waits)),
    }
}

fn after(waits: &[StepName]) -> String {
    let names: Vec<&str> = waits.iter().map(StepName::as_str).collect();
    format!("until {} ran", names.join(", "))
}

fn print_changes(words: &Words, step: &PlannedStep) {
    match &step.changed {
        None if step.key.is_some() => words.line("    it never ran in this home"),
        None => {}
        Some(changed) if changed.is_empty() => words.line("    nothing of its key has changed since it last ran"),
        Some(changed) => changed.iter().for_each(|one| words.line(change(one))),
    }
}

fn change(difference: &Difference) -> String {
    let show = |value: &Option<String>| value.as_deref().map_or_else(|| "(none)".to_owned(), printable);
    format!("    {}: {} -> {}", printable(&difference.part), show(&difference.before), show(&difference.now))
}

fn document(plan: &flow::Plan, with_changes: bool) -> Value {
    json!({
        "schemaVersion": 1,
        "images": plan.images.iter().map(|image| json!({
            "name": image.name, "platform": image.platform, "digest": image.digest, "indexes": image.indexes,
        })).collect::<Vec<_>>(),
        "sources": plan.sources.iter().map(|source| json!({
            "name": source.name, "digest": source.digest, "commit": source.commit, "dirty": source.dirty,
        })).collect::<Vec<_>>(),
        "steps": plan.steps.iter().map(|step| step_document(step, with_changes)).collect::<Vec<_>>(),
    })
}

fn step_document(step: &PlannedStep, with_changes: bool) -> Value {
    let (fate, origin, to_fetch, reason, waits) = match &step.fate {
        Fate::Taken { origin, to_fetch } => ("taken", Some(origin), *to_fetch, None, None),
        Fate::Executed(reason) => ("executed", None, None, Some(reason), None),
        Fate::Open(waits) => ("open", None, None, None, Some(waits)),
    };
    let mut document = json!({
        "step": step.step, "image": step.image, "epoch": step.epoch, "key": step.key, "after": step.after, "fate": fate, "origin": origin,
        "toFetch": to_fetch, "reason": reason, "waitsFor": waits,
    });
    if with_changes {
        document["changed"] = step.changed.as_ref().map_or(Value::Null, |changed| {
            changed.iter().map(|one| json!({"part": one.part, "before": one.before, "now": one.now})).collect()
        });
    }
    document
}

/// The graph: steps, and what goes from one to the other.
fn dot(opened: &OpenedPipeline, plan: &flow::Plan) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", opened.pipeline.name);
    for step in &plan.steps {
        let style = match step.fate {
            Fate::Taken { .. } => "filled",
            Fate::Executed(_) => "bold",
            Fate::Open(_) => "dashed",
        };
        text.push_str(&format!("  \"{}\" [style={style}];\n", step.step));
    }
    for step in &opened.pipeline.steps {
        if !plan.steps.iter().any(|planned| planned.step == step.name) {
            continue;
        }
        for source in step.inputs.values() {
            match source.step() {
                Some(from) => text.push_str(&format!("  \"{from}\" -> \"{}\" [label=\"{source}\"];\n", step.name)),
                None => text.push_str(&format!("  \"source {source}\" -> \"{}\";\n", step.name)),
            }
        }
        for need in &step.needs {
            text.push_str(&format!("  \"{need}\" -> \"{}\" [style=dotted];\n", step.name));
        }
    }
    text.push('}');
    text
}
