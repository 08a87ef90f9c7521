use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePublicKey,
};
use serde_json::{Value, json};
use sluicegate_attestation::bundle::hashedrekord_body;
use sluicegate_ports::{
    served_log::{Placed, TileName},
    sign::TransparencyLog,
};
use sluicegate_sigstore::{EmbeddedLog, KeyFolder, LogPublic};
use sluicegate_testkit::VirtualLog;
use sluicegate_types::{Digest, Secret};
use tlog_tiles::{Hash, check_record, record_hash};
use tokio::sync::oneshot;

use super::*;

const ORIGIN: &str = "log.example";
const ENTRIES: &str = "/api/v2/log/entries";

/// A log in a folder of its own, with its key.
struct LogFolder {
    folder: tempfile::TempDir,
}

impl LogFolder {
    fn new() -> Self {
        let log = Self { folder: tempfile::tempdir().unwrap() };
        log.keys().generate_log_key("log", &Secret::new(Vec::new())).unwrap();
        EmbeddedLog::create(log.path(""), log.keys().open_log_key("log", &Secret::new(Vec::new())).unwrap(), ORIGIN)
            .unwrap();
        log
    }

    fn keys(&self) -> KeyFolder {
        KeyFolder::open(self.folder.path().join("keys"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("log").join(name)
    }

    fn open(&self) -> EmbeddedLog {
        let key = self.keys().open_log_key("log", &Secret::new(Vec::new())).unwrap();
        EmbeddedLog::open(self.path(""), key, ORIGIN).unwrap()
    }

    fn public(&self) -> LogPublic {
        LogPublic { origin: ORIGIN.to_owned(), public_key: self.keys().log_public_key("log").unwrap() }
    }
}

/// A server on a port of the system's choice.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), Error>>>,
    reported: Arc<Mutex<Vec<String>>>,
}

impl Served {
    fn start(log: Arc<dyn ServedLog>, limits: Limits) -> Self {
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

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        ask_on(&mut stream, method, path, body, true)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, b"")
    }

    fn post(&self, body: &Value) -> Answer {
        self.ask("POST", ENTRIES, body.to_string().as_bytes())
    }

    /// Asks for the end without waiting for it.
    fn signal(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    fn end(mut self) {
        if self.stop.is_some() {
            self.signal();
        }
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn ask_on(stream: &mut TcpStream, method: &str, path: &str, body: &[u8], close: bool) -> Answer {
    let close = if close { "connection: close\r\n" } else { "" };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: log\r\n{close}content-length: {}\r\n\r\n", body.len());
    // A server that has seen enough may close before all of it is written.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    read_answer(stream)
}

fn read_answer(stream: &mut TcpStream) -> Answer {
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

/// A signature of a made-up key over a made-up digest.
fn signed(number: u64) -> (Digest, Vec<u8>, Vec<u8>) {
    let digest = Digest::of(&number.to_be_bytes());
    let key = SigningKey::from_slice(Digest::of(b"a key").as_bytes()).unwrap();
    let signature: Signature = key.sign_prehash(digest.as_bytes()).unwrap();
    let spki = key.verifying_key().to_public_key_der().unwrap();
    (digest, signature.to_der().as_bytes().to_vec(), spki.as_bytes().to_vec())
}

fn request(number: u64) -> Value {
    let (digest, signature, spki) = signed(number);
    json!({"hashedRekordRequestV002": {
        "digest": STANDARD.encode(digest.as_bytes()),
        "signature": {"content": STANDARD.encode(signature), "verifier": {
            "keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": STANDARD.encode(spki)}}}}})
}

fn body(number: u64) -> Vec<u8> {
    let (digest, signature, spki) = signed(number);
    hashedrekord_body(&digest, &signature, &spki)
}

/// What a client does with an answer, apart from the code under test: the proof, the checkpoint's text and its signature.
fn verify(entry: &Value, number: u64, public: &LogPublic) -> (u64, u64) {
    let proof = &entry["inclusionProof"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let count = |value: &Value| text(value).parse::<u64>().unwrap();
    let hash = |value: &Value| Hash(STANDARD.decode(text(value)).unwrap().try_into().unwrap());
    let (index, size) = (count(&entry["logIndex"]), count(&proof["treeSize"]));
    assert_eq!(entry["logIndex"], proof["logIndex"]);
    assert_eq!(text(&entry["canonicalizedBody"]), STANDARD.encode(body(number)));
    let path: Vec<Hash> = proof["hashes"].as_array().unwrap().iter().map(hash).collect();
    check_record(&path, size, hash(&proof["rootHash"]), index, record_hash(&body(number))).unwrap();
    let note = text(&proof["checkpoint"]["envelope"]);
    let (head, signature) = note.split_once("\n\n\u{2014} log.example ").unwrap();
    assert_eq!(head, format!("{ORIGIN}\n{size}\n{}", text(&proof["rootHash"])));
    let signature = STANDARD.decode(signature.trim_end()).unwrap();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public.public_key)
        .verify(format!("{head}\n").as_bytes(), &signature[4..])
        .unwrap();
    assert_eq!(text(&entry["logId"]["keyId"]), STANDARD.encode(public.key_id()));
    (index, size)
}

#[test]
fn answers_are_those_of_the_real_server_byte_for_byte() {
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    for (number, index) in [(7, 0), (8, 1)] {
        let answer = served.post(&request(number));
        assert_eq!((answer.status, answer.header("content-type")), (201, Some("application/json")), "{answer:?}");
        let entry = answer.json();
        let proof = &entry["inclusionProof"];
        // The order of the message's fields, 64-bit numbers as text, what is unset written too, no white space.
        let hashes = if index == 0 { "[]".to_owned() } else { format!("[{}]", proof["hashes"][0]) };
        let expected = format!(
            concat!(
                r#"{{"logIndex":"{index}","logId":{{"keyId":"{id}"}},"kindVersion":{{"kind":"hashedrekord","version":"0.0.2"}},"#,
                r#""integratedTime":"0","inclusionPromise":null,"inclusionProof":{{"logIndex":"{index}","rootHash":{root},"#,
                r#""treeSize":"{size}","hashes":{hashes},"checkpoint":{{"envelope":{note}}}}},"canonicalizedBody":"{body}"}}"#
            ),
            index = index,
            id = STANDARD.encode(log.public().key_id()),
            root = proof["rootHash"],
            size = index + 1,
            hashes = hashes,
            note = json!(fs::read_to_string(log.path("checkpoint")).unwrap()),
            body = STANDARD.encode(body(number)),
        );
        assert_eq!(answer.text(), expected);
        assert_eq!(verify(&entry, number, &log.public()), (index, index + 1));
    }
    for (number, index) in [(7, 0), (8, 1)] {
        let answer = served.post(&request(number));
        assert_eq!((answer.status, answer.header("x-log-index")), (409, Some(index.to_string().as_str())));
        assert_eq!(
            answer.text(),
            format!(
                r#"{{"code":6,"message":"an equivalent entry already exists in the transparency log with index {index}","details":[]}}"#
            )
        );
    }
    let healthy = served.get("/healthz");
    assert_eq!((healthy.status, healthy.text().as_str()), (200, "{\"status\":\"SERVING\"}\n"));
    served.end();
    assert_eq!(log.open().size().unwrap(), 2);
}

/// A log with the key and the name of a real server, asked what that one was asked. Its checkpoints are signed with Ed25519, so they must
/// be the same too.
#[test]
fn the_answers_of_a_real_server_are_ours() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rekor-tiles");
    let exchanges: Value = serde_json::from_slice(&fs::read(fixture.join("exchanges.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = KeyFolder::open(&fixture).open_log_key("log", &Secret::new(Vec::new())).unwrap();
    let log = EmbeddedLog::create(folder.path().join("log"), key, "rekor.local").unwrap();
    let served = Served::start(Arc::new(log), Limits::default());
    let exchanges = exchanges.as_array().unwrap();
    assert_eq!(exchanges.len(), 4);
    for exchange in exchanges {
        let text = |name: &str| exchange[name].as_str().unwrap_or_default();
        let answer = served.ask("POST", ENTRIES, text("request").as_bytes());
        assert_eq!(Value::from(answer.status), exchange["status"], "{answer:?}");
        // Between members only: inside a text the quotation mark would be escaped.
        assert_eq!(answer.text(), text("answer").replace(", \"", ",\""));
        assert_eq!(answer.header("x-log-index").unwrap_or_default(), text("x-log-index"));
    }
    served.end();
}

#[test]
fn both_spellings_of_protojson_and_both_alphabets_are_read() {
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    let snake = served.ask(
        "POST",
        ENTRIES,
        request(1)
            .to_string()
            .replace("hashedRekordRequestV002", "hashed_rekord_request_v002")
            .replace("keyDetails", "key_details")
            .replace("publicKey", "public_key")
            .replace("rawBytes", "raw_bytes")
            .as_bytes(),
    );
    assert_eq!(snake.status, 201, "{snake:?}");
    let mut odd = request(2);
    let hashed = &mut odd["hashedRekordRequestV002"];
    let url_safe =
        |value: &Value| json!(value.as_str().unwrap().replace('+', "-").replace('/', "_").trim_end_matches('='));
    hashed["digest"] = url_safe(&hashed["digest"]);
    hashed["signature"]["content"] = url_safe(&hashed["signature"]["content"]);
    hashed["signature"]["verifier"]["keyDetails"] = json!(5);
    hashed["signature"]["verifier"]["x509Certificate"] = Value::Null;
    odd["dsseRequestV002"] = Value::Null;
    let answer = served.post(&odd);
    assert_eq!(answer.status, 201, "{answer:?}");
    verify(&answer.json(), 2, &log.public());
    served.end();
}

#[test]
fn what_is_no_request_of_this_log_is_refused_and_nothing_is_logged() {
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    let refused = |body: &[u8], message: &str| {
        let answer = served.ask("POST", ENTRIES, body);
        let expected = json!({"code": 3, "message": message, "details": []});
        assert_eq!((answer.status, answer.json()), (400, expected), "{}", String::from_utf8_lossy(body));
        assert!(answer.text().starts_with(r#"{"code":3,"message":""#) && answer.text().ends_with(r#","details":[]}"#));
    };
    let changed = |pointer: &str, value: Value| {
        let mut request = request(1);
        match request.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                request.pointer_mut(parent).unwrap()[name] = value;
            }
        }
        request.to_string().into_bytes()
    };
    let no_type = "invalid type, must be hashedrekord";
    refused(b"", no_type);
    refused(b"{}", no_type);
    refused(br#"{"dsseRequestV002":{"envelope":{},"verifiers":[]}}"#, no_type);
    refused(br#"{"hashedRekordRequestV002":null}"#, no_type);
    refused(br#"{"intotoRequestV001":{}}"#, r#"proto: (line 1:2): unknown field "intotoRequestV001""#);
    let root = "/hashedRekordRequestV002";
    let verifier = format!("{root}/signature/verifier");
    let unknown = |text: &[u8]| {
        let answer = served.ask("POST", ENTRIES, text);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && message.ends_with("unknown field \"extra\""), "{message}");
        assert!(message.starts_with("proto: (line 1:"), "{message}");
    };
    for place in ["", root, &format!("{root}/signature"), &verifier, &format!("{verifier}/publicKey")] {
        unknown(&changed(&format!("{place}/extra"), json!(1)));
    }
    // What can be read and is not believed.
    let not_believed = "invalid hashedrekord request";
    refused(
        br#"{"hashedRekordRequestV002":{"signature":{"verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256"}}}}"#,
        not_believed,
    );
    refused(br#"{"hashedRekordRequestV002":{}}"#, not_believed);
    refused(&changed(&format!("{root}/digest"), json!(STANDARD.encode([1; 32]))), not_believed);
    refused(&changed(&format!("{root}/digest"), json!(STANDARD.encode([1; 31]))), not_believed);
    refused(&changed(&format!("{root}/digest"), Value::Null), not_believed);
    let (_, mut signature, mut spki) = signed(1);
    let (_, other, _) = signed(2);
    refused(&changed(&format!("{root}/signature/content"), json!(STANDARD.encode(&other))), not_believed);
    signature.push(0);
    refused(&changed(&format!("{root}/signature/content"), json!(STANDARD.encode(&signature))), not_believed);
    refused(&changed(&format!("{root}/signature/content"), json!("")), not_believed);
    let key = format!("{verifier}/publicKey/rawBytes");
    spki.push(0);
    refused(&changed(&key, json!(STANDARD.encode(&spki))), not_believed);
    spki.truncate(spki.len() - 2);
    refused(&changed(&key, json!(STANDARD.encode(&spki))), not_believed);
    // The same point in its short form: another encoding of one key would be another entry.
    let signer = SigningKey::from_slice(Digest::of(b"a key").as_bytes()).unwrap();
    let point = signer.verifying_key().to_sec1_point(true);
    let mut short = vec![
        0x30, 0x39, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
        3, 0x22, 0,
    ];
    short.extend(point.as_bytes());
    refused(&changed(&key, json!(STANDARD.encode(&short))), not_believed);
    refused(&changed(&format!("{verifier}/keyDetails"), Value::Null), not_believed);
    refused(&changed(&format!("{verifier}/keyDetails"), json!(99)), not_believed);
    // What is a key elsewhere and not here, by its name.
    for (value, name) in [
        (json!("PKIX_ECDSA_P384_SHA_384"), "PKIX_ECDSA_P384_SHA_384"),
        (json!(7), "PKIX_ED25519"),
        (json!("PKIX_ED25519_PH"), "PKIX_ED25519_PH"),
        (json!("PKIX_RSA_PKCS1V15_2048_SHA256"), "PKIX_RSA_PKCS1V15_2048_SHA256"),
        (json!("ML_DSA_65"), "ML_DSA_65"),
    ] {
        let message = format!("keyDetails {name}: this log takes signatures of kind PKIX_ECDSA_P256_SHA_256 only");
        refused(&changed(&format!("{verifier}/keyDetails"), value), &message);
    }
    let mut certificate = request(1);
    certificate["hashedRekordRequestV002"]["signature"]["verifier"] =
        json!({"x509Certificate": {"rawBytes": "AAAA"}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"});
    refused(
        certificate.to_string().as_bytes(),
        "x509Certificate: this log takes signatures of public keys only, not of certificates",
    );
    // What protojson does not read, in its words; where it stands is counted in characters.
    let located = |body: Vec<u8>, field: &str, value_at: bool, message: &str| {
        let text = String::from_utf8(body.clone()).unwrap();
        let name = format!("\"{field}\":");
        let at = text.find(&name).unwrap() + 1 + if value_at { name.len() } else { 0 };
        refused(&body, &format!("proto: (line 1:{at}): {message}"));
    };
    let value = |value: Value| changed(&format!("{root}/digest"), value);
    located(value(json!("*")), "digest", true, r#"invalid value for bytes field digest: "*""#);
    located(value(json!(1)), "digest", true, "invalid value for bytes field digest: 1");
    let kind = |value: Value| changed(&format!("{verifier}/keyDetails"), value);
    located(kind(json!("ROT13")), "keyDetails", true, r#"invalid value for enum field keyDetails: "ROT13""#);
    located(kind(json!(1_u64 << 40)), "keyDetails", true, "invalid value for enum field keyDetails: 1099511627776");
    refused(&kind(json!(-1)), not_believed);
    let second = |field: &str, name: &str| {
        format!(r#"error parsing "{field}", oneof dev.sigstore.rekor.v2.{name} is already set"#)
    };
    located(
        changed(&format!("{verifier}/x509Certificate"), json!({"rawBytes": "AAAA"})),
        "x509Certificate",
        false,
        &second("x509Certificate", "Verifier.verifier"),
    );
    let both = [
        br#"{"dsseRequestV002":{},"hashedRekordRequestV002":{}}"#.to_vec(),
        br#"{"hashedRekordRequestV002":{},"dsseRequestV002":{}}"#.to_vec(),
    ];
    for (body, name) in both.into_iter().zip(["hashedRekordRequestV002", "dsseRequestV002"]) {
        located(body, name, false, &second(name, "CreateEntryRequest.spec"));
    }
    refused(br#"{"hashedRekordRequestV002":[]}"#, "proto: syntax error (line 1:28): unexpected token [");
    refused(b"\"x\"", "proto: syntax error (line 1:1): unexpected token \"x\"");
    refused(b"{", "unexpected EOF");
    refused(b"[", "unexpected EOF");
    refused(b"{\"a\":1", "unexpected EOF");
    // Here the words are our own.
    refused(b"\xff\xfe", "invalid UTF-8 in the request");
    for text in [&b"nonsense"[..], b"{} {}"] {
        let answer = served.ask("POST", ENTRIES, text);
        assert!(answer.status == 400 && answer.text().contains("proto: syntax error: "), "{answer:?}");
    }
    let twice = request(1).to_string().replacen("\"digest\":", "\"digest\":\"\",\"digest\":", 1);
    let answer = served.ask("POST", ENTRIES, twice.as_bytes());
    assert!(answer.status == 400 && answer.text().contains("duplicate field"), "{answer:?}");
    // Deep nesting costs no stack.
    let deep = format!("{{\"hashedRekordRequestV002\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(served.ask("POST", ENTRIES, deep.as_bytes()).status, 400);
    assert_eq!(served.ask("GET", ENTRIES, b"").status, 501);
    served.end();
    assert_eq!(log.open().size().unwrap(), 0);
}

#[test]
fn checkpoint_and_tiles_are_what_the_log_signed() {
    let log = LogFolder::new();
    let writer = Arc::new(log.open());
    writer.append(&(0..300).map(body).collect::<Vec<_>>()).unwrap();
    let served = Served::start(writer, Limits::default());
    let checkpoint = served.get("/api/v2/checkpoint");
    assert_eq!((checkpoint.status, checkpoint.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
    assert_eq!(checkpoint.body, fs::read(log.path("checkpoint")).unwrap());
    for name in ["0/000", "0/001.p/44", "1/000.p/1", "entries/000", "entries/001.p/44"] {
        let tile = served.get(&format!("/api/v2/tile/{name}"));
        assert_eq!((tile.status, tile.header("content-type")), (200, Some("application/octet-stream")), "{name}");
        assert_eq!(tile.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(tile.body, fs::read(log.path("tile").join(name)).unwrap(), "{name}");
    }
    // What an older checkpoint covered is there for whoever still has it.
    let (hashes, entries) = (served.get("/api/v2/tile/0/000").body, served.get("/api/v2/tile/entries/000").body);
    for width in [1, 7, 255] {
        assert_eq!(served.get(&format!("/api/v2/tile/0/000.p/{width}")).body, hashes[..32 * width]);
        let older = served.get(&format!("/api/v2/tile/entries/000.p/{width}")).body;
        assert!(entries.starts_with(&older) && older.len() == width * entries.len() / 256, "{width}");
    }
    // Nothing that no checkpoint covers, and nothing else of the folder.
    fs::write(log.path("tile/0/001"), [1; 8192]).unwrap();
    fs::create_dir_all(log.path("tile/0/002.p")).unwrap();
    fs::write(log.path("tile/0/002.p/1"), [1; 32]).unwrap();
    for path in [
        "/api/v2/tile/0/001",
        "/api/v2/tile/0/001.p/45",
        "/api/v2/tile/0/002.p/1",
        "/api/v2/tile/0/002",
        "/api/v2/tile/1/000",
        "/api/v2/tile/1/000.p/2",
        "/api/v2/tile/2/000.p/1",
        "/api/v2/tile/63/000",
        "/api/v2/tile/8/000.p/1",
        "/api/v2/tile/0/x999/x999/x999/x999/x999/999",
        "/api/v2/tile/entries/x001/000.p/1",
        "/api/v2/tile/0/000.p/256",
        "/api/v2/tile/0/000.p/0",
        "/api/v2/tile/0/000.p/01",
        "/api/v2/tile/00/000",
        "/api/v2/tile/0/0",
        "/api/v2/tile/",
        "/api/v2/tile",
        "/api/v2/tile/lock",
        "/api/v2/tile/../lock",
        "/api/v2/tile/0/../../lock",
        "/api/v2/tile/0/%2e%2e/000",
        "/api/v2/tile/%2e%2e/checkpoint",
        "/api/v2/tile/0/000%2ep/1",
        "/api/v2/tile/0%2f000",
        "/api/v2/tile/0/%30%30%30",
        "/api/v2/tile//0/000",
        "/api/v2//tile/0/000",
        "/api/v2/checkpoint/",
        "/checkpoint",
        "/lock",
        "/",
        "//etc/passwd",
        "/api/v2/tile/0/000.p",
        "/api/v2/tile/entries/000/",
        "/api/v2/tile/0/000;a",
        "/api/v2/tile/0/\u{664}",
    ] {
        let answer = served.get(path);
        assert!(answer.status == 404 || answer.status == 400, "{path}: {answer:?}");
        assert!(!answer.text().contains(ORIGIN), "{path}");
    }
    let missing = served.get("/api/v2/tile/0/009");
    assert_eq!(missing.text(), r#"{"code":5,"message":"Not Found","details":[]}"#);
    // A question about a tile does not hide another one behind a question mark.
    assert_eq!(served.get("/api/v2/tile/0/000?x=1").body, hashes);
    served.end();
}

/// Another implementation of the log, in memory and by the book, is the oracle of what is served.
#[test]
fn a_log_in_memory_is_served_with_the_same_tiles_and_proofs() {
    let folder = LogFolder::new();
    let on_disk = Served::start(Arc::new(folder.open()), Limits::default());
    let in_memory = Served::start(Arc::new(VirtualLog::new(ORIGIN)), Limits::default());
    // The log's key differs, so the checkpoint's last line does.
    let proof = |answer: Answer| {
        let mut entry = answer.json();
        let note = entry["inclusionProof"]["checkpoint"]["envelope"].take();
        entry["logId"].take();
        (answer.status, entry, note.as_str().map(|note| note.split("\n\n").next().unwrap().to_owned()))
    };
    for number in (0..260).chain([3]) {
        let (one, other) = (on_disk.post(&request(number)), in_memory.post(&request(number)));
        assert_eq!((one.header("x-log-index"), one.status), (other.header("x-log-index"), other.status));
        if !(40..=250).contains(&number) {
            assert_eq!(proof(one), proof(other), "{number}");
        }
    }
    for row in ["0", "1", "2", "entries"] {
        for number in ["000", "001", "002"] {
            for width in ["", ".p/1", ".p/2", ".p/4", ".p/5", ".p/255"] {
                let path = format!("/api/v2/tile/{row}/{number}{width}");
                let (one, other) = (on_disk.get(&path), in_memory.get(&path));
                assert_eq!((one.status, one.body), (other.status, other.body), "{path}");
            }
        }
    }
    let size = |served: &Served| served.get("/api/v2/checkpoint").text().lines().take(3).collect::<Vec<_>>().join("\n");
    assert_eq!(size(&on_disk), size(&in_memory));
    on_disk.end();
    in_memory.end();
}

#[test]
fn a_web_page_appends_nothing() {
    let log = LogFolder::new();
    let served = Served::start(Arc::new(log.open()), Limits::default());
    let body = request(1).to_string();
    for header in ["Origin: https://page.example", "origin: null", "Sec-Fetch-Site: cross-site"] {
        let mut stream = TcpStream::connect(served.address).unwrap();
        let length = body.len();
        write!(stream, "POST {ENTRIES} HTTP/1.1\r\nhost: log\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!(7)), "{header}: {answer:?}");
    }
    served.end();
    assert_eq!(log.open().size().unwrap(), 0);
}

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

/// A log that appends only when it is let, or that refuses.
struct Held {
    log: EmbeddedLog,
    open: Mutex<bool>,
    opened: Condvar,
    broken: bool,
    calls: AtomicUsize,
}

impl Held {
    fn new(log: EmbeddedLog, broken: bool) -> Arc<Self> {
        Arc::new(Self { log, open: Mutex::new(broken), opened: Condvar::new(), broken, calls: AtomicUsize::new(0) })
    }

    fn let_go(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl ServedLog for Held {
    fn append_new(&self, bodies: &[Vec<u8>]) -> Result<Vec<Placed>, SignError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        if self.broken {
            return Err(SignError::Log { folder: "/secret/place".into(), reason: "it is damaged".into() });
        }
        self.log.append_new(bodies)
    }

    fn checkpoint(&self) -> Result<String, SignError> {
        self.log.checkpoint()
    }

    fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError> {
        self.log.tile(name)
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
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

#[test]
fn after_the_end_was_asked_for_nothing_new_is_taken_and_what_waits_is_finished() {
    let folder = LogFolder::new();
    let log = Held::new(folder.open(), false);
    let mut served = Served::start(log.clone(), Limits::default());
    // One that was answered and stays connected, and one that says nothing.
    let mut idle = TcpStream::connect(served.address).unwrap();
    assert_eq!(ask_on(&mut idle, "GET", "/api/v2/checkpoint", b"", false).status, 200);
    let _silent = TcpStream::connect(served.address).unwrap();
    let clients: Vec<_> = (0..5)
        .map(|number| {
            let address = served.address;
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                ask_on(&mut stream, "POST", ENTRIES, request(number).to_string().as_bytes(), false)
            })
        })
        .collect();
    until("the writer has one", || log.calls.load(Ordering::SeqCst) == 1);
    thread::sleep(Duration::from_millis(200));
    served.signal();
    until("no new connection", || TcpStream::connect(served.address).is_err());
    // The idle one is closed, not cut off after its next question.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    log.let_go();
    for client in clients {
        assert_eq!(client.join().unwrap().status, 201);
    }
    served.end();
    assert_eq!(folder.open().size().unwrap(), 5);
}

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

#[test]
fn the_folder_is_only_read_through_the_log() {
    // A folder that holds no log: every question fails, none is answered with a file of it.
    let folder = LogFolder::new();
    let log = folder.open();
    fs::remove_dir_all(folder.path("")).unwrap();
    fs::create_dir_all(folder.path("tile/0")).unwrap();
    fs::write(folder.path("tile/0/000"), "secret").unwrap();
    let served = Served::start(Arc::new(log), Limits::default());
    for path in ["/api/v2/tile/0/000", "/api/v2/checkpoint"] {
        let answer = served.get(path);
        assert!(answer.status == 500 && !answer.text().contains("secret"), "{answer:?}");
    }
    served.end();
    assert!(Path::new(&folder.path("tile/0/000")).exists());
}
