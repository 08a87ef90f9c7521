//! What is no request of this log, or comes from where none may come.

use std::{io::Write, net::TcpStream, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sluicegate_ports::sign::TransparencyLog;
use sluicegate_types::Digest;

use super::{
    served_log_folder::{ENTRIES, LogFolder, Served, read_answer},
    signed_entries::{request, signed},
};
use crate::Limits;

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
