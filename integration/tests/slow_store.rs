//! A shared store that makes the run wait: meanwhile nobody else is kept from the log, a stop is heard, and a failure is on record.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use integration::{Project, can_run_steps, program};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

const STEPS: &str = "  a:\n    run: echo made > /o\n    outputs: { o: /o }\n  b:\n    run: cp /a /o\n    inputs: { /a: a.o }\n    \
                     outputs: { o: /o }\n  c: { run: 'true' }\n  d: { run: 'true' }\n";

/// What a store is asked, method and object, and its connection.
type Asked<'a> = (&'a str, &'a TcpStream);

/// A server that says to every question that there is nothing, once `meanwhile` has seen it.
fn serve(meanwhile: impl Fn(Asked<'_>) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let meanwhile = Arc::new(meanwhile);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let meanwhile = meanwhile.clone();
            std::thread::spawn(move || answer(connection, meanwhile.as_ref()));
        }
    });
    format!("http://{address}")
}

fn answer(mut connection: TcpStream, meanwhile: &dyn Fn(Asked<'_>)) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    loop {
        let (mut request, mut length) = (String::new(), 0_u64);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            if request.is_empty() {
                request.clone_from(&line);
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap_or_default();
        meanwhile((&request, &connection));
        let (status, body) = match request.split(' ').next() {
            Some("GET" | "HEAD") => ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
            _ => ("200 OK", ""),
        };
        let head = format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n", body.len());
        if connection.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// A project whose gateway names this server, and whose first step was made before.
fn project(url: &str, push: bool) -> Project {
    let mut project = Project::prepared();
    let text = format!("version: 1\nname: slow\ndefaults: {{ image: oci:images/base }}\nsteps:\n{STEPS}");
    std::fs::write(project.path("sluicegate.yaml"), text).unwrap();
    project.must(&["run", "--no-scan", "a"]);
    let gateway = std::fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let cache = format!("cache: {{ store: \"s3://shared\", endpoint: \"{url}\", push: {push} }}\n");
    std::fs::write(project.path("gateway.yaml"), gateway + &cache).unwrap();
    project.set("AWS_ACCESS_KEY_ID", "id");
    project.set("AWS_SECRET_ACCESS_KEY", "secret-of-a-test");
    project
}

fn begun(project: &Project) -> Child {
    let mut command = Command::new(program());
    project.environment(&mut command);
    command.args(["run", "--no-scan", "-o", "json", "--progress", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn while_a_shared_store_is_asked_nobody_is_kept_from_the_log() {
    if !can_run_steps("while_a_shared_store_is_asked_nobody_is_kept_from_the_log") {
        return;
    }
    let lock: Arc<Mutex<Option<File>>> = Arc::default();
    let (free, held) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let url = {
        let (lock, free, held) = (lock.clone(), free.clone(), held.clone());
        serve(move |_| {
            let lock = lock.lock().unwrap();
            let Some(lock) = lock.as_ref() else { return };
            let taken = flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if taken {
                flock(lock, FlockOperation::Unlock).unwrap();
            }
            (if taken { &free } else { &held }).fetch_add(1, Ordering::SeqCst);
        })
    };
    let project = project(&url, false);
    *lock.lock().unwrap() = Some(File::open(project.path("home/log/lock")).unwrap());
    let (code, run) = project.json(&["run", "--no-scan"]);
    assert_eq!((code, &run["steps"][0]["status"]), (0, &json!("taken")), "{run:#}");
    assert_eq!((free.load(Ordering::SeqCst) >= 3, held.load(Ordering::SeqCst)), (true, 0));
}

#[test]
fn a_run_that_is_stopped_asks_a_shared_store_for_nothing_more() {
    if !can_run_steps("a_run_that_is_stopped_asks_a_shared_store_for_nothing_more") {
        return;
    }
    let (asked, run) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None::<(u32, ChildStderr)>)));
    let url = {
        let (asked, run) = (asked.clone(), run.clone());
        serve(move |(request, _)| {
            asked.lock().unwrap().push(request.to_owned());
            if let Some((run, said)) = run.lock().unwrap().take() {
                assert!(Command::new("kill").args(["-INT", &run.to_string()]).status().unwrap().success());
                // Until it says that it has heard it.
                let heard = BufReader::new(said).lines().any(|line| line.unwrap().contains("\"event\":\"stopping\""));
                assert!(heard, "it ended before it heard the signal");
            }
        })
    };
    let project = project(&url, false);
    let child = {
        // The server waits for its name.
        let mut run = run.lock().unwrap();
        let mut child = begun(&project);
        *run = Some((child.id(), child.stderr.take().unwrap()));
        child
    };
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(project.last_record("run")["outcome"], "aborted");
}

#[test]
fn a_failure_is_on_record_before_a_shared_store_is_waited_for() {
    if !can_run_steps("a_failure_is_on_record_before_a_shared_store_is_waited_for") {
        return;
    }
    let (home, seen) = (Arc::new(Mutex::new(Weak::<Project>::new())), Arc::new(Mutex::new(Vec::new())));
    let url = {
        let (home, seen) = (home.clone(), seen.clone());
        serve(move |(request, connection)| {
            if !request.starts_with("PUT") {
                return;
            }
            let Some(project) = home.lock().unwrap().upgrade() else { return };
            // Waits for the record for as long as the run waits for the answer.
            let is_waited_for = || {
                connection.set_nonblocking(true).unwrap();
                let gone = matches!(connection.peek(&mut [0]), Ok(0));
                connection.set_nonblocking(false).unwrap();
                !gone
            };
            let is_recorded = || project.last_record("run")["outcome"] == "failed";
            while !is_recorded() && is_waited_for() {
                std::thread::yield_now();
            }
            seen.lock().unwrap().push(is_waited_for());
        })
    };
    let project = Arc::new(project(&url, true));
    project.replace("sluicegate.yaml", "  d: { run: 'true' }", "  d: { run: 'exit 3', needs: [c] }");
    *home.lock().unwrap() = Arc::downgrade(&project);
    let ended = project.sluicegate(&["run", "--no-scan", "--keep-going"]);
    assert_eq!(ended.code, 6, "{ended:?}");
    let seen = seen.lock().unwrap().clone();
    assert!(!seen.is_empty() && seen.iter().all(|waited_for| *waited_for), "{seen:?}");
}
