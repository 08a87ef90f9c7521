//! `run` end to end: the same inputs give the same digests, and what goes wrong is said and recorded.

use std::{
    fs,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use integration::{Ended, FROM_HOST, Layout, Project, TEST_WITHOUT_REPORT, can_run_steps, program};
use sluicegate_types::UnixTime;

const RUN: [&str; 2] = ["run", "--no-scan"];

fn replace(project: &Project, from: &str, to: &str) {
    let text = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    assert!(text.contains(from), "{from:?}");
    fs::write(project.path("sluicegate.yaml"), text.replacen(from, to, 1)).unwrap();
}

/// A library that lets a program's clock go ahead by some seconds.
fn another_time(project: &Project, seconds: u64) -> std::path::PathBuf {
    let (source, library) = (project.path("clock.c"), project.path("clock.so"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
         int clock_gettime(clockid_t id, struct timespec *t) {{\n\
         int r = syscall(SYS_clock_gettime, id, t);\n if (id == CLOCK_REALTIME) t->tv_sec += {seconds};\n return r; }}\n"
    );
    fs::write(&source, text).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    library
}

#[test]
fn two_homes_another_zone_umask_and_time_give_the_same_digests() {
    if !can_run_steps("two_homes_another_zone_umask_and_time_give_the_same_digests") {
        return;
    }
    let digests = |zone: &str, umask: &str, touched: &str, later: Option<u64>| {
        let mut project = Project::written();
        project.set("TZ", zone);
        if let Some(seconds) = later {
            project.set("LD_PRELOAD", another_time(&project, seconds).to_str().unwrap());
        }
        let time = Command::new("touch").args(["-d", touched]).arg(project.path("src/hello.txt")).status().unwrap();
        assert!(time.success());
        let under = |arguments: &[&str]| {
            let script = format!("umask {umask}; exec \"$@\"");
            let mut command = Command::new("sh");
            project.environment(&mut command);
            command.args(["-c", &script, "sh"]).arg(program()).args(arguments);
            let ended = Ended::of(arguments, command.output().unwrap());
            ended.assert(0, "");
            ended.stdout
        };
        under(&FROM_HOST);
        under(&["init", "--allow-base", "oci:images/base"]);
        let run: serde_json::Value = serde_json::from_str(&under(&["run", "--no-scan", "-o", "json"])).unwrap();
        let evidence: serde_json::Value = serde_json::from_str(&under(&["evidence", "list", "-o", "json"])).unwrap();
        (
            Layout::at(project.path("images/base")).index()["manifests"][0]["digest"].clone(),
            // Who is believed is another home's, and so are keys and statements; what steps left is not.
            run["steps"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| (s["step"].clone(), s["outputs"].clone()))
                .collect::<Vec<_>>(),
            run["images"][0]["digest"].clone(),
            evidence["records"][0]["at"].as_str().unwrap().to_owned(),
        )
    };
    let one = digests("UTC", "022", "2001-01-01T00:00:00Z", None);
    let two = digests("Pacific/Kiritimati", "077", "2020-06-01T12:00:00Z", Some(400 * 86_400));
    assert!(one.1.len() == 3 && one.2.is_string(), "{one:?}");
    // The clock really was another one: the records say so, and the digests don't.
    assert!(two.3[..4] > one.3[..4], "{} {}", one.3, two.3);
    assert_eq!((one.0, one.1, one.2), (two.0, two.1, two.2));
}

#[test]
fn a_clock_behind_the_last_moment_is_refused_before_anything_is_done() {
    if !can_run_steps("a_clock_behind_the_last_moment_is_refused_before_anything_is_done") {
        return;
    }
    let mut project = Project::prepared();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let last = u64::try_from(UnixTime::LAST.seconds()).unwrap();
    project.set("LD_PRELOAD", another_time(&project, last - 86_400 - now).to_str().unwrap());
    project.must(&["evidence", "list"]);
    project.set("LD_PRELOAD", another_time(&project, last - now).to_str().unwrap());
    for command in [&["evidence", "list"][..], &["verify", "oci:images/base"], &RUN] {
        let refused = project.sluicegate(command);
        refused.assert(2, "the clock is at or behind 9999-12-");
        refused.assert(2, "now: set the clock of this machine");
    }
}

#[test]
fn a_failing_step_ends_the_run_with_6_and_is_recorded() {
    if !can_run_steps("a_failing_step_ends_the_run_with_6_and_is_recorded") {
        return;
    }
    let project = Project::prepared();
    replace(&project, "grep -q hello", "grep -q goodbye");
    let failed = project.sluicegate(&RUN);
    failed.assert(6, "step test ended with code 1");
    failed.assert(6, "  now: see what the step printed");
    failed.assert(6, "  recorded: sluicegate evidence show 2\n");
    let (_, document) = project.json(&RUN);
    assert_eq!((&document["record"], &document["exit"]), (&4.into(), &6.into()), "{document:#}");
    let (_, shown) = project.json(&["evidence", "show", "4"]);
    assert_eq!((&shown["kind"], &shown["outcome"]), (&"run".into(), &"failed".into()));
    assert!(!project.path("out/tiny/index.json").exists());
    let (_, list) = project.json(&["evidence", "list"]);
    assert_eq!((&list["records"][0]["kind"], &list["records"][0]["outcome"]), (&"run".into(), &"failed".into()));
    replace(&project, "grep -q goodbye", "grep -q hello");
    // What comes next is asking a gate, wherever the names of environments stand in the alphabet.
    let open = "  canary: { repository: oci:env/canary, tag: current, gate: none }\n  production: { repository";
    project.replace("gateway.yaml", "  production: { repository", open);
    project.sluicegate(&RUN).assert(0, "next: sluicegate promote oci:out/tiny --to production\n");
    // What is about no image has its outcome in the same column.
    let list = project.must(&["evidence", "list"]).stdout;
    let columns: Vec<_> = list.lines().map(|line| line.find("failed").or_else(|| line.find("succeeded"))).collect();
    assert!(columns.len() == 5 && columns.iter().all(|column| *column == columns[0]), "{list}");
}

#[test]
fn a_run_says_whether_its_source_is_in_a_commit() {
    if !can_run_steps("a_run_says_whether_its_source_is_in_a_commit") {
        return;
    }
    let project = Project::prepared();
    let source = || {
        let said = project.must(&RUN).stderr;
        let line = said.lines().find(|line| line.starts_with("source src is ")).unwrap().to_owned();
        line.split_once(" (").map(|(_, state)| state.to_owned())
    };
    assert_eq!(source().as_deref(), Some("in no commit)"));
    let mut git = Command::new("sh");
    project.environment(&mut git);
    let script = "git init -q && git add src && git -c user.name=n -c user.email=e commit -q -m x";
    assert!(git.args(["-c", script]).status().unwrap().success());
    assert_eq!(source(), None);
    fs::write(project.path("src/hello.txt"), "hello again\n").unwrap();
    assert_eq!(source().as_deref(), Some("uncommitted changes)"));
}

#[test]
fn what_a_step_does_wrong_is_said_with_its_remedy() {
    if !can_run_steps("what_a_step_does_wrong_is_said_with_its_remedy") {
        return;
    }
    let project = Project::prepared();
    project.write_test_step(TEST_WITHOUT_REPORT);
    let good = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    for (from, to, says) in [
        ("run: grep -q hello /app/hello.txt", "run: [no-such-program]", "was not found in the step's image"),
        ("run: grep -q hello /app/hello.txt", "run: [no-such-program]", "  now: name a program that is in the image"),
        ("> /out/one", "> /out/other", "did not leave its output one at /out/one"),
        ("> /out/one", "> /out/other", "  now: let the step write it there"),
        ("run: grep -q hello /app/hello.txt", "run: kill -SEGV $$", "ended with code 139"),
    ] {
        replace(&project, from, to);
        project.sluicegate(&RUN).assert(6, says);
        fs::write(project.path("sluicegate.yaml"), &good).unwrap();
    }
    project.must(&RUN);
}

#[test]
fn a_step_sees_no_key_no_home_and_no_network() {
    if !can_run_steps("a_step_sees_no_key_no_home_and_no_network") {
        return;
    }
    let project = Project::prepared();
    // A key inside the source folder, by the name the home gives it, and one under an innocent name below the home.
    fs::copy(project.path("home/keys/builder.key"), project.path("src/builder.key")).unwrap();
    let look = "for f in /src/*; do case $f in *.key) exit 41;; esac; done; \
                while read -r l; do case $l in *lo:*|*Inter*|*face*) ;; *) exit 42;; esac; done < /proc/net/dev; \
                test -e /src/hello.txt && ! test -e /home/keys && test -z \"$COSIGN_PASSWORD$SLUICEGATE_HOME\"";
    let good = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    project.write_test_step(&format!("    run: '{look}'\n    inputs: {{ /src: src }}\n"));
    project.must(&RUN);
    // The same look finds a file that is there.
    fs::write(project.path("src/found.key"), "not a private key").unwrap();
    project.sluicegate(&RUN).assert(6, "code 41");
    fs::write(project.path("sluicegate.yaml"), good).unwrap();
}

#[test]
fn a_pipeline_that_is_wrong_is_refused_before_anything_runs() {
    let project = Project::empty();
    project.sluicegate(&["run"]).assert(2, "cannot read the pipeline file");
    fs::write(project.path("sluicegate.yaml"), "").unwrap();
    project.sluicegate(&["run"]).assert(2, "sluicegate.yaml");
    fs::write(project.path("sluicegate.yaml"), integration::PIPELINE.replace("  test:", "  test:\n    mispelt: 1"))
        .unwrap();
    project.sluicegate(&["run"]).assert(2, "mispelt");
    fs::write(project.path("sluicegate.yaml"), integration::PIPELINE).unwrap();
    project.sluicegate(&["run"]).assert(2, "sluicegate init writes one");
}

#[test]
fn a_wrong_passphrase_and_a_missing_one_are_usage_errors() {
    if !can_run_steps("a_wrong_passphrase_and_a_missing_one_are_usage_errors") {
        return;
    }
    let mut project = Project::prepared();
    project.must(&RUN);
    project.set("COSIGN_PASSWORD", "another");
    project.sluicegate(&RUN).assert(2, "wrong passphrase");
    let mut command = project.command(&RUN);
    let ended = Ended::of(&RUN, command.env_remove("COSIGN_PASSWORD").output().unwrap());
    ended.assert(2, "COSIGN_PASSWORD");
}

#[test]
fn init_overwrites_nothing_and_shares_the_home() {
    if !can_run_steps("init_overwrites_nothing_and_shares_the_home") {
        return;
    }
    let project = Project::prepared();
    project.sluicegate(&["init"]).assert(2, "is not overwritten");
    let other = project.path("other");
    project.must(&["init", other.to_str().unwrap()]);
    for file in ["trust/builder.pub", "trust/trusted_root.json"] {
        assert_eq!(fs::read(project.path(file)).unwrap(), fs::read(other.join(file)).unwrap(), "{file}");
    }
    // The trust of another home beside this one's would refuse everything that is signed.
    let stranger = Project::stranger();
    fs::remove_file(stranger.path("gateway.yaml")).unwrap();
    fs::remove_file(stranger.path("trust/trust.yaml")).unwrap();
    let strange = stranger.path(".");
    project.sluicegate(&["init", strange.to_str().unwrap()]).assert(2, "not of this home");
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(project.path(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(
        [mode("home"), mode("home/keys"), mode("home/keys/production.key"), mode("home/evidence.db")],
        [0o700, 0o700, 0o600, 0o600]
    );
}

#[test]
fn where_steps_cannot_run_the_remedy_is_named() {
    if !can_run_steps("where_steps_cannot_run_the_remedy_is_named") {
        return;
    }
    let mut project = Project::prepared();
    project.must(&RUN);
    // The same project as an ordinary user of this machine.
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(project.path(".")).status().unwrap();
    assert!(owned.success());
    let program = program();
    let copy = project.path("sluicegate");
    fs::copy(&program, &copy).unwrap();
    let mut open = project.path(".");
    open.pop();
    let arguments =
        ["--reuid", "65534", "--regid", "65534", "--clear-groups", copy.to_str().unwrap(), "run", "--no-scan"];
    let mut command = Command::new("setpriv");
    project.environment(&mut command);
    let ended = Ended::of(&arguments, command.args(arguments).output().unwrap());
    ended.assert(5, "steps cannot run here");
    ended.assert(
        5,
        &format!("sudo --preserve-env=SLUICEGATE_HOME,COSIGN_PASSWORD,PATH {} run --no-scan", copy.display()),
    );
    // What the remedy leads to: root, called by the user whose home it is. Without sudo's word for that the home is somebody else's.
    project.sluicegate(&RUN).assert(2, "is open to others");
    project.set("SUDO_UID", "65534");
    project.must(&RUN);
}

#[test]
fn where_namespaces_or_an_overlay_are_refused_the_remedy_is_a_command() {
    if !can_run_steps("where_namespaces_or_an_overlay_are_refused_the_remedy_is_a_command") {
        return;
    }
    let project = Project::prepared();
    let under = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        project.environment(&mut command);
        Ended::of(arguments, command.args(arguments).output().unwrap())
    };
    let binary = program();
    let binary = binary.to_str().unwrap();
    // Root without the right to make namespaces or mounts, as in an ordinary container.
    let ended = under("setpriv", &["--bounding-set", "-sys_admin", binary, "run", "--no-scan"]);
    ended.assert(5, "steps cannot run here");
    ended.assert(5, &format!("docker run --privileged IMAGE {binary} run --no-scan"));
    // A home that lies on an overlay itself, as in a container without a volume.
    let other = tempfile::tempdir().unwrap();
    let (upper, work, merged) = (other.path().join("u"), other.path().join("w"), other.path().join("m"));
    for folder in [&upper, &work, &merged] {
        fs::create_dir(folder).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", project.path(".").display(), upper.display(), work.display());
    let script = format!(
        "mount -t overlay overlay -o {options} {0} && cd {0} && SLUICEGATE_HOME={0}/home exec {binary} run --no-scan",
        merged.display()
    );
    let ended = under("unshare", &["--mount", "sh", "-c", &script]);
    ended.assert(5, "layers cannot be stacked here");
    ended.assert(5, &format!("mv {}/home /var/lib/sluicegate", merged.display()));
    project.must(&RUN);
}
