use std::process::ExitCode;

use serde_json::json;
use sluicegate_flow::Error;
use sluicegate_ports::evidence::Record;

use crate::{
    arguments::{Evidence, EvidenceCommand},
    home::Home,
    wire,
    words::{Problem, Words, printable},
};

/// `evidence list` and `evidence show`.
pub(crate) fn evidence(words: &Words, arguments: &Evidence) -> Result<ExitCode, Problem> {
    let store = wire::evidence(&Home::open()?)?;
    let records = wire::records(&store);
    match arguments.command {
        EvidenceCommand::List { limit } => {
            let list = records.list(limit).map_err(Error::from)?;
            if words.json() {
                words.document(&json!({"schemaVersion": 1, "records": list}));
            } else if list.is_empty() {
                words.line("nothing has been recorded yet");
            } else {
                list.iter().rev().for_each(|record| words.line(row(words, record)));
            }
        }
        EvidenceCommand::Show { number } => {
            let record = records.show(number).map_err(Error::from)?;
            let mut document = json!(record);
            document["schemaVersion"] = json!(1);
            words.document(&document);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(words: &Words, record: &Record) -> String {
    let outcome = match record.outcome.as_str() {
        "allow" | "succeeded" | "promoted" => words.good(&record.outcome),
        "deny" | "failed" => words.bad(&record.outcome),
        _ => words.open(&record.outcome),
    };
    let kind = json!(record.kind);
    let subject = record.subject.map(|digest| digest.to_string()).unwrap_or_default();
    let environment = record.environment.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let line = format!(
        "{:>5}  {}  {:<9}  {subject}{environment}",
        record.sequence,
        record.at,
        kind.as_str().unwrap_or_default()
    );
    format!("{}  {outcome}", printable(&line))
}
