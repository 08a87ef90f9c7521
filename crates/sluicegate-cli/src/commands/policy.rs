//! `policy check`, `test`, `eval`, `explain` and `diff`: what authors of policies work with. Nothing here makes a permit.

use std::{collections::BTreeSet, io::Read, path::Path, process::ExitCode};

use serde_json::{Value, json, value::RawValue};
use sluicegate_attestation::predicate::PredicateType;
use sluicegate_flow::{
    Error, Failure,
    gate::{self, Case, Decision},
    gateway::GateRules,
    replay::again,
};
use sluicegate_pipeline::waivers::{self, Accepted};
use sluicegate_policy::{
    exceptions::{self, Exceptions, Findings, KnownFinding, Listed, Waived},
    judge::{Rehearsal, Verdict, Word, rehearse},
    lint::Severity,
    read_data,
    rego::{EvaluationRequest, RuleAnswer, RuleDeclaration, SourceFile, check_files},
    rego_tests::{FileCoverage, RegoTest, TestRequest},
};
use sluicegate_ports::{Clock, evidence::RecordKind, store::ContentStore};
use sluicegate_types::{Digest, UnixTime};

use crate::{
    arguments::{Format, Policy, PolicyCommand, PolicyFiles, Records},
    gateway_folder::read,
    home::Home,
    policy_child::PolicyChild,
    policy_files::{AuthorsFiles, source},
    report::{Item, Level, Report},
    wire::{self, SystemClock},
    words::{DENIED, Problem, Words, code, printable},
};

/// Denials that are told to a person, and that a program gets: whoever is judged chooses how many there are.
const MAX_TOLD: usize = 100;
const MAX_LISTED: usize = 500;
/// Characters of what is said of one.
const MAX_WORDS: usize = 2_000;
/// Bytes of facts.
const MAX_FACTS: u64 = 64 * 1024 * 1024;

/// `policy …`.
pub(crate) fn policy(words: &Words, arguments: &Policy, format: Format) -> Result<ExitCode, Problem> {
    match &arguments.command {
        PolicyCommand::Check(files) => check(words, files, format),
        PolicyCommand::Test { files, filter, coverage, threshold } => {
            let asked = Tests { filter: filter.as_deref(), coverage: *coverage, threshold: *threshold };
            test(words, files, &asked, format)
        }
        PolicyCommand::Eval { files, input, record, facts, waivers, effective_time } => match (input, record) {
            (Some(input), _) => {
                let asked = FromFile { input, waivers: waivers.as_deref(), at: *effective_time };
                eval_file(words, files, &asked, format)
            }
            (None, Some(number)) if *facts => print_facts(words, *number),
            (None, Some(number)) => eval_record(words, files, *number, *effective_time, format),
            (None, None) => Err(Problem::usage("neither --input nor --record", "name the facts to ask about")),
        },
        PolicyCommand::Explain { code, files } => explain(words, code, files),
        PolicyCommand::Diff { old, new, over, data } => diff(words, (old, new), *over, data, format),
    }
}

fn check(words: &Words, files: &PolicyFiles, format: Format) -> Result<ExitCode, Problem> {
    let AuthorsFiles { policies, data } = AuthorsFiles::of(files, false)?;
    let (count, rules) = (policies.len(), PolicyChild.rules(policies.clone()).unwrap_or_default());
    let findings = PolicyChild.check(policies, data).map_err(Error::from)?;
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "files": count, "rules": rules.iter().map(|rule| &rule.code).collect::<Vec<_>>(),
            "findings": findings, "ok": !failed,
        }));
    } else if format == Format::Table {
        for finding in &findings {
            let mark = match finding.severity {
                Severity::Error => words.bad("error"),
                Severity::Warning => words.open("warning"),
            };
            let place = finding.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            words.line(format!("{}{mark}: {}", printable(&place), printable(&finding.message)));
        }
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let summary =
            format!("{count} files, {} rules: {errors} errors, {} warnings", rules.len(), findings.len() - errors);
        words.line(if failed { words.bad(&summary) } else { words.good(&summary) });
    }
    let items = findings.iter().map(|finding| Item {
        code: finding.kind.clone(),
        name: finding.place.as_ref().map_or_else(|| finding.kind.clone(), ToString::to_string),
        level: if finding.severity == Severity::Error { Level::Error } else { Level::Warning },
        message: finding.message.clone(),
        place: finding.place.clone(),
        solution: None,
    });
    Report { title: "policy check".to_owned(), rules, items: items.collect() }.print(words, format);
    Ok(ExitCode::from(if failed { DENIED } else { 0 }))
}

/// Which tests are run, and what is asked of them.
struct Tests<'a> {
    filter: Option<&'a str>,
    coverage: bool,
    threshold: Option<u8>,
}

fn test(words: &Words, files: &PolicyFiles, asked: &Tests<'_>, format: Format) -> Result<ExitCode, Problem> {
    let AuthorsFiles { policies, data } = AuthorsFiles::of(files, true)?;
    let request =
        TestRequest { files: policies, data, filter: asked.filter.map(str::to_owned), coverage: asked.coverage };
    let results = PolicyChild.test(request).map_err(Error::from)?;
    let failed: Vec<&RegoTest> = results.tests.iter().filter(|test| test.failure.is_some()).collect();
    let reached = asked.coverage.then(|| percent(&results.coverage));
    let too_little = asked.threshold.zip(reached).is_some_and(|(threshold, reached)| reached < f64::from(threshold));
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "tests": results.tests, "coverage": results.coverage, "covered": reached,
            "ok": failed.is_empty() && !too_little,
        }));
    } else if format == Format::Table {
        print_tests(words, &results.tests, &failed);
        for file in &results.coverage {
            let of_file = percent(std::slice::from_ref(file));
            words.line(format!("{:>6.1} %  {}{}", of_file, printable(&file.file), unreached(file)));
        }
        if let Some(reached) = reached {
            let line = format!("{reached:>6.1} %  of all lines");
            words.line(if too_little { words.bad(&line) } else { line });
        }
    }
    let items = results.tests.iter().map(|test| Item {
        code: test.name.rsplit_once('.').map_or(test.name.as_str(), |(package, _)| package).to_owned(),
        name: test.name.rsplit_once('.').map_or(test.name.as_str(), |(_, name)| name).to_owned(),
        level: match (&test.failure, test.todo) {
            (Some(_), _) => Level::Error,
            (None, true) => Level::Skipped,
            (None, false) => Level::Pass,
        },
        message: format!("{}: {}", test.name, test.failure.as_deref().unwrap_or("passed")),
        place: Some(crate::report::place_of(&format!("{}:{}", test.file, test.line))),
        solution: None,
    });
    Report { title: "policy test".to_owned(), rules: Vec::new(), items: items.collect() }.print(words, format);
    if too_little {
        words.warn(&format!(
            "{:.1} % of the lines were reached, less than {} %",
            reached.unwrap_or_default(),
            asked.threshold.unwrap_or_default()
        ));
    }
    Ok(ExitCode::from(if failed.is_empty() && !too_little { 0 } else { DENIED }))
}

fn print_tests(words: &Words, tests: &[RegoTest], failed: &[&RegoTest]) {
    for test in failed {
        let failure = test.failure.as_deref().unwrap_or_default();
        words.line(format!("{}  {}", words.bad("FAIL"), printable(&test.name)));
        words.line(printable(&format!("  {}:{}: {failure}", test.file, test.line)));
        for line in &test.printed {
            words.line(printable(&format!("  {line}")));
        }
    }
    let todo = tests.iter().filter(|test| test.todo).count();
    let summary = format!(
        "{} tests: {} passed, {} failed, {todo} to do",
        tests.len(),
        tests.len() - failed.len() - todo,
        failed.len()
    );
    words.line(if failed.is_empty() { words.good(&summary) } else { words.bad(&summary) });
}

/// How much of the lines that could be reached was.
fn percent(files: &[FileCoverage]) -> f64 {
    let covered: usize = files.iter().map(|file| file.covered.len()).sum();
    let all: usize = covered + files.iter().map(|file| file.uncovered.len()).sum::<usize>();
    if all == 0 { 100.0 } else { covered as f64 * 100.0 / all as f64 }
}

/// The first lines that no test reached.
fn unreached(file: &FileCoverage) -> String {
    match file.uncovered.as_slice() {
        [] => String::new(),
        lines => {
            let some: Vec<String> = lines.iter().take(12).map(ToString::to_string).collect();
            let more = if lines.len() > 12 { format!(" and {} more", lines.len() - 12) } else { String::new() };
            format!("  (not lines {}{more})", some.join(", "))
        }
    }
}

/// Facts in a file.
struct FromFile<'a> {
    input: &'a Path,
    waivers: Option<&'a Path>,
    at: Option<UnixTime>,
}

fn eval_file(words: &Words, files: &PolicyFiles, asked: &FromFile<'_>, format: Format) -> Result<ExitCode, Problem> {
    let AuthorsFiles { policies, data } = AuthorsFiles::of(files, false)?;
    check_files(&policies, &data).map_err(Error::from)?;
    let text = facts_text(asked.input)?;
    let wrong = |reason: String| {
        let hint = "facts are one JSON object, as sluicegate policy eval --record NUMBER --facts prints them";
        Problem::usage(format!("{}: {reason}", asked.input.display()), hint)
    };
    // As strictly as data: a key given twice means two things to two readers.
    let document = SourceFile { name: format!("{}.json", asked.input.display()), text };
    let mut facts = read_data(&document).map_err(|error| wrong(error.to_string()))?;
    if !facts.is_object() {
        return Err(wrong("it is JSON and no object".to_owned()));
    }
    let now = match asked.at {
        Some(moment) => moment,
        None => match facts["now"].as_str() {
            Some(text) => text.parse().map_err(|error| wrong(format!("its now: {error}")))?,
            None => SystemClock.now(),
        },
    };
    facts["now"] = json!(now);
    let exceptions = exceptions_of(asked.waivers, now)?;
    let input = RawValue::from_string(facts.to_string()).map_err(|error| wrong(error.to_string()))?;
    let rules =
        sluicegate_flow::gate::RuleEvaluator::evaluate(&PolicyChild, &EvaluationRequest { policies, data, input });
    let mut findings = Findings::default();
    for finding in facts["vulnerabilities"].as_array().into_iter().flatten() {
        let texts = finding["aliases"].as_array().into_iter().flatten();
        let names: Vec<String> = texts.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let place = format!("{} {} in {}", text("package"), text("installed"), text("place"));
        findings.note(text("id"), KnownFinding { purl: text("purl").to_owned(), aliases: names, place });
    }
    let image = facts["subject"]["digest"].as_str().and_then(|digest| digest.parse().ok());
    let case = exceptions::Case {
        image: image.unwrap_or_else(|| Digest::of(b"")),
        environment: facts["target"]["environment"].as_str().unwrap_or_default(),
        repository: facts["target"]["repository"].as_str().unwrap_or_default(),
        findings: &findings,
    };
    let kinds: BTreeSet<PredicateType> = facts["attestations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|attestation| attestation["predicateType"].as_str().map(PredicateType::from_uri))
        .collect();
    let Rehearsal { word, exceptions, waived, mut warnings } = rehearse(&rules, &kinds, &exceptions, case, now);
    let answers = rules.map(|results| {
        warnings.extend(results.warnings.into_iter().map(|warning| warning.msg));
        results.answers
    });
    let said = Said {
        of: asked.input.display().to_string(),
        now,
        answers: answers.unwrap_or_default(),
        word,
        warnings,
        exceptions: json!(exceptions),
        waived: said_of(&waived),
    };
    Ok(said.print(words, format))
}

fn facts_text(input: &Path) -> Result<String, Problem> {
    let bytes = if input == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(MAX_FACTS + 1).read_to_end(&mut bytes);
        read.map_err(|error| Problem::io("read", input, &error))?;
        bytes
    } else {
        read(input).map_err(|error| Problem::named("read the facts", input, &error))?
    };
    if bytes.len() as u64 > MAX_FACTS {
        return Err(Problem::usage(format!("the facts are more than {MAX_FACTS} bytes"), "give fewer"));
    }
    sluicegate_types::utf8(bytes).map_err(|error| Problem::usage(input.display().to_string(), error.to_string()))
}

fn exceptions_of(file: Option<&Path>, now: UnixTime) -> Result<Exceptions, Problem> {
    let Some(path) = file else { return Ok(Exceptions::default()) };
    let SourceFile { name, text } = source(path)?;
    let waivers = waivers::parse(&name, &text).map_err(Error::from)?;
    waivers::check(&waivers, |waiver| &waiver.acceptance, &[], now).map_err(Error::from)?;
    let listed = |Accepted { what, spot }: Accepted<_>| Listed { what, place: spot.file_and_line() };
    Ok(Exceptions { waivers: waivers.into_iter().map(listed).collect(), coverage: Vec::new() })
}

/// What rules said of facts.
struct Said {
    of: String,
    now: UnixTime,
    answers: Vec<RuleAnswer>,
    word: Word,
    warnings: Vec<String>,
    exceptions: Value,
    waived: Vec<Value>,
}

impl Said {
    fn print(&self, words: &Words, format: Format) -> ExitCode {
        let Self { of, now, answers, word, warnings, exceptions, waived } = self;
        if words.json() {
            words.document(&json!({
                "schemaVersion": 1, "verdict": word.as_str(), "of": of, "now": now,
                "rules": answers.iter().map(|answer| json!({
                    "code": answer.rule.code, "rule": answer.rule.place(), "outcome": answer.says().word(),
                })).collect::<Vec<_>>(),
                "denials": match word { Word::Deny(denials) => denials.iter().take(MAX_LISTED).map(denial).collect(), _ => Vec::new() },
                "denialsCount": match word { Word::Deny(denials) => denials.iter().len(), _ => 0 },
                "reasons": match word {
                    Word::Undecided(reasons) => reasons.iter().map(ToString::to_string).collect(), _ => Vec::new(),
                },
                "warnings": warnings, "exceptions": exceptions, "waived": waived,
            }));
        } else if format == Format::Table {
            self.lines(words);
        } else {
            Report::of_verdict("policy eval", answers, word, warnings).print(words, format);
        }
        ExitCode::from(match word {
            Word::Allow => 0,
            Word::Deny(_) => DENIED,
            Word::Undecided(_) => code(Failure::Undecided),
        })
    }

    fn lines(&self, words: &Words) {
        for warning in &self.warnings {
            words.warn(warning);
        }
        let of = printable(&format!("{} at {}", self.of, self.now));
        match &self.word {
            Word::Allow => words.line(format!("{}  {of}", words.good("WOULD BE ALLOWED"))),
            Word::Deny(denials) => {
                words.line(format!("{}  {of}", words.bad("DENIED")));
                denials.iter().take(MAX_TOLD).for_each(|denial| print_denial(words, None, denial));
                if denials.iter().len() > MAX_TOLD {
                    words.line(format!(
                        "  and {} more; -o json has {MAX_LISTED} of them",
                        denials.iter().len() - MAX_TOLD
                    ));
                }
            }
            Word::Undecided(reasons) => {
                words.line(format!("{}  {of}", words.open("UNDECIDED")));
                reasons.iter().for_each(|reason| words.line(printable(&format!("  {reason}"))));
            }
        }
        for one in &self.waived {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            words.line(printable(&format!("  waived by {}: {}: {}", text("by"), text("code"), text("msg"))));
        }
        let passed = self.answers.iter().filter(|answer| answer.says().word() == "pass").count();
        words.line(format!("  {passed} of {} rules pass; nothing was promoted", self.answers.len()));
    }
}

/// A denial with all that is known about it. Of an index, `platform` says of which image.
pub(crate) fn print_denial(words: &Words, platform: Option<&str>, denial: &sluicegate_policy::judge::Denial) {
    let of = platform.map(|platform| format!("{platform}: ")).unwrap_or_default();
    let violation = &denial.violation;
    let exactly: Vec<&str> = violation.term.iter().chain(&violation.subject).map(String::as_str).collect();
    let unsaid = exactly.iter().any(|part| !violation.msg.contains(part));
    let exactly = if unsaid { format!(" ({})", exactly.join(" in ")) } else { String::new() };
    let said: String = printable(&format!("{of}{}{exactly}", violation.msg)).chars().take(MAX_WORDS).collect();
    words.line(format!("  {}: {said}", words.bad(&denial.code)));
    let place = denial.violation.clause.as_deref().unwrap_or(&denial.rule);
    words.line(format!("    rule:     {} ({})", printable(&denial.title), printable(place)));
    if let Some(evidence) = denial.violation.fields.get("attestation").and_then(Value::as_str) {
        words.line(format!("    evidence: {}", printable(evidence)));
    }
    // What the rule says itself is not said twice.
    let found = denial.found.iter().filter(|place| !violation.msg.contains(*place)).map(String::as_str);
    let found: Vec<&str> = found.collect();
    if !found.is_empty() {
        words.line(
            printable(&format!("    found:    {}", found.join(", "))).chars().take(MAX_WORDS).collect::<String>(),
        );
    }
    if let Some(near) = &denial.near {
        words.line(format!("    nearest:  {}", printable(near)));
    }
    words.line(format!("    to fix:   {}", printable(&denial.solution)));
}

/// The same for programs.
pub(crate) fn denial(denial: &sluicegate_policy::judge::Denial) -> Value {
    let violation = &denial.violation;
    json!({
        "code": denial.code, "title": denial.title, "msg": cut(&violation.msg), "term": violation.term, "subject": violation.subject,
        "solution": denial.solution, "rule": denial.rule, "clause": violation.clause,
        "attestation": violation.fields.get("attestation"), "near": denial.near, "found": denial.found, "fields": violation.fields,
    })
}

/// The beginning of a text that somebody else chose.
fn cut(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

/// Everything of a home that a recorded decision is made again from.
struct Recorded {
    evidence: sluicegate_evidence::SqliteEvidence,
    ledger: sluicegate_sigstore::EmbeddedLedger,
    store: sluicegate_store::FileStore,
}

impl Recorded {
    fn open() -> Result<Self, Problem> {
        let home = Home::read()?;
        let evidence = wire::evidence_there(&home)?;
        Ok(Self { evidence, ledger: wire::whole_ledger_reader(&home)?, store: wire::store(&home)? })
    }

    /// The decision of a record, made again by `act`.
    fn again<T>(&self, number: u64, act: impl FnOnce(&Case<'_>) -> T) -> Result<T, Error> {
        again(wire::records(&self.evidence), &self.ledger, &self.store, number, |case, _| act(case))
    }
}

fn print_facts(words: &Words, number: u64) -> Result<ExitCode, Problem> {
    let recorded = Recorded::open()?;
    let record = wire::records(&recorded.evidence).show(number).map_err(Error::from)?;
    let facts = record.body["facts"].as_str().and_then(|digest| digest.parse::<Digest>().ok()).ok_or_else(|| {
        let hint =
            "sluicegate evidence list shows which records are decisions; of an index, ask about its images' records";
        Problem::usage(format!("evidence record {number} has no facts"), hint)
    })?;
    let bytes = recorded.store.read(&facts, MAX_FACTS).map_err(Error::from)?;
    let facts: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::wrong(format!("the facts {facts} cannot be read: {error}"), "see evidence fsck"))?;
    words.document(&facts);
    Ok(ExitCode::SUCCESS)
}

fn eval_record(
    words: &Words,
    files: &PolicyFiles,
    number: u64,
    at: Option<UnixTime>,
    format: Format,
) -> Result<ExitCode, Problem> {
    if at.is_some() {
        let hint = "write the facts to a file (--facts) and ask about that with --input";
        return Err(Problem::usage("a recorded decision is asked at its own moment", hint));
    }
    let own = files.paths.is_empty();
    let mut others = if own { None } else { Some(AuthorsFiles::policies_of_all(files)?) };
    let mut data = Vec::new();
    for path in &files.data {
        data.push(source(path)?);
    }
    let recorded = Recorded::open()?;
    let decided = recorded.again(number, |case| {
        let gate = case.judge.gate.as_ref().map(|gate| GateRules {
            policies: others.take().unwrap_or_else(|| gate.policies.clone()),
            data: if files.data.is_empty() { gate.data.clone() } else { data.clone() },
            ..gate.clone()
        });
        (case.now, gate::decide_by(case, gate.as_ref(), &PolicyChild))
    })?;
    let (now, Decision { verdict, answers, warnings, exceptions, waived, .. }) = decided;
    let said = Said {
        of: format!("evidence record {number}"),
        now,
        answers,
        word: word_of(verdict),
        warnings,
        exceptions: json!(exceptions),
        waived: said_of(&waived),
    };
    Ok(said.print(words, format))
}

fn said_of(waived: &[Waived]) -> Vec<Value> {
    let one = |one: &Waived| json!({"code": one.denial.code, "msg": one.denial.violation.msg, "by": one.by});
    waived.iter().map(one).collect()
}

/// What a verdict says; its permit, if it has one, ends here.
fn word_of(verdict: Verdict) -> Word {
    match verdict {
        Verdict::Allow(permit) => {
            drop(permit);
            Word::Allow
        }
        Verdict::Deny(denials) => Word::Deny(denials),
        Verdict::Undecided(reasons) => Word::Undecided(reasons),
    }
}

fn explain(words: &Words, asked: &str, files: &PolicyFiles) -> Result<ExitCode, Problem> {
    let policies = if files.paths.is_empty() && files.gateway.gateway.is_none() && !Path::new("gateway.yaml").exists() {
        // Where there is no gateway yet, the rules that come with the program are meant.
        sluicegate_policy::shipped::SHIPPED
            .iter()
            .filter(|file| file.name.ends_with(".rego"))
            .map(|file| SourceFile { name: format!("policies/{}", file.name), text: file.text.to_owned() })
            .collect()
    } else {
        AuthorsFiles::of(files, false)?.policies
    };
    let rules = PolicyChild.rules(policies).map_err(Error::from)?;
    let Some(rule) = rules.iter().find(|rule| rule.code == asked) else {
        let known = rules.iter().map(|rule| rule.code.as_str());
        let hint = sluicegate_types::nearest::suggestion(asked, known);
        return Err(Problem::usage(format!("no rule has the code {asked}{hint}"), "a denial names its code first"));
    };
    if words.json() {
        let mut document = json!(rule);
        document["schemaVersion"] = json!(1);
        words.document(&document);
    } else {
        print_rule(words, rule);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_rule(words: &Words, rule: &RuleDeclaration) {
    words.line(format!("{}  {}", words.good(&rule.code), printable(&rule.title)));
    let line = |name: &str, text: &str| {
        if !text.is_empty() {
            words.line(format!("  {name:<9} {}", printable(text)));
        }
    };
    line("why", &rule.description);
    line("to fix", &rule.solution);
    line("needs", &rule.requires.join(", "));
    line("fields", &rule.requires_fields.join(", "));
    line("from", &rule.effective_on.map(|from| from.to_string()).unwrap_or_default());
    for (framework, ids) in &rule.controls {
        line("control", &format!("{framework}: {}", ids.join(", ")));
    }
    line("stands in", &rule.place());
    line(
        "waive",
        &format!(
            "waivers: {{ code: {}, term: …, digest | repository, environment, owner, approver, reason, expires }}",
            rule.code
        ),
    );
}

/// Words of one decision, made again by one folder.
struct Outcome {
    verdict: &'static str,
    codes: Vec<String>,
}

fn diff(
    words: &Words,
    (old, new): (&Path, &Path),
    over: Records,
    data: &[std::path::PathBuf],
    format: Format,
) -> Result<ExitCode, Problem> {
    let (old_rules, new_rules) = (AuthorsFiles::policies_of(old)?, AuthorsFiles::policies_of(new)?);
    let data = data.iter().map(|path| source(path)).collect::<Result<Vec<_>, _>>()?;
    for rules in [&old_rules, &new_rules] {
        check_files(rules, &data).map_err(Error::from)?;
    }
    let recorded = Recorded::open()?;
    let records = wire::records(&recorded.evidence);
    let last = records.list(1).map_err(Error::from)?.first().map_or(0, |record| record.sequence);
    let (mut asked, mut changed, mut left) = (0_u64, Vec::new(), Vec::new());
    for number in over.first..=over.last.min(last) {
        let record = records.show(number).map_err(Error::from)?;
        if record.kind != RecordKind::Decision || record.body["replay"].is_null() {
            continue;
        }
        let both = recorded.again(number, |case| {
            let by = |policies: &[SourceFile]| {
                let gate = case.judge.gate.as_ref().map(|gate| GateRules {
                    policies: policies.to_vec(),
                    data: if data.is_empty() { gate.data.clone() } else { data.clone() },
                    ..gate.clone()
                });
                outcome(gate::decide_by(case, gate.as_ref(), &PolicyChild))
            };
            (by(&old_rules), by(&new_rules))
        });
        match both {
            Ok((before, after)) => {
                asked += 1;
                if before.verdict != after.verdict || before.codes != after.codes {
                    changed.push((record, before, after));
                }
            }
            Err(error) => left.push((number, error.to_string())),
        }
    }
    for (number, reason) in &left {
        words.warn(&format!("evidence record {number} is left out: {reason}"));
    }
    let rows: Vec<Value> = changed
        .iter()
        .map(|(record, before, after)| json!({
            "record": record.sequence, "image": record.subject, "environment": record.environment, "recorded": record.outcome,
            "old": {"verdict": before.verdict, "codes": before.codes}, "new": {"verdict": after.verdict, "codes": after.codes},
        }))
        .collect();
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "asked": asked, "changed": rows,
            "left": left.iter().map(|(number, reason)| json!({"record": number, "reason": reason})).collect::<Vec<_>>(),
        }));
    } else if format == Format::Table {
        for (record, before, after) in &changed {
            let image = record.subject.map(|image| image.to_string()).unwrap_or_default();
            let environment = record.environment.as_ref().map(ToString::to_string).unwrap_or_default();
            words.line(format!(
                "{:>5}  {environment}  {image}  {} -> {}",
                record.sequence,
                words.open(before.verdict),
                words.open(after.verdict)
            ));
            for (mark, codes) in [("-", &before.codes), ("+", &after.codes)] {
                let other = if mark == "-" { &after.codes } else { &before.codes };
                for code in codes.iter().filter(|code| !other.contains(code)) {
                    words.line(printable(&format!("       {mark} {code}")));
                }
            }
        }
        words.line(format!("{} of {asked} decisions would come out otherwise; nothing was promoted", changed.len()));
    }
    let items = changed.iter().map(|(record, before, after)| Item {
        code: "policy-diff".to_owned(),
        name: format!("evidence record {}", record.sequence),
        level: Level::Error,
        message: format!(
            "evidence record {}: {} becomes {} ({} becomes {})",
            record.sequence,
            before.verdict,
            after.verdict,
            before.codes.join(", "),
            after.codes.join(", ")
        ),
        place: None,
        solution: None,
    });
    Report { title: "policy diff".to_owned(), rules: Vec::new(), items: items.collect() }.print(words, format);
    Ok(ExitCode::from(if changed.is_empty() { 0 } else { DENIED }))
}

/// What a decision says, and which rules do not pass in it.
fn outcome(decision: Decision) -> Outcome {
    let failing = decision.answers.iter().filter(|answer| answer.says().word() != "pass");
    let codes = failing.map(|answer| format!("{} {}", answer.rule.code, answer.says().word())).collect();
    Outcome { verdict: word_of(decision.verdict).as_str(), codes }
}
