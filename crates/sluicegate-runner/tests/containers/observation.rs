use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use sluicegate_ports::execute::{Ended, InputAccess::*, Observation, StepRequest, Trace};

use crate::fixture::*;

/// The trace of a step that has to end with 0.
fn trace_of(mut request: StepRequest) -> (Trace, String) {
    request.observe = true;
    let (outcome, log) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(0), "{log}");
    match outcome.observed {
        Observation::Seen(trace) => (trace, log),
        other => panic!("{other:?}"),
    }
}

fn has(list: &[String], path: &str) -> bool {
    list.iter().any(|seen| seen == path)
}

#[test]
fn what_a_step_opens_and_executes_is_listed_by_the_paths_that_it_sees() {
    let prepared = file("/etc/passwd", b"root:x:0:0::/:/bin/sh\n", CopyOnWrite);
    let mut request = sh("cat /etc/passwd > /x; ls > /dev/null");
    request.inputs = vec![prepared];
    let (trace, _) = trace_of(request);
    for program in ["/bin/sh", "/bin/cat", "/bin/ls"] {
        assert!(has(&trace.executed, program) && has(&trace.opened, program), "{program}: {trace:?}");
    }
    assert!(trace.executed.iter().any(|path| path.contains("ld-linux")), "the loader is executed too: {trace:?}");
    assert!(trace.opened.iter().any(|path| path.contains("libc.so")), "{trace:?}");
    for path in ["/etc/passwd", "/x"] {
        assert!(has(&trace.opened, path) && !has(&trace.executed, path), "{path}: {trace:?}");
    }
    assert!(!has(&trace.opened, "/bin/touch"), "{trace:?}");
    assert_eq!(trace.lost, 0);
    assert_eq!(trace.blind, ["/dev", "/etc/hosts", "/memfd:", "/proc", "/sys"]);
    let sorted = |list: &[String]| list.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(sorted(&trace.opened) && sorted(&trace.executed), "{trace:?}");
}

#[test]
fn nothing_of_the_engine_itself_is_in_the_list() {
    let mut request = program(&["true"]);
    request.workdir = "/made/for/it".into();
    let output_that_is_packed = output("image", "/image");
    request.outputs = vec![output_that_is_packed];
    let (trace, _) = trace_of(request);
    assert_eq!(trace.executed.len(), 2, "the program and its loader: {trace:?}");
    assert!(has(&trace.executed, "/bin/true"), "{trace:?}");
    let expected = |path: &String| path == "/bin/true" || path.contains(".so");
    assert!(trace.opened.iter().all(expected), "{trace:?}");
}

#[test]
fn inputs_that_are_mounts_of_their_own_are_seen_at_their_places() {
    let mut request = sh("cat /src/a /src/deep/b /src/deep/inner/c /only; echo x > /copy/new; cat /copy/d");
    request.inputs = vec![
        folder("/src", &[("a", "a"), ("deep/b", "b")], ReadOnly),
        folder("/src/deep/inner", &[("c", "c")], CopyOnWrite),
        file("/only", b"o", ReadOnly),
        folder("/copy", &[("d", "d")], CopyOnWrite),
    ];
    let (trace, log) = trace_of(request);
    assert_eq!(log, "abcod");
    for path in ["/src/a", "/src/deep/b", "/src/deep/inner/c", "/only", "/copy/new", "/copy/d"] {
        assert!(has(&trace.opened, path), "{path}: {trace:?}");
    }
    assert_eq!(trace.blind, ["/dev", "/etc/hosts", "/memfd:", "/proc", "/sys"]);
    assert_eq!(trace.lost, 0);
}

#[test]
fn a_file_that_is_gone_keeps_its_name() {
    let (trace, _) = trace_of(sh(
        "echo a > /gone; echo b > /linked; ln /linked /other; rm /gone /linked; echo c > '/kept (deleted)'; \
         cp /bin/true /once; /once; rm /once",
    ));
    for path in ["/gone", "/linked", "/kept (deleted)", "/once"] {
        assert!(has(&trace.opened, path), "{path}: {trace:?}");
    }
    assert!(has(&trace.executed, "/once"), "{trace:?}");
    for path in ["/gone (deleted)", "/linked (deleted)", "/once (deleted)", "/kept"] {
        assert!(!has(&trace.opened, path), "{path}: {trace:?}");
    }
}

#[test]
fn a_name_that_is_no_text_is_counted_as_lost() {
    let (named, _) = trace_of(sh("echo a > /text"));
    assert_eq!(named.lost, 0);
    let (trace, _) = trace_of(sh(r"echo a > $(printf '/\377')"));
    assert_eq!(trace.lost, 1, "{trace:?}");
}

#[test]
fn many_opens_and_executions_are_all_there() {
    let (trace, _) = trace_of(sh(
        "i=0; while [ $i -lt 3000 ]; do echo > /f$i; i=$((i+1)); done; i=0; while [ $i -lt 40 ]; do cp /bin/true /p$i; /p$i; i=$((i+1)); done",
    ));
    assert_eq!(trace.opened.iter().filter(|path| path.starts_with("/f")).count(), 3000);
    assert_eq!(trace.executed.iter().filter(|path| path.starts_with("/p")).count(), 40);
    assert_eq!(trace.lost, 0);
}

#[test]
fn a_pipe_with_a_name_does_not_stop_the_observer_nor_the_step() {
    let (trace, log) = trace_of(sh("mknod /pipe p; echo through > /pipe & cat /pipe; wait"));
    assert_eq!(log, "through\n");
    assert!(has(&trace.executed, "/bin/cat"), "{trace:?}");
}

#[test]
fn a_step_that_is_killed_or_fails_is_observed_all_the_same() {
    let mut request = sh("cat /bin/sh > /dev/null; exit 3");
    request.observe = true;
    let (outcome, _) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(3));
    assert!(matches!(&outcome.observed, Observation::Seen(trace) if has(&trace.executed, "/bin/cat")));
    let mut request = sh("cat /bin/sh; yes");
    request.observe = true;
    request.limits.log_bytes = 1 << 20;
    let (outcome, _) = run(&request);
    assert_eq!(outcome.ended, Ended::LogFull);
    assert!(matches!(&outcome.observed, Observation::Seen(trace) if has(&trace.executed, "/bin/cat")));
}

#[test]
fn nobody_asked_and_not_permitted_are_no_empty_lists_and_the_step_runs() {
    assert_eq!(run(&sh("true")).0.observed, Observation::NotAsked);
    // Without the capability in the thread that asks: a program that root executes has it again.
    let unprivileged = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).unwrap();
        let mut request = sh("echo ran");
        request.observe = true;
        run(&request)
    });
    let (outcome, log) = unprivileged.join().unwrap();
    assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(0), "ran\n"));
    let Observation::Unavailable(reason) = outcome.observed else { panic!("{:?}", outcome.observed) };
    assert!(reason.contains("CAP_SYS_ADMIN"), "{reason}");
}
