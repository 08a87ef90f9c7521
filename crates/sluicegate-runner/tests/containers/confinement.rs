use std::fs;

use sluicegate_ports::execute::{Ended, InputAccess::*};

use crate::fixture::*;

#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let mut request = program(&["/bin/env"]);
    request.env = vec![("B".into(), "2".into()), ("A".into(), "x=y z".into())];
    assert_eq!(log_of(&request), "B=2\nA=x=y z\n");
    request.env.clear();
    assert_eq!(log_of(&request), "");
}

#[test]
fn only_the_three_standard_descriptors_are_open() {
    // The fourth is the folder that ls itself reads.
    assert_eq!(log_of(&program(&["ls", "/proc/self/fd"])), "0\n1\n2\n3\n");
    assert_eq!(log_of(&program(&["readlink", "/proc/self/fd/0"])), "/dev/null\n");
}

#[test]
fn a_step_has_no_capability_no_way_to_get_one_and_a_filter() {
    let status = log_of(&program(&["cat", "/proc/self/status"]));
    let value =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("NoNewPrivs:"), value("Seccomp:"), value("Groups:")), ("1".into(), "2".into(), String::new()));
}

#[test]
fn mounting_and_leaving_namespaces_are_refused() {
    for script in [
        "mount -t tmpfs none /image",
        "mount --bind /bin /image",
        "unshare -m true",
        "unshare -U true",
        "mknod /device c 1 3",
        "echo x > /proc/sys/kernel/hostname",
        "echo c > /proc/sysrq-trigger",
    ] {
        assert_ne!(run(&sh(&format!("({script}) 2>/dev/null"))).0.ended, Ended::Exit(0), "{script}");
    }
}

#[test]
fn there_is_no_network_but_a_loopback() {
    let devices = log_of(&program(&["cat", "/proc/net/dev"]));
    let names: Vec<_> = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(names, ["lo"]);
    assert!(log_of(&program(&["cat", "/proc/net/fib_trie"])).contains("127.0.0.1"), "the loopback is up");
}

#[test]
fn files_of_the_host_are_out_of_reach() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    fs::write(&canary, "secret of the host").unwrap();
    let up = format!("/..{}", "/..".repeat(20));
    for path in
        [canary.display().to_string(), format!("{up}{}", canary.display()), format!("/proc/1/root{}", canary.display())]
    {
        assert_ne!(run(&program(&["cat", &path])).0.ended, Ended::Exit(0), "{path}");
    }
    let root = log_of(&program(&["ls", "/"]));
    assert_eq!(
        root.split_whitespace().filter(|name| ["root", "home", "var", "work"].contains(name)).count(),
        0,
        "{root}"
    );
}

#[test]
fn the_first_process_can_be_neither_read_nor_killed() {
    for script in [
        "readlink /proc/1/exe",
        "readlink /proc/1/fd/1",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "cat /proc/1/mem",
    ] {
        let (outcome, log) = run(&sh(&format!("{script} 2>/dev/null")));
        assert!(outcome.ended != Ended::Exit(0) || log.is_empty(), "{script}: {log}");
    }
    assert_eq!(log_of(&sh("kill -9 1; cat /proc/1/comm")), "init\n");
}

#[test]
fn a_steps_view_of_its_mounts_says_nothing_of_the_host() {
    let mut request = program(&["cat", "/proc/self/mountinfo"]);
    request.inputs = vec![
        folder("/src", &[("a", "1")], ReadOnly),
        folder("/cow", &[("a", "1")], CopyOnWrite),
        file("/one", b"x", ReadOnly),
    ];
    let mounts = log_of(&request);
    let state = fixture().state.display().to_string();
    assert!(!mounts.contains(&state) && !mounts.contains("containers"), "{mounts}");
}

#[test]
fn the_host_name_is_the_steps_and_orphans_are_reaped() {
    let mut request = sh("cat /proc/sys/kernel/hostname; (sleep 0.01 & exec true); (sleep 0 &) ; sleep 0.1; \
                          for p in /proc/[0-9]*; do cat $p/stat 2>/dev/null; done");
    request.step = "compile".parse().unwrap();
    let log = log_of(&request);
    assert!(log.starts_with("compile\n"), "{log}");
    assert!(!log.contains(") Z "), "{log}");
}

#[test]
fn the_helpers_job_and_the_other_folders_of_the_run_are_unseen() {
    let log = log_of(&sh("ls -a /"));
    for name in ["job.json", "config.json", "state", "upper", "lock"] {
        assert!(!log.split_whitespace().any(|seen| seen == name), "{log}");
    }
}
