//! What happens in a run as JSON, one object a line. `schemas/progress.schema.json` is the shape; `SLUICEGATE_BLESS=1` with this crate's
//! tests writes it anew.

use serde::Serialize;
use serde_json::Value;
use sluicegate_flow::steps::{ImageStage, StepEvent};
use sluicegate_types::UnixTime;

use super::board::{Board, Now, RowState};
use crate::words::{DENIED, harmless, harmless_json};

/// A line.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "An event of sluicegate run --progress json"))]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    /// 1. Members and events are only added to it.
    schema_version: u8,
    /// When it was written, in RFC 3339 with milliseconds, in UTC. No event is about a moment that was decided by.
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// What happens.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum Event<'a> {
    /// The first event of a run or a try.
    RunStarted {
        /// Its name; null for a try, which is on no record.
        run: Option<&'a str>,
        /// The name in the pipeline file.
        pipeline: &'a str,
    },
    /// A step is planned. Each step that will run or be taken has one, in the order of the pipeline, before any of them starts.
    StepWaiting {
        /// Its name.
        step: &'a str,
        /// The steps that it depends on, as the pipeline file says.
        needs: Vec<&'a str>,
    },
    /// A step is executed.
    StepStarted {
        /// Its name.
        step: &'a str,
        /// 1, or more for each time that it is tried again.
        attempt: u32,
    },
    /// A step printed a line, to either of its streams. Secrets are masked.
    StepOutput {
        /// Its name.
        step: &'a str,
        /// The line without its end, harmless to print: bytes that are no UTF-8 and characters that would drive a terminal are U+FFFD,
        /// colours are left out, a line of more than 8 KiB comes in parts. The log has the exact bytes.
        line: &'a str,
    },
    /// A step ended, well or badly, or was taken, and this is its whole log; what it left is checked and proved next.
    StepLogged {
        /// Its name.
        step: &'a str,
        /// The digest of its log.
        log: String,
    },
    /// A step failed and is tried once more.
    StepRetrying {
        /// Its name.
        step: &'a str,
        /// The attempt that failed.
        attempt: u32,
        /// Why; characters that would drive a terminal are U+FFFD, lines stay.
        reason: &'a str,
    },
    /// A step passed, and in a run it is proved.
    StepFinished {
        /// Its name.
        step: &'a str,
        /// From its first start until now.
        milliseconds: u64,
    },
    /// The result of an earlier run was taken.
    StepCached {
        /// Its name.
        step: &'a str,
        /// The run that executed it.
        origin_run: String,
        /// When that ended.
        origin_finished: String,
        /// The bundle with that run's statement.
        origin: String,
    },
    /// A step failed for good.
    StepFailed {
        /// Its name.
        step: &'a str,
        /// From its first start until now; 0 if it could not start.
        milliseconds: u64,
        /// Why; characters that would drive a terminal are U+FFFD, lines stay.
        reason: &'a str,
        /// The last lines that it printed, ten at most.
        tail: Vec<&'a str>,
    },
    /// A step did not run, as something that it needs failed or the run was stopped.
    StepSkipped {
        /// Its name.
        step: &'a str,
    },
    /// How far an image is.
    Image {
        /// The artifact's name.
        artifact: &'a str,
        /// What is done with it from now on; `written` is the end.
        stage: Stage,
    },
    /// Something else that a person would be told.
    Message {
        /// It.
        text: &'a str,
    },
    /// Something that must not be missed.
    Warning {
        /// It.
        text: &'a str,
    },
    /// A signal asked the run to end, and it does; one more ends it at once, without any further event.
    Stopping,
    /// The last event, also of what was refused before anything ran.
    RunFinished {
        /// The exit code of the process.
        exit: u8,
        /// What that means.
        outcome: Outcome,
        /// The document that `-o json` prints of an error; null without one, also where an image was not promoted: what was decided of each
        /// is the result, on standard output.
        error: Option<Value>,
    },
}

/// What is done with an image.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Its layers are written.
    Assemble,
    /// It, its steps' images and what they left are scanned.
    Scan,
    /// It and what it is made of are described, signed and logged.
    Prove,
    /// It is written to its place, with its evidence.
    Publish,
    /// It is there.
    Written,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Exit code 1: the run succeeded, and a gate denied what it was to promote.
    Denied,
    /// Exit code 2: the command, a file or what is named in it is wrong.
    Usage,
    /// Exit code 3: something that is needed could not be decided.
    Undecided,
    /// Exit code 4: a signature, an identity or a digest is wrong.
    Wrong,
    /// Exit code 5: something could not be reached, read or written.
    Unavailable,
    /// Exit code 6: a step failed.
    StepFailed,
    /// Exit code 70: a bug of sluicegate.
    Bug,
    /// Exit code 129, 130 or 143: a hangup, an interrupt or a wish to end stopped it.
    Stopped,
}

impl Outcome {
    pub(crate) fn of(code: u8) -> Self {
        match code {
            0 => Self::Succeeded,
            DENIED => Self::Denied,
            2 => Self::Usage,
            3 => Self::Undecided,
            4 => Self::Wrong,
            5 => Self::Unavailable,
            6 => Self::StepFailed,
            129 | 130 | 143 => Self::Stopped,
            _ => Self::Bug,
        }
    }
}

/// An event as a line.
pub(crate) fn line(event: &Event<'_>, now: Now) -> String {
    let line = Line { schema_version: 1, time: moment(now), event };
    // It has only texts, numbers and lists of them.
    serde_json::to_string(&line).map(|line| harmless_json(&line) + "\n").unwrap_or_default()
}

/// What happened to a step or an image as lines, by what the board knows of it now. Lines of output have been written before it.
pub(crate) fn lines(board: &Board, event: &StepEvent<'_>, now: Now) -> String {
    let of = |event: Event<'_>| line(&event, now);
    match *event {
        StepEvent::Planned(names) => names
            .iter()
            .map(|name| {
                let needs = board.needs(name).iter().map(|step| step.as_str()).collect();
                of(Event::StepWaiting { step: name.as_str(), needs })
            })
            .collect(),
        StepEvent::Started(name, attempt) => of(Event::StepStarted { step: name.as_str(), attempt }),
        StepEvent::Output(..) => String::new(),
        StepEvent::Logged(name, log) => of(Event::StepLogged { step: name.as_str(), log: log.to_string() }),
        StepEvent::Taken(name, origin) => of(Event::StepCached {
            step: name.as_str(),
            origin_run: origin.run.to_string(),
            origin_finished: origin.finished_on.to_string(),
            origin: origin.bundle.to_string(),
        }),
        StepEvent::Passed(name) => {
            let milliseconds = board.row(name).map_or(0, |row| milliseconds(&row.state));
            of(Event::StepFinished { step: name.as_str(), milliseconds })
        }
        StepEvent::Failed(name, reason, true) => {
            let attempt = board.row(name).map_or(1, |row| row.attempt);
            of(Event::StepRetrying { step: name.as_str(), attempt, reason: &harmless(reason) })
        }
        StepEvent::Failed(name, reason, false) => {
            let row = board.row(name);
            of(Event::StepFailed {
                step: name.as_str(),
                milliseconds: row.map_or(0, |row| milliseconds(&row.state)),
                reason: &harmless(reason),
                tail: row.map(|row| row.tail().collect()).unwrap_or_default(),
            })
        }
        StepEvent::Skipped(name) => of(Event::StepSkipped { step: name.as_str() }),
        StepEvent::Image(name, stage) => {
            let stage = match stage {
                ImageStage::Assembled => Stage::Assemble,
                ImageStage::Scanned => Stage::Scan,
                ImageStage::Proved => Stage::Prove,
                ImageStage::Published => Stage::Publish,
                ImageStage::Written => Stage::Written,
            };
            of(Event::Image { artifact: name.as_str(), stage })
        }
    }
}

fn milliseconds(state: &RowState) -> u64 {
    match state {
        RowState::Passed { took } | RowState::Failed { took, .. } => {
            u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

fn moment(now: Now) -> String {
    let seconds = i64::try_from(now.at.as_secs()).ok().and_then(|seconds| UnixTime::from_seconds(seconds).ok());
    let whole = seconds.unwrap_or(UnixTime::LAST).to_string();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), now.at.subsec_millis())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/progress.schema.json");

    #[test]
    fn the_published_schema_is_that_of_the_events() {
        let mut schema = schemars::schema_for!(Line<'_>).to_value();
        if let Some(object) = schema.as_object_mut() {
            let id = "https://sluicegate.dev/schemas/progress/v1";
            object.insert("$id".to_owned(), id.into());
        }
        let text = format!("{schema:#}\n");
        if std::env::var_os("SLUICEGATE_BLESS").is_some() {
            std::fs::write(FILE, &text).unwrap();
        }
        let published = std::fs::read_to_string(FILE).unwrap();
        assert!(published == text, "{FILE} is not of this program: SLUICEGATE_BLESS=1 with these tests writes it anew");
    }

    #[test]
    fn every_exit_code_has_its_outcome() {
        use Outcome as O;
        use sluicegate_flow::Failure as F;
        let outcomes = [
            (F::Usage, O::Usage),
            (F::Undecided, O::Undecided),
            (F::Wrong, O::Wrong),
            (F::Unavailable, O::Unavailable),
            (F::Step, O::StepFailed),
            (F::Bug, O::Bug),
            (F::Stopped, O::Stopped),
        ];
        for (failure, outcome) in outcomes {
            assert_eq!(Outcome::of(crate::words::code(failure)), outcome);
        }
        assert_eq!([0, DENIED].map(Outcome::of), [O::Succeeded, O::Denied]);
        // Whichever signal it was.
        assert_eq!([129, 130, 143].map(Outcome::of), [O::Stopped; 3]);
        assert_eq!([128, 131, 255].map(Outcome::of), [O::Bug; 3]);
    }

    #[test]
    fn moments_are_written_with_their_milliseconds() {
        let at = |millis| moment(Now { elapsed: Default::default(), at: std::time::Duration::from_millis(millis) });
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(1_700_000_000_042), "2023-11-14T22:13:20.042Z");
    }
}
