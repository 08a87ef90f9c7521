//! Evaluates policies in a process of their own: a policy that eats memory, recurses or crashes takes nothing down but its own
//! evaluation, and that is `Undecided`.

use std::{
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use sluicegate_flow::gate::RuleEvaluator;
use sluicegate_policy::rego::{EvaluationLimits, EvaluationRequest, PolicyError, RuleResults, evaluate};

/// The hidden word that makes this program the child.
const WORD: &str = "internal-evaluate-policy";
/// Seconds that the whole child may take, its start and the reading of the facts included.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of address space of the child.
const ADDRESS_SPACE: u64 = 1024 * 1024 * 1024;
/// Seconds of processor time of the child.
const CPU_SECONDS: u64 = 15;
/// Bytes of answer that are taken.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// Whether this process was started to evaluate.
pub(crate) fn is_asked() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == WORD)
}

/// The child: one request on standard input, one answer on standard output.
pub(crate) fn serve() -> ExitCode {
    let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
    let limited = setrlimit(Resource::As, limit(ADDRESS_SPACE))
        .and_then(|()| setrlimit(Resource::Cpu, limit(CPU_SECONDS)))
        .and_then(|()| setrlimit(Resource::Core, limit(0)));
    if limited.is_err() {
        return ExitCode::from(70);
    }
    let answer: Result<RuleResults, PolicyError> =
        match serde_json::from_reader::<_, EvaluationRequest>(std::io::stdin().lock()) {
            Ok(request) => evaluate(&request, &EvaluationLimits::default()),
            Err(error) => Err(PolicyError::Engine { reason: format!("the request could not be read: {error}") }),
        };
    let mut out = std::io::stdout().lock();
    let written = serde_json::to_writer(&mut out, &answer).map_err(std::io::Error::from).and_then(|()| out.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(70) }
}

/// Starts a child for each evaluation.
pub(crate) struct PolicyChild;

impl RuleEvaluator for PolicyChild {
    fn evaluate(&self, request: &EvaluationRequest) -> Result<RuleResults, PolicyError> {
        ask(request).unwrap_or_else(|reason| Err(PolicyError::Engine { reason }))
    }
}

fn ask(request: &EvaluationRequest) -> Result<Result<RuleResults, PolicyError>, String> {
    let request = serde_json::to_vec(request).map_err(|error| format!("the request could not be written: {error}"))?;
    let program = std::env::current_exe().map_err(|error| format!("this program could not be found: {error}"))?;
    let mut child = Command::new(program)
        .arg(WORD)
        .env_clear()
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
        let read = stdout.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        done.send(read.map(|_| bytes))
    });
    let answer = answer.recv_timeout(DEADLINE);
    let killed = if answer.is_err() { child.kill().is_ok() } else { false };
    let status = child.wait().map_err(|error| format!("the policy process could not be waited for: {error}"))?;
    if killed {
        return Err(format!("the policies took longer than {} s", DEADLINE.as_secs()));
    }
    if !status.success() {
        return Err(format!("the policy process ended with {status}: it ran out of memory or time, or crashed"));
    }
    match answer {
        Ok(Ok(bytes)) if bytes.len() as u64 <= MAX_ANSWER => {
            serde_json::from_slice(&bytes).map_err(|error| format!("the policy process gave no answer: {error}"))
        }
        _ => Err("the policy process gave no answer".to_owned()),
    }
}
