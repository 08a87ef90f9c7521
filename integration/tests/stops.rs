//! A run that is ended from outside, or whose steps left what can't be kept: nothing survives, and everything is on record.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use integration::{Project, can_run_steps, ready};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::{Value, json};

const RUN: [&str; 2] = ["run", "--no-scan"];

fn project(steps: &str) -> Project {
    let project = Project::prepared();
    let text = format!("version: 1\nname: stops\ndefaults: {{ image: oci:images/base }}\nsteps:\n{steps}");
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    project
}

fn begun(project: &Project) -> (Child, BufReader<ChildStderr>) {
    begun_with(project, &[])
}

fn begun_with(project: &Project, arguments: &[&str]) -> (Child, BufReader<ChildStderr>) {
    // Whoever runs the tests may ignore a hangup, and what is ignored stays so.
    let mut command = Command::new("env");
    project.environment(&mut command);
    command.arg("--default-signal=HUP").arg(integration::program()).args(RUN).args(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap());
    (child, errors)
}

/// Reads until a line has this in it.
fn until(errors: &mut BufReader<ChildStderr>, said: &str) {
    let mut line = String::new();
    while !line.contains(said) {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it said {said:?}");
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Processes with this in their arguments.
fn processes_with(text: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = numbers.filter(|number| *number != i32::try_from(std::process::id()).unwrap());
    let has_it = |number: &i32| {
        let arguments = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).replace('\0', " ").contains(text)
    };
    others.filter(has_it).filter_map(Pid::from_raw).collect()
}

/// Waits until each of these processes is dead, however long that takes.
fn wait_for(dying: &[OwnedFd]) {
    for process in dying {
        poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap();
    }
}

fn steps(record: &Value) -> Vec<(&str, &str)> {
    let steps = record["body"]["steps"].as_array().unwrap();
    steps.iter().map(|step| (step["step"].as_str().unwrap(), step["status"].as_str().unwrap())).collect()
}

#[test]
fn a_fetch_from_somebody_who_never_answers_ends_with_the_run_and_leaves_no_git() {
    if !can_run_steps("a_fetch_from_somebody_who_never_answers_ends_with_the_run_and_leaves_no_git") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let project = project("  one:\n    run: \"true\"\n    inputs: { /s: s }\n");
    let sources = format!("sources: {{ s: {{ git: \"{url}\", ref: main }} }}\ndefaults:");
    project.replace("sluicegate.yaml", "defaults:", &sources);
    // Inner servers are asked only where the gateway lists them.
    project.sluicegate(&["run", "--no-scan"]).assert(2, "egress.private");
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let listed = format!("{gateway}egress: {{ private: [\"{}\"] }}\n", listener.local_addr().unwrap());
    fs::write(project.path("gateway.yaml"), listed).unwrap();
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let (mut child, mut errors) = begun(&project);
        let (mut asked, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(asked.try_clone().unwrap()).read_line(&mut request).unwrap();
        assert!(request.starts_with("GET /x/info/refs"), "{request}");
        // One that has ended by now needs no waiting for.
        let open = |process: &Pid| pidfd_open(*process, PidfdFlags::empty()).ok();
        let clients: Vec<OwnedFd> = processes_with(&url).iter().filter_map(open).collect();
        assert!(!clients.is_empty());
        send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), code);
        asked.read_to_end(&mut Vec::new()).unwrap_or_default();
        wait_for(&clients);
        assert_eq!(processes_with(&url), []);
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        if code.is_some() {
            assert!(said.contains("was stopped"), "{said}");
            assert_eq!(project.last_record("run")["outcome"], "aborted");
        }
    }
}

#[test]
fn a_hangup_and_a_wish_to_end_are_heard_like_an_interrupt_and_have_codes_of_their_own() {
    if !can_run_steps("a_hangup_and_a_wish_to_end_are_heard_like_an_interrupt_and_have_codes_of_their_own") {
        return;
    }
    let project = project("  long:\n    run: echo waiting; sleep 1000\n");
    for (signal, code) in [("-HUP", 129), ("-INT", 130), ("-TERM", 143)] {
        let (mut child, mut errors) = begun(&project);
        until(&mut errors, "long | waiting");
        send(signal, &child);
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}: {rest}");
        let record = project.last_record("run");
        assert_eq!((&record["outcome"], steps(&record)), (&json!("aborted"), vec![("long", "failed")]), "{signal}");
        let left: Vec<_> =
            fs::read_dir(project.path("home/run")).unwrap().flatten().map(|left| left.file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with('.')), "{signal}: {left:?}");
    }
}

#[test]
fn programs_are_told_that_a_run_was_stopped_whatever_the_signal() {
    if !can_run_steps("programs_are_told_that_a_run_was_stopped_whatever_the_signal") {
        return;
    }
    let project = project("  long:\n    run: echo waiting; sleep 1000\n");
    for (signal, code) in [("-HUP", 129), ("-INT", 130), ("-TERM", 143)] {
        let (mut child, mut errors) = begun_with(&project, &["--progress", "json"]);
        until(&mut errors, r#""line":"waiting""#);
        send(signal, &child);
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}: {rest}");
        let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["exit"]), (&json!("run-finished"), &json!(code)), "{rest}");
        assert_eq!(last["outcome"], json!("stopped"), "{rest}");
    }
}

#[test]
fn a_second_interrupt_ends_everything_at_once_and_the_first_says_so() {
    if !can_run_steps("a_second_interrupt_ends_everything_at_once_and_the_first_says_so") {
        return;
    }
    let sleep = format!("sleep 1000{}", std::process::id());
    let project = project(&format!("  deaf:\n    run: trap '' INT TERM; echo begun; exec {sleep}\n"));
    for (arguments, told) in
        [(&[][..], "stopping; once more ends it at once"), (&["--progress", "json"], r#""event":"stopping""#)]
    {
        let (mut child, mut errors) = begun_with(&project, arguments);
        until(&mut errors, "begun");
        // Nobody else may write there now: it can't be the first interrupt that ends the run.
        let held = ["home/log/lock", "home/ledger/lock"].map(|lock| {
            let lock = File::options().write(true).open(project.path(lock)).unwrap();
            lock.lock().unwrap();
            lock
        });
        send("-INT", &child);
        until(&mut errors, told);
        let open = |process: &Pid| pidfd_open(*process, PidfdFlags::empty()).ok();
        let running: Vec<OwnedFd> = processes_with(&sleep).iter().filter_map(open).collect();
        assert!(!running.is_empty());
        send("-INT", &child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        wait_for(&running);
        assert_eq!(processes_with(&sleep), []);
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("error") && !rest.contains("run-finished"), "{rest}");
        drop(held);
        let (_, records) = project.json(&["evidence", "list"]);
        assert_eq!(records["records"], json!([]));
    }
}

#[test]
fn a_hangup_that_is_ignored_ends_nothing() {
    if !can_run_steps("a_hangup_that_is_ignored_ends_nothing") {
        return;
    }
    let project = project("  short:\n    run: echo waiting; sleep 1\n");
    let mut command = Command::new("nohup");
    project.environment(&mut command);
    command.arg(integration::program()).args(RUN).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    until(&mut errors, "short | waiting");
    send("-HUP", &child);
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
}

#[test]
fn a_step_whose_output_cannot_be_kept_is_on_record_with_its_log_and_every_failure_is_told() {
    if !can_run_steps("a_step_whose_output_cannot_be_kept_is_on_record_with_its_log_and_every_failure_is_told") {
        return;
    }
    let project = project(
        "  pipe:\n    run: echo made a pipe; mkfifo /o\n    outputs: { o: /o }\n  \
         deep:\n    run: mkdir -p /o/$(printf 'd/%.0s' 1 2 3 4 5 6 7 8)$(printf 'd/%.0s' $(seq 300)); exit 9\n    outputs: { o: /o }\n  \
         after:\n    run: \"true\"\n    needs: [pipe]\n  good:\n    run: echo fine\n",
    );
    let ended = project.sluicegate(&["run", "--no-scan", "--keep-going", "-j", "1"]);
    ended.assert(6, "step pipe left an output that cannot be kept: o at /o: it is neither a file nor a folder");
    ended.assert(6, "step deep ended with code 9");
    let record = project.last_record("run");
    assert_eq!(steps(&record), [("pipe", "failed"), ("deep", "failed"), ("good", "passed")]);
    assert_eq!(record["body"]["steps"][1]["exitCode"], 9);
    let failures = record["body"]["failures"].as_array().unwrap();
    assert_eq!((failures.len(), &failures[0]["step"]), (2, &json!("pipe")), "{record:#}");
    assert_eq!(record["body"]["skipped"], json!(["after"]));
    let log = project.command(&["logs", "LAST", "pipe"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&log.stdout), "made a pipe\n");
    // The same that leaves a file passes.
    project.replace("sluicegate.yaml", "mkfifo /o", "echo > /o");
    project.sluicegate(&["run", "--no-scan", "pipe"]).assert(0, "");
}

#[test]
fn an_export_that_fails_does_not_hide_the_failure_of_a_step() {
    if !can_run_steps("an_export_that_fails_does_not_hide_the_failure_of_a_step") {
        return;
    }
    // A folder that is empty and where even root can't make anything.
    let nowhere = "/proc/tty/ldisc";
    if !Path::new(nowhere).is_dir() {
        return integration::skip("an_export_that_fails_does_not_hide_the_failure_of_a_step", "no /proc/tty/ldisc");
    }
    let project = project("  one:\n    run: echo > /o; exit 3\n    outputs: { o: /o }\n");
    let ended = project.sluicegate(&["run", "--no-scan", "--export", nowhere]);
    ended.assert(6, "step one ended with code 3");
    ended.assert(6, "--export: cannot make the folder /proc/tty/ldisc/one");
    // Where nothing else failed, this is what fails.
    project.replace("sluicegate.yaml", "; exit 3", "");
    let ended = project.sluicegate(&["run", "--no-scan", "--export", nowhere]);
    assert_ne!(ended.code, 0);
    ended.assert(ended.code, "cannot make the folder /proc/tty/ldisc/one");
    assert!(ended.stdout.contains("RAN"), "{ended:?}");
}

/// A small disk of its own for what runs; gone with the test.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(folder: std::path::PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(&folder).status();
        mounted.unwrap().success().then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().map(drop).unwrap_or_default();
    }
}

#[test]
fn a_step_that_fills_the_disk_fails_and_what_comes_after_it_has_room_again() {
    let test = "a_step_that_fills_the_disk_fails_and_what_comes_after_it_has_room_again";
    if !can_run_steps(test) {
        return;
    }
    let project = project(
        "  prints:\n    run: yes begun | head -n 40000; dd if=/dev/zero of=/x bs=64K; yes | head -c 9000000\n  \
         writes:\n    run: head -c 5000000 /dev/zero > /o; echo whole\n    outputs: { o: /o }\n  \
         good:\n    run: echo fine > /o\n    outputs: { o: /o }\n",
    );
    let Some(_disk) = SmallDisk::at(project.path("home/run")) else {
        return integration::skip(test, "nothing can be mounted here");
    };
    let ended = project.sluicegate(&["run", "--no-scan", "--keep-going", "-j", "1"]);
    ended.assert(6, "step prints was killed: the disk has no room for what it printed");
    ended.assert(6, "step writes left an output that cannot be kept: o at /o: ");
    let record = project.last_record("run");
    assert_eq!(steps(&record), [("prints", "failed"), ("writes", "failed"), ("good", "passed")], "{record:#}");
    assert!(record["body"]["steps"][2]["attestation"].is_string());
    let log = |step: &str| project.command(&["logs", "LAST", step]).output().unwrap().stdout;
    // More than a pipe holds: the first lines are written down before the disk is full.
    assert!(log("prints").starts_with(b"begun\nbegun\n"));
    assert_eq!(log("writes"), b"whole\n");
}

#[test]
fn a_step_that_cannot_be_executed_here_keeps_nobody_from_proving_the_one_beside_it() {
    if !can_run_steps("a_step_that_cannot_be_executed_here_keeps_nobody_from_proving_the_one_beside_it") {
        return;
    }
    let project = project(
        "  beside:\n    run: sleep 1; echo fine > /o\n    outputs: { o: /o }\n  \
         nowhere:\n    run: \"true\"\n    workdir: /bin/sh/below\n  after:\n    run: \"true\"\n    needs: [nowhere]\n",
    );
    let ended = project.sluicegate(&["run", "--no-scan", "--keep-going", "-j", "2"]);
    ended.assert(2, "step nowhere: ");
    let record = project.last_record("run");
    assert_eq!(steps(&record), [("beside", "passed")], "{record:#}");
    assert!(record["body"]["steps"][0]["attestation"].is_string());
    assert_eq!(record["body"]["failures"][0]["step"], "nowhere");
    assert_eq!(record["body"]["skipped"], json!(["after"]));
    // It is proved, so that nobody has to do it again.
    project.replace("sluicegate.yaml", "workdir: /bin/sh/below", "workdir: /");
    let again = project.sluicegate(&["run", "--no-scan", "-o", "json"]);
    again.assert(0, "");
    let document: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(document["steps"][0]["status"], "taken");
}

#[test]
fn an_interrupt_while_one_image_is_promoted_ends_that_as_it_should_end_and_promotes_no_other() {
    let test = "an_interrupt_while_one_image_is_promoted_ends_that_as_it_should_end_and_promotes_no_other";
    if !ready(test) {
        return;
    }
    let project = Project::prepared();
    project.write_other_artifact();
    // Somebody else writes to the environment.
    fs::create_dir_all(project.path("env/staging")).unwrap();
    let held = File::create(project.path("env/staging/.sluicegate.lock")).unwrap();
    held.lock().unwrap();
    let mut command = Command::new(integration::program());
    project.environment(&mut command);
    command.args(["run", "--to", "tiny=staging", "--to", "other=production"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    until(&mut errors, "oci:out/tiny");
    send("-INT", &child);
    until(&mut errors, "stopping");
    drop(held);
    let (mut said, mut rest) = (String::new(), String::new());
    errors.read_to_string(&mut rest).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}{rest}");
    assert!(said.contains("NOT PROMOTED  other to production"), "{said}");
    assert!(project.path("env/staging/index.json").exists() && !project.path("env/production/index.json").exists());
    assert_eq!(project.last_record("promotion")["environment"], "staging");
    // With nobody in between.
    project.must(&["verify", "--offline", "oci:env/staging"]);
}

#[test]
fn an_interrupt_ends_a_run_in_which_a_step_had_failed_as_one() {
    if !can_run_steps("an_interrupt_ends_a_run_in_which_a_step_had_failed_as_one") {
        return;
    }
    let project = project("  bad: { run: exit 3 }\n  long: { run: echo waiting; sleep 1000, needs: [] }\n");
    let (mut child, mut errors) = begun_with(&project, &["-k", "-j", "1"]);
    until(&mut errors, "long | waiting");
    send("-INT", &child);
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    let record = project.last_record("run");
    assert_eq!((&record["outcome"], steps(&record)), (&json!("aborted"), vec![("bad", "failed"), ("long", "failed")]));
    // What had failed before is said beside it.
    assert!(rest.contains("bad"), "{rest}");
    // Not interrupted it is a failure.
    project.replace("sluicegate.yaml", "sleep 1000", "true");
    project.sluicegate(&["run", "--no-scan", "-k"]).assert(6, "");
}

#[test]
fn a_key_that_does_not_open_ends_what_is_found_out_beside_it() {
    if !can_run_steps("a_key_that_does_not_open_ends_what_is_found_out_beside_it") {
        return;
    }
    let mut project = project("  one:\n    run: \"true\"\n    inputs: { /s: s }\n");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args([
            "-C",
            project.path("lib").to_str().unwrap(),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
        ]);
        assert!(command.args(arguments).stdout(Stdio::null()).status().unwrap().success());
    };
    fs::create_dir(project.path("lib")).unwrap();
    fs::write(project.path("lib/file"), "x").unwrap();
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "x"]);
    let lib = project.path("lib");
    let sources = format!("sources: {{ s: {{ git: \"file://{}\", ref: main }} }}\ndefaults:", lib.display());
    project.replace("sluicegate.yaml", "defaults:", &sources);
    project.must(&RUN);
    let kept = fs::read_dir(project.path("home/cache/git")).unwrap().next().unwrap().unwrap().path();
    let held = File::options().write(true).open(kept.join("lock")).unwrap();
    // Whoever fetches waits for it without end.
    held.lock().unwrap();
    project.set("COSIGN_PASSWORD", "another one");
    let ended = project.sluicegate(&RUN);
    ended.assert(2, "passphrase");
    drop(held);
}
