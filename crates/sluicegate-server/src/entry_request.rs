//! What a client asks to have logged: protojson to a log body whose signature was verified.
//!
//! Read as strictly as the real server reads it: a name that is not in the message is an error, in either of the two spellings of
//! protojson; so is one that is given twice.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier},
    pkcs8::{DecodePublicKey, EncodePublicKey},
};
use sluicegate_attestation::bundle::hashedrekord_body;
use sluicegate_types::Digest;

use self::object::{Field, Object};

mod object;

/// The one key and hash whose signatures this log takes.
const P256_SHA256: (&str, i32) = ("PKIX_ECDSA_P256_SHA_256", 5);
/// What the real server says about a request that it can read and does not believe.
const NOT_BELIEVED: &str = "invalid hashedrekord request";
/// The other key kinds of protobuf-specs, each with its number.
const OTHER_KEYS: [(&str, i32); 22] = [
    ("PKCS1_RSA_PKCS1V5", 1),
    ("PKCS1_RSA_PSS", 2),
    ("PKIX_RSA_PKCS1V5", 3),
    ("PKIX_RSA_PSS", 4),
    ("PKIX_ECDSA_P256_HMAC_SHA_256", 6),
    ("PKIX_ED25519", 7),
    ("PKIX_ED25519_PH", 8),
    ("PKIX_RSA_PKCS1V15_2048_SHA256", 9),
    ("PKIX_RSA_PKCS1V15_3072_SHA256", 10),
    ("PKIX_RSA_PKCS1V15_4096_SHA256", 11),
    ("PKIX_ECDSA_P384_SHA_384", 12),
    ("PKIX_ECDSA_P521_SHA_512", 13),
    ("LMS_SHA256", 14),
    ("LMOTS_SHA256", 15),
    ("PKIX_RSA_PSS_2048_SHA256", 16),
    ("PKIX_RSA_PSS_3072_SHA256", 17),
    ("PKIX_RSA_PSS_4096_SHA256", 18),
    ("PKIX_ECDSA_P384_SHA_256", 19),
    ("PKIX_ECDSA_P521_SHA_256", 20),
    ("ML_DSA_65", 21),
    ("ML_DSA_87", 22),
    ("ML_DSA_44", 23),
];

/// Reads a request, verifies its signature, and returns the canonical body to log. An error is the message for the client.
pub(crate) fn verified_body(request: &[u8]) -> Result<Vec<u8>, String> {
    let asked = HashedRekord::parse(request)?;
    let digest: [u8; 32] = asked.digest.as_slice().try_into().map_err(|_| NOT_BELIEVED)?;
    let key = VerifyingKey::from_public_key_der(&asked.public_key).map_err(|_| NOT_BELIEVED)?;
    // One key has one encoding: what is logged is what a verifier builds again from the key.
    let encoded = key.to_public_key_der().map_err(|_| NOT_BELIEVED)?;
    if encoded.as_bytes() != asked.public_key {
        return Err(NOT_BELIEVED.to_owned());
    }
    let signature = Signature::from_der(&asked.signature).map_err(|_| NOT_BELIEVED)?;
    key.verify_prehash(&digest, &signature).map_err(|_| NOT_BELIEVED)?;
    Ok(hashedrekord_body(&Digest::from_bytes(digest), &asked.signature, &asked.public_key))
}

/// A request that can be read; nothing in it is verified.
struct HashedRekord {
    digest: Vec<u8>,
    signature: Vec<u8>,
    public_key: Vec<u8>,
}

impl HashedRekord {
    fn parse(request: &[u8]) -> Result<Self, String> {
        const NO_HASHEDREKORD: &str = "invalid type, must be hashedrekord";
        // An empty body is an empty message to the real server.
        if request.is_empty() {
            return Err(NO_HASHEDREKORD.to_owned());
        }
        let text = str::from_utf8(request).map_err(|_| "invalid UTF-8 in the request".to_owned())?;
        let spec = Object::read(text)?.fields(&["hashedRekordRequestV002", "dsseRequestV002"])?;
        one_of("dev.sigstore.rekor.v2.CreateEntryRequest.spec", &spec)?;
        let [Some(hashed), None] = spec else {
            return Err(NO_HASHEDREKORD.to_owned());
        };
        let [digest, signature] = hashed.object()?.fields(&["digest", "signature"])?;
        let digest = bytes("digest", digest)?;
        let [content, verifier] = object(signature)?.fields(&["content", "verifier"])?;
        let content = bytes("content", content)?;
        let [public_key, certificate, details] =
            object(verifier)?.fields(&["publicKey", "x509Certificate", "keyDetails"])?;
        one_of("dev.sigstore.rekor.v2.Verifier.verifier", &[public_key, certificate])?;
        let [key] = object(public_key)?.fields(&["rawBytes"])?;
        let public_key = bytes("rawBytes", key)?;
        let details = key_details(details)?;
        if certificate.is_some() {
            return Err(
                "x509Certificate: this log takes signatures of public keys only, not of certificates".to_owned()
            );
        }
        if let Some(other) = details {
            return Err(format!("keyDetails {other}: this log takes signatures of kind {} only", P256_SHA256.0));
        }
        Ok(Self { digest, signature: content, public_key })
    }
}

/// A message that may be left out: then none of its fields is set.
fn object(field: Option<Field<'_>>) -> Result<Object<'_>, String> {
    field.map_or_else(|| Ok(Object::default()), Field::object)
}

/// Refuses two fields of which a message may have one.
fn one_of(name: &str, fields: &[Option<Field<'_>>; 2]) -> Result<(), String> {
    let [Some(one), Some(other)] = fields else {
        return Ok(());
    };
    let second = if one.begins_before(other) { other } else { one };
    Err(format!("proto: ({}): error parsing {}, oneof {name} is already set", second.place(), second.written()))
}

/// Bytes as protojson reads them: standard or URL-safe base64, with or without padding.
fn bytes(name: &str, field: Option<Field<'_>>) -> Result<Vec<u8>, String> {
    const FORGIVING: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, FORGIVING);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, FORGIVING);
    let Some(field) = field else {
        return Ok(Vec::new());
    };
    let invalid = || field.invalid(&format!("bytes field {name}"));
    let text: String = serde_json::from_str(field.value()).map_err(|_| invalid())?;
    let engine = if text.contains(['-', '_']) { URL } else { PLAIN };
    engine.decode(text).map_err(|_| invalid())
}

/// The name of the key's kind, if it is not the one that is taken. Names and numbers are equally good in protojson.
fn key_details(field: Option<Field<'_>>) -> Result<Option<&'static str>, String> {
    let Some(field) = field else {
        return Err(NOT_BELIEVED.to_owned());
    };
    let name = serde_json::from_str::<String>(field.value()).ok();
    let number = serde_json::from_str::<i32>(field.value()).ok();
    let is = |kind: &(&str, i32)| name.as_deref() == Some(kind.0) || number == Some(kind.1);
    if is(&P256_SHA256) {
        return Ok(None);
    }
    match (OTHER_KEYS.iter().find(|kind| is(kind)), number) {
        (Some((name, _)), _) => Ok(Some(name)),
        // A number that means nothing is read by protojson, and believed by nobody.
        (None, Some(_)) => Err(NOT_BELIEVED.to_owned()),
        (None, None) if name.as_deref() == Some("PUBLIC_KEY_DETAILS_UNSPECIFIED") => Err(NOT_BELIEVED.to_owned()),
        (None, None) => Err(field.invalid("enum field keyDetails")),
    }
}
