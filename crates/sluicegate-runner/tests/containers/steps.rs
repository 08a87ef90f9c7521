use sluicegate_ports::{
    execute::{Ended, ExecuteError, InputAccess::*, StepExecutor},
    store::ContentStore,
};
use sluicegate_types::ContentKind;

use crate::fixture::*;

#[test]
fn this_machine_can_run_steps() {
    fixture().executor.probe().unwrap();
    assert_eq!(fixture().executor.identity().name, "libcontainer");
}

#[test]
fn a_step_ends_with_its_own_code() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -SEGV $$", 139),
        ("kill -TERM $$", 143),
        ("nothing-of-that-name", 127),
        ("touch /plain && chmod 644 /plain && /plain", 126),
    ] {
        assert_eq!(run(&sh(script)).0.ended, Ended::Exit(code), "{script}");
    }
}

#[test]
fn a_program_that_is_not_there_or_cannot_be_executed_says_so_itself() {
    let (outcome, log) = run(&program(&["absent"]));
    assert_eq!(outcome.ended, Ended::Exit(127));
    assert!(log.contains("cannot execute \"absent\""), "{log}");
    assert_eq!(run(&program(&["/bin/absent"])).0.ended, Ended::Exit(127));
    assert_eq!(run(&program(&["/image"])).0.ended, Ended::Exit(126));
    let mut without_path = program(&["true"]);
    without_path.env.clear();
    assert_eq!(run(&without_path).0.ended, Ended::Exit(127));
    assert_eq!(run(&program(&["true"])).0.ended, Ended::Exit(0));
}

#[test]
fn both_streams_are_in_the_log_in_the_order_of_writing() {
    let log = log_of(&sh("echo one; echo two >&2; echo three; echo four > /dev/stderr"));
    assert_eq!(log, "one\ntwo\nthree\nfour\n");
}

#[test]
fn another_user_can_open_its_own_standard_output() {
    let mut request = sh("echo written > /dev/stdout; id -u; id -g; id -G");
    request.user = "1000:1001".into();
    assert_eq!(log_of(&request), "written\n1000\n1001\n1001\n");
}

#[test]
fn the_working_folder_is_made_and_belongs_to_the_user() {
    let mut request = sh("readlink /proc/self/cwd; touch mine; stat -c %u:%a .");
    request.workdir = "/made/for/it".into();
    request.user = "1000:1000".into();
    assert_eq!(log_of(&request), "/made/for/it\n1000:755\n");
}

#[test]
fn a_closed_pipe_ends_who_writes_to_it() {
    assert_eq!(log_of(&sh("yes | head -n 1")), "y\n");
    let ignored =
        log_of(&sh("while read name value; do [ $name != SigIgn: ] || echo $value; done < /proc/self/status"));
    assert_eq!(ignored, "0000000000000000\n");
}

#[test]
fn outputs_are_equal_in_two_runs_whatever_zone_and_mask() {
    let run_in = |zone: &str, mask: &str| {
        let mut request = sh(&format!(
            "umask {mask}; mkdir -p /out/tree/sub; echo b > /out/tree/b; echo a > /out/tree/sub/a; ln -s b /out/tree/l; \
             ln /out/tree/b /out/tree/h; chmod -R u=rwX,go=rX /out/tree; echo file > /out/file; chmod 755 /out/file"
        ));
        request.env.push(("TZ".into(), zone.into()));
        request.outputs = vec![output("tree", "/out/tree"), output("file", "/out/file"), output("gone", "/out/gone")];
        let (outcome, log) = run(&request);
        assert_eq!(outcome.ended, Ended::Exit(0), "{log}");
        outcome
    };
    let (one, two) = (run_in("Asia/Tokyo", "077"), run_in("America/Lima", "002"));
    assert_eq!(one.outputs, two.outputs);
    let [tree, file] = &one.outputs[..] else { panic!("{:?}", one.outputs) };
    assert_eq!((tree.content.kind, tree.executable), (ContentKind::Directory, false));
    assert_eq!((file.content.kind, file.executable, file.size), (ContentKind::File, true, 5));
    assert_eq!(listing(&tree.content.digest), ["b", "h", "l", "sub/", "sub/a"]);
    assert_eq!(one.missing, ["gone".parse().unwrap()]);
}

#[test]
fn outputs_of_a_failed_step_are_kept_too() {
    let mut request = sh("echo partial > /report; exit 3");
    request.outputs = vec![output("report", "/report")];
    let (outcome, _) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(3));
    assert_eq!(outcome.outputs.len(), 1);
}

#[test]
fn an_output_may_be_reached_through_a_link_but_never_leave_the_root() {
    let mut request = sh("mkdir /real; echo text > /real/file; ln -s real/file /link; ln -s /etc/hostname /away; \
                          ln -s ../../../../../etc/hostname /up; mkdir /etc; echo inside > /etc/hostname");
    request.outputs = vec![output("link", "/link"), output("away", "/away"), output("up", "/up")];
    let (outcome, log) = run(&request);
    assert_eq!(outcome.ended, Ended::Exit(0), "{log}");
    let text = |index: usize| fixture().store.read(&outcome.outputs[index].content.digest, 99).unwrap();
    assert_eq!(text(0), b"text\n");
    assert_eq!(text(1), b"inside\n");
    assert_eq!(text(2), b"inside\n");
}

#[test]
fn an_output_that_is_no_content_is_refused() {
    let mut request = sh("mkdir /dir; touch /dir/.wh.x");
    request.outputs = vec![output("dir", "/dir")];
    let fault = unkept(&request);
    assert!(fault.contains("dir at /dir: "), "{fault}");
    request.argv[2] = "echo said; mknod /dir p; exit 3".into();
    // It ran all the same: how it ended and what it printed are kept.
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(3), "said\n"));
    assert_eq!(fixture().store.read(&outcome.log, 99).unwrap(), b"said\n");
    let fault = outcome.fault.unwrap();
    assert!(fault.contains("neither a file nor a folder"), "{fault}");
    request.argv[2] = "mkdir /dir; touch /dir/.w".into();
    let (outcome, _) = run(&request);
    assert_eq!((outcome.outputs.len(), outcome.fault), (1, None));
}

#[test]
fn inputs_are_readable_have_one_time_and_read_only_ones_stay_as_they_are() {
    let mut request = sh("cat /src/a/b /one; stat -c %Y /src /src/a /src/a/b /one; \
                          for to in /src/new /src/a/b /one; do (echo x > $to) 2>/dev/null && echo written; done; \
                          rm -r /src/a 2>/dev/null && echo removed; true");
    request.inputs = vec![folder("/src", &[("a/b", "tree\n")], ReadOnly), file("/one", b"file\n", ReadOnly)];
    assert_eq!(log_of(&request), format!("tree\nfile\n{}", format!("{EPOCH}\n").repeat(4)));
}

#[test]
fn writes_to_a_copy_succeed_vanish_and_can_be_outputs() {
    let inputs =
        vec![folder("/src", &[("keep", "1\n"), ("drop", "2\n")], CopyOnWrite), file("/conf", b"old\n", CopyOnWrite)];
    let mut request =
        sh("rm /src/drop; mkdir /src/target; echo new > /src/target/bin; sed -i s/old/edited/ /conf; cat /conf");
    request.inputs = inputs.clone();
    request.outputs = vec![output("bin", "/src/target/bin"), output("all", "/src"), output("conf", "/conf")];
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(0), "edited\n"));
    assert_eq!(listing(&outcome.outputs[1].content.digest), ["keep", "target/", "target/bin"]);
    let mut again = sh("ls /src; cat /conf");
    again.inputs = inputs;
    assert_eq!(log_of(&again), "drop\nkeep\nold\n");
}

#[test]
fn an_input_may_be_mounted_inside_of_another_even_a_read_only_one() {
    let mut request =
        sh("cat /src/vendor/v /src/file; echo x > /src/vendor/w; (echo x > /src/w) 2>/dev/null || echo refused");
    request.inputs = vec![
        file("/src/file", b"f\n", ReadOnly),
        folder("/src/vendor", &[("v", "v\n")], CopyOnWrite),
        folder("/src", &[("s", "s\n")], ReadOnly),
    ];
    assert_eq!(log_of(&request), "v\nf\nrefused\n");
}

#[test]
fn inputs_belong_to_the_steps_user() {
    let mut request = sh("echo more >> /src/a; echo x > /src/b; mkdir /src/c; cat /src/a; stat -c %u /conf");
    request.user = "1234:1234".into();
    request.inputs = vec![folder("/src", &[("a", "1\n")], CopyOnWrite), file("/conf", b"x", CopyOnWrite)];
    request.outputs = vec![output("made", "/out/made")];
    request.argv[2].push_str("; echo y > /out/made");
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::Exit(0), "1\nmore\n1234\n"));
    assert_eq!(outcome.outputs.len(), 1);
}

#[test]
fn an_input_is_executable_when_it_is_said_to_be() {
    let mut request = program(&["/tool"]);
    request.inputs = vec![file("/tool", b"#!/bin/sh\necho ran\n", ReadOnly)];
    assert_eq!(run(&request).0.ended, Ended::Exit(126));
    request.inputs[0].executable = true;
    assert_eq!(log_of(&request), "ran\n");
}

#[test]
fn a_mount_point_that_the_image_has_as_something_else_is_refused() {
    let mut request = sh("true");
    request.inputs = vec![folder("/bin/sh", &[("a", "1")], ReadOnly)];
    assert!(matches!(refused(&request), ExecuteError::Refused { .. }));
    request.inputs = vec![file("/image", b"x", CopyOnWrite)];
    assert!(matches!(refused(&request), ExecuteError::Refused { .. }));
    request.inputs = vec![folder("/image", &[("a", "1")], ReadOnly)];
    assert_eq!(log_of(&request), "");
}

#[test]
fn an_image_without_layers_has_nothing_to_run() {
    let mut request = program(&["/bin/true"]);
    request.layers.clear();
    assert_eq!(run(&request).0.ended, Ended::Exit(127));
}

#[test]
fn a_step_as_the_user_that_means_no_change_is_refused() {
    let mut request = sh("id -u");
    request.user = format!("{}:0", u32::MAX);
    assert!(matches!(refused(&request), ExecuteError::Refused { .. }));
    request.user = format!("{}:0", (1u32 << 31) - 1);
    assert_eq!(log_of(&request), format!("{}\n", i32::MAX));
}
