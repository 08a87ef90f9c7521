use std::{path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_flow::{
    Failure,
    folders::EnvironmentPlaces,
    gateway::{judge_of, trust},
    promote::{OpenReason, PromoteRequest, Promoted, promote as flow},
};
use sluicegate_policy::judge::{Basis, Reason};
use sluicegate_ports::scan::Scanner;
use sluicegate_types::{ImageRef, Place, UnixTime};
use sluicegate_verify::closed_set::Incomplete;

use super::init::ADD_SCANNER;
use crate::{
    arguments::{Compat, Promote},
    gateway_folder::GatewayFolder,
    home::Home,
    passphrase,
    policy_child::PolicyChild,
    wire::{Logging, Wired},
    words::{DENIED, Problem, Words, code, printable, shell_word},
};

/// `promote`.
pub(crate) fn promote(words: &Words, arguments: &Promote) -> Result<ExitCode, Problem> {
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let (trust, levels) = trust(&gateway.gateway, &gateway)?;
    let judge = judge_of(&gateway.gateway, &arguments.to, &gateway)?;
    let wired = Wired::new(Home::open()?)?.judged_by(&gateway.gateway);
    // A gate that can't scan is undecided and on record, like any other that could not look.
    let scanner = match &gateway.gateway.scanner {
        Some(trivy) => wired.executor().and_then(|executor| {
            wired.scanner(&executor, trivy, &gateway.folder, arguments.trivy.as_deref(), arguments.to.as_str())
        }),
        None => Err(Problem::usage("the gateway names no scanner", gateway.how_to_add_a_scanner())),
    };
    let to_scan = scanner
        .as_ref()
        .err()
        .and_then(Problem::hint)
        .unwrap_or("mend what kept the scanner from it, as said below")
        .to_owned();
    let passphrase = passphrase::ask(false)?;
    let logging = Logging { gateway: &gateway, trust: &trust, words };
    let (records, log, ledger) = wired.signer_and_logs(&gateway.gateway.signing.records, &passphrase, logging)?;
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
        compat_cosign2: arguments.compat == Some(Compat::Cosign2),
    };
    let promoted = flow(&wired.ports(log.as_ref(), &ledger, &tell, &warn), &request);
    let promoted = promoted.map_err(|failed| Problem::from(*failed.error).recorded(failed.record))?;
    if words.json() {
        words.document(&document(&promoted, arguments, &to_scan));
    } else {
        let place = judge.environment.repository.seen_from(&gateway.folder);
        print(words, &promoted, arguments, &place, &to_scan);
    }
    Ok(match promoted {
        Promoted::Allowed { .. } | Promoted::WouldAllow { .. } => ExitCode::SUCCESS,
        Promoted::Denied { .. } => ExitCode::from(DENIED),
        Promoted::Undecided { .. } => ExitCode::from(code(Failure::Undecided)),
    })
}

fn print(words: &Words, promoted: &Promoted, arguments: &Promote, place: &Place, to_scan: &str) {
    let again = || {
        let flag = arguments.gateway.gateway.as_ref();
        let flag =
            flag.map(|path| format!(" --gateway {}", shell_word(&path.display().to_string()))).unwrap_or_default();
        let image = shell_word(&arguments.image.to_string());
        words
            .line(printable(&format!("  next: fix that, then sluicegate promote {image} --to {}{flag}", arguments.to)));
    };
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
            let flag = if place.folder().is_some() { "--offline " } else { "" };
            words.line(format!("  next: sluicegate verify {flag}{place}@{}", image.digest));
        }
        Promoted::Denied { image, denials, record } => {
            words.line(format!("{}  {image} for {}", words.bad("DENIED"), arguments.to));
            for denial in denials {
                let of = denial.platform.as_ref().map(|platform| format!("{platform}: ")).unwrap_or_default();
                let said = printable(&format!("{of}{}", denial.violation.msg));
                words.line(format!("  {}: {said}", words.bad(&denial.code)));
                words.line(format!("    to fix: {}", printable(&denial.solution)));
                words.line(format!("    rule:   {}", printable(&denial.rule)));
            }
            words.line("  denied: nothing was promoted");
            words.line(format!("  recorded: sluicegate evidence show {record}"));
            again();
        }
        Promoted::Undecided { image, reasons, record } => {
            words.line(format!("{}  {image} for {}", words.open("UNDECIDED"), arguments.to));
            let mut said = String::new();
            for reason in reasons {
                words.line(format!("  {}", printable(&reason.to_string())));
                // What mends many reasons at once is said at the first.
                if let Some(remedy) = remedy(reason, &arguments.image, to_scan).filter(|remedy| *remedy != said) {
                    words.line(format!("    to fix: {}", printable(&remedy)));
                    said = remedy;
                }
            }
            words.line("  undecided is not allowed: nothing was promoted");
            words.line(format!("  recorded: sluicegate evidence show {record}"));
            again();
        }
    }
}

/// What to do about a reason for which nothing could be decided; `to_scan` is what lets the gate scan.
fn remedy(reason: &OpenReason, image: &ImageRef, to_scan: &str) -> Option<String> {
    let run = "sluicegate run makes it anew, with its evidence";
    let reason = match reason {
        OpenReason::Scan(_) => return None,
        OpenReason::Set(Incomplete::NoProvenance { .. }) => {
            return Some(format!(
                "name the layout in which sluicegate run left it, whole, with a gateway whose trust.yaml lists that run's key; or {run}"
            ));
        }
        OpenReason::Set(Incomplete::Missing { .. }) => {
            return Some(format!("copy the whole layout again from where it was built; or {run}"));
        }
        OpenReason::Set(Incomplete::Unlinked { .. } | Incomplete::Broken { .. }) => return Some(run.to_owned()),
        OpenReason::Gate(reason) => reason,
    };
    Some(match reason {
        Reason::MissingKind(kind) => match kind.as_str() {
            "sbom" | "vulns" => format!("{run}, without --no-scan"),
            "test-result" => {
                "give reports: { junit: PATH } to a step that the image stands on, then sluicegate run".to_owned()
            }
            "provenance" => run.to_owned(),
            kind => format!(
                "somebody whose key trust.yaml lists for it must say it: sluicegate attest {image} --type {kind} --predicate FILE"
            ),
        },
        Reason::NoScan => to_scan.to_owned(),
        Reason::Database(_) => format!(
            "get the newest (trivy image --download-db-only --cache-dir CACHE) and pin it under scanner: of the gateway file: \
             {ADD_SCANNER} prints what to write there"
        ),
        Reason::Coverage(_) => {
            "take out of the image what the scanner cannot read, or put it there in a form that it reads; nothing waives it".to_owned()
        }
        Reason::EmptySbom => {
            "build on a base whose packages are on record in it, as in those of sluicegate image from-host".to_owned()
        }
        Reason::Policy(_) => "mend the policies and the data that the gateway file names for this gate".to_owned(),
        Reason::Silent(_) => {
            "mend the rule: it must pass or deny, whatever the image; policies/README.md shows how".to_owned()
        }
    })
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

fn document(promoted: &Promoted, arguments: &Promote, to_scan: &str) -> serde_json::Value {
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
                "platform": denial.platform, "code": denial.code, "title": denial.title, "msg": denial.violation.msg, "term": denial.violation.term,
                "subject": denial.violation.subject, "solution": denial.solution, "rule": denial.rule,
            })).collect::<Vec<_>>(),
        }),
        Promoted::Undecided { image, reasons, record } => json!({
            "schemaVersion": 1, "verdict": "undecided", "image": image, "environment": environment, "record": record,
            "reasons": reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "solutions": reasons.iter().map(|reason| remedy(reason, &arguments.image, to_scan)).collect::<Vec<_>>(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_types::Digest;

    use super::*;

    #[test]
    fn a_reason_for_no_decision_says_what_to_do() {
        let image: ImageRef = "oci:out/app".parse().unwrap();
        let remedy = |reason: OpenReason| remedy(&reason, &image, "add a scanner");
        let missing = |kind: &str| remedy(OpenReason::Gate(Reason::MissingKind(kind.to_owned()))).unwrap();
        assert!(missing("sbom").ends_with("without --no-scan"));
        assert!(missing("test-result").contains("junit"));
        assert!(missing("https://x.example/v1").contains("attest oci:out/app --type https://x.example/v1"));
        assert_eq!(remedy(OpenReason::Gate(Reason::NoScan)).as_deref(), Some("add a scanner"));
        let (name, digest) = ("step".to_owned(), Digest::of(b""));
        let gone = remedy(OpenReason::Set(Incomplete::Missing { name, digest })).unwrap();
        assert!(gone.starts_with("copy the whole layout again"), "{gone}");
        // What the gate's own scanner met says itself what to do.
        assert_eq!(remedy(OpenReason::Scan("it crashed".to_owned())), None);
    }
}
