use std::{path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_flow::{
    Failure,
    folders::EnvironmentPlaces,
    gateway::{judge_of, trust},
    promote::{PromoteRequest, Promoted, promote as flow},
};
use sluicegate_policy::judge::Basis;
use sluicegate_ports::scan::Scanner;
use sluicegate_types::UnixTime;

use crate::{
    arguments::Promote,
    gateway_folder::GatewayFolder,
    home::Home,
    passphrase,
    policy_child::PolicyChild,
    wire::Wired,
    words::{DENIED, Problem, Words, code, printable},
};

/// `promote`.
pub(crate) fn promote(words: &Words, arguments: &Promote) -> Result<ExitCode, Problem> {
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let (trust, levels) = trust(&gateway.gateway, &gateway)?;
    let judge = judge_of(&gateway.gateway, &arguments.to, &gateway)?;
    let wired = Wired::new(Home::open()?)?;
    // A gate that can't scan is undecided and on record, like any other that could not look.
    let scanner = match &gateway.gateway.scanner {
        Some(trivy) => wired.executor().and_then(|executor| {
            wired.scanner(&executor, trivy, &gateway.folder, arguments.trivy.as_deref(), arguments.to.as_str())
        }),
        None => Err(Problem::usage("the gateway names no scanner", "")),
    };
    let passphrase = passphrase::ask(false)?;
    let (records, log, ledger) = wired.signer_and_logs(&gateway.gateway.signing.records, &passphrase)?;
    let key = gateway.gateway.signing.decisions.get(&arguments.to).cloned().unwrap_or_default();
    let decisions = || wired.signer(&key, &passphrase);
    let tell = |line: &str| words.tell(line);
    let warn = |line: &str| words.warn(line);
    let environments = EnvironmentPlaces::of(&gateway.gateway, &gateway.folder);
    let request = PromoteRequest {
        reference: &arguments.image,
        folder: Path::new("."),
        gateway_folder: &gateway.folder,
        environments: &environments,
        judge: &judge,
        files: &gateway,
        trust: &trust,
        levels: &levels,
        scanner: scanner.as_ref().map(|scanner| scanner as &dyn Scanner).map_err(Problem::text),
        evaluator: &PolicyChild,
        records: records.as_ref(),
        decisions: &decisions,
        scratch: wired.scratch(),
        dry_run: arguments.dry_run,
        rollback: arguments.rollback,
    };
    let promoted = flow(&wired.ports(&log, &ledger, &tell, &warn), &request)?;
    if words.json() {
        words.document(&document(&promoted, arguments));
    } else {
        print(words, &promoted, arguments, &judge.environment.repository, &gateway.folder);
    }
    Ok(match promoted {
        Promoted::Allowed { .. } | Promoted::WouldAllow { .. } => ExitCode::SUCCESS,
        Promoted::Denied { .. } => ExitCode::from(DENIED),
        Promoted::Undecided { .. } => ExitCode::from(code(Failure::Undecided)),
    })
}

fn print(words: &Words, promoted: &Promoted, arguments: &Promote, repository: &Path, folder: &Path) {
    match promoted {
        Promoted::WouldAllow { image, record, basis } => {
            words.line(format!("{}  {image}", words.good("WOULD BE ALLOWED")));
            words.line(match basis {
                Basis::Gate { .. } => "  a dry run: no decision was signed, and nothing was copied or tagged",
                Basis::Ungated => "  a dry run: nothing was copied or tagged; this environment has no gate",
            });
            words.line(format!("  recorded: sluicegate evidence show {record}"));
        }
        Promoted::Allowed { image, record, basis } => {
            match basis {
                Basis::Gate { expires } => {
                    words.line(format!("{}  {image}", words.good("ALLOWED")));
                    words.line(format!(
                        "  signed, copied and tagged for {}; the decision expires {expires}",
                        arguments.to
                    ));
                }
                Basis::Ungated => {
                    words.line(format!("{}  {image}", words.open("UNGATED")));
                    words.line(format!(
                        "  copied and tagged for {}, which has no gate: nothing was asked, and nobody vouches for it",
                        arguments.to
                    ));
                }
            }
            words.line(format!("  recorded: sluicegate evidence show {record}"));
            let place = folder.join(repository);
            let place = place.strip_prefix(".").unwrap_or(&place);
            words.line(format!("  next: sluicegate verify --offline oci:{}@{}", place.display(), image.digest));
        }
        Promoted::Denied { image, denials, record } => {
            words.line(format!("{}  {image} for {}", words.bad("DENIED"), arguments.to));
            for denial in denials {
                words.line(format!("  {}: {}", words.bad(&denial.code), printable(&denial.violation.msg)));
                words.line(format!("    to fix: {}", printable(&denial.solution)));
                words.line(format!("    rule:   {}", printable(&denial.rule)));
            }
            words.line(format!("  recorded: sluicegate evidence show {record}"));
        }
        Promoted::Undecided { image, reasons, record } => {
            words.line(format!("{}  {image} for {}", words.open("UNDECIDED"), arguments.to));
            for reason in reasons {
                words.line(format!("  {}", printable(reason)));
            }
            words.line("  undecided is not allowed: nothing was promoted");
            words.line(format!("  recorded: sluicegate evidence show {record}"));
        }
    }
}

fn word(basis: Basis) -> &'static str {
    match basis {
        Basis::Gate { .. } => "allow",
        Basis::Ungated => "ungated",
    }
}

fn expiry(basis: Basis) -> Option<UnixTime> {
    match basis {
        Basis::Gate { expires } => Some(expires),
        Basis::Ungated => None,
    }
}

fn document(promoted: &Promoted, arguments: &Promote) -> serde_json::Value {
    let environment = &arguments.to;
    match promoted {
        Promoted::Allowed { image, record, basis } => json!({
            "schemaVersion": 1, "verdict": word(*basis), "image": image.digest, "environment": environment, "record": record,
            "expires": expiry(*basis), "dryRun": false,
        }),
        Promoted::WouldAllow { image, record, basis } => json!({
            "schemaVersion": 1, "verdict": word(*basis), "image": image.digest, "environment": environment, "record": record,
            "expires": expiry(*basis), "dryRun": true,
        }),
        Promoted::Denied { image, denials, record } => json!({
            "schemaVersion": 1, "verdict": "deny", "image": image, "environment": environment, "record": record,
            "denials": denials.iter().map(|denial| json!({
                "code": denial.code, "title": denial.title, "msg": denial.violation.msg, "term": denial.violation.term,
                "subject": denial.violation.subject, "solution": denial.solution, "rule": denial.rule,
            })).collect::<Vec<_>>(),
        }),
        Promoted::Undecided { image, reasons, record } => json!({
            "schemaVersion": 1, "verdict": "undecided", "image": image, "environment": environment, "record": record,
            "reasons": reasons,
        }),
    }
}
