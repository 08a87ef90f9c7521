use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use serde_json::{Value, json};
use sluicegate_flow::Error;
use sluicegate_ports::{
    evidence::{Record, RecordKind},
    store::ContentStore,
};
use sluicegate_types::nearest::suggestion;
use sluicegate_types::{Digest, Hasher};

use crate::{
    arguments::Logs,
    home::Home,
    wire,
    words::{Problem, Words, printable},
};

/// Records that are looked through, newest first.
const LOOKED_THROUGH: u32 = 100_000;

/// `logs`.
pub(crate) fn logs(words: &Words, arguments: &Logs) -> Result<ExitCode, Problem> {
    let home = Home::read()?;
    let evidence = wire::evidence_there(&home)?;
    let records = wire::records(&evidence).list(LOOKED_THROUGH).map_err(Error::from)?;
    let records = of_run(&records, &arguments.run)?;
    let steps: Vec<&Value> = records.iter().flat_map(|record| steps_of(&record.body)).collect();
    let Some(name) = &arguments.step else { return Ok(list(words, &records, &steps)) };
    let step = steps.iter().find(|step| step["step"] == json!(name));
    let step = step.ok_or_else(|| {
        let run = records.first().and_then(|record| record.body["run"].as_str()).unwrap_or_default();
        let hint = suggestion(name.as_str(), steps.iter().filter_map(|step| step["step"].as_str()));
        Problem::usage(
            format!("the run {run} has no step {name} that was executed or taken{hint}"),
            "sluicegate logs RUN lists the steps of a run, sluicegate evidence list the runs",
        )
    })?;
    let (what, digest) = if arguments.report { ("report", &step["report"]) } else { ("log", &step["log"]) };
    let digest: Digest = digest
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Problem::usage(format!("the step {name} left no {what}"), "leave --report out for its log"))?;
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "step": step}));
        return Ok(ExitCode::SUCCESS);
    }
    print(words, &home, &digest)?;
    Ok(ExitCode::SUCCESS)
}

/// The records of one run: a run that made several images has one for each.
fn of_run<'a>(records: &'a [Record], run: &str) -> Result<Vec<&'a Record>, Problem> {
    let runs = || records.iter().filter(|record| record.kind == RecordKind::Run);
    let name = match run {
        // One that broke off before its first step has no logs to read.
        "LAST" | "last" => {
            let with_steps = runs().find(|record| steps_of(&record.body).next().is_some());
            with_steps.or_else(|| runs().next()).and_then(|record| record.body["run"].as_str())
        }
        name => Some(name),
    };
    let found: Vec<&Record> = runs().filter(|record| name.is_some() && record.body["run"].as_str() == name).collect();
    if found.is_empty() {
        return Err(Problem::usage(
            format!("no run {run} is on record here"),
            "sluicegate evidence list shows what is; LAST is the newest run that has steps",
        ));
    }
    Ok(found)
}

fn steps_of(body: &Value) -> impl Iterator<Item = &Value> {
    ["steps", "otherSteps"].into_iter().filter_map(|key| body[key].as_array()).flatten()
}

fn list(words: &Words, records: &[&Record], steps: &[&Value]) -> ExitCode {
    let run = records.first().and_then(|record| record.body["run"].as_str()).unwrap_or_default();
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "run": run, "steps": steps}));
        return ExitCode::SUCCESS;
    }
    words.line(format!("run {run}"));
    for step in steps {
        let text = |key: &str| step[key].as_str().unwrap_or("-").to_owned();
        words.line(printable(&format!("  {:<24} {:<8} log {}", text("step"), text("status"), text("log"))));
    }
    ExitCode::SUCCESS
}

/// Prints stored content byte for byte; on a terminal what would drive it is shown harmlessly. Damage is found while it is printed and
/// said at the end.
fn print(words: &Words, home: &Home, digest: &Digest) -> Result<(), Problem> {
    let store = wire::store(home)?;
    let mut file = store.open(digest).map_err(Error::from)?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 64 * 1024]);
    let terminal = io::stdout().is_terminal();
    let mut out = io::stdout().lock();
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Problem::lost(format!("cannot read {digest}: {error}"), "try again")),
        };
        hasher.update(&buffer[..n]);
        let written = if terminal { words.harmlessly(&mut out, &buffer[..n]) } else { out.write_all(&buffer[..n]) };
        match written {
            Ok(()) => {}
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Problem::lost(format!("cannot print {digest}: {error}"), "try again")),
        }
    }
    let flushed = out.flush();
    if let Err(error) = flushed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(Problem::lost(format!("cannot print {digest}: {error}"), "try again"));
    }
    let found = hasher.finish();
    if found != *digest {
        return Err(Problem::wrong(
            format!("what was printed is damaged: the store has {found} under the name {digest}"),
            "run the step again: it leaves its log anew",
        ));
    }
    Ok(())
}
