//! Connections that are slow, large or too many.

use std::{
    io::Write,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use sluicegate_ports::sign::TransparencyLog;

use super::{
    served_log_folder::{ENTRIES, LogFolder, Served, read_answer},
    signed_entries::request,
};
use crate::Limits;

#[test]
fn who_is_slow_or_sends_too_much_is_cut_off() {
    let folder = LogFolder::new();
    let short = Duration::from_millis(300);
    let limits = Limits { head_read: short, body_read: short, ..Limits::default() };
    let served = Served::start(Arc::new(folder.open()), limits);
    let padded = |length: usize| {
        let mut text = request(0).to_string().into_bytes();
        text.resize(length, b' ');
        text
    };
    assert_eq!(served.ask("POST", ENTRIES, &padded(limits.body)).status, 201);
    let large = served.ask("POST", ENTRIES, &padded(limits.body + 1));
    assert_eq!((large.status, &large.json()["code"]), (413, &json!(3)));
    // A body that promises much is not waited for.
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(b"POST /api/v2/log/entries HTTP/1.1\r\nhost: log\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 413);
    // Slow in the head, slow in the body, idle.
    let begin = Instant::now();
    for begun in [
        &b"GET /api/v2/che"[..],
        b"",
        b"POST /api/v2/log/entries HTTP/1.1\r\nhost: log\r\ncontent-length: 100\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.write_all(begun).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.status == 0 || answer.status == 408, "{answer:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    let long = format!("/api/v2/tile/{}", "a".repeat(64 * 1024));
    let answer = served.get(&long);
    assert!(matches!(answer.status, 0 | 414 | 431), "{}", answer.status);
    served.end();
    assert_eq!(folder.open().size().unwrap(), 1);
}

#[test]
fn connections_beyond_the_limit_wait_and_none_lasts_for_ever() {
    let folder = LogFolder::new();
    let limits = Limits {
        connections: 2,
        connection: Duration::from_millis(500),
        drain: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = Served::start(Arc::new(folder.open()), limits);
    let begin = Instant::now();
    let silent: Vec<_> = (0..2).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    // Two who say nothing hold both places, until their time is over.
    assert_eq!(served.get("/healthz").status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    drop(silent);
    served.end();
}
