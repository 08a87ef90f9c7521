use std::sync::Mutex;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use sluicegate_attestation::bundle::{Checkpoint, InclusionProof, KindVersion, LogEntry, LogId};
use sluicegate_ports::{
    served_log::{Placed, ServedLog, TileName, TileRow},
    sign::{SignError, TransparencyLog},
};
use sluicegate_types::{Digest, UnixTime};

use crate::merkle;

/// DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410); the 32 bytes of the key follow.
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A Rekor v2 log in memory, its key made from its name.
pub struct VirtualLog {
    origin: String,
    key: Ed25519KeyPair,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl VirtualLog {
    /// An empty log called `origin`, a bare host name.
    pub fn new(origin: &str) -> Self {
        let seed = Digest::of(format!("virtual log {origin}").as_bytes());
        let key = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).unwrap();
        Self { origin: origin.to_owned(), key, bodies: Mutex::new(Vec::new()) }
    }

    /// Appends `count` entries that are about nothing, so that what follows has an index and a proof.
    pub fn fill(&self, count: usize) {
        let bodies: Vec<_> = (0..count).map(|number| format!("filler {number}").into_bytes()).collect();
        self.append(&bodies).unwrap();
    }

    /// The 32-byte C2SP key id in base64, `logId.keyId` of bundles.
    pub fn key_id(&self) -> String {
        BASE64.encode(self.key_hash().as_bytes())
    }

    /// A `trusted_root.json` with this log alone, whose key counts from 2020 on.
    pub fn trusted_root_json(&self) -> Vec<u8> {
        self.trusted_root_json_within("2020-01-01T00:00:00Z".parse().unwrap(), None)
    }

    /// A `trusted_root.json` with this log alone, whose key counts from `start` to `end`, both included.
    pub fn trusted_root_json_within(&self, start: UnixTime, end: Option<UnixTime>) -> Vec<u8> {
        let mut window = json!({"start": start});
        if let Some(end) = end {
            window["end"] = json!(end);
        }
        let spki = [&ED25519_SPKI_PREFIX[..], self.key.public_key().as_ref()].concat();
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "baseUrl": format!("https://{}", self.origin),
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": BASE64.encode(spki), "keyDetails": "PKIX_ED25519", "validFor": window},
                "logId": {"keyId": self.key_id()},
            }],
            "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
        });
        serde_json::to_vec(&root).unwrap()
    }

    /// A checkpoint of this log's key over any size and root.
    pub fn checkpoint(&self, size: u64, root: &Digest) -> String {
        let text = format!("{}\n{size}\n{}\n", self.origin, BASE64.encode(root.as_bytes()));
        let mut signature = self.key_hash().as_bytes()[..4].to_vec();
        signature.extend(self.key.sign(text.as_bytes()).as_ref());
        format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(signature))
    }

    fn key_hash(&self) -> Digest {
        Digest::of(&[self.origin.as_bytes(), b"\n\x01", self.key.public_key().as_ref()].concat())
    }
}

impl ServedLog for VirtualLog {
    fn append_new(&self, bodies: &[Vec<u8>]) -> Result<Vec<Placed>, SignError> {
        let mut held = self.bodies.lock().unwrap();
        let mut places = Vec::new();
        for body in bodies {
            let known = held.iter().position(|known| known == body);
            places.push((known.unwrap_or(held.len()), known.is_none()));
            if known.is_none() {
                held.push(body.clone());
            }
        }
        let leaves: Vec<Digest> = held.iter().map(|body| merkle::leaf(body)).collect();
        let root = merkle::root(&leaves);
        let entry = |place: usize| {
            // protojson leaves out a zero.
            let index = if place == 0 { String::new() } else { place.to_string() };
            LogEntry {
                log_index: index.clone(),
                log_id: LogId { key_id: self.key_id() },
                kind_version: KindVersion { kind: "hashedrekord".to_owned(), version: "0.0.2".to_owned() },
                integrated_time: None,
                inclusion_proof: InclusionProof {
                    log_index: index,
                    root_hash: BASE64.encode(root.as_bytes()),
                    tree_size: leaves.len().to_string(),
                    hashes: merkle::path(place, &leaves).iter().map(|h| BASE64.encode(h.as_bytes())).collect(),
                    checkpoint: Checkpoint { envelope: self.checkpoint(leaves.len() as u64, &root) },
                },
                canonicalized_body: BASE64.encode(&held[place]),
            }
        };
        Ok(places.into_iter().map(|(place, is_new)| Placed { entry: entry(place), is_new }).collect())
    }

    fn checkpoint(&self) -> Result<String, SignError> {
        Ok(Self::checkpoint(self, self.size()?, &self.root()?))
    }

    /// Written down as tlog-tiles says it: the hashes of `256^level` leaves each, or the entries with their lengths in front.
    fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError> {
        let held = self.bodies.lock().unwrap();
        let leaves: Vec<Digest> = held.iter().map(|body| merkle::leaf(body)).collect();
        let span = match name.row {
            TileRow::Entries => 1,
            TileRow::Hashes(level) => 256_usize.saturating_pow(level.into()),
        };
        let first = usize::try_from(name.number).ok().and_then(|number| number.checked_mul(256));
        let from = first.and_then(|first| first.checked_mul(span));
        let length = span.checked_mul(name.width.into());
        let range = from.zip(length).and_then(|(from, length)| Some(from..from.checked_add(length)?));
        let Some(range) = range.filter(|range| range.end <= held.len()) else {
            return Ok(None);
        };
        Ok(Some(match name.row {
            TileRow::Hashes(_) => leaves[range].chunks(span).flat_map(|part| *merkle::root(part).as_bytes()).collect(),
            TileRow::Entries => {
                let with_length = |body: &Vec<u8>| [&(body.len() as u16).to_be_bytes()[..], body].concat();
                held[range].iter().flat_map(with_length).collect()
            }
        }))
    }
}

impl TransparencyLog for VirtualLog {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        Ok(self.append_new(bodies)?.into_iter().map(|placed| placed.entry).collect())
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn size(&self) -> Result<u64, SignError> {
        Ok(self.bodies.lock().unwrap().len() as u64)
    }

    fn root(&self) -> Result<Digest, SignError> {
        let leaves: Vec<Digest> = self.bodies.lock().unwrap().iter().map(|body| merkle::leaf(body)).collect();
        Ok(merkle::root(&leaves))
    }
}
