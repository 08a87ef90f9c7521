use std::os::unix::fs::MetadataExt;

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519 as RING_ED25519, UnparsedPublicKey};

use super::*;

const COSIGN_KEY: &str = include_str!("../../tests/data/cosign-3.1.3.key");
const COSIGN_PUB: &str = include_str!("../../tests/data/cosign-3.1.3.pub");
/// The last 65 bytes of a P-256 SubjectPublicKeyInfo are the point.
const POINT: usize = 65;

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn folder() -> (tempfile::TempDir, KeyFolder) {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyFolder::open(dir.path().join("keys"));
    (dir, keys)
}

fn reason(error: SignError) -> String {
    match error {
        SignError::KeyFile { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn plant(keys: &KeyFolder, name: &str, pkcs8: &[u8]) {
    fs::create_dir_all(&keys.folder).unwrap();
    let text = key_file::seal(&Secret::new(pkcs8.to_vec()), &secret("x"), &Derivations::default()).unwrap();
    fs::write(keys.folder.join(format!("{name}.key")), text).unwrap();
}

#[test]
fn a_key_that_was_made_opens_and_signs_the_same_each_time() {
    let (_dir, keys) = folder();
    keys.generate("steps", &secret("pass")).unwrap();
    assert!(keys.has("steps").unwrap() && !keys.has("other").unwrap());
    let signer = keys.open_signer("steps", &secret("pass")).unwrap();
    assert_eq!((signer.name(), signer.public_key()), ("steps", keys.public_key("steps").unwrap().as_slice()));
    let signature = signer.sign(b"message").unwrap();
    assert_eq!(signature, signer.sign(b"message").unwrap());
    let point = &signer.public_key()[signer.public_key().len() - POINT..];
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    assert!(public.verify(b"message", &signature).is_ok());
    assert!(public.verify(b"massage", &signature).is_err());
    assert!(matches!(keys.open_signer("steps", &secret("past")), Err(SignError::Locked { .. })));
    assert!(matches!(keys.open_signer("other", &secret("pass")), Err(SignError::NoKey { .. })));
}

#[test]
fn the_private_half_is_for_its_owner_only() {
    let (_dir, keys) = folder();
    keys.generate("steps", &secret("pass")).unwrap();
    let mode = |name: &str| fs::metadata(keys.folder.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("steps.key"), mode("steps.pub"), mode(".")), (0o600, 0o644, 0o700));
    assert_eq!(fs::read_dir(&keys.folder).unwrap().count(), 2);
    let public = fs::read_to_string(keys.folder.join("steps.pub")).unwrap();
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----\n") && !public.contains('\r'));
}

#[test]
fn an_existing_key_is_never_overwritten() {
    let (_dir, keys) = folder();
    keys.generate("steps", &secret("pass")).unwrap();
    let before = fs::read(keys.folder.join("steps.key")).unwrap();
    assert!(matches!(keys.generate("steps", &secret("pass")), Err(SignError::KeyExists { .. })));
    assert!(matches!(keys.generate_log_key("steps", &secret("pass")), Err(SignError::KeyExists { .. })));
    assert_eq!(fs::read(keys.folder.join("steps.key")).unwrap(), before);

    fs::write(keys.folder.join("half.pub"), "a public key without its private half").unwrap();
    assert!(matches!(keys.generate("half", &secret("pass")), Err(SignError::KeyExists { .. })));
    assert!(!keys.has("half").unwrap());
    // The same between the look and the write: what another process placed meanwhile stays.
    let spki = keys.public_key("steps").unwrap();
    assert!(matches!(keys.write("half", &secret("k"), &spki, &secret("p")), Err(SignError::KeyExists { .. })));
    assert!(!keys.has("half").unwrap());
    assert_eq!(fs::read_to_string(keys.folder.join("half.pub")).unwrap(), "a public key without its private half");
}

#[test]
fn a_key_of_cosign_opens_and_has_its_public_half() {
    let (_dir, keys) = folder();
    fs::create_dir_all(&keys.folder).unwrap();
    fs::write(keys.folder.join("theirs.key"), COSIGN_KEY).unwrap();
    let alone = keys.open_signer("theirs", &secret("x")).unwrap();
    fs::write(keys.folder.join("theirs.pub"), COSIGN_PUB).unwrap();
    let signer = keys.open_signer("theirs", &secret("x")).unwrap();
    assert_eq!(alone.public_key(), signer.public_key());
    assert_eq!(pem::encode_string(PUBLIC_LABEL, LineEnding::LF, signer.public_key()).unwrap(), COSIGN_PUB);
}

#[test]
fn a_public_half_of_another_key_is_refused() {
    let (_dir, keys) = folder();
    keys.generate("one", &secret("x")).unwrap();
    keys.generate("two", &secret("x")).unwrap();
    assert!(keys.open_signer("one", &secret("x")).is_ok());
    fs::copy(keys.folder.join("two.pub"), keys.folder.join("one.pub")).unwrap();
    assert!(reason(keys.open_signer("one", &secret("x")).unwrap_err()).contains("another public key"));
    fs::write(keys.folder.join("one.pub"), "").unwrap();
    assert!(reason(keys.open_signer("one", &secret("x")).unwrap_err()).contains("not a PEM file"));
    fs::copy(keys.folder.join("one.key"), keys.folder.join("one.pub")).unwrap();
    assert!(reason(keys.open_signer("one", &secret("x")).unwrap_err()).contains("PEM label"));
}

#[test]
fn a_log_key_is_ed25519_and_signs_no_statement() {
    let (_dir, keys) = folder();
    keys.generate_log_key("log", &secret("x")).unwrap();
    keys.generate("steps", &secret("x")).unwrap();
    let key = keys.open_log_key("log", &secret("x")).unwrap();
    assert_eq!(key.spki(), keys.public_key("log").unwrap());
    assert_eq!(key.public_key(), &keys.log_public_key("log").unwrap());
    assert!(reason(keys.log_public_key("steps").unwrap_err()).contains("no Ed25519 key"));
    assert!(UnparsedPublicKey::new(&RING_ED25519, key.public_key()).verify(b"m", &key.sign(b"m")).is_ok());
    assert!(reason(keys.open_signer("log", &secret("x")).unwrap_err()).contains("holds a Ed25519 key"));
    assert!(reason(keys.open_log_key("steps", &secret("x")).unwrap_err()).contains("holds a P-256 key"));
    let (one, two) = (LogKey::from_seed([7; 32]), LogKey::from_seed([7; 32]));
    assert_eq!(one.public_key(), two.public_key());
}

#[test]
fn other_algorithms_are_refused_by_name() {
    let (_dir, keys) = folder();
    let key = |oid: &str, parameters: &[u8]| {
        let oid = ObjectIdentifier::new(oid).unwrap();
        let oid = [&[6, u8::try_from(oid.as_bytes().len()).unwrap()], oid.as_bytes()].concat();
        let algorithm = [&oid[..], parameters].concat();
        let algorithm = [&[0x30, u8::try_from(algorithm.len()).unwrap()][..], &algorithm].concat();
        let inner = [&[2, 1, 0][..], &algorithm, &[4, 3, 1, 2, 3]].concat();
        [&[0x30, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
    };
    let p384 = [6, 5, 0x2b, 0x81, 4, 0, 0x22];
    let p521 = [6, 5, 0x2b, 0x81, 4, 0, 0x23];
    for (name, pkcs8, word) in [
        ("rsa", key("1.2.840.113549.1.1.1", &[5, 0]), "a RSA key"),
        ("p384", key("1.2.840.10045.2.1", &p384), "a P-384 key"),
        ("p521", key("1.2.840.10045.2.1", &p521), "a P-521 key"),
        ("other", key("1.2.3.4", &[]), "a 1.2.3.4 key"),
        ("junk", b"junk".to_vec(), "not PKCS#8"),
    ] {
        plant(&keys, name, &pkcs8);
        let reason = reason(keys.open_signer(name, &secret("x")).unwrap_err());
        assert!(reason.contains(word), "{reason}");
        assert!(keys.open_log_key(name, &secret("x")).is_err());
    }
    let good = random_scalar().unwrap().to_pkcs8_der().unwrap();
    plant(&keys, "good", good.as_bytes());
    assert!(keys.open_signer("good", &secret("x")).is_ok());
}

#[test]
fn names_are_not_paths() {
    let (_dir, keys) = folder();
    for bad in ["", "../steps", "a/b", "Steps", ".hidden", "-x", "a.b", "a\0b", &"x".repeat(129)] {
        assert!(reason(keys.generate(bad, &secret("x")).unwrap_err()).contains("lower-case letters"), "{bad:?}");
        assert!(keys.open_signer(bad, &secret("x")).is_err() && keys.public_key(bad).is_err(), "{bad:?}");
    }
    assert!(keys.path(&"x".repeat(128), "key").is_ok());
    assert!(keys.path("decisions-production_2", "key").is_ok());
}

#[test]
fn a_key_file_is_read_up_to_its_limit() {
    let (_dir, keys) = folder();
    fs::create_dir_all(&keys.folder).unwrap();
    let pad = |length: usize| {
        let mut text = COSIGN_KEY.to_owned();
        text.insert_str(0, &format!("{}\n", "#".repeat(length - text.len() - 1)));
        text
    };
    fs::write(keys.folder.join("big.key"), pad(64 * 1024)).unwrap();
    assert!(keys.open_signer("big", &secret("x")).is_ok());
    fs::write(keys.folder.join("big.key"), pad(64 * 1024 + 1)).unwrap();
    assert!(
        matches!(keys.open_signer("big", &secret("x")), Err(SignError::Io { reason, .. }) if reason.contains("64 KiB"))
    );
}

#[test]
fn keys_do_not_print() {
    let (_dir, keys) = folder();
    plant(&keys, "good", random_scalar().unwrap().to_pkcs8_der().unwrap().as_bytes());
    let signer = keys.open_signer("good", &secret("x")).unwrap();
    assert_eq!(format!("{signer:?}"), "P256Signer { name: \"good\", .. }");
}
