//! Many who add entries at once: groups under one checkpoint, and a queue that has an end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use serde_json::json;
use sluicegate_ports::sign::TransparencyLog;

use super::{
    held_log::{Held, until},
    served_log_folder::{ENTRIES, LogFolder, Served},
    signed_entries::{body, request, verify},
};
use crate::Limits;

#[test]
fn every_one_of_many_clients_gets_its_own_proof_and_nothing_is_lost() {
    const CLIENTS: u64 = 200;
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    // Another process of the same home, which appends at the same time.
    let beside = log.open();
    let start = Barrier::new(CLIENTS as usize + 1);
    let requests: Vec<String> = (0..CLIENTS).map(|number| request(number).to_string()).collect();
    let mut places = Vec::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (served, start, log, requests) = (&served, &start, &log, &requests);
                scope.spawn(move || {
                    start.wait();
                    let answer = served.ask("POST", ENTRIES, requests[number as usize].as_bytes());
                    assert_eq!(answer.status, 201, "{answer:?}");
                    verify(&answer.json(), number, &log.public())
                })
            })
            .collect();
        start.wait();
        for number in 0..20 {
            beside.append(&[body(1_000_000 + number)]).unwrap();
        }
        places = clients.into_iter().map(|client| client.join().unwrap()).collect();
    });
    let indexes: BTreeSet<u64> = places.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes.len() as u64, CLIENTS);
    let checkpoints: BTreeSet<u64> = places.iter().map(|(_, size)| *size).collect();
    assert!(
        (checkpoints.len() as u64) < CLIENTS / 2,
        "{} checkpoints: entries are committed in groups",
        checkpoints.len()
    );
    served.end();
    let again = log.open();
    assert_eq!(again.size().unwrap(), CLIENTS + 20);
    let entries = again.append(&(0..CLIENTS).map(body).collect::<Vec<_>>()).unwrap();
    for (entry, (index, _)) in entries.iter().zip(&places) {
        assert_eq!(entry.log_index, if *index == 0 { String::new() } else { index.to_string() });
    }
    assert_eq!(again.size().unwrap(), CLIENTS + 20);
}

#[test]
fn the_same_entry_from_many_at_once_is_logged_once() {
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    let request = request(5).to_string();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..50).map(|_| scope.spawn(|| served.ask("POST", ENTRIES, request.as_bytes()))).collect();
        clients.into_iter().map(|client| client.join().unwrap().status).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 49, "{statuses:?}");
    served.end();
    assert_eq!(log.open().size().unwrap(), 1);
}

#[test]
fn more_than_may_wait_are_told_to_come_again_and_reading_goes_on() {
    let folder = LogFolder::new();
    let log = Held::new(folder.open(), false);
    let served = Served::start(log.clone(), Limits { queue: 3, ..Limits::default() });
    let (ended, answers) = mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(|| served.post(&request(0)).status);
        until("the writer has the first", || log.calls.load(Ordering::SeqCst) == 1);
        for number in 1..7 {
            let (served, ended) = (&served, ended.clone());
            scope.spawn(move || ended.send(served.post(&request(number))).unwrap());
        }
        for refused in answers.iter().take(3) {
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
            assert_eq!(refused.text(), r#"{"code":14,"message":"too many entries wait; try again","details":[]}"#);
        }
        assert_eq!(served.get("/api/v2/checkpoint").status, 200);
        log.let_go();
        assert_eq!(first.join().unwrap(), 201);
        assert!(answers.iter().take(3).all(|answer| answer.status == 201));
    });
    assert_eq!(log.calls.load(Ordering::SeqCst), 2, "what waited went together");
    served.end();
    assert_eq!(folder.open().size().unwrap(), 4);
}

#[test]
fn who_waits_too_long_for_a_checkpoint_is_told_so() {
    let folder = LogFolder::new();
    let log = Held::new(folder.open(), false);
    let served = Served::start(log.clone(), Limits { append: Duration::from_millis(100), ..Limits::default() });
    let answer = served.post(&request(0));
    assert_eq!((answer.status, &answer.json()["code"]), (504, &json!(4)));
    log.let_go();
    until("the entry is logged all the same", || folder.open().size().unwrap() == 1);
    assert_eq!(served.post(&request(0)).header("x-log-index"), Some("0"));
    served.end();
}
