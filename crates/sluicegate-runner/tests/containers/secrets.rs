use sluicegate_ports::{
    execute::{Egress, Ended, Network, Observation, OutputRole, StepRequest},
    store::ContentStore,
};
use sluicegate_types::{Destination, Secret};

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

#[test]
fn servers_that_a_step_asks_for_are_told_without_its_secrets() {
    let ask = |host| {
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://{host}/ HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3; exec 3>&-;"
        )
    };
    let mut request = program(&["bash", "-c", &[ask("S3CR3T-value.a.example"), ask("b.example")].concat()]);
    let listed = Destination { host: "c.example".to_owned(), port: 80 };
    request.network = Network::Allow(Egress { destinations: vec![listed], private: Vec::new() });
    request.masked = vec![secret(b"S3CR3T-value")];
    let (outcome, _) = run(&request);
    let hosts: Vec<&str> = outcome.contacts.iter().map(|contact| contact.destination.host.as_str()).collect();
    assert_eq!(hosts, ["***.a.example", "b.example"]);
    let all = format!("{:?}", outcome.contacts).to_lowercase();
    assert!(!all.contains("s3cr3t"), "{all}");
}

#[test]
fn paths_that_are_observed_are_told_without_secrets() {
    let mut request = sh("mkdir /work; : > /work/s3cr3t-value; : > /work/plain");
    request.observe = true;
    request.masked = vec![secret(b"s3cr3t-value")];
    let Observation::Seen(trace) = run(&request).0.observed else { panic!("nothing was seen") };
    assert!(["/work/***", "/work/plain"].iter().all(|path| trace.opened.iter().any(|opened| opened == path)));
    assert!(!format!("{trace:?}").contains("s3cr3t"), "{trace:?}");
}

#[test]
fn an_output_that_cannot_be_kept_is_told_without_secrets() {
    // More folders below each other than an archive takes.
    let mut request = sh(&format!("mkdir -p /out/s3cr3t-value{}", "/d".repeat(64)));
    request.outputs = vec![output("o", "/out")];
    let told = |request: &StepRequest| run(request).0.fault.unwrap();
    assert!(told(&request).contains("s3cr3t-value"), "it is about a path");
    request.masked = vec![secret(b"s3cr3t-value")];
    let error = told(&request);
    assert!(error.contains("***") && !error.contains("s3cr3t"), "{error}");
}

#[test]
fn a_report_with_a_secret_is_not_kept_and_an_output_is() {
    let mut request =
        sh("mkdir /out; for to in report file; do echo '<testcase name=\"s3cr3t&#45;value\"/>' > /out/$to; done");
    request.outputs = vec![output("file", "/out/file"), output("report", "/out/report")];
    request.outputs[1].role = OutputRole::Report;
    let (outcome, _) = run(&request);
    assert_eq!((outcome.outputs.len(), outcome.leaking.len()), (2, 0), "there is no secret");
    request.masked = vec![secret(b"s3cr3t-value")];
    let (outcome, _) = run(&request);
    let kept: Vec<&str> = outcome.outputs.iter().map(|kept| kept.name.as_str()).collect();
    let leaking: Vec<&str> = outcome.leaking.iter().map(|name| name.as_str()).collect();
    assert_eq!((outcome.ended, kept, leaking), (Ended::Exit(0), vec!["file"], vec!["report"]));
}
