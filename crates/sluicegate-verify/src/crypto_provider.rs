//! sigstore-crypto on `ring`, so that one crypto library is in the program and no C toolchain beyond cc is needed.
//!
//! P-256 prehashed goes through RustCrypto, as ring has no such API; what is not supported is refused by name.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::{digest, signature as ring_signature};
use sigstore_crypto::{CryptoProvider, Error, HashContext, KeyAlgorithm, Result, SigningKeyPair, SigningScheme};
use sigstore_types::HashAlgorithm;

/// Installs the provider for this process; later calls change nothing.
pub(crate) fn install() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        match sigstore_crypto::install_default_provider(&RING) {
            // It fails only where somebody installed one before, which is as good.
            Ok(()) | Err(_) => {}
        }
    });
}

#[derive(Debug)]
struct Ring;

static RING: Ring = Ring;

struct RingHash(digest::Context);

impl HashContext for RingHash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        let algorithm = match algorithm {
            HashAlgorithm::Sha2256 => &digest::SHA256,
            HashAlgorithm::Sha2384 => &digest::SHA384,
            HashAlgorithm::Sha2512 => &digest::SHA512,
            other => return Err(Error::UnsupportedAlgorithm(other.to_string())),
        };
        Ok(Box::new(RingHash(digest::Context::new(algorithm))))
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        let algorithm =
            verification_algorithm(scheme).ok_or_else(|| Error::UnsupportedAlgorithm(scheme.name().into()))?;
        ring_signature::UnparsedPublicKey::new(algorithm, key)
            .verify(data, signature)
            .map_err(|_| Error::Verification(scheme.name().into()))
    }

    fn verify_prehashed(&self, scheme: SigningScheme, key: &[u8], digest: &[u8], signature: &[u8]) -> Result<()> {
        if scheme != SigningScheme::EcdsaP256Sha256 {
            return Err(Error::UnsupportedAlgorithm(format!("prehashed {}", scheme.name())));
        }
        let key =
            p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|e| Error::InvalidKeyFormat(e.to_string()))?;
        let signature = p256::ecdsa::Signature::from_der(signature).map_err(|e| Error::Verification(e.to_string()))?;
        key.verify_prehash(digest, &signature).map_err(|e| Error::Verification(e.to_string()))
    }

    fn generate_key_pair(&self, algorithm: KeyAlgorithm) -> Result<Box<dyn SigningKeyPair>> {
        Err(Error::UnsupportedAlgorithm(format!("generating {algorithm:?} keys in the verifier")))
    }

    fn key_pair_from_pkcs8_der(&self, _: &[u8]) -> Result<Box<dyn SigningKeyPair>> {
        Err(Error::UnsupportedAlgorithm("private keys in the verifier".into()))
    }
}

fn verification_algorithm(scheme: SigningScheme) -> Option<&'static dyn ring_signature::VerificationAlgorithm> {
    Some(match scheme {
        SigningScheme::EcdsaP256Sha256 => &ring_signature::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &ring_signature::ECDSA_P384_SHA384_ASN1,
        SigningScheme::Ed25519 => &ring_signature::ED25519,
        _ => return None,
    })
}
