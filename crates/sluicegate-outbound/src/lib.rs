#![forbid(unsafe_code)]
//! The way out of this machine: which certificate authorities count for a server, and which proxy leads to it.
//!
//! Registries are asked by `sluicegate-registry` and a log elsewhere by `sluicegate-sigstore`. Neither may know the other, and both must
//! trust the same servers and go the same way.

mod certificates;
mod proxy;

use std::{
    error::Error as _,
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use ureq::{
    Proxy,
    config::{Config, ConfigBuilder},
    http::Uri,
    tls::{Certificate, RootCerts, TlsConfig},
    typestate::AgentScope,
};
use url::Url;

/// The agent that is said to ask.
const USER_AGENT: &str = concat!("sluicegate/", env!("CARGO_PKG_VERSION"));
/// Bytes of all headers of an answer.
const MAX_HEADERS: usize = 64 * 1024;

/// What this machine says about its way to servers. Read by whoever starts the program; nothing here looks at the environment.
#[derive(Clone, Default)]
pub struct OutboundSettings {
    /// Folders in the form of Docker's `certs.d`: `HOST/*.crt` are certificate authorities that count for HOST alone.
    pub certificates: Vec<PathBuf>,
    /// The proxy to servers beyond this machine, as a URL.
    pub proxy: Option<String>,
    /// Hosts that are asked without it, in the form of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for OutboundSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        f.debug_struct("OutboundSettings").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Is told what a person should know and that stops nothing.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// The way to all servers.
pub struct Outbound {
    settings: OutboundSettings,
    warn: Warn,
    system: OnceLock<Vec<Certificate<'static>>>,
}

impl Outbound {
    /// Nothing is read yet.
    pub fn new(settings: OutboundSettings, warn: Warn) -> Self {
        Self { settings, warn, system: OnceLock::new() }
    }

    /// How the server of `url` is asked: without redirects, through the proxy or not, with the authorities that count for this host.
    pub fn agent_config(&self, url: &Url) -> Result<ConfigBuilder<AgentScope>, OutboundError> {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept("")
            .max_response_header_size(MAX_HEADERS)
            .no_delay(true)
            .proxy(self.proxy(url)?);
        Ok(if url.scheme() == "https" { config.tls_config(self.tls(&host_of(url))?) } else { config })
    }

    /// Whether a request goes through the proxy.
    pub fn is_proxied(&self, url: &Url) -> Result<bool, OutboundError> {
        let proxy = self.proxy(url)?;
        Ok(proxy.is_some_and(|proxy| !url.as_str().parse::<Uri>().is_ok_and(|uri| proxy.is_no_proxy(&uri))))
    }

    /// Whether a certificate authority of its own was given for this host: then nothing but TLS is spoken with it.
    pub fn has_own_certificates(&self, host: &str) -> bool {
        self.settings.certificates.iter().any(|folder| folder.join(host).is_dir())
    }

    /// What TLS has against the server of `url`, if that is what the error is about.
    pub fn tls_fault(&self, error: &ureq::Error, url: &Url) -> Option<TlsFault> {
        let tls = tls_error(error)?;
        let words = match tls {
            rustls::Error::InvalidCertificate(why) => {
                format!("its certificate is not to be trusted ({why:?}); {}", self.hint(url))
            }
            tls => format!("TLS: {tls}"),
        };
        Some(TlsFault { words, is_no_tls: matches!(tls, rustls::Error::InvalidMessage(_)) })
    }

    /// Where the authority of a server that is not trusted would stand.
    fn hint(&self, url: &Url) -> String {
        let host = host_of(url);
        match self.settings.certificates.first() {
            Some(folder) => format!(
                "if an authority of its own vouches for it, put that authority's certificate into {}",
                folder.join(&host).join("ca.crt").display()
            ),
            None => {
                format!("if an authority of its own vouches for it, its certificate goes into certs.d/{host}/ca.crt")
            }
        }
    }

    fn proxy(&self, url: &Url) -> Result<Option<Proxy>, OutboundError> {
        proxy::to(url, self.settings.proxy.as_deref(), self.settings.no_proxy.as_deref())
    }

    /// The system's authorities, and those of this host beside them.
    fn tls(&self, host: &str) -> Result<TlsConfig, OutboundError> {
        let own = certificates::of_host(&self.settings.certificates, host, self.warn.as_ref())?;
        let system = self.system.get_or_init(|| {
            let loaded = rustls_native_certs::load_native_certs();
            loaded.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        });
        let roots = RootCerts::from(system.iter().cloned().chain(own));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
    }
}

impl Default for Outbound {
    /// Straight to every server, with the system's authorities; nobody is warned.
    fn default() -> Self {
        Self::new(OutboundSettings::default(), Arc::new(|_| {}))
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What TLS has against a server. No other try does better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault {
    /// For a person.
    pub words: String,
    /// Whether what answered speaks no TLS.
    pub is_no_tls: bool,
}

/// What is wrong with the settings of this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// No address of a proxy. It may hold a password, so it is not said again.
    #[error("the proxy's address (HTTPS_PROXY or ALL_PROXY) is no http:// or https:// URL")]
    Proxy,
    /// Certificates that are there and cannot be used.
    #[error("the certificates of {host} in {}: {reason}", .path.display())]
    Certificates {
        /// Whose they are.
        host: String,
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The host of a URL with its port, if one is written and is not the usual one.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What TLS said, wherever it is wrapped.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    if let ureq::Error::Rustls(tls) = error {
        return Some(tls);
    }
    if let ureq::Error::Io(io) = error {
        return io.get_ref().and_then(|inner| inner.downcast_ref());
    }
    error.source().and_then(|source| source.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_proxy_is_not_shown() {
        let settings =
            OutboundSettings { proxy: Some("http://me:word@proxy.example".to_owned()), ..Default::default() };
        let outbound = Outbound::new(settings, Arc::new(|_| {}));
        assert!(!format!("{outbound:?}").contains("word"));
        assert!(outbound.is_proxied(&"https://a.example".parse().unwrap()).unwrap());
    }

    #[test]
    fn the_usual_port_is_no_part_of_a_host() {
        let host = |url: &str| host_of(&url.parse().unwrap());
        assert_eq!(host("https://A.example:443/x"), "a.example");
        assert_eq!(
            (host("https://a.example:8443"), host("http://a.example:443")),
            ("a.example:8443".into(), "a.example:443".into())
        );
    }
}
