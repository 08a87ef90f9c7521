//! What others need to trust the embedded log: its name and key, as Sigstore's `trusted_root.json` and `signing_config.json`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sluicegate_types::{Digest, UnixTime};

use crate::{checkpoint, keys::ed25519_spki};

const ORIGIN_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;

/// The public half of a log: all that a verifier needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPublic {
    /// Its name, a bare host name.
    pub origin: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

impl LogPublic {
    /// The 32-byte C2SP key id, `logId.keyId` of bundles and trusted roots.
    pub fn key_id(&self) -> [u8; 32] {
        checkpoint::key_id(&self.origin, &self.public_key)
    }
}

/// The name of a new log: `log-` and the first 16 hexadecimal digits of SHA-256 over its public key, then `.sluicegate.internal`.
///
/// A name per key, so that two homes never write under one name; a bare host name, for sigstore-go compares checkpoints with the
/// host of `baseUrl`.
pub fn new_origin(public_key: &[u8; 32]) -> String {
    format!("log-{}.sluicegate.internal", &Digest::of(public_key).hex()[..16])
}

/// The name of a new ledger, made like [`new_origin`]'s: `ledger-` in place of `log-`, so that no checkpoint of the one passes for one
/// of the other.
pub fn new_ledger_origin(public_key: &[u8; 32]) -> String {
    format!("ledger-{}.sluicegate.internal", &Digest::of(public_key).hex()[..16])
}

/// `trusted_root.json` (media type `…trustedroot+json;version=0.1`, the only one that sigstore-go takes) with this one log, whose key
/// counts from `valid_from` on.
pub fn trusted_root_json(log: &LogPublic, valid_from: UnixTime) -> Vec<u8> {
    written(&json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{
            "baseUrl": format!("https://{}", log.origin),
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": STANDARD.encode(ed25519_spki(&log.public_key)),
                "keyDetails": "PKIX_ED25519",
                "validFor": {"start": valid_from.to_string()},
            },
            "logId": {"keyId": STANDARD.encode(log.key_id())},
        }],
        "certificateAuthorities": [],
        "ctlogs": [],
        "timestampAuthorities": [],
    }))
}

/// Bytes of a trusted root that is read.
const ROOT_LIMIT: usize = 4 * 1024 * 1024;
/// What stands before an Ed25519 key in a SubjectPublicKeyInfo.
const SPKI_PREFIX: usize = 12;

/// The logs of a `trusted_root.json` whose keys are Ed25519 and whose key ids are those of C2SP. Others, and what else it holds, are
/// left aside.
pub fn logs_of(trusted_root: &[u8]) -> Result<Vec<LogPublic>, String> {
    if trusted_root.len() > ROOT_LIMIT {
        return Err(format!("it is larger than {ROOT_LIMIT} bytes"));
    }
    let root: Value = serde_json::from_slice(trusted_root).map_err(|error| error.to_string())?;
    let log = |log: &Value| {
        let url = log["baseUrl"].as_str()?;
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let origin = host.split(['/', ':']).next()?.to_owned();
        let key = STANDARD.decode(log["publicKey"]["rawBytes"].as_str()?).ok()?;
        let public_key: [u8; 32] = key.get(SPKI_PREFIX..)?.try_into().ok()?;
        let public = LogPublic { origin, public_key };
        let is_its_own = log["logId"]["keyId"].as_str()? == STANDARD.encode(public.key_id());
        (ed25519_spki(&public_key) == key && is_its_own).then_some(public)
    };
    Ok(root["tlogs"].as_array().map(|logs| logs.iter().filter_map(log).collect()).unwrap_or_default())
}

/// `signing_config.json` (version 0.2) for signing with a key: no certificate authority, no time stamps, and the log at `log_url`.
///
/// Without a URL (the embedded log has no server) it names no log at all: cosign then signs unlogged.
pub fn signing_config_json(log_url: Option<&str>, valid_from: UnixTime) -> Vec<u8> {
    let mut config = json!({
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [],
        "oidcUrls": [],
        "rekorTlogUrls": [],
        "tsaUrls": [],
        "tsaConfig": {},
    });
    if let Some(url) = log_url {
        config["rekorTlogUrls"] = json!([{
            "url": url,
            "majorApiVersion": 2,
            "validFor": {"start": valid_from.to_string()},
            "operator": "sluicegate",
        }]);
        config["rekorTlogConfig"] = json!({"selector": "EXACT", "count": 1});
    }
    written(&config)
}

/// The bare host name that sigstore-go, sigstore-verify and our own verifier all take for an origin; an error says what is wrong.
pub(crate) fn check_origin(origin: &str) -> Result<(), String> {
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
        label.len() <= LABEL_LIMIT
            && label.bytes().all(inside)
            && edge(label.bytes().next())
            && edge(label.bytes().next_back())
    };
    if origin.len() <= ORIGIN_LIMIT && origin.split('.').all(label) {
        Ok(())
    } else {
        Err(format!(
            "its name {:?} is not a bare lower-case host name without port and path",
            origin.chars().take(64).collect::<String>()
        ))
    }
}

fn written(document: &Value) -> Vec<u8> {
    format!("{document:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LogPublic {
        let public_key = [7; 32];
        LogPublic { origin: new_origin(&public_key), public_key }
    }

    fn start() -> UnixTime {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_trusted_root_has_the_form_that_cosign_reads() {
        let log = log();
        let root: Value = serde_json::from_slice(&trusted_root_json(&log, start())).unwrap();
        assert_eq!(
            root,
            json!({
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [{
                    "baseUrl": format!("https://{}", log.origin),
                    "hashAlgorithm": "SHA2_256",
                    "publicKey": {
                        "rawBytes": "MCowBQYDK2VwAyEABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
                        "keyDetails": "PKIX_ED25519",
                        "validFor": {"start": "2026-01-01T00:00:00Z"},
                    },
                    "logId": {"keyId": STANDARD.encode(log.key_id())},
                }],
                "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
            })
        );
    }

    #[test]
    fn the_logs_of_a_root_are_those_with_keys_that_are_read_here() {
        let log = log();
        let bytes = trusted_root_json(&log, start());
        assert_eq!(logs_of(&bytes), Ok(vec![log.clone()]));
        let mut other: Value = serde_json::from_slice(&bytes).unwrap();
        other["tlogs"][0]["logId"]["keyId"] = json!(STANDARD.encode([1; 32]));
        assert_eq!(logs_of(other.to_string().as_bytes()), Ok(Vec::new()));
        let with_port = String::from_utf8(bytes).unwrap().replace(".internal\"", ".internal:3003/path\"");
        assert_eq!(logs_of(with_port.as_bytes()), Ok(vec![log]));
        assert!(logs_of(b"no root").is_err() && logs_of(b"{}") == Ok(Vec::new()));
    }

    #[test]
    fn the_signing_config_names_a_log_only_if_there_is_a_server() {
        let with: Value = serde_json::from_slice(&signing_config_json(Some("http://localhost:3003"), start())).unwrap();
        assert_eq!(with["rekorTlogUrls"][0]["url"], "http://localhost:3003");
        assert_eq!(with["rekorTlogUrls"][0]["majorApiVersion"], 2);
        assert_eq!(with["rekorTlogConfig"], json!({"selector": "EXACT", "count": 1}));
        let without: Value = serde_json::from_slice(&signing_config_json(None, start())).unwrap();
        assert_eq!(without["rekorTlogUrls"], json!([]));
        assert_eq!(without.get("rekorTlogConfig"), None);
    }

    #[test]
    fn new_names_differ_by_key_and_are_bare_host_names() {
        let origin = new_origin(&[7; 32]);
        assert_ne!(origin, new_origin(&[8; 32]));
        let ledger = new_ledger_origin(&[7; 32]);
        assert!(
            check_origin(&ledger).is_ok() && ledger.starts_with("ledger-") && ledger != new_ledger_origin(&[8; 32])
        );
        assert!(check_origin(&origin).is_ok(), "{origin}");
        assert_eq!(origin.len(), "log-0123456789abcdef.sluicegate.internal".len());
        for bad in
            ["", "a b", "host:3003", "host/path", "a+b", "Log.example", "log - 12", ".a", "a.", "-a", "a..b", "a\n"]
        {
            assert!(check_origin(bad).is_err(), "{bad:?}");
        }
        let long = |length: usize| format!("{}.{}", "a".repeat(63), "b.".repeat((length - 64) / 2 - 1) + "bb");
        assert!(check_origin(&"a".repeat(63)).is_ok() && check_origin(&"a".repeat(64)).is_err());
        assert!(check_origin(&long(252)).is_ok() && check_origin(&long(256)).is_err());
    }
}
