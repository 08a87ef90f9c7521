//! Reads, asks and tests policies in a process of their own: a policy that eats memory, recurses or crashes takes nothing down but its own
//! evaluation, and that is `Undecided`.
//!
//! The child limits itself: what one question may take is counted from when it has been read, as the engine looks at its clock only
//! between two calls of builtins. The parent waits a little longer and then kills it.

use std::{
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sluicegate_flow::gate::RuleEvaluator;
use sluicegate_policy::{
    lint::{self, Finding},
    rego::{
        EvaluationLimits, EvaluationRequest, PolicyError, RuleDeclaration, RuleResults, SourceFile, evaluate, rules,
    },
    rego_tests::{self, TestRequest, TestResults},
};

/// The hidden word that makes this program the child.
const WORD: &str = "internal-evaluate-policy";
/// Milliseconds beyond the limit of an evaluation after which the child ends itself: loading the policies and one call of a builtin.
const GRACE: u64 = 700;
/// Bytes of request that are read, at the least, in a millisecond of that.
const BYTES_PER_MILLISECOND: u64 = 8 * 1024;
/// Milliseconds that all tests of one question may take together.
const TESTS: u64 = 120_000;
/// Milliseconds beyond that which the parent waits: starting a process, and reading what there is to read.
const START: u64 = 15_000;
/// Bytes of address space that an evaluation may take beyond what the program and its request take: DESIGN section 7, and the stack.
const ADDRESS_SPACE: u64 = (256 + 64) * 1024 * 1024;
/// Bytes of address space for each byte of request: a value takes many times what its text does.
const BYTES_PER_BYTE: u64 = 24;
/// Bytes of request and of answer that are taken.
const MAX_MESSAGE: u64 = 256 * 1024 * 1024;

/// What a child is asked.
#[derive(Serialize, Deserialize)]
enum Question {
    /// What the rules say about facts.
    Evaluate(EvaluationRequest),
    /// How tests end.
    Test(TestRequest),
    /// What is wrong with policies and data.
    Check(Vec<SourceFile>, Vec<SourceFile>),
    /// What rules there are.
    Rules(Vec<SourceFile>),
}

impl Question {
    /// Milliseconds that it may take, once it has been read.
    fn patience(&self, limits: &EvaluationLimits, bytes: u64) -> u64 {
        let most = match self {
            Self::Test(_) => TESTS,
            _ => limits.milliseconds,
        };
        most + GRACE + bytes / BYTES_PER_MILLISECOND
    }
}

/// Whether this process was started to evaluate.
pub(crate) fn is_asked() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == WORD)
}

/// The child: one request on standard input, one answer on standard output.
#[allow(
    clippy::exit,
    reason = "it is the child that ends, while a builtin that nothing interrupts still runs in its other thread"
)]
pub(crate) fn serve() -> ExitCode {
    let mut request = Vec::new();
    if std::io::stdin().lock().take(MAX_MESSAGE + 1).read_to_end(&mut request).is_err() {
        return ExitCode::from(70);
    }
    let bytes = request.len() as u64;
    if limit(bytes).is_none() {
        return ExitCode::from(70);
    }
    let limits = EvaluationLimits::default();
    let question = match serde_json::from_slice::<Question>(&request) {
        Ok(question) => question,
        Err(error) => {
            let reason = format!("the request could not be read: {error}");
            return answer(&Err::<(), _>(PolicyError::Engine { reason }), &AtomicBool::new(false));
        }
    };
    drop(request);
    let answered = Arc::new(AtomicBool::new(false));
    let patience = Duration::from_millis(question.patience(&limits, bytes));
    let late = Arc::clone(&answered);
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        let timed_out = PolicyError::TimedOut { milliseconds: EvaluationLimits::default().milliseconds };
        answer(&Err::<(), _>(timed_out), &late);
        std::process::exit(0);
    });
    match question {
        Question::Evaluate(request) => answer(&evaluate(&request, &limits), &answered),
        Question::Test(request) => answer(&rego_tests::run(&request, &limits), &answered),
        Question::Check(policies, data) => {
            answer(&Ok::<_, PolicyError>(lint::check(&policies, &data, &limits)), &answered)
        }
        Question::Rules(policies) => answer(&rules(&policies), &answered),
    }
}

/// Takes from this process what an evaluation must not have.
fn limit(request: u64) -> Option<()> {
    let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let taken = pages.split(' ').next()?.parse::<u64>().ok()? * rustix::param::page_size() as u64;
    let space = taken + ADDRESS_SPACE + request * BYTES_PER_BYTE;
    setrlimit(Resource::As, limit(space)).ok()?;
    setrlimit(Resource::Core, limit(0)).ok()
}

/// Writes the first answer that there is; whoever comes later has none.
fn answer<T: Serialize>(answer: &Result<T, PolicyError>, answered: &AtomicBool) -> ExitCode {
    // Made before it is said that there is one: what cannot be written is no answer.
    let Ok(text) = serde_json::to_vec(answer) else { return ExitCode::from(70) };
    if answered.swap(true, Ordering::SeqCst) {
        // The other thread ends this process as soon as it has written.
        std::thread::sleep(Duration::from_secs(60));
        return ExitCode::from(70);
    }
    let mut out = std::io::stdout().lock();
    if out.write_all(&text).and_then(|()| out.flush()).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(70) }
}

/// Starts a child for each question.
pub(crate) struct PolicyChild;

impl RuleEvaluator for PolicyChild {
    fn evaluate(&self, request: &EvaluationRequest) -> Result<RuleResults, PolicyError> {
        ask(&Question::Evaluate(request.clone()))
    }
}

impl PolicyChild {
    /// Runs the tests beside policies.
    pub(crate) fn test(&self, request: TestRequest) -> Result<TestResults, PolicyError> {
        ask(&Question::Test(request))
    }

    /// Looks policies and data through.
    pub(crate) fn check(&self, policies: Vec<SourceFile>, data: Vec<SourceFile>) -> Result<Vec<Finding>, PolicyError> {
        ask(&Question::Check(policies, data))
    }

    /// What the rules of policies declare.
    pub(crate) fn rules(&self, policies: Vec<SourceFile>) -> Result<Vec<RuleDeclaration>, PolicyError> {
        ask(&Question::Rules(policies))
    }
}

fn ask<T: DeserializeOwned>(question: &Question) -> Result<T, PolicyError> {
    asked(question).unwrap_or_else(|reason| Err(PolicyError::Engine { reason }))
}

fn asked<T: DeserializeOwned>(question: &Question) -> Result<Result<T, PolicyError>, String> {
    let request = serde_json::to_vec(question).map_err(|error| format!("the request could not be written: {error}"))?;
    let bytes = request.len() as u64;
    if bytes > MAX_MESSAGE {
        return Err(format!("the policies, their data and the facts are larger than {MAX_MESSAGE} bytes together"));
    }
    let patience = Duration::from_millis(
        question.patience(&EvaluationLimits::default(), bytes) + START + bytes / BYTES_PER_MILLISECOND,
    );
    let program = std::env::current_exe().map_err(|error| format!("this program could not be found: {error}"))?;
    let mut child = Command::new(program)
        .arg(WORD)
        .env_clear()
        // Each arena would take address space for what is never used.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("the policy process could not be started: {error}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the policy process has no pipes".to_owned());
    };
    let (done, answer) = mpsc::channel();
    // Written and read at once, so that neither side waits for a full pipe. A child that dies makes the write fail, and its
    // answer will be missing.
    std::thread::spawn(move || stdin.write_all(&request));
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_MESSAGE + 1).read_to_end(&mut bytes);
        done.send(read.map(|_| bytes))
    });
    let answer = answer.recv_timeout(patience);
    let killed = if answer.is_err() { child.kill().is_ok() } else { false };
    let status = child.wait().map_err(|error| format!("the policy process could not be waited for: {error}"))?;
    if killed {
        return Err(format!("the policies took longer than {} s", patience.as_secs()));
    }
    if !status.success() {
        return Err(format!("the policy process ended with {status}: it ran out of memory or time, or crashed"));
    }
    match answer {
        Ok(Ok(bytes)) if bytes.len() as u64 <= MAX_MESSAGE => {
            serde_json::from_slice(&bytes).map_err(|error| format!("the policy process gave no answer: {error}"))
        }
        _ => Err("the policy process gave no answer".to_owned()),
    }
}
