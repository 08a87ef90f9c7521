//! The folder of signing keys: `NAME.key`, encrypted as cosign does it, beside `NAME.pub`, a PEM public key.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use p256::{
    NistP256, SecretKey,
    ecdsa::{Signature, SigningKey, signature::Signer as _},
    elliptic_curve::pkcs8::AssociatedOid,
    pkcs8::{
        DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding, ObjectIdentifier, PrivateKeyInfoRef, der::pem,
    },
};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use sluicegate_ports::sign::{SignError, Signer};
use sluicegate_types::Secret;

use crate::key_file::{self, Derivations, OpenError};

const NAME_LIMIT: usize = 128;
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// PKCS#8 version 1 of an Ed25519 seed (RFC 8410 section 7), up to the 32 bytes of the seed.
const ED25519_PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4), up to the 32 bytes of the key.
const ED25519_SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A folder of keys. Nothing in it is ever overwritten or removed. What passphrases give is derived once for it and its clones.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    derivations: Arc<Derivations>,
}

/// A P-256 key that signs with SHA-256 (RFC 6979: the same message gives the same signature).
pub struct P256Signer {
    name: String,
    key: SigningKey,
    spki: Vec<u8>,
}

/// The Ed25519 key of a transparency log; it signs checkpoints and nothing else.
pub struct LogKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl KeyFolder {
    /// Names the folder; it is looked at when a key is asked for and made, mode 0700, with the first key.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), derivations: Arc::default() }
    }

    /// Makes a P-256 key: `NAME.key` (mode 0600, readable by cosign with the same passphrase) and `NAME.pub`, both durable when this
    /// returns. [`SignError::KeyExists`] if either file is there.
    pub fn generate(&self, name: &str, passphrase: &Secret) -> Result<(), SignError> {
        let broken = |reason: String| SignError::Io { action: format!("make the key {name:?}"), reason };
        self.refuse_existing(name)?;
        let secret = random_scalar().map_err(broken)?;
        let pkcs8 = secret.to_pkcs8_der().map_err(|error| broken(error.to_string()))?;
        let spki = secret.public_key().to_public_key_der().map_err(|error| broken(error.to_string()))?;
        self.write(name, &Secret::new(pkcs8.as_bytes().to_vec()), spki.as_bytes(), passphrase)
    }

    /// Makes an Ed25519 log key in the same two files.
    pub fn generate_log_key(&self, name: &str, passphrase: &Secret) -> Result<(), SignError> {
        self.refuse_existing(name)?;
        let mut pkcs8 = ED25519_PKCS8.to_vec();
        pkcs8.resize(ED25519_PKCS8.len() + 32, 0);
        let failed =
            |reason: &str| SignError::Io { action: format!("make the key {name:?}"), reason: reason.to_owned() };
        SystemRandom::new()
            .fill(&mut pkcs8[ED25519_PKCS8.len()..])
            .map_err(|_| failed("the system gives no random bytes"))?;
        let pkcs8 = Secret::new(pkcs8);
        let key = LogKey::from_pkcs8(pkcs8.expose()).map_err(|reason| failed(&reason))?;
        self.write(name, &pkcs8, &key.spki(), passphrase)
    }

    /// Opens a P-256 key of this folder or one that cosign made. Every other algorithm is refused by name, and so is a key whose
    /// `NAME.pub` is there and holds another one.
    pub fn open_signer(&self, name: &str, passphrase: &Secret) -> Result<P256Signer, SignError> {
        let pkcs8 = self.unseal(name, passphrase)?;
        let file = |reason: String| SignError::KeyFile { name: cut(name), reason };
        let algorithm = algorithm_of(pkcs8.expose()).map_err(file)?;
        if algorithm != "P-256" {
            return Err(file(format!("it holds a {algorithm} key; only P-256 keys sign in this version")));
        }
        let secret = SecretKey::from_pkcs8_der(pkcs8.expose()).map_err(|error| file(error.to_string()))?;
        let spki = secret.public_key().to_public_key_der().map_err(|error| file(error.to_string()))?.into_vec();
        self.compare_public(name, &spki)?;
        Ok(P256Signer { name: name.to_owned(), key: SigningKey::from(secret), spki })
    }

    /// Opens an Ed25519 log key; the same checks as [`KeyFolder::open_signer`].
    pub fn open_log_key(&self, name: &str, passphrase: &Secret) -> Result<LogKey, SignError> {
        let pkcs8 = self.unseal(name, passphrase)?;
        let file = |reason: String| SignError::KeyFile { name: cut(name), reason };
        let algorithm = algorithm_of(pkcs8.expose()).map_err(file)?;
        if algorithm != "Ed25519" {
            return Err(file(format!("it holds a {algorithm} key; a log key is Ed25519")));
        }
        let key = LogKey::from_pkcs8(pkcs8.expose()).map_err(file)?;
        self.compare_public(name, &key.spki())?;
        Ok(key)
    }

    /// The DER SubjectPublicKeyInfo in `NAME.pub`, without a passphrase; [`SignError::NoKey`] if there is no such file.
    /// What it says is not checked against the private key.
    pub fn public_key(&self, name: &str) -> Result<Vec<u8>, SignError> {
        let text = read_bounded(&self.path(name, "pub")?).map_err(|error| self.unreadable(name, "pub", &error))?;
        match pem::decode_vec(&text) {
            Ok((PUBLIC_LABEL, spki)) => Ok(spki),
            Ok((label, _)) => Err(SignError::KeyFile {
                name: cut(name),
                reason: format!("the PEM label of {name}.pub is {label:?}, not {PUBLIC_LABEL:?}"),
            }),
            Err(error) => {
                Err(SignError::KeyFile { name: cut(name), reason: format!("{name}.pub is not a PEM file: {error}") })
            }
        }
    }

    /// The Ed25519 public key in `NAME.pub`, without a passphrase; the same limits as [`KeyFolder::public_key`].
    pub fn log_public_key(&self, name: &str) -> Result<[u8; 32], SignError> {
        let spki = self.public_key(name)?;
        spki.strip_prefix(&ED25519_SPKI).and_then(|key| key.try_into().ok()).ok_or_else(|| SignError::KeyFile {
            name: cut(name),
            reason: format!("{name}.pub holds no Ed25519 key; a log key is Ed25519"),
        })
    }

    /// Whether `NAME.key` is there.
    pub fn has(&self, name: &str) -> Result<bool, SignError> {
        self.is_there(name, "key")
    }

    fn path(&self, name: &str, extension: &str) -> Result<PathBuf, SignError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !starts || name.len() > NAME_LIMIT || !name.bytes().all(fits) {
            return Err(SignError::KeyFile {
                name: cut(name),
                reason: format!(
                    "a key's name has lower-case letters, digits, - and _, a letter or digit first, at most {NAME_LIMIT}"
                ),
            });
        }
        Ok(self.folder.join(format!("{name}.{extension}")))
    }

    fn is_there(&self, name: &str, extension: &str) -> Result<bool, SignError> {
        match self.path(name, extension)?.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.unreadable(name, extension, &error)),
        }
    }

    fn refuse_existing(&self, name: &str) -> Result<(), SignError> {
        for extension in ["key", "pub"] {
            if self.is_there(name, extension)? {
                return Err(SignError::KeyExists { name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, pkcs8: &Secret, spki: &[u8], passphrase: &Secret) -> Result<(), SignError> {
        let failed = |reason: String| SignError::Io { action: format!("write the key {name:?}"), reason };
        let private = key_file::seal(pkcs8, passphrase, &self.derivations).map_err(failed)?;
        let public =
            pem::encode_string(PUBLIC_LABEL, LineEnding::LF, spki).map_err(|error| failed(error.to_string()))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| failed(format!("{}: {error}", self.folder.display())))?;
        let (key, public_key) = (self.path(name, "key")?, self.path(name, "pub")?);
        self.place(name, &key, private.as_bytes(), 0o600)?;
        if let Err(error) = self.place(name, &public_key, public.as_bytes(), 0o644) {
            // The private half was placed a moment ago by this call: without its public half it is nobody's key.
            let _ = fs::remove_file(&key);
            return Err(error);
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(error.to_string()))
    }

    /// Whole or not at all, and never over another file.
    fn place(&self, name: &str, path: &Path, bytes: &[u8], mode: u32) -> Result<(), SignError> {
        let failed = |error: io::Error| SignError::Io {
            action: format!("write the key file {}", path.display()),
            reason: error.to_string(),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)
            .map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(SignError::KeyExists { name: name.to_owned() })
            }
            Err(error) => Err(failed(error.error)),
        }
    }

    fn unseal(&self, name: &str, passphrase: &Secret) -> Result<Secret, SignError> {
        let text = read_bounded(&self.path(name, "key")?).map_err(|error| self.unreadable(name, "key", &error))?;
        key_file::unseal(&text, passphrase, &self.derivations).map_err(|error| match error {
            OpenError::Locked => SignError::Locked { name: name.to_owned() },
            OpenError::Format(reason) => SignError::KeyFile { name: name.to_owned(), reason },
        })
    }

    fn compare_public(&self, name: &str, spki: &[u8]) -> Result<(), SignError> {
        match self.public_key(name) {
            Ok(found) if found == spki => Ok(()),
            Err(SignError::NoKey { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(SignError::KeyFile {
                name: name.to_owned(),
                reason: format!("{name}.pub holds another public key than {name}.key; restore both from one backup"),
            }),
        }
    }

    fn unreadable(&self, name: &str, extension: &str, error: &io::Error) -> SignError {
        if error.kind() == io::ErrorKind::NotFound {
            return SignError::NoKey { name: name.to_owned(), folder: self.folder.display().to_string() };
        }
        SignError::Io {
            action: format!("read the key file {}", self.folder.join(format!("{name}.{extension}")).display()),
            reason: error.to_string(),
        }
    }
}

impl Signer for P256Signer {
    fn name(&self) -> &str {
        &self.name
    }

    fn public_key(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature: Signature = self.key.try_sign(message).map_err(|error| SignError::Io {
            action: format!("sign with the key {:?}", self.name),
            reason: error.to_string(),
        })?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

impl std::fmt::Debug for P256Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("P256Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LogKey {
    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// The public key as DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        ed25519_spki(&self.public)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// A key made of these 32 secret bytes, for tests that need the same log twice.
    #[cfg(test)]
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self::from_pkcs8(&[&ED25519_PKCS8[..], &seed].concat()).unwrap()
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|error| error.to_string())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| "its public key is not 32 bytes".to_owned())?;
        Ok(Self { pair, public })
    }
}

impl std::fmt::Debug for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// DER SubjectPublicKeyInfo of an Ed25519 public key (RFC 8410 section 4).
pub(crate) fn ed25519_spki(public: &[u8; 32]) -> Vec<u8> {
    [&ED25519_SPKI[..], public].concat()
}

fn random_scalar() -> Result<SecretKey, String> {
    let random = SystemRandom::new();
    // A draw fails with a chance of 2^-32: the value was zero or not below the order of the curve.
    for _ in 0..16 {
        let mut bytes = vec![0; 32];
        random.fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
        let bytes = Secret::new(bytes);
        if let Ok(secret) = SecretKey::from_slice(bytes.expose()) {
            return Ok(secret);
        }
    }
    Err("the system's random bytes make no key".to_owned())
}

/// The name of the algorithm of a PKCS#8 key, for messages and for the one decision which is taken.
fn algorithm_of(pkcs8: &[u8]) -> Result<String, String> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|error| format!("what it holds is not PKCS#8: {error}"))?;
    if info.algorithm.oid == ED25519 {
        return Ok("Ed25519".into());
    }
    if info.algorithm.oid != EC_PUBLIC_KEY {
        let oid = info.algorithm.oid.to_string();
        return Ok(if oid == "1.2.840.113549.1.1.1" { "RSA".into() } else { oid });
    }
    let curve = info.algorithm.parameters_oid().map_err(|error| format!("its curve has no name: {error}"))?;
    if curve == NistP256::OID {
        return Ok("P-256".into());
    }
    Ok(match curve.to_string().as_str() {
        "1.3.132.0.34" => "P-384".into(),
        "1.3.132.0.35" => "P-521".into(),
        other => format!("curve {other}"),
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(key_file::FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > key_file::FILE_LIMIT {
        return Err(io::Error::other(format!("it is larger than {} KiB", key_file::FILE_LIMIT / 1024)));
    }
    Ok(bytes)
}

fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
