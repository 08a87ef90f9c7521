use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use crypto_secretbox::{
    XSalsa20Poly1305,
    aead::{Aead, KeyInit},
};
use p256::pkcs8::{LineEnding, der::pem};
use serde_json::{Value, json};

/// Seals every key of a home's folder anew under the same passphrase, with a derivation that costs nothing. Tests open keys by the
/// hundred, and as cosign derives them each takes a tenth of a second and 64 MiB.
pub fn reseal_cheaply(keys: &Path, passphrase: &[u8]) {
    for entry in fs::read_dir(keys).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let text = fs::read(&path).unwrap();
            fs::write(path, resealed(&text, passphrase)).unwrap();
        }
    }
}

fn resealed(text: &[u8], passphrase: &[u8]) -> String {
    let (label, json) = pem::decode_vec(text).unwrap();
    let mut file: Value = serde_json::from_slice(&json).unwrap();
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap()).unwrap();
    let nonce: [u8; 24] = bytes(&file["cipher"]["nonce"]).try_into().unwrap();
    let (salt, ciphertext) = (bytes(&file["kdf"]["salt"]), bytes(&file["ciphertext"]));
    let pkcs8 = secretbox(&file, passphrase, &salt).decrypt(&nonce.into(), ciphertext.as_slice()).unwrap();
    file["kdf"]["params"]["N"] = json!(2);
    let ciphertext = secretbox(&file, passphrase, &salt).encrypt(&nonce.into(), pkcs8.as_slice()).unwrap();
    file["ciphertext"] = json!(BASE64.encode(ciphertext));
    pem::encode_string(label, LineEnding::LF, file.to_string().as_bytes()).unwrap()
}

fn secretbox(file: &Value, passphrase: &[u8], salt: &[u8]) -> XSalsa20Poly1305 {
    let number = |name: &str| file["kdf"]["params"][name].as_u64().unwrap();
    let log_n = u8::try_from(number("N").trailing_zeros()).unwrap();
    let parameters = scrypt::Params::new(log_n, number("r") as u32, number("p") as u32).unwrap();
    let mut key = [0; 32];
    scrypt::scrypt(passphrase, salt, &parameters, &mut key).unwrap();
    XSalsa20Poly1305::new_from_slice(&key).unwrap()
}
