//! A log that fails, and how a server ends: because it was asked to, or because nothing can be appended any more.

use std::{
    fs,
    io::Read,
    net::TcpStream,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use sluicegate_ports::{
    served_log::{Placed, ServedLog, TileName},
    sign::{SignError, TransparencyLog},
};

use super::{
    held_log::{Held, until},
    served_log_folder::{ENTRIES, LogFolder, Served, ask_on},
    signed_entries::request,
};
use crate::{Error, Limits};

#[test]
fn a_log_that_refuses_is_reported_to_its_keeper_and_not_to_clients() {
    let folder = LogFolder::new();
    let served = Served::start(Held::new(folder.open(), true), Limits::default());
    let answer = served.post(&request(0));
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), r#"{"code":13,"message":"failed to integrate entry","details":[]}"#);
    fs::remove_file(folder.path("checkpoint")).unwrap();
    let answer = served.get("/api/v2/checkpoint");
    assert_eq!(answer.text(), r#"{"code":13,"message":"the log cannot be read","details":[]}"#);
    let reported = served.reported.lock().unwrap().join("\n");
    assert!(reported.contains("1 entries were not logged: the log in /secret/place"), "{reported}");
    assert!(reported.contains("has no checkpoint"), "{reported}");
    served.end();
}

/// A log with a fault of ours.
struct Faulty;

impl ServedLog for Faulty {
    fn append_new(&self, _: &[Vec<u8>]) -> Result<Vec<Placed>, SignError> {
        panic!("a fault of the log");
    }

    fn checkpoint(&self) -> Result<String, SignError> {
        Ok(String::new())
    }

    fn tile(&self, _: TileName) -> Result<Option<Vec<u8>>, SignError> {
        Ok(None)
    }
}

#[test]
fn a_server_whose_writer_broke_off_ends() {
    let mut served = Served::start(Arc::new(Faulty), Limits::default());
    assert_eq!(served.post(&request(0)).status, 500);
    let ended = served.thread.take().unwrap().join().unwrap();
    assert!(matches!(ended, Err(Error::Appender)), "{ended:?}");
}

#[test]
fn after_the_end_was_asked_for_nothing_new_is_taken_and_what_waits_is_finished() {
    let folder = LogFolder::new();
    let log = Held::new(folder.open(), false);
    let mut served = Served::start(log.clone(), Limits { queue: 4, ..Limits::default() });
    // One that was answered and stays connected, and one that says nothing.
    let mut idle = TcpStream::connect(served.address).unwrap();
    assert_eq!(ask_on(&mut idle, "GET", "/api/v2/checkpoint", b"", false).status, 200);
    let _silent = TcpStream::connect(served.address).unwrap();
    let (address, (answered, statuses)) = (served.address, mpsc::channel());
    let add = |number| {
        let answered = answered.clone();
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let answer = ask_on(&mut stream, "POST", ENTRIES, request(number).to_string().as_bytes(), false);
            answered.send(answer.status).unwrap();
        });
    };
    add(0);
    until("the writer has one", || log.calls.load(Ordering::SeqCst) == 1);
    (1..6).for_each(add);
    // Nobody is refused before four wait: so all that is to be finished is there.
    let next_status = || statuses.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(next_status(), 503);
    served.signal();
    until("no new connection", || TcpStream::connect(served.address).is_err());
    // The idle one is closed, not cut off after its next question.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    log.let_go();
    for _ in 0..5 {
        assert_eq!(next_status(), 201);
    }
    served.end();
    assert_eq!(folder.open().size().unwrap(), 5);
}
