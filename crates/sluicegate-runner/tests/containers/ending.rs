use std::time::Duration;

use sluicegate_ports::{
    execute::{Ended, ExecuteError, StepExecutor, StepOutcome, StepRequest, Stop},
    store::ContentStore,
};

use crate::fixture::*;

/// Stops the step as soon as it says `ready`.
fn run_and_stop(request: &StepRequest) -> (StepOutcome, String) {
    let mut seen = Vec::new();
    let outcome = fixture().executor.run_step(request, &mut |bytes| {
        seen.extend_from_slice(bytes);
        if String::from_utf8_lossy(&seen).contains("ready\n") {
            request.stop.raise();
        }
    });
    (outcome.unwrap(), String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn a_stopped_step_is_asked_first_and_what_it_made_is_kept() {
    let marker = "98711.5";
    let mut request = sh(&format!(
        "trap 'echo asked; echo half > /half; exit 5' TERM; setsid sleep {marker} & echo ready; wait; echo not reached"
    ));
    request.outputs = vec![output("half", "/half"), output("whole", "/whole")];
    let (outcome, log) = run_and_stop(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::Stopped, "ready\nasked\n"));
    assert_eq!(fixture().store.read(&outcome.outputs[0].content.digest, 99).unwrap(), b"half\n");
    assert_eq!(outcome.missing, ["whole".parse().unwrap()]);
    assert!(processes_with(marker).is_empty());
}

#[test]
fn a_stopped_step_that_does_not_listen_is_killed_with_everything_it_started() {
    let marker = "98712.5";
    let script = format!(
        "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep {marker}\" &); sleep {marker} & echo ready; while :; do wait; done"
    );
    let (outcome, log) = run_and_stop(&sh(&script));
    assert_eq!((outcome.ended, log.as_str()), (Ended::Stopped, "ready\n"));
    assert!(processes_with(marker).is_empty());
}

#[test]
fn a_time_out_asks_first_and_then_kills() {
    let mut request = sh("trap 'echo asked; exit 0' TERM; echo ready; sleep 99 & wait");
    request.limits.timeout = Duration::from_millis(1500);
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::TimedOut, "ready\nasked\n"));
    request.argv[2] = "trap '' TERM; echo ready; while :; do sleep 98713.5; done".into();
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str()), (Ended::TimedOut, "ready\n"));
    assert!(processes_with("98713.5").is_empty());
}

#[test]
fn a_step_that_was_stopped_before_it_began_never_begins() {
    let mut request = sh("echo ran");
    request.outputs = vec![output("o", "/o")];
    assert_eq!(run(&request).1, "ran\n");
    request.stop.raise();
    let (outcome, log) = run(&request);
    assert_eq!((outcome.ended, log.as_str(), outcome.missing.len()), (Ended::Stopped, "", 1));
}

#[test]
fn a_step_that_ended_by_itself_was_not_stopped_and_its_own_signals_mean_nothing() {
    // Only the helper's request is passed on: what a step sends to its first process ends nobody.
    let request = sh("kill -TERM 1; sleep 0.2; echo still here");
    assert_eq!(log_of(&request), "still here\n");
}

#[test]
fn a_layer_that_is_being_unpacked_is_left_as_soon_as_it_is_to_stop() {
    let request = sh("echo ran");
    let layers = [request.layers.clone(), vec![layer_of(&[("only/here", "text")])]].concat();
    request.stop.raise();
    let account = |stop: &Stop| fixture().executor.account(&request.step, &layers, "98715", stop);
    assert!(matches!(account(&request.stop), Err(ExecuteError::Stopped { .. })));
    // Nothing half done is left: the same is unpacked whole where nobody stops it.
    assert_eq!(account(&Stop::default()).unwrap().uid, 98715);
}
