use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_flow::{
    Error, Failure,
    evidence::{Against, FsckReport, fsck},
    gateway::trust,
    replay::replay as flow,
};
use sluicegate_ports::{
    Clock,
    evidence::{EvidenceError, EvidenceLog, Record},
};
use sluicegate_types::{Digest, ImageRef};

use crate::{
    arguments::{Evidence, EvidenceCommand, GatewayFlag},
    gateway_folder::GatewayFolder,
    home::Home,
    policy_child::PolicyChild,
    wire::{self, SystemClock},
    words::{Problem, Words, code, printable},
};

/// `evidence list`, `evidence show`, `evidence replay` and `evidence fsck`.
pub(crate) fn evidence(words: &Words, arguments: &Evidence) -> Result<ExitCode, Problem> {
    let home = Home::open()?;
    if let EvidenceCommand::Fsck { against, gateway } = &arguments.command {
        let report = check(&home, against, gateway)?;
        if words.json() {
            words.document(&report.to_json());
        } else {
            print(words, &report, !against.is_empty());
        }
        return Ok(report.failure().map_or(ExitCode::SUCCESS, |failure| ExitCode::from(code(failure))));
    }
    let store = wire::evidence(&home)?;
    let records = wire::records(&store);
    match arguments.command {
        EvidenceCommand::Fsck { .. } => {}
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
        EvidenceCommand::Replay { number } => return replay(words, records, number),
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the evidence, the ledger's public half and what `--against` names: no key, no socket.
fn check(home: &Home, references: &[ImageRef], gateway: &GatewayFlag) -> Result<FsckReport, Problem> {
    let damaged = |words: String| Ok(FsckReport { damage: vec![words], ..FsckReport::default() });
    if let Some(words) = wire::lost_evidence(home) {
        return damaged(words);
    }
    let ledger = match wire::ledger_reader(home)? {
        Ok(ledger) => ledger,
        Err(words) => return damaged(words),
    };
    let store = match wire::open_evidence(home) {
        Ok(store) => store,
        Err(error @ EvidenceError::Corrupt { .. }) => return damaged(error.to_string()),
        Err(error) => return Err(Error::from(error).into()),
    };
    let places = wire::places();
    if references.is_empty() {
        return Ok(fsck(wire::records(&store), &ledger, None)?);
    }
    let gateway = GatewayFolder::open(gateway.gateway.as_deref(), Path::new(".")).map_err(|problem| {
        problem.or("whom to believe about --against is in a gateway's trust.yaml: name one with --gateway")
    })?;
    let (trust, _) = trust(&gateway.gateway, &gateway)?;
    let against = Against { places: &places, references, folder: Path::new("."), trust: &trust, at: SystemClock.now() };
    Ok(fsck(wire::records(&store), &ledger, Some(&against))?)
}

fn print(words: &Words, report: &FsckReport, asked: bool) {
    let head = match report.failure() {
        None => words.good("WHOLE"),
        Some(Failure::Wrong) => words.bad("DAMAGED"),
        Some(_) => words.open("NOT ANCHORED"),
    };
    let records =
        report.records.map_or_else(|| "an unknown number of records".to_owned(), |count| counted(count, "record"));
    let ledger = report.ledger.as_ref().map_or_else(String::new, |head| {
        format!(", {} in {}, root {}", counted(head.size, "leaf"), head.origin, head.root)
    });
    words.line(format!("{head}  {records}{ledger}"));
    for damage in &report.damage {
        words.line(format!("  {}  {}", words.bad("damaged"), printable(damage)));
    }
    for (reference, reason) in &report.unanchored {
        words.line(format!("  {}  {}: {}", words.open("proves nothing"), printable(reference), printable(reason)));
    }
    for origin in &report.other_ledgers {
        words.line(format!("  note: statements about another ledger, {}, are there too", printable(origin)));
    }
    if !report.damage.is_empty() {
        words.line("  nothing was changed; restore evidence.db and ledger together from one backup");
        return;
    }
    if report.pending() > 0 {
        words.line(format!(
            "  {} pending: committed and not in the ledger yet; what is recorded next takes all of it along",
            counted(report.pending(), "record")
        ));
    }
    let records = report.records.unwrap_or_default();
    match report.anchor() {
        Some(anchor) => {
            words.line(printable(&format!(
                "  complete since checkpoint {}, anchored by the {} {} of {} for {}, signed by {}",
                anchor.head.size, anchor.kind, anchor.bundle, anchor.reference, anchor.environment, anchor.signer
            )));
            match records.saturating_sub(anchor.head.size) {
                0 => {}
                later => words.line(format!("  {} after it: self-asserted", counted(later, "record"))),
            }
        }
        None if asked => words.line("  self-asserted: no image that was named vouches for it"),
        None => words.line("  self-asserted: only this home vouches for it; name promoted images with --against"),
    }
}

fn counted(count: u64, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "leaf") => format!("{count} leaves"),
        _ => format!("{count} {what}s"),
    }
}

/// Makes a decision again; other bytes than the recorded ones mean that it can't be vouched for.
fn replay(words: &Words, records: &dyn EvidenceLog, number: u64) -> Result<ExitCode, Problem> {
    let home = Home::open()?;
    let store = wire::store(&home)?;
    let ledger = wire::ledger_reader(&home)?.map_err(|words| {
        Problem::lost(words, "sluicegate evidence fsck says what is wrong; restore the home from a backup")
    })?;
    let replayed = flow(records, &ledger, &store, &PolicyChild, number)?;
    let again = Digest::of(&replayed.document);
    if words.json() {
        let document = serde_json::from_slice::<Value>(&replayed.document).unwrap_or_default();
        words.document(&json!({
            "schemaVersion": 1, "record": number, "recorded": replayed.recorded, "replayed": again,
            "same": replayed.is_same(), "decision": document,
        }));
    } else if replayed.is_same() {
        words.line(format!(
            "{}  decision {number}: {} bytes, {again}",
            words.good("SAME BYTES"),
            replayed.document.len()
        ));
        words.line(
            "  made again from the gateway, evidence, scan and moment that its record names; nothing was promoted",
        );
    } else {
        words.line(format!("{}  decision {number}", words.bad("OTHER BYTES")));
        words.line(format!("  recorded {}", replayed.recorded));
        words.line(format!("  replayed {again}"));
    }
    Ok(if replayed.is_same() { ExitCode::SUCCESS } else { ExitCode::from(code(Failure::Wrong)) })
}

fn row(words: &Words, record: &Record) -> String {
    let outcome = match record.outcome.as_str() {
        "allow" | "would-allow" | "succeeded" | "promoted" | "attested" => words.good(&record.outcome),
        "deny" | "failed" => words.bad(&record.outcome),
        _ => words.open(&record.outcome),
    };
    let kind = json!(record.kind);
    let subject = record.subject.map(|digest| digest.to_string()).unwrap_or_default();
    let environment = record.environment.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let line = format!(
        "{:>5}  {}  {:<11}  {subject}{environment}",
        record.sequence,
        record.at,
        kind.as_str().unwrap_or_default()
    );
    format!("{}  {outcome}", printable(&line))
}
