//! What is seen of a run while it goes on: a tree on a terminal, whole lines elsewhere, JSON for programs. All of it goes to standard error.
//!
//! Steps are hostile: of what they print nothing reaches a terminal but what `output_lines` made harmless.

mod board;
pub(crate) mod events;
mod output_lines;
mod screen;
mod tree;

use std::{
    io::{IsTerminal, stderr},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sluicegate_flow::steps::{ImageStage, StepEvent};
use sluicegate_pipeline::pipeline::{InputSource, Pipeline};
use sluicegate_types::{RunId, StepName};

use self::{
    board::{Board, Now},
    events::Event,
    screen::Screen,
    tree::{Look, time, tree},
};
use crate::{
    arguments::ProgressForm,
    interrupts,
    words::{Problem, Words, printable, tell_anyway},
};

/// How often the tree is drawn.
const TICK: Duration = Duration::from_millis(100);

/// What is said of a run that was asked to end.
const STOPPING: &str = "stopping; once more ends it at once";

/// Rows and columns of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (24, 80);

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Tree,
    Plain,
    Json,
    Quiet,
}

impl Form {
    /// What was asked for, or what standard error is good for. What cannot be is refused before anything is done.
    pub(crate) fn of(words: &Words, asked: ProgressForm) -> Result<Self, Problem> {
        let terminal = stderr().is_terminal();
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "false");
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        match (asked, words.quiet()) {
            (ProgressForm::Auto | ProgressForm::Quiet, true) | (ProgressForm::Quiet, false) => Ok(Self::Quiet),
            (_, true) => Err(Problem::usage("--quiet and --progress contradict each other", "leave one of them out")),
            (ProgressForm::Plain, _) => Ok(Self::Plain),
            (ProgressForm::Json, _) => Ok(Self::Json),
            (ProgressForm::Tree, _) if !terminal => Err(Problem::usage(
                "--progress tree: standard error is no terminal, and a tree is drawn over and over again",
                "--progress plain writes lines, --progress json what programs read",
            )),
            (ProgressForm::Tree, _) => Ok(Self::Tree),
            (ProgressForm::Auto, _) if terminal && !set("CI") && !dumb => Ok(Self::Tree),
            (ProgressForm::Auto, _) => Ok(Self::Plain),
        }
    }
}

/// What is shown just now, and since when.
static SHOWN: Mutex<Option<(Arc<Shared>, Instant)>> = Mutex::new(None);

/// Shows what happens, from its beginning until it is dropped.
pub(crate) struct Progress {
    shared: Arc<Shared>,
    began: Instant,
    ticker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to show a run of this pipeline, or a try, which has no name.
    pub(crate) fn begin(words: &Words, form: Form, pipeline: &Pipeline, run: Option<RunId>) -> Self {
        let needs = pipeline.steps.iter().map(|step| {
            let mut needs: Vec<StepName> = step.needs.clone();
            for step in step.inputs.values().filter_map(InputSource::step) {
                if !needs.contains(step) {
                    needs.push(step.clone());
                }
            }
            (step.name.clone(), needs)
        });
        let look = Look { colour: words.colour_err(), unicode: takes_unicode() };
        let mut shown = Shown::new(form, Board::new(run, needs.collect()), look, Box::new(tell_anyway));
        let began = Instant::now();
        shown.begin(pipeline.name.as_str(), now(began));
        let shared = Arc::new(Shared { shown: Mutex::new(shown), ended: Condvar::new() });
        *shown_now() = Some((Arc::clone(&shared), began));
        if interrupts::heard() {
            stopping();
        }
        let ticker = (form == Form::Tree).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.keep_drawing(began))
        });
        Self { shared, began, ticker }
    }

    /// One line about what is happening.
    pub(crate) fn tell(&self, line: &str) {
        self.shared.lock().tell(line, now(self.began), size());
    }

    /// One line that must be seen.
    pub(crate) fn warn(&self, line: &str) {
        self.shared.lock().warn(line, now(self.began), size());
    }

    /// Something happened to a step or an image.
    pub(crate) fn event(&self, event: &StepEvent<'_>) {
        self.shared.lock().event(event, now(self.began), size());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.lock().end(now(self.began), size());
        self.shared.ended.notify_all();
        *shown_now() = None;
        if let Some(ticker) = self.ticker.take() {
            // It draws and nothing else: a panic of it was told, and changes nothing about the run.
            let _ = ticker.join();
        }
    }
}

/// Tells or warns where a run is shown just now, so that nothing is written beside it; false if none is.
pub(crate) fn told_there(line: &str, warning: bool) -> bool {
    let Some((shared, began)) = shown_now().clone() else { return false };
    match warning {
        true => shared.lock().warn(line, now(began), size()),
        false => shared.lock().tell(line, now(began), size()),
    }
    true
}

/// The first signal was heard: says that the run is ended, and how it ends at once, where one is shown.
pub(crate) fn stopping() {
    let shown = shown_now().clone();
    match shown {
        Some((shared, began)) => shared.lock().stopping(now(began), size()),
        // Before the first step is known, and while images are promoted.
        None => Words::of_this_process().tell(STOPPING),
    }
}

fn shown_now() -> MutexGuard<'static, Option<(Arc<Shared>, Instant)>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event with which a run ends, as a line.
pub(crate) fn finished(exit: u8, error: Option<serde_json::Value>) -> String {
    let event = Event::RunFinished { exit, outcome: events::Outcome::of(exit), error };
    events::line(&event, now(Instant::now()))
}

/// Something to say as an event, before a run began or after it.
pub(crate) fn said(text: &str, warning: bool) -> String {
    let text = &printable(text);
    let event = if warning { Event::Warning { text } } else { Event::Message { text } };
    events::line(&event, now(Instant::now()))
}

/// What the drawing thread and the running one share.
struct Shared {
    shown: Mutex<Shown>,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_drawing(&self, began: Instant) {
        let mut shown = self.lock();
        while !shown.ended {
            shown.draw(now(began), size());
            shown = self.ended.wait_timeout(shown, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

type Sink = Box<dyn FnMut(&str) + Send>;

/// What is known, and how it is shown.
struct Shown {
    form: Form,
    board: Board,
    screen: Screen,
    look: Look,
    sink: Sink,
    ended: bool,
}

impl Shown {
    fn new(form: Form, board: Board, look: Look, sink: Sink) -> Self {
        Self { form, board, screen: Screen::default(), look, sink, ended: false }
    }

    fn begin(&mut self, pipeline: &str, now: Now) {
        if self.form == Form::Json {
            let run = self.board.run.as_ref().map(ToString::to_string);
            (self.sink)(&events::line(&Event::RunStarted { run: run.as_deref(), pipeline }, now));
        }
    }

    fn tell(&mut self, line: &str, now: Now, size: (usize, usize)) {
        match self.form {
            Form::Plain => (self.sink)(&self.look.line("2", line)),
            Form::Json => (self.sink)(&events::line(&Event::Message { text: &printable(line) }, now)),
            // What everything is pinned to stays readable; afterwards the steps are what is looked at.
            Form::Tree if self.board.rows.is_empty() => {
                let line = self.look.line("2", line);
                self.above(&line, now, size);
            }
            Form::Tree => {
                line.clone_into(&mut self.board.activity);
            }
            Form::Quiet => {}
        }
    }

    fn warn(&mut self, line: &str, now: Now, size: (usize, usize)) {
        let text = format!("{}: {}\n", self.look.paint("1;33", "warning"), printable(line));
        match self.form {
            Form::Json => (self.sink)(&events::line(&Event::Warning { text: &printable(line) }, now)),
            Form::Tree => self.above(&text, now, size),
            Form::Plain | Form::Quiet => (self.sink)(&text),
        }
    }

    /// Once, and not after the end, where nobody waits any more.
    fn stopping(&mut self, now: Now, size: (usize, usize)) {
        if self.ended || std::mem::replace(&mut self.board.stopping, true) {
            return;
        }
        match self.form {
            Form::Plain => (self.sink)(&self.look.line("33", STOPPING)),
            Form::Json => (self.sink)(&events::line(&Event::Stopping, now)),
            Form::Tree => self.draw(now, size),
            Form::Quiet => {}
        }
    }

    fn event(&mut self, event: &StepEvent<'_>, now: Now, size: (usize, usize)) {
        let (form, look) = (self.form, self.look);
        if !matches!(event, StepEvent::Output(..)) {
            // What was said last was about this, and the step's own line says it now.
            self.board.activity.clear();
        }
        let mut printed = String::new();
        self.board.take(event, now, |step, line| match form {
            Form::Plain => printed.push_str(&output(look, step, line)),
            Form::Json => printed.push_str(&events::line(&Event::StepOutput { step: step.as_str(), line }, now)),
            Form::Tree | Form::Quiet => {}
        });
        match form {
            Form::Json => printed.push_str(&events::lines(&self.board, event, now)),
            Form::Plain => self.plainly(event, now, &mut printed),
            Form::Quiet => self.failure(event, true, &mut printed),
            // What is printed is drawn with the next tick, however much it is.
            Form::Tree if matches!(event, StepEvent::Output(..)) => {}
            Form::Tree => self.draw(now, size),
        }
        if !printed.is_empty() {
            (self.sink)(&printed);
        }
    }

    /// What is told of an event in a line.
    fn plainly(&self, event: &StepEvent<'_>, now: Now, printed: &mut String) {
        let text = match event {
            StepEvent::Started(name, 1) => format!("step {name} runs"),
            StepEvent::Started(name, attempt) => format!("step {name} runs, try {attempt}"),
            StepEvent::Taken(name, from) => format!("step {name} is taken from {} of run {}", from.bundle, from.run),
            StepEvent::Passed(name) => {
                let took = self.board.row(name).map(|row| time(row.took(now)));
                format!("step {name} passed in {}", took.unwrap_or_default())
            }
            StepEvent::Failed(_, reason, true) => format!("{reason}; it is tried again"),
            StepEvent::Skipped(name) => format!("step {name} does not run"),
            StepEvent::Image(name, ImageStage::Written) => format!("image {name} is written with its evidence"),
            _ => return self.failure(event, false, printed),
        };
        printed.push_str(&self.look.line("2", &text));
    }

    /// A step that failed with its last lines, unless they were the last ones that were printed.
    fn failure(&self, event: &StepEvent<'_>, unread: bool, printed: &mut String) {
        let StepEvent::Failed(name, _, false) = event else { return };
        let Some(row) = self.board.row(name) else { return };
        let board::RowState::Failed { took, reason } = &row.state else { return };
        let text = format!("step {name} failed after {}: {reason}", time(*took));
        printed.push_str(&self.look.line("31", &text));
        if (unread || !self.board.was_just_read(row)) && row.tail().len() > 0 {
            for line in row.tail() {
                printed.push_str(&output(self.look, name, line));
            }
            if let Some(run) = self.board.run.as_ref().filter(|_| row.printed > row.tail().len() as u64) {
                let all = format!("all {} lines: sluicegate logs {run} {name}", row.printed);
                printed.push_str(&self.look.line("2", &all));
            }
        }
    }

    /// Lines that scroll away above the tree.
    fn above(&mut self, lines: &str, now: Now, size: (usize, usize)) {
        let sent = self.screen.above(lines, size);
        (self.sink)(&sent);
        self.draw(now, size);
    }

    fn draw(&mut self, now: Now, size: (usize, usize)) {
        if self.form != Form::Tree {
            return;
        }
        let lines = tree(&self.board, now, size, self.look, self.ended);
        let sent = self.screen.draw(&lines, size);
        (self.sink)(&sent);
    }

    fn end(&mut self, now: Now, size: (usize, usize)) {
        self.ended = true;
        self.draw(now, size);
    }
}

impl Look {
    fn paint(self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line of ours.
    fn line(self, style: &str, text: &str) -> String {
        format!("{}\n", self.paint(style, &printable(text)))
    }
}

/// A line of a step's output.
fn output(look: Look, step: &StepName, line: &str) -> String {
    format!("{} | {line}\n", look.paint("36", step.as_str()))
}

fn now(began: Instant) -> Now {
    Now { elapsed: began.elapsed(), at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
}

/// Rows and columns of the terminal, which may change at any time.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (usize::from(size.ws_row), usize::from(size.ws_col)),
        _ => USUAL,
    }
}

/// Whether the terminal is said to take more than ASCII.
fn takes_unicode() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let said = said.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    said.contains("utf-8") || said.contains("utf8")
}

#[cfg(test)]
mod tests;
