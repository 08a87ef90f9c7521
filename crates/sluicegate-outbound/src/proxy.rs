//! The proxy between this machine and a server.

use sluicegate_types::is_loopback;
use ureq::{Proxy, ProxyProtocol};
use url::Url;

use crate::{OutboundError, host_of};

/// The one that leads to `url`, if it is no address of this machine; what `no_proxy` exempts it leaves out itself.
pub(crate) fn to(url: &Url, proxy: Option<&str>, no_proxy: Option<&str>) -> Result<Option<Proxy>, OutboundError> {
    let Some(text) = proxy.filter(|text| !text.is_empty()) else { return Ok(None) };
    if is_loopback(&host_of(url)) {
        return Ok(None);
    }
    let wrong = || OutboundError::Proxy;
    let proxy: Url =
        if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }.map_err(|_| wrong())?;
    let protocol = match proxy.scheme() {
        "http" => ProxyProtocol::Http,
        "https" => ProxyProtocol::Https,
        _ => return Err(wrong()),
    };
    let mut builder = Proxy::builder(protocol)
        .host(proxy.host_str().ok_or_else(wrong)?)
        .port(proxy.port_or_known_default().ok_or_else(wrong)?);
    if !proxy.username().is_empty() {
        builder = builder.username(proxy.username());
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|h| !h.is_empty()) {
        builder = builder.no_proxy(host);
    }
    builder.build().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Outbound, OutboundSettings};

    fn outbound(proxy: &str, no_proxy: &str) -> Outbound {
        let (proxy, no_proxy) = (Some(proxy.to_owned()), Some(no_proxy.to_owned()));
        Outbound::new(OutboundSettings { proxy, no_proxy, ..OutboundSettings::default() }, Arc::new(|_| {}))
    }

    #[test]
    fn a_proxy_is_for_hosts_beyond_this_machine_that_are_not_exempt() {
        let exempting = outbound("proxy.example:3128", " .inner.example, exact.example,10.1.2.3");
        for (url, proxied) in [
            ("https://registry.example/v2/", true),
            ("https://inner.example.evil.example/", true),
            ("https://10.1.2.4/", true),
            ("https://registry.inner.example/v2/", false),
            ("https://exact.example:8443/", false),
            ("https://10.1.2.3/", false),
            ("http://127.0.0.1:5000/", false),
            ("http://localhost:5000/", false),
            ("http://[::1]:5000/", false),
        ] {
            assert_eq!(exempting.is_proxied(&url.parse().unwrap()), Ok(proxied), "{url}");
        }
        for (none, url) in [("", "https://a.example"), ("socks5://x", "http://127.0.0.1")] {
            assert!(to(&url.parse().unwrap(), Some(none), None).unwrap().is_none());
        }
        for wrong in ["socks5://me:word@proxy.example", "http://", "ftp://x"] {
            let error = outbound(wrong, "").is_proxied(&"https://a.example".parse().unwrap()).unwrap_err();
            assert!(error == OutboundError::Proxy && !error.to_string().contains("word"), "{error}");
        }
    }
}
