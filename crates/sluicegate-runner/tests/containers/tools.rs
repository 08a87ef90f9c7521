use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use sluicegate_ports::execute::{Ended, ExecuteError, Stop, ToolRequest, ToolSandbox};

use crate::fixture::{fixture, processes_with};

/// A script with its interpreter: every folder that the shell is linked with comes along.
fn request(dir: &tempfile::TempDir, script: &str) -> ToolRequest {
    let program = dir.path().join("tool");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let folders = ["/bin", "/lib", "/lib64"].map(|path| (PathBuf::from(path), PathBuf::from(path)));
    ToolRequest {
        program,
        args: vec!["first".into()],
        env: vec![("PATH".into(), "/bin".into())],
        folders: folders.to_vec(),
        timeout: Duration::from_secs(60),
        memory: Some(256 << 20),
        stdout_bytes: 100,
        stop: Stop::default(),
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_tool_prints_on_two_streams_in_an_empty_folder_of_its_own() {
    let dir = dir();
    let script = "echo out $1; echo err >&2; pwd; ls -A; echo x > here && cat here; exit 4";
    let outcome = fixture().executor.run_tool(&request(&dir, script)).unwrap();
    assert_eq!(outcome.ended, Ended::Exit(4));
    assert_eq!(String::from_utf8(outcome.stdout).unwrap(), "out first\n/tmp\nx\n");
    assert_eq!(outcome.stderr, b"err\n");
}

#[test]
fn a_tool_reads_its_folders_and_cannot_write_to_them() {
    let (dir, data) = (dir(), dir());
    fs::write(data.path().join("db"), "content\n").unwrap();
    // Private to root, as a home's files are.
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(data.path().join("db"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut request =
        request(&dir, "cat /data/db; (echo x > /data/db) 2>/dev/null || echo refused; rm -f /data/db /tool");
    request.folders.push((data.path().to_owned(), "/data".into()));
    let outcome = fixture().executor.run_tool(&request).unwrap();
    assert_eq!(String::from_utf8(outcome.stdout).unwrap(), "content\nrefused\n");
    assert_eq!(fs::read_to_string(data.path().join("db")).unwrap(), "content\n");
    assert!(request.program.exists());
}

#[test]
fn a_tool_is_as_confined_as_a_step() {
    let dir = dir();
    let script = "while read k v; do case $k in CapEff:|Seccomp:|NoNewPrivs:) echo $k $v;; esac; done < /proc/self/status; \
                  env | while read l; do case $l in PATH=*|PWD=*|_=*|OLDPWD=*) ;; *) echo $l;; esac; done";
    let outcome = fixture().executor.run_tool(&request(&dir, script)).unwrap();
    assert_eq!(String::from_utf8(outcome.stdout).unwrap(), "CapEff: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n");
}

#[test]
fn too_much_output_and_too_much_time_are_told_apart() {
    let dir = dir();
    let hundred = "head -c 100 /dev/zero";
    assert_eq!(fixture().executor.run_tool(&request(&dir, hundred)).unwrap().stdout.len(), 100);
    let error = fixture().executor.run_tool(&request(&dir, "head -c 101 /dev/zero")).unwrap_err();
    assert!(matches!(&error, ExecuteError::Engine { reason, .. } if reason.contains("limit of 100 bytes")), "{error}");
    let mut slow = request(&dir, "echo begun; sleep 1000");
    slow.timeout = Duration::from_millis(1500);
    let outcome = fixture().executor.run_tool(&slow).unwrap();
    assert_eq!((outcome.ended, outcome.stdout.as_slice()), (Ended::TimedOut, &b"begun\n"[..]));
}

#[test]
fn a_tool_is_stopped_from_outside() {
    let dir = dir();
    let asked = request(&dir, "trap '' TERM; echo begun; while :; do sleep 98714.5; done");
    std::thread::scope(|scope| {
        let tool = scope.spawn(|| fixture().executor.run_tool(&asked).unwrap());
        while processes_with("98714.5").is_empty() {
            std::thread::yield_now();
        }
        asked.stop.raise();
        let outcome = tool.join().unwrap();
        assert_eq!((outcome.ended, outcome.stdout.as_slice()), (Ended::Stopped, &b"begun\n"[..]));
    });
    assert!(processes_with("98714.5").is_empty());
}
