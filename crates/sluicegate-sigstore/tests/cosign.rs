//! An unmodified cosign is the judge of keys, log and trusted root. It runs if `SLUICEGATE_COSIGN` names it.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sluicegate_attestation::bundle::hashedrekord_body;
use sluicegate_ports::sign::{Signer, TransparencyLog};
use sluicegate_sigstore::{EmbeddedLog, KeyFolder, new_origin, signing_config_json, trusted_root_json};
use sluicegate_types::{Digest, Secret, UnixTime};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const PASSPHRASE: &str = "correct horse";

struct Bench {
    cosign: PathBuf,
    dir: tempfile::TempDir,
    keys: KeyFolder,
    log: EmbeddedLog,
}

impl Bench {
    /// `None`, said aloud, where no cosign is named.
    fn set_up(test: &str) -> Option<Self> {
        let Some(cosign) = std::env::var_os("SLUICEGATE_COSIGN") else {
            let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
            assert!(!demanded, "{test}: SLUICEGATE_COSIGN names no cosign, and peers are demanded");
            // Not by a macro that the test harness swallows.
            let mut terminal = std::io::stderr().lock();
            writeln!(terminal, "SKIPPED {test}: SLUICEGATE_COSIGN names no cosign").unwrap();
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFolder::open(dir.path().join("keys"));
        for name in ["steps", "other"] {
            keys.generate(name, &passphrase()).unwrap();
        }
        keys.generate_log_key("log", &passphrase()).unwrap();
        let key = keys.open_log_key("log", &passphrase()).unwrap();
        let origin = new_origin(key.public_key());
        let log = EmbeddedLog::create(dir.path().join("log"), key, &origin).unwrap();
        let bench = Self { cosign: cosign.into(), dir, keys, log };
        fs::write(bench.path("root.json"), trusted_root_json(bench.log.public(), start())).unwrap();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cosign(&self, args: &[&str]) -> Output {
        Command::new(&self.cosign)
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("COSIGN_PASSWORD", PASSPHRASE)
            .output()
            .unwrap()
    }

    /// A provenance bundle about `subject`, signed by `signer` and logged.
    fn bundle(&self, signer: &dyn Signer, subject: &Digest) -> serde_json::Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "out", "digest": {"sha256": subject.hex()}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {"buildType": "https://example.com/build/v1", "externalParameters": {}},
                "runDetails": {"builder": {"id": "https://example.com/builder"}},
            },
        })
        .to_string();
        let pae = sluicegate_attestation::dsse::pae(PAYLOAD_TYPE, statement.as_bytes());
        let signature = signer.sign(&pae).unwrap();
        let body = hashedrekord_body(&Digest::of(&pae), &signature, signer.public_key());
        let entry = self.log.append(&[body]).unwrap().remove(0);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": STANDARD.encode(Digest::of(signer.public_key()).as_bytes())},
                "tlogEntries": [entry],
                "timestampVerificationData": {},
            },
            "dsseEnvelope": {
                "payloadType": PAYLOAD_TYPE,
                "payload": STANDARD.encode(statement),
                "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        })
    }

    fn verify(&self, bundle: &serde_json::Value, public: &str, root: &str, subject: &Digest) -> Output {
        fs::write(self.path("bundle.json"), bundle.to_string()).unwrap();
        self.cosign(&[
            "verify-blob-attestation",
            "--key",
            public,
            "--bundle",
            "bundle.json",
            "--trusted-root",
            root,
            "--type",
            "slsaprovenance1",
            "--digest",
            &subject.hex(),
            "--digestAlg",
            "sha256",
        ])
    }
}

fn passphrase() -> Secret {
    Secret::new(PASSPHRASE.as_bytes().to_vec())
}

fn start() -> UnixTime {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn accepted(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn refused(output: &Output, word: &str) {
    assert!(!output.status.success() && said(output).contains(word), "{}", said(output));
}

#[test]
fn cosign_accepts_what_our_key_signed_and_our_log_holds() {
    let Some(bench) = Bench::set_up("cosign_accepts_what_our_key_signed_and_our_log_holds") else { return };
    let signer = bench.keys.open_signer("steps", &passphrase()).unwrap();
    let subject = Digest::of(b"artifact");
    let first = bench.bundle(&signer, &subject);
    accepted(&bench.verify(&first, "keys/steps.pub", "root.json", &subject));
    let others = (0..300_u32).map(|number| hashedrekord_body(&Digest::of(&number.to_be_bytes()), b"s", b"k"));
    bench.log.append(&others.collect::<Vec<_>>()).unwrap();
    let later = Digest::of(b"later");
    let bundle = bench.bundle(&signer, &later);
    assert_eq!(bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"], "301");
    accepted(&bench.verify(&bundle, "keys/steps.pub", "root.json", &later));

    refused(&bench.verify(&bundle, "keys/other.pub", "root.json", &later), "root");
    refused(&bench.verify(&bundle, "keys/steps.pub", "root.json", &subject), "digest");
    let stranger = KeyFolder::open(bench.path("stranger"));
    stranger.generate_log_key("log", &passphrase()).unwrap();
    let key = stranger.open_log_key("log", &passphrase()).unwrap();
    let origin = new_origin(key.public_key());
    let log = EmbeddedLog::create(bench.path("stranger/log"), key, &origin).unwrap();
    fs::write(bench.path("stranger.json"), trusted_root_json(log.public(), start())).unwrap();
    refused(&bench.verify(&bundle, "keys/steps.pub", "stranger.json", &later), "not enough verified log entries");
    let mut moved = bundle;
    moved["verificationMaterial"]["tlogEntries"][0]["logIndex"] = "300".into();
    refused(&bench.verify(&moved, "keys/steps.pub", "root.json", &later), "");
}

#[test]
fn a_key_of_cosign_signs_here_and_a_key_of_ours_signs_there() {
    let Some(bench) = Bench::set_up("a_key_of_cosign_signs_here_and_a_key_of_ours_signs_there") else { return };
    accepted(&bench.cosign(&["generate-key-pair", "--output-key-prefix", "keys/theirs"]));
    let theirs = bench.keys.open_signer("theirs", &passphrase()).unwrap();
    let subject = Digest::of(b"artifact");
    accepted(&bench.verify(&bench.bundle(&theirs, &subject), "keys/theirs.pub", "root.json", &subject));

    fs::write(bench.path("blob"), "some bytes").unwrap();
    fs::write(bench.path("signing.json"), signing_config_json(None, start())).unwrap();
    // With the trusted root given, cosign asks no server for one.
    let common = ["--trusted-root", "root.json", "--bundle", "blob.json", "blob"];
    let sign = |key: &str| {
        let own = ["sign-blob", "--yes", "--key", key, "--signing-config", "signing.json"];
        bench.cosign(&[&own[..], &common].concat())
    };
    let verify = |public: &str| {
        let own = ["verify-blob", "--key", public, "--insecure-ignore-tlog"];
        bench.cosign(&[&own[..], &common].concat())
    };
    accepted(&sign("keys/steps.key"));
    accepted(&verify("keys/steps.pub"));
    refused(&verify("keys/other.pub"), "");
}
