use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use sluicegate_ports::{
    execute::{Ended, ExecuteError, StepExecutor},
    store::ContentStore,
};

use crate::fixture::*;

/// Makes the test below a program that runs a step and can be killed.
const PARENT_VARIABLE: &str = "SLUICEGATE_TEST_PARENT";

fn runs_of(fixture: &Fixture) -> Vec<String> {
    let names = fs::read_dir(fixture.state.join("run")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("run-"))
        .collect()
}

fn control_groups_of(run: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    let roots = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    roots.map(|root| root.join("sluicegate").join(run)).filter(|group| group.is_dir()).collect()
}

#[test]
fn a_step_that_runs_too_long_dies_with_everything_it_started() {
    let marker = "98701.5";
    let mut request =
        sh(&format!("(setsid sleep {marker} &); sleep {marker} & (sh -c 'sleep {marker}' &); echo started; wait"));
    request.limits.timeout = Duration::from_millis(1500);
    request.outputs = vec![output("o", "/absent")];
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::TimedOut, "started\n"));
    assert!(processes_with(marker).is_empty());
    request.argv[2] = "echo started".into();
    assert_eq!(run(&request).0.ended, Ended::Exit(0));
}

#[test]
fn what_a_step_leaves_in_the_background_dies_with_it() {
    let marker = "98702.5";
    assert_eq!(log_of(&sh(&format!("setsid sleep {marker} > /dev/null 2>&1 & echo done"))), "done\n");
    assert!(processes_with(marker).is_empty());
}

#[test]
fn a_log_beyond_its_limit_kills_and_is_cut_exactly() {
    let mut request = sh("head -c 5000 /dev/zero");
    request.limits.log_bytes = 5000;
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.len()), (Ended::Exit(0), 5000));
    request.argv[2] = "yes".into();
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.len()), (Ended::LogFull, 5000));
}

#[test]
fn memory_beyond_its_limit_is_refused_and_counted() {
    let mut request = sh("dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?");
    request.limits.memory = Some(64 << 20);
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str(), outcome.oom_kills), (Ended::Exit(0), "137\n", Some(1)));
    request.limits.memory = Some(512 << 20);
    let (outcome, log) = run(&request);
    assert_eq!((log.as_str(), outcome.oom_kills), ("0\n", Some(0)));
}

#[test]
fn processes_beyond_their_limit_are_refused() {
    let mut request = sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; echo all");
    assert_eq!(log_of(&request), "all\n");
    request.limits.pids = Some(6);
    let (outcome, log) = run(&request);
    assert!(outcome.ended != Ended::Exit(0) && !log.contains("all"), "{log}");
}

#[test]
fn outputs_beyond_their_limit_are_refused_and_sparse_ones_are_not_even_read() {
    let mut request = sh("head -c 1000 /dev/zero > /a; head -c 1000 /dev/zero > /b");
    request.outputs = vec![output("a", "/a"), output("b", "/b")];
    request.limits.output_bytes = 2000;
    assert_eq!(run(&request).0.outputs.len(), 2);
    request.limits.output_bytes = 1999;
    let fault = unkept(&request);
    assert!(fault.contains(" b at /b: "), "{fault}");
    request.argv[2] = "dd if=/dev/zero of=/a bs=1 count=1 seek=8T 2>/dev/null".into();
    let fault = unkept(&request);
    assert!(fault.contains("limit of 1999 bytes"), "{fault}");
    request.outputs = vec![output("d", "/d")];
    request.argv[2] = "mkdir /d; head -c 1500 /dev/zero > /d/x".into();
    assert!(unkept(&request).contains("limit of 1999 bytes"), "the archive's own bytes count");
    request.limits.output_bytes = 3072;
    assert_eq!(run(&request).0.outputs[0].size, 3072);
}

#[test]
fn a_processor_limit_is_taken() {
    let mut request = sh("echo ran");
    request.limits.cpu_millis = Some(500);
    assert_eq!(log_of(&request), "ran\n");
}

#[test]
fn a_bottomless_tree_breaks_nothing() {
    let mut request = sh(&format!("mkdir -p /image{0} && cd /image{0} && mkdir -p .{0}", "/d".repeat(1500)));
    assert_eq!(run(&request).0.ended, Ended::Exit(0));
    request.outputs = vec![output("deep", "/image")];
    let fault = unkept(&request);
    assert!(fault.contains("more than 64 folders"), "{fault}");
}

#[test]
fn steps_run_side_by_side_and_leave_nothing_behind() {
    let together = new_fixture("side-by-side");
    std::thread::scope(|scope| {
        let run = |n: usize| together.executor.run_step(&sh(&format!("mkdir -p /a/b/c; echo {n}")), &mut |_| {});
        let all: Vec<_> = (0..6).map(|n| scope.spawn(move || run(n))).collect();
        for (n, one) in all.into_iter().enumerate() {
            let log = together.store.read(&one.join().unwrap().unwrap().log, 99).unwrap();
            assert_eq!(log, format!("{n}\n").as_bytes());
        }
    });
    assert!(runs_of(&together).is_empty());
}

#[test]
fn a_finished_run_leaves_neither_folder_nor_control_group() {
    let alone = new_fixture("alone");
    let mut during = (Vec::new(), Vec::new());
    // More than a pipe holds: the step can't end before the first line was looked at.
    let script = format!("i=0; while [ $i -lt 3000 ]; do echo {}; i=$((i+1)); done", "x".repeat(100));
    let outcome = alone.executor.run_step(&sh(&script), &mut |_| {
        if during.1.is_empty() {
            let runs = runs_of(&alone);
            during = (control_groups_of(&runs[0]), runs);
        }
    });
    assert_eq!(outcome.unwrap().ended, Ended::Exit(0));
    let (groups, runs) = during;
    assert_eq!(runs.len(), 1);
    assert!(!groups.is_empty());
    assert!(runs_of(&alone).is_empty());
    assert!(control_groups_of(&runs[0]).is_empty());
}

/// Not a test by itself: the process that the next one kills.
#[test]
fn run_a_step_when_asked() {
    if let Some(script) = std::env::var_os(PARENT_VARIABLE) {
        let mut request = sh(script.to_str().unwrap());
        let mine = new_fixture("killed");
        request.layers = mine.image.clone();
        let _ = mine.executor.run_step(&request, &mut |bytes| {
            std::io::Write::write_all(&mut std::io::stderr(), bytes).unwrap();
        });
    }
}

#[test]
fn nothing_survives_a_killed_parent_and_the_next_start_sweeps_its_run() {
    let marker = "98703.5";
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limits::run_a_step_when_asked", "--nocapture", "--test-threads=1"])
        .env(PARENT_VARIABLE, format!("setsid sleep {marker} & sleep {marker} & echo up; wait"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "up"), "the step began");
    let killed = new_fixture("killed");
    let runs = runs_of(&killed);
    assert_eq!(runs.len(), 1, "a run that is going on is not swept");
    let helper = processes_with(&killed.state.join("run").join(&runs[0]).display().to_string());
    let step = processes_with(marker);
    assert!(!helper.is_empty() && step.len() >= 2, "{helper:?} {step:?}");
    let handles: Vec<_> = helper
        .iter()
        .chain(&step)
        .filter_map(|pid| pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok())
        .collect();
    parent.kill().unwrap();
    parent.wait().unwrap();
    for handle in &handles {
        let mut watched = [PollFd::new(handle, PollFlags::IN)];
        let ready = poll(&mut watched, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap();
        assert_eq!(ready, 1, "a process of the step is still alive");
    }
    assert!(processes_with(marker).is_empty());
    drop(killed);
    assert!(runs_of(&new_fixture("killed")).is_empty());
    assert!(control_groups_of(&runs[0]).is_empty());
}

#[test]
fn a_killed_helper_takes_its_container_along_and_is_an_error() {
    let (marker, alone) = ("98704.5", new_fixture("helper-killed"));
    let mut handles = Vec::new();
    let mut run = None;
    let request = sh(&format!("setsid sleep {marker} & sleep {marker} & echo up; wait"));
    let result = alone.executor.run_step(&request, &mut |_| {
        let name = runs_of(&alone).remove(0);
        let helper = processes_with(&alone.state.join("run").join(&name).display().to_string());
        let open = |pid: &i32| pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty());
        handles = processes_with(marker).iter().filter_map(|pid| open(pid).ok()).collect();
        for pid in helper {
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
        }
        run = Some(name);
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, ExecuteError::Engine { reason, .. } if reason.contains("without an answer")), "{error}");
    assert!(handles.len() >= 2);
    for handle in &handles {
        let mut watched = [PollFd::new(handle, PollFlags::IN)];
        assert_eq!(poll(&mut watched, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap(), 1, "still alive");
    }
    assert!(runs_of(&alone).is_empty());
    assert!(control_groups_of(&run.unwrap()).is_empty());
}
