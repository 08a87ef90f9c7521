//! A log in a folder, a server of it, and what a client that speaks plain HTTP gets to hear.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;
use sluicegate_ports::served_log::ServedLog;
use sluicegate_sigstore::{EmbeddedLog, KeyFolder, LogPublic};
use sluicegate_types::Secret;
use tokio::sync::oneshot;

use crate::{Error, Limits, group_commit::Report, log_api::serve_log};

pub(super) const ORIGIN: &str = "log.example";
pub(super) const ENTRIES: &str = "/api/v2/log/entries";

/// A log in a folder of its own, with its key.
pub(super) struct LogFolder {
    folder: tempfile::TempDir,
}

impl LogFolder {
    pub(super) fn new() -> Self {
        let log = Self { folder: tempfile::tempdir().unwrap() };
        log.keys().generate_log_key("log", &Secret::new(Vec::new())).unwrap();
        EmbeddedLog::create(log.path(""), log.keys().open_log_key("log", &Secret::new(Vec::new())).unwrap(), ORIGIN)
            .unwrap();
        log
    }

    fn keys(&self) -> KeyFolder {
        KeyFolder::open(self.folder.path().join("keys"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("log").join(name)
    }

    pub(super) fn open(&self) -> EmbeddedLog {
        let key = self.keys().open_log_key("log", &Secret::new(Vec::new())).unwrap();
        EmbeddedLog::open(self.path(""), key, ORIGIN).unwrap()
    }

    pub(super) fn public(&self) -> LogPublic {
        LogPublic { origin: ORIGIN.to_owned(), public_key: self.keys().log_public_key("log").unwrap() }
    }
}

/// A server on a port of the system's choice.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub(super) thread: Option<thread::JoinHandle<Result<(), Error>>>,
    pub(super) reported: Arc<Mutex<Vec<String>>>,
}

impl Served {
    pub(super) fn start(log: Arc<dyn ServedLog>, limits: Limits) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let reported = Arc::new(Mutex::new(Vec::new()));
        let said = reported.clone();
        let report: Report = Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(serve_log(listener, log, limits, report, async {
                let _ = stopped.await;
            }))
        });
        Self { address, stop: Some(stop), thread: Some(thread), reported }
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        ask_on(&mut stream, method, path, body, true)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, b"")
    }

    pub(super) fn post(&self, body: &Value) -> Answer {
        self.ask("POST", ENTRIES, body.to_string().as_bytes())
    }

    /// Asks for the end without waiting for it.
    pub(super) fn signal(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(super) fn end(mut self) {
        if self.stop.is_some() {
            self.signal();
        }
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(super) fn ask_on(stream: &mut TcpStream, method: &str, path: &str, body: &[u8], close: bool) -> Answer {
    let close = if close { "connection: close\r\n" } else { "" };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: log\r\n{close}content-length: {}\r\n\r\n", body.len());
    // A server that has seen enough may close before all of it is written.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    read_answer(stream)
}

pub(super) fn read_answer(stream: &mut TcpStream) -> Answer {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            other => return Answer { status: 0, head: format!("{other:?}"), body: bytes },
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let answer = Answer { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
    let mut body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    Answer { body, ..answer }
}
