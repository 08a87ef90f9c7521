use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_flow::{
    Error, Failure,
    evidence::{self, Against, FsckReport, Standing, fsck},
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
    let home = Home::read()?;
    if let EvidenceCommand::Fsck { against, gateway } = &arguments.command {
        let report = check(&home, against, gateway)?;
        if words.json() {
            words.document(&report.to_json());
        } else {
            print(words, &report, !against.is_empty());
        }
        return Ok(report.failure().map_or(ExitCode::SUCCESS, |failure| ExitCode::from(code(failure))));
    }
    let store = wire::evidence_there(&home)?;
    let records = wire::records(&store);
    let ledger = wire::ledger_if_any(&home)?;
    match arguments.command {
        EvidenceCommand::Fsck { .. } => {}
        EvidenceCommand::List { limit } => {
            let list: Vec<(Record, Standing)> = match &ledger {
                Some(ledger) => evidence::list(records, ledger, limit)?,
                None => {
                    let list = records.list(limit).map_err(Error::from)?;
                    list.into_iter().map(|record| (record, Standing::Pending)).collect()
                }
            };
            return Ok(print_list(words, &list, ledger.is_some()));
        }
        EvidenceCommand::Show { number } => {
            let (record, standing) = match &ledger {
                Some(ledger) => evidence::show(records, ledger, number)?,
                None => (records.show(number).map_err(Error::from)?, Standing::Logged),
            };
            let mut document = json!(record);
            document["schemaVersion"] = json!(1);
            if standing == Standing::Pending {
                // Beside the record's own members, so only where it is needed: whoever recomputes the digest takes it out.
                document["pending"] = json!(true);
                words.warn(&format!(
                    "evidence record {number} is {PENDING}: its writer was interrupted, or it is forged"
                ));
            }
            if let Standing::Adopted { by } = standing {
                document["adoptedBy"] = json!(by);
                words.warn(&format!(
                    "the process that wrote evidence record {number} did not log it (see evidence {by}): it was interrupted, or the \
                     record is forged"
                ));
            }
            words.document(&document);
        }
        EvidenceCommand::Replay { number } => return replay(words, records, number),
    }
    Ok(ExitCode::SUCCESS)
}

const PENDING: &str = "not in the ledger yet";

/// Records, oldest first, each that is not its leaf marked. In a home without a ledger there is nothing to compare with.
fn print_list(words: &Words, list: &[(Record, Standing)], logged: bool) -> ExitCode {
    let numbers = |which: Standing| -> Vec<u64> {
        let found = list.iter().filter(|(_, standing)| logged && *standing == which);
        found.map(|(record, _)| record.sequence).collect()
    };
    let damaged = numbers(Standing::Differs);
    let adopted: Vec<u64> = list
        .iter()
        .filter(|(_, standing)| matches!(standing, Standing::Adopted { .. }))
        .map(|(record, _)| record.sequence)
        .collect();
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "records": list.iter().map(|(record, _)| record).collect::<Vec<_>>(),
            "pending": numbers(Standing::Pending), "damaged": damaged, "adopted": adopted,
        }));
    } else if list.is_empty() {
        words.line("nothing has been recorded yet");
    }
    for (record, standing) in list.iter().rev().filter(|_| !words.json()) {
        let mark = match standing {
            Standing::Differs => format!("  {}: the ledger has another record here", words.bad("damaged")),
            Standing::Pending if logged => format!("  {}", words.open(PENDING)),
            Standing::Adopted { by } => {
                format!("  {}", words.open(&format!("taken along into the ledger, see {by}")))
            }
            Standing::Pending | Standing::Logged => String::new(),
        };
        words.line(format!("{}{mark}", row(words, record)));
    }
    if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(code(Failure::Wrong)) }
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
    let contents = wire::store(home)?;
    if references.is_empty() {
        return Ok(fsck(wire::records(&store), &ledger, &contents, None)?);
    }
    let missing = "whom to believe about --against is in a gateway's trust.yaml: name one with --gateway";
    let gateway = GatewayFolder::open_or(gateway.gateway.as_deref(), Path::new("."), missing)?;
    let (trust, _) = trust(&gateway.gateway, &gateway)?;
    let places = wire::places().with_evidence(gateway.gateway.evidence.clone());
    let against = Against { places: &places, references, folder: Path::new("."), trust: &trust, at: SystemClock.now() };
    Ok(fsck(wire::records(&store), &ledger, &contents, Some(&against))?)
}

fn print(words: &Words, report: &FsckReport, asked: bool) {
    let head = match report.failure() {
        None => words.good("WHOLE"),
        Some(Failure::Wrong) => words.bad("DAMAGED"),
        Some(_) if report.pending() > 0 => words.open("PENDING"),
        Some(_) => words.open("NOT ANCHORED"),
    };
    let records =
        report.records.map_or_else(|| "an unknown number of records".to_owned(), |count| counted(count, "record"));
    let ledger = report.ledger.as_ref().map_or_else(String::new, |head| {
        format!(", {} in {}, root {}", counted(head.size, "leaf"), head.origin, head.root)
    });
    words.line(format!("{head}  {records}{ledger}"));
    if report.records.is_some() {
        words
            .line(format!("  {} of the store that the records name, each hashed", counted(report.contents, "content")));
    }
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
            "  {} pending: in the store and {PENDING}; an interrupted command leaves one behind, and so does whoever writes the \
             database",
            counted(report.pending(), "record")
        ));
        words.line(format!(
            "  look at it now (sluicegate evidence list --limit {}): what is recorded next takes all of it along, and says so",
            report.pending()
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
        None => words
            .line("  self-asserted: only this home vouches for it; name images that were decided about with --against"),
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
    let home = Home::read()?;
    let store = wire::store(&home)?;
    let ledger = wire::whole_ledger_reader(&home)?;
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
    /// Characters of a digest: what is about no image ends in the same column.
    const WIDTH: usize = "sha256:".len() + 64;
    let outcome = match record.outcome.as_str() {
        "allow" | "would-allow" | "succeeded" | "promoted" | "attested" => words.good(&record.outcome),
        "deny" | "refused" | "failed" => words.bad(&record.outcome),
        _ => words.open(&record.outcome),
    };
    let kind = json!(record.kind);
    let subject = record.subject.map(|digest| digest.to_string()).unwrap_or_default();
    let environment = record.environment.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let line = format!(
        "{:>5}  {}  {:<11}  {subject:<WIDTH$}{environment}",
        record.sequence,
        record.at,
        kind.as_str().unwrap_or_default(),
    );
    format!("{}  {outcome}", printable(&line))
}
