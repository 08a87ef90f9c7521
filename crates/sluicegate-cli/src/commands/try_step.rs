use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process::ExitCode,
};

use serde_json::{Value, json};
use sluicegate_flow::{
    Failure,
    steps::StepEvent,
    try_step::{self as flow, Tried, TryRequest},
};
use sluicegate_ports::execute::{Ended, Stop, Terminal};
use sluicegate_types::StepName;

use super::pipeline::OpenedPipeline;
use crate::{
    arguments::{PipelineFile, Shell, Try},
    interrupts,
    progress::{Form, Progress},
    wire::Wired,
    words::{Problem, Words, code},
};

/// `try`.
pub(crate) fn try_step(words: &Words, arguments: &Try) -> Result<ExitCode, Problem> {
    let form = Form::of(words, arguments.progress.form)?;
    let stop = interrupts::listen()?;
    let (tried, done) = attempt(words, &arguments.pipeline, &arguments.step, stop, form)?;
    if words.json() && done.is_ok() {
        words.document(&json!({"schemaVersion": 1, "steps": tried.iter().map(document).collect::<Vec<_>>()}));
    }
    done?;
    if !words.json() {
        words.line(format!(
            "{}  {}; nothing was signed, logged or kept for a run",
            words.good("PASSED"),
            arguments.step
        ));
    }
    words.finished(0);
    Ok(ExitCode::SUCCESS)
}

/// `shell`.
pub(crate) fn shell(words: &Words, arguments: &Shell) -> Result<ExitCode, Problem> {
    // The terminal is the shell's: nothing may be drawn on it beside.
    let form = if words.quiet() { Form::Quiet } else { Form::Plain };
    let stop = interrupts::listen()?;
    if arguments.on_failure {
        let (_, done) = attempt(words, &arguments.pipeline, &arguments.step, stop.clone(), form)?;
        match done {
            Ok(()) => {
                words.line(format!("{}  {}; there is nothing to look into", words.good("PASSED"), arguments.step));
                return Ok(ExitCode::SUCCESS);
            }
            Err(problem) if problem.exit() == code(Failure::Step) => words.warn(&problem.text()),
            Err(problem) => return Err(problem),
        }
    }
    let argv = if arguments.command.is_empty() { vec!["/bin/sh".to_owned()] } else { arguments.command.clone() };
    let terminal = terminal()?;
    let ended = with_request(words, &arguments.pipeline, &arguments.step, stop, form, |bench, request| {
        flow::shell(bench, request, &argv, terminal)
    })??;
    match ended {
        Ended::Exit(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        Ended::TimedOut | Ended::LogFull | Ended::Stopped => Err(sluicegate_flow::Error::Stopped.into()),
    }
}

type Done = (Vec<Tried>, Result<(), Problem>);

fn attempt(words: &Words, from: &PipelineFile, step: &StepName, stop: Stop, form: Form) -> Result<Done, Problem> {
    with_request(words, from, step, stop, form, |bench, request| {
        let (tried, done) = flow::try_step(bench, request);
        (tried, done.map_err(Problem::from))
    })
}

fn with_request<T>(
    words: &Words,
    from: &PipelineFile,
    step: &StepName,
    stop: Stop,
    form: Form,
    work: impl FnOnce(&sluicegate_flow::Workbench<'_>, &TryRequest<'_>) -> T,
) -> Result<T, Problem> {
    let opened = OpenedPipeline::open(&from.file, &from.gateway, &from.values)?;
    opened.pipeline.step(step).map_err(sluicegate_flow::Error::from)?;
    let secrets = opened.secrets(opened.pipeline.with_what_they_need([step]))?;
    let reuses = !from.no_cache;
    let shared = opened.shared_store(reuses, &stop)?;
    let progress = Progress::begin(words, form, &opened.pipeline, None);
    let on_event = |event: &StepEvent<'_>| progress.event(event);
    let tell = |line: &str| progress.tell(line);
    let request = TryRequest {
        plan: opened.plan_request(None, &stop, (reuses, shared.as_ref())),
        step,
        secrets: &secrets,
        capacity: Wired::capacity(None),
        stop: stop.clone(),
        on_event: &on_event,
    };
    Ok(work(&opened.wired.workbench(&tell), &request))
}

/// Where the caller sits: a terminal for both sides, or whatever streams there are.
fn terminal() -> Result<Terminal, Problem> {
    let failed =
        |error: io::Error| Problem::lost(format!("cannot take over the standard streams: {error}"), "try again");
    let again = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from).map_err(failed);
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let tty = Path::new("/dev/tty");
        let tty = File::options().read(true).write(true).open(tty).map_err(|error| Problem::io("open", tty, &error))?;
        return Ok(Terminal::Tty(tty));
    }
    Ok(Terminal::Streams {
        input: again(io::stdin().as_fd())?,
        output: again(io::stdout().as_fd())?,
        errors: again(io::stderr().as_fd())?,
    })
}

fn document(tried: &Tried) -> Value {
    let outputs = tried.outputs.iter();
    json!({
        "step": tried.step, "exitCode": tried.exit_code, "taken": tried.taken, "log": tried.log,
        "outputs": outputs.map(|(name, product)| (name.to_string(), json!(product.content.digest))).collect::<serde_json::Map<_, _>>(),
        "report": tried.report.as_ref().map(|report| report.content.digest),
    })
}
