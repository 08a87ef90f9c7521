use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use sluicegate_attestation::{
    bundle::{Bundle, hashedrekord_body},
    dsse,
    statement::Statement,
};
use sluicegate_ports::sign::{SignError, Signer, TransparencyLog};
use sluicegate_types::Digest;

/// DER prefix of a P-256 SubjectPublicKeyInfo; the 65-byte point follows (RFC 5480).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 key made from its name: the same name is the same key in every test.
#[derive(Clone)]
pub struct VirtualSigner {
    name: String,
    key: SigningKey,
    public_key: Vec<u8>,
}

impl VirtualSigner {
    /// The signer of this name.
    pub fn new(name: &str) -> Self {
        let seed = Digest::of(format!("virtual signer {name}").as_bytes());
        let key = SigningKey::from_slice(seed.as_bytes()).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let public_key = [&P256_SPKI_PREFIX, point.as_bytes()].concat();
        Self { name: name.to_owned(), key, public_key }
    }

    /// Its public half as PEM.
    pub fn public_key_pem(&self) -> String {
        let body = BASE64.encode(&self.public_key);
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &body[..64], &body[64..])
    }
}

impl Signer for VirtualSigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature: Signature = self.key.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// The bundle of this statement: signed, logged, assembled.
pub fn sign_statement(signer: &VirtualSigner, log: &dyn TransparencyLog, statement: &Statement) -> Vec<u8> {
    sign_payload(signer, log, &statement.to_payload().unwrap())
}

/// The bundle of this payload, whatever it is.
pub fn sign_payload(signer: &VirtualSigner, log: &dyn TransparencyLog, payload: &[u8]) -> Vec<u8> {
    let pae = dsse::pae(dsse::IN_TOTO, payload);
    let signature = signer.sign(&pae).unwrap();
    let body = hashedrekord_body(&Digest::of(&pae), &signature, signer.public_key());
    let entry = log.append(&[body]).unwrap().remove(0);
    Bundle::assemble(payload, &signature, signer.public_key(), entry).unwrap()
}
