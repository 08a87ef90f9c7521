//! Everything that is printed, and the exit codes. Results go to standard output, everything else to standard error.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sluicegate_flow::{Failure, StepFault};
use sluicegate_ports::images::FaultKind;

use crate::{
    arguments::{Arguments, Format},
    interrupts, progress,
};

/// Denied by policy.
pub(crate) const DENIED: u8 = 1;

/// How this invocation speaks.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    json: bool,
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
    /// Whether standard error has JSON events and nothing else.
    events: bool,
}

/// How this process speaks, once its arguments are known.
static OF_THIS_PROCESS: OnceLock<Words> = OnceLock::new();

/// Something to say with the exit code it leads to.
#[derive(Debug)]
pub(crate) struct Problem {
    code: u8,
    text: String,
    causes: Vec<String>,
    hint: Option<String>,
    reason: Option<&'static str>,
    record: Option<u64>,
}

impl Problem {
    /// A mistake in the command line or a file.
    pub(crate) fn usage(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code(Failure::Usage),
            text: text.into(),
            causes: Vec::new(),
            hint: Some(hint.into()),
            reason: None,
            record: None,
        }
    }

    /// What it says, without its hint.
    pub(crate) fn text(&self) -> String {
        self.text.clone()
    }

    /// The exit code that it leads to.
    pub(crate) fn exit(&self) -> u8 {
        self.code
    }

    /// What it says to do.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Something that was there and is gone.
    pub(crate) fn lost(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code(Failure::Unavailable), ..Self::usage(text, hint) }
    }

    /// Something that is not what was signed.
    pub(crate) fn wrong(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code(Failure::Wrong), ..Self::usage(text, hint) }
    }

    /// Something that must not happen, whatever was asked.
    pub(crate) fn bug(text: String, cause: &str) -> Self {
        Self { code: code(Failure::Bug), causes: vec![cause.to_owned()], ..Self::usage(text, REPORT_IT) }
    }

    /// A file that somebody named and that can't be read, whatever the reason: another one must be named.
    pub(crate) fn named(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self { code: code(Failure::Usage), ..Self::io(action, path, error) }.or("name a regular file that can be read")
    }

    /// A file of our own that can't be read or written.
    pub(crate) fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let failure = if error.kind() == std::io::ErrorKind::NotFound { Failure::Usage } else { Failure::Unavailable };
        Self {
            code: code(failure),
            text: format!("cannot {action} {}", path.display()),
            causes: vec![error.to_string()],
            hint: None,
            reason: None,
            record: None,
        }
    }

    /// The same with a hint what to do now.
    pub(crate) fn or(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with one more thing that can be done.
    pub(crate) fn or_also(mut self, hint: &str) -> Self {
        self.hint = Some(self.hint.map_or_else(|| hint.to_owned(), |first| format!("{first}; {hint}")));
        self
    }

    /// The same with the evidence record that it is on.
    pub(crate) fn recorded(self, record: Option<u64>) -> Self {
        Self { record, ..self }
    }

    /// What it says, each cause, what to do and where it is on record, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let causes = self.causes.iter().map(|cause| format!("because: {cause}"));
        let hint = self.hint.iter().map(|hint| format!("now: {hint}"));
        let record = self.record.map(|record| format!("recorded: sluicegate evidence show {record}"));
        std::iter::once(self.text.clone()).chain(causes).chain(hint).chain(record).collect()
    }

    /// The same for programs, which may print it as it is.
    pub(crate) fn document(&self) -> serde_json::Value {
        let causes: Vec<String> = self.causes.iter().map(|cause| harmless(cause)).collect();
        let hint = self.hint.as_deref().map(harmless);
        serde_json::json!({
            "schemaVersion": 1, "error": harmless(&self.text), "causes": causes, "hint": hint, "exit": self.code,
            "reason": self.reason, "record": self.record,
        })
    }
}

/// What to do about a bug.
const REPORT_IT: &str = "this is a bug of ours: report it with this text, the command and what sluicegate --version says. What was \
     recorded stands; sluicegate evidence fsck says whether all of it is whole";

impl From<sluicegate_flow::Error> for Problem {
    fn from(error: sluicegate_flow::Error) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let reason = error.reason();
        Self { code: code(error.failure()), text: error.to_string(), causes, hint: hint(&error), reason, record: None }
    }
}

fn hint(error: &sluicegate_flow::Error) -> Option<String> {
    use sluicegate_flow::Error as E;
    use sluicegate_ports::{
        evidence::EvidenceError, execute::ExecuteError, images::ImagePlaceError, ledger::LedgerError, scan::ScanError,
        sign::SignError, trees::TreeError,
    };
    match error {
        E::StepFailed { fault, .. } => Some(after_a_step(*fault).replace("sluicegate run", &as_typed())),
        E::Stopped
        | E::Tree(TreeError::Stopped)
        | E::Execute(ExecuteError::Stopped { .. })
        | E::Scan(ScanError::Stopped)
        | E::Inventory { source: ScanError::Stopped, .. } => {
            Some(after_a_step(StepFault::Stopped).replace("sluicegate run", &as_typed()))
        }
        E::Execute(ExecuteError::NotHere { remedy, .. }) => Some(as_commands(remedy)),
        E::Scan(ScanError::NoScanner { .. }) | E::Inventory { source: ScanError::NoScanner { .. }, .. } => Some(
            "install Trivy and name it with --trivy, or run with --no-scan (the gate then stays undecided)".to_owned(),
        ),
        E::Scan(ScanError::Database { .. }) | E::Inventory { source: ScanError::Database { .. }, .. } => {
            Some("pin the database anew under scanner.trivy.db of the gateway file".to_owned())
        }
        E::Inventory { source: ScanError::Sandbox(ExecuteError::NotHere { remedy, .. }), .. } => {
            Some(as_commands(remedy))
        }
        E::Inventory {
            source: ScanError::Failed { .. } | ScanError::Report { .. } | ScanError::Sandbox(_), ..
        } => Some(
            "see what is in that output: the scanner could not read it. --no-scan runs without the scanner (the gate then stays \
             undecided)"
                .to_owned(),
        ),
        E::Sign(SignError::NoKey { name, .. }) => Some(format!(
            "set SLUICEGATE_HOME to the home that has it. sluicegate init with a new project makes builder, recorder and \
             production; any other name is made by sluicegate keys generate {}, and believed once trust.yaml lists it",
            shell_word(name)
        )),
        E::Sign(SignError::Stranger { .. }) => Some(
            "nothing was sent to it: name the log's own root as trust_root: of the gateway file (sluicegate trust export writes that of a \
             home's log), or the right log under log:"
                .to_owned(),
        ),
        E::Sign(SignError::Settings { .. }) => {
            Some("mend that, or unset what names it; nothing was sent".to_owned())
        }
        E::Sign(SignError::Remote { .. }) => {
            Some("see that the log answers there, then try again: nothing was pushed or tagged for want of it".to_owned())
        }
        E::Sign(SignError::Waiting { .. }) => Some(
            "when the log answers, the next command that logs sends the same bytes first: each is logged once, however often it is sent. \
             Moving a file out of that folder gives its statement up"
                .to_owned(),
        ),
        E::Sign(SignError::Unproved { .. }) => Some(
            "nothing that this log said was used. Ask whoever runs it; sluicegate log verify --url URL reads all of it and says what is \
             wrong"
                .to_owned(),
        ),
        E::Sign(SignError::Locked { .. }) => {
            Some("COSIGN_PASSWORD holds the passphrase of every key of the home".to_owned())
        }
        E::Content { .. } => {
            Some("it was changed after it was written: get it again from where it was made".to_owned())
        }
        E::Evidence(EvidenceError::Damaged { .. } | EvidenceError::Corrupt { .. })
        | E::Ledger(LedgerError::Damaged { .. }) => Some(
            "nothing is recorded behind damage: sluicegate evidence fsck says what is wrong; restore evidence.db and ledger \
             together from one backup"
                .to_owned(),
        ),
        E::Needed(_) => Some(
            "sluicegate evidence fsck says what is wrong; restore what is damaged or missing from a backup of the home, then prune".to_owned(),
        ),
        E::OtherContent { .. } => {
            Some("name the very file that was signed, byte for byte; what it is called decides nothing".to_owned())
        }
        E::Trust { file, .. } if file.starts_with("--") => Some("name another file with that flag".to_owned()),
        E::Trust { .. } => Some(
            "mend it, or name another one: the gateway file or trust.yaml names it, or a flag such as --trust".to_owned(),
        ),
        _ if error.failure() == Failure::Bug => Some(REPORT_IT.to_owned()),
        E::Place(ImagePlaceError::NotALayout { .. }) => Some(
            "name the folder of a layout after oci:. sluicegate run leaves one with its image, and sluicegate image from-host \
             --output oci:DIR makes one to build on".to_owned(),
        ),
        E::Place(ImagePlaceError::Registry { fault, .. }) => about_a_registry(fault.kind).map(str::to_owned),
        E::OwnBundle { .. } => Some("does trust.yaml list this signer with this role, builder and log?".to_owned()),
        _ => None,
    }
}

/// What to do about a registry that did not do what was asked.
fn about_a_registry(kind: FaultKind) -> Option<&'static str> {
    match kind {
        FaultKind::Unauthorized => Some(
            "docker login HOST or podman login HOST writes the name and password that are used (DOCKER_CONFIG, REGISTRY_AUTH_FILE); \
             do they have the right to do this in that repository?",
        ),
        FaultKind::Unreachable | FaultKind::Deadline => {
            Some("try again when the registry answers; what is there already is not sent again")
        }
        FaultKind::DigestMismatch => Some(
            "something between here and there, or the registry itself, gives other bytes than it should: nothing of it was used",
        ),
        FaultKind::MediaTypeRefused => Some(
            "nothing is converted, as every signature is about these very bytes: choose a registry that takes them",
        ),
        _ => None,
    }
}

/// What clap says about arguments that it refuses, told apart into what is wrong and what to do.
fn mistyped(said: &str) -> Problem {
    let text = said.trim();
    let text = text.strip_prefix("error:").unwrap_or(text);
    let (text, _) = text.split_once("For more information, try").unwrap_or((text, ""));
    Problem::usage(text.trim(), "sluicegate --help says what there is, and each command's own --help more")
}

/// What to do about a step that failed.
fn after_a_step(fault: StepFault) -> &'static str {
    match fault {
        StepFault::Report => {
            "let the step write JUnit XML there, or name the path where it does under reports:; then sluicegate run"
        }
        StepFault::Leak => {
            "keep the secret out of the names and messages of the tests, give the step another secret if this one stood there before, then \
             sluicegate run"
        }
        StepFault::Output => {
            "let the step write it there, or name the path where it does under outputs:; then sluicegate run"
        }
        StepFault::Limit => {
            "let the step need less, or give it more under limits: of the pipeline file; then sluicegate run"
        }
        StepFault::Program => {
            "name a program that is in the image, or an image that has it under image: of the step; then sluicegate run"
        }
        StepFault::Stopped => "sluicegate run begins again",
        StepFault::Work => "see what the step printed, and mend the step or what it reads; then sluicegate run",
    }
}

/// A remedy with this very command and this home put in where it leaves them open.
fn as_commands(remedy: &str) -> String {
    let home = crate::home::Home::place().map(|home| shell_word(&home.display().to_string())).unwrap_or_default();
    remedy
        .replace("sudo …", &as_root())
        .replace("IMAGE …", &format!("IMAGE {}", this_command()))
        .replace("mv HOME ", &format!("mv {home} "))
}

/// This very command for root, with the variables that it would lose.
fn as_root() -> String {
    let kept =
        ["SLUICEGATE_HOME", "SLUICEGATE_GATEWAY", "SLUICEGATE_TRIVY", "COSIGN_PASSWORD", "SOURCE_DATE_EPOCH", "PATH"];
    let kept: Vec<&str> = kept.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    format!("sudo --preserve-env={} {}", kept.join(","), this_command())
}

/// What was typed, with the program by its whole path.
fn this_command() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "sluicegate".into());
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> =
        std::iter::once(program.display().to_string()).chain(words).map(|word| shell_word(&word)).collect();
    words.join(" ")
}

/// What was typed, for somebody to type again.
fn as_typed() -> String {
    let words = std::env::args_os().skip(1).map(|word| shell_word(&word.to_string_lossy()));
    std::iter::once("sluicegate".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The exit code of a failure.
pub(crate) fn code(failure: Failure) -> u8 {
    match failure {
        Failure::Usage => 2,
        Failure::Undecided => 3,
        Failure::Wrong => 4,
        Failure::Unavailable => 5,
        Failure::Step => 6,
        Failure::Bug => 70,
        Failure::Stopped => interrupts::exit_code(),
    }
}

impl Words {
    /// Before the arguments are known.
    pub(crate) fn from_environment(arguments: impl Iterator<Item = OsString>) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let arguments: Vec<OsString> = arguments.collect();
        let json = arguments.windows(2).any(|pair| (pair[0] == "-o" || pair[0] == "--format") && pair[1] == "json")
            || arguments
                .iter()
                .any(|argument| ["-ojson", "-o=json", "--format=json"].iter().any(|word| argument == word));
        Self {
            json,
            quiet: false,
            colour_out: !plain && std::io::stdout().is_terminal(),
            colour_err: !plain && std::io::stderr().is_terminal(),
            events: false,
        }
    }

    /// With what the arguments say.
    pub(crate) fn with(self, arguments: &Arguments) -> Self {
        let words = Self {
            json: arguments.format == Format::Json,
            quiet: arguments.quiet,
            events: arguments.command.events_wanted(),
            ..self
        };
        // Only the first ones are those that were typed.
        let _ = OF_THIS_PROCESS.set(words);
        words
    }

    /// For whoever was given none: an adapter that warns, and the end of what broke off.
    pub(crate) fn of_this_process() -> Self {
        OF_THIS_PROCESS.get().copied().unwrap_or_else(|| Self::from_environment(std::env::args_os()))
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard error takes colours.
    pub(crate) fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One line about what is happening.
    pub(crate) fn tell(&self, line: &str) {
        if self.quiet || progress::told_there(line, false) {
            return;
        }
        let text = if self.events { progress::said(line, false) } else { self.paint_err("2", &printable(line)) + "\n" };
        to(&mut std::io::stderr(), &text);
    }

    /// One line that must be seen, however quiet.
    pub(crate) fn warn(&self, line: &str) {
        if progress::told_there(line, true) {
            return;
        }
        let text = if self.events {
            progress::said(line, true)
        } else {
            format!("{}: {}\n", self.paint_err("1;33", "warning"), printable(line))
        };
        to(&mut std::io::stderr(), &text);
    }

    /// That a run came to its end with this exit code, for who reads its events: the last thing that is said of it.
    pub(crate) fn finished(&self, exit: u8) {
        if self.events {
            to(&mut std::io::stderr(), &progress::finished(as_written(exit), None));
        }
    }

    /// Bytes of somebody else, with all that would drive a terminal shown instead of done.
    pub(crate) fn harmlessly(&self, out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
        out.write_all(harmless(&String::from_utf8_lossy(bytes)).as_bytes())
    }

    /// A line of the result, for people.
    pub(crate) fn line(&self, line: impl Display) {
        to(&mut std::io::stdout(), &format!("{line}\n"));
    }

    /// The result, for programs: the only thing on standard output.
    pub(crate) fn document(&self, value: &serde_json::Value) {
        to(&mut std::io::stdout(), &harmless_json(&format!("{value:#}\n")));
    }

    /// Good news in a result.
    pub(crate) fn good(&self, text: &str) -> String {
        paint(self.colour_out, "1;32", text)
    }

    /// Bad news in a result.
    pub(crate) fn bad(&self, text: &str) -> String {
        paint(self.colour_out, "1;31", text)
    }

    /// News in a result that leaves something open.
    pub(crate) fn open(&self, text: &str) -> String {
        paint(self.colour_out, "1;33", text)
    }

    /// Says what went wrong and returns the exit code.
    pub(crate) fn problem(&self, problem: &Problem) -> ExitCode {
        let mut text = format!("{}: {}\n", self.paint_err("1;31", "error"), printable_lines(&problem.text));
        for cause in &problem.causes {
            text.push_str(&format!("  because: {}\n", printable_lines(cause)));
        }
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("  {}: {}\n", self.paint_err("1", "now"), printable_lines(hint)));
        }
        if let Some(record) = problem.record {
            text.push_str(&format!("  recorded: sluicegate evidence show {record}\n"));
        }
        // Before the last event: that one tells, too, whether this could be written.
        if self.json {
            self.document(&problem.document());
        }
        if self.events {
            text = progress::finished(as_written(problem.code), Some(problem.document()));
        }
        to(&mut std::io::stderr(), &text);
        ExitCode::from(problem.code)
    }

    /// What clap says: help and version are results, the rest are mistakes.
    pub(crate) fn arguments(&self, error: &clap::Error) -> ExitCode {
        let text = if self.colour_err { error.render().ansi().to_string() } else { error.render().to_string() };
        if error.use_stderr() {
            to(&mut std::io::stderr(), &text);
            if self.json {
                self.document(&mistyped(&error.render().to_string()).document());
            }
            ExitCode::from(code(Failure::Usage))
        } else {
            to(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
    }

    fn paint_err(&self, style: &str, text: &str) -> String {
        paint(self.colour_err, style, text)
    }
}

fn paint(colour: bool, style: &str, text: &str) -> String {
    if colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// One line of text: names from files, images and strangers' bundles must neither drive the terminal nor begin a line of their own.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if drives(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of several lines, which stay.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if drives(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// JSON that means the same and does nothing to a terminal on which somebody looks at it. What it may hold of such characters outside ASCII
/// stands in texts.
pub(crate) fn harmless_json(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    for c in json.chars() {
        match drives(c) && !matches!(c, '\n' | '\t') {
            true => written.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => written.push(c),
        }
    }
    written
}

/// Whether a character does something to a terminal, or to how the text around it is read, and does not just stand there.
fn drives(c: char) -> bool {
    let is_direction =
        matches!(c, '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_unseen = matches!(c, '\u{200b}'..='\u{200d}' | '\u{2028}'..='\u{2029}' | '\u{2060}' | '\u{feff}');
    c.is_control() || is_direction || is_unseen
}

/// Several lines of an error, such as a piece of a file with a mark below it; every line after the first is set in.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n    ")
}

/// Whether a result could not be written: then the exit code must not say that all is well.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// The exit code, or 5 if a result could not be written.
pub(crate) fn or_unwritten(code: ExitCode) -> ExitCode {
    if UNWRITTEN.load(Ordering::Relaxed) { ExitCode::from(self::code(Failure::Unavailable)) } else { code }
}

/// The same as a number.
fn as_written(code: u8) -> u8 {
    if UNWRITTEN.load(Ordering::Relaxed) { self::code(Failure::Unavailable) } else { code }
}

/// Writes to standard error, if there is one, where nothing else is known yet.
pub(crate) fn tell_anyway(text: &str) {
    to(&mut std::io::stderr(), text);
}

/// A reader or a terminal that went away is no reason to fail, and there is nobody left to tell; a full disk is one.
fn to(out: &mut dyn Write, text: &str) {
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !interrupts::hung_up()
    {
        UNWRITTEN.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn mistyped_arguments_are_an_error_like_any_other_for_programs() {
        let members = |problem: &Problem| -> Vec<String> {
            problem.document().as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        for typed in [&["sluicegate", "verify"][..], &["sluicegate", "verfy"], &["sluicegate", "run", "--nonsense"]] {
            let said = Arguments::try_parse_from(typed).err().unwrap().render().to_string();
            assert!(said.starts_with("error: ") && said.contains("For more information"), "{said}");
            let problem = mistyped(&said);
            let text = problem.text();
            assert!(!text.starts_with("error") && !text.contains("For more") && text.trim() == text, "{text}");
            assert!(said.contains(&text) && !text.is_empty(), "{text}");
            assert_eq!(members(&problem), members(&Problem::usage("x", "y")));
            assert!(problem.hint().is_some());
        }
        assert!(Arguments::try_parse_from(["sluicegate", "verify", "oci:out/app"]).is_ok());
    }

    #[test]
    fn what_would_drive_a_terminal_is_harmless_wherever_it_is_told() {
        let hostile = "a\u{1b}[2J\u{9b}2J\u{202e}b\u{2066}c\u{2028}\u{feff}\u{7f}\nd\te";
        let told = "a\u{fffd}[2J\u{fffd}2J\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}\u{fffd}\nd\te";
        let usual = "Ünïcode \u{754c} \u{1f600}\u{fe0f} \u{5d0}";
        let (words, mut out) = (Words::from_environment(std::iter::empty()), Vec::new());
        words.harmlessly(&mut out, format!("{hostile}{usual}").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{told}{usual}"));
        assert_eq!(printable(hostile), told.replace(['\n', '\t'], "\u{fffd}"));
        assert_eq!(printable(usual), usual);
        let problem = Problem { causes: vec![hostile.to_owned()], ..Problem::usage(hostile, hostile) };
        let document = problem.document();
        for text in [&document["error"], &document["causes"][0], &document["hint"]] {
            assert_eq!(text, told);
        }
        assert_eq!(Problem::usage(usual, usual).document()["error"], usual);
        // Other documents keep what they say, written harmlessly.
        let value = serde_json::json!({"a": [hostile, usual]});
        for written in [format!("{value:#}"), value.to_string()] {
            let shown = harmless_json(&written);
            assert!(!shown.contains(|c| drives(c) && c != '\n') && shown.contains(usual), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
