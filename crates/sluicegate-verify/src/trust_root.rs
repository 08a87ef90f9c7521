use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, de::IgnoredAny};
use sigstore_trust_root::TrustedRoot;
use sigstore_verify::Verifier;
use sluicegate_types::UnixTime;

/// Bytes of a trusted root file.
const MAX_ROOT: usize = 4 * 1024 * 1024;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

/// The logs whose entries count, from a Sigstore `trusted_root.json`.
///
/// Certificate authorities and certificate logs are left aside, as no bundle with a certificate is taken in this version;
/// time-stamp authorities are refused, as nothing would use them.
pub struct TrustRoot {
    verifier: Verifier,
    logs: Vec<TrustedLog>,
}

impl std::fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustRoot").field("logs", &self.logs).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct TrustedLog {
    pub(crate) origin: String,
    pub(crate) key_id: String,
    start: UnixTime,
    end: Option<UnixTime>,
}

impl TrustedLog {
    pub(crate) fn is_trusted_at(&self, at: UnixTime) -> bool {
        self.start <= at && self.end.is_none_or(|end| at <= end)
    }
}

impl TrustRoot {
    /// Reads a `trusted_root.json` (protobuf-specs `sigstore_trustroot.proto`), at most 4 MiB, with at least one log.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustRootError> {
        crate::crypto_provider::install();
        if bytes.len() > MAX_ROOT {
            return Err(TrustRootError { reason: format!("larger than the limit of {MAX_ROOT} bytes") });
        }
        let wire: WireRoot = serde_json::from_slice(bytes).map_err(fault)?;
        if wire.media_type != MEDIA_TYPE {
            return Err(TrustRootError { reason: format!("media type {:?}: not in this version", wire.media_type) });
        }
        // Certificate authorities and their logs may stand in it: bundles with a certificate are refused by name all the same.
        if !wire.timestamp_authorities.is_empty() {
            return Err(TrustRootError { reason: "timestampAuthorities: not in this version".to_owned() });
        }
        if wire.tlogs.is_empty() {
            return Err(TrustRootError { reason: "it names no log, so nothing could be verified".to_owned() });
        }
        let logs = wire.tlogs.iter().map(TrustedLog::try_from).collect::<Result<Vec<_>, _>>()?;
        // The library compares a log key's window with the wall clock. Windows are checked above against the time of the
        // decision instead, so that a decision can be replayed; what the library gets has none.
        let mut timeless: serde_json::Value = serde_json::from_slice(bytes).map_err(fault)?;
        for log in timeless["tlogs"].as_array_mut().into_iter().flatten() {
            if let Some(key) = log["publicKey"].as_object_mut() {
                key.remove("validFor");
            }
        }
        // What is left aside is not shown to the library either.
        for unused in ["certificateAuthorities", "ctlogs"] {
            timeless[unused] = serde_json::json!([]);
        }
        let root = TrustedRoot::from_json(&timeless.to_string()).map_err(fault)?;
        Ok(Self { verifier: Verifier::new(&root).map_err(fault)?, logs })
    }

    /// The names of its logs.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.iter().map(|log| log.origin.as_str())
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The log with this key id (base64 of all 32 bytes).
    pub(crate) fn log(&self, key_id: &str) -> Option<&TrustedLog> {
        self.logs.iter().find(|log| log.key_id == key_id)
    }
}

fn fault(error: impl std::fmt::Display) -> TrustRootError {
    TrustRootError { reason: error.to_string() }
}

/// Why a trusted root can't be used.
#[derive(Debug, thiserror::Error)]
#[error("trusted root: {reason}")]
pub struct TrustRootError {
    /// Why not.
    pub reason: String,
}

impl TryFrom<&WireLog> for TrustedLog {
    type Error = TrustRootError;

    fn try_from(wire: &WireLog) -> Result<Self, TrustRootError> {
        let host = wire.base_url.strip_prefix("https://").or_else(|| wire.base_url.strip_prefix("http://"));
        let origin = host
            .and_then(|h| h.split(['/', ':']).next())
            .filter(|h| !h.is_empty())
            .ok_or_else(|| TrustRootError { reason: format!("baseUrl {:?} is not an http address", wire.base_url) })?;
        match BASE64.decode(&wire.log_id.key_id) {
            Ok(bytes) if bytes.len() == 32 => {}
            _ => return Err(TrustRootError { reason: format!("logId of {origin} is not 32 bytes in base64") }),
        }
        Ok(Self {
            origin: origin.to_owned(),
            key_id: wire.log_id.key_id.clone(),
            start: wire.public_key.valid_for.start,
            end: wire.public_key.valid_for.end,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireRoot {
    media_type: String,
    tlogs: Vec<WireLog>,
    #[serde(default, rename = "certificateAuthorities")]
    _certificate_authorities: Vec<IgnoredAny>,
    #[serde(default, rename = "ctlogs")]
    _ctlogs: Vec<IgnoredAny>,
    #[serde(default)]
    timestamp_authorities: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLog {
    base_url: String,
    #[serde(rename = "hashAlgorithm")]
    _hash_algorithm: String,
    public_key: WireKey,
    log_id: WireLogId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireKey {
    #[serde(rename = "rawBytes")]
    _raw_bytes: String,
    #[serde(rename = "keyDetails")]
    _key_details: String,
    valid_for: WireWindow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireWindow {
    start: UnixTime,
    #[serde(default)]
    end: Option<UnixTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLogId {
    key_id: String,
}
