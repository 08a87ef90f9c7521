//! cosign's encrypted private key files: PEM around JSON around NaCl secretbox around PKCS#8, the key derived by scrypt.
//!
//! Format read from files that cosign 3 writes (sigstore/cosign `pkg/cosign`, secure-systems-lab `encrypted`).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::{Engine, engine::general_purpose::STANDARD};
use crypto_secretbox::{
    XSalsa20Poly1305,
    aead::{Aead, KeyInit, Nonce},
};
use p256::pkcs8::{LineEnding, der::pem};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sluicegate_types::Secret;

/// Bytes of a key file that are read.
pub(crate) const FILE_LIMIT: u64 = 64 * 1024;

const HEADER: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
const OLD_HEADER: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const MAX_N: u64 = 1 << 20;
const MAX_R: u32 = 16;
const MAX_P: u32 = 4;
/// scrypt takes 128 * N * r bytes; N and r at their limits together would be 2 GiB.
const MAX_MEMORY: u64 = 1 << 30;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// cosign's parameters since 2.0: 64 MiB and about a tenth of a second.
const OURS: Params = Params { n: 65_536, r: 8, p: 1 };

/// Why a key file does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Wrong passphrase or damaged bytes; the two can't be told apart.
    Locked,
    /// Another format, in words.
    Format(String),
}

#[derive(Serialize, Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Keys that passphrases have given, so that each is derived once in a process, whoever asks for it at the same time.
#[derive(Debug, Default)]
pub(crate) struct Derivations(Mutex<Vec<Arc<Derivation>>>);

#[derive(Debug)]
struct Derivation {
    passphrase: Secret,
    salt: Vec<u8>,
    params: Params,
    key: OnceLock<Result<Secret, String>>,
}

impl Derivations {
    fn key(&self, passphrase: &Secret, salt: &[u8], params: Params) -> Result<Secret, String> {
        let derivation = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let same =
                |one: &&Arc<Derivation>| one.passphrase == *passphrase && one.salt == salt && one.params == params;
            if let Some(one) = known.iter().find(same) {
                one.clone()
            } else {
                let key = OnceLock::new();
                let one = Derivation { passphrase: passphrase.clone(), salt: salt.to_vec(), params, key };
                let one = Arc::new(one);
                known.push(one.clone());
                one
            }
        };
        derivation.key.get_or_init(|| derive(passphrase, salt, params)).clone()
    }

    /// The salt of a key of this passphrase that is known already: see [`seal`].
    fn salt(&self, passphrase: &Secret, params: Params) -> Option<Vec<u8>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |one: &&Arc<Derivation>| one.passphrase == *passphrase && one.params == params;
        known.iter().filter(same).find(|one| one.salt.len() == SALT_BYTES).map(|one| one.salt.clone())
    }
}

/// The PEM text that holds `pkcs8` under `passphrase`, with cosign's scrypt parameters and a fresh nonce of 24 random bytes.
///
/// Keys of one passphrase that are made or opened in one process share their salt, so that who opens several of them derives once. Who
/// guesses at the passphrase gains nothing by that: it is the same one, and one file was enough to try a guess before.
pub(crate) fn seal(pkcs8: &Secret, passphrase: &Secret, derivations: &Derivations) -> Result<String, String> {
    let (mut fresh, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    let random = SystemRandom::new();
    for buffer in [&mut fresh[..], &mut nonce[..]] {
        random.fill(buffer).map_err(|_| "the system gives no random bytes".to_owned())?;
    }
    let salt = derivations.salt(passphrase, OURS).unwrap_or_else(|| fresh.to_vec());
    let ciphertext = secretbox(&derivations.key(passphrase, &salt, OURS)?)?
        .encrypt(&Nonce::<XSalsa20Poly1305>::from(nonce), pkcs8.expose())
        .map_err(|_| "the cipher failed".to_owned())?;
    let file = Encrypted {
        kdf: Kdf { name: "scrypt".into(), params: OURS, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    let json = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
    pem::encode_string(HEADER, LineEnding::LF, &json).map_err(|error| error.to_string())
}

/// The PKCS#8 DER inside `text`.
pub(crate) fn unseal(text: &[u8], passphrase: &Secret, derivations: &Derivations) -> Result<Secret, OpenError> {
    let format = |reason: &str| OpenError::Format(reason.to_owned());
    let (label, json) = pem::decode_vec(text).map_err(|error| OpenError::Format(format!("not a PEM file: {error}")))?;
    if label != HEADER && label != OLD_HEADER {
        return Err(OpenError::Format(format!("its PEM label is {label:?}; an encrypted key has {HEADER:?}")));
    }
    let file: Encrypted =
        serde_json::from_slice(&json).map_err(|error| OpenError::Format(format!("its JSON is not a key: {error}")))?;
    if file.kdf.name != "scrypt" {
        return Err(OpenError::Format(format!("key derivation {:?}: only scrypt is read", cut(&file.kdf.name))));
    }
    if file.cipher.name != "nacl/secretbox" {
        return Err(OpenError::Format(format!("cipher {:?}: only nacl/secretbox is read", cut(&file.cipher.name))));
    }
    let decode =
        |what: &str, value: &str| STANDARD.decode(value).map_err(|_| format(&format!("its {what} is not base64")));
    let salt = decode("salt", &file.kdf.salt)?;
    let nonce: [u8; NONCE_BYTES] =
        decode("nonce", &file.cipher.nonce)?.try_into().map_err(|_| format("its nonce is not 24 bytes"))?;
    let ciphertext = decode("ciphertext", &file.ciphertext)?;
    bounded(file.kdf.params).map_err(OpenError::Format)?;
    let key = derivations.key(passphrase, &salt, file.kdf.params).map_err(OpenError::Format)?;
    secretbox(&key)
        .map_err(OpenError::Format)?
        .decrypt(&Nonce::<XSalsa20Poly1305>::from(nonce), ciphertext.as_slice())
        .map(Secret::new)
        .map_err(|_| OpenError::Locked)
}

/// A hostile file must not make opening it take minutes or gigabytes.
fn bounded(params: Params) -> Result<(), String> {
    let Params { n, r, p } = params;
    if !(2..=MAX_N).contains(&n) || !n.is_power_of_two() {
        return Err(format!("scrypt N is {n}: a power of two from 2 to {MAX_N} is read"));
    }
    if r == 0 || r > MAX_R {
        return Err(format!("scrypt r is {r}: 1 to {MAX_R} is read"));
    }
    if p == 0 || p > MAX_P {
        return Err(format!("scrypt p is {p}: 1 to {MAX_P} is read"));
    }
    if 128 * n * u64::from(r) > MAX_MEMORY {
        return Err(format!("scrypt N {n} with r {r} takes more than {} MiB", MAX_MEMORY >> 20));
    }
    Ok(())
}

fn derive(passphrase: &Secret, salt: &[u8], params: Params) -> Result<Secret, String> {
    let log_n = u8::try_from(params.n.trailing_zeros()).map_err(|error| error.to_string())?;
    let parsed = scrypt::Params::new(log_n, params.r, params.p).map_err(|error| error.to_string())?;
    let mut key = vec![0; 32];
    scrypt::scrypt(passphrase.expose(), salt, &parsed, &mut key).map_err(|error| error.to_string())?;
    Ok(Secret::new(key))
}

fn secretbox(key: &Secret) -> Result<XSalsa20Poly1305, String> {
    XSalsa20Poly1305::new_from_slice(key.expose()).map_err(|error| error.to_string())
}

fn cut(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by cosign 3.1.3, `COSIGN_PASSWORD=x cosign generate-key-pair`; it guards nothing.
    const OF_COSIGN: &str = include_str!("../tests/data/cosign-3.1.3.key");

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn open(text: &str, passphrase: &str) -> Result<Secret, OpenError> {
        unseal(text.as_bytes(), &secret(passphrase), &Derivations::default())
    }

    fn part(text: &str, of: &str, name: &str) -> serde_json::Value {
        let (_, json) = pem::decode_vec(text.as_bytes()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        value[of][name].clone()
    }

    fn edited(edit: impl Fn(&mut serde_json::Value)) -> String {
        let (_, json) = pem::decode_vec(OF_COSIGN.as_bytes()).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        edit(&mut value);
        pem::encode_string(HEADER, LineEnding::LF, &serde_json::to_vec(&value).unwrap()).unwrap()
    }

    fn refusal(text: &str) -> String {
        match open(text, "x") {
            Err(OpenError::Format(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_file_of_cosign_opens_with_its_passphrase_only() {
        assert_eq!(open(OF_COSIGN, "x").unwrap().expose()[0], 0x30);
        assert_eq!(open(OF_COSIGN, "y"), Err(OpenError::Locked));
        let old = OF_COSIGN.replace("SIGSTORE", "COSIGN");
        assert!(open(&old, "x").is_ok());
        let other = OF_COSIGN.replace("ENCRYPTED SIGSTORE PRIVATE KEY", "PRIVATE KEY");
        assert!(refusal(&other).contains("PEM label is \"PRIVATE KEY\""));
    }

    #[test]
    fn what_is_sealed_opens_again_and_never_looks_the_same() {
        let key = secret("the key");
        let derivations = Derivations::default();
        let [one, two] = [(); 2].map(|()| seal(&key, &secret("x"), &derivations).unwrap());
        assert_ne!(one, two);
        assert!(open(&two, "x").unwrap() == key);
        assert_eq!(open(&two, "y"), Err(OpenError::Locked));
        assert!(one.ends_with("-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n") && !one.contains('\r'));
        assert!(open(&one, "x").unwrap() == key);
    }

    #[test]
    fn keys_of_one_passphrase_share_a_salt_and_never_a_nonce() {
        let derivations = Derivations::default();
        let make = |passphrase: &str| seal(&secret("the key"), &secret(passphrase), &derivations).unwrap();
        let (one, two, other) = (make("x"), make("x"), make("y"));
        assert_eq!(part(&one, "kdf", "salt"), part(&two, "kdf", "salt"));
        assert_ne!(part(&one, "cipher", "nonce"), part(&two, "cipher", "nonce"));
        assert_ne!(part(&one, "kdf", "salt"), part(&other, "kdf", "salt"));
        let beside = seal(&secret("the key"), &secret("x"), &Derivations::default()).unwrap();
        assert_ne!(part(&one, "kdf", "salt"), part(&beside, "kdf", "salt"), "another process begins with another salt");
    }

    #[test]
    fn what_was_derived_opens_only_what_its_passphrase_and_salt_opened() {
        let derivations = Derivations::default();
        let opened = |text: &str, passphrase: &str| unseal(text.as_bytes(), &secret(passphrase), &derivations);
        assert!(opened(OF_COSIGN, "x").is_ok());
        assert_eq!(opened(OF_COSIGN, "y"), Err(OpenError::Locked));
        assert!(opened(OF_COSIGN, "x").is_ok());
        let salted = edited(|file| file["kdf"]["salt"] = STANDARD.encode([7; SALT_BYTES]).into());
        assert_eq!(opened(&salted, "x"), Err(OpenError::Locked));
        assert_eq!(opened(&edited(|file| file["kdf"]["params"]["N"] = 32_768.into()), "x"), Err(OpenError::Locked));
    }

    #[test]
    fn a_damaged_ciphertext_does_not_open() {
        let damaged = edited(|file| {
            let mut bytes = STANDARD.decode(file["ciphertext"].as_str().unwrap()).unwrap();
            bytes[20] ^= 1;
            file["ciphertext"] = STANDARD.encode(bytes).into();
        });
        assert_eq!(open(&damaged, "x"), Err(OpenError::Locked));
    }

    #[test]
    fn scrypt_parameters_are_bounded_at_n_and_n_plus_one() {
        let ok = |n, r, p| bounded(Params { n, r, p }).is_ok();
        assert!(ok(65_536, 8, 1) && ok(32_768, 8, 1));
        assert!(ok(1 << 20, 8, 4) && !ok(1 << 21, 8, 1) && !ok(65_537, 8, 1) && !ok(1, 8, 1) && !ok(0, 8, 1));
        assert!(ok(65_536, 16, 1) && !ok(65_536, 17, 1) && !ok(65_536, 0, 1));
        assert!(ok(65_536, 8, 4) && !ok(65_536, 8, 5) && !ok(65_536, 8, 0));
        assert!(ok(1 << 19, 16, 1) && !ok(1 << 20, 16, 1));
        assert!(refusal(&edited(|file| file["kdf"]["params"]["N"] = (1_u64 << 40).into())).contains("scrypt N"));
        assert!(refusal(&edited(|file| file["kdf"]["params"]["r"] = u32::MAX.into())).contains("scrypt r"));
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        assert!(refusal(&edited(|file| file["kdf"]["name"] = "argon2".into())).contains("\"argon2\""));
        assert!(refusal(&edited(|file| file["cipher"]["name"] = "aes".into())).contains("\"aes\""));
        assert!(refusal(&edited(|file| file["cipher"]["nonce"] = "AAAA".into())).contains("24 bytes"));
        assert!(refusal(&edited(|file| file["kdf"]["salt"] = "!".into())).contains("not base64"));
        assert!(refusal("").contains("not a PEM file"));
        assert!(refusal(&edited(|file| *file = serde_json::json!([]))).contains("JSON"));
    }
}
