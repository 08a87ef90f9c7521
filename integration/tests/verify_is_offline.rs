//! `verify` opens no socket: a trace of its system calls shows none, and it works where there is no network at all.

use std::{fs, process::Command};

use integration::{Ended, Project, can_run_steps, peer, program};

#[test]
fn no_system_call_of_verify_is_about_a_socket() {
    let test = "no_system_call_of_verify_is_about_a_socket";
    if !can_run_steps(test) || peer("SLUICEGATE_TRIVY", test).is_none() || peer("SLUICEGATE_STRACE", test).is_none() {
        return;
    }
    let strace = std::env::var_os("SLUICEGATE_STRACE").unwrap();
    let project = Project::promoted();
    let trace = |what: &[&str]| {
        let log = project.path("trace");
        let mut command = Command::new(&strace);
        project.environment(&mut command);
        command.args(["-f", "-o"]).arg(&log).args(what);
        let ended = Ended::of(what, command.output().unwrap());
        (ended, fs::read_to_string(&log).unwrap())
    };
    let program = program();
    let (ended, calls) = trace(&[program.to_str().unwrap(), "verify", "--offline", "oci:env/production"]);
    ended.assert(0, "VERIFIED");
    let is_socket = |line: &&str| {
        ["socket(", "connect(", "bind(", "sendto(", "sendmsg(", "recvfrom(", "socketpair("]
            .iter()
            .any(|call| line.contains(call))
    };
    assert!(calls.lines().count() > 50, "the trace is empty: {calls}");
    assert_eq!(calls.lines().filter(is_socket).collect::<Vec<_>>(), Vec::<&str>::new());
    // The same look at a program that does open a socket finds it.
    let python = "import socket; socket.socket()";
    let (ended, calls) = trace(&["python3", "-c", python]);
    ended.assert(0, "");
    assert!(calls.lines().any(|line| is_socket(&line)));
}

#[test]
fn verify_works_in_an_empty_network_namespace() {
    let test = "verify_works_in_an_empty_network_namespace";
    if !can_run_steps(test) || peer("SLUICEGATE_TRIVY", test).is_none() {
        return;
    }
    let project = Project::promoted();
    let program = program();
    let arguments = ["--net", "--", program.to_str().unwrap(), "verify", "--offline", "oci:env/production"];
    let mut command = Command::new("unshare");
    project.environment(&mut command);
    let ended = Ended::of(&arguments, command.args(arguments).output().unwrap());
    ended.assert(0, "VERIFIED");
    // Nor does it need a home, or make one.
    let nowhere = project.path("nowhere");
    let mut command = project.command(&["verify", "--offline", "oci:env/production"]);
    let ended = Ended::of(&["verify"], command.env("SLUICEGATE_HOME", &nowhere).output().unwrap());
    ended.assert(0, "VERIFIED");
    assert!(!nowhere.exists());
}
