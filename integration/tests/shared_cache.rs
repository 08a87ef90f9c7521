//! Machines that share the results of steps: what one has made another one takes, over a folder and over a real server that speaks S3, and
//! whatever is wrong there is made again and never signed.

mod plans;
mod prune;
mod serving;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use integration::{
    Ended, PASSPHRASE, Project, can_run_steps,
    object_server::{BUCKET, ObjectServer},
    program,
    registry::free_address,
};
use serde_json::Value;
use sluicegate_testkit::{ConnectProxy, TlsFront, reseal_cheaply};

const RUN: [&str; 4] = ["run", "--no-scan", "-o", "json"];
const NOT_TAKEN: &str = "is not taken";

/// A project on two machines, each with a home and a log of its own. They are one builder, and each believes the log of the other.
fn two_machines() -> (Project, Project) {
    let first = Project::prepared();
    let second = first.copy();
    fs::remove_dir_all(second.path("home")).unwrap();
    second.must(&["init", "elsewhere"]);
    fs::remove_dir_all(second.path("elsewhere")).unwrap();
    for key in ["builder", "recorder", "production"] {
        for file in [format!("{key}.key"), format!("{key}.pub")] {
            fs::copy(first.path("home/keys").join(&file), second.path("home/keys").join(&file)).unwrap();
        }
    }
    reseal_cheaply(&second.path("home/keys"), PASSPHRASE.as_bytes());
    let read = |project: &Project| -> Value {
        serde_json::from_slice(&fs::read(project.path("home/trust/trusted_root.json")).unwrap()).unwrap()
    };
    let (mut both, other) = (read(&first), read(&second));
    let log = |root: &Value| root["tlogs"][0]["baseUrl"].as_str().unwrap().trim_start_matches("https://").to_owned();
    let (ours, theirs) = (log(&both), log(&other));
    assert_ne!(ours, theirs);
    both["tlogs"].as_array_mut().unwrap().push(other["tlogs"][0].clone());
    for project in [&first, &second] {
        fs::write(project.path("trust/trusted_root.json"), both.to_string()).unwrap();
        project.replace(
            "trust/trust.yaml",
            &format!("untimed: [\"{ours}\"]"),
            &format!("untimed: [\"{ours}\", \"{theirs}\"]"),
        );
    }
    (first, second)
}

fn add(project: &Project, cache: &str) {
    let text = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    fs::write(project.path("gateway.yaml"), format!("{text}cache: {cache}\n")).unwrap();
}

/// A shared store whose objects are files of this folder, and what a gateway file says of it.
struct Shared {
    folder: PathBuf,
    cache: String,
}

impl Shared {
    fn folder(of: &Project) -> Self {
        let folder = of.path("shared");
        fs::create_dir(&folder).unwrap();
        Self { cache: format!("{{ store: \"file:{}\", push: true }}", folder.display()), folder }
    }

    fn bucket(server: &ObjectServer) -> Self {
        let cache = format!("{{ store: s3://{BUCKET}/team, endpoint: \"{}\", push: true }}", server.url);
        Self { folder: server.bucket().join("team"), cache }
    }

    fn record(&self, step: &Value) -> PathBuf {
        self.folder.join("v1/results").join(hex(&step["key"]))
    }

    fn blob(&self, digest: &Value) -> PathBuf {
        self.folder.join("v1/sha256").join(hex(digest))
    }

    /// As somebody would who can write to it: what a step left that stays where it is.
    fn put_all_the_same(&self, project: &Project, step: &Value) {
        let output = step["outputs"].as_object().unwrap().values().next().unwrap();
        for digest in [&step["attestation"], &step["log"], output] {
            fs::copy(project.path("home/store/blobs/sha256").join(hex(digest)), self.blob(digest)).unwrap();
        }
        fs::write(self.record(step), step["attestation"].as_str().unwrap()).unwrap();
    }

    fn bundle(&self, step: &Value) -> Value {
        Value::String(fs::read_to_string(self.record(step)).unwrap().trim().to_owned())
    }
}

/// Two machines that share a folder; `None` where no steps run.
fn over_a_folder(test: &str) -> Option<(Project, Project, Shared)> {
    if !can_run_steps(test) {
        return None;
    }
    let (first, second) = two_machines();
    let shared = Shared::folder(&first);
    [&first, &second].iter().for_each(|project| add(project, &shared.cache));
    Some((first, second, shared))
}

/// Two machines that share a bucket of a real server.
fn over_a_server(test: &str) -> Option<(ObjectServer, Project, Project, Shared)> {
    if !can_run_steps(test) {
        return None;
    }
    let server = ObjectServer::start(test)?;
    let (mut first, mut second) = two_machines();
    [&mut first, &mut second].into_iter().for_each(|project| server.introduce(project));
    let shared = Shared::bucket(&server);
    [&first, &second].iter().for_each(|project| add(project, &shared.cache));
    Some((server, first, second, shared))
}

/// Gives the first step a secret, and adds a step that has nothing to do with it.
fn with_a_secret(project: &mut Project) {
    project.set("TOKEN", "a-secret-of-a-test");
    project.replace(
        "sluicegate.yaml",
        "    inputs: { /src: src }\n",
        "    inputs: { /src: src }\n    workdir: /src\n    secrets: { TOKEN: { env: TOKEN } }\n    reuse: { key: [hello.txt] }\n",
    );
    project.replace(
        "sluicegate.yaml",
        "artifacts:\n",
        "  alone: { run: 'echo > /o', outputs: { o: /o } }\nartifacts:\n",
    );
}

fn hex(digest: &Value) -> &str {
    digest.as_str().unwrap().trim_start_matches("sha256:")
}

fn run(project: &Project) -> (Value, String) {
    let ended = project.must(&RUN);
    (serde_json::from_str(&ended.stdout).unwrap(), ended.stderr)
}

fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    run["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

fn all_are(run: &Value, status: &str) -> bool {
    run["steps"].as_array().unwrap().iter().all(|step| step["status"] == status)
}

/// Writes into the file that is there, as somebody who can write to the store would: a server may keep more about a file than its bytes.
fn write(path: &Path, bytes: &[u8]) {
    assert!(path.is_file(), "{}", path.display());
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A machine without a result of its own takes all that another one made, proves it anew in its own log, and names who did the work.
fn another_machine_takes_everything(first: &Project, second: &Project, shared: &Shared) {
    let (made, said) = run(first);
    assert!(all_are(&made, "passed") && !said.contains("shared store"), "{made}\n{said}");
    let (taken, said) = run(second);
    assert!(all_are(&taken, "taken") && !said.contains("shared store"), "{taken}\n{said}");
    assert_eq!(taken["images"][0]["digest"], made["images"][0]["digest"]);
    for name in ["build", "test", "package"] {
        assert_eq!(step(&taken, name)["origin"], step(&made, name)["attestation"]);
        assert_eq!(shared.bundle(step(&made, name)), step(&made, name)["attestation"]);
        assert_ne!(step(&taken, name)["attestation"], step(&made, name)["attestation"]);
    }
    second.must(&["verify", "--offline", "oci:out/tiny"]);
    second.must(&["logs", "LAST", "build"]);
    // What was taken is this machine's own from now on.
    fs::rename(&shared.folder, shared.folder.with_extension("away")).unwrap();
    second.sluicegate(&["plan"]).assert(0, "3 taken");
    fs::rename(shared.folder.with_extension("away"), &shared.folder).unwrap();
}

#[test]
fn another_machine_takes_everything_from_a_folder() {
    let Some((first, second, shared)) = over_a_folder("another_machine_takes_everything_from_a_folder") else { return };
    another_machine_takes_everything(&first, &second, &shared);
}

#[test]
fn another_machine_takes_everything_from_a_real_server_that_speaks_s3() {
    let test = "another_machine_takes_everything_from_a_real_server_that_speaks_s3";
    if !can_run_steps(test) {
        return;
    }
    let Some(server) = ObjectServer::start(test) else { return };
    let (mut first, mut second) = two_machines();
    // More than one piece, so that it goes and comes in parts.
    for project in [&mut first, &mut second] {
        server.introduce(project);
        project.replace(
            "sluicegate.yaml",
            "printf 'built\\n'",
            "head -c 20000000 /dev/zero > /out/app/large && printf 'built\\n'",
        );
    }
    let shared = Shared::bucket(&server);
    [&first, &second].iter().for_each(|project| add(project, &shared.cache));
    another_machine_takes_everything(&first, &second, &shared);
    // Credentials that the server does not know cost the share and nothing else.
    fs::remove_dir_all(second.path("home/cache/step-results")).unwrap();
    second.set("AWS_SECRET_ACCESS_KEY", "another-secret-of-a-test");
    let (made, said) = run(&second);
    assert!(all_are(&made, "passed"), "{made}");
    assert_eq!(said.matches("is not asked any more").count(), 1, "{said}");
    assert_eq!(said.matches("are not put into the shared store").count(), 1, "{said}");
    assert!(said.contains("403") && !said.contains("another-secret"), "{said}");
    server.introduce(&mut second);
    fs::remove_dir_all(second.path("home/cache/step-results")).unwrap();
    assert!(all_are(&run(&second).0, "taken"));
}

#[test]
fn a_bucket_is_reached_with_the_authorities_and_the_proxy_of_everything_else() {
    let test = "a_bucket_is_reached_with_the_authorities_and_the_proxy_of_everything_else";
    if !can_run_steps(test) {
        return;
    }
    let Some(server) = ObjectServer::start(test) else { return };
    let front = TlsFront::start(server.url.trim_start_matches("http://"), "s3.test");
    let proxy = ConnectProxy::to(&front.host);
    let mut project = Project::prepared();
    server.introduce(&mut project);
    add(&project, &format!("{{ store: s3://{BUCKET}, endpoint: \"https://{}\", push: true }}", front.host));
    let again = |project: &Project| {
        let _ = fs::remove_dir_all(project.path("home/cache/step-results"));
        run(project)
    };
    let vouch = |project: &Project, host: &str| {
        let folder = project.path("home/trust/certs.d").join(host);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.crt"), &front.authority.pem).unwrap();
    };
    let (made, said) = again(&project);
    assert!(all_are(&made, "passed"), "{made}");
    assert_eq!(said.matches("its certificate is not to be trusted (UnknownIssuer)").count(), 2, "{said}");
    assert_eq!(fs::read_dir(server.bucket()).unwrap().count(), 0);
    vouch(&project, &front.host);
    let (made, said) = again(&project);
    assert!(all_are(&made, "passed") && !said.contains("shared store"), "{made}\n{said}");
    assert!(all_are(&again(&project).0, "taken"));
    // A name that is written wrong would find nothing for ever.
    project.keep("gateway.yaml", "as-it-was.yaml");
    project.replace("gateway.yaml", &format!("s3://{BUCKET}"), "s3://another-bucket");
    project.replace("gateway.yaml", ", push: true }", " }");
    let (made, said) = again(&project);
    assert!(all_are(&made, "passed") && said.matches("there is no such bucket").count() == 1, "{made}\n{said}");
    project.restore("as-it-was.yaml", "gateway.yaml");
    // Another machine, which only the proxy knows.
    project.replace("gateway.yaml", &front.host, "s3.test");
    vouch(&project, "s3.test");
    project.set("HTTPS_PROXY", &format!("http://us:er@{}", proxy.host));
    let (taken, said) = again(&project);
    assert!(all_are(&taken, "taken") && !said.contains("shared store"), "{taken}\n{said}");
    assert!(proxy.asked().iter().any(|head| head.starts_with("CONNECT s3.test:443")), "{:?}", proxy.asked());
}

/// Changes one thing in the store at a time, or only what `which` names. The machine that meets it makes the step itself, and puts what it
/// made in the place of what was there; without a fault it takes it.
fn what_was_tampered_with_is_made_again(first: &Project, second: &Project, shared: &Shared, which: &[&str]) {
    let (made, _) = run(first);
    assert!(all_are(&made, "passed"), "{made}");
    let (build, test) = (step(&made, "build").clone(), step(&made, "test").clone());
    // One who signs as somebody else, and his own store.
    let stranger = Project::stranger();
    let theirs = Shared::folder(&stranger);
    add(&stranger, &theirs.cache);
    let (foreign, _) = run(&stranger);
    let foreign = step(&foreign, "build").clone();
    assert_eq!(foreign["outputs"], build["outputs"]);
    assert_ne!(foreign["key"], build["key"]);
    // One who is this builder under another gateway.
    let other_gateway = first.copy();
    let others = Shared { folder: other_gateway.path("others"), cache: String::new() };
    fs::create_dir(&others.folder).unwrap();
    other_gateway.replace("gateway.yaml", "https://sluicegate.dev/gate/local", "https://sluicegate.dev/gate/other");
    other_gateway.replace(
        "gateway.yaml",
        &shared.cache,
        &format!("{{ store: \"file:{}\", push: true }}", others.folder.display()),
    );
    let (other_domain, _) = run(&other_gateway);
    let other_domain = step(&other_domain, "build").clone();
    assert_ne!(other_domain["key"], build["key"]);
    // A hit, whose statement names another origin.
    second.keep("home", "home-that-was-empty");
    copy(&shared.folder, &second.path("pristine"));
    let (hit, _) = run(second);
    assert!(all_are(&hit, "taken"), "{hit}");
    let hit = step(&hit, "build").clone();
    let hit_bundle = fs::read(second.path("home/store/blobs/sha256").join(hex(&hit["attestation"]))).unwrap();

    let output = shared.blob(build["outputs"].as_object().unwrap().values().next().unwrap());
    let whole = fs::read(&output).unwrap();
    let (record, log) = (shared.record(&build), shared.blob(&build["log"]));
    let log_is_empty = fs::metadata(&log).is_err();
    let bundle = shared.blob(&shared.bundle(&build));
    let put = |bytes: &[u8], digest: &Value| {
        copy(&bundle, &shared.blob(digest));
        write(&shared.blob(digest), bytes);
        write(&record, format!("{}\n", digest.as_str().unwrap()).as_bytes());
    };
    let foreign_bundle = fs::read(theirs.blob(&foreign["attestation"])).unwrap();
    type Tampering<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);
    let mut tamperings: Vec<Tampering<'_>> = vec![
        ("an output is cut", "has the digest", Box::new(|| write(&output, &whole[..whole.len() - 1]))),
        ("an output is longer", "has the digest", Box::new(|| write(&output, &[&whole[..], b"x"].concat()))),
        ("an output is another one", "has the digest", Box::new(|| write(&output, &vec![b'x'; whole.len()]))),
        ("an output is gone", "has not got it", Box::new(|| fs::remove_file(&output).unwrap())),
        ("the record is junk", "no digest", Box::new(|| write(&record, b"sha256:12"))),
        ("the record is endless", "larger than the limit", Box::new(|| write(&record, &vec![b'a'; 1 << 20]))),
        (
            "the record leads to another step",
            "another key",
            Box::new(|| write(&record, shared.bundle(&test).as_str().unwrap().as_bytes())),
        ),
        (
            "the record leads to an output",
            "",
            Box::new(|| {
                write(
                    &record,
                    build["outputs"].as_object().unwrap().values().next().unwrap().as_str().unwrap().as_bytes(),
                )
            }),
        ),
        ("the statement is another one", "has the digest", Box::new(|| write(&bundle, &foreign_bundle))),
        ("the statement is a stranger's", "", Box::new(|| put(&foreign_bundle, &foreign["attestation"]))),
        (
            "the statement is of another trust domain",
            "another key",
            Box::new(|| {
                put(&fs::read(others.blob(&other_domain["attestation"])).unwrap(), &other_domain["attestation"]);
            }),
        ),
        (
            "the statement is of a hit",
            "took its result from another run",
            Box::new(|| put(&hit_bundle, &hit["attestation"])),
        ),
        (
            "the whole volume is a stranger's",
            "",
            Box::new(|| {
                copy(&theirs.folder.join("v1/sha256"), &shared.folder.join("v1/sha256"));
                for name in ["build", "test", "package"] {
                    write(&shared.record(step(&made, name)), foreign["attestation"].as_str().unwrap().as_bytes());
                }
            }),
        ),
    ];
    if !log_is_empty {
        tamperings.push(("the log is another one", "has the digest", Box::new(|| write(&log, b"all good"))));
    }
    for (what, says, tamper) in tamperings {
        if !which.is_empty() && !which.contains(&what) {
            continue;
        }
        second.restore("home-that-was-empty", "home");
        tamper();
        let (run_, said) = run(second);
        assert_eq!(step(&run_, "build")["status"], "passed", "{what}: {run_}\n{said}");
        assert_eq!(step(&run_, "build")["outputs"], build["outputs"], "{what}");
        assert_eq!(run_["images"][0]["digest"], made["images"][0]["digest"], "{what}");
        let line = said.lines().find(|line| line.contains(NOT_TAKEN) && line.contains("step build"));
        assert!(line.is_some_and(|line| line.contains(says)), "{what}: {said}");
        second.must(&["verify", "--offline", "oci:out/tiny"]);
        // What was made is there in its place now, and with nothing wrong it is taken.
        second.restore("home-that-was-empty", "home");
        let (run_, said) = run(second);
        assert!(all_are(&run_, "taken") && !said.contains(NOT_TAKEN), "{what}, healed: {run_}\n{said}");
        copy(&second.path("pristine"), &shared.folder);
    }
}

#[test]
fn what_was_tampered_with_in_a_folder_is_made_again_and_never_signed() {
    let Some((first, second, shared)) =
        over_a_folder("what_was_tampered_with_in_a_folder_is_made_again_and_never_signed")
    else {
        return;
    };
    what_was_tampered_with_is_made_again(&first, &second, &shared, &[]);
}

#[test]
fn what_was_tampered_with_on_a_real_server_is_made_again_and_never_signed() {
    let Some((_server, first, second, shared)) =
        over_a_server("what_was_tampered_with_on_a_real_server_is_made_again_and_never_signed")
    else {
        return;
    };
    let which = [
        "an output is another one",
        "the record leads to another step",
        "the statement is of another trust domain",
        "the statement is of a hit",
        "the whole volume is a stranger's",
    ];
    what_was_tampered_with_is_made_again(&first, &second, &shared, &which);
}

#[test]
fn a_store_that_fails_costs_one_line_and_one_that_is_written_wrong_ends_the_run() {
    if !can_run_steps("a_store_that_fails_costs_one_line_and_one_that_is_written_wrong_ends_the_run") {
        return;
    }
    let mut project = Project::prepared();
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let again = |project: &Project, cache: &str| {
        fs::write(project.path("gateway.yaml"), format!("{gateway}cache: {cache}\n")).unwrap();
        let _ = fs::remove_dir_all(project.path("home/cache/step-results"));
        project.sluicegate(&RUN)
    };
    let bucket = format!("{{ store: s3://{BUCKET}, endpoint: \"http://{}\", push: true }}", free_address());
    again(&project, &bucket).assert(2, "AWS_ACCESS_KEY_ID is not set");
    again(&project, "{ store: redis://x }").assert(2, "write file:DIR");
    again(&project, "{ store: \"s3://ci-cache\", endpoint: \"http://s3.example\" }").assert(2, "write https://");
    // Who looks for earlier results needs the store, and who looks for none does without.
    fs::write(project.path("gateway.yaml"), format!("{gateway}cache: {bucket}\n")).unwrap();
    for command in [&["run", "--no-scan"][..], &["plan"], &["explain", "build"], &["try", "test"]] {
        project.sluicegate(command).assert(2, "AWS_ACCESS_KEY_ID is not set");
        project.must(&[command, &["--no-cache"]].concat());
    }
    project.set("AWS_ACCESS_KEY_ID", "id");
    project.set("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-test");
    // Of what no header can hold none is made.
    project.set("AWS_SESSION_TOKEN", "a-session\nof-a-test");
    let ended = again(&project, &bucket);
    ended.assert(2, "AWS_SESSION_TOKEN has a character that no such credential has");
    assert!(!ended.stderr.contains("of-a-test"), "{ended:?}");
    project.set("AWS_SESSION_TOKEN", "");
    let lines = |said: &str| -> Vec<String> {
        said.lines().filter(|line| line.contains("shared store")).map(str::to_owned).collect()
    };
    let ended = again(&project, &bucket);
    let said = lines(&ended.stderr);
    assert!(ended.code == 0 && said.len() == 2, "{ended:?}");
    assert!(said[0].contains("is not asked any more: no connection") || said[0].contains("refused"), "{said:?}");
    assert!(said[1].contains("later ones are not put"), "{said:?}");
    assert!(!ended.stderr.contains("a-secret-of-a-test"), "{}", ended.stderr);
    let ended = again(&project, "{ store: \"file:missing\", push: true }");
    let said = lines(&ended.stderr);
    assert!(ended.code == 0 && said.len() == 1 && said[0].contains("there is no folder"), "{ended:?}");
    // Nothing can be written there.
    fs::create_dir(project.path("broken")).unwrap();
    fs::write(project.path("broken/v1"), "").unwrap();
    let ended = again(&project, "{ store: \"file:broken\", push: true }");
    let said = lines(&ended.stderr);
    assert!(ended.code == 0 && said.len() == 1 && said[0].contains("is no folder"), "{ended:?}");
    // It is full: a file system of one page, seen by this run alone.
    fs::create_dir(project.path("full")).unwrap();
    fs::write(project.path("gateway.yaml"), format!("{gateway}cache: {{ store: \"file:full\", push: true }}\n"))
        .unwrap();
    let _ = fs::remove_dir_all(project.path("home/cache/step-results"));
    let mut command = Command::new("unshare");
    project.environment(&mut command);
    command
        .args(["-m", "sh", "-c", "mount -t tmpfs -o size=4k none full && exec \"$0\" \"$@\""])
        .arg(program())
        .args(RUN);
    let ended = Ended::of(&RUN, command.output().unwrap());
    let said = lines(&ended.stderr);
    assert!(ended.code == 0 && said.len() == 1 && said[0].contains("No space left"), "{ended:?}");
    // The same with nothing wrong.
    fs::create_dir(project.path("whole")).unwrap();
    let ended = again(&project, "{ store: \"file:whole\", push: true }");
    assert!(ended.code == 0 && lines(&ended.stderr).is_empty(), "{ended:?}");
    assert_eq!(fs::read_dir(project.path("whole/v1/results")).unwrap().count(), 3);
}

#[test]
fn whoever_writes_the_store_hides_no_event_from_a_program() {
    if !can_run_steps("whoever_writes_the_store_hides_no_event_from_a_program") {
        return;
    }
    let project = Project::prepared();
    let shared = Shared::folder(&project);
    add(&project, &shared.cache);
    let events = || -> Vec<Value> {
        let _ = fs::remove_dir_all(project.path("home/cache/step-results"));
        let ended = project.must(&["run", "--no-scan", "--progress", "json", "-o", "json"]);
        ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    let warnings = |events: &[Value]| {
        let own = events.iter().filter(|event| event["event"] == "warning");
        own.filter(|event| event["text"].as_str().unwrap().contains("shared store")).count()
    };
    assert_eq!(warnings(&events()), 0);
    for record in fs::read_dir(shared.folder.join("v1/results")).unwrap().flatten() {
        write(&record.path(), b"no digest\n{\"event\":\"run-finished\"}");
    }
    let told = events();
    assert_eq!(warnings(&told), 3, "{told:#?}");
    let ends = told.iter().filter(|event| event["event"] == "run-finished").count();
    assert!(ends == 1 && told.last().unwrap()["event"] == "run-finished", "{told:#?}");
    // What is found before the run begins, and words for people: lines of their own.
    fs::remove_dir_all(&shared.folder).unwrap();
    assert_eq!(warnings(&events()), 1);
    let said = project.must(&["run", "--no-scan"]).stderr;
    assert!(
        said.lines().any(|line| line.starts_with("warning: the shared store") && line.contains("no folder")),
        "{said}"
    );
}

#[test]
fn what_came_by_secrets_stays_where_it_is_and_nothing_is_put_unless_the_gateway_says_so() {
    if !can_run_steps("what_came_by_secrets_stays_where_it_is_and_nothing_is_put_unless_the_gateway_says_so") {
        return;
    }
    let mut project = Project::prepared();
    with_a_secret(&mut project);
    fs::create_dir(project.path("shared")).unwrap();
    add(&project, "{ store: \"file:shared\" }");
    run(&project);
    assert_eq!(fs::read_dir(project.path("shared")).unwrap().count(), 0);
    project.replace("gateway.yaml", "\"file:shared\" }", "\"file:shared\", push: true }");
    fs::remove_dir_all(project.path("home/cache/step-results")).unwrap();
    let (made, said) = run(&project);
    let shared = Shared { folder: project.path("shared"), cache: String::new() };
    assert!(!shared.record(step(&made, "build")).exists(), "{said}");
    assert!(!shared.blob(&step(&made, "build")["attestation"]).exists());
    // Nor what others made of it; a step that has nothing to do with it is put there.
    assert!(!shared.record(step(&made, "test")).exists() && !shared.record(step(&made, "package")).exists());
    assert!(shared.record(step(&made, "alone")).exists());
    // Nor is it taken from there, if somebody puts it there all the same; the others are.
    let build = step(&made, "build").clone();
    shared.put_all_the_same(&project, &build);
    fs::remove_dir_all(project.path("home/cache/step-results")).unwrap();
    let (again, _) = run(&project);
    assert_eq!(step(&again, "build")["status"], "passed");
    assert_eq!(step(&again, "alone")["status"], "taken");
}

#[test]
fn nothing_is_brought_before_the_bundle_that_names_it_is_verified_and_a_run_that_fails_shares_what_passed() {
    let test = "nothing_is_brought_before_the_bundle_that_names_it_is_verified_and_a_run_that_fails_shares_what_passed";
    let Some((first, second, shared)) = over_a_folder(test) else { return };
    first.keep("sluicegate.yaml", "as-it-was.yaml");
    first.write_test_step("    run: grep -q goodbye /app/hello.txt\n    inputs: { /app: build.app }\n");
    let (code, failed) = first.json(&["run", "--no-scan"]);
    assert_eq!(code, 6, "{failed}");
    first.restore("as-it-was.yaml", "sluicegate.yaml");
    let (made, _) = run(&first);
    assert_eq!(step(&made, "build")["status"], "taken");
    let build = step(&made, "build").clone();
    let output = build["outputs"]["app"].clone();
    let (record, whole) = (shared.record(&build), fs::read(shared.record(&build)).unwrap());
    // A stranger's statement about the same output, which is there.
    let stranger = Project::stranger();
    let theirs = Shared::folder(&stranger);
    add(&stranger, &theirs.cache);
    let foreign = step(&run(&stranger).0, "build").clone();
    assert_eq!(foreign["outputs"]["app"], output);
    fs::copy(theirs.blob(&foreign["attestation"]), shared.blob(&foreign["attestation"])).unwrap();
    write(&record, foreign["attestation"].as_str().unwrap().as_bytes());
    let only = ["run", "test", "--only", "--no-scan"];
    second.sluicegate(&only).assert(2, "what the shared store has is not taken");
    let here = second.path("home/store/blobs/sha256").join(hex(&output));
    assert!(shared.blob(&output).exists() && !here.exists());
    write(&record, &whole);
    second.must(&only);
    assert!(here.exists());
}
