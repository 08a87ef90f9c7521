use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a policy or data file, printed `file:line:column` with both counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The file's name as the caller gave it.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1; 0 where only the line is known.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.column == 0 {
            write!(f, "{}:{}", self.file, self.line)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// Why policies could not be asked, or gave no usable answer. Every one of these is `Undecided`, which promotes nothing.
///
/// It is plain data, so that a child process can send it to its parent as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PolicyError {
    /// No rule declares a code: an empty folder, or one with tests and libraries only.
    #[error(
        "the policies declare no codes, so nothing was asked: add a rule with a METADATA block that has custom.short_name"
    )]
    NoCodes,
    /// A rule answers in a package that declares no code (conftest's habit of files with nothing but `deny`).
    #[error(
        "{place}: package {package} has {rule:?} but declares no code: write a METADATA block with title, description, \
         custom.short_name, custom.solution and custom.requires above its first clause, and answer with `pass contains` \
         too, or list in custom.requires_fields the facts without which its silence is no pass"
    )]
    NoCodeInPackage {
        /// The rule.
        place: Place,
        /// Its package.
        package: String,
        /// Its name: `deny` or `pass`.
        rule: String,
    },
    /// A rule whose name would be read by other tools and by nothing here.
    #[error("{place}: a rule named {name:?} is read by nobody here: name it deny, pass or warn")]
    Unread {
        /// The rule.
        place: Place,
        /// Its name.
        name: String,
    },
    /// `pass`, `deny` or `warn` is not a set.
    #[error("{place}: {name} is {found} and must be a set: write `{name} contains …`")]
    NotASet {
        /// The rule.
        place: Place,
        /// Its name.
        name: String,
        /// What it is.
        found: String,
    },
    /// What `deny` or `pass` holds is not what is read there.
    #[error("{place}: {set} gives {found}: write `{expected}`")]
    NotAnAnswer {
        /// The clause.
        place: Place,
        /// `deny` or `pass`.
        set: String,
        /// What stands there.
        found: String,
        /// What to write.
        expected: String,
    },
    /// A `with` that replaces facts, data or functions where no test is.
    #[error("{place}: `with` is for tests, in files named *_test.rego: write a function of what it would replace")]
    WithOutsideTests {
        /// What it replaces.
        place: Place,
    },
    /// A variable that only a negation names.
    #[error(
        "{place}: only what is negated names `{variable}`, so that nobody can tell whether it means one or all: say before what it is, \
         or put what is negated into a rule of its own (OPA calls the variable unsafe)"
    )]
    UnsafeVariable {
        /// Where it stands.
        place: Place,
        /// Its name.
        variable: String,
    },
    /// Not Rego v1.
    #[error("{place}: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// The engine's words.
        reason: String,
    },
    /// A METADATA block that can't be read, says too little, or stands above the wrong thing.
    #[error("{place}: METADATA: {reason}")]
    Metadata {
        /// The line in the block, or the block's first.
        place: Place,
        /// What is wrong and what to write.
        reason: String,
    },
    /// Two rules declare one code.
    #[error(
        "{second}: the code {code} is declared already at {first}: give one of the rules another custom.short_name"
    )]
    DuplicateCode {
        /// The code.
        code: String,
        /// The first rule.
        first: Place,
        /// The second.
        second: Place,
    },
    /// A builtin that would make a decision impossible to replay, or whose cost has no bound.
    #[error("{place}: {builtin} is refused: {reason}")]
    RefusedBuiltin {
        /// The call; the file's name alone where the engine hid the line.
        place: Place,
        /// The builtin's name.
        builtin: String,
        /// Why, and what to use.
        reason: String,
    },
    /// A call of something that is neither a function of the policies nor a builtin of the engine.
    #[error("{place}: there is no function {name}: correct the name, or import the package that defines it")]
    UnknownFunction {
        /// The call.
        place: Place,
        /// The name as written.
        name: String,
    },
    /// A function that calls itself, directly or through others. The engine would overflow its stack.
    #[error("{place}: recursion is not allowed: {cycle}")]
    Recursion {
        /// The function.
        place: Place,
        /// The names along the circle.
        cycle: String,
    },
    /// Expressions or calls nested so deeply that evaluating them could overflow the stack.
    #[error("{place}: {what} nested more than {limit} deep: split it")]
    TooDeep {
        /// Where it is noticed.
        place: Place,
        /// `expressions` or `rules and functions`.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// One expression so long that its syntax tree could overflow the stack.
    #[error("{place}: an expression of more than {limit} tokens: split it")]
    TooLong {
        /// Where the limit is reached.
        place: Place,
        /// The limit.
        limit: u64,
    },
    /// A size or count beyond its limit.
    #[error("{what}: {found} is more than the limit of {limit}")]
    TooMuch {
        /// What was counted, and in which unit.
        what: String,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// Two files with one name: an error could not say which is meant.
    #[error("two files are named {name}: give each its own path")]
    SameName {
        /// The name.
        name: String,
    },
    /// A test file, or a whole folder, without tests.
    #[error("{file} has no tests: a test is a rule named test_… in a file named …_test.rego")]
    NoTests {
        /// The file.
        file: String,
    },
    /// A data document is not one.
    #[error("{place}: data: {reason}")]
    Data {
        /// Where.
        place: Place,
        /// Why not.
        reason: String,
    },
    /// Two data documents, or a data document and a package, give one value twice.
    #[error("data.{path} is given by {first} and by {second}: leave one of them")]
    DataConflict {
        /// The dotted path below `data`.
        path: String,
        /// The first file, or the package.
        first: String,
        /// The second.
        second: String,
    },
    /// The input is not a JSON object.
    #[error("the input of the policies is unreadable: {reason}")]
    Input {
        /// Why.
        reason: String,
    },
    /// An answer that is no answer: not a string, a field missing, a code of another package or of nobody.
    #[error("package {package}: {set} gave {answer}: {reason}")]
    Answer {
        /// The package.
        package: String,
        /// `pass`, `deny` or `warn`.
        set: String,
        /// The answer as JSON, cut at 200 characters.
        answer: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// The evaluation was stopped.
    #[error("the policies ran longer than {milliseconds} ms and were stopped")]
    TimedOut {
        /// The limit.
        milliseconds: u64,
    },
    /// The engine reported an error while evaluating: a wrong type, two values for one rule, recursion of rules.
    #[error("{place}: cannot evaluate: {reason}")]
    Evaluation {
        /// Where.
        place: Place,
        /// The engine's words.
        reason: String,
    },
    /// The engine failed in a way that names no line, or panicked.
    #[error("the policy engine failed: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
}

impl PolicyError {
    /// Whether it is a mistake in a file that its author can be told of before anything is asked.
    pub fn is_a_mistake(&self) -> bool {
        matches!(self, Self::Metadata { .. } | Self::Data { .. } | Self::DataConflict { .. } | Self::SameName { .. })
    }

    /// Where it is, if it is at one place.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::NoCodeInPackage { place, .. }
            | Self::Unread { place, .. }
            | Self::NotASet { place, .. }
            | Self::NotAnAnswer { place, .. }
            | Self::WithOutsideTests { place }
            | Self::UnsafeVariable { place, .. }
            | Self::Syntax { place, .. }
            | Self::Metadata { place, .. }
            | Self::RefusedBuiltin { place, .. }
            | Self::UnknownFunction { place, .. }
            | Self::Recursion { place, .. }
            | Self::TooDeep { place, .. }
            | Self::TooLong { place, .. }
            | Self::Data { place, .. }
            | Self::Evaluation { place, .. } => Some(place),
            Self::DuplicateCode { second, .. } => Some(second),
            _ => None,
        }
    }

    /// A short name for its kind, as reports for programs use.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoCodes => "no-codes",
            Self::NoCodeInPackage { .. } => "deny-only",
            Self::Unread { .. } => "unread-set",
            Self::NotASet { .. } => "not-a-set",
            Self::NotAnAnswer { .. } => "not-an-answer",
            Self::WithOutsideTests { .. } => "with-outside-tests",
            Self::UnsafeVariable { .. } => "unsafe-variable",
            Self::Syntax { .. } => "syntax",
            Self::Metadata { .. } => "metadata",
            Self::DuplicateCode { .. } => "duplicate-code",
            Self::RefusedBuiltin { .. } => "refused-builtin",
            Self::UnknownFunction { .. } => "unknown-function",
            Self::Recursion { .. } => "recursion",
            Self::TooDeep { .. } | Self::TooLong { .. } | Self::TooMuch { .. } => "limit",
            Self::SameName { .. } => "same-name",
            Self::NoTests { .. } => "no-tests",
            Self::Data { .. } => "data",
            Self::DataConflict { .. } => "data-conflict",
            Self::Input { .. } => "input",
            Self::Answer { .. } => "answer",
            Self::TimedOut { .. } => "timed-out",
            Self::Evaluation { .. } => "evaluation",
            Self::Engine { .. } => "engine",
        }
    }
    /// Reads the engine's message, whose first line with `-->` is the place and whose last paragraph is the reason.
    pub(crate) fn from_engine(error: &str, make: impl FnOnce(Place, String) -> Self) -> Self {
        let place = error.lines().find_map(|line| {
            let mut parts = line.trim().strip_prefix("--> ")?.rsplitn(3, ':');
            let column = parts.next()?.parse().ok()?;
            let line = parts.next()?.parse().ok()?;
            Some(Place { file: parts.next()?.to_owned(), line, column })
        });
        let reason = error.rsplit_once("\nerror: ").map_or(error, |(_, reason)| reason).trim();
        let reason: String = reason.chars().take(2_000).collect();
        match place {
            Some(place) => make(place, reason),
            None => Self::Engine { reason },
        }
    }
}
