use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sluicegate_attestation::bundle::hashedrekord_body;

use super::*;
use crate::{EmbeddedLog, LogKey};

mod https;

const ORIGIN: &str = "log.example";
const HTML: &str = "<!DOCTYPE html><title>Sign in</title>";

fn key() -> LogKey {
    LogKey::from_seed([7; 32])
}

fn public() -> LogPublic {
    LogPublic { origin: ORIGIN.into(), public_key: *key().public_key() }
}

fn body(number: u64) -> Vec<u8> {
    hashedrekord_body(&Digest::of(&number.to_be_bytes()), b"signature", b"key")
}

/// What the server does with an entry that is sent, in place of logging it and answering.
type Act = Box<dyn Fn(&EmbeddedLog, &[u8]) -> Vec<u8> + Send>;

/// What is changed in an entry that a log answers with.
type Lie = Box<dyn Fn(&mut Value) + Send>;

/// An answer that is always the same.
type Fixed = fn() -> Vec<u8>;

/// A log in a folder behind a server that does what it is told to with the next entries.
struct World {
    folder: tempfile::TempDir,
    log: Arc<EmbeddedLog>,
    script: Arc<Mutex<VecDeque<Act>>>,
    asked: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl World {
    fn new(entries: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::create(folder.path().join("log"), key(), ORIGIN).unwrap());
        log.append(&(0..entries).map(|number| body(1_000_000 + number)).collect::<Vec<_>>()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let world = Self { folder, log, script: Arc::default(), asked: Arc::default(), url };
        let (log, script, asked) = (world.log.clone(), world.script.clone(), world.asked.clone());
        let files = world.folder.path().join("log");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, script, asked, files) = (log.clone(), script.clone(), asked.clone(), files.clone());
                thread::spawn(move || serve(&stream.unwrap(), &log, &script, &asked, &files));
            }
        });
        world
    }

    fn then(&self, act: impl Fn(&EmbeddedLog, &[u8]) -> Vec<u8> + Send + 'static) -> &Self {
        self.script.lock().unwrap().push_back(Box::new(act));
        self
    }

    fn settings(&self) -> RekorSettings {
        RekorSettings {
            url: self.url.parse().unwrap(),
            read: None,
            outbox: self.folder.path().join("outbox"),
            outbound: Arc::default(),
            limits: RemoteLimits {
                answer: Duration::from_secs(2),
                total: Duration::from_secs(8),
                tries: 3,
                first_pause: Duration::from_millis(10),
                ..RemoteLimits::default()
            },
        }
    }

    fn open(&self) -> RekorLog {
        RekorLog::open(self.settings(), &[public()]).unwrap()
    }

    /// What comes of one entry, with its outbox as the next command finds it.
    fn append(&self, number: u64) -> Result<LogEntry, SignError> {
        let log = self.open();
        let appended = log.append(&[body(number)]).map(|mut entries| entries.remove(0));
        if appended.is_ok() {
            log.settled(&[body(number)]).unwrap();
        }
        appended
    }

    fn waiting(&self) -> usize {
        fs::read_dir(self.folder.path().join("outbox")).unwrap().count()
    }

    fn posts(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with("POST")).count()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("log").join(name)
    }

    /// The entry is not believed, for this reason, waits, and is in the log no more often than `leaves` says.
    #[track_caller]
    fn wrong(&self, reason: &str) {
        match self.append(0) {
            Err(SignError::Unproved { reason: said, .. }) => assert!(said.contains(reason), "{said}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(self.waiting(), 1);
    }

    /// The entry is not logged for now, for this reason, and waits.
    #[track_caller]
    fn unavailable(&self, reason: &str) {
        match self.append(0) {
            Err(SignError::Waiting { reason: said, waiting: 1, .. }) => assert!(said.contains(reason), "{said}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(self.waiting(), 1);
    }

    /// A later command logs what waits, once.
    #[track_caller]
    fn settles(&self, size: u64) {
        let kept = Mutex::new(Vec::new());
        let done = self.open().settle(|settled| -> Result<(), SignError> {
            kept.lock().unwrap().push((settled.body.clone(), settled.entry.canonicalized_body.clone()));
            Ok(())
        });
        assert_eq!(done.unwrap(), Settlement { logged: 1, elsewhere: 0 });
        assert_eq!(kept.into_inner().unwrap(), [(body(0), STANDARD.encode(body(0)))]);
        assert_eq!((self.waiting(), self.log.size().unwrap()), (0, size));
    }
}

fn serve(
    stream: &TcpStream,
    log: &EmbeddedLog,
    script: &Mutex<VecDeque<Act>>,
    asked: &Mutex<Vec<String>>,
    files: &Path,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    asked.lock().ok()?.push(format!("{method} {path}"));
    let act = (method == "POST").then(|| script.lock().unwrap().pop_front()).flatten();
    let answer = match (method, act) {
        ("POST", Some(act)) => act(log, &requested(&sent)),
        ("POST", None) => logged(log, &requested(&sent)),
        _ => match fs::read(files.join(path.strip_prefix("/api/v2/")?)) {
            Ok(bytes) => raw(200, "", &bytes),
            Err(_) => raw(404, "", b"gone"),
        },
    };
    if answer == SILENCE {
        // Until whoever asks is gone.
        let _ = reader.read_to_end(&mut Vec::new());
    }
    (&mut &*stream).write_all(&answer).ok()
}

/// In place of an answer: none.
const SILENCE: &[u8] = b"silence";

fn raw(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The body that a request asks to be logged.
fn requested(request: &[u8]) -> Vec<u8> {
    let request: Value = serde_json::from_slice(request).unwrap();
    let asked = &request["hashedRekordRequestV002"];
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let digest = Digest::from_bytes(bytes(&asked["digest"]).try_into().unwrap());
    let verifier = &asked["signature"]["verifier"];
    assert_eq!(verifier["keyDetails"], "PKIX_ECDSA_P256_SHA_256");
    hashedrekord_body(&digest, &bytes(&asked["signature"]["content"]), &bytes(&verifier["publicKey"]["rawBytes"]))
}

/// The entry of a body, which is appended if it is not there, as the real server writes it; and whether it was there.
fn entry(log: &EmbeddedLog, body: &[u8]) -> (Value, bool) {
    let before = log.size().unwrap();
    let mut entry = serde_json::to_value(&log.append(&[body.to_vec()]).unwrap()[0]).unwrap();
    entry["integratedTime"] = json!("0");
    entry["inclusionPromise"] = Value::Null;
    if entry.get("logIndex").is_none() {
        entry["logIndex"] = json!("0");
        entry["inclusionProof"]["logIndex"] = json!("0");
    }
    (entry, log.size().unwrap() == before)
}

/// What a log answers.
fn logged(log: &EmbeddedLog, body: &[u8]) -> Vec<u8> {
    let (entry, was_there) = entry(log, body);
    if !was_there {
        return raw(201, "content-type: application/json\r\n", entry.to_string().as_bytes());
    }
    let index = entry["logIndex"].as_str().unwrap();
    let said =
        json!({"code": 6, "message": format!("an equivalent entry already exists with index {index}"), "details": []});
    raw(409, &format!("x-log-index: {index}\r\n"), said.to_string().as_bytes())
}

/// Logs the body and answers with a changed entry.
fn changed(change: impl Fn(&mut Value) + Send + 'static) -> impl Fn(&EmbeddedLog, &[u8]) -> Vec<u8> + Send {
    move |log, body| {
        let mut entry = entry(log, body).0;
        change(&mut entry);
        raw(201, "", entry.to_string().as_bytes())
    }
}

#[test]
fn an_entry_is_kept_before_it_is_sent_and_forgotten_after_it_is_stored() {
    let world = World::new(3);
    let outbox = world.folder.path().join("outbox");
    world.then(move |log, body| {
        let kept = fs::read(outbox.join(Digest::of(body).hex())).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!((&kept["log"], &kept["body"]), (&json!(ORIGIN), &json!(STANDARD.encode(body))));
        assert_eq!(kept["payload"], json!(STANDARD.encode("what was said")));
        logged(log, body)
    });
    let log = world.open();
    let signed = body(0);
    log.about_to_append(&[Envelope { payload: b"what was said", body: &signed }]).unwrap();
    let entry = log.append(std::slice::from_ref(&signed)).unwrap().remove(0);
    // The same entry as the log itself has it.
    assert_eq!(entry, world.log.append(std::slice::from_ref(&signed)).unwrap()[0]);
    assert_eq!((entry.log_index.as_str(), world.waiting()), ("3", 1));
    log.settled(&[signed]).unwrap();
    assert_eq!((world.waiting(), world.posts()), (0, 1));
    assert_eq!((log.size().unwrap(), log.root().unwrap()), (4, world.log.root().unwrap()));
}

#[test]
fn many_entries_are_sent_side_by_side_and_come_back_in_order() {
    let world = World::new(0);
    let log = world.open();
    let bodies: Vec<_> = (0..20).chain([3, 3]).map(body).collect();
    let entries = log.append(&bodies).unwrap();
    let named: Vec<_> = entries.iter().map(|entry| STANDARD.decode(&entry.canonicalized_body).unwrap()).collect();
    assert_eq!(named, bodies);
    log.settled(&bodies).unwrap();
    assert_eq!((world.log.size().unwrap(), world.posts(), world.waiting()), (20, 20, 0));
    assert_eq!(log.append(&[]).unwrap(), []);
}

#[test]
fn a_log_that_is_away_is_asked_again_and_what_was_signed_waits_for_it() {
    let world = World::new(2);
    for _ in 0..3 {
        world.then(|_, _| Vec::new());
    }
    world.unavailable("3 tries");
    assert_eq!((world.posts(), world.log.size().unwrap()), (3, 2));
    world.settles(3);
    // Nobody listens at all, and something waits.
    world.then(|_, _| raw(400, "", b"{}"));
    world.unavailable("400");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = RekorSettings { url: format!("http://{gone}").parse().unwrap(), ..world.settings() };
    let error = RekorLog::open(settings, &[public()]).unwrap_err();
    assert!(matches!(&error, SignError::Waiting { waiting: 1, .. }), "{error}");
    assert!(error.to_string().starts_with("1 signed statement waits in "), "{error}");
}

#[test]
fn a_log_that_is_slow_is_not_waited_for_without_end() {
    let world = World::new(0);
    for _ in 0..5 {
        world.then(|_, _| SILENCE.to_vec());
    }
    world.unavailable("it took too long");
    assert!((1..=3).contains(&world.posts()), "{}", world.posts());
}

#[test]
fn an_answer_that_is_cut_leads_to_one_leaf() {
    let world = World::new(300);
    world.then(|log, body| {
        let whole = logged(log, body);
        whole[..whole.len() - 200].to_vec()
    });
    let entry = world.append(0).unwrap();
    assert_eq!((entry.log_index.as_str(), world.posts(), world.log.size().unwrap()), ("300", 2, 301));
    assert_eq!(world.waiting(), 0);
    // The second answer was "already there", and was proved from the tiles.
    let asked = world.asked.lock().unwrap().join("\n");
    assert!(asked.contains("GET /api/v2/tile/entries/001.p/45\n") && asked.ends_with("tile/0/001.p/45"), "{asked}");
    assert_eq!(entry, world.log.append(&[body(0)]).unwrap()[0]);
}

#[test]
fn already_there_counts_when_it_is_proved() {
    for size in [1, 2, 3, 255, 256, 257, 511, 512, 700] {
        let world = World::new(size);
        world.log.append(&[body(0)]).unwrap();
        let entry = world.append(0).unwrap();
        assert_eq!(entry, world.log.append(&[body(0)]).unwrap()[0], "{size}");
        assert_eq!(world.log.size().unwrap(), size + 1);
    }
    // An answer that brings the entry along needs no tiles.
    let world = World::new(3);
    world.then(|log, body| raw(409, "", entry(log, body).0.to_string().as_bytes()));
    assert_eq!(world.append(0).unwrap().log_index, "3");
    assert!(!world.asked.lock().unwrap().iter().any(|line| line.contains("tile")));
    world.then(|log, body| {
        let mut entry = entry(log, body).0;
        entry["inclusionProof"]["hashes"][0] = json!(STANDARD.encode([1; 32]));
        raw(409, "", entry.to_string().as_bytes())
    });
    world.wrong("not proved by the checkpoint");
}

#[test]
fn already_there_without_a_proof_is_no_success() {
    let world = World::new(5);
    world.then(|_, _| raw(409, "", b"{}"));
    world.unavailable("without X-Log-Index");
    for index in ["x", "-1", "05", "18446744073709551616"] {
        world.then(move |_, _| raw(409, &format!("x-log-index: {index}\r\n"), b"{}"));
        world.unavailable("no number");
    }
    world.then(|_, _| raw(409, "x-log-index: 2\r\n", b"{}"));
    world.wrong("another one is there");
    world.then(|_, _| raw(409, "x-log-index: 99\r\n", b"{}"));
    world.unavailable("the checkpoint has 5 entries");
    world.settles(6);
}

#[test]
fn a_tile_that_is_gone_is_cut_from_the_full_one_and_a_changed_one_is_wrong() {
    let world = World::new(299);
    world.log.append(&[body(0)]).unwrap();
    let checkpoint = fs::read(world.file("checkpoint")).unwrap();
    world.log.append(&(0..212).map(|number| body(2_000_000 + number)).collect::<Vec<_>>()).unwrap();
    // The checkpoint of 300 comes from a cache; only full tiles are there.
    fs::write(world.file("checkpoint"), &checkpoint).unwrap();
    fs::remove_file(world.file("tile/1/000.p/1")).unwrap();
    let already = |log: &EmbeddedLog, _: &[u8]| {
        let _ = log;
        raw(409, "x-log-index: 299\r\n", b"{}")
    };
    world.then(already);
    let entry = world.append(0).unwrap();
    assert_eq!((entry.log_index.as_str(), entry.inclusion_proof.tree_size.as_str()), ("299", "300"));
    let asked = world.asked.lock().unwrap().join("\n");
    assert!(asked.contains("GET /api/v2/tile/0/001.p/44\nGET /api/v2/tile/0/001"), "{asked}");
    let reader = RemoteLog::new(world.url.parse().unwrap(), Arc::default(), world.settings().limits).unwrap();
    // The upper tile of 300 has one hash, and the folder has that of 512 alone, which is not full.
    assert!(world.file("tile/1/000.p/2").is_file() && !world.file("tile/1/000.p/1").exists());
    let (origin, size, _) = reader.check(&[public()]).unwrap();
    assert_eq!((origin.as_str(), size), (ORIGIN, 300));
    // One changed hash.
    let full = world.file("tile/0/001");
    let good = fs::read(&full).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&full, &bad).unwrap();
    world.then(already);
    world.wrong("entry 299 is not proved");
    let error = reader.check(&[public()]).unwrap_err();
    assert!(matches!(&error, SignError::Unproved { .. }) && error.to_string().contains("tile/0/001.p/44"), "{error}");
    // Nothing at all.
    fs::remove_file(&full).unwrap();
    world.then(already);
    world.unavailable("tile/0/001.p/44 or tile/0/001");
    let error = reader.check(&[public()]).unwrap_err();
    assert!(matches!(&error, SignError::Remote { .. }), "{error}");
    // A changed hash behind what the checkpoint covers is no matter of its.
    let mut later = good;
    later[44 * 32] ^= 1;
    fs::write(&full, later).unwrap();
    reader.check(&[public()]).unwrap();
    let entries = world.file("tile/entries/000");
    let mut changed = fs::read(&entries).unwrap();
    changed[100] ^= 1;
    fs::write(&entries, changed).unwrap();
    let error = reader.check(&[public()]).unwrap_err();
    assert!(error.to_string().contains("do not belong together"), "{error}");
}

#[test]
fn what_a_log_answers_is_believed_only_as_far_as_it_is_proved() {
    let sha = |byte: u8| json!(STANDARD.encode([byte; 32]));
    let lies: Vec<(&str, Lie)> = vec![
        ("canonicalizedBody", Box::new(|entry| entry["canonicalizedBody"] = json!(STANDARD.encode(body(77))))),
        ("canonicalizedBody", Box::new(|entry| entry["canonicalizedBody"] = json!(""))),
        ("logId", Box::new(move |entry| entry["logId"]["keyId"] = sha(1))),
        ("kindVersion", Box::new(|entry| entry["kindVersion"]["version"] = json!("0.0.1"))),
        ("kindVersion", Box::new(|entry| entry["kindVersion"]["kind"] = json!("dsse"))),
        ("integratedTime", Box::new(|entry| entry["integratedTime"] = json!("1"))),
        ("inclusionPromise", Box::new(|entry| entry["inclusionPromise"] = json!({"signedEntryTimestamp": ""}))),
        ("inclusionProof.logIndex", Box::new(|entry| entry["logIndex"] = json!("1"))),
        ("logIndex", Box::new(|entry| entry["logIndex"] = json!("007"))),
        ("treeSize", Box::new(|entry| entry["inclusionProof"]["treeSize"] = json!("9"))),
        ("rootHash", Box::new(move |entry| entry["inclusionProof"]["rootHash"] = sha(1))),
        ("hashes", Box::new(|entry| entry["inclusionProof"]["hashes"][0] = json!("AA=="))),
        ("not proved", Box::new(move |entry| entry["inclusionProof"]["hashes"][0] = sha(1))),
        ("not proved", Box::new(|entry| entry["inclusionProof"]["hashes"] = json!([]))),
        (
            "not proved",
            Box::new(|entry| {
                entry["logIndex"] = json!("4");
                entry["inclusionProof"]["logIndex"] = json!("4");
            }),
        ),
        (
            "in a tree of",
            Box::new(|entry| {
                entry["logIndex"] = json!("400");
                entry["inclusionProof"]["logIndex"] = json!("400");
            }),
        ),
        (
            "of the log \"other.example\"",
            Box::new(|entry| {
                let note = entry["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
                entry["inclusionProof"]["checkpoint"]["envelope"] = json!(note.replace(ORIGIN, "other.example"));
            }),
        ),
        (
            "no valid signature",
            Box::new(|entry| {
                let root = tlog_tiles::Hash([9; 32]);
                let key = LogKey::from_seed([8; 32]);
                let forged = crate::checkpoint::Checkpoint::sign(ORIGIN, 6, root, &key).note;
                entry["inclusionProof"]["checkpoint"]["envelope"] = json!(forged);
            }),
        ),
        (
            "no signature part",
            Box::new(|entry| {
                let note = entry["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
                let unsigned = note.split("\n\n").next().unwrap().to_owned() + "\n";
                entry["inclusionProof"]["checkpoint"]["envelope"] = json!(unsigned);
            }),
        ),
    ];
    for (reason, lie) in lies {
        let world = World::new(5);
        world.then(changed(lie));
        world.wrong(reason);
        // It is there all the same; once the log says so honestly, it is settled, and there is one leaf.
        world.settles(6);
    }
}

#[test]
fn an_honest_entry_of_something_else_is_not_ours() {
    let world = World::new(5);
    world.then(|log, _| logged(log, &body(55)));
    world.wrong("canonicalizedBody");
    world.settles(7);
}

#[test]
fn what_is_no_answer_of_a_log_is_no_success() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = elsewhere.local_addr().unwrap();
    let once: Vec<(&str, Act)> = vec![
        ("is this a log?", Box::new(|log, body| raw(200, "", entry(log, body).0.to_string().as_bytes()))),
        ("is this a log?", Box::new(|_, _| raw(200, "content-type: text/html\r\n", HTML.as_bytes()))),
        ("204", Box::new(|_, _| raw(204, "", b""))),
        (
            "redirects are not followed",
            Box::new(move |_, _| raw(307, &format!("location: http://{address}/api/v2/log/entries\r\n"), b"")),
        ),
        (
            "redirects are not followed",
            Box::new(move |_, _| raw(302, &format!("location: http://{address}/\r\n"), b"")),
        ),
        ("larger than the limit", Box::new(|_, _| raw(201, "", &vec![b' '; ANSWER_LIMIT as usize + 1]))),
        (
            "400: invalid hashedrekord request",
            Box::new(|_, _| raw(400, "", br#"{"code":3,"message":"invalid hashedrekord request","details":[]}"#)),
        ),
        ("403", Box::new(|_, _| raw(403, "", HTML.as_bytes()))),
        ("no time to wait", Box::new(|_, _| raw(429, "retry-after: 3600\r\n", b""))),
    ];
    for (reason, act) in once {
        let world = World::new(5);
        world.script.lock().unwrap().push_back(act);
        let began = Instant::now();
        world.unavailable(reason);
        assert_eq!(world.posts(), 1, "{reason}");
        assert!(began.elapsed() < Duration::from_secs(2), "{reason}");
        world.settles(6);
    }
    assert!(elsewhere.accept().is_err(), "nothing was sent elsewhere");
    // What may pass is asked for again, so often and not more.
    let thrice: Vec<(&str, Fixed)> = vec![
        ("500", || raw(500, "", b"{}")),
        ("503", || raw(503, "", HTML.as_bytes())),
        ("no log entry", || raw(201, "", HTML.as_bytes())),
        ("no log entry", || raw(201, "", b"")),
        ("no log entry", || raw(201, "", br#"{"logIndex":"0","unknown":1}"#)),
        ("POST", || b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ];
    for (reason, answer) in thrice {
        let world = World::new(5);
        for _ in 0..4 {
            world.then(move |_, _| answer());
        }
        world.unavailable(reason);
        assert_eq!((world.posts(), world.log.size().unwrap()), (3, 5), "{reason}");
    }
}

#[test]
fn a_log_that_asks_for_a_pause_gets_it() {
    let world = World::new(0);
    world.then(|_, _| raw(429, "retry-after: 1\r\n", b""));
    let began = Instant::now();
    assert_eq!(world.append(0).unwrap().log_index, "");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn what_another_command_is_about_to_log_is_left_to_it() {
    let world = World::new(0);
    let first = world.open();
    let signed = body(0);
    first.about_to_append(&[Envelope { payload: b"said", body: &signed }]).unwrap();
    let nothing = |settled: &Settled| -> Result<(), SignError> { panic!("{settled:?}") };
    assert_eq!(world.open().settle(nothing).unwrap(), Settlement::default());
    assert_eq!((world.posts(), world.waiting()), (0, 1));
    // It ends without having sent anything: its lock is gone.
    drop(first);
    world.settles(1);
    // Both send the same: one leaf, and both have its proof.
    let (one, two) = (world.open(), world.open());
    let [one_entry, two_entry] = [&one, &two].map(|log| log.append(&[body(1)]).unwrap().remove(0));
    assert_eq!((&one_entry.log_index, world.log.size().unwrap()), (&two_entry.log_index, 2));
    for log in [&one, &two] {
        log.settled(&[body(1)]).unwrap();
    }
    assert_eq!(world.waiting(), 0);
}

#[test]
fn an_outbox_that_is_damaged_or_for_another_log_is_said_to_be() {
    let world = World::new(0);
    let outbox = Outbox::open(world.folder.path().join("outbox")).unwrap();
    let signed = body(0);
    outbox.keep("other.example", &[Envelope { payload: b"", body: &signed }]).unwrap();
    drop(outbox);
    let settle = || world.open().settle(|_| Ok::<(), SignError>(()));
    assert_eq!(settle().unwrap(), Settlement { logged: 0, elsewhere: 1 });
    let name = world.folder.path().join("outbox").join(Digest::of(&signed).hex());
    let good = fs::read_to_string(&name).unwrap();
    for (bad, says) in [
        (good[..good.len() / 2].to_owned(), "is damaged"),
        (good.replace(&STANDARD.encode(&signed), &STANDARD.encode(body(1))), "does not hold what its name says"),
        (good.replace("\"schemaVersion\":1", "\"schemaVersion\":2"), "not of the form"),
        (good.replace("{", "{\"more\":1,"), "is damaged"),
    ] {
        fs::write(&name, bad).unwrap();
        let error = settle().unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("move it away"), "{error}");
    }
    assert_eq!(world.posts(), 0);
}

#[test]
fn which_log_it_is_must_be_known_before_anything_is_sent() {
    let world = World::new(1);
    let open = |logs: &[LogPublic]| RekorLog::open(world.settings(), logs);
    let other = |origin: &str| LogPublic { origin: origin.into(), public_key: [1; 32] };
    let both = [other("a.example"), public()];
    assert_eq!(open(&both).unwrap().origin(), ORIGIN);
    let stranger = |result: Result<RekorLog, SignError>, says: &str| match result {
        Err(SignError::Stranger { reason, .. }) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    };
    stranger(open(&[]), "no log with an Ed25519 key");
    stranger(
        open(&[other("a.example")]),
        "its checkpoint is of \"log.example\", and those with an Ed25519 key are a.example",
    );
    // The right name and another key.
    let error = open(&[other(ORIGIN)]).unwrap_err();
    assert!(matches!(error, SignError::Unproved { .. }), "{error}");
    // A server that only writes, as the real one does.
    fs::remove_file(world.file("checkpoint")).unwrap();
    assert_eq!(open(&[public()]).unwrap().origin(), ORIGIN);
    assert_eq!(open(&[other("a.example"), other("127.0.0.1")]).unwrap().origin(), "127.0.0.1");
    stranger(open(&both), "name the server of its checkpoint and tiles with read:");
    let elsewhere = World::new(4);
    let settings = RekorSettings { read: Some(elsewhere.url.parse().unwrap()), ..world.settings() };
    assert_eq!(RekorLog::open(settings.clone(), &both).unwrap().size().unwrap(), 4);
    fs::remove_file(elsewhere.file("checkpoint")).unwrap();
    let error = RekorLog::open(settings, &both).unwrap_err();
    assert!(matches!(error, SignError::Remote { .. }), "{error}");
    assert_eq!(world.posts() + elsewhere.posts(), 0);
}

#[test]
fn answers_of_the_real_server_are_read_and_proved() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rekor-tiles");
    let exchanges: Value = serde_json::from_slice(&fs::read(fixture.join("exchanges.json")).unwrap()).unwrap();
    let pem = fs::read_to_string(fixture.join("log.pub")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let public_key = STANDARD.decode(der).unwrap()[12..].try_into().unwrap();
    let log = LogPublic { origin: "rekor.local".into(), public_key };
    let mut proved = 0;
    for exchange in exchanges.as_array().unwrap().iter().filter(|exchange| exchange["status"] == 201) {
        let body = requested(exchange["request"].as_str().unwrap().as_bytes());
        let asked: Value = serde_json::from_slice(&log_answer::request(&body).unwrap()).unwrap();
        assert_eq!(asked, serde_json::from_str::<Value>(exchange["request"].as_str().unwrap()).unwrap());
        let answer = exchange["answer"].as_str().unwrap().as_bytes();
        let entry = log_answer::read(answer).unwrap().proved(&body, &log).unwrap();
        assert_eq!(log_answer::number(&entry.log_index), Some(proved));
        proved += 1;
    }
    assert_eq!(proved, 3);
}
