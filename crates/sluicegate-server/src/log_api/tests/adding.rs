//! Entries that are taken, answered as the real server answers them.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sluicegate_ports::sign::TransparencyLog;
use sluicegate_sigstore::{EmbeddedLog, KeyFolder};
use sluicegate_types::Secret;

use super::{
    served_log_folder::{ENTRIES, LogFolder, Served},
    signed_entries::{body, request, verify},
};
use crate::Limits;

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
