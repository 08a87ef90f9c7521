//! Builtins of OPA that a gate needs and the engine has not, under OPA's own names and with its answers; and two of ours, for package
//! URLs and ranges of versions. Each depends on its arguments alone. What OPA leaves undefined is undefined here.

mod x509;

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ipnet::IpNet;
use regorus::{Engine, Value};
use ring::{digest, hmac};
use sluicegate_types::PackageUrl;

use crate::policy_error::PolicyError;

/// What a builtin gives for its arguments, of which there are as many as it says; `None` is undefined.
type Builtin = fn(&[Value]) -> Option<Value>;

/// Names, numbers of arguments and what they do.
const BUILTINS: &[(&str, u8, Builtin)] = &[
    ("array.flatten", 1, |arguments| flatten(&arguments[0])),
    ("crypto.hmac.equal", 2, |arguments| {
        let (one, other) = (text(&arguments[0])?, text(&arguments[1])?);
        // Every byte is looked at, wherever the first one differs.
        let differ = one.bytes().zip(other.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        let same = one.len() == other.len() && differ == 0;
        Some(Value::from(same))
    }),
    ("crypto.hmac.sha1", 2, |arguments| hmac_of(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, arguments)),
    ("crypto.hmac.sha256", 2, |arguments| hmac_of(hmac::HMAC_SHA256, arguments)),
    ("crypto.hmac.sha512", 2, |arguments| hmac_of(hmac::HMAC_SHA512, arguments)),
    ("crypto.sha1", 1, |arguments| digest_of(&digest::SHA1_FOR_LEGACY_USE_ONLY, &arguments[0])),
    ("crypto.sha256", 1, |arguments| digest_of(&digest::SHA256, &arguments[0])),
    ("crypto.x509.parse_certificates", 1, |arguments| x509::certificates(text(&arguments[0])?)),
    ("io.jwt.decode", 1, |arguments| jwt(text(&arguments[0])?)),
    ("net.cidr_contains_matches", 2, |arguments| contains_matches(&arguments[0], &arguments[1])),
    ("net.cidr_intersects", 2, |arguments| {
        let (one, other) = (network(text(&arguments[0])?)?, network(text(&arguments[1])?)?);
        Some(Value::from(one.contains(&other) || other.contains(&one)))
    }),
    ("net.cidr_merge", 1, |arguments| merge(&arguments[0])),
    ("purl.is_valid", 1, |arguments| Some(Value::from(text(&arguments[0])?.parse::<PackageUrl>().is_ok()))),
    ("purl.parse", 1, |arguments| purl(text(&arguments[0])?)),
    ("semver.satisfies", 2, |arguments| {
        let version = semver::Version::parse(text(&arguments[0])?).ok()?;
        let range = semver::VersionReq::parse(text(&arguments[1])?).ok()?;
        Some(Value::from(range.matches(&version)))
    }),
];

/// Whether `name` is one of them.
pub(crate) fn is_one(name: &str) -> bool {
    BUILTINS.iter().any(|(known, ..)| *known == name)
}

/// Puts them into `engine`.
pub(crate) fn add(engine: &mut Engine) -> Result<(), PolicyError> {
    for &(name, arguments, function) in BUILTINS {
        let extension = Box::new(move |given: Vec<Value>| {
            let whole = given.len() == usize::from(arguments);
            Ok(if whole { function(&given).unwrap_or(Value::Undefined) } else { Value::Undefined })
        });
        engine
            .add_extension(name.to_owned(), arguments, extension)
            .map_err(|error| PolicyError::Engine { reason: format!("cannot add {name}: {error}") })?;
    }
    Ok(())
}

fn text(value: &Value) -> Option<&str> {
    value.as_string().ok().map(AsRef::as_ref)
}

fn hex(bytes: &[u8]) -> Value {
    Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn digest_of(algorithm: &'static digest::Algorithm, value: &Value) -> Option<Value> {
    Some(hex(digest::digest(algorithm, text(value)?.as_bytes()).as_ref()))
}

/// Of a message and a key, in OPA's order.
fn hmac_of(algorithm: hmac::Algorithm, arguments: &[Value]) -> Option<Value> {
    let key = hmac::Key::new(algorithm, text(&arguments[1])?.as_bytes());
    Some(hex(hmac::sign(&key, text(&arguments[0])?.as_bytes()).as_ref()))
}

/// The members of a list, with those of the lists in it in their place.
fn flatten(value: &Value) -> Option<Value> {
    let mut flat = Vec::new();
    for item in value.as_array().ok()?.iter() {
        match item {
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            item => flat.push(item.clone()),
        }
    }
    Some(Value::from(flat))
}

/// Header, claims and signature of a JSON web token; nothing is verified, and OPA verifies nothing here either.
fn jwt(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let json = |part: &str| -> Option<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
        let value = Value::from_json_str(std::str::from_utf8(&bytes).ok()?).ok()?;
        value.as_object().is_ok().then_some(value)
    };
    let signature = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).ok()?;
    Some(Value::from(vec![json(header)?, json(claims)?, hex(&signature)]))
}

/// A network, or one address as a network of its own.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|network: IpNet| network.trunc())
}

/// Which of the second are in which of the first: of lists by number, of objects by key, of texts themselves. A member that is a list is
/// named by its first entry.
fn contains_matches(networks: &Value, others: &Value) -> Option<Value> {
    let (networks, others) = (named_networks(networks)?, named_networks(others)?);
    let mut found = Vec::new();
    for (name, network) in &networks {
        for (other_name, other) in &others {
            if network.contains(other) {
                found.push(Value::from(vec![name.clone(), other_name.clone()]));
            }
        }
    }
    Some(Value::from(found.into_iter().collect::<std::collections::BTreeSet<_>>()))
}

fn named_networks(value: &Value) -> Option<Vec<(Value, IpNet)>> {
    let of = |value: &Value| match value {
        Value::String(written) => network(written),
        Value::Array(items) => network(text(items.first()?)?),
        _ => None,
    };
    match value {
        Value::String(written) => Some(vec![(value.clone(), network(written)?)]),
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.map(|(number, item)| Some((Value::from(number as u64), of(item)?))).collect()
        }
        Value::Set(items) => items.iter().map(|item| Some((item.clone(), of(item)?))).collect(),
        Value::Object(fields) => fields.iter().map(|(key, item)| Some((key.clone(), of(item)?))).collect(),
        _ => None,
    }
}

/// The fewest networks that cover the same addresses.
fn merge(value: &Value) -> Option<Value> {
    let texts: Vec<&str> = match value {
        Value::Array(items) => items.iter().map(text).collect::<Option<_>>()?,
        Value::Set(items) => items.iter().map(text).collect::<Option<_>>()?,
        _ => return None,
    };
    let networks = texts.into_iter().map(network).collect::<Option<Vec<_>>>()?;
    let merged = IpNet::aggregate(&networks).into_iter().map(|network| Value::from(network.to_string()));
    Some(Value::from(merged.collect::<std::collections::BTreeSet<_>>()))
}

/// The parts of a package URL; those that it has not are empty.
fn purl(written: &str) -> Option<Value> {
    let purl: PackageUrl = written.parse().ok()?;
    let qualifiers: serde_json::Map<String, serde_json::Value> =
        purl.qualifiers().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Some(Value::from(serde_json::json!({
        "type": purl.kind(),
        "namespace": purl.namespace().unwrap_or_default(),
        "name": purl.name(),
        "version": purl.version().unwrap_or_default(),
        "qualifiers": qualifiers,
        "subpath": purl.subpath().unwrap_or_default(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of one expression, as JSON; `None` if it is undefined.
    fn value(expression: &str) -> Option<serde_json::Value> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        add(&mut engine).unwrap();
        engine.add_policy("a.rego".into(), format!("package a\nx := {expression}")).unwrap();
        match engine.eval_rule("data.a.x".into()).unwrap() {
            Value::Undefined => None,
            value => Some(serde_json::from_str(&value.to_json_str().unwrap()).unwrap()),
        }
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(value(r#"crypto.sha256("abc")"#), Some(sha256.into()));
        // RFC 4231, test case 2.
        let mac = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(value(r#"crypto.hmac.sha256("what do ya want for nothing?", "Jefe")"#), Some(mac.into()));
        assert_eq!(value("crypto.sha256(1)"), None);
    }

    #[test]
    fn versions_and_packages_are_compared_by_their_parts() {
        assert_eq!(value(r#"semver.satisfies("1.4.2", ">=1.2, <2")"#), Some(true.into()));
        assert_eq!(value(r#"semver.satisfies("2.0.0", "^1")"#), Some(false.into()));
        assert_eq!(value(r#"semver.satisfies("one", "^1")"#), None);
        let parsed = value(r#"purl.parse("pkg:deb/debian/zlib1g@1:1.2?arch=amd64")"#).unwrap();
        assert_eq!((&parsed["namespace"], &parsed["version"]), (&"debian".into(), &"1:1.2".into()));
        assert_eq!(parsed["qualifiers"]["arch"], "amd64");
        assert_eq!(value(r#"purl.parse("zlib1g")"#), None);
    }

    #[test]
    fn networks_and_tokens_are_read() {
        assert_eq!(value(r#"net.cidr_intersects("10.0.0.0/8", "10.1.2.3")"#), Some(true.into()));
        assert_eq!(value(r#"net.cidr_merge(["10.0.0.0/9", "10.128.0.0/9"])"#), Some(serde_json::json!(["10.0.0.0/8"])));
        let token = r#"io.jwt.decode("eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.AQI")"#;
        assert_eq!(value(token), Some(serde_json::json!([{"alg": "none"}, {"iss": "x"}, "0102"])));
        assert_eq!(value(r#"io.jwt.decode("a.b")"#), None);
        assert_eq!(value("array.flatten([1, [2, [3]], []])"), Some(serde_json::json!([1, 2, [3]])));
    }
}
