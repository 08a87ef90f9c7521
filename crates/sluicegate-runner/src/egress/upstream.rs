//! The proxy by which this machine itself reaches the network, if it has one.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sluicegate_types::Destination;

/// What the machine says about its way out, as in `HTTPS_PROXY` and `NO_PROXY`. Nothing is read here; whoever starts the program does.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamProxy {
    /// `http://[USER:PASSWORD@]HOST[:PORT]`, the scheme may be missing.
    pub url: String,
    /// Hosts that are reached without it, in the form of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("UpstreamProxy").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// A proxy that can be asked.
pub(crate) struct Upstream {
    host: String,
    port: u16,
    authorization: Option<String>,
    exempt: Vec<String>,
}

impl Upstream {
    /// Reads its URL. The text of an error does not repeat it, as it may hold a password.
    pub(crate) fn parse(url: &str, no_proxy: Option<&str>) -> Result<Self, String> {
        let wrong = || "the proxy of this machine (HTTPS_PROXY or ALL_PROXY) is no http://HOST:PORT".to_owned();
        let rest = match url.split_once("://") {
            None => url,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err("steps with a list of servers through a proxy that is itself asked by TLS (https:// in HTTPS_PROXY \
                            or ALL_PROXY): not in this version"
                    .to_owned());
            }
            Some(_) => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, rest),
        };
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (server, 80),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_ascii_lowercase(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || port == 0 || !host.chars().all(plain) {
            return Err(wrong());
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let mut pair = unescaped(name).ok_or_else(wrong)?;
                pair.push(b':');
                pair.extend(unescaped(password).ok_or_else(wrong)?);
                Some(format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(pair)))
            }
        };
        let exempt =
            no_proxy.into_iter().flat_map(|list| list.split(',')).map(|entry| entry.trim().to_ascii_lowercase());
        Ok(Self { host, port, authorization, exempt: exempt.filter(|entry| !entry.is_empty()).collect() })
    }

    /// Where it is.
    pub(crate) fn server(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The header with which it is asked; nothing if it wants to know nobody.
    pub(crate) fn authorization(&self) -> &str {
        self.authorization.as_deref().unwrap_or_default()
    }

    /// Whether a host is reached without it: by its very name, below a name with a dot in front, or everything by a star.
    pub(crate) fn exempts(&self, host: &str) -> bool {
        let matches = |entry: &String| {
            let suffix = entry.strip_prefix('*').unwrap_or(entry);
            match suffix.strip_prefix('.') {
                Some(domain) => host == domain || host.ends_with(suffix),
                None => suffix.is_empty() || host == suffix,
            }
        };
        self.exempt.iter().any(matches)
    }

    /// What is said to it for a tunnel.
    pub(crate) fn connect(&self, destination: &Destination) -> Vec<u8> {
        let shown = super::policy::shown(destination);
        format!("CONNECT {shown} HTTP/1.1\r\nHost: {shown}\r\n{}\r\n", self.authorization()).into_bytes()
    }
}

/// The status of an answer's head, if it is one.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.split(' ').next()?;
    let is_answer = matches!(version, "HTTP/1.1" | "HTTP/1.0") && digits.len() == 3;
    digits.parse().ok().filter(|status| is_answer && (100..600).contains(status))
}

/// `%41` is `A`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let value = (digit()? << 4) | digit()?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_as_the_fields_tools_write_it() {
        for (url, host, port) in [
            ("http://Proxy.example:3128", "proxy.example", 3128),
            ("proxy.example:3128/", "proxy.example", 3128),
            ("http://proxy.example", "proxy.example", 80),
            ("http://10.0.0.1:8080/", "10.0.0.1", 8080),
            ("http://[::1]:3128", "::1", 3128),
            ("http://[::1]", "::1", 80),
        ] {
            assert_eq!(Upstream::parse(url, None).unwrap().server(), (host, port), "{url}");
        }
        let known = Upstream::parse("http://me:p%40ss%25@proxy.example:1", None).unwrap();
        assert_eq!(known.authorization(), "Proxy-Authorization: Basic bWU6cEBzcyU=\r\n");
        let head = String::from_utf8(known.connect(&Destination { host: "::1".into(), port: 443 })).unwrap();
        assert!(head.starts_with("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Auth"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for url in [
            "https://me:word@p.example",
            "socks5://me:word@p.example",
            "http://me:word@",
            "http://me:word@p.example:x",
            "http://me:word%4@p.example",
            "http://me:word@p.example/path",
            "http://me:word@p.example:0",
            "http://me:word@a b",
        ] {
            let error = Upstream::parse(url, None).map(|_| ()).unwrap_err();
            assert!(!error.contains("word"), "{url}: {error}");
        }
        let shown = format!("{:?}", UpstreamProxy { url: "http://me:word@p.example".into(), no_proxy: None });
        assert!(!shown.contains("word"), "{shown}");
    }

    #[test]
    fn exempt_hosts_are_named_or_below_a_dot() {
        let proxy =
            Upstream::parse("p.example", Some(" .inner.example, Exact.example,*.star.example,10.1.2.3")).unwrap();
        for (host, exempt) in [
            ("a.inner.example", true),
            ("inner.example", true),
            ("exact.example", true),
            ("a.star.example", true),
            ("10.1.2.3", true),
            ("a.exact.example", false),
            ("xinner.example", false),
            ("10.1.2.4", false),
            ("a.example", false),
        ] {
            assert_eq!(proxy.exempts(host), exempt, "{host}");
        }
        assert!(Upstream::parse("p.example", Some("*")).unwrap().exempts("a.example"));
    }

    #[test]
    fn the_status_of_an_answer() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for no in ["SSH-2.0 200 x\r\n", "HTTP/1.1 20\r\n", "HTTP/1.1 9999\r\n", "HTTP/1.1 +20\r\n", "200\r\n", ""] {
            assert_eq!(status(no.as_bytes()), None, "{no}");
        }
    }
}
