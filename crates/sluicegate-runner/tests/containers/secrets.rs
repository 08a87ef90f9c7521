use sluicegate_ports::{execute::Ended, store::ContentStore};
use sluicegate_types::Secret;

use crate::fixture::*;

fn secret(value: &[u8]) -> Secret {
    Secret::new(value.to_vec())
}

#[test]
fn a_secret_is_neither_in_the_log_nor_in_what_is_shown() {
    let mut request =
        sh("echo \"is $TOKEN.\"; echo \"$TOKEN\" >&2; printf s3cr; sleep 0.2; printf 3t-value; echo; echo s3cr3t-; \
                          echo czNjcjN0LXZhbHVl; echo 7333637233742d76616c7565");
    request.env.push(("TOKEN".into(), "s3cr3t-value".into()));
    assert!(log_of(&request).contains("s3cr3t-value"), "without being told, nothing is hidden");
    request.masked = vec![secret(b"s3cr3t-value")];
    assert_eq!(log_of(&request), "is ***.\n***\n***\ns3cr3t-\n***\n***\n");
}

#[test]
fn an_error_of_the_program_itself_is_masked_too() {
    let mut request = program(&["/bin/s3cr3t-value"]);
    request.masked = vec![secret(b"s3cr3t-value")];
    let (outcome, log) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(127));
    assert!(log.contains("***") && !log.contains("s3cr3t"), "{log}");
}

#[test]
fn the_end_of_a_log_that_begins_like_a_secret_is_there() {
    let mut request = sh("printf s3cr");
    request.masked = vec![secret(b"s3cr3t-value")];
    assert_eq!(log_of(&request), "s3cr");
}

#[test]
fn the_limit_counts_what_is_kept() {
    let mut request = sh("for i in 1 2 3 4 5; do echo s3cr3t-value; done");
    request.masked = vec![secret(b"s3cr3t-value")];
    request.limits.log_bytes = 20;
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(0), "***\n***\n***\n***\n***\n"));
    request.limits.log_bytes = 19;
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.len()), (Ended::LogFull, 19));
    // Held back until the end, and too much then.
    request.argv[2] = "printf s3cr3t-".into();
    request.limits.log_bytes = 6;
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::LogFull, "s3cr3t"));
}

#[test]
fn a_secret_that_is_too_short_is_refused_without_its_value() {
    let mut request = sh("true");
    request.masked = vec![secret(b"abcd"), secret(b"xyz")];
    let error = refused(&request).to_string();
    assert!(error.contains("secret number 2") && !error.contains("xyz"), "{error}");
    request.masked.pop();
    assert_eq!(log_of(&request), "");
}

#[test]
fn a_secret_is_in_no_file_of_the_run() {
    let mut request = sh("echo $TOKEN; ls / > /dev/null");
    request.env.push(("TOKEN".into(), "s3cr3t-in-files".into()));
    request.masked = vec![secret(b"s3cr3t-in-files")];
    let mut found = None;
    let outcome = sluicegate_ports::execute::StepExecutor::run_step(&fixture().executor, &request, &mut |_| {
        let mut waiting = vec![fixture().state.join("run")];
        while let Some(path) = waiting.pop() {
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            } else if meta.is_file() {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(15).any(|window| window == b"s3cr3t-in-files") {
                    found = Some(path);
                }
            }
        }
    });
    assert_eq!(fixture().store.read(&outcome.unwrap().log, 99).unwrap(), b"***\n");
    assert_eq!(found, None);
}
