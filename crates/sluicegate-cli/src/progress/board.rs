//! What is known of each step and image of a run: the least that any view needs, however much a step prints.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sluicegate_flow::steps::{ImageStage, StepEvent};
use sluicegate_types::{Digest, OutputName, RunId, StepName, UnixTime};

use super::output_lines::OutputLines;

/// Lines of a step that are remembered.
pub(crate) const TAIL: usize = 10;

/// Characters of a remembered line.
const REMEMBERED: usize = 512;

/// How far a step is set in, at most.
const DEEPEST: usize = 4;

/// A moment, for times that are shown; nothing is decided by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since the run began.
    pub(crate) elapsed: Duration,
    /// Since 1970.
    pub(crate) at: Duration,
}

/// All steps, in the order of the pipeline, and the images that are made of them.
pub(crate) struct Board {
    pub(crate) run: Option<RunId>,
    pub(crate) rows: Vec<Row>,
    pub(crate) images: Vec<ImageRow>,
    /// What was said last.
    pub(crate) activity: String,
    /// Whether the run was asked to end.
    pub(crate) stopping: bool,
    needs: BTreeMap<StepName, Vec<StepName>>,
    /// Lines of all steps so far.
    lines: u64,
}

/// A step.
pub(crate) struct Row {
    pub(crate) name: StepName,
    pub(crate) indent: usize,
    pub(crate) state: RowState,
    pub(crate) attempt: u32,
    /// Its whole log, once an attempt has ended.
    pub(crate) log: Option<Digest>,
    /// Lines that this attempt printed.
    pub(crate) printed: u64,
    output: OutputLines,
    /// The last of them, each with its place among those of all steps.
    tail: VecDeque<(u64, String)>,
}

#[derive(Clone, Debug)]
pub(crate) enum RowState {
    Waiting,
    Running { since: Duration },
    Passed { took: Duration },
    Cached { run: RunId, finished_on: UnixTime },
    Failed { took: Duration, reason: String },
    Skipped,
}

/// An image that is made.
pub(crate) struct ImageRow {
    pub(crate) name: OutputName,
    pub(crate) stage: ImageStage,
    pub(crate) since: Duration,
    /// How long it took, once it is there.
    pub(crate) took: Option<Duration>,
}

impl Board {
    /// Nothing is planned yet. `needs` says what each step of the pipeline depends on.
    pub(crate) fn new(run: Option<RunId>, needs: BTreeMap<StepName, Vec<StepName>>) -> Self {
        let (rows, images) = (Vec::new(), Vec::new());
        Self { run, rows, images, activity: String::new(), stopping: false, needs, lines: 0 }
    }

    pub(crate) fn row(&self, name: &StepName) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == *name)
    }

    pub(crate) fn needs(&self, name: &StepName) -> &[StepName] {
        self.needs.get(name).map_or(&[], Vec::as_slice)
    }

    /// Takes an event, and hands on every line of output that it ends.
    pub(crate) fn take(&mut self, event: &StepEvent<'_>, now: Now, mut line: impl FnMut(&StepName, &str)) {
        match *event {
            StepEvent::Planned(names) => self.plan(names),
            StepEvent::Output(name, bytes) => self.print(name, |output, took| output.push(bytes, took), &mut line),
            StepEvent::Image(name, stage) => self.image(name, stage, now),
            StepEvent::Started(name, attempt) => self.change(name, |row| {
                // All attempts together are one thing to wait for.
                if !matches!(row.state, RowState::Running { .. }) {
                    row.state = RowState::Running { since: now.elapsed };
                }
                row.attempt = attempt;
                row.log = None;
                row.tail.clear();
                row.printed = 0;
            }),
            StepEvent::Logged(name, log) => {
                self.print(name, |output, took| output.finish().into_iter().for_each(took), &mut line);
                self.change(name, |row| row.log = Some(log));
            }
            StepEvent::Taken(name, origin) => self.change(name, |row| {
                row.state = RowState::Cached { run: origin.run.clone(), finished_on: origin.finished_on };
            }),
            StepEvent::Passed(name) => self.change(name, |row| {
                row.state = RowState::Passed { took: row.took(now) };
                row.tail = VecDeque::new();
            }),
            StepEvent::Failed(_, _, true) => {}
            StepEvent::Failed(name, reason, false) => {
                self.print(name, |output, took| output.finish().into_iter().for_each(took), &mut line);
                let by_name = reason.strip_prefix(&format!("step {name}"));
                let by_name = by_name.and_then(|rest| rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ')));
                let reason = by_name.unwrap_or(reason).to_owned();
                self.change(name, |row| row.state = RowState::Failed { took: row.took(now), reason });
            }
            StepEvent::Skipped(name) => self.change(name, |row| row.state = RowState::Skipped),
        }
    }

    /// Whether the last lines of a step are also the last ones of all: whoever reads every line has just read them.
    pub(crate) fn was_just_read(&self, row: &Row) -> bool {
        row.tail.front().is_none_or(|(first, _)| first + row.tail.len() as u64 == self.lines)
    }

    fn plan(&mut self, names: &[&StepName]) {
        for name in names {
            if self.row(name).is_none() {
                self.rows.push(Row {
                    name: (*name).clone(),
                    indent: 0,
                    state: RowState::Waiting,
                    attempt: 0,
                    log: None,
                    printed: 0,
                    output: OutputLines::default(),
                    tail: VecDeque::new(),
                });
            }
        }
        let names: Vec<StepName> = self.rows.iter().map(|row| row.name.clone()).collect();
        for (row, indent) in self.rows.iter_mut().zip(indents(&names, &self.needs)) {
            row.indent = indent;
        }
    }

    fn print(
        &mut self,
        name: &StepName,
        work: impl FnOnce(&mut OutputLines, &mut dyn FnMut(String)),
        line: &mut impl FnMut(&StepName, &str),
    ) {
        let Some(row) = self.rows.iter_mut().find(|row| row.name == *name) else { return };
        let (tail, printed, lines) = (&mut row.tail, &mut row.printed, &mut self.lines);
        work(&mut row.output, &mut |text| {
            line(name, &text);
            while tail.len() >= TAIL {
                tail.pop_front();
            }
            tail.push_back((*lines, text.chars().take(REMEMBERED).collect()));
            *lines += 1;
            *printed += 1;
        });
    }

    fn change(&mut self, name: &StepName, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == *name) {
            change(row);
        }
    }

    fn image(&mut self, name: &OutputName, stage: ImageStage, now: Now) {
        let at = self.images.iter().position(|row| row.name == *name);
        let at = at.unwrap_or_else(|| {
            self.images.push(ImageRow { name: name.clone(), stage, since: now.elapsed, took: None });
            self.images.len() - 1
        });
        if let Some(row) = self.images.get_mut(at) {
            row.stage = stage;
            row.took = (stage == ImageStage::Written).then(|| now.elapsed.saturating_sub(row.since));
        }
    }
}

impl Row {
    /// The last lines that it printed.
    pub(crate) fn tail(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.tail.iter().map(|(_, line)| line.as_str())
    }

    /// What it prints just now.
    pub(crate) fn newest(&self) -> Option<String> {
        self.output.unfinished().or_else(|| self.tail().next_back().map(str::to_owned))
    }

    pub(crate) fn took(&self, now: Now) -> Duration {
        match self.state {
            RowState::Running { since } => now.elapsed.saturating_sub(since),
            RowState::Passed { took } | RowState::Failed { took, .. } => took,
            _ => Duration::ZERO,
        }
    }
}

/// How far each step is set in: below the one step that it needs if that one is needed by several, and beside it in a chain, so that a long
/// chain is no staircase. What brings several together stands where they began.
fn indents(names: &[StepName], needs: &BTreeMap<StepName, Vec<StepName>>) -> Vec<usize> {
    let place = |name: &StepName| names.iter().position(|other| other == name);
    let before: Vec<Vec<usize>> = names
        .iter()
        .map(|name| {
            let mut before: Vec<usize> = needs.get(name).into_iter().flatten().filter_map(place).collect();
            before.sort_unstable();
            before.dedup();
            before
        })
        .collect();
    let mut indents: Vec<usize> = Vec::new();
    for (at, own) in before.iter().enumerate() {
        let needed_by = |step: usize| before.iter().filter(|own| own.contains(&step)).count();
        let indent = match own.as_slice() {
            [one] => {
                let above = indents.get(*one).copied().unwrap_or_default();
                let deeper = if needed_by(*one) > 1 { above + 1 } else { above };
                // Only where all that stands between them is set in as well does the eye find what it is below of.
                let between = indents.get(one + 1..at).unwrap_or_default();
                if between.iter().all(|indent| *indent >= deeper) { deeper } else { above.min(shallowest(between)) }
            }
            [] => 0,
            several => several.iter().filter_map(|one| indents.get(*one)).min().map_or(0, |one| one.saturating_sub(1)),
        };
        indents.push(indent.min(DEEPEST));
    }
    indents
}

fn shallowest(indents: &[usize]) -> usize {
    indents.iter().copied().min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indents_of(graph: &[(&str, &[&str])]) -> Vec<usize> {
        let name = |text: &str| -> StepName { text.parse().unwrap() };
        let names: Vec<StepName> = graph.iter().map(|(step, _)| name(step)).collect();
        let needs = graph.iter().map(|(step, needs)| (name(step), needs.iter().map(|one| name(one)).collect()));
        indents(&names, &needs.collect())
    }

    #[test]
    fn what_branches_off_is_set_in_and_a_chain_is_no_staircase() {
        assert_eq!(indents_of(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["c"])]), [0; 4]);
        let diamond: [(&str, &[&str]); 4] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])];
        assert_eq!(indents_of(&diamond), [0, 1, 1, 0]);
        // Two that have nothing to do with each other, and what follows on the second.
        assert_eq!(indents_of(&[("a", &[]), ("b", &[]), ("c", &["b"]), ("d", &["a"])]), [0; 4]);
        let fan: [(&str, &[&str]); 5] = [("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["b"]), ("e", &["a"])];
        assert_eq!(indents_of(&fan), [0, 1, 2, 2, 1]);
        // What is not part of this run sets nothing in.
        assert_eq!(indents_of(&[("b", &["a"]), ("c", &["a"])]), [0, 0]);
        let deep: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        let graph: Vec<(String, Vec<&str>)> = (0..20)
            .flat_map(|n| {
                let needs: Vec<&str> = if n == 0 { vec![] } else { vec![deep[n - 1].as_str()] };
                [(deep[n].clone(), needs.clone()), (format!("t{n}"), needs)]
            })
            .collect();
        let graph: Vec<(&str, &[&str])> = graph.iter().map(|(step, needs)| (step.as_str(), needs.as_slice())).collect();
        assert!(indents_of(&graph).into_iter().all(|indent| indent <= DEEPEST));
    }
}
