//! Certificates as OPA's `crypto.x509.parse_certificates` shows them, under the names that Go gives their parts. Nothing about them is
//! verified, there or here. Of what Go shows, this has names, validity, serial number, alternative names and whether it is an authority.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regorus::Value;
use serde_json::{Value as Json, json};
use x509_cert::{
    Certificate,
    der::{Decode, Encode, Reader, SliceReader, oid::ObjectIdentifier},
    ext::pkix::{BasicConstraints, SubjectAltName, name::GeneralName},
    name::Name,
};

/// Bytes of one text, and certificates in it.
const MAX_TEXT: usize = 1024 * 1024;
const MAX_CERTIFICATES: usize = 64;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in a text: PEM, or base64 of PEM or of one DER behind the other.
pub(super) fn certificates(text: &str) -> Option<Value> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let decoded = if text.contains(BEGIN) { text.as_bytes().to_vec() } else { base64(text)? };
    let ders = match std::str::from_utf8(&decoded) {
        Ok(pem) if pem.contains(BEGIN) => of_pem(pem)?,
        _ => one_by_one(&decoded)?,
    };
    let certificates = ders.iter().map(|der| shown(&Certificate::from_der(der).ok()?, der));
    let certificates: Vec<Json> = certificates.collect::<Option<_>>()?;
    Some(Value::from(Json::from(certificates)))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.split_whitespace().collect::<String>()).ok()
}

fn of_pem(pem: &str) -> Option<Vec<Vec<u8>>> {
    let blocks = pem.split(BEGIN).skip(1).map(|block| base64(block.split(END).next()?));
    let ders: Vec<Vec<u8>> = blocks.collect::<Option<_>>()?;
    (ders.len() <= MAX_CERTIFICATES).then_some(ders)
}

fn one_by_one(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let mut ders = Vec::new();
    while !reader.is_finished() && ders.len() < MAX_CERTIFICATES {
        ders.push(reader.tlv_bytes().ok()?.to_vec());
    }
    (reader.is_finished() && !ders.is_empty()).then_some(ders)
}

fn shown(certificate: &Certificate, der: &[u8]) -> Option<Json> {
    let inner = &certificate.tbs_certificate;
    let moment = |time: x509_cert::time::Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
        Some(sluicegate_types::UnixTime::from_seconds(seconds).ok()?.to_string())
    };
    let (mut names, mut mails, mut uris, mut addresses, mut authority) = (vec![], vec![], vec![], vec![], false);
    for extension in inner.extensions.iter().flatten() {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id.to_string().as_str() {
            "2.5.29.17" => {
                for name in SubjectAltName::from_der(value).ok()?.0 {
                    match name {
                        GeneralName::DnsName(name) => names.push(name.to_string()),
                        GeneralName::Rfc822Name(name) => mails.push(name.to_string()),
                        GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                        GeneralName::IpAddress(bytes) => addresses.push(address(bytes.as_bytes())?),
                        _ => {}
                    }
                }
            }
            "2.5.29.19" => authority = BasicConstraints::from_der(value).ok()?.ca,
            _ => {}
        }
    }
    // Go writes null where there is none.
    let list = |items: Vec<String>| if items.is_empty() { Json::Null } else { json!(items) };
    let serial: String = inner.serial_number.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(json!({
        "Subject": name(&inner.subject),
        "Issuer": name(&inner.issuer),
        "NotBefore": moment(inner.validity.not_before)?,
        "NotAfter": moment(inner.validity.not_after)?,
        "SerialNumberHex": serial,
        "DNSNames": list(names),
        "EmailAddresses": list(mails),
        "URIStrings": list(uris),
        "IPAddresses": list(addresses),
        "IsCA": authority,
        "Version": 1 + inner.version as u8,
        "Raw": STANDARD.encode(der),
        "RawSubjectPublicKeyInfo": STANDARD.encode(inner.subject_public_key_info.to_der().ok()?),
    }))
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        _ => None,
    }
}

/// A name by Go's parts of it (RFC 4519).
fn name(name: &Name) -> Json {
    let of = |oid: &str| -> Vec<String> {
        let wanted = ObjectIdentifier::new(oid).ok();
        let parts = name.0.iter().flat_map(|set| set.0.iter()).filter(|part| Some(part.oid) == wanted);
        parts.filter_map(|part| String::from_utf8(part.value.value().to_vec()).ok()).collect()
    };
    let list = |oid: &str| match of(oid) {
        items if items.is_empty() => Json::Null,
        items => json!(items),
    };
    let one = |oid: &str| of(oid).into_iter().next_back().unwrap_or_default();
    json!({
        "CommonName": one("2.5.4.3"),
        "SerialNumber": one("2.5.4.5"),
        "Country": list("2.5.4.6"),
        "Locality": list("2.5.4.7"),
        "Province": list("2.5.4.8"),
        "Organization": list("2.5.4.10"),
        "OrganizationalUnit": list("2.5.4.11"),
    })
}
