use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_flow::{
    Failure, Ports,
    folders::EnvironmentPlaces,
    gateway::{Judge, judge_of, trust},
    promote::{Answered, OfPlatform, OpenReason, PromoteRequest, Promoted, promote as flow},
};
use sluicegate_policy::{
    exceptions::{About, ExceptionUse, Status},
    judge::{Basis, Reason},
};
use sluicegate_ports::{Clock, scan::Scanner, sign::Signer};
use sluicegate_scan::TrivyScanner;
use sluicegate_types::{EnvironmentName, ImageRef, Secret, UnixTime};
use sluicegate_verify::{Trust, closed_set::Incomplete};

use super::{
    init::ADD_SCANNER,
    policy::{denial, print_denial},
};
use crate::{
    arguments::{Compat, Format, Promote},
    gateway_folder::GatewayFolder,
    home::Home,
    passphrase,
    policy_child::PolicyChild,
    report::{Item, Level, Report},
    wire::{Logging, SystemClock, Wired},
    words::{DENIED, Problem, Words, code, printable, shell_word},
};

/// `promote`.
pub(crate) fn promote(words: &Words, arguments: &Promote, format: Format) -> Result<ExitCode, Problem> {
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let (trust, _) = trust(&gateway.gateway, &gateway)?;
    let gate = OpenedGate::of(&gateway, &arguments.to, arguments.effective_time)?;
    let wired = Wired::new(Home::open()?)?.judged_by(&gateway.gateway);
    let gate = gate.with_scanner(&wired, &gateway, arguments.trivy.as_deref());
    let passphrase = passphrase::ask(false)?;
    let logging = Logging { gateway: &gateway, trust: &trust, words };
    let (records, log, ledger) = wired.signer_and_logs(&gateway.gateway.signing.records, &passphrase, logging)?;
    let tell = |line: &str| words.tell(line);
    let warn = |line: &str| words.warn(line);
    let ports = wired.ports(log.as_ref(), &ledger, &tell, &warn);
    let with = With {
        ports: &ports,
        wired: &wired,
        gateway: &gateway,
        trust: &trust,
        records: records.as_ref(),
        passphrase: &passphrase,
    };
    let asked = Asked {
        image: &arguments.image,
        dry_run: arguments.dry_run,
        effective: arguments.effective_time,
        rollback: arguments.rollback,
        compat_cosign2: arguments.compat == Some(Compat::Cosign2),
    };
    let answered = gate.promote(&with, &asked)?;
    if words.json() {
        words.document(&gate.document(&answered, &asked));
    } else if format != Format::Table {
        report(&answered).print(words, format);
    } else {
        let again = format!(
            "sluicegate promote {} --to {}{}",
            shell_word(&arguments.image.to_string()),
            arguments.to,
            gateway_flag(arguments.gateway.gateway.as_deref())
        );
        gate.print(words, &answered, &asked, &gateway, &again);
    }
    Ok(ExitCode::from(exit(&answered.promoted)))
}

/// `--gateway` as it was typed, to be typed again.
pub(crate) fn gateway_flag(flag: Option<&Path>) -> String {
    flag.map(|path| format!(" --gateway {}", shell_word(&path.display().to_string()))).unwrap_or_default()
}

/// The exit code that a verdict leads to.
pub(crate) fn exit(promoted: &Promoted) -> u8 {
    match promoted {
        Promoted::Allowed { .. } | Promoted::WouldAllow { .. } => 0,
        Promoted::Denied { .. } => DENIED,
        Promoted::Undecided { .. } => code(Failure::Undecided),
    }
}

/// An environment with everything that judges what is promoted to it, opened before anything is done.
pub(crate) struct OpenedGate {
    pub(crate) judge: Judge,
    levels: BTreeMap<String, String>,
    scanner: Result<TrivyScanner, Problem>,
}

/// What promotions need that the command has opened anyway.
pub(crate) struct With<'a> {
    pub(crate) ports: &'a Ports<'a>,
    pub(crate) wired: &'a Wired,
    pub(crate) gateway: &'a GatewayFolder,
    pub(crate) trust: &'a Trust,
    /// The key of role `records`.
    pub(crate) records: &'a dyn Signer,
    pub(crate) passphrase: &'a Secret,
}

/// Which image is to be promoted, and how.
pub(crate) struct Asked<'a> {
    /// Relative to the current folder.
    pub(crate) image: &'a ImageRef,
    pub(crate) dry_run: bool,
    /// Judge as of this moment, and promote nothing.
    pub(crate) effective: Option<UnixTime>,
    pub(crate) rollback: bool,
    pub(crate) compat_cosign2: bool,
}

impl OpenedGate {
    /// The judge of an environment; an environment that the gateway has not is a mistake in the command.
    pub(crate) fn of(
        gateway: &GatewayFolder,
        environment: &EnvironmentName,
        effective: Option<UnixTime>,
    ) -> Result<Self, Problem> {
        let judge = judge_of(&gateway.gateway, environment, gateway, effective.unwrap_or_else(|| SystemClock.now()))?;
        let (_, levels) = trust(&gateway.gateway, gateway)?;
        Ok(Self { judge, levels, scanner: Err(no_scanner(gateway)) })
    }

    /// With the scanner that the gateway names. A gate that can't scan is undecided and on record, like any other that could not look.
    pub(crate) fn with_scanner(self, wired: &Wired, gateway: &GatewayFolder, flag: Option<&Path>) -> Self {
        let scanner = match &gateway.gateway.scanner {
            Some(trivy) => wired
                .executor()
                .and_then(|executor| wired.scanner(&executor, trivy, &gateway.folder, flag, self.judge.name.as_str())),
            None => Err(no_scanner(gateway)),
        };
        Self { scanner, ..self }
    }

    /// Asks the gate and does what it says.
    pub(crate) fn promote(&self, with: &With<'_>, asked: &Asked<'_>) -> Result<Answered, Problem> {
        let With { ports, wired, gateway, trust, records, passphrase } = *with;
        let key = gateway.gateway.signing.decisions.get(&self.judge.name).cloned().unwrap_or_default();
        let decisions = || wired.signer(&key, passphrase);
        let environments = EnvironmentPlaces::of(&gateway.gateway, &gateway.folder);
        let scans = wired.scan_index();
        let request = PromoteRequest {
            reference: asked.image,
            folder: Path::new("."),
            gateway_folder: &gateway.folder,
            environments: &environments,
            judge: &self.judge,
            files: gateway,
            trust,
            levels: &self.levels,
            scanner: self.scanner.as_ref().map(|scanner| scanner as &dyn Scanner).map_err(Problem::text),
            scans: Some(&scans),
            evaluator: &PolicyChild,
            records,
            decisions: &decisions,
            scratch: wired.scratch(),
            dry_run: asked.dry_run,
            effective: asked.effective,
            rollback: asked.rollback,
            compat_cosign2: asked.compat_cosign2,
        };
        flow(ports, &request).map_err(|failed| Problem::from(*failed.error).recorded(failed.record))
    }

    /// What lets the gate scan.
    fn to_scan(&self) -> &str {
        let hint = self.scanner.as_ref().err().and_then(Problem::hint);
        hint.unwrap_or("mend what kept the scanner from it, as said below")
    }

    /// Says how it ended; `again` is the command to type once that is fixed.
    pub(crate) fn print(
        &self,
        words: &Words,
        answered: &Answered,
        asked: &Asked<'_>,
        gateway: &GatewayFolder,
        again: &str,
    ) {
        let promoted = &answered.promoted;
        let environment = &self.judge.name;
        let place = self.judge.environment.repository.seen_from(&gateway.folder);
        let again = || words.line(printable(&format!("  next: fix that, then {again}")));
        match promoted {
            Promoted::WouldAllow { image, record, basis } => {
                words.line(format!("{}  {image}", words.good("WOULD BE ALLOWED")));
                print_accepted(words, answered);
                words.line(match basis {
                    Basis::Gate { .. } if asked.effective.is_some() => {
                        "  as of another moment: no decision was signed, and nothing was copied or tagged"
                    }
                    Basis::Gate { .. } => "  a dry run: no decision was signed, and nothing was copied or tagged",
                    Basis::Ungated => "  a dry run: nothing was copied or tagged; this environment has no gate",
                });
                words.line(format!("  recorded: sluicegate evidence show {record}"));
            }
            Promoted::Allowed { image, record, basis } => {
                match basis {
                    Basis::Gate { expires } => {
                        words.line(format!("{}  {image}", words.good("ALLOWED")));
                        print_accepted(words, answered);
                        words.line(format!(
                            "  signed, copied and tagged for {environment}; the decision expires {expires}"
                        ));
                    }
                    Basis::Ungated => {
                        words.line(format!("{}  {image}", words.open("UNGATED")));
                        words.line(format!(
                            "  copied and tagged for {environment}, which has no gate: nothing was asked, and nobody vouches for it"
                        ));
                    }
                }
                words.line(format!("  recorded: sluicegate evidence show {record}"));
                let flag = if place.folder().is_some() { "--offline " } else { "" };
                words.line(format!("  next: sluicegate verify {flag}{place}@{}", image.digest));
            }
            Promoted::Denied { image, denials, record } => {
                words.line(format!("{}  {image} for {environment}", words.bad("DENIED")));
                for denial in denials {
                    print_denial(words, denial.platform.as_deref(), denial);
                }
                print_accepted(words, answered);
                words.line("  denied: nothing was promoted");
                words.line(format!("  recorded: sluicegate evidence show {record}"));
                words.line(format!("  again, offline: sluicegate policy eval --record {record}"));
                again();
            }
            Promoted::Undecided { image, reasons, record } => {
                words.line(format!("{}  {image} for {environment}", words.open("UNDECIDED")));
                let mut said = String::new();
                for reason in reasons {
                    words.line(format!("  {}", printable(&reason.to_string())));
                    // What mends many reasons at once is said at the first.
                    if let Some(remedy) = remedy(reason, asked.image, self.to_scan()).filter(|remedy| *remedy != said) {
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

    /// The same for programs.
    pub(crate) fn document(&self, answered: &Answered, asked: &Asked<'_>) -> serde_json::Value {
        let environment = &self.judge.name;
        let mut document = match &answered.promoted {
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
                "denials": denials.iter().map(|said| {
                    let mut one = denial(said);
                    one["platform"] = json!(said.platform);
                    one
                }).collect::<Vec<_>>(),
            }),
            Promoted::Undecided { image, reasons, record } => json!({
                "schemaVersion": 1, "verdict": "undecided", "image": image, "environment": environment, "record": record,
                "reasons": reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "solutions": reasons.iter().map(|reason| remedy(reason, asked.image, self.to_scan())).collect::<Vec<_>>(),
            }),
        };
        if let Some(moment) = asked.effective {
            document["effectiveTime"] = json!(moment);
            document["dryRun"] = json!(true);
        }
        if !answered.exceptions.is_empty() {
            let exception = |of: &OfPlatform<ExceptionUse>| {
                let mut one = json!(of.said);
                one["platform"] = json!(of.platform);
                one
            };
            document["exceptions"] = answered.exceptions.iter().map(exception).collect();
            document["waived"] = answered
                .waived
                .iter()
                .map(|of| {
                    json!({
                        "platform": of.platform, "code": of.denial.code, "msg": of.denial.violation.msg,
                        "term": of.denial.violation.term, "subject": of.denial.violation.subject, "by": of.by,
                    })
                })
                .collect();
        }
        document
    }
}

fn no_scanner(gateway: &GatewayFolder) -> Problem {
    Problem::usage("the gateway names no scanner", gateway.how_to_add_a_scanner())
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
        Reason::ForeignTests(_) => {
            "let a step report tests that reads only sources and outputs from which the image is made, then sluicegate run".to_owned()
        }
        Reason::NoScan => to_scan.to_owned(),
        Reason::Database(_) => format!(
            "get the newest (trivy image --download-db-only --cache-dir CACHE) and pin it under scanner: of the gateway file: \
             {ADD_SCANNER} prints what to write there"
        ),
        Reason::Coverage(_) => {
            "take out of the image what the scanner cannot read, or put it there in a form that it reads; or let the gate's owners \
             accept it for a while under coverage: of the gateway file, by this digest"
                .to_owned()
        }
        Reason::EmptySbom => {
            "build on a base whose packages are on record in it, as in those of sluicegate image from-host".to_owned()
        }
        Reason::Policy(_) => "mend the policies and the data that the gateway file names for this gate".to_owned(),
        Reason::Lacking { .. } => {
            "bring the evidence that these facts are made of, or mend custom.requires_fields of the rule".to_owned()
        }
        Reason::Silent(_) => {
            "mend the rule: it must pass or deny, whatever the image; policies/README.md shows how".to_owned()
        }
    })
}

/// How a promotion ended, for other programs.
fn report(answered: &Answered) -> Report {
    let mut report = Report { title: "promote".to_owned(), ..Report::default() };
    report.items = match &answered.promoted {
        Promoted::Allowed { image, .. } | Promoted::WouldAllow { image, .. } => vec![Item {
            code: "promote".to_owned(),
            name: image.to_string(),
            level: Level::Pass,
            message: format!("{image} is allowed"),
            place: None,
            solution: None,
        }],
        Promoted::Denied { denials, .. } => {
            denials.iter().map(|denial| Item::of_denial(denial.platform.as_deref(), denial)).collect()
        }
        Promoted::Undecided { reasons, .. } => {
            reasons.iter().map(|reason| Item::open(reason.platform.as_deref(), &reason.said.to_string())).collect()
        }
    };
    report
}

/// Says what the decision rests on that somebody accepts: each waiver and each gap, with who answers for it and until when.
fn print_accepted(words: &Words, answered: &Answered) {
    for exception in answered.exceptions.iter().filter(|exception| exception.status == Status::Applied) {
        let by = &exception.acceptance;
        let what = match &exception.about {
            About::Waiver { code, term, package, .. } => {
                let of: Vec<&str> = term.iter().chain(package).map(String::as_str).collect();
                format!("{code}, {} ({} denied)", of.join(" in "), exception.applied)
            }
            About::Coverage { digest, gap } => {
                format!("{} of {digest}", gap.as_deref().unwrap_or("the gap"))
            }
        };
        let of = exception.platform.as_ref().map(|of| format!("{of}: ")).unwrap_or_default();
        words.line(format!("  {}  {}", words.open("accepted"), printable(&format!("{of}{what}"))));
        words.line(printable(&format!(
            "    by {}, approved by {}, until {}: {}",
            by.owner, by.approver, by.expires, by.reason
        )));
        words.line(printable(&format!("    in {}", exception.place)));
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
