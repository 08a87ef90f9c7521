//! Sigstore bundle v0.3 (protobuf-specs `sigstore_bundle.proto`): one DSSE envelope, who signed, where it is logged.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sluicegate_types::Digest;

use crate::{Error, dsse, form, identifiers, unsupported};

/// Bytes of a bundle that is held in memory (DESIGN section 7).
pub const MAX_BUNDLE: usize = 16 * 1024 * 1024;

/// A bundle of the one shape this version takes: a key's signature over an in-toto statement, with one Rekor v2 log entry.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The statement's bytes, exactly as signed.
    pub payload: Vec<u8>,
    /// The DER signature.
    pub signature: Vec<u8>,
    /// Which key: base64 of SHA-256 over its SubjectPublicKeyInfo. A claim that only selects the key to verify with.
    pub key_hint: String,
    /// The log entry with its proof.
    pub log_entry: LogEntry,
    /// SHA-256 of the bundle's bytes: what identifies this attestation (trust model 1).
    pub digest: Digest,
}

impl Bundle {
    /// Reads a bundle. Unknown keys are errors, as cosign has it; certificates, time stamps, several signatures or log entries,
    /// a DSSE `keyid`, message signatures and other media types are refused by name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BUNDLE {
            return Err(Error::TooLarge { what: "the bundle", limit: MAX_BUNDLE });
        }
        let wire: WireBundle = serde_json::from_slice(bytes).map_err(form("the bundle"))?;
        if wire.media_type != identifiers::BUNDLE {
            return Err(unsupported("bundle media type", &wire.media_type));
        }
        if wire.verification_material.certificate.is_some() {
            return Err(unsupported("bundle signed with a", "certificate"));
        }
        if wire.verification_material.timestamp_verification_data.is_some_and(|t| !t.rfc3161_timestamps.is_empty()) {
            return Err(unsupported("bundle with a", "signed time stamp"));
        }
        let key = wire.verification_material.public_key.ok_or_else(|| Error::Invalid {
            what: "verificationMaterial",
            reason: "it names no public key".to_owned(),
        })?;
        let [log_entry] =
            <[LogEntry; 1]>::try_from(wire.verification_material.tlog_entries).map_err(|entries| Error::Invalid {
                what: "tlogEntries",
                reason: format!("exactly one log entry is needed, there are {}", entries.len()),
            })?;
        if wire.message_signature.is_some() {
            return Err(unsupported("bundle with a", "message signature"));
        }
        if key.hint.len() > 128 || !key.hint.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_:".contains(&b)) {
            return Err(Error::Invalid { what: "publicKey.hint", reason: "it is no key id in base64".to_owned() });
        }
        let envelope = wire
            .dsse_envelope
            .ok_or_else(|| Error::Invalid { what: "dsseEnvelope", reason: "there is no envelope".to_owned() })?;
        if envelope.payload_type != dsse::IN_TOTO {
            return Err(unsupported("payload type", &envelope.payload_type));
        }
        let [signature] = <[WireSignature; 1]>::try_from(envelope.signatures).map_err(|signatures| Error::Invalid {
            what: "signatures",
            reason: format!("exactly one signature is needed, there are {}", signatures.len()),
        })?;
        if !signature.keyid.is_empty() {
            return Err(unsupported("DSSE keyid", &signature.keyid));
        }
        Ok(Self {
            payload: decode("payload", &envelope.payload)?,
            signature: decode("sig", &signature.sig)?,
            key_hint: key.hint,
            log_entry,
            digest: Digest::of(bytes),
        })
    }

    /// The bytes of a bundle made of these parts. No DSSE `keyid`: cosign refuses any but its own kind (interop.md 8.1).
    pub fn assemble(
        payload: &[u8],
        signature: &[u8],
        public_key: &[u8],
        log_entry: LogEntry,
    ) -> Result<Vec<u8>, Error> {
        let wire = WireBundle {
            media_type: identifiers::BUNDLE.to_owned(),
            verification_material: WireMaterial {
                public_key: Some(WireKey { hint: key_hint(public_key) }),
                certificate: None,
                tlog_entries: vec![log_entry],
                timestamp_verification_data: Some(WireTimestamps::default()),
            },
            dsse_envelope: Some(WireEnvelope {
                payload: BASE64.encode(payload),
                payload_type: dsse::IN_TOTO.to_owned(),
                signatures: vec![WireSignature { sig: BASE64.encode(signature), keyid: String::new() }],
            }),
            message_signature: None,
        };
        serde_json::to_vec(&wire).map_err(form("the bundle"))
    }
}

/// Whether these bytes of a file are one JSON object and nothing else: what has to hold before anything in a bundle can be wrong.
/// White space around it, line ends of either kind and indentation are fine. Several bundles are counted and refused.
pub fn check_one_document(bytes: &[u8]) -> Result<(), Error> {
    let not = |reason: String| Err(Error::NotOneBundle { reason });
    if bytes.len() > MAX_BUNDLE {
        return Err(Error::TooLarge { what: "the bundle", limit: MAX_BUNDLE });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return not("it is empty".to_owned());
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return not("it begins with a byte order mark: save it as UTF-8 without one".to_owned());
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return not("it is UTF-16 text: save it as UTF-8".to_owned());
    }
    let list = bytes.trim_ascii_start().starts_with(b"[");
    let count =
        if list { serde_json::from_slice::<Vec<IgnoredAny>>(bytes).map(|list| list.len()) } else { documents(bytes) };
    match count {
        Ok(1) if !list => {}
        Ok(1) => return not("it holds a list of one bundle; write the bundle on its own".to_owned()),
        Ok(0) => return not("it holds an empty list, no bundle".to_owned()),
        Ok(count) => return not(format!("it holds {count} bundles; one is supported")),
        Err(error) => return not(format!("it is not one JSON document: {error}")),
    }
    if bytes.trim_ascii_start().starts_with(b"{") { Ok(()) } else { not("it is JSON and no object".to_owned()) }
}

/// JSON documents that stand one after the other; an error if something else stands among them.
fn documents(bytes: &[u8]) -> Result<usize, serde_json::Error> {
    let mut count = 0;
    for document in serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>() {
        document?;
        count += 1;
    }
    Ok(count)
}

/// The hint that names a key: base64 of SHA-256 over its SubjectPublicKeyInfo.
pub fn key_hint(public_key: &[u8]) -> String {
    BASE64.encode(Digest::of(public_key).as_bytes())
}

/// The one log body that a signature may have: `hashedrekord` 0.0.2 as RFC 8785 JSON, over the SHA-256 of the DSSE
/// pre-authentication encoding. Its keys stand in order here and its values are base64 and so need no escaping (signing.md 5, item 1).
pub fn hashedrekord_body(pae: &Digest, signature: &[u8], public_key: &[u8]) -> Vec<u8> {
    format!(
        concat!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"data":{{"algorithm":"SHA2_256","digest":"{}"}},"#,
            r#""signature":{{"content":"{}","verifier":{{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{{"rawBytes":"{}"}}}}}}}}}}}}"#
        ),
        BASE64.encode(pae.as_bytes()),
        BASE64.encode(signature),
        BASE64.encode(public_key),
    )
    .into_bytes()
}

/// The signature and the public key of a body that [`hashedrekord_body`] makes, and of nothing else.
pub fn of_hashedrekord_body(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let bytes = |pointer: &str| BASE64.decode(document.pointer(pointer)?.as_str()?).ok();
    let digest = bytes("/spec/hashedRekordV002/data/digest")?.try_into().ok()?;
    let signature = bytes("/spec/hashedRekordV002/signature/content")?;
    let public_key = bytes("/spec/hashedRekordV002/signature/verifier/publicKey/rawBytes")?;
    let again = hashedrekord_body(&Digest::from_bytes(digest), &signature, &public_key);
    (again == body).then_some((signature, public_key))
}

fn decode(what: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    BASE64.decode(text).map_err(|error| Error::Invalid { what, reason: error.to_string() })
}

/// One entry of a Rekor v2 log with its inclusion proof and the checkpoint it is proved against, as protojson's
/// `TransparencyLogEntry`. 64-bit numbers are decimal strings, bytes are standard base64 with padding; protojson leaves out zero values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogEntry {
    /// Place in the log, from 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_index: String,
    /// Which log.
    pub log_id: LogId,
    /// `hashedrekord`, `0.0.2`.
    pub kind_version: KindVersion,
    /// Unix seconds; `0` or absent, as Rekor v2 gives no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrated_time: Option<String>,
    /// The proof.
    pub inclusion_proof: InclusionProof,
    /// base64 of the logged body (RFC 8785 JSON).
    pub canonicalized_body: String,
}

/// A log's key id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogId {
    /// base64 of the 32-byte C2SP key id (signing.md 5, item 5).
    pub key_id: String,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KindVersion {
    /// `hashedrekord`.
    pub kind: String,
    /// `0.0.2`.
    pub version: String,
}

/// A Merkle inclusion proof (RFC 6962) with the checkpoint that carries the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InclusionProof {
    /// The same as the entry's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_index: String,
    /// base64 of the root.
    pub root_hash: String,
    /// Entries in the tree.
    pub tree_size: String,
    /// base64 of the sibling hashes, leaf first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
    /// The signed note.
    pub checkpoint: Checkpoint,
}

/// A C2SP signed note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// Its text, signatures included.
    pub envelope: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireBundle {
    media_type: String,
    verification_material: WireMaterial,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<WireEnvelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireMaterial {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<WireKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<serde_json::Value>,
    #[serde(default)]
    tlog_entries: Vec<LogEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<WireTimestamps>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKey {
    #[serde(default)]
    hint: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireTimestamps {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rfc3161_timestamps: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_body_gives_back_what_it_was_made_of() {
        let body = hashedrekord_body(&Digest::of(b"x"), b"signature", b"key");
        assert_eq!(of_hashedrekord_body(&body), Some((b"signature".to_vec(), b"key".to_vec())));
        let text = String::from_utf8(body).unwrap();
        for other in
            [text.replace(':', ": "), text.replace("0.0.2", "0.0.1"), text.replace("SHA2_256", "SHA2_512"), "{}".into()]
        {
            assert_eq!(of_hashedrekord_body(other.as_bytes()), None, "{other}");
        }
    }

    fn good() -> Value {
        json!({
            "mediaType": identifiers::BUNDLE,
            "verificationMaterial": {
                "publicKey": {"hint": "aGludA=="},
                "tlogEntries": [{
                    "logId": {"keyId": "AA=="},
                    "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
                    "inclusionProof": {"rootHash": "AA==", "treeSize": "1", "checkpoint": {"envelope": "x"}},
                    "canonicalizedBody": "e30="
                }],
                "timestampVerificationData": {}
            },
            "dsseEnvelope": {"payload": "e30=", "payloadType": dsse::IN_TOTO, "signatures": [{"sig": "AA=="}]}
        })
    }

    fn parse(value: &Value) -> Result<Bundle, Error> {
        Bundle::parse(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn what_this_version_does_not_take_is_refused_by_name() {
        assert!(parse(&good()).is_ok());
        let changes: [(&str, Value); 9] = [
            ("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.2+json")),
            ("/verificationMaterial/tlogEntries", json!([])),
            ("/verificationMaterial/certificate", json!({"rawBytes": "AA=="})),
            ("/verificationMaterial/timestampVerificationData", json!({"rfc3161Timestamps": [{}]})),
            ("/dsseEnvelope/payloadType", json!("text/plain")),
            ("/dsseEnvelope/signatures", json!([])),
            ("/dsseEnvelope/signatures/0/keyid", json!("k")),
            ("/messageSignature", json!({})),
            ("/verificationMaterial/publicKey", json!({"hint": "\nVERIFIED"})),
        ];
        for (pointer, value) in changes {
            let mut changed = good();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
            assert!(parse(&changed).is_err(), "{pointer}");
        }
        let mut unknown = good();
        unknown["extra"] = json!(1);
        assert!(parse(&unknown).is_err());
    }

    #[test]
    fn bundles_are_limited_to_16_mebibytes() {
        let mut bytes = serde_json::to_vec(&good()).unwrap();
        bytes.resize(MAX_BUNDLE, b' ');
        assert!(Bundle::parse(&bytes).is_ok());
        bytes.push(b' ');
        assert!(matches!(Bundle::parse(&bytes), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn tr_28_how_a_file_is_laid_out_decides_nothing() {
        let plain = serde_json::to_string(&good()).unwrap();
        let pretty = serde_json::to_string_pretty(&good()).unwrap();
        for text in [
            plain.clone(),
            format!("{plain}\n"),
            format!("{plain}\n\n"),
            format!("\r\n {plain}\t\r\n"),
            pretty.clone(),
            pretty.replace('\n', "\r\n"),
        ] {
            check_one_document(text.as_bytes()).unwrap();
            assert!(Bundle::parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn tr_28_a_file_of_no_bundle_or_of_several_says_what_it_holds() {
        let one = serde_json::to_string(&good()).unwrap();
        let utf16: Vec<u8> = one.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: [(Vec<u8>, &str); 18] = [
            (format!("{one}\n{one}\n").into(), "holds 2 bundles; one is supported"),
            (format!("{one}{one}{one}").into(), "holds 3 bundles"),
            (format!("[{one},{one}]").into(), "holds 2 bundles"),
            (format!("\n [{one}]").into(), "a list of one bundle"),
            (b"[]".to_vec(), "an empty list"),
            (Vec::new(), "it is empty"),
            (b" \r\n".to_vec(), "it is empty"),
            (format!("\u{feff}{one}").into(), "byte order mark"),
            ([b"\xff\xfe".to_vec(), utf16].concat(), "UTF-16"),
            (format!("{one}\0").into(), "not one JSON document"),
            (format!("\0{one}").into(), "not one JSON document"),
            (format!("{one}]").into(), "not one JSON document"),
            (format!("{one},{one}").into(), "not one JSON document"),
            (one.as_bytes()[..one.len() - 1].to_vec(), "not one JSON document"),
            (b"null".to_vec(), "no object"),
            (b"\"{}\"".to_vec(), "no object"),
            (b"# a bundle\n{}".to_vec(), "not one JSON document"),
            (b"\x1f\x8b\x08\x00".to_vec(), "not one JSON document"),
        ];
        for (bytes, says) in cases {
            let error = check_one_document(&bytes).unwrap_err();
            assert!(matches!(error, Error::NotOneBundle { .. }) && error.to_string().contains(says), "{says}: {error}");
            assert!(Bundle::parse(&bytes).is_err(), "{says}");
        }
        let mut large = one.into_bytes();
        large.resize(MAX_BUNDLE, b' ');
        check_one_document(&large).unwrap();
        large.push(b' ');
        assert!(matches!(check_one_document(&large), Err(Error::TooLarge { .. })));
        let deep = "[".repeat(1 << 20);
        assert!(check_one_document(deep.as_bytes()).is_err());
        assert!(check_one_document(format!("{{\"a\":{deep}").as_bytes()).is_err());
    }

    #[test]
    fn nesting_is_limited_by_the_parser() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        assert!(Bundle::parse(deep.as_bytes()).is_err());
    }
}
