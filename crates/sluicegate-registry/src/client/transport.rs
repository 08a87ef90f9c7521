//! One request and its answer: connections, time. Nothing is followed, repeated or signed in for here.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_outbound::{Outbound, OutboundError, TlsFault, host_of};
use sluicegate_ports::images::{FaultKind, RegistryFault};
use ureq::{
    Agent, AsSendBody, Body, SendBody, Timeout,
    config::Config,
    http::{HeaderMap, Method, Request, Response, Uri, request::Builder},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};
use url::Url;

use super::{
    address::Nearness,
    fault::{Result, Said, fault},
};
use crate::settings::RegistrySettings;

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long nothing may come, or go, before a connection counts as dead; and how long a registry may think about what was sent to it.
const SILENCE: Duration = Duration::from_secs(30);
const THOUGHT: Duration = Duration::from_secs(60);
/// The longest that the bytes of one request may take beside its patience.
const LONGEST_TRAVEL: u64 = 24 * 60 * 60;
/// Bytes that are read from a connection at once; large, as layers are.
const BUFFER: usize = 256 * 1024;

/// A moment until which something may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// For a request and its repetitions: this machine's patience, and a second for each MiB that is said to travel, a day at most, as
    /// whoever says it may be wrong.
    pub(crate) fn new(patience: Duration, bytes: u64) -> Self {
        let travel = Duration::from_secs((bytes >> 20).min(LONGEST_TRAVEL));
        let now = Instant::now();
        Self(now.checked_add(patience.saturating_add(travel)).unwrap_or(now + Duration::from_secs(LONGEST_TRAVEL)))
    }

    /// Nothing if it is over.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// What is sent along.
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// As many bytes of a reader.
    Reader(&'a mut dyn Read, u64),
}

/// One request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) payload: Payload<'a>,
    pub(crate) deadline: Deadline,
    /// The nearest addresses that may be connected to, for an address that an answer led to.
    pub(crate) reach: Option<Nearness>,
}

/// An answer whose body is not read yet.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
    content: Content,
    /// What it was asked with, and no person gets to see.
    hidden: Vec<String>,
}

/// The body of an answer.
enum Content {
    /// Still on its way.
    Coming(Body),
    /// All of it.
    Here(Vec<u8>),
}

impl Answer {
    /// A header, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How many bytes it says it has.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// The same with its whole body here, which may have `limit` bytes.
    pub(crate) fn arrived(self, limit: u64) -> std::result::Result<Self, Broken> {
        let body = match self.content {
            Content::Coming(body) => body,
            Content::Here(_) => return Ok(self),
        };
        let what = format!("the answer of {}", place_of(&self.url));
        let mut bytes = Vec::new();
        match body.into_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes) {
            Ok(n) if n as u64 > limit => {
                let words = format!("{what} is larger than the limit of {limit} bytes");
                Err(fault(FaultKind::TooLarge, words).into())
            }
            Ok(_) => Ok(Self { content: Content::Here(bytes), ..self }),
            Err(error) => {
                let is_silence = is_silence(&error);
                let kind = if is_silence { FaultKind::Deadline } else { FaultKind::Unreachable };
                let fault = fault(kind, format!("{what} broke off: {error}"));
                Err(Broken { fault, passes: true, is_silence, is_no_tls: false })
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(crate) fn read(self, limit: u64) -> Result<Vec<u8>> {
        match self.arrived(limit).map_err(|broken| broken.fault)?.content {
            Content::Here(bytes) => Ok(bytes),
            Content::Coming(_) => Ok(Vec::new()),
        }
    }

    /// As much of the body as an error message needs; whatever happens to it is no matter.
    pub(crate) fn glimpse(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.into_reader().take(64 * 1024).read_to_end(&mut bytes);
        bytes
    }

    /// What it says went wrong. A registry that says back what it was asked with is not repeated.
    pub(crate) fn said(self) -> Said {
        let hidden = self.hidden.clone();
        let mut said = Said::parse(&self.glimpse());
        for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
            said.words = said.words.replace(secret, "***");
        }
        said
    }

    /// Lets a text that it was asked with be shown to no person.
    pub(crate) fn hide(&mut self, secret: String) {
        self.hidden.push(secret);
    }

    /// The body as it comes.
    pub(crate) fn into_reader(self) -> Box<dyn Read + Send> {
        match self.content {
            Content::Coming(body) => Box::new(body.into_reader()),
            Content::Here(bytes) => Box::new(Cursor::new(bytes)),
        }
    }
}

/// Whether nothing came for too long.
pub(crate) fn is_silence(error: &std::io::Error) -> bool {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
        || matches!(told, Some(ureq::Error::Timeout(_)))
}

/// A URL for a person: without its query, which may hold what signs it.
pub(crate) fn place_of(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_of(url), url.path())
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: RegistryFault,
    /// Whether another try may do better.
    pub(crate) passes: bool,
    /// Whether nothing was heard for too long.
    pub(crate) is_silence: bool,
    /// Whether what answered speaks no TLS.
    pub(crate) is_no_tls: bool,
}

impl From<RegistryFault> for Broken {
    /// What no other try does better.
    fn from(fault: RegistryFault) -> Self {
        Self { fault, passes: false, is_silence: false, is_no_tls: false }
    }
}

/// Connections to all servers, those of each kept apart.
pub(crate) struct Transport {
    outbound: Outbound,
    patience: Duration,
    agents: Mutex<BTreeMap<(String, Option<Nearness>), Agent>>,
}

impl Transport {
    pub(crate) fn new(settings: RegistrySettings) -> Self {
        let RegistrySettings { outbound, warn, patience, .. } = settings;
        Self { outbound: Outbound::new(outbound, warn), patience, agents: Mutex::default() }
    }

    /// Sends one request.
    pub(crate) fn send(&self, ask: Ask<'_>) -> std::result::Result<Answer, Broken> {
        let what = format!("{} {}", ask.method, place_of(ask.url));
        let agent = self.agent(ask.url, ask.reach)?;
        let Some(left) = ask.deadline.left() else {
            return Err(fault(FaultKind::Deadline, format!("{what}: the deadline went by")).into());
        };
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.url.as_str());
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let sized = |request: Builder, length: u64| request.header("content-length", length.to_string());
        let takes_body = matches!(ask.method, Method::POST | Method::PUT | Method::PATCH);
        let silence = if takes_body { THOUGHT } else { SILENCE };
        let time = Time { left, silence: silence.min(self.patience / 4) };
        let sent = match ask.payload {
            Payload::None if takes_body => run(&agent, sized(request, 0), &b""[..], time),
            Payload::None => run(&agent, request, (), time),
            Payload::Bytes(bytes) => run(&agent, sized(request, bytes.len() as u64), bytes, time),
            Payload::Reader(reader, length) => run(&agent, sized(request, length), SendBody::from_reader(reader), time),
        };
        match sent {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let (status, content) = (parts.status.as_u16(), Content::Coming(body));
                let hidden =
                    ask.headers.iter().filter(|(name, _)| *name == "authorization").flat_map(|(_, v)| secrets(v));
                let hidden = hidden.collect();
                Ok(Answer { status, headers: parts.headers, url: ask.url.clone(), content, hidden })
            }
            Err(error) => Err(broken(&what, &error, self.outbound.tls_fault(&error, ask.url))),
        }
    }

    fn agent(&self, url: &Url, reach: Option<Nearness>) -> Result<Agent> {
        let host = host_of(url);
        let key = (format!("{}://{host}", url.scheme()), reach);
        let locked = || fault(FaultKind::Configuration, "an earlier request of this process broke off");
        if let Some(agent) = self.agents.lock().map_err(|_| locked())?.get(&key) {
            return Ok(agent.clone());
        }
        let is_proxied = self.outbound.is_proxied(url).map_err(misconfigured)?;
        let within = if is_proxied { Within::of_proxied(url, reach)? } else { Within { reach } };
        let config = self.outbound.agent_config(url).map_err(misconfigured)?;
        let config = config.input_buffer_size(BUFFER).output_buffer_size(BUFFER).max_idle_connections_per_host(8);
        let agent = Agent::with_parts(config.build(), DefaultConnector::default(), within);
        self.agents.lock().map_err(|_| locked())?.insert(key, agent.clone());
        Ok(agent)
    }

    /// How near a server is at its farthest address, as far as it can be known; this decides nothing but how near its answers may lead.
    /// Whoever is asked through a proxy is looked for by nobody here.
    pub(crate) fn nearness(&self, url: &Url) -> Result<Nearness> {
        let address = address_of(url);
        if address.is_some() || self.outbound.is_proxied(url).map_err(misconfigured)? {
            return Ok(farthest(address));
        }
        let host = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let found = std::net::ToSocketAddrs::to_socket_addrs(&host);
        Ok(farthest(found.into_iter().flatten().map(|address| address.ip())))
    }

    /// Whether a certificate authority of its own was given for this host: then nothing but TLS is spoken with it.
    pub(crate) fn has_own_certificates(&self, host: &str) -> bool {
        self.outbound.has_own_certificates(host)
    }
}

/// How long a request may take in all, and how long nothing may come or go.
#[derive(Clone, Copy)]
struct Time {
    left: Duration,
    silence: Duration,
}

/// What stands in an `Authorization`: a token, or a pair and its password.
fn secrets(value: &str) -> Vec<String> {
    let Some((scheme, given)) = value.split_once(' ') else { return Vec::new() };
    let mut out = vec![given.to_owned()];
    if scheme == "Basic"
        && let Some(pair) = STANDARD.decode(given).ok().and_then(|pair| String::from_utf8(pair).ok())
    {
        out.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
    }
    out
}

fn run(
    agent: &Agent,
    request: Builder,
    body: impl AsSendBody,
    time: Time,
) -> std::result::Result<Response<Body>, ureq::Error> {
    let left = time.left;
    let request = agent
        .configure_request(request.body(body).map_err(ureq::Error::Http)?)
        .timeout_connect(Some(CONNECT_TIME.min(left)))
        .timeout_send_body(Some(left))
        .timeout_recv_response(Some(left))
        .timeout_recv_body(Some(left))
        .timeout_per_read(Some(time.silence))
        .timeout_per_write(Some(time.silence))
        .build();
    agent.run(request)
}

impl Within {
    /// Behind a proxy it is the proxy that finds addresses, and its own is no answer's. What stands in a URL as an address is known here.
    fn of_proxied(url: &Url, reach: Option<Nearness>) -> Result<Self> {
        match (address_of(url), reach) {
            (Some(address), Some(reach)) if Nearness::of(&address) > reach => {
                Err(fault(FaultKind::AddressRefused, format!("{}: {TOO_NEAR}", place_of(url))))
            }
            _ => Ok(Self { reach: None }),
        }
    }
}

/// The farthest of a server's addresses: whoever in the internet names a near one beside its own would else lead there. A server without
/// any, as its name could not be looked up, counts as public: that is the strict case and not the lenient one, as its answers then lead
/// to public addresses alone. What is no address of a server counts for nothing.
fn farthest(addresses: impl IntoIterator<Item = IpAddr>) -> Nearness {
    let all = addresses.into_iter().map(|address| Nearness::of(&address));
    all.filter(|near| *near != Nearness::Never).min().unwrap_or(Nearness::Public)
}

/// The address that stands in a URL in a host's place.
fn address_of(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

const TOO_NEAR: &str = "its address is in a network that an answer from there does not lead to";

/// Finds addresses, and leaves out those that are nearer than an answer may lead to.
#[derive(Debug)]
struct Within {
    reach: Option<Nearness>,
}

impl Resolver for Within {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let Some(reach) = self.reach else { return Ok(found) };
        let mut within = self.empty();
        for address in found.iter().filter(|address| Nearness::of(&address.ip()) <= reach) {
            within.push(*address);
        }
        if within.is_empty() {
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, TOO_NEAR)));
        }
        Ok(within)
    }
}

fn misconfigured(error: OutboundError) -> RegistryFault {
    fault(FaultKind::Configuration, error.to_string())
}

fn broken(what: &str, error: &ureq::Error, tls: Option<TlsFault>) -> Broken {
    let is_no_tls = tls.as_ref().is_some_and(|tls| tls.is_no_tls);
    let (kind, words, passes) = match (error, tls) {
        (_, Some(tls)) => (FaultKind::Unreachable, tls.words, false),
        (ureq::Error::Timeout(which @ (Timeout::Connect | Timeout::Resolve)), _) => {
            (FaultKind::Unreachable, format!("no connection in time ({which})"), true)
        }
        (ureq::Error::Timeout(which), _) => (FaultKind::Deadline, format!("it took too long ({which})"), true),
        (ureq::Error::Io(io), _) if is_silence(io) => (FaultKind::Deadline, format!("it took too long ({io})"), true),
        (ureq::Error::HostNotFound, _) => (FaultKind::Unreachable, "there is no such host".to_owned(), true),
        (ureq::Error::Io(io), _) if io.kind() == std::io::ErrorKind::PermissionDenied => {
            (FaultKind::AddressRefused, io.to_string(), false)
        }
        (ureq::Error::Io(io), _) => (FaultKind::Unreachable, io.to_string(), true),
        (ureq::Error::ConnectionFailed, _) => (FaultKind::Unreachable, "no connection".to_owned(), true),
        (ureq::Error::Protocol(error), _) => (FaultKind::OutOfForm, format!("it is no HTTP: {error}"), true),
        (other, _) => (FaultKind::Unreachable, other.to_string(), true),
    };
    let is_silence = match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(io) => is_silence(io),
        _ => false,
    };
    Broken { fault: fault(kind, format!("{what}: {words}")), passes, is_silence, is_no_tls }
}

#[cfg(test)]
mod tests {
    use sluicegate_outbound::OutboundSettings;

    use super::*;

    fn transport(proxy: &str) -> Transport {
        let outbound = OutboundSettings { proxy: Some(proxy.to_owned()), ..OutboundSettings::default() };
        Transport::new(RegistrySettings { outbound, ..RegistrySettings::default() })
    }

    #[test]
    fn nobody_looks_for_the_name_of_what_a_proxy_finds() {
        let transport = transport("proxy.example:3128");
        assert_eq!(transport.nearness(&"https://registry.test/".parse().unwrap()), Ok(Nearness::Public));
        assert_eq!(transport.nearness(&"https://10.9.9.9/".parse().unwrap()), Ok(Nearness::Private));
        let wrong = self::transport("socks5://x").nearness(&"https://registry.test/".parse().unwrap()).unwrap_err();
        assert_eq!(wrong.kind, FaultKind::Configuration);
    }

    #[test]
    fn a_server_that_cannot_be_looked_up_leads_to_public_addresses_alone() {
        let transport = transport("");
        let near = |host: &str| transport.nearness(&format!("https://{host}/").parse().unwrap()).unwrap();
        // A label of more than 63 bytes is no name of a host, so no server is asked for it.
        let unknown = near(&format!("{}.example", "x".repeat(64)));
        assert_eq!((unknown, near("localhost")), (Nearness::Public, Nearness::Loopback));
        // What it decides: an address on this machine, where nobody listens.
        let url = "https://127.0.0.1:1/".parse().unwrap();
        let led = |reach: Nearness| {
            let deadline = Deadline::new(Duration::from_secs(60), 0);
            let (method, headers, payload) = (Method::GET, Vec::new(), Payload::None);
            let sent = transport.send(Ask { method, url: &url, headers, payload, deadline, reach: Some(reach) });
            sent.map(|_| ()).unwrap_err().fault.kind
        };
        assert_eq!(led(unknown), FaultKind::AddressRefused);
        assert_eq!(led(near("localhost")), FaultKind::Unreachable);
    }

    #[test]
    fn nobody_is_asked_after_the_deadline() {
        let transport = transport("");
        // Nobody listens there.
        let url = "https://127.0.0.1:1/".parse().unwrap();
        let asked = |patience: u64| {
            let deadline = Deadline::new(Duration::from_secs(patience), 0);
            let (method, headers, payload) = (Method::GET, Vec::new(), Payload::None);
            let sent = transport.send(Ask { method, url: &url, headers, payload, deadline, reach: None });
            sent.map(|_| ()).unwrap_err().fault.kind
        };
        assert_eq!((asked(60), asked(0)), (FaultKind::Unreachable, FaultKind::Deadline));
    }

    #[test]
    fn a_near_address_beside_a_far_one_leads_nowhere_near() {
        let near = |addresses: &[&str]| farthest(addresses.iter().map(|address| address.parse().unwrap()));
        assert_eq!(near(&["93.184.216.34", "169.254.169.254"]), Nearness::Public);
        assert_eq!(near(&["fe80::1"]), Nearness::Public);
        assert_eq!(near(&["93.184.216.34", "10.1.2.3"]), Nearness::Public);
        assert_eq!(near(&["10.1.2.3", "0.0.0.0", "::1"]), Nearness::Private);
        assert_eq!(near(&["10.1.2.3", "10.1.2.4"]), Nearness::Private);
        assert_eq!(near(&["0.0.0.0", "127.0.0.1", "::1"]), Nearness::Loopback);
    }

    #[test]
    fn a_deadline_is_a_day_at_most_whatever_is_said_to_travel() {
        let hour = Duration::from_secs(3_600);
        let left = |bytes| Deadline::new(hour, bytes).left().unwrap();
        assert!(left(0) <= hour && left(60 << 20) > hour && left(60 << 20) <= hour + Duration::from_secs(60));
        assert!(left(u64::MAX) <= hour + Duration::from_secs(LONGEST_TRAVEL));
        assert!(
            Deadline::new(Duration::MAX, u64::MAX).left().is_some()
                && Deadline::new(Duration::ZERO, 0).left().is_none()
        );
    }
}
