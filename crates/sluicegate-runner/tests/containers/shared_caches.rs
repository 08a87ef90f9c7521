//! Shared caches: what the next step of a scope finds, and that nothing of them leads anywhere else or into an output.

use std::{fs, os::unix::fs::symlink};

use sluicegate_ports::execute::{CacheBegan, Ended, OutputRequest, OutputRole, SharedCache, StepRequest};
use sluicegate_types::Digest;

use crate::fixture::{fixture, log_of, run, sh};

fn cached(scope: Option<&str>, script: &str) -> StepRequest {
    let scope = scope.map(|scope| Digest::of(scope.as_bytes()));
    let cache = SharedCache { name: "deps".parse().unwrap(), mount_point: "/var/deps".into(), scope };
    StepRequest { caches: vec![cache], ..sh(script) }
}

/// The folder of a scope; begun anew, as the state of these tests outlives them.
fn scope(name: &str) -> std::path::PathBuf {
    let folder = fixture().state.join("shared").join(Digest::of(name.as_bytes()).hex());
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn the_next_step_of_a_scope_finds_what_the_one_before_left() {
    scope("next");
    scope("other");
    let write = cached(Some("next"), "ls /var/deps; echo kept > /var/deps/file");
    let (outcome, log) = run(&write);
    assert_eq!((outcome.caches[0].began, log.as_str()), (CacheBegan::Empty, ""));
    let (outcome, log) = run(&cached(Some("next"), "cat /var/deps/file"));
    assert_eq!((outcome.caches[0].began, log.as_str()), (CacheBegan::Continued, "kept\n"));
    assert_eq!(log_of(&cached(Some("other"), "ls /var/deps")), "");
    assert_eq!(log_of(&cached(None, "ls /var/deps; touch /var/deps/x")), "");
    assert_eq!(log_of(&cached(None, "ls /var/deps")), "");
    // Of another user, whom the folder would not let in.
    let mut of_another = cached(Some("next"), "ls /var/deps; touch /var/deps/mine && echo written");
    of_another.user = "1234:1234".to_owned();
    assert_eq!(log_of(&of_another), "written\n");
}

#[test]
fn nothing_of_a_cache_is_in_an_output_whatever_link_leads_there() {
    scope("linked");
    let mut request = cached(
        Some("linked"),
        "echo x > /var/deps/file; mkdir -p /out; ln -s /var/deps /out/app; ln -s /var/deps/file /out/one",
    );
    for name in ["app", "one"] {
        request.outputs = vec![OutputRequest {
            name: name.parse().unwrap(),
            path: format!("/out/{name}").into(),
            role: OutputRole::Product,
        }];
        let fault = run(&request).0.fault.unwrap();
        assert!(fault.contains("it leads into a shared cache"), "{fault}");
    }
    // A link in an output is a link.
    request.outputs[0].path = "/out".into();
    assert_eq!(run(&request).0.ended, Ended::Exit(0));
    let mut copied = cached(Some("linked"), "mkdir /out; cp /var/deps/file /out/one");
    copied.outputs =
        vec![OutputRequest { name: "one".parse().unwrap(), path: "/out/one".into(), role: OutputRole::Product }];
    assert_eq!(run(&copied).0.outputs.len(), 1);
}

#[test]
fn no_link_in_or_at_a_scope_leads_a_later_mount_elsewhere() {
    let folder = scope("swapped");
    log_of(&cached(Some("swapped"), "ln -s / /var/deps/root; ln -s ../../.. /var/deps/up; mkdir /var/deps/dir"));
    // A path inside leads to what the step itself has there, as every path of a step does.
    let outside = fixture().state.join("secret-of-the-machine");
    fs::write(&outside, "a word of the machine").unwrap();
    let script = format!("cat /var/deps/root{0} /var/deps/up{0}; ls /var/deps", outside.display());
    let (_, log) = run(&cached(Some("swapped"), &script));
    assert!(!log.contains("a word") && log.contains("dir"), "{log}");
    // Even somebody who could write above the content does not get a step to what a link names.
    fs::rename(folder.join("content"), folder.join("moved")).unwrap();
    symlink(fixture().state.join("store"), folder.join("content")).unwrap();
    let (outcome, log) = run(&cached(Some("swapped"), "ls /var/deps"));
    assert_eq!((outcome.caches[0].began, log.as_str()), (CacheBegan::Empty, ""));
    assert!(fs::symlink_metadata(folder.join("content")).unwrap().is_dir());
    assert!(fixture().state.join("store").is_dir());
}

#[test]
fn a_cache_has_no_devices_and_no_programs_that_change_who_runs_them() {
    scope("flags");
    let mounts = log_of(&cached(Some("flags"), "cat /proc/self/mountinfo"));
    let own = mounts.lines().find(|line| line.contains(" /var/deps ")).unwrap();
    let options = own.split(' ').nth(5).unwrap();
    assert!(options.contains("nosuid") && options.contains("nodev") && options.contains("rw"), "{own}");
}
