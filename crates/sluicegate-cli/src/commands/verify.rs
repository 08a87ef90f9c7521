use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};
use sluicegate_flow::{
    Failure,
    admit::{Admission, Near, Presented, Refusal, admit},
    gateway::{Judge, judge_of, trust, trust_in_keys},
    verify::{VerifyReport, verify as verify_image},
    verify_index::IndexReport,
};
use sluicegate_pipeline::gateway::Gateway;
use sluicegate_ports::Clock;
use sluicegate_types::{
    Digest, EnvironmentName, ImageError, ImageRef, NonEmpty, Place, RegistryRepository, Repository,
};
use sluicegate_verify::{Trust, closed_set::Incomplete};

use super::{later, verify_file::verify_file};
use crate::{
    arguments::{Verify, meant},
    gateway_folder::{GatewayFolder, read},
    wire::{self, SystemClock},
    words::{Problem, Words, code, printable, shell_word},
};

/// `verify`: opens the image's place, the trust files, and nothing else: no home and no key, and no socket for a layout.
pub(crate) fn verify(words: &Words, arguments: &Verify) -> Result<ExitCode, Problem> {
    let flags = &arguments.later;
    later("--policy", flags.policy.is_some())?;
    later("--certificate-identity", flags.certificate_identity.is_some())?;
    later("--certificate-oidc-issuer", flags.certificate_oidc_issuer.is_some())?;
    if let Some(bundle) = &arguments.bundle {
        let [file] = arguments.subjects.as_slice() else {
            return Err(Problem::usage(
                format!("--bundle is about one file, and {} are named", arguments.subjects.len()),
                "verify each file with its own bundle",
            ));
        };
        return verify_file(words, file, bundle, &trust_of(arguments)?.0);
    }
    let environment = asked_about(arguments)?;
    let images = arguments.subjects.iter().map(|text| reference(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(image) = images.iter().find(|image| arguments.offline && image.place.folder().is_none()) {
        return Err(Problem::usage(
            format!("{image} is in a registry, and --offline asks nobody"),
            "leave --offline out, or bring the image here first: sluicegate copy IMAGE oci:DIR",
        ));
    }
    let ((trust, evidence), asked) = match environment {
        None => (trust_of(arguments)?, None),
        Some((gateway, environment)) => {
            let judge = judge_of(&gateway.gateway, &environment, &gateway, SystemClock.now())?;
            let ways = Ways::of(arguments, &gateway, &judge);
            (
                (trust(&believed(arguments, &gateway)?, &gateway)?.0, gateway.gateway.evidence.clone()),
                Some((judge, ways)),
            )
        }
    };
    let places = wire::places().with_evidence(arguments.evidence.clone().or(evidence));
    let repository = asked.as_ref().map(|(judge, _)| judge.repository());
    let at = SystemClock.now();
    let mut worst: Option<Failure> = None;
    let mut documents = Vec::new();
    for reference in &images {
        let report = match verify_image(&places, reference, Path::new("."), &trust, repository.as_ref(), at) {
            Ok(report) => report,
            Err(error) if images.len() == 1 => return Err(error.into()),
            // One that can't be read says nothing about the others.
            Err(error) => {
                worst = [worst, Some(error.failure())].into_iter().flatten().max_by_key(|failure| code(*failure));
                let problem = Problem::from(error);
                if words.json() {
                    let mut document = problem.document();
                    document["reference"] = json!(reference.to_string());
                    documents.push(document);
                } else {
                    words.line(format!("{}  {}", words.bad("NOT VERIFIED"), printable(&reference.to_string())));
                    problem.lines().iter().for_each(|line| words.line(format!("  {}", printable(line))));
                }
                continue;
            }
        };
        let admitted = asked.as_ref().map(|(judge, ways)| {
            let found_in = Repository::of_registry(&reference.place);
            (judge, ways, admit(&Presented::of(&report), judge, &trust, at, found_in.as_ref()))
        });
        let failure = report.failure().or(match admitted {
            Some((.., Err(_))) => Some(Failure::Undecided),
            Some((.., Ok(_))) | None => None,
        });
        if words.json() {
            let mut document = report.to_json();
            document["reference"] = json!(reference.to_string());
            if let Some((judge, ways, admitted)) = &admitted {
                document["for"] = admission(judge, ways, report.image, admitted);
            }
            documents.push(document);
        } else {
            let named = (images.len() > 1).then(|| reference.to_string());
            print(words, &report, named.as_deref());
            if let Some(index) = &report.index {
                print_index(words, index);
            }
            match &admitted {
                None => words.line("  authenticity and completeness only: no gate was asked"),
                Some((judge, ways, admitted)) => print_admission(words, judge, ways, report.image, admitted),
            }
        }
        worst = [worst, failure].into_iter().flatten().max_by_key(|failure| code(*failure));
    }
    if words.json() {
        words.document(&match documents.as_slice() {
            [one] => one.clone(),
            several => json!({"schemaVersion": 1, "images": several}),
        });
    }
    Ok(worst.map_or(ExitCode::SUCCESS, |failure| ExitCode::from(code(failure))))
}

/// The gateway and environment of `--for`.
fn asked_about(arguments: &Verify) -> Result<Option<(GatewayFolder, EnvironmentName)>, Problem> {
    let Some(environment) = &arguments.environment else { return Ok(None) };
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    Ok(Some((gateway, environment.clone())))
}

/// The gateway with the trust file and the logs of whoever asks, where these are named.
fn believed(arguments: &Verify, gateway: &GatewayFolder) -> Result<Gateway, Problem> {
    let whole = |path: &Path| std::path::absolute(path).map_err(|error| Problem::io("find", path, &error));
    let mut own = gateway.gateway.clone();
    if let Some(file) = &arguments.trust {
        own.trust = whole(file)?;
    }
    if let Some(root) = &arguments.trust_root {
        own.trust_root = whole(root)?;
    }
    Ok(own)
}

type Admitted = Result<Admission, NonEmpty<Refusal>>;

/// What may be done about an image that is not admitted.
struct Ways {
    environment: EnvironmentName,
    /// The environment's place.
    place: Place,
    /// The trust file that is asked, and whether it is another one than the gateway's own.
    trust: PathBuf,
    own_trust: bool,
    /// `--gateway` as it was typed.
    gateway: String,
}

impl Ways {
    fn of(arguments: &Verify, gateway: &GatewayFolder, judge: &Judge) -> Self {
        let in_gateway = |path: &Path| {
            let whole = gateway.folder.join(path);
            whole.strip_prefix(".").map_or_else(|_| whole.clone(), Path::to_owned)
        };
        let typed = arguments.gateway.gateway.as_ref();
        Self {
            environment: judge.name.clone(),
            place: judge.environment.repository.seen_from(&gateway.folder),
            trust: arguments.trust.clone().unwrap_or_else(|| in_gateway(&gateway.gateway.trust)),
            own_trust: arguments.trust.is_some(),
            gateway: typed
                .map(|path| format!(" --gateway {}", shell_word(&path.display().to_string())))
                .unwrap_or_default(),
        }
    }

    /// What to do about a reason of `admit`, where something can be done here.
    fn remedy(&self, reason: &Refusal, image: Digest) -> Option<String> {
        let promote = format!(
            "sluicegate promote PLACE@{image} --to {}{}, with the layout (oci:DIR) or repository that it was built in for PLACE",
            self.environment, self.gateway
        );
        Some(match reason {
            Refusal::Set(_) => return None,
            Refusal::Repository { .. } => format!("ask about {}", self.place),
            Refusal::Nothing { .. } => format!("ask about {}, or promote it: {promote}", self.place),
            Refusal::Statement { why, .. } => match why {
                Near::Unreadable(_) | Near::Denial | Near::Future(_) | Near::NoSet => return None,
                Near::Elsewhere(_) | Near::Gated => format!("promote it: {promote}"),
                Near::Gateway(_) | Near::Expired(_) | Near::Uncovered => {
                    format!("promote again under this gateway: {promote}")
                }
                Near::Authority { .. } => {
                    let (trust, say) = (self.trust.display(), "say authority_self: true in");
                    if self.own_trust {
                        format!("if whoever decides there may be believed about themselves, {say} {trust}")
                    } else {
                        format!(
                            "if whoever decides there may be believed about themselves, {say} {trust} and then promote again, as \
                             decisions are of that file too: {promote}; or name another trust file, which takes them, with --trust"
                        )
                    }
                }
            },
        })
    }
}

fn admission(judge: &Judge, ways: &Ways, image: Digest, admitted: &Admitted) -> Value {
    match admitted {
        Ok(admission) => json!({
            "environment": judge.name, "admitted": true, "basis": if judge.gate.is_some() { "decision" } else { "ungated" },
            "statement": admission.statement, "signer": admission.signer, "expires": admission.expires,
            "gateway": judge.gateway,
        }),
        Err(reasons) => json!({
            "environment": judge.name, "admitted": false, "gateway": judge.gateway,
            "reasons": reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "solutions": reasons.iter().map(|reason| ways.remedy(reason, image)).collect::<Vec<_>>(),
        }),
    }
}

fn print_admission(words: &Words, judge: &Judge, ways: &Ways, asked: Digest, admitted: &Admitted) {
    match admitted {
        Ok(Admission { image, statement, signer, expires: Some(expires) }) => {
            words.line(format!("{}  {image}", words.good("ADMITTED")));
            words.line(format!("  decided for {} by {signer}: {statement}, until {expires}", judge.name));
        }
        Ok(Admission { image, statement, signer, expires: None }) => {
            words.line(format!("{}  {image}", words.open("UNGATED")));
            words.line(format!("  {} has no gate; {signer} recorded the promotion: {statement}", judge.name));
        }
        Err(reasons) => {
            words.line(format!("{}  for {}", words.open("NOT ADMITTED"), judge.name));
            let mut said = String::new();
            for reason in reasons.iter() {
                words.line(format!("  {}", printable(&reason.to_string())));
                // What mends many reasons at once is said at the first.
                if let Some(remedy) = ways.remedy(reason, asked).filter(|remedy| *remedy != said) {
                    words.line(format!("    to fix: {}", printable(&remedy)));
                    said = remedy;
                }
            }
        }
    }
    words.line("  no policy was asked: what was decided earlier counts");
}

/// The image that a word names. A file is told apart, as its statements stand in a bundle beside it.
fn reference(text: &str) -> Result<ImageRef, Problem> {
    let parsed = text.parse::<ImageRef>();
    if !text.starts_with("oci:") && (text.parse::<Digest>().is_ok() || Path::new(text).is_file()) {
        return Err(Problem::usage(
            format!("{text} is no image, and a file needs --bundle"),
            format!("sluicegate verify {text} --bundle BUNDLE; an image is written oci:DIR or HOST/REPOSITORY:TAG"),
        ));
    }
    if let Some(meant) = meant(text, &parsed) {
        let text = format!("{text} is a folder, and a layout is written with oci: before it");
        return Err(Problem::usage(text, format!("did you mean {meant}?")));
    }
    parsed.map_err(|error: ImageError| {
        Problem::usage(
            error.to_string(),
            "write oci:DIR, oci:DIR:TAG or oci:DIR@sha256:HEX, or HOST/REPOSITORY with :TAG or @sha256:HEX; a file needs --bundle",
        )
    })
}

/// Whom to believe, and where a gateway says that evidence is.
fn trust_of(arguments: &Verify) -> Result<(Trust, Option<RegistryRepository>), Problem> {
    if let Some(root) = &arguments.trust_root {
        let read_key = |path: &Option<PathBuf>| {
            let read = |path: &PathBuf| read(path).map_err(|error| Problem::named("read the key", path, &error));
            path.as_ref().map(read).transpose()
        };
        if arguments.key.is_none() && arguments.decision_key.is_none() {
            return Err(Problem::usage(
                "--trust-root says which logs count, and no key is named",
                "name one with --key or --decision-key",
            ));
        }
        let (steps, decisions) = (read_key(&arguments.key)?, read_key(&arguments.decision_key)?);
        let root = read(root).map_err(|error| Problem::named("read the trusted root", root, &error))?;
        return Ok((trust_in_keys(steps.as_deref(), decisions.as_deref(), &root)?, None));
    }
    let missing = "name one with --gateway, or a key with --key and --trust-root";
    let gateway = GatewayFolder::open_or(arguments.gateway.gateway.as_deref(), Path::new("."), missing)?;
    Ok((trust(&gateway.gateway, &gateway)?.0, gateway.gateway.evidence.clone()))
}

/// `reference` is what was asked about, where it is one of several.
fn print(words: &Words, report: &VerifyReport, reference: Option<&str>) {
    let head = match report.failure() {
        None => words.good("VERIFIED"),
        Some(Failure::Wrong) => words.bad("NOT VERIFIED"),
        Some(_) => words.open("INCOMPLETE"),
    };
    let asked = reference.map(|reference| format!("  {}", printable(reference))).unwrap_or_default();
    words.line(format!("{head}  {}{asked}", report.image));
    for statement in report.statements() {
        // What is missing or broken and is a reason of its own stands below, once.
        let bundle = statement["bundle"].as_str().unwrap_or_default();
        let is_reason = |(_, text): &(&str, String)| text.contains(bundle);
        if statement["status"] == "verified"
            || statement["status"] == "ignored"
            || !report.reasons().iter().any(is_reason)
        {
            words.line(printable(&statement_line(statement)));
        }
    }
    // Of an index, what it names has to be proved.
    let reasons = report.followed.incomplete.iter().zip(report.reasons()).filter(|_| report.index.is_none());
    for (reason, (_, text)) in reasons {
        let label = match reason {
            Incomplete::NoProvenance { .. } | Incomplete::Missing { .. } => "missing ",
            Incomplete::Broken { .. } => "false   ",
            Incomplete::Unlinked { .. } => "unlinked",
        };
        words.line(format!("  {}  {}", words.bad(label), printable(text)));
        let mut source = std::error::Error::source(reason);
        while let Some(cause) = source {
            words.line(format!("           because: {}", printable(&cause.to_string())));
            source = cause.source();
        }
    }
    let ignored = report.statements().iter().filter(|statement| statement["status"] == "ignored").count();
    if ignored > 0 {
        words.line(format!("  {ignored} attached and ignored"));
    }
    if report.followed.unlooked > 0 {
        words.line(format!("  {} statements of known signers were not looked at", report.followed.unlooked));
    }
}

/// What an index names, each image by itself.
fn print_index(words: &Words, index: &IndexReport) {
    if index.platforms.is_empty() {
        words.line(format!("  {}  the index names no image", words.bad("missing ")));
    }
    for platform in &index.platforms {
        print(words, &platform.report, Some(&platform.name()));
    }
    for unsigned in &index.unsigned {
        let types: Vec<&str> =
            unsigned["predicateTypes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let digest = unsigned["digest"].as_str().unwrap_or_default();
        words.line(printable(&format!("  unsigned  {digest} holds {}: listed, never a fact", types.join(", "))));
    }
}

/// One statement of a report on one line.
pub(super) fn statement_line(statement: &Value) -> String {
    let text = |key: &str| statement[key].as_str().unwrap_or_default().to_owned();
    match statement["status"].as_str() {
        Some("ignored") => return format!("  ignored   {}: {}", text("bundle"), text("reason")),
        Some("missing") => return format!("  missing   {} {}", text("name"), text("bundle")),
        Some("broken") => return format!("  broken    {} {}: {}", text("name"), text("bundle"), text("reason")),
        _ => {}
    }
    let subjects: Vec<&str> =
        statement["subjects"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
    let beside = match (&statement["beside"], statement["gateScan"] == true) {
        (Value::String(_), true) => "  (the gate's own scan)",
        (Value::String(_), false) => "  (named by no provenance)",
        _ => "",
    };
    format!(
        "  verified  {:<20} of {:<24} by {:<10} log {} of {}{beside}",
        text("kind"),
        if subjects.is_empty() { "(no name)".to_owned() } else { subjects.join(", ") },
        text("signer"),
        statement["log"]["index"],
        statement["log"]["origin"].as_str().unwrap_or_default()
    )
}
