//! How many entries a served log takes in a second, and how long each waits for its proof: real HTTP over loopback, a real log on disk,
//! distinct P-256 signatures made beforehand.
//!
//! `cargo run --release -p sluicegate-server --example append_load -- [ENTRIES] [CLIENTS] [FOLDER]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that stops at the first thing that is wrong"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePublicKey,
};
use sluicegate_ports::sign::TransparencyLog;
use sluicegate_server::{Limits, serve_log};
use sluicegate_sigstore::{EmbeddedLog, KeyFolder};
use sluicegate_types::{Digest, Secret};
use tokio::sync::oneshot;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (entries, clients) = (number(0, 30_000), number(1, 256));
    let own = tempfile::tempdir().unwrap();
    let folder = arguments.get(2).map_or_else(|| own.path().to_owned(), PathBuf::from);
    let passphrase = Secret::new(Vec::new());
    let keys = KeyFolder::open(folder.join("keys"));
    keys.generate_log_key("log", &passphrase).unwrap();
    let log = || keys.open_log_key("log", &passphrase).unwrap();
    let served = Arc::new(EmbeddedLog::create(folder.join("log"), log(), "log.example").unwrap());

    let begin = Instant::now();
    let requests: Arc<Vec<Vec<u8>>> = Arc::new((0..entries).map(request).collect());
    println!("{entries} requests signed in {:.1?}", begin.elapsed());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let report = Arc::new(|line: &str| println!("{line}"));
        runtime.block_on(serve_log(listener, served, Limits::default(), report, async {
            let _ = stopped.await;
        }))
    });

    let begin = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let requests = requests.clone();
            thread::spawn(move || talk(address, requests.iter().skip(client).step_by(clients)))
        })
        .collect();
    let mut waits: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let took = begin.elapsed();
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "{} appends with proof by {clients} clients in {took:.2?}: {:.0}/s; wait p50 {:.1?}, p95 {:.1?}, p99 {:.1?}, max {:.1?}",
        waits.len(),
        waits.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
    stop.send(()).unwrap();
    server.join().unwrap().unwrap();
    let begin = Instant::now();
    let again = EmbeddedLog::open(folder.join("log"), log(), "log.example").unwrap();
    assert_eq!(again.size().unwrap(), entries as u64);
    println!("opened again, all {entries} entries read and compared, in {:.2?}", begin.elapsed());
}

/// One HTTP request with a signature that is nobody else's.
fn request(number: usize) -> Vec<u8> {
    let digest = Digest::of(&number.to_be_bytes());
    let key = SigningKey::from_slice(Digest::of(b"a key").as_bytes()).unwrap();
    let signature: Signature = key.sign_prehash(digest.as_bytes()).unwrap();
    let spki = key.verifying_key().to_public_key_der().unwrap();
    let body = format!(
        concat!(
            r#"{{"hashedRekordRequestV002":{{"digest":"{}","signature":{{"content":"{}","verifier":{{"#,
            r#""keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{{"rawBytes":"{}"}}}}}}}}}}"#
        ),
        STANDARD.encode(digest.as_bytes()),
        STANDARD.encode(signature.to_der().as_bytes()),
        STANDARD.encode(spki.as_bytes()),
    );
    format!("POST /api/v2/log/entries HTTP/1.1\r\nhost: log\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Sends these requests over one connection, each after the answer to the one before, and says how long each took.
fn talk<'a>(address: SocketAddr, requests: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut waits = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for request in requests {
        let begin = Instant::now();
        stream.write_all(request).unwrap();
        let mut length = 0;
        loop {
            let more = stream.read(&mut buffer[length..]).unwrap();
            assert!(more > 0);
            length += more;
            let Some(head) = buffer[..length].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&buffer[..head]).unwrap();
            let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if length == head + 4 + body.parse::<usize>().unwrap() {
                assert!(text.starts_with("HTTP/1.1 201"), "{text}");
                break;
            }
        }
        waits.push(begin.elapsed());
    }
    waits
}
