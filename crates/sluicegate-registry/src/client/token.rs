//! Tokens of a registry's token service (distribution's token specification), kept for as long as they are good.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Deserialize;
use sluicegate_outbound::host_of;
use sluicegate_ports::images::FaultKind;
use sluicegate_types::Secret;
use url::Url;

use super::fault::{Result, fault};

/// Token services of other hosts that registries are known to have, beside those of a parent domain.
const KNOWN: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.digitalocean.com", "api.digitalocean.com")];
/// Bytes of a token service's answer and of a token.
pub(crate) const MAX_ANSWER: u64 = 1024 * 1024;
const MAX_TOKEN: usize = 64 * 1024;
/// How long before its end a token is not used any more.
const EARLY: u64 = 10;

/// The address of a token service, if name and password of this registry may be sent there: the registry's own server, a parent domain of
/// its host, a pair that is known, or one that was configured. Anywhere else, a registry would choose who gets to know a password.
pub(crate) fn service(registry: &Url, realm: &str, configured: &[(String, String)]) -> Result<Url> {
    let refuse = |why: &str| {
        let realm: String = realm.chars().take(200).filter(|c| !c.is_control()).collect();
        let host = host_of(registry);
        let words = format!(
            "{host} wants a token of {realm:?}: {why}; if that is its token service, SLUICEGATE_TOKEN_SERVICES={host}=HOST says so"
        );
        fault(FaultKind::TokenServiceElsewhere, words)
    };
    let url: Url = realm.parse().map_err(|_| refuse("that is no address"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(refuse("that is no plain address"));
    }
    if super::address::is_same_server(registry, &url) {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(refuse("that is another server, and not HTTPS"));
    }
    let (own, other) = (host_of(registry), host_of(&url));
    let is_parent = other.contains('.')
        && url.host().is_some_and(|host| matches!(host, url::Host::Domain(_)))
        && own.strip_suffix(&other).is_some_and(|rest| rest.ends_with('.'));
    let is_known = KNOWN.contains(&(own.as_str(), other.as_str()));
    let is_configured = configured.iter().any(|(registry, service)| *registry == own && *service == other);
    if is_parent || is_known || is_configured { Ok(url) } else { Err(refuse("that is another server than its own")) }
}

/// A token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    until: Option<Instant>,
}

/// Reads a token service's answer: `token` or `access_token`, whichever is there; without a lifetime it is good until it is refused.
pub(crate) fn parse(body: &[u8], now: Instant) -> std::result::Result<Token, &'static str> {
    #[derive(Deserialize)]
    struct Wire {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| "it is no JSON with a token")?;
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token =
        given(wire.token).or_else(|| given(wire.access_token)).ok_or("it has neither token nor access_token")?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its token is too long, or no token");
    }
    let seconds = wire.expires_in.and_then(|value| value.as_u64()).filter(|seconds| *seconds > 0);
    let until = seconds.map(|seconds| now + Duration::from_secs(seconds.saturating_sub(EARLY).min(86_400)));
    Ok(Token { secret: Secret::new(token.into_bytes()), until })
}

/// Tokens by scope.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<String, Token>>);

impl Tokens {
    pub(crate) fn get(&self, scope: &str, now: Instant) -> Option<Secret> {
        let tokens = self.0.lock().ok()?;
        let token = tokens.get(scope)?;
        token.until.is_none_or(|until| now < until).then(|| token.secret.clone())
    }

    pub(crate) fn put(&self, scope: &str, token: Token) {
        if let Ok(mut tokens) = self.0.lock() {
            tokens.insert(scope.to_owned(), token);
        }
    }

    /// Forgets a token that was refused, unless another one is there by now.
    pub(crate) fn forget(&self, scope: &str, refused: &Secret) {
        if let Ok(mut tokens) = self.0.lock()
            && tokens.get(scope).is_some_and(|token| token.secret == *refused)
        {
            tokens.remove(scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neg_realm_other_host_gets_no_credentials() {
        let configured = [("registry.example".to_owned(), "login.example".to_owned())];
        let goes = |registry: &str, realm: &str| service(&registry.parse().unwrap(), realm, &configured).is_ok();
        for (registry, realm) in [
            ("https://registry.example/v2/", "https://registry.example/token?x=y"),
            ("https://registry.gitlab.example/v2/", "https://gitlab.example/jwt/auth"),
            ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token"),
            ("https://registry.example/v2/", "https://login.example/token"),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5000/token"),
        ] {
            assert!(goes(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://registry.example/v2/", "https://evil.example/token"),
            ("https://registry.example/v2/", "https://registry.example.evil.example/token"),
            ("https://registry.example/v2/", "https://registry.example:444/token"),
            ("https://registry.example/v2/", "http://registry.example/token"),
            ("https://registry.example/v2/", "https://example/token"),
            ("https://notgitlab.example/v2/", "https://gitlab.example/token"),
            ("https://gitlab.example/v2/", "https://registry.gitlab.example/token"),
            ("https://registry.example/v2/", "https://user:word@registry.example/token"),
            ("https://registry.example/v2/", "https://registry.example/token#part"),
            ("https://registry.gitlab.example/v2/", "http://gitlab.example/jwt/auth"),
            ("https://registry.example/v2/", "http://login.example/token"),
            ("https://registry.example/v2/", "/token"),
            ("https://registry.example/v2/", ""),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:6000/token"),
            ("http://127.0.0.1:5000/v2/", "http://169.254.169.254/latest/meta-data"),
            ("https://x.login.example/v2/", "https://evil.login.example/token"),
        ] {
            assert!(!goes(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn ex_15_a_token_has_either_name_and_any_or_no_lifetime() {
        let now = Instant::now();
        let read =
            |body: &str| parse(body.as_bytes(), now).map(|t| String::from_utf8_lossy(t.secret.expose()).into_owned());
        assert_eq!(read(r#"{"token":"a","access_token":"b","expires_in":60}"#).unwrap(), "a");
        assert_eq!(read(r#"{"access_token":"b"}"#).unwrap(), "b");
        assert_eq!(read(r#"{"token":"","access_token":"b","expires_in":null}"#).unwrap(), "b");
        for bad in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":1}"#, "{\"token\":\"a\\nb\"}", r#"{"token":"a b"}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        let long = |length: usize| read(&format!(r#"{{"token":"{}"}}"#, "x".repeat(length)));
        assert!(long(MAX_TOKEN).is_ok() && long(MAX_TOKEN + 1).is_err());
        let tokens = Tokens::default();
        tokens.put("s", parse(br#"{"token":"a"}"#, now).unwrap());
        tokens.put("short", parse(br#"{"token":"a","expires_in":60}"#, now).unwrap());
        let later = now + Duration::from_secs(3600);
        assert!(
            tokens.get("s", later).is_some()
                && tokens.get("short", now).is_some()
                && tokens.get("short", later).is_none()
        );
        tokens.forget("s", &Secret::new(b"other".to_vec()));
        assert!(tokens.get("s", now).is_some());
        tokens.forget("s", &Secret::new(b"a".to_vec()));
        assert!(tokens.get("s", now).is_none());
    }
}
