//! Entries with made-up signatures, as requests and as leaves, and the check of what a log answers to them.

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePublicKey,
};
use serde_json::{Value, json};
use sluicegate_attestation::bundle::hashedrekord_body;
use sluicegate_sigstore::LogPublic;
use sluicegate_types::Digest;
use tlog_tiles::{Hash, check_record, record_hash};

use super::served_log_folder::ORIGIN;

/// A signature of a made-up key over a made-up digest.
pub(super) fn signed(number: u64) -> (Digest, Vec<u8>, Vec<u8>) {
    let digest = Digest::of(&number.to_be_bytes());
    let key = SigningKey::from_slice(Digest::of(b"a key").as_bytes()).unwrap();
    let signature: Signature = key.sign_prehash(digest.as_bytes()).unwrap();
    let spki = key.verifying_key().to_public_key_der().unwrap();
    (digest, signature.to_der().as_bytes().to_vec(), spki.as_bytes().to_vec())
}

pub(super) fn request(number: u64) -> Value {
    let (digest, signature, spki) = signed(number);
    json!({"hashedRekordRequestV002": {
        "digest": STANDARD.encode(digest.as_bytes()),
        "signature": {"content": STANDARD.encode(signature), "verifier": {
            "keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": STANDARD.encode(spki)}}}}})
}

pub(super) fn body(number: u64) -> Vec<u8> {
    let (digest, signature, spki) = signed(number);
    hashedrekord_body(&digest, &signature, &spki)
}

/// What a client does with an answer, apart from the code under test: the proof, the checkpoint's text and its signature.
pub(super) fn verify(entry: &Value, number: u64, public: &LogPublic) -> (u64, u64) {
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
